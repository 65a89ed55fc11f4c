"""The effect of every seed, for a contrast of contrasts: does a gap grow with the context, or with the model?

The effect of seed s at a level is that of its two runs: b - a, b / a - 1, or (b - a) / ((a + b) / 2), with a the value
of the arm `from` and b that of `to`. Growth is the mean over seeds of its effect at one level less its effect at the
other, a paired comparison of n values (`intervals.effect`): t with n - 1 degrees of freedom, sign flips from six seeds
on. A seed counts when all four cells have it. Cost: four lookups per seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lexarium.studies.intervals import Form

Point = dict[str, Any]
Cells = Mapping[str, Mapping[str, Sequence[Point]]]
"""Level (`from`, `to`) -> arm (`from`, `to`) -> points, one per seed."""


def effects_by_seed(
    cells: Cells, form: Form
) -> tuple[dict[str, dict[str, list[Point]]], dict[str, list[float]], set[int]]:
    """Points used, by level and arm; effects by level, both in the order of seeds; seeds left out.

    Seeds lack one of four cells, or have no positive mean to relate a difference to.
    """
    found = {
        level: {arm: {p["seed"]: p for p in ps} for arm, ps in arms.items()} for level, arms in cells.items()
    }
    every = [set(points) for arms in found.values() for points in arms.values()]
    common = sorted(set.intersection(*every))
    usable = [s for s in common if all(_usable(arms, s, form) for arms in found.values())]
    used = {
        level: {arm: [points[s] for s in usable] for arm, points in arms.items()}
        for level, arms in found.items()
    }
    effects = {
        level: [
            one_effect(a["value"], b["value"], form) for a, b in zip(arms["from"], arms["to"], strict=True)
        ]
        for level, arms in used.items()
    }
    return used, effects, set.union(*every) - set(usable)


def one_effect(a: float, b: float, form: Form) -> float:
    """`b` compared with `a`: difference, relative or symmetric."""
    if form == "difference":
        return b - a
    return b / a - 1 if form == "relative" else 2 * (b - a) / (a + b)


def _usable(arms: Mapping[str, Mapping[int, Point]], seed: int, form: Form) -> bool:
    return form == "difference" or min(arms["from"][seed]["value"], arms["to"][seed]["value"]) > 0
