"""From a corpus to a finished token store: parallel, restartable, the same bytes every time.

Documents of a split are cut into parts of `PART` documents. A part is a pure function of its documents
and the tokenizer; its files are written atomically and its own manifest last, so a killed preparation
goes on after the last complete part, and the number of workers changes nothing. The store is built in
`<folder>.building`, owned by one process, and renamed when the manifest stands. A document that cannot be
tokenised fails the whole command with its place, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig, Source, identity, resolved, validate
from lexarium.foundation.files import (
    MANIFEST,
    DiskError,
    disk_errors,
    dumps_line,
    make_directory,
    read_json,
    remove_leftovers,
    sha256_json,
    sync_directory,
    write_atomic,
    write_json,
)
from lexarium.foundation.lock import Held, Lock
from lexarium.foundation.types import Corpus, Document, UserError
from lexarium.tokens.store import TokenStore
from lexarium.tokens.tokenizers import FILE, Vocabulary

FORMAT = 1
PART = 20_000
MAX_LEVELS = 200


class Interrupted(UserError):
    """Preparation ended early through no fault of the documents."""


Progress = Callable[[str, int, int], None]
"""Called as progress(split, documents done, tokens done)."""


def corpus_identity(config: ComponentConfig, fingerprint: str) -> dict[str, Any]:
    """What makes two corpora the same: type, version, options and the content of the files read."""
    return {**_component_identity("corpus", config), "files": fingerprint}


def tokenizer_identity(config: ComponentConfig) -> dict[str, Any]:
    """What makes two tokenizers trained on the same corpus the same."""
    return _component_identity("tokenizer", config)


def _component_identity(kind: str, config: ComponentConfig) -> dict[str, Any]:
    options = {key: value for key, value in identity(config).items() if key != "type"}
    version = registry.find(kind, config.type).version
    return {"type": registry.content_name(kind, config.type), "version": version, **options}


def store_name(corpus: ComponentConfig, tokenizer: ComponentConfig, source: dict[str, Any]) -> str:
    """`<corpus>-<tokenizer>-<hash10>`."""
    digest = sha256_json({"format": FORMAT, "corpus": source, "tokenizer": tokenizer_identity(tokenizer)})[
        :10
    ]
    short = lambda name: name.rpartition(":")[2].replace("_", "-").lower()
    return f"{short(corpus.type)}-{short(tokenizer.type)}-{digest}"


def open_tokenizer(config: ComponentConfig, folder: Path) -> Vocabulary:
    """The tokenizer saved in a store or run folder."""
    cls: Any = registry.find("tokenizer", config.type)
    tokenizer = cls(config)
    tokenizer.load(folder)
    return tokenizer


def prepare(
    corpus_config: ComponentConfig,
    tokenizer_config: ComponentConfig,
    root: Path,
    workers: int = 0,
    progress: Progress | None = None,
    wait: Callable[[str], bool] | None = None,
) -> TokenStore:
    """The finished store for a corpus and a tokenizer below `root`, built if it is not there.

    Raises UserError naming the document when one cannot be tokenised, when a split is empty, and when
    another process is building the same store (unless `wait` says to wait for it).
    """
    corpus: Corpus = registry.find("corpus", corpus_config.type)(corpus_config)
    source = corpus_identity(corpus_config, corpus.fingerprint())
    folder = root / store_name(corpus_config, tokenizer_config, source)
    if (folder / MANIFEST).exists():
        return TokenStore(folder)
    building = folder.with_name(folder.name + ".building")
    try:
        with Lock(building, wait) as lock:
            if not (folder / MANIFEST).exists():  # else another process finished it while this one waited
                remove_leftovers(building)
                try:
                    _build(corpus, source, tokenizer_config, building, workers, progress)
                except (DiskError, Held, Interrupted):
                    raise  # what is complete is worth keeping
                except UserError:
                    _clear(building)  # the documents are at fault: no later attempt can go on from here
                    raise
                lock.check()
                _publish(building, folder)
    finally:
        with contextlib.suppress(OSError):
            building.rmdir()
    return TokenStore(folder)


def _build(
    corpus: Corpus,
    source: dict[str, Any],
    tokenizer_config: ComponentConfig,
    building: Path,
    workers: int,
    progress: Progress | None,
) -> None:
    """Write everything a store holds, its manifest last."""
    tokenizer = _tokenizer(tokenizer_config, corpus, building)
    recipe = _Recipe(tokenizer_config.type, dumps_line(resolved(tokenizer_config)), building)
    splits, channels = {}, set()
    for split in corpus.splits:
        remove_leftovers(building / split)
        given = tokenizer if workers < 2 else recipe
        splits[split], names = _prepare_split(corpus, split, given, building / split, workers, progress)
        channels.add(names)
    if len(channels) > 1:
        raise UserError(f"splits carry different channels: {sorted(channels)}; every split needs the same")
    write_json(
        building / MANIFEST,
        {
            "format": FORMAT,
            "corpus": source,
            "tokenizer": tokenizer_identity(tokenizer_config),
            "vocabulary": tokenizer.fingerprint(),
            "vocab_size": tokenizer.vocab_size,
            "channels": list(channels.pop()) if channels else [],
            "splits": splits,
            "overlap": _overlap(building, list(splits)),
        },
    )


def _own_files(building: Path) -> list[Path]:
    """What a building directory holds beside the lock's own files."""
    return sorted(p for p in building.iterdir() if not p.name.startswith(("owner.", ".")))


def _clear(building: Path) -> None:
    for path in _own_files(building):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _publish(building: Path, folder: Path) -> None:
    """Put a finished store in its place. The lock's own files stay behind in `building`."""
    staging = folder.with_name("." + folder.name + ".tmp")
    with disk_errors(folder):
        shutil.rmtree(staging, ignore_errors=True)  # of a killed process; all of it was built again
        staging.mkdir()
        for path in _own_files(building):
            path.rename(staging / path.name)
        staging.rename(folder)
        sync_directory(folder.parent)


def _tokenizer(config: ComponentConfig, corpus: Corpus, building: Path) -> Vocabulary:
    if (building / FILE).exists():
        return open_tokenizer(config, building)
    tokenizer = registry.find("tokenizer", config.type)(config)
    tokenizer.train(corpus)
    write_atomic(building / FILE, tokenizer.dump())
    return tokenizer


# --- one split --------------------------------------------------------------------------------------


def _prepare_split(
    corpus: Corpus,
    split: str,
    tokenizer: Vocabulary | _Recipe,
    folder: Path,
    workers: int,
    progress: Progress | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Entry of the store manifest for one split, and its channel names."""
    make_directory(folder)
    parts: list[dict[str, Any]] = []
    levels: dict[str, set[str]] = {}
    jobs = _jobs(corpus.documents(split), split, tokenizer, folder)
    done = tokens = 0
    for part in _run(jobs, workers):
        parts.append(part)
        done, tokens = done + part["documents"], tokens + part["tokens"]
        for name, values in part["levels"].items():
            levels.setdefault(name, set()).update(values)
        if progress:
            progress(split, done, tokens)
    if done == 0:
        raise UserError(f"split {split!r} of the corpus is empty")
    channels = {tuple(p["channels"]) for p in parts}
    if len(channels) > 1:
        raise UserError(f"documents of split {split!r} carry different channels: {sorted(channels)}")
    for part in parts:
        if part["fields"] != parts[0]["fields"]:
            raise UserError(
                f"documents of split {split!r} have different fields: {parts[0]['fields']} and {part['fields']}"
            )
    few = {n: sorted(v) for n, v in levels.items() if len(v) <= MAX_LEVELS}
    entry = {"documents": done, "tokens": tokens, "parts": parts, "levels": few}
    for part in parts:
        part.pop("levels")
    return entry, channels.pop()


class _Recipe(NamedTuple):
    """How another process opens the tokenizer: its type, its config as JSON, its folder. (A component from
    outside the package cannot be sent to a process that has not imported it.)"""

    type: str
    config: str
    folder: Path


@functools.lru_cache(maxsize=1)
def _open(recipe: _Recipe) -> Vocabulary:
    cls: Any = registry.find("tokenizer", recipe.type)
    return open_tokenizer(validate(cls.Config, Source(json.loads(recipe.config))), recipe.folder)


Job = tuple[int, list[Document], str, Vocabulary | _Recipe, Path]


def _jobs(
    documents: Iterator[Document], split: str, tokenizer: Vocabulary | _Recipe, folder: Path
) -> Iterator[Job]:
    for number in itertools.count():
        chunk = list(itertools.islice(documents, PART))
        if not chunk:
            return
        yield number, chunk, split, tokenizer, folder


def _run(jobs: Iterator[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Parts in order; at most 2 * workers are in flight, so memory does not grow with the corpus."""
    if workers < 2:
        yield from map(_build_part, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_build_part, job) for job in itertools.islice(jobs, 2 * workers)]
        while waiting:
            try:
                part = waiting.pop(0).result()
            except BrokenProcessPool:
                raise Interrupted(
                    f"a worker process died (out of memory?); run the same command again with fewer workers than"
                    f" {workers}, it goes on after the last complete part"
                ) from None
            waiting.extend(pool.submit(_build_part, job) for job in itertools.islice(jobs, 1))
            yield part


def _build_part(job: Job) -> dict[str, Any]:
    """Tokenise one part and write its files, unless a complete part is there already."""
    number, documents, split, tokenizer, folder = job
    name = f"part-{number:05d}"
    marker = folder / f"{name}.json"
    digest = _documents_digest(documents)
    if marker.exists():
        part = read_json(marker)
        if part.get("source") == digest:
            return part
    tokenizer = _open(tokenizer) if isinstance(tokenizer, _Recipe) else tokenizer
    ids, offsets, channels = _encode(documents, tokenizer, split, number)
    data = {f"{name}.ids.npy": _npy(ids), f"{name}.docs.npy": _npy(offsets)}
    data |= {f"{name}.{c}.npy": _npy(values) for c, values in channels.items()}
    fields, types, levels = _fields(documents, split, number)
    if fields is not None:
        data[f"{name}.fields.parquet"] = fields
    files = {}
    for file, content in data.items():
        write_atomic(folder / file, content)
        files[file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    part = {
        "name": name,
        "source": digest,
        "documents": len(documents),
        "tokens": len(ids),
        "channels": sorted(channels),
        "fields": types,
        "files": files,
        "levels": levels,
    }
    write_json(marker, part)
    return part


def _documents_digest(documents: list[Document]) -> str:
    digest = hashlib.sha256()
    for d in documents:
        digest.update(
            repr(
                (d.text, sorted(d.fields.items()), sorted((k, list(v)) for k, v in d.channels.items()))
            ).encode()
        )
    return digest.hexdigest()


def _encode(
    documents: list[Document], tokenizer: Vocabulary, split: str, part: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    ids: list[np.ndarray] = []
    channels: dict[str, list[np.ndarray]] = {name: [] for name in sorted(documents[0].channels)}
    for i, document in enumerate(documents):
        where = f"document {part * PART + i} of split {split!r}"
        try:
            tokens, first = tokenizer.encode(document.text)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if len(tokens) == 0:
            raise UserError(f"{where}: has no token ({document.text[:60]!r})")
        if set(document.channels) != set(channels):
            raise UserError(f"{where}: channels {sorted(document.channels)}, expected {sorted(channels)}")
        for name, values in document.channels.items():
            if len(values) != len(document.text):
                raise UserError(
                    f"{where}: channel {name!r} has {len(values)} values for {len(document.text)} characters"
                )
            channels[name].append(np.asarray(values)[first])
        ids.append(tokens)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in ids])]).astype(np.int64)
    joined = {name: np.concatenate(values).astype(np.int32) for name, values in channels.items()}
    return np.concatenate(ids).astype(dtype), offsets, joined


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _fields(
    documents: list[Document], split: str, part: int
) -> tuple[bytes | None, dict[str, str], dict[str, list[str]]]:
    """Parquet bytes of the documents' fields, their types, and the levels of the textual ones."""
    names = list(documents[0].fields)
    for i, document in enumerate(documents):
        if list(document.fields) != names:
            raise UserError(
                f"document {part * PART + i} of split {split!r}: fields {list(document.fields)}, expected {names};"
                " every document needs the same"
            )
    if not names:
        return None, {}, {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.table({name: [d.fields[name] for d in documents] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        where = f"documents {part * PART} to {part * PART + len(documents) - 1} of split {split!r}"
        raise UserError(f"{where}: a field holds values of several types ({error})") from None
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    textual = [n for n in names if isinstance(documents[0].fields[n], str)]
    levels = {n: sorted({str(d.fields[n]) for d in documents}) for n in textual}
    return sink.getvalue(), {n: str(table.schema.field(n).type) for n in names}, levels


# --- overlap between splits -------------------------------------------------------------------------


def _overlap(building: Path, splits: list[str]) -> dict[str, int]:
    """Number of documents two splits share, by hash of their tokens: `{"train & val": 0, ...}`."""
    hashes = {split: _hashes(building / split) for split in splits}
    return {f"{a} & {b}": len(hashes[a] & hashes[b]) for a, b in itertools.combinations(splits, 2)}


def _hashes(folder: Path) -> set[bytes]:
    found = set()
    for path in sorted(folder.glob("part-*.ids.npy")):
        ids = np.load(path, allow_pickle=False)
        offsets = np.load(path.with_name(path.name.replace(".ids.", ".docs.")), allow_pickle=False)
        for a, b in itertools.pairwise(offsets):
            found.add(hashlib.blake2b(ids[a:b].tobytes(), digest_size=12).digest())
    return found
