"""Figures of symbols: maps of the symbols a model reads, and the trees that join them.

One panel per arm, direction and map, of the first finished seed (see `studies/symbol_maps.py`). Both axes of a map have
one scale, so that distances can be compared; a sign, and how a map is turned, mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lexarium.reports.figures import Figure, Spec, encode, layer, title_lines
from lexarium.reports.words import Words, number

Row = Mapping[str, Any]
CLASSES = {"vowel": "vowel", "consonant": "consonant", "other": "other symbol"}
ROOM = 1.12
"""Share of the farthest symbol's distance that a map reaches to."""


def symbol_figures(found: Sequence[Row], words: Words) -> list[Figure]:
    """The maps, and the trees; nothing for a study without them."""
    if not found:
        return []
    told = [_told(row, words, found) for row in found]
    used = {one["class"] for row in found for one in row["symbols"]}
    legend = [(words, i) for i, (name, words) in enumerate(CLASSES.items()) if name in used]
    legend = [] if used == {"other"} else legend
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in found}))
    maps = (
        f"Principal components over symbols, each counting alike; seed {seeds}. The share of the variance stands at"
        " each axis: what is left of it is not on the map. Which way a map is turned means nothing."
    )
    trees = (
        "Ward's tree over Euclidean distances: symbols that join low are alike."
        f" Seed {seeds}. The correlation is that of the tree's distances with the true ones."
    )
    return [
        Figure("symbols-map", "Which symbols are alike: maps", maps,
               [_map(f"map{i}", row, title) for i, (row, title) in enumerate(zip(found, told, strict=True))], legend,
               dots=True),
        Figure("symbols-tree", "Which symbols are alike: trees", trees,
               [_tree(f"tree{i}", row, title) for i, (row, title) in enumerate(zip(found, told, strict=True))], legend,
               dots=True),
    ]  # fmt: skip


def _told(row: Row, words: Words, rows: Sequence[Row]) -> str:
    """What a panel is of."""
    arm = words.levels(row["levels"], named=False) or "all runs"
    several = len({one["map"] for one in rows}) > 1
    return " | ".join(filter(None, (arm, row["map"] if several else "", row["direction"])))


def _color() -> Spec:
    return encode("class", "N", scale={"domain": list(CLASSES.values())}, title=None, legend=None)


def _data(row: Row) -> list[dict[str, Any]]:
    return [{**one, "class": CLASSES[one["class"]]} for one in row["symbols"]]


def _map(name: str, row: Row, title: str) -> Spec:
    """Symbols as letters at their places."""
    data = _data(row)
    reach = ROOM * max(max(abs(one["x"]), abs(one["y"])) for one in data)
    axis = lambda which, words: encode(
        which,
        title=f"{words} component" + ("" if row[f"share_{which}"] is None else f" ({row[f'share_{which}']:.0%})"),
        scale={"domain": [-reach, reach], "nice": False},
        axis={"tickCount": 5},
    )  # fmt: skip
    tips = [encode("symbol", "N"), encode("class", "N"), encode("count", format=",d")]
    mark = {"type": "text", "fontSize": 13, "fontWeight": 600}
    place = {"x": axis("x", "first"), "y": axis("y", "second")}
    layers = [layer(name, mark, **place, text=encode("symbol", "N"), color=_color(), tooltip=tips)]
    return {"title": title_lines(title), "height": 300, "layer": layers, "datasets": {name: data}}


def _tree(name: str, row: Row, title: str) -> Spec:
    """A dendrogram: symbols below each other, joins to their right."""
    n, joins = len(row["symbols"]), row["joins"]
    lines = []
    for one in joins:
        lines += [
            {"h": one["left"], "h2": one["height"], "at": one["low"], "at2": one["low"]},
            {"h": one["right"], "h2": one["height"], "at": one["high"], "at2": one["high"]},
            {"h": one["height"], "h2": one["height"], "at": one["low"], "at2": one["high"]},
        ]
    top = joins[-1]["height"]
    x = encode("h", title="height of the join", scale={"domain": [-0.07 * top, top], "nice": False})
    y = encode("at", axis=None, scale={"domain": [n - 0.4, -0.6], "nice": False})
    rule = {"type": "rule", "strokeWidth": 1.2, "style": "reference"}
    text = {"type": "text", "fontSize": 11, "fontWeight": 600, "align": "center"}
    data = [{**one, "at": one["leaf"], "h": -0.035 * top} for one in _data(row)]
    tips = [encode("symbol", "N"), encode("class", "N"), encode("count", format=",d")]
    x |= {"axis": {"tickCount": 5, "grid": False}}
    layers = [
        layer(f"{name}lines", rule, x=x, x2={"field": "h2"}, y=y, y2={"field": "at2"}),
        layer(name, text, x=x, y=y, text=encode("symbol", "N"), color=_color(), tooltip=tips),
    ]
    correlation = row["cophenetic"]
    told = title if correlation is None else f"{title} (correlation {number(correlation)})"
    return {
        "title": title_lines(told),
        "height": max(120, 13 * n),
        "layer": layers,
        "datasets": {f"{name}lines": lines, name: data},
    }
