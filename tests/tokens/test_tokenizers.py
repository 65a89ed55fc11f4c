"""Closed vocabularies: text to ids and back, the same ids in the libraries others use, nothing mapped in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lexarium.foundation.files import Damaged, write_atomic
from lexarium.foundation.types import UserError
from lexarium.tokens.tokenizers import FILE, assign_roles, is_tokenizer_file
from toy import InMemory, tokenizer_config, toy_tokenizer

BOTH = pytest.mark.parametrize("name", ["word", "character"])
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(letters, min_size=1, max_size=30).filter(lambda text: text.split() and "<pad>" not in text)


@given(st.lists(texts, min_size=1, max_size=5))
def test_words_and_back(documents: list[str]) -> None:
    tokenizer = toy_tokenizer(documents)
    for text in documents:
        ids, first = tokenizer.encode(text)
        words = re.split(r"\s+", text.strip())
        assert (
            [tokenizer.symbols[i] for i in ids]
            == [text[a:][: len(w)] for a, w in zip(first, words, strict=True)]
            == words
        )
        assert tokenizer.decode(ids) == " ".join(words)


@given(st.lists(texts, min_size=1, max_size=5))
def test_characters_and_back(documents: list[str]) -> None:
    tokenizer = toy_tokenizer(documents, "character")
    for text in documents:
        ids, first = tokenizer.encode(text)
        assert first.tolist() == list(range(len(text)))
        assert tokenizer.decode(ids) == text


@BOTH
def test_the_vocabulary_is_padding_and_the_distinct_symbols_in_order(name: str) -> None:
    tokenizer = toy_tokenizer(["b a b", "É c"], name)
    assert tokenizer.symbols == [
        "<pad>",
        *sorted({"a", "b", "c", "É"} | ({" "} if name == "character" else set())),
    ]
    assert tokenizer.vocab_size == len(tokenizer.symbols)
    assert tokenizer.roles == {"pad": 0}
    assert tokenizer.id("a") == tokenizer.symbols.index("a")


@BOTH
def test_declared_symbols_are_in_the_vocabulary(name: str) -> None:
    class WithMore(InMemory):
        def symbols(self) -> list[str]:
            return ["z", "q"]

    tokenizer = toy_tokenizer(["a"], name)
    tokenizer.train(WithMore(["a"]))
    assert tokenizer.symbols == ["<pad>", "a", "q", "z"]


@BOTH
@given(documents=st.lists(texts, min_size=1, max_size=4))
def test_a_saved_tokenizer_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, name: str, documents: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("t")
    tokenizer = toy_tokenizer(documents, name)
    write_atomic(folder / FILE, tokenizer.dump())
    again = type(tokenizer)(tokenizer_config(name))
    again.load(folder)
    assert again.symbols == tokenizer.symbols
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.dump() == tokenizer.dump()
    for text in documents:
        assert again.encode(text)[0].tolist() == tokenizer.encode(text)[0].tolist()


# Rust and Python disagree on the separators U+001C to U+001F only.
shared_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1c\x1d\x1e\x1f"), min_size=1, max_size=30
)


@BOTH
@given(
    documents=st.lists(shared_texts.filter(lambda t: t.split() and "<pad>" not in t), min_size=1, max_size=4)
)
def test_the_tokenizers_library_gives_the_same_ids(name: str, documents: list[str]) -> None:
    tokenizer = toy_tokenizer(documents, name)
    theirs = Tokenizer.from_str(tokenizer.dump())
    for text in documents:
        ids = tokenizer.encode(text)[0].tolist()
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        if name == "character":
            assert theirs.decode(ids) == text


@BOTH
def test_transformers_gives_the_same_ids(tmp_path: Path, name: str) -> None:
    fast = pytest.importorskip("transformers").PreTrainedTokenizerFast
    documents = ["our newt doesn't wait .", "É \n\n ü  x"]
    tokenizer = toy_tokenizer(documents, name)
    write_atomic(tmp_path / FILE, tokenizer.dump())
    theirs = fast(tokenizer_file=str(tmp_path / FILE), pad_token="<pad>")
    for text in documents:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)[0].tolist()
    assert theirs.pad_token_id == 0


def test_an_unknown_word_is_named_with_the_nearest_one() -> None:
    tokenizer = toy_tokenizer(["our newt waits"])
    with pytest.raises(
        UserError,
        match=r"'newts' is not in the vocabulary of 4 symbols; did you mean 'newt'\? \(in: 'our newts waits'\)",
    ):
        tokenizer.encode("our newts waits")
    with pytest.raises(UserError, match="'zebra' is not in the vocabulary"):
        tokenizer.id("zebra")
    with pytest.raises(UserError, match="is not in the vocabulary"):
        tokenizer.encode("\0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <pad> b", r"document 1 of split 'train': holds the word '<pad>', which stands for padding"),
        ("a b\0c", r"document 1 of split 'train': holds a NUL character .*is the file text\?"),
        ("a \ud800", r"document 1 of split 'train': not valid Unicode .*save the text as UTF-8"),
    ],
)
def test_text_that_cannot_be_a_vocabulary(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        toy_tokenizer(["fine", text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"model": {}}',
        '{"model": {"vocab": ["a"]}}',
        '{"model": {"vocab": {"a": "x", "b": 1}}}',
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(Damaged, match=FILE):
        toy_tokenizer(["a"]).load(tmp_path)


def test_is_tokenizer_file(tmp_path: Path) -> None:
    assert not is_tokenizer_file(tmp_path)
    (tmp_path / FILE).write_text("{")
    assert not is_tokenizer_file(tmp_path)
    (tmp_path / FILE).write_text(toy_tokenizer(["a"]).dump())
    assert is_tokenizer_file(tmp_path)


def test_decoding_leaves_out_special_tokens() -> None:
    tokenizer = toy_tokenizer(["a b"])
    assert tokenizer.decode([0, 3, 1, 0, 2, 4, 99]) == "a b"
    assert tokenizer.decode([]) == ""


def test_roles_come_after_the_base_ids_in_the_order_asked_for() -> None:
    tokenizer = toy_tokenizer(["a b"])
    assert assign_roles(tokenizer, ["eos", "bos"]).ids == {"pad": 0, "eos": 3, "bos": 4}
    assert assign_roles(tokenizer, ["eos", "bos"]).vocab_size == 5
    assert assign_roles(tokenizer, ["bos"]).ids == {"pad": 0, "bos": 3}
    assert assign_roles(tokenizer, ["pad"]).vocab_size == 3
    assert tokenizer.vocab_size == 3


def test_fingerprints_tell_vocabularies_apart() -> None:
    found = {
        toy_tokenizer(t, n).fingerprint() for t in (["a b"], ["a c"], ["ab"]) for n in ("word", "character")
    }
    assert len(found) == 6
    assert toy_tokenizer(["b a"]).fingerprint() == toy_tokenizer(["a b a"]).fingerprint()
