"""From the results of a study's runs to the contrasts that answer its question.

`collect` (in `results.py`) reads everything on disk into a `Table`; `Contrast` and `ReportConfig` are the
entries `compare` and `report` of a study file. `compare` computes each contrast: one number per seed (the
seed is the unit), two arms of one axis, the other axes fixed by `where` or, when they are not, one
contrast for every combination of their levels. What cannot be used (a run that has not finished, a metric
that was not measured, a value that is not finite) is named in `missing`; nothing is dropped silently. The
statistics are in `intervals.py`.

`unit: block` compares window by window instead (`windows.py`): seeds are averaged, documents are the unit.
`at` says which evaluation of a run counts. `best` is chosen on the metric itself and so is optimistic; it
carries its own label everywhere and never passes for `final`. Two directions are never compared at unequal
steps or under unequal schedules: the loss moves by more than the gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lexarium.foundation.types import UserError
from lexarium.studies.contrasts import At, Contrast, MeanOver, Reference, ReportConfig
from lexarium.studies.intervals import (
    SEEDS_FOR_TESTS,
    Effect,
    adjust,
    block_effect,
    describe,
    effect,
    noise_floor,
)
from lexarium.studies.results import RunRow, Table, collect, level_text
from lexarium.studies.windows import Incomparable, same_windows, unequal, window_losses

__all__ = ["At", "Contrast", "MeanOver", "Reference", "ReportConfig", "RunRow", "Table", "arms", "check"]
__all__ += ["collect", "compare", "contrasts_of", "report_of"]


def contrasts_of(table: Table) -> list[Contrast]:
    """The contrasts a study was run with, from its index."""
    return [Contrast.model_validate(c) for c in table.index.get("compare") or []]


def report_of(table: Table) -> ReportConfig:
    """The report settings a study was run with, from its index."""
    return ReportConfig.model_validate(table.index.get("report") or {})


# --- one number per run -----------------------------------------------------------------------------


def at_text(at: At) -> str:
    """Words for `at`; `best` always says how it was chosen."""
    if at == "final":
        return "at the end of training"
    if at == "best":
        return "best over training, chosen on this metric itself"
    if isinstance(at, MeanOver):
        return f"mean over steps {at.mean_over[0]:,} to {at.mean_over[1]:,}"
    return f"at step {at:,}"


def reading(run: RunRow, metric: str, at: At, better: str = "none") -> tuple[float, int] | str:
    """(value, step) of a metric of one run, or the sentence that says why there is none."""
    if at in ("final", "best") or isinstance(at, MeanOver):
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


def _gather(
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


def arms(table: Table, metric: str, at: At = "final", better: str = "none") -> list[dict[str, Any]]:
    """One summary per planned combination of levels: describe() of its seeds, points, missing, notes."""
    results = []
    for levels in _cells_of(table, metric):
        points, missing, notes = _gather(table, levels, metric, at, better)
        summary = describe([p["value"] for p in points])
        results.append(
            {
                "levels": levels,
                "metric": metric,
                "at": _plain_at(at),
                "at_label": at_text(at),
                "planned": len(table.at(levels)),
                **summary,
                "points": points,
                "missing": missing,
                "notes": notes,
            }
        )
    return results


def _cells_of(table: Table, metric: str) -> list[dict[str, str]]:
    """Planned cells, without those of a stage that never measures the metric (unless no stage does)."""
    measured = {run.levels.get("stage") for run in table.runs if metric in run.curves}
    return [cell for cell in table.cells() if not measured or cell.get("stage") in measured]


def _plain_at(at: At) -> Any:
    return at.model_dump(mode="json") if isinstance(at, MeanOver) else at


# --- contrasts --------------------------------------------------------------------------------------


def check(contrasts: Sequence[Contrast], axes: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError when a contrast names an axis or a level the study does not have."""
    known = {axis: [level_text(level) for level in levels] for axis, levels in axes.items()}
    for contrast in contrasts:
        wanted = [(contrast.axis, contrast.from_), (contrast.axis, contrast.to), *contrast.where.items()]
        for axis, level in wanted:
            if axis not in known:
                raise UserError(
                    f"compare: no axis {axis!r}; axes of this study: {', '.join(known) or 'none'}"
                )
            if level not in known[axis]:
                raise UserError(
                    f"compare: axis {axis!r} has no level {level!r}; levels: {', '.join(known[axis])}"
                )


def compare(
    contrasts: Sequence[Contrast], table: Table, correction: Literal["holm", "bh"] = "holm"
) -> list[dict[str, Any]]:
    """Every contrast with its estimate, interval, p, effect size, points, notes and what is missing.

    A contrast whose `where` leaves axes open appears once for each planned combination of their levels.
    p values are corrected together over all results that have one.
    """
    check(contrasts, table.axes)
    results = [
        _contrast(contrast, number, table, where)
        for number, contrast in enumerate(contrasts)
        for where in _combinations(contrast, table)
    ]
    tested = [result for result in results if result["p"] is not None]
    name = {"holm": "Holm", "bh": "Benjamini-Hochberg"}[correction]
    for result, p in zip(tested, adjust([r["p"] for r in tested], correction), strict=True):
        result["p_adjusted"] = p
        result["correction"] = f"{name} over {len(tested)} test{'s' if len(tested) > 1 else ''}"
    return results


def _combinations(contrast: Contrast, table: Table) -> list[dict[str, str]]:
    """Levels of the other axes for which at least one arm is planned."""
    found: list[dict[str, str]] = []
    for cell in _cells_of(table, contrast.metric):
        where = {axis: level for axis, level in cell.items() if axis != contrast.axis}
        fits = all(where.get(axis) == level for axis, level in contrast.where.items())
        if fits and cell.get(contrast.axis) in (contrast.from_, contrast.to) and where not in found:
            found.append(where)
    return found or [dict(contrast.where)]


def _contrast(contrast: Contrast, number: int, table: Table, where: dict[str, str]) -> dict[str, Any]:
    sides = {}
    for side, level in (("from", contrast.from_), ("to", contrast.to)):
        levels = {**where, contrast.axis: level}
        sides[side] = _gather(table, levels, contrast.metric, contrast.at, contrast.better)
    points = {side: found[0] for side, found in sides.items()}
    notes = [note for _, _, found in sides.values() for note in found]
    used = points
    if contrast.paired:
        common = {p["seed"] for p in points["from"]} & {p["seed"] for p in points["to"]}
        used = {side: [p for p in found if p["seed"] in common] for side, found in points.items()}
        alone = sorted({p["seed"] for found in points.values() for p in found} - common)
        if alone:
            notes.append(
                f"Seeds without a partner in the other arm are left out: {', '.join(map(str, alone))}."
            )
    values = {side: [p["value"] for p in found] for side, found in used.items()}
    found, counted, refused = _effect(contrast, table, where, values, used)
    notes = [f"Refused: {refused}"] * bool(refused) + notes + found.notes + _remarks(contrast, points)
    sizes = {side: len(v) for side, v in values.items()}
    noise, pairs = noise_floor(list(values.values()), contrast.as_)
    return {
        **contrast.model_dump(mode="json", by_alias=True),
        "contrast": number,
        "at_label": at_text(contrast.at),
        "where": where,
        "n": {**sizes, "pairs": sizes["to"] if contrast.paired else None, "total": sum(sizes.values())},
        "estimate": found.estimate,
        "interval": found.interval,
        "interval_method": found.interval_method,
        "t_interval": found.t_interval,
        "bootstrap_interval": found.bootstrap_interval,
        "bootstrap_method": found.bootstrap_method,
        "p": found.p,
        "p_method": found.p_method,
        "p_adjusted": None,
        "correction": None,
        "smallest_p": found.smallest_p,
        "effect_size": found.effect_size,
        "effect_size_method": found.effect_size_method,
        "standard_error": found.standard_error,
        "noise_floor": noise,
        "noise_pairs": pairs,
        "windows": counted,
        "refused": refused,
        "arms": {side: describe(v, contrast.confidence) for side, v in values.items()},
        "points": [{"arm": side, **point} for side in ("from", "to") for point in points[side]],
        "notes": notes,
        "missing": [item for _, found_missing, _ in sides.values() for item in found_missing],
    }


def _effect(
    contrast: Contrast,
    table: Table,
    where: Mapping[str, str],
    values: Mapping[str, list[float]],
    used: Mapping[str, list[dict[str, Any]]],
) -> tuple[Effect, dict[str, int] | None, str | None]:
    """The statistics; windows and blocks of `unit: block`; and why a comparison is refused, if it is."""
    levels = sorted((contrast.from_, contrast.to))
    options: dict[str, Any] = {
        "form": contrast.as_,
        "confidence": contrast.confidence,
        "name": "/".join([contrast.metric, contrast.axis, *levels, *sorted(map(str, where.items()))]),
    }
    runs = {}
    for side, level in (("from", contrast.from_), ("to", contrast.to)):
        names = {name for p in used[side] for name in p["run"].split(", ")}
        runs[side] = [run for run in table.at({**where, contrast.axis: level}) if run.name in names]
    steps = {side: [p["step"] for p in points] for side, points in used.items()}
    exact = contrast.at == "final" or isinstance(contrast.at, int)
    if refused := unequal(runs, steps, exact, always=contrast.unit == "block"):
        return Effect(), None, refused
    if contrast.unit == "seed" or not all(runs.values()):
        return effect(values["from"], values["to"], paired=bool(contrast.paired), **options), None, None
    try:
        a, b = (
            window_losses(table.root, runs[side], contrast.metric, steps["to"][0]) for side in ("from", "to")
        )
        same_windows(runs, a, b)
    except Incomparable as error:
        return Effect(), None, str(error)
    found = block_effect(a.sums, b.sums, a.counts, a.documents, **options)
    return found, {"windows": len(a.sums), "blocks": len(set(a.documents.tolist()))}, None


def _remarks(contrast: Contrast, points: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Sentences about how the contrast is to be read."""
    remarks = []
    if contrast.at == "best":
        remarks.append(
            "Best over training is chosen on this metric itself: it is optimistic and not the final value."
        )
    steps = sorted({p["step"] for found in points.values() for p in found})
    if contrast.at == "final" and len(steps) > 1:
        remarks.append(f"Final values are from different steps ({steps[0]:,} to {steps[-1]:,}).")
    if contrast.unit == "block":
        return (
            remarks
            + [
                "Windows are paired and the seeds of an arm averaged: the interval covers other documents, not other"
                " training runs."
            ]
            + ["An arm has one seed: how much seeds differ is not known, and the interval does not cover it."]
            * (min(map(len, points.values())) < 2)
        )
    if contrast.paired is None:
        remarks.append("Whether seeds are paired is not stated; the arms are compared as independent.")
    elif contrast.pairing:
        remarks.append(
            f"{'Paired' if contrast.paired else 'Not paired'} by seed: {contrast.pairing.rstrip('.')}."
        )
    if contrast.redrawn:
        remarks.append("Training data are redrawn for every seed: the interval covers data and training.")
    else:
        remarks.append("All seeds share the training data: the interval covers training, not new data.")
    if min(len(found) for found in points.values()) >= SEEDS_FOR_TESTS and contrast.as_ != "difference":
        remarks.append(f"p tests the difference of means; the estimate is their {contrast.as_} form.")
    return remarks
