"""Randomness is a function, not a state.

`key(seed, *names)` is the only source of seeds: a hash of its arguments. Whatever needs random numbers
asks for them by name, so that the order in which things happen, the number of workers, evaluations in
between and interruptions cannot change them. Nothing seeds a global generator.

`Permutation` is random access to a shuffled range: O(1) memory, any element without the others, by a
balanced Feistel network with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002). `mix32` is the 32-bit finaliser of MurmurHash3, in numpy; `models.dropout`
holds the same function for tensors.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_ROUNDS = 6
_BLOCK = 1 << 15


def key(seed: int, *names: str | int) -> int:
    """A 63-bit integer that depends on `seed` and every name, and on nothing else."""
    doubled = lambda name: str(name).replace("\x1f", "\x1f\x1f")  # so that no name can imitate two
    text = "\x1f".join([str(int(seed)), *(f"{type(n).__name__[0]}:{doubled(n)}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for this name; its stream is fixed by the Philox algorithm."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def legacy_shuffle(n: int, seed: int) -> np.ndarray:
    """(n,) int64: range(n) as numpy's default generator (PCG64) shuffles it: how published code draws splits."""
    return np.random.default_rng(seed).permutation(n)


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator for this name."""
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(key(seed, *names))
    return generator


def spread(number: int, start: float = 0.0) -> float:
    """frac(start + number * golden ratio): the values of any run of numbers lie evenly in [0, 1)."""
    return (start + number * 0.6180339887498949) % 1.0


def mix32(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3 on uint32 arrays: every input bit reaches every output bit."""
    x = np.asarray(x, dtype=np.uint32)
    y = x >> np.uint32(
        16
    )  # two arrays in turn: in a batch of many tokens, new memory costs more than the sums
    y ^= x
    y *= np.uint32(0x85EBCA6B)
    z = y >> np.uint32(13)
    z ^= y
    z *= np.uint32(0xC2B2AE35)
    y = np.right_shift(z, np.uint32(16), out=y if y.ndim else None)
    y ^= z
    return y


def mix32_int(x: int) -> int:
    """`mix32` of one Python integer (taken modulo 2**32)."""
    x &= 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


class Permutation:
    """A fixed shuffle of range(n), one element at a time.

    `Permutation(n, key)[i]` for an integer or an integer array; a bijection of range(n) for every key.
    """

    def __init__(self, n: int, key: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, got n={n}")
        self.n = n
        self._block: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)
        self._mask = np.uint32((1 << self._half) - 1)
        low, high = key & 0xFFFFFFFF, key >> 32
        self._keys = [
            np.uint32(mix32_int(low + mix32_int(high ^ (0x9E3779B9 * (r + 1))))) for r in range(_ROUNDS)
        ]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int | np.ndarray) -> int | np.ndarray:
        if isinstance(index, int):
            self._check(index, index)
            return int(self._around(index // _BLOCK)[index % _BLOCK])
        index = np.asarray(index, dtype=np.int64)
        if index.size == 0:
            return index.copy()
        first, last = int(index.min()), int(index.max())
        self._check(first, last)
        number = first // _BLOCK
        return self._around(number)[index - number * _BLOCK] if last // _BLOCK == number else self._map(index)

    def all(self) -> np.ndarray:
        """(n,) int64: the whole shuffle; beside the result it needs the memory of one block."""
        found = np.empty(self.n, dtype=np.int64)
        for start in range(0, self.n, _BLOCK):
            found[start : start + _BLOCK] = self._map(np.arange(start, min(self.n, start + _BLOCK)))
        return found

    def _check(self, first: int, last: int) -> None:
        if first < 0 or last >= self.n:
            raise IndexError(f"index outside 0..{self.n - 1}")

    def _around(self, number: int) -> np.ndarray:
        """A block of elements. Neighbours are asked for one after the other: the last block is kept."""
        known, block = self._block  # read once: another thread may put its own block there
        if known != number:
            block = self._map(np.arange(number * _BLOCK, min(self.n, (number + 1) * _BLOCK)))
            self._block = (number, block)
        return block

    def _map(self, i: np.ndarray) -> np.ndarray:
        x = self._encrypt(i.astype(np.uint64))
        places = np.flatnonzero(x >= self.n)
        outside = x[places]
        while len(places):  # cycle walking: the domain is below 4n, so few rounds
            outside = self._encrypt(outside)
            inside = outside < self.n
            x[places[inside]] = outside[inside]
            places, outside = places[~inside], outside[~inside]
        return x.astype(np.int64)

    def _encrypt(self, x: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half)
        left, right = (
            (x >> half).astype(np.uint32),
            x.astype(np.uint32) & self._mask,
        )  # no half has over 32 bits
        for k in self._keys:
            mixed = mix32(right ^ k)
            mixed &= self._mask
            mixed ^= left
            left, right = right, mixed
        return (left.astype(np.uint64) << half) | right
