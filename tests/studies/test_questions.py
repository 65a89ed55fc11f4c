"""Questions that the evaluations of a study cannot answer are refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from builders import tiny_config
from lexarium.foundation.config import ConfigError
from lexarium.foundation.types import Incompatible
from lexarium.studies.contrasts import Contrast, ReportConfig
from lexarium.studies.questions import check_questions
from phonemes import JOINED, SPELT

CUTS = {"type": "segmentation", "every": 4}
COUNTS = {"type": "segmentation_baselines", "baselines": ["random_true"]}
F, COUNTED = "segmentation.val.boundary.peak.boundary.f", "segmentation_baselines.val.random_true.boundary.f"
CHOOSER = {"best_of": "segmentation.val.bits_per_symbol"}


def ask(
    contrast: dict[str, Any], evaluations: Any = (CUTS, COUNTS), report: Any = None, **train: Any
) -> None:
    config = tiny_config(
        **{**JOINED, **SPELT}, evaluations=list(evaluations), train={"max_steps": 12, **train}
    )
    given = {
        "metric": F,
        **({"axis": "a", "from": "x", "to": "y"} if "against" not in contrast else {}),
        **contrast,
    }
    check_questions([Contrast.model_validate(given)], ReportConfig.model_validate(report or {}), [config])


@pytest.mark.parametrize(
    "contrast",
    [
        {},
        {"at": CHOOSER},
        {"at": 8},
        {"at": {"mean_over": [3, 9]}},
        {"metric": COUNTED, "at": 12},
        {"against": COUNTED},
        {"against": f"{COUNTED} @ final", "at": CHOOSER},
        {"against": f"{F} @ 0", "at": CHOOSER},
        {"against": "segmentation.val.entropy.peak.boundary.f", "at": CHOOSER},
        {"at": {"best_of": F, "better": "higher"}},
    ],
)
def test_what_can_be_answered(contrast: dict[str, Any]) -> None:
    ask(contrast)


@pytest.mark.parametrize(
    ("contrast", "told"),
    [
        (
            {"metric": "cuts.val.f"},
            r"compare\.0\.metric: .* no evaluation is named 'cuts' \(evaluations: segm",
        ),
        (
            {"metric": F.replace("val", "ood")},
            r"evaluation 'segmentation' looks at val, so its metrics are named",
        ),
        ({"against": COUNTED.replace("val", "test")}, r"compare\.0\.against: .* looks at val"),
        (
            {"against": COUNTED, "at": CHOOSER},
            r"compare\.0\.against: .* does not run wherever 'segmentation' does.*@ final`",
        ),
        (
            {"at": 3},
            r"compare\.0\.metric: .* does not run there \(it runs every 4 steps up to 12\); name other",
        ),
        (
            {"against": f"{F} @ 5"},
            r"compare\.0\.against: .* is read at step 5, and evaluation 'segmentation' does not",
        ),
        ({"at": 16}, r"is read at step 16, .*every 4 steps up to 12"),
        (
            {"at": {"mean_over": [1, 3]}},
            r"is read from step 1 to 3, and evaluation 'segmentation' does not run there",
        ),
        ({"metric": COUNTED, "at": 4}, r"'segmentation_baselines' does not run there \(it runs at 12\)"),
        ({"metric": COUNTED, "at": CHOOSER}, r"compare\.0\.metric: .* give both the same `every` and `at`$"),
    ],
)
def test_what_no_evaluation_measures(contrast: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ask(contrast)


@pytest.mark.parametrize(
    ("chooser", "told"),
    [
        ({"best_of": "nosuch.val.bits"}, r"compare\.0\.at\.best_of: no evaluation is named 'nosuch'"),
        ({"best_of": COUNTED, "better": "higher"}, "runs after the last step only; set its `every` or `at`"),
        ({"best_of": F}, r"is the better the higher it is; say `better: higher`"),
        ({**CHOOSER, "better": "higher"}, r"is the better the lower it is; say `better: lower`"),
    ],
)
def test_what_cannot_choose_a_step(chooser: dict[str, Any], told: str) -> None:
    with pytest.raises(Incompatible, match=told):
        ask({"at": chooser})


def test_steps_are_those_of_both_evaluations() -> None:
    """Every eighth step is among every fourth, not the other way round; the last step is always one."""
    loss = {"type": "loss", "splits": ["val"], "every": 8}
    ask({"at": {"best_of": "loss.val"}}, [CUTS, loss])
    with pytest.raises(ConfigError, match="'loss' does not run wherever 'segmentation' does"):
        ask({"metric": "loss.val", "at": CHOOSER}, [CUTS, loss])
    with pytest.raises(ConfigError, match="'segmentation' does not run wherever 'loss' does"):
        ask({"at": {"best_of": "loss.val"}}, [CUTS, {**loss, "at": [3]}])
    ask({"metric": "loss.val", "at": CHOOSER}, [{**CUTS, "every": 0, "at": [8]}, loss])


def test_reports_name_what_is_measured() -> None:
    with pytest.raises(ConfigError, match=r"report\.curves: 'x\.y' is no metric"):
        ask({}, report={"curves": ["x.y"]})
