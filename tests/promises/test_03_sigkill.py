"""Promise 3: a process killed with SIGKILL at any moment, also while saving, resumes from the newest complete
checkpoint and ends as the run that was never killed.

It saves at every step, so that a kill at a random moment falls into a save about as often as between two;
other kills are placed inside a save: half of a file is written and the process is gone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from tests import processes
from tests.builders import record, tiny_run

from lexarium.foundation import files
from lexarium.studies.run import Run

SETTINGS = {
    "train": {"max_steps": 40, "log_every": 3},
    "checkpoint": {"every": 1},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 5}],
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def train(path: str, fatal: int) -> str:
    """Train a run in this process, which kills itself half-way through its n-th write below `checkpoints`."""
    write, writes = files._write, 0

    def dying_write(descriptor: int, data: bytes) -> None:
        nonlocal writes
        in_a_save = "/checkpoints/" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
        writes += in_a_save
        if in_a_save and writes == fatal:
            os.write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(descriptor, data)

    files._write = dying_write
    return Run.open(path).train(progress=processes.tell)


def train_and_kill(path: Path, delay: float, fatal: int) -> None:
    """Kill the training process `delay` seconds after its first boundary, or at the `fatal`-th write of a save."""
    child = processes.start(train, str(path), fatal)
    child.receive()
    if not fatal:
        time.sleep(delay)
        child.kill()
    assert child.join() in (-signal.SIGKILL, 0)


def cut_saves(path: Path) -> int:
    """Saves that were cut; every checkpoint that can be seen must be complete."""
    for step in (path / "checkpoints").glob("step-*"):
        files.verify(step)
    return len(list((path / "checkpoints").glob(".step-*.tmp")))


def kill_until_done(folder: Path, delays: list[float], fatal: list[int]) -> tuple[Run, int]:
    """Kill a run again and again, then let it finish; the run and how many saves were cut."""
    run, cut = tiny_run(folder, **SETTINGS), 0
    for delay, write in zip(delays, fatal, strict=True):
        train_and_kill(run.path, delay, write)
        cut += cut_saves(run.path)
    assert processes.start(train, str(run.path), 0).result() == "done"
    assert not list((run.path / "checkpoints").glob(".*")), "leftovers of cut saves remain"
    return run, cut


def reference(folder: Path) -> dict[str, str]:
    run = tiny_run(folder, **SETTINGS)
    run.train()
    return record(run)


def test_three_kills(tmp_path: Path) -> None:
    delays = [0.3 * random.random(), 0.0, 0.3 * random.random()]
    run, cut = kill_until_done(tmp_path / "killed", delays, [0, 6, 0])
    assert cut >= 1, "the kill inside a save left no trace of one"
    assert record(run) == reference(tmp_path / "reference")


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    delays = [0.1 * random.random() for _ in range(20)]
    fatal = [0 if i % 4 else 1 + i // 4 % 4 for i in range(20)]  # each of the four files of a checkpoint
    run, cut = kill_until_done(tmp_path / "killed", delays, fatal)
    found, expected = record(run), reference(tmp_path / "reference")
    equal = sum(found.get(k) == v for k, v in expected.items())
    attempts = run.files.status()["attempts"]
    print(
        f"\n20 kills, {attempts} attempts, {cut} saves cut short, {equal} of {len(expected)} hashes equal to those"
        " of the uninterrupted run"
    )
    assert found == expected
