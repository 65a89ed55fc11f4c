"""Text of any size from files: which files, in which form, and how a file is cut so that every piece can be read alone.

A file is read in WINDOWS: window k holds the bytes from the first cut at or after k * WINDOW to the first cut at or
after (k + 1) * WINDOW. A cut is a place where a document may begin: behind a line end, or behind a blank line. So
every byte lies in exactly one window, a window is found by one seek and a short look ahead, and what a window
holds does not depend on who reads the others. A compressed file has the windows of its uncompressed content, read
one after the other.

Cost: one read of every byte; memory is that of one window and its longest document, whatever the size of the file.
Refused, with the place: files that are missing, empty, given twice, not text, without a line end for MAX_DOCUMENT
bytes, or changed while they are read.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lexarium.foundation.extras import need
from lexarium.foundation.fingerprints import Stamp
from lexarium.foundation.types import UserError

WINDOW = 1 << 25
"""Bytes of uncompressed text per window; part of what decides the documents' numbers, so never a setting."""
MAX_DOCUMENT = 1 << 30
"""Longest stretch without a cut, in bytes."""
PEEK = 1 << 16
LONGEST_WINDOW = 1 << 31
"""Bytes that `zstd --long` may look back."""

FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".raw": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}
ABOUT = ("README", "SOURCE", "LICENSE", "LICENCE", "NOTICE")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}

LINE = re.compile(rb"\n")
BLANK_LINE = re.compile(rb"\n(?:[ \t\r]*\n)+")
"""What ends a line, or a paragraph."""


@dataclass(frozen=True)
class TextFile:
    """One file of a corpus."""

    path: Path
    format: str
    compression: str | None
    stamp: Stamp

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.stamp.size

    @property
    def identity(self) -> tuple[str | int, ...]:
        """Path, size and times."""
        return (str(self.path), *self.stamp)

    def check(self) -> None:
        """Raise UserError when the file is not what it was."""
        try:
            now = Stamp.of(self.path)
        except OSError:
            raise UserError(
                f"{self.path}: is gone; it was there when preparation began. Put it back and prepare again"
            ) from None
        if now != self.stamp:
            raise UserError(
                f"{self.path}: changed while it was read ({self.stamp.size:,} bytes when preparation began,"
                f" {now.size:,} now); wait until nobody writes to it and prepare again"
            )


# --- which files ------------------------------------------------------------------------------------


def find_files(paths: Sequence[str], wanted: str, where: str) -> list[TextFile]:
    """Files, the files below folders, and what glob patterns match; in natural order of names within each entry. Of a
    folder, files that tell about it (README; SOURCE, LICENSE and NOTICE in capitals) are left out.

    `wanted` is a format, or `auto` for what the names say. Raises UserError naming `where` for an entry
    that matches nothing, an empty file, a file named twice, and a name that does not tell its format.
    """
    found: dict[Path, TextFile] = {}
    for entry in paths:
        matches = _matches(entry, wanted, where)
        for path in matches:
            if path.resolve() in found:
                raise UserError(f"{where}: {path} is named twice (by {entry!r}); every file may come once")
            found[path.resolve()] = _text_file(path, wanted)
    return list(found.values())


def _matches(entry: str, wanted: str, where: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        inside = [
            p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)) and not tells(p)
        ]
        inside.sort(key=natural)
        matches = [p for p in inside if wanted != "auto" or form_of(p)[0]]
        if not matches:
            other = f" (it holds {inside[0].name})" if inside else ""
            raise UserError(
                f"{where}: {path} holds no file whose name ends in {', '.join(FORMATS)}{other}; name the files,"
                " or say corpus.format"
            )
        return matches
    if path.is_file():
        return [path]
    matches = matching(path)
    if not matches:
        raise UserError(
            f"{where}: {entry!r} is no file, no folder, and no pattern that matches one (looked in {Path.cwd()})"
        )
    return matches


def natural(path: Path) -> list[Any]:
    """Sort key: part_9 before part_10."""
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"(\d+)", str(path))]


def matching(path: Path) -> list[Path]:
    """Files that a pattern matches, hidden ones left out, in natural order."""
    base, pattern = _pattern(path)
    inside = list(base.glob(pattern)) if pattern else []
    return sorted((p for p in inside if p.is_file() and not _hidden(p.relative_to(base))), key=natural)


def _pattern(path: Path) -> tuple[Path, str]:
    """The folder above the first part of a path that holds a wildcard, and the rest; "" where there is none."""
    for i, part in enumerate(path.parts):
        if any(c in part for c in "*?["):
            return Path(*path.parts[:i]), str(Path(*path.parts[i:]))
    return path, ""


def tells(path: Path) -> bool:
    """Whether a file says something about a folder of data, and is none: `README.md`, `LICENSE`, not `source.txt`."""
    name = path.name.removesuffix(path.suffix)
    return (name in ABOUT or name.upper() == "README") and path.suffix in ("", ".md", ".rst", ".txt")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def form_of(path: Path) -> tuple[str | None, str | None]:
    """(format, compression) that a file's name tells."""
    suffixes = [s.lower() for s in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    named = suffixes[:-1] if compression else suffixes
    return (FORMATS.get(named[-1]) if named else None), compression


def _text_file(path: Path, wanted: str) -> TextFile:
    told, compression = form_of(path)
    form = told if wanted == "auto" else wanted
    if form is None:
        raise UserError(
            f"{path}: the name does not tell what it holds (known endings: {', '.join(FORMATS)}, each also with"
            " .gz or .zst); say corpus.format: text, jsonl, tsv, csv or parquet"
        )
    if form == "parquet" and compression:
        raise UserError(f"{path}: a Parquet file compresses its columns itself; uncompress it first")
    stamp = Stamp.of(path)
    if stamp.size == 0:
        raise UserError(f"{path}: is empty; remove it, or mend the download")
    return TextFile(path, form, compression, stamp)


# --- windows ----------------------------------------------------------------------------------------


def count_windows(file: TextFile) -> int:
    """Windows of an uncompressed file."""
    return max(1, -(-file.size // WINDOW))


def window(file: TextFile, number: int, ends: re.Pattern[bytes] = LINE) -> tuple[int, bytes]:
    """(offset, bytes) of one window of an uncompressed file."""
    with file.path.open("rb") as handle:
        start = cut(handle, number * WINDOW, file.size, ends, file.path)
        stop = cut(handle, (number + 1) * WINDOW, file.size, ends, file.path)
        handle.seek(start)
        data = handle.read(stop - start)
    if len(data) != stop - start:
        file.check()
        raise UserError(f"{file.path}: ended at byte {start + len(data):,}, expected {stop:,}")
    return start, data


def cut(handle: IO[bytes], position: int, size: int, ends: re.Pattern[bytes], path: Path) -> int:
    """The first place at or after `position` where a document may begin."""
    if position <= 0:
        return 0
    if position >= size:
        return size
    start = max(0, position - PEEK)  # what ends a document may begin before the position
    handle.seek(start)
    buffer = handle.read(position - start + PEEK)
    while True:
        for match in ends.finditer(buffer):
            whole = match.end() < len(buffer) or start + len(buffer) >= size
            if start + match.end() >= position and whole:
                return start + match.end()
        more = handle.read(max(PEEK, len(buffer)))
        if not more:
            return size
        buffer += more
        if len(buffer) > MAX_DOCUMENT:
            raise UserError(
                f"{path}: nothing ends a {'line' if ends is LINE else 'document'} for {MAX_DOCUMENT:,} bytes after"
                f" byte {position:,}; is it text? Break it into lines, or choose other corpus.documents"
            )


def stream_windows(file: TextFile, ends: re.Pattern[bytes] = LINE) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, bytes) of the windows of a compressed file's content, in order."""
    with opened(file) as handle:
        buffer, offset, number, ended = b"", 0, 0, False
        while not ended or buffer:
            limit = (number + 1) * WINDOW - offset
            place = _first_cut(buffer, limit, ends, ended)
            while place is None:
                more = handle.read(1 << 22)
                ended = not more
                buffer += more
                if len(buffer) > MAX_DOCUMENT + WINDOW:
                    raise UserError(
                        f"{file.path}: nothing ends a document for {MAX_DOCUMENT:,} bytes after byte"
                        f" {offset:,} of its content; is it text?"
                    )
                place = _first_cut(buffer, limit, ends, ended)
            yield number, offset, buffer[:place]
            buffer, offset, number = buffer[place:], offset + place, number + 1


def _first_cut(buffer: bytes, position: int, ends: re.Pattern[bytes], ended: bool) -> int | None:
    """As `cut`, inside what was read so far; None when more must be read to know."""
    if position <= 0:  # the document before reaches over this whole window
        return 0
    if position >= len(buffer):
        return len(buffer) if ended else None
    for match in ends.finditer(buffer, max(0, position - PEEK)):
        if match.end() >= position and (match.end() < len(buffer) or ended):
            return match.end()
    return len(buffer) if ended else None


@contextlib.contextmanager
def opened(file: TextFile, raw: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """The uncompressed content of a file, in order; damage is a UserError. `raw`: the file, opened already."""
    with contextlib.ExitStack() as stack:
        handle: Any = raw or stack.enter_context(file.path.open("rb"))
        damage: tuple[type[Exception], ...] = ()
        if file.compression == "gzip":
            damage = (gzip.BadGzipFile, EOFError, zlib.error)
            handle = stack.enter_context(gzip.GzipFile(fileobj=handle))
        elif file.compression == "zstd":
            zstandard: Any = need("zstandard", "data", f"to read {file.path}")
            damage = (zstandard.ZstdError, EOFError)
            handle = stack.enter_context(io.BufferedReader(_Zstd(handle, zstandard), 1 << 20))
        try:
            yield handle
        except damage as error:
            raise UserError(
                f"{file.path}: not whole {file.compression} data ({error}); mend the download"
            ) from None


class _Zstd(io.RawIOBase):
    """Content of zstd frames; a file that ends inside a frame is an EOFError (the library's own reader just ends)."""

    def __init__(self, raw: IO[bytes], library: Any) -> None:
        self._raw, self._library = raw, library
        self._frame: Any = None
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._raw.read(1 << 17)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends inside a frame")
                return 0
            self._frame = (
                self._frame or self._library.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj()
            )
            self._ready = self._frame.decompress(data)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n


def line_of(file: TextFile, offset: int) -> str:
    """` (line 12)` of a place in an uncompressed file: counted only when somebody must be told."""
    if file.compression or offset > MAX_DOCUMENT:
        return ""
    with file.path.open("rb") as handle:
        number, left = 1, offset
        while left > 0 and (block := handle.read(min(left, 1 << 22))):
            number, left = number + block.count(b"\n"), left - len(block)
    return f" (line {number:,})"


def blocks(data: bytes, offset: int, number: int, size: int) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, bytes) of the blocks in a window: block n goes from the first line end at or after n * size to
    that of n + 1. `number` is that of the window's first block. A line longer than a block makes the next blocks
    empty; those are left out."""
    place = offset
    while place < offset + len(data):
        stop = _cut_in(data, offset, (number + 1) * size)
        if stop > place:
            yield number, place, data[place - offset : stop - offset]
            place = stop
        number += 1


def _cut_in(data: bytes, offset: int, position: int) -> int:
    """The first line end at or after a position, within a window; its end where there is none."""
    inside = position - offset
    if inside <= 0:
        return offset
    if inside >= len(data):
        return offset + len(data)
    found = data.find(b"\n", inside - 1)
    return offset + (len(data) if found < 0 else found + 1)


def lines(
    data: bytes, offset: int, blank: bytes | None = None, empty: bool = False
) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the lines that hold more than white space (or than the bytes `blank`), without their ends;
    with `empty` of all lines."""
    place = offset
    for line in data.removesuffix(b"\n").split(b"\n"):
        if empty or line.strip(blank):
            yield place, line.removesuffix(b"\r")
        place += len(line) + 1


def paragraphs(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of what stands between blank lines."""
    place = 0
    for match in BLANK_LINE.finditer(data):
        if data[place : match.start()].strip():
            yield offset + place, data[place : match.start()].rstrip(b"\r")
        place = match.end()
    if data[place:].strip():
        yield offset + place, data[place:].rstrip(b"\r\n")


def free_space(path: Path) -> int:
    """Bytes that can still be written where `path` will lie."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def expansion(file: TextFile) -> float:
    """Bytes of content per byte on disk, measured on the first 16 MiB of content; 1 for an uncompressed file."""
    if not file.compression:
        return 1.0
    with file.path.open("rb") as raw, opened(file, raw) as handle:
        read = len(handle.read(1 << 24))
        return read / max(1, min(raw.tell(), file.size))


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'text'?` for a column that is not there; nothing when none is alike."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
