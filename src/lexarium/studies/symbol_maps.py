"""What evaluation `symbol_map` found, ready to be shown: per arm and map the symbols of the first finished seed.

`symbol_maps(table)` gives rows {levels, run, seed, direction, map, of, layer, share_x, share_y, cophenetic,
symbols, joins}.
`symbols` are {symbol, count, x, y, leaf, class} in the tree's order; `joins` are the tree from its leaves up: {low,
high, left, right, height} with the places of both sides along the leaves, the heights they come from, and that at which
they meet.

One seed, because maps of different seeds are turned against each other and a mean of them has no meaning. A symbol's
class is `vowel` or `consonant` where its first letter says so, and else `other`. Letters are those of the International
Phonetic Alphabet if any symbol has one that English has not; otherwise a, e, i, o, u are vowels and other small letters
consonants, but y, which is both. Capitals and digits are codes of somebody's own. Cost: one small file per arm and map.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lexarium.studies.results import RunRow, Table

KIND = "symbol_map"
IPA_VOWELS = frozenset("aeiouyɑɐɒæəɘɵɤɚɛɜɝɞɨɪɯɔøœɶʉʊʌʏ")
IPA_CONSONANTS = frozenset("bcdfghjklmnpqrstvwxzɓɕçðɖɗɟɠɡɢɣɦɧħɥʜɬɭɫɮɱŋɲɳɴɰɸʁɹɺɻɽɾʀʂʃθʈʋⱱʍχʎʑʐʒʔʕʡʢʙʛʄʝʟβǀǁǂǃ")

Row = dict[str, Any]


def symbol_maps(table: Table) -> list[Row]:
    """A row per arm, map and direction; none for a study without such evaluations."""
    return [row for cell in table.cells() for row in _of_arm(table, cell)]


def _of_arm(table: Table, cell: Mapping[str, str]) -> Iterator[Row]:
    seen: set[str] = set()
    for run in sorted(table.at(cell), key=lambda run: run.seed):
        for entry in run.config.get("evaluations") or []:
            if not isinstance(entry, Mapping) or entry.get("type") != KIND or run.state != "done":
                continue
            name = entry.get("name") or KIND
            files = sorted(((table.root or Path()) / run.dir / "evals" / name).glob("step-*.parquet"))
            if files and name not in seen:
                seen.add(name)
                asked = {"map": name, "of": entry.get("of", "embedding"), "layer": entry.get("layer", -1)}
                yield from _maps(run, cell, asked, files[-1])


def _maps(run: RunRow, cell: Mapping[str, str], asked: Row, path: Path) -> Iterator[Row]:
    """One map for each direction in a table of symbols."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    step = int(path.stem.removeprefix("step-"))
    for direction in dict.fromkeys(row.get("direction", "") for row in rows):
        own = sorted((r for r in rows if r.get("direction", "") == direction), key=lambda r: r["leaf"])
        known = classes([row["symbol"] for row in own])
        begin = ".".join(filter(None, (asked["map"], direction)))
        measures = {
            m: dict(run.curves.get(f"{begin}.{m}", [])).get(step)
            for m in ("share_x", "share_y", "cophenetic")
        }
        symbols = [
            {k: row[k] for k in ("symbol", "count", "x", "y", "leaf")} | {"class": known[row["symbol"]]}
            for row in own
        ]
        about = {
            "levels": dict(cell),
            "run": run.name,
            "seed": run.seed,
            "direction": direction,
            **asked,
        }
        yield about | measures | {"symbols": symbols, "joins": joins([row["height"] for row in own])}


def classes(symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> vowel, consonant or other."""
    first = {
        symbol: next((c for c in unicodedata.normalize("NFC", symbol) if not _modifies(c)), "")
        for symbol in symbols
    }
    ipa = any(not c.isascii() and c in IPA_VOWELS | IPA_CONSONANTS for s in symbols for c in s)
    found = {}
    for symbol, letter in first.items():
        if not ipa and len(symbol) != 1:  # a word, or a piece of one
            letter = ""
        base = letter if letter in IPA_CONSONANTS else unicodedata.normalize("NFD", letter)[:1]
        if base in IPA_VOWELS and (ipa or base != "y"):
            found[symbol] = "vowel"
        else:
            found[symbol] = "consonant" if base in IPA_CONSONANTS else "other"
    return found


def _modifies(character: str) -> bool:
    """Whether it has no class of its own: combining marks, marks of stress and tone, superscripts."""
    return unicodedata.category(character) in ("Mn", "Mc", "Lm", "Sk")


def joins(heights: Sequence[float]) -> list[Row]:
    """The joins of a tree, lowest first, from the height at which each leaf joins the one before it (the first is not
    looked at)."""
    # blocks of neighbouring leaves by their first and by their last leaf: (first, last, place, height)
    by_first: dict[int, tuple[int, int, float, float]] = {
        i: (i, i, float(i), 0.0) for i in range(len(heights))
    }
    by_last = dict(by_first)
    found = []
    for i in sorted(range(1, len(heights)), key=lambda i: (heights[i], i)):
        one, other = by_last[i - 1], by_first[i]
        found.append(
            {"low": one[2], "high": other[2], "left": one[3], "right": other[3], "height": heights[i]}
        )
        block = (one[0], other[1], (one[2] + other[2]) / 2, heights[i])
        by_first[block[0]] = by_last[block[1]] = block
    return found
