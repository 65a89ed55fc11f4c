"""The token store: a tokenised corpus, immutable and content-addressed; and index views on it.

On disk, below `<corpus>-<tokenizer>-<hash10>/`:

    tokenizer.json
    <split>/part-00000.{ids,docs,<channel>}.npy   token ids, document offsets (n+1), one file per channel
    <split>/part-00000.fields.parquet             one row per document
    manifest.json                                 identities, counts and parts; written last

Ids are uint16 up to 65,536 base ids, else uint32; those of token files stay where they are (`in_place.py`).
Everything is read through memory maps, so opening a store costs the same whatever its size. `View` selects documents
by conditions on fields, or at random; it copies no tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from lexarium.foundation.config import Config
from lexarium.foundation.files import MANIFEST, Damaged, read_json, sha256_file
from lexarium.foundation.fingerprints import fingerprint
from lexarium.foundation.types import FieldValue, UserError
from lexarium.tokens import in_place
from lexarium.tokens.subsample import Subsample, subsample

Condition = dict[str, Any]
"""field -> value, list of values, or {min, max}; all entries must hold."""


def _check_wanted(name: str, wanted: Any) -> None:
    values = (
        wanted.values() if isinstance(wanted, Mapping) else wanted if isinstance(wanted, list) else [wanted]
    )
    keys_fit = not isinstance(wanted, Mapping) or set(wanted) <= {"min", "max"}
    if not (values and keys_fit and all(isinstance(v, str | int | float | bool) for v in values)):
        raise ValueError(f"{name}: expected a value, a list of values, or {{min: a, max: b}}")


class Quota(Config):
    """At most `count` documents that meet `where`, in corpus order."""

    where: Condition
    count: int = Field(ge=0)

    @field_validator("where")
    @classmethod
    def _sound(cls, value: Condition) -> Condition:
        for name, wanted in value.items():
            _check_wanted(name, wanted)
        return value


class ViewConfig(Config):
    """Which documents of the store a run sees. The vocabulary is not affected."""

    keep: tuple[Condition, ...] = ()
    """Documents that meet any of these conditions are kept; empty = all."""
    drop: tuple[Condition, ...] = ()
    """Documents that meet any of these are then dropped."""
    quotas: tuple[Quota, ...] = ()
    """Upper limits by condition, applied after keep and drop, in corpus order."""
    fraction: float = Field(1.0, gt=0, le=1)
    """The first floor(fraction * n) of what is left, in corpus order."""
    subsample: Subsample | None = None
    """A random part of what is left then: so many documents, words or tokens."""
    splits: tuple[str, ...] = ("train",)
    """Splits the selection applies to; the others are seen whole."""

    @field_validator("keep", "drop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("keep", "drop")
    @classmethod
    def _no_empty_condition(cls, value: tuple[Condition, ...]) -> tuple[Condition, ...]:
        for condition in value:
            if not condition:
                raise ValueError("a condition must name at least one field")
            for name, wanted in condition.items():
                _check_wanted(name, wanted)
        return value


class Joined:
    """The same file of every part, as one array, without copying or opening anything.

    Memory maps lie in one address space, so a value has a place relative to the map that lies lowest. `flat` reaches
    from that map to the end of the highest; value j of part p is `flat[first[p] + j]`. What lies between the maps
    belongs to nobody: only places made in this way may be read.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = arrays  # the maps must live as long as the view on them
        self.lengths = np.array([len(a) for a in arrays], dtype=np.int64)
        places = np.array([a.__array_interface__["data"][0] for a in arrays], dtype=np.int64)
        dtype, lowest = arrays[0].dtype, arrays[int(places.argmin())]
        self.first, rest = np.divmod(places - places.min(), dtype.itemsize)
        if rest.any() or any(a.dtype != dtype or not a.flags.c_contiguous for a in arrays):
            raise Damaged("parts of one store differ in type; delete the store and prepare it again")
        size = int((self.first + self.lengths).max())
        self.flat = np.lib.stride_tricks.as_strided(lowest, (size,), (dtype.itemsize,), writeable=False)
        self._rows: dict[int, np.ndarray] = {}

    def rows(self, length: int) -> np.ndarray:
        """(places, length): row i is the `length` values that begin at place i."""
        if length not in self._rows:
            self._rows[length] = np.lib.stride_tricks.sliding_window_view(self.flat, length)
        return self._rows[length]


class Split:
    """One split of a store: documents by number, memory-mapped."""

    def __init__(
        self, folder: Path, name: str, entries: Sequence[Mapping[str, Any]], channels: Sequence[str]
    ) -> None:
        """`entries`: what the manifest says of the parts."""
        self.folder, self.name, self.channel_names = folder, name, list(channels)
        self.parts = [str(entry["name"]) for entry in entries]
        counts, maps = [], dict[str, np.ndarray]()
        self._ids, self._docs, self._channels = [], [], []
        for part, entry in zip(self.parts, entries, strict=True):
            given = "in_place" in entry
            self._ids.append(in_place.ids_of(dict(entry), maps) if given else self._map(f"{part}.ids.npy"))
            self._docs.append(self._map(f"{part}.docs.npy"))
            self._channels.append({c: self._map(f"{part}.{c}.npy") for c in self.channel_names})
            counts.append(len(self._docs[-1]) - 1)
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._joined: dict[str, Joined] = {}

    def _map(self, name: str) -> np.ndarray:
        path = self.folder / self.name / name
        try:
            return np.lib.format.open_memmap(path, mode="r").view(np.ndarray)  # refuses archives and objects
        except (OSError, EOFError, ValueError) as error:
            raise Damaged(
                f"{path}: cannot be read ({error}); delete the store and prepare it again"
            ) from None

    def __len__(self) -> int:
        return int(self._first[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens per document."""
        found = np.concatenate([np.diff(d) for d in self._docs] or [np.zeros(0)])
        return found.astype(np.int64, copy=False)

    def joined(self, name: str) -> Joined:
        """`ids`, `docs` or a channel of all parts; an unknown channel is an error that lists them."""
        if name not in self._joined:
            if name in ("ids", "docs"):
                found = Joined(self._ids if name == "ids" else self._docs)
            else:
                self._check_channel(name)
                found = Joined([channels[name] for channels in self._channels])
            self._check_lengths(name, found)
            self._joined[name] = found
        return self._joined[name]

    def _check_lengths(self, name: str, found: Joined) -> None:
        """Offsets must lie inside the files, because `Joined` cannot tell."""
        if name == "docs":
            sound = (self.lengths >= 0).all() and all(int(docs[0]) == 0 for docs in self._docs)
        else:
            sound = all(int(docs[-1]) == n for docs, n in zip(self._docs, found.lengths, strict=True))
        if not sound:
            raise Damaged(
                f"{self.folder / self.name}: offsets of documents do not fit the {name}; delete the store and"
                " prepare it again"
            )

    def places(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part of each document (n,), and where its tokens begin in that part's files (n,) int64."""
        docs = self.joined("docs")
        if len(self.parts) == 1:
            part = np.zeros(len(documents), dtype=np.int64)
        else:
            part = np.searchsorted(self._first, documents, side="right") - 1
        return part, docs.flat[(docs.first - self._first[:-1])[part] + documents]

    @property
    def n_tokens(self) -> int:
        """Tokens of the split."""
        return int(sum(len(ids) for ids in self._ids))

    def _locate(self, document: int) -> tuple[int, int, int]:
        part = int(np.searchsorted(self._first, document, side="right")) - 1
        docs, local = self._docs[part], document - int(self._first[part])
        return part, int(docs[local]), int(docs[local + 1])

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """ids (L,) int64 of a document, or of tokens start..stop of it."""
        part, a, b = self._locate(document)
        b = b if stop is None else min(a + stop, b)
        return np.asarray(self._ids[part][a + start : b], dtype=np.int64)

    def channel(self, name: str, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Channel values aligned with `tokens`; an unknown channel is an error that lists them."""
        self._check_channel(name)
        part, a, b = self._locate(document)
        b = b if stop is None else min(a + stop, b)
        return np.asarray(self._channels[part][name][a + start : b], dtype=np.int64)

    def _check_channel(self, name: str) -> None:
        if name not in self.channel_names:
            known = ", ".join(self.channel_names) or "none"
            raise UserError(f"documents have no channel {name!r} (channels: {known})")

    @cached_property
    def fields(self) -> dict[str, np.ndarray]:
        """Field name -> (n,) array over the documents."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = [self.folder / self.name / f"{part}.fields.parquet" for part in self.parts]
        if not paths or not paths[0].exists():
            return {}
        try:
            table = pa.concat_tables([pq.read_table(path) for path in paths])
        except (OSError, ValueError) as error:
            raise Damaged(
                f"{paths[0].parent}: fields cannot be read ({error}); delete the store and prepare it again"
            ) from None
        return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}

    def where(self, condition: Condition) -> np.ndarray:
        """(n,) bool: documents that meet a condition.

        Raises UserError for a field no document has, listing the fields; for a value of another sort than
        the field's; and for a text or number that no document has, listing the values (a misspelt level would
        otherwise select nothing in silence).
        """
        chosen = np.ones(len(self), dtype=bool)
        for name, wanted in condition.items():
            if name not in self.fields:
                raise UserError(_unknown_field(name, list(self.fields)))
            values = self.fields[name]
            many = isinstance(wanted, list | tuple)
            levels = list(wanted.values() if isinstance(wanted, Mapping) else wanted if many else [wanted])
            for level in levels:
                if _sort(np.asarray(level).dtype) != _sort(values.dtype):
                    raise UserError(f"field {name!r} holds {_some(values)}, found {level!r}")
            values = values.astype(str) if values.dtype.kind == "O" else values
            if isinstance(wanted, Mapping):
                if "min" in wanted:
                    chosen &= values >= wanted["min"]
                if "max" in wanted:
                    chosen &= values <= wanted["max"]
                continue
            if not isinstance(levels[0], bool):
                missing = set(levels) - set(np.unique(values).tolist())
                if missing and not self._found_elsewhere(name, missing):
                    raise UserError(
                        f"no document has {name} = {sorted(missing)[0]!r}; values are {_some(values)}"
                    )
            chosen &= np.isin(values, levels)
        return chosen

    def _found_elsewhere(self, name: str, levels: set[Any]) -> bool:
        """Whether other splits of the store have these values (a small split may lack a rare one)."""
        manifest = read_json(self.folder / MANIFEST)
        known: set[Any] = set()
        for split, entry in manifest["splits"].items():
            values = Split(self.folder, split, entry["parts"], manifest["channels"]).fields.get(
                name, np.empty(0)
            )
            known |= set(np.unique(values.astype(str) if values.dtype.kind == "O" else values).tolist())
        return levels <= known


def _sort(dtype: np.dtype) -> str:
    return {"b": "true or false", "O": "text", "U": "text"}.get(dtype.kind, "numbers")


def _some(values: np.ndarray) -> str:
    levels = np.unique(values.astype(str))
    return ", ".join(levels[:12]) + (", ..." if len(levels) > 12 else "")


def _unknown_field(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"documents have no field {name!r}{hint} (fields: {', '.join(known) or 'none'})"


class View:
    """Documents of a split, selected and numbered anew from 0, in corpus order."""

    def __init__(self, split: Split, documents: np.ndarray) -> None:
        self.split, self.documents = split, documents

    def __len__(self) -> int:
        return len(self.documents)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens per document of the view."""
        whole = len(self.documents) == len(self.split)  # then there is no need for a second array
        return self.split.lengths if whole else self.split.lengths[self.documents]

    @property
    def n_tokens(self) -> int:
        """Tokens of the view."""
        return int(self.lengths.sum())

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As `Split.tokens`, by the view's numbering."""
        return self.split.tokens(int(self.documents[document]), start, stop)

    def channel(self, name: str, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As `Split.channel`, by the view's numbering."""
        return self.split.channel(name, int(self.documents[document]), start, stop)

    def fields(self, document: int) -> dict[str, FieldValue]:
        """The fields of one document."""
        number = int(self.documents[document])
        return {name: _python(values[number]) for name, values in self.split.fields.items()}


def _python(value: Any) -> FieldValue:
    return value.item() if hasattr(value, "item") else value


class TokenStore:
    """A finished store. `TokenStore(folder)` checks that it is complete; `verify()` reads every byte."""

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST).exists():
            raise Damaged(
                f"{folder}: not a finished token store (no {MANIFEST}); run `lexarium prepare` again"
            )
        self.folder = folder
        self.manifest: dict[str, Any] = read_json(folder / MANIFEST)
        self._splits: dict[str, Split] = {}

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.manifest["splits"])

    def split(self, name: str) -> Split:
        """One split; an unknown name is an error that lists them."""
        if name not in self.manifest["splits"]:
            raise UserError(f"the corpus has no split {name!r}; it has {', '.join(self.splits)}")
        if name not in self._splits:
            entry = self.manifest["splits"][name]
            self._splits[name] = Split(self.folder, name, entry["parts"], self.manifest["channels"])
        return self._splits[name]

    def view(self, name: str, config: ViewConfig | None = None) -> View:
        """The documents of a split that a view selects; raises UserError when none is left."""
        split = self.split(name)
        if config is None or name not in config.splits:
            return View(split, np.arange(len(split), dtype=np.int64))
        chosen = np.ones(len(split), dtype=bool)
        if config.keep:
            chosen = np.any([split.where(c) for c in config.keep], axis=0)
        for condition in config.drop:
            chosen &= ~split.where(condition)
        for quota in config.quotas:
            here = np.flatnonzero(chosen & split.where(quota.where))
            chosen[here[quota.count :]] = False
        documents = np.flatnonzero(chosen)
        documents = documents[: int(len(documents) * config.fraction + 1e-9)]  # 0.29 * 100 is 28.999...
        if len(documents) == 0:
            raise UserError(
                f"the view keeps none of the {len(split)} documents of split {name!r}; loosen keep or drop"
            )
        documents = documents.astype(np.int64, copy=False)
        return View(split, subsample(split, documents, config.subsample) if config.subsample else documents)

    def verify(self, remembered: bool = False) -> None:
        """Compare every file with its checksum; raises Damaged, naming the file. `remembered`: large files that were
        not touched since they were read last are not read again, and files of ids in place are left to their use."""
        checksum = fingerprint if remembered else sha256_file
        told, tokenizer = self.manifest.get("tokenizer_sha256"), self.folder / "tokenizer.json"
        if told and (not tokenizer.exists() or sha256_file(tokenizer) != told):
            raise Damaged(
                f"{tokenizer}: is not the tokenizer that made this store's ids; restore it, or delete the store and"
                " prepare again"
            )
        for name, entry in self.manifest["splits"].items():
            for part in entry["parts"]:
                if "in_place" in part and not remembered:
                    in_place.check(part, read=True)
                for file, expected in part["files"].items():
                    path = self.folder / name / file
                    if not path.exists():
                        raise Damaged(f"{path}: missing; delete the store and prepare it again")
                    if path.stat().st_size != expected["size"] or checksum(path) != expected["sha256"]:
                        raise Damaged(
                            f"{path}: content differs from its checksum; delete the store and prepare it again"
                        )
