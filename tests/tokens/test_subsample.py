"""Samples of a split: as many as asked, nested, whole documents, other splits and the vocabulary untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation.config import ConfigError, Source, identity, validate
from lexarium.foundation.rng import generator
from lexarium.foundation.types import Document, UserError
from lexarium.tokens import prepare as preparation
from lexarium.tokens.store import TokenStore, View, ViewConfig
from toy import toy_store

N = 211


def documents(n: int) -> list[Document]:
    lengths = generator(3, "lengths").integers(1, 9, n)
    return [
        Document(
            " ".join(["a"] * int(k)), {"words": -(-int(k) // 2), "kind": "even" if i % 2 == 0 else "odd"}
        )
        for i, k in enumerate(lengths)
    ]


TRAIN = documents(N)
WORTH = {
    "documents": [1] * N,
    "words": [int(d.fields["words"]) for d in TRAIN],
    "tokens": [len(d.text.split()) + 1 for d in TRAIN],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "PART", 40)
        return toy_store(tmp_path_factory.mktemp("store"), {"train": TRAIN, "val": TRAIN[:30]})


def sample(store: TokenStore, what: str, n: int, split: str = "train", **options: Any) -> View:
    more = {key: options.pop(key) for key in list(options) if key not in ("stretch", "seed")}
    config = validate(ViewConfig, Source({"subsample": {"unit": what, "count": n, **options}, **more}))
    return store.view(split, config)


WHAT = st.sampled_from(sorted(WORTH))
SHARE = st.floats(0.001, 1)


@given(what=WHAT, share=SHARE, stretch=st.sampled_from([1, 2, 7, 300]), seed=st.integers(0, 5))
def test_the_last_document_taken_is_the_first_that_is_enough(
    store: TokenStore, what: str, share: float, stretch: int, seed: int
) -> None:
    worth, wanted = np.array(WORTH[what]), max(1, int(sum(WORTH[what]) * share))
    found = sample(store, what, wanted, stretch=stretch, seed=seed).documents
    assert (np.diff(found) > 0).all(), "in corpus order, each once"
    total = int(worth[found].sum())
    assert wanted <= total < wanted + int(worth.max())
    fewer = sample(store, what, total - 1, stretch=stretch, seed=seed) if total > 1 else None
    if fewer is not None and total - 1 >= wanted:  # any count between takes the same documents
        assert fewer.documents.tolist() == found.tolist()
    whole = [len(set(found) & set(range(s, min(N, s + stretch)))) for s in range(0, N, stretch)]
    cut = [n for s, n in zip(range(0, N, stretch), whole, strict=True) if 0 < n < min(stretch, N - s)]
    assert len(cut) <= 1, "all but one stretch are whole or left out"


@given(
    a=st.tuples(WHAT, SHARE),
    b=st.tuples(WHAT, SHARE),
    stretch=st.sampled_from([1, 5]),
    seed=st.integers(0, 3),
)
def test_samples_of_one_seed_are_nested(
    store: TokenStore, a: tuple[str, float], b: tuple[str, float], stretch: int, seed: int
) -> None:
    one, two = (
        set(sample(store, what, max(1, int(sum(WORTH[what]) * share)), stretch=stretch, seed=seed).documents)
        for what, share in (a, b)
    )
    assert one <= two or two <= one


def test_it_is_random_and_repeatable(store: TokenStore) -> None:
    draws = [tuple(sample(store, "documents", 50, seed=seed).documents) for seed in range(200)]
    assert draws[0] == tuple(sample(store, "documents", 50).documents) and len(set(draws)) == 200
    taken = np.bincount(np.concatenate(draws), minlength=N) / 200
    assert abs(taken.mean() - 50 / N) < 1e-9
    assert abs(taken - 50 / N).max() < 5 * np.sqrt(50 / N * (1 - 50 / N) / 200)  # 5 sigma, of a binomial


def test_it_comes_after_the_filters_and_leaves_the_other_splits(store: TokenStore) -> None:
    found = sample(store, "documents", 60, keep={"kind": "odd"})
    assert len(found) == 60 and {found.fields(i)["kind"] for i in range(60)} == {"odd"}
    assert len(sample(store, "documents", 60, split="val")) == 30
    assert len(sample(store, "documents", 7, split="val", splits=["val"])) == 7
    assert len(sample(store, "words", sum(WORTH["words"]))) == N


def test_more_than_there_is(store: TokenStore, tmp_path: Path) -> None:
    for what, worth in WORTH.items():
        told = rf"9,999 {what} are asked for, and the 211 documents it takes from hold {sum(worth):,}; ask for fewer"
        with pytest.raises(UserError, match=told):
            sample(store, what, 9999)
    plain = toy_store(tmp_path, {"train": [Document("a", {"words": "two"})]})
    with pytest.raises(
        UserError, match=r"no field 'words' that holds numbers \(fields: words\); corpus utterances"
    ):
        sample(plain, "words", 1)


@pytest.mark.parametrize(
    "data", [{}, {"count": 0}, {"unit": "chunks", "count": 1}, {"count": 5, "stretch": 0}]
)
def test_samples_that_cannot_be_written(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"subsample\.(count|unit|stretch)"):
        validate(ViewConfig, Source({"subsample": data}))


def test_a_view_without_one_is_named_as_before() -> None:
    assert "subsample" not in identity(ViewConfig())
