"""Logistic regression against scipy's minimiser, closed forms, and the conditions of a minimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lexarium.evaluations.logistic import Probe, fit


def problem(seed: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) * random.uniform(0.1, 30, d) + random.normal(size=d) * 5
    y = random.random(n) < 1 / (1 + np.exp(-(x - x.mean(0)) / x.std(0) @ random.normal(size=d)))
    y[:2] = True, False
    return x, y


def objective(at: np.ndarray, x: np.ndarray, y: np.ndarray, s: np.ndarray, strength: float) -> float:
    """Written with signs, one example after the other."""
    z = x @ at[:-1] + at[-1]
    terms = [
        w * math.log1p(math.exp(-abs(v))) + w * max(0.0, -v if t else v)
        for v, t, w in zip(z, y, s, strict=True)
    ]
    return sum(terms) + strength / 2 * float(at[:-1] @ at[:-1])


@pytest.mark.parametrize("strength", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_agrees_with_scipy(strength: float, balanced: bool) -> None:
    x, y = problem(3, 60, 4)
    scaled = (x - x.mean(0)) / x.std(0)
    s = np.where(y, 30 / y.sum(), 30 / (~y).sum()) if balanced else np.ones(60)
    wanted = minimize(objective, np.zeros(5), (scaled, y, s, strength), "BFGS", options={"gtol": 1e-9}).x
    found = fit(x, y, strength, balanced)
    np.testing.assert_allclose(np.append(found.weights, found.intercept), wanted, atol=2e-6)
    np.testing.assert_allclose(found.log_odds(x), scaled @ wanted[:-1] + wanted[-1], atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(1, 12), st.sampled_from([1e-6, 0.3, 10.0]))
def test_the_gradient_vanishes(seed: int, n: int, d: int, strength: float) -> None:
    """Also with more features than examples, and where a plane separates the classes."""
    x, y = problem(seed, n, d)
    found = fit(x, y, strength)
    p = 1 / (1 + np.exp(-found.log_odds(x)))
    scaled = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(scaled.T @ (p - y) + strength * found.weights, 0, atol=1e-5)
    assert (p - y).sum() == pytest.approx(0, abs=1e-5)


def test_one_indicator_gives_the_shares() -> None:
    """With a penalty near 0 the log-odds of a group are those of its counts: ln(3 / 1) and ln(1 / 4)."""
    x = np.array([[1.0]] * 4 + [[0.0]] * 5)
    y = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    odds = fit(x, y, 1e-10).log_odds(np.array([[1.0], [0.0]]))
    assert odds == pytest.approx([math.log(3), math.log(1 / 4)], abs=1e-7)


def test_an_overwhelming_penalty_leaves_the_share_and_balance_leaves_nothing() -> None:
    x, y = problem(5, 50, 3)
    share = y.mean()
    assert fit(x, y, 1e12).log_odds(x) == pytest.approx(math.log(share / (1 - share)), abs=1e-6)
    assert fit(x, y, 1e12, balanced=True).log_odds(x) == pytest.approx(0, abs=1e-6)


def test_separable_classes_are_separated() -> None:
    """Two points at -1 and 1: the weight solves strength w = 2 / (1 + exp(w))."""
    found = fit(np.array([[-3.0], [5.0]]), np.array([False, True]), 0.5)
    w = float(found.weights[0])
    assert 0.5 * w == pytest.approx(2 / (1 + math.exp(w)), abs=1e-9)
    assert found.intercept == pytest.approx(0, abs=1e-9) and (found.mean[0], found.scale[0]) == (1, 4)


def test_constant_features_do_not_matter() -> None:
    x, y = problem(7, 30, 2)
    more = np.concatenate([x, np.full((30, 1), 1e6), np.zeros((30, 1))], axis=1)
    one, other = fit(x, y, 1.0), fit(more, y, 1.0)
    np.testing.assert_allclose(other.log_odds(more), one.log_odds(x), atol=1e-9)
    assert (other.weights[2:] == 0).all()


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="0 of 3 labels are positive"):
        fit(np.ones((3, 1)), np.zeros(3, dtype=bool), 1.0)
    with pytest.raises(ValueError, match="not finite"):
        fit(np.array([[1.0], [np.nan], [2.0]]), np.array([True, False, True]), 1.0)
    assert Probe(np.zeros(1), np.ones(1), np.ones(1), 0.5).log_odds(np.array([[2]])).tolist() == [2.5]
