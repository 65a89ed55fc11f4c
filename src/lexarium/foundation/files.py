"""Writing files so that nobody ever sees half of one.

Every write of the package that matters goes through this file: `write_atomic` (temporary file, fsync,
rename), `Directory` (build a directory beside its place, sync, write the manifest last, rename) and
`append_line` for logs. `_write` is the one place where bytes reach the disk; the tests of promises 4
and 29 make it fail at every call. A full disk becomes a `DiskError` that says what is still safe.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError

MANIFEST, CHECKSUM = "manifest.json", "checksum"


class DiskError(UserError):
    """The disk is full or the place cannot be written."""


class Damaged(UserError):
    """A file that is missing, short or altered, by its manifest."""


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into a DiskError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full; free some space and run the same command again"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            what = f"cannot be written ({error.strerror}); choose another directory or change its rights"
        else:
            raise
        raise DiskError(f"{path}: {what}. What was complete before is unchanged.") from error


def make_directory(path: Path) -> None:
    """A directory and its parents; nothing to do where it exists."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see the old one or the new one, never a part."""
    data = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                _write(descriptor, data)
            finally:
                os.close(descriptor)
            temporary.replace(path)
            sync_directory(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def dumps(data: Any) -> str:
    """Canonical JSON: sorted keys; numbers that are not finite become the strings nan, inf, -inf."""
    return json.dumps(_plain(data), sort_keys=True, ensure_ascii=False, indent=1) + "\n"


def dumps_line(data: Any) -> str:
    """One line of JSON, keys in the order given."""
    return json.dumps(_plain(data), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str):  # numpy scalars
        return _plain(value.item())
    return value


def write_json(path: Path, data: Any) -> None:
    """`write_atomic` of canonical JSON."""
    write_atomic(path, dumps(data))


def read_json(path: Path) -> Any:
    """Parsed JSON; a file that cannot be parsed is `Damaged`, naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path}: not valid JSON ({error}); the file was cut or edited") from None


def append_line(path: Path, line: str) -> None:
    """Append one line in a single write; a reader sees whole lines or an unfinished last one.

    What a killed writer left unfinished at the end is cut off first.
    """
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            start = _cut_unfinished(descriptor)
            try:
                _append(descriptor, (line + "\n").encode())
            except BaseException:
                os.ftruncate(descriptor, start)  # truncating needs no space
                raise
        finally:
            os.close(descriptor)


def _cut_unfinished(descriptor: int) -> int:
    """Truncate a file after its last line break; returns its size."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        size = os.pread(descriptor, size, 0).rfind(b"\n") + 1
        os.ftruncate(descriptor, size)
    return size


def _append(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a JSONL file; an unfinished last line (a killed writer) is left out."""
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise Damaged(f"{path}:{number}: not a JSON line; the file was edited or damaged") from None
    return records


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(data: Any) -> str:
    """Hex digest of canonical JSON."""
    return hashlib.sha256(
        json.dumps(_plain(data), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


class Directory:
    """A directory that appears complete or not at all.

    Files are written below a hidden temporary sibling; `commit` writes `manifest.json` (size and sha256
    of every file, what the caller adds, and a checksum of the manifest itself) last and renames. Leaving
    the block without `commit`, by an exception or not, removes the temporary directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.building = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Directory:
        with disk_errors(self.path):
            self.building.mkdir(parents=True)
        return self

    def write(self, name: str, data: bytes | str) -> None:
        """Add a file."""
        data = data.encode() if isinstance(data, str) else data
        write_atomic(self.building / name, data)
        self._files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def add(self, name: str) -> Path:
        """Register a file that the caller wrote to `building / name` by itself; it is synced and hashed."""
        path = self.building / name
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._files[name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        return path

    def commit(self, **manifest: Any) -> None:
        """Write the manifest and put the directory in its place (replacing an older one)."""
        with disk_errors(self.path):
            content = {"files": self._files, **manifest}
            write_json(self.building / MANIFEST, {**content, CHECKSUM: sha256_json(content)})
            if self.path.exists():
                old = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.old")
                self.path.rename(old)
                try:
                    self.building.rename(self.path)
                except BaseException:
                    old.rename(self.path)
                    raise
                shutil.rmtree(old)
            else:
                self.building.rename(self.path)
            sync_directory(self.path.parent)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.building, ignore_errors=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a directory made by `Directory`; `Damaged` when it is missing or altered."""
    manifest_path = path / MANIFEST
    if not manifest_path.exists():
        raise Damaged(f"{path}: no {MANIFEST}; the directory is incomplete")
    manifest = read_json(manifest_path)
    content = {k: v for k, v in manifest.items() if k != CHECKSUM} if isinstance(manifest, dict) else {}
    if not content or manifest.get(CHECKSUM) != sha256_json(content):
        raise Damaged(f"{manifest_path}: content differs from its checksum")
    return manifest


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a directory whose every file has the recorded size and sha256; else `Damaged`."""
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.exists():
            raise Damaged(f"{file}: missing")
        if file.stat().st_size != entry["size"]:
            raise Damaged(f"{file}: {file.stat().st_size} bytes, expected {entry['size']}")
        if sha256_file(file) != entry["sha256"]:
            raise Damaged(f"{file}: content differs from its checksum")
    return manifest


def read_verified(path: Path, name: str) -> bytes:
    """Content of one file of a directory made by `Directory`, checked against the manifest; else `Damaged`."""
    entry = read_manifest(path)["files"].get(name)
    if entry is None or not (path / name).exists():
        raise Damaged(f"{path / name}: missing")
    data = (path / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Damaged(f"{path / name}: content differs from its checksum")
    return data


def remove_leftovers(parent: Path) -> list[str]:
    """Delete temporary files and directories of writers that died; returns their names.

    Call it only below a directory this process owns. A directory caught between the two renames of
    `Directory.commit` is put back.
    """
    found = []
    if parent.is_dir():
        for path in list(parent.iterdir()):
            if not path.name.startswith(".") or not path.name.endswith((".tmp", ".old")):
                continue
            original = parent / path.name[1:].rsplit(".", 2)[0]
            if path.suffix == ".old" and not original.exists():
                path.rename(original)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            found.append(path.name)
    return found
