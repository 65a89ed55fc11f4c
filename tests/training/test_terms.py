"""Loss terms: each divided by its weight over the global batch, a `per_step` term added once per update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import tiny_run
from torch import nn

from lexarium.foundation.types import Batch, Output, Term, UserError
from lexarium.models.build import build_model
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep


class Gated(nn.Module):
    """A model with a penalty of its own beside the objective's loss."""

    def __init__(self, inner: Any, per_step: bool = True) -> None:
        super().__init__()
        self.inner, self.per_step, self.consumes = inner, per_step, inner.consumes
        self.gate = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, **inputs: Any) -> Output:
        output = self.inner(**inputs)
        output.terms["gate"] = Term(self.gate**2, 0.5, self.per_step)
        return output


def program(folder: Path, **options: Any) -> tuple[EagerProgram, list[list[Batch]]]:
    """A program without optimisation to speak of, and eight examples in 1, 2 and 4 micro-batches."""
    run = tiny_run(folder)
    parts = run.parts()
    model = Gated(build_model(run.config.model, parts.objective.vocab_size, seed=1).double(), **options)
    loader = parts.loader(World(), keyed=False)
    cuts = [[loader.collate(0, range(i, i + n)) for i in range(0, 8, n)] for n in (8, 4, 2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.param_groups[0]["base_lr"] = 0.0
    step = TrainStep(model, parts.objective)
    return EagerProgram(step, optimizer, device=torch.device("cpu"), world=World()), cuts


def test_a_per_step_term_is_added_once_however_the_batch_is_cut(tmp_path: Path) -> None:
    stepper, cuts = program(tmp_path)
    gradients, losses = [], []
    for batches in cuts:
        stepper._gradients(batches, stepper._denominators(batches))
        gradients.append({n: p.grad.clone() for n, p in stepper.step.model.named_parameters()})
        stepper.optimizer.zero_grad()
        losses.append(stepper.update(batches, 1.0).losses)
    assert all(float(g["gate"]) == pytest.approx(0.5 * 2 * 2.0, rel=1e-12) for g in gradients)
    for g in gradients[1:]:
        for name, value in gradients[0].items():
            torch.testing.assert_close(g[name], value, rtol=1e-9, atol=1e-12)
    assert all(found["gate"] == pytest.approx(4.0) for found in losses)
    assert len({round(found["ce"], 9) for found in losses}) == 1


def test_a_term_without_a_weight_is_refused_by_name(tmp_path: Path) -> None:
    stepper, cuts = program(tmp_path, per_step=False)
    with pytest.raises(UserError, match=r"loss term 'gate' has no weight: .* \(found: ce\)"):
        stepper.update(cuts[0], 1.0)


def test_a_term_with_nothing_to_predict_counts_nothing(tmp_path: Path) -> None:
    stepper, cuts = program(tmp_path)
    for batch in cuts[0]:
        batch.targets["labels"][:] = -100
        batch.weights["ce"] = 0.0
    losses = stepper.update(cuts[0], 1.0).losses
    assert losses == {"ce": 0.0, "gate": pytest.approx(4.0)}
