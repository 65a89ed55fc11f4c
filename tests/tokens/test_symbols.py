"""Symbols of speech and writing: ids of the study, the same ids elsewhere, nothing unknown in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from lexarium.foundation.files import Damaged
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.symbols import SymbolTokenizer
from lexarium.tokens.tokenizers import FILE, save_tokenizer
from toy import InMemory

TEXTS = ["w ʌ t", "d̠ʒ ʌ s t", "ʌ"]


def trained(texts: list[str], **options: object) -> SymbolTokenizer:
    tokenizer = SymbolTokenizer(SymbolTokenizer.Config(**options))  # type: ignore[arg-type]
    tokenizer.train(InMemory(texts))
    return tokenizer


def test_ids_are_those_of_the_study() -> None:
    """Spec 1.2: four marks, then symbols in the order of first appearance."""
    tokenizer = trained(TEXTS)
    assert tokenizer.symbols == ["UNK", "PAD", "WORD_BOUNDARY", "UTT_BOUNDARY", "w", "ʌ", "t", "d̠ʒ", "s"]
    assert tokenizer.roles == {"unk": 0, "pad": 1, "word": 2, "bos": 3, "eos": 3}
    ids, first = tokenizer.encode("d̠ʒ ʌ WORD_BOUNDARY t")
    assert ids.tolist() == [7, 5, 2, 6] and first.tolist() == [0, 4, 6, 20]
    assert tokenizer.decode([3, *ids, 3, 1]) == "d̠ʒ ʌ WORD_BOUNDARY t"
    with pytest.raises(UserError, match="'x' is not in the vocabulary"):
        tokenizer.encode("w x")


def test_rare_symbols_become_unknown_and_are_recorded(tmp_path: Path) -> None:
    tokenizer = trained(TEXTS, min_count=1)
    assert tokenizer.symbols[4:] == ["ʌ", "t"]
    assert tokenizer.encode_ids("w ʌ q").tolist() == [0, 4, 0] and tokenizer.decode([0, 4]) == "UNK ʌ"
    save_tokenizer(tokenizer, tmp_path)
    assert '"unknown"' in (tmp_path / "training.json").read_text()
    with pytest.raises(UserError, match=r"min_count is 9, and no symbol .*\(the most frequent 3 times\)"):
        trained(TEXTS, min_count=9)
    with pytest.raises(UserError, match="document 1 of split 'train': holds 'PAD'"):
        trained(["a", "PAD b"])


@pytest.mark.parametrize("unit, text", [("symbol", "s t WORD_BOUNDARY ʌ"), ("character", "st tʌ")])
def test_the_file_gives_the_same_ids_elsewhere(tmp_path: Path, unit: str, text: str) -> None:
    tokenizer = trained(TEXTS if unit == "symbol" else ["wʌt dst"], unit=unit)
    save_tokenizer(tokenizer, tmp_path)
    again = SymbolTokenizer(tokenizer.config)
    again.load(tmp_path)
    other = Tokenizer.from_file(str(tmp_path / FILE))
    ids = tokenizer.encode_ids(text).tolist()
    assert ids == again.encode_ids(text).tolist() == other.encode(text).ids
    assert again.decode(ids) == text and again.fingerprint() == tokenizer.fingerprint()
    (tmp_path / FILE).write_text('{"model": {"vocab": {"<pad>": 0}}}')
    with pytest.raises(Damaged, match="not a vocabulary of symbols"):
        again.load(tmp_path)


def test_in_characters_a_space_is_the_word_boundary() -> None:
    tokenizer = trained(["yu want"], unit="character")
    ids = tokenizer.encode_ids("u y")
    assert ids.tolist() == [5, 2, 4] and tokenizer.decode(ids) == "u y" and tokenizer.vocab_size == 4 + 6


def test_names_of_marks_are_no_symbols_of_a_text(tmp_path: Path) -> None:
    """UNK may stand for an unknown symbol where there are some, as decoding writes it; the word boundary for itself."""
    corpus = Words([["a b", "b a b"]])
    closed, some = (
        SymbolTokenizer(SymbolTokenizer.Config()),
        SymbolTokenizer(SymbolTokenizer.Config(min_count=1)),
    )
    for tokenizer in (closed, some):
        tokenizer.train(corpus)
        assert tokenizer.encode_ids("b WORD_BOUNDARY").tolist()[-1] == 2
        for mark in ("PAD", "UTT_BOUNDARY"):
            with pytest.raises(UserError, match=f"'{mark}' is a mark of the vocabulary and no symbol"):
                tokenizer.encode(f"a {mark} b")
    assert some.encode_ids(some.decode([0, 4])).tolist() == [0, 4]
    with pytest.raises(UserError, match="'UNK' is a mark"):
        closed.encode("UNK a")


class Words:
    """Documents by split; `starts`: where words begin, by text."""

    def __init__(self, splits: list[list[str]], starts: dict[str, list[int]] | None = None) -> None:
        self._splits = dict(zip(("train", "val"), splits, strict=False))
        self._starts = starts or {}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def symbols(self) -> list[str]:
        return []

    def documents(self, split: str) -> Any:
        for text in self._splits[split]:
            channels = {"word_start": self._starts[text]} if text in self._starts else {}
            yield Document(text, {}, channels)


def test_a_unit_that_is_not_that_of_the_text_is_refused() -> None:
    """Whole utterances as one token, or blanks between phonemes as word boundaries, train without complaint."""
    letters, spaced, both = "yuwant", "w ʌ t d ɔ ɡ", "yu want"
    starts = {
        letters: [1, 0, 1, 0, 0, 0],
        spaced: [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        both: [1, 0, 0, 1, 0, 0, 0],
    }
    symbol, character = (SymbolTokenizer(SymbolTokenizer.Config(unit=u)) for u in ("symbol", "character"))
    with pytest.raises(
        UserError, match=r"document 1 of split 'val': a word begins inside 'yuwant'.*unit: character"
    ):
        symbol.train(Words([[spaced], [spaced, letters]], starts))
    with pytest.raises(
        UserError, match=r"document 0 of split 'train': spaces separate symbols here.*unit: symbol"
    ):
        character.train(Words([[spaced]], starts))
    character.train(Words([[letters, both]], starts))
    symbol.train(Words([[spaced, letters]]))  # where words begin is not known
