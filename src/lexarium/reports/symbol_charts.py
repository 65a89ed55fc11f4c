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
CLASSES = ("vowel", "consonant")
"""Classes with a colour of their own; other symbols have that of the text."""
ROOM = 1.12
"""Share of the farthest symbol's distance that a map reaches to."""


def symbol_figures(found: Sequence[Row], words: Words) -> list[Figure]:
    """The maps, and the trees; nothing for a study without them."""
    if not found:
        return []
    told = [_told(row, words, found) for row in found]
    used = {one["class"] for row in found for one in row["symbols"]}
    legend = [(name, i) for i, name in enumerate(CLASSES) if name in used]
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
    several = len({one["map"] for one in rows if one["of"] == row["of"]}) > 1
    of = "embeddings"
    if row["of"] == "states":
        of = f"mean states, {'last layer' if row['layer'] == -1 else 'layer ' + str(row['layer'])}"
    return " | ".join(filter(None, (arm, of, row["map"] if several else "", row["direction"])))


def _letters(name: str, data: list[dict[str, Any]], size: float, **place: Spec) -> tuple[list[Spec], Spec]:
    """Layers of symbols as text, those of a known class coloured, and their data sets."""
    tips = [encode("symbol", "N"), encode("class", "N"), encode("count", format=",d")]
    mark = {"type": "text", "fontSize": size, "fontWeight": 600}
    both = {**place, "text": encode("symbol", "N"), "tooltip": tips}
    color = encode("class", "N", scale={"domain": list(CLASSES)}, title=None)
    parts = {name: [d for d in data if d["class"] in CLASSES]}
    parts[f"{name}other"] = [d for d in data if d["class"] not in CLASSES]
    coloured, plain = layer(name, mark, **both, color=color), {**mark, "style": "ink-text"}
    found = [coloured] if parts[name] else []
    return [*found, layer(f"{name}other", plain, **both)], parts


def _map(name: str, row: Row, title: str) -> Spec:
    """Symbols as letters at their places."""
    reach = ROOM * max(max(abs(one["x"]), abs(one["y"])) for one in row["symbols"])
    axis = lambda which, words: encode(
        which,
        title=f"{words} component" + ("" if row[f"share_{which}"] is None else f" ({row[f'share_{which}']:.0%})"),
        scale={"domain": [-reach, reach], "nice": False},
        axis={"tickCount": 5},
    )  # fmt: skip
    layers, data = _letters(name, row["symbols"], 13, x=axis("x", "first"), y=axis("y", "second"))
    return {"title": title_lines(title), "height": 300, "layer": layers, "datasets": data}


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
    x |= {"axis": {"tickCount": 5, "grid": False}}
    leaves = [{**one, "at": one["leaf"], "h": -0.035 * top} for one in row["symbols"]]
    letters, data = _letters(name, leaves, 11, x=x, y=y)
    layers = [layer(f"{name}lines", rule, x=x, x2={"field": "h2"}, y=y, y2={"field": "at2"}), *letters]
    correlation = row["cophenetic"]
    told = title if correlation is None else f"{title} (correlation {number(correlation)})"
    return {
        "title": title_lines(told),
        "height": max(120, 13 * n),
        "layer": layers,
        "datasets": {f"{name}lines": lines, **data},
    }
