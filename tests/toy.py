"""A corpus for tests: documents written as JSON lines, one file per split, used as a component from outside.

write_corpus(folder, {"train": ["a b", Document("c", {"kind": "x"})]})     the files
corpus_config(folder)                                                      the component
toy_store(folder, {...}, tokenizer="word")                                 a prepared store
toy_tokenizer(["a b c"])                                                   a trained tokenizer
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.types import Document, Example
from lexarium.tokens.prepare import prepare
from lexarium.tokens.store import TokenStore

TYPE = f"{Path(__file__).resolve()}:JsonLines"
Documents = Mapping[str, Sequence[Document | str]]


class JsonLines:
    """Documents from `<folder>/<split>.jsonl`, splits in the order of their names."""

    kind, name, version = "corpus", "json_lines", 1

    class Config(ComponentConfig):
        """Where the files are; their content is the fingerprint."""

        type: str = TYPE
        folder: str = outside_identity()
        words: tuple[str, ...] = ()

    def __init__(self, config: Config) -> None:
        self.config = config
        self._paths = {p.stem: p for p in sorted(Path(config.folder).glob("*.jsonl"))}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._paths)

    def documents(self, split: str) -> Iterator[Document]:
        for line in self._paths[split].read_text(encoding="utf-8").splitlines():
            text, fields, channels = json.loads(line)
            yield Document(text, fields, channels)

    def symbols(self) -> list[str]:
        return list(self.config.words)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths.values():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


def write_corpus(folder: Path, documents: Documents) -> Path:
    """Write one file per split; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, members in documents.items():
        lines = []
        for d in members:
            d = Document(d) if isinstance(d, str) else d
            channels = {name: list(map(int, values)) for name, values in d.channels.items()}
            lines.append(json.dumps([d.text, dict(d.fields), channels]) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def corpus_config(folder: Path, **options: Any) -> ComponentConfig:
    """The component that reads what `write_corpus` wrote."""
    return registry.find("corpus", TYPE).Config(folder=str(folder), **options)


def tokenizer_config(name: str = "word") -> ComponentConfig:
    """`word` or `character`."""
    return registry.find("tokenizer", name).Config()


def toy_store(folder: Path, documents: Documents, tokenizer: str = "word", workers: int = 0) -> TokenStore:
    """Write a corpus to `folder/corpus` and prepare it below `folder/stores`."""
    write_corpus(folder / "corpus", documents)
    return prepare(corpus_config(folder / "corpus"), tokenizer_config(tokenizer), folder / "stores", workers)


class InMemory:
    """A corpus of one split, given as texts."""

    splits = ("train",)

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def documents(self, split: str) -> Iterator[Document]:
        return map(Document, self.texts)

    def symbols(self) -> list[str]:
        return []


def toy_tokenizer(texts: Sequence[str], name: str = "word") -> Any:
    """A tokenizer trained on texts."""
    tokenizer = registry.find("tokenizer", name)(tokenizer_config(name))
    tokenizer.train(InMemory(texts))
    return tokenizer


def example(
    ids: Sequence[int], index: int = 0, segment: Sequence[int] | None = None, **channels: Sequence[int]
) -> Example:
    """An example of one document (or of those that `segment` tells apart)."""
    array = lambda values: np.array(values, dtype=np.int64)
    segments = array(segment if segment is not None else [0] * len(ids))
    starts = {s: i for i, s in reversed(list(enumerate(segments.tolist())))}
    position = array([i - starts[s] for i, s in enumerate(segments.tolist())])
    return Example(
        array(ids), position, segments, {n: array(v) for n, v in channels.items()}, (index,), index
    )


def matches(fields: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether one document's fields meet a condition. The simple form of `Split.where`, a value at a time."""
    for name, wanted in condition.items():
        value: Any = fields[name]
        if isinstance(wanted, Mapping):
            if not wanted.get("min", value) <= value <= wanted.get("max", value):
                return False
        elif isinstance(wanted, list | tuple):
            if value not in wanted:
                return False
        elif value != wanted:
            return False
    return True
