"""Byte-level byte-pair encoding (Sennrich et al. 2016, over bytes as Radford et al. 2019), trained here; and bytes.

`bpe`: text is cut into words by the pattern of GPT-2, a word's bytes are merged by the learned list of pairs. Id 0 is
`<|endoftext|>`, which is bos, eos and pad; the 256 bytes follow, then the merges, so 50,257 ids are 50,000 merges. In
text the characters `<|endoftext|>` are ordinary characters. Every text comes back exactly, whatever it holds.

Two engines give the ids (see `engines.py`). Refused: text with half a surrogate pair, and a vocabulary larger than the
text has pairs for.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.files import Damaged, dumps, sha256_json
from lexarium.foundation.types import Corpus, UserError, gist
from lexarium.tokens.subword.engines import CheckedEngine, byte_characters, tiktoken_engine
from lexarium.tokens.subword.training_text import TrainingText
from lexarium.tokens.tokenizers import FILE, first_characters

END = "<|endoftext|>"


def refuse_surrogates(text: str) -> None:
    """Raise UserError for half a surrogate pair: it has no bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"not valid Unicode: half a surrogate pair at character {error.start}"
            f" (in {text[error.start : error.start + 20]!a});"
            " save the text as UTF-8"
        ) from None


class _Bytes:
    """What tokenizers share whose tokens are byte strings; `tokens[i]` are those of id i, b"" for special tokens."""

    config: Any
    tokens: list[bytes]
    joiner = ""
    special_tokens = {"bos_token": END, "eos_token": END, "pad_token": END, "unk_token": END}

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special one included."""
        return len(self.tokens)

    @property
    def roles(self) -> dict[str, int]:
        """Special tokens among the ids."""
        return {"bos": 0, "eos": 0, "pad": 0}

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(token) for token in self.tokens], dtype=np.int64)

    def byte_lengths(self) -> np.ndarray:
        """(vocab_size,) int64: bytes of text behind each id; 0 for the special token."""
        return self._lengths

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64."""
        raise NotImplementedError

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (L,) int64 and the character (L,) int64 in which each token begins."""
        ids = self.encode_ids(text)
        return ids, first_characters(text, self._lengths[ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out, an unfinished character becomes U+FFFD."""
        known = self.tokens
        return b"".join(known[i] for i in map(int, ids) if 0 <= i < len(known)).decode("utf-8", "replace")

    def id(self, symbol: str) -> int:
        """The id of a text that is one token."""
        ids = self.encode_ids(symbol)
        if len(ids) != 1:
            raise UserError(f"{symbol!r} is {len(ids)} tokens, expected one")
        return int(ids[0])


class ByteLevelBPE(_Bytes):
    """Byte-level byte-pair encoding as in GPT-2, trained on the corpus."""

    kind, name, version = "tokenizer", "bpe", 1

    class Config(ComponentConfig):
        """Options of `bpe`."""

        type: str = "bpe"
        vocab_size: int = Field(50257, ge=257)
        """Ids: one special token, 256 bytes, and the merges."""
        splits: tuple[str, ...] = ("train",)
        """Splits whose text it is trained on."""
        sample_bytes: int | None = Field(None, gt=0)
        """Train on about so many bytes, taken evenly from the corpus; empty = all."""
        engine: Literal["auto", "tokenizers", "tiktoken"] = outside_identity("auto")
        """What computes ids; auto = tiktoken where it is installed. The ids are the same."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._record: dict[str, Any] | None = None

    def train(self, corpus: Corpus) -> None:
        """Learn the merges; raises UserError when the text has too few pairs for the vocabulary."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        wanted = self.config.vocab_size
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=wanted,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        text = TrainingText(corpus, self.config.splits, self.config.sample_bytes)
        tokenizer.train_from_iterator(text, trainer)
        found = tokenizer.get_vocab_size()
        if found < wanted:
            raise UserError(
                f"tokenizer.vocab_size is {wanted:,}, but the text ({text.record['bytes']:,} bytes) has pairs for"
                f" {found:,} only; use tokenizer.vocab_size={found} or less, or more text"
            )
        self._record = text.record
        self._set(tokenizer.to_str())

    def load(self, folder: Path) -> None:
        """Read what `dump` wrote to `folder/tokenizer.json`."""
        path = folder / FILE
        try:
            self._set(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                f"{path}: not a file of byte-level BPE whose id 0 is {END} ({gist(error)})"
            ) from None

    def _set(self, text: str) -> None:
        """Take in what a tokenizer's file says."""
        model = json.loads(text)["model"]
        ordered = sorted(model["vocab"].items(), key=lambda item: item[1])
        self.symbols = [symbol for symbol, _ in ordered]
        if model["type"] != "BPE" or self.symbols[0] != END or ordered[-1][1] != len(ordered) - 1:
            raise ValueError(f"a {model['type']} model of {len(ordered):,} tokens")
        bytes_of = str.maketrans({c: chr(b) for c, b in byte_characters().items()})
        self.tokens = [b"", *(symbol.translate(bytes_of).encode("latin-1") for symbol in self.symbols[1:])]
        self._merges, self._text = model["merges"], text
        for made in ("_lengths", "_engine", "_reference"):
            self.__dict__.pop(made, None)

    @cached_property
    def _reference(self) -> Any:
        from tokenizers import Tokenizer

        found = Tokenizer.from_str(self._text)
        found.encode_special_tokens = True  # in text their characters are ordinary
        return found

    def fingerprint(self) -> str:
        """Hash of vocabulary and merges."""
        return hashlib.sha256(json.dumps([self.config.type, self.symbols, self._merges]).encode()).hexdigest()

    def dump(self) -> str:
        """Contents of `tokenizer.json`."""
        return self._text

    def files(self) -> dict[str, str]:
        """What it was trained on."""
        return {} if self._record is None else {"training.json": dumps(self._record)}

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64. Raises UserError for half a surrogate pair."""
        try:
            found = array("I", self._engine(text))  # a list becomes an array in 40 % of numpy's own time
            return np.frombuffer(found, dtype=np.uint32).astype(np.int64)
        except UnicodeEncodeError:
            refuse_surrogates(text)
            raise

    @cached_property
    def _engine(self) -> Any:
        if self.config.engine == "tokenizers":
            return self._slow
        try:
            return CheckedEngine(tiktoken_engine(self.tokens), self._slow)
        except ImportError:
            if self.config.engine == "tiktoken":
                raise UserError(
                    "tokenizer.engine: tiktoken is not installed: pip install 'lexarium[spm]', or leave engine: auto"
                ) from None
            return self._slow

    def _slow(self, text: str) -> list[int]:
        return self._reference.encode(text, add_special_tokens=False).ids


class ByteTokenizer(_Bytes):
    """One id for every byte of UTF-8; nothing is learned."""

    kind, name, version = "tokenizer", "byte", 1

    class Config(ComponentConfig):
        """No options."""

        type: str = "byte"

    def __init__(self, config: Config) -> None:
        self.config = config
        character = {b: c for c, b in byte_characters().items()}
        self.tokens = [b"", *(bytes([b]) for b in range(256))]
        self.symbols = [END, *(character[b] for b in range(256))]

    def train(self, corpus: Corpus) -> None:
        """Nothing to learn."""

    def load(self, folder: Path) -> None:
        """Nothing to read; raises Damaged for the file of another tokenizer."""
        if (folder / FILE).read_text(encoding="utf-8") != self.dump():
            raise Damaged(f"{folder / FILE}: not the byte tokenizer's file")

    def fingerprint(self) -> str:
        """The same for all."""
        return sha256_json([self.config.type, self.symbols])

    def dump(self) -> str:
        """Contents of `tokenizer.json`: byte-level BPE without merges."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(self.symbols)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([END])
        return str(tokenizer.to_str())

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64: byte + 1. Raises UserError for half a surrogate pair."""
        refuse_surrogates(text)
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) + 1
