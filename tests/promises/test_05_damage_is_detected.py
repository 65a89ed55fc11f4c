"""Promise 5: a flipped byte or a missing file is noticed and named; training and evaluation go on from the
previous good checkpoint, say so, and end as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.builders import record, tiny_run

from lexarium.foundation.files import Damaged, read_lines, verify
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run
from lexarium.training import checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with checkpoints at 5, 10 and 12."""
    run = tiny_run(tmp_path_factory.mktemp("trained"))
    run.train()
    return run


@pytest.fixture
def copy(trained: Run, tmp_path: Path) -> Run:
    """A copy that may be damaged, store included."""
    shutil.copytree(trained.runs_dir, tmp_path / "runs")
    return Run.open(tmp_path / "runs" / trained.path.name)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_found_wherever_it_is(copy: Run, file: str) -> None:
    path = checkpoint.directory(copy.path, 12) / file
    size = path.stat().st_size
    places = range(size) if file == "manifest.json" else [0, 7, size // 3, size // 2, size - 2, size - 1]
    original = path.read_bytes()
    for place in places:
        flip(path, place)
        if file == "manifest.json" and same_json(path.read_bytes(), original):
            path.write_bytes(original)
            continue  # a line break that became another blank: nothing a reader could see
        with pytest.raises(Damaged, match=r"checksum|not valid JSON|missing|expected"):
            verify(path.parent)
        step, said = checkpoint.newest(copy.path)
        assert step == 10
        assert len(said) == 1 and "skipped checkpoint 12" in said[0] and "step-00000012" in said[0]
        path.write_bytes(original)
    verify(path.parent)


def same_json(data: bytes, other: bytes) -> bool:
    try:
        return json.loads(data) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_cut_file_is_found(copy: Run, file: str) -> None:
    path = checkpoint.directory(copy.path, 12) / file
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert checkpoint.newest(copy.path)[0] == 10
    path.write_bytes(b"")
    assert checkpoint.newest(copy.path)[0] == 10
    path.unlink()
    step, said = checkpoint.newest(copy.path)
    assert step == 10 and file in said[0]


def test_several_damaged_checkpoints_are_passed_over(copy: Run) -> None:
    for step in (12, 10):
        flip(checkpoint.directory(copy.path, step) / "model.safetensors", 100)
    step, said = checkpoint.newest(copy.path)
    assert step == 5
    assert [message.split(":")[0] for message in said] == ["skipped checkpoint 12", "skipped checkpoint 10"]
    flip(checkpoint.directory(copy.path, 5) / "state.json", 1)
    assert checkpoint.newest(copy.path)[0] is None
    with pytest.raises(UserError, match="no complete checkpoint"):
        copy.model()


@pytest.mark.parametrize("damaged", [(12,), (12, 10), (12, 10, 5)], ids=["last", "two", "all"])
def test_training_goes_on_from_the_last_good_one_and_repairs_the_rest(
    copy: Run, trained: Run, damaged: tuple[int, ...]
) -> None:
    for step in damaged:
        flip(checkpoint.directory(copy.path, step) / "model.safetensors", 100)
    copy.files.set_status(state="running", step=12)  # killed just before its status said `done`
    said: list[str] = []
    assert copy.train(say=said.append) == "done"
    assert [s for s in said if "skipped checkpoint" in s] != []
    events = [e for e in read_lines(copy.path / "events.jsonl") if e["event"] == "checkpoint skipped"]
    assert len(events) == len(damaged)
    assert checkpoint.steps(copy.path) == [5, 10, 12]
    for step in (5, 10, 12):
        verify(checkpoint.directory(copy.path, step))
    assert record(copy) == record(trained)
    aside = next(copy.path.glob("discarded-*")) / "checkpoints"
    assert sorted(int(p.name[5:]) for p in aside.iterdir()) == sorted(damaged)


def test_a_damaged_checkpoint_does_not_push_out_good_rolling_ones(tmp_path: Path) -> None:
    """With rolling checkpoints only the newest are kept; a damaged later one must not count among them."""
    run = tiny_run(tmp_path, checkpoint={"every": 0, "minutes": 1e-9, "keep": 2}, train={"max_steps": 8})
    run.train()
    assert checkpoint.steps(run.path) == [6, 7, 8]
    flip(checkpoint.directory(run.path, 7) / "model.safetensors", 100)
    shutil.rmtree(checkpoint.directory(run.path, 8))
    run.files.set_status(state="running", step=7)
    assert Run.open(run.path).train() == "done"
    assert checkpoint.newest(run.path) == (8, [])
    assert checkpoint.steps(run.path) == [6, 7, 8]


def test_a_checkpoint_asked_for_by_step_is_verified_too(copy: Run) -> None:
    flip(checkpoint.directory(copy.path, 10) / "model.safetensors", -20)
    with pytest.raises(Damaged, match=r"step-00000010/model\.safetensors"):
        copy.model(10)


def test_a_cut_line_of_a_log_does_no_harm(copy: Run) -> None:
    """Power loss may leave half a line; the next line must not be glued to it."""
    for name in ("metrics.jsonl", "events.jsonl"):
        with (copy.path / name).open("ab") as file:
            file.write(b'{"step":')
    shutil.rmtree(checkpoint.directory(copy.path, 12))
    copy.files.set_status(state="running", step=10)
    assert copy.train() == "done"
    assert [e["event"] for e in read_lines(copy.path / "events.jsonl")][-1] == "done"
    assert [m["step"] for m in read_lines(copy.path / "metrics.jsonl")] == [5, 10, 12]


def test_who_asks_for_the_newest_is_told_of_a_damaged_one(
    copy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(checkpoint.directory(copy.path, 12) / "model.safetensors", 100)
    copy.scorer()
    told = capsys.readouterr().err
    assert "WARNING: skipped checkpoint 12" in told and told.strip().endswith("step 10 is read in its place")
    copy.scorer(10)
    assert not capsys.readouterr().err
