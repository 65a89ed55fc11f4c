"""JSON as people write it: with comments and a comma too many.

Outside of strings, `#` and `//` begin a comment that ends with the line, `/* ... */` is one, and a comma before a
closing bracket is left out. Everything is blanked in place, so that line numbers of errors stay true. One pass over
the text. Refused, with file and line: what is not JSON then, a key that appears twice, NaN and Infinity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return parse_json(text, str(path))


def parse_json(text: str, name: str) -> dict[str, Any]:
    """The object in a text; `name` stands for the file in messages."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise UserError(f"{name}: key {twice[0]!r} appears twice in one object")
        return dict(pairs)

    def constant(word: str) -> Any:
        raise UserError(f"{name}: {word} is not JSON; write a number or null")

    try:
        found = json.loads(without_comments(text, name), object_pairs_hook=once, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: not valid JSON: {error.msg.lower()}") from None
    except RecursionError:
        raise UserError(
            f"{name}: brackets within brackets, too deep to be read; is it a configuration?"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{name}: expected an object in braces, found {type(found).__name__}")
    return found


def without_comments(text: str, name: str = "text") -> str:
    """Plain JSON of the same length and lines."""
    kept = list(text)
    place, before = 0, ""  # before: the last character that was neither blank nor comment
    comma = -1  # place of the last comma behind a value, as long as only blanks and comments follow it
    while place < len(text):
        here = text[place]
        end = place + 1
        if here == '"':
            end = _end_of_string(text, place)
            comma = -1
        elif here == "#" or text.startswith("//", place):
            end = _or_end(text.find("\n", place), text)
            _blank(kept, place, end)
        elif text.startswith("/*", place):
            closing = text.find("*/", place + 2)
            if closing < 0:
                line = text.count("\n", 0, place) + 1
                raise UserError(f"{name}:{line}: a comment begins with /* and does not end")
            end = closing + 2
            _blank(kept, place, end)
        elif here == ",":
            comma = -1 if before in ("", *"{[,:") else place
        elif here in "}]" and comma >= 0:
            kept[comma], comma = " ", -1
        elif not here.isspace():
            comma = -1
        if not "".join(kept[place:end]).isspace():
            before = here
        place = end
    return "".join(kept)


def _end_of_string(text: str, start: int) -> int:
    """Place after the closing quote; the end of the line where there is none (which `json` reports)."""
    place = start + 1
    while place < len(text) and text[place] not in '"\n':
        place += 2 if text[place] == "\\" else 1
    return min(place + 1, len(text))


def _or_end(place: int, text: str) -> int:
    return len(text) if place < 0 else place


def _blank(kept: list[str], start: int, end: int) -> None:
    for i in range(start, end):
        if kept[i] != "\n":
            kept[i] = " "
