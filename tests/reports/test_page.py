"""The report of a study, end to end on studies made up on disk."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.reports.synthetic import LOSS, OOD, contrast, finite, make_study

from lexarium.foundation.types import UserError
from lexarium.reports.page import build_report, script_json, vega_bundle

RESULT_KEYS = {
    "metric", "axis", "from", "to", "as", "where", "at", "n", "estimate", "interval", "interval_method", "p",
    "p_method", "p_adjusted", "correction", "effect_size", "arms", "points", "notes", "missing", "verdict", "sentence",
}  # fmt: skip
LABELS = {
    "title": "A question",
    "curves": [OOD, LOSS],
    "labels": {OOD: "OOD accuracy", "data": "training data"},
    "levels": {"data": {"questions_only": "questions only"}},
    "reference": [{"metric": OOD, "value": 0.5, "label": "chance"}],
}


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._in: str = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split()).replace("\u00a0", " ")

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(runs_dir: Path, **options) -> tuple[dict, Page, Path]:
    study = make_study(runs_dir, **options)
    results = build_report(runs_dir, study)
    folder = runs_dir / "studies" / study / "report"
    return results, Page((folder / "index.html").read_text(encoding="utf-8")), folder


def test_five_seeds(tmp_path: Path) -> None:
    results, page, folder = report(tmp_path, seeds=5, report=LABELS)
    (found,) = results["contrasts"]
    assert set(found) >= RESULT_KEYS
    assert (found["p"], found["interval_method"], found["verdict"]) == (None, "Welch t", "supported")
    assert results["complete"] and results["counts"] == {"done": 10}
    assert results["answer"] == [found["sentence"]]
    assert found["sentence"].replace("\u00a0", " ") in page.words
    assert "too few seeds for a permutation test" in page.words
    assert "Predicted by the claim: higher with subject_rc than with questions only." in page.words
    assert page.find("title") and "A question" in page.words
    on_disk = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert on_disk == json.loads(json.dumps(results))
    assert finite(on_disk)
    assert {p.name for p in (folder / "figures").iterdir()} == {
        Path(f["file"]).name for f in results["figures"]
    }
    assert not list(folder.rglob("*.tmp"))


def test_eight_seeds_are_tested_and_corrected(tmp_path: Path) -> None:
    both = [contrast(), contrast(metric=LOSS, expect=None, **{"as": "relative"})]
    results, page, _ = report(tmp_path, seeds=8, compare=both)
    assert all(r["p"] is not None and r["correction"] == "Holm over 2 tests" for r in results["contrasts"])
    assert "Interval (0.95): Welch t." in page.words
    assert (
        "p: permutation of the difference of means, two-sided (exact, all 12,870 relabellings" in page.words
    )
    assert any(f["name"].startswith("distribution-") for f in results["figures"])


def test_one_seed_gives_an_estimate_only(tmp_path: Path) -> None:
    results, page, _ = report(tmp_path, seeds=1, points=3)
    assert results["contrasts"][0]["verdict"] == "estimate"
    assert results["contrasts"][0]["interval"] is None
    assert results["stability"] is None
    assert "Estimate only" in page.words


def test_two_axes_give_one_answer_per_level_and_panels(tmp_path: Path) -> None:
    axes = {"data": ["questions_only", "subject_rc"], "family": ["gpt", "gru", "lstm"]}
    results, page, _ = report(tmp_path, seeds=2, points=5, axes=axes)
    assert [r["where"] for r in results["contrasts"]] == [{"family": f} for f in axes["family"]]
    assert len(results["answer"]) == 3
    assert all(sentence.replace("\u00a0", " ") in page.words for sentence in results["answer"])
    panels = [p for p in page.find("div") if p.get("data-figure") == f"curves-{OOD}"]
    assert len(panels) == 3
    assert len(results["arms"][0]["arms"]) == 6
    rows = {row["key"]: row for row in results["config"]["rows"]}
    assert rows["model.type"]["axis"] == "family"
    assert rows["view.drop"]["axis"] == "data"


def test_unfinished_and_failed_runs_stand_in_a_visible_box(tmp_path: Path) -> None:
    states = {
        "data=subject_rc/seed=1": "failed",
        "data=subject_rc/seed=2": "waiting",
        "data=questions_only/seed=3": "running",
    }
    results, page, _ = report(tmp_path, seeds=3, states=states)
    assert not results["complete"]
    assert {m["run"] for m in results["missing"]} == set(states)
    box = page.words.split("Not in these numbers")[1]
    assert "data=subject_rc/seed=1 : failed at step 900 of 2,000 (loss is not finite at step 900)" in box
    assert "preliminary" in page.words
    assert "3 of 6 runs finished" in page.words


def test_nothing_finished_says_so_and_draws_nothing(tmp_path: Path) -> None:
    states = {f"data={d}/seed={s}": "waiting" for d in ("questions_only", "subject_rc") for s in (1, 2)}
    results, page, folder = report(tmp_path, seeds=2, states=states)
    assert "No run of this study has finished" in page.words
    assert results["figures"] == [] and page.scripts == []
    assert (folder / "results.json").is_file()


def test_a_study_without_axes_or_contrasts_describes_its_runs(tmp_path: Path) -> None:
    results, page, _ = report(tmp_path, seeds=3, axes={}, compare=[])
    assert results["contrasts"] == [] and results["answer"] == []
    assert {group["metric"] for group in results["arms"]} == {OOD, LOSS}
    assert "states no contrast" in page.words
    assert results["config"]["rows"] == []


def test_best_over_training_is_labelled_everywhere(tmp_path: Path) -> None:
    results, page, _ = report(tmp_path, compare=[contrast(at="best")])
    label = "best over training, chosen on this metric itself"
    assert label in results["answer"][0]
    assert results["arms"][0]["at_label"] == label
    assert [f for f in results["figures"] if label in f["title"]]
    assert "optimistic" in page.words


def test_constant_arms_are_explained_not_nan(tmp_path: Path) -> None:
    results, page, _ = report(
        tmp_path, seeds=6, values=lambda levels, seed: float(levels["data"] == "subject_rc")
    )
    (found,) = results["contrasts"]
    assert (found["estimate"], found["interval"], found["effect_size"]) == (1.0, None, None)
    assert found["p"] == pytest.approx(2 / 924)
    assert finite(json.loads(json.dumps(results)))
    assert "an interval from the spread of seeds is not defined" in page.words
    assert "nan" not in page.words.lower()


def test_a_value_that_is_not_finite_names_its_run(tmp_path: Path) -> None:
    bad = lambda levels, seed: float("nan") if (levels["data"], seed) == ("subject_rc", 2) else seed / 10
    results, page, _ = report(tmp_path, seeds=3, values=bad)
    assert results["contrasts"][0]["n"]["to"] == 2
    assert "data=subject_rc/seed=2 is excluded: the value is nan, not a finite number." in page.words
    assert finite(results["contrasts"])


def test_stability_needs_ten_evaluations(tmp_path: Path) -> None:
    results, page, folder = report(
        tmp_path, points=12, report={"stability": OOD, "stability_settings": {"tau": 0.1}}
    )
    assert len(results["stability"]["runs"]) == 10
    assert results["stability"]["settings"]["tau"] == 0.1
    assert (folder / "tables" / "stability.csv").is_file()
    assert "A run is stable when TV/T is at most 0.1" in page.words


def test_a_report_replaces_the_files_of_the_one_before(tmp_path: Path) -> None:
    _, _, folder = report(tmp_path, points=12, report={"stability": OOD})
    assert list((folder / "figures").glob("stability*"))
    for run in tmp_path.glob("run-*"):
        shutil.rmtree(run)
    results, _, folder = report(tmp_path, points=9, report={"stability": OOD})
    assert results["stability"] is None
    assert not list((folder / "tables").glob("stability.csv"))
    assert not list((folder / "figures").glob("stability*"))


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}</title></style>--><!--"


def test_everything_a_study_can_say_is_harmless(tmp_path: Path) -> None:
    settings = {"title": EVIL, "labels": {OOD: EVIL, "data": EVIL}, "levels": {"data": {"a": EVIL}}}
    settings["reference"] = [{"metric": OOD, "value": 0.5, "label": EVIL}]
    evil = contrast(**{"from": "a", "to": EVIL}, paired=True, pairing=EVIL, claim=EVIL)
    states = {f"data={EVIL}/seed=1": "failed"}
    study = make_study(
        tmp_path,
        seeds=3,
        axes={"data": ["a", EVIL]},
        compare=[evil],
        report=settings,
        claim=EVIL,
        states=states,
    )
    status = tmp_path / "run-003" / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "message": EVIL}))
    provenance = tmp_path / "run-001" / "provenance.json"
    provenance.write_text(
        json.dumps({"python": EVIL, "code": {"commit": EVIL}, "hardware": {"processor": EVIL}})
    )
    evaluation = {"evaluation": EVIL, "step": 5, "metrics": {EVIL: 0.5}}
    (tmp_path / "run-001/evals/loss/step-00000005.json").write_text(json.dumps(evaluation))
    build_report(tmp_path, study)
    folder = tmp_path / "studies" / study / "report"
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert len(page.scripts) == 3 and not any("alert(" in script for script in page.scripts[1:])
    assert [a for _, a in page.tags if any(name.startswith("on") for name in a)] == []
    assert all((image["src"] or "").startswith("data:image/svg+xml;base64,") for image in page.find("img"))
    assert "<script>alert(1)</script>" in page.words  # shown as text
    for file in (folder / "figures").iterdir():
        tree = ElementTree.parse(file)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "image", "a", "foreignObject"}


def test_the_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    _, page, folder = report(tmp_path, seeds=2)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            target = attributes.get(name) or ""
            assert not target.startswith(("http:", "https:", "//")), (tag, target)
            if (tag, name) == ("a", "href"):
                assert (folder / target).is_file(), f"{target} is not beside the page"
    assert not page.find("link") and not page.find("iframe")
    policy = page.find("meta")[1]["content"] or ""
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_the_policy_allows_exactly_the_scripts_of_the_page(tmp_path: Path) -> None:
    import base64
    import hashlib

    _, page, _ = report(tmp_path, seeds=2)
    policy = page.find("meta")[1]["content"] or ""
    data, *scripts = page.scripts
    assert json.loads(data)["figures"]
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == len(scripts) == 2
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_the_bundle_is_made_once_and_loads_nothing(tmp_path: Path) -> None:
    text = vega_bundle(tmp_path)()
    assert "window.vegaEmbed=" in text.replace(" ", "")
    assert "</script" not in text.lower() and len(text) > 500_000
    (kept,) = tmp_path.glob(".vega-*.js")
    kept.write_text("kept", encoding="utf-8")
    assert vega_bundle(tmp_path)() == "kept"


def test_script_data_cannot_leave_its_element() -> None:
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json({"a": float("nan")})


def test_two_reports_of_the_same_runs_are_equal_to_the_byte(tmp_path: Path) -> None:
    _, _, folder = report(tmp_path, seeds=6, points=12, report=LABELS)
    first = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}
    build_report(tmp_path, "hierarchy")
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")} == first


def test_csv_files_hold_every_value_in_full_precision(tmp_path: Path) -> None:
    results, _, folder = report(tmp_path, seeds=3)
    with (folder / "tables" / "points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = {p["run"]: p["value"] for g in results["arms"] for a in g["arms"] for p in a["points"]}
    assert {r["run"]: float(r["value"]) for r in rows} == shown
    with (folder / "tables" / "contrasts.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["interval_low"]) == results["contrasts"][0]["interval"][0]
    with (folder / "tables" / "curves.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6 * 21


def test_a_report_imports_no_torch_and_an_unknown_study_is_a_users_mistake(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=2, points=3)
    code = (
        "import sys; from pathlib import Path; from lexarium.reports.page import build_report; "
        "assert not {'scipy', 'altair', 'vl_convert', 'jinja2', 'rich'} & set(sys.modules); "
        f"build_report(Path({str(tmp_path)!r}), 'hierarchy'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(UserError, match="no study 'other'; known there: hierarchy"):
        build_report(tmp_path, "other")


def test_a_contrast_of_an_unknown_level_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=2, points=3, compare=[contrast(to="nothing")])
    with pytest.raises(UserError, match="no level 'nothing'; levels: questions_only, subject_rc"):
        build_report(tmp_path, "hierarchy")
