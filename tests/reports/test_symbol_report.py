"""What a report shows of maps of symbols: the rows of the runs' files, trees against scipy's, classes of letters."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import ward

from lexarium.evaluations.symbol_map import tree
from lexarium.reports.figures import svg
from lexarium.reports.page import build_report
from lexarium.reports.symbol_charts import LETTER, apart, symbol_figures
from lexarium.reports.words import Words
from lexarium.studies.compare import ReportConfig
from lexarium.studies.results import collect
from lexarium.studies.symbol_maps import classes, joins, symbol_maps

EVALUATIONS = [{"type": "symbol_map"}, {"type": "symbol_map", "name": "deep", "of": "states", "layer": 2}]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def study(root: Path) -> Path:
    """Two arms, two seeds, of which the first of `gru` is not finished; map `deep` has two directions."""
    entries = []
    for family in ("gpt", "gru"):
        for seed in (1, 2):
            folder = root / f"{family}-{seed}"
            for step in (0, 40):
                for name, views in (("symbol_map", ("",)), ("deep", ("forward", "backward"))):
                    metrics = {
                        f"{v}.{m}".lstrip("."): step / 100 for v in views for m in ("share_x", "share_y")
                    }
                    write(
                        folder / f"evals/{name}/step-{step:08d}.json",
                        {"evaluation": name, "step": step, "metrics": metrics},
                    )
                    n = len(views)
                    columns: dict[str, Any] = {
                        "symbol": [*"abt"] * n, "count": [5, 4, 3] * n, "x": [1.0 * seed, 0.0, -1.0] * n,
                        "y": [0.0, 0.5, -0.5] * n, "leaf": [2, 0, 1] * n, "height": [2.0, 0.0, 1.0] * n,
                    }  # fmt: skip
                    if n > 1:
                        columns["direction"] = [v for v in views for _ in range(3)]
                    pq.write_table(pa.table(columns), folder / f"evals/{name}/step-{step:08d}.parquet")
            state = "done" if (family, seed) != ("gru", 1) else "training"
            write(folder / "status.json", {"state": state, "step": 40, "max_steps": 40})
            write(folder / "config.yaml", {})
            entries.append({"name": folder.name, "dir": folder.name, "levels": {"family": family}, "seed": seed,
                            "config": {"evaluations": EVALUATIONS}})  # fmt: skip
    index = {"study": "s", "axes": {"family": ["gpt", "gru"]}, "runs": entries, "compare": [], "report": {}}
    write(root / "studies/s/index.json", index)
    return root


def test_every_arm_shows_its_first_finished_seed(tmp_path: Path) -> None:
    found = symbol_maps(collect(study(tmp_path), "s"))
    assert [(r["levels"]["family"], r["seed"], r["map"], r["direction"]) for r in found] == [
        (family, seed, *which)
        for family, seed in (("gpt", 1), ("gru", 2))
        for which in (("symbol_map", ""), ("deep", "forward"), ("deep", "backward"))
    ]
    one = found[3]
    assert (one["share_x"], one["cophenetic"], one["of"], found[4]["layer"]) == (0.4, None, "embedding", 2)
    assert [s["symbol"] for s in one["symbols"]] == ["b", "t", "a"] and one["symbols"][2]["x"] == 2.0
    assert [s["class"] for s in one["symbols"]] == ["consonant", "consonant", "vowel"]
    assert one["joins"] == [
        {"low": 0.0, "high": 1.0, "left": 0.0, "right": 0.0, "height": 1.0},
        {"low": 0.5, "high": 2.0, "left": 1.0, "right": 0.0, "height": 2.0},
    ]


@given(st.integers(0, 2**32 - 1), st.integers(3, 14))
def test_joins_are_those_of_scipy(seed: int, n: int) -> None:
    """The heights that meet at every join, against Ward's tree itself."""
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    leaf, height, _ = tree(vectors)
    found = joins(height[np.argsort(leaf)].tolist())
    z = ward(vectors)
    below = lambda i: 0.0 if i < n else z[int(i) - n, 2]
    wanted = [sorted((below(a), below(b))) + [h] for a, b, h, _ in z]
    assert len(found) == n - 1
    for one, want in zip(found, wanted, strict=True):
        assert [*sorted((one["left"], one["right"])), one["height"]] == pytest.approx(want)
        assert one["low"] < one["high"]


def test_classes_of_letters() -> None:
    assert classes(["a", "y", "k", "A", "6", "ž", "é", "ing", "#"]) == {
        "a": "vowel", "y": "other", "k": "consonant", "A": "other", "6": "other", "ž": "consonant", "é": "vowel",
        "ing": "other", "#": "other",
    }  # fmt: skip
    assert classes(["ə", "y", "t̠ʃ", "iː", "ŋ", "œ̃", "ç", "5"]) == {
        "ə": "vowel", "y": "vowel", "t̠ʃ": "consonant", "iː": "vowel", "ŋ": "consonant", "œ̃": "vowel",
        "ç": "consonant", "5": "other",
    }  # fmt: skip


SPOTS = st.tuples(st.sampled_from([-0.8, -0.5, 0.0, 0.01, 0.5]), st.sampled_from([-0.8, 0.0, 0.02, 0.6]))


@given(places=st.lists(SPOTS, min_size=1, max_size=25), wide=st.booleans())
def test_letters_do_not_cover_each_other(places: list[tuple[float, float]], wide: bool) -> None:
    """Ellipses of the letters' size, pair by pair; what is free already stays where it is."""
    texts = ["tʃ" if wide and i % 3 == 0 else "a" for i in range(len(places))]
    found = apart(places, texts)
    half = [LETTER[0] * len(text) for text in texts]
    near = lambda one, other, i, j: math.hypot(
        (one[0] - other[0]) / (half[i] + half[j]), (one[1] - other[1]) / (2 * LETTER[1])
    )
    pairs = [(i, j) for i in range(len(found)) for j in range(i)]
    assert all(near(found[i], found[j], i, j) > 0.97 for i, j in pairs)
    assert all(math.dist(a, b) < 0.6 for a, b in zip(places, found, strict=True))
    if all(near(places[i], places[j], i, j) >= 1 for i, j in pairs):
        assert found == places


def test_moved_letters_lead_to_their_places() -> None:
    row = {"levels": {}, "seed": 1, "direction": "", "map": "symbol_map", "of": "embedding", "layer": -1,
           "share_x": 0.5, "share_y": 0.2, "cophenetic": 0.9, "joins": joins([0.0, 1.0, 2.0]),
           "symbols": [{"symbol": s, "count": 5, "x": x, "y": 0.1, "leaf": i, "class": "vowel"}
                       for i, (s, x) in enumerate([("a", 0.3), ("e", 0.3), ("o", -1.0)])]}  # fmt: skip
    panel = symbol_figures([row], Words(ReportConfig(), {}))[0].panels[0]
    (name,) = [n for n in panel["datasets"] if n.endswith("moved")]
    assert [one["symbol"] for one in panel["datasets"][name]] == ["a", "e"]
    assert svg(symbol_figures([row], Words(ReportConfig(), {}))[0].static()).count(">a<") >= 1
    for one in row["symbols"]:
        one["x"] = {"a": 0.3, "e": 0.9, "o": -1.0}[one["symbol"]]
    panel = symbol_figures([row], Words(ReportConfig(), {}))[0].panels[0]
    assert not [n for n in panel["datasets"] if n.endswith("moved")]


def test_maps_and_trees_are_drawn_and_in_the_tables(tmp_path: Path) -> None:
    import altair as alt

    table = collect(study(tmp_path), "s")
    figures = symbol_figures(symbol_maps(table), Words(ReportConfig(), table.axes))
    assert [(f.name, len(f.panels), f.legend) for f in figures] == [
        (f"symbols-{what}", 6, [("vowel", 0), ("consonant", 1)]) for what in ("map", "tree")
    ]
    assert figures[0].panels[1]["title"] == ["gpt | mean states, layer 2 | forward"]
    for figure in figures:
        alt.ConcatChart.from_dict(figure.static())
        texts = [t.text for t in ElementTree.fromstring(svg(figure.static())).iter() if t.text]
        assert sum(t in ("a", "b", "t") for t in texts) == 18
    results = build_report(tmp_path, "s")
    folder = tmp_path / "studies/s/report"
    assert "<h2>Symbols</h2>" in (folder / "index.html").read_text(encoding="utf-8")
    rows = list(csv.DictReader((folder / "tables/symbols.csv").open(encoding="utf-8")))
    assert len(rows) == 18 and {"figures/symbols-map.svg", "figures/symbols-tree.svg"} <= {
        f["file"] for f in results["figures"]
    }


def test_a_study_without_maps_shows_none(tmp_path: Path) -> None:
    assert symbol_figures([], Words(ReportConfig(), {})) == []


def test_stress_and_superscripts_have_no_class_of_their_own() -> None:
    found = classes(["ˈaɪ", "ˌə", "ⁿd", "aɪ", "t̠ʃʰ", "ˈ"])
    assert list(found.values()) == ["vowel", "vowel", "consonant", "vowel", "consonant", "other"]


def test_what_the_axes_of_a_map_show() -> None:
    row = {"levels": {}, "seed": 1, "direction": "", "map": "symbol_map", "of": "embedding", "layer": -1,
           "share_x": 0.5, "share_y": 0.2, "cophenetic": 0.9, "joins": joins([0.0, 1.0, 2.0]),
           "symbols": [{"symbol": s, "count": 5, "x": x, "y": y, "leaf": i, "class": "vowel"}
                       for i, (s, x, y) in enumerate([("a", 0.9, 0.1), ("e", 0.3, -0.4), ("o", -1.0, 0.3)])]}  # fmt: skip
    panel = symbol_figures([row], Words(ReportConfig(), {}))[0].panels[0]
    shown = next(one for one in panel["layer"] if one["encoding"].get("text"))["encoding"]
    assert (shown["x"]["field"], shown["y"]["field"]) == ("at_x", "at_y")
    assert (shown["x"]["title"], shown["y"]["title"]) == ("first component (50%)", "second component (20%)")
    placed = {d["symbol"]: (d["at_x"], d["at_y"]) for rows in panel["datasets"].values() for d in rows}
    assert placed == {s["symbol"]: (pytest.approx(s["x"]), pytest.approx(s["y"])) for s in row["symbols"]}
