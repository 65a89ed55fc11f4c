"""How one optimiser step is carried out.

`eager` runs it operator by operator; `compiled` runs model and loss through torch.compile; `captured`
(captured.py) replays a whole step as one CUDA graph; a cohort (cohort.py) takes the steps of several runs at
once. All give the same numbers within rounding.

A program takes the micro-batches of a step and returns what the trainer logs, at once or, where the device
works ahead of the host, when `collect` is called.

Policy for a step whose loss or gradient norm is not finite, the same in every program: `stop` raises
before any parameter changes; `skip` leaves parameters and optimiser state alone and counts the step;
`warn` updates all the same. Data and schedule advance in every case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lexarium.foundation.types import Batch, NonFinite
from lexarium.training.parallel import World
from lexarium.training.step import PASSES, TrainStep, autocast, factors_of

BACKEND = "inductor"
"""The compiler behind torch.compile."""
AHEAD = 512
"""Most steps that a device may be ahead of what the host has read of them."""


@dataclass
class StepResult:
    """Numbers of one optimiser step, summed over ranks. losses: term -> mean over its weight, in nats."""

    losses: dict[str, float]
    grad_norm: float
    tokens: int
    skipped: bool = False
    finite: bool = True


def weights_of(batches: list[Batch]) -> dict[str, float]:
    """Weights of the loss terms over micro-batches, and the number of forward passes."""
    weights: dict[str, float] = {PASSES: float(len(batches))}
    for batch in batches:
        for name, weight in batch.weights.items():
            weights[name] = weights.get(name, 0.0) + weight
    return weights


def means(sums: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Loss terms: sums over their weights; a `per_step` term over the forward passes."""
    weight = lambda name: weights.get(name, weights[PASSES])
    return {name: value / weight(name) if weight(name) else 0.0 for name, value in sums.items()}


class Program(Protocol):
    """What a trainer needs of the way its steps are carried out."""

    name: str
    step: TrainStep
    optimizer: torch.optim.Optimizer
    device: torch.device

    def update(self, batches: list[Batch], lr_scale: float) -> StepResult | None: ...
    def collect(self) -> list[StepResult]: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any]) -> None: ...


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
        losses = means(totals, denominators)
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

    def collect(self) -> list[StepResult]:
        """Results of steps that `update` did not return: none, here."""
        return []

    def _forward(self, batch: Batch, factors: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        found: tuple[Tensor, dict[str, Tensor]] = self.wrapped(batch, factors)
        return found

    def _denominators(self, batches: list[Batch]) -> dict[str, float]:
        """Weights of the loss terms over the global batch, and the number of forward passes."""
        return self.world.sum(weights_of(batches), self.device)

    def _gradients(self, batches: list[Batch], denominators: dict[str, float]) -> dict[str, Tensor]:
        """Accumulate gradients; returns each term's sum over this rank's micro-batches."""
        sums: dict[str, Tensor] = {}
        factors = factors_of(denominators, self.world.size, batches[0].coefficients)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with self.world.last(self.wrapped, last):
                with autocast(self.device, self.precision):
                    loss, terms = self._forward(batch, factors)
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


class CompiledProgram(EagerProgram):
    """The same step with model and loss through torch.compile, once for all shapes."""

    name = "compiled"

    def __init__(self, step: TrainStep, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        compile_once(step)
        super().__init__(step, optimizer, **options)

    def _forward(self, batch: Batch, factors: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        return super()._forward(one_form(batch), as_tensors(factors, self.device))


def compile_once(step: TrainStep, dynamic: bool | None = True) -> None:
    """Let calls of a step go through torch.compile: one program for all shapes (`dynamic`), or one for the first shape
    and one for all others (None)."""
    if step._compiled_call_impl is None:
        step.compile(dynamic=dynamic, backend=BACKEND)


def compiled(function: Any) -> Any:
    """A function of tensors through torch.compile."""
    return torch.compile(function, dynamic=None, backend=BACKEND)


def one_form(batch: Batch) -> Batch:
    """The batch with `real` (and `source_real`) written out, also without padding: one program serves both forms."""
    inputs = dict(batch.inputs)
    for name in ("tokens", "source"):
        real = "real" if name == "tokens" else "source_real"
        if name in inputs and real not in inputs:
            inputs[real] = torch.arange(inputs[name].numel(), device=inputs[name].device)
    return replace(batch, inputs=inputs)


def as_tensors(factors: Mapping[str, float], device: torch.device) -> dict[str, Tensor]:
    """Factors as tensors: a compiled step would take every new number for a new program."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return {name: torch.tensor(value, dtype=dtype, device=device) for name, value in factors.items()}
