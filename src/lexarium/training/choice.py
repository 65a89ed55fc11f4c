"""Which program carries out a run's steps: what was asked for, what this machine allows, and what pays.

`auto` is `captured` on a CUDA device and `eager` elsewhere. `captured` gives way where a step cannot be captured,
`compiled` where compiling does not pay: the first batches are passed through both forms, no parameter is changed,
and the ratio is told. The choice and its reason are recorded in plan.json; a resumed run keeps it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from lexarium.foundation.types import Batch, gist
from lexarium.training.captured import CapturedProgram, no_rectangles, obstacle
from lexarium.training.parallel import World
from lexarium.training.program import (
    CompiledProgram,
    EagerProgram,
    Program,
    as_tensors,
    compile_once,
    one_form,
    weights_of,
)
from lexarium.training.step import TrainStep, autocast, factors_of

ROUNDS = 7
PAYS = 1.02
"""Least gain for which a step is compiled."""


@dataclass(frozen=True)
class Choice:
    """A wish and, once chosen, the program and the reason (empty when it is what was asked for)."""

    asked: str
    program: str = ""
    why: str = ""


EAGER = Choice("eager", "eager")


def choose(
    choice: Choice,
    step: TrainStep,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    world: World,
    precision: str,
    clip_norm: float,
    non_finite: str,
    example: Callable[[], list[Batch]],
    longest: int | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[Program, Choice]:
    """The program and why. A choice that already names its program is carried out as it says.

    `example` gives the batches of the first step, `longest` is the length of the longest row.
    """
    options: dict[str, Any] = {"precision": precision, "clip_norm": clip_norm, "non_finite": non_finite}
    if not choice.program:
        choice = _decide(choice.asked, step, optimizer, device, world, precision, example, say)
    if choice.program == "captured":
        return CapturedProgram(step, optimizer, device=device, longest=longest, **options), choice
    if choice.program == "compiled":
        return CompiledProgram(step, optimizer, device=device, world=world, **options), choice
    plain = TrainStep(step.model, step.objective)  # the other may have been compiled to try it
    return EagerProgram(plain, optimizer, device=device, world=world, **options), choice


def _decide(
    asked: str,
    step: TrainStep,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    world: World,
    precision: str,
    example: Callable[[], list[Batch]],
    say: Callable[[str], None],
) -> Choice:
    eager = Choice(asked, "eager")
    if asked == "eager" or (asked == "auto" and device.type != "cuda"):
        return eager
    if not getattr(step.model, "compiles", False):
        return replace(
            eager, why=f"{type(step.model).__name__} does not compile (its kernels are fused already)"
        )
    if asked in ("auto", "captured"):
        reason = obstacle(optimizer, device, precision, world.size) or no_rectangles(
            step.objective, example()
        )
        return replace(eager, why=f"not captured: {reason}") if reason else Choice(asked, "captured")
    say("compiling the step to see whether that pays; it takes a minute or two")
    try:
        gain, seconds = trial(step, example(), device, precision)
    except Exception as error:  # no compiler on this machine, or a model it cannot take
        return replace(eager, why=f"cannot be compiled here ({gist(error)})")
    measured = f"compiled in {seconds:.0f} s; a step takes {1 / gain:.2f} of the eager time"
    if gain < PAYS:
        return replace(eager, why=f"{measured}, which does not pay")
    return Choice(asked, "compiled", measured)


def trial(
    step: TrainStep, batches: list[Batch], device: torch.device, precision: str, rounds: int = ROUNDS
) -> tuple[float, float]:
    """(eager time / compiled time of forward and backward, seconds to compile). Changes no parameter.

    Rounds of both forms alternate; times are medians.
    """
    batch = batches[0].to(device)
    factors = factors_of(weights_of([batch]))
    compile_once(step)

    def seconds(form: Callable[..., Any], *arguments: Any) -> float:
        start = time.perf_counter()
        with autocast(device, precision):
            loss, _ = form(*arguments)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        step.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    fast = lambda: seconds(step, one_form(batch), as_tensors(factors, device))
    plain = lambda: seconds(step.forward, batch, factors)
    first = fast()
    plain()
    pairs = [(plain(), fast()) for _ in range(rounds)]
    slow, quick = (statistics.median(column) for column in zip(*pairs, strict=True))
    return slow / quick, max(0.0, first - quick)
