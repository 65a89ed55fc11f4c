"""Text files as a corpus: plain text, JSON lines, TSV, CSV and Parquet, plain or compressed, of any size.

    {type: text_files, path: book.txt}                    stretches of about 16 KiB, every 20th held out
    {type: text_files, path: "wiki/*.jsonl.gz", text: body, fields: [title]}
    {type: text_files, path: train.txt, val_path: other-authors.txt}

Plain text is cut into documents at line ends (`block`: the documents of a file joined are the file), at lines, at blank
lines, or not at all. Every part of the corpus (a window of a file, row groups of a Parquet file, a whole compressed
file) can be read alone, so preparation is parallel and goes on after the last complete part. Which split a document
belongs to follows from its place (see `splits.py`).

`reverse: characters` turns every text round, code point by code point after NFC, and the order of documents with it:
the control for what a tokenizer trained from left to right adds to an arrow of time.

Cost: memory of one window (32 MiB) per process. Refused: see `reading.py` and `tables.py`; and texts that are no text,
columns that are missing, splits that would be empty.
"""

from __future__ import annotations

import functools
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lexarium.corpora import parquet, reading, tables
from lexarium.corpora.decoding import Decoding
from lexarium.corpora.reading import BLANK_LINE, LINE, TextFile
from lexarium.corpora.splits import ROLES, SplitConfig, Splitter, field_of
from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.files import sha256_json
from lexarium.foundation.fingerprints import fingerprint
from lexarium.foundation.types import Document, FieldValue, Part, UserError, gist

Raw = tuple[int, int, str, dict[str, FieldValue]]
"""Number within its stretch, offset or row, text, fields."""

LONGEST_FILE = 1 << 30
"""Bytes of a file that may be one document."""


class TextFiles:
    """Text files of any size: plain text, JSONL, TSV, CSV or Parquet, plain or compressed."""

    kind, name, version = "corpus", "text_files", 1
    keep_empty = False
    """Whether lines without text are documents, and fields without a value empty texts: of corpora that must know."""

    class Config(ComponentConfig):
        """Options of `text_files`."""

        type: str = "text_files"
        path: tuple[str, ...] = outside_identity(())
        """Files, folders and glob patterns."""
        val_path: tuple[str, ...] = outside_identity(())
        """Files that are the validation split, whole."""
        test_path: tuple[str, ...] = outside_identity(())
        """Files that are the test split, whole."""
        format: Literal["auto", "text", "jsonl", "tsv", "csv", "parquet"] = "auto"
        """What the files hold; auto = by their names."""
        text: str = "text"
        """Key or column of the text, in tables; a number counts columns of a TSV or CSV without header, from 0."""
        fields: tuple[str, ...] = ()
        """Keys or columns kept with every document."""
        documents: Literal["block", "line", "blank_line", "file"] = "block"
        """What is a document of plain text."""
        block_bytes: int = Field(1 << 14, ge=1 << 10, le=reading.WINDOW)
        """Size of a block; it ends at the next line end. A power of two."""
        undecodable: Literal["refuse", "replace", "drop"] = "refuse"
        """Bytes that are not UTF-8, and NUL: refuse, or mend and count."""
        separators: Literal["newline", "keep"] = "newline"
        """U+2028 and U+2029, which some programs take for line ends: turn into line ends, or keep."""
        reverse: Literal["none", "characters"] = "none"
        """Turn every text round, and the order of documents."""
        split: SplitConfig = SplitConfig()

        @field_validator("path", "val_path", "test_path", "fields", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

        @field_validator("text", mode="before")
        @classmethod
        def _name_or_number(cls, value: Any) -> Any:
            return str(value) if type(value) is int else value

        @model_validator(mode="after")
        def _fits(self) -> TextFiles.Config:
            if self.block_bytes & (self.block_bytes - 1):
                raise ValueError(f"block_bytes {self.block_bytes} is not a power of two")
            if taken := {"file", "place"} & set(self.fields):
                raise ValueError(
                    f"fields: {sorted(taken)[0]!r} is what every document has already; rename the column"
                )
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self._decoding = Decoding(config.undecodable, config.separators, self.mends)
        self._splitter = Splitter(config.split, bool(config.val_path or config.test_path))
        self._extents: dict[Path, int] = {}
        self._headers: dict[Path, tuple[int, list[str]]] = {}
        self._quotes: dict[Path, tables.Quotes] = {}

    # -- files ---------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> list[tuple[str, TextFile]]:
        """(split its whole content belongs to, or train = to be split; file), in reading order."""
        c = self.config
        if not c.path:
            raise UserError(
                "corpus.path: say which text to read: a file, a folder or a pattern, for example"
                " corpus.path=book.txt or corpus.path='wiki/*.jsonl.gz'"
            )
        found: list[tuple[str, TextFile]] = []
        for role, paths in zip(ROLES, (c.path, c.val_path, c.test_path), strict=True):
            where = "corpus.path" if role == "train" else f"corpus.{role}_path"
            for file in reading.find_files(paths, c.format, where) if paths else ():
                other = next((r for r, f in found if f.path.resolve() == file.path.resolve()), None)
                if other:
                    raise UserError(
                        f"{where}: {file.path} is also named for {other}; a file belongs to one split"
                    )
                found.append((role, file))
        return found

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """train, and what is held out of it or named beside it."""
        named = {
            role
            for role, paths in zip(ROLES, (1, self.config.val_path, self.config.test_path), strict=True)
            if paths
        }
        return tuple(role for role in ROLES if role in named or role in self._splitter.names)

    def symbols(self) -> list[str]:
        """None beyond those of the text."""
        return []

    def fingerprint(self) -> str:
        """Hash of every file's role, name and content, in order."""
        return sha256_json([[role, f.path.name, f.size, fingerprint(f.path)] for role, f in self.files])

    def record(self) -> dict[str, Any]:
        """What was read, for the manifest: files with size and sha256."""
        return {
            "files": [
                {"split": role, "path": str(f.path), "size": f.size, "sha256": fingerprint(f.path)}
                for role, f in self.files
            ]
        }

    def text_size(self, splits: Sequence[str] = ROLES) -> int:
        """Bytes of the text of some splits; compressed files and tables estimated from their beginnings."""
        held_out = {"val": self._splitter.val, "test": self._splitter.test}
        held_out["train"] = 1.0 - held_out["val"] - held_out["test"]
        found = 0.0
        for role, file in self.files:
            whole = (
                parquet.column_bytes(file, self.config.text)
                if file.format == "parquet"
                else file.size * reading.expansion(file)
            )
            if file.format in ("jsonl", "tsv", "csv"):
                whole *= self._text_share(file)
            share = sum(held_out[s] for s in splits) if role == "train" else float(role in splits)
            found += whole * share
        return round(found)

    def _text_share(self, file: TextFile) -> float:
        """Bytes of text per byte of a table's lines, from its first thousand."""
        number = next(i for i, (_, other) in enumerate(self.files) if other is file)
        part, text, last, n = next(self._parts_of(number, file)), 0, 0, 0
        for _, raws in self._stretches(number, file, part, {}):
            for _, place, content, _ in itertools.islice(raws, 1000):
                text, last, n = text + len(content.encode("utf-8", "replace")), place, n + 1
            break
        return text / last * (n - 1) / n if n > 1 and last else 1.0

    # -- reading in parts ----------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Every part of the corpus, in reading order."""
        found = [part for number, (_, file) in enumerate(self.files) for part in self._parts_of(number, file)]
        return found[::-1] if self.config.reverse != "none" else found

    def _parts_of(self, number: int, file: TextFile) -> Iterator[Part]:
        if file.compression and self.config.reverse != "none":
            raise UserError(
                f"{file.path}: corpus.reverse reads every part from its end, and a compressed file is one part of any"
                " size; uncompress it"
            )
        whole = file.compression or (file.format == "text" and self.config.documents == "file")
        if file.format == "parquet":
            yield from self._row_groups(number, file)
        elif whole:
            yield Part(str(file.path), file.size, (number, -1), file.identity)
        else:
            for k in range(reading.count_windows(file)):
                size = min(reading.WINDOW, file.size - k * reading.WINDOW)
                yield Part(
                    f"{file.path}, bytes from {k * reading.WINDOW:,}", size, (number, k), file.identity
                )

    def read(self, part: Part, counts: dict[str, int]) -> Iterator[tuple[str, Document]]:
        """(split, document) of one part; `counts` takes up what was mended."""
        number, _ = part.where
        if number >= len(self.files) or (part.stamp and self.files[number][1].identity != part.stamp):
            raise UserError(
                f"{part.name}: the files of the corpus are not those it had when preparation began (one was added,"
                " taken away or changed); wait until nobody writes to them and prepare again"
            )
        role, file = self.files[number]
        file.check()
        found = self._documents(role, number, file, part, counts)
        if self.config.reverse != "none":
            yield from reversed([(split, _turned(document)) for split, document in found])
        else:
            yield from found
        file.check()

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in order."""
        for part in self.parts():
            for name, document in self.read(part, {}):
                if name == split:
                    yield document

    def _documents(
        self, role: str, number: int, file: TextFile, part: Part, counts: dict[str, int]
    ) -> Iterator[tuple[str, Document]]:
        splitter, by, name = self._splitter, self.config.split.by, file.path.name
        for stretch, raws in self._stretches(number, file, part, counts):
            start = splitter.start(number, 0 if stretch is None else stretch)
            for n, place, text, fields in raws:
                if not text and not self.keep_empty:
                    continue
                all_fields: dict[str, FieldValue] = {"file": name, "place": place, **fields}
                if role != "train":
                    split = role
                elif by == "field":
                    row = f"{file.path}: row {place:,}"
                    where = row if file.format == "parquet" else _place(file, int(place))
                    value = field_of(all_fields, str(self.config.split.field), where)
                    split = splitter.of_value(value)
                elif by == "file":
                    split = splitter.spread(splitter.start(), number)
                elif by == "end":
                    split = splitter.of_place(place, self._extent(file))
                else:
                    split = splitter.spread(start, n)
                yield split, Document(text, all_fields)

    def _extent(self, file: TextFile) -> int:
        """What the places of a file's documents run up to."""
        if file.format == "parquet":
            if file.path not in self._extents:
                self._extents[file.path] = sum(parquet.rows(file))
            return self._extents[file.path]
        if file.compression:
            raise UserError(
                f"{file.path}: corpus.split.by: end needs to know where a file ends, and a compressed one does not say;"
                " split by document, or uncompress it"
            )
        return file.size

    def _stretches(
        self, number: int, file: TextFile, part: Part, counts: dict[str, int]
    ) -> Iterator[tuple[int | None, Iterator[Raw]]]:
        """(stretch, its documents): a stretch is what documents are numbered in. Blocks count through the file."""
        ends = BLANK_LINE if file.format == "text" and self.config.documents == "blank_line" else LINE
        _, k = part.where
        if file.format == "parquet":
            yield k, self._from_parquet(file, k, counts)
        elif file.format == "text" and self.config.documents == "file":
            yield None, self._whole_file(file, counts)
        elif file.compression:
            windows = tables.stream(file) if file.format == "csv" else reading.stream_windows(file, ends)
            for j, offset, data in windows:
                yield self._stretch(file, j), self._from_window(file, j, offset, data, counts)
        else:
            if file.format == "csv":
                offset, data = self._quotes.setdefault(file.path, tables.Quotes(file)).window(k)
            else:
                offset, data = reading.window(file, k, ends)
            yield self._stretch(file, k), self._from_window(file, k, offset, data, counts)

    def _stretch(self, file: TextFile, window: int) -> int | None:
        """Where a window's documents are numbered: blocks through the whole file (None), others in their window."""
        return None if file.format == "text" and self.config.documents == "block" else window

    # -- the formats ---------------------------------------------------------------------------------

    def _from_window(
        self, file: TextFile, k: int, offset: int, data: bytes, counts: dict[str, int]
    ) -> Iterator[Raw]:
        """The documents of window k, whose bytes begin at `offset`."""
        c = self.config
        if file.format == "jsonl":
            yield from self._from_jsonl(file, offset, data, counts)
        elif file.format in ("tsv", "csv"):
            yield from self._from_table(file, offset, data, counts)
        elif c.documents == "block":
            for n, place, piece in reading.blocks(
                data, offset, k * reading.WINDOW // c.block_bytes, c.block_bytes
            ):
                if text := self._decoding.decode(piece, file, place, counts):
                    yield n, place, text, {}
        else:
            keep = self.keep_empty
            pieces = (
                functools.partial(reading.lines, empty=keep) if c.documents == "line" else reading.paragraphs
            )
            for n, (place, piece) in enumerate(pieces(data, offset)):
                if (text := self._decoding.decode(piece, file, place, counts)).strip() or keep:
                    yield n, place, text, {}

    def _whole_file(self, file: TextFile, counts: dict[str, int]) -> Iterator[Raw]:
        with reading.opened(file) as handle:
            data = handle.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise UserError(
                f"{file.path}: a document of more than {LONGEST_FILE:,} bytes; choose corpus.documents: block, which"
                " needs the memory of one window only"
            )
        yield 0, 0, self._decoding.decode(data, file, 0, counts), {}

    def _from_jsonl(self, file: TextFile, offset: int, data: bytes, counts: dict[str, int]) -> Iterator[Raw]:
        for n, (place, line) in enumerate(reading.lines(data, offset)):
            where = functools.partial(_place, file, place)
            try:  # line separators inside a string are text, which is mended when it is taken out
                record = json.loads(self._decoding.decode(line, file, place, counts, tidy=False))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where()}: not a line of JSON ({gist(error)})") from None
            if not isinstance(record, dict):
                raise UserError(f"{where()}: expected {{...}}, found {line[:40]!r}")
            yield n, place, *self._chosen(record, where, counts)

    def _from_table(self, file: TextFile, offset: int, data: bytes, counts: dict[str, int]) -> Iterator[Raw]:
        numbered = self.config.text.isdecimal()
        first, names = (-1, []) if numbered else self._header(file)
        for n, (place, row) in enumerate(tables.rows(file.format, data, offset)):
            if place <= first:
                continue
            where = functools.partial(_place, file, place)
            cells = tables.cells(file.format, self._decoding.decode(row, file, place, counts), where)
            names = [str(i) for i in range(len(cells))] if numbered else names
            if len(cells) != len(names):
                raise UserError(f"{where()}: {len(cells)} columns, expected {len(names)}")
            yield n, place, *self._chosen(dict(zip(names, cells, strict=True)), where, counts)

    def _header(self, file: TextFile) -> tuple[int, list[str]]:
        """Where a table's header begins, and the names in it."""
        if file.path not in self._headers:
            self._headers[file.path] = tables.header(file)
        return self._headers[file.path]

    def _row_groups(self, number: int, file: TextFile) -> Iterator[Part]:
        rows = parquet.rows(file)
        for k in range(len(rows)):
            yield Part(f"{file.path}, row group {k}", file.size // len(rows), (number, k), file.identity)

    def _from_parquet(self, file: TextFile, group: int, counts: dict[str, int]) -> Iterator[Raw]:
        wanted = [self.config.text, *self.config.fields]
        n, before = 0, sum(parquet.rows(file)[:group])
        for records in parquet.batches(file, group, wanted):
            for record in records:
                where = functools.partial(str.format, "{}: row {:,}", file.path, before + n)
                yield n, before + n, *self._chosen(record, where, counts)
                n += 1

    mends = True
    """Whether bytes that are not UTF-8 may be mended by an option."""
    which = "say which is corpus.text, and which are corpus.fields"
    """What helps where a record lacks a key."""

    def _chosen(
        self, record: dict[str, Any], where: Callable[[], str], counts: dict[str, int]
    ) -> tuple[str, dict[str, FieldValue]]:
        """Text and fields of a record."""
        c = self.config
        for name in (c.text, *c.fields):
            if name not in record:
                raise UserError(
                    f"{where()}: no {name!r}{reading.near(name, record)} (there are: {', '.join(record) or 'none'});"
                    f" {self.which}"
                )
        text = "" if record[c.text] is None else record[c.text]
        if not isinstance(text, str):
            raise UserError(f"{where()}: {c.text!r} is {text!r}, expected a text")
        if not text and not self.keep_empty:
            counts["empty"] = counts.get("empty", 0) + 1
        if self.keep_empty:
            record = {name: "" if value is None else value for name, value in record.items()}
        for name in c.fields:
            if not isinstance(record[name], str | int | float | bool):
                raise UserError(f"{where()}: field {name!r} is {record[name]!r}, expected a text or a number")
        return self._decoding.mend(text, where, counts), {
            name: self._field(record[name], name, where, counts) for name in c.fields
        }

    def _field(
        self, value: FieldValue, name: str, where: Callable[[], str], counts: dict[str, int]
    ) -> FieldValue:
        if isinstance(value, str):
            return self._decoding.mend(value, lambda: f"{where()}: field {name!r}", counts)
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise UserError(
                f"{where()}: field {name!r} is {value}, a number of more than 64 bits; write it as text"
            )
        return value


def _place(file: TextFile, offset: int) -> str:
    """Where a line begins, for messages."""
    return f"{file.path}: byte {offset:,}{reading.line_of(file, offset)}"


def _turned(document: Document) -> Document:
    return Document(unicodedata.normalize("NFC", document.text)[::-1], document.fields)
