"""Token files as a corpus: ids that somebody tokenised before.

    {type: token_files, path: train.bin, val_path: val.bin}          nanoGPT: uint16 ids, one after the other
    {type: token_files, path: french.h5}                             the arrow-of-time study: dataset `tokens`, int32
    {type: token_files, path: ids.npy}                               one-dimensional integers
    {type: token_files, path: "french_pt/*.pt"}                      its chunks: tensors of shape (1, n) or (n,)

`.bin`, `.npy` and `.h5` are read in place: the store holds where the ids lie, not the ids. An HDF5 file is a list of
chunks; those that lie behind each other are one stretch, and a window is read through the memory map like from
any store. Compressed HDF5, HDF5 in very many stretches, and `.pt` (loaded as weights only, so nothing in them is
executed) are copied into the store.

Ids have no documents of their own: with `separator` a document ends at every such id, which stays its last token;
without, stretches of `document_tokens` tokens count as documents. Held out is the end of each file, or whole files.

Refused: ids outside the tokenizer's vocabulary, files of another kind or type, files that are empty or named twice.
Cost: a pass over the ids to hash them and to find their largest, and one for every split to find where documents begin;
what is copied is read again for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from lexarium.corpora.reading import matching, natural
from lexarium.corpora.splits import SplitConfig, Splitter
from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.extras import need
from lexarium.foundation.files import sha256_json
from lexarium.foundation.fingerprints import fingerprint
from lexarium.foundation.types import Document, TokenPart, UserError, gist

ROLES = ("train", "val", "test")
KINDS = (".bin", ".h5", ".hdf5", ".npy", ".pt")
AT_ONCE = 1 << 22
MOST_STRETCHES = 1 << 12
"""Stretches of an HDF5 file that are read in place; a file of more is copied."""


class TokenFiles:
    """Token files: nanoGPT's .bin, .h5 with a dataset `tokens`, .npy, .pt chunks; read in place."""

    kind, name, version = "corpus", "token_files", 1

    class Config(ComponentConfig):
        """Options of `token_files`."""

        type: str = "token_files"
        path: tuple[str, ...] = outside_identity(())
        """Files and glob patterns, read in the order of their names (numbers in names by their value)."""
        val_path: tuple[str, ...] = outside_identity(())
        """Files that are the validation split, whole."""
        test_path: tuple[str, ...] = outside_identity(())
        """Files that are the test split, whole."""
        dtype: Literal["uint16", "uint32", "int32", "int64"] = "uint16"
        """Type of the ids of a `.bin` file, which does not say it itself."""
        dataset: str = "tokens"
        """Name of the dataset in an HDF5 file."""
        separator: int | None = Field(None, ge=0)
        """The id that ends a document (50256 in nanoGPT's OpenWebText)."""
        document_tokens: int = Field(1 << 14, gt=0)
        """Tokens of a stretch that counts as a document where no separator is named."""
        split: SplitConfig = SplitConfig(by="end")

        @field_validator("path", "val_path", "test_path", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

        @field_validator("split")
        @classmethod
        def _only_end(cls, value: SplitConfig) -> SplitConfig:
            if value.by != "end":
                raise ValueError(
                    "by: ids are held out at the end of each file (by: end), or as whole files (val_path)"
                )
            return value

    def __init__(self, config: Config) -> None:
        self.config = config
        self._splitter = Splitter(config.split, bool(config.val_path or config.test_path))

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        """(split its whole content belongs to, or train = to be split; path), in reading order."""
        c = self.config
        if not c.path:
            raise UserError("corpus.path: say which token files to read, for example corpus.path=train.bin")
        found: list[tuple[str, Path]] = []
        for role, paths in zip(ROLES, (c.path, c.val_path, c.test_path), strict=True):
            where = "corpus.path" if role == "train" else f"corpus.{role}_path"
            for entry in paths:
                for path in _matches(entry, where):
                    if any(path.resolve() == other.resolve() for _, other in found):
                        raise UserError(f"{where}: {path} is named twice; a file belongs to one split, once")
                    found.append((role, path))
        return found

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """train, and what is held out of it or named beside it."""
        c = self.config
        named = {"train", *["val"] * bool(c.val_path), *["test"] * bool(c.test_path), *self._splitter.names}
        return tuple(role for role in ROLES if role in named)

    def symbols(self) -> list[str]:
        """None."""
        return []

    def documents(self, split: str) -> Iterator[Document]:
        """Ids have no text."""
        raise UserError(
            "corpus token_files holds ids, no text: choose tokenizer ids, or file with the tokenizer they were made by;"
            " it cannot be tokenised again"
        )

    def fingerprint(self) -> str:
        """Hash of every file's role and content, in order."""
        return sha256_json([[role, path.name, fingerprint(path)] for role, path in self.files])

    def record(self) -> dict[str, Any]:
        """What was read, for the manifest: files with size and sha256."""
        one = lambda role, path: {
            "split": role, "path": str(path.resolve()), "size": path.stat().st_size, "sha256": fingerprint(path),
        }  # fmt: skip
        return {"files": [one(role, path) for role, path in self.files]}

    def token_parts(self, split: str) -> Iterator[TokenPart]:
        """The stretches of ids of a split, in order, with where their documents end."""
        for role, path in self.files:
            starts, before = self._starts(role, path), 0
            for offset, dtype, ids in _stretches(path, self.config.dtype, self.config.dataset):
                first, last = (min(max(place - before, 0), len(ids)) for place in starts[split])
                before += len(ids)
                if last > first:
                    at = None if offset is None else offset + first * np.dtype(dtype).itemsize
                    yield TokenPart(
                        str(path.resolve()), at, dtype, ids[first:last], self._offsets(ids[first:last])
                    )

    def vocabularies(self) -> Iterator[tuple[Path, str]]:
        """Files that say which vocabulary their ids are of (attribute `symbols_sha256`, as `lexarium export` writes
        it), and its hash."""
        for _, path in self.files:
            if path.suffix in (".bin", ".npy", ".pt"):
                continue
            h5py: Any = need("h5py", "data", f"to read {path}")
            try:
                with h5py.File(path, "r") as file:
                    found = file.get(self.config.dataset)
                    told = None if found is None else found.attrs.get("symbols_sha256")
            except OSError as error:
                raise UserError(f"{path}: not an HDF5 file ({gist(error)})") from None
            if told:
                yield path, str(told)

    def _starts(self, role: str, path: Path) -> dict[str, tuple[int, int]]:
        """Split -> the first of its ids in a file, and the one behind its last."""
        pieces = lambda: _stretches(path, self.config.dtype, self.config.dataset)
        total = sum(len(ids) for _, _, ids in pieces())
        if role != "train" or self._splitter.names == ("train",):
            return {name: (0, total if name == role else 0) for name in self.splits}
        cuts = [
            total - round(total * share)
            for share in (self._splitter.val + self._splitter.test, self._splitter.test)
        ]
        if self.config.separator is not None:  # a document belongs to one split
            cuts = [_behind_next(pieces(), cut, self.config.separator, total) for cut in cuts]
        return {"train": (0, cuts[0]), "val": (cuts[0], cuts[1]), "test": (cuts[1], total)}

    def _offsets(self, ids: np.ndarray) -> np.ndarray:
        """(documents + 1,) int64."""
        n, size = len(ids), self.config.document_tokens
        if self.config.separator is None:
            return np.append(np.arange(0, n, size), n).astype(np.int64)
        found = [
            np.flatnonzero(ids[a : a + AT_ONCE] == self.config.separator) + a + 1
            for a in range(0, n, AT_ONCE)
        ]
        return np.unique(np.concatenate([[0], *found, [n]])).astype(np.int64)


def _behind_next(
    pieces: Iterator[tuple[int | None, str, np.ndarray]], place: int, separator: int, total: int
) -> int:
    """The place behind the first separator at or after `place` - 1."""
    before = 0
    for _, _, ids in pieces:
        for start in range(max(0, place - 1 - before), len(ids), AT_ONCE):
            found = np.flatnonzero(ids[start : start + AT_ONCE] == separator)
            if len(found):
                return before + start + int(found[0]) + 1
        before += len(ids)
    return total


def _matches(entry: str, where: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix in KINDS]
    elif path.is_file():
        found = [path]
    else:
        found = matching(path)
    if not found:
        raise UserError(
            f"{where}: {entry!r} names no token file ({', '.join(KINDS)}); looked in {Path.cwd()}"
        )
    for file in found:
        if file.suffix not in KINDS:
            raise UserError(
                f"{where}: {file} is no token file ({', '.join(KINDS)}); for text choose corpus text_files"
            )
        if file.stat().st_size == 0:
            raise UserError(f"{where}: {file} is empty")
    return sorted(found, key=natural)


def _stretches(path: Path, dtype: str, dataset: str) -> Iterator[tuple[int | None, str, np.ndarray]]:
    """(byte offset in the file, or None when the ids must be copied; type; ids) of a file, in order."""
    if path.suffix == ".bin":
        size = path.stat().st_size
        if size % np.dtype(dtype).itemsize:
            raise UserError(f"{path}: {size:,} bytes are no whole number of {dtype} ids; say corpus.dtype")
        yield 0, dtype, np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    elif path.suffix == ".npy":
        yield _npy(path)
    elif path.suffix == ".pt":
        yield None, "", _pt(path)
    else:
        yield from _h5(path, dataset)


def _npy(path: Path) -> tuple[int | None, str, np.ndarray]:
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not an array file ({gist(error)})") from None
    place = int(mapped.offset) if mapped.dtype.isnative else None  # of the other byte order: copied
    return place, mapped.dtype.name, _checked(path, mapped.view(np.ndarray))


def _pt(path: Path) -> np.ndarray:
    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # whatever a foreign file raises; its advice may be to load it with code, so it is not told
        raise UserError(
            f"{path}: not a tensor that can be loaded as weights only ({type(error).__name__}); is it a chunk?"
        ) from None
    if not isinstance(tensor, torch.Tensor) or tensor.is_floating_point() or tensor.is_complex():
        kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise UserError(f"{path}: expected one tensor of integers, found {kind}")
    return _checked(
        path, tensor.squeeze(0).numpy() if tensor.ndim == 2 and len(tensor) == 1 else tensor.numpy()
    )


def _h5(path: Path, name: str) -> Iterator[tuple[int | None, str, np.ndarray]]:
    """Runs of neighbouring chunks, mapped; everything at once where it must be copied."""
    h5py: Any = need("h5py", "data", f"to read {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not an HDF5 file ({gist(error)})") from None
    with file:
        if name not in file:
            raise UserError(
                f"{path}: has no dataset {name!r} (it has: {', '.join(file) or 'none'}); say corpus.dataset"
            )
        data = file[name]
        if data.ndim != 1 or data.dtype.kind not in "iu":
            raise UserError(
                f"{path}: {name!r} has shape {data.shape} and type {data.dtype}; expected integers (n,)"
            )
        n, dtype = data.shape[0], data.dtype
        plain = data.id.get_create_plist().get_nfilters() == 0 and not data.is_virtual and not data.external
        runs = _runs(data) if plain and dtype.isnative else None
        if runs is None:
            for start in range(0, n, AT_ONCE):
                yield None, "", data[start : start + AT_ONCE]
            return
    for offset, length in runs:
        yield offset, dtype.name, np.memmap(path, dtype, "r", offset, (length,)).view(np.ndarray)
    if sum(length for _, length in runs) != n:
        raise UserError(f"{path}: chunks of {name!r} are missing; write the file again")


def _runs(data: Any) -> list[tuple[int, int]] | None:
    """(byte offset, ids) of the runs of chunks that lie behind each other; None: too many, or unaligned."""
    if data.chunks is None:
        offset = data.id.get_offset()
        return None if offset is None or offset % data.dtype.itemsize else [(offset, data.shape[0])]
    places: list[tuple[int, int]] = []
    data.id.chunk_iter(lambda chunk: places.append((chunk.chunk_offset[0], chunk.byte_offset)))
    places.sort()
    chunk, width, runs = data.chunks[0], data.dtype.itemsize, list[list[int]]()
    for first, offset in places:
        length = min(chunk, data.shape[0] - first)
        if runs and runs[-1][0] + runs[-1][1] * width == offset:
            runs[-1][1] += length
        else:
            runs.append([offset, length])
    fits = len(runs) <= MOST_STRETCHES and all(offset % width == 0 for offset, _ in runs)
    return [(offset, length) for offset, length in runs] if fits else None


def _checked(path: Path, ids: np.ndarray) -> np.ndarray:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"{path}: shape {ids.shape} and type {ids.dtype}; expected integers of shape (n,)")
    if len(ids) == 0:
        raise UserError(f"{path}: holds no ids")
    return ids
