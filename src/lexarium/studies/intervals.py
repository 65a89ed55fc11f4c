"""Estimates from few runs: intervals, permutation tests, effect sizes, correction.

One number per seed and arm; what is estimated is the difference of two means, or their ratio, worked on
the log scale (the log response ratio of Hedges, Gurevitch and Curtis, Ecology 80:1150, 1999). `symmetric`
is (b - a) / ((a + b) / 2), which is 2 tanh(log(b / a) / 2).

* t interval: Welch's, with Welch-Satterthwaite degrees of freedom, or the paired one. On the log scale
  the arms are divided by their means first, which is the delta method.
* from `SEEDS_FOR_TESTS` seeds per arm on: permutation p of the difference of means (all relabellings
  when there are at most `EXACT`, else random ones; Ernst, Statistical Science 19:676, 2004), a BCa
  bootstrap interval (Efron, JASA 82:171, 1987; the one reported from `SMALL_FOR_BOOTSTRAP` seeds on)
  and Hedges' g with the exact small-sample factor (Hedges, Journal of Educational Statistics 6:107,
  1981); paired: the mean difference over its own sd.
* `block_effect`: the same forms from paired sums over windows, with the expanded percentile interval of a block
  bootstrap (Hesterberg, The American Statistician 69:371, 2015): whole documents, or stretches of text, are
  drawn with replacement, because neighbouring windows are dependent (Kunsch, Annals of Statistics 17:1217,
  1989; documents as blocks are a cluster bootstrap).
* Holm (Scandinavian Journal of Statistics 6:65, 1979) or Benjamini-Hochberg (JRSS B 57:289, 1995).

Whatever has no meaning (an interval from one seed, an effect size without spread) is None with a
sentence that says why; nothing returns NaN. Arms are put into one canonical order before any random
number is drawn, so that swapping them only changes the sign. scipy is imported where it is used.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lexarium.foundation import rng
from lexarium.studies.stability import bimodality, constant, moments, shares

SEEDS_FOR_TESTS = 6
SMALL_FOR_BOOTSTRAP = 10
"""Below this many seeds per arm the BCa interval covers less than it says: with normal values and a nominal
0.95 we measured 0.89 for 6 seeds per arm, 0.92 for 10 and 0.94 for 20 (Welch t: 0.94 to 0.96)."""
EXACT = 50_000
RANDOM_PERMUTATIONS = 19_999
BOOTSTRAP_RESAMPLES = 9_999
BLOCK_RESAMPLES = 10_000
FEW_BLOCKS = 20
"""Below this many blocks an interval over them is said to be too narrow."""

Form = Literal["difference", "relative", "ratio", "symmetric"]
Interval = tuple[float, float]


@dataclass(slots=True)
class Effect:
    """What a comparison of two arms says. Intervals and p are None where a note says why."""

    estimate: float | None = None
    interval: Interval | None = None
    interval_method: str | None = None
    t_interval: Interval | None = None
    bootstrap_interval: Interval | None = None
    bootstrap_method: str | None = None
    p: float | None = None
    p_method: str | None = None
    smallest_p: float | None = None
    effect_size: float | None = None
    effect_size_method: str | None = None
    standard_error: float | None = None
    notes: list[str] = field(default_factory=list)


def describe(values: Sequence[float], confidence: float = 0.95) -> dict[str, Any]:
    """Summary of one arm: n, mean, sd, median, min, max, t interval of the mean, shares, bimodality."""
    return {
        "n": len(values),
        **moments(values),
        "t_interval": t_interval(values, confidence),
        **shares(values),
        "bimodality": bimodality(values),
    }


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's interval of a mean; None for fewer than two values or values that do not vary."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or constant(x):
        return None
    half = _quantile(confidence, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()) - half, float(x.mean()) + half


def effect(
    x: Sequence[float],
    y: Sequence[float],
    *,
    form: Form = "difference",
    paired: bool = False,
    confidence: float = 0.95,
    name: str = "",
    tests: bool = True,
) -> Effect:
    """Arm `y` compared with arm `x`: mean(y) - mean(x), mean(y) / mean(x), that ratio less one, or the difference
    divided by the mean of both.

    x (n,), y (m,) finite values, one per seed; paired: equally long, the i-th of each from one seed.
    `name` keys the random numbers of bootstrap and permutation; equal arguments give equal results. Without `tests`:
    estimate and t interval alone.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if paired and len(a) != len(b):
        raise ValueError(f"paired arms have {len(a)} and {len(b)} values")
    found = Effect()
    if not len(a) or not len(b):
        found.notes.append("No value in one of the arms: nothing to compare.")
        return found
    log = form != "difference"
    if log and min(a.mean(), b.mean()) <= 0:
        found.notes.append(f"A {form} comparison needs positive means; none is given.")
        return found
    a, b, swapped = _canonical(a, b, paired)
    statistic = _log_ratio if log else _difference
    found.estimate = float(statistic(a, b, axis=-1))
    _t(found, a, b, paired, log, confidence)
    found.smallest_p = smallest_p(len(a), len(b), paired)
    if not tests:
        return _oriented(found, swapped, form)
    if min(len(a), len(b)) < SEEDS_FOR_TESTS:
        found.notes.append(
            f"Too few seeds for a permutation test (smallest possible p = {found.smallest_p:.2g})."
        )
    else:
        _permutation(found, a, b, paired, name)
        _bootstrap(found, a, b, paired, statistic, confidence, name)
        _effect_size(found, a, b, paired)
    return _oriented(found, swapped, form)


def block_effect(
    a: np.ndarray,
    b: np.ndarray,
    weights: np.ndarray,
    blocks: np.ndarray,
    *,
    form: Form = "difference",
    confidence: float = 0.95,
    name: str = "",
    of: str = "documents",
) -> Effect:
    """Windows of arm `b` compared with the same windows of arm `a`.

    a, b (W,) sums of a window's losses, weights (W,) its number of losses, blocks (W,) the block each window belongs
    to; `of`: what the blocks are, in words. With A, B, N the sums over all windows: `difference` is (B - A) / N,
    `ratio` B / A, `relative` B / A - 1, `symmetric` 2 (B - A) / (A + B). The standard error is the bootstrap's, in the
    form of the estimate.
    """
    found = Effect()
    _, place = np.unique(blocks, return_inverse=True)
    sums = np.stack([np.bincount(place, weights=values) for values in (a, b, weights)], axis=1)  # (G, 3)
    if form != "difference" and min(sums[:, 0].sum(), sums[:, 1].sum()) <= 0:
        found.notes.append(f"A {form} comparison needs positive means; none is given.")
        return found
    found.estimate = float(_block_statistic(sums.sum(0), form))
    n = len(sums)
    if n < 2:
        found.notes.append(
            f"All windows are of one block ({of}): without others there is no interval over blocks."
        )
        return found
    random = rng.generator(0, "compare", "blocks", name)
    values = np.empty(BLOCK_RESAMPLES)
    size = max(1, (1 << 22) // n)  # resamples at a time: their counts fill 32 MiB
    for start in range(0, BLOCK_RESAMPLES, size):
        part = values[start : start + size]
        counts = random.multinomial(n, np.full(n, 1 / n), len(part))  # how often each block is drawn
        part[:] = _block_statistic(counts @ sums, form)
    tail = _expanded_tail(confidence, n)
    low, high = np.quantile(values, [tail, 1 - tail])
    found.interval = found.bootstrap_interval = (float(low), float(high))
    found.interval_method = found.bootstrap_method = (
        f"percentile bootstrap over {of}, expanded for few of them ({BLOCK_RESAMPLES:,} resamples of {n} blocks)"
    )
    found.standard_error = float(values.std(ddof=1))
    if n < FEW_BLOCKS:
        found.notes.append(f"Only {n} blocks ({of}): an interval over so few covers less than it says.")
    return found


def _expanded_tail(confidence: float, n: int) -> float:
    """The tail of n blocks' resampled values that an interval leaves out on each side: so much that it is, for a mean
    of normal values, the t interval (Hesterberg, The American Statistician 69:371, 2015)."""
    from scipy.special import ndtr

    return float(ndtr(-math.sqrt(n / (n - 1)) * _quantile(confidence, n - 1)))


def _block_statistic(sums: np.ndarray, form: Form) -> np.ndarray:
    """(..., 3) sums of A, B and N -> (...) the comparison."""
    a, b, n = sums[..., 0], sums[..., 1], sums[..., 2]
    if form == "difference":
        found: np.ndarray = (b - a) / n
    elif form == "symmetric":
        found = 2 * (b - a) / (a + b)
    else:
        found = b / a - (form == "relative")
    return found


def noise_floor(arms: Sequence[Sequence[float]], form: Form) -> tuple[float | None, int]:
    """Mean difference between two seeds of the same arm, and the number of pairs: what a gap has to beat.

    The absolute difference; for `ratio`, `relative` and `symmetric` it is divided by the mean of the two.
    """
    found = []
    for values in arms:
        for i, x in enumerate(values):
            for y in values[i + 1 :]:
                scale = 1.0 if form == "difference" else abs(x + y) / 2
                found.append(abs(x - y) / scale if scale else 0.0)
    return (sum(found) / len(found) if found else None), len(found)


def smallest_p(n: int, m: int, paired: bool) -> float:
    """The smallest two-sided p a permutation test can give: 2 / number of relabellings, at most 1."""
    relabellings = 2**n if paired else math.comb(n + m, n)
    return min(1.0, 2 / relabellings)


def adjust(p: Sequence[float], method: Literal["holm", "bh"] = "holm") -> list[float]:
    """p values corrected for their number: Holm (family-wise error) or BH (false discovery rate)."""
    values = np.asarray(p, dtype=float)
    n = len(values)
    if not n:
        return []
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    if method == "holm":
        corrected = np.maximum.accumulate(ranked * (n - np.arange(n)))
    else:
        corrected = np.minimum.accumulate((ranked * n / np.arange(1, n + 1))[::-1])[::-1]
    result = np.empty(n)
    result[order] = np.minimum(corrected, 1.0)
    return [float(v) for v in result]


# --- parts ------------------------------------------------------------------------------------------


def _canonical(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray, bool]:
    """Arms in an order that depends on the values alone: (first, second, were they swapped)."""
    swapped = sorted(a.tolist()) > sorted(b.tolist())
    if swapped:
        a, b = b, a
    if paired:
        order = np.lexsort((b, a))
        return a[order], b[order], swapped
    return np.sort(a), np.sort(b), swapped


def _oriented(found: Effect, swapped: bool, form: Form) -> Effect:
    sign = -1.0 if swapped else 1.0
    scale: Callable[[float], float] = {
        "difference": float,
        "relative": math.expm1,
        "ratio": math.exp,
        "symmetric": lambda ratio: 2 * math.tanh(ratio / 2),
    }[form]

    def turn(interval: Interval | None) -> Interval | None:
        if interval is None:
            return None
        low, high = sorted((scale(sign * interval[0]), scale(sign * interval[1])))
        return low + 0.0, high + 0.0

    assert found.estimate is not None
    found.estimate = scale(sign * found.estimate) + 0.0  # no minus zero
    found.interval, found.t_interval = turn(found.interval), turn(found.t_interval)
    found.bootstrap_interval = turn(found.bootstrap_interval)
    if found.effect_size is not None:
        found.effect_size = sign * found.effect_size + 0.0
    return found


def _difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    return b.mean(axis=axis) - a.mean(axis=axis)


def _log_ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(b.mean(axis=axis)) - np.log(a.mean(axis=axis))


def _quantile(confidence: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + confidence / 2))


def _t(found: Effect, a: np.ndarray, b: np.ndarray, paired: bool, log: bool, confidence: float) -> None:
    """Sets `t_interval` and, for now, `interval`; explains when there is none."""
    if log:
        a, b = a / a.mean(), b / b.mean()
    if len(a) < 2 or len(b) < 2:
        found.notes.append("One seed in an arm: its spread is unknown, so there is no interval.")
        return
    if paired:
        differences = b - a
        if constant(differences):
            found.notes.append(
                "The difference is the same for every seed: "
                "an interval from the spread of seeds is not defined."
            )
            return
        error, df = float(differences.std(ddof=1)) / math.sqrt(len(a)), float(len(a) - 1)
        found.interval_method = "paired t"
    else:
        parts = [0.0 if constant(v) else float(v.var(ddof=1)) / len(v) for v in (a, b)]
        if not any(parts):
            found.notes.append(
                "Every seed of an arm has the same value, in both arms: "
                "an interval from the spread of seeds is not defined."
            )
            return
        if not all(parts):
            found.notes.append(
                "One arm has the same value for every seed; only the other arm's spread counts."
            )
        error = math.sqrt(sum(parts))
        df = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
        found.interval_method = "Welch t"
    if log:
        found.interval_method += " on the log ratio"
    half = _quantile(confidence, df) * error
    assert found.estimate is not None
    found.interval = found.t_interval = (found.estimate - half, found.estimate + half)


def _permutation(found: Effect, a: np.ndarray, b: np.ndarray, paired: bool, name: str) -> None:
    from scipy.stats import permutation_test

    count = 2 ** len(a) if paired else math.comb(len(a) + len(b), len(a))
    exact = count <= EXACT
    result = permutation_test(
        (a, b),
        _difference,
        vectorized=True,
        permutation_type="samples" if paired else "independent",
        n_resamples=EXACT if exact else RANDOM_PERMUTATIONS,
        **_random(permutation_test, name, "permutation"),
    )
    found.p = float(result.pvalue)
    what = "sign flips of paired differences" if paired else "relabellings of arms"
    how = f"exact, all {count:,}" if exact else f"{RANDOM_PERMUTATIONS:,} random"
    found.p_method = f"permutation of the difference of means, two-sided ({how} {what})"


def _bootstrap(
    found: Effect,
    a: np.ndarray,
    b: np.ndarray,
    paired: bool,
    statistic: Callable[..., Any],
    confidence: float,
    name: str,
) -> None:
    """Sets `bootstrap_interval`: BCa, or percentile where BCa is not defined. From `SMALL_FOR_BOOTSTRAP` seeds per
    arm on it is `interval` too; below, the t interval stays what is reported."""
    if found.t_interval is None:  # constant arms, explained there
        return
    from scipy.stats import bootstrap

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = bootstrap(
                (a, b),
                statistic,
                vectorized=True,
                paired=paired,
                n_resamples=BOOTSTRAP_RESAMPLES,
                confidence_level=confidence,
                method=method,
                **_random(bootstrap, name, "bootstrap"),
            )
        low, high = (float(v) for v in result.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            found.bootstrap_interval = (low, high)
            found.bootstrap_method = f"{method} bootstrap over seeds ({BOOTSTRAP_RESAMPLES:,} resamples)"
            if min(len(a), len(b)) < SMALL_FOR_BOOTSTRAP:
                found.notes.append(
                    f"With fewer than {SMALL_FOR_BOOTSTRAP} seeds per arm a bootstrap interval tends to be "
                    "too narrow: the t interval is the one reported."
                )
            else:
                found.interval, found.interval_method = found.bootstrap_interval, found.bootstrap_method
            return
        if method == "BCa":
            found.notes.append(
                "The BCa bootstrap is not defined for these data; the percentile interval is used."
            )
    found.notes[-1] = "The bootstrap is not defined for these data; the t interval is used."


def _effect_size(found: Effect, a: np.ndarray, b: np.ndarray, paired: bool) -> None:
    if paired:
        df, difference = len(a) - 1, b - a
        spread = 0.0 if constant(difference) else float(difference.std(ddof=1))
        method = "Hedges g of paired differences (mean difference / sd of differences)"
    else:
        df = len(a) + len(b) - 2
        pooled = sum(0.0 if constant(v) else float(v.var(ddof=1)) * (len(v) - 1) for v in (a, b))
        spread = math.sqrt(pooled / df)
        method = "Hedges g (pooled sd)"
    if not spread:
        found.notes.append("Effect size is not defined: there is no spread to measure it in.")
        return
    factor = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    found.effect_size = factor * float(_difference(a, b)) / spread
    found.effect_size_method = method


def _random(function: Callable[..., Any], name: str, purpose: str) -> dict[str, Any]:
    """The keyword that hands our generator to scipy: `rng` since scipy 1.15, `random_state` before."""
    keyword = "rng" if "rng" in inspect.signature(function).parameters else "random_state"
    return {keyword: rng.generator(0, "compare", purpose, name)}
