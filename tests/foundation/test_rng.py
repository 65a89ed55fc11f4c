"""Keyed randomness: equal arguments give equal numbers, other arguments unrelated ones; shuffles are bijections."""

from __future__ import annotations

import collections
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lexarium.foundation import rng
from lexarium.models.dropout import mix32 as mix32_torch

words = st.integers(0, 2**32 - 1)
keys = st.integers(0, 2**63 - 1)


# --- keys -------------------------------------------------------------------------------------------


def test_keys_depend_on_every_argument_and_its_place() -> None:
    arguments = [
        (1,),
        (2,),
        (1, "a"),
        (1, "b"),
        (1, "a", "b"),
        (1, "b", "a"),
        (1, "ab"),
        (1, "a", 1),
        (1, "a", "1"),
        (1, 1, "a"),
        (11, "a"),
        (1, ""),
        (1, "", ""),
        (-1,),
    ]
    found = {a: rng.key(*a) for a in arguments}
    assert len(set(found.values())) == len(arguments)
    assert all(0 <= k < 2**63 for k in found.values())


def test_a_name_cannot_imitate_two_names() -> None:
    assert rng.key(1, "a\x1fs:b") != rng.key(1, "a", "b")
    assert rng.key(1, "a", "b\x1fi:3") != rng.key(1, "a", "b", 3)


def test_keys_are_the_same_in_every_process() -> None:
    """A hash that depends on PYTHONHASHSEED would make runs differ from machine to machine."""
    code = (
        "from lexarium.foundation import rng; print(rng.key(3, 'order', 7), rng.generator(3, 'x').random())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{rng.key(3, 'order', 7)} {rng.generator(3, 'x').random()}\n"}


def test_numpy_integers_are_integers() -> None:
    assert rng.key(np.int64(3), "a", np.int64(5)) == rng.key(3, "a", 5)


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_neighbouring_seeds_share_no_structure(seed: int, step: int) -> None:
    difference = rng.key(seed, "x", step) ^ rng.key(seed, "x", step + 1)
    assert 8 <= difference.bit_count() <= 55  # 31.5 +- 3.97; six standard deviations


def test_generators_are_independent_of_each_other_and_of_the_global_state() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    first = rng.generator(5, "a").random(3), torch.rand(3, generator=rng.torch_generator(5, "a"))
    np.random.seed(1)
    torch.manual_seed(1)
    rng.generator(5, "b").random(100)
    second = rng.generator(5, "a").random(3), torch.rand(3, generator=rng.torch_generator(5, "a"))
    assert np.array_equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not np.array_equal(first[0], rng.generator(5, "b").random(3))


# --- mix32 ------------------------------------------------------------------------------------------


def test_mix32_gives_the_published_vectors() -> None:
    """MurmurHash3_x86_32 of the empty string is the finaliser of its seed; these three are in its test lists."""
    assert rng.mix32_int(0) == 0
    assert rng.mix32_int(1) == 0x514E28B7
    assert rng.mix32_int(0xFFFFFFFF) == 0x81F16F39


def plain_finaliser(h: int) -> int:
    """fmix32 as written in MurmurHash3.cpp."""
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


@given(st.lists(words, min_size=1, max_size=50))
def test_mix32_agrees_in_python_numpy_and_torch(values: list[int]) -> None:
    expected = [plain_finaliser(v) for v in values]
    array = np.array(values, dtype=np.uint32)
    assert [rng.mix32_int(v) for v in values] == expected
    assert rng.mix32(array).tolist() == expected
    tensor = torch.from_numpy(array.view(np.int32))
    assert mix32_torch(tensor).numpy().view(np.uint32).tolist() == expected


@given(words)
def test_mix32_is_a_bijection(value: int) -> None:
    """Undone step by step with the inverse multipliers."""
    h = rng.mix32_int(value)
    h ^= h >> 16
    h = h * pow(0xC2B2AE35, -1, 2**32) % 2**32
    h ^= h >> 13 ^ h >> 26
    h = h * pow(0x85EBCA6B, -1, 2**32) % 2**32
    assert h ^ h >> 16 == value


def test_mix32_flips_every_output_bit_half_of_the_time() -> None:
    inputs = rng.generator(0, "avalanche").integers(0, 2**32, 4000, dtype=np.uint32)
    for bit in range(32):
        changed = rng.mix32(inputs) ^ rng.mix32(inputs ^ np.uint32(1 << bit))
        rates = [(changed >> np.uint32(out) & np.uint32(1)).mean() for out in range(32)]
        assert min(rates) > 0.44 and max(rates) < 0.56  # 0.5 +- 0.008


# --- permutations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [0, 0x123456789ABCDEF])
def test_permutation_is_a_bijection_for_every_small_size(key: int) -> None:
    for n in range(1, 301):
        assert sorted(rng.Permutation(n, key)[np.arange(n)].tolist()) == list(range(n))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20_000), keys)
def test_permutation_is_a_bijection(n: int, key: int) -> None:
    found = rng.Permutation(n, key)[np.arange(n)]
    assert np.array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [2**31 - 1, 2**33 + 5, 2**40 - 3])
def test_permutation_of_huge_ranges(n: int) -> None:
    here = np.unique(rng.generator(0, "places").integers(0, n, 5000))
    found = rng.Permutation(n, 7)[here]
    assert found.min() >= 0 and found.max() < n
    assert len(np.unique(found)) == len(here)


@given(st.integers(1, 5000), keys, st.data())
def test_one_element_is_the_element_of_the_whole(n: int, key: int, data: st.DataObject) -> None:
    permutation = rng.Permutation(n, key)
    i = data.draw(st.integers(0, n - 1))
    assert permutation[i] == permutation[np.arange(n)][i]
    assert isinstance(permutation[i], int)


@pytest.mark.parametrize("index", [-1, 5, 10**9])
def test_outside_the_range_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        rng.Permutation(5, 1)[index]


def test_an_empty_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        rng.Permutation(0, 1)


def test_all_orders_of_four_are_equally_frequent() -> None:
    """Chi-squared over the 24 orders; each of 2,400 keys gives one."""
    counts = collections.Counter(
        tuple(rng.Permutation(4, rng.key(k, "orders"))[np.arange(4)].tolist()) for k in range(2400)
    )
    observed = [counts[order] for order in itertools.permutations(range(4))]
    assert stats.chisquare(observed).pvalue > 1e-4


def test_every_element_reaches_every_place() -> None:
    n, draws = 12, 1200
    table = np.zeros((n, n))
    for k in range(draws):
        table[np.arange(n), rng.Permutation(n, rng.key(k, "places"))[np.arange(n)]] += 1
    statistic = ((table - draws / n) ** 2 / (draws / n)).sum()
    assert stats.chi2.sf(statistic, (n - 1) ** 2) > 1e-4


def test_neighbours_do_not_stay_neighbours() -> None:
    found = rng.Permutation(10_000, 3)[np.arange(10_000)]
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05
    assert (np.abs(np.diff(found)) == 1).mean() < 0.002
