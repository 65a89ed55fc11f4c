"""Predictability by counting: what an n-gram model knows about the next symbol, as cues for word boundaries.

The context of a position is the k symbols before it, within its utterance; what is missing to the left of the
utterance is filled with boundaries. Outcomes are symbols and the boundary that ends an utterance. With c the counts on
the train stream and N = c(context), the estimate is maximum likelihood, p(x) = c(context x) / N, and the cues are

    entropy     -sum over x of p(x) ln p(x), nats
    loss        -ln p(own symbol), nats
    rank        log2(1 + number of outcomes more frequent than the own symbol), bits
    boundary    p(boundary)

as in spec table 4.2 of word segmentation with small language models, and Cohen, Adams and Heeringa 2007 for entropy.
All point up where a word begins. A context the train stream does not have is shortened from its left until it has it
(Katz 1987, without discounts); the empty one always is there. An outcome that the context does not have gets loss
ln(N + 1), as if it were the context's next occurrence, and stands in rank behind all that the context has. On the train
stream itself neither rule applies.

Equal distributions give bit-equal entropies (sums run from the most frequent outcome down, over exact quotients), so
that no peak rests on rounding. Cost: k + 1 sorts of both streams. It refuses a negative k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lexarium.evaluations.baselines.counts import Counts, n_symbols
from lexarium.evaluations.segmentation.decisions import peaks, tuned
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

CUES = ("entropy", "loss", "rank", "boundary")
KEPT = 5
"""Results of `cues` that are kept: every cue and rule of one k asks for the same."""


def ngram(train: Stream, test: Stream, k: int, cue: str, threshold: bool = False) -> np.ndarray:
    """(M,) bool: cuts of `test` at the peaks of a cue, the position behind an utterance being its last neighbour; or
    above thresholds, each half's chosen on the gold boundaries of the other."""
    values = cues(train, test, k)[cue]
    found = values > tuned(values, test) if threshold else peaks(values)
    return np.asarray(found & test.inside)


@lru_cache(maxsize=KEPT)
def cues(train: Stream, test: Stream, k: int) -> dict[str, np.ndarray]:
    """Name of each of `CUES` -> (M,) float, for every position of `test`, utterance boundaries included. The
    last results are kept (they are not to be changed); whoever asks for many ends with `cues.cache_clear()`."""
    if k < 0:
        raise UserError(f"context of an n-gram model: found {k} symbols, expected 0 or more")
    size = n_symbols(train, test)
    found = {name: np.zeros(len(test)) for name in CUES}
    context = np.zeros(len(train) + len(test), dtype=np.int64)
    for length in range(k + 1):
        if length:
            added = np.concatenate([_before(stream, length) for stream in (train, test)])
            context = np.unique(context * size + added, return_inverse=True)[1]
        own, asked = context[: len(train)], context[len(train) :]
        model = _Model.of(own, train.symbols + 1, size, int(context.max()) + 1)
        known = model.total[asked] > 0
        for name, values in model.cues(asked[known], test.symbols[known] + 1).items():
            found[name][known] = values
    return found


def _before(stream: Stream, distance: int) -> np.ndarray:
    """(M,) int64: the symbol that far before each position, from 1; 0 (the boundary) where the utterance is shorter."""
    place = np.arange(len(stream)) - np.flatnonzero(stream.first)[stream.utterance]
    return np.where(place >= distance, np.roll(stream.symbols, distance) + 1, 0)


@dataclass(frozen=True)
class _Model:
    """Counts of outcomes by context. total (C,) int64: of each context; entropy (C,) float; kinds (C,) int64: distinct
    outcomes; pairs: codes `context * size + outcome` with their counts; above: for each pair, how many outcomes of its
    context are more frequent."""

    total: np.ndarray
    entropy: np.ndarray
    kinds: np.ndarray
    pairs: Counts
    above: np.ndarray
    size: int

    @classmethod
    def of(cls, context: np.ndarray, outcome: np.ndarray, size: int, n_contexts: int) -> _Model:
        """From the context (0 .. n_contexts - 1) and the outcome of every position of a train stream."""
        pairs = Counts.of(context * size + outcome)
        group = pairs.codes // size
        total = np.bincount(context, minlength=n_contexts)
        kinds = np.bincount(group, minlength=n_contexts)
        order = np.lexsort((-pairs.times, group))  # groups in turn, the most frequent outcome first
        p = pairs.times[order] / total[group[order]]
        entropy = np.bincount(group[order], weights=-p * np.log(p), minlength=n_contexts)
        place = np.arange(len(order))
        new = np.ones(len(order), dtype=bool)  # outcomes of one context and one frequency share a rank
        new[1:] = (np.diff(group[order]) != 0) | (np.diff(pairs.times[order]) != 0)
        before = np.concatenate([[0], np.cumsum(kinds)[:-1]])
        above = np.empty(len(order), dtype=np.int64)
        above[order] = np.maximum.accumulate(np.where(new, place, 0)) - before[group[order]]
        return cls(total, entropy, kinds, pairs, above, size)

    def cues(self, context: np.ndarray, outcome: np.ndarray) -> dict[str, np.ndarray]:
        """Values at positions with a known context."""
        place, seen = self.pairs.find(context * self.size + outcome)
        total = self.total[context]
        p = np.where(seen, self.pairs.times[place] / total, 1 / (total + 1))
        above = np.where(seen, self.above[place], self.kinds[context])
        return {
            "entropy": self.entropy[context],
            "loss": -np.log(p),
            "rank": np.log2(1 + above),
            "boundary": self.pairs(context * self.size) / total,
        }
