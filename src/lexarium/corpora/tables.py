"""Tables in lines of text: TSV, and CSV with the quotes of RFC 4180, read in windows that stand alone.

TSV is split at tabs; quotes mean nothing in it. In CSV a field in double quotes may hold commas, line ends and quotes
(written twice). So a line end in a CSV ends a row only where the quotes before it, from the file's beginning on, are
even in number. They are counted window by window, once in every process that reads the file; then each window knows
whether it begins inside a field and finds its first row by itself, like the lines of a text: a table of any size is
prepared by many processes. (A compressed one is one part, read in order, as every compressed file.)

Cost: one more read of an uncompressed CSV per process, to count; memory of one window. Refused, with file and line:
a quote inside a field that does not begin with one, text behind a closing quote, a field that is never closed, a
carriage return outside quotes, a row of more than a window, rows of another number of fields than the header, a
header that names a column twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO

from lexarium.corpora import reading
from lexarium.corpora.reading import TextFile, line_of
from lexarium.foundation.types import UserError

LONGEST_ROW = 1 << 25
"""Bytes; a missing quote makes one row of all that follows."""
LONGEST_HEADER = 1 << 16

QUOTED = re.compile(r'"((?:[^"]|"")*)"')
PLAIN = re.compile(r'[^",\r]*')


def cells(form: str, text: str, where: Callable[[], str]) -> list[str]:
    """The fields of a row without its line end; `where()` begins the message of the UserError."""
    if form == "tsv":
        return text.split("\t")
    if '"' not in text and "\r" not in text:
        return text.split(",")
    found, place = [], 0
    while True:
        match = QUOTED.match(text, place) or PLAIN.match(text, place)
        assert match  # PLAIN matches nothing at all, too
        found.append(match[1].replace('""', '"') if match.re is QUOTED else match[0])
        place = match.end()
        if place == len(text):
            return found
        if text[place] != ",":
            raise UserError(f"{where()}: field {len(found)} {_wrong(text, match)}")
        place += 1


def _wrong(text: str, match: re.Match[str]) -> str:
    """What is wrong with a field that nothing ends."""
    if match.re is QUOTED:
        found = text[match.end() : match.end() + 20]
        return f"goes on behind its closing quote ({found!r}); a quote inside quotes is written twice"
    if text[match.end()] == "\r":
        return "holds a carriage return outside quotes; let rows end in a line feed"
    if match.end() > match.start():
        return (
            f"holds a quote and does not begin with one ({match[0][-20:] + chr(34)!r}); put the field into quotes and"
            " write its own quotes twice, or say corpus.format: tsv if tabs separate the columns"
        )
    return "has a quote that is never closed; a quote is missing, here or in a row before"


def rows(form: str, data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the rows of a window that hold more than white space, without their line ends."""
    if form == "tsv":  # a line of tabs alone is a row of empty cells
        yield from reading.lines(data, offset, blank=b" \r")
        return
    start = 0
    while start < len(data):
        end = row_end(data, start, False) or len(data)
        row = data[start:end].removesuffix(b"\n").removesuffix(b"\r")
        if row.strip():
            yield offset + start, row
        start = end


def row_end(data: bytes, start: int, inside: bool) -> int | None:
    """Where the row that holds `start` ends (behind its line end); `inside`: whether `start` lies in a quoted field.
    None when it does not end here."""
    while (end := data.find(b"\n", start)) >= 0:
        inside ^= bool(data.count(b'"', start, end) & 1)
        start = end + 1
        if not inside:
            return start
    return None


class Quotes:
    """The windows of one uncompressed CSV."""

    def __init__(self, file: TextFile) -> None:
        self._file = file
        self._inside = [False]
        """Whether each window's first byte lies in a quoted field; as far as they were counted."""

    def window(self, number: int) -> tuple[int, bytes]:
        """(offset, bytes) of one window: rows that begin in it."""
        with self._file.path.open("rb") as handle:
            for k in range(len(self._inside), number + 2):
                handle.seek((k - 1) * reading.WINDOW)
                odd = handle.read(reading.WINDOW).count(b'"') & 1
                self._inside.append(self._inside[-1] ^ bool(odd))
            start, stop = self._cut(handle, number), self._cut(handle, number + 1)
            handle.seek(start)
            data = handle.read(stop - start)
        if len(data) != stop - start:
            self._file.check()
            raise UserError(f"{self._file.path}: ended at byte {start + len(data):,}, expected {stop:,}")
        return start, data

    def _cut(self, handle: IO[bytes], number: int) -> int:
        """The first place at or after a window's beginning where a row may begin."""
        position = number * reading.WINDOW
        if position <= 0 or position >= self._file.size:
            return min(max(position, 0), self._file.size)
        handle.seek(position - 1)
        if handle.read(1) == b"\n" and not self._inside[number]:
            return position
        place, inside = position, self._inside[number]
        while block := handle.read(reading.PEEK):
            end = row_end(block, 0, inside)
            if end is not None:
                return place + end
            inside ^= bool(block.count(b'"') & 1)
            place += len(block)
            if place - position > LONGEST_ROW:
                raise UserError(too_long(self._file, position))
        return self._file.size


def stream(file: TextFile) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, bytes) of the windows of a compressed CSV's content, in order: those it has uncompressed."""
    with reading.opened(file) as handle:
        buffer, offset, number, ended = b"", 0, 0, False
        while buffer or not ended:
            limit = (number + 1) * reading.WINDOW - offset
            while not ended and len(buffer) <= limit + LONGEST_ROW:
                more = handle.read(1 << 22)
                buffer, ended = buffer + more, not more
            place: int | None = max(limit, 0)
            if 0 < limit < len(buffer):
                inside = bool(buffer.count(b'"', 0, limit) & 1)
                at_row = buffer[limit - 1 : limit] == b"\n" and not inside
                place = limit if at_row else row_end(buffer, limit, inside)
            if place is None and not ended:
                raise UserError(too_long(file, offset + limit))
            place = len(buffer) if place is None else min(place, len(buffer))
            yield number, offset, buffer[:place]
            buffer, offset, number = buffer[place:], offset + place, number + 1


def too_long(file: TextFile, place: int) -> str:
    """What is said of a row that does not end."""
    return (
        f"{file.path}: no row ends for {LONGEST_ROW:,} bytes after byte {place:,}{line_of(file, place)}; is a quote"
        " missing before it? If quotes mean nothing in the table and tabs separate its columns, say corpus.format: tsv"
    )


def header(file: TextFile) -> tuple[int, list[str]]:
    """Where a table's header begins, its first row that is not blank, and the names in it.

    Raises UserError for two columns of one name, and for columns that something else than commas separates.
    """
    with reading.opened(file) as handle:
        place, line = 0, handle.readline(LONGEST_HEADER)
        while line and not line.strip():
            place, line = place + len(line), handle.readline(LONGEST_HEADER)
        if file.format == "csv":
            while line.count(b'"') & 1 and len(line) < LONGEST_HEADER:
                more = handle.readline(LONGEST_HEADER)
                if not more:
                    break
                line += more
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    names = cells(file.format, text, lambda: f"{file.path}: the header")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{file.path}: two columns are named {double!r}; rename one of them")
    if file.format == "csv" and len(names) == 1 and (other := re.search("[;\t]", names[0])):
        told = "say corpus.format: tsv" if other[0] == "\t" else "write it with commas"
        raise UserError(
            f"{file.path}: the header has {other[0]!r} between its columns, a CSV has commas; {told}"
        )
    return place, names
