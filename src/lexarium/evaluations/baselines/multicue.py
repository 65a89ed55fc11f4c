"""Several cues that vote on every boundary (Coltekin and Nerbonne 2014, Coltekin 2017, Goriely, Caines and Buttery
2023): counts, words and the trust in each cue grow utterance by utterance, from nothing.

Counts. A text stands in a frame of k boundaries on each side, k the longest of the lengths n of n-grams. c(g) says how
often the stretch g of 1 to k + 1 symbols is in the framed texts so far, c(m) how many stretches of m symbols they have.
Position t = 0 .. L lies before symbol t of an utterance of L symbols. The context x of a forward measure is the n
symbols before t, and y the one behind t; of a backward measure x is the n symbols behind t, and y the one before. xy is
both in the order they stand in, xb the same with a boundary for y.

    mi          -log2(c(xy) c(n) c(1) / (c(x) c(y) c(n + 1))), bits; 0 where xy is new
    tp          -c(xy) / c(x)
    entropy     -sum over y of c(xy) / c(x) log2(c(xy) / c(x)), bits
    variety     how many y there are with c(xy) > 0 (successor variety, Harris 1955)
    boundary    c(xb) / c(x)

All rise with unpredictability, and all are 0 for a context that is new. `lexicon` adds, forward and backward,
`boundary` by counts in the words that were found so far, each time a text of its own, and how many different words
found so far end at t (forward) or begin there (backward).

Votes. Of each measure, length and direction there are two cues: one votes for a boundary at t = 1 .. L - 1 if the value
rises from t - 1 to t, the other if it falls from t to t + 1. A difference below 1e-9 is none: no vote rests on
rounding. A boundary is put where the cues that vote for it have more than half of all weight; a tie is none. The
weight of a cue is the share of past positions where it voted as was decided; before the first they are equal. Weights
and counts are fixed while an utterance is cut; then its votes are judged by the decisions, and it and its words are
learnt. A train stream equal to the test stream is not read before it: one pass over the corpus, the tradition.

    name            measures                        n              lexicon
    multicue_14     mi, entropy, boundary           1, 3           yes
    multicue_17     variety                         1, 2, 3, 4     no
    multicue_23     variety, boundary               1, 2, 3, 4     yes

The three are those of the code of 2023 (codebyzeb/DYMULTI-23), and so are the frame, the zeros for what is new, words
counted by tokens, the weights and the order of cutting and learning; 2014 without its stress cues, for streams have no
stress. Coltekin's own program (coltekin/seg) has one boundary for a frame, learns an utterance before it cuts it, and
weighs by 2 x share - 1, anew after every position. The least difference is ours. F of boundaries, words and lexicon on
Coltekin's version of Brent, mean of ten shuffles (those of the code), beside the published row:

    multicue_14     85.7 73.4 49.7      85.0 75.4 38.2, with stress
    multicue_17     85.9 74.0 46.7      85.7 74.0 45.5
    multicue_23     87.8 78.2 51.1      87.8 78.2 51.1

Cost: some 40 microseconds per symbol, 4 s for one pass over the 9,790 utterances of Brent (`multicue_17`: 1.5 s); with
the lexicon, time grows with the square of an utterance's length. It refuses unknown measures, lengths below 1, and a
choice without any cue.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from lexarium.evaluations.baselines.counts import BOUNDARY, texts
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

MEASURES = ("mi", "tp", "entropy", "variety", "boundary")
LEAST = 1e-9
"""A smaller difference between two values is none."""


class Statistics:
    """Counts of the stretches of framed texts, whose symbols are characters. times: of each stretch; after, before: how
    many symbols follow and precede a stretch; bits_after, bits_before: sum of c log2 c over those, c the times of both
    together, kept only if `entropies`; totals[m]: stretches of m symbols; n_texts: texts."""

    def __init__(self, longest: int, entropies: bool = False) -> None:
        self.frame, self.entropies = BOUNDARY * longest, entropies
        self.times: dict[str, int] = {}
        self.after: dict[str, int] = defaultdict(int)
        self.before: dict[str, int] = defaultdict(int)
        self.bits_after: dict[str, float] = defaultdict(float)
        self.bits_before: dict[str, float] = defaultdict(float)
        self.totals = [0] * (longest + 2)
        self.n_texts = 0

    def learn(self, text: str) -> None:
        """One more text."""
        framed, times = self.frame + text + self.frame, self.times
        self.n_texts += 1
        for m in range(1, len(self.totals)):
            n = len(framed) - m + 1
            self.totals[m] += n
            for i in range(n):
                gram = framed[i : i + m]
                known = times.get(gram, 0)
                times[gram] = known + 1
                if m > 1:
                    if not known:
                        self.after[gram[:-1]] += 1
                        self.before[gram[1:]] += 1
                    if self.entropies:
                        more = _times_log(known + 1) - _times_log(known)
                        self.bits_after[gram[:-1]] += more
                        self.bits_before[gram[1:]] += more

    def values(self, text: str, measure: str, n: int, backward: bool) -> list[float]:
        """(L + 1) values of a measure at the positions of a text."""
        framed, times = self.frame + text + self.frame, self.times
        places = range(len(self.frame), len(self.frame) + len(text) + 1)
        contexts = [framed[t : t + n] if backward else framed[t - n : t] for t in places]
        if measure == "variety":
            kinds = self.before if backward else self.after
            return [kinds.get(x, 0) for x in contexts]
        if measure == "boundary":
            both = [BOUNDARY + x if backward else x + BOUNDARY for x in contexts]
            return [
                times.get(xb, 0) / times[x] if x in times else 0 for xb, x in zip(both, contexts, strict=True)
            ]
        if measure == "entropy":
            bits = self.bits_before if backward else self.bits_after
            return [self._entropy(x, bits) for x in contexts]
        both = [framed[t - 1 : t + n] if backward else framed[t - n : t + 1] for t in places]
        if measure == "tp":
            return [
                -times.get(xy, 0) / times[x] if x in times else 0
                for xy, x in zip(both, contexts, strict=True)
            ]
        other = [framed[t - 1] if backward else framed[t] for t in places]
        return [self._independence(*three) for three in zip(both, contexts, other, strict=True)]

    def _entropy(self, x: str, bits: dict[str, float]) -> float:
        total = self.times.get(x, 0)
        if not total:
            return 0
        # a context of boundaries alone stands once at the very edge of every frame, with nothing beyond
        together = total if x.strip(BOUNDARY) else total - self.n_texts
        return (together * math.log2(total) - bits.get(x, 0)) / total

    def _independence(self, xy: str, x: str, y: str) -> float:
        """Mutual information with its sign turned; the quotient is exact, so equal ones are equal."""
        both, totals = self.times.get(xy, 0), self.totals
        if not both:
            return 0
        apart = self.times[x] * self.times[y] * totals[len(xy)]
        return -math.log2(both * totals[len(x)] * totals[1] / apart)


def _times_log(n: int) -> float:
    return n * math.log2(n) if n else 0.0


class Voters:
    """Cues, what they rest on, and how far they are trusted. agreed (C,) int64: at how many of `decided` positions each
    cue voted as was decided; rises first, then falls, both in the order of `values`."""

    def __init__(self, measures: Sequence[str], lengths: Sequence[int], lexicon: bool) -> None:
        self.measures, self.lexicon = measures, lexicon
        self.contexts = [(n, backward) for n in lengths for backward in (False, True)]
        self.heard = Statistics(max(lengths), "entropy" in measures)
        self.found = Statistics(max(lengths))
        self.words: set[str] = set()
        n_values = len(self.contexts) * (len(measures) + lexicon) + 2 * lexicon
        self.agreed, self.decided = np.zeros(2 * n_values, dtype=np.int64), 0

    def values(self, text: str) -> np.ndarray:
        """(C / 2, L + 1) float: of all measures at all positions."""
        rows = [
            self.heard.values(text, measure, *context)
            for measure in self.measures
            for context in self.contexts
        ]
        if self.lexicon:
            rows += [self.found.values(text, "boundary", *context) for context in self.contexts]
            rows += self._words_at(text)
        return np.array(rows, dtype=np.float64)

    def _words_at(self, text: str) -> list[list[float]]:
        """How many known words end and begin at each position."""
        end, begin = [0.0] * (len(text) + 1), [0.0] * (len(text) + 1)
        for i in range(len(text)):
            for j in range(i + 1, len(text) + 1):
                if text[i:j] in self.words:
                    begin[i] += 1
                    end[j] += 1
        return [end, begin]

    def votes(self, text: str) -> np.ndarray:
        """(C, L - 1) bool: of every cue at the positions inside."""
        step = np.diff(self.values(text), axis=1)
        return np.concatenate([step[:, :-1] > LEAST, step[:, 1:] < -LEAST])

    def read(self, text: str) -> list[int]:
        """Cut an utterance and learn from it: where words begin inside it."""
        votes = self.votes(text)
        # whole numbers in place of shares: no tie is decided by rounding
        weights = self.agreed if self.decided else np.ones_like(self.agreed)
        decision = 2 * (weights @ votes) > weights.sum()
        self.agreed += (votes == decision).sum(axis=1)
        self.decided += len(decision)
        cuts = [int(t) + 1 for t in np.flatnonzero(decision)]
        self.heard.learn(text)
        if self.lexicon:
            for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
                self.found.learn(text[begin:end])
                self.words.add(text[begin:end])
        return cuts


def multicue(
    train: Stream,
    test: Stream,
    *,
    measures: Sequence[str] = ("variety", "boundary"),
    lengths: Sequence[int] = (1, 2, 3, 4),
    lexicon: bool = True,
) -> np.ndarray:
    """(M,) bool: cuts of `test`, after `train` was read, unless the two are the same symbols.

    measures: of `MEASURES`; lengths: of n-grams, in symbols; lexicon: whether words found so far are cues as well.
    Raises UserError for an unknown measure, a length below 1, and no cue at all.
    """
    for name in measures:
        if name not in MEASURES:
            raise UserError(f"measures of multicue: found {name!r}, expected some of {', '.join(MEASURES)}")
    if not lengths or min(lengths) < 1:
        raise UserError(f"lengths of multicue: found {tuple(lengths)}, expected numbers of 1 or more symbols")
    if not measures and not lexicon:
        raise UserError(
            "cues of multicue: found neither measures nor the lexicon, expected at least one of them"
        )
    voters = Voters(measures, lengths, lexicon)
    if not np.array_equal(train.symbols, test.symbols):
        _read_all(voters, texts(train))
    cuts = np.zeros(len(test), dtype=bool)
    for first, text in zip(np.flatnonzero(test.first).tolist(), texts(test), strict=True):
        for t in voters.read(text):
            cuts[first + t] = True
    return cuts


def _read_all(voters: Voters, heard: Iterable[str]) -> None:
    for text in heard:
        voters.read(text)
