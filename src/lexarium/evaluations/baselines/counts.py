"""Counting what stands next to what in a stream.

Numbers stand for pairs and longer stretches of symbols; a table of how often each occurs is a sorted array, so that
looking up a whole stream is one binary search per position. Counts are exact integers. Cost: one sort of the stream.
What is learnt utterance by utterance counts stretches of strings instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lexarium.evaluations.segmentation.stream import END, Stream

BOUNDARY = "\0"
"""The character of an utterance boundary, which no symbol has."""


@dataclass(frozen=True)
class Counts:
    """How often each of K codes occurs. codes (K,) int64, rising; times (K,) int64 >= 1."""

    codes: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray) -> Counts:
        """Of (N,) int64 codes."""
        return cls(*np.unique(codes, return_counts=True))

    def find(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each code in the table, and whether it is there; where it is not, the place means nothing."""
        if not len(self.codes):
            return np.zeros(codes.shape, dtype=np.int64), np.zeros(codes.shape, dtype=bool)
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return place, self.codes[place] == codes

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """How often each code occurs; 0 where never."""
        place, known = self.find(codes)
        return np.where(known, self.times[place] if len(self.times) else 0, 0)


def n_symbols(*streams: Stream) -> int:
    """A number above every symbol of the streams, with one to spare for the boundary, which counts as 0."""
    return max(int(stream.symbols.max()) for stream in streams) + 2


def pairs(stream: Stream, size: int) -> np.ndarray:
    """(M,) int64: code of the symbol before each position and its own, `before * size + own`, with symbols from 1 and
    the boundary 0. Before the first symbol of all stands the boundary that is the last position: the stream is a
    circle, in which every utterance lies between two boundaries."""
    shifted = stream.symbols + 1
    return np.asarray(np.roll(shifted, 1) * size + shifted)


def share(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """part / whole; 0 where whole is 0."""
    whole = np.broadcast_to(np.asarray(whole, dtype=np.float64), part.shape)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def texts(stream: Stream) -> list[str]:
    """Utterances as strings of one character per symbol: their stretches are hashed fast."""
    return "".join(map(chr, (stream.symbols - END).tolist())).split(BOUNDARY)[:-1]
