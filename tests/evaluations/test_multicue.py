"""Votes of several cues: examples worked by hand, a slow second implementation, and the Brent corpus with the mean
over ten shuffles that was published for `multicue_23`."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluations.test_baselines import shown, stream, texts
from tests.evaluations.test_baselines_brent import BRENT, brent, row, same

from lexarium.evaluations.baselines import BASELINES
from lexarium.evaluations.baselines.multicue import MEASURES, Statistics, Voters, multicue
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

LOG = math.log2
COLTEKIN = BRENT.with_name("br-phono-coltekin.txt")
on_brent = pytest.mark.skipif(not BRENT.exists(), reason="the Brent corpus (shared data) is not here")


# --- by hand --------------------------------------------------------------------------------------------


def variety(*utterances: str) -> list[str]:
    """Cut by successor variety of single symbols: rises and falls, forward and backward, four cues."""
    data = stream(*utterances)
    return shown(data, multicue(data, data, measures=["variety"], lengths=[1], lexicon=False))


def test_a_vote_by_hand() -> None:
    """. is the boundary. ab: nothing is known, all agree on no cut (1 of 1 each).

    abc, after .ab.: kinds after . a b: 1 1 1, before a b .: 1 1 1, of c: none.
        forward . a b c 1 1 1 0    falls behind t = 2;    backward a b c . 1 1 0 1    falls behind t = 1
        one cue of four: no cut. Agreed: rises 3 of 3, falls 2 of 3.
    cab, after .abc. too: after . a b c: 1 1 2 1, before a b c .: 1 1 1 2.
        forward . c a b 1 1 1 2, backward c a b . 1 1 1 2: neither rises nor falls inside. Agreed: 5 of 5, 4 of 5.
    After .cab. too: after . {a c}, a {b}, b {. c}, c {. a}; before a {. c}, b {a}, c {. b}, . {b c}: 2, 1 for a or b.
        abab: forward . a b a b 2 1 2 1 2, backward a b a b . 2 1 2 1 2: all four cues for t = 2.
        cabc: forward . c a b c 2 2 1 2 2, backward c a b c . 2 2 1 2 2: both falls for t = 1 (8 of 18), both rises for
        t = 3 (10 of 18): the rises are trusted more, so one cut.
    """
    assert variety("ab", "abc", "cab", "abab") == ["ab", "abc", "cab", "ab ab"]
    assert variety("ab", "abc", "cab", "cabc") == ["ab", "abc", "cab", "cab c"]
    voters = Voters(["variety"], [1], lexicon=False)
    for text in ("ab", "abc", "cab"):
        voters.read(text)
    assert voters.agreed.tolist() == [5, 5, 4, 4] and voters.decided == 5
    assert voters.values("cabc").tolist() == [[2, 2, 1, 2, 2]] * 2
    assert voters.votes("cabc").astype(int).tolist() == [[0, 0, 1]] * 2 + [[1, 0, 0]] * 2
    voters.read("cabc")  # rises were wrong nowhere, falls at t = 1 and at t = 3
    assert voters.agreed.tolist() == [8, 8, 5, 5] and voters.decided == 8


def test_trust_depends_on_what_was_heard_first() -> None:
    """The same three utterances, so the same counts at last. cab, after .ab.: forward . c a b 1 0 1 1 rises at 2,
    backward c a b . 0 1 1 1 rises at 1. abc: forward . a b c 2 1 1 1, backward a b c . 2 1 1 1: none inside. So rises are
    trusted 4 of 5, falls 5 of 5, and in cabc it is the falls that win."""
    assert variety("ab", "cab", "abc", "cabc") == ["ab", "cab", "abc", "c abc"]


def test_a_tie_is_no_cut() -> None:
    """abd, after ab and abc: rise at t = 2 forward (3 of 3 so far) and fall behind it (2 of 3): 5 of 10."""
    assert variety("ab", "abc", "abd") == ["ab", "abc", "abd"]
    voters = Voters(["variety"], [1], lexicon=False)
    for text in ("ab", "abc"):
        voters.read(text)
    assert voters.votes("abd")[:, 1].tolist() == [True, False, True, False]
    assert voters.agreed.tolist() == [3, 3, 2, 2]


def test_measures_by_hand() -> None:
    """Of ab and b, framed ..ab.. and ..b..: 11 symbols, a 1, b 2; 9 pairs .. 4, .a 1, ab 1, b. 2, .b 1; 7 triples
    ..a .ab ab. b.. (2) ..b .b."""
    known = Statistics(2, entropies=True)
    known.learn("ab")
    known.learn("b")
    at = lambda measure, n, backward, text="ab": known.values(text, measure, n, backward)
    assert known.totals == [0, 11, 9, 7]
    # after . come . 4 times, a and b; . is there 8 times, twice with nothing behind
    half = lambda *p: -sum(x * LOG(x) for x in p)
    assert at("entropy", 1, False) == pytest.approx([half(4 / 8, 1 / 8, 1 / 8), 0, 0])
    assert at("entropy", 1, True) == pytest.approx([0, half(1 / 2, 1 / 2), half(4 / 8, 2 / 8)])  # of a b .
    assert at("entropy", 2, False) == pytest.approx([half(1 / 4, 1 / 4), 0, 0])  # of .. .a ab
    assert at("variety", 1, False) == [3, 1, 1]
    assert at("variety", 1, True) == [1, 2, 2]
    assert at("variety", 2, True) == [1, 2, 1]  # before ab ., before b. a and ., before .. b
    assert at("tp", 1, False) == [-1 / 8, -1, -1]  # a after ., b after a, . after b
    assert at("tp", 1, True) == [-1, -1 / 2, -2 / 8]  # . before a, a before b, b before .
    assert at("boundary", 1, False) == [4 / 8, 0, 1]
    assert at("boundary", 2, True) == [1, 1 / 2, 0]  # before ab, b. and ..
    share = lambda xy, x, y: -LOG((xy / 9) / ((x / 11) * (y / 11)))
    wanted = [share(1, 8, 1), share(1, 1, 2), share(2, 2, 8)]
    assert at("mi", 1, False) == pytest.approx(wanted) and at("mi", 1, True) == pytest.approx(wanted)
    assert at("mi", 2, False)[1] == pytest.approx(-LOG((1 / 7) / ((1 / 9) * (2 / 11))))  # b after .a
    for measure in MEASURES:  # q is new: as a context, and beside a context that is not
        assert at(measure, 1, False, "q")[1] == 0
        assert at(measure, 1, True, "q")[0] == 0
    assert at("mi", 1, False, "ba")[1] == 0 and at("tp", 1, False, "ba")[1] == 0  # no a after b


def test_words_found_so_far_by_hand() -> None:
    """itsababy with i, it, its, a, baby and by: before the first b begins one word and end a and none else."""
    voters = Voters([], [1], lexicon=True)
    voters.words |= {"i", "it", "its", "a", "baby", "by"}
    *edges, ending, beginning = voters.values("itsababy").tolist()
    assert ending == [0, 1, 1, 1, 1, 0, 1, 0, 2]
    assert beginning == [3, 0, 0, 1, 1, 1, 1, 0, 0]
    assert edges == [[0] * 9] * 2  # of words that were learnt there are none yet
    voters.found.learn("ab")
    voters.found.learn("b")
    # framed .ab. and .b.: forward . b a, of which b ends 2 of 2; backward b a ., of which begin b 1 of 2, a 1 of 1
    assert voters.values("ba")[:2].tolist() == [[0, 1, 0], [1 / 2, 1, 0]]


# --- a second implementation ----------------------------------------------------------------------------


def counted(past: list[Any], k: int) -> tuple[Counter[Any], Counter[int]]:
    """How often each stretch of 1 to k + 1 symbols, and how many of each length, are in framed texts."""
    framed = [("#",) * k + text + ("#",) * k for text in past]
    found = [f[i : i + m] for f in framed for m in range(1, k + 2) for i in range(len(f) - m + 1)]
    return Counter(found), Counter(map(len, found))


def plain_value(known: Any, u: Any, t: int, measure: str, n: int, backward: bool, k: int) -> Any:
    """One value at one position."""
    c, total = known
    framed = ("#",) * k + u + ("#",) * k
    x = framed[t + k : t + k + n] if backward else framed[t + k - n : t + k]
    y = framed[t + k - 1 : t + k] if backward else framed[t + k : t + k + 1]
    join = lambda other: other + x if backward else x + other
    if c[x] == 0:
        return 0
    if measure == "variety":
        return sum(c[join(other)] > 0 for other in c if len(other) == 1)
    if measure == "boundary":
        return Fraction(c[join(("#",))], c[x])
    if measure == "tp":
        return -Fraction(c[join(y)], c[x])
    if measure == "entropy":
        p = [c[join(other)] / c[x] for other in c if len(other) == 1]
        return -math.fsum(q * LOG(q) for q in p if q)
    if c[join(y)] == 0:
        return 0
    return -LOG(Fraction(c[join(y)] * total[n] * total[1], c[x] * c[y] * total[n + 1]))


def plain_multicue(utterances: Any, measures: Any, lengths: Any, lexicon: bool) -> Iterator[list[int]]:
    """Where each utterance is cut: everything heard is counted anew for each, and trust is a fraction."""
    k = max(lengths)
    heard: list[Any] = []
    words: list[Any] = []
    history: list[list[bool]] = []
    for u in utterances:
        where, rows = range(len(u) + 1), []
        for measure, past in [(m, heard) for m in measures] + [("boundary", words)] * lexicon:
            known = counted(past, k)
            for n in lengths:
                for backward in (False, True):
                    rows.append([plain_value(known, u, t, measure, n, backward, k) for t in where])
        if lexicon:
            types = set(words)
            rows.append([sum(u[i:t] in types for i in range(t)) for t in where])
            rows.append([sum(u[t:j] in types for j in range(t + 1, len(u) + 1)) for t in where])
        n_cues = 2 * len(rows)
        trust = [
            Fraction(sum(h[i] for h in history) or not history, len(history) or 1) for i in range(n_cues)
        ]
        cuts, judged = [], []
        for t in range(1, len(u)):
            votes = [float(r[t] - r[t - 1]) > 1e-9 for r in rows]
            votes += [float(r[t] - r[t + 1]) > 1e-9 for r in rows]
            cut = sum(w for w, v in zip(trust, votes, strict=True) if v) > sum(trust) / 2
            judged.append([v == cut for v in votes])
            cuts += [t] * cut
        history += judged
        heard.append(u)
        words += [u[a:b] for a, b in zip([0, *cuts], [*cuts, len(u)], strict=True)]
        yield cuts


def assert_equals_the_slow_one(data: Stream, measures: Any, lengths: Any, lexicon: bool) -> None:
    found = multicue(data, data, measures=measures, lengths=lengths, lexicon=lexicon)
    wanted = np.zeros(len(data), dtype=bool)
    slow = plain_multicue([tuple(u) for u in texts(data)], measures, lengths, lexicon)
    for first, cuts in zip(np.flatnonzero(data.first), slow, strict=True):
        wanted[[first + t for t in cuts]] = True
    assert (found == wanted).all()


HEARD = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=9)
LENGTHS = st.sampled_from([(1,), (2,), (1, 2), (3, 1)])


@settings(max_examples=60, deadline=None)
@given(HEARD, st.lists(st.sampled_from(MEASURES), max_size=3, unique=True), LENGTHS, st.booleans())
def test_multicue_equals_the_slow_one(utterances: Any, measures: Any, lengths: Any, lexicon: bool) -> None:
    data = Stream.of_words([[u] for u in utterances])
    assert_equals_the_slow_one(data, measures, lengths, lexicon or not measures)


WORDS = ["a", "ba", "dog", "ti", "gola", "bad"]


@pytest.mark.parametrize(
    ("measures", "lexicon"),
    [*(([m], False) for m in MEASURES), *(([m], True) for m in MEASURES), ([], True), (MEASURES, True)],
)
def test_in_a_small_language_too(measures: Any, lexicon: bool) -> None:
    """Where words come again and are found: 60 utterances."""
    draw = random.Random(1)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(60)]
    for lengths in ((1,), (2,), (1, 3)):
        assert_equals_the_slow_one(stream(*lines), measures, lengths, lexicon)


def test_no_vote_rests_on_rounding() -> None:
    """a, b, c and d are followed by p, q, r equally often, heard in other orders, d twice as often: one entropy."""
    voters = Voters(["entropy"], [1], lexicon=False)
    heard = [*["ap", "bq", "cr"] * 7, *["aq", "br", "cp"] * 5, *["ar", "bp", "cq"] * 3]
    for text in [*heard, *["dr"] * 6, *["dp"] * 14, *["dq"] * 10]:
        voters.heard.learn(text)
    for text in map("".join, itertools.permutations("abcd")):
        forward = voters.values(text)[0]
        assert forward[1:] == pytest.approx([forward[1]] * 4, abs=1e-12) and forward[1] > 1
        rises, _, falls, _ = voters.votes(text)
        assert not rises[1:].any() and not falls.any()


LINES = ["abcde", "abc", "deab", "cab", "abab", "cabc", "deabc", "ababab", "cde", "abcab"]


@pytest.mark.parametrize("name", ["multicue_14", "multicue_17", "multicue_23"])
def test_what_comes_later_never_matters(name: str) -> None:
    every = shown(data := stream(*LINES), BASELINES[name](data, data, 0))
    assert any(" " in line for line in every[:-1])
    for n in range(1, len(LINES)):
        part = stream(*LINES[:n])
        assert shown(part, BASELINES[name](part, part, 0)) == every[:n]
        rest = stream(*LINES[n:])  # and a train stream is only what was heard before
        assert shown(rest, BASELINES[name](part, rest, 0)) == every[n:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["surprise"]}, "'surprise', expected some of mi, tp"),
        ({"lengths": [1, 0]}, r"\(1, 0\), expected numbers of 1 or more"),
        ({"lengths": []}, r"lengths of multicue: found \(\)"),
        ({"measures": [], "lexicon": False}, "neither measures nor the lexicon"),
    ],
)
def test_multicue_refuses(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        multicue(stream("ab"), stream("ab"), **options)


# --- Brent ----------------------------------------------------------------------------------------------

ALL = {
    "multicue_14": "82.5/89.5/85.9 92.1 71.8/76.1/73.9 39.5/64.1/48.9 7.2 10.5",
    "multicue_17": "82.8/88.9/85.7 92.1 71.9/75.7/73.8 36.4/65.1/46.7 7.0 11.1",
    "multicue_23": "89.7/87.0/88.4 93.7 80.2/78.5/79.3 41.1/69.6/51.7 3.8 13.0",
}
LAST = {
    "multicue_14": "80.7/95.2/87.4 92.8 70.8/79.8/75.0 59.6/67.3/63.2 8.8 4.8",
    "multicue_17": "84.2/95.5/89.5 94.0 75.8/83.1/79.3 61.7/70.3/65.7 7.0 4.5",
    "multicue_23": "88.8/94.6/91.6 95.3 81.3/85.1/83.2 72.1/76.6/74.2 4.6 5.4",
}
"""One pass over Brent, all of it and its last thousand utterances, measured here: boundary P/R/F, with edges F, word
P/R/F, lexicon P/R/F, over, under."""


@cache
def cuts_of_brent(name: str) -> np.ndarray:
    return BASELINES[name](brent(), brent(), 0)


@on_brent
@pytest.mark.parametrize("name", ALL)
def test_on_brent(name: str) -> None:
    data, cuts = brent(), cuts_of_brent(name)
    same(row(cuts), ALL[name])
    last = data.only(np.arange(8790, 9790))
    same(row(cuts[last], data.part(last)), LAST[name])


PUBLISHED = {"multicue_23": [87.8, 78.2, 51.1]}
MEASURED = {"multicue_14": [85.7, 73.4, 49.7], "multicue_17": [85.9, 74.0, 46.7]}
"""F of boundaries, words and lexicon. Published for the others: 85.0, 75.4, 38.2 (with stress) and 85.7, 74.0, 45.5."""


@on_brent
@pytest.mark.slow
@pytest.mark.parametrize("name", [*PUBLISHED, *MEASURED])
def test_the_mean_of_ten_shuffles(name: str) -> None:
    """Coltekin's version of Brent in the orders of the published means: seeds 1 to 10 of DYMULTI-23's run_shuffles."""
    lines = COLTEKIN.read_text(encoding="ascii").splitlines()
    scores = []
    for seed in range(1, 11):
        order = list(lines)
        random.Random(seed).shuffle(order)
        data = Stream.of_words([[[ord(c) for c in word] for word in line.split()] for line in order])
        found = row(BASELINES[name](data, data, 0), data)
        scores.append([found[2], found[6], found[9]])
    assert np.mean(scores, axis=0) == pytest.approx({**PUBLISHED, **MEASURED}[name], abs=0.05 + 1e-9)
