"""Prime products: counts of primes and pairs from the literature, sentences by trial division."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.synthetic.prime_products import PrimeProducts, pair, primes_below
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import UserError


def language(**options: Any) -> PrimeProducts:
    options = {"digits": 2, "sizes": {"train": 200, "val": 60, "test": 40}, **options}
    return PrimeProducts(validate(PrimeProducts.Config, Source({"type": "prime_products", **options})))


@pytest.mark.parametrize(("digits", "primes"), [(2, 25), (3, 168), (4, 1229), (5, 9592), (6, 78498)])
def test_there_are_as_many_primes_as_the_tables_say(digits: int, primes: int) -> None:
    """pi(10^n), OEIS A006880."""
    assert len(primes_below(10**digits)) == primes == len(language(digits=digits).primes)
    assert language(digits=digits).n_pairs == math.comb(primes, 2)


def test_four_digits_make_754606_pairs() -> None:
    assert language(digits=4).n_pairs == 754_606


def prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("digits", [2, 3, 4])
def test_every_sentence_is_a_true_product_of_two_primes(digits: int, reverse: bool) -> None:
    corpus = language(digits=digits, reversed_product=reverse)
    for document in itertools.chain(*map(corpus.documents, corpus.splits)):
        text = document.text
        assert len(text) == 4 * digits + 2
        p, rest = text.split("x")
        q, n = rest.split("=")
        assert len(p) == len(q) == digits and len(n) == 2 * digits
        assert int(p) < int(q) and prime(int(p)) and prime(int(q))
        assert int(n[::-1] if reverse else n) == int(p) * int(q)
        halves = document.channels["half"]
        assert [c for c, half in zip(text, halves, strict=True) if half] == list(n)


def test_the_splits_are_all_pairs_once() -> None:
    corpus = language()
    texts = [d.text for split in corpus.splits for d in corpus.documents(split)]
    expected = {
        f"{p:02d}x{q:02d}={p * q:04d}"
        for p, q in itertools.combinations([n for n in range(100) if prime(n)], 2)
    }
    assert len(texts) == 300 and set(texts) == expected
    assert texts != [d.text for split in corpus.splits for d in language(seed=1).documents(split)]
    with pytest.raises(UserError, match=r"digits=2 has 300 sentences, corpus\.sizes asks for 301"):
        list(language(sizes={"train": 201, "val": 60, "test": 40}).documents("train"))


def test_pairs_are_numbered_without_gaps() -> None:
    small, large = pair(np.arange(math.comb(50, 2)))
    assert list(zip(small.tolist(), large.tolist(), strict=True)) == [
        (a, b) for b in range(50) for a in range(b)
    ]


@given(st.integers(1, 80_000), st.data())
def test_large_pair_numbers_survive_the_square_root(larger: int, data: st.DataObject) -> None:
    smaller = data.draw(st.integers(0, larger - 1))
    number = larger * (larger - 1) // 2 + smaller
    assert [x.item() for x in pair(np.array([number]))] == [smaller, larger]


def test_the_floor_is_the_logarithm_of_the_number_of_pairs() -> None:
    corpus = language(digits=4)
    assert corpus.floors("forward") == {"": math.log(754_606), "half.0": math.log(754_606), "half.1": 0.0}
    assert corpus.floors("backward")["half.0"] == 0.0
    assert set(corpus.floors("permutation")) == {""}
    # per token, with eos: the 19 tokens of four digits
    assert math.isclose(corpus.floors("forward")[""] / 19, 0.7123, abs_tol=1e-4)
