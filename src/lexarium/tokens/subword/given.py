"""Tokenizers that are there already: a `tokenizers` file, and ids without a tokenizer.

`file` reads a `tokenizer.json` (one of another run's stores, or of any model) and never trains. `ids` stands for token
files whose tokenizer is not known: text is ids written as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import Field

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.files import Damaged, sha256_file, sha256_json
from lexarium.foundation.types import Corpus, UserError
from lexarium.tokens.subword.bpe import END, refuse_surrogates
from lexarium.tokens.subword.engines import byte_characters
from lexarium.tokens.tokenizers import CONFIG_FILE, FILE


class GivenTokenizer:
    """A tokenizer read from a `tokenizer.json`."""

    kind, name, version = "tokenizer", "file", 1
    joiner = ""
    roles: dict[str, int] = {}
    special_tokens: dict[str, str] = {}

    class Config(ComponentConfig):
        """Options of `file`."""

        type: str = "file"
        path: str = outside_identity()
        """The file, or the folder that holds it."""
        bos: str | None = None
        """The special token read first; empty = what tokenizer_config.json beside it says, else `<|endoftext|>`."""
        eos: str | None = None
        pad: str | None = None
        lossy: bool = False
        """Accept a tokenizer that normalises, so that not every text comes back as it was."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def content(config: Config) -> str:
        """Hash of the file, which is part of a store's identity."""
        return sha256_file(_file(config.path))

    def train(self, corpus: Corpus) -> None:
        """Nothing is learned: the file is read."""
        path = _file(self.config.path)
        beside = path.with_name(CONFIG_FILE)
        known = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        text = lambda token: token["content"] if isinstance(token, dict) else token
        self.special_tokens = {
            f"{role}_token": str(token)
            for role in ("bos", "eos", "pad")
            if (token := getattr(self.config, role) or text(known.get(f"{role}_token")))
        }
        self._read(path)

    def load(self, folder: Path) -> None:
        """Read what was saved in a store or run."""
        known = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        self.special_tokens = {k: v for k, v in known.items() if k in ("bos_token", "eos_token", "pad_token")}
        self._read(folder / FILE)

    def _read(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise Damaged(f"{path}: not a tokenizer file ({error})") from None
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()  # settings of somebody's batches, saved with the file
        self._tokenizer.no_padding()
        self.symbols = [self._tokenizer.id_to_token(i) or "" for i in range(self._tokenizer.get_vocab_size())]
        known = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.roles = {}
        for role, token in self.special_tokens.items():
            if token not in known:
                raise UserError(
                    f"{path}: has no token {token!r} for {role}; set tokenizer.{role.removesuffix('_token')}"
                )
            self.roles[role.removesuffix("_token")] = known[token]
        if END in known:
            self.roles = {"bos": known[END], "eos": known[END]} | self.roles
        self.roles.setdefault("pad", self.roles.get("eos", self.roles.get("bos", 0)))
        self._special = {
            i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.symbols)

    def fingerprint(self) -> str:
        """Hash of the file's content."""
        return sha256_json([self.config.type, json.loads(self.dump()), self.roles])

    def dump(self) -> str:
        """Contents of `tokenizer.json`."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (L,) int64 and the character (L,) int64 in which each token begins."""
        refuse_surrogates(text)
        found = self._tokenizer.encode(text, add_special_tokens=False)
        if (
            self._tokenizer.normalizer is not None
            and not self.config.lossy
            and self.decode(found.ids) != text
        ):
            raise UserError(
                "this tokenizer normalises, and does not write the text back as it was; say tokenizer.lossy=true to"
                f" accept that (in: {text[:60]!r})"
            )
        return np.array(found.ids, dtype=np.int64), np.array([a for a, _ in found.offsets], dtype=np.int64)

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64."""
        return self.encode(text)[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out."""
        chosen = [i for i in map(int, ids) if 0 <= i < self.vocab_size and i not in self._special]
        return str(self._tokenizer.decode(chosen, skip_special_tokens=False))

    def id(self, symbol: str) -> int:
        """The id of a text that is one token."""
        ids = self.encode_ids(symbol)
        if len(ids) != 1:
            raise UserError(f"{symbol!r} is {len(ids)} tokens, expected one")
        return int(ids[0])

    def byte_lengths(self) -> np.ndarray | None:
        """(vocab_size,) int64, or None where the file's tokens are not the bytes of the text."""
        data = json.loads(self.dump())
        byte_of, pieces = byte_characters(), "▁" in json.dumps(data.get("decoder"), ensure_ascii=False)
        if "ByteLevel" in json.dumps(data.get("decoder")):
            length = lambda symbol: sum(c in byte_of for c in symbol)
        elif pieces:
            length = lambda symbol: 1 if _is_byte(symbol) else len(symbol.replace("▁", " ").encode("utf-8"))
        else:
            return None
        return np.array(
            [0 if i in self._special else length(s) for i, s in enumerate(self.symbols)], dtype=np.int64
        )


def _is_byte(symbol: str) -> bool:
    return len(symbol) == 6 and symbol.startswith("<0x") and symbol.endswith(">")


def _file(path: str) -> Path:
    found = Path(path).expanduser()
    found = found / FILE if found.is_dir() else found
    if not found.is_file():
        raise UserError(f"tokenizer.path: there is no {found}; give a {FILE} or the folder that holds one")
    return found


class Ids:
    """Ids without text: for token files whose tokenizer is not at hand."""

    kind, name, version = "tokenizer", "ids", 1
    joiner = " "
    reads_text = False

    class Config(ComponentConfig):
        """Options of `ids`."""

        type: str = "ids"
        vocab_size: int = Field(50257, gt=1)
        bos: int = Field(0, ge=0)
        """The id read first."""
        eos: int = Field(0, ge=0)

    def __init__(self, config: Config) -> None:
        if max(config.bos, config.eos) >= config.vocab_size:
            raise UserError(f"tokenizer: bos and eos must be below vocab_size {config.vocab_size}")
        self.config = config
        self.symbols = [str(i) for i in range(config.vocab_size)]

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.config.vocab_size

    @property
    def roles(self) -> dict[str, int]:
        """Special tokens among the ids."""
        return {"bos": self.config.bos, "eos": self.config.eos, "pad": self.config.eos}

    def train(self, corpus: Corpus) -> None:
        """Nothing to learn."""

    def load(self, folder: Path) -> None:
        """Nothing to read."""

    def fingerprint(self) -> str:
        """Hash of the options."""
        return sha256_json([self.config.type, self.vocab_size, self.roles])

    def dump(self) -> str:
        """Contents of `tokenizer.json`: a vocabulary of numbers."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        vocabulary = {str(i): i for i in range(self.vocab_size)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=str(self.config.eos)))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return str(tokenizer.to_str())

    @property
    def special_tokens(self) -> dict[str, str]:
        """For transformers."""
        return {
            "bos_token": str(self.config.bos),
            "eos_token": str(self.config.eos),
            "pad_token": str(self.config.eos),
        }

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids written as numbers, and where each begins."""
        found: list[tuple[int, int]] = []
        place = 0
        for word in text.split():
            place = text.index(word, place)
            if not word.isdecimal() or int(word) >= self.vocab_size:
                raise UserError(
                    f"{word!r} is no id below {self.vocab_size}; this run's data are ids without a tokenizer, so a text"
                    " is written as numbers, for example `17 4 256`"
                )
            found.append((int(word), place))
            place += len(word)
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64."""
        return self.encode(text)[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as numbers."""
        return self.joiner.join(str(int(i)) for i in ids)

    def id(self, symbol: str) -> int:
        """The id a number stands for."""
        return int(self.encode_ids(symbol)[0])

    def byte_lengths(self) -> None:
        """Not known."""
        return
