"""Any data set that the `datasets` library reads: of the hub, of local files, saved by `save_to_disk`; or streamed.

    {type: hf_dataset, path: wikitext, subset: wikitext-103-raw-v1, splits: {train: train, val: validation}}
    {type: hf_dataset, path: parquet, data_files: ["shards/*.parquet"], streaming: true}
    {type: hf_dataset, path: my-dataset}                                     a folder of save_to_disk

A part is a range of ROWS rows, or one shard of a streamed set, which is read without being stored. Where the set has
no split for validation, `split` holds documents out of train. Identity: the content of local files; of the hub, the
revision, which a streamed set must name as a commit, because a branch may move.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from lexarium.corpora.decoding import Decoding
from lexarium.corpora.splits import ROLES, SplitConfig, Splitter, field_of
from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.extras import need
from lexarium.foundation.files import sha256_json
from lexarium.foundation.fingerprints import fingerprint
from lexarium.foundation.types import Document, FieldValue, Part, UserError, gist

ROWS = 20_000
COMMIT = re.compile(r"[0-9a-f]{40}")


class HuggingFaceDataset:
    """A data set read by the `datasets` library, local or of the hub, whole or streamed."""

    kind, name, version = "corpus", "hf_dataset", 1

    class Config(ComponentConfig):
        """Options of `hf_dataset`."""

        type: str = "hf_dataset"
        path: str = ""
        """Name on the hub, a folder of save_to_disk, or a reader such as `parquet` with `data_files`."""
        subset: str | None = None
        """The configuration of a set that has several."""
        revision: str | None = None
        """Branch, tag or commit of a set of the hub; a streamed one needs the commit."""
        data_files: tuple[str, ...] = outside_identity(())
        """Files, for a reader; relative to the working directory."""
        splits: dict[str, str] = {"train": "train"}
        """Our split -> the set's: {train: train, val: validation}."""
        text: str = "text"
        """Column of the text."""
        fields: tuple[str, ...] = ()
        """Columns kept with every document."""
        streaming: bool = outside_identity(False)
        """Read row after row, store nothing."""
        undecodable: Literal["refuse", "replace", "drop"] = "refuse"
        """NUL and halves of surrogate pairs: refuse, or mend and count."""
        separators: Literal["newline", "keep"] = "newline"
        """U+2028 and U+2029: turn into line ends, or keep."""
        split: SplitConfig = SplitConfig()

        @field_validator("data_files", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

    def __init__(self, config: Config) -> None:
        self.config = config
        self._splitter = Splitter(config.split, len(config.splits) > 1)
        self._decoding = Decoding(config.undecodable, config.separators)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those named, and what is held out of train."""
        named = {*self.config.splits, *self._splitter.names}
        known = [s for s in ("train", "val", "test", "ood") if s in named]
        return tuple(known + sorted(named - set(known)))

    def symbols(self) -> list[str]:
        """None beyond those of the text."""
        return []

    @cached_property
    def _sets(self) -> dict[str, Any]:
        c = self.config
        datasets: Any = need("datasets", "hf", "for corpus hf_dataset")
        if not c.path:
            raise UserError(
                "corpus.path: say which data set: a name on the hub, a folder, or a reader such as parquet"
            )
        try:
            if self._saved:
                whole = datasets.load_from_disk(c.path)
                return {
                    ours: whole[theirs] if hasattr(whole, "keys") else whole
                    for ours, theirs in c.splits.items()
                }
            options: dict[str, Any] = {"revision": c.revision, "streaming": c.streaming}
            if c.data_files:
                options["data_files"] = list(c.data_files)
            return {
                ours: datasets.load_dataset(c.path, c.subset, split=theirs, **options)
                for ours, theirs in c.splits.items()
            }
        except UserError:
            raise
        except Exception as error:  # whatever the library raises: no network, no such name, bad files
            raise UserError(
                f"corpus.path: cannot read the data set {c.path!r}: {type(error).__name__}: {gist(error)}"
            ) from None

    @property
    def _saved(self) -> bool:
        folder = Path(self.config.path)
        return any(
            (folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json", "state.json")
        )

    def _files(self) -> list[Path]:
        """Local files whose content is the data."""
        c = self.config
        if self._saved:
            return sorted(Path(c.path).rglob("*.arrow"))
        found = [p for entry in c.data_files for p in sorted(Path(entry).parent.glob(Path(entry).name))]
        return [p for p in found if p.is_file()]

    def fingerprint(self) -> str:
        """Hash of the files' content, or of the revision."""
        c, files = self.config, self._files()
        if files:
            return sha256_json([fingerprint(path) for path in files])
        if c.streaming:
            if not COMMIT.fullmatch(c.revision or ""):
                raise UserError(
                    "corpus.revision: a streamed data set needs the commit (40 hexadecimal digits): a branch may move,"
                    " and nothing could tell that the data are others"
                )
            return sha256_json([c.path, c.subset, c.revision])
        return sha256_json({name: found._fingerprint for name, found in self._sets.items()})

    def record(self) -> dict[str, Any]:
        """What was read, for the manifest."""
        c = self.config
        shards = {name: getattr(found, "num_shards", 1) for name, found in self._sets.items()}
        files = [{"path": str(p), "size": p.stat().st_size, "sha256": fingerprint(p)} for p in self._files()]
        return {
            "dataset": c.path,
            "subset": c.subset,
            "revision": c.revision,
            "shards": shards,
            "files": files,
        }

    def text_size(self, splits: Sequence[str] = ROLES) -> int:
        """Bytes of the text of some splits, from the first thousand rows; UserError for a streamed set, whose size is
        not known."""
        if self.config.streaming:
            raise UserError(
                "a streamed data set does not say how large it is: no estimate, and no sample_bytes"
            )
        total = 0
        held_out = {"val": self._splitter.val, "test": self._splitter.test}
        held_out["train"] = 1.0 - held_out["val"] - held_out["test"]
        for role, data in self._sets.items():
            self._check_columns(data)
            share = sum(held_out[s] for s in splits) if role == "train" else float(role in splits)
            first = data.select_columns([self.config.text]).select(range(min(1000, len(data))))
            size = sum(len((row[self.config.text] or "").encode("utf-8", "replace")) for row in first)
            total += round(share * size * len(data) / max(1, len(first)))
        return total

    def parts(self) -> list[Part]:
        """Ranges of rows, or shards."""
        found = []
        for number, (name, data) in enumerate(self._sets.items()):
            if self.config.streaming:
                for k in range(data.num_shards):
                    found.append(Part(f"{self.config.path} {name}, shard {k}", 1, (number, k)))
            else:
                for k in range(0, len(data), ROWS):
                    n = min(ROWS, len(data) - k)
                    found.append(Part(f"{self.config.path} {name}, rows from {k:,}", n, (number, k)))
        return found

    def read(self, part: Part, counts: dict[str, int]) -> Iterator[tuple[str, Document]]:
        """(split, document) of one part."""
        number, k = part.where
        role, data = list(self._sets.items())[number]
        columns = [self.config.text, *self.config.fields]
        if self.config.streaming:
            rows: Any = data.shard(data.num_shards, k)
            first = 0
        else:
            self._check_columns(data)
            rows, first = data.select_columns(columns).select(range(k, min(k + ROWS, len(data)))), k
        start, by = self._splitter.start(number, k), self.config.split.by
        for n, row in enumerate(rows):
            where = f"{part.name}, row {first + n:,}"
            text = row.get(self.config.text)
            if not isinstance(text, str) or not text:
                if text == "" or (text is None and self.config.text in row):
                    counts["empty"] = counts.get("empty", 0) + 1
                    continue
                raise UserError(
                    f"{where}: {self.config.text!r} is {text!r}, expected a text (columns: {', '.join(row)}); say which"
                    " is corpus.text"
                )
            fields: dict[str, FieldValue] = {
                "place": first + n,
                **{name: row[name] for name in self.config.fields},
            }
            if role != "train" or self._splitter.names == ("train",):
                split = role
            elif by == "field":
                split = self._splitter.of_value(field_of(fields, str(self.config.split.field), where))
            elif by == "document":
                split = self._splitter.spread(start, n)
            else:
                raise UserError("corpus.split.by: a data set is split by document or by field")
            yield split, Document(self._decoding.mend(text, where.__str__, counts), fields)

    def _check_columns(self, data: Any) -> None:
        missing = [c for c in (self.config.text, *self.config.fields) if c not in data.column_names]
        if missing:
            raise UserError(
                f"corpus: the data set has no column {missing[0]!r} (columns: {', '.join(data.column_names)}); say"
                " which is corpus.text"
            )

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in order."""
        for part in self.parts():
            for name, document in self.read(part, {}):
                if name == split:
                    yield document
