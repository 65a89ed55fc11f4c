"""What a preparation tells of itself while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lexarium.foundation.types import Document


@dataclass
class Tally:
    """How far preparation is."""

    stage: str = "tokens"
    documents: dict[str, int] = field(default_factory=dict)
    """Split -> documents done."""
    tokens: int = 0
    size: int = 0
    """Bytes done."""
    total: int = 0
    """Bytes in all; 0 = not known."""
    before: int = 0
    """Bytes done by an earlier call."""


Progress = Callable[[Tally], None]


class Watched:
    """A corpus that tells how much of it was read."""

    def __init__(self, corpus: Any, progress: Progress) -> None:
        self._corpus, self._progress = corpus, progress
        total = sum(part.size for part in corpus.parts()) if hasattr(corpus, "parts") else 0
        self._tally = Tally("tokenizer", total=total)
        progress(self._tally)
        if total:
            self.read = self._read  # so that who asks whether the corpus has parts is told the truth

    def __getattr__(self, name: str) -> Any:
        return getattr(self._corpus, name)

    def documents(self, split: str) -> Iterator[Document]:
        for document in self._corpus.documents(split):
            yield document
            self._tell(split, document.text)

    def _read(self, part: Any, counts: dict[str, int]) -> Iterator[tuple[str, Document]]:
        for split, document in self._corpus.read(part, counts):
            yield split, document
            self._tell(split, document.text)

    def _tell(self, split: str, text: str) -> None:
        tally, size = self._tally, len(text.encode("utf-8", "replace"))
        tally.documents[split] = n = tally.documents.get(split, 0) + 1
        tally.size += size
        if n % 64 == 0:
            self._progress(tally)
