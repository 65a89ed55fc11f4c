"""What the models are built of: the padding-free layout, norms, feed-forward, positions, initialisation.

Token-wise layers see the real tokens only, as one flat (N, D) matrix in row order; `Layout` knows how to
put them into the padded (B, T) rectangle that attention of short documents wants, and back. With no
padding both are views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lexarium.foundation.types import Output
from lexarium.models.dropout import Dropout

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu"]


@dataclass(frozen=True)
class Layout:
    """Where the N real tokens lie in the (B, T) rectangle. real (N,) int64, or None without padding."""

    batch: int
    length: int
    real: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor, real: Tensor | None) -> Layout:
        """The layout of a (B, T) batch; `real` may be None or name every token."""
        b, t = tokens.shape
        return cls(b, t, None if real is None or real.shape[0] == b * t else real)

    def flatten(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...): the real tokens."""
        flat = x.reshape(self.batch * self.length, *x.shape[2:])
        return flat if self.real is None else flat.index_select(0, self.real)

    def pad(self, x: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), zeros on padding."""
        if self.real is not None:
            x = x.new_zeros(self.batch * self.length, *x.shape[1:]).index_copy(0, self.real, x)
        return x.reshape(self.batch, self.length, *x.shape[1:])


def fill_preset(values: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """Values of the named preset, overwritten by those given."""
    name = values.get("preset") if isinstance(values, dict) else None
    if name is None:
        return values
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}; presets are {', '.join(presets)}")
    return {**presets[name], **values}


def sinusoidal_table(length: int, d_model: int) -> Tensor:
    """(length, d_model): sine on even and cosine on odd dimensions, base 10,000 (Vaswani et al. 2017, 3.5)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(10000.0) / d_model))
    table = torch.zeros(length, d_model, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : d_model // 2]
    return table


Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of every position's angles, (B, 1, T, d / 2) float32."""


def rotation_of(position: Tensor, d_head: int, base: float = 10000.0) -> Rotation:
    """Angles of positions (B, T) for heads of width d (Su et al. 2021, eq. 15)."""
    half = d_head // 2
    rate = base ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = position[:, None, :, None].to(torch.float32) * rate
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary positions on (B, H, T, d): halves rotated (Su et al. 2021, eq. 34), of the first channels where the angles
    are for fewer than d."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., 2 * half :]], dim=-1)


class RMSNorm(nn.Module):
    """x / rms(x) * gain (Zhang and Sennrich 2019), computed in float32."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def make_norm(kind: str, d_model: int, eps: float, bias: bool) -> nn.Module:
    """`layer` or `rms`."""
    return nn.LayerNorm(d_model, eps=eps, bias=bias) if kind == "layer" else RMSNorm(d_model, eps)


class FeedForward(nn.Module):
    """Two linear maps around an activation; `swiglu` gates with a third (Shazeer 2020, eq. 6)."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation, bias: bool, dropout: float) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.gate = nn.Linear(d_model, d_ff, bias=bias) if activation == "swiglu" else None
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """(N, D) -> (N, D)."""
        h = self.up(x)
        if self.gate is not None:
            h = F.silu(self.gate(x)) * h
        elif self.activation == "relu":
            h = F.relu(h)
        elif self.activation == "silu":
            h = F.silu(h)
        else:
            h = F.gelu(h, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.down(self.dropout(h, key))


class Unembedding(nn.Module):
    """Logits from hidden states: the embedding matrix again (tied) or a matrix of its own."""

    def __init__(self, d_model: int, vocab_size: int, tied: bool, bias: bool) -> None:
        super().__init__()
        self.weight = None if tied else nn.Parameter(torch.empty(vocab_size, d_model))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(n, D) -> (n, V)."""
        return F.linear(hidden, *self.head(embedding))

    def head(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, D) and the bias (V,)."""
        return embedding if self.weight is None else self.weight, self.bias

    def output(self, hidden: Tensor, embedding: Tensor, layers: list[Tensor] | None) -> Output:
        """What a model returns for its final states."""
        return Output(hidden, lambda h: self(h, embedding), layers=layers, head=self.head(embedding))


def xavier_uniform(parameter: Tensor, generator: torch.Generator, gain: float = 1.0) -> None:
    """U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    fan_out, fan_in = parameter.shape
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    uniform(parameter, generator, bound)


def uniform(parameter: Tensor, generator: torch.Generator, bound: float) -> None:
    """U(-bound, bound), drawn in float32 whatever the parameter's type."""
    values = torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
    parameter.copy_(values)


def normal(parameter: Tensor, generator: torch.Generator, std: float) -> None:
    """N(0, std), drawn in float32 whatever the parameter's type."""
    parameter.copy_(torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator))


def count_parameters(model: nn.Module, non_embedding: bool = False, trainable: bool = False) -> int:
    """Number of parameters; a shared one counts once."""
    total = 0
    for name, parameter in model.named_parameters():
        if non_embedding and ("embedding" in name):
            continue
        if trainable and not parameter.requires_grad:
            continue
        total += parameter.numel()
    return total
