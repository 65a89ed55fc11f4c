"""Promise 20: runs written by released versions still load. The fixtures below tests/fixtures/run-v* are whole run
directories with the answers their models gave when they were made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.make import answers

from lexarium.foundation.files import read_json, verify
from lexarium.studies.run import Run
from lexarium.studies.run_config import Identity

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ARMS = [
    pytest.param(file, id=f"{file.parent.name}/{file.stem}")
    for file in sorted(FIXTURES.glob("run-v*/*.json"))
]
each_run = pytest.mark.parametrize("file", ARMS)


def path_of(file: Path) -> Path:
    return file.parent / read_json(file)["run"]


def test_there_is_a_fixture() -> None:
    assert ARMS
    for folder in FIXTURES.glob("run-v*"):
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 300_000
        assert (folder / "README.md").is_file()


@each_run
def test_weights_and_logits(file: Path) -> None:
    expected, run = read_json(file), Run.open(path_of(file))
    for checkpoint in (run.path / "checkpoints").iterdir():
        verify(checkpoint)
    found = answers(run)
    assert found["weights"] == expected["weights"]
    np.testing.assert_allclose(found["next_scores"], expected["next_scores"], atol=2e-5, rtol=0)


@each_run
def test_the_name_is_still_that_of_its_configuration(file: Path) -> None:
    """Else a new version would train the same science again, beside the old run."""
    run = Run.open(path_of(file))
    assert Identity(run.config).name == run.path.name
    assert Identity(run.config).data == run.files.identity()


@each_run
def test_evaluations_give_what_they_gave(file: Path, tmp_path: Path) -> None:
    """From the same weights on data prepared anew: corpus, tokenizer, scorer and evaluation are unchanged."""
    shutil.copytree(path_of(file), tmp_path / path_of(file).name)
    run = Run.open(tmp_path / path_of(file).name)
    expected = {(name, step): metrics for name, step, metrics in run.files.evaluations()}
    for config in run.config.evaluations:
        step, result = run.evaluate(config, save=False)
        before = expected[config.name or config.type, step]
        assert result.metrics.keys() >= before.keys()
        for metric, value in before.items():
            assert result.metrics[metric] == pytest.approx(value, rel=1e-5, abs=1e-7), metric


@each_run
def test_training_goes_on_from_an_old_checkpoint(file: Path, tmp_path: Path) -> None:
    """It goes on and ends; its numbers are promised for one version only."""
    shutil.copytree(path_of(file), tmp_path / path_of(file).name)
    run = Run.open(tmp_path / path_of(file).name)
    last = sorted((run.path / "checkpoints").iterdir())[-1]
    shutil.rmtree(last)
    run.files.set_status(state="running")
    assert run.train() == "done"
    verify(last)
