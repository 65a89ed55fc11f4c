"""Distinctive features of phonemes, read from a table in the form of PHOIBLE.

    Phoneme,...,tone,stress,syllabic,...        a header, comma- or tab-separated, cells may be quoted
    m,...,0,-,-,...                             a row per phoneme and inventory; the first row of a phoneme counts

A feature takes one of three values: 1 for `-`, 2 for `+`, 0 for anything else: it does not apply, or changes within the
phoneme (`+,-`). Behind the features of a vocabulary stands one more, `special` (Goriely and Buttery, feature model): 1
for the boundaries of words and utterances, 0 for padding and for a bos or eos of its own, 2 for unknown symbols, 0 for
phonemes. All other features of such a token are 0. So tokens of one kind have equal rows, and phonemes may have.

Symbols are compared in Unicode's canonical decomposition (NFD) on both sides, character for character: PHOIBLE writes a
nasal vowel in two code points, most corpora in one. Tone letters are left out of a symbol before it is looked up, and
a stress mark becomes stress `+`, as in PhonemeTransformers, unless the options say otherwise.

Cost: one pass over the file, row by row; what is kept are the rows wanted and the phonemes' names. Refused: columns
that are not there, a row that is too short, and, unless `missing` says otherwise, symbols without a row.
"""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.foundation.config import Config, outside_identity
from lexarium.foundation.files import sha256_file
from lexarium.foundation.types import UserError

FEATURES = (
    "tone", "stress", "syllabic", "short", "long", "consonantal", "sonorant", "continuant", "delayedRelease",
    "approximant", "tap", "trill", "nasal", "lateral", "labial", "round", "labiodental", "coronal", "anterior",
    "distributed", "strident", "dorsal", "high", "low", "front", "back", "tense", "retractedTongueRoot",
    "advancedTongueRoot", "periodicGlottalSource", "epilaryngealSource", "spreadGlottis", "constrictedGlottis",
    "fortis", "lenis", "raisedLarynxEjective", "loweredLarynxImplosive", "click",
)  # fmt: skip
"""The 38 features of PHOIBLE, in the order of the study."""
VALUES = 3
"""Values a feature may take."""
MINUS, PLUS = 1, 2
BOUNDARY, UNKNOWN = 1, 2
"""Values of the slot `special`."""
ABSENT = -1
_TONES, _STRESS = dict.fromkeys(range(0x2E5, 0x2EA)), dict.fromkeys(map(ord, "ˈˌ"))
_LOOKALIKES = str.maketrans("g:'!ǝε", "ɡːʼǃəɛ")


class FeatureTable(Config):
    """A table of features, and how symbols are found in it."""

    path: str = outside_identity()
    """A CSV or TSV file, for example `phoible.csv`. Read when a model is first built, and by evaluations."""
    content: str = ""
    """The file's sha256; filled in where it is left empty. A file that has changed since is refused."""
    columns: tuple[str, ...] = Field(FEATURES, min_length=1)
    """Features in the order of the model's slots."""
    phoneme: str = "Phoneme"
    """The column that holds the phoneme."""
    tones: Literal["strip", "keep"] = "strip"
    """Look a symbol up without its tone letters (˥ ˦ ˧ ˨ ˩), or with them."""
    stress: Literal["mark", "keep"] = "mark"
    """Look a symbol up without stress marks (ˈ ˌ) and set `stress` to `+`, or look it up as it is."""
    missing: Literal["refuse", "unknown"] = "refuse"
    """Symbols without a row: an error that names them, or the features of an unknown symbol."""

    @model_validator(mode="before")
    @classmethod
    def _content(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("path"), str) or values.get("content"):
            return values
        path = Path(values["path"]).expanduser()
        if not path.is_file():
            raise ValueError(f"path: {path} is not a file; expected a table of features such as phoible.csv")
        return {**values, "content": sha256_file(path)}

    @model_validator(mode="after")
    def _fits(self) -> FeatureTable:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a feature is named twice")
        if self.stress == "mark" and "stress" not in self.columns:
            raise ValueError(
                "stress: mark sets the feature `stress`, which columns leave out; say stress: keep"
            )
        return self

    @property
    def n_slots(self) -> int:
        """Features, and the slot `special`."""
        return len(self.columns) + 1


def read_features(table: FeatureTable, symbols: Sequence[str]) -> np.ndarray:
    """(n, F) int64: values of the features of symbols; rows of ABSENT for those without a row.

    Raises UserError for a file, a column or (`missing: refuse`) a symbol that is not there.
    """
    found: dict[str, list[int]] = {}
    looked_up = [_look_up(symbol, table) for symbol in symbols]
    wanted, names = {key for key, _ in looked_up}, set()
    for name, written, places in _rows(table):
        names.add(name)
        if name in wanted and name not in found:
            values = (written[place].strip() for place in places)
            found[name] = [PLUS if v == "+" else MINUS if v == "-" else 0 for v in values]
    lacking = [s for s, (key, _) in zip(symbols, looked_up, strict=True) if key not in found]
    if lacking and table.missing == "refuse":
        raise UserError(
            f"{table.path}: has no row for {', '.join(_with_hint(s, names, table) for s in lacking[:10])}"
            + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
            + "; add rows, write the corpus in the table's symbols, or say features.missing: unknown"
        )
    none = [ABSENT] * len(table.columns)
    result = np.array([found.get(key, none) for key, _ in looked_up], dtype=np.int64).reshape(
        len(symbols), -1
    )
    for row, (key, stressed) in zip(result, looked_up, strict=True):
        if stressed and key in found:
            row[table.columns.index("stress")] = PLUS
    return result


def vocabulary_features(table: FeatureTable, tokenizer: Any, roles: Any) -> np.ndarray:
    """(V, F + 1) int64: values of the features of every token of a run, `special` last.

    tokenizer: its `symbols` are looked up; roles: ids of its special tokens and the size of the vocabulary.
    """
    symbols: list[str] = tokenizer.symbols
    ids: dict[str, int] = roles.ids
    values = np.zeros((roles.vocab_size, table.n_slots), dtype=np.int64)
    own = [i for i in range(len(symbols)) if i not in set(ids.values())]
    found = read_features(table, [symbols[i] for i in own])
    values[own, :-1] = np.maximum(found, 0)
    values[own, -1] = np.where(found[:, 0] == ABSENT, UNKNOWN, 0)
    if "unk" in ids:
        values[ids["unk"], -1] = UNKNOWN
    if "word" in ids:
        values[ids["word"], -1] = BOUNDARY
    if ids.get("bos", -1) == ids.get("eos", -2):  # one token stands before, between and behind utterances
        values[ids["bos"], -1] = BOUNDARY
    return values


def alike(values: np.ndarray, symbols: Sequence[str], special: Collection[int]) -> list[list[str]]:
    """Symbols with equal rows, which a model of features cannot tell apart; not where all of them are special tokens.
    values (V, F + 1); symbols: names of the first ids."""
    groups: dict[bytes, list[int]] = {}
    for i in range(len(symbols)):
        groups.setdefault(values[i].tobytes(), []).append(i)
    found = [ids for ids in groups.values() if len(ids) > 1 and not set(ids) <= set(special)]
    return [[symbols[i] for i in ids] for ids in found]


def describe(model: Any, tokenizer: Any, roles: Any, wanted: bool = True) -> list[str]:
    """Give a model of features its table; what is to be told about it, in words. Nothing to do for other models.

    `wanted`: False where a checkpoint brings the table, so that the file may be gone.
    """
    table: FeatureTable | None = getattr(model.config, "features", None)
    if table is None or not (wanted or Path(table.path).expanduser().is_file()):
        return []
    values = vocabulary_features(table, tokenizer, roles)
    model.describe(values)
    told = f"{table.path}: symbols of equal features, which the model cannot tell apart: "
    return [told + ", ".join(names) for names in alike(values, tokenizer.symbols, roles.ids.values())]


# --- the file ---------------------------------------------------------------------------------------


def _look_up(symbol: str, table: FeatureTable) -> tuple[str, bool]:
    """What to look for, and whether the symbol is stressed."""
    key = unicodedata.normalize("NFD", symbol)
    bare = key.translate(_STRESS) if table.stress == "mark" else key
    toneless = bare.translate(_TONES) if table.tones == "strip" else bare
    return toneless or key, bool(bare) and bare != key  # a tone letter by itself is a symbol of its own


def _rows(table: FeatureTable) -> Iterator[tuple[str, list[str], list[int]]]:
    """Of every row: its phoneme in NFD, its cells, and the places of the features among them."""
    path = Path(table.path).expanduser()
    if not path.is_file():
        raise UserError(f"features.path: {path} is not a file; expected a table such as phoible.csv")
    if table.content and sha256_file(path) != table.content:
        raise UserError(
            f"features.path: {path} has changed since features.content was written; restore it, or leave content out"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            lacking = [name for name in (table.phoneme, *table.columns) if name not in header]
            if lacking:
                raise UserError(
                    f"{path}: has no column {', '.join(lacking)}; it has {', '.join(header[:60]) or 'none'}. Name"
                    " others in features.columns and features.phoneme"
                )
            phoneme, *places = (header.index(name) for name in (table.phoneme, *table.columns))
            last = max(phoneme, *places)
            for row in reader:
                if row and len(row) <= last:
                    raise UserError(
                        f"{path}:{reader.line_num}: {len(row)} cells, expected {len(header)} as in the header"
                    )
                if row:
                    yield unicodedata.normalize("NFD", row[phoneme]), row, places
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: not a table in UTF-8 ({error}); export it as CSV") from None


def _with_hint(symbol: str, names: set[str], table: FeatureTable) -> str:
    """A symbol that is not in the table, its code points, and what is."""
    key = _look_up(symbol, table)[0]
    alike = key.translate(_LOOKALIKES)
    near = [alike] if alike in names else difflib.get_close_matches(key, sorted(names), n=2, cutoff=0.5)
    points = " ".join(f"U+{ord(c):04X}" for c in symbol)
    return f"{symbol!r} ({points}{'; near: ' + ' '.join(near) if near else ''})"
