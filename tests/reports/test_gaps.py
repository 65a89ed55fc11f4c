"""The figures, tables and sentences of a gap, from a study with tables of windows on disk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.studies.test_windows import DIRECTIONS, losses, make

from lexarium.reports.figures import svg
from lexarium.reports.page import build_report, draw, results_of
from lexarium.reports.words import Words
from lexarium.studies.compare import Table, contrasts_of, report_of

GAP = {
    "metric": "window_loss.val",
    "axis": "direction",
    "from": "forward",
    "to": "backward",
    "as": "relative",
    "expect": "higher",
}
COMPARE = [GAP, {**GAP, "as": "symmetric", "unit": "block"}]


def drawn(table: Table, runs_dir: Path) -> dict[str, Any]:
    contrasts, report = contrasts_of(table), report_of(table)
    words = Words(report, table.axes)
    results = results_of(table, contrasts, report, words, runs_dir)
    return {f.name: f for f in draw(table, contrasts, report, words, results)}


def test_the_three_figures_are_valid_and_hold_the_numbers(tmp_path: Path) -> None:
    import altair as alt

    figures = drawn(make(tmp_path, seeds=3, compare=COMPARE), tmp_path)
    name = "window_loss.val-direction-forward-backward-relative"
    kinds = ("steps", "context", "positions")
    assert [f for f in figures if f.startswith("gap-")] == [f"gap-{kind}-{name}" for kind in kinds]
    for kind in kinds:
        figure = figures[f"gap-{kind}-{name}"]
        alt.ConcatChart.from_dict(figure.static())
        ElementTree.fromstring(svg(figure.static()))
    (panel,) = figures[f"gap-steps-{name}"].panels
    (noise,) = {(row["low"], row["high"]) for row in panel["datasets"]["gapsteps0noise"]}
    assert noise[1] == -noise[0] > 0, "the noise floor is a band to either side of zero"
    assert [row["step"] for row in panel["datasets"]["gapsteps0"]] == [50, 100]
    assert "noise floor" in figures[f"gap-steps-{name}"].caption
    (panel,) = figures[f"gap-positions-{name}"].panels
    assert {row["level"] for row in panel["datasets"]["positions0"]} == set(DIRECTIONS)


def test_one_seed_has_no_bands_and_says_nothing_of_them(tmp_path: Path) -> None:
    figures = drawn(make(tmp_path, seeds=1, compare=COMPARE[:1]), tmp_path)
    figure = figures["gap-steps-window_loss.val-direction-forward-backward-relative"]
    assert not figure.panels[0]["datasets"]["gapsteps0noise"] + figure.panels[0]["datasets"]["gapsteps0bands"]
    assert "band" not in figure.caption
    ElementTree.fromstring(svg(figure.static()))


def test_the_page_and_its_files(tmp_path: Path) -> None:
    table = make(tmp_path, seeds=3, compare=COMPARE)
    (tmp_path / "studies").mkdir(exist_ok=True)
    results = build_report(tmp_path, table.study)
    assert [r["verdict"] for r in results["contrasts"]] == ["supported", "supported"]
    folder = tmp_path / "studies" / table.study / "report"
    page = (folder / "index.html").read_text(encoding="utf-8")
    for text in (
        "How the difference develops",
        "40 windows",
        "20 stretches of text (2 windows each)",
        "noise 0.",
    ):
        assert text in page
    rows = list(csv.DictReader((folder / "tables" / "gaps.csv").open()))
    assert {row["curve"] for row in rows} == {"steps", "context", "positions"}
    a, b = (sum(losses(d, s).mean() for s in (1, 2, 3)) for d in DIRECTIONS)
    assert float(rows[0]["estimate"]) == pytest.approx(b / a - 1)
    contrasts = list(csv.DictReader((folder / "tables" / "contrasts.csv").open()))
    assert (
        contrasts[1]["windows"] == "40" and contrasts[1]["blocks"] == "20" and contrasts[0]["windows"] == ""
    )
    assert (
        contrasts[1]["blocks_of"] == "stretches of 2 windows" and float(contrasts[1]["seed_interval_low"]) > 0
    )
    assert float(contrasts[1]["noise_floor"]) > 0 and float(contrasts[1]["standard_error"]) > 0


def test_a_refused_comparison_is_on_the_page(tmp_path: Path) -> None:
    later = lambda d, s: 120 if d == "backward" else 100
    build_report(tmp_path, make(tmp_path, step=later, compare=COMPARE).study)
    page = (tmp_path / "studies" / "arrow" / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("Not comparable") >= 2
    assert "not compared. Two directions at different steps (from: 100; to: 120)." in page


def test_data_redrawn_for_every_seed_have_a_gap_over_training_too(tmp_path: Path) -> None:
    """Their corpora differ from seed to seed, as the study says: that is no reason to leave the figure out."""
    data = lambda direction, seed: {"corpus": {"type": "markov_chain", "seed": seed}}
    paired = {**GAP, "paired": True, "pairing": "a seed's sentences are the same", "redrawn": True}
    options: dict[str, Any] = {"seeds": 3, "compare": [paired], "config": data}
    name = "gap-steps-window_loss.val-direction-forward-backward-relative"
    (tmp_path / "other").mkdir()
    assert name in drawn(make(tmp_path, redraw=["corpus.seed"], **options), tmp_path)
    assert name not in drawn(make(tmp_path / "other", **options), tmp_path / "other")
