"""Promise 3: a process killed with SIGKILL at any moment, also while saving, resumes from the newest complete
checkpoint and ends as the run that was never killed.

The process is a real one. It saves at every step, so that a kill at a random moment falls into a save
about as often as between two; other kills are placed inside a save: half of a file is written and the
process is gone.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexarium.foundation.files import verify
from lexarium.studies.run import Run
from tests.builders import record, tiny_run

STEPS = 40
SETTINGS = {
    "train": {"max_steps": STEPS, "log_every": 3},
    "checkpoint": {"every": 1},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 5}],
}

CHILD = """
import os, signal, sys
from lexarium.foundation import files
from lexarium.studies.run import Run

fatal, write, writes = int(sys.argv[2]), files._write, 0

def dying_write(descriptor, data):
    global writes
    writes += "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}")
    if writes == fatal:
        os.write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(descriptor, data)

files._write = dying_write
Run.open(sys.argv[1]).train(progress=lambda step: print(step, flush=True))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def train_and_kill(path: Path, delay: float, fatal_write: int = 0) -> None:
    """Train in a process of its own; kill it `delay` seconds after its first step, or at the n-th write of a save."""
    command = [sys.executable, "-c", CHILD, str(path), str(fatal_write)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the process died before its first step"
        if not fatal_write:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait(timeout=120)
    assert process.returncode in (-signal.SIGKILL, 0)


def partial_saves(path: Path) -> int:
    """Saves that were cut; every checkpoint that can be seen must be complete."""
    for step in (path / "checkpoints").glob("step-*"):
        verify(step)
    return len(list((path / "checkpoints").glob(".step-*.tmp")))


def kill_until_done(folder: Path, delays: list[float], fatal_writes: list[int]) -> tuple[Run, int]:
    """Kill a run again and again, then let it finish; the run and how many saves were cut."""
    run, cut = tiny_run(folder, **SETTINGS), 0
    for delay, fatal in zip(delays, fatal_writes, strict=True):
        train_and_kill(run.path, delay, fatal)
        cut += partial_saves(run.path)
    assert Run.open(run.path).train() == "done"
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
    delays = [0.25 * random.random() for _ in range(20)]
    fatal_writes = [0 if i % 4 else 1 + i // 4 % 4 for i in range(20)]  # each of the four files of a checkpoint
    run, cut = kill_until_done(tmp_path / "killed", delays, fatal_writes)
    found, expected = record(run), reference(tmp_path / "reference")
    equal = sum(found[k] == v for k, v in expected.items())
    attempts = run.files.status()["attempts"]
    print(
        f"\n20 kills, {attempts} attempts, {cut} saves cut short, {equal} of {len(expected)} hashes equal to those"
        " of the uninterrupted run"
    )
    assert found == expected
