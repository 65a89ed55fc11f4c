"""Made-up words: every utterance is words of the lexicon; controls keep lengths, and boundaries if told to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from lexarium.corpora.synthetic.artificial_words import CONSONANTS, VOWELS, ArtificialWords
from lexarium.foundation.config import ConfigError, Source, validate


def corpus(**options: Any) -> ArtificialWords:
    return ArtificialWords(validate(ArtificialWords.Config, Source({"type": "artificial_words", **options})))


def words(document: Any) -> list[str]:
    starts = [i for i, v in enumerate(document.channels["word_start"]) if v]
    return [document.text[a:b] for a, b in zip(starts, [*starts[1:], len(document.text)], strict=True)]


def test_utterances_are_words_of_the_lexicon() -> None:
    made = corpus(sizes={"train": 5000, "val": 300})
    found = list(made.documents("train"))
    assert len(found) == 5000 and len(set(made.lexicon)) == 200 == len(made.lexicon)
    spoken = Counter(w for d in found for w in words(d))
    assert set(spoken) <= set(made.lexicon)
    assert all(len(words(d)) == d.fields["words"] for d in found)
    total = sum(spoken.values())
    assert total / 5000 == pytest.approx(3.4, rel=0.03)
    shares = 1 / (np.arange(200) + 3.7)
    shares /= shares.sum()
    for rank in (0, 1, 5, 40):  # within four standard deviations
        expected = total * shares[rank]
        assert abs(spoken[made.lexicon[rank]] - expected) < 4 * expected**0.5
    assert {d.text for d in made.documents("val")} != {d.text for d in found[:300]}
    for word in made.lexicon:
        assert word[0] in CONSONANTS and 1 <= sum(c in VOWELS for c in word) <= 3


def test_the_same_config_gives_the_same_utterances_and_a_smaller_split_its_beginning() -> None:
    one, other = (corpus(sizes={"train": n, "val": 50}) for n in (5000, 4500))
    assert list(one.documents("train"))[:4500] == list(other.documents("train"))
    assert list(corpus(seed=1).documents("val"))[:50] != list(one.documents("val"))


@pytest.mark.parametrize("control", ["uniform", "unigram"])
def test_controls_keep_boundaries_and_draw_symbols_anew(control: str) -> None:
    options = {"sizes": {"train": 3000, "val": 10}}
    real, drawn = corpus(**options), corpus(**options, control=control)
    pairs = list(zip(real.documents("train"), drawn.documents("train"), strict=True))
    assert all(a.channels == b.channels and a.fields == b.fields for a, b in pairs)
    assert not {w for _, d in pairs for w in words(d)} <= set(real.lexicon)
    counts = Counter("".join(d.text for _, d in pairs))
    before = Counter("".join(d.text for d, _ in pairs))
    n = sum(counts.values())
    for symbol, k in counts.items():
        expected = before[symbol] if control == "unigram" else n / len(real.symbols())
        assert abs(k - expected) < 6 * expected**0.5


def test_a_control_may_draw_its_boundaries_too() -> None:
    """At the language's rate, and after the first symbol as often as elsewhere: where no word of the language ends."""
    options = {"sizes": {"train": 3000, "val": 10}, "control": "unigram"}
    real = list(corpus(**{**options, "control": "none"}).documents("train"))
    drawn = list(corpus(**options, control_boundaries="draw").documents("train"))
    assert [len(d.text) for d in drawn] == [len(d.text) for d in real]
    assert all(
        d.fields["words"] == sum(d.channels["word_start"]) and d.channels["word_start"][0] for d in drawn
    )
    rate = lambda documents: (
        sum(d.fields["words"] - 1 for d in documents) / sum(len(d.text) - 1 for d in documents)
    )
    places = sum(len(d.text) - 1 for d in drawn)
    assert rate(drawn) == pytest.approx(rate(real), abs=4 * (0.2 / places) ** 0.5)
    second = np.array([d.channels["word_start"][1] for d in drawn])
    assert second.mean() == pytest.approx(rate(real), abs=4 * (0.2 / 3000) ** 0.5)
    assert not any(d.channels["word_start"][1] for d in real)
    with pytest.raises(ConfigError, match="control_boundaries belongs to a control"):
        corpus(control_boundaries="draw")


def test_more_words_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_words 19,000 are too many for words of at most 1 syllables"):
        corpus(n_words=19_000, syllables=1, codas=0)
