"""How one optimiser step is carried out. `eager` runs it operator by operator.

A program takes the micro-batches of a step and returns what the trainer logs. Other programs (compiled,
captured, stacked) implement the same `update` and must give the same numbers within rounding.

Policy for a step whose loss or gradient norm is not finite, the same in every program: `stop` raises
before any parameter changes; `skip` leaves parameters and optimiser state alone and counts the step;
`warn` updates all the same. Data and schedule advance in every case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lexarium.foundation.types import Batch, NonFinite
from lexarium.training.parallel import World
from lexarium.training.step import PASSES, TrainStep, autocast

PROGRAMS = ("eager",)


@dataclass
class StepResult:
    """Numbers of one optimiser step, summed over ranks. losses: term -> mean over its weight, in nats."""

    losses: dict[str, float]
    grad_norm: float
    tokens: int
    skipped: bool = False
    finite: bool = True


class EagerProgram:
    """One optimiser step, operator by operator."""

    name = "eager"

    def __init__(
        self,
        step: TrainStep,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        world: World,
        precision: str = "fp32",
        clip_norm: float = 0.0,
        non_finite: str = "stop",
    ) -> None:
        self.step, self.optimizer = step, optimizer
        self.wrapped: nn.Module = world.wrap(step, device)
        self.device, self.world, self.precision = device, world, precision
        self.clip_norm, self.non_finite = clip_norm, non_finite
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self.scales_gradients = self.scaler is None and bool(
            getattr(optimizer, "_step_supports_amp_scaling", False)
        )
        self.parameters = [p for p in step.model.parameters() if p.requires_grad]

    def update(self, batches: list[Batch], lr_scale: float) -> StepResult:
        """Gradients of the global batch, clipping, and one optimiser update at lr * lr_scale."""
        denominators = self._denominators(batches)
        sums = self._gradients(
            [b.to(self.device) if self.device.type != "cpu" else b for b in batches], denominators
        )
        tokens = sum(b.n_tokens for b in batches)
        totals = self.world.sum(
            {**{k: float(v) for k, v in sums.items()}, "_tokens": float(tokens)}, self.device
        )
        n_tokens = int(totals.pop("_tokens"))
        weight = lambda name: denominators.get(name, denominators[PASSES])
        losses = {name: totals[name] / weight(name) if weight(name) else 0.0 for name in totals}
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        norm_tensor = self._clip()
        norm = float(norm_tensor)
        finite = math.isfinite(norm) and all(map(math.isfinite, losses.values()))
        if (
            not finite
            and self.non_finite == "stop"
            and not (self.scaler and all(map(math.isfinite, losses.values())))
        ):
            raise NonFinite(f"loss {losses}, gradient norm {norm}")
        skipped = not finite and (self.non_finite == "skip" or self.scaler is not None)
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * lr_scale
            if self.scaler:
                self.scaler.step(self.optimizer)
            else:
                self.optimizer.step()
        if self.scales_gradients:
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        if self.scaler:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(losses, norm, n_tokens, skipped, finite)

    def _denominators(self, batches: list[Batch]) -> dict[str, float]:
        """Weights of the loss terms over the global batch, and the number of forward passes."""
        weights: dict[str, float] = {PASSES: float(len(batches))}
        for batch in batches:
            for name, weight in batch.weights.items():
                weights[name] = weights.get(name, 0.0) + weight
        return self.world.sum(weights, self.device)

    def _gradients(self, batches: list[Batch], denominators: dict[str, float]) -> dict[str, Tensor]:
        """Accumulate gradients; returns each term's sum over this rank's micro-batches."""
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with self.world.last(self.wrapped, last):
                with autocast(self.device, self.precision):
                    loss, terms = self.wrapped(batch, denominators, float(self.world.size))
                (self.scaler.scale(loss) if self.scaler else loss).backward()
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _clip(self) -> Tensor:
        """The global gradient norm, computed once; gradients are scaled only when it exceeds clip_norm.

        A fused optimiser divides by `grad_scale` while it reads the gradients, which saves one pass over them.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(
            gradients, foreach=True if gradients[0].device.type != "mps" else None
        )
        if self.clip_norm > 0 and float(norm) > self.clip_norm:
            if self.scales_gradients:
                self.optimizer.grad_scale = (norm.float() + 1e-6) / self.clip_norm  # type: ignore[attr-defined]
            else:
                torch._foreach_mul_(gradients, self.clip_norm / (float(norm) + 1e-6))
        return norm

    def state(self) -> dict[str, Any]:
        """What must be saved beside weights and optimiser."""
        return {"scaler": self.scaler.state_dict()} if self.scaler else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        if self.scaler and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
