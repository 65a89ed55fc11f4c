"""Which operators a step spends its time in: torch's profiler over a few steps, own times, sorted into kinds.

Times are the operators' own (without those they call): of the device where there is one, of the host elsewhere. The
profiler itself takes time with every operator, so small operators look larger than they are; shares are more
telling than milliseconds.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lexarium.foundation.files import write_atomic
from lexarium.training.captured import CapturedProgram
from lexarium.training.phases import advance, swapped, wait
from lexarium.training.trainer import Trainer

DROPOUT, RANGE = "dropout and integers", "Dropout"
TOP = 12

KINDS: tuple[tuple[str, str], ...] = (
    ("compiled code", r"fxgraph|torchdynamo|torch-compiled|compiledfunction|triton|cpp_fused"),
    ("autograd", r"autograd::|backward\d+$"),
    ("optimiser and clipping", r"adam|sgd|optimizer|_foreach_|foreach_tensor|multi_tensor|vector_norm"),
    ("targets", r"log_?softmax|nll_loss|cross_entropy|logsumexp"),
    ("attention", r"scaled_dot_product|flash|fmha|efficient_attention|softmax"),
    ("norms", r"layer_?norm|rms_?norm|group_norm|batch_norm"),
    ("recurrence", r"rnn|lstm|gru"),
    ("matrix products", r"\b(add|badd)?(mm|bmm|mv)\b|gemm|gemv|cutlass|cublas|nvjet|\blinear\b|matmul"),
    (DROPOUT, r"bitwise|shift"),
    (
        "data movement",
        r"copy|cat\b|index|gather|scatter|embedding|clone|contiguous|memcpy|memset|fill|zero|empty|view|reshape"
        r"|transpose|\bt\b|expand|slice|select|narrow|strided|permute|stack|arange|to\b|item|_local_scalar",
    ),
    (
        "elementwise",
        r"mul|add|sub|div|neg|elu|tanh|sigmoid|silu|exp|rsqrt|pow|sum|mean|where|tri[lu]|elementwise",
    ),
)
"""Kind -> what the name of its operators or kernels holds; the first that fits, `other` where none does."""


@dataclass(frozen=True)
class Operator:
    """One operator of a step: milliseconds and calls per step."""

    name: str
    kind: str
    ms: float
    calls: float


@dataclass(frozen=True)
class Operators:
    """What the profiler saw, per step. `busy_ms`: time in which the device did anything, where there is one."""

    ms: float
    kinds: dict[str, float]
    top: tuple[Operator, ...]
    busy_ms: float | None = None
    launches: float | None = None

    def share(self, kind: str) -> float:
        """Part of the operators' time."""
        return self.kinds.get(kind, 0.0) / self.ms if self.ms else 0.0


def kind_of(name: str) -> str:
    """The kind of an operator or kernel, by its name."""
    plain = name.lower().replace("aten::", "")
    return next((kind for kind, pattern in KINDS if re.search(pattern, plain)), "other")


def observe(
    trainer: Trainer,
    n: int,
    trace: Path | None = None,
    named: Sequence[tuple[type, str]] = (),
    tick: Callable[[], None] = lambda: None,
) -> Operators:
    """Take n steps under the profiler. trace: a file to write them to, as a Chrome trace. named: methods (class, name)
    whose operators count as dropout, whatever they are called; not seen in a compiled or captured step."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it writes to standard error otherwise
    from torch.profiler import ProfilerActivity, profile

    device = trainer.program.device
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    by_name = named if trainer.program.name == "eager" else ()
    with _ranges(by_name), profile(activities=activities) as profiler:
        for _ in range(n):
            advance(trainer)
            tick()
        wait(device)
    if trace is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / trace.name
            profiler.export_chrome_trace(str(file))
            write_atomic(trace, file.read_bytes())
    graph = device.type == "cuda" and isinstance(trainer.program, CapturedProgram)
    return summary(profiler.events() or (), n, device.type == "cuda", graph)


@contextmanager
def _ranges(named: Sequence[tuple[type, str]]) -> Iterator[None]:
    """Let the profiler see calls of these methods as ranges called `RANGE`."""
    with ExitStack() as stack:
        for owner, name in named:
            work: Callable[..., Any] = getattr(owner, name)

            def seen(*arguments: Any, work: Callable[..., Any] = work) -> Any:
                with torch.profiler.record_function(RANGE):
                    return work(*arguments)

            stack.enter_context(swapped(owner, name, seen))
        yield


def summary(events: Sequence[Any], n: int, on_device: bool, kernels: bool) -> Operators:
    """Events of n steps as numbers per step. on_device: count the time of the device; kernels: by the device's own
    events, where the host has none for them (a replayed graph)."""
    host = torch.autograd.DeviceType.CPU
    device = [e for e in events if e.device_type != host and not e.is_user_annotation]
    found: dict[tuple[str, str], list[float]] = {}
    for event in device if kernels else [e for e in events if e.device_type == host]:
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        if own > 0:
            entry = found.setdefault((event.name, _kind(event)), [0.0, 0.0])
            entry[0] += own / 1e3 / n
            entry[1] += 1 / n
    kinds: dict[str, float] = {}
    for (_, kind), (ms, _calls) in found.items():
        kinds[kind] = kinds.get(kind, 0.0) + ms
    rows = sorted((Operator(name, kind, *row) for (name, kind), row in found.items()), key=lambda o: -o.ms)
    return Operators(
        sum(kinds.values()),
        dict(sorted(kinds.items(), key=lambda item: -item[1])),
        tuple(rows[:TOP]),
        sum(e.self_device_time_total for e in device) / 1e3 / n if on_device else None,
        len(device) / n if on_device else None,
    )


def _kind(event: Any) -> str:
    above = event
    while above is not None:
        if above.name == RANGE:
            return DROPOUT
        above = above.cpu_parent
    return kind_of(event.name)
