"""PUDDLE (Monaghan and Christiansen 2010): a lexicon that grows utterance by utterance, from nothing.

An utterance is searched, from its left, for the first stretch that is in the lexicon and fits between its neighbours:
what precedes it is nothing, or ends as a known word ends; what follows is nothing, or begins as a known word begins.
Among stretches with one beginning the shortest comes first. A word's ending and beginning are its last and first
`window` symbols; a shorter word has none, and one of a single symbol never. What stands before the stretch goes into
the lexicon as a word, and what stands behind it is searched in the same way, as an utterance of its own. Where nothing
is found the rest goes in, whole.

Learning never stops, so the first utterances are cut with a poor lexicon. `folds` blocks of the test stream therefore
take turns in being last: each is cut after the others, and after the train stream. A train stream equal to the test
stream is not read before it: one pass over the corpus, the tradition.

The package wordseg never finds a word at the end of an utterance, for there it looks for a known beginning in nothing:
`legacy` does the same. On the Brent corpus, one pass, boundary F is then 80.6 for 82.8.

Cost: time grows with the square of an utterance's length; about 0.15 s for one pass over 9,790 utterances.
It refuses a window below 1 and more folds than utterances.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lexarium.evaluations.baselines.counts import texts
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError


class Lexicon:
    """Words heard so far, their beginnings and their endings; symbols are characters."""

    def __init__(self, window: int = 2, legacy: bool = False) -> None:
        self.words: set[str] = set()
        self.beginnings: set[str] = set()
        self.endings: set[str] = set()
        self.window, self.legacy = window, legacy

    def add(self, word: str) -> None:
        """One more word."""
        self.words.add(word)
        # wordseg keeps no edge of a word of one symbol, whatever the window
        if len(word) >= max(2, self.window):
            self.beginnings.add(word[: self.window])
            self.endings.add(word[-self.window :])

    def find(self, text: str) -> tuple[int, int] | None:
        """Where the first word that fits begins and ends in `text`."""
        for i in range(len(text)):
            if i and text[max(0, i - self.window) : i] not in self.endings:
                continue
            for j in range(i + 1, len(text) + 1):
                if text[i:j] in self.words and self._goes_on(text, j):
                    return i, j
        return None

    def _goes_on(self, text: str, j: int) -> bool:
        """Whether the text ends before `j`, or goes on from there as a known word begins."""
        return text[j : j + self.window] in self.beginnings or (j == len(text) and not self.legacy)

    def read(self, utterance: str) -> list[int]:
        """Cut an utterance and learn from it: where words begin inside it."""
        cuts, offset, rest = [], 0, utterance
        while rest:
            found = self.find(rest)
            if found is None:
                self.add(rest)
                break
            begin, end = found
            if begin:
                self.add(rest[:begin])
                cuts.append(offset + begin)
            offset, rest = offset + end, rest[end:]
            if rest:
                cuts.append(offset)
        return cuts


def puddle(
    train: Stream, test: Stream, *, window: int = 2, folds: int = 1, legacy: bool = False
) -> np.ndarray:
    """(M,) bool: cuts of `test`, after `train` was read, unless the two are the same symbols.

    folds: 1 is one pass; with more, `test` is cut in that many blocks of equally many utterances (the last takes what
    is left over) and read in as many orders, each a rotation that ends in another block, whose cuts are taken.
    Raises UserError for a window below 1 and for fewer utterances than folds.
    """
    if window < 1:
        raise UserError(f"window of puddle: found {window}, expected 1 or more symbols")
    if not 1 <= folds <= test.n_utterances:
        raise UserError(
            f"baseline puddle in {folds} folds: there are {test.n_utterances} utterances, one at least for each fold is"
            " needed; name `baselines` without it"
        )
    heard = [] if np.array_equal(train.symbols, test.symbols) else texts(train)
    utterances, first = texts(test), np.flatnonzero(test.first)
    edges = [i * (len(utterances) // folds) for i in range(folds)] + [len(utterances)]
    cuts = np.zeros(len(test), dtype=bool)
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        lexicon = Lexicon(window, legacy)
        _read_all(lexicon, heard)
        _read_all(lexicon, utterances[end:])
        _read_all(lexicon, utterances[:begin])
        for i in range(begin, end):
            cuts[first[i] + np.array(lexicon.read(utterances[i]), dtype=np.int64)] = True
    return cuts


def _read_all(lexicon: Lexicon, heard: Iterable[str]) -> None:
    for text in heard:
        lexicon.read(text)
