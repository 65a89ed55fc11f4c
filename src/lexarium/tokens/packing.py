"""Which tokens form example i: pure functions of (seed, epoch, i), so any example is random access.

`documents`: one document per example. `windows`: the documents of an epoch, in a fixed or renewed order,
form one stream (with a separator after each document, if asked for) from which a window of `seq_len`
tokens is cut every `stride` tokens. A plan answers `pieces(i)` = which stretches of which documents, without
touching text. `window_shuffle` cuts overlapping windows and splits train from validation as the code of
Papadopoulos, Wenger and Hongler (2024) does; it is there to match published numbers.

Remainder policy. `documents`: none, every document is one example of every epoch. `windows`: there are
(total - seq_len) // stride + 1 windows; the tokens behind the last (with stride = seq_len: the last
total mod seq_len) are left out of that epoch; with `order: each_epoch` they differ from epoch to epoch.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple, Protocol

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
    """Fixed windows over the joined documents, visited in a shuffled order, or one after the other without `key`."""

    def __init__(
        self,
        lengths: np.ndarray,
        seq_len: int,
        separator: bool,
        join_key: int | None = None,
        key: int | None = None,
        stride: int | None = None,
    ) -> None:
        n = len(lengths)
        self._separator = separator
        self._order = np.arange(n) if join_key is None or n == 0 else rng.Permutation(n, join_key).all()
        self._ends = lengths[self._order]
        self._ends += int(separator)
        np.cumsum(self._ends, out=self._ends)
        self._seq_len, self._stride = seq_len, stride or seq_len
        self.n_tokens = int(self._ends[-1]) if n else 0
        if self.n_tokens < seq_len:
            raise UserError(
                f"packing: {self.n_tokens} tokens do not fill one window of seq_len {seq_len}; use a shorter seq_len"
            )
        self._n = (self.n_tokens - seq_len) // self._stride + 1
        self._visit: Any = np.arange(self._n) if key is None else rng.Permutation(self._n, key)

    def only(self, windows: np.ndarray) -> WindowPlan:
        """These windows, by their place in the stream, in this order."""
        found = copy.copy(self)
        found._visit, found._n = windows, len(windows)
        return found

    def __len__(self) -> int:
        return self._n

    def pieces(self, i: int) -> list[Piece]:
        position = int(self._visit[i]) * self._stride
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
        position = np.asarray(self._visit[i]) * self._stride
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
        stride: int | None = Field(None, gt=0)
        """Tokens from the start of one window to that of the next; empty = seq_len. Less: windows overlap."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def overlaps(self) -> bool:
        """Whether a token may lie in several windows."""
        return (self.config.stride or self.config.seq_len) < self.config.seq_len

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
            self.config.stride,
        )


class WindowShuffle:
    """Overlapping windows, shuffled once before the split: the published scheme of Arrows of Time (legacy).

    Of N tokens in corpus order, windows begin every (A - 1) // 2 tokens (A = seq_len), M = (N - A) // stride of
    them. Their numbers are shuffled once, with numpy's default generator and seed 42, the same in every run; the
    last `held_out` are validation (evaluation window_loss, as `val`), the rest training, in that order in every epoch.

    It LEAKS: windows overlap by half and are shuffled before they are split, so nearly every validation token is
    also in a training window. On small corpora or over several epochs its validation loss means nothing. To measure
    anything new, use packing windows with splits of the corpus.
    """

    kind, name, version = "packing", "window_shuffle", 1
    overlaps = True
    SHUFFLE_SEED = 42

    class Config(ComponentConfig):
        """Options of `window_shuffle`."""

        type: str = "window_shuffle"
        seq_len: int = Field(gt=2)
        """Tokens per window."""
        held_out: int = Field(gt=0)
        """Windows kept for validation; published: validation steps x 250, mostly 250,000."""
        separator: bool = False
        """Put the `eos` token after every document."""

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
        """The training windows: the same order for every seed and epoch."""
        stream, shuffled = self._windows(lengths)
        return stream.only(shuffled[: -self.config.held_out])

    def held_out_windows(self, lengths: np.ndarray) -> WindowPlan:
        """The windows kept for validation, in their shuffled order."""
        stream, shuffled = self._windows(lengths)
        return stream.only(shuffled[-self.config.held_out :])

    def _windows(self, lengths: np.ndarray) -> tuple[WindowPlan, np.ndarray]:
        length, stride = self.config.seq_len, (self.config.seq_len - 1) // 2
        stream = WindowPlan(lengths, length, self.config.separator, stride=stride)
        n = (stream.n_tokens - length) // stride  # the published formula, one less than would fit
        if n <= self.config.held_out:
            raise UserError(
                f"packing.held_out is {self.config.held_out} but the corpus has {n} windows of seq_len {length};"
                " hold out fewer"
            )
        return stream, rng.legacy_shuffle(n, self.SHUFFLE_SEED)
