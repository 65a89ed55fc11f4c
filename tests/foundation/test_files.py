"""Nobody ever sees half a file: atomic writes, whole directories, appended lines, and what is left of dead writers."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation import files
from lexarium.foundation.files import (
    Damaged,
    Directory,
    DiskError,
    append_line,
    dumps,
    dumps_line,
    read_json,
    read_lines,
    remove_leftovers,
    sha256_file,
    sha256_json,
    verify,
    write_atomic,
    write_json,
)

Fault = Callable[[int, OSError], None]


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """`fail_at(n, code)`: the n-th call that writes bytes writes half of them and raises; returns the counter."""

    def install(n: int, code: int = errno.ENOSPC) -> list[int]:
        count = [0]
        for name in ("_write", "_append"):
            real = getattr(files, name)

            def write(descriptor: int, data: bytes, real: Callable = real) -> None:
                count[0] += 1
                if count[0] == n:
                    os.write(descriptor, data[: len(data) // 2])
                    raise OSError(code, os.strerror(code))
                real(descriptor, data)

            monkeypatch.setattr(files, name, write)
        return count

    return install


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- single files -----------------------------------------------------------------------------------


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "c.txt", "é\n")
    assert tree(tmp_path) == {"a/b/c.txt": "é\n".encode()}


def test_a_long_file_is_written_whole_whatever_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.write` may take fewer bytes than it is given."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:7])))
    data = bytes(range(256)) * 5
    write_atomic(tmp_path / "x", data)
    append_line(tmp_path / "y", "z" * 100)
    assert (tmp_path / "x").read_bytes() == data
    assert (tmp_path / "y").read_text() == "z" * 100 + "\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "cannot be written .*choose another directory or change its rights"),
        (errno.EACCES, "cannot be written"),
    ],
)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, fail_at: Callable, code: int, message: str
) -> None:
    write_atomic(tmp_path / "x", "old")
    fail_at(1, code)
    with pytest.raises(DiskError, match=message) as caught:
        write_atomic(tmp_path / "x", "new")
    assert str(tmp_path / "x") in str(caught.value) and "What was complete before is unchanged" in str(
        caught.value
    )
    assert tree(tmp_path) == {"x": b"old"}


def test_other_failures_are_not_dressed_up(tmp_path: Path, fail_at: Callable) -> None:
    fail_at(1, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomic(tmp_path / "x", "new")
    assert not isinstance(caught.value, DiskError)
    assert tree(tmp_path) == {}


def test_a_failed_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(DiskError):
        write_atomic(tmp_path / "x", "new")
    assert tree(tmp_path) == {}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises((DiskError, OSError)):
        write_atomic(tmp_path / "a" / "b", "x")


# --- JSON -------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_json_round_trip(data: object) -> None:
    assert json.loads(dumps(data)) == data
    line = dumps_line(data)
    assert json.loads(line) == data and "\n" not in line


def test_json_is_canonical() -> None:
    assert dumps({"b": 1, "a": [1.5, "é"]}) == dumps({"a": (1.5, "é"), "b": 1})
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    assert sha256_json({"b": "é", "a": 2}) == hashlib.sha256(b'{"a":2,"b":"\\u00e9"}').hexdigest()


def test_json_of_numbers_that_json_lacks() -> None:
    data = {
        "a": math.nan,
        "b": [math.inf, -math.inf],
        "c": np.float32(0.5),
        "d": np.int64(3),
        "e": Path("x/y"),
    }
    assert json.loads(dumps(data)) == {"a": "nan", "b": ["inf", "-inf"], "c": 0.5, "d": 3, "e": "x/y"}


@pytest.mark.parametrize("text", ["", '{"a": 1', "{'a': 1}", "\0", "\xff"])
def test_json_that_cannot_be_read_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(Damaged, match=r"x\.json: not valid JSON .*cut or edited"):
        read_json(tmp_path / "x.json")


# --- lines ------------------------------------------------------------------------------------------


@given(lines=st.lists(st.dictionaries(st.text(max_size=3), st.integers()), max_size=5))
def test_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    for line in lines:
        append_line(path, dumps_line(line))
    assert read_lines(path) == lines


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_unfinished_last_line_is_left_out_and_then_overwritten(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.jsonl"
    append_line(path, '{"a":1}')
    append_line(path, '{"b":2}')
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_lines(path) == [{"a": 1}]
    append_line(path, '{"c":3}')
    assert read_lines(path) == [{"a": 1}, {"c": 3}]


def test_a_damaged_line_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a":1}\n{"b":\n{"c":3}\n')
    with pytest.raises(Damaged, match=r"x\.jsonl:2: not a JSON line"):
        read_lines(tmp_path / "x.jsonl")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_append_is_cut_off(tmp_path: Path, fail_at: Callable, code: int) -> None:
    path = tmp_path / "x.jsonl"
    append_line(path, '{"a":1}')
    before = path.read_bytes()
    fail_at(1, code)
    with pytest.raises(DiskError if code == errno.ENOSPC else OSError):
        append_line(path, '{"b":2}')
    assert path.read_bytes() == before


# --- directories ------------------------------------------------------------------------------------


def build(path: Path, content: str = "1") -> None:
    with Directory(path) as directory:
        directory.write("a.txt", content)
        directory.write("sub/b.bin", b"\0\1")
        (directory.building / "c.txt").write_text("c" + content)
        directory.add("c.txt")
        directory.commit(note=content)


def test_a_directory_appears_with_its_manifest(tmp_path: Path) -> None:
    build(tmp_path / "d")
    assert set(tree(tmp_path)) == {"d/a.txt", "d/sub/b.bin", "d/c.txt", "d/manifest.json"}
    manifest = verify(tmp_path / "d")
    assert manifest["note"] == "1"
    assert {n: (e["size"], e["sha256"]) for n, e in manifest["files"].items()} == {
        n: ((tmp_path / "d" / n).stat().st_size, sha256_file(tmp_path / "d" / n))
        for n in ("a.txt", "sub/b.bin", "c.txt")
    }


def test_a_directory_replaces_an_older_one(tmp_path: Path) -> None:
    build(tmp_path / "d")
    build(tmp_path / "d", "2")
    assert verify(tmp_path / "d")["note"] == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("older", [False, True])
def test_a_directory_that_fails_at_any_write_is_not_there(
    tmp_path: Path, fail_at: Callable, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        build(tmp_path / "d", "old")
    before = tree(tmp_path)
    for n in range(1, 4):  # a.txt, sub/b.bin, manifest.json
        with monkeypatch.context():
            fail_at(n)
            with pytest.raises(DiskError):
                build(tmp_path / "d", "new")
        monkeypatch.undo()
        assert tree(tmp_path) == before
        assert [p for p in tmp_path.iterdir() if p.name != "d"] == []
    count = fail_at(99)
    build(tmp_path / "d", "new")
    assert count[0] == 3, "every write was made to fail once"
    assert verify(tmp_path / "d")["note"] == "new"


def test_a_directory_that_is_not_committed_is_not_there(tmp_path: Path) -> None:
    with Directory(tmp_path / "d") as directory:
        directory.write("a", "x")
    with pytest.raises(RuntimeError), Directory(tmp_path / "e") as directory:
        directory.write("a", "x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_directory_whose_rename_fails_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    build(tmp_path / "d", "old")
    before, real, count = tree(tmp_path), Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == failing:
            raise OSError(errno.ENOSPC, "full")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DiskError):
        build(tmp_path / "d", "new")
    assert tree(tmp_path) == before


@given(st.data())
def test_any_flipped_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flip") / "d"
    build(folder)
    path = folder / data.draw(st.sampled_from(["a.txt", "sub/b.bin", "c.txt", "manifest.json"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    with pytest.raises(Damaged, match=path.name if path.name != "manifest.json" else str(folder)):
        verify(folder)


@pytest.mark.parametrize("name", ["a.txt", "sub/b.bin", "manifest.json"])
def test_missing_and_short_files_are_named(tmp_path: Path, name: str) -> None:
    build(tmp_path / "d")
    path = tmp_path / "d" / name
    path.write_bytes(path.read_bytes()[: -1 if path.suffix != ".json" else -3])
    with pytest.raises(Damaged, match=path.name):
        verify(tmp_path / "d")
    path.unlink()
    with pytest.raises(Damaged, match=path.name):
        verify(tmp_path / "d")


# --- leftovers --------------------------------------------------------------------------------------


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("keep.txt", ".hidden", "x.tmp", ".profile.old.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / ".x.json.12345678.tmp").write_text("")
    (tmp_path / ".d.12345678.tmp").mkdir()
    (tmp_path / ".d.12345678.tmp" / "part").write_text("")
    removed = remove_leftovers(tmp_path)
    assert sorted(removed) == [".d.12345678.tmp", ".x.json.12345678.tmp"]
    assert sorted(tree(tmp_path)) == [".hidden", ".profile.old.txt", "keep.txt", "x.tmp"]
    assert remove_leftovers(tmp_path / "none") == []


def test_a_directory_caught_between_two_renames_is_put_back(tmp_path: Path) -> None:
    build(tmp_path / "d", "old")
    (tmp_path / "d").rename(tmp_path / ".d.12345678.old")
    remove_leftovers(tmp_path)
    assert verify(tmp_path / "d")["note"] == "old"
    (tmp_path / ".d.12345678.old").mkdir()
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["d"], "an older one is removed once the newer stands"


def test_write_json_and_read_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, 2.5, "é"]})
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, "é"]}
