"""Multi-head attention over flat tokens.

Projections run on the N real tokens; the attention itself on the padded rectangle, because short rows in
one batched call are several times faster than one packed row with an explicit mask. Two forms that agree
to rounding: the library's fused call, and the explicit one, taken when attention weights are dropped (the
fused kernels cannot drop by token key). A causal rule with right padding needs no key mask; the document
rule (`segment`) and bidirectional rules with padding build a small boolean one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lexarium.foundation.types import UserError
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, Rotation, rotate

LONGEST_EXPLICIT = 512
"""Rows longer than this may not use the explicit form (its memory grows with the square)."""


@dataclass(frozen=True)
class Rule:
    """Who may attend to whom. query_segment (B, T) / key_segment (B, S): same document only; -1 = padding."""

    causal: bool
    query_segment: Tensor | None = None
    key_segment: Tensor | None = None

    def allowed(self, t: int, s: int, device: torch.device) -> Tensor | None:
        """(B or 1, 1, T, S) bool, or None when everything is allowed."""
        mask = None
        if self.causal:
            mask = torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)[None, None]
        if self.query_segment is not None and self.key_segment is not None:
            same = self.query_segment[:, None, :, None] == self.key_segment[:, None, None, :]
            mask = same if mask is None else mask & same
        return mask

    def bias(self, t: int, s: int, like: Tensor) -> Tensor:
        """(B or 1, 1, T or 1, S or 1) of 0 where attention is allowed and a very negative number elsewhere."""
        allowed = self.allowed(t, s, like.device)
        if allowed is None:
            return like.new_zeros(1, 1, 1, 1)
        return like.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(like.dtype).min)


def explicit_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rule: Rule,
    dropout: Dropout | None,
    query_key: Tensor | None,
    key_key: Tensor | None,
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v on (B, H, T, d) with keyed dropout on the weights (Vaswani et al. 2017, eq. 1)."""
    b, h, t, d = q.shape
    s = k.shape[2]
    bias = rule.bias(t, s, q)
    flat = lambda x: x.reshape(b * h, x.shape[2], d)
    if bias.shape[0] > 1:
        bias = bias.expand(b, h, t, s).reshape(b * h, t, s)
    else:
        bias = bias.view(1, *bias.shape[2:])
    scores = torch.baddbmm(bias, flat(q), flat(k).transpose(1, 2), alpha=1.0 / math.sqrt(d))
    weights = scores.softmax(-1).view(b, h, t, s)
    if dropout is not None:
        weights = dropout.on_weights(weights, query_key, key_key)
    return torch.matmul(weights, v)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
    """The library's fused call under the same rule, without dropout.

    Short rows in bf16 on a CPU take the explicit form: 86 ms against 131 for forward and backward of 16 rows of 256
    with 6 heads of 64 (AVX-512, torch 2.13).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and max(q.shape[2], k.shape[2]) <= 256:
        return explicit_attention(q, k, v, rule, None, None, None)
    if rule.causal and rule.query_segment is None and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    allowed = rule.allowed(q.shape[2], k.shape[2], q.device)
    if allowed is not None and rule.query_segment is not None:
        # A padding row may attend to nothing, which the library turns into NaN: let it see itself.
        allowed = allowed | ~allowed.any(-1, keepdim=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


class Attention(nn.Module):
    """Self-attention, or cross-attention when `memory` is given."""

    def __init__(self, d_model: int, n_heads: int, bias: bool, out_bias: bool, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.d_head = n_heads, d_model // n_heads
        self.q = nn.Linear(d_model, d_model, bias=bias)
        self.k = nn.Linear(d_model, d_model, bias=bias)
        self.v = nn.Linear(d_model, d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=out_bias)
        self.dropout = Dropout(dropout)

    def _heads(self, x: Tensor, layout: Layout) -> Tensor:
        padded = layout.pad(x)  # (B, T, D)
        return padded.view(layout.batch, layout.length, self.n_heads, self.d_head).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        rotation: Rotation | None,
        key: Tensor | None,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        memory_key: Tensor | None = None,
    ) -> Tensor:
        """(N, D) -> (N, D). `rotation` turns queries and keys; key is the padded (B, T) one; memory (M, D) with its
        layout."""
        source, source_layout = (
            (x, layout) if memory is None or memory_layout is None else (memory, memory_layout)
        )
        q = self._heads(self.q(x), layout)
        k, v = self._heads(self.k(source), source_layout), self._heads(self.v(source), source_layout)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if key is None or not self.dropout.active:
            y = fused_attention(q, k, v, rule)
        else:
            if max(q.shape[2], k.shape[2]) > LONGEST_EXPLICIT:
                raise UserError(
                    f"dropout on attention weights needs the explicit form, up to {LONGEST_EXPLICIT} tokens per row;"
                    f" found {q.shape[2]}: set model.attention_dropout to 0"
                )
            y = explicit_attention(q, k, v, rule, self.dropout, key, key if memory is None else memory_key)
        y = y.transpose(1, 2).reshape(layout.batch, layout.length, -1)
        return self.out(layout.flatten(y))
