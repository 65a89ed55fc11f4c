"""Products of two primes: sentences `p x q = n` in decimal digits, p < q primes, n = p q.

    digits 2:   03x19=0057        reversed_product:   03x19=7500        eos of the objective is the end mark

Both factors have `digits` digits (zero-padded) and the product twice as many. Multiplying is a short calculation,
taking apart is not; by unique factorisation (p, q) and n determine each other, and pairs are drawn uniformly, so the
entropy of a sentence is ln(number of pairs) in both directions: per token, ln(pairs) / (4 digits + 3) with eos.
A product written with its last digit first gives the forward reader the easy digits first.
The language is the example of Papadopoulos, Wenger and Hongler (2024); widths and splits are ours.

    digits   primes       pairs
    2            25         300
    3           168      14,028
    4         1,229     754,606
    5         9,592  45,998,436

The pairs are put in a random order; val is the first of it, then test, then train: no pair is in two splits.
Cost: 2 microseconds per sentence and, once, a sieve up to 10^digits. Refused: more sentences than there are pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from pydantic import Field

from lexarium.corpora.synthetic.sentences import (
    DETERMINED,
    FREE,
    SplitSizes,
    SyntheticCorpus,
    by_direction,
    digits,
    shuffled,
)
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig


def primes_below(limit: int) -> np.ndarray:
    """Primes below `limit` in ascending order, by the sieve of Eratosthenes."""
    composite = np.zeros(limit, dtype=bool)
    composite[:2] = True
    for n in range(2, math.isqrt(limit) + 1):
        if not composite[n]:
            composite[n * n :: n] = True
    return np.flatnonzero(~composite)


def pair(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(smaller, larger) of the pair with this number: (0,1), (0,2), (1,2), (0,3), ... The larger of pair k is the
    largest b with b (b - 1) / 2 <= k."""
    larger = ((1 + np.sqrt(8.0 * number + 1)) / 2).astype(np.int64)
    larger -= larger * (larger - 1) // 2 > number  # the root is rounded
    larger += larger * (larger + 1) // 2 <= number
    return number - larger * (larger - 1) // 2, larger


class PrimeProducts(SyntheticCorpus):
    """Products of two primes, `p x q = n` in decimal digits."""

    kind, name, version = "corpus", "prime_products", 1

    class Config(ComponentConfig):
        """Options of `prime_products`."""

        type: str = "prime_products"
        digits: int = Field(4, ge=2, le=6)
        """Digits of each factor; the product has twice as many."""
        reversed_product: bool = False
        """Write the product with its last digit first."""
        sizes: SplitSizes = SplitSizes()
        """Sentences per split."""
        seed: int = 0
        """Seed of the splits; the run's seeds do not touch it."""

    config: Config
    alphabet = "0123456789x="

    @cached_property
    def primes(self) -> np.ndarray:
        """Primes with at most `digits` digits."""
        return primes_below(10**self.config.digits)

    @property
    def n_pairs(self) -> int:
        """Number of sentences of the language."""
        return len(self.primes) * (len(self.primes) - 1) // 2

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """(n, 4 digits + 2) characters."""
        c = self.config
        key, what = rng.key(c.seed, self.name), f"prime_products with digits={c.digits}"
        for numbers in shuffled(self.sizes, split, self.n_pairs, key, what):
            small, large = pair(numbers)
            p, q = self.primes[small], self.primes[large]
            product = digits(p * q, 2 * c.digits)
            times, equals = (np.full((len(p), 1), ord(sign), dtype=np.uint8) for sign in "x=")
            result = product[:, ::-1] if c.reversed_product else product
            factors = [digits(p, c.digits), times, digits(q, c.digits), equals]
            yield np.concatenate([*factors, result], axis=1)

    def halves(self) -> tuple[int, ...]:
        """0 at `p x q =`, 1 at the product."""
        width = self.config.digits
        return (FREE,) * (2 * width + 2) + (DETERMINED,) * (2 * width)

    def floors(self, direction: str) -> dict[str, float]:
        """ln(pairs) nats per sentence, all of it in the half that is read first."""
        entropy = math.log(self.n_pairs)
        return by_direction(
            direction, entropy, {"half.0": entropy, "half.1": 0.0}, {"half.0": 0.0, "half.1": entropy}
        )
