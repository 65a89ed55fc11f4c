"""Rows into tensors, dropout keys, and cross-entropy in pieces: against hand-worked rows and the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lexarium.foundation import rng
from lexarium.foundation.rng import torch_generator
from lexarium.foundation.types import Output
from lexarium.objectives import framing
from lexarium.objectives.framing import (
    cross_entropy_sum,
    log_probabilities,
    pad_rows,
    row_keys,
    rows_to_inputs,
    token_keys,
)

rows_ = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5)


def arrays(rows: list[list[int]]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.int64) for row in rows]


@given(rows_)
def test_padding(rows: list[list[int]]) -> None:
    table, real, lengths = pad_rows(arrays(rows), 0)
    longest = max(map(len, rows))
    assert table.tolist() == [row + [0] * (longest - len(row)) for row in rows]
    assert lengths.tolist() == list(map(len, rows))
    flat = [token for row in rows for token in row]
    assert (table.reshape(-1) if real is None else table.reshape(-1)[real]).tolist() == flat
    assert (real is None) == (len(set(map(len, rows))) == 1), "without padding there are no indices"


@given(rows_)
def test_inputs_by_name(rows: list[list[int]]) -> None:
    target, source = rows_to_inputs(arrays(rows), 0), rows_to_inputs(arrays(rows), 0, "source")
    assert list(target) == ["tokens", *(["real"] if "real" in target else [])]
    for name, other in {"tokens": "source", "real": "source_real"}.items():
        assert (name in target) == (other in source)
        assert name not in target or torch.equal(target[name], source[other])
    assert target["tokens"].dtype == torch.int64


# --- keys -------------------------------------------------------------------------------------------


def test_keys_depend_on_key_example_place_and_stream() -> None:
    base = token_keys(123456789012345, 7, 50)
    assert base.dtype == np.int32
    assert np.array_equal(token_keys(123456789012345, 7, 20), base[:20]), "not on the length"
    others = [
        (123456789012346, 7, 0),
        (123456789012345 + (1 << 40), 7, 0),
        (123456789012345, 8, 0),
        (123456789012345, 7 + (1 << 32), 0),
        (123456789012345, 7, 1),
    ]
    for key, example, stream in others:
        assert not (token_keys(key, example, 50, stream) == base).any()


def test_keys_of_a_long_run_collide_no_more_than_chance() -> None:
    """300,000 keys of 32 bits: about 10 pairs are expected to be equal (n^2 / 2^33)."""
    found = np.concatenate([token_keys(key, example, 30) for key in range(100) for example in range(100)])
    assert len(found) - len(np.unique(found)) < 35


@given(rows_, st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 1))
def test_keys_of_rows_are_those_of_single_examples(
    rows: list[list[int]], key: int, first: int, stream: int
) -> None:
    """Against the definition at the head of the file, in Python integers; 0 behind the end of a row."""
    mix = rng.mix32_int
    lengths = np.array(list(map(len, rows)))
    examples = np.arange(first, first + len(rows))
    expected = []
    for example, n in zip(examples.tolist(), lengths.tolist(), strict=True):
        inner = mix((key >> 32) ^ mix((example & 0xFFFFFFFF) ^ mix((example >> 32) + stream)))
        row = [mix(mix((key & 0xFFFFFFFF) + inner) + place) for place in range(n)]
        expected.append(row + [0] * (int(lengths.max()) - n))
    found = row_keys(key, examples, lengths, stream)
    assert found.dtype == np.int32 and found.view(np.uint32).tolist() == expected
    assert token_keys(key, first, int(lengths[0]), stream).tolist() == found[0, : lengths[0]].tolist()


# --- cross-entropy ----------------------------------------------------------------------------------


def output(n: int, v: int, dtype: torch.dtype = torch.float64) -> tuple[Output, Tensor, Tensor]:
    """Hidden states (n, 3), an unembedding (v, 3), and the output made of them."""
    make = lambda *shape: torch.randn(*shape, generator=torch_generator(n, "output"), dtype=torch.float64).to(
        dtype
    )
    hidden, matrix = make(n, 3).requires_grad_(), make(v, 3).requires_grad_()
    return Output(hidden, lambda h: h @ matrix.T), hidden, matrix


def plain(hidden: Tensor, matrix: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """(1 - e) * -log p(y) + e * mean over v of -log p(v), summed (Szegedy et al. 2016, section 7)."""
    logits = hidden @ matrix.T
    log_p = logits - torch.log(torch.exp(logits).sum(-1, keepdim=True))
    counted = labels != -100
    chosen = log_p[counted].gather(1, labels[counted][:, None]).sum()
    return -(1 - smoothing) * chosen - smoothing * log_p[counted].mean(-1).sum()


def labels_of(n: int, v: int) -> Tensor:
    labels = torch.randint(0, v, (n,), generator=torch_generator(n, "labels"))
    labels[::7] = -100
    return labels


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("pieces", [False, True])
def test_cross_entropy_and_its_gradients(
    smoothing: float, pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, v = 5000, 13
    if pieces:
        monkeypatch.setattr(framing, "LARGEST_LOGITS", 1000 * v + 5)
    found, hidden, matrix = output(n, v)
    labels = labels_of(n, v)
    calls = []
    counted = Output(hidden, lambda h: (calls.append(len(h)), found.unembed(h))[1])
    total = cross_entropy_sum(counted, labels, smoothing)
    assert max(calls) == (1000 if pieces else n), "no more logits at once than allowed"
    assert total.item() == pytest.approx(plain(hidden, matrix, labels, smoothing).item(), rel=1e-12)
    total.backward()
    gradients = hidden.grad.clone(), matrix.grad.clone()
    hidden.grad = matrix.grad = None
    plain(hidden, matrix, labels, smoothing).backward()
    assert torch.allclose(gradients[0], hidden.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(gradients[1], matrix.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_head_has_its_gradients_at_once(
    smoothing: float, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against autograd through the formula; scaled, as a term of a loss is."""
    n, v = 700, 13
    monkeypatch.setattr(framing, "LARGEST_LOGITS", 100 * v)
    found, hidden, matrix = output(n, v)
    bias = torch.linspace(-1, 1, v, dtype=matrix.dtype).requires_grad_() if biased else None
    labels = labels_of(n, v)
    found.head = (matrix, bias)
    found.unembed = lambda h: pytest.fail("logits are computed by the head alone")
    (3 * cross_entropy_sum(found, labels, smoothing)).backward()
    leaves = [x for x in (hidden, matrix, bias) if x is not None]
    gradients = [x.grad.clone() for x in leaves]
    for x in leaves:
        x.grad = None
    logits = hidden @ matrix.T + (0 if bias is None else bias)
    (3 * plain(logits, torch.eye(v, dtype=logits.dtype), labels, smoothing)).backward()
    for mine, leaf in zip(gradients, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("headed", [False, True])
def test_logits_of_all_tokens_never_exist_at_once(headed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No operation of forward and backward pass makes a tensor of tokens x vocabulary."""
    n, v, largest = 600, 301, 0
    monkeypatch.setattr(framing, "LARGEST_LOGITS", 50 * v)
    found, _, matrix = output(n, v)
    found.head = (matrix, None) if headed else None

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        cross_entropy_sum(found, labels_of(n, v)).backward()
    assert 50 * v <= largest < n * v / 4


def test_half_precision_is_summed_in_single() -> None:
    found, hidden, matrix = output(4000, 50, torch.bfloat16)
    labels = labels_of(4000, 50)
    total = cross_entropy_sum(found, labels)
    assert total.dtype == torch.float32
    exact = plain((hidden @ matrix.T).double(), torch.eye(50, dtype=torch.float64), labels, 0.0)
    assert total.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("largest", [1, 130, 1 << 25])
def test_log_probabilities(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(framing, "LARGEST_LOGITS", largest)
    found, hidden, matrix = output(101, 13)
    labels = torch.randint(0, 13, (101,), generator=torch_generator(0, "labels"))
    scores = log_probabilities(found, labels)
    expected = [-plain(hidden[i : i + 1], matrix, labels[i : i + 1], 0.0).item() for i in range(101)]
    assert scores.shape == (101,)
    assert scores.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
