"""Promise 4: no reader ever sees a partial checkpoint.

Every call that touches the disk is made to fail in turn: with an error, which the writer cleans up after,
and as if the process had died there, which leaves everything as it lies. A reader then finds the previous
checkpoint, or the new one complete; the next start removes what was left over.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.builders import tiny_run

from lexarium.foundation import files
from lexarium.foundation.files import Directory, DiskError, remove_leftovers, verify, write_atomic
from lexarium.studies.run import Run
from lexarium.training import checkpoint


class Died(BaseException):
    """Stands for the death of the process."""


TOUCHES = [(files, "_write"), (files, "sync_directory"), (Path, "replace"), (Path, "rename"), (Path, "mkdir")]


@contextmanager
def failing_at(call: int, error: BaseException) -> Iterator[list[int]]:
    """Raise at the n-th call that touches the disk (-1: never); a write fails after half of its bytes.

    `Died` also disables what an exception handler would clean up. Yields a list with the number of calls.
    """
    calls, made = itertools.count(), [0]
    patch = pytest.MonkeyPatch()

    def wrap(name: str, function: Callable) -> Callable:
        def touch(*args, **kwargs):
            made[0] += 1
            if next(calls) == call:
                if name == "_write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                if isinstance(error, Died):
                    patch.setattr(shutil, "rmtree", lambda *a, **k: None)
                    patch.setattr(Path, "unlink", lambda *a, **k: None)
                raise error
            return function(*args, **kwargs)

        return touch

    for owner, name in TOUCHES:
        patch.setattr(owner, name, wrap(name, getattr(owner, name)))
    try:
        yield made
    finally:
        patch.undo()


def save(run: Path, step: int) -> None:
    """A checkpoint whose weights are all equal to its step."""
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, float(step))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.write(checkpoint.directory(run, step), model, optimizer, {"step": step})


def calls_of(action: Callable[[], None]) -> int:
    with failing_at(-1, Died()) as made:
        action()
    return made[0]


@pytest.fixture(scope="module")
def n_calls(tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("count")
    save(folder, 1)
    n = calls_of(lambda: save(folder, 2))
    assert n >= 4 * 3 + 2  # write, replace and sync of each of four files; rename and sync of the directory
    return n


ERRORS = {
    "error": OSError(errno.EIO, "input/output error"),
    "full": OSError(errno.ENOSPC, "full"),
    "death": Died(),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_failure_at_every_call_of_a_save(kind: str, tmp_path: Path, n_calls: int) -> None:
    previous_found = 0
    for call in range(n_calls):
        run = tmp_path / str(call)
        save(run, 1)
        expected = DiskError if kind == "full" else type(ERRORS[kind])
        with pytest.raises(expected), failing_at(call, ERRORS[kind]):
            save(run, 2)
        step, skipped = checkpoint.newest(run)
        assert step in (1, 2) and not skipped, f"call {call}"
        assert checkpoint.steps(run) == [1, 2][:step], f"call {call}: a step that is visible but not good"
        previous_found += step == 1
        if kind != "death":  # the writer lived on and tidied up
            assert not list((run / "checkpoints").glob(".*")), f"call {call}"
        remove_leftovers(run / "checkpoints")
        assert not list((run / "checkpoints").glob(".*")), f"call {call}"
        save(run, 3)
        assert checkpoint.newest(run) == (3, [])
    assert previous_found == n_calls - 1  # all but the sync after the rename


@pytest.mark.parametrize("kind", ERRORS)
def test_replacing_a_directory_keeps_the_old_or_the_new(kind: str, tmp_path: Path) -> None:
    def put(content: str) -> None:
        with Directory(tmp_path / "data") as directory:
            directory.write("a", content)
            directory.write("b", content)
            directory.commit()

    put("old")
    n = calls_of(lambda: put("new"))
    for call in range(n):
        put("old")
        with pytest.raises((OSError, DiskError, Died)), failing_at(call, ERRORS[kind]):
            put("new")
        remove_leftovers(tmp_path)
        verify(tmp_path / "data")
        found = {name: (tmp_path / "data" / name).read_text() for name in "ab"}
        assert found in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"}), f"call {call}"
        assert [p.name for p in tmp_path.iterdir()] == ["data"], f"call {call}"


@pytest.mark.parametrize("kind", ERRORS)
def test_a_single_file_is_old_or_new(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    file.write_text("old")
    for call in range(calls_of(lambda: write_atomic(file, "old"))):
        file.write_text("old")
        with pytest.raises((OSError, DiskError, Died)), failing_at(call, ERRORS[kind]):
            write_atomic(file, "new")
        assert file.read_text() in ("old", "new")


def test_a_reader_that_never_stops_looking(tmp_path: Path) -> None:
    save(tmp_path, 0)
    seen: set[int] = set()
    problems: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            step, skipped = checkpoint.newest(tmp_path)
            problems.extend(skipped if step is not None else ["no checkpoint"])
            seen.add(step if step is not None else -1)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 25):
        save(tmp_path, step)
    over.set()
    reader.join()
    assert not problems
    assert len(seen) > 1


def test_the_next_start_removes_leftovers(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    unfinished = run.path / "checkpoints" / ".step-00000005.0123abcd.tmp"
    unfinished.mkdir(parents=True)
    (unfinished / "model.safetensors").write_bytes(b"half")
    others = [
        run.path / ".status.json.0123abcd.tmp",
        run.path / "evals" / "loss" / ".step-00000004.json.0123abcd.tmp",
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    assert Run.open(run.path).train() == "done"
    left = [p for p in run.path.rglob("*") if p.name.endswith((".tmp", ".old"))]
    assert left == []
