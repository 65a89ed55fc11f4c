"""From a corpus to a finished token store: parallel, restartable, the same bytes every time.

Three stages, each of which needs the one before and can be asked for alone:

    prepare_tokenizer   trains the tokenizer
    prepare_tokens      tokenises every part of the corpus (see `parts.py`)
    prepare             the finished store: counts, overlap between splits, manifest

A part is a pure function of its documents and the tokenizer; its files are written atomically and a record of them
last, so a killed preparation goes on behind the last record, and the number of workers changes nothing. The
store is built in `<folder>.building/store`, owned by one process, and put in its place by one rename when the manifest
stands. A document that cannot be tokenised fails the whole command with its place, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig, identity
from lexarium.foundation.files import (
    MANIFEST,
    Damaged,
    DiskError,
    disk_errors,
    make_directory,
    read_json,
    remove_leftovers,
    sha256_file,
    sha256_json,
    sync_directory,
    write_json,
)
from lexarium.foundation.lock import Held, Lock, held
from lexarium.foundation.types import Corpus, Document, UserError
from lexarium.tokens import in_place
from lexarium.tokens.overlap import overlap
from lexarium.tokens.parts import MAX_LEVELS, Interrupted, Job, Outcome, Recipe, Tools, run
from lexarium.tokens.progress import Progress, Tally, Watched
from lexarium.tokens.store import TokenStore
from lexarium.tokens.tokenizers import FILE, is_tokenizer_file, save_tokenizer

FORMAT = 1
SMALL_CORPUS = 1 << 26
"""Bytes up to which a corpus is read once before anything is learned from it."""
PART = 20_000
"""Documents per job, for a corpus that is not read in parts."""


def corpus_identity(config: ComponentConfig, fingerprint: str) -> dict[str, Any]:
    """What makes two corpora the same: type, version, options and the content of the files read."""
    return {**_component_identity("corpus", config), "files": fingerprint}


def tokenizer_identity(config: ComponentConfig) -> dict[str, Any]:
    """What makes two tokenizers trained on the same corpus the same."""
    return _component_identity("tokenizer", config)


def _component_identity(kind: str, config: ComponentConfig) -> dict[str, Any]:
    options = {key: value for key, value in identity(config).items() if key != "type"}
    cls: Any = registry.find(kind, config.type)
    content = cls.content(config) if hasattr(cls, "content") else ""  # of files that a tokenizer is read from
    named = {"type": registry.content_name(kind, config.type), "version": cls.version, **options}
    return {**named, "content": content} if content else named


def store_name(corpus: ComponentConfig, tokenizer: ComponentConfig, source: dict[str, Any]) -> str:
    """`<corpus>-<tokenizer>-<hash10>`."""
    digest = sha256_json({"format": FORMAT, "corpus": source, "tokenizer": tokenizer_identity(tokenizer)})[
        :10
    ]
    short = lambda name: name.rpartition(":")[2].replace("_", "-").lower()
    return f"{short(corpus.type)}-{short(tokenizer.type)}-{digest}"


def open_tokenizer(config: ComponentConfig, folder: Path) -> Any:
    """The tokenizer saved in a store or run folder."""
    cls: Any = registry.find("tokenizer", config.type)
    tokenizer = cls(config)
    tokenizer.load(folder)
    return tokenizer


def symbols_of(tokenizer: Any) -> str:
    """Hash of what every id stands for, alike for all tokenizers of one vocabulary; "" for ids without a text."""
    known = getattr(tokenizer, "byte_lengths", lambda: None)() is not None
    return sha256_json(list(tokenizer.symbols)) if known else ""


def open_store_folder(
    corpus_config: ComponentConfig, tokenizer_config: ComponentConfig, root: Path
) -> tuple[Corpus, dict[str, Any], Path]:
    """The corpus, its identity, and where its store lies or will lie below `root`."""
    corpus: Corpus = registry.find("corpus", corpus_config.type)(corpus_config)
    source = corpus_identity(corpus_config, corpus.fingerprint())
    return corpus, source, root / store_name(corpus_config, tokenizer_config, source)


def building_folder(folder: Path) -> Path:
    """What belongs to the process that builds a store: the store itself, and the records of its jobs."""
    return folder.with_name(folder.name + ".building")


def prepare_tokenizer(
    corpus_config: ComponentConfig,
    tokenizer_config: ComponentConfig,
    root: Path,
    progress: Progress | None = None,
    wait: Callable[[str], bool] | None = None,
) -> Path:
    """The first stage: the folder that holds the trained tokenizer (of the finished store, where that stands)."""
    return _up_to("tokenizer", corpus_config, tokenizer_config, root, 0, progress, wait)


def prepare_tokens(
    corpus_config: ComponentConfig,
    tokenizer_config: ComponentConfig,
    root: Path,
    workers: int = 0,
    progress: Progress | None = None,
    wait: Callable[[str], bool] | None = None,
) -> Path:
    """The first two stages: the folder that holds the tokenizer and every part."""
    return _up_to("tokens", corpus_config, tokenizer_config, root, workers, progress, wait)


def prepare(
    corpus_config: ComponentConfig,
    tokenizer_config: ComponentConfig,
    root: Path,
    workers: int = 0,
    progress: Progress | None = None,
    wait: Callable[[str], bool] | None = None,
) -> TokenStore:
    """The finished store for a corpus and a tokenizer below `root`, built as far as it is not there.

    Raises UserError naming the document when one cannot be tokenised, when a split is empty, and when
    another process is building the same store (unless `wait` says to wait for it).
    """
    return TokenStore(_up_to("store", corpus_config, tokenizer_config, root, workers, progress, wait))


def _up_to(
    stage: str,
    corpus_config: ComponentConfig,
    tokenizer_config: ComponentConfig,
    root: Path,
    workers: int,
    progress: Progress | None,
    wait: Callable[[str], bool] | None,
) -> Path:
    """Do what is missing up to a stage; the store's folder, or the one it is built in."""
    corpus, source, folder = open_store_folder(corpus_config, tokenizer_config, root)
    building = building_folder(folder)
    if (folder / MANIFEST).exists():
        _check_tokenizer(folder, tokenizer_config)
        TokenStore(folder).verify(remembered=True)
        if building.exists() and not held(building):  # its process was killed just after the rename
            shutil.rmtree(building, ignore_errors=True)
        return folder
    try:
        with Lock(building, wait) as lock:
            if (folder / MANIFEST).exists():  # another process finished it while this one waited
                return folder
            try:
                work = _Work(corpus, source, corpus_config, tokenizer_config, building, workers, progress)
                work.tokenizer()
                if stage == "tokenizer":
                    return work.store
                splits, counts = work.tokens()
                if stage == "tokens":
                    return work.store
                work.finish(splits, counts)
            except (DiskError, Held, Interrupted):
                raise  # what is complete is worth keeping
            except UserError:
                _clear(building)  # the documents are at fault: no later attempt can go on from here
                raise
            lock.check()
            with disk_errors(folder):
                work.store.rename(folder)
                sync_directory(folder.parent)
            _clear(building)
    finally:
        with contextlib.suppress(OSError):
            building.rmdir()
    return folder


def _check_tokenizer(folder: Path, config: ComponentConfig) -> None:
    """Raise Damaged when a finished store's tokenizer is not the one its ids were made by."""
    wanted = read_json(folder / MANIFEST).get("vocabulary")
    if open_tokenizer(config, folder).fingerprint() != wanted:
        raise Damaged(
            f"{folder / FILE}: is not the tokenizer that made this store's ids; restore it, or delete the store and"
            " prepare again"
        )


class _Work:
    """One store being built."""

    def __init__(
        self,
        corpus: Corpus,
        source: dict[str, Any],
        corpus_config: ComponentConfig,
        tokenizer_config: ComponentConfig,
        building: Path,
        workers: int,
        progress: Progress | None,
    ) -> None:
        self.corpus, self.source, self.workers = corpus, source, workers
        self.store, self._records = building / "store", building / "jobs"
        make_directory(self.store)
        make_directory(self._records)
        for folder in (building, self.store, self._records):
            remove_leftovers(folder)
        self._corpus_config, self._tokenizer_config = corpus_config, tokenizer_config
        self._progress = progress or (lambda tally: None)
        self._trained: Any = None

    def tokenizer(self) -> Any:
        """The tokenizer, trained if that was not done before."""
        if self._trained is None and is_tokenizer_file(self.store):
            self._trained = open_tokenizer(self._tokenizer_config, self.store)
        elif self._trained is None:
            self._read_small_corpus()
            tokenizer = registry.find("tokenizer", self._tokenizer_config.type)(self._tokenizer_config)
            tokenizer.train(Watched(self.corpus, self._progress))
            save_tokenizer(tokenizer, self.store)
            self._trained = tokenizer
        return self._trained

    def _read_small_corpus(self) -> None:
        """Find what is wrong with a small corpus before anything is learned: bytes that are no text, splits that stay
        empty. (A large one has something for every split; its text is looked at as it is read.)"""
        corpus: Any = self.corpus
        if not hasattr(corpus, "parts") or sum(part.size for part in corpus.parts()) > SMALL_CORPUS:
            return
        found: dict[str, list[dict[str, Any]]] = {}
        counts: dict[str, int] = {}
        for part in corpus.parts():
            for split, document in corpus.read(part, counts):
                entry = {"documents": 0, "channels": sorted(document.channels), "fields": {}}
                found.setdefault(split, [entry])[0]["documents"] += 1
        self._check_splits(found, counts)

    def tokens(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
        """Tokenise every part; split -> entries of its parts, and what was mended."""
        if hasattr(self.corpus, "token_parts"):
            return self._given_tokens(), {}
        tools = Tools(self.corpus, self.tokenizer(), self.store, self._records)
        if self.workers > 1:
            recipes = Recipe.of("corpus", self._corpus_config), Recipe.of("tokenizer", self._tokenizer_config)
            tools = Tools(*recipes, self.store, self._records)
        for split in self.corpus.splits:
            make_directory(self.store / split)
            remove_leftovers(self.store / split)
        jobs, total = self._jobs()
        tally, found = Tally("tokens", dict.fromkeys(self.corpus.splits, 0), 0, 0, total), Outcome()
        self._progress(tally)
        for outcome in run(jobs, tools, self.workers, self._within(tally)):
            for split, parts in outcome.parts.items():
                found.parts.setdefault(split, []).extend(parts)
                tally.documents[split] = tally.documents.get(split, 0) + sum(p["documents"] for p in parts)
                tally.tokens += sum(p["tokens"] for p in parts)
            for name, n in outcome.counts.items():
                found.counts[name] = found.counts.get(name, 0) + n
            tally.size += outcome.size
            tally.before += outcome.before
            self._progress(tally)
        self._check_splits(found.parts, found.counts)
        return {split: found.parts[split] for split in self.corpus.splits}, found.counts

    def _within(self, tally: Tally) -> Callable[[int], None]:
        """Tells of text that is read inside a job, where this process does the work."""
        done = [0]

        def tell(size: int) -> None:
            done[0] = 0 if size < 0 else done[0] + size
            self._progress(
                replace(tally, size=min(tally.size + done[0], tally.total or tally.size + done[0]))
            )

        return tell

    def _given_tokens(self) -> dict[str, list[dict[str, Any]]]:
        """Parts of ids that exist already."""
        corpus, found, tally = cast(Any, self.corpus), dict[str, list[dict[str, Any]]](), Tally()
        own = symbols_of(self.tokenizer())
        for path, other in getattr(corpus, "vocabularies", tuple)():
            if own and other != own:
                raise UserError(
                    f"{path}: says that its ids are of another vocabulary (symbols_sha256 {other[:12]}..., this"
                    f" tokenizer's is {own[:12]}...); name the tokenizer that made them"
                )
        for split in corpus.splits:
            make_directory(self.store / split)
            remove_leftovers(self.store / split)
            for entry in in_place.build(
                corpus.token_parts(split), self.tokenizer().vocab_size, self.store / split
            ):
                found.setdefault(split, []).append(entry)
                tally.tokens += entry["tokens"]
                tally.documents[split] = tally.documents.get(split, 0) + entry["documents"]
                self._progress(tally)
        self._check_splits(found, {})
        return found

    def _jobs(self) -> tuple[Iterator[Job], int]:
        """What there is to do, and how many bytes that is (0 = not known)."""
        corpus: Any = self.corpus
        if not hasattr(corpus, "parts"):
            return _chunks(corpus), 0
        parts, source = corpus.parts(), sha256_json(self.source)
        digest = lambda part: sha256_json([source, list(part.where)])
        jobs = (Job(i, f"part-{i:05d}", digest(part), part.size, part=part) for i, part in enumerate(parts))
        return jobs, sum(part.size for part in parts)

    def _check_splits(self, parts: dict[str, list[dict[str, Any]]], counts: dict[str, int]) -> None:
        n = sum(part["documents"] for entries in parts.values() for part in entries)
        for split in self.corpus.splits:
            if not parts.get(split):
                why = _why_empty(split, n, counts, getattr(self._corpus_config, "block_bytes", None))
                raise UserError(f"split {split!r} of the corpus is empty{why}")
            for what in ("channels", "fields"):
                first = parts[split][0][what]
                other = next((p[what] for p in parts[split] if p[what] != first), None)
                if other is not None:
                    raise UserError(
                        f"documents of split {split!r} have different {what}: {first} and {other}"
                    )
        channels = sorted({tuple(entries[0]["channels"]) for entries in parts.values()})
        if len(channels) > 1:
            raise UserError(f"splits carry different channels: {channels}; every split needs the same")

    def finish(self, parts: dict[str, list[dict[str, Any]]], counts: dict[str, int]) -> None:
        """Write the manifest, and with it everything a store holds."""
        splits = {split: _entry(entries) for split, entries in parts.items()}
        self._progress(Tally("store"))
        shared = overlap(self.store, splits)
        record: dict[str, Any] = getattr(self.corpus, "record", dict)()
        tokenizer = self.tokenizer()
        write_json(
            self.store / MANIFEST,
            {
                "format": FORMAT,
                "corpus": self.source,
                "tokenizer": tokenizer_identity(self._tokenizer_config),
                "vocabulary": tokenizer.fingerprint(),
                "symbols": symbols_of(tokenizer),
                "tokenizer_sha256": sha256_file(self.store / FILE),
                "vocab_size": tokenizer.vocab_size,
                "roles": dict(tokenizer.roles),
                "channels": next(iter(parts.values()))[0]["channels"],
                "splits": splits,
                "overlap": shared["documents"],
                "overlap_details": {k: v for k, v in shared.items() if k != "documents"},
                **({"mended": counts} if counts else {}),
                **({"sources": record} if record else {}),
            },
        )


def _entry(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of a split; the levels of its textual fields where they are few."""
    levels: dict[str, set[str]] = {}
    many: set[str] = set()
    for part in parts:
        for name, values in part.pop("levels").items():
            if values is None or len(levels.setdefault(name, set()).union(values)) > MAX_LEVELS:
                many.add(name)
            else:
                levels[name].update(values)
    few = {name: sorted(values) for name, values in levels.items() if name not in many}
    totals = {what: sum(part[what] for part in parts) for what in ("documents", "tokens")}
    return {**totals, "parts": parts, "levels": few}


def _why_empty(split: str, n: int, counts: dict[str, int], block_bytes: int | None) -> str:
    """What may have left a split without documents, of n in all."""
    left = ", ".join(f"{k} {name}" for name, k in counts.items())
    if not n:
        return f" (left out: {left})" if left else ""
    few = ""
    if n < 10 and block_bytes:
        few = (
            f" A document is about {block_bytes:,} bytes of the text (corpus.block_bytes), or with corpus.documents:"
            " line a line; both end at line ends, so a text of one line cannot be divided: break it into lines, name"
            " held-out files (corpus.val_path), or hold nothing out (corpus.split.val: 0)."
        )
    mend = "hold out less" if split == "train" else "hold out more"
    return (
        f"; all {n} documents fell into other splits: {mend}, choose another corpus.split.seed, or cut smaller"
        f" documents.{few}"
    )


def _chunks(corpus: Corpus) -> Iterator[Job]:
    """PART documents at a time of a corpus that only gives them one after the other."""
    number = 0
    for split in corpus.splits:
        documents = corpus.documents(split)
        for k in itertools.count():
            chunk = tuple(itertools.islice(documents, PART))
            if not chunk:
                break
            size = sum(len(document.text) for document in chunk)
            yield Job(number, f"part-{k:05d}", _documents_digest(chunk), size, split, k * PART, chunk)
            number += 1


def _documents_digest(documents: tuple[Document, ...]) -> str:
    digest = hashlib.sha256()
    for d in documents:
        channels = sorted((k, list(v)) for k, v in d.channels.items())
        digest.update(repr((d.text, sorted(d.fields.items()), channels)).encode())
    return digest.hexdigest()


def _clear(building: Path) -> None:
    """Remove what a building directory holds beside the lock's own files."""
    for name in ("store", "jobs"):
        shutil.rmtree(building / name, ignore_errors=True)
