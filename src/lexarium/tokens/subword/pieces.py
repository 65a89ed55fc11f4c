"""SentencePiece (Kudo and Richardson 2018): BPE and unigram models, trained here or read from a `.model` file.

Trained without normalisation, without a space put in front, and with byte fallback, so that every text comes back
exactly. One character needs care: SentencePiece writes the space as U+2581, so a U+2581 of the text itself is given as
its three bytes. Id 0 is `<|endoftext|>` (bos, eos and pad), id 1 `<unk>`, which never occurs; the 256 bytes follow.

The `.model` is kept beside `tokenizer.json`, which says the same in the format of `tokenizers` for transformers, up to
a U+2581 of the text, which is a space there. A model that is read may normalise, put a space in front, or lack byte
fallback: then what it cannot write back is refused, unless `lossy: true`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.extras import need
from lexarium.foundation.files import Damaged, dumps, sha256_file, sha256_json
from lexarium.foundation.types import Corpus, UserError, gist
from lexarium.tokens.subword.bpe import END, refuse_surrogates
from lexarium.tokens.subword.training_text import TrainingText
from lexarium.tokens.tokenizers import first_characters

SPACE = "▁"
MODEL = "tokenizer.model"


KINDS = {1: "unigram", 2: "bpe"}
"""`TrainerSpec.model_type` of the models that are read."""


class Rules(NamedTuple):
    """What a model does to a text before it cuts it: nothing, by default."""

    kind: int = 1
    charsmap: bytes = b""
    """Compiled table of replacements."""
    space_first: bool = False
    one_space: bool = False
    """Runs of spaces become one; none at the ends."""


def read_rules(data: bytes) -> Rules:
    """The rules of a model file: fields of `TrainerSpec` and `NormalizerSpec` in sentencepiece_model.proto. What the
    file leaves out has the default of that file."""
    top = dict(_message(data))
    trainer, normalizer = dict(_message(top.get(2, b""))), dict(_message(top.get(3, b"")))
    return Rules(
        int(trainer.get(3, 1)),
        bytes(normalizer.get(2, b"")),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def _message(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protocol-buffer message: numbers, or bytes; the last of each counts."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or number()
        yield key >> 3, data[place : place + size]
        place += size


class SentencePiece:
    """SentencePiece BPE or unigram, trained on the corpus or read from a file."""

    kind, name, version = "tokenizer", "sentencepiece", 1
    joiner = ""
    roles: dict[str, int] = {}

    class Config(ComponentConfig):
        """Options of `sentencepiece`."""

        type: str = "sentencepiece"
        model: Literal["bpe", "unigram"] = "unigram"
        vocab_size: int = Field(8000, gt=258)
        splits: tuple[str, ...] = ("train",)
        """Splits whose text it is trained on."""
        sample_bytes: int | None = Field(None, gt=0)
        """Train on about so many bytes, taken evenly from the corpus; empty = all."""
        character_coverage: float = Field(0.9995, gt=0, le=1)
        """Share of the text's characters that get an id of their own; the others are bytes."""
        path: str | None = outside_identity(None)
        """A trained `.model` to read instead; then only `lossy` counts of the options."""
        lossy: bool = False
        """Accept a model that does not write every text back as it was."""

        @model_validator(mode="after")
        def _fits(self) -> SentencePiece.Config:
            given = {
                "model",
                "vocab_size",
                "splits",
                "sample_bytes",
                "character_coverage",
            } & self.model_fields_set
            if self.path is not None and any(
                getattr(self, name) != type(self).model_fields[name].default for name in given
            ):
                raise ValueError(f"path: the model is trained already; leave out {', '.join(sorted(given))}")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self._record: dict[str, Any] | None = None

    @staticmethod
    def content(config: Config) -> str:
        """Hash of a model that is read, which is part of a store's identity."""
        return sha256_file(_path(config.path)) if config.path else ""

    # -- training and files --------------------------------------------------------------------------

    def train(self, corpus: Corpus) -> None:
        """Learn the pieces, or read those of `path`."""
        if self.config.path:
            self._set_model(_path(self.config.path).read_bytes())
            return
        c = self.config
        library = need("sentencepiece", "spm", "for tokenizer sentencepiece")
        text, sink = TrainingText(corpus, c.splits, c.sample_bytes), io.BytesIO()
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=_sentences(text), model_writer=sink, vocab_size=c.vocab_size, model_type=c.model,
                character_coverage=c.character_coverage, normalization_rule_name="identity", byte_fallback=True,
                remove_extra_whitespaces=False, add_dummy_prefix=False, unk_id=1, bos_id=0, eos_id=-1, pad_id=-1,
                bos_piece=END, max_sentence_length=1 << 24, num_threads=1, minloglevel=2,
                train_extremely_large_corpus=text.record["sample_bytes"] is None,
            )  # fmt: skip
        except (RuntimeError, OSError) as error:
            # every letter, and every byte where those are pieces, has an id
            advice = "larger" if "required_chars" in str(error) else "smaller"
            raise UserError(
                f"tokenizer sentencepiece: {gist(error)}; a {advice} tokenizer.vocab_size or more text may help"
            ) from None
        self._record = text.record
        self._set_model(sink.getvalue())

    def load(self, folder: Path) -> None:
        """Read a saved tokenizer."""
        path = folder / MODEL
        if not path.exists():
            raise Damaged(f"{path}: missing; it is part of the tokenizer")
        self._set_model(path.read_bytes())

    def _set_model(self, data: bytes) -> None:
        library = need("sentencepiece", "spm", "for tokenizer sentencepiece")
        try:
            model = library.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise UserError(f"tokenizer sentencepiece: not a SentencePiece model ({gist(error)})") from None
        self._data, self._model = data, model
        self.symbols = [model.id_to_piece(i) for i in range(model.vocab_size())]
        self._special = {i for i in range(len(self.symbols)) if model.is_control(i) or model.is_unknown(i)}
        self._byte_ids = {int(piece[3:5], 16): i for i, piece in enumerate(self.symbols) if model.is_byte(i)}
        known = {"bos": model.bos_id(), "eos": model.eos_id(), "pad": model.pad_id()}
        found = {role: i for role, i in known.items() if i >= 0}
        end = found.get("eos", found.get("bos"))
        self.roles = {
            "pad": 0 if end is None else end,
            **({} if end is None else {"eos": end, "bos": end}),
            **found,
        }
        self._rules = read_rules(data)
        if self._rules.kind not in KINDS:
            raise UserError(
                "tokenizer sentencepiece: a model of words or characters; use tokenizer word or character"
            )
        self._exact = len(self._byte_ids) == 256 and self._rules == Rules(kind=self._rules.kind)

    @property
    def special_tokens(self) -> dict[str, str]:
        """For transformers."""
        return {f"{role}_token": self.symbols[i] for role, i in self.roles.items()}

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.symbols)

    def fingerprint(self) -> str:
        """Hash of pieces, scores and what is done to text before."""
        scores = [self._model.get_score(i) for i in range(self.vocab_size)]
        rules = [] if self._exact else [[*self._rules[2:], hashlib.sha256(self._rules.charsmap).hexdigest()]]
        return sha256_json([self.config.type, self.symbols, scores, self._exact, *rules])

    def files(self) -> dict[str, Any]:
        """The model itself, and what it was trained on."""
        return {MODEL: self._data} | ({} if self._record is None else {"training.json": dumps(self._record)})

    def dump(self) -> str:
        """Contents of `tokenizer.json`: the same tokenizer for `tokenizers` and transformers."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

        unknown = next((i for i in range(self.vocab_size) if self._model.is_unknown(i)), None)
        scores = [(piece, self._model.get_score(i)) for i, piece in enumerate(self.symbols)]
        if KINDS[self._rules.kind] == "unigram":
            model: Any = models.Unigram(scores, unk_id=unknown, byte_fallback=bool(self._byte_ids))
        else:
            vocabulary = {piece: i for i, piece in enumerate(self.symbols)}
            model = models.BPE(
                vocab=vocabulary, merges=_merges(vocabulary, scores), fuse_unk=True, byte_fallback=bool(self._byte_ids),
                unk_token=None if unknown is None else self.symbols[unknown],
            )  # fmt: skip
        tokenizer = Tokenizer(model)
        rules, before = self._rules, list[Any]()
        if rules.charsmap:
            before.append(normalizers.Precompiled(rules.charsmap))
        if rules.one_space:
            before += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        if rules.space_first:
            before.append(normalizers.Prepend(SPACE))
        tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if rules.space_first:
            steps.append(decoders.Strip(" ", 1, 0))
        tokenizer.decoder = decoders.Sequence(steps)
        tokenizer.add_special_tokens(
            [AddedToken(self.symbols[i], special=True) for i in sorted(self._special)]
        )
        return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1)

    # -- use -----------------------------------------------------------------------------------------

    def encode_ids(self, text: str) -> np.ndarray:
        """ids (L,) int64. Raises UserError for half a surrogate pair, and for a text that would not come back."""
        refuse_surrogates(text)
        ids: list[int] = []
        for n, piece in enumerate(text.split(SPACE) if self._exact else [text]):
            if n:
                ids += [self._byte_ids[b] for b in SPACE.encode("utf-8")]
            ids += self._model.encode(piece)
        if not self._exact and not self.config.lossy and self._model.decode(ids) != text:
            raise UserError(
                "this SentencePiece model does not write the text back as it was (it normalises, or has no byte"
                f" fallback); say tokenizer.lossy=true to accept that (in: {text[:60]!r})"
            )
        return np.array(ids, dtype=np.int64)

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (L,) int64 and the character (L,) int64 in which each token begins."""
        ids = self.encode_ids(text)
        lengths = self.byte_lengths()[ids]
        if lengths.sum() != len(text.encode("utf-8")):
            raise UserError(
                "this SentencePiece model changes the text, so its tokens have no place in it; channels need one that"
                " does not"
            )
        return ids, first_characters(text, lengths)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out, an unfinished character becomes U+FFFD."""
        chosen = [i for i in map(int, ids) if 0 <= i < self.vocab_size and i not in self._special]
        if not self._exact:
            return str(self._model.decode(chosen))
        return b"".join(self._bytes[i] for i in chosen).decode("utf-8", "replace")

    @cached_property
    def _bytes(self) -> list[bytes]:
        """What each id stands for."""
        byte_of = {i: bytes([b]) for b, i in self._byte_ids.items()}
        return [
            b"" if i in self._special else byte_of.get(i, piece.replace(SPACE, " ").encode("utf-8"))
            for i, piece in enumerate(self.symbols)
        ]

    def byte_lengths(self) -> np.ndarray:
        """(vocab_size,) int64: bytes of text behind each id; 0 for special tokens."""
        return np.array([len(b) for b in self._bytes], dtype=np.int64)

    def id(self, symbol: str) -> int:
        """The id of a text that is one token."""
        ids = self.encode_ids(symbol)
        if len(ids) != 1:
            raise UserError(f"{symbol!r} is {len(ids)} tokens, expected one")
        return int(ids[0])


def _path(path: str | None) -> Path:
    found = Path(path or "").expanduser()
    found = found / MODEL if found.is_dir() else found
    if not found.is_file():
        raise UserError(f"tokenizer.path: there is no {found}; give a SentencePiece .model file")
    return found


def _sentences(text: Iterable[str]) -> Iterator[str]:
    """Lines with their ends: the unit over which SentencePiece learns. U+2581 and NUL are left to the bytes."""
    for piece in text:
        for line in piece.splitlines(keepends=True):
            if cleaned := line.replace(SPACE, "").replace("\0", ""):
                yield cleaned


def _merges(vocabulary: dict[str, int], scores: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Pairs in the order in which SentencePiece would join them: by the score of what they make."""
    found: list[tuple[float, int, int, str, str]] = []
    for piece, score in scores:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                found.append((-score, vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
