"""The parts of a model against closed forms and the library's own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lexarium.foundation.rng import torch_generator
from lexarium.models.layers import (
    FeedForward,
    Layout,
    RMSNorm,
    Unembedding,
    count_parameters,
    make_norm,
    normal,
    sinusoidal_table,
    uniform,
    xavier_uniform,
)

masks = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4).filter(
    lambda m: any(map(any, m))
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "noise"), dtype=torch.float64)


# --- layout -----------------------------------------------------------------------------------------


@given(masks, st.booleans())
def test_flattening_and_padding_are_inverse(mask: list[list[bool]], vectors: bool) -> None:
    table = torch.tensor(mask)
    real = table.reshape(-1).nonzero()[:, 0]
    layout = Layout.of(table, real)
    shape = (*table.shape, 3) if vectors else tuple(table.shape)
    x = noise(*shape)
    flat = layout.flatten(x)
    assert torch.equal(flat, x[table])
    padded = layout.pad(flat)
    assert padded.shape == x.shape
    assert torch.equal(padded[table], x[table])
    assert (padded[~table] == 0).all()
    assert torch.equal(layout.flatten(padded), flat)


def test_without_padding_both_are_views() -> None:
    x = noise(3, 4, 2)
    for layout in (Layout.of(torch.zeros(3, 4), None), Layout.of(torch.zeros(3, 4), torch.arange(12))):
        assert layout.real is None
        assert layout.flatten(x).data_ptr() == x.data_ptr()
        assert layout.pad(layout.flatten(x)).data_ptr() == x.data_ptr()


def test_gradients_reach_real_tokens_only() -> None:
    layout = Layout.of(torch.zeros(2, 3), torch.tensor([0, 1, 3]))
    x = noise(2, 3, 2).requires_grad_()
    layout.pad(layout.flatten(x) * 2).sum().backward()
    assert x.grad[..., 0].tolist() == [[2, 2, 0], [2, 0, 0]]


# --- positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 7, 16])
def test_sinusoidal_positions_are_the_published_formula(d: int) -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d)) (Vaswani et al. 2017, 3.5)."""
    table = sinusoidal_table(50, d)
    for position in range(50):
        for j in range(d):
            angle = position / 10000 ** ((j - j % 2) / d)
            assert float(table[position, j]) == pytest.approx(
                (math.cos if j % 2 else math.sin)(angle), abs=1e-12
            )


# --- norms, feed-forward, unembedding -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_is_the_librarys(dtype: torch.dtype) -> None:
    ours, theirs = RMSNorm(6, 1e-3).to(dtype), nn.RMSNorm(6, eps=1e-3).to(dtype)
    with torch.no_grad():
        ours.weight.copy_(noise(6))
        theirs.weight.copy_(noise(6))
    x = noise(5, 6).to(dtype)
    assert torch.allclose(ours(x), theirs(x), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert ours(x).dtype == dtype


def test_norms_by_name() -> None:
    assert isinstance(make_norm("rms", 4, 1e-5, True), RMSNorm)
    layer = make_norm("layer", 4, 1e-3, False)
    assert isinstance(layer, nn.LayerNorm) and layer.bias is None and layer.eps == 1e-3


FORMULAS = {
    "relu": lambda x, g: F.relu(x),
    "gelu": lambda x, g: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x, g: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x, g: x / (1 + torch.exp(-x)),
    "swiglu": lambda x, g: x * g / (1 + torch.exp(-g)),
}


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward(activation: str, bias: bool) -> None:
    layer = FeedForward(4, 7, activation, bias, 0.0).double()  # type: ignore[arg-type]
    assert (layer.gate is not None) == (activation == "swiglu") and (layer.up.bias is not None) == bias
    x = noise(5, 4)
    gate = layer.gate(x) if layer.gate is not None else None
    assert torch.allclose(layer(x, None), layer.down(FORMULAS[activation](layer.up(x), gate)), rtol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_unembedding(tied: bool, bias: bool) -> None:
    layer = Unembedding(4, 9, tied, bias).double()
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=i))
    hidden, embedding = noise(3, 4), noise(9, 4, seed=5)
    expected = hidden @ (embedding if tied else layer.weight).T + (layer.bias if bias else 0)
    assert torch.allclose(layer(hidden, embedding), expected, rtol=1e-12)
    assert count_parameters(layer) == (0 if tied else 36) + (9 if bias else 0)


# --- initialisation ---------------------------------------------------------------------------------


def test_xavier_has_the_published_bound() -> None:
    for gain in (1.0, math.sqrt(2)):
        w = torch.empty(300, 100)
        xavier_uniform(w, torch_generator(0, "w"), gain)
        bound = gain * math.sqrt(6 / 400)
        assert 0.98 * bound < w.abs().max() <= bound
        assert w.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_values_do_not_depend_on_the_type_of_the_parameter() -> None:
    for fill in (lambda p, g: uniform(p, g, 0.3), lambda p, g: normal(p, g, 0.3), xavier_uniform):
        single, double = torch.empty(20, 30), torch.empty(20, 30, dtype=torch.float64)
        fill(single, torch_generator(1, "a"))
        fill(double, torch_generator(1, "a"))
        assert torch.equal(single.double(), double)


def test_normal_has_the_spread_asked_for() -> None:
    w = torch.empty(300, 100)
    normal(w, torch_generator(0, "w"), 0.02)
    assert w.std() == pytest.approx(0.02, rel=0.02) and abs(w.mean()) < 4 * 0.02 / math.sqrt(30_000)


def test_shared_parameters_count_once() -> None:
    a = nn.Linear(3, 3, bias=False)
    model = nn.Sequential(a, a, nn.Linear(3, 2))
    model[2].bias.requires_grad_(False)
    assert count_parameters(model) == 9 + 6 + 2
    assert count_parameters(model, trainable=True) == 9 + 6
