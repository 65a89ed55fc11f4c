"""Rows read in pieces give the states of rows read at once, whatever the pieces and the rows beside them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lexarium.foundation import registry
from lexarium.foundation.rng import torch_generator
from lexarium.models.build import build_model
from lexarium.models.cache import Cache
from lexarium.models.layers import Layout

V = 11
STACK = {
    "n_layers": 2,
    "n_heads": 2,
    "d_model": 8,
    "d_ff": 12,
    "max_positions": 80,
    "initialisation": "xavier",
}
MODELS: dict[str, dict[str, Any]] = {
    "transformer sinusoidal": {**STACK, "norm": "post", "embedding_scale": True},
    "transformer learned": {**STACK, "positions": "learned", "attention_bias": True, "tied": False},
    "transformer rotary": {**STACK, "positions": "rotary", "norm_type": "rms", "activation": "swiglu"},
    "transformer none": {**STACK, "positions": "none"},
    "recurrent gru": {"cell": "gru", "n_layers": 2, "d_model": 8, "final_norm": True},
    "recurrent lstm": {"cell": "lstm", "n_layers": 2, "d_model": 8, "d_embedding": 6},
    "recurrent tanh": {"cell": "tanh", "n_layers": 1, "d_model": 8},
    "recurrent relu": {"cell": "relu", "n_layers": 2, "d_model": 8, "tied": True},
    "encoder_decoder": STACK,
    "encoder_decoder rotary": {**STACK, "positions": "rotary", "norm": "post"},
}
BUILT: dict[str, Any] = {}


def model(name: str, dropout: float = 0.3) -> Any:
    """In training mode with dropout on: neither may matter."""
    if name not in BUILT:
        config = registry.find("model", name.split()[0]).Config(**MODELS[name], dropout=dropout)
        BUILT[name] = build_model(config, V, seed=1).double()
        with torch.no_grad():
            for i, parameter in enumerate(BUILT[name].parameters()):
                noise = torch.randn(parameter.shape, generator=torch_generator(i, "noise"))
                parameter.add_(noise * 0.3)  # no bias zero, no norm one, and attention far from even
    return BUILT[name]


def ids(n: int, seed: int) -> Tensor:
    return torch.randint(0, V, (n,), generator=torch_generator(seed, "ids"))


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    table = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7)
    places = [torch.arange(len(r)) + i * table.shape[1] for i, r in enumerate(rows)]
    return {"tokens": table, "real": torch.cat(places)}


def source_of(lengths: list[int]) -> dict[str, Tensor]:
    table = nn.utils.rnn.pad_sequence([ids(n, 50 + i) for i, n in enumerate(lengths)], batch_first=True)
    mask = torch.arange(table.shape[1]) < torch.tensor(lengths)[:, None]
    return {"source": table, "source_mask": mask, "source_real": mask.reshape(-1).nonzero()[:, 0]}


def logits(output: Any) -> Tensor:
    return output.unembed(output.hidden)


def whole(m: Any, row: Tensor, source: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return logits(m(tokens=row[None], **source))


def source_row(source: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """The source of one row, without padding."""
    if not source:
        return {}
    n = int(source["source_mask"][row].sum())
    return {
        "source": source["source"][row : row + 1, :n],
        "source_mask": source["source_mask"][row : row + 1, :n],
    }


PIECES = st.integers(1, 4).flatmap(
    lambda n_rows: st.lists(
        st.lists(st.integers(1, 6), min_size=n_rows, max_size=n_rows), min_size=1, max_size=7
    )
)
"""How many tokens each row reads in each piece."""


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25)
@given(pieces=PIECES, seed=st.integers(0, 100))
def test_pieces_of_any_size(name: str, pieces: list[list[int]], seed: int) -> None:
    m, n_rows = model(name), len(pieces[0])
    rows = [ids(sum(piece[i] for piece in pieces), seed + i) for i in range(n_rows)]
    source = source_of([1 + (seed + 3 * i) % 5 for i in range(n_rows)]) if "source" in m.advances else {}
    expected = [whole(m, row, source_row(source, i)) for i, row in enumerate(rows)]
    state, start, given = None, [0] * n_rows, source
    for piece in pieces:
        stop = [a + n for a, n in zip(start, piece, strict=True)]
        parts = [row[a:b] for row, a, b in zip(rows, start, stop, strict=True)]
        output, state = m.advance(**padded(parts), state=state, **given)
        found = logits(output).split(piece)
        for i in range(n_rows):
            assert torch.allclose(found[i], expected[i][start[i] : stop[i]], rtol=1e-9, atol=1e-10)
        assert {len(tensor) for tensor in state.values()} == {n_rows}
        start, given = stop, {}


@pytest.mark.parametrize("name", MODELS)
def test_the_first_piece_is_a_forward_pass(name: str) -> None:
    """Not to rounding but to the bit, where no kernel has to change; padding alone makes recurrences packed."""
    m = model(name)
    source = source_of([3, 2]) if "source" in m.advances else {}
    given = {**padded([ids(5, 1), ids(5, 2)]), **source}
    with torch.no_grad():
        expected = m(**{k: v for k, v in given.items() if k in m.consumes}).hidden
    assert torch.equal(m.advance(**given)[0].hidden, expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", [[2], [2, 0], [1, 1, 0, 2]])
def test_rows_of_a_state_can_be_left_out_repeated_and_reordered(name: str, order: list[int]) -> None:
    m, lengths = model(name), [4, 9, 2]
    source = source_of([3, 1, 4]) if "source" in m.advances else {}
    rows = [ids(n + 3, seed) for seed, n in enumerate(lengths)]
    _, state = m.advance(**padded([r[:-3] for r in rows]), **source)
    state = {k: v[torch.tensor(order)] for k, v in state.items()}
    for step in (3, 2, 1):
        tokens = torch.stack([rows[i][-step] for i in order])[:, None]
        output, state = m.advance(tokens, state)
        for row, found in zip(order, logits(output), strict=True):
            there = whole(m, rows[row], source_row(source, row))[-step]
            assert torch.allclose(found, there, rtol=1e-9, atol=1e-10)


def test_one_token_at_a_time_through_several_sizes_of_the_buffers() -> None:
    m, row = model("transformer learned"), ids(80, 3)
    expected, state = whole(m, row, {}), None
    sizes = []
    for i in range(80):
        output, state = m.advance(row[None, i : i + 1], state)
        sizes.append(state["0.keys"].shape[2])
        assert torch.allclose(logits(output)[0], expected[i], rtol=1e-9, atol=1e-10)
    assert sorted(set(sizes)) == [2, 4, 8, 16, 32, 64, 128], "doubled, so that copying stays linear"


def test_no_gradient_flows_and_nothing_is_dropped() -> None:
    for name in MODELS:
        m = model(name)
        assert m.training and any(p.requires_grad for p in m.parameters())
        source = source_of([3]) if "source" in m.advances else {}
        output, state = m.advance(ids(4, 1)[None], **source)
        assert not output.hidden.requires_grad and not any(t.requires_grad for t in state.values())


@pytest.mark.parametrize("width", [1, 2])
def test_a_row_of_a_recurrence_that_reads_nothing_is_refused(width: int) -> None:
    m = model("recurrent lstm")
    _, state = m.advance(ids(2, 1).view(2, 1))
    with pytest.raises(ValueError, match="a row without a new token"):
        m.advance(torch.ones(2, width, dtype=torch.int64), state, real=torch.arange(width))


def test_an_encoder_runs_once() -> None:
    m, calls = model("encoder_decoder"), []
    handle = m.encoder.register_forward_hook(lambda *_: calls.append(1))
    cross = m.decoder.blocks[0].cross.k.register_forward_hook(lambda *_: calls.append(2))
    _, state = m.advance(ids(2, 1)[None], **source_of([3]))
    m.advance(ids(1, 2)[None], state)
    handle.remove()
    cross.remove()
    assert calls == [1, 2]


def test_rules_of_a_cache() -> None:
    """Who sees whom, spelt out: rows that have read 1 and 3 tokens read 2 more."""
    state = {"length": torch.tensor([1, 3])}
    rule = Cache(state, Layout(2, 2), torch.device("cpu")).rule
    found = rule.allowed(2, 5, torch.device("cpu"))
    assert found is not None and found[:, 0].int().tolist() == [
        [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
    ]
    even = Cache({"length": torch.tensor([3, 3])}, Layout(2, 1), torch.device("cpu"))
    assert even.rule.allowed(1, 4, torch.device("cpu")) is None, "one new token per row needs no mask"


@pytest.mark.parametrize("name", ["transformer learned", "recurrent lstm", "recurrent gru"])
def test_narrow_types(name: str) -> None:
    """Under autocast, as runs in bf16 are asked: pieces differ from the whole by no more than the type's rounding."""
    config = registry.find("model", name.split()[0]).Config(**MODELS[name])
    m, rows = build_model(config, V, seed=2), [ids(9, 1), ids(6, 2)]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        exact = [logits(m(tokens=r[None])).float() for r in rows]
        output, state = m.advance(**padded([r[:-2] for r in rows]))
        output, state = m.advance(torch.stack([r[-2] for r in rows])[:, None], state)
        output, state = m.advance(torch.stack([r[-1] for r in rows])[:, None], state)
        for i in range(2):
            assert math.isfinite(float(exact[i].sum()))
            assert torch.allclose(logits(output)[i].float(), exact[i][-1], atol=0.05)
