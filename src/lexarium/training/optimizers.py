"""Optimisers: torch's own, with decay groups chosen by what a parameter is.

Weight decay applies to parameters of two or more dimensions (matrices and embeddings) and not to biases
and norm gains, unless `adamw` is told `decay: all`. (The hierarchical-generalization code base looks for
"LayerNorm.weight" among modules called norm1 and norm2, so its decay, where used, would reach norm gains
too.) `fused` kernels are taken where the library has them for the device.

An optimizer that cohorts may use also has its rule in stacked form: `stacked_state`, the quantities it keeps per
weight, `stacked_count`, whether it keeps the number of updates as `step`, `columns`, its options of a parameter
group as numbers, and `stacked_step`, the library's update for M members at once. There every option is a float64
column (M, 1), except `weight_decay`: (M, P) of the weights' type.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexarium.foundation.config import ComponentConfig

Named = Iterable[tuple[str, nn.Parameter]]
Columns = Mapping[str, Tensor]


def groups(parameters: Named, weight_decay: float, decay: str = "matrices") -> list[dict[str, Any]]:
    """Parameter groups with and without decay, each in the order given. decay: `matrices` or `all`."""
    reached = lambda p: decay == "all" or p.ndim >= 2
    named = list(parameters)
    with_decay = [p for _, p in named if reached(p)]
    without = [p for _, p in named if not reached(p)]
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
        decay: Literal["matrices", "all"] = "matrices"
        """What weight decay reaches: matrices and embeddings, or all parameters (the library's own habit)."""

    stacked_state, stacked_count = ("exp_avg", "exp_avg_sq"), True

    def __init__(self, config: Config) -> None:
        self.config = config

    def columns(self) -> dict[str, float]:
        """Options of this optimizer that may differ between the members of a cohort."""
        c = self.config
        return {"beta1": c.betas[0], "beta2": c.betas[1], "eps": c.eps, "weight_decay": c.weight_decay}

    @staticmethod
    def stacked_step(
        weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], step: Tensor, lr: Tensor, o: Columns
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(M, P) weights and state after the update number `step` (M, 1), counted from 1 (Loshchilov and Hutter
        2019, algorithm 2, in the library's form). Columns are float64: 1 - beta is taken before rounding."""
        exact = lambda column: column.to(weight.dtype)
        mean = torch.lerp(state["exp_avg"], gradient, exact(1 - o["beta1"]))
        square = exact(o["beta2"]) * state["exp_avg_sq"] + exact(1 - o["beta2"]) * gradient * gradient
        first, second = 1 - o["beta1"] ** step, 1 - o["beta2"] ** step
        decayed = weight * (1 - exact(lr) * o["weight_decay"])
        denominator = square.sqrt() / exact(second.sqrt()) + exact(o["eps"])
        return decayed - exact(lr / first) * mean / denominator, {"exp_avg": mean, "exp_avg_sq": square}

    def build(self, parameters: Named, device: torch.device) -> torch.optim.Optimizer:
        """The torch optimiser over named parameters."""
        c = self.config
        return without_compiler(torch.optim.AdamW)(
            groups(parameters, c.weight_decay, c.decay),
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

    stacked_state, stacked_count = ("momentum_buffer",), False

    def __init__(self, config: Config) -> None:
        self.config = config

    def columns(self) -> dict[str, float]:
        """Options of this optimizer that may differ between the members of a cohort."""
        c = self.config
        return {"momentum": c.momentum, "nesterov": float(c.nesterov), "weight_decay": c.weight_decay}

    @staticmethod
    def stacked_step(
        weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], step: Tensor, lr: Tensor, o: Columns
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(M, P) weights and state after an update."""
        gradient, momentum = gradient + o["weight_decay"] * weight, o["momentum"].to(weight.dtype)
        buffer = momentum * state["momentum_buffer"] + gradient
        direction = torch.where(o["nesterov"] > 0, gradient + momentum * buffer, buffer)
        return weight - lr.to(weight.dtype) * direction, {"momentum_buffer": buffer}

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
