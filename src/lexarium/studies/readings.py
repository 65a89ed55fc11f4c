"""One number per run: which evaluation of its curve counts, and why a run has none.

`reading` takes a metric of a run `at` its end, its best, a step, or as a mean over steps. `gather` does so for every
run of an arm, one point per seed; what cannot be used is named with its reason, nothing is dropped silently.
Cost: linear in the length of the curves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lexarium.studies.contrasts import At, BestOf, MeanOver
from lexarium.studies.results import RunRow, Table


def at_text(at: At) -> str:
    """Words for `at`; `best` always says how it was chosen."""
    if at == "final":
        return "at the end of training"
    if at == "best":
        return "best over training, chosen on this metric itself"
    if isinstance(at, BestOf):
        return f"at the step with the best {at.best_of}"
    if isinstance(at, MeanOver):
        return f"mean over steps {at.mean_over[0]:,} to {at.mean_over[1]:,}"
    return f"at step {at:,}"


def reading(run: RunRow, metric: str, at: At, better: str = "none") -> tuple[float, int] | str:
    """(value, step) of a metric of one run, or the sentence that says why there is none."""
    if at in ("final", "best") or isinstance(at, MeanOver | BestOf):
        if run.state == "waiting":
            return "the run has not started"
        past_window = isinstance(at, MeanOver) and run.step >= at.mean_over[1]
        if run.state != "done" and not past_window:
            return f"the run is {run.state} at step {run.step:,}" + (
                f": {run.message}" if run.message else ""
            )
    curve = run.curves.get(metric)
    if not curve:
        return "this metric was not measured" if run.curves else "the run has no evaluations"
    if isinstance(at, BestOf):
        chosen = reading(run, at.best_of, "best", at.better)
        if isinstance(chosen, str):
            return f"{at.best_of}, which chooses the step: {chosen}"
        at = chosen[1]
    if isinstance(at, MeanOver):
        low, high = at.mean_over
        inside = [(step, value) for step, value in curve if low <= step <= high]
        if not inside:
            return f"no evaluation between steps {low:,} and {high:,}"
        found = (sum(value for _, value in inside) / len(inside), inside[-1][0])
    elif at == "best":
        finite = [point for point in curve if math.isfinite(point[1])] or curve
        sign = 1 if better == "higher" else -1
        step, value = max(finite, key=lambda point: sign * point[1])
        found = (value, step)
    elif at == "final":
        found = (curve[-1][1], curve[-1][0])
    else:
        values = dict(curve)
        if at not in values:
            return f"no evaluation at step {at:,} (the run is {run.state} at step {run.step:,})"
        found = (values[at], at)
    if not math.isfinite(found[0]):
        return f"the value is {found[0]}, not a finite number"
    return found


def gather(
    table: Table, levels: Mapping[str, str], metric: str, at: At, better: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Points (one per seed), what is missing, and notes, for one arm."""
    points: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    notes: list[str] = []
    runs = table.at(levels)
    if not runs:
        notes.append(f"No run is planned for {', '.join(f'{a}={v}' for a, v in levels.items())}.")
    for run in runs:
        found = reading(run, metric, at, better)
        if isinstance(found, str):
            missing.append({"run": run.name, "metric": metric, "why": found})
            if run.state == "done":
                notes.append(f"{run.name} is excluded: {found}.")
            continue
        value, step = found
        if at == "final" and step < run.step:
            notes.append(f"{run.name}: last evaluated at step {step:,}, the run ended at {run.step:,}.")
        points.append({"run": run.name, "seed": run.seed, "value": value, "step": step})
    for seed in sorted({p["seed"] for p in points}):
        same = [p for p in points if p["seed"] == seed]
        if len(same) > 1:  # the seed is the unit: several runs of one seed are one observation
            names = ", ".join(p["run"] for p in same)
            notes.append(f"Seed {seed} has {len(same)} runs ({names}); their mean counts once.")
            merged = {**same[0], "run": names, "value": sum(p["value"] for p in same) / len(same)}
            points = [p for p in points if p["seed"] != seed] + [merged]
    return sorted(points, key=lambda p: p["seed"]), missing, notes


def plain_at(at: At) -> Any:
    """`at` as plain data."""
    return at.model_dump(mode="json") if isinstance(at, MeanOver | BestOf) else at
