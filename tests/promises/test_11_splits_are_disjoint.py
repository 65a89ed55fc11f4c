"""Promise 11: splits are disjoint by document, before windowing; `prepare` counts what they share."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_config
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import Document
from lexarium.studies.assembly import Parts
from lexarium.studies.run import Run, stores_dir
from lexarium.tokens.prepare import prepare
from lexarium.training.parallel import World
from phonemes import JOINED, distinct_utterances
from toy import TYPE, corpus_config, tokenizer_config, write_corpus

SIZES = {"train": 3000, "val": 300, "test": 500, "ood": 500}
QUESTION, TENSE = "question_formation", "tense_inflection"
COMPOSITIONS: list[tuple[str, dict[str, Any]]] = [
    (QUESTION, {}),
    (QUESTION, {"seed": 5, "weights": "literal"}),
    (QUESTION, {"rule": "hierarchical"}),
    (QUESTION, {"rule": "linear"}),
    (QUESTION, {"disambiguating": 200}),
    (QUESTION, {"templates": 20, "template_weights": "uniform"}),
    (TENSE, {}),
    (TENSE, {"seed": 5, "weights": "literal"}),
    (TENSE, {"rule": "linear"}),
    (TENSE, {"disambiguating": 200}),
    (TENSE, {"templates": 30}),
]


def splits_of(kind: str, **options: Any) -> dict[str, list[Document]]:
    cls = registry.find("corpus", kind)
    corpus = cls(cls.Config(**{"sizes": SIZES, **options}))
    return {split: list(corpus.documents(split)) for split in corpus.splits}


@pytest.mark.parametrize(("kind", "options"), COMPOSITIONS, ids=lambda x: str(x))
def test_no_document_and_no_first_sentence_is_in_two_splits(kind: str, options: dict) -> None:
    """The second sentence follows from the first, so sharing the first would be sharing the answer."""
    splits = splits_of(kind, **options)
    assert {split: len(members) for split, members in splits.items()} == {
        **SIZES,
        "train": SIZES["train"] + options.get("disambiguating", 0),
    }
    for what in (lambda d: d.text, lambda d: d.text.split(" . ")[0]):
        sets = {split: {what(d) for d in members} for split, members in splits.items()}
        assert all(len(sets[split]) == len(members) for split, members in splits.items()), (
            "and none twice in one"
        )
        for one, other in itertools.combinations(sets, 2):
            assert not sets[one] & sets[other], (one, other)


@pytest.mark.parametrize("kind", [QUESTION, TENSE])
def test_the_splits_that_are_scored_do_not_depend_on_the_one_that_is_trained_on(kind: str) -> None:
    few, many = (splits_of(kind, sizes={**SIZES, "train": n}) for n in (500, 3000))
    assert [d.text for d in few["ood"]] == [d.text for d in many["ood"]]
    assert [d.text for d in few["train"]] == [d.text for d in many["train"][:500]]


# --- the report of prepare --------------------------------------------------------------------------


def overlap(folder: Path, splits: dict[str, Sequence[str]]) -> dict[str, int]:
    config = corpus_config(write_corpus(folder / "corpus", splits))
    return prepare(config, tokenizer_config(), folder / "stores").manifest["overlap"]


def test_prepare_counts_shared_documents(tmp_path: Path) -> None:
    shared = overlap(tmp_path, {"train": ["a b c", "d", "d"], "val": ["d", "a b"], "ood": ["c b a"]})
    assert shared == {"ood & train": 0, "ood & val": 0, "train & val": 1}


@pytest.mark.parametrize("kind", [QUESTION, TENSE])
def test_prepare_finds_nothing_shared_in_the_corpora_that_ship(tmp_path: Path, kind: str) -> None:
    cls = registry.find("corpus", kind)
    store = prepare(cls.Config(sizes=SIZES), tokenizer_config(), tmp_path)
    assert len(store.manifest["overlap"]) == 6 and set(store.manifest["overlap"].values()) == {0}


def test_a_document_that_is_two_documents_elsewhere_is_not_shared(tmp_path: Path) -> None:
    """Hashes are of whole documents; no separator can be imitated."""
    assert overlap(tmp_path, {"train": ["a b", "c"], "val": ["a b c", "a"]}) == {"train & val": 0}


# --- windows stay inside their split ------------------------------------------------------------------


@pytest.mark.parametrize("packing", [{"type": "documents"}, {"type": "windows", "seq_len": 7}])
def test_training_reads_the_training_split_only(tmp_path: Path, packing: dict) -> None:
    """Every word tells its split; in three epochs no other split's word is read."""
    splits = {
        s: [" ".join(f"{s}{i}-{j}" for j in range(i % 6 + 1)) for i in range(30)]
        for s in ("train", "val", "ood")
    }
    write_corpus(tmp_path / "corpus", splits)
    config = tiny_config(
        corpus={"type": TYPE, "folder": str(tmp_path / "corpus")}, packing=packing, evaluations=[]
    )
    run = Run.create(config, tmp_path)
    parts = Parts(config, stores_dir(tmp_path), run.path, print)
    loader, symbols = parts.loader(World(), keyed=False), parts.tokenizer.symbols
    seen = set()
    for step in range(3 * loader.examples_per_epoch // 8 + 1):
        for batch in loader.batches(step):
            seen |= set(batch.inputs["tokens"].reshape(-1).tolist()) | set(batch.targets["labels"].tolist())
    words = {symbols[i] for i in seen if 0 < i < len(symbols)}
    assert words == {word for text in splits["train"] for word in text.split()}


# --- text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split",
    [
        {"by": "document"},
        {"by": "file", "val": 0.3, "test": 0.3},
        {"by": "end"},
        {"by": "field", "field": "author", "val": 0.3, "test": 0.3},
    ],
    ids=lambda s: s["by"],
)
def test_no_line_of_text_is_in_two_splits(tmp_path: Path, split: dict[str, Any]) -> None:
    """Every line has a number of its own; held out before windows are cut, so none reads two splits."""
    lines = [(f"number {i:06d} of all lines", f"author {i * 7 // 3000}") for i in range(3000)]
    if split["by"] == "field":
        records = [json.dumps({"text": text + "\n", "author": author}) for text, author in lines]
        (tmp_path / "a.jsonl").write_text("\n".join(records) + "\n")
    else:
        for k in range(6):
            (tmp_path / f"{k}.txt").write_text("".join(text + "\n" for text, _ in lines[k::6]))
    cls = registry.find("corpus", "text_files")
    given = {
        "type": "text_files",
        "path": str(tmp_path),
        "block_bytes": 1024,
        "split": {"val": 0.1, "test": 0.1, **split},
    }
    given |= {"fields": ["author"]} if split["by"] == "field" else {}
    config = validate(cls.Config, Source(given))
    store = prepare(config, registry.find("tokenizer", "byte").Config(), tmp_path / "stores")
    seen = {}
    for name in store.splits:
        found = store.split(name)
        text = b"".join((found.tokens(i) - 1).astype("uint8").tobytes() for i in range(len(found))).decode()
        seen[name] = set(re.findall(r"number (\d{6})", text))
    assert set(seen) == {"train", "val", "test"} and sum(map(len, seen.values())) == 3000
    assert len(set.union(*seen.values())) == 3000
    if split["by"] == "field":
        author = {text[7:13]: who for text, who in lines}
        whose = {name: {author[i] for i in numbers} for name, numbers in seen.items()}
        assert not any(whose[a] & whose[b] for a, b in itertools.combinations(whose, 2))


# --- utterances ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [{}, {"by": "end"}, "named"], ids=str)
def test_no_utterance_is_in_two_splits_and_training_joins_those_of_train(tmp_path: Path, split: Any) -> None:
    """No symbol of the corpus occurs twice, so symbols tell whose utterances were read."""
    corpus: dict[str, Any] = {"type": "utterances", "path": str(tmp_path / "utterances.txt")}
    utterances = distinct_utterances(tmp_path)
    if split == "named":
        lines = Path(corpus["path"]).read_text(encoding="utf-8").splitlines(keepends=True)
        for name, part in (("utterances", lines[:30]), ("val", lines[30:36]), ("test", lines[36:])):
            (tmp_path / f"{name}.txt").write_text("".join(part), encoding="utf-8")
        corpus |= {f"{name}_path": str(tmp_path / f"{name}.txt") for name in ("val", "test")}
    else:
        corpus["split"] = {"val": 0.2, "test": 0.2, **split}
    options = {
        **JOINED,
        "corpus": corpus,
        "tokenizer": {"type": "symbol"},
        "view": {"subsample": {"count": 15}},
    }
    run = Run.create(tiny_config(**options, evaluations=[]), tmp_path)
    parts = Parts(run.config, stores_dir(tmp_path), run.path, print)
    symbols = parts.tokenizer.symbols
    held = {}
    for name in parts.store.splits:
        found = parts.store.split(name)
        held[name] = {symbols[t] for i in range(len(found)) for t in found.tokens(i).tolist()}
    assert set(held) == {"train", "val", "test"} and all(held.values())
    assert not any(held[a] & held[b] for a, b in itertools.combinations(held, 2))
    assert set.union(*held.values()) == {s for u in utterances for s in u}
    assert set(parts.store.manifest["overlap"].values()) == {0}
    loader, seen = parts.loader(World(), keyed=False), set()
    for step in range(3 * loader.examples_per_epoch // 8 + 1):
        for batch in loader.batches(step):
            seen |= set(batch.inputs["tokens"].reshape(-1).tolist()) | set(batch.targets["labels"].tolist())
    assert {symbols[i] for i in seen} - {"UTT_BOUNDARY"} < held["train"], "a sample of it, and nothing else"
