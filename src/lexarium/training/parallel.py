"""Many processes: who am I, and the two sums every step needs.

`World.from_environment` reads the variables that torchrun sets. With
one process every operation is free. Gradients are averaged over ranks by DDP, which TrainStep's loss
undoes by multiplying with the world size, so that they equal one process's.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from lexarium.foundation.types import UserError


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> World:
        """RANK, WORLD_SIZE, LOCAL_RANK as torchrun sets them; else a single process."""
        try:
            size = int(environment.get("WORLD_SIZE", "1"))
            rank, local = int(environment.get("RANK", "0")), int(environment.get("LOCAL_RANK", "0"))
        except ValueError as error:
            raise UserError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from None
        return cls(rank, size, local)

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def start(self, device: torch.device) -> None:
        """Join the process group; nothing to do alone."""
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def stop(self) -> None:
        """Leave the process group; the modules that `wrap` returned must be out of use."""
        if self.size > 1 and dist.is_initialized():
            gc.collect()  # a wrapped module freed after its process group can wait for ever (seen with gloo)
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Wait for every process."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """Sums over ranks of plain numbers, in float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return dict(zip(values, tensor.tolist(), strict=True))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any rank raised the flag; every rank gets the same answer."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([int(flag)], device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module whose backward averages gradients over ranks."""
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=ids, broadcast_buffers=False
        )  # buffers are constants

    def last(self, module: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients after the last micro-batch only."""
        return nullcontext() if self.size == 1 or is_last else module.no_sync()  # type: ignore[operator]


def choose_device(wanted: str, world: World | None = None) -> torch.device:
    """`auto` = cuda, else mps, else cpu; anything else must exist."""
    local = world.local_rank if world else 0
    if wanted == "auto":
        wanted = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = wanted.split(":")[0]
    if not available.get(kind, False):
        here = ", ".join(k for k, there in available.items() if there)
        raise UserError(f"plan.device: {wanted!r} is not available here (available: {here}, auto)")
    if wanted == "cuda":
        wanted = f"cuda:{local}"
    return torch.device(wanted)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision the device cannot train in."""
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision fp16 needs a CUDA device (found {device.type}); use bf16 or fp32")
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8):
        raise UserError(
            f"train.precision tf32 needs an NVIDIA GPU since Ampere (found {device.type}); use fp32"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("train.precision bf16: this GPU does not support it; use fp16 or fp32")
    if precision == "bf16" and device.type == "mps":
        raise UserError("train.precision bf16 is not supported on mps here; use fp32")
