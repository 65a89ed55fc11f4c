"""Matrices over GF(2): drawing them, and their exact inverse by Gauss-Jordan elimination.

A matrix is an (m, m) uint8 array of 0 and 1. Elimination works on rows of [A | I] with exclusive or, O(m^3 / row
operations on whole rows) = well below a millisecond for m = 30. A matrix without inverse gives None; drawing repeats
until one has, at most `DRAWS` times.

    permutation   a random permutation matrix: its inverse is as sparse as itself
    banded        I + superdiagonal. Its inverse is a full triangle, and still there is no arrow: y_i = x_i + x_{i+1}
                  reads backward as x_i = y_i + x_{i+1}, and x_{i+1} was just read
    sparse        P (I + subdiagonal) Q with random permutations P and Q, which take that shortcut away: 2m - 1 ones,
                  m (m + 1) / 2 in the inverse
    random        a random permutation plus ones at random empty places
    row_weight    the same odd number of ones in every row; the draw with the densest inverse of several
"""

from __future__ import annotations

import numpy as np

from lexarium.foundation.types import UserError

DRAWS = 10_000


def inverse(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse over GF(2) of (m, m) zeros and ones, or None when there is none."""
    m = len(matrix)
    rows = np.concatenate([matrix.astype(bool), np.eye(m, dtype=bool)], axis=1)
    for column in range(m):
        below = np.flatnonzero(rows[column:, column])
        if len(below) == 0:
            return None
        pivot = column + int(below[0])
        rows[[column, pivot]] = rows[[pivot, column]]
        others = rows[:, column].copy()
        others[column] = False
        rows[others] ^= rows[column]
    return rows[:, m:].astype(np.uint8)


def permutation(m: int, random: np.random.Generator) -> np.ndarray:
    """A random permutation matrix."""
    return np.eye(m, dtype=np.uint8)[random.permutation(m)]


def banded(m: int) -> np.ndarray:
    """I + superdiagonal."""
    return np.eye(m, dtype=np.uint8) + np.eye(m, k=1, dtype=np.uint8)


def sparse(m: int, random: np.random.Generator) -> np.ndarray:
    """P (I + subdiagonal) Q."""
    rows, columns = random.permutation(m), random.permutation(m)
    return banded(m).T[rows][:, columns]


def with_ones(m: int, ones: int, random: np.random.Generator) -> np.ndarray:
    """A random permutation plus `ones` - m further ones at distinct random empty places, drawn until invertible."""
    for _ in range(DRAWS):
        matrix = permutation(m, random)
        empty = np.flatnonzero(matrix.reshape(-1) == 0)
        matrix.reshape(-1)[random.choice(empty, ones - m, replace=False)] = 1
        if inverse(matrix) is not None:
            return matrix
    raise UserError(
        f"no invertible {m} x {m} matrix with {ones} ones in {DRAWS:,} draws; ask for fewer corpus.ones"
    )


def with_row_weight(m: int, weight: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """`weight` ones in every row; of `draws` invertible matrices the one whose inverse has the most ones."""
    best, most, found = None, -1, 0
    for _ in range(DRAWS):
        chosen = np.argsort(random.random((m, m)), axis=1)[:, :weight]
        matrix = np.zeros((m, m), dtype=np.uint8)
        np.put_along_axis(matrix, chosen, 1, axis=1)
        inverted = inverse(matrix)
        if inverted is None:
            continue
        found += 1
        if int(inverted.sum()) > most:
            best, most = matrix, int(inverted.sum())
        if found == draws:
            break
    if best is None or found < draws:
        raise UserError(
            f"{found} invertible {m} x {m} matrices with {weight} ones in every row in {DRAWS:,} draws, corpus.draws"
            f" asks for {draws}; ask for fewer, or another corpus.row_weight"
        )
    return best
