"""What a report shows of word segmentation: the numbers of the runs' files, of peaks and thresholds by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from lexarium.evaluations.segmentation.cues import CUES
from lexarium.reports.figures import svg
from lexarium.reports.page import build_report
from lexarium.reports.segmentation_charts import cue_words, segmentation_figures
from lexarium.reports.words import Words
from lexarium.studies import segmentation as module
from lexarium.studies.compare import ReportConfig
from lexarium.studies.results import collect
from lexarium.studies.segmentation import segmentation

SYMBOLS, GOLD = list("bigdog|acat|"), [1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0]
EVALUATIONS = [{"type": "segmentation", "name": "cuts"}, {"type": "segmentation_baselines"}]


def values(seed: int, cue: str) -> np.ndarray:
    return np.random.default_rng([seed, len(cue)]).random(len(SYMBOLS))


def study(root: Path, seeds: int = 3, items: bool = True) -> Path:
    entries = []
    for family in ("gpt", "gru"):
        for seed in range(1, seeds + 1):
            folder = root / f"{family}-{seed}"
            metrics: dict[int, dict[str, float]] = {0: {}, 40: {}}
            for step in metrics:
                for stream in ("val", "val.alone"):
                    for cue in ("boundary", "entropy", "vote_peak"):
                        for strategy in ("peak", "threshold"):
                            for i, measure in enumerate(module.MEASURES):
                                found = (seed + len(cue) + i + step) % 10 / 10
                                metrics[step][f"{stream}.{cue}.{strategy}.{measure}"] = found
                metrics[step] |= {
                    "val.entropy.threshold.theta_even": 0.4,
                    "val.entropy.threshold.theta_odd": 0.7,
                }
                one = {"evaluation": "cuts", "step": step, "metrics": metrics[step]}
                write(folder / f"evals/cuts/step-{step:08d}.json", one)
            base = {f"val.{b}.{m}": 0.5 for b in ("random_true", "ngram_2_boundary") for m in module.MEASURES}
            write(
                folder / "evals/segmentation_baselines/step-00000040.json",
                {"evaluation": "segmentation_baselines", "step": 40, "metrics": base},
            )
            if items:
                n = len(SYMBOLS)
                columns: dict[str, Any] = {
                    "stream": ["val"] * n + ["val.alone"] * n,
                    "utterance": ([0] * 7 + [1] * 5) * 2,
                    "symbol": SYMBOLS * 2,
                    "word_start": [bool(v) for v in GOLD] * 2,
                    **{cue: [*values(seed, cue), *[9.0] * n] for cue in CUES},
                }
                pq.write_table(pa.table(columns), folder / "evals/cuts/step-00000040.parquet")
            (folder / "metrics.jsonl").write_text(
                '{"step": 20, "tokens": 1000}\n{"step": 40, "tokens": 2000}\n'
            )
            write(folder / "status.json", {"state": "done", "step": 40, "max_steps": 40})
            write(folder / "config.yaml", {})
            config = {"evaluations": EVALUATIONS}
            entries.append(
                {
                    "name": folder.name,
                    "dir": folder.name,
                    "levels": {"family": family},
                    "seed": seed,
                    "config": config,
                }
            )
    index = {"study": "s", "axes": {"family": ["gpt", "gru"]}, "runs": entries, "compare": [], "report": {}}
    write(root / "studies/s/index.json", index)
    return root


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_scores_are_the_final_ones_with_their_interval_over_seeds(tmp_path: Path) -> None:
    found = segmentation(collect(study(tmp_path), "s"))
    assert found is not None and found["streams"] == ["val", "val.alone"]
    one = lambda **wanted: [r for r in found["scores"] if all(r[k] == v for k, v in wanted.items())]
    (row,) = one(levels={"family": "gpt"}, stream="val", cue="entropy", strategy="peak")
    i = module.MEASURES.index("boundary.f")
    points = [(seed + len("entropy") + i + 40) % 10 / 10 for seed in (1, 2, 3)]
    low, high = stats.t.interval(0.95, 2, np.mean(points), stats.sem(points))
    score = row["scores"]["boundary.f"]
    assert (score["mean"], score["n"]) == (pytest.approx(np.mean(points)), 3)
    assert (score["low"], score["high"]) == (pytest.approx(low), pytest.approx(high))
    (row,) = one(levels={"family": "gru"}, cue="random_true")
    assert (row["strategy"], row["stream"], row["scores"]["token.f"]["mean"]) == ("baseline", "val", 0.5)
    assert {(r["step"], r["tokens"]) for r in found["curves"]} == {(0, 0), (40, 2000)}


def test_symbols_that_no_model_can_know_are_told(tmp_path: Path) -> None:
    """The most of any run, at its last evaluation; nothing where there are none."""
    whole = study(tmp_path)
    plain = segmentation(collect(whole, "s"))
    assert plain is not None and plain["missing"] == {}
    for path in sorted(tmp_path.glob("g*/evals/cuts/step-00000040.json")):
        one = json.loads(path.read_text())
        seen = 4 - int(path.parents[2].name[-1])
        one["metrics"] |= {"val.unseen": seen, "val.unknown": 0, "val.alone.unknown": 0}
        path.write_text(json.dumps(one))
    found = segmentation(collect(whole, "s"))
    assert found is not None and found["missing"] == {"val": {"unknown": 0, "unseen": 3}}
    captions = [segmentation_figures(one, Words(ReportConfig(), {}))[0].caption for one in (plain, found)]
    told = "Symbols that no model can know: 0 outside the vocabulary, 3 that training never has."
    assert told not in captions[0] and captions[1].endswith(told)


def test_utterances_and_thresholds_are_of_the_first_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = segmentation(collect(study(tmp_path), "s"))
    assert found is not None
    one = found["utterances"][0]
    assert (one["seed"], one["stream"], one["levels"]) == (1, "val", {"family": "gpt"})
    (shown,) = one["utterances"]  # no utterance has three words: the first one is shown
    assert shown["symbols"] == SYMBOLS[:7] and [k for k, v in enumerate(shown["gold"]) if v] == [3]
    cue = values(1, "entropy")
    peaks = [0 < k < 6 and cue[k - 1] < cue[k] > cue[k + 1] for k in range(7)]
    assert shown["cuts"]["entropy"] == peaks and shown["cues"]["entropy"] == pytest.approx(cue[:7])
    assert shown["thetas"] == {"boundary": None, "entropy": 0.4, "loss": None, "rank": None}
    panel = segmentation_figures(found, Words(ReportConfig(), {"family": ["gpt"]}))[4].panels[0]
    (drawn,) = [rows for name, rows in panel["datasets"].items() if name.endswith("thetas")]
    assert [(d["cue"], d["at"]) for d in drawn] == [("entropy", pytest.approx(-1.45 + 0.4 / max(cue[:7])))]
    rows = [r for r in found["thresholds"][0]["rows"] if r["cue"] == "entropy"]
    inside = np.array([1, 2, 3, 4, 5, 8, 9, 10])
    gold = np.array(GOLD, dtype=bool)[inside]
    for row in rows[:: len(rows) // 7]:
        cut = cue[inside] > row["theta"]
        hits = (cut & gold).sum()
        assert row["recall"] == hits / gold.sum()
        assert row["precision"] == (hits / cut.sum() if cut.any() else None)
        assert row["f"] == 2 * hits / (cut.sum() + gold.sum())
    assert rows[0]["share"] == 0 and rows[-1]["recall"] == 0


def test_every_figure_is_drawn_and_the_page_holds_the_tables(tmp_path: Path) -> None:
    import altair as alt

    table = collect(study(tmp_path), "s")
    figures = segmentation_figures(segmentation(table), Words(ReportConfig(), table.axes))
    names = ["scores", "precision-recall", "map", "tokens", "utterances-gpt", "utterances-gru", "thresholds"]
    assert [f.name for f in figures] == [f"segmentation-{name}" for name in names]
    for figure in figures:
        alt.ConcatChart.from_dict(figure.static())
        ElementTree.fromstring(svg(figure.static()))
    build_report(tmp_path, "s")
    folder = tmp_path / "studies/s/report"
    page = (folder / "index.html").read_text(encoding="utf-8")
    for text in ("Word boundaries", "counter after 2 symbols", "random, the true rate", "gru, val.alone"):
        assert text in page
    rows = list(csv.DictReader((folder / "tables/segmentation.csv").open()))
    assert {r["cue"] for r in rows} == {"boundary", "entropy", "vote_peak", "random_true", "ngram_2_boundary"}


def test_without_tables_of_positions_the_rest_is_shown(tmp_path: Path) -> None:
    table = collect(study(tmp_path, seeds=1, items=False), "s")
    figures = segmentation_figures(segmentation(table), Words(ReportConfig(), table.axes))
    names = ["scores", "precision-recall", "map", "tokens"]
    assert [f.name for f in figures] == [f"segmentation-{name}" for name in names]
    for figure in figures:
        ElementTree.fromstring(svg(figure.static()))


def test_every_cue_and_baseline_has_words() -> None:
    from lexarium.evaluations.baselines import BASELINES

    named = [cue_words(name) for name in (*module.CUES, *BASELINES)]
    assert len(set(named)) == len(named) and not [name for name in named if "_" in name]


def test_evaluations_and_splits_are_not_mixed_up(tmp_path: Path) -> None:
    """Two evaluations of one split, one with thresholds chosen on what it scores; baselines of another split, too."""
    root = study(tmp_path, seeds=2, items=False)
    index = json.loads((root / "studies/s/index.json").read_text())
    for entry in index["runs"]:
        entry["config"]["evaluations"] = [
            *EVALUATIONS,
            {"type": "segmentation", "name": "published", "tune": "oracle"},
        ]
        folder = root / entry["dir"] / "evals"
        metrics = {"val.boundary.threshold.boundary.f": 0.99}
        write(
            folder / "published/step-00000040.json",
            {"evaluation": "published", "step": 40, "metrics": metrics},
        )
        path = folder / "segmentation_baselines/step-00000040.json"
        record = json.loads(path.read_text())
        record["metrics"] |= {f"train.random_true.{m}": 0.9 for m in module.MEASURES}
        write(path, record)
    write(root / "studies/s/index.json", index)
    table = collect(root, "s")
    found = segmentation(table)
    assert found is not None
    assert set(found["streams"]) == {"val (cuts)", "val.alone (cuts)", "val (published)"}
    rows = [r for r in found["scores"] if r["cue"] == "boundary" and r["strategy"] == "threshold"]
    means = {r["stream"]: r["scores"]["boundary.f"]["mean"] for r in rows}
    assert means["val (published)"] == pytest.approx(0.99) and means["val (cuts)"] != means["val (published)"]
    assert found["tune"]["val (published)"] == "oracle" and found["tune"]["val (cuts)"] == "crossed"
    figures = {f.name: f for f in segmentation_figures(found, Words(ReportConfig(), table.axes))}
    assert "(val (cuts))" in figures["segmentation-map"].title
    assert "on the other half" in figures["segmentation-map"].caption
    assert "no fair score" not in figures["segmentation-map"].caption
    (bars,) = figures["segmentation-scores"].panels[0]["datasets"].values()
    assert [d["mean"] for d in bars if d["row"] == "random, the true rate"] == [0.5], "that of val"


def change(root: Path, evaluation: str, edit: Any) -> None:
    """Edit the metrics of every run's last evaluation."""
    for path in sorted(root.glob(f"g*/evals/{evaluation}/step-00000040.json")):
        one = json.loads(path.read_text())
        edit(one["metrics"], path.parents[2].name)
        path.write_text(json.dumps(one))


def fields(panel: dict[str, Any], mark: str) -> dict[str, str]:
    """Channel -> the field it shows, of the first layer with a mark."""
    of = lambda one: one["mark"] if isinstance(one["mark"], str) else one["mark"]["type"]
    found = next(one["encoding"] for one in panel["layer"] if of(one) == mark)
    return {
        name: value["field"] for name, value in found.items() if isinstance(value, dict) and "field" in value
    }


def test_marks_stand_at_their_boundaries_and_say_what_they_are(tmp_path: Path) -> None:
    """Between the symbol before and the one a word begins with: found, missed, or none there."""
    found = segmentation(collect(study(tmp_path), "s"))
    assert found is not None
    panel = segmentation_figures(found, Words(ReportConfig(), {}))[4].panels[0]
    (marks,) = [rows for name, rows in panel["datasets"].items() if name.endswith("marks")]
    (shown,) = found["utterances"][0]["utterances"]
    wanted = set()
    for row, cue in enumerate(("boundary", "entropy", "loss", "rank")):
        for k, (gold, cut) in enumerate(zip(shown["gold"], shown["cuts"][cue], strict=True)):
            if gold or cut:
                kind = "right" if gold and cut else "missed" if gold else "wrong"
                wanted.add((k - 0.5, -1.45 * row + 1.1, kind))
    assert {(m["edge"], m["at"], m["kind"]) for m in marks} == wanted
    assert {kind for *_, kind in wanted} == {"missed", "wrong"}
    shown["cuts"]["rank"][3] = True
    panel = segmentation_figures(found, Words(ReportConfig(), {}))[4].panels[0]
    (marks,) = [rows for name, rows in panel["datasets"].items() if name.endswith("marks")]
    assert [m["kind"] for m in marks if m["edge"] == 2.5 and m["at"] == -1.45 * 3 + 1.1] == ["right"]
    (golds,) = [rows for name, rows in panel["datasets"].items() if name.endswith("gold")]
    assert [g["edge"] for g in golds] == [2.5]


def test_what_the_axes_show(tmp_path: Path) -> None:
    found = segmentation(collect(study(tmp_path), "s"))
    figures = {
        f.name.removeprefix("segmentation-"): f
        for f in segmentation_figures(found, Words(ReportConfig(), {}))
    }
    assert fields(figures["precision-recall"].panels[0], "point")["x"] == "recall"
    assert fields(figures["precision-recall"].panels[0], "point")["y"] == "precision"
    bars = figures["scores"].panels[0]
    assert fields(bars, "circle") | {"tooltip": ""} == {
        "x": "mean",
        "y": "row",
        "color": "kind",
        "tooltip": "",
    }
    (rows,) = bars["datasets"].values()
    means = [row["mean"] for row in rows]
    assert means == sorted(means, reverse=True), "the best one first"
    assert fields(figures["tokens"].panels[0], "line")["x"] == "tokens"
    assert "The first point is the untrained model." in figures["tokens"].caption


def test_arms_whose_names_no_file_can_have_keep_their_own_figures(tmp_path: Path) -> None:
    root = study(tmp_path, seeds=1)
    path = root / "studies/s/index.json"
    index = json.loads(path.read_text())
    names = {"gpt": "日本語", "gru": "中文"}
    index["axes"] = {"language": list(names.values())}
    for run in index["runs"]:
        run["levels"] = {"language": names[run["levels"]["family"]]}
    path.write_text(json.dumps(index))
    results = build_report(tmp_path, "s")
    shown = [f for f in results["figures"] if "utterances" in f["name"]]
    assert len({f["file"].lower() for f in shown}) == 2 and all(
        (root / "studies/s/report" / f["file"]).is_file() for f in shown
    )
    assert [f["title"].rpartition(": ")[2] for f in shown] == list(names.values())


def test_thresholds_are_drawn_where_nothing_is_cut_at_peaks(tmp_path: Path) -> None:
    root = study(tmp_path, items=False)
    for path in root.glob("g*/evals/cuts/*.json"):
        one = json.loads(path.read_text())
        one["metrics"] = {k: v for k, v in one["metrics"].items() if ".peak." not in k}
        path.write_text(json.dumps(one))
    figure = segmentation_figures(segmentation(collect(root, "s")), Words(ReportConfig(), {}))[0]
    (rows,) = figure.panels[0]["datasets"].values()
    assert {"entropy", "boundary probability", "random, the true rate"} <= {row["row"] for row in rows}
    assert "Cues of models are cut above tuned thresholds" in figure.caption
    ElementTree.fromstring(svg(figure.static()))


def test_a_cue_without_a_number_has_no_thresholds(tmp_path: Path) -> None:
    """A run that diverged and went on must not take the page away from the others."""
    root = study(tmp_path, seeds=1)
    path = root / "gpt-1/evals/cuts/step-00000040.parquet"
    found = pq.read_table(path)
    for cue in CUES:
        place = found.column_names.index(cue)
        found = found.set_column(place, cue, pa.array([float("nan")] * len(found)))
    pq.write_table(found, path)
    change(
        root,
        "cuts",
        lambda metrics, run: metrics.update(dict.fromkeys(metrics, "nan") if run == "gpt-1" else {}),
    )
    results = build_report(tmp_path, "s")
    assert {row["cue"] for one in results["segmentation"]["thresholds"] for row in one["rows"]} == {
        "boundary", "entropy", "loss", "rank",
    }  # fmt: skip
    assert [one["levels"] for one in results["segmentation"]["thresholds"]] == [{"family": "gru"}]
    assert results["segmentation"]["left_out"] == [{"family": "gpt"}]
    (caption,) = [f["caption"] for f in results["figures"] if f["name"] == "segmentation-scores"]
    assert caption.endswith("Left out, for their predictions are no numbers: family: gpt.")


def test_a_threshold_of_another_step_is_not_drawn(tmp_path: Path) -> None:
    """Where everything or nothing is cut there is none: that of an earlier evaluation would be wrong."""
    root = study(tmp_path)
    change(root, "cuts", lambda metrics, run: metrics.pop("val.entropy.threshold.theta_even"))
    for path in root.glob("g*/evals/cuts/step-00000000.json"):
        one = json.loads(path.read_text())
        one["metrics"]["val.entropy.threshold.theta_even"] = 0.9
        path.write_text(json.dumps(one))
    found = segmentation(collect(root, "s"))
    assert found is not None and found["utterances"][0]["utterances"][0]["thetas"]["entropy"] is None


def test_long_utterances_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = study(tmp_path, seeds=1)
    for path in root.glob("g*/evals/cuts/*.parquet"):
        n = 45
        rows: dict[str, Any] = {"stream": ["val"] * n, "utterance": [0] * 36 + [1] * 9, "symbol": ["a"] * n}
        rows["word_start"] = [k in (0, 5, 9, 36, 38, 41) for k in range(n)]
        pq.write_table(pa.table({**rows, **{cue: [0.5] * n for cue in CUES}}), path)
    found = segmentation(collect(root, "s"))
    assert found is not None
    assert [len(u["symbols"]) for u in found["utterances"][0]["utterances"]] == [9]


def test_baselines_of_two_evaluations_are_not_mixed_up(tmp_path: Path) -> None:
    """The first one's stand beside the models; the other's keep their name, whichever comes first in the alphabet."""
    for name in ("zz", "little"):
        root = study(tmp_path / name, items=False)
        index = json.loads((root / "studies/s/index.json").read_text())
        for entry in index["runs"]:
            entry["config"]["evaluations"] = [*EVALUATIONS, {"type": "segmentation_baselines", "name": name}]
            other = {f"val.random_true.{m}": 0.9 for m in module.MEASURES}
            write(
                root / entry["dir"] / f"evals/{name}/step-00000040.json",
                {"evaluation": name, "step": 40, "metrics": other},
            )
        write(root / "studies/s/index.json", index)
        found = segmentation(collect(root, "s"))
        assert found is not None
        rows = {
            r["stream"]: r["scores"]["boundary.f"]["mean"]
            for r in found["scores"]
            if r["cue"] == "random_true"
        }
        assert rows == {"val": 0.5, f"val ({name})": 0.9}
        (bars,) = segmentation_figures(found, Words(ReportConfig(), {}))[0].panels[0]["datasets"].values()
        assert [row["mean"] for row in bars if row["row"] == "random, the true rate"] == [0.5]


def test_streams_come_in_the_order_of_evaluations(tmp_path: Path) -> None:
    """The figures draw the first evaluation, not the one with the shortest name."""
    root = study(tmp_path, items=False)
    index = json.loads((root / "studies/s/index.json").read_text())
    for entry in index["runs"]:
        entry["config"]["evaluations"] = [
            *EVALUATIONS,
            {"type": "segmentation", "name": "o", "tune": "oracle"},
        ]
        metrics = {"val.boundary.threshold.boundary.f": 0.99}
        write(
            root / entry["dir"] / "evals/o/step-00000040.json",
            {"evaluation": "o", "step": 40, "metrics": metrics},
        )
    write(root / "studies/s/index.json", index)
    found = segmentation(collect(root, "s"))
    assert found is not None and found["streams"] == ["val (cuts)", "val.alone (cuts)", "val (o)"]
    assert segmentation_figures(found, Words(ReportConfig(), {}))[0].title.endswith(
        "cues of models beside baselines"
    )
    assert "(val (cuts))" in segmentation_figures(found, Words(ReportConfig(), {}))[0].title


def test_a_model_of_both_directions_is_drawn_in_each(tmp_path: Path) -> None:
    """Beside one of a single direction: the same stream, and baselines beside every panel."""
    root = study(tmp_path)
    for path in root.glob("gru-*/evals/cuts/*.json"):
        one = json.loads(path.read_text())
        one["metrics"] = {
            f"val.{view}{k[3:]}": v for k, v in one["metrics"].items() for view in ("forward", "backward")
        }
        path.write_text(json.dumps(one))
    for path in root.glob("gru-*/evals/cuts/*.parquet"):
        table = pq.read_table(path)
        named = lambda view, t=table: pa.array(
            [s.replace("val", f"val.{view}") for s in t.column("stream").to_pylist()]
        )
        pq.write_table(
            pa.concat_tables(
                [table.set_column(0, "stream", named(view)) for view in ("forward", "backward")]
            ),
            path,
        )
    table = collect(root, "s")
    found = segmentation(table)
    figures = {
        f.name.removeprefix("segmentation-"): f
        for f in segmentation_figures(found, Words(ReportConfig(), {}))
    }
    arms = ["gpt", "gru, forward", "gru, backward"]
    for name in ("scores", "precision-recall", "tokens"):
        assert [panel["title"][0] for panel in figures[name].panels] == arms, name
    assert {row["arm"] for row in next(iter(figures["map"].panels[0]["datasets"].values()))} == set(arms)
    for panel in figures["scores"].panels:
        (rows,) = panel["datasets"].values()
        assert {row["kind"] for row in rows} == {"cue of the model", "baseline"}
    assert [f.title.rpartition(": ")[2] for n, f in figures.items() if n.startswith("utterances")] == arms
    assert figures["utterances-gru-backward"].caption.endswith("val.backward, seed 1.")
    build_report(tmp_path, "s")
