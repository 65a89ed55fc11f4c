"""Scores of cuts and choices of thresholds, against sets written out by hand and searches in a loop."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexarium.evaluations.segmentation.decisions import (
    best_threshold,
    bounded_threshold,
    inner_peaks,
    peaks,
    votes,
)
from lexarium.evaluations.segmentation.scores import f_of, score
from lexarium.evaluations.segmentation.stream import MOST, Stream

BRENT = Path(__file__).parents[3] / "shared/data/brent/br-phono.txt"
needs_brent = pytest.mark.skipif(not BRENT.is_file(), reason="shared/data/brent is not there")

ODD = (0xD7FF, 0xDBFF, MOST)
"""Symbols whose numbers are code points of no character, or the last one there is."""
WORDS = st.lists(
    st.lists(st.integers(0, 3) | st.sampled_from(ODD), min_size=1, max_size=4), min_size=1, max_size=5
)
UTTERANCES = st.lists(WORDS, min_size=1, max_size=6)


def brent() -> Stream:
    lines = BRENT.read_text(encoding="utf-8").splitlines()
    return Stream.of_words([[[ord(c) for c in word] for word in line.split()] for line in lines])


def cut_words(stream: Stream, cuts: np.ndarray) -> list[list[tuple[int, int, tuple[int, ...]]]]:
    """Utterances of words (start, stop, symbols), symbol by symbol."""
    found: list[list[tuple[int, int, tuple[int, ...]]]] = [[]]
    start = None
    for t, symbol in enumerate(stream.symbols.tolist()):
        if start is not None and (symbol < 0 or cuts[t]):
            found[-1].append((start, t, tuple(stream.symbols[start:t].tolist())))
            start = None
        if symbol < 0:
            found.append([])
        elif start is None:
            start = t
    return found[:-1]


def simple_score(stream: Stream, cuts: np.ndarray) -> dict[str, float]:
    """The measures from sets, utterance by utterance."""
    pred, gold = cut_words(stream, cuts), cut_words(stream, stream.starts)
    totals = dict.fromkeys(("b_hit", "b_pred", "b_gold", "w_hit", "w_pred", "w_gold", "tn", "exact"), 0)
    errors = dict.fromkeys(("correct", "under", "over", "mis"), 0)
    for p, g in zip(pred, gold, strict=True):
        inner = [{a for a, _, _ in words[1:]} for words in (p, g)]
        totals["b_hit"] += len(inner[0] & inner[1])
        totals["b_pred"] += len(inner[0])
        totals["b_gold"] += len(inner[1])
        totals["tn"] += g[-1][1] - g[0][0] - 1 - len(inner[0] | inner[1])
        totals["w_hit"] += len({w[:2] for w in p} & {w[:2] for w in g})
        totals["w_pred"] += len(p)
        totals["w_gold"] += len(g)
        totals["exact"] += p == g
        shared = sorted({p[0][0], p[-1][1]} | (inner[0] & inner[1]))
        for a, b in pairwise(shared):
            n, m = (sum(a <= w[0] and w[1] <= b for w in words) for words in (p, g))
            errors["correct" if n == m == 1 else "under" if n == 1 else "over" if m == 1 else "mis"] += 1
    types = [{w[2] for words in side for w in words} for side in (pred, gold)]
    f = lambda hit, one, other: 2 * hit / (one + other) if one + other else 0.0
    share = lambda part, whole: part / whole if whole else 0.0
    t, edges = totals, 2 * len(gold)
    return {
        "boundary.f": f(t["b_hit"], t["b_pred"], t["b_gold"]),
        "boundary.precision": share(t["b_hit"], t["b_pred"]),
        "boundary.recall": share(t["b_hit"], t["b_gold"]),
        "boundary_all.f": f(t["b_hit"] + edges, t["b_pred"] + edges, t["b_gold"] + edges),
        "token.f": f(t["w_hit"], t["w_pred"], t["w_gold"]),
        "token.precision": share(t["w_hit"], t["w_pred"]),
        "type.f": f(len(types[0] & types[1]), len(types[0]), len(types[1])),
        "type.recall": share(len(types[0] & types[1]), len(types[1])),
        "over": share(t["b_pred"] - t["b_hit"], t["b_pred"] - t["b_hit"] + t["tn"]),
        "under": share(t["b_gold"] - t["b_hit"], t["b_gold"]),
        "exact": t["exact"] / len(gold),
        **{f"errors.{name}": n for name, n in errors.items()},
    }


@given(utterances=UTTERANCES, data=st.data())
def test_scores_are_those_of_sets(utterances: list, data: st.DataObject) -> None:
    stream = Stream.of_words(utterances)
    cuts = np.array(data.draw(st.lists(st.booleans(), min_size=len(stream), max_size=len(stream))))
    found = score(stream, cuts)
    for name, value in simple_score(stream, cuts).items():
        assert found[name] == pytest.approx(value), name
    for aim in ("boundary", "type"):
        assert f_of(stream, cuts, aim) == found[f"{aim}.f"]


def test_a_worked_example() -> None:
    """yu want|tu: gold `yu want tu | si it`, cut as `yuwant t u | si it`."""
    a, b, c = [1, 2], [3, 4, 5, 6], [6, 2]
    stream = Stream.of_words([[a, b, c], [[7, 8], [8, 6]]])
    cuts = stream.starts.copy()
    cuts[2], cuts[7] = False, True
    found = score(stream, cuts)
    assert (found["boundary.hits"], found["boundary.predicted"], found["boundary.gold"]) == (2, 3, 3)
    assert (found["token.hits"], found["token.predicted"], found["token.gold"]) == (2, 5, 5)
    assert (found["type.hits"], found["type.predicted"], found["type.gold"]) == (2, 5, 5)
    kinds = [found[f"errors.{k}"] for k in ("correct", "under", "over", "mis")]
    assert kinds == [2, 1, 1, 0] and found["exact"] == 0.5
    assert found["over"] == pytest.approx(1 / 7) and found["under"] == pytest.approx(1 / 3)


def test_types_are_tuples_of_symbols() -> None:
    """One symbol `12` is not the symbols `1` and `2`."""
    stream = Stream.of_words([[[12], [1, 2]]])
    assert score(stream, stream.starts)["type.gold"] == 2


@needs_brent
@pytest.mark.parametrize(
    "everywhere, expected",
    [
        (False, {"boundary.f": 0, "boundary_all.f": 62.4, "token.precision": 21.0, "token.recall": 6.1, "token.f": 9.5,
                 "type.precision": 5.8, "type.recall": 25.9, "type.f": 9.4, "over": 0, "under": 100}),
        (True, {"boundary.precision": 27.4, "boundary.recall": 100, "boundary.f": 43.1, "boundary_all.f": 58.1,
                "token.precision": 1.8, "token.recall": 5.1, "token.f": 2.6, "type.precision": 18.0, "type.recall": 0.7,
                "type.f": 1.3, "over": 100, "under": 0}),
    ],
)  # fmt: skip
def test_no_cut_and_every_cut_on_brent(everywhere: bool, expected: dict[str, float]) -> None:
    """Spec 6.2, first two rows."""
    stream = brent()
    found = score(stream, np.full(len(stream), everywhere))
    assert {k: round(100 * found[k], 1) for k in expected} == expected
    assert (found["boundary.gold"], found["token.gold"], found["type.gold"]) == (23_609, 33_399, 1_321)
    assert int(stream.inside.sum()) == 86_019


def test_a_stream_must_be_one() -> None:
    whole = Stream.of_words([[[1, 2], [3]], [[4]]])
    assert whole.symbols.tolist() == [1, 2, 3, -1, 4, -1] and whole.utterance.tolist() == [0, 0, 0, 0, 1, 1]
    assert whole.inside.tolist() == [False, True, True, False, False, False]
    for symbols, starts in (
        ([1, -1, -1], [1, 0, 0]),
        ([-1, 1, -1], [0, 1, 0]),
        ([1, 2], [1, 0]),
        ([1, -1], [0, 0]),
        ([1, -1], [1, 1]),
        ([MOST + 1, -1], [1, 0]),
        ([-2, -1], [1, 0]),
    ):
        with pytest.raises(ValueError):
            Stream(np.array(symbols), np.array(starts, dtype=bool))


# --- decisions --------------------------------------------------------------------------------------


def test_peaks_are_strict_and_see_zero_beyond_the_ends() -> None:
    assert peaks(np.array([1.0, 0, 2, 2, 0, 3])).tolist() == [True, False, False, False, False, True]
    assert peaks(np.array([-1.0, -2, -1])).tolist() == [False, False, False]
    assert inner_peaks(np.array([1.0, 0, 2, 1, 3])).tolist() == [False, False, True, False, False]


def test_votes_are_shares() -> None:
    decisions = {"a": np.array([True, False]), "b": np.array([True, True]), "c": np.array([False, False])}
    assert votes(decisions).tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("aim", ["boundary", "type"])
@settings(max_examples=60)
@given(utterances=UTTERANCES, data=st.data())
def test_the_threshold_is_the_best_of_all(aim: str, utterances: list, data: st.DataObject) -> None:
    """Against a sweep of every distinct value, with ties."""
    stream = Stream.of_words(utterances)
    draw = st.lists(
        st.sampled_from([-1.5, 0.0, 0.25, 0.5, 1.0, 7.0]), min_size=len(stream), max_size=len(stream)
    )
    values = np.array(data.draw(draw))
    theta = best_threshold(values, stream, aim)  # type: ignore[arg-type]
    every = [float("-inf"), *values[stream.inside].tolist(), float("inf")]
    reached = lambda t: score(stream, values > t)[f"{aim}.f"]
    assert reached(theta) == pytest.approx(max(map(reached, every)))


@needs_brent
def test_the_bounded_search_falls_short_of_the_exact_one() -> None:
    """A cue that crowds near zero, as boundary probability does (spec 4.3)."""
    stream = brent()
    noise = np.random.default_rng(1).random(len(stream))
    values = (0.3 * noise + 0.7 * noise * stream.starts) ** 60
    exact, bounded = (f(values, stream, "type") for f in (best_threshold, bounded_threshold))
    f = [score(stream, values > theta)["type.f"] for theta in (exact, bounded)]
    assert f[0] > f[1] + 0.05


def test_of_several_best_thresholds_the_highest_is_taken() -> None:
    """Two boundaries among four places: cutting all (2 of 4 right) and the last one alone (1 of 1) have F 2/3 both."""
    stream = Stream.of_words([[[1], [2, 3]], [[1, 2], [3]]])
    values = np.array([0.0, 0.1, 0.2, 0.0, 0.0, 0.3, 0.4, 0.0])
    reached = {theta: f_of(stream, values > theta, "boundary") for theta in (-1.0, 0.1, 0.2, 0.3, 0.4)}
    assert reached == pytest.approx({-1.0: 2 / 3, 0.1: 0.4, 0.2: 0.5, 0.3: 2 / 3, 0.4: 0})
    assert best_threshold(values, stream) == 0.3


def test_cues_without_a_number_have_no_threshold() -> None:
    stream = Stream.of_words([[[1], [2, 3]], [[1], [2, 3]]])
    for values in (np.full(len(stream), np.inf), np.full(len(stream), np.nan)):
        assert bounded_threshold(values, stream) == math.inf
    assert best_threshold(np.full(len(stream), np.nan), stream) == math.inf


def test_the_bounded_search_looks_at_every_tenth_utterance() -> None:
    """From the first on: the others, where every boundary is at 0.9, are not looked at."""
    chosen, other = [[1, 2], [3]], [[4], [5, 6]]
    stream = Stream.of_words([chosen if i % 10 == 0 else other for i in range(30)])
    values = np.zeros(len(stream))
    tenth = stream.utterance % 10 == 0
    values[stream.starts & stream.inside & tenth] = 0.3
    values[~stream.starts & stream.inside & tenth] = 0.1
    values[stream.inside & ~tenth] = 0.9
    assert 0.1 <= bounded_threshold(values, stream) < 0.3
