"""Promise 31: the result of an evaluation at a step is the same to the byte in the training loop and afterwards
on the saved weights, for every evaluation that ships with the package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests import processes
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, pair_file, tiny_config, tiny_run

from lexarium.foundation import registry
from lexarium.foundation.types import Incompatible
from lexarium.studies.run import Run
from lexarium.studies.run_config import check, evaluation_name
from phonemes import FEATURES_OF_LETTERS, LETTERS, SPELT

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "loss": [
        {"splits": ["val", "ood"], "by_channel": ["half"], "by_field": ["kind", "subject_rc"]},
        {"name": "few", "splits": ["ood"], "limit": 7},
    ],
    "window_loss": [{"seq_len": 20}, {"name": "some", "seq_len": 20, "limit": 5, "spread": True}],
    "segmentation": [{"splits": ["val"], "window": 12, "stride": 5}],
    "segmentation_baselines": [{"baselines": ["random_true", "ftp_relative", "ngram_2_entropy_threshold"]}],
    "boundary_probe": [{"fit_limit": 60, "selectivity": True}],
    "feature_probe": [{"features": LETTERS, "window": 24, "stride": 8, "min_phonemes": 2, "min_count": 3}],
}
"""Options of an evaluation; one that is not named here runs with its defaults."""

ARMS: dict[str, dict[str, Any]] = {
    "transformer": {"model": TRANSFORMER},
    "recurrent": {"model": RECURRENT},
    "encoder_decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "backward": {"model": TRANSFORMER, "direction": {"type": "backward"}},
    "both": {"model": TRANSFORMER, "direction": {"type": "both"}},
    "permutation": {
        "model": TRANSFORMER,
        "direction": {"type": "permutation"},
        "packing": {"type": "windows", "seq_len": 20},
    },
    "words": {"model": TRANSFORMER, **SPELT},
    "features": FEATURES_OF_LETTERS,
    "bf16": {"model": TRANSFORMER, "train": {"precision": "bf16"}},
    "view, windows": {
        "view": {"keep": {"kind": "quest"}, "splits": ["train", "val"]},
        "packing": {"type": "windows", "seq_len": 20},
    },
}
STEPS = (0, 4, 8, 12)


def evaluations(arm: str, folder: Path) -> list[dict[str, Any]]:
    """Every evaluation of the package that this arm can answer; files they read are written to `folder`."""
    pairs = {"minimal_pairs": [{"path": str(pair_file(folder / "pairs"))}]}
    found = []
    for name in registry.names("evaluation"):
        of_letters = hasattr(registry.find("evaluation", name), "channels") or name == "feature_probe"
        if of_letters != (arm in ("words", "features")):
            continue  # asks about a channel, or symbols, that the others' corpus does not have
        for options in {**OPTIONS, **pairs}.get(name, [{}]):
            evaluation = {"type": name, **options, "every": 4}
            try:
                check(tiny_config(**{**ARMS[arm], "evaluations": [evaluation]}))
            except Incompatible:
                continue
            found.append(evaluation)
    return found


def evaluate_afterwards(path: str) -> None:
    """Every evaluation at every step, from the saved weights."""
    run = Run.open(path)
    for config in run.config.evaluations:
        for step in STEPS:
            run.evaluate(config, step)


LONG = ("recurrent", "bf16", "view, windows")


@pytest.mark.parametrize("arm", [pytest.param(a, marks=pytest.mark.slow) if a in LONG else a for a in ARMS])
def test_same_bytes(arm: str, tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path,
        **{**ARMS[arm], "evaluations": evaluations(arm, tmp_path), "checkpoint": {"every": 4, "at": [0]}},
    )
    assert run.train() == "done"
    in_loop = files(run)
    names = [evaluation_name(e) for e in run.config.evaluations]
    assert {f"{name}/step-{step:08d}.json" for name in names for step in STEPS} <= in_loop.keys()
    tables = [name for name in names if name != "segmentation_baselines"]  # numbers of the data, and no items
    assert all(f"{name}/step-00000012.parquet" in in_loop for name in tables)
    shutil.rmtree(run.path / "evals")
    if arm == "transformer":
        processes.start(evaluate_afterwards, str(run.path)).result()
    else:
        evaluate_afterwards(str(run.path))
    afterwards = files(run)
    for name, content in in_loop.items():
        assert afterwards[name] == content, name


def files(run: Run) -> dict[str, bytes]:
    folder = run.path / "evals"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("*/*"))}


def test_every_evaluation_is_compared(tmp_path: Path) -> None:
    compared = {e["type"] for arm in ARMS for e in evaluations(arm, tmp_path)}
    assert compared == set(registry.names("evaluation"))


def test_results_change_with_the_weights(tmp_path: Path) -> None:
    """A comparison of constants would prove nothing."""
    run = tiny_run(tmp_path, evaluations=evaluations("transformer", tmp_path))
    run.train()
    for name in {name for name, _, _ in run.files.evaluations()}:
        values = [str(metrics) for this, _, metrics in run.files.evaluations() if this == name]
        assert len(set(values)) > 1, name


def test_an_evaluation_added_later_joins_the_finished_run(tmp_path: Path) -> None:
    """Training a finished run again makes the evaluations it lacks at its last step, equal to those in the loop."""
    whole = tiny_run(tmp_path / "whole", evaluations=evaluations("transformer", tmp_path))
    whole.train()
    late = tiny_run(tmp_path / "late", evaluations=[])
    late.train()
    late = tiny_run(tmp_path / "late", evaluations=evaluations("transformer", tmp_path))
    assert late.train() == "done"
    last = {k: v for k, v in files(whole).items() if "00000012" in k}
    assert files(late) == last


def test_results_of_other_options_are_set_aside(tmp_path: Path) -> None:
    """No curve mixes answers to two questions: with its options changed, an evaluation is made again."""
    loss = lambda splits, every: [{"type": "loss", "splits": splits, "every": every}]
    run = tiny_run(tmp_path, evaluations=loss(["val"], 4))
    run.train()
    before = files(run)
    run = tiny_run(tmp_path, evaluations=loss(["val"], 6))  # when it runs is no matter
    assert run.train() == "done" and files(run) == before
    run, told = tiny_run(tmp_path, evaluations=loss(["ood"], 4)), []
    assert run.train(say=told.append) == "done"
    (result,) = run.files.evaluations()
    assert result[:2] == ("loss", 12) and "ood" in result[2] and "val" not in result[2]
    assert "4 results of loss were measured with other options; set aside in discarded-evals-1/" in told[0]
    aside = run.path / "discarded-evals-1"
    assert {str(p.relative_to(aside)): p.read_bytes() for p in aside.glob("*/*")} == before
