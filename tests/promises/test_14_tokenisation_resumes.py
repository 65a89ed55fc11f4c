"""Promise 14: preparation killed at any moment goes on to the same bytes, whatever the number of workers.

A child process prepares a corpus of many small parts and is killed with SIGKILL after a random time; the
next child goes on. A document that cannot be tokenised fails the command, naming its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexarium.foundation import files, registry
from lexarium.foundation.rng import generator
from lexarium.foundation.types import Document, UserError
from lexarium.tokens import prepare as preparation
from lexarium.tokens.prepare import prepare
from lexarium.tokens.store import TokenStore
from toy import corpus_config, tokenizer_config, write_corpus

CHILD = f"""
import os, sys, time
from pathlib import Path
folder, root, workers, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
sys.path.insert(0, {str(Path(__file__).parents[1])!r})

def main():
    from toy import corpus_config, tokenizer_config
    from lexarium.tokens import prepare
    prepare.PART = 20
    try:
        prepare.prepare(corpus_config(folder), tokenizer_config(), root, workers, progress=lambda *told: time.sleep(pause))
    except prepare.UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = generator(0, "promise 14")

    def document(split: str) -> Document:
        words = [f"w{random.integers(0, 300)}" for _ in range(random.integers(1, 12))]
        text = " ".join(words)
        return Document(text, {"kind": split, "n": len(words)}, {"place": range(len(text))})

    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(
        folder, {s: [document(s) for _ in range(n)] for s, n in (("train", 310), ("val", 45))}
    )


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("child") / "child.py"
    path.write_text(CHILD)
    return path


def contents(store: TokenStore) -> dict[str, str]:
    return {
        str(p.relative_to(store.folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(store.folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def reference(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Uninterrupted, in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "PART", 20)
        store = prepare(corpus_config(corpus), tokenizer_config(), tmp_path_factory.mktemp("reference"))
    store.verify()
    assert len(store.split("train").parts) == 16
    return contents(store)


def start(script: Path, corpus: Path, root: Path, workers: int, pause: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, str(script), str(corpus), str(root), str(workers), str(pause)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finished_parts(root: Path) -> int:
    return len(list(root.glob("*/jobs/*.json")))


def kill_at_random(script: Path, corpus: Path, root: Path, workers: int, seed: int) -> None:
    """Kill a child, its workers too, some parts after it has begun."""
    process = start(script, corpus, root, workers, pause=0.01)
    random = generator(seed, "kill")
    goal, deadline = finished_parts(root) + int(random.integers(0, 8)), time.monotonic() + 60
    while finished_parts(root) < goal and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(float(random.random()) * 0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kills_and_finish(script: Path, corpus: Path, root: Path, workers: int, kills: int) -> TokenStore:
    for seed in range(kills):
        kill_at_random(script, corpus, root, workers, seed)
    process = start(script, corpus, root, workers)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (folder,) = root.iterdir()
    return TokenStore(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_three_times(
    script: Path, corpus: Path, tmp_path: Path, reference: dict, workers: int
) -> None:
    assert contents(kills_and_finish(script, corpus, tmp_path, workers, kills=3)) == reference


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_killed_twenty_times(
    script: Path, corpus: Path, tmp_path: Path, reference: dict, workers: int
) -> None:
    assert contents(kills_and_finish(script, corpus, tmp_path, workers, kills=20)) == reference


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def die_at(n: int, patch: pytest.MonkeyPatch) -> list[int]:
    """The n-th write of bytes, or rename, ends the process half-way; temporary files stay. Returns the counter."""
    count, write, rename, unlink = [0], files._write, Path.rename, Path.unlink

    def step() -> None:
        count[0] += 1
        if count[0] == n:
            raise Killed

    def dying_write(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        step()
        os.lseek(descriptor, 0, os.SEEK_SET)
        write(descriptor, data)

    def dying_rename(self: Path, target: Path) -> Path:
        step()
        return rename(self, target)

    def leaving(self: Path, missing_ok: bool = False) -> None:
        if not self.name.endswith(".tmp") or self.name.startswith(".owner"):
            unlink(self, missing_ok)

    patch.setattr(files, "_write", dying_write)
    patch.setattr(Path, "rename", dying_rename)
    patch.setattr(Path, "unlink", leaving)
    return count


def test_ended_at_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, cut at each write and rename in turn."""
    monkeypatch.setattr(preparation, "PART", 3)
    documents = [Document(f"a b{i}", {"n": i}) for i in range(5)]
    config = corpus_config(write_corpus(tmp_path / "corpus", {"train": documents, "val": documents[:1]}))
    whole, n, count = contents(prepare(config, tokenizer_config(), tmp_path / "whole")), 0, [0]
    while count[0] == n:
        n += 1
        root = tmp_path / f"cut{n}"
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            count = die_at(n, patch)
            prepare(config, tokenizer_config(), root)
        assert contents(prepare(config, tokenizer_config(), root)) == whole, f"cut at step {n}"
        assert len(list(root.iterdir())) == 1, f"cut at step {n} left {sorted(root.iterdir())}"
    assert n > 15


def test_finished_parts_are_not_built_again(
    corpus: Path, script: Path, tmp_path: Path, reference: dict
) -> None:
    process = start(script, corpus, tmp_path, 0, pause=0.05)
    while finished_parts(tmp_path) < 6:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/store/train/part-0000[0-4].*")}
    assert len(before) == 5 * 4
    process = start(script, corpus, tmp_path, 0)
    process.communicate(timeout=120)
    (folder,) = tmp_path.iterdir()
    assert contents(TokenStore(folder)) == reference
    assert {folder / "train" / p.name: t for p, t in before.items()} == {
        p: p.stat().st_mtime_ns for p in folder.glob("train/part-0000[0-4].*")
    }


# --- failing parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_part_fails_the_command_with_its_place(script: Path, tmp_path: Path, workers: int) -> None:
    texts = [f"w{i}" for i in range(200)]
    texts[137] = "  "
    write_corpus(tmp_path / "corpus", {"train": texts})
    process = start(script, tmp_path / "corpus", tmp_path / "stores", workers)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip() == "document 137 of split 'train': has no token ('  ')"
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_worker_that_dies_is_told_and_what_is_complete_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PART", 10)
    path = tmp_path / "deadly.py"
    path.write_text(
        "import os\n"
        "from lexarium.foundation.config import ComponentConfig\n"
        "from lexarium.tokens.tokenizers import WordTokenizer\n"
        "class Deadly(WordTokenizer):\n"
        "    kind, name, version = 'tokenizer', 'deadly', 1\n"
        "    class Config(ComponentConfig):\n"
        f"        type: str = '{path}:Deadly'\n"
        "    def encode(self, text):\n"
        "        if text == 'w35' and 'POISON' in os.environ:\n"
        "            os._exit(9)\n"
        "        return super().encode(text)\n"
    )
    config = registry.find("tokenizer", f"{path}:Deadly").Config()
    write_corpus(tmp_path / "corpus", {"train": [f"w{i}" for i in range(60)]})
    monkeypatch.setenv("POISON", "1")
    with pytest.raises(
        UserError, match="a worker process died .*run the same command again with fewer workers than 2"
    ):
        prepare(corpus_config(tmp_path / "corpus"), config, tmp_path / "stores", workers=2)
    assert finished_parts(tmp_path / "stores") >= 2
    monkeypatch.delenv("POISON")
    assert (
        len(
            prepare(corpus_config(tmp_path / "corpus"), config, tmp_path / "stores", workers=2).split("train")
        )
        == 60
    )


# --- several at once --------------------------------------------------------------------------------


def test_two_processes_prepare_one_good_store(
    script: Path, corpus: Path, tmp_path: Path, reference: dict
) -> None:
    """The second is told that the first is at work; if it asks to wait, it finds the finished store."""
    first = start(script, corpus, tmp_path, 0, pause=0.1)
    while finished_parts(tmp_path) < 2:
        time.sleep(0.005)
    ask = lambda **wait: prepare(corpus_config(corpus), tokenizer_config(), tmp_path, **wait)
    with pytest.raises(UserError, match=f"in use by process {first.pid} .*wait for it to finish or stop it"):
        ask()
    told: list[str] = []
    store = ask(wait=lambda message: bool(told.append(message)) or True)
    first.communicate()
    assert first.returncode == 0 and told
    assert contents(store) == reference
    assert [p.name for p in tmp_path.iterdir()] == [store.folder.name]


def test_the_manifest_holds_every_part(
    reference: dict, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PART", 20)
    store = prepare(corpus_config(corpus), tokenizer_config(), tmp_path)
    for split in store.splits:
        parts = store.manifest["splits"][split]["parts"]
        assert [p["name"] for p in parts] == [f"part-{i:05d}" for i in range(len(parts))]
        held = {file for part in parts for file in part["files"]}
        assert held == {path.name for path in (store.folder / split).iterdir()}


# --- text files -------------------------------------------------------------------------------------

TEXT_CHILD = """
import sys
from pathlib import Path

def main():
    from lexarium.cli.main import main
    return main(["prepare", sys.argv[1], "tokenizer.vocab_size=400", "tokenizer.sample_bytes=20000",
                 "--runs-dir", sys.argv[2], "--workers", sys.argv[3]])

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of six files of text, and what a preparation that nobody disturbs makes of it."""
    folder = tmp_path_factory.mktemp("text") / "texts"
    folder.mkdir()
    random = generator(1, "text")
    for i in range(6):
        words = [f"w{n}" for n in random.integers(0, 500, 60_000)]
        lines = (" ".join(words[j : j + 12]) for j in range(0, len(words), 12))
        (folder / f"{i}.txt").write_text("\n".join(lines))
    corpus = registry.find("corpus", "text_files").Config(path=str(folder))
    tokenizer = registry.find("tokenizer", "bpe").Config(vocab_size=400, sample_bytes=20_000)
    return folder, contents(prepare(corpus, tokenizer, folder.parent / "stores"))


@pytest.mark.parametrize("workers", [0, 2])
def test_text_files_killed_and_gone_on(
    texts: tuple[Path, dict[str, str]], tmp_path: Path, workers: int
) -> None:
    """The whole group of processes is killed after the first records, then after some more."""
    folder, whole = texts
    script = tmp_path / "child.py"
    script.write_text(TEXT_CHILD)

    def begin() -> subprocess.Popen:
        command = [sys.executable, str(script), str(folder), str(tmp_path), str(workers)]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    killed = 0
    for goal in (1, 3):
        process, deadline = begin(), time.monotonic() + 120
        while finished_parts(tmp_path / "stores") < goal and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    process = begin()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (store,) = (tmp_path / "stores").iterdir()
    assert killed and contents(TokenStore(store)) == whole
