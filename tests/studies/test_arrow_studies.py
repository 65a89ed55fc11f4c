"""The studies of natural text: what their points share, and their smoke presets from end to end on a small text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lexarium.cli.main import main
from lexarium.foundation.config import ConfigError
from lexarium.foundation.files import read_json
from lexarium.foundation.rng import generator
from lexarium.studies.compare import collect, compare, contrasts_of
from lexarium.studies.run import Run
from lexarium.studies.study import Study

NAMES = ("arrow-of-time", "arrow-context", "arrow-size")
TEXT = "the raven that does not sleep saw seven yellow newts above some walrus near his old zebra and laughed"
WORDS = TEXT.split()


def write_text(path: Path, lines: int = 400, seed: int = 0) -> Path:
    random = generator(seed, "text")
    chosen = lambda: " ".join(WORDS[i] for i in random.integers(0, len(WORDS), 9))
    path.write_text("".join(f"{chosen()} .\n" for _ in range(lines)))
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.mark.parametrize("preset", ["smoke", "demo", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_two_directions_of_a_seed_differ_in_nothing_else(name: str, preset: str, text: Path) -> None:
    pairs: dict[Any, list[dict[str, Any]]] = {}
    for point in Study.load(name, preset, [f"corpus.path={text}"]).expand(Path("runs")):
        others = tuple(sorted((a, v) for a, v in point.levels.items() if a != "direction.type"))
        pairs.setdefault((others, point.seed), []).append(point.config.model_dump())
    for one, other in pairs.values():
        assert {k for k in one if one[k] != other[k]} == {"direction"}


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_contexts_see_equally_many_tokens_per_update(preset: str, text: Path) -> None:
    points = Study.load("arrow-context", preset, [f"corpus.path={text}"]).expand(Path("runs"))
    configs = [p.config for p in points]
    assert len({c.packing.seq_len * c.train.global_batch_size for c in configs}) == 1
    assert all(c.model.max_positions == c.packing.seq_len for c in configs)
    assert len({c.packing.seq_len for c in configs}) == (2 if preset == "demo" else 6)


@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_preset_runs_from_end_to_end(
    name: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "run", name, "--preset", "smoke", "--jobs", "1", f"corpus.path={text}"]
    assert main([*command, "--runs-dir", str(tmp_path)]) == 0
    table = collect(tmp_path, name)
    assert table.runs and all(run.state == "done" for run in table.runs)
    page = (tmp_path / "studies" / name / "report" / "index.html").read_text()
    assert "gap" in page.lower()
    if name != "arrow-of-time":
        (answer,) = read_json(tmp_path / "studies" / name / "report" / "results.json")["answer"]
        assert "percentage points" in answer and "the gap" in answer, "the page answers its title first"
    for result in compare(contrasts_of(table), table):
        assert result["refused"] is None and result["estimate"] is not None
        if result["unit"] == "block":
            assert result["windows"]["windows"] > result["windows"]["blocks"] >= 20
        elif result["grows"]:
            assert result["contrast"] == 0 and result["n"]["pairs"] == 2 and result["interval"] is not None
        else:
            assert result["n"] == {**result["n"], "from": 2, "to": 2} and result["noise_floor"] is not None
    hashes = {run.curves["window_loss.val.windows_hash"][-1][1] for run in table.runs}
    assert len(hashes) == len({run.levels.get("context") for run in table.runs}), (
        "the same windows in both directions"
    )
    capsys.readouterr()


def test_every_file_of_a_folder_is_a_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "texts"
    (folder / "fr").mkdir(parents=True)
    write_text(folder / "en.txt", seed=1)
    for part in ("a", "b"):
        write_text(folder / "fr" / f"{part}.txt", 300, seed=ord(part))
    study = Study.load("arrow-of-time", "languages", [f"corpus.path={folder}"])
    assert list(study.axes["language"]) == ["en", "fr"]
    small = ["corpus.block_bytes=1024", "tokenizer.vocab_size=300", "packing.seq_len=16", "model.max_positions=16",
             "model.d_model=16", "model.n_layers=1", "train.max_steps=4", "train.global_batch_size=4"]  # fmt: skip
    command = [
        "study",
        "run",
        "arrow-of-time",
        "--preset",
        "languages",
        "--seeds",
        "1",
        "--jobs",
        "1",
    ]
    assert main([*command, f"corpus.path={folder}", *small, "--runs-dir", str(tmp_path / "runs")]) == 0
    assert "language: fr" in capsys.readouterr().out
    index = read_json(tmp_path / "runs" / "studies" / "arrow-of-time" / "index.json")
    stores = {}
    for entry in index["runs"]:
        run = Run.open(tmp_path / "runs" / entry["dir"])
        stores.setdefault(entry["levels"]["language"], set()).add(run.parts().store.folder)
    assert [len(found) for found in stores.values()] == [1, 1] and len(set.union(*stores.values())) == 2


def test_a_language_axis_without_a_folder_is_told(text: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"axis 'language': every file or folder inside corpus.path is a level"
    ):
        Study.load("arrow-of-time", "languages", [f"corpus.path={text}"])
    with pytest.raises(ConfigError, match=r"give a folder that holds some"):
        Study.load("arrow-of-time", "languages")
