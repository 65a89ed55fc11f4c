"""Promise 2, for more steps: a run that goes on where a shorter one stood ends as one run of the whole length.

Compared field by field: weights, optimiser state, trainer state, and every metric and evaluation after the shorter
run's last step. Schedules that look at max_steps are another matter, which is shown too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, log_record, record, tiny_config, tiny_run

from lexarium.foundation.types import UserError
from lexarium.studies.cohorts import obstacle
from lexarium.studies.run import Run
from lexarium.studies.run_config import Identity
from lexarium.training.signals import StopFlag

RESTARTS = {"type": "cosine_restarts", "warmup_steps": 3, "period": 4, "shrink": 0.5}
ARMS: dict[str, dict[str, Any]] = {
    "transformer": {"model": TRANSFORMER},
    "restarts": {"model": TRANSFORMER, "schedule": RESTARTS},
    "recurrent backward": {"model": RECURRENT, "direction": {"type": "backward"}},
    "encoder_decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "windows, workers, momentum": {
        "packing": {"type": "windows", "seq_len": 24},
        "plan": {"device": "cpu", "workers": 2},
        "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9},
    },
    "epochs": {"train": {"max_steps": None, "epochs": 2.5}},
}
# 40 documents are 5 steps of 8, so 7 lies inside an epoch, and 12 steps are 2.5 epochs
COMMON: dict[str, Any] = {
    "corpus": {"type": "question_formation", "sizes": {"train": 40, "val": 20, "test": 0, "ood": 20}},
    "schedule": {"type": "constant", "warmup_steps": 3},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 3}],
}


def going_on(parent: Run, **overrides: Any) -> Run:
    """The run of 12 steps that goes on where `parent` stands."""
    start = {"type": "run", "path": str(parent.path), "state": "all", **overrides.pop("start", {})}
    return tiny_run(parent.runs_dir, **{**COMMON, **overrides, "start": start})


def shorter(folder: Path, steps: int = 7, **overrides: Any) -> Run:
    """A finished run of fewer steps."""
    run = tiny_run(folder, **{**COMMON, **overrides, "train": {"max_steps": steps, "epochs": None}})
    assert run.train() == "done"
    return run


def later(found: dict[str, str], step: int) -> dict[str, str]:
    """The part of a record that is not about steps up to `step`."""

    def of(name: str) -> int:
        word = name.removeprefix("metrics at ").rpartition("step-")[2].partition(".")[0]
        return int(word) if word.isdigit() else step + 1

    return {name: value for name, value in found.items() if of(name) > step}


@pytest.mark.parametrize("arm", ARMS)
def test_more_steps_end_as_one_run(arm: str, tmp_path: Path) -> None:
    whole = tiny_run(tmp_path / "whole", **{**COMMON, **ARMS[arm]})
    assert whole.train() == "done"
    parent = shorter(tmp_path / "parts", **ARMS[arm])
    child = going_on(parent, **ARMS[arm])
    assert child.train() == "done"
    # the line at 10 is of the steps since the parent's last line, at 7
    ours, theirs = later(record(child), 7), later(record(whole), 7)
    assert ours.pop("metrics at 10") != theirs.pop("metrics at 10")
    assert ours == theirs and "metrics at 12" in ours and "loss/step-00000009.json" in ours
    lines = [name for name in log_record(child.path) if name.startswith("metrics")]
    assert lines == ["metrics at 10", "metrics at 12"], "the parent's lines are its own"


def test_at_a_log_line_every_metric_is_equal(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path / "whole", **COMMON)
    whole.train()
    child = going_on(shorter(tmp_path / "parts", steps=5))
    child.train()
    assert later(record(child), 5) == later(record(whole), 5)


def test_in_two_goes(tmp_path: Path) -> None:
    """7 steps, 9 steps, 12 steps: a child is a parent, too."""
    whole = tiny_run(tmp_path / "whole", **COMMON)
    whole.train()
    middle = going_on(shorter(tmp_path / "parts"), train={"max_steps": 9})
    assert middle.train() == "done"
    last = going_on(middle)
    last.train()
    state = lambda run: {k: v for k, v in record(run).items() if not k.startswith(("metrics", "loss"))}
    assert state(last) == state(whole)


def test_interrupted_before_its_first_checkpoint_it_begins_where_the_other_stood(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path / "whole", **COMMON)
    whole.train()
    child, flag = going_on(shorter(tmp_path / "parts")), StopFlag()
    child.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 9 else None)
    shutil.rmtree(child.path / "checkpoints")
    assert Run.open(child.path).train() == "done"
    assert later(record(child), 10) == later(record(whole), 10)


def test_a_schedule_that_looks_at_max_steps_is_another_matter(tmp_path: Path) -> None:
    """The shorter run's rate had come to its end at step 7."""
    cosine = {"schedule": {"type": "cosine", "warmup_steps": 3}}
    whole = tiny_run(tmp_path / "whole", **{**COMMON, **cosine})
    whole.train()
    child = going_on(shorter(tmp_path / "parts", **cosine), **cosine)
    child.train()
    name = "model: embedding"
    assert record(child)[name] != record(whole)[name]
    rate = lambda run: [
        json.loads(line)["lr"] for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    assert rate(child)[-1] == rate(whole)[-1], "but the schedule goes by the step"


def test_the_weights_alone_are_another_start(tmp_path: Path) -> None:
    parent = shorter(tmp_path)
    child = going_on(parent, start={"state": "weights"})
    child.train()
    assert child.path != going_on(parent).path
    assert child.files.metrics()[0]["step"] == 5, "its steps count from 0"


def test_the_default_is_no_part_of_the_identity() -> None:
    hash_of = lambda **more: Identity(tiny_config(start={"type": "run", "path": "x-0123456789", **more})).hash
    assert hash_of() == hash_of(state="weights") != hash_of(state="all")


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"corpus": {**COMMON["corpus"], "sizes": {"train": 48}}}, r"corpus\.sizes\.train: 40 -> 48"),
    "tokenizer": ({"tokenizer": {"type": "byte"}}, r"tokenizer\.type: 'word' -> 'byte'"),
    "packing": ({"packing": {"type": "windows", "seq_len": 24}}, r"packing: '\(default\)' -> |packing\."),
    "direction": ({"direction": {"type": "backward"}}, r"direction\.type: 'forward' -> 'backward'"),
    "objective": ({"objective": {"type": "causal", "eos": False}}, r"objective\.eos: '\(default\)' -> False"),
    "model": ({"model": {**TRANSFORMER, "dropout": 0.3}}, r"model\.dropout: .* -> 0\.3"),
    "optimizer": ({"optimizer": {"type": "adamw", "lr": 0.1}}, r"optimizer\.lr: 0\.003 -> 0\.1"),
    "batch size": ({"train": {"global_batch_size": 16}}, r"train\.global_batch_size: 8 -> 16"),
    "seed": ({"seed": 2}, r"seed: '\(default\)' -> 2"),
    "seed of the order": ({"seeds": {"order": 3}}, r"seeds: '\(default\)' -> \{'order': 3\}"),
    "parts": ({"start": {"parts": ["embedding"]}}, r"state: all takes over every parameter"),
    "no steps": ({"train": {"max_steps": 7}}, r"is 7, but start\.path .* stands at step 7"),
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shorter(tmp_path_factory.mktemp("parent"))


@pytest.mark.parametrize("case", REFUSALS)
def test_another_science_is_refused_field_by_field(case: str, parent: Run) -> None:
    changes, message = REFUSALS[case]
    with pytest.raises(UserError, match=message):
        going_on(parent, **changes).train()


def test_schedule_plan_and_evaluations_may_differ(parent: Run) -> None:
    child = going_on(parent, schedule=RESTARTS, evaluations=[], plan={"device": "cpu", "workers": 1})
    assert child.train() == "done"


def test_such_a_run_is_trained_alone(parent: Run) -> None:
    team = {"plan": {"device": "cpu", "cohort": 4}}
    assert obstacle(tiny_run(parent.runs_dir, **{**COMMON, **team})) == ""
    assert "start.state all" in obstacle(going_on(parent, **team))
