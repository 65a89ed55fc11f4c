"""Figures of symbols: maps of the symbols a model reads, and the trees that join them.

One panel per arm, direction and map, of the first finished seed (see `studies/symbol_maps.py`). Both axes of a map have
one scale, so that distances can be compared; a sign, and how a map is turned, mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lexarium.reports.figures import Figure, Spec, encode, layer, title_lines
from lexarium.reports.words import Words, number

Row = Mapping[str, Any]
CLASSES = ("vowel", "consonant")
"""Classes with a colour of their own; other symbols have that of the text."""
ROOM = 1.12
"""Share of the farthest symbol's distance that a map reaches to."""
LETTER, STEP, ROUNDS = (0.033, 0.042), 0.03, 500
"""Half the width and the height of a letter on a map from -1 to 1; moved farther than a step, it gets a line to its
place; rounds of moving."""


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
        " each axis: what is left of it is not on the map. Which way a map is turned means nothing. Letters that would"
        " cover each other are moved apart; a line leads to the place of each."
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
    x, y, symbols = axis("x", "first"), axis("y", "second"), row["symbols"]
    places = apart(
        [(one["x"] / reach, one["y"] / reach) for one in symbols], [one["symbol"] for one in symbols]
    )
    moved = [
        {**one, "at_x": reach * a, "at_y": reach * b} for one, (a, b) in zip(symbols, places, strict=True)
    ]
    far = [
        one for one in moved if max(abs(one["at_x"] - one["x"]), abs(one["at_y"] - one["y"])) > STEP * reach
    ]
    at = {"x": {**x, "field": "at_x"}, "y": {**y, "field": "at_y"}}
    letters, data = _letters(name, moved, 13, **at)
    line = {"type": "rule", "strokeWidth": 1, "style": "reference"}
    dot = {"type": "circle", "size": 9, "opacity": 1, "style": "reference"}
    true = [
        layer(f"{name}moved", line, x=x, y=y, x2={"field": "at_x"}, y2={"field": "at_y"}),
        layer(f"{name}moved", dot, x=x, y=y),
    ]
    layers = [*(true if far else []), *letters]
    return {
        "title": title_lines(title),
        "height": 300,
        "layer": layers,
        "datasets": data | ({f"{name}moved": far} if far else {}),
    }


def apart(places: Sequence[tuple[float, float]], texts: Sequence[str]) -> list[tuple[float, float]]:
    """Places of letters that cover each other as little as may be, each near its own; of a map from -1 to 1.

    Letters, as ellipses, push each other away as far as they overlap, until none do or the rounds are over. Nothing is
    random: two at one place part in a direction that follows from their numbers.
    """
    at = np.array(places, dtype=np.float64)
    widths = LETTER[0] * np.array([max(1, len(text)) for text in texts])
    size = np.stack([widths[:, None] + widths, np.full((len(at), len(at)), 2 * LETTER[1])], axis=-1)
    numbers = np.arange(len(at))
    angle = 2.4 * np.minimum(numbers[:, None], numbers) + np.pi * (numbers[:, None] > numbers)
    chance = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for _ in range(ROUNDS):
        gap = (at[:, None] - at) / size
        distance = np.hypot(gap[..., 0], gap[..., 1])
        np.fill_diagonal(distance, 1.0)
        if (distance >= 1 - 1e-3).all():
            break
        away = np.where(distance[..., None] > 1e-9, gap / np.maximum(distance, 1e-9)[..., None], chance)
        at = at + 0.4 * (away * np.maximum(0.0, 1 - distance)[..., None] * size).sum(axis=1)
        at = at.clip(-1, 1)
    return [(float(a), float(b)) for a, b in at]


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
