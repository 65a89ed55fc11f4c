"""Promise 2: a run that is killed anywhere and resumed ends exactly as one that was never interrupted.

Killed at a step, at the end of an epoch, between two micro-batches, inside an evaluation, inside a save;
compared field by field: weights, optimiser state, trainer state, metrics and evaluations. The default run
pairs every kill point with some arm and every arm with some kill point; the whole product is slow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import ENCODER_DECODER, LAYERED, RECURRENT, TRANSFORMER, record, tiny_run

from lexarium.evaluations.scorer import Scorer
from lexarium.foundation.files import Directory
from lexarium.studies.run import Attempt, Run
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep
from phonemes import JOINED

BACKWARD = {"type": "backward"}
ARMS: dict[str, dict[str, Any]] = {
    "transformer forward": {"model": TRANSFORMER},
    "transformer backward": {"model": TRANSFORMER, "direction": BACKWARD},
    "recurrent forward": {"model": RECURRENT},
    "recurrent backward": {"model": RECURRENT, "direction": BACKWARD},
    "encoder_decoder seq2seq": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "windows, workers, momentum": {
        "packing": {"type": "windows", "seq_len": 24},
        "plan": {"device": "cpu", "workers": 2},
        "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9},
    },
    "losses of layers": {**LAYERED, "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9}},
    "utterances joined anew": {
        **JOINED,
        "checkpoint": {"every": 4, "best": {"metric": "segmentation.val.bits_per_symbol"}},
        "evaluations": [
            {"type": "segmentation", "window": 12, "every": 3},
            {"type": "loss", "splits": ["val"], "every": 3},
        ],
    },
    "12 steps by epochs": {
        "model": TRANSFORMER,
        "train": {"max_steps": None, "epochs": 2.5},
        "optimizer": {"type": "adamw", "lr": 3e-3, "weight_decay": 0.01, "decay": "all"},
    },
}
# 40 documents are 5 steps of 8; checkpoints at 4, 8, 12; evaluations at 0, 3, ..., 12; log lines at 5, 10, 12
COMMON: dict[str, Any] = {
    "corpus": {"type": "question_formation", "sizes": {"train": 40, "val": 20, "test": 0, "ood": 20}},
    "checkpoint": {"every": 4},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 3}],
}


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it."""


def at_call(method: Callable, n: int, when: Callable[..., bool] = lambda *a, **k: True) -> Callable:
    """`method` that dies at the start of the n-th call (from 0) for which `when` holds."""
    calls = itertools.count()

    def dies(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs) and next(calls) == n:
            raise Killed
        return method(*args, **kwargs)

    return dies


def after_commit(method: Callable) -> Callable:
    """`Directory.commit` that dies just after the checkpoint of step 8 has appeared."""

    def dies(self: Directory, **manifest: Any) -> None:
        method(self, **manifest)
        if self.path.name == "step-00000008":
            raise Killed

    return dies


optimizer_file = lambda self, name, data: name == "optimizer.safetensors"

KILLS: dict[str, tuple[Any, str, Callable[[Callable], Callable]]] = {
    "before step 1": (EagerProgram, "update", lambda m: at_call(m, 0)),
    "after step 1": (EagerProgram, "update", lambda m: at_call(m, 1)),
    "mid-epoch": (EagerProgram, "update", lambda m: at_call(m, 7)),
    "epoch end": (EagerProgram, "update", lambda m: at_call(m, 5)),
    "just after a checkpoint": (EagerProgram, "update", lambda m: at_call(m, 8)),
    "during accumulation": (TrainStep, "forward", lambda m: at_call(m, 2 * 6 + 1)),
    "inside evaluation": (Scorer, "token_scores", lambda m: at_call(m, 2)),
    "inside checkpoint writing": (Directory, "write", lambda m: at_call(m, 1, optimizer_file)),
    "between rename and pruning": (Directory, "commit", after_commit),
    "inside the last evaluation": (Scorer, "token_scores", lambda m: at_call(m, 4)),
}

PAIRS = [(kill, list(ARMS)[i % len(ARMS)]) for i, kill in enumerate(KILLS)]
REST = [pair for pair in itertools.product(KILLS, ARMS) if pair not in PAIRS]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """The record of the uninterrupted run of an arm, trained once."""
    known: dict[str, dict[str, str]] = {}

    def of(arm: str) -> dict[str, str]:
        if arm not in known:
            run = tiny_run(tmp_path_factory.mktemp("reference"), **{**COMMON, **ARMS[arm]})
            assert run.train() == "done"
            known[arm] = record(run)
        return known[arm]

    return of


def interrupted(run: Run, kill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the kill point; the directory is left as a dead process leaves it (status `running`)."""
    owner, name, die = KILLS[kill]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die(getattr(owner, name)))
        patch.setattr(Attempt, "fail", lambda *args: None)
        with pytest.raises(Killed):
            run.train()
    assert run.files.status()["state"] == "preempted"


def check(kill: str, arm: str, folder: Path, reference: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(folder, **{**COMMON, **ARMS[arm]})
    interrupted(run, kill, monkeypatch)
    assert Run.open(run.path).train() == "done"
    assert record(run) == reference(arm)


@pytest.mark.parametrize(("kill", "arm"), PAIRS)
def test_killed_and_resumed(kill, arm, tmp_path, reference, monkeypatch) -> None:
    check(kill, arm, tmp_path, reference, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "arm"), REST)
def test_killed_and_resumed_full_product(kill, arm, tmp_path, reference, monkeypatch) -> None:
    check(kill, arm, tmp_path, reference, monkeypatch)


def test_killed_at_every_step_in_turn(tmp_path, reference, monkeypatch) -> None:
    """A run that never gets further than two steps beyond its last checkpoint still arrives."""
    run = tiny_run(tmp_path, **COMMON, seed=1)
    for _ in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(EagerProgram, "update", at_call(EagerProgram.update, 5))
            patch.setattr(Attempt, "fail", lambda *args: None)
            try:
                state = Run.open(run.path).train()
            except Killed:
                continue
        break
    assert state == "done"
    assert run.files.status()["attempts"] == 3
    assert record(run) == reference("transformer forward")


def test_an_abandoned_future_is_set_aside_not_lost(tmp_path, monkeypatch) -> None:
    run = tiny_run(tmp_path, **COMMON)
    interrupted(run, "mid-epoch", monkeypatch)
    before = (run.path / "metrics.jsonl").read_text()
    assert '"step":5' in before  # logged at 5, resumed from 4
    Run.open(run.path).train()
    assert (run.path / "discarded-2" / "metrics.jsonl").read_text() == before
    assert (run.path / "discarded-2" / "evals" / "loss" / "step-00000006.json").exists()


TEXT_ARMS: dict[str, dict[str, Any]] = {
    "gpt, both directions": {
        "model": {"type": "transformer", "preset": "arrow_nano", "n_layers": 1, "n_heads": 2, "d_model": 16, "max_positions": 16},
        "direction": {"type": "both"},
    },
    "gru, backward": {
        "model": {"type": "recurrent", "preset": "arrow_gru_small", "d_model": 16},
        "direction": BACKWARD,
    },
}  # fmt: skip


@pytest.mark.parametrize("arm", TEXT_ARMS)
def test_a_run_on_text_is_killed_and_goes_on(
    arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte-level BPE, windows, warm restarts, the evaluation of windows: as the study of the arrow of time trains."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i} of a text that tells of line {i * 7 % 400}\n" for i in range(400)))
    given: dict[str, Any] = {
        "corpus": {"type": "text_files", "path": str(path), "block_bytes": 1024, "split": {"val": 0.2}},
        "tokenizer": {"type": "bpe", "vocab_size": 290},
        "packing": {"type": "windows", "seq_len": 16, "separator": False, "order": "corpus"},
        "objective": {"type": "causal", "eos": False},
        "schedule": {"type": "cosine_restarts", "warmup_steps": 2, "period": 4, "shrink": 0.85},
        "train": {"max_steps": None, "epochs": 0.4, "log_every": 3},
        "checkpoint": {"every": 3, "rolling": 2},
        "evaluations": [{"type": "window_loss", "splits": ["val"], "every": 4}],
        **TEXT_ARMS[arm],
    }
    whole = tiny_run(tmp_path / "whole", **given)
    assert whole.train() == "done" and whole.files.status()["step"] >= 9
    for n in (1, 5, 8):
        run = tiny_run(tmp_path / f"cut{n}", **given)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(EagerProgram, "update", at_call(EagerProgram.update, n))
            patch.setattr(Attempt, "fail", lambda self, error: None)  # a dead process writes nothing
            run.train()
        again = Run.open(run.path)
        assert again.train() == "done"
        assert record(again) == record(whole), f"killed at update {n}"
