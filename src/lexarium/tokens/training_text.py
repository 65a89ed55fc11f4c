"""What a subword tokenizer is trained on: the text of some splits, all of it or an even sample, in pieces.

A sample takes from every part of the corpus (or of a corpus without parts, from its beginning on) the documents that
fill the part's share of the wanted bytes. What was taken is recorded. Runs of more than LONGEST_RUN characters without
white space are cut there for training: what learns from whole words would otherwise keep every such run in memory
(text of scripts without spaces, encoded binary data). Their number is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

LONGEST_RUN = 1000
_SPACES = np.zeros(256, dtype=bool)
_SPACES[[9, 10, 11, 12, 13, 32]] = True


class TrainingText:
    """The text, to be read once; `record` says afterwards what it was."""

    def __init__(self, corpus: Any, splits: tuple[str, ...], sample_bytes: int | None) -> None:
        self._corpus, self._sample = corpus, sample_bytes
        self._splits = tuple(s for s in corpus.splits if s in splits) or corpus.splits[:1]
        self._digest = hashlib.sha256()
        self.record: dict[str, Any] = {
            "splits": list(self._splits), "sample_bytes": sample_bytes, "bytes": 0, "documents": 0, "cut_runs": 0,
        }  # fmt: skip
        if sample_bytes is not None:
            self.record["taken"] = []

    def __iter__(self) -> Iterator[str]:
        for where, share, documents in self._stretches():
            taken = n = 0
            for text in documents:
                data = text.encode("utf-8")
                self._digest.update(data)
                taken, n = taken + len(data), n + 1
                yield from self._cut(text, data)
                if share is not None and taken >= share:
                    break
            self.record["bytes"] += taken
            self.record["documents"] += n
            if self._sample is not None and n:
                self.record["taken"].append([where, n, taken])
        self.record["sha256"] = self._digest.hexdigest()

    def _stretches(self) -> Iterator[tuple[str, float | None, Iterator[str]]]:
        """(name, bytes wanted or None = all, texts) of each stretch of the corpus."""
        if not hasattr(self._corpus, "parts"):
            left = self._sample
            for split in self._splits:
                before = self.record["bytes"]
                if left is None or left > 0:
                    yield split, left, (d.text for d in self._corpus.documents(split))
                left = None if left is None else left - (self.record["bytes"] - before)
            return
        parts = self._corpus.parts()
        whole = max(1, sum(part.size for part in parts))
        for part in parts:
            share = None if self._sample is None else self._sample * part.size / whole
            read = self._corpus.read(part, {})
            yield part.name, share, (d.text for split, d in read if split in self._splits)

    def _cut(self, text: str, data: bytes) -> Iterator[str]:
        """The text, cut inside runs without white space that are too long."""
        places = np.flatnonzero(_SPACES[np.frombuffer(data, dtype=np.uint8)])
        gaps = np.diff(places, prepend=-1, append=len(data))
        if gaps.size == 0 or gaps.max() <= LONGEST_RUN:
            yield text
            return
        piece = ""
        for word in text.splitlines(keepends=True):
            for run in word.split(" "):
                if len(run) > LONGEST_RUN:
                    self.record["cut_runs"] += 1
                    yield piece
                    yield from (run[i : i + LONGEST_RUN] for i in range(0, len(run), LONGEST_RUN))
                    piece = ""
                else:
                    piece += run + " "
            piece = piece.removesuffix(" ")
        if piece:
            yield piece
