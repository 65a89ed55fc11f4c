"""A sample of a split's documents: shuffled by a seed and taken until they hold so many documents, words or tokens.

    view: {subsample: {unit: words, count: 80000, seed: 1}}
    view: {subsample: {unit: tokens, count: 300000, stretch: 20}}       20 documents in a row stay neighbours

Stretches of `stretch` documents are put in order by a keyed permutation; documents are taken from the front of that
order, the last one that is needed whole. So a sample of one seed holds every smaller one, whichever way they are
counted: grids of model and data compare amounts, not choices. What was taken stays in corpus order; the vocabulary and
the other splits know nothing of it. (Goriely and Buttery shuffle pieces of 128 tokens, which begin and end within
utterances. Here documents stay whole, and `stretch` keeps contexts as natural.)

Cost: one pass over the numbers of documents. Refused: more than there is; words of a corpus that does not count them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from lexarium.foundation import rng
from lexarium.foundation.config import Config
from lexarium.foundation.types import UserError


class Subsample(Config):
    """How much is taken, and how."""

    unit: Literal["documents", "words", "tokens"] = "documents"
    """What is counted: documents; words, their field `words`; or tokens, with one boundary for each document."""
    count: int = Field(gt=0)
    """Documents are taken until they hold so many."""
    stretch: int = Field(1, ge=1)
    """Documents that stay together."""
    seed: int = 0
    """Another seed takes others."""


def subsample(split: Any, documents: np.ndarray, config: Subsample) -> np.ndarray:
    """Those of `documents` (n,), numbers in a `Split`, that the sample takes, in the same order."""
    n, k = len(documents), config.stretch
    order = rng.Permutation(-(-n // k), rng.key(config.seed, "subsample")).all()
    order = (order[:, None] * k + np.arange(k)).ravel()
    order = order[order < n]
    if config.unit == "words":
        held = _words(split)[documents]
    else:
        held = split.lengths[documents] + 1 if config.unit == "tokens" else np.ones(n, dtype=np.int64)
    sums = np.cumsum(held[order])
    if sums[-1] < config.count:
        raise UserError(
            f"view.subsample: {config.count:,} {config.unit} are asked for, and the {n:,} documents it takes from hold"
            f" {sums[-1]:,}; ask for fewer"
        )
    return np.asarray(documents[np.sort(order[: np.searchsorted(sums, config.count) + 1])])


def _words(split: Any) -> np.ndarray:
    """(n,) int64: the field `words` of every document."""
    found = split.fields.get("words")
    if found is None or found.dtype.kind not in "iu":
        known = ", ".join(split.fields) or "none"
        raise UserError(
            f"view.subsample.unit: documents have no field 'words' that holds numbers (fields: {known}); corpus"
            " utterances counts them, elsewhere choose documents or tokens"
        )
    return np.asarray(found, dtype=np.int64)
