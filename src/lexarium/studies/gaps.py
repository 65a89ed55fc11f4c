"""How a relative difference of two arms develops: over training steps and over context.

For a contrast stated as `relative` or `symmetric`: its estimate with the t interval over seeds at every step that
all finished runs of both arms have, and, where an evaluation of windows measured them, for the first K positions
(`<metric>.first.K`) and the mean loss of each arm at position K (`<metric>.position.K`). Beside each estimate
stands the noise floor: how much two seeds of one arm differ. Cost: no tests, no resampling; a millisecond each.

For K below the window's length two directions score different tokens (the first and the last K of a window): equal
in distribution only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lexarium.studies.contrasts import Contrast
from lexarium.studies.intervals import describe, effect, noise_floor
from lexarium.studies.readings import reading
from lexarium.studies.results import RunRow, Table
from lexarium.studies.windows import unequal

FORMS = ("relative", "symmetric")
Row = dict[str, Any]


def gaps(contrasts: Sequence[Contrast], table: Table, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One entry per relative contrast that has a curve: `steps`, `context` and `positions`, lists of rows.

    `results` are those of `compare`. Rows: step or k, estimate, low, high (None without an interval), noise, n of
    either arm; positions: side, k, mean, low, high, n.
    """
    found: list[Row] = []
    seen = set()
    for result in results:
        if result["as"] not in FORMS or result["refused"] or result["estimate"] is None or result["grows"]:
            continue
        contrast = contrasts[result["contrast"]]
        arms = {
            side: _done(table, {**result["where"], contrast.axis: level})
            for side, level in (("from", contrast.from_), ("to", contrast.to))
        }
        steps = _over_steps(contrast, arms, table.index.get("redraw") or ())
        context, positions = _over_context(contrast, arms)
        keys = ("metric", "axis", "from", "to", "as", "where", "at_label", "confidence")
        one = {key: result[key] for key in keys}
        same = str([one[key] for key in ("metric", "axis", "from", "to", "where")])
        if (len(steps) > 1 or context) and same not in seen:  # one form of a difference is enough to look at
            seen.add(same)
            steps = steps if len(steps) > 1 else []
            found.append({**one, "steps": steps, "context": context, "positions": positions})
    return found


def _done(table: Table, levels: Mapping[str, str]) -> list[RunRow]:
    return [run for run in table.at(levels) if run.state == "done"]


def _over_steps(contrast: Contrast, arms: Mapping[str, Sequence[RunRow]], redraw: Sequence[str]) -> list[Row]:
    curves = {
        side: [(r.seed, dict(r.curves.get(contrast.metric, []))) for r in runs] for side, runs in arms.items()
    }
    every = [set(curve) for found in curves.values() for _, curve in found if curve]
    if not every or not all(any(curve for _, curve in found) for found in curves.values()):
        return []
    steps = sorted(set.intersection(*every))
    if unequal(arms, {side: [0] for side in arms}, exact=False, metric=contrast.metric, redraw=redraw):
        return []
    rows = []
    for step in steps:
        values = {
            side: {seed: curve[step] for seed, curve in found if step in curve}
            for side, found in curves.items()
        }
        if (row := _gap(contrast, values)) is not None:
            rows.append({"step": step, **row})
    return rows


def _over_context(contrast: Contrast, arms: Mapping[str, Sequence[RunRow]]) -> tuple[list[Row], list[Row]]:
    context, positions = [], []
    for k in _marks(contrast.metric, "first", arms):
        values = {
            side: _values(f"{contrast.metric}.first.{k}", contrast, runs) for side, runs in arms.items()
        }
        if (row := _gap(contrast, values)) is not None:
            context.append({"k": k, **row})
    for side, runs in arms.items():
        for k in _marks(contrast.metric, "position", {side: runs}):
            summary = describe(list(_values(f"{contrast.metric}.position.{k}", contrast, runs).values()))
            if summary["n"]:
                low, high = summary["t_interval"] or (None, None)
                positions.append(
                    {
                        "side": side,
                        "k": k,
                        "mean": summary["mean"],
                        "low": low,
                        "high": high,
                        "n": summary["n"],
                    }
                )
    return context, positions


def _marks(metric: str, kind: str, arms: Mapping[str, Sequence[RunRow]]) -> list[int]:
    """Every K for which all arms have `<metric>.<kind>.K`."""
    prefix = f"{metric}.{kind}."
    named = lambda run: {m.removeprefix(prefix) for m in run.curves if m.startswith(prefix)}
    known = [{int(k) for run in runs for k in named(run) if k.isdigit()} for runs in arms.values()]
    return sorted(set.intersection(*known)) if known else []


def _values(metric: str, contrast: Contrast, runs: Sequence[RunRow]) -> dict[int, float]:
    """Seed -> value, where there is one. `best` is chosen on the loss itself: here the last evaluation counts."""
    at = "final" if contrast.at == "best" else contrast.at
    found = {run.seed: reading(run, metric, at) for run in runs}
    return {seed: value[0] for seed, value in found.items() if not isinstance(value, str)}


def _gap(contrast: Contrast, values: Mapping[str, Mapping[int, float]]) -> Row | None:
    """The estimate from one value per seed and arm; None where an arm has none or a mean is not positive."""
    a, b = values["from"], values["to"]
    if contrast.paired:
        common = sorted(set(a) & set(b))
        a, b = {s: a[s] for s in common}, {s: b[s] for s in common}
    x, y = list(a.values()), list(b.values())
    found = effect(
        x, y, form=contrast.as_, paired=bool(contrast.paired), confidence=contrast.confidence, tests=False
    )
    if found.estimate is None:
        return None
    low, high = found.t_interval or (None, None)
    noise, _ = noise_floor([x, y], contrast.as_)
    return {
        "estimate": found.estimate,
        "low": low,
        "high": high,
        "noise": noise,
        "n_from": len(x),
        "n_to": len(y),
    }
