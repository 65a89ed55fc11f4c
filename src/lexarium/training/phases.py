"""Where the time of an optimiser step goes: marks of a clock around the parts of a trainer's own step.

    mark        mark      mark       mark        mark        mark
    | other ... | data .. | other .. | forward . | backward. | ... optimiser | other |

A mark ends one phase and begins the next, so the phases of a step add up to the step. The marks lie around methods
of the trainer and its program while `marked` is entered and are gone afterwards; nothing of the step itself is
changed. On a CUDA device a mark is an event in the stream: a phase is then the time the device took to come from one
mark to the next, waiting for the host included. The phases of a captured step lie inside its graph and are told
as one, `replay`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from lexarium.training.captured import CapturedProgram
from lexarium.training.trainer import Trainer

DATA, FORWARD, BACKWARD, UPDATE, REPLAY, OTHER = (
    "data",
    "forward",
    "backward",
    "optimiser",
    "replay",
    "host and other",
)
WARM_UP = 3
BLOCK = 10
"""Steps in a row that are timed as one where the device works on while the host goes ahead."""


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Clock:
    """Marks of one step; the device's own time where it has one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """Here a phase begins."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((phase, event))
        else:
            wait(self._device)
            self._marks.append((phase, time.perf_counter()))

    def read(self) -> dict[str, float]:
        """Seconds of every phase from the first mark to the last one, which are forgotten."""
        wait(self._device)
        found: dict[str, float] = {}
        for (phase, start), (_, end) in pairwise(self._marks):
            seconds = start.elapsed_time(end) / 1e3 if self._device.type == "cuda" else end - start
            found[phase] = found.get(phase, 0.0) + seconds
        self._marks.clear()
        return found


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute, of this object or class alone, for a while."""
    had, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before) if had else delattr(owner, name)


@contextmanager
def marked(trainer: Trainer, clock: Clock) -> Iterator[None]:
    """Let the clock be marked wherever a phase of the trainer's step begins."""
    with ExitStack() as stack:

        def phase(owner: Any, name: str, during: str, after: str) -> None:
            work = getattr(owner, name)

            def timed(*arguments: Any) -> Any:
                clock.mark(during)
                found = work(*arguments)
                clock.mark(after)
                return found

            stack.enter_context(swapped(owner, name, timed))

        program = trainer.program
        phase(trainer, "batches", DATA, OTHER)
        phase(program, "update", OTHER, OTHER)
        if isinstance(program, CapturedProgram):
            phase(program, "_replays", REPLAY, OTHER)
        else:
            phase(program, "_gradients", OTHER, OTHER)
            phase(program, "_forward", FORWARD, BACKWARD)
            phase(program, "_clip", UPDATE, UPDATE)  # what follows, up to the end of `update`, belongs to it
        yield


# --- steps ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """Seconds, medians over steps. step: as in training; marked: with the clock in it, the sum of its phases."""

    step: float
    marked: float
    phases: dict[str, float]


def advance(trainer: Trainer) -> None:
    """One step; after the last one of the run comes the first."""
    if trainer.step >= trainer.max_steps:
        rewind(trainer)
    trainer.advance()


def rewind(trainer: Trainer) -> None:
    """Back to the data of step 0. The weights stay as they are."""
    trainer.settle()
    trainer.step = trainer.known = 0


def warm_up_steps(trainer: Trainer, n: int) -> int:
    """Steps until a step takes its usual time, for `n` steps to be measured: a captured program has to meet every
    shape of batch twice."""
    return 2 * n if isinstance(trainer.program, CapturedProgram) else WARM_UP


def warm_up(trainer: Trainer, n: int, tick: Callable[[], None] = lambda: None) -> None:
    """Take the steps before the `n` that are measured; these then begin at step 0."""
    for done in range(warm_up_steps(trainer, n)):
        if done == n:
            rewind(trainer)
        advance(trainer)
        tick()
    rewind(trainer)


def measure(trainer: Trainer, n: int, tick: Callable[[], None] = lambda: None) -> Times:
    """Time 2 n steps, half of them with the clock: on a CPU in turn, elsewhere in turns of `BLOCK`."""
    device = trainer.program.device
    clock, size = Clock(device), 1 if device.type == "cpu" else BLOCK
    plain: list[float] = []
    phases: list[dict[str, float]] = []
    while len(plain) < n:
        count = min(size, n - len(plain))
        plain += [_seconds(trainer, count, tick) / count] * count
        phases += [_phases(trainer, clock, tick) for _ in range(count)]
    names = [
        name for name in (DATA, FORWARD, BACKWARD, UPDATE, REPLAY, OTHER) if any(name in p for p in phases)
    ]
    return Times(
        statistics.median(plain),
        statistics.median(sum(p.values()) for p in phases),
        {name: statistics.median(p.get(name, 0.0) for p in phases) for name in names},
    )


def _seconds(trainer: Trainer, n: int, tick: Callable[[], None]) -> float:
    """Time of n steps as in training: the host waits for the device after the last one only."""
    wait(trainer.program.device)
    start = time.perf_counter()
    for _ in range(n):
        advance(trainer)
    wait(trainer.program.device)
    end = time.perf_counter()
    for _ in range(n):
        tick()
    return end - start


def _phases(trainer: Trainer, clock: Clock, tick: Callable[[], None]) -> dict[str, float]:
    """Seconds of the phases of one step."""
    with marked(trainer, clock):
        clock.mark(OTHER)
        advance(trainer)
        clock.mark(OTHER)
    tick()
    return clock.read()
