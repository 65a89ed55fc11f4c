"""Parts of a store whose ids stay in the file they came from.

The manifest says where they lie (path, byte offset, type, number) and what the file was; opening a store compares the
file's size and times, and reads its content again only when they differ. Ids that cannot be mapped are copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation.files import Damaged, write_atomic
from lexarium.foundation.fingerprints import Stamp, fingerprint
from lexarium.foundation.types import TokenPart, UserError
from lexarium.tokens.parts import npy

AT_ONCE = 1 << 22


def build(parts: Iterator[TokenPart], vocab_size: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Write what the store keeps of each part; yields its entry in the manifest."""
    dtype = None
    for number, part in enumerate(parts):
        _check(part, vocab_size)
        name = f"part-{number:05d}"
        data = {f"{name}.docs.npy": npy(part.documents)}
        entry: dict[str, Any] = {"name": name, "documents": len(part.documents) - 1, "tokens": len(part.ids)}
        if part.offset is None:
            data[f"{name}.ids.npy"] = npy(part.ids.astype(np.uint16 if vocab_size <= 1 << 16 else np.uint32))
        else:
            found = {
                "path": part.path,
                "offset": part.offset,
                "dtype": part.dtype,
                "stamp": list(Stamp.of(part.path)),
            }
            entry["in_place"] = {**found, "sha256": fingerprint(Path(part.path))}
        now = "copied" if part.offset is None else part.dtype
        if dtype not in (None, now):
            raise UserError(
                f"{part.path}: its ids are {now}, those of the files before it {dtype}; give files of one kind and type"
            )
        dtype, files = now, {}
        for file, content in data.items():
            write_atomic(folder / file, content)
            files[file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        yield {**entry, "channels": [], "fields": {}, "files": files, "levels": {}}


def _check(part: TokenPart, vocab_size: int) -> None:
    for start in range(0, len(part.ids), AT_ONCE):
        piece = part.ids[start : start + AT_ONCE]
        low, high = int(piece.min()), int(piece.max())
        if low < 0 or high >= vocab_size:
            bad = low if low < 0 else high
            place = start + int(np.flatnonzero(piece == bad)[0])
            where = f"place {place:,} of a piece of it"
            if part.offset is not None:
                where = f"byte {part.offset + place * np.dtype(part.dtype).itemsize:,}"
            raise UserError(
                f"{part.path}: id {bad} at {where} is outside the tokenizer's vocabulary of"
                f" {vocab_size:,}; was it made by another tokenizer, or is corpus.dtype another?"
            )


def ids_of(entry: dict[str, Any], known: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) the ids of a part, mapped; `known` keeps one map per file. Raises Damaged when the file is another now."""
    where, length = entry["in_place"], entry["tokens"]
    path, dtype = Path(where["path"]), np.dtype(where["dtype"])
    if where["path"] not in known:
        check(entry)
        known[where["path"]] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    stretch = known[where["path"]][where["offset"] : where["offset"] + length * dtype.itemsize]
    return stretch.view(dtype)


def check(entry: dict[str, Any], read: bool = False) -> None:
    """Raise Damaged unless the file is what it was; `read`: look at its content in any case."""
    where = entry["in_place"]
    path = Path(where["path"])
    try:
        same = list(Stamp.of(path)) == where["stamp"]
    except OSError:
        raise Damaged(
            f"{path}: is gone, and a token store reads it in place; put it back, or prepare again from where it is now"
        ) from None
    if (read or not same) and fingerprint(path) != where["sha256"]:
        raise Damaged(
            f"{path}: its content changed since the token store was made; restore it, or delete the store and prepare"
            " again"
        )
