"""Random maps: every target has exactly K sources, and the floors are the entropies of the documents themselves."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.synthetic.random_map import RandomMap
from lexarium.foundation.config import ConfigError, Source, validate


def language(**options: Any) -> RandomMap:
    return RandomMap(validate(RandomMap.Config, Source({"type": "random_map", **options})))


def entropy(counts: Counter) -> float:
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


@given(st.integers(1, 60), st.integers(1, 7), st.integers(4, 8), st.integers(0, 99))
def test_the_floors_are_the_entropies_of_the_documents(n: int, k: int, length: int, seed: int) -> None:
    corpus = language(n_targets=n, branching=k, length=length, n_letters=5, seed=seed)
    texts = [d.text for d in corpus.documents("train")]
    pairs = [(t[:length], t[length:]) for t in texts]
    assert len({x for x, _ in pairs}) == n * k and set(Counter(y for _, y in pairs).values()) == {k}
    both, x, y = (entropy(Counter(c)) for c in (pairs, [p[0] for p in pairs], [p[1] for p in pairs]))
    forward, backward = corpus.floors("forward"), corpus.floors("backward")
    close = lambda a, b: math.isclose(a, b, abs_tol=1e-9)
    assert close(forward[""], both) and close(backward[""], both)
    assert close(forward["half.0"], x) and close(forward["half.1"], both - x)
    assert close(backward["half.1"], y) and close(backward["half.0"], both - y)
    assert forward["half.1"] == 0 and close(backward["half.0"], math.log(k))


def test_channels_and_splits() -> None:
    corpus = language(n_targets=3, branching=2, length=4)
    assert corpus.splits == ("train",) and corpus.halves() == (0, 0, 0, 0, 1, 1, 1, 1)
    texts = [d.text for d in corpus.documents("train")]
    assert texts == [d.text for d in corpus.documents("train")]
    assert texts != [d.text for d in language(n_targets=3, branching=2, length=4, seed=1).documents("train")]


def test_more_strings_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="12 different strings wanted, 1 of 5 letters make 5; raise length"):
        language(n_targets=4, branching=3, length=1, n_letters=5)
