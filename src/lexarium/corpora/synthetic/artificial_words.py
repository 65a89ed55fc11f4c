"""Utterances of made-up words: a language whose word boundaries are known and can be learned from its statistics.

A lexicon of different words is drawn once: 1 to `syllables` syllables, each a consonant, a vowel and, with
probability `codas`, a final consonant; one letter is one symbol. Words follow each other independently, word r with a
probability proportional to 1 / (r + 2.7) (Zipf and Mandelbrot); the number of words of an utterance is 1 plus a
Poisson number. Within a word the next symbol is nearly determined, across a boundary it is not: what infants are
thought to use (Saffran, Aslin and Newport 1996), and what a model's uncertainty shows.

Two controls draw every symbol anew: `uniform`, all symbols equally likely, and `unigram`, as frequent as in the
language. Boundaries stay where they were, so that word lengths still say a little (no word has one symbol), or are
drawn too (`control_boundaries: draw`), at the language's rate and anywhere inside utterances: then nothing at all says
where words begin, and the expected precision of every segmenter is that rate.

Documents carry what those of corpus `utterances` carry: the channel `word_start` and the field `words`. Cost: 10
microseconds per utterance. Refused: more words than syllables can make.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.corpora.synthetic.sentences import SplitSizes
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document, UserError

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
BLOCK = 4096
"""Utterances drawn together."""


class ArtificialWords:
    """Utterances of made-up words with known boundaries."""

    kind, name, version = "corpus", "artificial_words", 1
    repeats = True

    class Config(ComponentConfig):
        """Options of `artificial_words`."""

        type: str = "artificial_words"
        n_words: int = Field(200, ge=2, le=20_000)
        """Different words."""
        syllables: int = Field(3, ge=1, le=5)
        """Syllables of a word, at most; all numbers are equally likely."""
        codas: float = Field(0.2, ge=0, le=1)
        """Share of syllables that end in a consonant."""
        mean_words: float = Field(3.4, ge=1, le=100)
        """Words of an utterance, on average."""
        control: Literal["none", "uniform", "unigram"] = "none"
        """Draw every symbol anew."""
        control_boundaries: Literal["keep", "draw"] = "keep"
        """Word boundaries of a control: where they were, or drawn."""
        sizes: SplitSizes = SplitSizes(train=10_000, val=1_000)
        """Utterances of each split."""
        seed: int = 0
        """Seed of the lexicon and of the utterances; the run's seeds do not touch it."""

        @model_validator(mode="after")
        def _enough(self) -> ArtificialWords.Config:
            syllable = len(CONSONANTS) * len(VOWELS) * (1 + len(CONSONANTS) * (self.codas > 0))
            if self.n_words * 4 > syllable**self.syllables:
                raise ValueError(
                    f"n_words {self.n_words:,} are too many for words of at most {self.syllables} syllables; raise"
                    " syllables or codas"
                )
            if self.control == "none" and self.control_boundaries == "draw":
                raise ValueError("control_boundaries belongs to a control; say control: unigram, or uniform")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def lexicon(self) -> tuple[str, ...]:
        """The words, most frequent first."""
        c, draw = self.config, rng.generator(self.config.seed, self.name, "lexicon")
        found: dict[str, None] = {}
        while len(found) < c.n_words:
            word = ""
            for _ in range(int(draw.integers(1, c.syllables + 1))):
                word += CONSONANTS[draw.integers(len(CONSONANTS))] + VOWELS[draw.integers(len(VOWELS))]
                if draw.random() < c.codas:
                    word += CONSONANTS[draw.integers(len(CONSONANTS))]
            found.setdefault(word)
        return tuple(found)

    @cached_property
    def _shares(self) -> np.ndarray:
        """(n_words,) probability of every word."""
        weights = 1 / (np.arange(self.config.n_words) + 1 + 2.7)
        return np.asarray(weights / weights.sum())

    @cached_property
    def _symbols(self) -> tuple[np.ndarray, np.ndarray]:
        """The symbols that occur, and what the control draws them with."""
        counts: dict[str, float] = {}
        for word, share in zip(self.lexicon, self._shares.tolist(), strict=True):
            for symbol in word:
                counts[symbol] = counts.get(symbol, 0.0) + share
        symbols = sorted(counts)
        shares = np.array([counts[s] if self.config.control == "unigram" else 1.0 for s in symbols])
        return np.array(symbols), shares / shares.sum()

    @property
    def _rate(self) -> float:
        """Word boundaries for each place inside an utterance, expected."""
        n, length = self.config.mean_words, float(np.dot(self._shares, [len(word) for word in self.lexicon]))
        return (n - 1) / (n * length - 1)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are not empty."""
        return tuple(self.config.sizes.as_dict())

    def documents(self, split: str) -> Iterator[Document]:
        """The utterances of a split, always in the same order."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        n = self.config.sizes.as_dict()[split]
        for block in range(-(-n // BLOCK)):
            yield from self._block(split, block, min(BLOCK, n - block * BLOCK))

    def _block(self, split: str, block: int, n: int) -> Iterator[Document]:
        c, draw = self.config, rng.generator(self.config.seed, self.name, split, block)
        lengths = 1 + draw.poisson(c.mean_words - 1, BLOCK)
        chosen = draw.choice(c.n_words, int(lengths.sum()), p=self._shares)
        symbols, shares = self._symbols
        place = 0
        for length in lengths[:n].tolist():
            words = [self.lexicon[i] for i in chosen[place : place + length].tolist()]
            place += length
            starts = [int(k == 0) for word in words for k in range(len(word))]
            text = "".join(words)
            if c.control != "none":
                text = "".join(draw.choice(symbols, len(text), p=shares))
            if c.control_boundaries == "draw":
                starts = [1, *(draw.random(len(text) - 1) < self._rate).astype(int).tolist()]
            yield Document(text, {"words": sum(starts)}, {"word_start": starts})

    def symbols(self) -> list[str]:
        """Every symbol there is, whether or not a document holds it."""
        return list(map(str, self._symbols[0]))

    def fingerprint(self) -> str:
        """ "": the config determines every document."""
        return ""
