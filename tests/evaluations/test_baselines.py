"""Baselines of word segmentation against examples worked by hand, plain implementations, and published tables."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexarium.evaluations.baselines import BASELINES
from lexarium.evaluations.baselines.dibs import cut_probability, dibs
from lexarium.evaluations.baselines.ngrams import cues, ngram
from lexarium.evaluations.baselines.puddle import puddle
from lexarium.evaluations.baselines.random_cuts import probability, random_cuts
from lexarium.evaluations.baselines.transitional import strength, transitional
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

LN = math.log
UTTERANCES = st.lists(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)
"""Utterances of words of few symbols, so that counts of pairs often are equal."""


def stream(*utterances: str) -> Stream:
    """From text: a space between words, one character a symbol."""
    return Stream.of_words([[[ord(c) for c in word] for word in u.split()] for u in utterances])


def shown(data: Stream, cuts: np.ndarray) -> list[str]:
    """Utterances with a space at every cut."""
    assert cuts.dtype == bool and cuts.shape == data.symbols.shape and not (cuts & ~data.inside).any()
    text = "".join(
        " " * bool(cut) + ("\n" if symbol < 0 else chr(symbol))
        for symbol, cut in zip(data.symbols.tolist(), cuts.tolist(), strict=True)
    )
    return text.split("\n")[:-1]


def texts(data: Stream) -> list[list[Any]]:
    """Utterances as lists of symbols."""
    return [u[:-1].tolist() for u in np.split(data.symbols, np.flatnonzero(data.ends) + 1)[:-1]]


# --- random cuts ----------------------------------------------------------------------------------------


def test_rates_of_random_cuts() -> None:
    data = stream("ab c", "d ef g", "h")  # 6 words, 8 symbols, 3 utterances, 5 places inside, 3 cuts
    assert probability(data, "oracle") == 6 / 8 and probability(data, "true") == 3 / 5
    assert [probability(data, rate) for rate in ("none", "all", "half", 0.3)] == [0, 1, 0.5, 0.3]
    assert shown(data, random_cuts(data, data, "all", 1)) == ["a b c", "d e f g", "h"]
    assert shown(data, random_cuts(data, data, "none", 1)) == ["abc", "defg", "h"]


def test_random_cuts_have_their_rate_and_their_key() -> None:
    data = stream(*["abcde fghij"] * 2000)
    low, high, other = (random_cuts(data, data, p, key) for p, key in ((0.2, 7), (0.6, 7), (0.2, 8)))
    n = int(data.inside.sum())
    for cuts, p in ((low, 0.2), (high, 0.6), (other, 0.2)):
        assert abs(cuts.sum() - n * p) < 5 * math.sqrt(n * p * (1 - p))
    assert (low <= high).all() and (low != other).any()
    assert (low == random_cuts(data, data, 0.2, 7)).all()
    both = (low[1:] & low[:-1]).sum()  # independent of each other: 8 of 9 places have a neighbour inside
    assert abs(both - n * 8 / 9 * 0.04) < 5 * math.sqrt(n * 0.04)


@pytest.mark.parametrize("rate", [-0.1, 1.5, "most", math.nan])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    data = stream("ab")
    with pytest.raises(UserError, match="rate of random cuts: found"):
        random_cuts(data, data, rate, 1)


# --- transitional probabilities -------------------------------------------------------------------------

WORLD = [
    ("ftp", "relative", False, "hal owel d"),  # lo and ld are 1/2, all others 1, d and the boundary too
    ("ftp", "relative", True, "hal oweld"),  # the last symbol is not tested
    ("ftp", "absolute", False, "hal owel d"),  # mean 8/9
    ("btp", "relative", False, "ha lowe ld"),  # al and el are 1/2
    ("btp", "absolute", False, "ha lowe ld"),
    ("mi", "relative", False, "haloweld"),  # al lo el ld are -1: two equal neighbours, no minimum
    ("mi", "absolute", False, "ha l owe l d"),  # mean -4/9
]


@pytest.mark.parametrize(("measure", "rule", "legacy", "expected"), WORLD)
def test_transitional_by_hand(measure: Any, rule: Any, legacy: bool, expected: str) -> None:
    """ "h a l o w e l d": the example of wordseg's own tests, which publishes the same results for ftp and btp."""
    data = stream("haloweld")
    assert shown(data, transitional(data, data, measure, rule, legacy=legacy)) == [expected]


def test_pairs_that_were_never_seen_are_cut() -> None:
    train, test = stream("abab", "abab"), stream("aab", "abz")
    values, mean = strength(train, test, "ftp")
    # pairs of train: boundary-a 2 of 2, ab 4 of 4, ba 2 of 4, b-boundary 2 of 4
    assert values.tolist() == [1, 0, 1, 0.5, 1, 1, 0, 0] and mean == 0.75
    assert shown(test, transitional(train, test, "ftp", "absolute")) == ["a ab", "ab z"]
    assert shown(test, transitional(train, test, "ftp", "relative")) == ["a ab", "abz"]
    mutual, _ = strength(train, test, "mi")
    assert mutual[1] == -math.inf and mutual[0] == np.log2(2 / (2 * 4))
    assert shown(test, transitional(train, test, "mi", "absolute")) == ["a ab", "ab z"]


def test_a_pair_at_the_mean_is_cut() -> None:
    data = stream("ab")  # its three pairs, those with the boundary included, all have probability 1
    assert shown(data, transitional(data, data, "ftp", "absolute")) == ["a b"]


def plain_transitional(data: Stream, measure: str, rule: str, legacy: bool) -> np.ndarray:
    """In exact fractions, position by position; `legacy` is the loop of wordseg told in the stream's positions."""
    s = data.symbols.tolist()
    seen = s[:-1] if legacy else [-1, *s]
    c, c2 = Counter(seen if legacy else s), Counter(zip(seen[:-1], seen[1:], strict=True))
    below = {"ftp": lambda x, y: c[x], "btp": lambda x, y: c[y], "mi": lambda x, y: c[x] * c[y]}[measure]
    v = {(x, y): Fraction(n, below(x, y)) for (x, y), n in c2.items()}
    scale = (lambda f: math.log2(f)) if measure == "mi" else (lambda f: f)
    mean = sum(map(scale, v.values())) / len(v) if v else 0
    cuts = np.zeros(len(s), dtype=bool)
    for t in np.flatnonzero(data.inside).tolist():
        if rule == "absolute":
            cuts[t] = scale(v[s[t - 1], s[t]]) <= mean
        elif not (legacy and t in (1, len(s) - 2)):
            cuts[t] = v[s[t - 2] if t > 1 else -1, s[t - 1]] > v[s[t - 1], s[t]] < v[s[t], s[t + 1]]
    return cuts


@settings(max_examples=60, deadline=None)
@given(UTTERANCES, st.sampled_from(["ftp", "btp", "mi"]), st.booleans())
def test_transitional_equals_exact_fractions(utterances: Any, measure: Any, legacy: bool) -> None:
    data = Stream.of_words(utterances)
    found = transitional(data, data, measure, "relative", legacy=legacy)
    assert (found == plain_transitional(data, measure, "relative", legacy)).all()
    values, mean = strength(data, data, measure, legacy=legacy)
    if np.abs(values - mean).min() > 1e-9:  # else the mean, a rounded sum, decides
        found = transitional(data, data, measure, "absolute", legacy=legacy)
        assert (found == plain_transitional(data, measure, "absolute", legacy)).all()


# --- n-grams --------------------------------------------------------------------------------------------


def test_ngram_cues_by_hand() -> None:
    train = stream("ab", "ab", "ac")
    h = LN(3) - 2 / 3 * LN(2)  # of b b c
    found = cues(train, train, 1)
    assert found["entropy"] == pytest.approx([0, h, 0] * 3)
    assert found["loss"] == pytest.approx([0, LN(1.5), 0, 0, LN(1.5), 0, 0, LN(3), 0])
    assert found["rank"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert found["boundary"].tolist() == [0, 0, 1] * 3
    assert shown(train, ngram(train, train, 1, "entropy")) == ["a b", "a b", "a c"]


def test_contexts_and_outcomes_that_were_never_seen() -> None:
    """Outcomes of train: a 3, b 2, c 1, boundary 3. After a: b 2, c 1."""
    train, test = stream("ab", "ab", "ac"), stream("db", "aa")
    found = cues(train, test, 2)
    # d after two boundaries: never, of 3. b after (boundary, d): (d) is unknown too, so among all 9. The boundary
    # after (d, b): (b) is known and only ever ends. Then a; a after (boundary, a): never, of 3; boundary after (a, a)
    # is shortened to (a), where it is new as well.
    assert found["loss"] == pytest.approx([LN(4), LN(9 / 2), 0, 0, LN(4), LN(4)])
    assert found["rank"] == pytest.approx([1, math.log2(3), 0, 0, math.log2(3), math.log2(3)])
    assert found["boundary"] == pytest.approx([0, 1 / 3, 1, 0, 0, 0])
    nine = sum(-n / 9 * LN(n / 9) for n in (3, 2, 1, 3))
    h = LN(3) - 2 / 3 * LN(2)
    assert found["entropy"] == pytest.approx([0, nine, 0, 0, h, h])


def plain_ngram(
    train: list[list[Any]], test: list[list[Any]], k: int, boundary: Any = "boundary"
) -> dict[str, np.ndarray]:
    """Dictionaries of counts for every context length; `boundary` is the symbol that stands for one."""
    framed = lambda u: [boundary] * k + u + [boundary]
    counts: dict[tuple[Any, ...], Counter[Any]] = defaultdict(Counter)
    for s in map(framed, train):
        for t in range(k, len(s)):
            for length in range(k if train is test else 0, k + 1):  # shorter ones are for what is unknown
                counts[tuple(s[t - length : t])][s[t]] += 1
    totals = {context: n.total() for context, n in counts.items()}
    entropies = {
        context: -sum(c / totals[context] * LN(c / totals[context]) for c in n.values())
        for context, n in counts.items()
    }

    @cache
    def row(context: tuple[Any, ...], own: Any) -> tuple[float, ...]:
        n, total, times = counts[context], totals[context], counts[context].get(own, 0)
        loss = LN(total / times) if times else LN(total + 1)
        rank = math.log2(1 + sum(c > times for c in n.values()))
        return entropies[context], loss, rank, n.get(boundary, 0) / total

    rows = []
    for s in map(framed, test):
        for t in range(k, len(s)):
            known = next(c for m in range(k, -1, -1) if (c := tuple(s[t - m : t])) in counts)
            rows.append(row(known, s[t]))
    return dict(zip(("entropy", "loss", "rank", "boundary"), np.array(rows).T, strict=True))


@settings(max_examples=60, deadline=None)
@given(UTTERANCES, UTTERANCES, st.integers(0, 5), st.booleans())
def test_ngrams_equal_dictionaries(train: Any, test: Any, k: int, same: bool) -> None:
    one = Stream.of_words(train)
    other = one if same else Stream.of_words(test)
    found = cues(one, other, k)
    for name, expected in plain_ngram(texts(one), texts(other), k).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_equal_distributions_have_the_same_entropy_to_the_bit() -> None:
    """Else a peak could stand on rounding: counts 7, 5, 3 in three orders, and doubled."""
    train = stream(
        *["ap", "bq", "cr"] * 7, *["aq", "br", "cp"] * 5, *["ar", "bp", "cq"] * 3, *["dp"] * 14, *["dq"] * 10, *["dr"] * 6,
        *["ez"] * 49,
    )  # fmt: skip
    found = cues(train, stream("ap", "bp", "cp", "dp", "ez"), 1)["entropy"]
    assert len({float(v) for v in found[1:12:3]}) == 1 and found[1] > 1
    assert found[13] == 0  # one outcome alone is certain, exactly


def test_a_negative_context_is_refused() -> None:
    with pytest.raises(UserError, match="found -1 symbols"):
        cues(stream("ab"), stream("ab"), -1)


# --- DiBS -----------------------------------------------------------------------------------------------


def test_dibs_by_hand() -> None:
    """Pairs inside: ab 3, bc 1, ca 1, of which bc and ca have a cut: pwb 2/5. Utterances begin a 2/3, c 1/3 and end
    b 2/3, c 1/3; of the two types one begins a, one c, and one ends b, one c."""
    train, test = stream("ab c", "ab", "c ab"), stream("abcab", "ba")
    at = lambda kind, pwb=None: cut_probability(train, test, kind, pwb)[test.inside]
    phrasal = 2 / 3 * 0.4 * 1 / 3 / (1 / 5)
    assert at("phrasal") == pytest.approx([0, phrasal, phrasal, 0, 1])
    assert at("lexical") == pytest.approx([0, 0.5, 0.5, 0, 1])
    assert at("gold") == pytest.approx([0, 1, 1, 0, 1])
    assert at("phrasal", 0.0) == pytest.approx([0, 0, 0, 0, 1])
    assert at("phrasal", 1.0) == pytest.approx([0, 1, 1, 0, 1])  # 10/9 is no probability
    assert shown(test, dibs(train, test, "phrasal")) == ["abcab", "b a"]  # 4/9
    assert shown(test, dibs(train, test, "phrasal", 0.5)) == ["ab c ab", "b a"]  # 5/9
    assert shown(test, dibs(train, test, "gold")) == ["ab c ab", "b a"]


def test_an_even_chance_is_not_cut() -> None:
    data = stream("ab", "a b", "c d", "c d", "cd")
    assert shown(data, dibs(data, data, "gold")) == ["ab", "ab", "c d", "c d", "c d"]


def test_a_train_stream_without_pairs_cuts_every_pair() -> None:
    for kind in ("phrasal", "lexical", "gold"):
        assert shown(stream("aba"), dibs(stream("a", "b"), stream("aba"), kind)) == ["a b a"]


@pytest.mark.parametrize(("kind", "pwb"), [("phrasal", 1.2), ("lexical", -0.1), ("gold", 0.3)])
def test_a_pwb_without_use_is_refused(kind: Any, pwb: float) -> None:
    with pytest.raises(UserError, match=f"pwb of dibs: found {pwb}"):
        dibs(stream("ab"), stream("ab"), kind, pwb)


# --- PUDDLE ---------------------------------------------------------------------------------------------

HEARD = ["abc", "abcde", "abcab", "deabc"]


def test_puddle_by_hand() -> None:
    """abc is new. So is abcde, for no word begins with de. abcab: abc stands before ab, which begins words; the rest
    ab is new. deabc: words end in de; ab is a word, but c begins none; abc is one, and the utterance ends."""
    data = stream(*HEARD)
    assert shown(data, puddle(data, data)) == ["abc", "abcde", "abc ab", "de abc"]
    assert shown(data, puddle(data, data, legacy=True)) == ["abc", "abcde", "abc ab", "deabc"]
    shortest = stream("abab", "ab", "abab")  # of ab and abab, both known by then
    assert shown(shortest, puddle(shortest, shortest)) == ["abab", "ab", "ab ab"]
    later = stream("deabc", "abc")
    assert shown(later, puddle(stream(*HEARD[:3]), later)) == ["de abc", "abc"]
    assert shown(later, puddle(later, later)) == ["deabc", "abc"]


def plain_puddle(utterances: list[list[Any]], window: int, legacy: bool) -> list[list[list[Any]]]:
    """Recursion over tuples, as the paper tells it: words of every utterance."""
    words: set[tuple[Any, ...]] = set()

    def edge(word: tuple[Any, ...], which: slice, known: Any) -> bool:
        return any(len(w) >= max(2, window) and w[which] == word for w in known)

    def split(rest: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        for i in range(len(rest)):
            for j in range(i + 1, len(rest) + 1):
                left = i == 0 or (i >= window and edge(rest[i - window : i], slice(-window, None), words))
                right = edge(rest[j : j + window], slice(0, window), words) if j < len(rest) else not legacy
                if rest[i:j] in words and left and right:
                    found = [w for w in (rest[:i], rest[i:j]) if w]
                    words.update(found)
                    return found + (split(rest[j:]) if j < len(rest) else [])
        words.add(rest)
        return [rest]

    return [[list(w) for w in split(tuple(u))] for u in utterances]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=1),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_puddle_equals_the_recursion(utterances: Any, window: int, legacy: bool) -> None:
    data = Stream.of_words(utterances)
    expected = Stream.of_words(plain_puddle(texts(data), window, legacy))
    assert (puddle(data, data, window=window, legacy=legacy) == (expected.starts & data.inside)).all()


def test_each_fold_is_cut_after_the_others() -> None:
    """Seven utterances in three folds: two, two, three. Each is cut as if all others had been the train stream, in the
    order that ends just before it."""
    heard = [*HEARD, "cabde", "abde", "decab"]
    data = stream(*heard)
    found = shown(data, puddle(data, data, folds=3))
    for a, b in ((0, 2), (2, 4), (4, 7)):
        block = stream(*heard[a:b])
        assert found[a:b] == shown(block, puddle(stream(*heard[b:], *heard[:a]), block))
    assert found != shown(data, puddle(data, data))
    five = BASELINES["puddle_folds"](data, data, 0)
    assert (five == puddle(data, data, folds=5)).all() and (five != BASELINES["puddle"](data, data, 0)).any()


@pytest.mark.parametrize(("options", "message"), [({"window": 0}, "window"), ({"folds": 0}, "folds"), ({"folds": 3}, "in 3 folds: there are 2 utterances")])  # fmt: skip
def test_puddle_refuses(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        puddle(stream("ab", "c"), stream("ab", "c"), **options)


# --- all of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_sees_neither_names_of_symbols_nor_gold_of_the_test(name: str) -> None:
    rows = ["ab cde fa", "cde ab", "a fa ba cde", "ab", "cdefa b", "fa ab cde d", "g cde"]
    train, test = stream(*rows[:5]), stream(*rows[1:])
    cuts = BASELINES[name](train, test, 3)
    assert cuts.dtype == bool and cuts.shape == (len(test),) and not (cuts & ~test.inside).any()
    blank = Stream(test.symbols, test.first)
    if not name.endswith("_threshold"):  # a threshold is chosen on the gold boundaries of the other half
        assert (BASELINES[name](train, blank, 3) == cuts).all()
    renamed = [Stream(np.where(s.ends, -1, 1000 - 7 * s.symbols), s.starts) for s in (train, test)]
    assert (BASELINES[name](*renamed, 3) == cuts).all()
    assert name == "utterance" or any(BASELINES[name](train, test, key).any() for key in range(5))


def test_values_that_equal_the_mean_but_for_rounding_are_cut() -> None:
    """1010 and 1110: pairs have 1, 2/3, 1/3, 1/2, ...; sums of such shares in floating point miss their mean."""
    data = stream("1010", "1110", "1")
    for measure in ("ftp", "btp"):
        plain = plain_transitional(data, measure, "absolute", False)
        assert (transitional(data, data, measure, "absolute") == plain).all()


@settings(max_examples=200)
@given(utterances=st.lists(st.text("01", min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_absolute_rule_equals_exact_fractions(utterances: list[str]) -> None:
    data = stream(*utterances)
    for measure in ("ftp", "btp"):
        plain = plain_transitional(data, measure, "absolute", False)
        assert (transitional(data, data, measure, "absolute") == plain).all()  # type: ignore[arg-type]


@settings(max_examples=150)
@given(heard=UTTERANCES, utterances=UTTERANCES, folds=st.integers(2, 3))
def test_the_train_stream_is_heard_before_the_other_folds(heard: Any, utterances: Any, folds: int) -> None:
    if len(utterances) < folds or heard == utterances:
        return
    found = puddle(Stream.of_words(heard), Stream.of_words(utterances), folds=folds)
    size = len(utterances) // folds
    edges = [*range(0, size * folds, size), len(utterances)]
    parts = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        before = Stream.of_words([*heard, *utterances[b:], *utterances[:a]])
        parts.append(puddle(before, Stream.of_words(utterances[a:b])))
    assert (found == np.concatenate(parts)).all()
