"""What a figure is, how it looks, and how it becomes an SVG file.

A `Figure` is a list of panels (one single-view chart each, so that a page can lay them out and stretch
them) and one `static` specification with the same panels for the SVG file. Data travel as named data
sets with fixed field names; labels of a study are only ever values, never parts of an expression.
`charts.py` draws them. Colours follow those of Okabe and Ito (jfly.uni-koeln.de/color), safe for
colour-blind readers: dark enough for white paper and, in `DARK`, light enough for a dark screen.

vl-convert starts a JavaScript engine once per process (0.7 s) and then takes about 0.1 s per figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

LIGHT = ["#0072B2", "#D55E00", "#009E73", "#B8659A", "#C78A00", "#3A9BD0", "#7A5C2E", "#5B6470"]
DARK = ["#58B0EA", "#F58D4E", "#3CCB9C", "#E59AC6", "#F0B840", "#9AD3F7", "#CDAE72", "#B4BCC6"]
DASHES = [[1, 0], [7, 3], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 3], [6, 2, 1, 2]]
"""Means of different arms differ in dash too, for print without colour."""
MAX_POINTS = 400
"""Longest curve drawn point by point; longer ones are thinned evenly, the last point kept."""
SANS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def look(dark: bool = False) -> Spec:
    """Vega-Lite configuration for white paper, or for a dark screen."""
    ink, faint, grid, small = (
        ("#e8eaee", "#7d8590", "#2a3038", "#a3acb8") if dark else ("#20242a", "#8a919c", "#e6e8eb", "#69707b")
    )
    title = {"titleColor": ink, "titleFontWeight": "normal"}
    return {
        "background": "transparent" if dark else "#ffffff",
        "font": SANS,
        "view": {"stroke": None},
        "range": {"category": DARK if dark else LIGHT},
        "axis": {
            **title,
            "labelColor": ink,
            "domainColor": faint,
            "tickColor": faint,
            "gridColor": grid,
            "labelFontSize": 11,
            "titleFontSize": 11.5,
            "titlePadding": 8,
            "tickSize": 4,
        },
        "title": {"color": ink, "fontSize": 12, "fontWeight": 600, "anchor": "start", "frame": "group"},
        "legend": {
            **title,
            "labelColor": ink,
            "orient": "top",
            "labelLimit": 400,
            "symbolOpacity": 1,
            "symbolStrokeWidth": 3,
        },
        "style": {
            "ink": {"color": ink},
            "ink-text": {"color": ink, "fontSize": 11, "fontWeight": 600},
            "reference": {"color": faint},
            "reference-text": {"color": small, "fontSize": 10.5},
        },
    }


@dataclass(slots=True)
class Figure:
    """One figure: `panels` are single-view specifications without width; `legend` is (label, colour)."""

    name: str
    title: str
    caption: str
    panels: list[Spec]
    legend: list[tuple[str, int]] = field(default_factory=list)
    dots: bool = False
    """The legend shows dots, not lines."""

    def static(self) -> Spec:
        """One specification with every panel, for a file."""
        width = 520 if len(self.panels) == 1 else 290
        panels = [{**panel, "width": width} for panel in self.panels]
        datasets = {name: rows for panel in panels for name, rows in panel.pop("datasets").items()}
        title = {"text": textwrap.wrap(self.title, 80), "fontSize": 14, "offset": 12, "frame": "bounds"}
        layout = {"concat": panels, "columns": 2, "spacing": 28, "padding": 12, "title": title}
        return {**layout, "datasets": datasets, "config": look()}


def svg(spec: Mapping[str, Any]) -> str:
    """A specification as SVG text, without a browser."""
    import vl_convert

    return vl_convert.vegalite_to_svg(dict(spec))


# --- parts of specifications ------------------------------------------------------------------------


def encode(name: str, kind: str = "Q", **options: Any) -> Spec:
    """One encoding channel: a field, quantitative (Q) or nominal (N)."""
    return {"field": name, "type": {"Q": "quantitative", "N": "nominal"}[kind], **options}


def layer(data: str, mark: Spec, **encoding: Any) -> Spec:
    """One layer: a named data set, a mark, its channels."""
    return {"data": {"name": data}, "mark": mark, "encoding": encoding}


def references(channel: str, data: str, rows: Sequence[Spec]) -> list[Spec]:
    """Dashed lines with their labels, across the channel x or y; rows are {at, label}."""
    if not rows:
        return []
    rule = {"type": "rule", "strokeDash": [3, 3], "style": "reference"}
    text: Spec = {"type": "text", "style": "reference-text"}
    edge: Spec = {"y": {"value": -6}}
    if channel == "y":
        text |= {"align": "left", "dy": -5}
        edge = {"x": {"value": 4}}
    place = {channel: encode("at")}
    return [layer(data, rule, **place), layer(data, text, **place, **edge, text=encode("label", "N"))]


def row_axis() -> Spec:
    """The axis of labelled rows; the expression is constant, labels carry their own line breaks."""
    lines = "split(datum.label, '\\n')"
    return {"labelLimit": 300, "ticks": False, "domain": False, "labelPadding": 8, "labelExpr": lines}


SHARE_EDGES = -0.25, 1.25
"""How far an axis of shares goes beyond 0 and 1."""


def value_scale(values: Sequence[float], everything: Sequence[float]) -> Spec:
    """[0, 1] for shares that spread over it; else the range of the data, with room for intervals, or around the one
    value there is."""
    low, high = min(values), max(values)
    if low >= 0 and high <= 1 and high - low > 0.2:
        low, high = min([0.0, *everything]), max([1.0, *everything])
        return {"domain": [max(low, SHARE_EDGES[0]), min(high, SHARE_EDGES[1])], "nice": False, "clamp": True}
    low, high = min([low, *everything]), max([high, *everything])
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a domain without width has no true axis
        room = 0.05 * abs(low) or 0.05
        return {"domain": [low - room, high + room], "nice": True, "zero": False}
    return {"zero": False, "nice": True, "padding": 6}


def cut_off(values: Sequence[float], everything: Sequence[float]) -> str:
    """What a caption says where intervals go on beyond the edge of the plot."""
    edges = value_scale(values, everything).get("domain") if everything else None
    beyond = edges and (min(everything) < edges[0] or max(everything) > edges[1])
    return " A bar that ends at the edge of the plot goes on; its numbers stand beside it." if beyond else ""


def title_lines(text: str, width: int = 46) -> list[str] | str:
    """A title in lines that fit a narrow panel."""
    return textwrap.wrap(text, width) or ""


def wrap(text: str, width: int = 20) -> str:
    """Text with line breaks."""
    return "\n".join(textwrap.wrap(text, width)) or text


def thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MAX_POINTS points of a curve, evenly, the last kept."""
    stride = -(-len(curve) // MAX_POINTS)
    return list(curve) if stride <= 1 else [*curve[:-1:stride], curve[-1]]


def slug(text: str) -> str:
    """Text as part of a file name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "-" for c in text)
    return "-".join(part for part in kept.split("-") if part)[:80] or "metric"
