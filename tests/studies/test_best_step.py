"""The checkpoint of the best evaluation: kept, found again by name, and the step that a contrast reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builders import tiny_config, tiny_run
from lexarium.foundation.types import UserError
from lexarium.studies.compare import Contrast
from lexarium.studies.readings import at_text, reading
from lexarium.studies.results import RunRow
from lexarium.studies.run_config import Incompatible
from lexarium.studies.run_files import RunFiles, best_step
from lexarium.training import checkpoint
from phonemes import JOINED

LOSS = {"type": "loss", "splits": ["val"], "every": 3}


def run_with(tmp_path: Path, best: dict[str, Any] | None, **more: Any) -> Any:
    """A run that evaluates every third step and keeps no other checkpoint but its last."""
    options: dict[str, Any] = {
        "evaluations": [LOSS],
        "checkpoint": {"best": best, "minutes": 0, "every": 0, "at": []},
    }
    return tiny_run(tmp_path, **{**options, **more})


def curve(run: Any) -> dict[int, float]:
    return {step: metrics["val"] for _, step, metrics in run.files.evaluations()}


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_best_checkpoint_is_kept_and_asked_for_by_name(tmp_path: Path, better: str) -> None:
    run = run_with(tmp_path, {"metric": "loss.val", "better": better})
    assert run.train() == "done"
    values = curve(run)
    choose = min if better == "lower" else max
    best = choose(
        values, key=lambda step: (values[step], step) if better == "lower" else (values[step], -step)
    )
    last = max(values)
    assert len(set(values.values())) > 2
    kept = set(checkpoint.steps(run.path))
    assert {best, last} <= kept and len(kept - {best, last}) <= 1, "one that was best before may roll on"
    assert run.evaluate(run.evaluation("loss"), "best", save=False)[0] == best
    found = run.evaluate(run.evaluation("loss"), "best", save=False)[1].metrics["val"]
    assert found == values[best]


def test_the_best_checkpoint_outlives_rolling_ones(tmp_path: Path) -> None:
    """The loss is highest before training; rolling checkpoints come later, and of those one is kept."""
    rolling = {
        "best": {"metric": "loss.val", "better": "higher"},
        "rolling": 4,
        "minutes": 0,
        "every": 0,
        "at": [],
    }
    run = run_with(tmp_path, None, checkpoint=rolling)
    run.train()
    assert best_step(run.files, "loss.val", "higher") == 0
    assert checkpoint.steps(run.path) == [0, 8, 12]


@pytest.mark.parametrize("metric", ["loss.val.perplexty", "loss.val.feature_ce"])
def test_a_metric_that_is_never_given_ends_the_run_at_its_first_evaluation(
    tmp_path: Path, metric: str
) -> None:
    """Not after training, when the best weights are gone."""
    run = run_with(tmp_path, {"metric": metric})
    name = metric.removeprefix("loss.")
    with pytest.raises(
        UserError, match=rf"checkpoint\.best\.metric: evaluation 'loss' gives no '{name}'; it gives .*val"
    ):
        run.train()
    assert run.files.status()["step"] == 0


def test_results_are_read_only_at_steps_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading every result at every step would cost more the longer a run goes on."""
    asked: list[int] = []
    real = RunFiles.evaluations
    monkeypatch.setattr(
        RunFiles, "evaluations", lambda self: (asked.append(self.status()["step"]), real(self))[1]
    )
    run = run_with(tmp_path, {"metric": "loss.val"})
    run.train()
    measured = 5  # steps 0, 3, 6, 9 and 12
    assert 0 < len(asked) <= 4 * measured


def test_a_best_step_that_was_not_kept_says_why(tmp_path: Path) -> None:
    """checkpoint.best that is set after training names a step whose checkpoint is gone."""
    run_with(tmp_path, None).train()
    late = run_with(tmp_path, {"metric": "loss.val", "better": "higher"})
    with pytest.raises(
        UserError, match=r"no checkpoint at step 0 \(steps: 12\); .* was not set while the run was trained"
    ):
        late.scorer("best")
    with pytest.raises(UserError, match=r"no checkpoint at step 3 \(steps: 12\)$"):
        late.scorer(3)


def test_without_best_only_the_last_is_kept_and_best_is_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path, None)
    run.train()
    assert checkpoint.steps(run.path) == [max(curve(run))]
    with pytest.raises(UserError, match=r"was trained without checkpoint\.best"):
        run.scorer("best")


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    one, other = run_with(tmp_path / "a", {"metric": "loss.val"}), run_with(tmp_path / "b", None)
    assert one.path.name == other.path.name, "it is no part of the identity"
    one.train()
    other.train()
    assert curve(one) == curve(other)


@pytest.mark.parametrize(
    ("metric", "evaluations", "told"),
    [
        ("los.val", [LOSS], "no evaluation is named 'los'"),
        ("loss.ood", [LOSS], "does not look at `val`"),
        ("loss.val", [{"type": "loss", "splits": ["val"]}], "runs after the last step only"),
    ],
)
def test_what_cannot_choose_is_refused(
    tmp_path: Path, metric: str, evaluations: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(Incompatible, match=rf"checkpoint\.best\.metric: .*{told}"):
        run_with(tmp_path, {"metric": metric}, evaluations=evaluations)


class Files:
    def __init__(self, values: dict[int, float]) -> None:
        self.values = values

    def evaluations(self) -> Any:
        return [("loss", step, {"val": value}) for step, value in self.values.items()]


def test_numbers_that_are_none_do_not_choose_and_a_tie_goes_to_the_first() -> None:
    files: Any = Files({0: math.nan, 3: 2.0, 6: 1.0, 9: 1.0, 12: math.inf})
    assert best_step(files, "loss.val", "lower") == 6
    assert best_step(files, "loss.val", "higher") == 3
    assert best_step(files, "loss.other", "lower") is None
    assert best_step(files, "cuts.val", "lower") is None


def test_a_contrast_reads_another_metric_at_the_step_that_val_chose() -> None:
    curves = {"loss.val": [(0, 3.0), (5, 1.0), (9, 2.0)], "cuts.val.f": [(0, 0.1), (5, 0.6), (9, 0.9)]}
    run = RunRow("r", "d", {}, 1, "done", 9, 9, "", {}, curves)
    contrast = Contrast.model_validate(
        {"metric": "cuts.val.f", "axis": "a", "from": "x", "to": "y", "at": {"best_of": "loss.val"}}
    )
    assert reading(run, "cuts.val.f", contrast.at) == (0.6, 5)
    assert at_text(contrast.at) == "at the step with the best loss.val"
    assert Contrast.model_validate(contrast.model_dump(mode="json", by_alias=True)) == contrast
    assert "which chooses the step" in str(reading(run, "cuts.val.f", type(contrast.at)(best_of="other.val")))
    with pytest.raises(ValidationError, match="does not look at `val`"):
        type(contrast.at)(best_of="loss.ood")  # type: ignore[call-arg]


def test_other_evaluations_can_be_asked_of_such_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What chooses the best step is of the run; an evaluation asked afterwards need not be among its own."""
    from lexarium.cli.main import main

    run = run_with(tmp_path, {"metric": "loss.val"})
    run.train()
    where = ["--runs-dir", str(tmp_path)]
    assert main(["evaluate", run.path.name, "--evaluation", "snippets", "--step", "best", *where]) == 0
    best = best_step(run.files, "loss.val", "lower")
    assert f"at step {best} (the best loss.val)" in capsys.readouterr().out
    assert main(["show", run.path.name, *where]) == 0
    assert f"{best} (the best loss.val)" in capsys.readouterr().out
    assert main(["evaluate", run.path.name, "--step", "bets", *where]) != 0


@pytest.mark.parametrize("key", ["checkpoint", "stop_when"])
def test_what_is_better_high_does_not_choose_by_the_lowest(tmp_path: Path, key: str) -> None:
    metric = "segmentation.val.boundary.peak.boundary.f"
    given = {"metric": metric} if key == "checkpoint" else {"metric": metric, "patience": 2}
    evaluations = [{"type": "segmentation", "every": 3}]
    make = lambda rule: tiny_run(
        tmp_path,
        tiny_config(
            **JOINED, evaluations=evaluations, **{key: {"best": rule} if key == "checkpoint" else rule}
        ),
    )
    with pytest.raises(Incompatible, match=r"is the better the higher it is; say `better: higher` beside it"):
        make(given)
    make({**given, "better": "higher"})
