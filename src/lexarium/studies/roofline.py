"""What a step must cost at least on this machine: its operations, the bytes it moves, and what the machine can do.

    bound = max(operations / peak, bytes / bandwidth)

Bytes of a step: 44 per weight (forward and backward read the weights, the gradient is written and its norm read,
AdamW reads weight, gradient and two moments and writes three of them: 11 passes of 4 bytes), and twice what the
forward pass keeps for the backward pass. Peaks of known GPUs are the dense figures of their data sheets; any other
machine is measured with one product and one copy.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lexarium.foundation.types import Batch
from lexarium.models.flops import Counter
from lexarium.training.program import weights_of
from lexarium.training.step import TrainStep, autocast, factors_of

BYTES_PER_WEIGHT = 44

# name in torch.cuda.get_device_name -> TFLOP/s in fp32, tf32, bf16 (dense), and TB/s of memory; NVIDIA's data sheets
GPUS: dict[str, tuple[float, float, float, float]] = {
    "H200": (67, 494, 989, 4.8),
    "H100 NVL": (60, 418, 835, 3.9),
    "H100 PCIe": (51, 378, 756, 2.0),
    "H100": (67, 494, 989, 3.35),
    "A100-SXM4-80GB": (19.5, 156, 312, 2.04),
    "A100": (19.5, 156, 312, 1.555),
    "L40S": (91.6, 183, 362, 0.864),
    "A10": (31.2, 62.5, 125, 0.6),
    "RTX 4090": (82.6, 82.6, 165, 1.008),
    "RTX 3090": (35.6, 35.6, 71, 0.936),
    "T4": (8.1, 8.1, 65, 0.32),
    "V100": (15.7, 15.7, 125, 0.9),
}


@dataclass(frozen=True)
class Machine:
    """What a device can do, from its data sheet or measured when first asked (some tens of milliseconds)."""

    device: torch.device
    precision: str

    @cached_property
    def name(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @cached_property
    def _known(self) -> tuple[float, float, float, float] | None:
        plain = self.name.replace("-", " ")
        words = f" {plain} "
        return next((v for k, v in GPUS.items() if f" {k.replace('-', ' ')} " in words), None)

    @property
    def source(self) -> str:
        """Where the figures come from."""
        return "data sheet" if self._known else "measured"

    @cached_property
    def flops(self) -> float:
        """Operations per second."""
        if self._known:
            fp32, tf32, bf16, _ = self._known
            return 1e12 * {"fp32": fp32, "tf32": tf32, "bf16": bf16, "fp16": bf16}[self.precision]
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)
        n = 512 if self.device.type == "cpu" else 4096
        a = torch.ones(n, n, dtype=half, device=self.device)
        product = torch.empty_like(a)
        return 2 * n**3 / _best(lambda: torch.mm(a, a, out=product), self.device)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes per second, read and written."""
        if self._known:
            return 1e12 * self._known[3]
        memory = torch.ones((64 if self.device.type == "cpu" else 1024) << 18, device=self.device)
        copied = torch.empty_like(memory)
        return 2 * memory.numel() * 4 / _best(lambda: copied.copy_(memory), self.device)


@dataclass(frozen=True)
class Work:
    """What one step takes: operations, bytes moved, and bytes kept between forward and backward pass."""

    flops: float
    bytes: float
    kept: float

    def bound(self, machine: Machine) -> float:
        """Seconds below which no program can carry out the step."""
        return max(self.flops / machine.flops, self.bytes / machine.bandwidth)


@functools.lru_cache(maxsize=16)
def machine(device: torch.device, precision: str) -> Machine:
    """The device's figures; measured at most once per process."""
    return Machine(device, precision)


def _best(work: Callable[[], Any], device: torch.device, rounds: int = 5) -> float:
    """Shortest time of a call, in seconds."""
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait: Callable[[], Any] = waits.get(device.type, lambda: None)
    found = float("inf")
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        found = min(found, time.perf_counter() - start)
    return found


def work_of(
    step: TrainStep, batch: Batch, precision: str = "fp32", device: torch.device | None = None
) -> Work:
    """What one optimiser step on a batch takes, found by one forward pass. Changes nothing.

    The weights' bytes are AdamW's, and every weight is taken to be trained.
    """
    device = device or next(step.parameters()).device
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mine = {p.untyped_storage().data_ptr() for p in step.parameters()}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with Counter(step.model) as counter, hooks, autocast(device, precision):
        step.forward(batch.to(device), factors_of(weights_of([batch])))
    saved = sum(size for place, size in kept.items() if place not in mine)
    trainable = sum(p.numel() for p in step.parameters() if p.requires_grad)
    return Work(3.0 * counter.flops, BYTES_PER_WEIGHT * trainable + 2.0 * saved, float(saved))


def operations_per_token(step: TrainStep, batch: Batch) -> float:
    """Operations of a training step per token, counted in one forward pass without gradients."""
    device = next(step.parameters()).device
    with Counter(step.model) as counter, torch.no_grad():
        step.forward(batch.to(device), factors_of(weights_of([batch])))
    return 3.0 * counter.flops / max(1, batch.n_tokens)
