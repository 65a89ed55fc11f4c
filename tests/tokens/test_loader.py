"""The batch of a step is a function of the step: whoever asks, in whatever order, on however many processes."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation import registry
from lexarium.foundation.types import Batch, Document, UserError
from lexarium.tokens.loader import Loader, assemble, in_order
from lexarium.tokens.packing import SEPARATOR, Piece
from lexarium.tokens.store import TokenStore
from lexarium.tokens.tokenizers import FILE
from toy import tokenizer_config, toy_store

TEXTS = [" ".join(f"d{i}w{j}" for j in range(i % 5 + 1)) for i in range(17)]
"""Every word occurs once, so an id tells its document and place."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    documents = [Document(t, {"n": i}, {"letter": [ord(c) for c in t]}) for i, t in enumerate(TEXTS)]
    return toy_store(tmp_path_factory.mktemp("store"), {"train": documents})


def tokenizer_of(store: TokenStore) -> Any:
    tokenizer = registry.find("tokenizer", "word")(tokenizer_config())
    assert (store.folder / FILE).exists()
    tokenizer.load(store.folder)
    return tokenizer


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *arguments)


def loader(store: TokenStore, packing: Any = None, direction: str = "forward", **options: Any) -> Loader:
    objective = make("objective", "causal", tokenizer_of(store))
    options = {"global_batch_size": 5, "order_seed": 3, "dropout_seed": 4, **options}
    packing = packing or make("packing", "documents")
    return Loader(store.view("train"), packing, make("direction", direction), objective, **options)


def same(a: list[Batch], b: list[Batch]) -> bool:
    """Equal to the bit."""
    tensors = lambda batch: {**batch.inputs, **{f"target {k}": v for k, v in batch.targets.items()}}
    return len(a) == len(b) and all(
        x.examples == y.examples
        and x.weights == y.weights
        and x.n_tokens == y.n_tokens
        and tensors(x).keys() == tensors(y).keys()
        and all(torch.equal(tensors(x)[k], tensors(y)[k]) for k in tensors(x))
        for x, y in zip(a, b, strict=True)
    )


def test_the_order_of_questions_does_not_matter(store: TokenStore) -> None:
    steps = list(range(12))
    forwards = loader(store)
    expected = [forwards.batches(s) for s in steps]
    backwards = loader(store)
    for s in reversed(steps):
        assert same(backwards.batches(s), expected[s])
        assert same(backwards.batches(s), expected[s]), "asked twice"


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_matter(store: TokenStore, workers: int) -> None:
    alone, helped = loader(store), loader(store, workers=workers)
    try:
        for step in [0, 1, 2, 3, 9, 10, 2, 30, 31]:  # jumps, as after a resume
            assert same(helped.batches(step), alone.batches(step))
    finally:
        helped.close()


@pytest.mark.parametrize("packing", ["documents", "windows"])
def test_every_epoch_has_every_example_once(store: TokenStore, packing: str) -> None:
    """17 documents, or 16 windows of 4 (48 words, 17 separators), in batches of 5: batches straddle epochs and nothing is lost."""
    options = {"seq_len": 4} if packing == "windows" else {}
    batches = loader(store, make("packing", packing, **options))
    n = batches.examples_per_epoch
    assert n == (17 if packing == "documents" else (48 + 17) // 4)
    seen = [number for step in range(3 * n) for batch in batches.batches(step) for number in batch.examples]
    assert seen == list(range(5 * 3 * n)), "numbers count through the epochs"
    for epoch in range(15):
        documents = collections.Counter(
            token for i in range(n) for token in batches.example(epoch * n + i).ids.tolist()
        )
        repeated = {t for t, count in documents.items() if count > 1}
        assert repeated <= {batches.objective.roles["eos"]}
        assert all(batches.example(epoch * n + i).epoch == epoch for i in range(n))
    assert batches.epoch(n) == 5.0 and batches.epoch(0) == 0.0


def test_batches_may_hold_two_epochs(store: TokenStore) -> None:
    batches = loader(store)
    (batch,) = batches.batches(3)  # examples 15 16 of epoch 0, then 17 18 19 = 0 1 2 of epoch 1
    assert batch.examples == (15, 16, 17, 18, 19)
    assert [batches.example(number).epoch for number in batch.examples] == [0, 0, 1, 1, 1]


@given(st.integers(1, 13), st.integers(1, 13), st.integers(0, 20), st.integers(1, 13))
def test_processes_share_the_global_batch(
    store: TokenStore, size: int, ranks: int, step: int, micro: int
) -> None:
    if ranks > size:
        with pytest.raises(
            UserError, match=f"{ranks} processes cannot share a global batch of {size} examples"
        ):
            loader(store, global_batch_size=size, rank=0, world_size=ranks)
        return
    whole = loader(store, global_batch_size=size)
    shares = []
    for rank in range(ranks):
        here = loader(store, global_batch_size=size, micro_batch_size=micro, rank=rank, world_size=ranks)
        assert here.numbers(step).tolist() == whole.numbers(step).tolist()
        assert len(here.own(step)) > 0
        batches = here.batches(step)
        assert all(len(batch.examples) <= micro for batch in batches)
        assert [n for batch in batches for n in batch.examples] == here.own(step).tolist()
        shares += here.own(step).tolist()
    assert shares == whole.numbers(step).tolist() == list(range(step * size, (step + 1) * size))


def test_dropout_keys_belong_to_the_token_not_to_the_layout(store: TokenStore) -> None:
    whole, parts = loader(store, global_batch_size=6), loader(store, global_batch_size=6, micro_batch_size=1)
    step = 4

    def keys(batches: list[Batch]) -> dict[int, list[int]]:
        found = {}
        for batch in batches:
            rows, real = batch.inputs["token_key"].reshape(-1), batch.inputs.get("real")
            flat = rows if real is None else rows[real]
            lengths = [len(whole.example(number)) + 1 for number in batch.examples]
            for number, row in zip(batch.examples, flat.split(lengths), strict=True):
                found[number] = row.tolist()
        return found

    assert keys(whole.batches(step)) == keys(parts.batches(step))
    everything = [k for s in range(20) for row in keys(whole.batches(s)).values() for k in row]
    assert len(set(everything)) > len(everything) - 3, "another step, example or place has another key"


def test_without_dropout_there_are_no_keys(store: TokenStore) -> None:
    assert "token_key" not in loader(store, keyed=False).batches(0)[0].inputs


def test_seeds_are_separate_factors(store: TokenStore) -> None:
    one = loader(store).batches(1)[0]
    other_dropout = loader(store, dropout_seed=5).batches(1)[0]
    other_order = loader(store, order_seed=5).batches(1)[0]
    assert torch.equal(one.inputs["tokens"], other_dropout.inputs["tokens"])
    assert not torch.equal(one.inputs["token_key"], other_dropout.inputs["token_key"])
    assert one.targets["labels"].tolist() != other_order.targets["labels"].tolist()


# --- examples ---------------------------------------------------------------------------------------


def test_a_hand_worked_window(store: TokenStore) -> None:
    """Separator of an earlier document, then the end of one, its separator, and the beginning of another."""
    tokenizer = tokenizer_of(store)
    objective = make("objective", "causal", tokenizer)
    objective.channels = ("letter",)
    eos, word = objective.roles["eos"], tokenizer.id
    pieces = [Piece(SEPARATOR, 0, 1), Piece(4, 3, 5), Piece(SEPARATOR, 0, 1), Piece(9, 0, 2)]
    found = assemble(store.view("train"), pieces, objective, number=7, epoch=1)
    assert found.ids.tolist() == [eos, word("d4w3"), word("d4w4"), eos, word("d9w0"), word("d9w1")]
    assert found.position.tolist() == [0, 3, 4, 5, 0, 1]
    assert found.documents == (4, 9)
    assert (found.index, found.epoch) == (7, 1)
    assert found.segment.tolist() == [0, 1, 1, 1, 2, 2], "a separator belongs to the document before it"
    assert found.channels["letter"].tolist() == [0, ord("d"), ord("d"), ord("d"), ord("d"), ord("d")]


@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=5))
def test_arrays_of_an_example_are_aligned(store: TokenStore, cuts: list[tuple[int, int, int]]) -> None:
    tokenizer = tokenizer_of(store)
    objective = make("objective", "causal", tokenizer)
    objective.channels = ("letter",)
    pieces = [Piece(d, a, min(a + n, d % 5 + 1)) for d, a, n in cuts if a < d % 5 + 1]
    if not pieces:
        return
    found = assemble(store.view("train"), pieces, objective)
    words = [f"d{p.document}w{j}" for p in pieces for j in range(p.start, p.stop)]
    assert [tokenizer.symbols[i] for i in found.ids] == words
    assert [f"w{p}" for p in found.position] == ["w" + w.partition("w")[2] for w in words]
    assert [pieces[s].document for s in found.segment] == [int(w[1:].partition("w")[0]) for w in words]
    assert found.channels["letter"].tolist() == [ord("d")] * len(words)
    assert {len(found.ids), len(found.position), len(found.segment)} == {len(words)}


def test_documents_in_corpus_order(store: TokenStore) -> None:
    tokenizer = tokenizer_of(store)
    objective = make("objective", "causal", tokenizer)
    for direction in ("forward", "backward"):
        found = list(in_order(store.view("train"), make("direction", direction), objective))
        texts = [TEXTS[i].split()[:: -1 if direction == "backward" else 1] for i in range(17)]
        assert [[tokenizer.symbols[i] for i in e.ids] for e in found] == texts
        assert [e.documents for e in found] == [(i,) for i in range(17)]
        assert [e.index for e in found] == list(range(17))


def test_an_error_in_a_thread_reaches_the_caller(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    helped = loader(store, workers=2)

    def fail(*arguments: object, **options: object) -> Batch:
        raise UserError("something is wrong with a document")

    monkeypatch.setattr(helped.objective, "collate", fail)
    try:
        with pytest.raises(UserError, match="wrong with a document"):
            helped.batches(0)
    finally:
        helped.close()


def test_an_empty_remainder_of_a_share_is_no_batch(store: TokenStore) -> None:
    here = loader(store, global_batch_size=5, micro_batch_size=2, rank=1, world_size=2)
    assert [len(batch.examples) for batch in here.batches(0)] == [2]
    assert np.array_equal(here.own(0), [3, 4])


def test_files_of_the_store_are_not_written(store: TokenStore) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(store.folder).rglob("*")}
    loader(store).batches(0)
    assert {p: p.stat().st_mtime_ns for p in Path(store.folder).rglob("*")} == before
