"""The ids of byte-level BPE by `tiktoken`, several times faster than `tokenizers`, which defines them.

Both cut text into words by one pattern over four classes of characters (letter, number, white space, other), then merge
the bytes of every word in the order of the ranks. Their tables of Unicode are their own, so their ids can differ where
they class a code point differently, and nowhere else. The class an engine takes is asked of the engine: with a
vocabulary whose only merges join `x`, `1` or `.` to the byte behind it, the ids show which of the three stands in one
word with it; white space with none. Every code point is asked about once, when it is met first; text that holds one
classed differently goes to `tokenizers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Engine = Callable[[str], list[int]]

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
"""How `tiktoken` cuts words for GPT-2; the same language as the pattern of `tokenizers`."""
FIRST_BYTES = (*range(0x80), *range(0xC2, 0xF5))
"""Those a character of UTF-8 can begin with."""


ALIKE, DIFFERENT, UNKNOWN = range(3)
"""What is known of a code point's class in both engines."""


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


def classed_alike(points: np.ndarray, probes: Callable[[], tuple[Engine, Engine]] = probes) -> np.ndarray:
    """(N,) bool: whether both engines take each of N code points for the same class."""
    fast, reference = probes()
    asked = [f"\nx{c}\n1{c}\n.{c}" for c in map(chr, points.tolist())]
    together = "".join(asked)
    if fast(together) == reference(together):
        return np.ones(len(points), dtype=bool)
    return np.array([fast(text) == reference(text) for text in asked], dtype=bool)


class CheckedEngine:
    """`fast` for every text whose code points it classes as `reference` does, which gets the others."""

    def __init__(
        self,
        fast: Engine,
        reference: Engine,
        alike: Callable[[np.ndarray], np.ndarray] = classed_alike,
    ) -> None:
        self._fast, self._reference, self._alike = fast, reference, alike
        self._state = np.full(0x110000, UNKNOWN, dtype=np.uint8)
        self._ask(np.arange(128))
        self._ascii = not self.differing

    def __call__(self, text: str) -> list[int]:
        """Ids. Raises UnicodeEncodeError for half a surrogate pair."""
        if self._ascii and text.isascii():
            return self._fast(text)
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        states = self._state[points]
        if states.max(initial=ALIKE) == UNKNOWN:
            self._ask(np.unique(points[states == UNKNOWN]))
            states = self._state[points]
        return (self._reference if states.max(initial=ALIKE) == DIFFERENT else self._fast)(text)

    def _ask(self, points: np.ndarray) -> None:
        self._state[points] = np.where(self._alike(points), ALIKE, DIFFERENT)

    @property
    def differing(self) -> list[int]:
        """Code points met so far that the engines class differently."""
        return np.flatnonzero(self._state == DIFFERENT).tolist()
