"""The study `word-segmentation`: arms of one size, metrics that exist, its grids, and its smoke preset from end to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lexarium.cli.main import main
from lexarium.evaluations.baselines import BASELINES
from lexarium.foundation.files import read_json
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters
from lexarium.studies.compare import collect, compare, contrasts_of
from lexarium.studies.study import Point, Study

NAME = "word-segmentation"
PRESETS = (None, "demo", "brent", "size", "dropout", "language", "tokenizers")


def load(preset: str | None, folder: Path) -> Study:
    (folder / "texts").mkdir(exist_ok=True)
    for name in ("eng.txt", "fra.txt"):
        (folder / "texts" / name).write_text("a WORD_BOUNDARY\n")
    given = [] if preset in ("demo", "smoke") else [f"corpus.path={folder / 'texts'}"]
    return Study.load(NAME, preset, given)


def points(preset: str | None, folder: Path) -> list[Point]:
    return load(preset, folder).expand(folder)


@pytest.mark.parametrize("preset", [None, "demo"])
def test_families_have_equally_many_parameters(preset: str | None, tmp_path: Path) -> None:
    sizes = {
        p.levels["family"]: count_parameters(build_model(p.config.model, 32, seed=0), non_embedding=True)
        for p in points(preset, tmp_path)
    }
    assert len(sizes) == 3 and max(sizes.values()) / min(sizes.values()) < 1.015


@pytest.mark.parametrize("preset", PRESETS)
def test_contrasts_name_what_the_evaluations_measure(preset: str | None, tmp_path: Path) -> None:
    """A baseline that is not asked for, or a split that is not evaluated, would leave a question unanswered."""
    study = load(preset, tmp_path)
    evaluations = {e["type"]: e for e in study.config.base["evaluations"]}
    for contrast in study.config.compare:
        for metric in (contrast.metric, contrast.other[0] if contrast.against else contrast.metric):
            name, split, what, *_ = metric.split(".")
            assert split in evaluations[name]["splits"]
            if name == "segmentation_baselines":
                assert what in evaluations[name].get("baselines", BASELINES)
    if preset in ("size", "dropout", "language"):
        assert study.config.base["checkpoint"]["best"]["metric"] == "segmentation.val.bits_per_symbol"
    assert points(preset, tmp_path)


def test_the_eight_tokenizers(tmp_path: Path) -> None:
    found = {
        (p.config.corpus.form, p.config.tokenizer.type, p.config.corpus.boundaries)
        for p in points("tokenizers", tmp_path)
    }
    assert found == {
        (form, tokenizer, boundaries)
        for form in ("letters", "words")
        for tokenizer in ("symbol", "bpe")
        for boundaries in ("token", "channel")
    }


def test_samples_of_the_size_grid_are_of_one_seed(tmp_path: Path) -> None:
    samples = {p.levels["data"]: p.config.view.subsample for p in points("size", tmp_path)}
    assert len({s.seed for s in samples.values()}) == 1 and len({s.count for s in samples.values()}) == 5


def test_the_smoke_preset_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "run", NAME, "--preset", "smoke", "--jobs", "1", "--runs-dir", str(tmp_path)]
    assert main(command) == 0
    folder = tmp_path / "studies" / NAME
    index = read_json(folder / "index.json")
    assert len(index["runs"]) == 4
    table = collect(tmp_path, NAME)
    found = compare(contrasts_of(table), table)
    assert [c["n"]["pairs"] for c in found] == [2] * len(found) and len(found) == 4
    assert not [c for c in found if c["missing"]]
    figures = {path.stem for path in (folder / "report" / "figures").glob("*.svg")}
    assert {
        "segmentation-scores",
        "segmentation-map",
        "segmentation-tokens",
        "segmentation-thresholds",
    } <= figures
    assert any(name.startswith("segmentation-utterances") for name in figures)
    rows = read_json(folder / "report" / "results.json")["segmentation"]["scores"]
    baselines = {row["cue"]: row["scores"]["boundary.f"] for row in rows if row["strategy"] == "baseline"}
    assert set(baselines) == {"random_true", "ftp_relative", "ngram_3_boundary"}
    assert "Word boundaries" in (folder / "report" / "index.html").read_text(encoding="utf-8")
    reference = Path(__file__).parents[2] / "docs" / "reference" / "word-segmentation.md"
    (example,) = re.findall(r"```python\n(.+?)```", reference.read_text(encoding="utf-8"), re.DOTALL)
    run = tmp_path / index["runs"][0]["dir"]
    named = example.replace("runs/utterances-transformer-forward-s1-...", str(run)).replace(
        "window=64", "window=32"
    )
    names: dict[str, Any] = {}
    exec(named, names)
    stored = read_json(run / "evals/segmentation/step-00000008.json")["metrics"]
    assert names["found"]["boundary.f"] == stored["val.boundary.peak.boundary.f"]
    assert names["oracle"]["boundary.f"] >= stored["val.entropy.threshold.boundary.f"]
    assert names["counted"].shape == names["stream"].starts.shape
