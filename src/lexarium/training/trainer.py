"""The loop. It mentions no model family, no task, no corpus and no evaluation.

    at step s (s updates done):  listeners hear `boundary(s)`: log, evaluate, save, stop
    then:                        batches of step s -> program.update -> s + 1
    when numbers are wanted:     settle() reads the results of the steps a device has worked off

Every quantity that decides what comes next is a function of the step or lies in `state()`, which is plain
data: the step, the running means since the last log line, counters. So a run that is cut anywhere and
resumed from a checkpoint goes on as if nothing had happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator
from torch import nn

from lexarium.foundation.config import Config, outside_identity
from lexarium.foundation.types import NonFinite, UserError
from lexarium.training.program import AHEAD, Program, StepResult


class TrainConfig(Config):
    """How long, how much at a time, and what happens to gradients."""

    max_steps: int | None = Field(1000, gt=0)
    """Optimiser updates; empty where `epochs` says how long."""
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Passes over the training data, in place of max_steps: as many updates as they fill whole batches."""
    global_batch_size: int = Field(32, gt=0)
    """Examples per update, over all processes and micro-batches."""
    micro_batch_size: int | None = outside_identity(None, gt=0)
    """Examples per forward pass; empty = the whole share of a process. Changes rounding only."""
    clip_norm: float = Field(0.0, ge=0)
    """Largest global gradient norm; 0 = no clipping."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """tf32: float32 whose products are rounded to TF32 (NVIDIA GPUs since Ampere)."""
    non_finite: Literal["stop", "skip", "warn"] = "stop"
    """What happens at a step whose loss or gradient is not finite."""
    parameters: tuple[str, ...] = (".*",)
    """Regular expressions; parameters that match none are frozen."""
    log_every: int = outside_identity(50, gt=0)
    """Steps between lines of metrics.jsonl."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        """`epochs` alone leaves max_steps empty, so that its default is not in the way."""
        given = isinstance(values, dict) and values.get("epochs") is not None
        return {"max_steps": None, **values} if given else values

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.max_steps is None and self.epochs is None:
            raise ValueError("how long? give max_steps or epochs")
        if self.max_steps is not None and self.epochs is not None:
            raise ValueError(
                f"give max_steps or epochs, not both; for {self.epochs:g} epochs set max_steps: null"
            )
        if self.micro_batch_size is not None and self.micro_batch_size > self.global_batch_size:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} is larger than global_batch_size {self.global_batch_size}"
            )
        return self

    def steps(self, examples_per_epoch: int) -> int:
        """Updates of a run whose epoch has so many examples: max_steps, or floor(epochs * examples / global batch).

        Exact for `epochs` as written in decimals. Raises UserError when they do not fill one batch.
        """
        if self.max_steps is not None:
            return self.max_steps
        found = int(Fraction(str(self.epochs)) * examples_per_epoch / self.global_batch_size)
        if not found:
            raise UserError(
                f"train.epochs: {self.epochs:g} epochs of {examples_per_epoch} examples do not fill one batch of"
                f" {self.global_batch_size} (train.global_batch_size); raise the one or lower the other"
            )
        return found


@dataclass
class Window:
    """Running sums since the last log line."""

    steps: int = 0
    tokens: int = 0
    grad_norm: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)

    def add(self, result: StepResult) -> None:
        """Take in one step."""
        self.steps += 1
        self.tokens += result.tokens
        self.grad_norm += result.grad_norm
        for name, value in result.losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Means over the steps taken in."""
        n = max(1, self.steps)
        return {**{f"train.{k}": v / n for k, v in self.losses.items()}, "grad_norm": self.grad_norm / n}


class Listener(Protocol):
    """Hears of every step boundary; returns true to end training there."""

    def boundary(self, trainer: Trainer) -> bool: ...


class Trainer:
    """Runs a program over a loader from the current step to max_steps."""

    def __init__(
        self,
        program: Program,
        batches: Callable[[int], list[Any]],
        lr_scale: Callable[[int, int], float],
        config: TrainConfig,
        listeners: list[Listener],
        max_steps: int | None = None,
    ) -> None:
        """`max_steps`: what `config.steps` says of the data; may be left out where the config says it itself."""
        self.program, self.config, self.listeners = program, config, listeners
        self.max_steps = max_steps or config.steps(0)
        self._batches, self._lr_scale = batches, lr_scale
        self.step = 0
        self.tokens_seen = 0
        self.skipped = self.non_finite = 0
        self.window = Window()
        self.known = 0
        """Steps whose results the host has read; the device may be ahead."""
        self.choice: Any = None
        self.odd: list[int] = []
        """Steps that were not finite and have not been reported yet."""
        for group in program.optimizer.param_groups:
            group["base_lr"] = group["lr"]

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.program.optimizer.param_groups[0]["base_lr"] * self.lr_scale)

    def fit(self) -> bool:
        """Train to the end; false when a listener ended it earlier."""
        while (finished := self.boundary()) is None:
            self.advance()
        return finished

    def boundary(self) -> bool | None:
        """Let every listener hear of this step: true = the last one, false = a listener asks to stop, None = go on."""
        # every listener hears of the boundary, also when an earlier one asks to stop
        stop = [listener.boundary(self) for listener in self.listeners]
        if self.step >= self.max_steps:
            return True
        return False if any(stop) else None

    def batches(self) -> list[Any]:
        """Micro-batches of the next update, with what their loss terms count at this step."""
        found = self._batches(self.step)
        rule = getattr(self.program.step.objective, "coefficients", None)
        if rule is None:
            return found
        now = rule(self.step, self.max_steps)
        return [replace(batch, coefficients=now) for batch in found]

    @property
    def lr_scale(self) -> float:
        """Factor of the learning rate at the next update."""
        return self._lr_scale(self.step, self.max_steps)

    def advance(self) -> StepResult | None:
        """One optimiser step; its result unless the device is still at it."""
        if self.step - self.known == AHEAD:
            self.settle()
        try:
            result = self.program.update(self.batches(), self.lr_scale)
        except NonFinite as error:
            raise self._refused(error) from None
        self.step += 1
        if result is not None:
            self._take(result)
        return result

    def settle(self) -> None:
        """Take in the results of every step so far. Whoever reads the window, counters or state calls this first."""
        for result in self.program.collect():
            self._take(result)

    def _take(self, result: StepResult) -> None:
        if not result.finite and self.config.non_finite == "stop" and not result.skipped:
            self.step = self.known  # nothing was changed at this step nor later
            raise self._refused(f"loss {result.losses}, gradient norm {result.grad_norm}")
        if not result.finite:
            self.odd.append(self.known)
        self.known += 1
        self.tokens_seen += result.tokens
        self.skipped += int(result.skipped)
        self.non_finite += int(not result.finite)
        self.window.add(result)

    def _refused(self, what: object) -> NonFinite:
        return NonFinite(
            f"step {self.step}: {what}; no parameter was changed. Lower optimizer.lr, set train.clip_norm, or"
            " choose train.non_finite: skip (which treats this run differently from its siblings)"
        )

    def state(self) -> dict[str, Any]:
        """Plain data that restores the trainer exactly."""
        self.settle()
        w = self.window
        return {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "skipped": self.skipped,
            "non_finite": self.non_finite,
            "window": {"steps": w.steps, "tokens": w.tokens, "grad_norm": w.grad_norm, "losses": w.losses},
            "program": self.program.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        number = lambda x: float(x) if isinstance(x, str) else x  # nan and inf are strings in our JSON
        self.step = self.known = state["step"]
        self.tokens_seen = state["tokens_seen"]
        self.skipped, self.non_finite = state["skipped"], state["non_finite"]
        w = state["window"]
        losses = {k: number(v) for k, v in w["losses"].items()}
        self.window = Window(w["steps"], w["tokens"], number(w["grad_norm"]), losses)
        self.program.load_state(state["program"])


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Freeze parameters that match no pattern; returns the trainable names."""
    try:
        compiled = [re.compile(p) for p in patterns]
    except re.error as error:
        raise UserError(f"train.parameters: {error.pattern!r} is not a regular expression: {error}") from None
    trainable: list[str] = []
    for name, parameter in model.named_parameters():
        chosen = any(p.fullmatch(name) for p in compiled)
        parameter.requires_grad_(chosen)
        if chosen:
            trainable.append(name)
    if not trainable:
        example = next(name for name, _ in model.named_parameters())
        raise UserError(f"train.parameters: {list(patterns)} match no parameter; names look like {example!r}")
    return trainable


def recompute_activations(model: nn.Module) -> None:
    """Let the parts of a model that can do so keep less for the backward pass (their attribute `recompute`)."""
    able = [module for module in model.modules() if hasattr(module, "recompute")]
    if not able:
        raise UserError(
            f"plan.recompute: {type(model).__name__} cannot compute its activations again; leave it out"
        )
    for module in able:
        module.recompute = True  # type: ignore[assignment]
