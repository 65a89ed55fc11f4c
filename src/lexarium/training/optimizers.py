"""Optimisers: torch's own, with decay groups chosen by what a parameter is.

Weight decay applies to parameters of two or more dimensions (matrices and embeddings) and not to biases
and norm gains. (The hierarchical-generalization code base looks for "LayerNorm.weight" among modules
called norm1 and norm2, so its decay, where used, would reach norm gains too.) `fused` kernels are taken
where the library has them for the device.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from lexarium.foundation.config import ComponentConfig

Named = Iterable[tuple[str, nn.Parameter]]


def groups(parameters: Named, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with and without decay, each in the order given."""
    named = list(parameters)
    with_decay = [p for _, p in named if p.ndim >= 2]
    without = [p for _, p in named if p.ndim < 2]
    found = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [g for g in found if g["params"]]


def has_fused(device: torch.device) -> bool:
    """Devices for which torch ships fused optimiser kernels."""
    return device.type in ("cpu", "cuda", "mps")


def without_compiler(cls: type[torch.optim.Optimizer]) -> Any:
    """The same optimiser without the guards that its methods carry for torch.compile.

    The first call through such a guard imports the compiler, which costs a process about as much as `import
    torch` itself. The methods below them are unchanged.
    """
    guarded = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(cls, name)) for name in guarded}
    return type(cls.__name__, (cls,), {**bare, "step": torch.no_grad()(inspect.unwrap(cls.step))})


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind, name, version = "optimizer", "adamw", 1

    class Config(ComponentConfig):
        """Options of `adamw`."""

        type: str = "adamw"
        lr: float = Field(1e-3, gt=0)
        betas: tuple[float, float] = (0.9, 0.999)
        eps: float = Field(1e-8, gt=0)
        weight_decay: float = Field(0.0, ge=0)

    def __init__(self, config: Config) -> None:
        self.config = config

    def build(self, parameters: Named, device: torch.device) -> torch.optim.Optimizer:
        """The torch optimiser over named parameters."""
        c = self.config
        return without_compiler(torch.optim.AdamW)(
            groups(parameters, c.weight_decay),
            lr=c.lr,
            betas=c.betas,
            eps=c.eps,
            fused=has_fused(device) or None,
        )


class SGD:
    """Stochastic gradient descent, optionally with (Nesterov) momentum."""

    kind, name, version = "optimizer", "sgd", 1

    class Config(ComponentConfig):
        """Options of `sgd`."""

        type: str = "sgd"
        lr: float = Field(0.1, gt=0)
        momentum: float = Field(0.0, ge=0, lt=1)
        nesterov: bool = False
        weight_decay: float = Field(0.0, ge=0)

        @model_validator(mode="after")
        def _fits(self) -> SGD.Config:
            if self.nesterov and not self.momentum:
                raise ValueError("nesterov needs a momentum above 0")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def build(self, parameters: Named, device: torch.device) -> torch.optim.Optimizer:
        """The torch optimiser over named parameters."""
        c = self.config
        return without_compiler(torch.optim.SGD)(
            groups(parameters, c.weight_decay),
            lr=c.lr,
            momentum=c.momentum,
            nesterov=c.nesterov,
            fused=has_fused(device) or None,
        )
