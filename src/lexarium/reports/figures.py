"""Figures of a report, as Vega-Lite specifications made with altair.

A `Figure` is a list of panels (one single-view chart each, so that a page can lay them out and stretch
them) and one `static` specification with the same panels for the SVG file. Data travel as named
data sets with fixed field names; labels of a study are only ever values, never parts of an expression.
The colour of a mark is the level of one axis, the one the first contrast compares; panels are the
combinations of the others. Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), safe for
colour-blind readers, dark enough for white paper and, in `DARK`, light enough for a dark screen.

altair costs a quarter of a second and vl-convert a tenth per process; both are imported when needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lexarium.reports.words import Words, interval, number
from lexarium.studies.compare import ReportConfig, Table

LIGHT = ["#0072B2", "#D55E00", "#009E73", "#B8659A", "#C78A00", "#3A9BD0", "#7A5C2E", "#5B6470"]
DARK = ["#58B0EA", "#F58D4E", "#3CCB9C", "#E59AC6", "#F0B840", "#9AD3F7", "#CDAE72", "#B4BCC6"]
DASHES = [[1, 0], [7, 3], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 3], [6, 2, 1, 2]]
MAX_POINTS = 400
"""Longest curve drawn point by point; longer ones are thinned evenly, the last point kept."""

INK, FAINT = "#20242a", "#8a919c"
SANS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

CONFIG: dict[str, Any] = {
    "background": "#ffffff",
    "font": SANS,
    "view": {"stroke": None},
    "range": {"category": LIGHT},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": FAINT,
        "tickColor": FAINT,
        "gridColor": "#e6e8eb",
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "tickSize": 4,
    },
    "title": {"color": INK, "fontSize": 12, "fontWeight": 600, "anchor": "start", "subtitleColor": INK},
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "orient": "top",
        "labelLimit": 400,
        "titleFontWeight": "normal",
    },
    "style": {
        "ink": {"color": INK},
        "ink-text": {"color": INK, "fontSize": 11, "fontWeight": 600},
        "reference": {"color": FAINT},
        "reference-text": {"color": "#69707b", "fontSize": 10.5},
    },
}
"""Look of the static figures; the page swaps colours for a dark screen."""


@dataclass(slots=True)
class Figure:
    """One figure: `panels` are single-view specifications without width; `legend` is (label, place)."""

    name: str
    title: str
    caption: str
    panels: list[dict[str, Any]]
    legend: list[tuple[str, int]] = field(default_factory=list)
    columns: int = 2
    wide: bool = False

    def static(self) -> dict[str, Any]:
        """One specification with every panel, for a file."""
        width = 520 if len(self.panels) == 1 else 290
        panels = [{**panel, "width": width} for panel in self.panels]
        datasets = {name: rows for panel in panels for name, rows in panel.pop("datasets").items()}
        title = {"text": textwrap.wrap(self.title, 80), "fontSize": 14, "offset": 12}
        spec = {"concat": panels, "columns": self.columns, "spacing": 28, "title": title, "config": CONFIG}
        return {"$schema": _schema(), "padding": 12, "datasets": datasets, **spec}


def vegalite_version() -> str:
    """The version of Vega-Lite that altair writes, as vl-convert names it."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def svg(spec: Mapping[str, Any]) -> str:
    """A specification as SVG text, without a browser."""
    import vl_convert

    return vl_convert.vegalite_to_svg(dict(spec), vl_version=vegalite_version())


def _schema() -> str:
    import altair as alt

    return alt.SCHEMA_URL


class Drawing:
    """Draws the figures of one study: its words, its primary axis, its panels."""

    def __init__(self, table: Table, report: ReportConfig, words: Words, primary: str | None) -> None:
        self.table, self.report, self.words = table, report, words
        self.primary = primary if primary in table.axes else next(iter(table.axes), None)
        self.groups = self._groups()

    def _groups(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Panels: (label, cells in the order of the primary axis)."""
        groups: dict[str, list[dict[str, str]]] = {}
        varying = [a for a, levels in self.table.axes.items() if a != self.primary and len(levels) > 1]
        for cell in self.table.cells():
            label = self.words.levels({axis: cell[axis] for axis in varying})
            groups.setdefault(label, []).append(cell)
        return list(groups.items())

    def _label(self, cell: Mapping[str, str]) -> str:
        return self.words.level(self.primary, cell[self.primary]) if self.primary else "all runs"

    def _arm(self, cell: Mapping[str, str]) -> str:
        group = next((label for label, cells in self.groups if cell in cells), "")
        return self._label(cell) + (f" | {group}" if group else "")

    def levels(self) -> list[str]:
        """Labels of the primary axis, in order: the domain of colours."""
        if self.primary is None:
            return ["all runs"]
        return [self.words.level(self.primary, level) for level in self.table.axes[self.primary]]

    def legend(self) -> list[tuple[str, int]]:
        """(label, place of its colour); empty when there is nothing to tell apart."""
        labels = self.levels()
        return [(label, i % len(LIGHT)) for i, label in enumerate(labels)] if len(labels) > 1 else []

    def _color(self, alt: Any, legend: bool = False) -> Any:
        title = self.words.metric(self.primary) if self.primary else None
        shown = alt.Legend(title=title) if legend and len(self.levels()) > 1 else None
        return alt.Color("level:N", scale=alt.Scale(domain=self.levels()), legend=shown)

    # --- final values of every seed -----------------------------------------------------------------

    def points(self, arms: Sequence[Mapping[str, Any]], joined: bool = False) -> Figure | None:
        """Every seed's value with mean and interval, one row per level. `joined` links equal seeds."""
        values = [p["value"] for arm in arms for p in arm["points"]]
        if not values:
            return None
        by_cell = {_key(arm["levels"]): arm for arm in arms}
        first = arms[0]
        label = self.words.metric(first["metric"])
        panels = []
        for number_, (title, cells) in enumerate(self.groups):
            rows = [(self._label(cell), by_cell[_key(cell)]) for cell in cells if _key(cell) in by_cell]
            panels.append(self._points_panel(rows, f"points{number_}", title, label, values, joined))
        at = "" if first["at"] == "final" else f" ({first['at_label']})"
        caption = (
            "Each circle is one seed. Diamond and bar: mean and 95% t interval of the mean."
            + (" Lines join runs of equal seed." if joined else "")
            + (f" Values are {first['at_label']}.")
        )
        name = f"points-{slug(first['metric'])}" + (
            "" if first["at"] == "final" else f"-{slug(str(first['at']))}"
        )
        return Figure(name, f"{label}{at}: every seed", caption, panels, columns=2)

    def _points_panel(
        self,
        rows: list[tuple[str, Any]],
        name: str,
        title: str,
        label: str,
        values: list[float],
        joined: bool,
    ) -> dict[str, Any]:
        import altair as alt

        order = [_wrap(level) for level, _ in rows]
        marks, means = [], []
        for level, arm in rows:
            for i, p in enumerate(arm["points"]):
                jitter = -0.62 + 0.5 * ((i * 0.618034) % 1)
                row = {
                    "row": _wrap(level),
                    "level": level,
                    "place": order.index(_wrap(level)),
                    "jitter": jitter,
                }
                marks.append({**row, **_point(p)})
            if arm["n"]:
                low, high = arm["t_interval"] or (arm["mean"], arm["mean"])
                text = f"{number(arm['mean'])}" + (
                    f"  {interval(arm['t_interval'])}" if arm["t_interval"] else ""
                )
                means.append(
                    {"row": _wrap(level), "mean": arm["mean"], "low": low, "high": high, "jitter": 0.42}
                )
                means[-1] |= {"text": text, "n": arm["n"]}
        everything = [*values, *(m[k] for m in means for k in ("low", "high"))]
        for mean in means:  # text stays inside the frame
            place = (mean["mean"] - min(everything)) / ((max(everything) - min(everything)) or 1)
            mean["align"] = "left" if place < 0.2 else "right" if place > 0.8 else "center"
        y = alt.Y("row:N", sort=order, title=None, axis=_rows(alt))
        offset = alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-1, 1]))
        scale = _scale(alt, values, everything)
        x = alt.X("value:Q", title=_title(label), scale=scale, axis=alt.Axis(tickCount=6))
        data, summary = alt.NamedData(name), alt.NamedData(f"{name}means")
        tip = [
            alt.Tooltip("run:N"),
            alt.Tooltip("seed:N"),
            alt.Tooltip("value:Q"),
            alt.Tooltip("step:Q", format=","),
        ]
        layers = [
            alt.Chart(data)
            .mark_circle(size=62, opacity=0.72)
            .encode(x=x, y=y, yOffset=offset, color=self._color(alt), tooltip=tip),
            alt.Chart(summary)
            .mark_rule(style="ink", strokeWidth=2.2)
            .encode(x="low:Q", x2="high:Q", y=y, yOffset=offset),
            alt.Chart(summary)
            .mark_point(style="ink", shape="diamond", filled=True, size=85, opacity=1)
            .encode(x="mean:Q", y=y, yOffset=offset),
            alt.Chart(summary)
            .mark_text(style="ink-text", dy=15, align=alt.expr("datum.align"))
            .encode(x="mean:Q", y=y, yOffset=offset, text="text:N"),
        ]
        if joined:
            link = alt.Chart(data).mark_line(style="reference", strokeWidth=0.8, opacity=0.7)
            layers.insert(0, link.encode(x=x, y=y, yOffset=offset, detail="seed:N", order="place:Q"))
        layers += self._references(alt, "x", [arm["metric"] for _, arm in rows][:1], f"{name}ref")
        chart = alt.layer(*layers).properties(height={"step": 74}, title=_title(title))
        reference = self._reference_rows([arm["metric"] for _, arm in rows][:1])
        return _spec(chart, {name: marks, f"{name}means": means, f"{name}ref": reference})

    def _reference_rows(self, metrics: Sequence[str]) -> list[dict[str, Any]]:
        return [{"at": r.value, "label": r.label} for r in self.report.reference if r.metric in metrics]

    def _references(self, alt: Any, channel: str, metrics: Sequence[str], name: str) -> list[Any]:
        if not self._reference_rows(metrics):
            return []
        data, place = alt.NamedData(name), {channel: alt.Y("at:Q") if channel == "y" else alt.X("at:Q")}
        rule = alt.Chart(data).mark_rule(style="reference", strokeDash=[3, 3])
        text = alt.Chart(data).mark_text(style="reference-text", align="left" if channel == "y" else "center")
        edge = {"x": alt.value(4)} if channel == "y" else {"y": alt.value(-5)}
        text.mark.dy = -5 if channel == "y" else 0
        return [rule.encode(**place), text.encode(**place, **edge, text="label:N")]

    # --- curves -------------------------------------------------------------------------------------

    def curves(self, metric: str) -> Figure | None:
        """Every run over training steps, thin; the mean of finished runs of an arm, thick."""
        panels, thinned = [], False
        for number_, (title, cells) in enumerate(self.groups):
            lines, means = [], []
            for cell in cells:
                drawn, mean, cut = self._curve_rows(cell, metric)
                lines, means, thinned = lines + drawn, means + mean, thinned or cut
            if lines:
                panels.append(self._curve_panel(lines, means, f"curves{number_}", title, metric))
        if not panels:
            return None
        caption = (
            "Thin: one run each; thick: mean of the finished runs of an arm, at the steps all of them have."
        )
        if any(run.state != "done" and metric in run.curves for run in self.table.runs):
            caption += " Dotted: runs that have not finished."
        if thinned:
            caption += f" Curves of more than {MAX_POINTS} evaluations are thinned evenly."
        return Figure(
            f"curves-{slug(metric)}",
            f"{self.words.metric(metric)} during training",
            caption,
            panels,
            self.legend(),
        )

    def _curve_rows(self, cell: Mapping[str, str], metric: str) -> tuple[list[Any], list[Any], bool]:
        level, lines, thinned = self._label(cell), [], False
        finished: list[dict[int, float]] = []
        for run in self.table.at(cell):
            curve = [(s, v) for s, v in run.curves.get(metric, []) if np.isfinite(v)]
            if run.state == "done" and curve:
                finished.append(dict(curve))
            kept = thin(curve)
            thinned = thinned or len(kept) < len(curve)
            state = "finished" if run.state == "done" else "unfinished"
            lines += [
                {"level": level, "run": run.name, "seed": run.seed, "step": s, "value": v, "state": state}
                for s, v in kept
            ]
        shared = sorted(set.intersection(*map(set, finished))) if len(finished) > 1 else []
        means = [(s, float(np.mean([c[s] for c in finished]))) for s in shared]
        rows = [{"level": level, "step": s, "value": v, "runs": len(finished)} for s, v in thin(means)]
        return lines, rows, thinned

    def _curve_panel(
        self, lines: list[Any], means: list[Any], name: str, title: str, metric: str
    ) -> dict[str, Any]:
        import altair as alt

        values = [row["value"] for row in lines]
        steps = "~s" if max(row["step"] for row in lines) >= 20_000 else ","
        x = alt.X("step:Q", title="training step", axis=alt.Axis(format=steps, grid=False, tickCount=5))
        y = alt.Y(
            "value:Q",
            title=self.words.metric(metric),
            scale=_scale(alt, values, values),
            axis=alt.Axis(tickCount=6),
        )
        color = self._color(alt, legend=True)
        dash = alt.StrokeDash(
            "state:N", scale=alt.Scale(domain=["finished", "unfinished"], range=[[1, 0], [2, 3]]), legend=None
        )
        shape = alt.StrokeDash(
            "level:N", scale=alt.Scale(domain=self.levels(), range=self._dashes()), legend=None
        )
        layers = [
            alt.Chart(alt.NamedData(name))
            .mark_line(strokeWidth=1, opacity=0.38)
            .encode(x=x, y=y, color=color, detail="run:N", strokeDash=dash, tooltip=["run:N", "seed:N"]),
            alt.Chart(alt.NamedData(f"{name}means"))
            .mark_line(strokeWidth=2.8)
            .encode(x=x, y=y, color=color, strokeDash=shape, tooltip=["level:N", "runs:Q"]),
            *self._references(alt, "y", [metric], f"{name}ref"),
        ]
        chart = (
            alt.layer(*layers)
            .resolve_scale(strokeDash="independent")
            .properties(height=250, title=_title(title))
        )
        return _spec(
            chart, {name: lines, f"{name}means": means, f"{name}ref": self._reference_rows([metric])}
        )

    def _dashes(self) -> list[list[int]]:
        return [DASHES[i % len(DASHES)] for i in range(len(self.levels()))]

    # --- distributions and stability ----------------------------------------------------------------

    def distribution(self, arms: Sequence[Mapping[str, Any]], least: int) -> Figure | None:
        """Histogram of an arm's seeds, one panel per arm; None when no arm has `least` seeds."""
        import altair as alt

        values = [p["value"] for arm in arms for p in arm["points"]]
        if not arms or max(arm["n"] for arm in arms) < least:
            return None
        label = self.words.metric(arms[0]["metric"])
        unit = min(values) >= 0 and max(values) <= 1
        edges = np.histogram_bin_edges(
            values, bins=10 if len(values) < 60 else 20, range=(0.0, 1.0) if unit else None
        )
        top = max(int(np.histogram([p["value"] for p in arm["points"]], edges)[0].max()) for arm in arms)
        panels = []
        order = [_key(cell) for _, cells in self.groups for cell in cells]
        for i, arm in enumerate(sorted(arms, key=lambda arm: order.index(_key(arm["levels"])))):
            counts = np.histogram([p["value"] for p in arm["points"]], edges)[0]
            level = self._label(arm["levels"])
            rows = [
                {"level": level, "low": float(a), "high": float(b), "seeds": int(n)}
                for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
                if n
            ]
            scale = alt.Scale(domain=[float(edges[0]), float(edges[-1])], nice=False)
            chart = (
                alt.Chart(alt.NamedData(f"bars{i}"))
                .mark_bar(binSpacing=1, opacity=0.85)
                .encode(
                    x=alt.X(
                        "low:Q",
                        bin="binned",
                        title=_title(label),
                        scale=scale,
                        axis=alt.Axis(grid=False, tickCount=6),
                    ),
                    x2="high:Q",
                    y=alt.Y(
                        "seeds:Q",
                        title="seeds",
                        scale=alt.Scale(domain=[0, top]),
                        axis=alt.Axis(tickMinStep=1, tickCount=4),
                    ),
                    color=self._color(alt),
                    tooltip=["low:Q", "high:Q", "seeds:Q"],
                )
                .properties(height=110, title=_title(self._arm(arm["levels"])))
            )
            panels.append(_spec(chart, {f"bars{i}": rows}))
        caption = f"Number of seeds per bin, {arms[0]['at_label']}; all panels share their bins."
        return Figure(
            f"distribution-{slug(arms[0]['metric'])}", f"{label}: distribution over seeds", caption, panels
        )

    def stability(self, metric: str, rows: Sequence[Mapping[str, Any]], tau: float) -> Figure | None:
        """Mean change between evaluations against the final value, one point per run."""
        import altair as alt

        shown = [r for r in rows if r["tv_per_interval"] is not None and r["final"] is not None]
        if not shown:
            return None
        label, panels = self.words.metric(metric), []
        top = max([*(r["tv_per_interval"] for r in shown), tau]) * 1.08
        for number_, (title, cells) in enumerate(self.groups):
            inside = [r for r in shown if r["levels"] in cells]
            points = [
                {
                    "level": self._label(r["levels"]),
                    "tv": r["tv_per_interval"],
                    "value": r["final"],
                    "run": r["run"],
                    "seed": r["seed"],
                }
                for r in inside
            ]
            y = alt.Y(
                "value:Q",
                title=label,
                scale=_scale(alt, [r["final"] for r in shown], []),
                axis=alt.Axis(tickCount=6),
            )
            x = alt.X(
                "tv:Q",
                title="mean change between evaluations (TV/T)",
                scale=alt.Scale(domain=[0, top]),
                axis=alt.Axis(tickCount=6),
            )
            dots = (
                alt.Chart(alt.NamedData(f"tv{number_}"))
                .mark_circle(size=70, opacity=0.75)
                .encode(
                    x=x,
                    y=y,
                    color=self._color(alt, legend=True),
                    tooltip=["run:N", "seed:N", "tv:Q", "value:Q"],
                )
            )
            rule = (
                alt.Chart(alt.NamedData(f"tau{number_}"))
                .mark_rule(style="reference", strokeDash=[3, 3])
                .encode(x="tv:Q")
            )
            chart = alt.layer(dots, rule).properties(height=230, title=_title(title))
            panels.append(_spec(chart, {f"tv{number_}": points, f"tau{number_}": [{"tv": tau}]}))
        caption = f"One point per run; left of the dashed line (TV/T = {number(tau)}) a run counts as stable."
        return Figure(
            f"stability-{slug(metric)}", f"{label}: stability and outcome", caption, panels, self.legend()
        )

    # --- contrasts ----------------------------------------------------------------------------------

    def contrasts(self, results: Sequence[Mapping[str, Any]]) -> list[Figure]:
        """Estimates with intervals, one figure for each metric and form that has at least two."""
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for result in results:
            if result["estimate"] is not None:
                groups.setdefault((result["metric"], result["as"]), []).append(result)
        return [
            self._forest(metric, form, group) for (metric, form), group in groups.items() if len(group) > 1
        ]

    def _forest(self, metric: str, form: str, results: Sequence[Mapping[str, Any]]) -> Figure:
        import altair as alt

        comparisons = [self.words.comparison(result) for result in results]
        same = len(set(comparisons)) == 1 and any(result["where"] for result in results)
        rows = []
        for comparison, result in zip(comparisons, results, strict=True):
            parts = [] if same else [comparison]
            parts += [self.words.levels(result["where"], named=False)] if result["where"] else []
            parts += [] if result["at"] == "final" else [result["at_label"]]
            low, high = result["interval"] or (result["estimate"], result["estimate"])
            row = _wrap(" | ".join(parts), 30)
            rows.append({"row": row, "estimate": result["estimate"], "low": low, "high": high})
        null = 1.0 if form == "ratio" else 0.0
        data, order = alt.NamedData("forest"), [row["row"] for row in rows]
        kind = {"ratio": "ratio", "relative": "relative change", "difference": "difference"}[form]
        title = _title(f"{kind}, {comparisons[0]}" if same else kind)
        axis = alt.Axis(tickCount=6, **({"format": "+%"} if form == "relative" else {}))
        y = alt.Y("row:N", sort=order, title=None, axis=_rows(alt))
        x = alt.X("low:Q", title=title, scale=alt.Scale(zero=form != "ratio"), axis=axis)
        tip = ["estimate:Q", "low:Q", "high:Q"]
        layers = [
            alt.Chart(alt.NamedData("forestnull"))
            .mark_rule(style="reference", strokeDash=[3, 3])
            .encode(x="low:Q"),
            alt.Chart(data)
            .mark_rule(style="ink", strokeWidth=2.2)
            .encode(x=x, x2="high:Q", y=y, tooltip=tip),
            alt.Chart(data)
            .mark_point(style="ink", filled=True, size=75, opacity=1)
            .encode(x="estimate:Q", y=y, tooltip=tip),
        ]
        chart = alt.layer(*layers).properties(height={"step": 40})
        panel = _spec(chart, {"forest": rows, "forestnull": [{"low": null}]})
        caption = "Dot and bar: estimate and interval of each contrast. Dashed: no difference."
        name = f"contrasts-{slug(metric)}-{form}"
        return Figure(name, f"{self.words.metric(metric)}: all contrasts", caption, [panel], wide=True)


# --- parts ------------------------------------------------------------------------------------------


def thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MAX_POINTS points of a curve, evenly, the last kept."""
    stride = -(-len(curve) // MAX_POINTS)
    return list(curve) if stride <= 1 else [*curve[:-1:stride], curve[-1]]


def slug(text: str) -> str:
    """Text as part of a file name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "-" for c in text)
    return "-".join(part for part in kept.split("-") if part)[:80] or "metric"


def _spec(chart: Any, datasets: dict[str, list[Any]]) -> dict[str, Any]:
    """A chart's specification with its data; the width is left to the place where it is shown."""
    spec = chart.to_dict()
    spec = {k: v for k, v in spec.items() if k not in ("$schema", "config", "width")}
    return {**spec, "datasets": {name: rows for name, rows in datasets.items() if rows or name != "unused"}}


def _key(levels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(levels.items()))


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    return {k: point[k] for k in ("run", "seed", "value", "step")}


def _title(text: str) -> list[str] | str:
    """A title in lines that fit a narrow panel."""
    return textwrap.wrap(text, 46) or ""


def _rows(alt: Any) -> Any:
    """The axis of labelled rows; the expression is constant, labels carry their own line breaks."""
    return alt.Axis(
        labelLimit=220, ticks=False, domain=False, labelPadding=8, labelExpr="split(datum.label, '\\n')"
    )


def _wrap(text: str, width: int = 20) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def _scale(alt: Any, values: Sequence[float], everything: Sequence[float]) -> Any:
    """[0, 1] for shares that spread over it; else the range of the data, with room for intervals."""
    low, high = min(values), max(values)
    if low >= 0 and high <= 1 and high - low > 0.2:
        low, high = min([0.0, *everything]), max([1.0, *everything])
        return alt.Scale(domain=[max(low, -0.25), min(high, 1.25)], nice=False, clamp=True)
    return alt.Scale(zero=False, nice=True, padding=6)
