"""The ids of byte-level BPE by `tiktoken`, several times faster than `tokenizers`, which defines them.

Both cut text into words by one pattern over four classes of characters (letter, number, white space, other), then merge
the bytes of every word in the order of the ranks. Their tables of Unicode are their own, so their ids can differ where
they class a code point differently, and nowhere else. The class an engine takes is asked of the engine: with a
vocabulary whose only merges join `x`, `1` or `.` to the byte behind it, the ids show which of the three stands in one
word with it; white space with none. Every code point is asked about once, when it is met first; text that holds one
classed differently goes to `tokenizers`.

The pattern of GPT-2 looks ahead: of several characters of white space before a word, the last one is left to the word.
Patterns that look ahead cost `tiktoken` half of its speed, so the text is cut at these places first, and what is left
of the pattern needs no looking.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Engine = Callable[[str], list[int]]

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"
"""The pattern of GPT-2 for text in which white space of more than one character ends the text."""
FIRST_BYTES = (*range(0x80), *range(0xC2, 0xF5))
"""Those a character of UTF-8 can begin with."""


ALIKE, SPACE, DIFFERENT, UNKNOWN = range(4)
"""A code point's class: equal in both engines and not white space; white space in both; not equal; not asked yet."""


def byte_characters() -> dict[str, int]:
    """Character -> byte, as byte-level vocabularies write them: printable ones as themselves, others from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def tiktoken_engine(tokens: Sequence[bytes]) -> Engine:
    """`tiktoken` over the tokens of ids in the order of their ranks; those of special tokens are empty."""
    import tiktoken

    ranks = {token: i for i, token in enumerate(tokens) if token}
    fast = tiktoken.Encoding("lexarium", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    return fast.encode_ordinary


@functools.lru_cache(maxsize=1)
def probes() -> tuple[Engine, Engine]:
    """Both engines, `tiktoken` first, with the vocabulary that shows the classes."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    character = {b: c for c, b in byte_characters().items()}
    pairs = [(a, b) for a in b"x1." for b in FIRST_BYTES]
    symbols = [character[b] for b in range(256)] + [character[a] + character[b] for a, b in pairs]
    merges = [(character[a], character[b]) for a, b in pairs]
    reference: Any = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = tiktoken_engine([*(bytes([b]) for b in range(256)), *map(bytes, pairs)])
    return fast, lambda text: reference.encode(text).ids


def classes(points: np.ndarray, probes: Callable[[], tuple[Engine, Engine]] = probes) -> np.ndarray:
    """(N,) uint8: ALIKE, SPACE or DIFFERENT for each of N code points."""
    fast, reference = probes()
    asked = [f"\nx{c}\n1{c}\n.{c}" for c in map(chr, points.tolist())]
    together = "".join(asked)
    same = fast(together) == reference(together)
    alike = [same or fast(text) == reference(text) for text in asked]
    alone = [max(fast(text)) < 256 for text in asked]  # nothing was joined to it
    return np.where(alike, np.where(alone, SPACE, ALIKE), DIFFERENT).astype(np.uint8)


class CheckedEngine:
    """`fast` for every text whose code points it classes as `reference` does, which gets the others."""

    def __init__(
        self, fast: Engine, reference: Engine, classes: Callable[[np.ndarray], np.ndarray] = classes
    ) -> None:
        self._fast, self._reference, self._classes = fast, reference, classes
        self._class = np.full(0x110000, UNKNOWN, dtype=np.uint8)

    def __call__(self, text: str) -> list[int]:
        """Ids. Raises UnicodeEncodeError for half a surrogate pair."""
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        found = self._class[points]
        if found.max(initial=ALIKE) == UNKNOWN:
            new = np.unique(points[found == UNKNOWN])
            self._class[new] = self._classes(new)
            found = self._class[points]
        if found.max(initial=ALIKE) == DIFFERENT:
            return self._reference(text)
        white = found == SPACE
        if not (white[:-1] & white[1:]).any():
            return self._fast(text)
        ids, start = list[int](), 0
        # the last of several characters of white space that a word follows
        for cut in (np.flatnonzero(white[:-2] & white[1:-1] & ~white[2:]) + 1).tolist():
            ids += self._fast(text[start:cut])
            start = cut
        return ids + self._fast(text[start:])

    @property
    def differing(self) -> list[int]:
        """Code points met so far that the engines class differently."""
        return np.flatnonzero(self._class == DIFFERENT).tolist()
