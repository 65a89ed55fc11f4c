"""A tiny model on a tiny corpus, trained once, and a way to call the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lexarium.cli.main import main

RUN = """
corpus: {type: question_formation, sizes: {train: 200, val: 20, test: 0, ood: 20}}
model: {type: transformer, n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, dropout: 0.1}
train: {max_steps: 12, global_batch_size: 8, log_every: 4}
checkpoint: {every: 6}
evaluations: [{type: loss, splits: [val, ood], by_channel: [half]}]
"""

STUDY = """
study: tiny
claim: a larger learning rate learns more in few steps
base:
  corpus: {type: question_formation, sizes: {train: 200, val: 20, test: 0, ood: 20}}
  model: {type: transformer, n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32}
  train: {max_steps: 8, global_batch_size: 8, log_every: 4}
  checkpoint: {every: 4}
  evaluations: [{type: loss, splits: [val]}]
axes:
  rate: {low: {optimizer.lr: 1e-3}, high: {optimizer.lr: 1e-2}}
seeds: [1, 2]
compare: [{metric: loss.val, axis: rate, from: low, to: high, better: lower}]
presets:
  short: {base.train.max_steps: 4}
"""


@dataclass
class Answer:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Answer]


@pytest.fixture
def lexarium(capsys: pytest.CaptureFixture[str]) -> Call:
    """`lexarium("train", file, "--json")` -> status, standard output, standard error."""

    def call(*arguments: Any) -> Answer:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def study_text() -> str:
    """The text of the study file."""
    return STUDY


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A file with one run's configuration."""
    file = tmp_path / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    return file


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study of two arms and two seeds."""
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a trained run; its parent holds a second one that differs in its seed."""
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    runs = folder / "runs"
    for seed in (1, 2):
        assert main(["train", str(file), f"seed={seed}", "--runs-dir", str(runs)]) == 0
    (found,) = runs.glob("*-s1-*")
    yield found
