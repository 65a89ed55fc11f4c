"""Promise 29: a full disk loses nothing. Checkpoint, metrics, evaluation and store writing stop with a clear
message, the previous checkpoint stays valid, and after space is freed the run ends as if nothing had happened.

A disk that fills up is simulated in the write layer: from the n-th write on, every write stores half of its
bytes and fails with ENOSPC. Where mounting is possible a small tmpfs really fills up.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders import record, tiny_config, tiny_run
from lexarium.foundation import files
from lexarium.foundation.files import DiskError, read_json, read_lines, verify
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run
from lexarium.tokens import prepare as preparation
from lexarium.tokens.prepare import prepare
from lexarium.training import checkpoint
from toy import corpus_config, tokenizer_config, write_corpus

OPTIONS = {
    "train": {"max_steps": 4, "global_batch_size": 4, "micro_batch_size": None, "log_every": 1},
    "checkpoint": {"every": 2},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 2}],
}
Fill = Callable[[int], list[int]]


@pytest.fixture
def fill() -> Iterator[Fill]:
    """`fill(n)`: the disk is full from the n-th write on; `fill(0)` frees it. Returns the counter of writes."""
    with pytest.MonkeyPatch.context() as patch:
        count, full_at = [0], [0]

        def wrap(real: Callable[[int, bytes], None]) -> Callable[[int, bytes], None]:
            def write(descriptor: int, data: bytes) -> None:
                count[0] += 1
                if full_at[0] and count[0] >= full_at[0]:
                    os.write(descriptor, data[: len(data) // 2])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                real(descriptor, data)

            return write

        for name in ("_write", "_append"):
            patch.setattr(files, name, wrap(getattr(files, name)))

        def at(n: int) -> list[int]:
            count[0], full_at[0] = 0, n
            return count

        yield at


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores that has what the run needs."""
    config, folder = tiny_config(**OPTIONS), tmp_path_factory.mktemp("stores")
    prepare(config.corpus, config.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def reference(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The run on a disk that never fills."""
    run = fresh(store, tmp_path_factory.mktemp("reference"))
    assert run.train() == "done"
    return record(run)


def fresh(store: Path, folder: Path) -> Run:
    shutil.copytree(store, folder / "stores", dirs_exist_ok=True)
    return tiny_run(folder, **OPTIONS)


def leftovers(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.name.endswith((".tmp", ".old"))]


def check_after_failure(run: Run, reached: int) -> None:
    """What was complete is complete: checkpoints verify, logs hold whole lines, results are whole files."""
    for step in checkpoint.steps(run.path):
        verify(checkpoint.directory(run.path, step))
    assert checkpoint.newest(run.path)[0] in (None, 2, 4)
    for name in ("metrics.jsonl", "timing.jsonl", "events.jsonl"):
        path = run.path / name
        assert not path.exists() or not path.read_bytes() or path.read_bytes().endswith(b"\n")
        read_lines(path)
    for path in run.path.glob("evals/*/*.json"):
        read_json(path)
    assert not leftovers(run.path)


def full_then_freed(store: Path, folder: Path, fill: Fill, n: int, reference: dict[str, str]) -> None:
    run = fresh(store, folder)
    fill(n)
    with pytest.raises(
        DiskError,
        match=r"the disk is full; free some space and run the same command again\. What was complete before is unchanged",
    ) as caught:
        run.train()
    assert str(folder) in str(caught.value)
    check_after_failure(run, n)
    fill(0)
    again = Run.open(run.path)
    assert again.train(retry=True) == "done"
    assert {k: v for k, v in record(again).items()} == reference
    assert again.files.status()["state"] == "done" and not leftovers(run.path)


def writes_of_a_run(store: Path, folder: Path, fill: Fill) -> int:
    run, count = fresh(store, folder), fill(0)
    run.train()
    return count[0]


@pytest.mark.parametrize("part", (0, 2, 3, 5, 7))
def test_training_on_a_disk_that_fills_up(
    store: Path, tmp_path: Path, fill: Fill, reference: dict, part: int
) -> None:
    """Moments spread over all writes of a run; the first and the last among them."""
    total = writes_of_a_run(store, tmp_path / "count", fill)
    full_then_freed(store, tmp_path / "run", fill, 1 + part * (total - 1) // 7, reference)


@pytest.mark.slow
def test_training_on_a_disk_that_fills_up_at_every_write(
    store: Path, tmp_path: Path, fill: Fill, reference: dict
) -> None:
    total = writes_of_a_run(store, tmp_path / "count", fill)
    assert total > 20
    for n in range(1, total + 1):
        full_then_freed(store, tmp_path / f"run{n}", fill, n, reference)


def test_every_file_of_a_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: dict
) -> None:
    """Full while the checkpoint of step 4 is written: that of step 2 stays, at each of its four files."""
    real = files._write
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        run = fresh(store, tmp_path / name)

        def write(descriptor: int, data: bytes, name: str = name) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if "step-00000004" in path and f".{name}." in path and "checkpoints" in path:
                os.write(descriptor, data[:5])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor, data)

        monkeypatch.setattr(files, "_write", write)
        with pytest.raises(DiskError, match=rf"{name}: the disk is full"):
            run.train()
        monkeypatch.setattr(files, "_write", real)
        assert checkpoint.newest(run.path) == (2, [])
        assert run.files.status()["state"] == "failed" and "the disk is full" in run.files.status()["message"]
        with pytest.raises(UserError, match="failed before .*the disk is full.*add --retry"):
            Run.open(run.path).train()
        assert Run.open(run.path).train(retry=True) == "done"
        assert record(run) == reference


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_preparing_on_a_disk_that_fills_up_at_every_write(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PART", 2)
    config = corpus_config(
        write_corpus(tmp_path / "corpus", {"train": ["a b", "c", "d e", "f"], "val": ["a"]})
    )
    count = fill(0)
    whole = contents(prepare(config, tokenizer_config(), tmp_path / "whole").folder)
    total = count[0]
    assert total > 10
    for n in range(1, total + 1):
        root = tmp_path / f"full{n}"
        fill(n)
        with pytest.raises(DiskError, match="the disk is full; free some space"):
            prepare(config, tokenizer_config(), root)
        assert not list(root.glob("*/manifest.json")) and not leftovers(root)
        fill(0)
        assert contents(prepare(config, tokenizer_config(), root).folder) == whole
        assert len(list(root.iterdir())) == 1


@pytest.mark.parametrize("workers", [2])
def test_workers_on_a_full_disk(small_disk: Callable[[int], Path], tmp_path: Path, workers: int) -> None:
    """Workers have a write layer of their own: only a disk that is really full reaches them."""
    place = small_disk(96 * 1024)
    config = corpus_config(write_corpus(tmp_path / "corpus", {"train": [f"w{i} " * 40 for i in range(1000)]}))
    with pytest.raises(DiskError, match="the disk is full"):
        prepare(config, tokenizer_config(), place, workers)
    assert not list(place.glob("*/manifest.json"))


# --- a disk that is really small ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A tmpfs of a given size in bytes; skipped where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
            )
        except OSError as error:
            pytest.skip(f"no mount here: {error}")
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # a store may still be mapped


def test_a_disk_that_is_really_full(small_disk: Callable[[int], Path], store: Path, reference: dict) -> None:
    """Room for the store and the first checkpoint; then a large file takes the rest, and is removed again."""
    place = small_disk(3 << 20)
    run = fresh(store, place / "runs")
    ballast = place / "ballast"

    def grow(step: int) -> None:
        if step == 3 and not ballast.exists():
            descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                while os.write(descriptor, b"x" * 4096):
                    pass
            os.close(descriptor)

    with pytest.raises(DiskError, match="the disk is full; free some space and run the same command again"):
        run.train(progress=grow)
    check_after_failure(run, 3)
    assert checkpoint.newest(run.path)[0] == 2
    ballast.unlink()
    assert Run.open(run.path).train(retry=True) == "done"
    assert record(run) == reference
