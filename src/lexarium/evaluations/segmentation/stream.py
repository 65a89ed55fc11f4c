"""A stream of symbols to be cut into words: utterances one after the other, an utterance boundary after each.

A cut at position t lies immediately BEFORE symbol t. Utterance boundaries are positions of the stream too, because
cues have values there and a peak looks at its neighbours. What is decided, and scored without edges, are the
positions INSIDE utterances: every symbol but an utterance's first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

END = -1
"""The symbol of an utterance boundary."""
MOST = sys.maxunicode - 1
"""The greatest symbol: words are told apart as strings."""


@dataclass(frozen=True, eq=False)
class Stream:
    """M positions. symbols (M,) int64 >= 0, or END, which follows every utterance; starts (M,) bool: a gold word begins
    here (so each utterance's first symbol is one). No utterance is empty. Equal only to itself, so that what is known
    of a stream can be kept under it."""

    symbols: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        if len(self.symbols) != len(self.starts) or len(self.symbols) < 2 or self.symbols[-1] != END:
            raise ValueError(
                "a stream is utterances of symbols, END after each, and a flag for every position"
            )
        if (self.ends[1:] & self.ends[:-1]).any() or self.ends[0]:
            raise ValueError("a stream holds no empty utterance")
        if (self.symbols < END).any() or (self.symbols > MOST).any():
            raise ValueError(f"symbols are 0 to {MOST}, and {END} an utterance boundary")
        if not self.starts[self.first].all() or self.starts[self.ends].any():
            raise ValueError("a word begins with every utterance, and none at an utterance boundary")

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def ends(self) -> np.ndarray:
        """(M,) bool: utterance boundaries."""
        return np.asarray(self.symbols == END)

    @cached_property
    def first(self) -> np.ndarray:
        """(M,) bool: the first symbol of an utterance."""
        return np.concatenate([[True], self.ends[:-1]])

    @cached_property
    def inside(self) -> np.ndarray:
        """(M,) bool: positions at which a word may or may not begin."""
        return ~self.ends & ~self.first

    @cached_property
    def utterance(self) -> np.ndarray:
        """(M,) int64: the number of the utterance; a boundary belongs to the one before it."""
        return np.cumsum(self.first) - 1

    @property
    def n_utterances(self) -> int:
        """Utterances."""
        return int(self.ends.sum())

    def words(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(W,) int64 twice: first position of every word, and the position behind its last; `starts` (M,) bool holds
        each utterance's first symbol."""
        edges = np.flatnonzero(starts | self.ends)
        begin = starts[edges][:-1]
        return edges[:-1][begin], edges[1:][begin]

    def types(self, starts: np.ndarray) -> set[str]:
        """The distinct words, one character for each symbol; `starts` (M,) bool holds each utterance's first symbol."""
        # one string with a mark at every cut, split once: no object per word before the set
        marked = np.insert(self._codes, np.flatnonzero(starts & self.inside), 0)
        return set(marked.tobytes().decode("utf-32-le", "surrogatepass").split("\0")) - {""}

    @cached_property
    def _codes(self) -> np.ndarray:
        """(M,) code points from 1; an utterance boundary is 0."""
        return (self.symbols - END).astype("<u4")

    @cached_property
    def gold_words(self) -> tuple[np.ndarray, np.ndarray]:
        """`words` of the gold stream."""
        return self.words(self.starts)

    @cached_property
    def gold_types(self) -> set[str]:
        """`types` of the gold stream."""
        return self.types(self.starts)

    def only(self, utterances: np.ndarray) -> np.ndarray:
        """(M,) bool: the positions of some utterances, given by number."""
        chosen = np.zeros(self.n_utterances, dtype=bool)
        chosen[utterances] = True
        return chosen[self.utterance]

    def part(self, positions: np.ndarray) -> Stream:
        """The stream of whole utterances that (M,) bool positions mark."""
        return Stream(self.symbols[positions], self.starts[positions])

    @classmethod
    def of_words(cls, utterances: Sequence[Sequence[Sequence[int]]]) -> Stream:
        """From utterances of words of symbols, each symbol a number from 0 (`ord(letter)`, an id)."""
        symbols: list[int] = []
        starts: list[bool] = []
        for words in utterances:
            for word in words:
                symbols += word
                starts += [True] + [False] * (len(word) - 1)
            symbols.append(END)
            starts.append(False)
        return cls(np.array(symbols, dtype=np.int64), np.array(starts, dtype=bool))
