"""The captured program: a whole optimiser step as one CUDA graph per shape of batch.

    host:    collate -> rectangle -> staging buffer -> one copy -> replay        (no read of the device)
    device:  gradients to zero -> forward, backward of each micro-batch -> norm -> finite? -> clip, update
             -> a row of numbers into a ring

Steps of small models are bound by launches and Python; a replayed graph has neither. Everything that changes from
step to step lies in tensors: inputs, targets, factors of the loss terms, learning rates, dropout keys (which are
inputs). The numbers that the trainer logs are written to a ring on the device and read when asked for, so the host
runs ahead. A step that is not finite changes nothing under `stop` and `skip`: the fused optimiser's own predicate
(`found_inf`) holds weights and state; after a `stop` all later steps are held too, until the host has read why.

The first step of every shape runs without capture (it warms up kernels and is a step like any other); the second
is captured and replayed. Batches are padded to rectangles whose length is rounded up to `MULTIPLE`: on the devices
this is for, the padding costs less than a graph for every number of tokens.

Evaluation, checkpoints and stops happen between replays and read the same weights. On a CPU the same code runs
with nothing captured, which is how it is tested.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lexarium.foundation.types import Batch, UserError, gist
from lexarium.training.program import AHEAD, StepResult, compile_once, means, weights_of
from lexarium.training.step import TrainStep, autocast, factors_of

MULTIPLE = 8
"""Lengths of rectangles are multiples of this."""
_FILL = {"segment": -1, "source_segment": -1}
_ROWS = {"tokens": "real", "source": "source_real"}


# --- rectangles -------------------------------------------------------------------------------------


def lengths_of(batch: Batch) -> dict[str, int]:
    """Longest row of `tokens` and, where there is one, of `source`."""
    return {name: batch.inputs[name].shape[1] for name in _ROWS if name in batch.inputs}


def common_lengths(batches: list[Batch], longest: int | None = None) -> dict[str, int]:
    """Row lengths that hold all of the batches, rounded up, but not beyond the `longest` row there can be."""
    found: dict[str, int] = {}
    for batch in batches:
        for name, length in lengths_of(batch).items():
            rounded = -(-length // MULTIPLE) * MULTIPLE
            fitting = rounded if longest is None else max(length, min(rounded, longest))
            found[name] = max(found.get(name, 0), fitting)
    return found


def rectangular(batch: Batch, lengths: Mapping[str, int], documents: bool = False) -> Batch:
    """The batch with every row padded to `lengths` and no list of real tokens.

    `documents`: keep `document_ends` where nothing is padded; else `segment` has to do.

    Targets that have one row per real token get -100 (integers) or 0 on padding. Raises UserError for targets of
    another form: they cannot be laid out.
    """
    tokens = batch.inputs["tokens"]
    (b, t), wide = tokens.shape, lengths["tokens"]
    real = batch.inputs.get("real")
    real = torch.arange(b * t) if real is None else real
    place = real // t * wide + real % t  # the same tokens in the wider rectangle
    targets = {}
    for name, value in batch.targets.items():
        if value.ndim == 0 or value.shape[0] != len(real):
            raise UserError(
                f"target {name!r} of shape {tuple(value.shape)} has no row for each of the {len(real)} real tokens"
            )
        fill = 0 if value.is_floating_point() else -100
        padded = value.new_full((b * wide, *value.shape[1:]), fill)
        padded[place] = value
        targets[name] = padded
    inputs = {}
    for name, value in batch.inputs.items():
        if name == "document_ends":
            if documents and len(real) == b * wide:
                inputs[name] = value
        elif name not in _ROWS.values():
            length = lengths["source" if name.startswith("source") else "tokens"]
            padded = value.new_full((b, length, *value.shape[2:]), _FILL.get(name, 0))
            padded[:, : value.shape[1]] = value
            inputs[name] = padded
    return replace(batch, inputs=inputs, targets=targets)


def no_rectangles(objective: Any, batches: list[Batch]) -> str:
    """Why batches of an objective cannot be laid out as rectangles; empty when they can."""
    if not getattr(objective, "rectangles", True):
        return f"objective {objective.name} reads states of real tokens only (rectangles = False)"
    try:
        for batch in batches:
            rectangular(batch, lengths_of(batch))
    except UserError as error:
        return str(error)
    return ""


# --- what a replayed step reads and writes ----------------------------------------------------------


class Staging:
    """Named tensors of fixed shapes on the device, filled by one copy from the host.

    On a GPU the host side is pinned and has `SLOTS` copies, so that the next step can be laid out while the last
    one is still being fetched.
    """

    SLOTS = 4

    def __init__(self, like: Mapping[str, Tensor], device: torch.device) -> None:
        places, size = {}, 0
        for name, value in like.items():
            places[name] = size
            size += -(-max(1, value.numel() * value.element_size()) // 64) * 64
        self._cuda = device.type == "cuda"
        memory = torch.empty(size, dtype=torch.uint8, device=device)
        self._memory = memory
        n = self.SLOTS if self._cuda else 1
        hosts = [
            torch.empty(size, dtype=torch.uint8, pin_memory=True) if self._cuda else memory for _ in range(n)
        ]
        view = lambda m, name, value: (
            m[places[name] : places[name] + value.numel() * value.element_size()]
            .view(value.dtype)
            .view(value.shape)
        )
        self.tensors = {name: view(memory, name, value) for name, value in like.items()}
        self._hosts = [(h, {name: view(h, name, value) for name, value in like.items()}) for h in hosts]
        self._events: list[Any] = [None] * n
        self._next = 0

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Put the values of one step on their way to the device."""
        slot, self._next = self._next, (self._next + 1) % len(self._hosts)
        if self._events[slot] is not None:
            self._events[slot].synchronize()
        host, views = self._hosts[slot]
        for name, value in values.items():
            views[name].copy_(value)
        if self._cuda:
            self._memory.copy_(host, non_blocking=True)
            self._events[slot] = torch.cuda.Event()
            self._events[slot].record()


class Ring:
    """Rows of numbers that the device writes and the host reads when it wants them."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._rows = torch.zeros(AHEAD, width, dtype=torch.float64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._read = self._written = 0

    def write(self, row: Tensor) -> None:
        """On the device: the next row, (width,)."""
        self._rows.index_copy_(0, self._place, row[None])
        self._place.add_(1).remainder_(AHEAD)

    def count(self) -> None:
        """On the host: one more row is on its way."""
        self._written += 1

    @property
    def waiting(self) -> int:
        """Rows that were not read yet."""
        return self._written - self._read

    def read(self) -> list[list[float]]:
        """The rows since the last call; waits for the device."""
        n = self._written - self._read
        if n == 0:
            return []
        order = (torch.arange(n) + self._read) % AHEAD
        rows: list[list[float]] = self._rows.cpu()[order].tolist()
        self._read = self._written
        return rows


class Replays:
    """Runs a function directly, and on a GPU from its second call with the same shape as a captured graph."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = torch.cuda.graph_pool_handle() if self._cuda else None
        self._stream: Any = torch.cuda.Stream(device) if self._cuda else None

    def __call__(self, shape: Hashable, work: Callable[[], None]) -> None:
        """Carry out `work`, which must do the same for every call of a shape, up to the content of tensors."""
        if not self._cuda:
            work()
            return
        if shape not in self._graphs:
            self._graphs[shape] = None
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                work()
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if self._graphs[shape] is None:
            self._graphs[shape] = self._capture(work)
        graph = self._graphs[shape]
        graph.replay() if graph else work()

    def _capture(self, work: Callable[[], None]) -> Any:
        """The graph of `work`; False when it does something that cannot be captured, such as reading a value."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(
                f"a step cannot be captured ({gist(error)}); it is launched anew every time", stacklevel=2
            )
            return False
        return graph


@dataclass
class Layout:
    """What one shape of step is made of: its staged tensors and the micro-batches that read them."""

    staging: Staging
    batches: list[Batch]
    factors: dict[str, Tensor]
    lr: Tensor


def flat_values(batches: list[Batch]) -> dict[str, Tensor]:
    """Every input and target of micro-batches under one name each."""
    return {
        f"{i}/{kind}/{name}": value
        for i, batch in enumerate(batches)
        for kind, tensors in (("inputs", batch.inputs), ("targets", batch.targets))
        for name, value in tensors.items()
    }


def staged_batch(tensors: Mapping[str, Tensor], i: int) -> Batch:
    """Micro-batch `i` made of staged tensors (weights and the like stay on the host)."""
    part = lambda kind: {k.split("/", 2)[2]: v for k, v in tensors.items() if k.startswith(f"{i}/{kind}/")}
    return Batch(part("inputs"), part("targets"), {})


def lay_out(values: Mapping[str, Tensor], n: int, factors: list[str], device: torch.device) -> Layout:
    """Staging for the values of one step of n micro-batches, and what reads it."""
    staging = Staging(values, device)
    tensors = staging.tensors
    batches = [staged_batch(tensors, i) for i in range(n)]
    return Layout(staging, batches, {name: tensors[f"factor/{name}"] for name in factors}, tensors["lr"])


# --- the program ------------------------------------------------------------------------------------


def obstacle(optimizer: torch.optim.Optimizer, device: torch.device, precision: str, processes: int) -> str:
    """Why a step cannot be captured; empty when it can."""
    if processes > 1:
        return "several processes exchange gradients, which is not captured"
    if precision == "fp16":
        return "precision fp16 scales its loss by what the host reads; use bf16"
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return f"{type(optimizer).__name__} has no fused form that holds a step which is not finite"
    return "" if device.type == "cuda" else f"no CUDA device (found {device.type})"


class CapturedProgram:
    """One optimiser step, replayed. See the module docstring."""

    name = "captured"

    def __init__(
        self,
        step: TrainStep,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        precision: str = "fp32",
        clip_norm: float = 0.0,
        non_finite: str = "stop",
        longest: int | None = None,
        compiled: bool = True,
    ) -> None:
        """`longest`: the longest row that a batch can have; none is padded beyond it."""
        self.step, self.optimizer, self.device, self.precision = step, optimizer, device, precision
        self.clip_norm, self.non_finite, self.longest = clip_norm, non_finite, longest
        if compiled:
            compile_once(step, dynamic=None)
        self.parameters = [p for p in step.model.parameters() if p.requires_grad]
        self._replays = Replays(device)
        self._layouts: dict[Hashable, Layout] = {}
        self._ring: Ring | None = None
        self._terms: list[str] = []
        self._pending: list[tuple[dict[str, float], int]] = []
        self._held = torch.zeros((), dtype=torch.float32, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)

    # -- host ----------------------------------------------------------------------------------------

    def update(self, batches: list[Batch], lr_scale: float) -> None:
        """Start one step; its numbers come with `collect`."""
        lengths = common_lengths(batches, self.longest)
        weights = weights_of(batches)
        even = [rectangular(batch, lengths, documents=True) for batch in batches]
        factors = factors_of(weights, coefficients=batches[0].coefficients)
        rates = torch.tensor([g["base_lr"] * lr_scale for g in self.optimizer.param_groups])
        values = {**flat_values(even), "lr": rates.float()}
        values |= {f"factor/{k}": torch.tensor(v, dtype=torch.float64) for k, v in factors.items()}
        shape = tuple((k, tuple(v.shape), v.dtype) for k, v in values.items())
        if shape not in self._layouts:
            self._layouts[shape] = self._lay_out(values, len(batches), list(factors))
        layout = self._layouts[shape]
        layout.staging.fill(values)
        self._replays(shape, lambda: self._carry_out(layout))
        assert self._ring is not None
        self._ring.count()
        self._pending.append((weights, sum(b.n_tokens for b in batches)))

    def collect(self) -> list[StepResult]:
        """Results of all steps since the last call; waits for the device."""
        rows = self._ring.read() if self._ring is not None else []
        pending, self._pending = self._pending, []
        return [self._result(row, *about) for row, about in zip(rows, pending, strict=True)]

    def _result(self, row: list[float], weights: Mapping[str, float], tokens: int) -> StepResult:
        *sums, norm, finite = row
        losses = means(dict(zip(self._terms, sums, strict=True)), weights)
        held = not finite and self.non_finite == "skip"
        return StepResult(losses, norm, tokens, skipped=held, finite=bool(finite))

    def _lay_out(self, values: Mapping[str, Tensor], n: int, factors: list[str]) -> Layout:
        if not self._layouts:
            self._prepare()
        return lay_out(values, n, factors, self.device)

    def _prepare(self) -> None:
        """What every graph will use gets its place. Gradients get theirs in the first step, which is not captured; a
        parameter that the loss does not reach gets none, and is left alone as in eager."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self.device)
            if group.get("momentum"):  # the library would take memory as it is, and a held step leave it so
                for parameter in group["params"]:
                    self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            if self.device.type == "cuda":
                group["capturable"] = True

    # -- device --------------------------------------------------------------------------------------

    def _carry_out(self, layout: Layout) -> None:
        """What is captured."""
        gradients = lambda: [p.grad for p in self.parameters if p.grad is not None]
        if gradients():
            torch._foreach_zero_(gradients())
        sums: dict[str, Tensor] = {}
        for batch in layout.batches:
            with autocast(self.device, self.precision):
                loss, terms = self.step(batch, layout.factors)
            loss.backward()
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        norm = torch.nn.utils.get_total_norm(gradients(), foreach=True)
        numbers = torch.stack([*(v.double() for v in sums.values()), norm.double()])
        finite = torch.isfinite(numbers).all()
        self._apply(layout, norm, finite)
        if self._ring is None:
            self._terms = list(sums)
            self._ring = Ring(len(numbers) + 1, self.device)
        self._ring.write(torch.cat([numbers, finite[None].double()]))

    def _apply(self, layout: Layout, norm: Tensor, finite: Tensor) -> None:
        """Clipping and update inside the fused optimiser, or nothing where the step is to be held."""
        optimizer: Any = self.optimizer
        for i, group in enumerate(optimizer.param_groups):
            group["lr"].copy_(layout.lr[i])
        if self.clip_norm > 0:
            over = norm.float() > self.clip_norm
            optimizer.grad_scale = torch.where(over, (norm.float() + 1e-6) / self.clip_norm, self._one)
        bad = (~finite).float()
        if self.non_finite == "stop":
            self._held.copy_(torch.maximum(self._held, bad))
            optimizer.found_inf = self._held
        elif self.non_finite == "skip":
            optimizer.found_inf = bad
        optimizer.step()
        optimizer.grad_scale = optimizer.found_inf = None

    # -- saving --------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Nothing beside weights and optimiser."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
