"""Dropout that belongs to the token: its rate, its independence, and that the layout does not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lexarium.foundation.rng import generator
from lexarium.models.build import build_model
from lexarium.models.dropout import Dropout, assign_sites, threshold, uses_dropout
from lexarium.models.transformer import Transformer
from lexarium.objectives.framing import token_keys

SITE = 0x12345


def site(p: float, number: int = SITE) -> Dropout:
    dropout = Dropout(p)
    dropout.site = number
    return dropout


def random_keys(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(
        generator(seed, "keys").integers(-(2**31), 2**31, n, dtype=np.int64).astype(np.int32)
    )


def kept(p: float, keys: Tensor, channels: int, number: int = SITE) -> Tensor:
    """(N, C) 0/1: what a site keeps."""
    return (site(p, number)(torch.ones(len(keys), channels, dtype=torch.float64), keys) != 0).double()


def kept_weights(p: float, query: Tensor, key: Tensor, heads: int, number: int = SITE) -> Tensor:
    """(B, H, T, S) 0/1."""
    ones = torch.ones(query.shape[0], heads, query.shape[1], key.shape[1], dtype=torch.float64)
    return (site(p, number).on_weights(ones, query, key) != 0).double()


def correlation(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.reshape(-1).numpy(), b.reshape(-1).numpy())[0, 1])


# --- rate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_of_kept_values(p: float) -> None:
    found = kept(p, random_keys(4000), 130)
    error = math.sqrt(p * (1 - p) / found.numel())
    assert abs(found.mean() - (1 - p)) < 4 * error
    assert (
        abs(
            kept_weights(p, random_keys(2000).view(20, 100), random_keys(2000, 1).view(20, 100), 3).mean()
            - (1 - p)
        )
        < 4 * error
    )


@given(st.floats(0, 0.999), st.integers(1, 9), st.booleans())
def test_values_are_scaled_so_that_the_mean_is_kept(p: float, channels: int, double: bool) -> None:
    """p is quantised to 1/65536, and the scale is that of the quantised p, as a float32."""
    dtype = torch.float64 if double else torch.float32
    found = site(p)(torch.full((50, channels), 3.0, dtype=dtype), random_keys(50))
    scale = 65536 / (65536 - round(p * 65536))
    for value in set(found.reshape(-1).tolist()):
        assert value == 0 or value == pytest.approx(3 * float(np.float32(scale)), rel=2e-7)


def test_the_smallest_rates() -> None:
    x = torch.ones(3, 4)
    assert threshold(0.0) == 0 and threshold(2e-6) == 0 and threshold(1e-5) == 1
    assert site(2e-6)(x, random_keys(3)) is x, "a rate below half a step drops nothing and costs nothing"
    assert not uses_dropout(site(2e-6)) and uses_dropout(nn.Sequential(nn.Linear(2, 2), site(1e-5)))


def test_the_largest_rate_keeps_a_finite_scale() -> None:
    found = site(0.999999)(torch.ones(2000, 64), random_keys(2000))
    assert torch.isfinite(found).all()
    assert (found != 0).float().mean() < 1e-3


def test_without_keys_nothing_is_dropped() -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert site(0.5)(x, None) is x
    weights = x.view(1, 1, 5, 7)
    assert site(0.5).on_weights(weights, None, None) is weights


def test_gradients_follow_the_mask() -> None:
    x = torch.ones(20, 6, dtype=torch.float64, requires_grad=True)
    y = site(0.3)(x, random_keys(20))
    (y * torch.arange(120.0).view(20, 6)).sum().backward()
    assert torch.equal(x.grad, y.detach() * torch.arange(120.0, dtype=torch.float64).view(20, 6))


# --- independence -----------------------------------------------------------------------------------


def test_channels_tokens_and_sites_are_independent() -> None:
    n, c = 6000, 32
    keys, noise = random_keys(n), 4.5 / math.sqrt(6000 * 31)
    mask = kept(0.3, keys, c)
    for shift in range(1, c):  # every distance between channels, the two halves of a word among them
        assert abs(correlation(mask[:, shift:], mask[:, :-shift])) < 4.5 / math.sqrt(n * (c - shift)), shift
    assert abs(correlation(mask[1:], mask[:-1])) < noise
    for other in (SITE + 1, SITE ^ 0x10000, -SITE):
        assert abs(correlation(mask, kept(0.3, keys, c, other))) < noise
    neighbour = kept(0.3, keys ^ 1, c)
    assert abs(correlation(mask, neighbour)) < noise


def test_places_examples_and_steps_are_independent() -> None:
    """With the keys a training run really uses: consecutive places, examples and steps."""
    masks = {
        (step, example): kept(0.5, torch.from_numpy(token_keys(1000 + step, example, 400)), 64)
        for step in range(3)
        for example in range(3)
    }
    noise = 4.5 / math.sqrt(400 * 64)
    for (step, example), mask in masks.items():
        assert abs(mask.mean() - 0.5) < noise
        assert abs(correlation(mask[1:], mask[:-1])) < noise
        for other in [(step + 1, example), (step, example + 1), (step + 1, example + 1)]:
            if other in masks:
                assert abs(correlation(mask, masks[other])) < noise
    source = kept(0.5, torch.from_numpy(token_keys(1000, 0, 400, stream=1)), 64)
    assert abs(correlation(source, masks[0, 0])) < noise


def test_every_channel_count_is_a_beginning_or_a_set_of_its_own_but_always_fair() -> None:
    keys = random_keys(20_000)
    for channels in (1, 2, 3, 7, 8):
        rates = kept(0.3, keys, channels).mean(0)
        assert ((rates - 0.7).abs() < 4.5 * math.sqrt(0.21 / 20_000)).all()


def test_attention_weights_are_independent_over_rows_columns_and_heads() -> None:
    b, t, h = 8, 40, 4
    keys = random_keys(b * t).view(b, t)
    mask = kept_weights(0.3, keys, keys, h)
    noise = 4.5 / math.sqrt(b * t * t)
    assert abs(correlation(mask[:, :, 1:], mask[:, :, :-1])) < noise
    assert abs(correlation(mask[:, :, :, 1:], mask[:, :, :, :-1])) < noise
    for one in range(h):
        for other in range(one):
            assert abs(correlation(mask[:, one], mask[:, other])) < noise
    assert abs(correlation(mask, mask.transpose(2, 3))) < noise, (
        "who looks and who is looked at are not confused"
    )
    assert abs(correlation(mask, kept_weights(0.3, keys, keys, h, SITE + 1))) < noise
    assert abs(correlation(mask.mean(-1), mask.mean(-2))) < 4.5 / math.sqrt(b * t * h)


def test_one_number_is_not_too_regular() -> None:
    """Counts of kept values per token follow the binomial distribution (chi-squared)."""
    from scipy import stats

    counts = kept(0.5, random_keys(20_000), 16).sum(1).long().bincount(minlength=17).numpy()
    expected = stats.binom.pmf(range(17), 16, 0.5) * 20_000
    tail = lambda x: np.concatenate([[x[:4].sum()], x[4:13], [x[13:].sum()]])
    assert stats.chisquare(tail(counts), tail(expected)).pvalue > 1e-4


# --- layout -----------------------------------------------------------------------------------------


@given(st.permutations(range(12)), st.integers(1, 12))
def test_a_mask_depends_on_the_key_alone(order: list[int], cut: int) -> None:
    keys = random_keys(12)
    whole = site(0.4)(torch.ones(12, 5), keys)
    assert torch.equal(site(0.4)(torch.ones(12, 5), keys[order]), whole[order])
    parts = [site(0.4)(torch.ones(len(k), 5), k) for k in keys.split(cut)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_mask_of_weights_depends_on_the_two_keys_alone() -> None:
    query, key = random_keys(12).view(2, 6), random_keys(20, 1).view(2, 10)
    whole = kept_weights(0.4, query, key, 3)
    assert torch.equal(kept_weights(0.4, query[:1, 2:4], key[:1, 5:], 3), whole[:1, :, 2:4, 5:])
    assert torch.equal(kept_weights(0.4, query.flip(1), key.flip(1), 3), whole.flip(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_mask_is_the_same_in_every_precision(dtype: torch.dtype) -> None:
    keys = random_keys(300)
    found = site(0.3)(torch.ones(300, 9, dtype=dtype), keys)
    assert found.dtype == dtype
    assert torch.equal(found != 0, kept(0.3, keys, 9).bool())


def test_sites_are_numbered_by_their_path() -> None:
    config = Transformer.Config(n_layers=2, d_model=8, n_heads=2, dropout=0.1)
    model = build_model(config, 5, seed=1)
    sites = {path: m.site for path, m in model.named_modules() if isinstance(m, Dropout)}
    assert len(sites) == 1 + 2 * 4
    assert len(set(sites.values())) == len(sites)
    assert all(-(2**31) <= number < 2**31 for number in sites.values())
    deeper = build_model(Transformer.Config(n_layers=3, d_model=8, n_heads=2, dropout=0.1), 5, seed=1)
    others = {path: m.site for path, m in deeper.named_modules() if isinstance(m, Dropout)}
    assert sites.items() <= others.items(), "another layer leaves the numbers of the others alone"
    assign_sites(model)
    assert sites == {path: m.site for path, m in model.named_modules() if isinstance(m, Dropout)}


@pytest.mark.slow
def test_the_compiled_mask_equals_the_eager_one_to_the_bit() -> None:
    """Under fullgraph: one kernel instead of a dozen, the same integers."""
    dropout, x, keys = site(0.1), torch.ones(300, 65), random_keys(300)
    compiled = torch.compile(lambda x, k: dropout(x, k), fullgraph=True)
    assert torch.equal(compiled(x, keys), dropout(x, keys))
    q, k = random_keys(40).view(4, 10), random_keys(40, 1).view(4, 10)
    weights = torch.ones(4, 3, 10, 10)
    both = torch.compile(lambda w, q, k: dropout.on_weights(w, q, k), fullgraph=True)
    assert torch.equal(both(weights, q, k), dropout.on_weights(weights, q, k))
