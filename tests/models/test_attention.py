"""Attention: the explicit and the fused form against the formula in float64, for every rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lexarium.foundation.rng import torch_generator
from lexarium.foundation.types import UserError
from lexarium.models.attention import LONGEST_EXPLICIT, Attention, Rule, explicit_attention, fused_attention
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, rotate, rotation_of

NONE = Dropout(0.0)


def heads(b: int, h: int, t: int, d: int, seed: int) -> Tensor:
    return torch.randn(b, h, t, d, generator=torch_generator(seed, "heads"), dtype=torch.float64)


def formula(q: Tensor, k: Tensor, v: Tensor, allowed: list[list[list[bool]]]) -> Tensor:
    """softmax(q k / sqrt(d)) v, one query at a time. NaN where nothing may be looked at."""
    b, h, t, d = q.shape
    out = torch.full((b, h, t, v.shape[-1]), math.nan, dtype=torch.float64)
    for i in range(b):
        for j in range(h):
            for row in range(t):
                columns = [c for c in range(k.shape[2]) if allowed[i][row][c]]
                if columns:
                    weights = [math.exp(float(q[i, j, row] @ k[i, j, c]) / math.sqrt(d)) for c in columns]
                    out[i, j, row] = sum(w * v[i, j, c] for w, c in zip(weights, columns, strict=True)) / sum(
                        weights
                    )
    return out


def permitted(rule: Rule, b: int, t: int, s: int) -> list[list[list[bool]]]:
    """The rule in words: not later (counted from the end), and of the same document."""

    def may(i: int, row: int, column: int) -> bool:
        if rule.causal and column - s > row - t:
            return False
        if rule.query_segment is None or rule.key_segment is None:
            return True
        return bool(rule.query_segment[i, row] == rule.key_segment[i, column])

    return [[[may(i, r, c) for c in range(s)] for r in range(t)] for i in range(b)]


def segments(lengths: list[list[int]], width: int) -> Tensor:
    """Rows of documents of these lengths, -1 on padding."""
    rows = [[n for n, length in enumerate(row) for _ in range(length)] for row in lengths]
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


RULES = {
    "all": Rule(False),
    "causal": Rule(True),
    "documents": Rule(False, segments([[2, 3], [1, 2]], 5), segments([[2, 3], [1, 2]], 5)),
    "causal documents": Rule(True, segments([[2, 3], [1, 2]], 5), segments([[2, 3], [1, 2]], 5)),
    "padding": Rule(False, segments([[5], [3]], 5), segments([[5], [3]], 5)),
}


@pytest.mark.parametrize("name", RULES)
def test_both_forms_give_the_formula(name: str) -> None:
    rule, (q, k, v) = RULES[name], (heads(2, 3, 5, 4, seed) for seed in range(3))
    expected = formula(q, k, v, permitted(rule, 2, 5, 5))
    real = ~expected.isnan()
    assert real.all(), "in self-attention padding looks at padding"
    for found in (explicit_attention(q, k, v, rule, NONE, None, None), fused_attention(q, k, v, rule)):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
def test_cross_attention_of_other_lengths(causal: bool) -> None:
    """More columns than rows: causal counts from the end, so that the last row sees everything."""
    q, k, v = heads(2, 3, 3, 4, 1), heads(2, 3, 7, 4, 2), heads(2, 3, 7, 4, 3)
    rule = (
        Rule(causal, torch.zeros(2, 3, dtype=torch.int64), segments([[7], [4]], 7))
        if not causal
        else Rule(True)
    )
    expected = formula(q, k, v, permitted(rule, 2, 3, 7))
    for found in (explicit_attention(q, k, v, rule, NONE, None, None), fused_attention(q, k, v, rule)):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.data())
def test_both_forms_agree_under_any_rule(t: int, s: int, causal: bool, data: st.DataObject) -> None:
    row = st.lists(st.integers(-1, 2), min_size=t, max_size=t)
    column = st.lists(st.integers(-1, 2), min_size=s, max_size=s)
    rule = Rule(causal, torch.tensor([data.draw(row)]), torch.tensor([data.draw(column)]))
    q, k, v = heads(1, 2, t, 4, 1), heads(1, 2, s, 4, 2), heads(1, 2, s, 4, 3)
    expected = formula(q, k, v, permitted(rule, 1, t, s))
    real = ~expected.isnan()
    for found in (explicit_attention(q, k, v, rule, NONE, None, None), fused_attention(q, k, v, rule)):
        assert torch.isfinite(found).all(), "a row that may look at nothing is not NaN"
        assert torch.allclose(found[real], expected[real], rtol=1e-10)


def test_nothing_is_learned_from_padding_or_later_tokens() -> None:
    rule = RULES["causal documents"]
    q, k, v = (heads(2, 3, 5, 4, seed) for seed in range(3))
    v.requires_grad_()
    fused_attention(q, k, v, rule)[0, :, 3].sum().backward()
    touched = v.grad.abs().sum((1, 3))
    assert touched[1].sum() == 0
    assert (touched[0] > 0).tolist() == [False, False, True, True, False]


def test_dropped_weights_are_the_masked_formula() -> None:
    """softmax first, then the mask: rows are not renormalised."""
    q, k, v = (heads(1, 2, 6, 4, seed) for seed in range(3))
    keys = torch.arange(6, dtype=torch.int32)[None] * 7919
    dropout = Dropout(0.4)
    dropout.site = 99
    factors = dropout.on_weights(torch.ones(1, 2, 6, 6, dtype=torch.float64), keys, keys)
    assert 0 < (factors == 0).sum() < 72
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()
    weights = (q @ k.transpose(-1, -2) / 2.0).masked_fill(~allowed, -math.inf).softmax(-1)
    found = explicit_attention(q, k, v, Rule(True), dropout, keys, keys)
    assert torch.allclose(found, (weights * factors) @ v, rtol=1e-12)


# --- the module -------------------------------------------------------------------------------------


def module(p: float = 0.0, d: int = 12) -> Attention:
    attention = Attention(d, 3, bias=True, out_bias=True, dropout=p).double()
    with torch.no_grad():
        for i, parameter in enumerate(attention.parameters()):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch_generator(i, "p"), dtype=torch.float64) / 3
            )
    return attention


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_rows_do_not_depend_on_their_neighbours_or_padding(p: float, rotary: bool) -> None:
    attention, lengths = module(p), [5, 2, 4]
    turned = lambda position: rotation_of(position, 4) if rotary else None
    x = torch.randn(11, 12, generator=torch_generator(0, "x"), dtype=torch.float64)
    keys = [torch.arange(n, dtype=torch.int32) * 31 + 1000 * i for i, n in enumerate(lengths)]
    table = torch.nn.utils.rnn.pad_sequence(keys, batch_first=True)
    real = torch.tensor([i * 5 + j for i, n in enumerate(lengths) for j in range(n)])
    position = torch.arange(5).expand(3, 5)
    together = attention(x, Layout(3, 5, real), Rule(True), turned(position), table)
    for piece, row, key in zip(together.split(lengths), x.split(lengths), keys, strict=True):
        n = len(row)
        alone = attention(row, Layout(1, n), Rule(True), turned(torch.arange(n)[None]), key[None])
        assert torch.allclose(piece, alone, rtol=1e-12, atol=1e-14)


def test_documents_of_a_row_are_as_if_alone() -> None:
    attention = module(0.3)
    turned = lambda position: rotation_of(position, 4)
    x = torch.randn(7, 12, generator=torch_generator(0, "x"), dtype=torch.float64)
    key = torch.arange(7, dtype=torch.int32)[None] * 101
    segment = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    position = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    packed = attention(x, Layout(1, 7), Rule(True, segment, segment), turned(position), key)
    first = attention(x[:3], Layout(1, 3), Rule(True), turned(position[:, :3]), key[:, :3])
    second = attention(x[3:], Layout(1, 4), Rule(True), turned(position[:, 3:]), key[:, 3:])
    assert torch.allclose(packed, torch.cat([first, second]), rtol=1e-12, atol=1e-14)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_attention_within_documents_needs_no_mask(rows: list[list[int]], padded: bool) -> None:
    """Against the masked formula, gradients too; rows of several documents, some padded."""
    longest, n = max(map(sum, rows)) + int(padded), sum(map(sum, rows))
    attention = module()
    segment = torch.full((len(rows), longest), -1)
    for row, lengths in zip(segment, rows, strict=True):
        row[: sum(lengths)] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    real = (segment.flatten() >= 0).nonzero()[:, 0]
    ends = torch.tensor([0, *(length for lengths in rows for length in lengths)]).cumsum(0)
    ends = torch.cat([ends, ends[-1:].expand(5)]).int()
    found = []
    for given_ends in (ends, None):
        x = torch.randn(n, 12, generator=torch_generator(0, "x"), dtype=torch.float64).requires_grad_()
        rule = Rule(True, segment, segment, given_ends)
        y = attention(x, Layout.of(segment, real), rule, None, None)
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        found.append((y, x.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("t", [7, 256, 300])
def test_half_precision_on_a_cpu_agrees_with_the_formula(t: int) -> None:
    """The explicit form up to 256, the fused one beyond."""
    q, k, v = (heads(2, 3, t, 8, seed) for seed in range(3))
    half = [x.to(torch.bfloat16) for x in (q, k, v)]
    exact = fused_attention(*(x.double() for x in half), Rule(True))
    torch.testing.assert_close(fused_attention(*half, Rule(True)).double(), exact, rtol=0.05, atol=0.02)


def test_long_rows_with_dropout_on_weights_are_refused_before_memory_runs_out() -> None:
    n = LONGEST_EXPLICIT + 1
    x, key = torch.zeros(n, 12, dtype=torch.float64), torch.zeros(1, n, dtype=torch.int32)
    with pytest.raises(
        UserError, match=r"up to 512 tokens per row; found 513: set model\.attention_dropout to 0"
    ):
        module(0.1)(x, Layout(1, n), Rule(True), None, key)
    module(0.0)(x, Layout(1, n), Rule(True), None, key)


# --- rotary -----------------------------------------------------------------------------------------


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    """Pair (i, i + d/2) turns by position * base^(-2i/d) (Su et al. 2021, section 3.2.2, halves paired)."""
    x, position = heads(2, 3, 5, 8, 0), torch.tensor([[0, 1, 2, 3, 4], [7, 0, 1, 50, 3]])
    found = rotate(x, rotation_of(position, x.shape[-1]))
    pairs = torch.complex(x[..., :4], x[..., 4:])
    for i in range(4):
        angle = position.double() * 10000.0 ** (-2 * i / 8)
        turned = pairs[..., i] * torch.polar(torch.ones_like(angle), angle)[:, None]
        assert torch.allclose(found[..., i], turned.real, atol=1e-5)
        assert torch.allclose(found[..., i + 4], turned.imag, atol=1e-5)


def test_scores_under_rotation_depend_on_the_distance_alone() -> None:
    q, k = heads(1, 1, 1, 8, 0), heads(1, 1, 1, 8, 1)
    score = lambda a, b: float(
        (
            rotate(q, rotation_of(torch.tensor([[a]]), q.shape[-1]))
            * rotate(k, rotation_of(torch.tensor([[b]]), k.shape[-1]))
        ).sum()
    )
    assert score(3, 1) == pytest.approx(score(13, 11), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)
