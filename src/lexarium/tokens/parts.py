"""The parts of a store: documents in, files out; each part by itself, in any process, the same bytes every time.

A JOB is what one process does in one go: a chunk of a corpus's documents, or a part that the corpus reads by itself
(`Corpus.parts`). Its documents are tokenised in order; as soon as they make TOKENS tokens they are written, one part
for every split they belong to, and then a record of the job, `<job>-<n>.json`. So memory is bounded, and
after an interruption a job goes on behind its last record: documents that were written are read again but not
tokenised again.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig, Source, resolved, validate
from lexarium.foundation.files import dumps_line, read_json, sha256_file, write_atomic, write_json
from lexarium.foundation.types import Document, Part, UserError, gist

TOKENS = 1 << 24
"""Tokens after which what a job has is written."""
TELL = 1 << 20
"""Bytes after which progress is told."""
MAX_LEVELS = 200
"""Different values of a textual field that the manifest lists."""


class Interrupted(UserError):
    """Preparation ended early through no fault of the documents."""


class Recipe(NamedTuple):
    """How another process makes a component: its kind, type and config as JSON. (A component from outside the package
    cannot be sent to a process that has not imported it.)"""

    kind: str
    type: str
    config: str

    @classmethod
    def of(cls, kind: str, config: ComponentConfig) -> Recipe:
        """The recipe of a component."""
        return cls(kind, config.type, dumps_line(resolved(config)))


@functools.lru_cache(maxsize=2)
def make(recipe: Recipe, folder: Path | None = None) -> Any:
    """The component of a recipe; a tokenizer reads its vocabulary from `folder`."""
    cls: Any = registry.find(recipe.kind, recipe.type)
    component = cls(validate(cls.Config, Source(json.loads(recipe.config))))
    if folder is not None:
        component.load(folder)
    return component


class Job(NamedTuple):
    """Documents of one split, from number `first` on, or a part that the corpus reads. `digest` says what they are."""

    number: int
    name: str
    """Of the parts it makes."""
    digest: str
    size: int
    split: str = ""
    first: int = 0
    documents: tuple[Document, ...] = ()
    part: Part | None = None


class Tools(NamedTuple):
    """What a job needs; the components themselves, or how to make them."""

    corpus: Any
    tokenizer: Any
    store: Path
    """Where the parts are written, a folder for every split."""
    records: Path

    def ready(self) -> Tools:
        """With the components made."""
        corpus = make(self.corpus) if isinstance(self.corpus, Recipe) else self.corpus
        tokenizer = make(self.tokenizer, self.store) if isinstance(self.tokenizer, Recipe) else self.tokenizer
        return Tools(corpus, tokenizer, self.store, self.records)


@dataclass
class Outcome:
    """What became of a job: split -> entries of its parts in the manifest, and what was mended."""

    size: int = 0
    before: int = 0
    """Bytes of it that an earlier call did."""
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Take in one record of a job."""
        for split, entry in record["parts"].items():
            self.parts.setdefault(split, []).append(entry)
        for name, n in record["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + n


def run(
    jobs: Iterator[Job], tools: Tools, workers: int, tell: Callable[[int], None] = lambda size: None
) -> Iterator[Outcome]:
    """Outcomes in the order of the jobs; at most 2 * workers are in flight, so memory does not grow with the corpus.
    `tell(bytes)` hears of text read inside a job of this process, and of -1 when its outcome was taken."""
    if workers < 2:
        for job in jobs:
            yield build(job, tools, tell)
            tell(-1)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(build, job, tools) for job in itertools.islice(jobs, 2 * workers)]
        while waiting:
            try:
                outcome = waiting.pop(0).result()
            except BrokenProcessPool:
                raise Interrupted(
                    f"a worker process died (out of memory?); run the same command again with fewer workers than"
                    f" {workers}, it goes on after the last complete part"
                ) from None
            waiting.extend(pool.submit(build, job, tools) for job in itertools.islice(jobs, 1))
            yield outcome


def build(job: Job, tools: Tools, tell: Callable[[int], None] = lambda size: None) -> Outcome:
    """Tokenise the documents of a job and write their files, as far as that was not done before."""
    outcome, records = Outcome(job.size), _records(job, tools)
    for record in records:
        outcome.add(record)
    if records and records[-1]["last"]:
        outcome.before = job.size
        return outcome
    tools = tools.ready()
    counts: dict[str, int] = {}
    documents = _documents(job, tools.corpus, counts)
    written = sum(record["documents"] for record in records)
    for _ in itertools.islice(documents, written):
        pass
    last = False
    while not last:
        groups, read, last = _gather(documents, tools.tokenizer, job, written, tell)
        written += read
        name = job.name + (f"-{len(records):04d}" if records else "")
        record = {
            "digest": job.digest,
            "documents": read,
            "last": last,
            "parts": {
                split: group.write(tools.store / split, name) for split, group in sorted(groups.items())
            },
            "counts": {k: n - outcome.counts.get(k, 0) for k, n in counts.items()},
        }
        write_json(_record_path(job, len(records), tools.records), record)
        outcome.add(record)
        records.append(record)
    return outcome


def _record_path(job: Job, n: int, folder: Path) -> Path:
    return folder / f"{job.number:05d}-{n:04d}.json"


def _records(job: Job, tools: Tools) -> list[dict[str, Any]]:
    """What was written of this very job before, as far as its files are what was written."""
    found: list[dict[str, Any]] = []
    while (path := _record_path(job, len(found), tools.records)).exists():
        record = read_json(path)
        if record.get("digest") != job.digest or not _there(record, tools.store):
            break
        found.append(record)
        if record["last"]:
            break
    return found


def _there(record: dict[str, Any], store: Path) -> bool:
    """Whether the files of a record's parts have the content they were written with."""
    try:
        return all(
            sha256_file(store / split / name) == file["sha256"]
            for split, entry in record["parts"].items()
            for name, file in entry["files"].items()
        )
    except OSError:
        return False


def _documents(job: Job, corpus: Any, counts: dict[str, int]) -> Iterator[tuple[str, Document]]:
    if job.part is None:
        return iter([(job.split, document) for document in job.documents])
    return corpus.read(job.part, counts)


def _gather(
    documents: Iterator[tuple[str, Document]],
    tokenizer: Any,
    job: Job,
    written: int,
    tell: Callable[[int], None],
) -> tuple[dict[str, _Group], int, bool]:
    """The next documents of a job by split, `written` having gone before; how many; whether they were the last."""
    groups: dict[str, _Group] = {}
    read = tokens = size = 0
    for split, document in documents:
        group = groups.setdefault(split, _Group(tokenizer, split, job))
        tokens += group.add(document, job.first + written + read)
        read += 1
        size += len(document.text.encode("utf-8", "replace"))
        if size >= TELL:
            tell(size)
            size = 0
        if tokens >= TOKENS:
            return groups, read, False  # whether more follow shows at the next reading
    return groups, read, True


def told_at(text: str, first: np.ndarray) -> np.ndarray:
    """(L,) places of the characters whose values tokens take: of each the first that is no white space, or its first.
    Pieces of text may begin with the blank before a word."""
    pieces = zip(first.tolist(), [*first[1:].tolist(), len(text)], strict=True)
    seen = lambda a, b: next((k for k in range(a, b) if not text[k].isspace()), a)
    return np.array([seen(a, b) if text[a].isspace() else a for a, b in pieces], dtype=np.int64)


class _Group:
    """Tokenised documents of one split, until they are written as one part."""

    def __init__(self, tokenizer: Any, split: str, job: Job) -> None:
        self._tokenizer, self._split, self._job = tokenizer, split, job
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._ids: list[np.ndarray] = []
        self._channels: dict[str, list[np.ndarray]] = {}
        self._columns: dict[str, list[Any]] = {}
        self._first = self._last = 0

    def _where(self) -> str:
        """The place of the last document taken in, for messages."""
        if self._job.part is not None:
            return f"{self._job.part.name}: a document of split {self._split!r}"
        return f"document {self._last} of split {self._split!r}"

    def add(self, document: Document, number: int) -> int:
        """Tokenise a document; returns its number of tokens. Raises UserError naming it."""
        self._last = number
        if not self._ids:
            self._first = number
            self._channels = {name: [] for name in sorted(document.channels)}
            self._columns = {name: [] for name in document.fields}
        try:
            if document.channels:
                ids, first = self._tokenizer.encode(document.text)
            else:
                ids, first = ids_of(self._tokenizer, document.text), None
        except UserError as error:
            raise UserError(f"{self._where()}: {error}") from None
        if len(ids) == 0:
            raise UserError(f"{self._where()}: has no token ({document.text[:60]!r})")
        self._check(document)
        places = None if first is None else told_at(document.text, first)
        for name, values in document.channels.items():
            if len(values) != len(document.text):
                raise UserError(
                    f"{self._where()}: channel {name!r} has {len(values)} values for {len(document.text)} characters"
                )
            self._channels[name].append(np.asarray(values)[places])
        for name, value in document.fields.items():
            self._columns[name].append(value)
        self._ids.append(ids.astype(self._dtype, copy=False))
        return len(ids)

    def _check(self, document: Document) -> None:
        if set(document.channels) != set(self._channels):
            raise UserError(
                f"{self._where()}: channels {sorted(document.channels)}, expected {sorted(self._channels)};"
                " every document needs the same"
            )
        if list(document.fields) != list(self._columns):
            raise UserError(
                f"{self._where()}: fields {list(document.fields)}, expected {list(self._columns)}; every document needs"
                " the same"
            )

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the part's files; returns its entry in the manifest."""
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in self._ids])]).astype(np.int64)
        data = {f"{name}.ids.npy": npy(np.concatenate(self._ids)), f"{name}.docs.npy": npy(offsets)}
        for channel, values in self._channels.items():
            data[f"{name}.{channel}.npy"] = npy(np.concatenate(values).astype(np.int32))
        fields, types, levels = self._fields()
        if fields is not None:
            data[f"{name}.fields.parquet"] = fields
        files = {}
        for file, content in data.items():
            write_atomic(folder / file, content)
            files[file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {
            "name": name,
            "documents": len(self._ids),
            "tokens": int(offsets[-1]),
            "channels": sorted(self._channels),
            "fields": types,
            "files": files,
            "levels": levels,
        }

    def _fields(self) -> tuple[bytes | None, dict[str, str], dict[str, list[str] | None]]:
        """Parquet bytes of the documents' fields, their types, and the levels of the textual ones (None: too many)."""
        if not self._columns:
            return None, {}, {}
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pa.table(self._columns)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            where = self._job.part.name if self._job.part else f"documents {self._first} to {self._last}"
            several = lambda values: len({type(value) for value in values}) > 1
            names = [name for name, values in self._columns.items() if several(values)]
            raise UserError(
                f"{where} of split {self._split!r}: field {', '.join(names)} holds values of several types"
                f" ({gist(error)}); make them all texts or all numbers"
            ) from None
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        textual = [name for name, values in self._columns.items() if isinstance(values[0], str)]
        levels: dict[str, list[str] | None] = {}
        for name in textual:
            found = set(map(str, self._columns[name]))
            levels[name] = sorted(found) if len(found) <= MAX_LEVELS else None
        return sink.getvalue(), {n: str(table.schema.field(n).type) for n in self._columns}, levels


def ids_of(tokenizer: Any, text: str) -> np.ndarray:
    """The ids of a text, the short way where the tokenizer has one."""
    quick = getattr(tokenizer, "encode_ids", None)
    return quick(text) if quick else tokenizer.encode(text)[0]


def npy(array: np.ndarray) -> bytes:
    """Content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
