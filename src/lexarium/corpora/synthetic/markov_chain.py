"""Stationary Markov chains of first order: languages without an arrow.

A sentence is `length` letters; the first is drawn from the stationary distribution pi, each other one from the row
of P of the letter before it. Read backward a stationary chain is again a first-order chain, with
P~[i, j] = pi[j] P[j, i] / pi[i], and of the same entropy. So the floor is equal in both directions, sentence by
sentence: H(pi) + (length - 1) H(P), with H(P) = -sum_i pi[i] sum_j P[i, j] ln P[i, j] (Cover and Thomas 2006, 4.2).

reversible: P = W / row sums of a symmetric W > 0; then pi[i] P[i, j] = pi[j] P[j, i] (detailed balance), and the
reversed chain is the chain itself. Otherwise rows of P are drawn one by one and pi solves pi P = pi: the two
directions are different chains of equal entropy, so a converged model shows no gap either.

The channel `half` is 0 on the first length // 2 letters and 1 on the others.
The floor is an expectation: the loss of the true chain on n sentences scatters around it with 1 / sqrt(n), and an
excess over it can be slightly negative.

Cost: 0.5 microseconds per letter. Refused: chains so short or so predictable that over 1 % of the sentences drawn
for train or test are in val or test already (one sentence may always be); fewer are replaced, which moves the floor by
no more than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from pydantic import Field

from lexarium.corpora.synthetic.sentences import (
    BLOCK,
    DETERMINED,
    FREE,
    SplitSizes,
    SyntheticCorpus,
    by_direction,
)
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHARED = 0.01
"""Largest share of drawn sentences that may be replaced because another split holds them."""


def stationary(transition: np.ndarray) -> np.ndarray:
    """(n,) the distribution pi with pi P = pi of a positive stochastic matrix (n, n)."""
    n = len(transition)
    equations = np.concatenate([transition.T - np.eye(n), np.ones((1, n))])
    right = np.append(np.zeros(n), 1.0)
    found: np.ndarray = np.linalg.lstsq(equations, right, rcond=None)[0]
    return found


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of distributions along the last axis."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    found: np.ndarray = -(weights * logs).sum(axis=-1)
    return found


class MarkovChain(SyntheticCorpus):
    """Sentences of a stationary Markov chain of first order."""

    kind, name, version = "corpus", "markov_chain", 1

    class Config(ComponentConfig):
        """Options of `markov_chain`."""

        type: str = "markov_chain"
        n_states: int = Field(6, ge=2, le=len(LETTERS))
        """Letters of the alphabet."""
        reversible: bool = True
        """Whether the chain obeys detailed balance: read backward it is the same chain."""
        concentration: float = Field(0.5, gt=0, le=100)
        """Shape of the gamma distribution of the weights: small = few likely successors, low entropy."""
        length: int = Field(32, ge=2, le=10_000)
        """Letters of a sentence."""
        matrix_seed: int | None = None
        """Seed of the chain; empty = `seed`."""
        sizes: SplitSizes = SplitSizes()
        """Sentences per split."""
        seed: int = 0
        """Seed of the data; the run's seeds do not touch it."""

    config: Config

    @property
    def alphabet(self) -> str:  # type: ignore[override]
        """The first letters of the Latin alphabet."""
        return LETTERS[: self.config.n_states]

    @cached_property
    def transition(self) -> np.ndarray:
        """(n, n) P: row i is the distribution of what follows letter i."""
        c = self.config
        random = rng.generator(c.seed if c.matrix_seed is None else c.matrix_seed, self.name, "matrix")
        # the least weight keeps every transition possible, so that the chain has one stationary distribution
        weights = random.gamma(c.concentration, size=(c.n_states, c.n_states)) + 1e-3
        if c.reversible:
            weights = weights + weights.T
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def stationary(self) -> np.ndarray:
        """(n,) pi: the distribution of the letter at any place."""
        return stationary(self.transition)

    def entropy_rate(self) -> float:
        """H(P): nats per letter, given the one before."""
        return float(self.stationary @ entropy(self.transition))

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """(n, length) characters. No sentence of val is in test, and none of either in train."""
        before = {"val": (), "test": ("val",), "train": ("val", "test")}[split]
        known = [_whole(block) for other in before if other in self.sizes for block in self.blocks(other)]
        wanted, drawn, replaced = self.sizes[split], 0, 0
        for number in range(2 + 2 * wanted // BLOCK):
            block = self._draw(min(wanted, BLOCK), split, number)
            shared = np.zeros(len(block), dtype=bool)
            for held in known:
                shared |= np.isin(_whole(block), held)
            replaced += int(shared.sum())
            if replaced > max(1, SHARED * wanted):
                break
            kept = block[~shared][: wanted - drawn]
            drawn += len(kept)
            yield kept
            if drawn == wanted:
                return
        raise UserError(
            f"markov_chain: more than {SHARED:.0%} of the sentences drawn for {split} are in another split already;"
            f" raise corpus.length (found {self.config.length}) or corpus.concentration"
            f" ({self.config.concentration:g}), or make the splits smaller"
        )

    def _draw(self, n: int, split: str, number: int) -> np.ndarray:
        """(n, length) characters of independent sentences, by inverting the distribution functions."""
        random = rng.generator(self.config.seed, self.name, split, number)
        uniform = random.random((n, self.config.length))
        first, following = np.cumsum(self.stationary), np.cumsum(self.transition, axis=1)
        first[-1] = following[:, -1] = 1.0  # not 1 - rounding
        states = np.empty(uniform.shape, dtype=np.int64)
        states[:, 0] = np.searchsorted(first, uniform[:, 0], side="right")
        for place in range(1, self.config.length):
            limits = following[states[:, place - 1]]
            states[:, place] = (limits <= uniform[:, place, None]).sum(axis=1)
        return (states + ord(LETTERS[0])).astype(np.uint8)

    def halves(self) -> tuple[int, ...]:
        """0 on the first length // 2 letters, 1 on the others."""
        length = self.config.length
        return (FREE,) * (length // 2) + (DETERMINED,) * (length - length // 2)

    def floors(self, direction: str) -> dict[str, float]:
        """H(pi) + (length - 1) H(P) nats per sentence; the half that is read first has the first letter."""
        start, rate = float(entropy(self.stationary)), self.entropy_rate()
        first, second = self.config.length // 2, self.config.length - self.config.length // 2
        return by_direction(
            direction,
            start + (self.config.length - 1) * rate,
            {"half.0": start + (first - 1) * rate, "half.1": second * rate},
            {"half.0": first * rate, "half.1": start + (second - 1) * rate},
        )


def _whole(block: np.ndarray) -> np.ndarray:
    """(n,) each row as one item, to be compared as a whole."""
    return np.ascontiguousarray(block).view(np.dtype((np.void, block.shape[1]))).reshape(-1)
