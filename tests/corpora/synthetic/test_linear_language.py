"""Linear languages: every sentence obeys its matrix, the worked example, cells that are each other's swap."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.synthetic.linear_language import LinearLanguage
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Document, UserError

MATRICES: dict[str, dict[str, Any]] = {
    "sparse": {},
    "inverse": {},
    "permutation": {},
    "banded": {},
    "random": {"ones": 20},
    "row_weight": {"row_weight": 3},
}


def language(**options: Any) -> LinearLanguage:
    options = {"m": 8, "sizes": {"train": 150, "val": 50, "test": 20}, **options}
    return LinearLanguage(validate(LinearLanguage.Config, Source({"type": "linear_language", **options})))


def halves(document: Document) -> tuple[np.ndarray, np.ndarray]:
    kinds = np.array(document.channels["half"])
    bits = np.array([int(c) if c in "01" else -1 for c in document.text])
    return bits[kinds == 0], bits[kinds == 1]


@pytest.mark.parametrize("separator", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_every_sentence_obeys_the_matrix(matrix: str, separator: bool) -> None:
    corpus = language(matrix=matrix, separator=separator, **MATRICES[matrix])
    rows = [[j for j in range(8) if row[j]] for row in corpus.matrix.tolist()]
    back = [[j for j in range(8) if row[j]] for row in corpus.inverse.tolist()]
    for split in corpus.splits:
        for document in corpus.documents(split):
            x, y = halves(document)
            assert [sum(int(x[j]) for j in row) % 2 for row in rows] == y.tolist()
            assert [sum(int(y[j]) for j in row) % 2 for row in back] == x.tolist()
            assert document.text.count("=") == int(separator) and len(document.text) == 16 + int(separator)


def test_the_worked_example_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = language(m=3, sizes={"train": 8, "val": 0})
    monkeypatch.setattr(LinearLanguage, "matrix", np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]], dtype=np.uint8))
    texts = {d.text for d in corpus.documents("train")}
    assert texts == {"000000", "100100", "010111", "110011", "001001", "101101", "011110", "111010"}


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_whole_language_is_uniform_in_both_halves(matrix: str) -> None:
    corpus = language(matrix=matrix, sizes={"train": 256, "val": 0}, **MATRICES[matrix])
    pairs = [halves(d) for d in corpus.documents("train")]
    for side in (0, 1):
        assert Counter(tuple(p[side].tolist()) for p in pairs) == Counter(
            tuple((n >> i) & 1 for i in range(8)) for n in range(256)
        )


def test_no_sentence_is_in_two_splits_and_val_does_not_depend_on_train() -> None:
    corpus = language()
    texts = {s: [d.text for d in corpus.documents(s)] for s in corpus.splits}
    assert {s: len(t) for s, t in texts.items()} == {"train": 150, "val": 50, "test": 20}
    assert len(set().union(*texts.values())) == 220
    smaller = language(sizes={"train": 10, "val": 50, "test": 20})
    assert [d.text for d in smaller.documents("val")] == texts["val"]
    assert [d.text for d in smaller.documents("train")] == texts["train"][:10]


def test_plus_and_minus_are_each_others_swap() -> None:
    plus, minus = language(matrix="sparse"), language(matrix="inverse")
    assert np.array_equal(plus.matrix, minus.inverse) and plus.density() == minus.density()[::-1] == (15, 36)
    swapped = {
        tuple(np.concatenate(halves(d)[::-1]).tolist()) for s in plus.splits for d in plus.documents(s)
    }
    whole = language(matrix="inverse", sizes={"train": 256, "val": 0})
    assert swapped <= {tuple(map(int, d.text)) for d in whole.documents("train")}


def test_seeds() -> None:
    matrix = lambda **options: language(**options).matrix.tolist()
    text = lambda **options: [d.text[:8] for d in language(**options).documents("val")]
    assert matrix() == matrix(seed=0) != matrix(seed=1) == matrix(matrix_seed=1)
    assert text() == text(matrix_seed=5) != text(seed=1), "x does not depend on the matrix"


@given(st.integers(2, 60), st.sampled_from(["forward", "backward", "permutation"]), st.booleans())
def test_floors_add_up_to_the_entropy_of_the_sentence(m: int, direction: str, separator: bool) -> None:
    floors = language(m=m, separator=separator, sizes={"train": 1}).floors(direction)
    assert math.isclose(floors[""], math.log(2.0**m))
    parts = {k: v for k, v in floors.items() if k}
    assert not parts or math.isclose(sum(parts.values()), floors[""])
    if direction != "permutation":
        free = {"forward": "half.0", "backward": "half.1"}[direction]
        assert {k for k, v in parts.items() if v > 0} == {free}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix": "random"}, "matrix random needs `ones`, 8 to 64"),
        ({"matrix": "random", "ones": 7}, "needs `ones`, 8 to 64"),
        ({"ones": 20}, "`ones` belongs to matrix random, not to sparse"),
        ({"matrix": "row_weight", "row_weight": 2}, "needs `row_weight`, an odd number up to 8"),
        ({"row_weight": 3}, "`row_weight` and `draws` belong to matrix row_weight"),
        ({"draws": 3}, "belong to matrix row_weight"),
        ({"sizes": {"train": 0, "val": 0}}, "every split has size 0"),
        ({"m": 1}, "greater than or equal to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        language(**options)


def test_more_sentences_than_there_are_and_unknown_splits_are_refused() -> None:
    with pytest.raises(UserError, match=r"with m=8 has 256 sentences, corpus\.sizes asks for 300"):
        list(language(sizes={"train": 250, "val": 50}).documents("val"))
    with pytest.raises(UserError, match="linear_language has no split 'ood'; it has train, val, test"):
        list(language().documents("ood"))
