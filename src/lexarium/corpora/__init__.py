"""Corpora: named sources of documents with disjoint splits. `Corpus` is the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document


class Corpus(Protocol):
    """What every corpus offers. A class in this folder with `kind = "corpus"` is found by its `name`."""

    config: ComponentConfig

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold documents, among `train val test ood` and others."""

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, always in the same order."""

    def symbols(self) -> list[str]:
        """Words that are in the vocabulary whether or not a document holds them."""

    def fingerprint(self) -> str:
        """Hash of the content of files read; "" when the config alone determines every document."""
