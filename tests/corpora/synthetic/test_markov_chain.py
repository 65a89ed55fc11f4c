"""Markov chains: stationarity, detailed balance, and the floor against sums over all sentences, in both directions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.synthetic.markov_chain import MarkovChain, entropy, stationary
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import UserError


def language(**options: Any) -> MarkovChain:
    return MarkovChain(validate(MarkovChain.Config, Source({"type": "markov_chain", **options})))


chains = given(st.integers(2, 8), st.integers(0, 10**6), st.booleans(), st.floats(0.2, 5.0))


@chains
def test_chains_are_stationary_and_reversible_exactly_when_asked(
    n: int, seed: int, reversible: bool, concentration: float
) -> None:
    corpus = language(n_states=n, seed=seed, reversible=reversible, concentration=concentration)
    pi, P = corpus.stationary, corpus.transition
    assert np.allclose(P.sum(axis=1), 1) and np.isclose(pi.sum(), 1) and (pi > 0).all()
    assert np.allclose(pi @ P, pi)
    flow = pi[:, None] * P
    if reversible:
        assert np.allclose(flow, flow.T), "detailed balance"
    elif n > 2:  # every chain of two states is reversible
        assert not np.allclose(flow, flow.T, atol=1e-9)


def sentences(pi: np.ndarray, P: np.ndarray, length: int) -> dict[tuple[int, ...], float]:
    """Every sentence and its probability."""
    return {
        s: pi[s[0]] * math.prod(P[a, b] for a, b in itertools.pairwise(s))
        for s in itertools.product(range(len(pi)), repeat=length)
    }


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize(("n", "length"), [(2, 5), (3, 6), (4, 4)])
def test_the_floors_are_the_entropies_of_all_sentences(n: int, length: int, reversible: bool) -> None:
    corpus = language(n_states=n, length=length, reversible=reversible, seed=4)
    pi, P = corpus.stationary, corpus.transition
    joint = sentences(pi, P, length)
    whole = -sum(p * math.log(p) for p in joint.values())
    for direction, first in (("forward", slice(None, length // 2)), ("backward", slice(length // 2, None))):
        floors = corpus.floors(direction)
        assert math.isclose(floors[""], whole)
        marginal: dict[tuple[int, ...], float] = {}
        for s, p in joint.items():
            marginal[s[first]] = marginal.get(s[first], 0) + p
        begun = -sum(p * math.log(p) for p in marginal.values())
        read_first, then = ("half.0", "half.1") if direction == "forward" else ("half.1", "half.0")
        assert math.isclose(floors[read_first], begun) and math.isclose(floors[then], whole - begun)


@pytest.mark.parametrize("reversible", [True, False])
def test_the_exact_backward_model_scores_every_sentence_as_the_forward_one(reversible: bool) -> None:
    corpus = language(n_states=4, length=5, reversible=reversible)
    pi, P = corpus.stationary, corpus.transition
    backward = P.T * pi / pi[:, None]
    assert np.allclose(backward.sum(axis=1), 1)
    assert np.allclose(backward, P) == reversible
    there, back = sentences(pi, P, 5), sentences(pi, backward, 5)
    assert all(math.isclose(there[s], back[s[::-1]]) for s in there)
    assert math.isclose(pi @ entropy(backward), corpus.entropy_rate()), "equal entropy, reversible or not"


@pytest.mark.parametrize("reversible", [True, False])
def test_sentences_follow_the_chain(reversible: bool) -> None:
    corpus = language(reversible=reversible, sizes={"train": 20_000, "val": 100})
    codes = np.array([[ord(c) - ord("a") for c in d.text] for d in corpus.documents("train")])
    assert codes.shape == (20_000, 32)
    counts = np.zeros((6, 6))
    np.add.at(counts, (codes[:, :-1].ravel(), codes[:, 1:].ravel()), 1)
    start = np.bincount(codes[:, 0], minlength=6) / len(codes)
    assert np.abs(start - corpus.stationary).max() < 4 * 0.5 / math.sqrt(20_000)
    error = np.sqrt(corpus.transition * (1 - corpus.transition) / counts.sum(axis=1, keepdims=True))
    assert (np.abs(counts / counts.sum(axis=1, keepdims=True) - corpus.transition) < 5 * error + 1e-6).all()
    loss = -np.log(corpus.stationary[codes[:, 0]]) - np.log(
        corpus.transition[codes[:, :-1], codes[:, 1:]]
    ).sum(axis=1)
    assert abs(loss.mean() - corpus.floors("forward")[""]) < 4 * loss.std() / math.sqrt(len(loss))


def test_no_sentence_is_in_two_splits() -> None:
    options = {
        "n_states": 2,
        "length": 14,
        "concentration": 5.0,
        "sizes": {"train": 300, "val": 40, "test": 30},
    }
    corpus = language(**options)
    texts = {s: [d.text for d in corpus.documents(s)] for s in corpus.splits}
    assert {s: len(t) for s, t in texts.items()} == options["sizes"]
    alone = corpus._draw(300, "train", 0)
    held = {*texts["val"], *texts["test"]}
    drawn = [bytes(row).decode() for row in alone]
    assert held & set(drawn), "the case must occur, or this test tests nothing"
    assert not held & set(texts["train"]) and not set(texts["val"]) & set(texts["test"])
    assert [
        d.text for d in language(**{**options, "sizes": {"train": 5, "val": 40}}).documents("val")
    ] == texts["val"]


def test_a_chain_too_short_to_be_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"more than 1% .* raise corpus\.length \(found 4\)"):
        list(language(n_states=2, length=4, sizes={"train": 5_000, "val": 10}).documents("train"))


def test_seeds() -> None:
    chain = lambda **o: language(**o).transition.tolist()
    assert chain() == chain(seed=0) != chain(seed=1) == chain(matrix_seed=1)


def test_a_worked_stationary_distribution() -> None:
    assert np.allclose(stationary(np.array([[0.9, 0.1], [0.3, 0.7]])), [0.75, 0.25])
    assert np.allclose(entropy(np.array([[0.5, 0.5], [1.0, 0.0]])), [math.log(2), 0.0])


def test_small_splits_have_the_same_limit() -> None:
    """A quarter of these sentences would be replaced, far from 1 %, and the floor would not be that of the chain."""
    corpus = MarkovChain(
        MarkovChain.Config(n_states=3, length=6, concentration=1.0, sizes={"train": 1000, "val": 60}, seed=1)
    )
    with pytest.raises(
        UserError, match=r"more than 1% of the sentences drawn for train are in another split"
    ):
        list(corpus.blocks("train"))
