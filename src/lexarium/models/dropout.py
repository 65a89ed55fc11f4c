"""Dropout that belongs to the token, not to the layout.

Whether a value is kept is a pure function of (token key, site, channel): the token key is a 32-bit hash
of (seed, step, example, position) made by the loader, the site a hash of the module's path in the model.
Padded, packed, micro-batched, stacked or replayed, on any number of ranks, the same token loses the same
values. Integer arithmetic only: no generator, no state.

The bits of one token and site are the words mix32(mix32(key ^ site) ^ mix32(j)), j = 0, 1, ...; each
32-bit word serves two channels, j with its low and j + C/2 with its high 16 bits. A value is kept when its
16 bits, read as a signed number, are at least round(65536 p) - 32768, so the dropping probability is p to
the nearest 1/65536 and the scale, a float32 in every precision, uses that value. Attention weights hash
both token keys, and heads h and h + H/2 share a word. `mix32` is the finaliser of MurmurHash3 (Appleby,
public domain); numpy's twin is in `foundation.rng`.

The mask is made as the bit pattern of the factor itself (0 or 1 / (1 - p)), by integer operations: on a
CPU comparisons and conversions from bool cost several times what these do.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lexarium.foundation.rng import mix32_int

_M1 = 0x85EBCA6B - (1 << 32)
_M2 = 0xC2B2AE35 - (1 << 32)


class Numbers(NamedTuple):
    """The constants of the finaliser: shifts, masks (right shifts are arithmetic) and factors."""

    sixteen: Any = 16
    thirteen: Any = 13
    low16: Any = 0xFFFF
    low19: Any = 0x7FFFF
    first: Any = _M1
    second: Any = _M2


@functools.lru_cache(maxsize=16)
def _numbers_on(device: torch.device) -> Numbers:
    return Numbers(*(torch.tensor(n, dtype=torch.int32, device=device) for n in Numbers()))


def _numbers(device: torch.device) -> Numbers:
    """As tensors, which an operator takes several times faster than it converts integers; a compiler knows better."""
    return Numbers() if torch.compiler.is_compiling() else _numbers_on(device)


def mix32(x: Tensor) -> Tensor:
    """The MurmurHash3 finaliser on int32."""
    n = _numbers(x.device)
    x = (torch.bitwise_right_shift(x, n.sixteen).bitwise_and_(n.low16).bitwise_xor_(x)).mul_(n.first)
    x = (torch.bitwise_right_shift(x, n.thirteen).bitwise_and_(n.low19).bitwise_xor_(x)).mul_(n.second)
    return torch.bitwise_right_shift(x, n.sixteen).bitwise_and_(n.low16).bitwise_xor_(x)


def _halves_(x: Tensor, dim: int) -> Tensor:
    """mix32(x) with its low 16 bits, then its high 16 bits, each as the top of an int32, along `dim`.

    Overwrites x. The last step of mix32 changes the low half only, so it is made there alone.
    """
    n = _numbers(x.device)
    x.bitwise_xor_(torch.bitwise_right_shift(x, n.sixteen).bitwise_and_(n.low16)).mul_(n.first)
    x.bitwise_xor_(torch.bitwise_right_shift(x, n.thirteen).bitwise_and_(n.low19)).mul_(n.second)
    low = torch.bitwise_right_shift(x, n.sixteen).bitwise_xor_(x).bitwise_left_shift_(n.sixteen)
    return torch.cat([low, x], dim)


def threshold(p: float) -> int:
    """How many of the 65,536 values of 16 bits mean `dropped`; never all."""
    return min(round(p * 65536), 65535)


def scale(p: float) -> float:
    """The factor of a kept value: 1 / (1 - p) with p as quantised."""
    return 1.0 / (1.0 - threshold(p) / 65536)


def _word_numbers(n: int, device: torch.device) -> Tensor:
    """(n,) mixed numbers of words; computed in place by a compiled step, kept for the others."""
    return _hashed(n, device) if torch.compiler.is_compiling() else _kept(n, device)


def _hashed(n: int, device: torch.device) -> Tensor:
    return mix32(torch.arange(n, dtype=torch.int32, device=device))


_kept = functools.lru_cache(maxsize=64)(_hashed)


class Rate(NamedTuple):
    """A dropping probability as two int32 tensors without dimensions: so a stacked cohort has one per member.

    limit: the largest half-word that is dropped, shifted; bits: the float32 factor of a kept value.
    """

    limit: Tensor
    bits: Tensor

    @classmethod
    def of(cls, p: float) -> Rate:
        """The tensors of a probability."""
        (bits,) = struct.unpack("<i", struct.pack("<f", scale(p)))
        number = lambda value: torch.tensor(value, dtype=torch.int32)
        return cls(number(((threshold(p) - 32768) << 15) - 1), number(bits))


def _factors(words: Tensor, dim: int, n: int, rate: Rate, dtype: torch.dtype) -> Tensor:
    """int32 words before mixing -> factors, low then high halves along `dim`, cut to n."""
    halves = _halves_(words, dim).bitwise_right_shift_(1)
    # kept where the 16 bits >= threshold - 32768, that is where the difference below is negative
    kept = (rate.limit - halves).bitwise_right_shift_(31)
    return kept.bitwise_and_(rate.bits).view(torch.float32).narrow(dim, 0, n).to(dtype)


def channel_factors(key: Tensor, n_channels: int, site: int, rate: Rate, dtype: torch.dtype) -> Tensor:
    """(N,) int32 token keys -> (N, C): the factor of every channel of every token at a site."""
    words = mix32(key ^ site).unsqueeze(-1) ^ _word_numbers((n_channels + 1) // 2, key.device)
    return _factors(words, -1, n_channels, rate, dtype)


def attention_factors(
    query_key: Tensor, key_key: Tensor, n_heads: int, site: int, rate: Rate, dtype: torch.dtype
) -> Tensor:
    """(B, T) and (B, S) int32 -> (B, H, T, S): the factor of every attention weight."""
    heads = _word_numbers((n_heads + 1) // 2, query_key.device)
    row = mix32(mix32(query_key ^ site).unsqueeze(1) ^ heads[:, None])  # (B, H/2, T)
    column = mix32(key_key + _M1).unsqueeze(1)  # (B, 1, S)
    return _factors(row.unsqueeze(-1) ^ column.unsqueeze(-2), 1, n_heads, rate, dtype)


class Dropout(nn.Module):
    """One dropout site. `assign_sites` gives it its number once the model stands."""

    limit: Tensor
    bits: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.site = p, 0
        for name, value in Rate.of(p)._asdict().items():
            self.register_buffer(name, value, persistent=False)

    @property
    def active(self) -> bool:
        """Whether anything is ever dropped here."""
        return threshold(self.p) > 0

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """x (N, C) and the token keys (N,), or None for evaluation."""
        if key is None or not self.active:
            return x
        return x * channel_factors(key, x.shape[-1], self.site, Rate(self.limit, self.bits), x.dtype)

    def on_weights(self, weights: Tensor, query_key: Tensor | None, key_key: Tensor | None) -> Tensor:
        """Attention weights (B, H, T, S) with the keys of their rows (B, T) and columns (B, S)."""
        if query_key is None or key_key is None or not self.active:
            return weights
        rate = Rate(self.limit, self.bits)
        return weights * attention_factors(
            query_key, key_key, weights.shape[1], self.site, rate, weights.dtype
        )

    def extra_repr(self) -> str:
        return f"p={self.p}"


def assign_sites(model: nn.Module) -> None:
    """Number every dropout site by its path in the model, so that adding one leaves the others alone."""
    for path, module in model.named_modules():
        if isinstance(module, Dropout):
            word = 0
            for character in path.encode():
                word = mix32_int(word * 257 + character + 1)
            module.site = word - (1 << 32) if word >= 1 << 31 else word


def uses_dropout(model: nn.Module) -> bool:
    """Whether any site of the model drops anything."""
    return any(isinstance(m, Dropout) and m.active for m in model.modules())
