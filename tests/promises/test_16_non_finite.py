"""Promise 16: a step whose loss or gradient is not finite is handled by the declared policy and counted.

`stop` changes nothing, fails with a message that says where and what to do, and the run can be taken up
again; `skip` leaves weights and optimiser alone while data and schedule advance, and is itself
reproducible across an interruption; `warn` updates all the same, and records it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import record, tiny_run

from lexarium.foundation.files import read_lines
from lexarium.foundation.types import Batch, NonFinite, UserError
from lexarium.studies.run import Attempt
from lexarium.training.program import EagerProgram
from lexarium.training.trainer import Trainer

BAD, SIZE = 6, 8


class Killed(BaseException):
    """Stands for the death of the process."""


def poison_gradient(value: float) -> Callable[[EagerProgram, dict], dict]:
    def poison(program: EagerProgram, sums: dict) -> dict:
        program.parameters[0].grad.view(-1)[3] = value
        return sums

    return poison


def poison_loss(program: EagerProgram, sums: dict) -> dict:
    return {**sums, "ce": torch.tensor(math.nan)}


POISONS = {
    "inf gradient": poison_gradient(math.inf),
    "nan gradient": poison_gradient(math.nan),
    "nan loss": poison_loss,
}


@pytest.fixture
def bad_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Spoil step 6 (counted from 0), however often it is carried out."""
    gradients = EagerProgram._gradients

    def spoil(how: str) -> None:
        def spoiled(self: EagerProgram, batches: list[Batch], denominators: Any) -> dict:
            sums = gradients(self, batches, denominators)
            return POISONS[how](self, sums) if batches[0].examples[0] == BAD * SIZE else sums

        monkeypatch.setattr(EagerProgram, "_gradients", spoiled)

    return spoil


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[dict, dict]]:
    """Weights and optimiser state before and after every step."""
    found: dict[int, tuple[dict, dict]] = {}
    advance = Trainer.advance

    def snapshot(trainer: Trainer) -> dict[str, torch.Tensor]:
        tensors = {n: p.detach().clone() for n, p in trainer.program.step.named_parameters()}
        for i, state in enumerate(trainer.program.optimizer.state.values()):
            tensors |= {f"{i}/{k}": v.clone() for k, v in state.items()}
        return tensors

    def watch(self: Trainer) -> Any:
        step, before = self.step, snapshot(self)
        try:
            return advance(self)
        finally:
            found[step] = before, snapshot(self)

    monkeypatch.setattr(Trainer, "advance", watch)
    return found


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("how", POISONS)
def test_stop_changes_nothing_and_says_what_to_do(how: str, tmp_path: Path, bad_step, watched) -> None:
    run = tiny_run(tmp_path)
    bad_step(how)
    with pytest.raises(NonFinite, match=rf"step {BAD}: .*no parameter was changed.*train\.non_finite"):
        run.train()
    assert sorted(watched) == list(range(BAD + 1))
    before, after = watched[BAD]
    assert equal(before, after)
    assert not equal(*watched[BAD - 1])
    status = run.files.status()
    assert status["state"] == "failed" and f"step {BAD}" in status["message"]
    assert "NonFinite" in (run.path / "logs" / "failure-1.txt").read_text()
    with pytest.raises(UserError, match=r"failed before .*--retry"):
        run.train()


def test_stop_and_retry_ends_as_if_it_had_not_happened(tmp_path: Path, monkeypatch, bad_step) -> None:
    """A fault of the machine, not of the run: after it is mended the run goes on from its checkpoint."""
    run, healthy = tiny_run(tmp_path / "a"), tiny_run(tmp_path / "b")
    with monkeypatch.context():
        bad_step("inf gradient")
        with pytest.raises(NonFinite):
            run.train()
    monkeypatch.undo()
    assert run.train(retry=True) == healthy.train() == "done"
    assert record(run) == record(healthy)


@pytest.mark.parametrize("how", POISONS)
def test_skip_leaves_weights_alone_and_goes_on(how: str, tmp_path: Path, bad_step, watched) -> None:
    run = tiny_run(tmp_path, train={"non_finite": "skip", "log_every": 1})
    healthy = tiny_run(tmp_path, train={"log_every": 1})
    healthy.train()
    watched.clear()
    bad_step(how)
    assert run.train() == "done"
    assert equal(*watched[BAD])
    assert not equal(*watched[BAD + 1])
    metrics, expected = run.files.metrics(), healthy.files.metrics()
    assert [m["skipped"] for m in metrics] == [0] * BAD + [1] * (12 - BAD)
    assert [m["non_finite"] for m in metrics] == [m["skipped"] for m in metrics]
    for name in ("step", "epoch", "tokens", "lr"):  # data and schedule advance
        assert [m[name] for m in metrics] == [m[name] for m in expected]
    assert [m["train.ce"] for m in metrics[:BAD]] == [m["train.ce"] for m in expected[:BAD]]
    events = [e for e in read_lines(run.path / "events.jsonl") if e["event"] == "step was not finite"]
    assert [(e["step"], e["policy"]) for e in events] == [(BAD, "skip")]


@pytest.mark.parametrize("kill", [BAD, BAD + 1, 9], ids=["at", "just after", "later"])
def test_skip_is_reproducible_across_an_interruption(
    kill: int, tmp_path: Path, bad_step, monkeypatch
) -> None:
    bad_step("inf gradient")
    settings = {"train": {"non_finite": "skip"}, "checkpoint": {"every": 4}}
    whole, cut = tiny_run(tmp_path / "whole", **settings), tiny_run(tmp_path / "cut", **settings)
    whole.train()
    with monkeypatch.context() as patch:
        advance = Trainer.advance

        def dies(self: Trainer) -> Any:
            if self.step == kill:
                raise Killed
            return advance(self)

        patch.setattr(Trainer, "advance", dies)
        patch.setattr(Attempt, "fail", lambda *args: None)
        with pytest.raises(Killed):
            cut.train()
    assert cut.train() == "done"
    assert record(cut) == record(whole)
    assert '"grad_norm":"inf"' in record(cut)["metrics at 10"]


def test_warn_updates_and_counts(tmp_path: Path, bad_step, watched) -> None:
    run = tiny_run(
        tmp_path, train={"non_finite": "warn", "log_every": 1, "max_steps": BAD + 2, "clip_norm": 0.0}
    )
    bad_step("inf gradient")
    assert run.train() == "done"
    assert not equal(*watched[BAD])
    metrics = run.files.metrics()
    assert [m["non_finite"] for m in metrics] == [0] * BAD + [1, 2]
    assert {m["skipped"] for m in metrics} == {0}
    assert metrics[BAD]["grad_norm"] == "inf"
    evaluations = {(name, step): values for name, step, values in run.files.evaluations()}
    assert evaluations["loss", 8]["val"] == "inf", "a broken model must not look good for what it left out"
    assert evaluations["loss", 8]["val.tokens"] == evaluations["loss", 0]["val.tokens"]
    events = [e for e in read_lines(run.path / "events.jsonl") if e["event"] == "step was not finite"]
    assert [(e["step"], e["policy"]) for e in events] == [(BAD, "warn"), (BAD + 1, "warn")]


def test_the_policy_is_part_of_the_name(tmp_path: Path) -> None:
    names = {tiny_run(tmp_path, train={"non_finite": p}).path.name for p in ("stop", "skip", "warn")}
    assert len(names) == 3


def test_a_real_explosion_is_stopped(tmp_path: Path) -> None:
    """No fault injected: a learning rate that no model survives."""
    run = tiny_run(
        tmp_path,
        optimizer={"type": "sgd", "lr": 1e30},
        train={"clip_norm": 0.0},
        schedule={"type": "constant"},
    )
    with pytest.raises(NonFinite, match=r"Lower optimizer\.lr"):
        run.train()
