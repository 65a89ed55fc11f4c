"""TrainStep: the one module whose forward runs model and loss.

It is the unit that is wrapped (DDP), sharded, compiled, captured and stacked; nothing touches a parameter
outside it. The scalar it returns is what backward starts from:

    sum over terms of coefficient * sum * factor

with each factor the term's `Batch.coefficients` over its weight in the whole global batch (for a `per_step` term over
the number of forward passes, `PASSES`), so that micro-batches and ranks add up to exactly the gradient of one big
batch.
A term of weight 0, with nothing to predict in this step, counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from lexarium.foundation.types import Batch, Term, UserError

PASSES = "forward passes"
"""Weight of `per_step` terms: micro-batches of the step, over all processes."""


class TrainStep(nn.Module):
    """Model and objective as one module."""

    def __init__(self, model: nn.Module, objective: Any) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.consumes = frozenset(model.consumes)  # type: ignore[arg-type]

    def forward(
        self, batch: Batch, factors: Mapping[str, float | Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to differentiate and each term's sum, detached. factors: see `factors_of`."""
        terms = self.terms(batch)
        total: Tensor | None = None
        for name, term in terms.items():
            if term.per_step == (name in factors):
                raise UserError(
                    f"loss term {name!r} has {'a' if term.per_step else 'no'} weight: an objective gives each of its"
                    f" terms one in Batch.weights (found: {', '.join(batch.weights) or 'none'}), except those that are"
                    " per_step"
                )
            value = term.sum * (term.coefficient * factors[PASSES if term.per_step else name])
            total = value if total is None else total + value
        assert total is not None, "an objective must return at least one term"
        return total, {name: term.sum.detach() for name, term in terms.items()}

    def terms(self, batch: Batch) -> dict[str, Term]:
        """Loss terms of the objective and of the model itself."""
        output = self.model(**{k: v for k, v in batch.inputs.items() if k in self.consumes})
        return {**self.objective.loss(output, batch), **output.terms}


def factors_of(
    weights: Mapping[str, float],
    world_size: int = 1,
    coefficients: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """What each term's sum is multiplied with: its coefficient / its weight, 0 for a weight of 0.

    weights: of the global batch, `PASSES` among them. coefficients: see `Batch`. DDP averages gradients over
    processes, which the factor `world_size` undoes.
    """
    scale = lambda name: world_size * coefficients.get(name, 1.0)
    return {name: scale(name) / weight if weight else 0.0 for name, weight in weights.items()}


def set_precision(precision: str) -> None:
    """Let products of float32 matrices on a GPU round their factors to TF32, or not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def autocast(device: torch.device, precision: str) -> Any:
    """The context a step or evaluation runs in: nothing for fp32, else the library's autocast."""
    if precision in ("fp32", "tf32"):
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
