"""Random maps of strings with a known branching: K different strings x are sent to each string y.

A sentence is x followed by y = f(x), both of `length` letters; the sources and the targets are drawn at random, all
different, so there is nothing to generalise: the map is learned by heart. All n_targets * K sentences are in train,
each once, and nothing is held out; evaluate with `splits: [train]`.

Forward, y is determined: its floor is 0. Backward, a y has K equally likely sources: the floor of x is ln K nats.
The sentence as a whole has ln(n_targets K) nats either way; a directional comparison must take these floors of the
second half away and compare the excess (the design of arXiv:2511.19997, of which only the abstract was read).

    length 2, n_targets 1, branching 2:   qwer   zzer      "er" has the sources "qw" and "zz"

Cost: 2 microseconds per sentence. Refused: more strings than the alphabet allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydantic import Field, model_validator

from lexarium.corpora.synthetic.sentences import BLOCK, DETERMINED, FREE, SyntheticCorpus, by_direction
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class RandomMap(SyntheticCorpus):
    """Pairs x f(x) of random strings, K sources to every target."""

    kind, name, version = "corpus", "random_map", 1

    class Config(ComponentConfig):
        """Options of `random_map`."""

        type: str = "random_map"
        n_targets: int = Field(1_000, ge=1, le=1_000_000)
        """Different strings y."""
        branching: int = Field(5, ge=1, le=1_000)
        """K: different strings x for each y; 1 = a one-to-one map."""
        length: int = Field(8, ge=1, le=12)
        """Letters of each string."""
        n_letters: int = Field(26, ge=2, le=len(LETTERS))
        """Letters of the alphabet."""
        seed: int = 0
        """Seed of the map; the run's seeds do not touch it."""

        @model_validator(mode="after")
        def _enough(self) -> RandomMap.Config:
            strings, wanted = self.n_letters**self.length, self.n_targets * self.branching
            if wanted > strings:
                raise ValueError(
                    f"n_targets * branching = {wanted:,} different strings wanted, {self.length} of"
                    f" {self.n_letters} letters make {strings:,}; raise length or n_letters"
                )
            return self

    config: Config

    @property
    def alphabet(self) -> str:  # type: ignore[override]
        """The first letters of the Latin alphabet."""
        return LETTERS[: self.config.n_letters]

    @property
    def sizes(self) -> dict[str, int]:
        """All sentences are in train."""
        return {"train": self.config.n_targets * self.config.branching}

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """(n, 2 length) characters; sentence i has source i and target i modulo n_targets."""
        c, strings = self.config, self.config.n_letters**self.config.length
        sources, targets = (
            rng.Permutation(strings, rng.key(c.seed, self.name, end)) for end in ("source", "target")
        )
        for start in range(0, self.sizes[split], BLOCK):
            number = np.arange(start, min(self.sizes[split], start + BLOCK))
            x, y = np.asarray(sources[number]), np.asarray(targets[number % c.n_targets])
            yield np.concatenate([self._letters(x), self._letters(y)], axis=1)

    def _letters(self, numbers: np.ndarray) -> np.ndarray:
        """(n, length) characters: the numbers in base n_letters."""
        powers = self.config.n_letters ** np.arange(self.config.length - 1, -1, -1, dtype=np.int64)
        return (numbers[:, None] // powers % self.config.n_letters + ord(LETTERS[0])).astype(np.uint8)

    def halves(self) -> tuple[int, ...]:
        """0 at x, 1 at y."""
        return (FREE,) * self.config.length + (DETERMINED,) * self.config.length

    def floors(self, direction: str) -> dict[str, float]:
        """Forward ln(n_targets K) and 0; backward ln n_targets for y and ln K for x, which is read second."""
        targets, branching = math.log(self.config.n_targets), math.log(self.config.branching)
        return by_direction(
            direction,
            targets + branching,
            {"half.0": targets + branching, "half.1": 0.0},
            {"half.0": branching, "half.1": targets},
        )
