"""How well a stream was cut: boundaries, word tokens, word types, kinds of errors.

The measures of the `wordseg` package (Bernard et al. 2020), summed over utterances, with two deviations: positions
count symbols, not characters (an IPA symbol has several), and a word type is a tuple of symbols ("t" + "ʃ" is not
"tʃ").

    boundary        cuts inside utterances; the headline ("no edges")
    boundary_all    the same with the start and the end of each utterance, which are always right
    token           words whose two edges are right, with none between
    type            distinct words of the prediction against distinct words of the gold stream; depends on how many
                    utterances are scored, so it is never compared across sizes
    over, under     share of inside positions without a word boundary that were cut, and with one that were not
                    (Coltekin and Nerbonne 2014)
    exact           share of utterances with no mistake
    errors          utterances chopped where prediction and gold agree: chunks of one word in both (correct), of one
                    predicted and several gold words (under), of several and one (over), of several and several (mis)
    rand            adjusted Rand index (Hubert and Arabie 1985) of symbols in words: 1 = the gold words, 0 = as chance

Precision, recall and F are 0 where they have no denominator; the counts beside them (`predicted`, `gold`, `hits`)
tell. Cost: a few passes over the stream; types need one string per word.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lexarium.evaluations.segmentation.stream import Stream


def score(stream: Stream, cuts: np.ndarray) -> dict[str, float]:
    """Every measure of (M,) bool `cuts`; what stands outside `stream.inside` is not looked at."""
    gold, cut = stream.starts & stream.inside, cuts & stream.inside
    hits, predicted, wanted = int((gold & cut).sum()), int(cut.sum()), int(gold.sum())
    edges = 2 * stream.n_utterances
    starts = cut | stream.first
    words = stream.words(starts)
    found = {
        **_named("boundary", hits, predicted, wanted),
        **_named("boundary_all", hits + edges, predicted + edges, wanted + edges),
        **_named("token", *_words(stream, words)),
        **_named("type", *_types(stream, starts)),
        "over": _share(predicted - hits, int(stream.inside.sum()) - wanted),
        "under": _share(wanted - hits, wanted),
        **_errors(stream, cut, gold),
        "rand": _adjusted_rand(stream, starts),
    }
    wrong = np.bincount(stream.utterance[cut != gold], minlength=stream.n_utterances)
    found["exact"] = float((wrong == 0).mean())
    found["utterances"] = stream.n_utterances
    return found


def f_of(stream: Stream, cuts: np.ndarray, aim: Literal["boundary", "type"]) -> float:
    """One F of `score`, without the rest."""
    cut = cuts & stream.inside
    if aim == "type":
        return f_score(*_types(stream, cut | stream.first))
    gold = stream.starts & stream.inside
    return f_score(int((gold & cut).sum()), int(cut.sum()), int(gold.sum()))


def f_score(hits: float, predicted: float, wanted: float) -> float:
    """2 hits / (predicted + wanted); 0 where both are 0."""
    return _share(2 * hits, predicted + wanted)


def _words(stream: Stream, predicted: tuple[np.ndarray, np.ndarray]) -> tuple[int, int, int]:
    """How many words are in both, predicted and gold."""
    a, b = (first * len(stream) + behind for first, behind in (predicted, stream.gold_words))
    return len(np.intersect1d(a, b, assume_unique=True)), len(a), len(b)


def _types(stream: Stream, starts: np.ndarray) -> tuple[int, int, int]:
    one, other = stream.types(starts), stream.gold_types
    return len(one & other), len(one), len(other)


def _errors(stream: Stream, cut: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Numbers of chunks between shared boundaries, by kind."""
    chunk = np.cumsum((cut & gold) | stream.first) - 1
    n = int(chunk[-1]) + 1
    inner = stream.inside & ~(cut & gold)  # cuts here are of one side only
    several, of_several = (np.bincount(chunk[inner & c], minlength=n) > 0 for c in (cut, gold))
    kinds = {
        "correct": ~several & ~of_several,
        "under": ~several & of_several,
        "over": several & ~of_several,
        "mis": several & of_several,
    }
    return {f"errors.{name}": int(which.sum()) for name, which in kinds.items()}


def _adjusted_rand(stream: Stream, starts: np.ndarray) -> float:
    """Of symbols in predicted and in gold words, from pairs of symbols that stand in one word. Two equal partitions
    with no such pair, or with nothing but such pairs, have 1."""
    predicted, gold = _pairs(*stream.words(starts)), _pairs(*stream.gold_words)
    both = _pairs(*stream.words(starts | stream.starts))  # in one word of each: in one piece of all cuts
    n = int((~stream.ends).sum())
    expected = predicted * gold / max(1, n * (n - 1) // 2)
    most = (predicted + gold) / 2
    return (both - expected) / (most - expected) if most != expected else 1.0


def _pairs(first: np.ndarray, behind: np.ndarray) -> float:
    """Pairs of symbols in one of the words that begin and end there."""
    n = behind - first
    return float((n * (n - 1) // 2).sum())


def _named(name: str, hits: int, predicted: int, wanted: int) -> dict[str, float]:
    return {
        f"{name}.precision": _share(hits, predicted),
        f"{name}.recall": _share(hits, wanted),
        f"{name}.f": f_score(hits, predicted, wanted),
        f"{name}.hits": hits,
        f"{name}.predicted": predicted,
        f"{name}.gold": wanted,
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
