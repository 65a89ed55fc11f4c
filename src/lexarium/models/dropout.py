"""Dropout that belongs to the token, not to the layout.

Whether a value is kept is a pure function of (token key, site, channel): the token key is a 32-bit hash
of (seed, step, example, position) made by the loader, the site a hash of the module's path in the model.
Padded, packed, micro-batched, stacked or replayed, on any number of ranks, the same token loses the same
values. Integer arithmetic only: no generator, no state.

The bits of one token and site are mix32(mix32(key ^ site) ^ mix32(j)) for j = 0, 1, ...; each 32-bit word
serves two channels with 16 bits each, the low half first. A value is kept when its half, read as a signed
number, is at least round(65536 p) - 32768, so the dropping probability is p to the nearest 1/65536 and
the scale uses that value exactly. Attention weights hash both token keys, and pairs of heads share a word.
`mix32` is the finaliser of MurmurHash3 (Appleby, public domain); numpy's twin is in `foundation.rng`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from lexarium.foundation.rng import mix32_int

_M1 = 0x85EBCA6B - (1 << 32)
_M2 = 0xC2B2AE35 - (1 << 32)


def mix32(x: Tensor) -> Tensor:
    """The MurmurHash3 finaliser on int32; right shifts are arithmetic, hence the masks."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _M1
    x = (x ^ ((x >> 13) & 0x7FFFF)) * _M2
    return x ^ ((x >> 16) & 0xFFFF)


def _mix32_(x: Tensor) -> Tensor:
    """`mix32` that overwrites its argument: half the memory traffic of the plain form, same bits."""
    t = x >> 16
    x.bitwise_xor_(t.bitwise_and_(0xFFFF)).mul_(_M1)
    torch.bitwise_right_shift(x, 13, out=t)
    x.bitwise_xor_(t.bitwise_and_(0x7FFFF)).mul_(_M2)
    torch.bitwise_right_shift(x, 16, out=t)
    return x.bitwise_xor_(t.bitwise_and_(0xFFFF))


def threshold(p: float) -> int:
    """How many of the 65,536 values of a 16-bit half mean `dropped`."""
    return round(p * 65536)


@functools.lru_cache(maxsize=64)
def _channel_words(n: int, device: torch.device) -> Tensor:
    return mix32(torch.arange(n, dtype=torch.int32, device=device))


def keep_channels(key: Tensor, n_channels: int, site: int, p: float) -> Tensor:
    """(N,) int32 token keys -> (N, C) bool: which channels of each token are kept at a site."""
    words = _channel_words((n_channels + 1) // 2, key.device)
    bits = _mix32_(mix32(key ^ site).unsqueeze(-1) ^ words).view(torch.int16)
    return bits[:, :n_channels] >= threshold(p) - 32768


def keep_attention(query_key: Tensor, key_key: Tensor, n_heads: int, site: int, p: float) -> Tensor:
    """(B, T) and (B, S) int32 -> (B, H, T, S) bool: which attention weights are kept."""
    heads = _channel_words((n_heads + 1) // 2, query_key.device)
    row = mix32(mix32(query_key ^ site).unsqueeze(1) ^ heads[:, None])  # (B, H/2, T)
    column = mix32(key_key + _M1).unsqueeze(1)  # (B, 1, S)
    bits = _mix32_(row.unsqueeze(-1) ^ column.unsqueeze(-2)).view(torch.int16)
    b, h, t, s2 = bits.shape
    kept = (bits >= threshold(p) - 32768).view(b, h, t, s2 // 2, 2)
    return kept.permute(0, 1, 4, 2, 3).reshape(b, 2 * h, t, s2 // 2)[:, :n_heads]


def apply_mask(x: Tensor, kept: Tensor, p: float) -> Tensor:
    """x with dropped values set to zero and the others scaled by 1 / (1 - p)."""
    return _Apply.apply(x, kept, 1.0 / (1.0 - threshold(p) / 65536))


class _Apply(torch.autograd.Function):
    """x * kept * scale, remembering one byte per value instead of four."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kept: Tensor, scale: float) -> Tensor:
        return x * kept * scale

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, kept, ctx.scale = inputs
        ctx.save_for_backward(kept)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (kept,) = ctx.saved_tensors
        return gradient * kept * ctx.scale, None, None


class Dropout(nn.Module):
    """One dropout site. `assign_sites` gives it its number once the model stands."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.site = p, 0

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """x (N, C) and the token keys (N,), or None for evaluation."""
        if key is None or threshold(self.p) == 0:
            return x
        return apply_mask(x, keep_channels(key, x.shape[-1], self.site, self.p), self.p)

    def on_weights(self, weights: Tensor, query_key: Tensor | None, key_key: Tensor | None) -> Tensor:
        """Attention weights (B, H, T, S) with the keys of their rows (B, T) and columns (B, S)."""
        if query_key is None or key_key is None or threshold(self.p) == 0:
            return weights
        kept = keep_attention(query_key, key_key, weights.shape[1], self.site, self.p)
        return apply_mask(weights, kept, self.p)

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
    return any(isinstance(m, Dropout) and threshold(m.p) > 0 for m in model.modules())
