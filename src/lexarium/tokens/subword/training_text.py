"""What a subword tokenizer is trained on: the text of some splits, all of it or an even sample, in pieces.

A sample takes documents spread evenly over every part of the corpus: the document with number n where frac(n phi) is
below the wanted share of all bytes (phi the golden ratio). Of a corpus whose size is not known before, it takes the
first ones. What was taken is recorded. Runs of more than LONGEST_RUN characters without
white space are cut there for training (text of scripts without spaces, encoded binary data): a word of any length would
be one unit to what learns from words, however long. Their number is recorded.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lexarium.foundation import rng

LONGEST_RUN = 1000
_SPACES = np.zeros(256, dtype=bool)
_SPACES[[9, 10, 11, 12, 13, 32]] = True


class TrainingText:
    """The text, to be read once; `record` says afterwards what it was."""

    def __init__(self, corpus: Any, splits: tuple[str, ...], sample_bytes: int | None) -> None:
        self._corpus, self._sample = corpus, sample_bytes
        self._splits = tuple(s for s in corpus.splits if s in splits) or corpus.splits[:1]
        self._digest = hashlib.sha256()
        self._known: int | None = (
            corpus.text_size(self._splits) if sample_bytes and hasattr(corpus, "text_size") else None
        )
        """Bytes of the whole text, where a sample of it is wanted and they are known."""
        self.record: dict[str, Any] = {
            "splits": list(self._splits), "sample_bytes": sample_bytes, "bytes": 0, "documents": 0, "cut_runs": 0,
        }  # fmt: skip
        if sample_bytes is not None:
            self.record["taken"] = []

    def __iter__(self) -> Iterator[str]:
        for where, documents in self._stretches():
            taken = n = 0
            for text in documents:
                data = text.encode("utf-8")
                self._digest.update(data)
                taken, n = taken + len(data), n + 1
                yield from self._cut(text, data)
                if (
                    self._known is None
                    and self._sample is not None
                    and self.record["bytes"] + taken >= self._sample
                ):
                    break
            self.record["bytes"] += taken
            self.record["documents"] += n
            if self._sample is not None and n:
                self.record["taken"].append([where, n, taken])
        self.record["sha256"] = self._digest.hexdigest()

    def _stretches(self) -> Iterator[tuple[str, Iterator[str]]]:
        """(name, texts that are wanted) of each stretch of the corpus."""
        if not hasattr(self._corpus, "parts"):
            for split in self._splits:
                if self._sample is None or self.record["bytes"] < self._sample:
                    yield split, (d.text for d in self._corpus.documents(split))
            return
        share = 1.0 if self._sample is None or self._known is None else self._sample / max(1, self._known)
        numbers = itertools.count()  # through all parts: of many small ones not every first document
        for part in self._corpus.parts():
            if self._known is None and self._sample is not None and self.record["bytes"] >= self._sample:
                return
            own = (d.text for split, d in self._corpus.read(part, {}) if split in self._splits)
            # numbered among themselves: documents are held out by the same rule, and the two must not meet
            yield part.name, (text for text in own if rng.spread(next(numbers)) < share)

    def _cut(self, text: str, data: bytes) -> Iterator[str]:
        """The text, cut inside runs without white space that are too long."""
        places = np.flatnonzero(_SPACES[np.frombuffer(data, dtype=np.uint8)])
        gaps = np.diff(places, prepend=-1, append=len(data))
        if gaps.size == 0 or gaps.max() <= LONGEST_RUN:
            yield text
            return
        piece = ""
        for word in text.splitlines(keepends=True):
            for run in word.split(" "):  # a tab ends no run here: such a run is cut once more than it needs
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
