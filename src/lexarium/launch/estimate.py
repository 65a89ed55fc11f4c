"""What preparing a corpus will take, before it is done: measured on a few megabytes, said for the whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.files import MANIFEST
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.parts import ids_of
from lexarium.tokens.prepare import building_folder, open_store_folder, open_tokenizer
from lexarium.tokens.tokenizers import is_tokenizer_file

SAMPLE = 2_000_000
"""Bytes that are read and tokenised."""


class _Sample:
    """The first documents of a corpus, as a corpus."""

    splits = ("train",)

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents

    def documents(self, split: str) -> Iterator[Document]:
        return iter(self._documents)

    def symbols(self) -> list[str]:
        return []


def estimate(corpus_config: ComponentConfig, tokenizer_config: ComponentConfig, root: Path) -> dict[str, Any]:
    """Sizes and times of a preparation; nothing is written.

    size: bytes of text; parts; sample: bytes measured; tokens; disk: bytes of the store; seconds: CPU seconds of
    tokenising in one process; trained: whether the tokenizer was there (else one trained on the sample stood in).
    """
    corpus, _, folder = open_store_folder(corpus_config, tokenizer_config, root)
    if hasattr(corpus, "token_parts"):
        raise UserError(
            "--dry-run: the corpus holds ids already; they are read in place, nothing is tokenised"
        )
    if not hasattr(corpus, "parts"):
        raise UserError(
            f"--dry-run: corpus {corpus_config.type!r} generates its documents; how many is not known before"
        )
    parts = corpus.parts()
    documents = list(_first(corpus, parts))
    sample = sum(len(d.text.encode()) for d in documents)
    tokenizer, trained = _tokenizer(tokenizer_config, folder, documents)
    start = time.process_time()
    tokens = sum(len(ids_of(tokenizer, d.text)) for d in documents)
    seconds = time.process_time() - start
    size = corpus.text_size() if hasattr(corpus, "text_size") else sum(part.size for part in parts)
    scale = size / max(1, sample)
    width = 2 if tokenizer.vocab_size <= 1 << 16 else 4
    return {
        "store": str(folder),
        "finished": (folder / MANIFEST).exists(),
        "size": size,
        "parts": len(parts),
        "sample": sample,
        "trained": trained,
        "tokens": round(tokens * scale),
        "disk": round(tokens * scale * width),
        "seconds": seconds * scale,
    }


def _first(corpus: Any, parts: list[Any]) -> Iterator[Document]:
    """Documents that make SAMPLE bytes, from three places of the corpus."""
    places = sorted({0, len(parts) // 2, len(parts) - 1})
    for part in (parts[i] for i in places):
        left = SAMPLE // len(places)
        for _, document in corpus.read(part, {}):
            yield document
            left -= len(document.text.encode())
            if left <= 0:
                break


def _tokenizer(config: ComponentConfig, folder: Path, documents: list[Document]) -> tuple[Any, bool]:
    """The tokenizer where it is trained already, else a smaller one trained on the sample."""
    for place in (folder, building_folder(folder) / "store"):
        if is_tokenizer_file(place):
            return open_tokenizer(config, place), True
    cls: Any = registry.find("tokenizer", config.type)
    learned = config.type in ("bpe", "sentencepiece")
    for size in (4000, 1000, 300) if learned else ():
        if size < getattr(config, "vocab_size", size + 1):
            with contextlib.suppress(UserError):  # the sample has too few pairs
                tokenizer = cls(config.model_copy(update={"vocab_size": size, "sample_bytes": None}))
                tokenizer.train(_Sample(documents))
                return tokenizer, False
    tokenizer = cls(config)
    tokenizer.train(_Sample(documents))
    return tokenizer, False
