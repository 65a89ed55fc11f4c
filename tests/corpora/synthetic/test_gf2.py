"""Matrices over GF(2): the exact inverse against numpy's determinant and hand-worked cases, and the density of
inverses against the published curve (section 8.2 of the specification of the study)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.synthetic import gf2
from lexarium.foundation.rng import generator
from lexarium.foundation.types import UserError


@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_a_matrix_has_an_inverse_exactly_when_its_determinant_is_odd(m: int, seed: int, share: float) -> None:
    matrix = (generator(seed, "matrix").random((m, m)) < share).astype(np.uint8)
    found = gf2.inverse(matrix)
    odd = bool(round(np.linalg.det(matrix.astype(np.float64))) % 2)
    assert (found is not None) == odd
    if found is not None:
        wide, back, unit = matrix.astype(np.int64), found.astype(np.int64), np.eye(m)
        assert np.array_equal(wide @ back % 2, unit) and np.array_equal(back @ wide % 2, unit)
        assert set(np.unique(found)) <= {0, 1}


def test_inverses_worked_by_hand() -> None:
    swap = np.array([[0, 1], [1, 0]])
    assert np.array_equal(gf2.inverse(swap), swap)
    shear = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    assert np.array_equal(gf2.inverse(shear), shear), "adding a row twice is adding nothing"
    assert gf2.inverse(np.array([[1, 1], [1, 1]])) is None
    even = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    assert gf2.inverse(even) is None, "rows of even weight add up to zero"


@pytest.mark.parametrize("m", [2, 5, 12, 20])
def test_the_sparse_matrix_and_its_inverse_have_the_ones_they_should(m: int) -> None:
    for seed in range(5):
        matrix = gf2.sparse(m, generator(seed, "m"))
        assert set(matrix.sum(axis=1)) == {1, 2} and matrix.sum() == 2 * m - 1
        inverted = gf2.inverse(matrix)
        assert inverted is not None and inverted.sum() == m * (m + 1) // 2
    assert not np.array_equal(gf2.sparse(m, generator(0, "m")), gf2.banded(m).T)


def test_the_band_is_the_identity_and_the_diagonal_above_it() -> None:
    assert gf2.banded(3).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    inverted = gf2.inverse(gf2.banded(3))
    assert inverted is not None and inverted.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_a_permutation_has_one_one_in_every_row_and_column() -> None:
    matrix = gf2.permutation(9, generator(3, "p"))
    assert (matrix.sum(axis=0) == 1).all() and (matrix.sum(axis=1) == 1).all()
    assert np.array_equal(gf2.inverse(matrix), matrix.T)


@pytest.mark.parametrize(("ones", "low", "high"), [(30, 30, 30), (50, 63, 77), (75, 195, 235)])
def test_inverses_of_random_sparse_matrices_are_as_dense_as_published(ones: int, low: int, high: int) -> None:
    """30 x 30, figure sparsity_inv.svg of the authors: about 70 ones for 50, about 214 for 75."""
    random, found = generator(8, "density", ones), []
    for _ in range(200):
        matrix = gf2.with_ones(30, ones, random)
        assert matrix.sum() == ones and (matrix.sum(axis=1) >= 1).all()
        inverted = gf2.inverse(matrix)
        assert inverted is not None
        found.append(int(inverted.sum()))
    assert low <= np.mean(found) <= high


def test_equal_row_weights_and_the_densest_inverse() -> None:
    dense = lambda matrix: int(gf2.inverse(matrix).sum())  # type: ignore[union-attr]
    one = [dense(gf2.with_row_weight(10, 3, 1, generator(s, "w"))) for s in range(20)]
    best = [dense(gf2.with_row_weight(10, 3, 50, generator(s, "w"))) for s in range(20)]
    assert min(best) >= max(np.median(one), 50) and np.mean(best) > np.mean(one)
    assert (gf2.with_row_weight(10, 3, 5, generator(1, "w")).sum(axis=1) == 3).all()
    with pytest.raises(UserError, match="0 invertible 6 x 6 matrices with 2 ones in every row"):
        gf2.with_row_weight(6, 2, 1, generator(1, "w"))


def test_a_full_matrix_cannot_be_inverted() -> None:
    with pytest.raises(UserError, match="no invertible 4 x 4 matrix with 16 ones"):
        gf2.with_ones(4, 16, generator(1, "o"))
