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
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lexarium.foundation.types import UserError
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, Rotation, rotate

if TYPE_CHECKING:
    from lexarium.models.cache import Cache

LONGEST_EXPLICIT = 512
"""Rows longer than this may not use the explicit form (its memory grows with the square)."""


@dataclass(frozen=True)
class Rule:
    """Who may attend to whom. query_segment (B, T) / key_segment (B, S): same document only; -1 = padding. `ends` (K,)
    int32 says the same of a row's own documents (see INPUTS, `document_ends`). `visible` (B, 1, T, S) bool spells the
    rule out instead."""

    causal: bool
    query_segment: Tensor | None = None
    key_segment: Tensor | None = None
    ends: Tensor | None = None
    visible: Tensor | None = None

    def allowed(self, t: int, s: int, device: torch.device) -> Tensor | None:
        """(B or 1, 1, T, S) bool, or None when everything is allowed."""
        mask = self.visible
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


def takes_ends(q: Tensor) -> bool:
    """Whether `document_attention` can be had: on a CPU, and in half precision on a GPU with the library's kernel."""
    if q.device.type == "cpu":
        return not torch.compiler.is_compiling()
    return q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)


def document_attention(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
    """Causal attention within documents on flat tokens (N, H, d), without any mask. `longest`: a document's limit.

    On a GPU the library's variable-length kernel; on a CPU documents of similar length as rows of one fused call.
    """
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        found: Tensor = varlen_attn(q, k, v, ends, ends, longest, longest, window_size=(-1, 0))  # type: ignore
        return found
    lengths = ends.diff()
    starts, lengths = ends[:-1][lengths > 0].long(), lengths[lengths > 0].long()
    order = lengths.argsort(descending=True)
    starts, lengths = starts[order], lengths[order]
    pieces, places, first = [], [], 0
    while first < len(lengths):
        length = int(lengths[first])
        last = first + int((lengths[first:] > length // 2).sum())  # rows at most half empty
        own = lengths[first:last]
        index = (starts[first:last, None] + torch.arange(length)).clamp_max_(len(q) - 1)
        rows = lambda x, index=index: x[index].transpose(1, 2)  # (n, H, length, d)
        y = F.scaled_dot_product_attention(rows(q), rows(k), rows(v), is_causal=True).transpose(1, 2)
        real = torch.arange(length) < own[:, None]
        pieces.append(y[real])
        places.append(index[real])
        first = last
    return torch.zeros_like(q).index_copy(0, torch.cat(places), torch.cat(pieces).to(q.dtype))


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

    def _keys_and_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        return self._heads(self.k(x), layout), self._heads(self.v(x), layout)

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
        cache: Cache | None = None,
    ) -> Tensor:
        """(N, D) -> (N, D). `rotation` turns queries and keys; key is the padded (B, T) one; memory (M, D) with its
        layout. `cache`: x are the tokens that follow those it holds; it also holds what memory came to."""
        q = self._heads(self.q(x), layout)
        if cache is not None and memory_layout is not None:
            # asked of the first piece only, and there memory is
            k, v = cache.keep(lambda: self._keys_and_values(memory, memory_layout))  # type: ignore[arg-type]
        else:
            its_layout = layout if memory_layout is None else memory_layout
            k, v = self._keys_and_values(x if memory is None else memory, its_layout)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None and memory_layout is None:
            k, v = cache.extend(k, v)
        dropping = key is not None and self.dropout.active
        if rule.ends is not None and not dropping and takes_ends(q):
            flat = lambda heads: layout.flatten(heads.transpose(1, 2))
            y = document_attention(flat(q), flat(k), flat(v), rule.ends, layout.length)
            return self.out(y.flatten(1))
        if not dropping:
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
