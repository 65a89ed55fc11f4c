"""Text to ids and back: what every tokenizer offers, and closed vocabularies of words and characters.

A tokenizer has `vocab_size`, `roles` (special tokens among its ids; `pad` is always there), `encode(text)`: ids and the
first character of each, `encode_ids(text)`: the same ids, faster, `decode(ids)`, `id(symbol)`, `joiner` (what stands
between tokens), `byte_lengths()`: bytes of text that each id stands for, `fingerprint()`. `train(corpus)` makes it,
`dump()` is its file in the format of `tokenizers`, `files()` what it keeps beside that, `load(folder)` reads it.
Tokenizers of pieces of words and of bytes, and those made elsewhere, are in `subword/`.

`word` splits at white space, `character` at every character. A vocabulary is `<pad>` (id 0) followed by
the distinct symbols of ALL splits of the corpus, before any filter, in code-point order, together with
the symbols the corpus declares (`symbols()`). It has no unknown token: a symbol outside it is an error
that names it, because silently mapped words spoil controlled experiments.

Special tokens (`bos`, `eos`, `mask`, ...) are not part of the vocabulary. An objective asks for the
roles it needs and `assign_roles` appends those the tokenizer lacks AFTER the base ids, so they never
change a store's identity.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.files import Damaged, dumps, read_json, sha256_json, write_atomic
from lexarium.foundation.types import Corpus, UserError

PAD = "<pad>"
FILE = "tokenizer.json"


CONFIG_FILE = "tokenizer_config.json"
FILES = (FILE, CONFIG_FILE, "tokenizer.model", "training.json")
"""Everything a tokenizer may keep in a folder."""


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files, the one that says it is there last; transformers loads the folder too."""
    special = getattr(tokenizer, "special_tokens", {"pad_token": PAD})
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    for name, content in {CONFIG_FILE: dumps(config), **getattr(tokenizer, "files", dict)()}.items():
        write_atomic(folder / name, content)
    write_atomic(folder / FILE, tokenizer.dump())


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer's files, the one that says it is there last."""
    for name in reversed(FILES):
        if (source / name).exists():
            write_atomic(target / name, (source / name).read_bytes())


def first_characters(text: str, lengths: np.ndarray) -> np.ndarray:
    """(L,) int64: the character in which each token begins, (L,) being the bytes of each; together the text."""
    starts = np.cumsum(lengths) - lengths
    if text.isascii():
        return starts
    data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    return (np.cumsum((data & 0xC0) != 0x80) - 1)[starts]


@dataclass(frozen=True)
class Roles:
    """Ids of the special tokens of one run: `ids["bos"]`, and the size of the whole vocabulary."""

    ids: dict[str, int]
    vocab_size: int

    def __getitem__(self, role: str) -> int:
        return self.ids[role]

    def extended(self, wanted: Sequence[str]) -> Roles:
        """With new ids, after all others, for the wanted roles that have none."""
        new = [role for role in dict.fromkeys(wanted) if role not in self.ids]
        size = self.vocab_size
        return Roles({**self.ids, **{role: size + i for i, role in enumerate(new)}}, size + len(new))


def assign_roles(tokenizer: Any, wanted: Sequence[str]) -> Roles:
    """Ids for the wanted roles: the tokenizer's own where it has one, else new ids after the base."""
    return Roles(dict(tokenizer.roles), tokenizer.vocab_size).extended(wanted)


class Vocabulary:
    """A closed list of symbols: what the word and character tokenizers share."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config
        self.symbols: list[str] = []
        self._ids: dict[str, int] = {}

    # -- what a subclass says ------------------------------------------------------------------------

    def split(self, text: str) -> Iterator[tuple[str, int]]:
        """Symbols of a text with the index of their first character."""
        raise NotImplementedError

    joiner = ""

    # -- training, saving ----------------------------------------------------------------------------

    def train(self, corpus: Corpus) -> None:
        """Build the vocabulary from every split of a corpus.

        Raises UserError, naming the document, for text that cannot be saved or that would be padding.
        """
        found: set[str] = set()
        for symbol in corpus.symbols():
            found.add(_usable(symbol, "symbols of the corpus"))
        for name in corpus.splits:
            for number, document in enumerate(corpus.documents(name)):
                for symbol in {s for s, _ in self.split(document.text)} - found:
                    found.add(_usable(symbol, f"document {number} of split {name!r}"))
        self._set([PAD, *sorted(found)])

    def _set(self, symbols: Iterable[str]) -> None:
        self.symbols = list(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def vocab_size(self) -> int:
        """Number of base ids, padding included."""
        return len(self.symbols)

    @property
    def roles(self) -> dict[str, int]:
        """Special tokens among the base ids."""
        return {"pad": 0}

    def fingerprint(self) -> str:
        """Hash of the vocabulary's content."""
        return sha256_json([self.config.type, self.symbols])

    def dump(self) -> str:
        """Contents of `tokenizer.json`, readable by `tokenizers` and transformers."""
        pattern = {"Regex": r"[\s\S]"} if self.joiner == "" else None  # a dot would not match line breaks
        pre = (
            {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
            if pattern
            else {"type": "WhitespaceSplit"}
        )
        special = {
            "id": 0,
            "content": PAD,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        return dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [special],
                "normalizer": None,
                "pre_tokenizer": pre,
                "post_processor": None,
                "decoder": None if self.joiner else {"type": "Fuse"},
                "model": {"type": "WordLevel", "vocab": self._ids, "unk_token": PAD},
            }
        )

    def load(self, folder: Path) -> None:
        """Read the vocabulary that `dump` wrote to `folder/tokenizer.json`."""
        data = read_json(folder / FILE)
        try:
            vocabulary = data["model"]["vocab"]
            symbols = sorted(vocabulary, key=vocabulary.__getitem__)
        except (KeyError, TypeError):
            raise Damaged(f"{folder / FILE}: not a vocabulary file") from None
        self._set(symbols)

    # -- use -----------------------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (L,) int64 and the index of each token's first character (L,) int64.

        Raises UserError for a symbol outside the vocabulary.
        """
        pieces = list(self.split(text))
        try:
            ids = [self._ids[symbol] for symbol, _ in pieces]
        except KeyError as error:
            raise UserError(self._unknown(str(error.args[0]), text)) from None
        return np.array(ids, dtype=np.int64), np.array([start for _, start in pieces], dtype=np.int64)

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64."""
        return self.encode(text)[0]

    def byte_lengths(self) -> np.ndarray | None:
        """(vocab_size,) int64: bytes of text behind each id, the joiner before it included; 0 for padding."""
        found = [len(symbol.encode("utf-8")) + len(self.joiner) for symbol in self.symbols]
        return np.array([0, *found[1:]], dtype=np.int64)

    def _unknown(self, symbol: str, text: str) -> str:
        near = difflib.get_close_matches(symbol, self.symbols, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{symbol!r} is not in the vocabulary of {self.vocab_size} symbols{hint} (in: {text[:80]!r})"

    def id(self, symbol: str) -> int:
        """The id of one symbol."""
        if symbol not in self._ids:
            raise UserError(self._unknown(symbol, symbol))
        return self._ids[symbol]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens outside the base vocabulary and padding are left out."""
        return self.joiner.join(self.symbols[i] for i in map(int, ids) if 0 < i < len(self.symbols))


def _usable(symbol: str, where: str) -> str:
    if symbol == PAD:
        raise UserError(f"{where}: holds the word {PAD!r}, which stands for padding; write it otherwise")
    if "\0" in symbol:
        raise UserError(f"{where}: holds a NUL character (in {symbol[:40]!r}); is the file text?")
    try:
        symbol.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: not valid Unicode (in {symbol[:40]!r}); save the text as UTF-8") from None
    return symbol


class WordTokenizer(Vocabulary):
    """One id for every distinct white-space separated word."""

    kind, name, version = "tokenizer", "word", 1
    joiner = " "

    class Config(ComponentConfig):
        """No options: the vocabulary is the corpus's own."""

        type: str = "word"

    def split(self, text: str) -> Iterator[tuple[str, int]]:
        return ((match.group(), match.start()) for match in re.finditer(r"\S+", text))


class CharacterTokenizer(Vocabulary):
    """One id for every distinct character (Unicode code point), white space included."""

    kind, name, version = "tokenizer", "character", 1

    class Config(ComponentConfig):
        """No options: the vocabulary is the corpus's own."""

        type: str = "character"

    def split(self, text: str) -> Iterator[tuple[str, int]]:
        return ((character, i) for i, character in enumerate(text))


def is_tokenizer_file(folder: Path) -> bool:
    """True where `load` would find a whole file to read."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return '"model"' in text and text.rstrip().endswith("}")
