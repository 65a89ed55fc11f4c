"""Symbols of speech and writing as tokens: phonemes between spaces, or characters; with the marks of word segmentation.

Ids as in the study of Goriely and Buttery: `UNK` 0, `PAD` 1, `WORD_BOUNDARY` 2, `UTT_BOUNDARY` 3, then the symbols in
the order of their first appearance. `UTT_BOUNDARY` is bos and eos: it stands before, between and behind utterances. The
word boundary is an id of every vocabulary, whether or not the corpus keeps word boundaries in its text (`boundaries:
token` of corpus `utterances`), so that arms with and without have equally many parameters. In `unit: character` a
space is the word boundary.

With `min_count` 0, the default, the vocabulary holds every symbol of every split, and any other is an error. Otherwise
it holds those that occur more than `min_count` times in train; the rest becomes `UNK`, counted in `training.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.files import Damaged, dumps, read_json
from lexarium.foundation.types import Corpus, Document, UserError
from lexarium.tokens.tokenizers import FILE, Vocabulary

UNK, PAD, WORD, UTTERANCE = "UNK", "PAD", "WORD_BOUNDARY", "UTT_BOUNDARY"
SPECIALS = (UNK, PAD, WORD, UTTERANCE)
WORD_START = "word_start"
"""The channel that says where words begin."""
MARKS = (UNK, PAD, UTTERANCE)
"""Names that no text may hold."""


class SymbolTokenizer(Vocabulary):
    """One id for every phoneme or character, and marks for unknown symbols and for ends of words and utterances."""

    kind, name, version = "tokenizer", "symbol", 1
    special_tokens = {"bos_token": UTTERANCE, "eos_token": UTTERANCE, "pad_token": PAD, "unk_token": UNK}

    class Config(ComponentConfig):
        """Options of `symbol`."""

        type: str = "symbol"
        unit: Literal["symbol", "character"] = "symbol"
        """What is one token: what stands between spaces, or a character (Unicode code point)."""
        min_count: int = Field(0, ge=0)
        """Keep symbols that occur more often than this in train; 0 = all symbols of all splits."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.joiner = " " if config.unit == "symbol" else ""
        self._record: dict[str, Any] | None = None

    def split(self, text: str) -> Iterator[tuple[str, int]]:
        """Symbols with the index of their first character."""
        if self.config.unit == "symbol":
            return ((match.group(), match.start()) for match in re.finditer(r"\S+", text))
        return ((WORD if c == " " else c, i) for i, c in enumerate(text))

    def train(self, corpus: Corpus) -> None:
        """Count the symbols of a corpus."""
        counts: dict[str, int] = {}
        splits = ("train",) if self.config.min_count else corpus.splits
        for symbol in corpus.symbols():
            counts.setdefault(symbol, 0)
        for split in splits:
            for number, document in enumerate(corpus.documents(split)):
                if problem := self._misread(document):
                    raise UserError(f"document {number} of split {split!r}: {problem}")
                for symbol, _ in self.split(document.text):
                    if symbol in MARKS:
                        raise UserError(
                            f"document {number} of split {split!r}: holds {symbol!r}, which is a mark of the"
                            " vocabulary; write it otherwise"
                        )
                    counts[symbol] = counts.get(symbol, 0) + 1
        counts.pop(WORD, None)
        kept = [s for s, n in counts.items() if n > self.config.min_count or not self.config.min_count]
        left = {s: n for s, n in counts.items() if s not in set(kept)}
        if not kept:
            raise UserError(
                f"tokenizer.min_count is {self.config.min_count}, and no symbol of train occurs more often"
                f" (the most frequent {max(counts.values(), default=0):,} times); lower it"
            )
        self._record = {"min_count": self.config.min_count, "unknown": left}
        self._set([*SPECIALS, *kept])

    def _misread(self, document: Document) -> str:
        """Why `unit` is not that of a text, where the text says where its words begin."""
        starts = document.channels.get(WORD_START)
        if starts is None:
            return ""
        pieces = list(self.split(document.text))
        if self.config.unit == "symbol":
            for symbol, place in pieces:
                if any(starts[place + 1 : place + len(symbol)]):
                    return (
                        f"a word begins inside {symbol!r}: its symbols are not separated by spaces; say"
                        " tokenizer.unit: character"
                    )
        elif any(symbol == WORD and not any(starts[place + 1 : place + 2]) for symbol, place in pieces):
            return (
                "spaces separate symbols here, and unit: character takes a space for a word boundary; say"
                " tokenizer.unit: symbol"
            )
        return ""

    def files(self) -> dict[str, str]:
        """Which symbols became unknown, and how often they occur in train."""
        return {} if not self._record or not self.config.min_count else {"training.json": dumps(self._record)}

    @property
    def roles(self) -> dict[str, int]:
        """Special tokens among the ids."""
        return {"unk": 0, "pad": 1, "word": 2, "bos": 3, "eos": 3}

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (L,) int64 and the first character of each (L,) int64; a symbol outside the vocabulary is `UNK`, or, with
        min_count 0, a UserError, as the name of a mark is: `UNK` alone may stand for an unknown symbol, where there are
        some, and `WORD_BOUNDARY` for itself."""
        pieces = list(self.split(text))
        marks = (PAD, UTTERANCE) if self.config.min_count else MARKS
        if found := next((symbol for symbol, _ in pieces if symbol in marks), None):
            raise UserError(f"{found!r} is a mark of the vocabulary and no symbol; write it otherwise")
        if not self.config.min_count:
            return super().encode(text)
        ids = [self._ids.get(symbol, 0) for symbol, _ in pieces]
        return np.array(ids, dtype=np.int64), np.array([start for _, start in pieces], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; utterance boundaries and padding are left out, an unknown symbol is `UNK`."""
        shown = [
            " " if i == 2 and not self.joiner else self.symbols[i] for i in map(int, ids) if self._shown(i)
        ]
        return self.joiner.join(shown)

    def _shown(self, i: int) -> bool:
        return 0 <= i < len(self.symbols) and i not in (1, 3)

    def byte_lengths(self) -> np.ndarray | None:
        """Not known: a phoneme is no bytes of a text."""
        return None

    def dump(self) -> str:
        """Contents of `tokenizer.json`, readable by `tokenizers` and transformers."""
        character = self.config.unit == "character"
        pattern = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        vocabulary = {(" " if character and s == WORD else s): i for s, i in self._ids.items()}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [
                    {"id": i, "content": content, **flags, "special": True}
                    for i, content in ((0, UNK), (1, PAD), (3, UTTERANCE))
                ],
                "normalizer": None,
                "pre_tokenizer": pattern if character else {"type": "WhitespaceSplit"},
                "post_processor": None,
                "decoder": {"type": "Fuse"} if character else None,
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNK},
            }
        )

    def load(self, folder: Path) -> None:
        """Read what `dump` wrote to `folder/tokenizer.json`."""
        data = read_json(folder / FILE)
        try:
            vocabulary = data["model"]["vocab"]
            symbols = sorted(vocabulary, key=vocabulary.__getitem__)
        except (KeyError, TypeError):
            symbols = []
        if (*symbols[:2], *symbols[3:4]) != (UNK, PAD, UTTERANCE):
            raise Damaged(f"{folder / FILE}: not a vocabulary of symbols")
        self._set([*SPECIALS, *symbols[4:]])
