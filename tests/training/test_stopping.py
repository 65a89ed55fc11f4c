"""Stopping politely: signals and deadlines end with a saved state and the right exit status; a plan that changed
is recorded; a process whose directory was taken over writes nothing more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import processes
from tests.builders import record, tiny_config, tiny_run

from lexarium.evaluations.loss import Loss
from lexarium.foundation.files import read_lines
from lexarium.foundation.lock import OWNER, Held
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run
from lexarium.studies.run_config import evaluation_identity
from lexarium.training import checkpoint, signals
from lexarium.training.signals import INTERRUPTED, REQUEUE, StopFlag


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run = tiny_run(tmp_path_factory.mktemp("whole"))
    run.train()
    return record(run)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, REQUEUE),
        (signal.SIGUSR1, REQUEUE),
        (signal.SIGUSR2, REQUEUE),
        (signal.SIGINT, INTERRUPTED),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_saves_and_asks_to_be_queued_again(number: Any, status: int, tmp_path: Path, whole) -> None:
    run, flag = tiny_run(tmp_path), StopFlag()
    before = signal.getsignal(number)
    assert run.train(flag, progress=lambda s: signal.raise_signal(number) if s == 7 else None) == "preempted"
    assert flag.exit_status == status
    assert signal.getsignal(number) == before, "the handler outlived the training"
    found = run.files.status()
    assert (found["state"], found["step"]) == ("preempted", 7), "within one step"
    assert number.name in found["message"] or "keyboard" in found["message"]
    assert checkpoint.newest(run.path) == (7, [])
    assert run.train() == "done"
    assert record(run) == whole


def test_the_numbers() -> None:
    assert (REQUEUE, INTERRUPTED) == (124, 130)


def train_and_exit(path: str) -> None:
    """What a launcher's process does: exit with the status of the flag."""
    flag = StopFlag()
    Run.open(path).train(flag, progress=processes.tell)
    os._exit(flag.exit_status)


def test_a_process_that_is_told_to_end_does_so_within_a_step(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={"max_steps": 100_000})
    child = processes.start(train_and_exit, str(run.path))
    while child.receive()[1] < 3:
        pass
    os.kill(child.process.pid, signal.SIGTERM)
    assert child.join() == REQUEUE
    status = run.files.status()
    assert status["state"] == "preempted" and "SIGTERM" in status["message"]
    assert checkpoint.newest(run.path) == (status["step"], [])


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """What was saved before stays valid."""
    run = tiny_run(tmp_path)

    def impatient(step: int) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run.train(StopFlag(), progress=impatient)
    assert run.files.status()["state"] == "preempted"
    assert checkpoint.newest(run.path) == (5, [])
    assert run.train() == "done"


def test_the_first_reason_stays() -> None:
    flag = StopFlag()
    flag.raise_flag("first", 124)
    flag.raise_flag("second", 130)
    assert (flag.raised, flag.reason, flag.exit_status) == (True, "first", 124)


def test_requeue_deadline(tmp_path: Path, whole, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    run, flag = tiny_run(tmp_path), StopFlag(requeue_after_hours=0.5)
    assert not flag.raised

    def pass_time(step: int) -> None:
        now[0] = 1000.0 + step * 200  # half an hour is over at step 9

    assert run.train(flag, progress=pass_time) == "preempted"
    assert run.files.status()["step"] == 9 and flag.exit_status == REQUEUE
    assert "--requeue-after" in run.files.status()["message"]
    monkeypatch.undo()
    assert run.train() == "done"
    assert record(run) == whole


def test_a_deadline_that_is_over_at_once_saves_step_0(tmp_path: Path) -> None:
    run, flag = tiny_run(tmp_path), StopFlag(requeue_after_hours=0.0)
    assert run.train(flag) == "preempted"
    assert checkpoint.newest(run.path) == (0, [])


def test_rolling_checkpoints_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard kill costs minutes, not the run: `checkpoint.minutes`."""
    from lexarium.studies import listeners

    now = [0.0]
    monkeypatch.setattr(listeners.time, "monotonic", lambda: now[0])
    run = tiny_run(tmp_path, checkpoint={"every": 0, "minutes": 2.0, "keep": 9})

    def pass_time(step: int) -> None:
        now[0] = 50.0 * step

    run.train(progress=pass_time)
    assert checkpoint.steps(run.path) == [3, 6, 9, 12]


# --- plan and attempts ------------------------------------------------------------------------------


def test_a_changed_plan_is_logged(tmp_path: Path) -> None:
    run, flag = tiny_run(tmp_path), StopFlag()
    run.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 7 else None)
    changed = tiny_run(tmp_path, train={"micro_batch_size": 2}, plan={"threads": 2})
    assert changed.path == run.path, "the plan is not part of the science"
    assert changed.train() == "done"
    events = read_lines(run.path / "events.jsonl")
    assert [e["event"] for e in events] == ["start", "preempted", "plan changed", "resume", "done"]
    assert events[2]["changed"] == {"micro_batch_size": [4, 2], "threads": [1, 2]}
    assert json.loads((run.path / "plan.json").read_text())["threads"] == 2
    assert [e["attempt"] for e in events if "attempt" in e] == [1, 2]
    again = tiny_run(tmp_path, train={"micro_batch_size": 2}, plan={"threads": 2})
    assert again.train() == "done"
    assert len(read_lines(run.path / "events.jsonl")) == len(events), "a finished run is left alone"


def test_status_of_a_failed_run_and_its_trace(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)

    def fail(step: int) -> None:
        if step == 6:
            raise RuntimeError("the ceiling came down")

    with pytest.raises(RuntimeError):
        run.train(progress=fail)
    status = run.files.status()
    assert (status["state"], status["message"]) == ("failed", "RuntimeError: the ceiling came down")
    assert "the ceiling came down" in (run.path / "logs" / "failure-1.txt").read_text()
    assert not (run.path / OWNER).exists()
    assert run.train(retry=True) == "done"
    assert run.files.status()["attempts"] == 2


def test_a_run_cannot_be_trained_twice_at_once(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={"max_steps": 100_000})
    child = processes.start(train_and_exit, str(run.path))
    child.receive()
    assert run.files.status()["state"] == "running"
    with pytest.raises(Held, match=rf"in use by process {child.process.pid}"):
        Run.open(run.path).train()
    assert run.files.status()["state"] == "running", "the refused one must not touch the status"
    child.kill()
    child.join()
    assert run.files.status()["state"] == "preempted"


def test_a_process_that_lost_its_directory_writes_nothing_more(tmp_path: Path) -> None:
    """Its owner file now names another: it must not log, save, or say that the run failed."""
    run = tiny_run(tmp_path, train={"log_every": 1})
    snapshot: dict[str, bytes] = {}

    def lose(step: int) -> None:
        if step == 6 and not snapshot:
            owner = json.loads((run.path / OWNER).read_text())
            (run.path / OWNER).write_text(json.dumps({**owner, "nonce": "another"}))
            snapshot.update(contents(run.path))

    with pytest.raises(Held, match="taken over by another process"):
        run.train(progress=lose)
    assert contents(run.path) == snapshot
    (run.path / OWNER).unlink()
    assert run.train() == "done"


def contents(path: Path) -> dict[str, bytes]:
    skip = ("owner.heartbeat",)
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name not in skip
    }


def test_waiting_costs_no_time(tmp_path: Path) -> None:
    """Joining the heartbeat thread at the end does not wait for its next beat."""
    run = tiny_run(tmp_path, train={"max_steps": 1}, evaluations=[])
    run.train()
    run.files.set_status(state="running")
    begun = time.monotonic()
    run.train()
    assert time.monotonic() - begun < 1.9


def test_a_mistake_before_the_first_update_does_not_mark_the_run_as_failed(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, plan={"device": "cuda"})
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(UserError, match="cuda"):
        run.train()
    assert run.files.status()["state"] == "waiting"
    assert tiny_run(tmp_path).path == run.path and tiny_run(tmp_path).train() == "done"


def test_a_finished_run_whose_last_checkpoint_is_gone_is_trained_on(tmp_path: Path) -> None:
    run, told = tiny_run(tmp_path), []
    run.train()
    before = record(run)
    shutil.rmtree(run.path / "checkpoints" / "step-00000012")
    assert run.train(say=told.append) == "done"
    assert "its last checkpoint is gone" in told[0]
    assert record(run) == before


def test_an_evaluation_that_breaks_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_run(tmp_path / "whole", checkpoint={"every": 0})
    whole.train()
    run, evaluate = tiny_run(tmp_path / "broken", checkpoint={"every": 0}), Loss.run

    def breaks(self: Loss, scorer: Any, key: int) -> Any:
        if run.files.evaluation_file("loss", 4).exists():
            raise RuntimeError("out of memory")
        return evaluate(self, scorer, key)

    with monkeypatch.context() as patch:
        patch.setattr(Loss, "run", breaks)
        with pytest.raises(RuntimeError, match="out of memory"):
            run.train()
    assert run.files.status()["state"] == "failed" and checkpoint.newest(run.path)[0] == 8
    assert run.train(retry=True) == "done"
    assert record(run) == record(whole)


def test_a_changed_file_is_another_question(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    asked = lambda: evaluation_identity(
        tiny_config(evaluations=[{"type": "rule_choice", "data": str(file)}]).evaluations[0]
    )
    file.write_text("our newt does wait . quest\tdoes our newt wait ?\n")
    before = asked()
    file.write_text("our newts do wait . quest\tdo our newts wait ?\n")
    assert {k for k in before if before[k] != asked()[k]} == {"data_sha256"}


def test_the_last_log_line_reaches_the_step_where_stop_when_ended_training(tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path,
        evaluations=[{"type": "loss", "splits": ["val"], "every": 4}],
        stop_when={"metric": "loss.val", "above": 0.0},
        train={"log_every": 3},
        checkpoint={"every": 0},
    )
    assert run.train() == "done" and run.files.status()["step"] == 0
    later = tiny_run(
        tmp_path,
        evaluations=[{"type": "loss", "splits": ["val"], "at": [4]}],
        stop_when={"metric": "loss.val", "above": 0.0},
        train={"log_every": 3},
    )
    assert later.train() == "done" and later.files.status()["step"] == 4
    assert [r["step"] for r in later.files.metrics()] == [3, 4]
