"""What the verbs say of a run whose length is given in epochs, before and after its data are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import RUN, STUDY, Call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """200 documents in batches of 8: 0.4 epochs are 10 updates."""
    found = tmp_path / "run.yaml"
    found.write_text(RUN.replace("max_steps: 12", "epochs: 0.4"), encoding="utf-8")
    return found


def test_check_train_and_show(lexarium: Call, file: Path, tmp_path: Path) -> None:
    runs = ("--runs-dir", tmp_path / "runs")
    before = lexarium("check", file, *runs, "--json")
    assert before.status == 0 and before.json["arms"][0]["max_steps"] is None
    assert "the steps of train.epochs are known once" in lexarium("check", file, *runs).out
    assert lexarium("prepare", file, *runs).status == 0
    assert lexarium("check", file, *runs, "--json").json["arms"][0]["max_steps"] == 10
    trained = lexarium("train", file, *runs)
    assert trained.status == 0 and "done at step 10" in trained.out
    (run,) = (tmp_path / "runs").glob("*-s1-*")
    assert "done at step 10 of 10, attempt 1" in lexarium("show", run).out
    assert lexarium("show", run, "--json").json["max_steps"] == 10


def test_show_of_a_run_that_has_not_begun(lexarium: Call, file: Path, tmp_path: Path) -> None:
    from lexarium.foundation.config import read_yaml, validate
    from lexarium.studies.run import Run
    from lexarium.studies.run_config import RunConfig

    run = Run.create(validate(RunConfig, read_yaml(file)), tmp_path / "runs")
    assert "waiting at step 0, attempt 0" in lexarium("show", run.path).out


def test_too_few_examples_are_told_by_check(lexarium: Call, file: Path, tmp_path: Path) -> None:
    runs = ("--runs-dir", tmp_path / "runs")
    lexarium("prepare", file, *runs)
    found = lexarium("check", file, *runs, "train.epochs=0.01")
    assert found.status == 2 and "do not fill one batch" in found.err


def test_a_study(lexarium: Call, tmp_path: Path) -> None:
    study, runs = tmp_path / "tiny.yaml", ("--runs-dir", tmp_path / "runs")
    study.write_text(STUDY.replace("max_steps: 8", "epochs: 0.25"), encoding="utf-8")
    dry = lexarium("study", "run", study, *runs, "--dry-run")
    assert dry.status == 0 and "4 runs, 4 to train" in dry.out
    done = lexarium("study", "run", study, *runs, "--jobs", "1", "--seeds", "1")
    assert done.status == 0, done.err
    found = lexarium("study", "status", "tiny", *runs, "--json").json["runs"]
    assert {(r["state"], r["step"], r["max_steps"]) for r in found} == {("done", 6, 6)}
    assert lexarium("report", "tiny", *runs).status == 0
