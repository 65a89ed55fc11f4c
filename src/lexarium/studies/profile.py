"""Where the step of a run goes on this machine, and how far it is from what the machine could do. Trains nothing.

    found = profile_run(config, stores_dir(runs_dir), steps=20)

The parts and a trainer are built in memory, with the program that `train` would choose; steps are taken through it
and thrown away. Only the token store may be made, as `prepare` makes it; no run directory is read or written. What a
run starts from is not loaded: it does not change the time of a step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lexarium.foundation.types import Batch, UserError
from lexarium.models.dropout import Dropout
from lexarium.studies.assembly import Parts
from lexarium.studies.roofline import machine, work_of
from lexarium.studies.run_config import RunConfig, check, check_splits
from lexarium.studies.session import build_trainer
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.store import TokenStore
from lexarium.training.choice import Choice
from lexarium.training.host import repeatable, settle
from lexarium.training.operators import DROPOUT, Operators, observe
from lexarium.training.parallel import World, check_precision, choose_device
from lexarium.training.phases import DATA, Times, measure, warm_up, warm_up_steps
from lexarium.training.step import set_precision
from lexarium.training.trainer import Trainer

PROFILED, COUNTED = 5, 8
"""Most steps under torch's profiler, and most steps whose operations are counted."""
MUCH = 0.1
"""Share of a step from which on something is worth a word."""
GAPS = 0.2
"""The same for the time a device waits for the host."""

Progress = Callable[[int, int], None]
"""Called as progress(steps done, steps in all)."""


@dataclass(frozen=True)
class Roofline:
    """What a step takes, what the machine can do, and how far apart bound and step are; per step, means over steps."""

    operations: float
    bytes: float
    peak: float
    """Operations per second."""
    bandwidth: float
    """Bytes per second."""
    source: str
    """Where the two come from: `data sheet` or `measured`."""
    arithmetic_ms: float
    memory_ms: float
    bound_ms: float
    binds: str
    """`arithmetic` or `memory`."""
    achieved: float
    """Operations per second."""
    mfu: float
    gap: float
    """Measured step over bound."""
    tokens_per_second: float
    """Predicted tokens, as in timing.jsonl."""
    rows: float
    """Tokens in the rectangles of the batches."""
    real: float
    """Tokens of these that are no padding."""
    padding: float
    """Share of the rectangles."""


@dataclass(frozen=True)
class Profile:
    """Everything that was measured. Phases are milliseconds, medians over steps."""

    asked: str
    program: str
    why: str
    device: str
    precision: str
    threads: int
    workers: int
    steps: int
    step_ms: float
    """As in training."""
    marked_ms: float
    """With the clock in it; the sum of the phases."""
    phases: dict[str, float]
    gaps_ms: float | None
    """Time of a step in which the device did nothing; None on a CPU."""
    operators: Operators
    roofline: Roofline
    advice: tuple[str, ...]


class MemoryParts(Parts):
    """The parts of a run that has no directory: its vocabulary is the store's."""

    @cached_property
    def store(self) -> TokenStore:
        """The token store, prepared if it is not there yet."""

        def wait(message: str) -> bool:
            self._say(f"waiting: {message}")
            return True

        return prepare(self.config.corpus, self.config.tokenizer, self._stores, wait=wait)

    @cached_property
    def tokenizer(self) -> Any:
        """The store's tokenizer."""
        return open_tokenizer(self.config.tokenizer, self.store.folder)


def profile_run(
    config: RunConfig,
    stores: Path,
    steps: int = 20,
    trace: Path | None = None,
    say: Callable[[str], None] = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Profile:
    """Profile the step of a configuration. stores: where token stores lie. trace: a new file for a Chrome trace.

    Raises UserError for what `train` would refuse, and for a trace that cannot be written there.
    """
    check_trace(trace)
    if World.from_environment().size > 1:
        raise UserError("a profile is of one process; call it without torchrun")
    check(config)
    check_splits(config)
    device, plan = choose_device(config.plan.device), config.plan
    check_precision(config.train.precision, device)
    settle(plan.threads)
    set_precision(config.train.precision)
    repeatable()
    if plan.program == "compiled":
        say("compiling the step and trying whether it pays, as `train` does")
    parts = MemoryParts(config, stores, stores, say)
    trainer, loader = build_trainer(config, parts, device, choice=Choice(plan.program), fresh=False)
    try:
        return profile_trainer(trainer, steps, trace, plan.threads, plan.workers, progress)
    finally:
        loader.close()


def check_trace(trace: Path | None) -> None:
    """Raise UserError unless a new file can be made there."""
    if trace is None:
        return
    if not trace.parent.is_dir():
        raise UserError(f"--trace {trace}: no directory {trace.parent}; make it first")
    if trace.exists():
        what = "is a directory; name a file in it" if trace.is_dir() else "exists already; name another file"
        raise UserError(f"--trace {trace}: {what}")


def profile_trainer(
    trainer: Trainer,
    steps: int = 20,
    trace: Path | None = None,
    threads: int = 1,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> Profile:
    """Profile the steps of a trainer. They are taken: its weights change."""
    if steps < 1:
        raise UserError(f"steps {steps}: expected at least 1")
    seen, counted = min(PROFILED, steps), min(COUNTED, steps)
    taken = 2 * steps + seen
    total, done = warm_up_steps(trainer, taken) + taken + counted, 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    progress(0, total)
    program, choice = trainer.program, trainer.choice
    warm_up(trainer, taken, tick)
    times = measure(trainer, steps, tick)
    dropout = ((Dropout, "forward"), (Dropout, "on_weights"))
    operators = observe(trainer, seen, trace, dropout, tick)
    roofline = _roofline(trainer, times.step, [2 * steps * i // counted for i in range(counted)], tick)
    gaps = None if operators.busy_ms is None else max(0.0, 1e3 * times.step - operators.busy_ms)
    cuda = program.device.type == "cuda"
    return Profile(
        asked=choice.asked if choice else program.name,
        program=program.name,
        why=choice.why if choice else "",
        device=torch.cuda.get_device_name(program.device) if cuda else program.device.type,
        precision=trainer.config.precision,
        threads=threads,
        workers=workers,
        steps=steps,
        step_ms=1e3 * times.step,
        marked_ms=1e3 * times.marked,
        phases={name: 1e3 * seconds for name, seconds in times.phases.items()},
        gaps_ms=gaps,
        operators=operators,
        roofline=roofline,
        advice=tuple(_advice(times, operators, program.name, gaps, workers)),
    )


# --- the machine ------------------------------------------------------------------------------------


def _roofline(trainer: Trainer, seconds: float, steps: list[int], tick: Callable[[], None]) -> Roofline:
    """Operations and bytes of the given steps beside what the machine can do."""
    program, precision = trainer.program, trainer.config.precision
    rows: list[tuple[float, ...]] = []
    for step in steps:
        trainer.step = step % trainer.max_steps
        rows.append(_needs(trainer, trainer.batches()))
        tick()
    operations, moved, computed, real, predicted = (
        statistics.fmean(column) for column in zip(*rows, strict=True)
    )
    here = machine(program.device, precision)
    arithmetic, memory = operations / here.flops, moved / here.bandwidth
    bound = max(arithmetic, memory)
    return Roofline(
        operations=operations,
        bytes=moved,
        peak=here.flops,
        bandwidth=here.bandwidth,
        source=here.source,
        arithmetic_ms=1e3 * arithmetic,
        memory_ms=1e3 * memory,
        bound_ms=1e3 * bound,
        binds="arithmetic" if arithmetic >= memory else "memory",
        achieved=operations / seconds,
        mfu=operations / seconds / here.flops,
        gap=seconds / bound,
        tokens_per_second=predicted / seconds,
        rows=computed,
        real=real,
        padding=1 - real / computed if computed else 0.0,
    )


def _needs(trainer: Trainer, batches: list[Batch]) -> tuple[float, ...]:
    """Operations and bytes of a step, tokens in its rectangles, real ones, predicted ones."""
    program = trainer.program
    works = [work_of(program.step, batch, trainer.config.precision, program.device) for batch in batches]
    weights = (
        works[0].bytes - 2 * works[0].kept
    )  # passed over once a step, however many forward passes there are
    computed = real = 0
    for batch in batches:
        for name, listed in (("tokens", "real"), ("source", "source_real")):
            if name in batch.inputs:
                computed += batch.inputs[name].numel()
                real += batch.inputs.get(listed, batch.inputs[name]).numel()
    return (
        sum(work.flops for work in works),
        weights + 2 * sum(work.kept for work in works),
        float(computed),
        float(real),
        float(sum(batch.n_tokens for batch in batches)),
    )


# --- advice -----------------------------------------------------------------------------------------


def _advice(times: Times, operators: Operators, program: str, gaps: float | None, workers: int) -> list[str]:
    """What follows from the numbers, and nothing else."""
    found = []
    data = times.phases.get(DATA, 0.0) / times.marked
    if data > MUCH:
        found.append(
            f"data take {data:.0%} of the step: plan.workers={workers + 1} prepares batches ahead of time"
        )
    waits = (gaps or 0.0) / (1e3 * times.step)
    if waits > GAPS:
        told = f"the device waits for the host in {waits:.0%} of the step"
        if program == "captured":
            found.append(
                f"{told}: runs of one shape share it as a cohort (plan.cohort, `lexarium study run`)"
            )
        else:
            found.append(
                f"{told}: plan.program=captured replays a step without the host, and a cohort (plan.cohort) shares"
                " what is left among runs of one shape"
            )
    share = operators.share(DROPOUT)
    if share > MUCH:
        found.append(
            f"dropout takes {share:.0%} of the operators' time: where the study can do without it, a rate of 0 saves"
            " that"
        )
    if not 0.9 < times.marked / times.step < 1.1:
        found.append(
            f"steps with and without the clock differ ({times.marked / times.step:.2f}): the machine is not quiet, or"
            " there are too few steps; call it again with more --steps"
        )
    return found
