"""Stability measures against hand-worked curves, closed forms and released training curves.

The released curves are those of 20 seeds of Murty et al., "Grokking of Hierarchical Structure in Vanilla
Transformers" (ACL 2023): question formation with 6 layers, tense with 4, 100 points 3,000 steps apart.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation.types import UserError
from lexarium.studies.stability import (
    StabilityConfig,
    bimodality,
    commitment,
    histogram,
    stability,
    summarise,
    total_variation,
)

CURVES = Path(__file__).resolve().parents[3] / "shared" / "data" / "structural-grokking"
needs_curves = pytest.mark.skipif(not CURVES.is_dir(), reason=f"released curves not found at {CURVES}")
values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def released(name: str, metric: str) -> dict[int, tuple[list[int], list[float]]]:
    """seed -> (steps, values) of one released file."""
    with (CURVES / name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curves = {}
    for column in rows[0]:
        if column.endswith(f" - {metric}"):
            group = column.removesuffix(f" - {metric}")
            points = [(int(float(r[f"{group} - _step"])), float(r[column])) for r in rows if r[column]]
            curves[int(group.rsplit("-", 1)[1])] = ([p[0] for p in points], [p[1] for p in points])
    return curves


@needs_curves
@pytest.mark.parametrize(
    ("file", "tv", "final", "high"),
    [
        ("all_test_scores_lm.csv", (10.00, 1.66, 18.62), (0.804, 0.954, 0.059, 1.000), 12),
        ("all_scores_tense.csv", (8.48, 4.91, 11.90), (0.848, 0.895, 0.2855, 1.000), 10),
    ],
)
def test_released_curves_give_the_published_summary(file: str, tv: tuple, final: tuple, high: int) -> None:
    curves = released(file, "test_aux")
    assert len(curves) == 20
    runs = [stability(curve, steps) for steps, curve in curves.values()]
    assert {run["n_intervals"] for run in runs} == {99}
    summary = summarise(runs)
    found = summary["tv"]
    assert (found["mean"], found["min"], found["max"]) == pytest.approx(tv, abs=0.005)
    found = summary["final"]
    assert (found["mean"], found["median"], found["min"], found["max"]) == pytest.approx(final, abs=0.0005)
    assert round(summary["share_high"] * 20) == high


@needs_curves
def test_validation_is_settled_long_before_generalisation() -> None:
    validation = summarise(
        [stability(c, s) for s, c in released("all_val_scores_lm.csv", "val_aux").values()]
    )
    assert validation["final"]["mean"] == pytest.approx(1.0, abs=0.0005)
    assert validation["fraction_stable"] == 1.0
    assert validation["fraction_committed_high"] == 1.0


def test_total_variation_of_a_hand_worked_curve() -> None:
    assert total_variation([0.5, 0.75, 0.25, 0.25, 1.0]) == 0.25 + 0.5 + 0.0 + 0.75
    assert total_variation([0.3]) == total_variation([]) == 0.0


def test_burn_in_and_window_choose_the_evaluations_that_count() -> None:
    curve, steps = [0.0, 1.0, 0.0, 0.5, 0.6, 0.6], [0, 10, 20, 30, 40, 50]
    late = stability(curve, steps, StabilityConfig(burn_in=30))
    assert (late["tv"], late["n_intervals"]) == (pytest.approx(0.1), 2)
    assert late["tv_per_interval"] == pytest.approx(0.05)
    assert stability(curve, steps, StabilityConfig(window=20)) == late
    assert stability(curve, steps, StabilityConfig(burn_in=50))["tv_per_interval"] is None
    assert not stability(curve, steps, StabilityConfig(burn_in=50))["stable"]


@pytest.mark.parametrize(
    ("curve", "stable", "committed"),
    [
        ([0.2, 0.95, 0.95, 0.95, 0.95], False, None),
        ([0.95, 0.95, 0.96, 0.95, 0.95], True, "high"),
        ([0.1, 0.1, 0.1], True, "low"),
        ([0.9, 0.9, 0.9], True, "high"),
        ([0.5, 0.5, 0.5], True, None),
    ],
)
def test_a_run_is_committed_only_when_it_is_stable_and_at_an_end(
    curve: list[float], stable: bool, committed: str | None
) -> None:
    run = stability(curve, config=StabilityConfig(tau=0.02, delta=0.1))
    assert (run["stable"], run["committed"]) == (stable, committed)


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    run = stability([0.1, math.nan, 0.3, math.inf], [0, 1, 2, 3])
    assert (run["tv"], run["final"], run["excluded"]) == (pytest.approx(0.2), 0.3, 2)
    summary = summarise([stability([math.nan]), stability([0.5, 0.5])])
    assert (summary["n"], summary["excluded_runs"]) == (1, 1)
    assert summarise([])["fraction_stable"] is None


def test_steps_must_increase_and_fit() -> None:
    with pytest.raises(UserError, match="increase"):
        stability([0.1, 0.2], [5, 5])
    with pytest.raises(UserError, match="2 values but 1 steps"):
        stability([0.1, 0.2], [5])


def test_shares_over_seeds_and_their_sensitivity_to_delta() -> None:
    runs = [stability([v] * 3) for v in (1.0, 0.93, 0.5, 0.04)] + [stability([0.0, 1.0, 0.0])]
    summary = summarise(runs, StabilityConfig(delta=0.1))
    assert summary["fraction_stable"] == 0.8
    assert (summary["fraction_committed_high"], summary["fraction_committed_low"]) == (0.4, 0.2)
    assert (summary["share_high"], summary["share_low"]) == (0.4, 0.4)
    by_delta = {row["delta"]: (row["high"], row["low"]) for row in summary["sensitivity"]}
    assert by_delta[0.01] == (0.2, 0.0)
    assert by_delta[0.05] == (0.2, 0.2)
    assert by_delta[0.1] == (0.4, 0.2)


def test_bimodality_matches_scipy_moments_and_the_uniform_value() -> None:
    from scipy.stats import kurtosis, skew

    rng = np.random.default_rng(3)
    for sample in (rng.normal(size=9), rng.uniform(size=30) ** 3, np.r_[np.zeros(5), np.ones(7)]):
        n = len(sample)
        g, k = skew(sample, bias=False), kurtosis(sample, bias=False)
        expected = (g**2 + 1) / (k + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
        assert bimodality(sample) == pytest.approx(expected)
    assert bimodality(np.linspace(0, 1, 5001)) == pytest.approx(5 / 9, abs=1e-3)
    assert bimodality([0.0, 0.01, 0.02] * 4 + [0.98, 0.99, 1.0] * 4) > 5 / 9
    assert bimodality([0.4, 0.4, 0.4, 0.4]) is None
    assert bimodality([0.1, 0.2, 0.3]) is None


def test_histogram_covers_the_unit_interval_or_the_range() -> None:
    assert histogram([0.05, 0.06, 1.0])["counts"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    outside = histogram([2.0, 4.0], bins=2)
    assert (outside["edges"], outside["counts"]) == ([2.0, 3.0, 4.0], [1, 1])


@given(values)
def test_total_variation_ignores_direction_and_offset(curve: list[float]) -> None:
    assert total_variation(curve[::-1]) == pytest.approx(total_variation(curve))
    assert total_variation([1 - v for v in curve]) == pytest.approx(total_variation(curve))
    assert total_variation(curve) >= abs(curve[-1] - curve[0]) - 1e-12


@given(st.floats(0, 1), st.floats(0, 0.49))
def test_commitment_mirrors(final: float, delta: float) -> None:
    mirror = {"high": "low", "low": "high", None: None}
    assert mirror[commitment(final, delta)] == commitment(1 - final, delta)
