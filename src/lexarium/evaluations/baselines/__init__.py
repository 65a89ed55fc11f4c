"""Word segmentation without a neural network: what a model has to be compared with.

`BASELINES` holds every baseline by name, as a function of the train stream, the test stream and a key for its
randomness that returns the cuts of the test stream, (M,) bool, False outside `test.inside`. On the Brent corpus train
and test are, by tradition, the same stream. `random_oracle`, `random_true`, `dibs_phrasal` (its rate of cuts),
`dibs_lexical` and `dibs_gold` look at the gold cuts of the train stream. Only the n-gram thresholds look at those of
the test stream, as a model's do: each half's is chosen on the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lexarium.evaluations.baselines.dibs import dibs
from lexarium.evaluations.baselines.multicue import multicue
from lexarium.evaluations.baselines.ngrams import CUES, ngram
from lexarium.evaluations.baselines.puddle import puddle
from lexarium.evaluations.baselines.random_cuts import Rate, random_cuts
from lexarium.evaluations.baselines.transitional import transitional
from lexarium.evaluations.segmentation.stream import Stream

FOLDS = 5
FOLDED = ("puddle_folds", "puddle_folds_legacy")
"""Baselines that cut the test stream into so many parts."""
Baseline = Callable[[Stream, Stream, int], np.ndarray]


def _fixed(method: Callable[..., np.ndarray], **options: Any) -> Baseline:
    """A method that draws nothing."""
    return lambda train, test, key: method(train, test, **options)


def _random(rate: Rate) -> Baseline:
    return lambda train, test, key: random_cuts(train, test, rate, key)


BASELINES: dict[str, Baseline] = {
    "utterance": _random("none"),
    "symbol": _random("all"),
    "random_half": _random("half"),
    "random_oracle": _random("oracle"),
    "random_true": _random("true"),
    **{
        f"{measure}_{rule}": _fixed(transitional, measure=measure, rule=rule)
        for measure in ("ftp", "btp", "mi")
        for rule in ("relative", "absolute")
    },
    "ftp_relative_legacy": _fixed(transitional, measure="ftp", rule="relative", legacy=True),
    **{f"dibs_{kind}": _fixed(dibs, kind=kind) for kind in ("phrasal", "lexical", "gold")},
    "puddle": _fixed(puddle),
    "puddle_folds": _fixed(puddle, folds=FOLDS),
    "puddle_legacy": _fixed(puddle, legacy=True),
    "puddle_folds_legacy": _fixed(puddle, folds=FOLDS, legacy=True),
    "multicue_14": _fixed(multicue, measures=("mi", "entropy", "boundary"), lengths=(1, 3), lexicon=True),
    "multicue_17": _fixed(multicue, measures=("variety",), lengths=(1, 2, 3, 4), lexicon=False),
    "multicue_23": _fixed(multicue, measures=("variety", "boundary"), lengths=(1, 2, 3, 4), lexicon=True),
    **{f"ngram_{k}_{cue}": _fixed(ngram, k=k, cue=cue) for k in range(1, 6) for cue in CUES},
    **{
        f"ngram_{k}_{cue}_threshold": _fixed(ngram, k=k, cue=cue, threshold=True)
        for k in range(1, 6)
        for cue in CUES
    },
}
"""Name -> (train, test, key) -> cuts."""
