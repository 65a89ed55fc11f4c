"""Committed results hold what they must, their ratios point the right way, and the page is made of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
NUMBER = (int, float)
FIELDS: dict[str, Any] = {
    "goal": str, "what": str, "peer": str, "unit": str, "better": str, "ours": NUMBER, "theirs": (*NUMBER, type(None)),
    "ratio": NUMBER, "target": NUMBER, "rounds": list, "parity": (dict, type(None)), "hardware": dict, "versions": dict,
    "date": str, "command": str,
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> Any:
    """benchmarks/table.py, which imports its neighbour goals.py by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "benchmarks" / "table.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_has_the_fields_of_a_result(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert {k: type(result.get(k)) for k, kind in FIELDS.items() if not isinstance(result.get(k), kind)} == {}
    assert result["better"] in ("higher", "lower")
    assert result["ours"] > 0 and result["ratio"] > 0 and result["target"] > 0
    assert result["rounds"] and all(isinstance(v, NUMBER) for r in result["rounds"] for v in r.values())
    assert result["parity"] is None or isinstance(result["parity"]["passed"], bool)
    assert {"processor", "cores"} <= set(result["hardware"]) and "lexarium" in result["versions"]
    assert date.fromisoformat(result["date"]) and result["command"].startswith("python benchmarks/")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_ratio_of_one_or_more_says_that_ours_is_the_better_one(path: Path) -> None:
    r = json.loads(path.read_text(encoding="utf-8"))
    if r["theirs"] is not None:
        expected = r["ours"] / r["theirs"] if r["better"] == "higher" else r["theirs"] / r["ours"]
        assert r["ratio"] == pytest.approx(expected, rel=1e-9)


def test_every_result_is_of_a_comparison_and_has_its_goal_and_target(table: Any) -> None:
    for comparison in table.COMPARISONS:
        for result in table.results_of(comparison.name):
            assert (result["goal"], result["target"]) == (comparison.goal, pytest.approx(comparison.target))
    assert sum(len(table.results_of(c.name)) for c in table.COMPARISONS) == len(RESULTS)


def test_a_comparison_without_a_result_is_open(table: Any, tmp_path: Path) -> None:
    page = table.page(tmp_path)
    assert page.count("| open |") == len(table.COMPARISONS) and "| met |" not in page


def test_the_page_is_what_the_table_writes(table: Any) -> None:
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == table.page()
