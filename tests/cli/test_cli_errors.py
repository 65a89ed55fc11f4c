"""A mistake of the user's is one line with the place and the way out, and exit status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexarium.cli import list as list_verb
from lexarium.cli.main import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_file: Path, study_file: Path) -> Path:
    """A directory with good and bad files, and the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 200)))
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "other.yaml").write_text("x: 1\n")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "runs").mkdir()
    for name, text in (("foreign", "model_type: gpt2\n"), ("cut", "run: {a: [")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    return tmp_path


CASES = {
    # what is typed: what the line must say
    "trian": "did you mean 'train'",
    "train --jsn run.yaml": "--json",
    "train run.yaml --train.max_steps=3": "train.max_steps=",
    "train": "missing argument",
    "train run.yaml --requeue-after -1": "above 0",
    "train run.yaml --requeue-after x": "valid number",
    "train run.yaml --select a=b": "no axes",
    "train run.yaml --preset p": "presets belong to studies",
    "train run.yaml --runs-dir file": "file is a file",
    "train run.yaml --runs-dir file/below": "file is a file",
    "train folder.yaml": "not a run directory",
    "train runs/nothing": "no such file",
    "check nope": "hierarchical-generalization",
    "check hierarchical-generalisation": "did you mean 'hierarchical-generalization'",
    "check missing.yaml": "missing.yaml: no such file",
    "check binary.yaml": "utf-8",
    "check empty.yaml": "empty",
    "check list.yaml": "expected a mapping",
    "check broken.yaml": "broken.yaml:2",
    "check other.yaml": "neither a study",
    "check foreign": "no key `run`",
    "check cut": "not valid yaml",
    "check run.yaml train.max_stepz=3": "did you mean 'max_steps'",
    "check run.yaml trian.max_steps=3": "did you mean 'train'",
    "check run.yaml train.max_steps": "a.b=value",
    "check run.yaml model.type=recurent": "did you mean 'recurrent'",
    "check run.yaml objective.type=seq2seq": "encoder_decoder",
    "check tiny.yaml --preset shrt": "presets: short",
    "check tiny.yaml --seeds 0": "--seeds 0",
    "check tiny.yaml --seeds 1,x": "--seeds 1,x",
    "check tiny.yaml --select rate=lwo": "did you mean 'low'",
    "check tiny.yaml --select speed=low": "axes: rate",
    "check tiny.yaml optimizer.lr=1": "--only rate=",
    "check tiny.yaml seed=4": "--seeds",
    "prepare tiny.yaml --workers x": "valid integer",
    "prepare tiny.yaml corpus.sizes.train=-1": "greater than or equal to 0",
    "study rnu": "did you mean 'run'",
    "study run run.yaml": "is one run, not a study",
    "study run tiny.yaml --jobs 0": "greater than or equal to 1",
    "study run tiny.yaml --only rate": "AXIS=LEVEL".lower(),
    "study status nope": "has not been run",
    "study status --runs-dir nowhere": "no such directory",
    "study status other.yaml": "the key `study` is missing",
    "report nope": "study run nope",
    "evaluate nope": "no such run",
    "evaluate foreign": "not a run directory",
    "evaluate x --runs-dir nowhere": "no such directory",
    "sample runs": "not a run directory",
    "show modle x": "did you mean 'model'",
    "show model transfromer": "did you mean 'transformer'",
    "show lss": "did you mean 'loss'",
    "diff foreign cut": "not a run directory",
    "export tiny.yaml": "missing option '--to'",
    "export tiny.yaml --to csv -o x": "tsv",
    "export tiny.yaml --to tsv --split ood": "-o",
    "export tiny.yaml --to tsv --split oof -o x": "splits: train, val, ood",
    "export tiny.yaml --to tsv --split ood -o nowhere/x": "no directory",
    "export foreign --to weights -o x": "not a run directory",
    "list modles": "did you mean 'models'",
    "test-component modle x": "unknown kind",
    "test-component model file.py:X": "cannot import",
    "test-component model transformer d_modle=3": "did you mean 'd_model'",
}


@pytest.mark.parametrize("line", CASES)
def test_one_line_and_status_2(place: Path, lexarium, line: str) -> None:
    before = sorted(p.name for p in (place / "runs").iterdir())
    answer = lexarium(*line.split())
    assert answer.status == 2, answer
    (told,) = answer.err.splitlines()
    assert told.startswith("error: ") and CASES[line] in told.lower(), told
    assert answer.out == ""
    assert sorted(p.name for p in (place / "runs").iterdir()) == before


def test_debug_shows_the_trace_as_well(place: Path, lexarium) -> None:
    answer = lexarium("check", "--debug", "nope")
    assert answer.status == 2
    assert "Traceback" in answer.err and answer.err.splitlines()[-1].startswith("error: ")


def test_plug_in_that_cannot_be_imported_is_a_users_mistake(place: Path, lexarium) -> None:
    (place / "mine.py").write_text("x = undefined\n")
    answer = lexarium("check", "run.yaml", "model.type=mine.py:Model")
    assert answer.status == 2 and "NameError" in answer.err and len(answer.err.splitlines()) == 1


def test_a_bug_says_so_and_keeps_its_trace(lexarium, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(list_verb.registry, "summaries", broken)
    answer = lexarium("list")
    (told,) = answer.err.splitlines()
    assert answer.status == 1 and "bug" in told and "ZeroDivisionError: oh" in told and "--debug" in told
    trace = Path(told.split("the trace is in ")[1].split(";")[0])
    assert "ZeroDivisionError: oh" in trace.read_text()
    trace.unlink()


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(kind: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(list_verb.registry, "summaries", interrupted)
    assert main(["list"]) == 130


def test_no_verb_is_help(lexarium) -> None:
    for arguments in ([], ["study"]):
        answer = lexarium(*arguments)
        assert answer.status == 0 and "Commands:" in answer.out and not answer.err
