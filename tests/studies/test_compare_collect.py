"""Reading a study from disk: contracts of docs/design/data-flow.md, and files that are missing or broken."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from lexarium.foundation.files import write_json
from lexarium.foundation.types import UserError
from lexarium.studies.compare import Contrast, collect, compare, contrasts_of, report_of

INDEX = {
    "study": "arrow",
    "claim": "text is easier to predict forwards",
    "axes": {"direction": ["forward", "backward"], "layers": [2]},
    "seeds": [1, 2],
    "compare": [
        {"metric": "loss.val", "axis": "direction", "from": "forward", "to": "backward", "as": "relative"}
    ],
    "report": {"curves": ["loss.val"]},
}


def entry(direction: str, seed: int, **changes) -> dict:
    levels = {"direction": direction, "layers": 2}
    name = f"direction={direction}/layers=2/seed={seed}"
    return {
        "name": name,
        "dir": f"{direction}-{seed}",
        "levels": levels,
        "seed": seed,
        "stage": "base",
        **changes,
    }


def write(runs_dir: Path, runs: list[dict]) -> None:
    write_json(runs_dir / "studies" / "arrow" / "index.json", {**INDEX, "runs": runs})


def finish(runs_dir: Path, folder: str, values: dict[int, float], metric: str = "val") -> None:
    for step, value in values.items():
        record = {"evaluation": "loss", "step": step, "metrics": {metric: value, "note": "text is no number"}}
        write_json(runs_dir / folder / "evals" / "loss" / f"step-{step:08d}.json", record)
    write_json(
        runs_dir / folder / "status.json", {"state": "done", "step": max(values), "max_steps": max(values)}
    )


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    write(tmp_path, [entry(d, s) for d in ("forward", "backward") for s in (1, 2)])
    for direction, base in (("forward", 2.0), ("backward", 2.2)):
        for seed in (1, 2):
            finish(tmp_path, f"{direction}-{seed}", {100: base + seed / 10, 20: 5.0})
    return tmp_path


def test_every_evaluation_is_read_in_order_of_steps(runs_dir: Path) -> None:
    table = collect(runs_dir, "arrow")
    assert table.axes == {"direction": ["forward", "backward"], "layers": ["2"]}
    assert table.metrics == ["loss.val"]
    assert table.runs[0].curves["loss.val"] == [(20, 5.0), (100, 2.1)]
    assert (table.runs[0].state, table.problems) == ("done", [])
    assert report_of(table).curves == ["loss.val"]
    (result,) = compare(contrasts_of(table), table)
    assert result["estimate"] == pytest.approx(2.35 / 2.15 - 1)


def test_steps_are_ordered_as_numbers_not_as_file_names(runs_dir: Path) -> None:
    finish(runs_dir, "forward-1", {99_999_999: 1.0, 100_000_000: 0.5})
    assert collect(runs_dir, "arrow").runs[0].curves["loss.val"][-1] == (100_000_000, 0.5)


def test_a_run_without_a_directory_is_waiting(runs_dir: Path) -> None:
    runs = json.loads((runs_dir / "studies/arrow/index.json").read_text())["runs"]
    write(runs_dir, [*runs, entry("forward", 3)])
    table = collect(runs_dir, "arrow")
    assert table.runs[-1].state == "waiting"
    (result,) = compare(contrasts_of(table), table)
    assert result["missing"] == [
        {"run": "direction=forward/layers=2/seed=3", "metric": "loss.val", "why": "the run has not started"}
    ]


def test_broken_files_are_named_and_the_rest_is_used(runs_dir: Path) -> None:
    (runs_dir / "forward-1/evals/loss/step-00000100.json").write_text('{"evaluation": "loss", "st')
    (runs_dir / "backward-2/evals/loss/step-00000020.json").write_text('["no mapping"]')
    (runs_dir / "forward-2/status.json").write_text("")
    table = collect(runs_dir, "arrow")
    assert len(table.problems) == 3
    assert any("forward-1/evals/loss/step-00000100.json" in problem for problem in table.problems)
    assert table.runs[1].state == "damaged"
    assert table.runs[0].curves["loss.val"] == [(20, 5.0)]


def test_numbers_written_as_text_because_they_are_not_finite(runs_dir: Path) -> None:
    finish(runs_dir, "forward-1", {100: math.nan})
    table = collect(runs_dir, "arrow")
    assert math.isnan(table.runs[0].curves["loss.val"][-1][1])
    (result,) = compare(contrasts_of(table), table)
    assert result["n"]["from"] == 1
    assert "not a finite number" in result["missing"][0]["why"]


def test_several_stages_become_an_axis_and_may_have_axes_of_their_own(runs_dir: Path) -> None:
    runs = json.loads((runs_dir / "studies/arrow/index.json").read_text())["runs"]
    tuned = [
        entry(d, 1, name=f"tune/{d}/{step}", dir=f"tuned-{d}-{step}", stage="tune", max_steps=7)
        for d in ("forward", "backward")
        for step in ("20", "100")
    ]
    for run in tuned:
        run["levels"]["start_step"] = run["name"].rpartition("/")[2]
        finish(runs_dir, run["dir"], {7: 0.5 if "forward" in run["dir"] else 0.75}, metric="tuned")
    waiting = entry("forward", 2, name="tune/later", dir="later", stage="tune", max_steps=7)
    write(runs_dir, [*runs, *tuned, waiting])
    table = collect(runs_dir, "arrow")
    assert (table.axes["stage"], table.axes["start_step"]) == (["base", "tune"], ["20", "100"])
    assert (table.runs[-1].state, table.runs[-1].max_steps) == ("waiting", 7)
    base = {"layers": "2", "stage": "base"}
    assert table.cells()[0] == {"direction": "forward", **base}
    assert {"direction": "backward", **base} in table.cells()
    (on_base,) = compare(contrasts_of(table), table)
    assert (on_base["where"], on_base["n"]["total"]) == (base, 4)
    probe = Contrast(metric="loss.tuned", axis="direction", from_="forward", to="backward")
    found = {r["where"].get("start_step"): r["estimate"] for r in compare([probe], table)}
    assert (found["20"], found["100"]) == (0.25, 0.25)
    by_step = Contrast(
        metric="loss.tuned", axis="start_step", from_="20", to="100", where={"direction": "backward"}
    )
    (result,) = compare([by_step], table)
    assert (result["estimate"], result["n"]["total"]) == (0.0, 2)


def test_an_unknown_study_names_the_known_ones(runs_dir: Path) -> None:
    with pytest.raises(UserError, match="no study 'arow'; known there: arrow"):
        collect(runs_dir, "arow")


def test_reading_and_small_comparisons_import_neither_torch_nor_scipy_stats(runs_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lexarium.studies.compare import *; "
        "assert 'scipy' not in sys.modules; "
        f"t = collect(Path({str(runs_dir)!r}), 'arrow'); compare(contrasts_of(t), t); "
        "assert not {'torch', 'scipy.stats', 'altair'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
