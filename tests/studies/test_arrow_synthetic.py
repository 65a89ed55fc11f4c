"""The study `arrow-synthetic`: what its points share and differ in, and its smoke preset from end to end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lexarium.cli.main import main
from lexarium.corpora.synthetic.linear_language import LinearLanguage
from lexarium.foundation.files import read_json
from lexarium.studies.compare import collect, compare, contrasts_of
from lexarium.studies.run import Run
from lexarium.studies.study import Point, Study

PRESETS = ("smoke", "demo", "full")


def cells(preset: str) -> dict[tuple[str, int], dict[str, Point]]:
    found: dict[tuple[str, int], dict[str, Point]] = {}
    for p in Study.load("arrow-synthetic", preset).expand(Path("runs")):
        found.setdefault((p.levels["cell"], p.seed), {})[p.levels["direction.type"]] = p
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_directions_differ_in_nothing_else_and_data_are_redrawn(preset: str) -> None:
    for (_, seed), pair in cells(preset).items():
        one, other = (p.config.model_dump() for p in pair.values())
        assert {k for k in one if one[k] != other[k]} == {"direction"}
        assert one["corpus"]["seed"] == one["seed"] == seed
    seeds = {seed for _, seed in cells(preset)}
    assert len(seeds) >= (2 if preset == "smoke" else 3)


@pytest.mark.parametrize("preset", ["demo", "full"])
def test_the_linear_cells_are_what_they_are_called(preset: str) -> None:
    for (cell, _), pair in cells(preset).items():
        config = pair["forward"].config.corpus
        if cell not in ("plus", "minus", "zero", "banded"):
            continue
        m, density = config.m, LinearLanguage(config).density()
        few, many = 2 * m - 1, m * (m + 1) // 2
        assert density == {
            "plus": (few, many), "minus": (many, few), "zero": (m, m), "banded": (few, many)
        }[cell]  # fmt: skip
        assert config.sizes.train + config.sizes.val <= 2**m


@pytest.mark.parametrize("preset", ["demo", "full"])
def test_the_signs_that_are_expected_are_those_of_the_claim(preset: str) -> None:
    study = Study.load("arrow-synthetic", preset)
    expected = {
        c.where["cell"]: c.expect for c in study.config.compare if c.metric == "loss.val" and c.at == "final"
    }
    known = {"plus": "higher", "minus": "lower", "primes": "higher", "primes_reversed": "higher"}
    assert expected == {cell: known.get(cell, "none") for cell in study.axes["cell"]}
    assert all(c.paired and c.redrawn for c in study.config.compare)


def test_the_smoke_preset_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "run", "arrow-synthetic", "--preset", "smoke", "--jobs", "1"]
    assert main([*command, "--runs-dir", str(tmp_path)]) == 0
    folder = tmp_path / "studies" / "arrow-synthetic"
    assert (folder / "report" / "index.html").is_file()
    index = read_json(folder / "index.json")
    assert len(index["runs"]) == len(Study.load("arrow-synthetic", "smoke").expand(tmp_path))
    floors = {"plus": 6 * math.log(2) / 12, "primes": math.log(300) / 10}
    for entry in index["runs"]:
        run = Run.open(tmp_path / entry["dir"])
        assert run.files.status()["state"] == "done"
        *_, (_, step, metrics) = run.files.evaluations()
        assert step == run.config.train.max_steps
        if entry["levels"]["cell"] in floors:
            floor = floors[entry["levels"]["cell"]]
            assert metrics["val.excess"] == pytest.approx(metrics["val"] - floor)
            free, determined = ("0", "1") if entry["levels"]["direction.type"] == "forward" else ("1", "0")
            assert metrics["val.half.determined"] == pytest.approx(metrics[f"val.half.{determined}"])
            assert metrics[f"val.half.{free}.excess"] < metrics[f"val.half.{free}"]
    found = compare(contrasts_of(table := collect(tmp_path, "arrow-synthetic")), table)
    assert [c["n"]["pairs"] for c in found] == [2] * len(floors | {"reversible": 0})
    assert "Not decided" in capsys.readouterr().out
