"""Which tokens form example i: pure functions of (seed, epoch, i), so any example is random access.

`documents`: one document per example. `windows`: the documents of an epoch, in a fixed or renewed order,
form one stream (with a separator after each document, if asked for) that is cut into windows of
`seq_len` tokens. A plan answers `pieces(i)` = which stretches of which documents, without touching text.

Remainder policy. `documents`: none, every document is one example of every epoch. `windows`: the last
(total mod seq_len) tokens of the epoch's stream do not form a window and are left out of that epoch;
with `order: each_epoch` they differ from epoch to epoch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field

from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import UserError

SEPARATOR = -1


class Piece(NamedTuple):
    """Tokens start..stop of a document of the view; document -1 stands for one separator token."""

    document: int
    start: int
    stop: int


class Pieces(NamedTuple):
    """The pieces of B examples, one after the other: P stretches of documents, each with its separator or without.

    document, start, stop (P,) int64, and separated (P,) bool: a separator follows. A piece may be a separator
    alone (start = stop): the first of an example, when its document lies before it. counts (B,): pieces of each
    example; lengths (B,): its tokens.
    """

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    separated: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


class Plan(Protocol):
    """The examples of one epoch.

    A plan may also have `pieces_of(i) -> Pieces`: the same for (B,) int64 examples at once, without a loop.
    """

    def __len__(self) -> int: ...

    def pieces(self, i: int) -> list[Piece]:
        """What example i is made of."""


class DocumentPlan:
    """One document per example, in an order that is new every epoch."""

    def __init__(self, lengths: np.ndarray, key: int) -> None:
        self._lengths = lengths
        self._order = rng.Permutation(len(lengths), key)

    def __len__(self) -> int:
        return len(self._lengths)

    def pieces(self, i: int) -> list[Piece]:
        document = int(self._order[i])
        return [Piece(document, 0, int(self._lengths[document]))]

    def pieces_of(self, i: np.ndarray) -> Pieces:
        """What examples i are made of."""
        document = np.asarray(self._order[i])
        lengths, none = self._lengths[document], np.zeros_like(document)
        return Pieces(document, none, lengths, none.astype(bool), none + 1, lengths)


class WindowPlan:
    """Fixed windows over the joined documents, visited in an order that is new every epoch."""

    def __init__(
        self, lengths: np.ndarray, seq_len: int, separator: bool, join_key: int | None, key: int
    ) -> None:
        n = len(lengths)
        self._separator = separator
        self._order = np.arange(n) if join_key is None or n == 0 else rng.Permutation(n, join_key).all()
        self._ends = lengths[self._order]
        self._ends += int(separator)
        np.cumsum(self._ends, out=self._ends)
        self._seq_len = seq_len
        self._n = int(self._ends[-1]) // seq_len if n else 0
        if self._n == 0:
            total = int(self._ends[-1]) if n else 0
            raise UserError(
                f"packing: {total} tokens do not fill one window of seq_len {seq_len}; use a shorter seq_len"
            )
        self._visit = rng.Permutation(self._n, key)

    def __len__(self) -> int:
        return self._n

    def pieces(self, i: int) -> list[Piece]:
        position = int(self._visit[i]) * self._seq_len
        end, found = position + self._seq_len, []
        place = int(np.searchsorted(self._ends, position, side="right"))
        while position < end:
            document_end = int(self._ends[place])
            document_start = int(self._ends[place - 1]) if place else 0
            text_end = document_end - int(self._separator)
            stop = min(end, text_end)
            if stop > position:
                found.append(Piece(int(self._order[place]), position - document_start, stop - document_start))
            if self._separator and end >= document_end:
                found.append(Piece(SEPARATOR, 0, 1))
            position, place = min(end, document_end), place + 1
        return found

    def pieces_of(self, i: np.ndarray) -> Pieces:
        """What windows i are made of."""
        position = np.asarray(self._visit[i]) * self._seq_len
        ascending = np.argsort(position)  # neighbours are found faster
        first, counts = np.empty_like(position), np.empty_like(position)
        first[ascending] = np.searchsorted(self._ends, position[ascending], side="right")
        counts[ascending] = np.searchsorted(
            self._ends, position[ascending] + (self._seq_len - 1), side="right"
        )
        counts += 1 - first
        before = np.cumsum(counts) - counts
        place = np.repeat(first - before, counts)
        place += np.arange(len(place))
        document_end = self._ends[place]
        document_start = np.where(place > 0, self._ends[place - 1], 0)
        begin = np.repeat(position, counts)
        end = np.minimum(begin + self._seq_len, document_end)
        begin = np.maximum(begin, document_start)
        separated = end == document_end if self._separator else np.zeros(len(place), dtype=bool)
        start, stop = begin - document_start, end - document_start - separated
        return Pieces(self._order[place], start, stop, separated, counts, np.full(len(i), self._seq_len))


class DocumentPacking:
    """One document per example."""

    kind, name, version = "packing", "documents", 1
    separator = False

    class Config(ComponentConfig):
        """Options of `documents`."""

        type: str = "documents"
        max_length: int = Field(512, gt=0)
        """Longest document accepted, in tokens; a longer one is an error, never cut in silence."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def longest(self) -> int:
        """Upper limit of an example's length."""
        return self.config.max_length

    def plan(self, lengths: np.ndarray, seed: int, epoch: int) -> DocumentPlan:
        """The examples of an epoch; `seed` is the run's order seed."""
        if len(lengths) and int(lengths.max()) > self.config.max_length:
            raise UserError(
                f"packing.max_length is {self.config.max_length} but document {int(lengths.argmax())} has"
                f" {int(lengths.max())} tokens; raise it or use packing type windows"
            )
        return DocumentPlan(lengths, rng.key(seed, "order", epoch))


class WindowPacking:
    """Fixed windows over the joined documents."""

    kind, name, version = "packing", "windows", 1

    class Config(ComponentConfig):
        """Options of `windows`."""

        type: str = "windows"
        seq_len: int = Field(gt=0)
        """Tokens per window."""
        separator: bool = True
        """Put the `eos` token after every document."""
        order: Literal["corpus", "once", "each_epoch"] = "each_epoch"
        """Join documents in corpus order, in one shuffled order, or in a new order every epoch."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def separator(self) -> bool:
        """Whether pieces may name the separator."""
        return self.config.separator

    @property
    def longest(self) -> int:
        """Length of every example."""
        return self.config.seq_len

    def plan(self, lengths: np.ndarray, seed: int, epoch: int) -> WindowPlan:
        """The windows of an epoch; `seed` is the run's order seed."""
        join = {"corpus": None, "once": rng.key(seed, "join"), "each_epoch": rng.key(seed, "join", epoch)}
        return WindowPlan(
            lengths,
            self.config.seq_len,
            self.config.separator,
            join[self.config.order],
            rng.key(seed, "order", epoch),
        )
