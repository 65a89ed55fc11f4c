"""Transitional probabilities: a word ends where the next symbol is hard to foresee (Saffran, Newport and Aslin 1996).

With c the counts of symbols and pairs of neighbours on the train stream, utterance boundaries being symbols:

    ftp(xy) = c(xy) / c(x)                      forward transitional probability
    btp(xy) = c(xy) / c(y)                      backward
    mi(xy)  = log2(c(xy) / (c(x) c(y)))         mutual information, up to a constant (Swingley 2005)

    relative    a cut between x and y of ..wxyz.. where v(wx) > v(xy) < v(yz); w and z may be boundaries
    absolute    a cut where v(xy) <= the mean of v over all kinds of pairs of the train stream, those with a boundary
                included (Saksida, Langus and Nespor 2017, as in the package wordseg)

A pair the train stream does not have has ftp = btp = 0 and mi = minus infinity: it is cut by the absolute rule, and by
the relative one between two pairs that are known.

Every utterance stands between two boundaries here, the first and the last too. wordseg has no boundary before the
first and after the last one, never separates the first two symbols of the stream by the relative rule and adds the last
one without a test: `legacy` does the same. On the Brent corpus that takes one cut of the forward relative rule away
(boundary F 64.3611 for 64.3598) and changes no cut of the five others.

Cost: a sort of the train stream and a binary search per position of the test stream.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lexarium.evaluations.baselines.counts import Counts, n_symbols, pairs, share
from lexarium.evaluations.segmentation.stream import Stream

Measure = Literal["ftp", "btp", "mi"]
Rule = Literal["relative", "absolute"]


def transitional(
    train: Stream, test: Stream, measure: Measure, rule: Rule, *, legacy: bool = False
) -> np.ndarray:
    """(M,) bool: cuts of `test`; `legacy` treats the two ends of the streams as wordseg does."""
    values, mean = strength(train, test, measure, legacy=legacy)
    if rule == "absolute":
        # a value that equals the mean but for rounding is not above it
        return np.asarray(((values <= mean) | np.isclose(values, mean, rtol=1e-12, atol=1e-12)) & test.inside)
    cuts = np.zeros(len(test), dtype=bool)
    cuts[1:-1] = (values[:-2] > values[1:-1]) & (values[1:-1] < values[2:])
    if legacy:
        cuts[[1, -2]] = False
    return cuts & test.inside


def strength(
    train: Stream, test: Stream, measure: Measure, *, legacy: bool = False
) -> tuple[np.ndarray, float]:
    """(M,) float: v of every symbol of `test` and the one before; and its mean over the kinds of pairs of `train`."""
    size = n_symbols(train, test)
    counted, single = pairs(train, size), train.symbols + 1
    if legacy:
        counted, single = counted[1:-1], single[:-1]
    both, one = Counts.of(counted), np.bincount(single, minlength=size)
    value = lambda codes: _value(measure, both(codes), one[codes // size], one[codes % size])
    kinds = value(both.codes)
    return value(pairs(test, size)), float(kinds.mean()) if len(kinds) else 0.0


def _value(measure: Measure, both: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """v from counts of pairs and of their two symbols, arrays of one shape."""
    if measure == "mi":
        with np.errstate(divide="ignore"):
            return np.log2(share(both, left * right))
    return share(both, left if measure == "ftp" else right)
