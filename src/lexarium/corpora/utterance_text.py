"""One written utterance to the words it is made of: what is refused, and what is mended and counted.

`Reader.words` takes a line, or a cell of a table, and gives words of symbols. What belongs to the file as a whole
(columns, ages, speakers, splits) and what is made of words (documents, controls, phonemes) is in `utterances.py`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from lexarium.corpora import espeak
from lexarium.corpora.reading import line_of
from lexarium.foundation.types import UserError

Repair = Literal["misspelt", "doubled", "missing", "empty", "unspoken", "invisible"]
MARKS = ("UNK", "PAD", "UTT_BOUNDARY")
"""Names of the vocabulary that no symbol may have."""
BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What some programs take for a line end; LF and CRLF are none within a line."""
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e007f]"
)
"""Characters that nobody sees; joiners (U+200C, U+200D) say how letters are written, and are none."""
SHORT = 4
"""Letters below which a marker is looked for inside symbols by its very spelling alone."""
BOUNDARY = "WORD_BOUNDARY"
"""What stands for a word boundary in a document, whatever the file's marker: the name tokenizers know it by."""


@dataclass(frozen=True)
class Reader:
    """How utterances are written; `options` are those of corpus `utterances`."""

    options: Any

    def _tidy(self, text: str) -> str:
        c = self.options
        if c.case == "lower":  # the marker keeps its case
            text = re.sub(r"\S+", lambda m: m[0] if m[0] == c.marker else m[0].lower(), text)
        if c.accents == "strip":
            text = "".join(x for x in unicodedata.normalize("NFD", text) if not unicodedata.combining(x))
        return text if c.normalise == "none" else unicodedata.normalize(c.normalise, text)

    def words(self, text: str, where: Place, counts: dict[str, int]) -> list[list[str]]:
        """The words of an utterance, each a list of symbols; none for one that is left out. `where` is its place in
        messages, `counts` takes up what was mended."""
        text = self._tidy(text)
        if broken := BREAKS.search(text):
            raise UserError(
                f"{where}: a line end of another kind ({_named(broken[0])}) within an utterance; save the file with the"
                " line ends LF or CRLF"
            )
        if hidden := INVISIBLE.findall(text):
            what = f"a character that nobody sees ({_named(hidden[0])})"
            self.mend("invisible", where, what, counts, len(hidden))
            text = INVISIBLE.sub("", text)
        if not text.strip():
            self.mend("empty", where, "an empty utterance", counts)
            return []
        if self.options.form == "letters":
            return self._lettered(text, where, counts)
        if self.options.form == "symbols":
            return self._marked(text.split(), where, counts)
        asked = [espeak.spoken_form(word) for word in text.split()]
        count(counts, "punctuation between words", asked.count(""))
        if not any(asked):
            self.mend("empty", where, "an utterance of punctuation alone", counts)
        return [[word] for word in asked if word]

    def _lettered(self, text: str, where: Place, counts: dict[str, int]) -> list[list[str]]:
        """Words between spaces; blanks at the end of a line mean nothing."""
        words = text.split()
        marks = {self.options.marker.casefold(), BOUNDARY.casefold()}
        if found := next((word for word in words if word.casefold() in marks), None):
            raise UserError(
                f"{where}: {found!r} among the words: this text is written in symbols with a marker after every word;"
                " say corpus.form: symbols"
            )
        if re.search(r"\s\s|^\s", text.rstrip()):
            self.mend("doubled", where, "several blanks between two words, or one before the first", counts)
        return [list(word) for word in words]

    def _marked(self, tokens: list[str], where: Place, counts: dict[str, int]) -> list[list[str]]:
        marker, folded = self.options.marker, self.options.marker.casefold()
        words: list[list[str]] = [[]]
        for token in tokens:
            glued = marker in token or (len(marker) >= SHORT and folded in token.casefold())
            if glued and len(token) > len(marker):
                raise UserError(
                    f"{where}: {token!r}: the marker {marker!r} is written together with something else; put a space"
                    " between them"
                )
            if token != marker and _resembles(token.casefold(), folded):
                self.mend("misspelt", where, f"{token!r} for the marker {marker!r}", counts)
                token = marker
            if token != marker:
                words[-1].append(token)
            elif words[-1]:
                words.append([])
            else:
                self.mend("doubled", where, f"a marker {marker!r} with no word before it", counts)
        if words[-1]:
            other = (
                "; are words separated by spaces? then say corpus.form: letters" if len(words) == 1 else ""
            )
            if known := next(
                (mark for mark in (";eword", BOUNDARY) if mark != marker and mark in tokens), None
            ):
                other = f"; is {known!r} the marker? then say corpus.marker"
            self.mend("missing", where, f"no marker {marker!r} after the last word{other}", counts)
            words.append([])
        if not words[:-1]:
            self.mend("empty", where, "an utterance of markers alone", counts)
        return words[:-1]

    def check(self, symbol: str, where: Place) -> None:
        """Raise UserError for the name of a mark, and for symbols that are too long to be one."""
        if symbol in MARKS or symbol in (BOUNDARY, self.options.marker):
            raise UserError(f"{where}: the symbol {symbol!r} is a mark of the vocabulary; write it otherwise")
        if self.options.form == "symbols" and len(symbol) > self.options.longest_symbol:
            letters = sum(unicodedata.category(c) not in ("Mn", "Lm", "Sk", "Mc") for c in symbol)
            if letters > self.options.longest_symbol:
                raise UserError(
                    f"{where}: the symbol {symbol!r} has {letters} letters: a word whose symbols are not separated? Put"
                    " spaces between symbols, say corpus.form: letters, or raise corpus.longest_symbol; if it marks the"
                    " ends of words, say corpus.marker"
                )

    def mend(self, kind: Repair, where: Place, what: str, counts: dict[str, int], n: int = 1) -> None:
        """Count a mistake that is mended; raise UserError for one that is not."""
        if kind not in self.options.repair:
            raise UserError(
                f"{where}: {what}; mend the file, or say corpus.repair: [{kind}], which counts what it mends"
            )
        of = {"empty": "utterances", "unspoken": "words", "invisible": "characters"}
        count(counts, f"{kind} {of.get(kind, 'markers')}", n)


class Place:
    """Where an utterance stands, told only when somebody must know."""

    def __init__(self, file: Any, fields: Any) -> None:
        self._file, self._place = file, int(fields["place"])

    def __str__(self) -> str:
        if self._file.format == "parquet":
            return f"{self._file.path}: row {self._place:,} (from 0)"
        return f"{self._file.path}: byte {self._place:,}{line_of(self._file, self._place)}"


def _resembles(token: str, marker: str) -> bool:
    """Whether a token is a marker written otherwise: in other case, or, of eight letters and more, a letter or two
    wrong. Both are in folded case."""
    if len(marker) == 1:
        return False  # `w` is a phoneme beside the marker `W`
    if token == marker:
        return True
    if len(marker) < 8 or abs(len(token) - len(marker)) > 2:
        return False
    like = lambda part: difflib.SequenceMatcher(None, part, marker).ratio()
    # nearer without its edge: a symbol is written together with a misspelt marker
    return like(token) >= max(0.85, like(token[1:]), like(token[:-1]))


def _named(character: str) -> str:
    """`U+200B, zero width space`."""
    name = unicodedata.name(character, "").lower()
    return f"U+{ord(character):04X}" + (f", {name}" if name else "")


def count(counts: dict[str, int], name: str, n: int = 1) -> None:
    """Take up `n` more of something; none leaves no entry."""
    if n:
        counts[name] = counts.get(name, 0) + n
