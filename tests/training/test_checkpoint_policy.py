"""Which checkpoints are kept: permanent ones by step, list and log spacing; the newest rolling ones besides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.builders import tiny_run
from torch import nn

from lexarium.foundation.files import Damaged
from lexarium.training import checkpoint
from lexarium.training.checkpoint import CheckpointConfig


def permanent(config: CheckpointConfig, max_steps: int) -> list[int]:
    return [s for s in range(max_steps + 1) if config.permanent(s, max_steps)]


def test_permanent_steps_by_hand() -> None:
    assert permanent(CheckpointConfig(), 10) == [10]
    assert permanent(CheckpointConfig(every=4), 10) == [4, 8, 10]
    assert permanent(CheckpointConfig(at=(0, 3)), 10) == [0, 3, 10]
    assert permanent(CheckpointConfig(log_spaced=4), 1000) == [1, 10, 100, 1000]
    assert permanent(CheckpointConfig(log_spaced=3), 1000) == [1, 32, 1000]  # sqrt(1000) = 31.6
    assert permanent(CheckpointConfig(log_spaced=1), 50) == [1, 50]
    assert permanent(CheckpointConfig(every=300, at=(7,), log_spaced=4), 1000) == [
        1,
        7,
        10,
        100,
        300,
        600,
        900,
        1000,
    ]


def save(run: Path, step: int) -> None:
    model = nn.Linear(2, 1)
    checkpoint.write(
        checkpoint.directory(run, step), model, torch.optim.SGD(model.parameters(), lr=1.0), {"step": step}
    )


@pytest.mark.parametrize(("keep", "left"), [(1, [4, 6, 8]), (2, [4, 5, 6, 8]), (9, [2, 3, 4, 5, 6, 8])])
def test_pruning_keeps_permanent_ones_and_the_newest_of_the_others(
    keep: int, left: list[int], tmp_path: Path
) -> None:
    config = CheckpointConfig(at=(4, 8), keep=keep)
    for step in (2, 3, 4, 5, 6, 8):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, config, 100)
    assert checkpoint.steps(tmp_path) == left


def test_pruning_looks_at_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 3)
    others = [tmp_path / "checkpoints" / name for name in ("step-best", "notes", "step-00000001.bak")]
    for path in others:
        path.mkdir()
    save(tmp_path, 5)
    checkpoint.prune(tmp_path, CheckpointConfig(), 100)
    assert checkpoint.steps(tmp_path) == [5]
    assert all(path.is_dir() for path in others)


def test_a_run_keeps_what_its_policy_says(tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path, checkpoint={"every": 0, "at": [0, 3], "log_spaced": 3, "minutes": 1e-9, "keep": 2}
    )
    run.train()
    assert checkpoint.steps(run.path) == [0, 1, 3, 10, 11, 12]  # 1, sqrt(12) = 3, 12; rolling: 10, 11


def test_rolling_checkpoints_by_step(tmp_path: Path) -> None:
    """Steps 3, 6, 9 are saved and, beyond the newest two, deleted; 5 and 10 are permanent, 12 is the last."""
    saved = []
    write = checkpoint.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", lambda path, *a: (saved.append(path.name), write(path, *a)))
        run = tiny_run(tmp_path, checkpoint={"every": 5, "rolling": 3, "minutes": 0, "keep": 2})
        run.train()
    assert [int(name[5:]) for name in saved] == [3, 5, 6, 9, 10, 12]
    assert checkpoint.steps(run.path) == [5, 6, 9, 10, 12]


def test_without_rolling_checkpoints_only_the_last_step_is_saved(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, checkpoint={"every": 0, "minutes": 0})
    run.train()
    assert checkpoint.steps(run.path) == [12]


def test_the_policy_is_not_part_of_the_name(tmp_path: Path) -> None:
    names = {
        tiny_run(tmp_path, checkpoint=c).path.name
        for c in ({"every": 1}, {"every": 2}, {"log_spaced": 3}, {"rolling": 3})
    }
    assert len(names) == 1


def test_a_checkpoint_of_another_shape_is_refused_with_the_difference(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(Damaged, match=r"weight: \(1, 2\), expected \(1, 3\)"):
        checkpoint.load_model(checkpoint.directory(tmp_path, 1), nn.Linear(3, 1))
    with pytest.raises(Damaged, match="unexpected bias"):
        checkpoint.load_model(checkpoint.directory(tmp_path, 1), nn.Linear(2, 1, bias=False))
    with pytest.raises(Damaged, match=r"missing 0\.weight"):
        checkpoint.load_model(checkpoint.directory(tmp_path, 1), nn.Sequential(nn.Linear(2, 1)))


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    checkpoint.write(
        checkpoint.directory(tmp_path, 1), model, torch.optim.SGD(model.parameters(), lr=1.0), {}
    )
    other = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    other["b"].weight = other["a"].weight
    checkpoint.load_model(checkpoint.directory(tmp_path, 1), other)
    assert other["a"].weight is other["b"].weight
    torch.testing.assert_close(other["a"].weight, model["a"].weight)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_optimiser_state_returns_beside_its_own_parameter(optimizer: str, tmp_path: Path) -> None:
    """Saved by name, not by place: the order of the parameters may differ."""
    make = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    }[optimizer]
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    opt = make(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    opt.step()
    checkpoint.write(checkpoint.directory(tmp_path, 1), model, opt, {"step": 1})
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    reordered = make(list(reversed(list(other.parameters()))))
    assert checkpoint.read(checkpoint.directory(tmp_path, 1), other, reordered)["step"] == 1
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    for name, parameter in mine.items():
        for quantity, value in opt.state[parameter].items():
            torch.testing.assert_close(reordered.state[theirs[name]][quantity], value)
