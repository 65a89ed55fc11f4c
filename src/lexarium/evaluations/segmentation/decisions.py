"""From a cue to cuts: peaks, a threshold, and votes of several cues.

A cue has one value per position of the stream, utterance boundaries included, and points UP where a word begins.

Peak: cut before t where the value exceeds that of both neighbours; beyond the stream a neighbour counts as 0. No
parameter, so the fair unsupervised decision; it cannot cut off a word of one symbol.

Threshold: cut where the value exceeds theta. `best_threshold` finds the theta whose score on a gold stream is highest
among ALL that give different cuts. For boundaries that is one sort; for types, boundaries are taken away one after
the other as theta rises and two words become one, with words told apart by 64-bit hashes (sums modulo 2^64: two words
of natural data that collide are improbable, and only the choice of theta would suffer). `bounded_threshold` is the
search of the original code: bounded scalar minimisation on every tenth utterance. The score has many maxima and cues
such as boundary probability crowd near 0, so that search fails often (spec 4.3); it is there to match published
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from lexarium.evaluations.segmentation.scores import f_of, f_score
from lexarium.evaluations.segmentation.stream import Stream

Aim = Literal["boundary", "type"]
"""The F that a threshold is chosen for."""
_BASE = 0x9E3779B97F4A7C15


def peaks(values: np.ndarray) -> np.ndarray:
    """(M,) bool: strictly above both neighbours."""
    around = np.concatenate([[0.0], values, [0.0]])
    return np.asarray((values > around[:-2]) & (values > around[2:]))


def inner_peaks(values: np.ndarray) -> np.ndarray:
    """The same, where a position without two neighbours is no peak (spec 4.4, for votes)."""
    found = peaks(values)
    found[[0, -1]] = False
    return found


def votes(decisions: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M,) float: the share of cues that cut at each position: a cue itself, to be cut above 0.5 or at its peaks."""
    return np.mean(list(decisions.values()), axis=0)


def best_threshold(values: np.ndarray, stream: Stream, aim: Aim = "boundary") -> float:
    """The theta whose cuts `values > theta` score highest on `stream`; the highest theta of several. Minus infinity
    stands for cutting everywhere. Positions without a value (NaN, minus infinity) are never cut."""
    places = np.flatnonzero(stream.inside & (values > -np.inf))
    places = places[np.argsort(values[places], kind="stable")]  # theta rises along them
    if not len(places):
        return float("inf")
    sorted_values = values[places]
    # after taking away places[: k + 1]: only where the next value differs is that a choice of theta
    scores = (_boundary_scores if aim == "boundary" else _type_scores)(places, stream)
    choice = np.concatenate([[True], sorted_values[1:] != sorted_values[:-1], [True]])
    best = scores[choice].max()
    k = int(np.flatnonzero(choice & (scores == best))[-1])
    return float("-inf") if k == 0 else float(sorted_values[k - 1])


def tuned(
    values: np.ndarray,
    stream: Stream,
    aim: Aim = "boundary",
    tune: Literal["crossed", "oracle"] = "crossed",
    search: Literal["exact", "bounded"] = "exact",
) -> np.ndarray:
    """(M,) the theta of every position: that of an utterance's half is the best of the other half, or, with `oracle`,
    all have the best of the stream itself. A single utterance has no other half."""
    if search == "bounded":
        return np.full(len(stream), bounded_threshold(values, stream, aim))
    if tune == "oracle" or stream.n_utterances < 2:
        return np.full(len(stream), best_threshold(values, stream, aim))
    half = stream.utterance % 2 == 0
    found = np.empty(len(stream))
    for own in (half, ~half):
        found[own] = best_threshold(values[~own], stream.part(~own), aim)
    return found


def _boundary_scores(places: np.ndarray, stream: Stream) -> np.ndarray:
    """(K + 1,) F of boundaries with the first k of K places taken away."""
    gold = stream.starts[places]
    left = np.arange(len(places), -1, -1)
    hits = np.concatenate([[0], np.cumsum(gold[::-1])])[::-1]
    wanted = int((stream.starts & stream.inside).sum())
    return np.asarray(2 * hits / np.maximum(1, left + wanted))


def _type_scores(places: np.ndarray, stream: Stream) -> np.ndarray:
    """(K + 1,) F of types with the first k of K places taken away: each joins the words to its left and right."""
    cut = np.zeros(len(stream), dtype=bool)
    cut[places] = True
    hashed = _Spans(stream)
    gold = set(hashed.words(stream.starts))
    counts: dict[int, int] = {}
    for code in hashed.words(cut | stream.first):
        counts[code] = counts.get(code, 0) + 1
    hits = sum(code in gold for code in counts)
    edges = np.flatnonzero(cut | stream.first | stream.ends)
    before, after = np.zeros(len(stream), np.int64), np.zeros(len(stream), np.int64)
    before[edges[1:]], after[edges[:-1]] = edges[:-1], edges[1:]
    left, right = before.tolist(), after.tolist()
    found = [f_score(hits, len(counts), len(gold))]
    for place in places.tolist():
        a, b = left[place], right[place]
        for code in (hashed(a, place), hashed(place, b)):
            counts[code] -= 1
            if not counts[code]:
                del counts[code]
                hits -= code in gold
        code = hashed(a, b)
        if code not in counts:
            hits += code in gold
        counts[code] = counts.get(code, 0) + 1
        right[a], left[b] = b, a
        found.append(f_score(hits, len(counts), len(gold)))
    return np.array(found)


class _Spans:
    """Hashes of stretches of a stream (Karp and Rabin 1987), each in constant time."""

    def __init__(self, stream: Stream) -> None:
        n = len(stream)
        powers, back = np.empty(n, np.uint64), np.empty(n, np.uint64)
        powers[:], back[:] = _BASE, pow(_BASE, -1, 1 << 64)
        powers[0] = back[0] = 1
        powers, back = np.multiply.accumulate(powers), np.multiply.accumulate(back)
        sums = np.cumsum((stream.symbols + 2).astype(np.uint64) * powers)
        self._sums, self._back = [0, *sums.tolist()], back.tolist()
        self._stream = stream

    def __call__(self, start: int, stop: int) -> int:
        return (self._sums[stop] - self._sums[start]) * self._back[start] & 0xFFFFFFFFFFFFFFFF

    def words(self, starts: np.ndarray) -> list[int]:
        """Hashes of all words."""
        edges = np.flatnonzero(starts | self._stream.ends).tolist()
        begins = starts.tolist()
        return [self(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if begins[a]]


def bounded_threshold(values: np.ndarray, stream: Stream, aim: Aim = "boundary") -> float:
    """Theta as the original code searches it; utterances 0, 10, 20, ... between the least and the greatest value.
    Infinity where no value is finite."""
    from scipy.optimize import minimize_scalar

    chosen = stream.only(np.arange(0, stream.n_utterances, 10))
    part, own = stream.part(chosen), values[chosen]
    finite = own[np.isfinite(own)]
    if not len(finite):
        return float("inf")
    found = minimize_scalar(
        lambda theta: -f_of(part, own > theta, aim),
        bounds=(float(finite.min()), float(finite.max())),
        method="bounded",
    )
    return float(found.x)
