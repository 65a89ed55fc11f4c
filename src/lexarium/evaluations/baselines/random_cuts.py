"""Cuts at random places: the floor under every other method.

A cut stands before each symbol inside an utterance with one probability, independently of all else. Rates by name:

    none, all   0 and 1: every utterance a word, every symbol a word
    half        1/2, the default of the package wordseg
    oracle      words / symbols of the train stream, wordseg's rate that "knows" the number of words. It is too high,
                for utterance edges need no cut: on the Brent corpus 0.3486, where 0.2745 is right
    true        (words - utterances) / (symbols - utterances): the rate of gold cuts inside utterances

Cost: one random number per position. It refuses a rate that is no probability.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation import rng
from lexarium.foundation.types import UserError

Rate = float | Literal["none", "all", "half", "oracle", "true"]
"""A probability, or the name of one."""


def probability(train: Stream, rate: Rate) -> float:
    """The probability of a cut that a rate stands for; `oracle` and `true` are counted on the gold cuts of `train`.
    Raises UserError for another name and for a number outside [0, 1]."""
    words, symbols = int(train.starts.sum()), int((~train.ends).sum())
    inside = int(train.inside.sum())
    named = {
        "none": 0.0,
        "all": 1.0,
        "half": 0.5,
        "oracle": words / symbols,
        "true": (words - train.n_utterances) / inside if inside else 0.0,
    }
    if isinstance(rate, str):
        if rate not in named:
            raise UserError(
                f"rate of random cuts: found '{rate}', expected a number or one of {', '.join(named)}"
            )
        return named[rate]
    if not 0 <= rate <= 1:
        raise UserError(f"rate of random cuts: found {rate}, expected a probability from 0 to 1")
    return float(rate)


def random_cuts(train: Stream, test: Stream, rate: Rate, key: int) -> np.ndarray:
    """(M,) bool: cuts of `test`. One key draws the same numbers for every rate, so that a higher rate adds cuts."""
    drawn = rng.generator(key, "random_cuts").random(len(test))
    return np.asarray((drawn < probability(train, rate)) & test.inside)
