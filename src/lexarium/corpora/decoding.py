"""Bytes to text: what does not belong into text is refused with its place, or mended and counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lexarium.corpora.reading import TextFile, line_of
from lexarium.foundation.types import UserError


@dataclass(frozen=True)
class Decoding:
    """What happens to bytes and characters that do not belong into text. What is changed is counted.

    undecodable: `refuse`, `replace` (by U+FFFD) or `drop` bytes that are not UTF-8, NUL and lone surrogates;
    separators: `newline` turns U+2028 and U+2029 into line ends, `keep` leaves them.
    mends: whether the corpus has the option `undecodable`, which messages then point to.
    """

    undecodable: str
    separators: str
    mends: bool = True

    def decode(
        self, data: bytes, file: TextFile, offset: int, counts: dict[str, int], tidy: bool = True
    ) -> str:
        """Text of the bytes of a file that begin at `offset`; a byte-order mark at its beginning is dropped. With
        `tidy` False, NUL and separators are left to `mend`."""
        if offset == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{file.path}: is UTF-16, by the mark it begins with; save the file as UTF-8")
        if offset == 0 and data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.undecodable == "refuse":
                raise UserError(
                    f"{file.path}: byte {offset + error.start:,} ({data[error.start]:#04x}) is not UTF-8"
                    f"{line_of(file, offset + error.start)}; save the file as UTF-8{self._or}"
                ) from None
            text = data.decode("utf-8", "replace")
            _count(counts, "undecodable", text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
            if self.undecodable == "drop":
                text = data.decode("utf-8", "ignore")
        if not tidy:
            return text
        if self.undecodable == "refuse" and (nul := data.find(b"\0")) >= 0:
            where = f"{file.path}: byte {offset + nul:,}{line_of(file, offset + nul)}"
            self._refuse(lambda: where, "a NUL character; is it UTF-16, or no text?")
        return self._tidy(text, lambda: f"{file.path}: from byte {offset:,}{line_of(file, offset)}", counts)

    def mend(self, text: str, where: Callable[[], str], counts: dict[str, int]) -> str:
        """The same for text that was decoded by somebody else; `where()` names its place in messages."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self._refuse(where, "half a surrogate pair, which is no character;")
            text, n = re.subn("[\ud800-\udfff]", "\ufffd" if self.undecodable == "replace" else "", text)
            _count(counts, "surrogates", n)
        return self._tidy(text, where, counts)

    def _tidy(self, text: str, where: Callable[[], str], counts: dict[str, int]) -> str:
        if "\0" in text:
            self._refuse(where, "a NUL character; is it UTF-16, or no text?")
            _count(counts, "nul", text.count("\0"))
            text = text.replace("\0", "\ufffd" if self.undecodable == "replace" else "")
        if self.separators == "newline" and ("\u2028" in text or "\u2029" in text):
            _count(counts, "separators", text.count("\u2028") + text.count("\u2029"))
            text = text.replace("\u2028", "\n").replace("\u2029", "\n")
        return text

    def _refuse(self, where: Callable[[], str], what: str) -> None:
        if self.undecodable == "refuse":
            raise UserError(f"{where()}: {what} Save the text as UTF-8{self._or}")

    @property
    def _or(self) -> str:
        return ", or say corpus.undecodable: replace or drop, which counts what it changes" * self.mends


def _count(counts: dict[str, int], name: str, n: int) -> None:
    counts[name] = counts.get(name, 0) + n
