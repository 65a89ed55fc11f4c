"""From the results of a study's runs to the contrasts that answer its question.

`collect` (in `results.py`) reads everything on disk into a `Table`; `Contrast` and `ReportConfig` are the
entries `compare` and `report` of a study file. `compare` computes each contrast: one number per seed (the
seed is the unit), two arms of one axis, the other axes fixed by `where` or, when they are not, one
contrast for every combination of their levels. What cannot be used (a run that has not finished, a metric
that was not measured, a value that is not finite) is named in `missing`; nothing is dropped silently. The
statistics are in `intervals.py`.

`unit: block` compares window by window instead (`windows.py`): seeds are averaged, documents or stretches of text are
the unit. Beside its interval stands the t interval over seeds of the same contrast, `seed_interval`: the first covers
other text, the second other training, and a verdict needs both. `grows` is a contrast of contrasts (`growth.py`): the
effect of every seed at one level of another axis less that at another.
`against` compares two metrics of the same runs instead of two arms: a baseline, a control, the untrained model.
`at` says which evaluation of a run counts. `best` is chosen on the metric itself and so is optimistic; it
carries its own label everywhere and never passes for `final`. Two directions are never compared at unequal
steps or under unequal schedules: the loss moves by more than the gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from lexarium.foundation.types import UserError
from lexarium.studies.contrasts import At, Contrast, Grows, MeanOver, Reference, ReportConfig
from lexarium.studies.growth import effects_by_seed
from lexarium.studies.intervals import (
    SEEDS_FOR_TESTS,
    Effect,
    adjust,
    block_effect,
    describe,
    effect,
    noise_floor,
)
from lexarium.studies.readings import at_text, gather, plain_at, reading
from lexarium.studies.results import RunRow, Table, collect, level_text
from lexarium.studies.windows import Incomparable, blocks_of, same_windows, unequal, window_losses

__all__ = ["At", "Contrast", "MeanOver", "Reference", "ReportConfig", "RunRow", "Table", "arms", "check"]
__all__ += ["collect", "compare", "contrasts_of", "reading", "report_of"]


def contrasts_of(table: Table) -> list[Contrast]:
    """The contrasts a study was run with, from its index."""
    return [Contrast.model_validate(c) for c in table.index.get("compare") or []]


def report_of(table: Table) -> ReportConfig:
    """The report settings a study was run with, from its index."""
    return ReportConfig.model_validate(table.index.get("report") or {})


# --- one number per run (`readings.py`) ----------------------------------------------------------------


def arms(table: Table, metric: str, at: At = "final", better: str = "none") -> list[dict[str, Any]]:
    """One summary per planned combination of levels: describe() of its seeds, points, missing, notes."""
    results = []
    for levels in _cells_of(table, metric):
        points, missing, notes = gather(table, levels, metric, at, better)
        summary = describe([p["value"] for p in points])
        results.append(
            {
                "levels": levels,
                "metric": metric,
                "at": plain_at(at),
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


# --- contrasts --------------------------------------------------------------------------------------


def check(contrasts: Sequence[Contrast], axes: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError when a contrast names an axis or a level the study does not have."""
    known = {axis: [level_text(level) for level in levels] for axis, levels in axes.items()}
    for contrast in contrasts:
        wanted = [(contrast.axis, contrast.from_), (contrast.axis, contrast.to)] * (contrast.against is None)
        wanted += contrast.where.items()
        if grows := contrast.grows:
            wanted += [(grows.axis, grows.from_), (grows.axis, grows.to)]
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
    grows = contrast.grows
    compared = {contrast.axis} | ({grows.axis} if grows else set())
    for cell in _cells_of(table, contrast.metric):
        where = {axis: level for axis, level in cell.items() if axis not in compared}
        fits = all(where.get(axis) == level for axis, level in contrast.where.items())
        fits = fits and (grows is None or cell.get(grows.axis) in (grows.from_, grows.to))
        fits = fits and (
            contrast.against is not None or cell.get(contrast.axis) in (contrast.from_, contrast.to)
        )
        if fits and where not in found:
            found.append(where)
    return found or [dict(contrast.where)]


def _contrast(contrast: Contrast, number: int, table: Table, where: dict[str, str]) -> dict[str, Any]:
    if contrast.grows:
        return _growth(contrast, contrast.grows, number, table, where)
    gathered = _sides(contrast, table, where)
    points = {side: found[0] for side, found in gathered.items()}
    notes = [note for _, _, found in gathered.values() for note in found]
    used = points
    if contrast.paired:
        common = {p["seed"] for p in points["from"]} & {p["seed"] for p in points["to"]}
        used = {side: [p for p in found if p["seed"] in common] for side, found in points.items()}
        notes += _alone({p["seed"] for found in points.values() for p in found} - common, "the other arm")
    values = {side: [p["value"] for p in found] for side, found in used.items()}
    found, counted, refused = _effect(contrast, table, where, values, used)
    by_seed = None
    if counted:
        options: dict[str, Any] = {
            "form": contrast.as_,
            "paired": bool(contrast.paired),
            "confidence": contrast.confidence,
        }
        by_seed = effect(values["from"], values["to"], tests=False, **options).t_interval
    notes = [f"Refused: {refused}"] * bool(refused) + notes + found.notes + _remarks(contrast, points)
    missing = [item for _, found_missing, _ in gathered.values() for item in found_missing]
    return _result(contrast, number, where, found, values, bool(contrast.paired)) | {
        "windows": counted,
        "seed_interval": by_seed,
        "refused": refused,
        "points": [{"arm": side, **point} for side in ("from", "to") for point in points[side]],
        "notes": notes,
        "missing": missing,
    }


def _sides(contrast: Contrast, table: Table, where: Mapping[str, str]) -> dict[str, Any]:
    """Points, what is missing, and notes of both arms, or of both metrics of one arm."""
    if contrast.against is not None:
        both = {"from": contrast.other, "to": (contrast.metric, contrast.at)}
        return {
            side: gather(table, where, metric, at, contrast.better) for side, (metric, at) in both.items()
        }
    return {
        side: gather(table, {**where, contrast.axis: level}, contrast.metric, contrast.at, contrast.better)
        for side, level in (("from", contrast.from_), ("to", contrast.to))
    }


def _alone(seeds: set[int], where: str) -> list[str]:
    """A note about seeds that have no partner."""
    if not seeds:
        return []
    return [f"Seeds without a partner in {where} are left out: {', '.join(map(str, sorted(seeds)))}."]


def _growth(
    contrast: Contrast, grows: Grows, number: int, table: Table, where: dict[str, str]
) -> dict[str, Any]:
    """The result of a contrast of contrasts; `arms` are the effects of the seeds at the two levels of `grows`."""
    levels = {"from": grows.from_, "to": grows.to}
    gathered = {place: _sides(contrast, table, {**where, grows.axis: v}) for place, v in levels.items()}
    points = {place: {side: found[0] for side, found in sides.items()} for place, sides in gathered.items()}
    cells = [found for sides in gathered.values() for found in sides.values()]
    used, effects, alone = effects_by_seed(points, contrast.as_)
    refused = next(filter(None, (_refused(contrast, table, {**where, grows.axis: v}, used[place])
                                 for place, v in levels.items())), None)  # fmt: skip
    found = Effect()
    if not refused:
        options: dict[str, Any] = {"confidence": contrast.confidence, "name": _name(contrast, where)}
        found = effect(effects["from"], effects["to"], paired=True, **options)
    notes = [f"Refused: {refused}"] * bool(refused) + [note for _, _, told in cells for note in told]
    notes += _alone(alone, "all four cells") + found.notes
    notes += ["The effect of each seed at one level is compared with that of the same seed at the other."]
    everything = {side: [p for sides in points.values() for p in sides[side]] for side in ("from", "to")}
    notes += _about_data(contrast) + _about_steps(contrast, everything)
    return _result(contrast, number, where, found, effects, True) | {
        "points": [
            {"arm": side, grows.axis: levels[place], **point}
            for place, sides in points.items()
            for side, one in sides.items()
            for point in one
        ],
        "refused": refused,
        "noise_floor": None,
        "noise_pairs": 0,
        "notes": notes,
        "missing": [item for _, absent, _ in cells for item in absent],
    }


def _result(
    contrast: Contrast,
    number: int,
    where: dict[str, str],
    found: Effect,
    values: Mapping[str, list[float]],
    paired: bool,
) -> dict[str, Any]:
    """What every kind of contrast says: the entry of `compare`, its statistics and how many values entered."""
    sizes = {side: len(v) for side, v in values.items()}
    noise, pairs = noise_floor(list(values.values()), contrast.as_)
    statistics = asdict(found)
    del statistics["notes"]
    return {
        **contrast.model_dump(mode="json", by_alias=True),
        "contrast": number,
        "at_label": at_text(contrast.at),
        "where": where,
        "n": {**sizes, "pairs": sizes["to"] if paired else None, "total": sum(sizes.values())},
        **statistics,
        "p_adjusted": None,
        "correction": None,
        "noise_floor": noise,
        "noise_pairs": pairs,
        "windows": None,
        "seed_interval": None,
        "arms": {side: describe(v, contrast.confidence) for side, v in values.items()},
    }


def _name(contrast: Contrast, where: Mapping[str, str]) -> str:
    """Keys the random numbers; the same whichever arm is named first."""
    levels = sorted((contrast.from_, contrast.to))
    parts = [contrast.metric, contrast.axis, *levels, *sorted(map(str, where.items()))]
    if grows := contrast.grows:
        parts += [grows.axis, *sorted((grows.from_, grows.to))]
    return "/".join(parts)


def _runs(
    contrast: Contrast, table: Table, where: Mapping[str, str], used: Mapping[str, list[dict[str, Any]]]
) -> dict[str, list[RunRow]]:
    """The runs whose values are used, by arm."""
    runs = {}
    for side, level in (("from", contrast.from_), ("to", contrast.to)):
        names = {name for p in used[side] for name in p["run"].split(", ")}
        runs[side] = [run for run in table.at({**where, contrast.axis: level}) if run.name in names]
    return runs


def _refused(
    contrast: Contrast, table: Table, where: Mapping[str, str], used: Mapping[str, list[dict[str, Any]]]
) -> str | None:
    """Why the two arms must not be compared, or None."""
    steps = {side: [p["step"] for p in points] for side, points in used.items()}
    exact = contrast.at == "final" or isinstance(contrast.at, int)
    return unequal(
        _runs(contrast, table, where, used),
        steps,
        exact,
        always=contrast.unit == "block",
        metric=contrast.metric,
        redraw=table.index.get("redraw") or (),
    )


def _effect(
    contrast: Contrast,
    table: Table,
    where: Mapping[str, str],
    values: Mapping[str, list[float]],
    used: Mapping[str, list[dict[str, Any]]],
) -> tuple[Effect, dict[str, Any] | None, str | None]:
    """The statistics; windows and blocks of `unit: block`; and why a comparison is refused, if it is."""
    options: dict[str, Any] = {
        "form": contrast.as_,
        "confidence": contrast.confidence,
        "name": _name(contrast, where),
    }
    if refused := _refused(contrast, table, where, used):
        return Effect(), None, refused
    runs = _runs(contrast, table, where, used)
    if contrast.unit == "seed" or not all(runs.values()):
        return effect(values["from"], values["to"], paired=bool(contrast.paired), **options), None, None
    step = used["to"][0]["step"]
    try:
        a, b = (window_losses(table.root, runs[side], contrast.metric, step) for side in ("from", "to"))
        same_windows(runs, a, b)
    except Incomparable as error:
        return Effect(), None, str(error)
    blocks, of = blocks_of(a, runs["from"])
    found = block_effect(a.sums, b.sums, a.counts, blocks, of=of, **options)
    return found, {"windows": len(a.sums), "blocks": len(np.unique(blocks)), "blocks_of": of}, None


def _remarks(contrast: Contrast, points: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Sentences about how the contrast is to be read."""
    remarks = _about_steps(contrast, points)
    if contrast.unit == "block":
        remarks.append(
            "Windows are paired and the seeds of an arm averaged: the interval covers other text; the interval over"
            " seeds covers other training. A verdict needs both."
        )
        if min(map(len, points.values())) < 2:
            remarks.append(
                "An arm has one seed: how much seeds differ is not known, and the interval does not cover it."
            )
        return remarks
    if contrast.paired is None:
        remarks.append("Whether seeds are paired is not stated; the arms are compared as independent.")
    elif contrast.pairing:
        remarks.append(
            f"{'Paired' if contrast.paired else 'Not paired'} by seed: {contrast.pairing.rstrip('.')}."
        )
    remarks += _about_data(contrast)
    if min(len(found) for found in points.values()) >= SEEDS_FOR_TESTS and contrast.as_ != "difference":
        remarks.append(f"p tests the difference of means; the estimate is their {contrast.as_} form.")
    return remarks


def _about_steps(contrast: Contrast, points: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    remarks = []
    if contrast.at == "best":
        remarks.append(
            "Best over training is chosen on this metric itself: it is optimistic and not the final value."
        )
    steps = sorted({p["step"] for found in points.values() for p in found})
    if contrast.at == "final" and len(steps) > 1 and contrast.against is None:
        remarks.append(f"Final values are from different steps ({steps[0]:,} to {steps[-1]:,}).")
    return remarks


def _about_data(contrast: Contrast) -> list[str]:
    if contrast.redrawn:
        return ["Training data are redrawn for every seed: the interval covers data and training."]
    return ["All seeds share the training data: the interval covers training, not new data."]
