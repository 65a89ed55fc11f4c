"""What two splits of a store have in common: distinct whole documents, and stretches of NGRAM tokens.

A document stands for itself by a 64-bit hash of its tokens; where a split holds more than DOCUMENTS of them, only the
documents whose hash falls into a fixed share of all hashes are compared, the same share in both splits. An n-gram
likewise: up to about GRAMS n-grams of the held-out split are looked up among those of the other. N-grams do not
cross documents. Cost: a few passes over the ids in numpy, one part at a time; memory does not grow with the store.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.tokens import in_place

NGRAM = 13
"""Tokens of a stretch; 13 is what Brown et al. (2020, appendix C) look for between training and test data."""
DOCUMENTS = 1 << 22
GRAMS = 1 << 16
STRETCH = 1 << 20
_BASE = 0x9E3779B97F4A7C15
"""Odd, so that it has an inverse modulo 2^64."""
_INVERSE = pow(_BASE, -1, 1 << 64)
_TABLE_BITS = 20

Places = np.ndarray | slice


def overlap(folder: Path, splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """For the manifest: `documents` that each pair of splits shares, and the share of the held-out split's n-grams that
    occur in train (`ngrams`). `splits`: name -> its entry in the manifest."""
    most = max((entry["documents"] for entry in splits.values()), default=0)
    share = -(-most // DOCUMENTS)
    hashes = {name: _documents(folder / name, entry, share) for name, entry in splits.items()}
    pairs = {
        f"{a} & {b}": len(np.intersect1d(hashes[a], hashes[b], assume_unique=True)) * share
        for a, b in itertools.combinations(splits, 2)
    }
    found: dict[str, Any] = {"documents": pairs, "one_document_in": share, "ngram": NGRAM, "ngrams": {}}
    if "train" in splits:
        others = {name: entry for name, entry in splits.items() if name != "train"}
        found["ngrams"] = _shared_grams(folder, splits["train"], others)
    return found


def _arrays(folder: Path, entry: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids, offsets) of every part."""
    for part in entry["parts"]:
        if "in_place" in part:
            ids = in_place.ids_of(part, {})
        else:
            ids = np.load(folder / f"{part['name']}.ids.npy", mmap_mode="r", allow_pickle=False)
        yield ids, np.load(folder / f"{part['name']}.docs.npy", allow_pickle=False)


def _stretches(folder: Path, entry: dict[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids as uint64, offsets from 0) of whole documents, about STRETCH tokens at a time."""
    for ids, offsets in _arrays(folder, entry):
        first = 0
        while first < len(offsets) - 1:
            last = int(np.searchsorted(offsets, offsets[first] + STRETCH, side="right")) - 1
            last = max(first + 1, last)
            yield (
                ids[offsets[first] : offsets[last]].astype(np.uint64),
                offsets[first : last + 1] - offsets[first],
            )
            first = last


def _documents(folder: Path, entry: dict[str, Any], share: int) -> np.ndarray:
    """Sorted distinct hashes of the documents, of one in `share` of all hashes."""
    found = []
    for ids, offsets in _stretches(folder, entry):
        hashes = _mix(_spans(ids, offsets[:-1], offsets[1:]) + np.diff(offsets).astype(np.uint64))
        found.append(hashes[hashes % np.uint64(share) == 0])
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): every bit of the input reaches every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=2)
def _powers(base: int, n: int) -> np.ndarray:
    """(n,) base^0, base^1, ... modulo 2^64."""
    found = np.full(n, base, dtype=np.uint64)
    found[0] = 1
    return np.multiply.accumulate(found, out=found)


def _spans(ids: np.ndarray, starts: Places, stops: Places) -> np.ndarray:
    """Polynomial hash of every span of ids: the sum of (id + 1) BASE^i modulo 2^64, i counted from the span's start
    (Karp and Rabin 1987): from the sums up to every place, in a few passes whatever the length of the spans."""
    size = 1 << (max(STRETCH, len(ids)) - 1).bit_length()
    sums = np.zeros(len(ids) + 1, dtype=np.uint64)
    np.cumsum((ids + np.uint64(1)) * _powers(_BASE, size)[: len(ids)], out=sums[1:])
    return (sums[stops] - sums[starts]) * _powers(_INVERSE, size)[starts]


def _grams(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Hashes of the n-grams that lie within one document."""
    n = len(ids) - NGRAM + 1
    if n < 1:
        return np.zeros(0, dtype=np.uint64)
    hashes = _spans(ids, slice(0, n), slice(NGRAM, None))
    inside = np.ones(n, dtype=bool)
    for j in range(1, NGRAM):
        places = offsets[1:-1] - j
        inside[places[(places >= 0) & (places < n)]] = False
    return hashes[inside]


def _place(hashes: np.ndarray) -> np.ndarray:
    """Where a hash stands in the table of known ones: from its highest bits, which all tokens reach."""
    return (hashes >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)


def _shared_grams(folder: Path, train: dict[str, Any], others: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`{"val in train": 0.012}`: the share of each held-out split's n-grams that train holds too."""
    wanted: dict[str, np.ndarray] = {}
    for name, entry in others.items():
        share = np.uint64(max(1, entry["tokens"] // GRAMS))
        found = [
            h[_mix(h) % share == 0]
            for h in (_grams(*stretch) for stretch in _stretches(folder / name, entry))
        ]
        wanted[name] = np.concatenate([np.zeros(0, dtype=np.uint64), *found])
    if not any(len(grams) for grams in wanted.values()):
        return {}
    known = np.unique(np.concatenate(list(wanted.values())))
    table = np.zeros(1 << _TABLE_BITS, dtype=bool)
    table[_place(known)] = True
    seen = np.zeros(len(known), dtype=bool)
    for stretch in _stretches(folder / "train", train):
        hashes = _grams(*stretch)
        hashes = hashes[table[_place(hashes)]]
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        seen[place[known[place] == hashes]] = True
    return {
        f"{name} in train": float(seen[np.searchsorted(known, grams)].mean())
        for name, grams in wanted.items()
        if len(grams)
    }
