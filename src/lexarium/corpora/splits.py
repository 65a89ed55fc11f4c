"""Which split a document of a corpus belongs to: decided by where it lies, before anything is cut into windows.

`document`: of the documents of every stretch of a file, those whose number n gives frac(n * phi + start) < share, with
phi the golden ratio and `start` drawn from the seed: so held-out documents are spread evenly (any run of N documents
holds share * N of them, give or take a few), and a document's split follows from its place alone. `file`: the same
over files. `field`: by a hash of a field's value, so that all documents of an author fall together. `end`: one
contiguous stretch at the end of each file, the last of it `test`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lexarium.foundation import rng
from lexarium.foundation.config import Config
from lexarium.foundation.types import FieldValue, UserError

DEFAULT_VAL = 0.05
ROLES = ("train", "val", "test")


class SplitConfig(Config):
    """How documents are held out."""

    by: Literal["document", "file", "field", "end"] = "document"
    """What is kept together: a document, a file, all documents of equal `field`, or one stretch at each file's end."""
    field: str | None = None
    """The field, with by: field."""
    val: float | None = Field(None, ge=0, lt=1)
    """Share held out for validation; empty = 0.05, or 0 where whole files are named for a split."""
    test: float = Field(0.0, ge=0, lt=1)
    """Share held out for testing."""
    seed: int = 0
    """Another seed holds out other documents."""

    @model_validator(mode="after")
    def _fits(self) -> SplitConfig:
        if (self.by == "field") != (self.field is not None):
            raise ValueError("`field` names the field of `by: field`; give both or neither")
        if (self.val or 0.0) + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on")
        return self


class Splitter:
    """The split of every document; `held_out`: whether whole files are named for val or test."""

    def __init__(self, config: SplitConfig, held_out: bool) -> None:
        self.config = config
        self.val = (0.0 if held_out else DEFAULT_VAL) if config.val is None else config.val
        self.test = config.test

    def start(self, *place: int) -> float:
        """Where the sequence of a stretch of documents begins, in [0, 1)."""
        return rng.key(self.config.seed, "split", *place) / 2.0**63

    def spread(self, start: float, number: int) -> str:
        """The split of the document with this number in a stretch."""
        return self._at(rng.spread(number, start))

    def of_value(self, value: FieldValue) -> str:
        """The split of all documents with this value of the field."""
        return self._at(rng.key(self.config.seed, "split", str(value)) / 2.0**63)

    def of_place(self, place: int, size: int) -> str:
        """The split of what begins at `place` of `size`: train, then val, then test."""
        left = 1.0 - place / max(1, size)
        return "test" if left <= self.test else "val" if left <= self.test + self.val else "train"

    def _at(self, u: float) -> str:
        return "val" if u < self.val else "test" if u < self.val + self.test else "train"

    @property
    def names(self) -> tuple[str, ...]:
        """Splits that are to hold something."""
        return ("train", *["val"] * (self.val > 0), *["test"] * (self.test > 0))


def field_of(fields: dict[str, FieldValue], name: str, where: str) -> FieldValue:
    """A field's value; raises UserError when the document has none."""
    if name not in fields:
        raise UserError(
            f"{where}: no field {name!r} (fields: {', '.join(fields) or 'none'}); name it in corpus.fields"
        )
    return fields[name]
