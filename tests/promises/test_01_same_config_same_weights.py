"""Promise 1: the same configuration under the same plan gives the same weights, metrics and evaluations, bit for
bit, whatever global generators hold and in whatever process."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import processes
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, record, tiny_config, tiny_run

from lexarium.studies.run import Run

ARMS = {
    "transformer": {"model": TRANSFORMER},
    "recurrent": {"model": RECURRENT},
    "encoder_decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
}


@pytest.mark.parametrize("arm", ARMS)
def test_two_runs_are_equal_whatever_global_generators_hold(tmp_path: Path, arm: str) -> None:
    found = []
    for i in range(2):
        random.seed(i)
        np.random.seed(i)
        torch.manual_seed(i)
        run = tiny_run(tmp_path / str(i), **ARMS[arm])
        assert run.train() == "done"
        found.append(record(run))
    assert found[0] == found[1]


def train(path: str) -> str:
    return Run.open(path).train()


def test_another_process_gives_the_same(tmp_path: Path) -> None:
    here, there = tiny_run(tmp_path / "here"), tiny_run(tmp_path / "there")
    here.train()
    assert processes.start(train, str(there.path)).result() == "done"
    assert record(here) == record(there)


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    tiny_run(tmp_path).train()
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"seeds": {"init": 2}}, {"seeds": {"order": 2}}, {"seeds": {"dropout": 2}}],
    ids=["seed", "init", "order", "dropout"],
)
def test_every_seed_changes_the_weights_and_the_name(tmp_path: Path, change: dict) -> None:
    """Without this, a seed that nobody reads would pass the tests above."""
    one, other = tiny_run(tmp_path), tiny_run(tmp_path, tiny_config(**change))
    one.train()
    other.train()
    assert one.path != other.path
    a, b = record(one), record(other)
    assert all(a[k] != b[k] for k in a if k.startswith("model: embedding"))
