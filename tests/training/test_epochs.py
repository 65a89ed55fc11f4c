"""`train.epochs`: how many updates it comes to, that it is nothing but another way to say max_steps, and that whoever
needs a number gets one, or is told why there is none."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import CORPUS, TINY, log_record, tiny_config, tiny_run, weights

from lexarium.foundation.config import ConfigError, Source, identity, parse_yaml, resolved, validate
from lexarium.foundation.types import UserError
from lexarium.studies.cohorts import train_together
from lexarium.studies.run import Run
from lexarium.studies.run_config import Identity, RunConfig
from lexarium.studies.session import build_trainer
from lexarium.studies.study import Study
from lexarium.training.signals import StopFlag
from lexarium.training.trainer import TrainConfig

EPOCHS: dict[str, Any] = {
    **TINY["train"],
    "max_steps": None,
    "epochs": 0.8,
}  # 120 documents in batches of 8: 12


def by_epochs(**more: Any) -> dict[str, Any]:
    return {**TINY, "train": EPOCHS, **more}


# --- the number -----------------------------------------------------------------------------------------


@given(hundredths=st.integers(1, 500), examples=st.integers(1, 10**6), batch=st.integers(1, 512))
def test_whole_batches_of_exact_decimals(hundredths: int, examples: int, batch: int) -> None:
    """0.29 epochs of 100 examples are 29, although 0.29 * 100 < 29 in binary."""
    config = TrainConfig(epochs=hundredths / 100, global_batch_size=batch)
    expected = int(Decimal(hundredths) * examples / 100 // batch)
    if expected:
        assert config.steps(examples) == expected
    else:
        with pytest.raises(UserError, match="do not fill one batch"):
            config.steps(examples)


def test_by_hand() -> None:
    assert TrainConfig(epochs=0.29, global_batch_size=1).steps(100) == 29
    assert TrainConfig(epochs=1, global_batch_size=180).steps(1000) == 5
    assert TrainConfig(max_steps=7).steps(3) == 7


def test_one_length_and_only_one() -> None:
    assert TrainConfig(epochs=2).max_steps is None
    assert TrainConfig().max_steps == 1000
    read = lambda **train: validate(RunConfig, Source({**TINY, "train": train}))
    assert read(epochs=2).train == read(epochs=2, max_steps=None).train
    with pytest.raises(ConfigError, match="not both; for 2 epochs set max_steps: null"):
        read(epochs=2, max_steps=1000)
    with pytest.raises(ConfigError, match="how long"):
        read(max_steps=None)
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"train\.epochs"):
            read(epochs=wrong)


def test_identity_holds_epochs_and_only_when_they_are_given() -> None:
    before, after = identity(tiny_config().train), identity(tiny_config(train=EPOCHS).train)
    assert "epochs" not in before and before["max_steps"] == 12
    assert after["epochs"] == 0.8 and after["max_steps"] is None
    again = validate(RunConfig, Source(resolved(tiny_config(train=EPOCHS))))
    assert Identity(again).hash == Identity(tiny_config(train=EPOCHS)).hash


# --- training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_steps(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("steps"))
    run.train()
    return run


def test_a_run_by_epochs_is_the_run_by_steps(tmp_path: Path, by_steps: Run) -> None:
    """The decay of the schedule, the last evaluation and the last checkpoint stand where max_steps puts them."""
    run = tiny_run(tmp_path, train=EPOCHS)
    assert run.path.name != by_steps.path.name
    assert run.parts().max_steps == 12
    assert run.train() == "done"
    status = run.files.status()
    assert (status["step"], status["max_steps"]) == (12, 12)
    assert weights(run) == weights(by_steps) and log_record(run.path) == log_record(by_steps.path)
    before = sorted(run.path.rglob("*"))
    assert Run.open(run.path).train() == "done"
    assert sorted(run.path.rglob("*")) == before


def test_interrupted_and_resumed(tmp_path: Path, by_steps: Run) -> None:
    run, flag = tiny_run(tmp_path, train=EPOCHS), StopFlag()
    assert run.train(flag, progress=lambda s: flag.raise_flag("t", 124) if s == 7 else None) == "preempted"
    status = run.files.status()
    assert (status["step"], status["max_steps"]) == (7, 12)
    assert Run.open(run.path).train() == "done"
    assert weights(run) == weights(by_steps)


def test_the_status_says_how_long_from_the_first_step_on(tmp_path: Path) -> None:
    run, seen = tiny_run(tmp_path, train=EPOCHS), []
    assert run.files.status()["max_steps"] is None
    run.train(progress=lambda step: seen.append(run.files.status()["max_steps"]))
    assert set(seen) == {12}


def test_too_few_examples_leave_the_run_as_it_was(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={**EPOCHS, "epochs": 0.05})
    with pytest.raises(UserError, match=r"0\.05 epochs of 120 examples do not fill one batch of 8"):
        run.train()
    assert run.files.status()["state"] == "waiting"


def test_a_cohort_whose_members_differ_in_length(tmp_path: Path) -> None:
    """A member by epochs leaves at its own end; each is its solo run within rounding."""
    configs = [
        tiny_config(train={**EPOCHS, "epochs": epochs}, seed=seed, plan={"device": "cpu", "cohort": 2})
        for seed, epochs in ((1, 0.8), (2, 0.5))
    ]
    runs = [tiny_run(tmp_path / "together", c) for c in configs]
    states = train_together(runs, StopFlag())
    assert {state for state, _ in states.values()} == {"done"}
    for run, config, steps in zip(runs, configs, (12, 7), strict=True):
        assert json.loads((run.path / "plan.json").read_text())["program"] == "stacked"
        assert run.files.status()["step"] == run.files.status()["max_steps"] == steps
        alone = tiny_run(tmp_path / "alone", config)
        alone.train()
        for ours, theirs in zip(run.files.metrics(), alone.files.metrics(), strict=True):
            assert ours.keys() == theirs.keys()
            assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-4)


def test_the_trainer_without_data_does_not_guess(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train=EPOCHS)
    trainer, loader = build_trainer(run.config, run.parts(), torch.device("cpu"))
    assert trainer.max_steps == 12 == int(0.8 * loader.examples_per_epoch / 8)


# --- who needs a number ---------------------------------------------------------------------------------


def study(**train: Any) -> Study:
    text = f"""
study: s
base:
  corpus: {json.dumps(CORPUS)}
  model: {json.dumps(TINY["model"])}
  train: {json.dumps(train)}
stages: {{more: {{start: {{steps: [3]}}, train: {{max_steps: 5, epochs: null}}}}}}
"""
    return Study(*_parsed(text))


def _parsed(text: str) -> tuple[Any, Source]:
    from lexarium.studies.study_config import StudyConfig

    source = parse_yaml(text, "s.yaml")
    return validate(StudyConfig, source), source


def test_a_stage_at_a_step_needs_a_parent_whose_length_is_known(tmp_path: Path) -> None:
    assert len(study(max_steps=12).expand(tmp_path)) == 2
    with pytest.raises(ConfigError, match=r"stages\.more\.start\.steps.*train\.max_steps"):
        study(epochs=1).expand(tmp_path)
