"""DiBS, diphone-based segmentation (Daland and Pierrehumbert 2011): a pair of symbols tells whether a word ends in it.

    p(cut | xy) = p(x ends a word) pwb p(y begins a word) / p(xy)

pwb is the probability of a cut inside utterances, p(xy) the share of the pair among all pairs inside utterances of the
train stream. A value above 1 counts as 1. What is known about the edges of words makes the kind:

    phrasal     edges of utterances: how often an utterance ends in x, and begins with y
    lexical     edges of words of a lexicon, every type once: here the types of the train stream
    gold        no formula: the share of the occurrences of xy with a gold cut, the best any rule on pairs can know

Only `phrasal` with a given pwb looks at no gold cut. A pair that the train stream does not have is cut, as in the
package wordseg. Cost: a sort of the train stream. It refuses a pwb that is no probability.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lexarium.evaluations.baselines.counts import Counts, n_symbols, pairs, share
from lexarium.evaluations.baselines.random_cuts import probability
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

Kind = Literal["phrasal", "lexical", "gold"]


def dibs(train: Stream, test: Stream, kind: Kind, pwb: float | None = None) -> np.ndarray:
    """(M,) bool: cuts of `test`, where their probability is above 1/2. See `cut_probability`."""
    return np.asarray(cut_probability(train, test, kind, pwb) > 0.5)


def cut_probability(train: Stream, test: Stream, kind: Kind, pwb: float | None = None) -> np.ndarray:
    """(M,) float: probability of a cut at each position of `test`; 0 outside `inside`.

    pwb: None is the rate of gold cuts inside utterances of `train`; `gold` has no use for one. Raises UserError for
    a pwb outside [0, 1], or one that is given to `gold`.
    """
    if pwb is not None and (kind == "gold" or not 0 <= pwb <= 1):
        expected = "none for kind gold" if kind == "gold" else "a probability from 0 to 1"
        raise UserError(f"pwb of dibs: found {pwb}, expected {expected}")
    size = n_symbols(train, test)
    codes = pairs(train, size)
    table = Counts.of(codes[train.inside])
    if kind == "gold":
        known = share(Counts.of(codes[train.inside & train.starts])(table.codes), table.times)
    else:
        begins, ends = _edges(train, kind, size)
        rate = probability(train, "true") if pwb is None else pwb
        expected_cuts = ends[table.codes // size] * rate * begins[table.codes % size]
        known = np.minimum(1.0, share(expected_cuts, table.times / max(1, table.times.sum())))
    place, seen = table.find(pairs(test, size))
    values = np.where(seen, known[place] if len(known) else 0.0, 1.0)
    return np.where(test.inside, values, 0.0)


def _edges(train: Stream, kind: Kind, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size,) float, twice: share of utterances, or word types, that begin with each symbol, and that end in it."""
    symbols = train.symbols + 1
    if kind == "phrasal":
        first, last = symbols[train.first], symbols[np.flatnonzero(train.ends) - 1]
    else:
        words = zip(*train.gold_words, strict=True)
        types = {symbols[a:b].tobytes(): (symbols[a], symbols[b - 1]) for a, b in words}
        first, last = np.array(list(types.values()), dtype=np.int64).T
    begins, ends = (np.bincount(edge, minlength=size) / len(edge) for edge in (first, last))
    return begins, ends
