"""Figures of a relative difference: over training steps, over context, and the losses behind it by position.

One panel for each combination of the axes that are not compared. The line is the estimate, the coloured band its
t interval over seeds, the grey band the noise floor: as far from zero as two seeds of one arm are from each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lexarium.reports.charts import Drawing
from lexarium.reports.figures import MAX_POINTS, Figure, Spec, encode, layer, slug, title_lines, value_scale
from lexarium.reports.words import Words

Gap = Mapping[str, Any]


def gap_figures(drawing: Drawing, gaps: Sequence[Gap]) -> list[Figure]:
    """The figures of all gaps, those of one metric and comparison together."""
    groups: dict[tuple[str, ...], list[Gap]] = {}
    for gap in gaps:
        key = (gap["metric"], gap["axis"], gap["from"], gap["to"], gap["as"], gap["at_label"])
        groups.setdefault(key, []).append(gap)
    found: list[Figure] = []
    for group in groups.values():
        first, words = group[0], drawing.words
        name = slug(f"{first['metric']}-{first['axis']}-{first['from']}-{first['to']}-{first['as']}")
        name += "" if first["at_label"] == "at the end of training" else f"-{slug(first['at_label'])}"
        heading = f"{words.heading(first['metric'])}, {words.comparison(first)}"
        for curve, build in (("steps", _steps), ("context", _context), ("positions", _positions)):
            shown = [gap for gap in group if gap[curve]]
            if shown:
                found.append(build(drawing, shown, f"gap-{curve}-{name}", heading))
    return found


def _steps(drawing: Drawing, gaps: Sequence[Gap], name: str, heading: str) -> Figure:
    rows = [_thinned(gap["steps"]) for gap in gaps]
    big = max(row["step"] for found in rows for row in found) >= 20_000
    x = encode(
        "step", title="training step", axis={"format": "~s" if big else ",d", "grid": False, "tickCount": 5}
    )
    panels = [
        _panel(drawing.words, gap, f"gapsteps{i}", found, x)
        for i, (gap, found) in enumerate(zip(gaps, rows, strict=True))
    ]
    return Figure(name, f"{heading}: difference during training", _caption(gaps, "steps"), panels)


def _context(drawing: Drawing, gaps: Sequence[Gap], name: str, heading: str) -> Figure:
    panels = [
        _panel(
            drawing.words,
            gap,
            f"gapcontext{i}",
            gap["context"],
            _doubling("first K positions", gap["context"]),
        )
        for i, gap in enumerate(gaps)
    ]
    caption = (
        _caption(gaps, "context")
        + " Below the full length the two arms score different tokens of each window."
    )
    return Figure(name, f"{heading}: difference of the first K positions", caption, panels)


def _panel(words: Words, gap: Gap, name: str, rows: Sequence[Mapping[str, Any]], x: Spec) -> Spec:
    """One gap: noise band, interval, line, zero."""
    bands = [row for row in rows if row["low"] is not None]
    noise = [{**row, "low": -row["noise"], "high": row["noise"]} for row in rows if row["noise"] is not None]
    ends = [
        row[k] for row in [*rows, *bands, *noise] for k in ("estimate", "low", "high") if row[k] is not None
    ]
    digits = "+.2%" if max(map(abs, ends)) < 0.03 else "+.1%"
    label = {"relative": "relative difference", "symmetric": "symmetric difference"}[gap["as"]]
    y = encode(
        "estimate", title=label, axis={"tickCount": 6, "format": digits}, scale={"zero": True, "nice": True}
    )
    low, high = {**y, "field": "low"}, {"field": "high"}
    tips = [encode(x["field"]), encode("estimate", format=digits), encode("low", format=digits)]
    tips += [encode("high", format=digits), encode("noise", format=digits)]
    dot = {"type": "line", "strokeWidth": 2.4, "style": "ink", "point": {"filled": True, "size": 34}}
    zero = {"type": "rule", "style": "reference", "strokeDash": [3, 3]}
    layers = [
        layer(f"{name}noise", {"type": "area", "opacity": 0.28, "style": "reference"}, x=x, y=low, y2=high),
        layer(f"{name}bands", {"type": "area", "opacity": 0.25, "color": "#0072B2"}, x=x, y=low, y2=high),
        layer(f"{name}zero", zero, y=encode("estimate")),
        layer(name, dot, x=x, y=y, tooltip=tips),
    ]
    data = {
        name: list(rows),
        f"{name}bands": bands,
        f"{name}noise": noise,
        f"{name}zero": [{"estimate": 0.0}],
    }
    return {
        "title": title_lines(words.levels(gap["where"])),
        "height": 230,
        "layer": layers,
        "datasets": data,
    }


def _positions(drawing: Drawing, gaps: Sequence[Gap], name: str, heading: str) -> Figure:
    panels = []
    words = drawing.words
    for i, gap in enumerate(gaps):
        sides = {side: words.level(gap["axis"], gap[side]) for side in ("from", "to")}
        rows = [{**row, "level": sides[row["side"]]} for row in gap["positions"]]
        ends = [row[k] for row in rows for k in ("mean", "low", "high") if row[k] is not None]
        colours = drawing.levels() if gap["axis"] == drawing.primary else list(sides.values())
        common = {
            "x": _doubling("position K (K - 1 tokens have been read)", rows),
            "color": encode("level", "N", scale={"domain": colours}, title=words.metric(gap["axis"])),
        }
        y = encode(
            "mean", title="mean loss at position K", scale=value_scale(ends, ends), axis={"tickCount": 6}
        )
        bars = [row for row in rows if row["low"] is not None]
        tips = [encode("level", "N"), encode("k"), encode("mean"), encode("low"), encode("high"), encode("n")]
        line = {"type": "line", "strokeWidth": 2.2, "point": {"filled": True, "size": 34}}
        layers = [
            layer(
                f"positions{i}bars",
                {"type": "rule", "strokeWidth": 1.6},
                **common,
                y={**y, "field": "low"},
                y2={"field": "high"},
            ),
            layer(f"positions{i}", line, **common, y=y, tooltip=tips),
        ]
        data = {f"positions{i}": rows, f"positions{i}bars": bars}
        panels.append(
            {
                "title": title_lines(words.levels(gap["where"])),
                "height": 250,
                "layer": layers,
                "datasets": data,
            }
        )
    caption = "Mean over seeds of the loss at each position of the window, with its t interval."
    legend = drawing.legend() if gaps[0]["axis"] == drawing.primary else []
    return Figure(name, f"{heading}: loss by position", caption, panels, legend)


def _doubling(title: str, rows: Sequence[Mapping[str, Any]]) -> Spec:
    """An axis on which each tick is twice the one before."""
    ticks = sorted({row["k"] for row in rows})
    scale = {"type": "log", "base": 2, "nice": False}
    return encode("k", title=title, scale=scale, axis={"values": ticks, "format": ",d", "grid": False})


def _thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    stride = -(-len(rows) // MAX_POINTS)
    return list(rows) if stride <= 1 else [*rows[:-1:stride], rows[-1]]


def _caption(gaps: Sequence[Gap], curve: str) -> str:
    rows = [row for gap in gaps for row in gap[curve]]
    parts = ["Line: estimate of the contrast from the seeds of both arms."]
    if any(row["low"] is not None for row in rows):
        parts.append(f"Blue band: its {gaps[0]['confidence']:.0%} t interval over seeds.")
    if any(row["noise"] is not None for row in rows):
        parts.append(
            "Grey band: noise floor, the mean difference between two seeds of one arm, to either side of zero."
        )
    return " ".join(parts)
