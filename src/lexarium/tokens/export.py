"""A split of a store as one file of ids, for other programs.

`h5`: the arrow-of-time study's form, dataset `tokens`, int32, (n,), with attributes that say what it is. `bin`: as
nanoGPT, the ids one after the other, uint16 (uint32 above 65,536 ids). `npy`: the same with its type before it. The
file appears whole or not at all; memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation.extras import need
from lexarium.foundation.files import disk_errors
from lexarium.foundation.types import UserError
from lexarium.tokens.store import TokenStore, View

AT_ONCE = 1 << 20
FORMS = ("h5", "bin", "npy")


def write_tokens(store: TokenStore, view: View, path: Path, form: str, separator: int | None = None) -> int:
    """Write the documents of a view, each followed by `separator` if one is given; returns the number of ids.

    Raises UserError for a separator outside the vocabulary.
    """
    vocab_size = int(store.manifest["vocab_size"])
    if separator is not None and not 0 <= separator < vocab_size:
        raise UserError(f"the separator {separator} is outside the vocabulary of {vocab_size:,}")
    total = view.n_tokens + (len(view) if separator is not None else 0)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path):
            pieces = _pieces(view, separator)
            if form == "h5":
                _h5(temporary, pieces, total, store)
            else:
                _plain(
                    temporary,
                    pieces,
                    total,
                    np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32),
                    form == "npy",
                )
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return total


def _pieces(view: View, separator: int | None) -> Iterator[np.ndarray]:
    """The ids in order, about AT_ONCE at a time."""
    waiting: list[np.ndarray] = []
    n, end = 0, [] if separator is None else [np.array([separator])]
    for document in range(len(view)):
        for start in range(0, int(view.lengths[document]), AT_ONCE):
            waiting.append(view.tokens(document, start, start + AT_ONCE))
            n += len(waiting[-1])
            if n >= AT_ONCE:
                yield np.concatenate(waiting)
                waiting, n = [], 0
        waiting += end
    if waiting:
        yield np.concatenate(waiting)


def _plain(path: Path, pieces: Iterator[np.ndarray], total: int, dtype: np.dtype, header: bool) -> None:
    with path.open("wb") as file:
        if header:
            description = {"descr": dtype.str, "fortran_order": False, "shape": (total,)}
            np.lib.format.write_array_header_2_0(file, description)
        for piece in pieces:
            file.write(piece.astype(dtype).tobytes())


def _h5(path: Path, pieces: Iterator[np.ndarray], total: int, store: TokenStore) -> None:
    h5py: Any = need("h5py", "data", f"to write {path.name}")
    manifest = store.manifest
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "tokens", (total,), maxshape=(None,), dtype=np.int32, chunks=(min(AT_ONCE, total),)
        )
        place = 0
        for piece in pieces:
            data[place : place + len(piece)] = piece
            place += len(piece)
        data.attrs["vocab_size"] = manifest["vocab_size"]
        data.attrs["bos_id"] = manifest.get("roles", {}).get(
            "bos", -1
        )  # -1: the tokenizer has none of its own
        data.attrs["symbols_sha256"] = manifest.get("symbols", "")  # "": not known
        data.attrs["tokenizer"] = str(manifest["tokenizer"]["type"])
        data.attrs["corpus"] = str(manifest["corpus"]["type"])
        data.attrs["source_sha256"] = str(manifest["corpus"]["files"])
        data.attrs["written_by"] = "lexarium"
