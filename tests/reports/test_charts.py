"""Charts: valid Vega-Lite by the schema altair ships, every point in them, files that parse."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.reports.synthetic import LOSS, OOD, contrast, make_study

from lexarium.reports.charts import Drawing
from lexarium.reports.figures import MAX_POINTS, cut_off, slug, svg, thin, value_scale
from lexarium.reports.page import draw, results_of
from lexarium.reports.words import Words
from lexarium.studies.compare import arms, collect, contrasts_of, report_of

AXES = {"data": ["questions_only", "subject_rc"], "family": ["gpt", "gru"]}
SETTINGS = {
    "curves": [OOD, LOSS],
    "stability": OOD,
    "distribution": [OOD],
    "reference": [{"metric": OOD, "value": 0.5, "label": "chance"}],
}


def figures(runs_dir: Path, **options):
    study = make_study(runs_dir, report=SETTINGS, **options)
    table = collect(runs_dir, study)
    contrasts, report = contrasts_of(table), report_of(table)
    words = Words(report, table.axes)
    results = results_of(table, contrasts, report, words, runs_dir)
    return draw(table, contrasts, report, words, results)


def test_every_kind_of_figure_is_valid_vega_lite(tmp_path: Path) -> None:
    import altair as alt

    paired = contrast(paired=True, pairing="equal seeds share initial weights and order")
    found = figures(tmp_path, seeds=6, points=11, axes=AXES, compare=[paired])
    kinds = {figure.name.partition("-")[0] for figure in found}
    assert kinds == {"points", "contrasts", "curves", "distribution", "stability"}
    for figure in found:
        alt.ConcatChart.from_dict(figure.static())
        for panel in figure.panels:
            chart = alt.LayerChart if "layer" in panel else alt.Chart
            chart.from_dict({**panel, "width": "container"})


def test_files_are_xml_with_their_labels_and_one_mark_per_seed(tmp_path: Path) -> None:
    points = next(f for f in figures(tmp_path, seeds=5) if f.name == f"points-{OOD}")
    tree = ElementTree.fromstring(svg(points.static()))
    words = [element.text for element in tree.iter() if element.text]
    assert {"questions_only", "subject_rc", "chance"} <= set(words)
    circles = [e for e in tree.iter() if e.get("aria-roledescription") == "circle"]
    assert len(circles) == 10


def test_curves_hold_every_run_and_the_mean_of_finished_ones(tmp_path: Path) -> None:
    states = {"data=subject_rc/seed=2": "running"}
    curves = next(f for f in figures(tmp_path, seeds=3, states=states) if f.name == f"curves-{OOD}")
    (panel,) = curves.panels
    lines = panel["datasets"]["curves0"]
    assert len({row["run"] for row in lines}) == 6
    assert {row["run"] for row in lines if row["state"] == "unfinished"} == set(states)
    last = {row["run"]: row["value"] for row in lines if row["step"] == 2000}
    finished = [v for run, v in last.items() if run.startswith("data=subject_rc")]
    mean = next(
        r for r in panel["datasets"]["curves0means"] if r["level"] == "subject_rc" and r["step"] == 2000
    )
    assert (mean["runs"], mean["value"]) == (2, pytest.approx(np.mean(finished)))
    assert "Dotted: runs that have not finished." in curves.caption


def test_histograms_share_bins_and_count_every_seed(tmp_path: Path) -> None:
    found = next(f for f in figures(tmp_path, seeds=7) if f.name == f"distribution-{OOD}")
    assert len(found.panels) == 2
    for panel in found.panels:
        (rows,) = panel["datasets"].values()
        assert sum(row["seeds"] for row in rows) == 7
    assert not [f for f in figures(tmp_path, seeds=5) if f.name.startswith("distribution")]


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    curve = [(i, i / 10) for i in range(5001)]
    kept = thin(curve)
    assert len(kept) <= MAX_POINTS + 1
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert thin(curve[:MAX_POINTS]) == curve[:MAX_POINTS]
    assert thin([]) == []


def test_shares_are_drawn_on_the_whole_scale_and_losses_on_their_own(tmp_path: Path) -> None:
    found = {f.name: f for f in figures(tmp_path, seeds=3)}
    scale = lambda name: found[name].panels[0]["layer"][0]["encoding"]["y"]["scale"]
    assert scale(f"curves-{OOD}")["domain"] == [0.0, 1.0]
    assert scale(f"curves-{LOSS}")["zero"] is False


def test_a_study_without_axes_is_drawn_as_one_row(tmp_path: Path) -> None:
    table = collect(tmp_path, make_study(tmp_path, seeds=3, axes={}, compare=[]))
    drawing = Drawing(table, report_of(table), Words(report_of(table), table.axes), None)
    figure = drawing.points(arms(table, OOD))
    assert figure is not None and len(figure.panels) == 1
    assert {row["row"] for row in figure.panels[0]["datasets"]["points0"]} == {"all runs"}
    assert drawing.legend() == []


def test_file_names_are_plain() -> None:
    assert slug("loss.val/../x y<>") == "loss.val-..-x-y"
    assert slug("§") == "metric"


@pytest.mark.parametrize("value", [0.0, 0.576, 1.0, -3.0, 12_000.0])
def test_an_axis_of_one_value_has_a_width_around_it(value: float) -> None:
    """A domain without width is labelled 0 and 1, whatever the value."""
    low, high = value_scale([value, value], [])["domain"]
    assert low < value < high and (value - low) == pytest.approx(high - value)
    assert "domain" not in value_scale([value, value], [value, value + 1])


def test_bars_beyond_the_plot_are_told() -> None:
    assert not cut_off([0.1, 0.9], [0.1, 0.9, -0.2, 1.2]) and not cut_off([5.0, 9.0], [5.0, 9.0, -40.0])
    assert "goes on" in cut_off([0.1, 0.9], [0.1, 0.9, -0.3, 1.0])
