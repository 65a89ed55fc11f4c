"""Linear languages over GF(2): a sentence is m random bits x and then the m bits y = A x.

A is invertible, so y is uniform too and x = A^-1 y: reading forward a model must learn A, reading backward A^-1.
The entropy is m ln 2 nats per sentence in both directions; what differs is how hard the determined half is to learn
(Papadopoulos, Wenger and Hongler 2024, section on linear languages). A sparse A with a dense inverse gives a forward
arrow, the inverse in its place a backward arrow, a permutation none. `gf2.py` describes the matrices.

    m = 3, A = [[1,1,0],[0,1,0],[0,1,1]], x = 110  ->  y = (1+1, 1, 1+0) = 011  ->  the sentence 110011

The 2^m sentences are put in a random order; val is the first of it, then test, then train. So no sentence of one
split is in another, and val does not depend on the size of train. A model that sees train often enough can learn
that val was left out; keep train large (or m large) where the free half shall stay at ln 2 per bit.

Cost: 2 microseconds per sentence. Refused: more sentences than 2^m, options of another matrix, an even row weight
(over GF(2) its rows add up to zero, so no such matrix is invertible).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.corpora.synthetic import gf2
from lexarium.corpora.synthetic.sentences import (
    BETWEEN,
    DETERMINED,
    FREE,
    SplitSizes,
    SyntheticCorpus,
    by_direction,
    shuffled,
)
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig

SEPARATOR = "="


class LinearLanguage(SyntheticCorpus):
    """Sentences x A x of bits, A an invertible matrix over GF(2)."""

    kind, name, version = "corpus", "linear_language", 1

    class Config(ComponentConfig):
        """Options of `linear_language`."""

        type: str = "linear_language"
        m: int = Field(20, ge=2, le=60)
        """Bits of each half."""
        matrix: Literal["sparse", "inverse", "permutation", "banded", "random", "row_weight"] = "sparse"
        """`sparse`: P (I + subdiagonal) Q; `inverse`: the inverse of that; `permutation`; `banded`: I +
        superdiagonal; `random`: a permutation plus further ones; `row_weight`: equally many ones in every row."""
        ones: int | None = Field(None, ge=2)
        """Of `random`: ones in the whole matrix, m or more."""
        row_weight: int | None = Field(None, ge=1)
        """Of `row_weight`: ones in every row, an odd number."""
        draws: int | None = Field(None, ge=1)
        """Of `row_weight`: the densest inverse of so many matrices; empty = 50."""
        matrix_seed: int | None = None
        """Seed of the matrix; empty = `seed`."""
        separator: bool = False
        """Put `=` between the halves (channel `half` = 2)."""
        sizes: SplitSizes = SplitSizes()
        """Sentences per split."""
        seed: int = 0
        """Seed of the data; the run's seeds do not touch it."""

        @model_validator(mode="after")
        def _belong_together(self) -> LinearLanguage.Config:
            if self.matrix == "random":
                if self.ones is None or not self.m <= self.ones <= self.m**2:
                    raise ValueError(f"matrix random needs `ones`, {self.m} to {self.m**2}")
            elif self.ones is not None:
                raise ValueError(f"`ones` belongs to matrix random, not to {self.matrix}")
            if self.matrix == "row_weight":
                if self.row_weight is None or self.row_weight % 2 == 0 or self.row_weight > self.m:
                    raise ValueError(f"matrix row_weight needs `row_weight`, an odd number up to {self.m}")
            elif self.row_weight is not None or self.draws is not None:
                raise ValueError(
                    f"`row_weight` and `draws` belong to matrix row_weight, not to {self.matrix}"
                )
            return self

    config: Config
    alphabet = "01"

    @cached_property
    def matrix(self) -> np.ndarray:
        """(m, m) uint8: A, with y = A x."""
        c = self.config
        seed = c.seed if c.matrix_seed is None else c.matrix_seed
        # `inverse` draws what `sparse` draws, so that the two cells of one seed are each other's swap
        draw = "sparse" if c.matrix == "inverse" else c.matrix
        random = rng.generator(seed, self.name, "matrix", draw)
        if draw == "sparse":
            found = gf2.sparse(c.m, random)
            return found if c.matrix == "sparse" else _inverted(found)
        if draw == "permutation":
            return gf2.permutation(c.m, random)
        if draw == "banded":
            return gf2.banded(c.m)
        if draw == "random":
            return gf2.with_ones(c.m, c.ones or c.m, random)
        return gf2.with_row_weight(c.m, c.row_weight or 1, c.draws or 50, random)

    @cached_property
    def inverse(self) -> np.ndarray:
        """(m, m) uint8: A^-1, with x = A^-1 y."""
        return _inverted(self.matrix)

    def density(self) -> tuple[int, int]:
        """Ones of A and of its inverse: what the forward and the backward model have to learn."""
        return int(self.matrix.sum()), int(self.inverse.sum())

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """(n, 2m) or, with separator, (n, 2m + 1) characters."""
        c = self.config
        key = rng.key(c.seed, self.name, "sentences")
        for numbers in shuffled(self.sizes, split, 1 << c.m, key, f"linear_language with m={c.m}"):
            x = (numbers[:, None] >> np.arange(c.m)) & 1
            y = x @ self.matrix.T.astype(np.int64) & 1
            between = np.full((len(x), int(c.separator)), ord(SEPARATOR) - ord("0"))
            yield (np.concatenate([x, between, y], axis=1) + ord("0")).astype(np.uint8)

    def halves(self) -> tuple[int, ...]:
        """0 at x, 1 at y, 2 at the separator."""
        c = self.config
        return (FREE,) * c.m + (BETWEEN,) * c.separator + (DETERMINED,) * c.m

    def floors(self, direction: str) -> dict[str, float]:
        """m ln 2 nats per sentence, all of it in the half that is read first."""
        entropy = self.config.m * math.log(2)
        between = {"half.2": 0.0} if self.config.separator else {}
        return by_direction(
            direction,
            entropy,
            {"half.0": entropy, "half.1": 0.0, **between},
            {"half.0": 0.0, "half.1": entropy, **between},
        )

    def symbols(self) -> list[str]:
        """The bits, and the separator where there is one."""
        return ["0", "1"] + [SEPARATOR] * self.config.separator


def _inverted(matrix: np.ndarray) -> np.ndarray:
    found = gf2.inverse(matrix)
    assert found is not None, "every drawing makes invertible matrices"
    return found
