"""Promise 6: evaluating, sampling, logging, saving and preparing batches ahead do not change training.

Only the evaluation named in `stop_when` may end a run earlier. It must look at `val`, and it is part of
the run's identity together with how often it is made.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests.builders import TINY, tiny_config, tiny_run, weights

from lexarium.evaluations.scorer import Scorer
from lexarium.foundation.types import Incompatible, UserError
from lexarium.studies import listeners
from lexarium.studies.run_config import Identity, check
from lexarium.training import checkpoint

STEPS = 21


def loss(**options: Any) -> list[dict[str, Any]]:
    return [{"type": "loss", "splits": ["val"], **options}]


WATCHING: dict[str, dict[str, Any]] = {
    "evaluated every 7": {"evaluations": loss(every=7)},
    "evaluated every 10, and at 3": {"evaluations": loss(every=10, at=[3])},
    "two evaluations": {
        "evaluations": [*loss(every=2), *loss(name="ood", splits=["ood"], by_field=["kind"])]
    },
    "logged every step": {"train": {"log_every": 1}},
    "logged every 5": {"train": {"log_every": 5}},
    "saved every 4": {"checkpoint": {"every": 4}},
    "saved every 4 for a while": {"checkpoint": {"every": 0, "rolling": 4}},
    "saved all the time": {"checkpoint": {"every": 0, "minutes": 1e-9, "log_spaced": 5}},
    "prepared ahead": {"plan": {"workers": 3}},
}


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Name and weights of a run that is neither evaluated nor logged before its end."""
    run = tiny_run(tmp_path_factory.mktemp("unwatched"), **options({}))
    run.train()
    return run.path.name, weights(run)


def options(change: dict[str, Any]) -> dict[str, Any]:
    base = {"evaluations": [], "train": {"max_steps": STEPS, "log_every": 100}, "checkpoint": {"every": 0}}
    merged = {k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in change.items()}
    return {**base, **merged}


@pytest.mark.parametrize("how", WATCHING)
def test_same_name_and_same_weights(how: str, tmp_path: Path, unwatched: tuple[str, dict[str, str]]) -> None:
    run = tiny_run(tmp_path, **options(WATCHING[how]))
    assert run.train() == "done"
    assert (run.path.name, weights(run)) == unwatched


def test_sampling_in_between(tmp_path: Path, unwatched: tuple[str, dict[str, str]], monkeypatch) -> None:
    """A listener that asks the model being trained for everything a scorer can do."""
    asked = []
    evaluate = listeners.Evaluator.boundary

    def ask(self: listeners.Evaluator, trainer: Any) -> bool:
        step = trainer.program.step
        parts = run.parts()
        scorer = Scorer(step.model, step.objective, parts.direction, parts.tokenizer)
        prefix = "my raven"
        asked.append(scorer.generate([prefix], 4)[0])
        scorer.next_scores([prefix])
        scorer.hidden([prefix])
        return evaluate(self, trainer)

    monkeypatch.setattr(listeners.Evaluator, "boundary", ask)
    run = tiny_run(tmp_path, **options({}))
    run.train()
    assert len(asked) == STEPS + 1
    assert weights(run) == unwatched[1]


# --- stop_when --------------------------------------------------------------------------------------


def stopping(**rule: Any) -> dict[str, Any]:
    every = rule.pop("every", 3)
    return {
        "evaluations": [*loss(every=every), *loss(name="last", splits=["val", "ood"])],
        "stop_when": {"metric": "loss.val", **rule},
        "train": {"max_steps": STEPS},
    }


def test_stop_when_ends_training_and_is_part_of_the_identity(tmp_path: Path) -> None:
    full = tiny_run(tmp_path, **stopping(below=0.0))
    full.train()
    curve = {step: m["val"] for name, step, m in full.files.evaluations() if name == "loss"}
    assert sorted(curve) == [*range(0, STEPS, 3), STEPS][: len(curve)]
    threshold = (curve[9] + curve[12]) / 2
    assert all(curve[s] > threshold for s in curve if s < 12) and curve[12] < threshold
    run = tiny_run(tmp_path, **stopping(below=threshold))
    assert run.train() == "done"
    status = run.files.status()
    assert status["step"] == 12 and "stop_when" in status["message"]
    assert run.path.name != full.path.name
    assert checkpoint.newest(run.path) == (12, [])
    assert _weights_at(run, 10) == _weights_at(full, 10)
    # evaluations of the last step are made where training ended, with their items
    for name in ("loss", "last"):
        file = run.files.evaluation_file(name, 12)
        assert file.exists() and file.with_suffix(".parquet").exists()
    before = sorted(run.path.rglob("*"))
    assert run.train() == "done"
    assert sorted(run.path.rglob("*")) == before


def _weights_at(run: Any, step: int) -> dict[str, bytes]:
    folder = checkpoint.directory(run.path, step)
    return {file: (folder / file).read_bytes() for file in ("model.safetensors", "optimizer.safetensors")}


def test_stop_when_survives_interruption(tmp_path: Path) -> None:
    from lexarium.training.signals import StopFlag

    config = stopping(patience=2, better="higher")  # the loss falls, so it ends after two measurements
    whole = tiny_run(tmp_path / "whole", **config)
    whole.train()
    assert whole.files.status()["step"] == 6
    cut = tiny_run(tmp_path / "cut", **config)
    flag = StopFlag()
    assert cut.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 4 else None) == "preempted"
    assert cut.files.status()["step"] == 4
    assert cut.train() == "done"
    assert weights(cut) == weights(whole)


@pytest.mark.parametrize("metric", ["loss.ood", "loss.test", "loss.train", "loss.ood.kind.quest"])
def test_choosing_by_another_split_is_refused(metric: str) -> None:
    config = tiny_config(
        evaluations=loss(every=2, splits=["val", "ood"]), stop_when={"metric": metric, "above": 1}
    )
    with pytest.raises(Incompatible, match="does not look at `val`"):
        check(config)


def test_a_stop_that_can_never_happen_is_refused(tmp_path: Path) -> None:
    rule = {"metric": "loss.val", "above": 1}
    with pytest.raises(Incompatible, match="no evaluation is named 'loss'"):
        check(tiny_config(evaluations=[], stop_when=rule))
    with pytest.raises(Incompatible, match="after the last step only"):
        check(tiny_config(evaluations=loss(), stop_when=rule))
    with pytest.raises(UserError, match=r"gives no 'val\.half\.7'"):
        tiny_run(
            tmp_path, evaluations=loss(every=2), stop_when={"metric": "loss.val.half.7", "above": 1}
        ).train()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"evaluations": [*loss(every=3), *loss(name="other", every=1)]}, True),
        ({"evaluations": loss(every=4)}, False),
        ({"evaluations": loss(every=3, at=[1])}, False),
        ({"evaluations": loss(every=3, limit=5)}, False),
        ({"stop_when": {"metric": "loss.val", "below": 2.0}}, False),
    ],
    ids=["nothing", "another evaluation", "how often", "where", "on what", "the rule"],
)
def test_what_decides_about_stopping_is_part_of_the_name(change: dict[str, Any], same: bool) -> None:
    rule = {"metric": "loss.val", "below": 1.0}
    base = {"evaluations": loss(every=3), "stop_when": rule}
    assert (Identity(tiny_config(**base)).hash == Identity(tiny_config(**{**base, **change})).hash) is same


def test_without_stop_when_no_evaluation_is_part_of_the_name() -> None:
    names = {
        Identity(tiny_config(evaluations=e)).hash for e in ([], loss(every=3), loss(limit=5, splits=["ood"]))
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    ("rule", "values", "ends"),
    [
        ({"below": 1.0}, [2.0, 1.0], False),
        ({"below": 1.0}, [2.0, 0.9], True),
        ({"above": 0.9}, [0.5, 0.95], True),
        ({"above": 0.9}, [0.95, 0.5], False),
        ({"above": 0.9}, [math.nan], False),
        ({"above": 0.9}, [], False),
        ({"patience": 2}, [3.0, 2.0, 2.0], False),
        ({"patience": 2}, [3.0, 2.0, 2.5, 2.0], True),
        ({"patience": 2}, [3.0, 2.0, 2.5, 1.9], False),
        ({"patience": 2, "better": "higher"}, [0.1, 0.3, 0.3, 0.2], True),
        ({"patience": 2, "better": "higher"}, [0.1, 0.3, 0.2, 0.31], False),
    ],
)
def test_the_rules_by_hand(rule: dict[str, Any], values: list[float], ends: bool) -> None:
    config = tiny_config(evaluations=loss(every=1), stop_when={"metric": "loss.val", **rule})
    assert listeners.satisfied(config.stop_when, values) is ends


def test_the_tiny_configuration_watches_something() -> None:
    assert TINY["evaluations"] and TINY["checkpoint"]["every"]
