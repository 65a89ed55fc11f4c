"""The terminal's tables say what the page says."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console
from tests.reports.synthetic import LOSS, OOD, contrast, make_study

from lexarium.reports.page import build_report
from lexarium.reports.tables import print_results


def printed(results: dict, width: int = 160) -> str:
    output = io.StringIO()
    print_results(results, Console(file=output, width=width))
    return output.getvalue().replace("\u00a0", " ")


def test_answer_contrasts_arms_and_missing_runs(tmp_path: Path) -> None:
    states = {"data=subject_rc/seed=1": "failed"}
    settings = {"labels": {OOD: "OOD accuracy"}, "levels": {"data": {"questions_only": "questions only"}}}
    make_study(
        tmp_path,
        seeds=3,
        points=5,
        states=states,
        report=settings,
        compare=[contrast(), contrast(metric=LOSS)],
    )
    results = build_report(tmp_path, "hierarchy")
    text = printed(results)
    assert "Claim: Declaratives with a relative clause" in text
    for result in results["contrasts"]:
        assert result["sentence"].replace("\u00a0", " ") in " ".join(text.split())
    assert "questions only → subject_rc" in text
    assert "2 of 3" in text
    assert "data=subject_rc/seed=1: failed at step 500 of 2,000 (loss is not finite at step 900)" in text


def test_results_read_back_from_json_print_the_same(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=2, points=3)
    results = build_report(tmp_path, "hierarchy")
    file = tmp_path / "studies" / "hierarchy" / "report" / "results.json"
    assert printed(json.loads(file.read_text(encoding="utf-8"))) == printed(results)


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    make_study(
        tmp_path, seeds=1, points=3, claim="[red]not red[/red] [/]", report={"labels": {OOD: "[bold]x"}}
    )
    text = printed(build_report(tmp_path, "hierarchy"))
    assert "[red]not red[/red] [/]" in text
    assert "[bold]x" in text


def test_nothing_finished(tmp_path: Path) -> None:
    states = {f"data={d}/seed=1": "waiting" for d in ("questions_only", "subject_rc")}
    make_study(tmp_path, seeds=1, states=states)
    text = printed(build_report(tmp_path, "hierarchy"))
    assert "No run has finished" in text
    assert "data=subject_rc/seed=1: waiting" in text
