"""The evaluation of baselines: the same numbers as the functions it calls, and as the reference table."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_segmentation import make

from lexarium.evaluations.baselines import BASELINES, FOLDED
from lexarium.evaluations.baselines.segmentation_baselines import SegmentationBaselines
from lexarium.evaluations.segmentation.gold import gold_stream
from lexarium.evaluations.segmentation.scores import score
from lexarium.foundation import rng
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import UserError

TRAIN = ["ba dog a", "dog ti", "gola ba ba", "a dog gola", "ti ba"]
TEST = ["dog ba", "gola a ti dog", "ba"]


@pytest.mark.parametrize("fit", ["train", "val"])
def test_every_baseline_is_counted_on_one_split_and_scored_on_the_other(tmp_path: Path, fit: str) -> None:
    (tmp_path / "v.txt").write_text("\n".join(TEST) + "\n")
    data = make(tmp_path, TRAIN, val_path=str(tmp_path / "v.txt"), split={})
    names = [name for name in BASELINES if name not in FOLDED]  # three utterances are no five folds
    config = SegmentationBaselines.Config(baselines=tuple(names), fit=fit)
    found = SegmentationBaselines(config, data).run(None, 7).metrics
    train, test = (gold_stream(data, split, asks="x") for split in (fit, "val"))
    assert (train.n_utterances, test.n_utterances) == (len(TRAIN) if fit == "train" else len(TEST), len(TEST))
    assert found["val.utterances"] == len(TEST)
    for name in names:
        wanted = score(test, BASELINES[name](train, test, rng.key(7, "val", name)))
        assert {m: found[f"val.{name}.{m}"] for m in wanted if m != "utterances"} == {
            m: v for m, v in wanted.items() if m != "utterances"
        }
    assert found["val.symbol.boundary.recall"] == 1.0 and found["val.utterance.boundary.f"] == 0.0


def test_too_few_utterances_for_folds_are_refused_before_training(tmp_path: Path) -> None:
    """By the name of the baseline, when the evaluation is built: not after the last step."""
    data = make(tmp_path, TRAIN)
    told = "split 'train' has 4 utterances, and puddle_folds takes turns on 5 parts of them; name `baselines` without"
    with pytest.raises(UserError, match=told):
        SegmentationBaselines(SegmentationBaselines.Config(splits=("train",), limit=4, fit_limit=4), data)
    SegmentationBaselines(SegmentationBaselines.Config(splits=("train",)), data)
    names = ("puddle", "mi_relative")
    few = SegmentationBaselines.Config(splits=("train",), limit=4, fit_limit=4, baselines=names)
    assert SegmentationBaselines(few, data).run(None, 1).metrics["train.utterances"] == 4


def test_limits_take_the_first_utterances(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("\n".join(TEST) + "\n")
    data = make(tmp_path, TRAIN, val_path=str(tmp_path / "v.txt"), split={})
    config = SegmentationBaselines.Config(baselines=("ftp_relative",), limit=2, fit_limit=3)
    found = SegmentationBaselines(config, data).run(None, 7).metrics
    train, test = (gold_stream(data, split, n, asks="x") for split, n in (("train", 3), ("val", 2)))
    wanted = score(test, BASELINES["ftp_relative"](train, test, 0))
    assert found["val.ftp_relative.token.f"] == wanted["token.f"]
    assert found["val.utterances"] == 2


def test_a_split_that_is_cut_as_it_is_counted_has_one_limit() -> None:
    """Learners that read a longer stream of the same utterances first would have heard what they cut."""
    with pytest.raises(
        ConfigError, match="cut as it is counted, in one pass: give limit and fit_limit one value"
    ):
        validate(SegmentationBaselines.Config, Source({"splits": ["train"], "limit": 2}))


def test_a_misspelt_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match="no baseline 'ftp_relativ'; did you mean 'ftp_relative'"):
        validate(SegmentationBaselines.Config, Source({"baselines": ["ftp_relativ"]}))
