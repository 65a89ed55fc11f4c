"""How much a learning curve moves, and whether a run has settled on one rule.

For a curve a_0 .. a_T evaluated at a fixed interval, total variation is TV = sum_t |a_{t+1} - a_t|, and
TV/T is the mean change from one evaluation to the next. A run is *stable* when TV/T, after an optional
burn-in, is at most `tau`. A stable run is *committed* when it ends within `delta` of 1 (`high`) or of 0
(`low`). The question follows Qin, Saphra and Alvarez-Melis, "Data Drives Unstable Hierarchical
Generalization in LMs" (EMNLP 2025, arXiv 2412.04619); normalisation and thresholds are parameters
here, and `summarise` reports how the shares move with `delta`.

TV grows with the number of evaluations, so compare runs only at one spacing. The bimodality coefficient
is Sarle's, (skewness^2 + 1) / (excess kurtosis + 3 (n-1)^2 / ((n-2)(n-3))), with bias-corrected moments
as in SAS (Pfister et al., Frontiers in Psychology 4:700, 2013); a large uniform sample gives 5/9. It is
small for few values: two equal heaps give 0.34 for n = 6 and pass 5/9 only from n = 10 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from lexarium.foundation.config import Config
from lexarium.foundation.types import UserError

HIGH, LOW = 0.9, 0.1
"""Finals counted as `high` and `low` in the shares over seeds."""

DELTAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
"""Values of `delta` for the sensitivity table."""

UNIFORM_BIMODALITY = 5 / 9


class StabilityConfig(Config):
    """Which part of a curve counts, and what is called stable and committed."""

    burn_in: int = Field(0, ge=0)
    """Evaluations before this step are ignored."""
    window: int | None = Field(None, gt=0)
    """Only the last so many steps count; none: all of them."""
    tau: float = Field(0.05, ge=0)
    """A run is stable when its mean change between evaluations is at most this."""
    delta: float = Field(0.1, ge=0, lt=0.5)
    """A stable run is committed when it ends within this of 0 or 1."""


def total_variation(values: Sequence[float]) -> float:
    """sum_t |a_{t+1} - a_t|; 0 for fewer than two points."""
    return float(np.abs(np.diff(np.asarray(values, dtype=float))).sum())


def stability(
    values: Sequence[float], steps: Sequence[int] | None = None, config: StabilityConfig | None = None
) -> dict[str, Any]:
    """Stability of one run.

    `values` are the evaluations in order of `steps` (their places, when not given). Returns `tv`,
    `tv_per_interval` (TV/T), `n_intervals` T, `final`, `stable`, `committed` (`high`, `low` or None) and
    `excluded`, the number of values that were not finite. With fewer than two points that count, TV/T is
    None and the run is not called stable.
    """
    config = config or StabilityConfig()
    curve = np.asarray(values, dtype=float)
    at = np.arange(len(curve)) if steps is None else np.asarray(steps)
    if len(at) != len(curve):
        raise UserError(f"stability: {len(curve)} values but {len(at)} steps")
    if (np.diff(at) <= 0).any():
        raise UserError("stability: steps must increase")
    finite = np.isfinite(curve)
    counted = finite & (at >= config.burn_in)
    if config.window is not None and len(at):
        counted &= at >= at[-1] - config.window
    part = curve[counted]
    intervals = max(0, len(part) - 1)
    tv = total_variation(part) if intervals else None
    rate = None if tv is None else tv / intervals
    final = float(curve[finite][-1]) if finite.any() else None
    stable = rate is not None and rate <= config.tau
    return {
        "tv": tv,
        "tv_per_interval": rate,
        "n_intervals": intervals,
        "final": final,
        "stable": stable,
        "committed": commitment(final, config.delta) if stable else None,
        "excluded": int((~finite).sum()),
    }


def commitment(final: float | None, delta: float) -> str | None:
    """`high` for a final value of at least 1 - delta, `low` for at most delta, else None."""
    if final is None:
        return None
    slack = 1e-12  # 1 - 0.1 is not 0.9 in binary
    if final >= 1 - delta - slack:
        return "high"
    return "low" if final <= delta + slack else None


def bimodality(values: Sequence[float]) -> float | None:
    """Sarle's bimodality coefficient; None for fewer than four values or values that do not vary."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 4 or constant(x):
        return None
    centred = x - x.mean()
    m2, m3, m4 = (float((centred**k).mean()) for k in (2, 3, 4))
    skewness = m3 / m2**1.5 * math.sqrt(n * (n - 1)) / (n - 2)
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6)
    return float((skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


def constant(values: Sequence[float] | np.ndarray) -> bool:
    """Whether values are equal up to rounding (their spread is then noise of the arithmetic)."""
    x = np.asarray(values, dtype=float)
    return bool(x.size == 0 or np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())))


def shares(values: Sequence[float]) -> dict[str, float | None]:
    """Shares of values >= 0.9 and <= 0.1; None unless all lie in [0, 1]."""
    x = np.asarray(values, dtype=float)
    if not x.size or x.min() < 0 or x.max() > 1:
        return {"share_high": None, "share_low": None}
    return {"share_high": float((x >= HIGH).mean()), "share_low": float((x <= LOW).mean())}


def histogram(values: Sequence[float], bins: int = 10) -> dict[str, list[float]]:
    """Counts in equal bins: over [0, 1] when all values lie there, else over their range."""
    x = np.asarray(values, dtype=float)
    unit = bool(x.size and x.min() >= 0 and x.max() <= 1)
    counts, edges = np.histogram(x, bins=bins, range=(0.0, 1.0) if unit or not x.size else None)
    return {"edges": [round(float(e), 12) for e in edges], "counts": [int(c) for c in counts]}


def summarise(runs: Sequence[dict[str, Any]], config: StabilityConfig | None = None) -> dict[str, Any]:
    """Stability over seeds, from the results of `stability` for each run.

    Returns n; mean, median, sd, min and max of TV (`tv`), of TV/T (`tv_per_interval`) and of the finals
    (`final`); the fractions stable and committed; shares of finals >= 0.9 and <= 0.1; the fractions committed
    for other values of delta (`sensitivity`); `histogram` and `bimodality` of the finals. Runs without
    a finite value are left out and counted in `excluded_runs`.
    """
    config = config or StabilityConfig()
    used = [run for run in runs if run["final"] is not None]
    finals = [run["final"] for run in used]
    n = len(used)
    settled = [run["final"] for run in used if run["stable"]]

    def fraction(kind: str, delta: float) -> float | None:
        return sum(commitment(final, delta) == kind for final in settled) / n if n else None

    deltas = sorted({*DELTAS, config.delta})
    return {
        "n": n,
        "excluded_runs": len(runs) - n,
        "tv": moments([run["tv"] for run in used if run["tv"] is not None]),
        "tv_per_interval": moments(
            [run["tv_per_interval"] for run in used if run["tv_per_interval"] is not None]
        ),
        "final": moments(finals),
        "fraction_stable": len(settled) / n if n else None,
        "fraction_committed_high": fraction("high", config.delta),
        "fraction_committed_low": fraction("low", config.delta),
        **shares(finals),
        "sensitivity": [{"delta": d, "high": fraction("high", d), "low": fraction("low", d)} for d in deltas],
        "histogram": histogram(finals),
        "bimodality": bimodality(finals),
    }


def moments(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, median, sd (n - 1), minimum and maximum; sd is None for fewer than two values."""
    x = np.asarray(values, dtype=float)
    if not x.size:
        return dict.fromkeys(("mean", "median", "sd", "min", "max"))
    sd = (0.0 if constant(x) else float(x.std(ddof=1))) if x.size > 1 else None
    return {
        "mean": float(x.mean()),
        "median": float(np.median(x)),
        "sd": sd,
        "min": float(x.min()),
        "max": float(x.max()),
    }
