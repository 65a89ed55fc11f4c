"""The charts of a report, as Vega-Lite specifications.

The colour of a mark is the level of one axis, the one the first contrast compares; panels are the
combinations of the others. Every seed is drawn: means and intervals stand beside the points, never
instead of them. Specifications are plain data; the tests validate them against the schema that altair
ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lexarium.reports.figures import (
    DASHES,
    LIGHT,
    MAX_POINTS,
    Figure,
    Spec,
    cut_off,
    encode,
    layer,
    references,
    row_axis,
    slug,
    thin,
    title_lines,
    value_scale,
    wrap,
)
from lexarium.reports.words import Words, interval, number
from lexarium.studies.compare import ReportConfig, Table
from lexarium.studies.contrasts import MEASURE

Row = dict[str, Any]
Arm = Mapping[str, Any]


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
            label = self.words.levels({axis: cell[axis] for axis in varying if axis in cell})
            groups.setdefault(label, []).append(cell)
        return list(groups.items())

    def _label(self, cell: Mapping[str, str]) -> str:
        axis = self.primary
        return self.words.level(axis, cell[axis]) if axis is not None and axis in cell else "all runs"

    def levels(self) -> list[str]:
        """Labels of the primary axis, in order: the domain of colours."""
        return list(dict.fromkeys(self._label(cell) for cell in self.table.cells()))

    def legend(self) -> list[tuple[str, int]]:
        """(label, place of its colour); empty when there is nothing to tell apart."""
        labels = self.levels()
        return [(label, i % len(LIGHT)) for i, label in enumerate(labels)] if len(labels) > 1 else []

    def _color(self, legend: bool = False) -> Spec:
        """Colour by level; files show a legend for it, the page has its own."""
        title = self.words.metric(self.primary) if self.primary else None
        shown = {} if legend and self.legend() else {"legend": None}
        return encode("level", "N", title=title, scale={"domain": self.levels()}, **shown)

    def _references(self, metric: str) -> list[Row]:
        return [{"at": r.value, "label": r.label} for r in self.report.reference if r.metric == metric]

    # --- final values of every seed -----------------------------------------------------------------

    def points(self, arms: Sequence[Arm], joined: bool = False) -> Figure | None:
        """Every seed's value with mean and interval, one row per level. `joined` links equal seeds."""
        values = [p["value"] for arm in arms for p in arm["points"]]
        if not values:
            return None
        by_cell = {_key(arm["levels"]): arm for arm in arms}
        first = arms[0]
        label = self.words.metric(first["metric"])
        panels = []
        for i, (title, cells) in enumerate(self.groups):
            rows = [(self._label(cell), by_cell[_key(cell)]) for cell in cells if _key(cell) in by_cell]
            if any(arm["n"] for _, arm in rows):
                panels.append(self._points_panel(rows, f"points{i}", title, label, values, joined))
        final = first["at"] == "final"
        caption = "Each circle is one seed, its value " + self.words.when(first) + "."
        caption += (
            " Diamond and bar: mean and 95% t interval of the mean."
            if max(arm["n"] for arm in arms) > 1
            else ""
        )
        caption += cut_off(values, [*values, *(v for arm in arms for v in arm["t_interval"] or ())])
        caption += " Lines join runs of equal seed." if joined else ""
        name = f"points-{slug(first['metric'])}" + ("" if final else f"-{slug(str(first['at']))}")
        heading = self.words.heading(first["metric"]) + ("" if final else f" ({self.words.when(first)})")
        title = f"{heading}: every seed"
        return Figure(name, title, caption, panels)

    def _points_panel(
        self,
        rows: Sequence[tuple[str, Arm]],
        name: str,
        title: str,
        label: str,
        values: Sequence[float],
        joined: bool,
    ) -> Spec:
        order = [wrap(level) for level, _ in rows]
        marks, means = _point_rows(rows)
        scale = value_scale(values, [*values, *(m[k] for m in means for k in ("low", "high"))])
        place = {
            "y": encode("row", "N", sort=order, title=None, axis=row_axis()),
            "yOffset": encode("jitter", scale={"domain": [-1, 1]}),
        }
        x = encode(
            "value",
            title=title_lines(label, 34 if len(self.groups) > 1 else 46),
            scale=scale,
            axis={"tickCount": 6},
        )
        tips = [encode("run", "N"), encode("seed", "N"), encode("value"), encode("step", format=",d")]
        circle = {"type": "circle", "size": 62, "opacity": 0.72}
        diamond = {
            "type": "point",
            "shape": "diamond",
            "filled": True,
            "size": 85,
            "opacity": 1,
            "style": "ink",
        }
        text = {"type": "text", "dy": 15, "align": {"expr": "datum.align"}, "style": "ink-text"}
        bar = {"type": "rule", "strokeWidth": 2.2, "style": "ink"}
        found = self._references(rows[0][1]["metric"])
        layers = references("x", f"{name}ref", found)
        if joined:
            link = {"type": "line", "strokeWidth": 0.8, "opacity": 0.7, "style": "reference"}
            layers += [layer(name, link, x=x, **place, detail=encode("seed", "N"), order=encode("place"))]
        layers += [
            layer(name, circle, x=x, **place, color=self._color(), tooltip=tips),
            layer(f"{name}means", bar, x=encode("low"), x2={"field": "high"}, **place),
            layer(f"{name}means", diamond, x=encode("mean"), **place),
            layer(f"{name}means", text, x=encode("mean"), **place, text=encode("text", "N")),
        ]
        data = {name: marks, f"{name}means": means, f"{name}ref": found}
        return {"title": title_lines(title), "height": 74 * len(order), "layer": layers, "datasets": data}

    # --- curves -------------------------------------------------------------------------------------

    def curves(self, metric: str) -> Figure | None:
        """Every run over training steps, thin; the mean of finished runs of an arm, thick."""
        panels, thinned = [], False
        for i, (title, cells) in enumerate(self.groups):
            rows = [self._curve_rows(cell, metric) for cell in cells]
            lines = [line for found, _, _ in rows for line in found]
            means = [mean for _, found, _ in rows for mean in found]
            thinned = thinned or any(cut for _, _, cut in rows)
            if lines:
                panels.append(self._curve_panel(lines, means, f"curves{i}", title, metric))
        if not panels:
            return None
        caption = (
            "Thin: one run each. Thick: mean of the finished runs of an arm, at the steps all of them have."
        )
        if any(run.state != "done" and metric in run.curves for run in self.table.runs):
            caption += " Dotted: runs that have not finished."
        if thinned:
            caption += f" Curves of more than {MAX_POINTS} evaluations are thinned evenly."
        title = f"{self.words.heading(metric)} during training"
        return Figure(f"curves-{slug(metric)}", title, caption, panels, self.legend())

    def _curve_rows(self, cell: Mapping[str, str], metric: str) -> tuple[list[Row], list[Row], bool]:
        level, thinned = self._label(cell), False
        lines: list[Row] = []
        finished: list[dict[int, float]] = []
        for run in self.table.at(cell):
            curve = [(s, v) for s, v in run.curves.get(metric, []) if np.isfinite(v)]
            done = run.state == "done"
            if done and curve:
                finished.append(dict(curve))
            kept = thin(curve)
            thinned = thinned or len(kept) < len(curve)
            one = {
                "level": level,
                "run": run.name,
                "seed": run.seed,
                "state": "finished" if done else "unfinished",
            }
            lines += [{**one, "step": s, "value": v} for s, v in kept]
        shared = sorted(set.intersection(*map(set, finished))) if len(finished) > 1 else []
        means = [(s, float(np.mean([c[s] for c in finished]))) for s in shared]
        rows = [{"level": level, "step": s, "value": v, "runs": len(finished)} for s, v in thin(means)]
        return lines, rows, thinned

    def _curve_panel(self, lines: list[Row], means: list[Row], name: str, title: str, metric: str) -> Spec:
        values = [row["value"] for row in lines]
        steps = "~s" if max(row["step"] for row in lines) >= 20_000 else ",d"
        label = title_lines(self.words.metric(metric))
        common = {
            "x": encode("step", title="training step", axis={"format": steps, "grid": False, "tickCount": 5}),
            "y": encode("value", title=label, scale=value_scale(values, values), axis={"tickCount": 6}),
            "color": self._color(legend=True),
        }
        state = {"domain": ["finished", "unfinished"], "range": [[1, 0], [2, 3]]}
        dashes = {
            "domain": self.levels(),
            "range": [DASHES[i % len(DASHES)] for i in range(len(self.levels()))],
        }
        thin_line: Spec = {"type": "line", "strokeWidth": 1, "opacity": 0.38}
        if not means:  # single runs are all there is to see
            thin_line = {"type": "line", "strokeWidth": 1.6, "opacity": 0.85}
        found = self._references(metric)
        layers = [
            layer(
                name,
                thin_line,
                **common,
                detail=encode("run", "N"),
                strokeDash=encode("state", "N", scale=state, legend=None),
                tooltip=[encode("run", "N"), encode("seed", "N")],
            ),
            layer(
                f"{name}means",
                {"type": "line", "strokeWidth": 2.8},
                **common,
                strokeDash=encode("level", "N", scale=dashes, legend=None),
                tooltip=[encode("level", "N"), encode("runs")],
            ),
            *references("y", f"{name}ref", found),
        ]
        alone = [row for row in lines if sum(other["run"] == row["run"] for other in lines) == 1]
        if alone:  # no line has one point
            layers.append(layer(f"{name}alone", {"type": "circle", "size": 40}, **common))
        return {
            "title": title_lines(title),
            "height": 250,
            "layer": layers,
            "resolve": {"scale": {"strokeDash": "independent"}},
            "datasets": {name: lines, f"{name}means": means, f"{name}ref": found}
            | ({f"{name}alone": alone} if alone else {}),
        }

    # --- distributions and stability ----------------------------------------------------------------

    def distribution(self, arms: Sequence[Arm], least: int) -> Figure | None:
        """Histogram of an arm's seeds, one panel per arm; None when no arm has `least` seeds."""
        values = [p["value"] for arm in arms for p in arm["points"]]
        if not arms or max(arm["n"] for arm in arms) < least:
            return None
        unit = min(values) >= 0 and max(values) <= 1
        edges = np.histogram_bin_edges(
            values, bins=10 if len(values) < 60 else 20, range=(0.0, 1.0) if unit else None
        )
        counts = {
            _key(arm["levels"]): np.histogram([p["value"] for p in arm["points"]], edges)[0] for arm in arms
        }
        top = max(int(found.max()) for found in counts.values())
        label = self.words.metric(arms[0]["metric"])
        scale = {"domain": [float(edges[0]), float(edges[-1])], "nice": False}
        encoding = {
            "x": encode(
                "low",
                bin="binned",
                title=title_lines(label),
                scale=scale,
                axis={"grid": False, "tickCount": 6},
            ),
            "x2": {"field": "high"},
            "y": encode(
                "seeds", title="seeds", scale={"domain": [0, top]}, axis={"tickMinStep": 1, "tickCount": 4}
            ),
            "color": self._color(),
            "tooltip": [encode("low"), encode("high"), encode("seeds")],
        }
        panels = []
        cells = [(group, cell) for group, found in self.groups for cell in found]
        for i, (group, cell) in enumerate(cells):
            title = self._label(cell) + (f" | {group}" if group else "")
            bins = zip(edges[:-1], edges[1:], counts.get(_key(cell), []), strict=False)
            rows = [
                {"level": self._label(cell), "low": float(a), "high": float(b), "seeds": int(n)}
                for a, b, n in bins
                if n
            ]
            one = layer(f"bars{i}", {"type": "bar", "binSpacing": 1, "opacity": 0.85}, **encoding)
            panels.append({"title": title_lines(title), "height": 110, **one, "datasets": {f"bars{i}": rows}})
        caption = f"Number of seeds per bin, {arms[0]['at_label']}; all panels share their bins."
        title = f"{self.words.heading(arms[0]['metric'])}: distribution over seeds"
        return Figure(f"distribution-{slug(arms[0]['metric'])}", title, caption, panels)

    def stability(self, metric: str, rows: Sequence[Arm], tau: float) -> Figure | None:
        """Mean change between evaluations against the final value, one point per run."""
        shown = [r for r in rows if r["tv_per_interval"] is not None and r["final"] is not None]
        if not shown:
            return None
        label, panels = self.words.metric(metric), []
        domain = [0, max([*(r["tv_per_interval"] for r in shown), tau]) * 1.08]
        scale = value_scale([r["final"] for r in shown], [])
        encoding = {
            "x": encode(
                "tv",
                title="mean change between evaluations (TV/T)",
                scale={"domain": domain},
                axis={"tickCount": 6},
            ),
            "y": encode("value", title=title_lines(label), scale=scale, axis={"tickCount": 6}),
            "color": self._color(legend=True),
            "tooltip": [encode("run", "N"), encode("seed", "N"), encode("tv"), encode("value")],
        }
        for i, (title, cells) in enumerate(self.groups):
            points = [
                {"level": self._label(r["levels"]), "tv": r["tv_per_interval"], "value": r["final"]}
                | {"run": r["run"], "seed": r["seed"]}
                for r in shown
                if r["levels"] in cells
            ]
            layers = [
                layer(f"tv{i}", {"type": "circle", "size": 70, "opacity": 0.75}, **encoding),
                layer(
                    f"tau{i}", {"type": "rule", "style": "reference", "strokeDash": [3, 3]}, x=encode("tv")
                ),
            ]
            data = {f"tv{i}": points, f"tau{i}": [{"tv": tau}]}
            panels.append({"title": title_lines(title), "height": 230, "layer": layers, "datasets": data})
        caption = f"One point per run; left of the dashed line (TV/T = {tau}) a run counts as stable."
        title = f"{self.words.heading(metric)}: stability and outcome"
        return Figure(f"stability-{slug(metric)}", title, caption, panels, self.legend(), dots=True)

    # --- contrasts ----------------------------------------------------------------------------------

    def contrasts(self, results: Sequence[Arm]) -> list[Figure]:
        """Estimates with intervals, one figure for each metric and form that has at least two."""
        groups: dict[tuple[str, str], list[Arm]] = {}
        for result in results:
            if (
                result["estimate"] is not None and not result["grows"]
            ):  # a change of an effect has its own scale
                groups.setdefault((result["metric"], result["as"]), []).append(result)
        return [
            self._forest(metric, form, group) for (metric, form), group in groups.items() if len(group) > 1
        ]

    def _forest(self, metric: str, form: str, results: Sequence[Arm]) -> Figure:
        # of two metrics of one arm the title names the one
        comparisons = [
            f"less {self.words.level(MEASURE, result['from'])}"
            if result["axis"] == MEASURE and form == "difference"
            else self.words.comparison(result)
            for result in results
        ]
        same = len(set(comparisons)) == 1 and any(result["where"] for result in results)
        rows = []
        for comparison, result in zip(comparisons, results, strict=True):
            parts = [] if same else [comparison]
            parts += [self.words.levels(result["where"], named=False)] if result["where"] else []
            parts += [] if result["at"] == "final" else [result["at_label"]]
            parts += ["over the text"] * bool(result["windows"])
            low, high = result["interval"] or (result["estimate"], result["estimate"])
            row = wrap(" | ".join(parts), 40)
            rows.append({"row": row, "estimate": result["estimate"], "low": low, "high": high})
        kind = {"ratio": "ratio", "relative": "relative change", "symmetric": "symmetric difference"}.get(
            form, "difference"
        )
        title = title_lines(f"{kind}, {comparisons[0]}" if same else kind)
        small = max(abs(row[k]) for row in rows for k in ("low", "high")) < 0.1
        percents = {"tickCount": 6, "format": "+.1%" if small else "+%"}
        axis = percents if form in ("relative", "symmetric") else {"tickCount": 6}
        x = encode("low", title=title, scale={"zero": form != "ratio"}, axis=axis)
        named = {**row_axis(), "labelLimit": 300}
        y = encode("row", "N", sort=[row["row"] for row in rows], title=None, axis=named)
        tips = [encode("estimate"), encode("low"), encode("high")]
        dot = {"type": "point", "filled": True, "size": 75, "opacity": 1, "style": "ink"}
        dashed = {"type": "rule", "style": "reference", "strokeDash": [3, 3]}
        bar = {"type": "rule", "style": "ink", "strokeWidth": 2.2}
        layers = [
            layer("forestnull", dashed, x=encode("low")),
            layer("forest", bar, x=x, x2={"field": "high"}, y=y, tooltip=tips),
            layer("forest", dot, x=encode("estimate"), y=y, tooltip=tips),
        ]
        data = {"forest": rows, "forestnull": [{"low": 1.0 if form == "ratio" else 0.0}]}
        deepest = max(row["row"].count("\n") + 1 for row in rows)
        panel = {"height": max(40, 14 * deepest + 10) * len(rows), "layer": layers, "datasets": data}
        caption = "Dot and bar: estimate and interval of each contrast. Dashed: no difference."
        name = f"contrasts-{slug(metric)}-{form}"
        return Figure(name, f"{self.words.heading(metric)}: all contrasts ({kind})", caption, [panel])


def _point_rows(rows: Sequence[tuple[str, Arm]]) -> tuple[list[Row], list[Row]]:
    """Marks of every seed (upper half of a row) and of means (lower half)."""
    marks, means = [], []
    for place, (level, arm) in enumerate(rows):
        row = {"row": wrap(level), "level": level, "place": place}
        for i, p in enumerate(arm["points"]):
            one = {k: p[k] for k in ("run", "seed", "value", "step")}
            marks.append({**row, **one, "jitter": -0.62 + 0.5 * ((i * 0.618034) % 1)})
        if arm["n"]:
            low, high = arm["t_interval"] or (arm["mean"], arm["mean"])
            text = number(arm["mean"]) + (f"  {interval(arm['t_interval'])}" if arm["t_interval"] else "")
            mean = {"mean": arm["mean"], "low": low, "high": high, "text": text, "n": arm["n"]}
            means.append({**row, **mean, "jitter": 0.42})
    ends = [m["value"] for m in marks] + [m[k] for m in means for k in ("low", "high")]
    for mean in means:  # text stays inside the frame
        place_ = (mean["mean"] - min(ends)) / ((max(ends) - min(ends)) or 1)
        mean["align"] = "left" if place_ < 0.2 else "right" if place_ > 0.8 else "center"
    return marks, means


def _key(levels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(levels.items()))
