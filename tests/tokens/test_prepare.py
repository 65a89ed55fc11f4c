"""Preparing a store: what names it, what it refuses, and that a refusal leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document, UserError
from lexarium.tokens import prepare as preparation
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.store import TokenStore
from toy import Documents, corpus_config, tokenizer_config, toy_store, write_corpus


def stores(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "stores").glob("*"))


def test_a_store_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy_store(tmp_path, {"train": ["a b", "c"]})
    monkeypatch.setattr(preparation, "run", None)
    assert toy_store(tmp_path, {"train": ["a b", "c"]}).folder == one.folder
    assert stores(tmp_path) == [one.folder.name]


def test_the_name_follows_from_content_and_options(tmp_path: Path) -> None:
    names = [
        toy_store(tmp_path, {"train": ["a b", "c"]}).folder.name,
        toy_store(tmp_path, {"train": ["a b", "d"]}).folder.name,
        toy_store(tmp_path, {"train": ["c", "a b"]}).folder.name,
        toy_store(tmp_path, {"val": ["a b", "c"]}).folder.name,
        toy_store(tmp_path, {"train": ["a b", "c"]}, "character").folder.name,
        toy_store(tmp_path, {"train": [Document("a b", {"k": 1}), Document("c", {"k": 1})]}).folder.name,
    ]
    config = corpus_config(write_corpus(tmp_path / "corpus", {"train": ["a b", "c"]}), words=("z",))
    (tmp_path / "corpus" / "val.jsonl").unlink()
    names.append(prepare(config, tokenizer_config(), tmp_path / "stores").folder.name)
    assert len(set(names)) == len(names)


def test_the_same_content_elsewhere_is_the_same_store(tmp_path: Path) -> None:
    here, there = (toy_store(tmp_path / f, {"train": ["a b", "c"]}).folder for f in ("here", "there"))
    assert here.name == there.name
    assert contents(here) == contents(there)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_declared_symbols_enter_the_vocabulary(tmp_path: Path) -> None:
    config = corpus_config(write_corpus(tmp_path / "corpus", {"train": ["a b"]}), words=("z",))
    store = prepare(config, tokenizer_config(), tmp_path / "stores")
    assert store.manifest["vocab_size"] == 4
    assert open_tokenizer(tokenizer_config(), store.folder).symbols == ["<pad>", "a", "b", "z"]


def test_the_vocabulary_is_that_of_all_splits(tmp_path: Path) -> None:
    store = toy_store(tmp_path, {"train": ["a"], "val": ["b"], "ood": ["c"]})
    assert store.split("ood").tokens(0).tolist() == [3]


def test_progress_counts_documents_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "PART", 2)
    write_corpus(tmp_path / "corpus", {"train": ["a b", "c", "d e f"], "val": ["a"]})
    told: list[tuple[dict[str, int], int]] = []
    prepare(
        corpus_config(tmp_path / "corpus"),
        tokenizer_config(),
        tmp_path / "stores",
        progress=lambda tally: (
            told.append((dict(tally.documents), tally.tokens)) if tally.stage == "tokens" else None
        ),
    )
    told = [x for i, x in enumerate(told) if x[1] and x not in told[:i]]
    assert told == [({"train": 2, "val": 0}, 3), ({"train": 3, "val": 0}, 6), ({"train": 3, "val": 1}, 7)]


# --- refusals ---------------------------------------------------------------------------------------

BAD: list[tuple[Documents, str]] = [
    ({"train": ["a", ""]}, r"document 1 of split 'train': has no token \(''\)"),
    ({"train": ["a", " \t\n"]}, r"document 1 of split 'train': has no token"),
    ({"train": ["a"], "val": []}, r"split 'val' of the corpus is empty"),
    ({"train": []}, r"split 'train' of the corpus is empty"),
    ({"train": ["a", "b\0c"]}, r"document 1 of split 'train': holds a NUL character"),
    ({"train": ["a", "<pad>"]}, r"document 1 of split 'train': holds the word '<pad>'"),
    ({"train": ["a", "\udc80"]}, r"document 1 of split 'train': not valid Unicode"),
    ({"train": [Document("ab", {}, {"c": [1, 2]}), Document("ab", {}, {"c": [1]})]}, r"document 1 of split 'train': channel 'c' has 1 values for 2 characters"),
    ({"train": [Document("a", {}, {"c": [1]}), Document("a")]}, r"document 1 of split 'train': channels \[\], expected \['c'\]"),
    ({"train": [Document("a"), Document("a", {}, {"c": [1]})]}, r"document 1 of split 'train': channels \['c'\], expected \[\]"),
    ({"train": [Document("a", {}, {"c": [1]})], "val": ["a"]}, r"splits carry different channels: .*every split needs the same"),
    ({"train": [Document("a", {"k": 1}), Document("a")]}, r"document 1 of split 'train': fields \[\], expected \['k'\]; every document needs the same"),
    ({"train": [Document("a"), Document("a", {"k": 1})]}, r"document 1 of split 'train': fields \['k'\], expected \[\]"),
    ({"train": [Document("a", {"k": 1}), Document("a", {"k": "x"})]}, r"documents 0 to 1 of split 'train': field k holds values of several types"),
    ({"train": [Document("a", {"k": True}), Document("a", {"k": "x"})]}, r"documents 0 to 1 of split 'train': field k holds values of several types"),
]  # fmt: skip


@pytest.mark.parametrize(("documents", "message"), BAD, ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_bad_documents_are_named_and_nothing_is_left(
    tmp_path: Path, documents: Documents, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        toy_store(tmp_path, documents)
    assert stores(tmp_path) == []


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            Document("a", {"k": 1}),
            Document("a", {"k": "x"}),
            "documents of split 'train' have different fields",
        ),
        (Document("a", {"k": 1}), Document("a"), "documents of split 'train' have different fields"),
        (Document("a", {}, {"c": [1]}), Document("a"), "documents of split 'train' have different channels"),
    ],
)
def test_parts_must_agree_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Document, second: Document, message: str
) -> None:
    monkeypatch.setattr(preparation, "PART", 1)
    with pytest.raises(UserError, match=message):
        toy_store(tmp_path, {"train": [first, second]})
    assert stores(tmp_path) == []


def test_a_later_document_is_numbered_through_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PART", 3)
    with pytest.raises(UserError, match="document 7 of split 'train': has no token"):
        toy_store(tmp_path, {"train": ["a"] * 7 + [" "] + ["b"] * 3})


def test_after_a_refusal_the_mended_corpus_is_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        toy_store(tmp_path, {"train": ["a", ""]})
    assert len(toy_store(tmp_path, {"train": ["a", "b"]}).split("train")) == 2


# --- overlap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 2, 100])
def test_overlap_counts_documents_two_splits_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(preparation, "PART", part)
    splits: dict[str, Sequence[str]] = {
        "train": ["a b", "a b", "c", "d e", "f"],
        "val": ["c", "ab", "d  e", "b a"],
        "ood": ["f", "c", "x"],
    }
    store = toy_store(tmp_path, splits)
    words = {name: {tuple(text.split()) for text in texts} for name, texts in splits.items()}
    assert store.manifest["overlap"] == {
        "ood & train": len(words["ood"] & words["train"]),
        "ood & val": len(words["ood"] & words["val"]),
        "train & val": len(words["train"] & words["val"]),
    }
    assert store.manifest["overlap"] == {"ood & train": 2, "ood & val": 1, "train & val": 2}


def test_channel_values_at_the_first_character_of_each_token(tmp_path: Path) -> None:
    text = " ab  c"
    store = toy_store(tmp_path, {"train": [Document(text, {}, {"place": range(len(text))})]})
    assert store.split("train").channel("place", 0).tolist() == [1, 5]
    characters = toy_store(
        tmp_path, {"train": [Document(text, {}, {"place": range(len(text))})]}, "character"
    )
    assert characters.split("train").channel("place", 0).tolist() == list(range(6))


def test_parquet_and_arrays_need_no_pickle(tmp_path: Path) -> None:
    store = toy_store(tmp_path, {"train": [Document("a", {"k": "x"}, {"c": [1]})]})
    for path in store.folder.rglob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object


def test_a_tokenizer_from_outside_works_in_worker_processes(tmp_path: Path) -> None:
    path = tmp_path / "upper.py"
    path.write_text(
        "from lexarium.foundation.config import ComponentConfig\n"
        "from lexarium.tokens.tokenizers import WordTokenizer\n"
        "class Upper(WordTokenizer):\n"
        "    kind, name, version = 'tokenizer', 'upper', 1\n"
        "    class Config(ComponentConfig):\n"
        f"        type: str = '{path}:Upper'\n"
        "        mark: str = ''\n"
        "    def split(self, text):\n"
        "        return ((s.upper() + self.config.mark, i) for s, i in super().split(text))\n"
    )
    from lexarium.foundation import registry

    config: ComponentConfig = registry.find("tokenizer", f"{path}:Upper").Config(mark="!")
    write_corpus(tmp_path / "corpus", {"train": ["a b", "c"]})
    found = {}
    for workers in (0, 2):
        store: TokenStore = prepare(
            corpus_config(tmp_path / "corpus"), config, tmp_path / f"stores{workers}", workers
        )
        found[workers] = contents(store.folder)
        assert open_tokenizer(config, store.folder).symbols == ["<pad>", "A!", "B!", "C!"]
    assert found[0] == found[2]
