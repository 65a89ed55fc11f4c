"""Promise 19: a run directory is enough. Moved elsewhere, without its token store, opened by a fresh process in
another working directory, it gives the same model and the same answers, bit for bit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import processes
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, tiny_run

from lexarium.studies.run import Run

ARMS: dict[str, dict[str, Any]] = {
    "transformer": {"model": TRANSFORMER},
    "recurrent backward": {"model": RECURRENT, "direction": {"type": "backward"}},
    "encoder_decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "windows": {"packing": {"type": "windows", "seq_len": 24}},
}
SENTENCE = "my raven does change . quest"


def answers(path: str, folder: str) -> dict[str, Any]:
    """Everything a scorer of the run says, asked from another working directory."""
    os.chdir(folder)
    run = Run.open(path)
    found: dict[str, Any] = {}
    for step in (5, 12):
        scorer = run.scorer(step)
        prefixes = (
            [SENTENCE, "my"]
            if run.config.objective.type == "causal"
            else [(SENTENCE, "does"), (SENTENCE, "")]
        )
        found[f"next at {step}"] = scorer.next_scores(prefixes).tolist()
        found[f"text at {step}"] = scorer.generate(prefixes, 5)
        model = run.model(step)
        found[f"weights at {step}"] = {n: p.detach().numpy().tobytes() for n, p in model.named_parameters()}
    return found


@pytest.mark.parametrize("arm", ARMS)
def test_moved_and_opened_by_a_fresh_process(arm: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "here", **ARMS[arm])
    run.train()
    before = answers(str(run.path), str(Path.cwd()))
    elsewhere = tmp_path / "there" / run.path.name
    elsewhere.parent.mkdir()
    shutil.move(run.path, elsewhere)
    shutil.rmtree(tmp_path / "here")
    after = processes.start(answers, str(elsewhere), str(elsewhere.parent)).result()
    assert after == before
    assert [p.name for p in elsewhere.parent.iterdir()] == [elsewhere.name], "no store may be needed"
    scores = np.array(after["next at 12"])
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0, rtol=1e-5)
    assert after["next at 5"] != after["next at 12"]


def test_a_renamed_directory_works_too(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    run.train()
    before = answers(str(run.path), str(tmp_path))
    renamed = run.path.rename(tmp_path / "my favourite run")
    assert answers(str(renamed), str(tmp_path)) == before


def test_evaluating_prepares_the_data_again(tmp_path: Path) -> None:
    """The store can be rebuilt from the configuration; the evaluation of a saved step is the same to the byte."""
    run = tiny_run(tmp_path / "here")
    run.train()
    file = run.files.evaluation_file("loss", 12)
    before, items = file.read_bytes(), file.with_suffix(".parquet").read_bytes()
    elsewhere = tmp_path / "there" / run.path.name
    elsewhere.parent.mkdir()
    shutil.move(run.path, elsewhere)
    shutil.rmtree(tmp_path / "here")
    moved = Run.open(elsewhere)
    shutil.rmtree(elsewhere / "evals")
    moved.evaluate(moved.evaluation("loss"), 12)
    file = moved.files.evaluation_file("loss", 12)
    assert (file.read_bytes(), file.with_suffix(".parquet").read_bytes()) == (before, items)


def test_a_child_does_not_need_its_parent_once_trained(tmp_path: Path) -> None:
    parent = tiny_run(tmp_path / "runs")
    parent.train()
    child = tiny_run(tmp_path / "runs", start={"type": "run", "path": str(parent.path)}, seed=2)
    child.train()
    before = answers(str(child.path), str(tmp_path))
    shutil.rmtree(parent.path)
    assert answers(str(child.path), str(tmp_path)) == before
