"""Layers that hold randomness or statistics outside the checkpoint are refused, and evaluation switches them off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.builders import tiny_run

from lexarium.evaluations.scorer import Scorer
from lexarium.foundation.types import UserError
from lexarium.training.checkpoint import optimizer_tensors

SOURCE = '''
from torch import nn

from lexarium.models.recurrent import Recurrent


class Mine(Recurrent):
    """A recurrent model with one layer more."""

    name = "mine"
    Config = Recurrent.Config

    def __init__(self, config, vocab_size):
        super().__init__(config, vocab_size)
        self.extra = LAYER
'''


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("nn.Dropout(0.5)", "extra is torch's own dropout, whose randomness a checkpoint does not hold"),
        ("nn.BatchNorm1d(4, affine=False)", "extra keeps running statistics of batches"),
        ("nn.Dropout(0.0)", None),
    ],
)
def test_such_layers_are_refused(layer: str, message: str | None, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.replace("LAYER", layer))
    run = tiny_run(tmp_path, model={"type": f"{file}:Mine", "d_model": 16, "n_layers": 1})
    if message is None:
        assert run.train() == "done"
        return
    with pytest.raises(UserError, match=message):
        run.train()
    assert run.files.status()["state"] == "waiting"


def test_a_scorer_asks_in_evaluation_mode_and_puts_the_mode_back(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    run.train()
    scorer, modes = run.scorer(), []
    scorer.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    scorer.model.train()
    scorer.next_scores(["my newt does sleep . quest"])
    assert modes == [False] and scorer.model.training
    assert isinstance(scorer, Scorer)


def test_state_of_an_optimiser_that_is_no_tensor_is_refused() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter]["count"] = 3
    with pytest.raises(UserError, match="its state 'count' of w is int, which a checkpoint cannot hold"):
        optimizer_tensors(optimizer, {id(parameter): "w"})
