"""Intervals, permutation p, effect sizes and corrections against numbers computed elsewhere."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lexarium.studies.intervals import (
    SEEDS_FOR_TESTS,
    Effect,
    adjust,
    describe,
    effect,
    smallest_p,
    t_interval,
)

FIVE = [0.31, 0.52, 0.44, 0.68, 0.40]
OTHER_FIVE = [0.71, 0.95, 0.88, 0.60, 0.93]
EIGHT = [0.10, 0.25, 0.31, 0.22, 0.40, 0.05, 0.28, 0.19]
OTHER_EIGHT = [0.30, 0.45, 0.21, 0.62, 0.55, 0.38, 0.41, 0.29]

few = st.lists(st.integers(1, 99).map(lambda i: i / 100), min_size=2, max_size=5)
many = st.lists(st.integers(1, 99).map(lambda i: i / 100), min_size=6, max_size=7)


def test_t_interval_from_a_table() -> None:
    # mean 3, sd sqrt(2.5), t(0.975, 4) = 2.776445: 3 +- 2.776445 * sqrt(2.5 / 5)
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)
    # t(0.95, 2) = 2.919986, sd 1, n 3
    assert t_interval([1, 2, 3], 0.9) == pytest.approx((2 - 1.685855, 2 + 1.685855), abs=1e-6)
    assert t_interval([1.0]) is None
    assert t_interval([1.0, 1.0, 1.0]) is None


def test_unpaired_interval_is_welch_of_scipy() -> None:
    from scipy.stats import ttest_ind

    for x, y in ((FIVE, OTHER_FIVE), (FIVE[:3], OTHER_FIVE), (EIGHT, OTHER_EIGHT)):
        expected = ttest_ind(y, x, equal_var=False).confidence_interval(0.9)
        assert effect(x, y, confidence=0.9).t_interval == pytest.approx((expected.low, expected.high))


def test_paired_interval_is_scipys() -> None:
    from scipy.stats import ttest_rel

    expected = ttest_rel(OTHER_FIVE, FIVE).confidence_interval(0.95)
    found = effect(FIVE, OTHER_FIVE, paired=True)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.interval_method == "paired t"


def test_below_six_seeds_there_is_a_t_interval_and_no_test() -> None:
    assert SEEDS_FOR_TESTS == 6
    found = effect(FIVE, OTHER_FIVE)
    assert (found.p, found.p_method, found.effect_size) == (None, None, None)
    assert found.interval == found.t_interval
    assert found.interval_method == "Welch t"
    # 10 choose 5 = 252 relabellings
    assert found.notes == ["Too few seeds for a permutation test (smallest possible p = 0.0079)."]
    assert effect([*FIVE, 0.5], OTHER_FIVE).p is None
    assert effect([*FIVE, 0.5], [*OTHER_FIVE, 0.9]).p is not None


def test_smallest_p() -> None:
    assert smallest_p(5, 5, paired=False) == 2 / 252
    assert smallest_p(5, 5, paired=True) == 2 / 32
    assert smallest_p(3, 4, paired=False) == 2 / 35
    assert smallest_p(1, 1, paired=True) == 1


def test_unpaired_permutation_p_by_counting() -> None:
    x, y = EIGHT[:6], OTHER_EIGHT[:6]
    pool, observed = [*x, *y], sum(y) - sum(x)
    sums = [sum(pool) - 2 * sum(chosen) for chosen in itertools.combinations(pool, 6)]
    assert len(sums) == math.comb(12, 6) == 924
    extreme = sum(s >= observed - 1e-9 for s in sums)
    found = effect(x, y)
    assert found.p == pytest.approx(2 * extreme / 924)
    assert found.p_method is not None and "exact, all 924" in found.p_method


def test_paired_permutation_p_by_counting() -> None:
    differences = [b - a for a, b in zip(EIGHT, OTHER_EIGHT, strict=True)]
    observed = sum(differences)
    flips = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=8)
    ]
    extreme = sum(f >= observed - 1e-9 for f in flips)
    assert effect(EIGHT, OTHER_EIGHT, paired=True).p == pytest.approx(2 * extreme / 256)


def test_separated_arms_reach_the_smallest_p() -> None:
    low, high = [0.1, 0.11, 0.12, 0.13, 0.14, 0.15], [0.8, 0.81, 0.82, 0.83, 0.84, 0.85]
    found = effect(low, high)
    assert found.p == pytest.approx(found.smallest_p) == pytest.approx(2 / 924)


def test_many_seeds_use_random_permutations_and_agree_with_the_t_test() -> None:
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=20), rng.normal(size=20) + 0.6
    found = effect(x, y)
    assert found.p_method is not None and "random" in found.p_method
    assert found.p == pytest.approx(ttest_ind(x, y).pvalue, abs=0.02)


def test_bootstrap_interval_is_bca_of_scipy_up_to_resampling() -> None:
    from scipy.stats import bootstrap

    found = effect(EIGHT, OTHER_EIGHT)
    assert found.bootstrap_method is not None and found.bootstrap_method.startswith("BCa bootstrap")
    expected = bootstrap(
        (OTHER_EIGHT, EIGHT),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=50_000,
        method="BCa",
        vectorized=True,
    ).confidence_interval
    assert found.bootstrap_interval == pytest.approx((expected.low, expected.high), abs=0.01)
    assert (found.interval, found.interval_method) == (found.t_interval, "Welch t")


def test_the_bootstrap_interval_is_reported_from_ten_seeds_on() -> None:
    x = np.linspace(0, 1, 10)
    for n, reported in ((9, "Welch t"), (10, "BCa bootstrap over seeds (9,999 resamples)")):
        found = effect(x[:n], x[:n] ** 2)
        assert found.interval_method == reported
        assert found.interval == (found.t_interval if n == 9 else found.bootstrap_interval)


def test_hedges_g_by_hand() -> None:
    # means 2 and 4, both sd sqrt(3.5 ...): x = 1..6 has mean 3.5 and variance 3.5; shifted by 2.
    x, y = [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8]
    d = 2 / math.sqrt(3.5)
    approximate_factor = 1 - 3 / (4 * 10 - 1)  # Hedges' approximation for df = 10
    assert effect(x, y).effect_size == pytest.approx(d * approximate_factor, rel=1e-3)
    differences = [1, 2, 3, 1, 2, 3]
    y = [a + b for a, b in zip(x, differences, strict=True)]
    dz = 2 / math.sqrt(0.8)
    assert effect(x, y, paired=True).effect_size == pytest.approx(dz * (1 - 3 / (4 * 5 - 1)), rel=4e-3)


def test_holm_and_benjamini_hochberg_match_independent_values() -> None:
    from scipy.stats import false_discovery_control

    p = [0.01, 0.04, 0.03, 0.005]
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm's steps by hand
    assert adjust(p, "bh") == pytest.approx(false_discovery_control(p))
    assert adjust([0.7, 0.9]) == [1.0, 1.0]
    assert adjust([]) == []


def test_ratio_and_relative_are_one_estimate_in_two_forms() -> None:
    ratio, relative = (effect(FIVE, OTHER_FIVE, form=f) for f in ("ratio", "relative"))
    assert ratio.estimate == pytest.approx(np.mean(OTHER_FIVE) / np.mean(FIVE))
    assert relative.estimate == pytest.approx(ratio.estimate - 1)
    assert relative.interval == pytest.approx([v - 1 for v in ratio.interval])
    assert ratio.interval_method == "Welch t on the log ratio"


def test_ratio_interval_is_the_delta_method() -> None:
    x, y = np.array([2.0, 2.2, 1.8, 2.1, 1.9]), np.array([4.1, 3.9, 4.0, 4.2, 3.8])
    error = math.sqrt(x.var(ddof=1) / 5 / x.mean() ** 2 + y.var(ddof=1) / 5 / y.mean() ** 2)
    parts = [x.var(ddof=1) / 5 / x.mean() ** 2, y.var(ddof=1) / 5 / y.mean() ** 2]
    df = sum(parts) ** 2 / sum(p**2 / 4 for p in parts)
    from scipy.stats import t

    half = t.ppf(0.975, df) * error
    expected = (2 * math.exp(-half), 2 * math.exp(half))
    assert effect(x, y, form="ratio").interval == pytest.approx(expected)


def test_ratio_of_values_that_are_not_positive_is_refused() -> None:
    found = effect([-1.0, -2.0], [1.0, 2.0], form="ratio")
    assert (found.estimate, found.interval) == (None, None)
    assert "positive" in found.notes[0]


def numbers(found: Effect) -> list[float]:
    values = [found.estimate, found.p, found.effect_size, found.smallest_p]
    for interval in (found.interval, found.t_interval):
        values += interval or ()
    return [v for v in values if v is not None]


@pytest.mark.parametrize("form", ["difference", "relative", "ratio"])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 6])
@pytest.mark.parametrize("arms", [(1.0, 1.0), (0.2, 1.0), (1.0, None), (None, 0.3)])
def test_constant_arms_never_give_nan(form: str, paired: bool, n: int, arms: tuple) -> None:
    x, y = ([v] * n if v is not None else EIGHT[:n] for v in arms)
    found = effect(x, y, form=form, paired=paired)
    assert all(math.isfinite(v) for v in numbers(found))
    assert found.estimate is not None
    if found.interval is None:
        assert any("not defined" in note or "One seed" in note for note in found.notes)
    if None not in arms and n >= SEEDS_FOR_TESTS:
        assert found.interval is None and found.effect_size is None
        assert found.p == (1.0 if x == y else pytest.approx(found.smallest_p))


def test_rounding_noise_counts_as_constant() -> None:
    x = [0.1 + 0.2, 0.3, 0.3]
    assert effect(x, [0.3, 0.1 + 0.2, 0.3]).interval is None


def test_one_seed_gives_an_estimate_and_a_note() -> None:
    found = effect([0.4], [0.9])
    assert found.estimate == pytest.approx(0.5)
    assert found.interval is None
    assert found.notes[0] == "One seed in an arm: its spread is unknown, so there is no interval."


def test_describe() -> None:
    summary = describe([0.05, 0.95, 1.0, 0.5])
    assert (summary["n"], summary["min"], summary["max"], summary["median"]) == (4, 0.05, 1.0, 0.725)
    assert (summary["share_high"], summary["share_low"]) == (0.5, 0.25)
    assert describe([0.5, 1.5])["share_high"] is None
    empty = describe([])
    assert (empty["n"], empty["mean"], empty["t_interval"]) == (0, None, None)


@settings(max_examples=40, deadline=None)
@given(few | many, few | many, st.sampled_from(["difference", "ratio"]))
def test_swapping_arms_turns_the_result_around(x: list[float], y: list[float], form: str) -> None:
    assume(sorted(x) != sorted(y))  # equal arms have no direction
    one, two = effect(x, y, form=form), effect(y, x, form=form)
    turn = (lambda v: -v) if form == "difference" else (lambda v: 1 / v)
    assert two.estimate == pytest.approx(turn(one.estimate), abs=1e-12)
    assert two.p == one.p
    if one.interval is None:
        assert two.interval is None
    else:
        assert two.interval == pytest.approx(sorted(turn(v) for v in one.interval), abs=1e-12)
    if one.effect_size is not None:
        assert two.effect_size == pytest.approx(-one.effect_size)


@settings(max_examples=30, deadline=None)
@given(many, many, st.randoms(use_true_random=False))
def test_order_of_seeds_is_irrelevant_unpaired(x: list[float], y: list[float], random) -> None:
    mixed = random.sample(x, len(x))
    assert effect(x, y, name="n") == effect(mixed, y, name="n")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 99).map(lambda i: i / 100)] * 2), min_size=6, max_size=8), st.data()
)
def test_order_of_pairs_is_irrelevant_but_pairing_is_not(pairs: list, data) -> None:
    mixed = data.draw(st.permutations(pairs))
    one = effect([p[0] for p in pairs], [p[1] for p in pairs], paired=True)
    two = effect([p[0] for p in mixed], [p[1] for p in mixed], paired=True)
    assert one == two
    assert one.estimate == pytest.approx(np.mean([b - a for a, b in pairs]), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(few, few, st.floats(0.1, 10), st.floats(-5, 5))
def test_scale_and_shift(x: list[float], y: list[float], scale: float, shift: float) -> None:
    one, two = effect(x, y), effect([scale * v + shift for v in x], [scale * v + shift for v in y])
    assert two.estimate == pytest.approx(scale * one.estimate, abs=1e-9)
    if one.interval is not None and two.interval is not None:
        assert two.interval == pytest.approx([scale * v for v in one.interval], abs=1e-6)


def test_equal_arguments_give_equal_results_and_the_name_keys_the_randomness() -> None:
    one = effect(EIGHT, OTHER_EIGHT, name="a")
    assert one == effect(EIGHT, OTHER_EIGHT, name="a")
    assert one.bootstrap_interval != effect(EIGHT, OTHER_EIGHT, name="b").bootstrap_interval
