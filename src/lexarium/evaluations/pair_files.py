"""Files of minimal pairs: texts of which the first is right and the second wrong, with what they are examples of.

Two formats, told apart by what is there.

    JSON lines      {"sentence_good": ..., "sentence_bad": ..., "UID": ..., "linguistics_term": ..., "pair_id": ...}
                    as BLiMP writes them (Warstadt et al. 2020): files, or all *.jsonl of a folder. The paradigm is the
                    UID, or the file's name where there is none.
    BabySLM         a folder (Lavechin et al. 2023) with any of
                    lexical/{dev,test}/lexical_stimuli.csv    index, transcription, filename
                    lexical/{dev,test}/gold.csv               filename, voice, word, correct, id
                    syntactic/{dev,test}/syntactic_stimuli_{ortho,phono}.csv
                    syntactic/{dev,test}/gold.csv             id, filename, voice, type, correct

BabySLM's texts are the same for every voice, so one is read: the first in the gold file whose stimuli are all there. A
pair is a right and a wrong row of one id (of syntactic stimuli: of one type, subtype and id, exactly one of each).

Cost: the files are read once into memory. Refused, with file and line: lines that are not what they should be, texts
without a symbol, stimuli that gold names and no file has.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lexarium.corpora.reading import matching, natural
from lexarium.foundation.files import sha256_file, sha256_json
from lexarium.foundation.types import UserError

ENDINGS = (".jsonl", ".ndjson")
GOLD, STIMULI = "gold.csv", {"lexical": "lexical_stimuli.csv", "syntactic": "syntactic_stimuli_{}.csv"}
COLUMNS = {
    "lexical": ("filename", "voice", "word", "correct", "id"),
    "syntactic": ("filename", "voice", "type", "correct", "id"),
}
"""Columns of gold files that are read."""


@dataclass(frozen=True)
class Text:
    """A stimulus, and the line it stands in."""

    text: str
    path: Path
    line: int

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Pair:
    """Two texts, and what they belong to. `label`: linguistic term, or type; `word`: of lexical pairs, the word whose
    pseudo-words are averaged first."""

    task: str
    paradigm: str
    label: str
    word: str
    id: str
    good: Text
    bad: Text


@dataclass(frozen=True)
class Keys:
    """Names of the keys of JSON lines."""

    good: str
    bad: str
    paradigm: str
    label: str


@dataclass(frozen=True)
class Sources:
    """The files that are read: JSON lines, and of BabySLM (task, part, folder)."""

    lines: list[Path]
    folders: list[tuple[str, str, Path]]

    def read(self, keys: Keys, writing: str) -> Iterator[Pair]:
        """Every pair; `writing`: `phono` or `ortho`, of BabySLM."""
        for path in self.lines:
            yield from _json_lines(path, keys)
        for task, part, folder in self.folders:
            yield from _babyslm(task, part, folder, writing)

    def files(self, writing: str) -> list[Path]:
        """Everything `read` opens, in order."""
        of_folders = [f / name for task, _, f in self.folders for name in (GOLD, _stimuli(task, writing))]
        return [*self.lines, *of_folders]


def find(paths: Sequence[str], tasks: Sequence[str], parts: Sequence[str]) -> Sources:
    """What lies at files, in folders and at patterns. `tasks` and `parts` of BabySLM are those wanted."""
    lines: dict[Path, None] = {}
    folders: dict[Path, tuple[str, str, Path]] = {}
    for entry in paths:
        found = _below(entry)
        for path in found:
            if (path.name == GOLD and path.parent.resolve() in folders) or path.resolve() in lines:
                raise UserError(f"{path} is named twice (by {entry!r}); every file may come once")
            if path.name == GOLD:
                task, part = path.parent.parent.name, path.parent.name
                folders[path.parent.resolve()] = (task, part, path.parent)
            else:
                lines[path.resolve()] = None
    wanted = [x for x in folders.values() if x[0] in tasks and x[1] in parts]
    if not lines and not wanted:
        there = ", ".join(f"{task}/{part}" for task, part, _ in folders.values())
        raise UserError(
            f"{', '.join(paths)}: no pairs of {' or '.join(tasks)} in {' or '.join(parts)} (there is: {there})"
        )
    return Sources(list(lines), wanted)


def content(files: Sequence[Path]) -> str:
    """One hash of the files' content, in order."""
    return sha256_json([sha256_file(path) for path in files])


def _below(entry: str) -> list[Path]:
    """The files of one entry: JSON lines, and gold files that lie where BabySLM has them."""
    path = Path(entry).expanduser()
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted((p for p in path.rglob("*") if p.is_file()), key=natural)
        found = [p for p in found if p.suffix in ENDINGS or _is_gold(p)]
    else:
        found = matching(path)
    if not found:
        raise UserError(
            f"{entry}: {'holds' if path.is_dir() else 'is no file and no pattern that matches one, or'} no"
            f" minimal pairs; expected files ending in {' or '.join(ENDINGS)}, or a folder of BabySLM"
            " (lexical/dev/gold.csv, ...)"
        )
    for p in found:
        if p.suffix == ".csv" and not _is_gold(p):
            raise UserError(f"{p}: a table by itself holds no pairs; name the folder of BabySLM it lies in")
    return found


def _is_gold(path: Path) -> bool:
    return path.name == GOLD and path.parent.parent.name in STIMULI


# --- JSON lines ---------------------------------------------------------------------------------------


def _json_lines(path: Path, keys: Keys) -> Iterator[Pair]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); expected one pair per line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: found {line[:40]!r}; expected an object with a pair")
        texts = []
        for key in (keys.good, keys.bad):
            found = row.get(key)
            if not isinstance(found, str) or not found.strip():
                raise UserError(
                    f"{where}: {key!r} is {found!r}; expected a text (keys there: {', '.join(row) or 'none'};"
                    " good_key and bad_key name others)"
                )
            texts.append(Text(found, path, number))
        yield Pair(
            "sentences", str(row.get(keys.paradigm) or path.stem), str(row.get(keys.label) or ""), "",
            str(row.get("pair_id", number)), *texts,
        )  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save the file as UTF-8") from None


# --- BabySLM ------------------------------------------------------------------------------------------

Row = tuple[int, dict[str, str]]
"""Line, and values by column."""


def _stimuli(task: str, writing: str) -> str:
    return STIMULI[task].format(writing)


def _babyslm(task: str, part: str, folder: Path, writing: str) -> Iterator[Pair]:
    gold, path = folder / GOLD, folder / _stimuli(task, writing)
    texts = _transcriptions(path)
    by_id: dict[tuple[str, ...], tuple[list[Row], list[Row]]] = {}
    for line, row in _one_voice(gold, path, _table(gold, COLUMNS[task]), texts):
        key: tuple[str, ...] = (
            (row["id"],) if task == "lexical" else (row["type"], row.get("subtype", ""), row["id"])
        )
        if row["correct"] not in ("0", "1"):
            raise UserError(f"{gold}:{line}: correct is {row['correct']!r}; expected 1 or 0")
        by_id.setdefault(key, ([], []))[int(row["correct"] == "0")].append((line, row))
    for key, (right, wrong) in by_id.items():
        line = (right or wrong)[0][0]
        several = task == "syntactic" and (len(right) > 1 or len(wrong) > 1)
        if not right or not wrong or several:
            raise UserError(
                f"{gold}:{line}: {' '.join(filter(None, key))} has {len(right)} right and {len(wrong)} wrong"
                f" rows of one voice; expected {'one of each' if task == 'syntactic' else 'some of each'}"
            )
        for place, row in right:
            if task == "lexical" and not row["word"]:
                raise UserError(f"{gold}:{place}: no word; pseudo-words are averaged by word")
            for _, other in wrong:
                label = row["type"] if task == "syntactic" else ""
                word = row["word"] if task == "lexical" else ""
                pair = texts[row["filename"]], texts[other["filename"]]
                yield Pair(task, f"{task}.{part}", label, word, row["id"], *pair)


def _one_voice(gold: Path, path: Path, rows: list[Row], texts: dict[str, Text]) -> list[Row]:
    """The rows of the first voice whose stimuli are all there."""
    voices: dict[str, list[Row]] = {}
    for line, row in rows:
        voices.setdefault(row["voice"], []).append((line, row))
    lacks = {v: next((r for r in own if r[1]["filename"] not in texts), None) for v, own in voices.items()}
    for voice, missing in lacks.items():
        if missing is None:
            return voices[voice]
    line, row = next(missing for missing in lacks.values() if missing)
    raise UserError(
        f"{gold}:{line}: {path} has no stimulus {row['filename']!r}; do the files belong together?"
    )


def _transcriptions(path: Path) -> dict[str, Text]:
    """filename -> text."""
    found: dict[str, Text] = {}
    for line, row in _table(path, ("transcription", "filename")):
        name, text = row["filename"], row["transcription"]
        if not text.strip():
            raise UserError(f"{path}:{line}: no transcription")
        if name in found and found[name].text != text:
            raise UserError(
                f"{path}:{line}: {name!r} is {text!r} here and {found[name].text!r} in line {found[name].line}"
            )
        found.setdefault(name, Text(text, path, line))
    return found


def _table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a CSV file with a header."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        for cells in reader:
            if len(cells) != len(header):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(cells)} cells; expected {len(header)} as in the header"
                )
            rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None
    missing = [c for c in columns if c not in header]
    if missing:
        raise UserError(f"{path}:1: no column {missing[0]!r}; found {', '.join(header) or 'none'}")
    if not rows:
        raise UserError(f"{path}: no rows; expected one per stimulus")
    return rows
