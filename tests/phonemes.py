"""A small table of features for tests: rows of PHOIBLE (phoible/dev, phoible-segments-features), in its form.

`table_file(folder)` writes it, with columns that nobody asked for, quoted cells and repeated phonemes, as the public
file has. `utterances_file(folder)` writes utterances over its phonemes.
"""

from __future__ import annotations

import csv
import itertools
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation.features import FEATURES

ROWS = {
    "m": "0----++-0---+-+---000-0000000+-------",
    "k": "0----+---------00-000++---000--------",
    "i": "0-+---++0+-----00-000++-+-+--+---0--0",
    "a": "0-+---++0+-----00-000+-+--0--+---0--0",
    "p": "0----+--------+---000-0000000--------",
    "u": "0-+---++0+----++--000++--++--+---0--0",
    "n": "0----++-0---+--00++---0000000+-------",
    "s": "0----+-++------00++-+-0000000--------",
    "t": "0----+---------00++---0000000--------",
    "b": "0----+--------+---000-0000000+-------",
    "o": "0-+---++0+----++--000+---++--+---0--0",
    "l": "0----+++0+---+-00++---0000000+-------",
    "d": "0----+---------00++---0000000+-------",
    "e": "0-+---++0+-----00-000+--+-+--+---0--0",
    "a\u0303": "0-+---++0+--+--00-000+-+--0--+---0--0",  # decomposed, as PHOIBLE writes it
    "mb": "0----+x-----x-+---000-0000000+-------",  # x: a contour, `+,-`
    "\u02e6": "+" + "0" * 36,
    "\u0261": "0----+---------00-000++---000+-------",
}
"""Values without `lenis`, which that file lacks; it is given those of `fortis`."""


def cells(row: str) -> list[str]:
    """The values of a row in the order of FEATURES."""
    values = [{"x": "+,-"}.get(c, c) for c in row]
    assert len(values) == len(FEATURES) - 1
    place = FEATURES.index("lenis")
    return [*values[:place], values[place - 1], *values[place:]]


def table_file(
    folder: Path, rows: dict[str, str] = ROWS, delimiter: str = ",", name: str = "phoible.csv"
) -> Path:
    """Write the table. Each phoneme comes a second time with other values, which do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(["InventoryID", "LanguageName", "Phoneme", "Allophones", *FEATURES])
        for phoneme, row in rows.items():
            writer.writerow([1, "Korean, of Seoul", phoneme, "NA", *cells(row)])
        for phoneme in rows:
            writer.writerow([2, "Other", phoneme, "NA", *["+"] * len(FEATURES)])
    return folder / name


def words_file(folder: Path, symbols: Sequence[str]) -> Path:
    """Write a table of features of any symbols: `tone` of every second, `stress` of the first half, others of none."""
    rows = {
        symbol: ("+" if i % 2 else "-") + ("+" if 2 * i < len(symbols) else "-") + "-" * 35
        for i, symbol in enumerate(symbols)
    }
    return table_file(folder, rows, name="words.csv")


WORDS = ("p a t", "b u", "n o s", "t i k a", "m e l", "d u s i")


def utterances_file(folder: Path, n: int = 60, words: Any = WORDS) -> Path:
    """Write utterances of one to four words, in the released form."""
    random = np.random.default_rng(0)
    lines = [
        "".join(f"{word} WORD_BOUNDARY " for word in random.choice(words, random.integers(1, 5))).strip()
        for _ in range(n)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utterances.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "utterances.txt"


def distinct_utterances(folder: Path, n: int = 40) -> list[list[str]]:
    """Write `n` utterances of one to six symbols in words of one or two, to `utterances.txt`; no symbol occurs twice."""
    fresh = map("".join, itertools.product(string.ascii_lowercase, repeat=2))
    found = [list(itertools.islice(fresh, i % 6 + 1)) for i in range(n)]
    lines = [
        "".join(f"{' '.join(symbols[j : j + 2])} WORD_BOUNDARY " for j in range(0, len(symbols), 2)).strip()
        for symbols in found
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utterances.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


# --- letters ------------------------------------------------------------------------------------------

LETTERS = {
    "path": str(Path(__file__).resolve().parent / "fixtures" / "letters.csv"),
    "columns": ["syllabic", "labial"],
    "stress": "keep",
}
"""Two features of the letters."""
SPELT = {
    "corpus": {
        "type": "artificial_words",
        "mean_words": 1.5,
        "syllables": 2,
        "sizes": {"train": 200, "val": 20},
    },
    "tokenizer": {"type": "symbol", "unit": "character"},
}
"""Data whose tokens are letters, and whose words are known."""
FEATURES_OF_LETTERS: dict[str, Any] = {
    "model": {
        "type": "transformer",
        "preset": "gpt2_feature",
        "n_layers": 2,
        "n_heads": 2,
        "d_model": 16,
        "d_ff": 32,
        "max_positions": 1024,
        "features": LETTERS,
    },
    "objective": {"type": "causal", "loss": "features"},
    **SPELT,
}
"""An arm: letters read and predicted by their features."""
JOINED: dict[str, Any] = {
    "model": {
        "type": "transformer",
        "preset": "gpt2_400k",
        "n_layers": 1,
        "n_heads": 2,
        "d_model": 16,
        "d_ff": 32,
    },
    "objective": {"type": "causal", "bos": False, "eos": False},
    "packing": {"type": "windows", "seq_len": 24, "separator": True, "order": "each_epoch"},
    "view": {"subsample": {"unit": "words", "count": 150, "stretch": 3, "seed": 5}},
    **SPELT,
}
"""An arm: part of the utterances, joined in a new order every epoch and cut into windows, as word segmentation trains."""
