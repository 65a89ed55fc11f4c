"""What synthetic languages share: sentences of one length, made in blocks of numpy rows, and the floor of the loss.

A language draws blocks (n, L) of character codes; `SyntheticCorpus` cuts them into documents. Every document
carries the channel `half`, aligned with its characters: which part of the sentence a character belongs to, by the
FORWARD order of the language whatever the direction of a run.

The floor. `floors(direction)` gives the expected negative log-probability of a sentence under the true
distribution, in nats per DOCUMENT, whole ("") and by part ("half.1"). Per document and not per token: bos, eos and
the tokenizer change how many tokens there are and not the entropy of what they say (eos after a sentence of known
length adds nothing). Evaluation `loss` divides by the tokens it predicted and reports the excess. By the chain rule
the whole is the same in every order of reading; the parts are not.

Cost: about 2 microseconds per document; a block of `BLOCK` sentences is held at a time. Refused: a split that is not
there, more sentences than the language has, no sentence at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from lexarium.foundation import rng
from lexarium.foundation.config import Config
from lexarium.foundation.types import Document, UserError

SPLITS = ("train", "val", "test")
BLOCK = 1 << 16
LARGEST = 100_000_000
FREE, DETERMINED, BETWEEN = 0, 1, 2
"""Values of the channel `half`: first part, second part, and a separator between them."""


class SplitSizes(Config):
    """Number of sentences in each split; 0 leaves a split out."""

    train: int = Field(100_000, ge=0, le=LARGEST)
    val: int = Field(4_096, ge=0, le=LARGEST)
    test: int = Field(0, ge=0, le=LARGEST)

    @model_validator(mode="after")
    def _some(self) -> SplitSizes:
        if not (self.train or self.val or self.test):
            raise ValueError("every split has size 0; give at least one a size")
        return self

    def as_dict(self) -> dict[str, int]:
        """Split -> size, of those that are not empty, in the order train, val, test."""
        sizes = {"train": self.train, "val": self.val, "test": self.test}
        return {split: n for split, n in sizes.items() if n}


class SyntheticCorpus(ABC):
    """A corpus of equally long sentences. A component adds `blocks`, `halves`, `floors` and `alphabet`."""

    name: str
    alphabet: str
    """The characters there are."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """(n, L) uint8 character codes, block by block."""

    @abstractmethod
    def halves(self) -> tuple[int, ...]:
        """(L,) value of the channel `half` at every character."""

    @abstractmethod
    def floors(self, direction: str) -> dict[str, float]:
        """Nats per document of the whole ("") and, where they are known for this direction, of parts ("half.0")."""

    @property
    def sizes(self) -> dict[str, int]:
        """Split -> number of sentences."""
        found: dict[str, int] = self.config.sizes.as_dict()
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are not empty."""
        return tuple(self.sizes)

    def documents(self, split: str) -> Iterator[Document]:
        """The sentences of a split, always in the same order."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        channels = {"half": self.halves()}
        for block in self.blocks(split):
            text, length = block.tobytes().decode("ascii"), block.shape[1]
            for start in range(0, len(text), length):
                yield Document(text[start : start + length], channels=channels)

    def symbols(self) -> list[str]:
        """The characters there are, whether or not a document holds them."""
        return sorted(self.alphabet)

    def fingerprint(self) -> str:
        """ "": the config determines every document."""
        return ""


def shuffled(sizes: dict[str, int], split: str, total: int, key: int, what: str) -> Iterator[np.ndarray]:
    """Distinct numbers below `total` for a split, in blocks; val and test do not depend on the size of train.

    Raises UserError when the splits together want more than there are.
    """
    wanted = sum(sizes.values())
    if wanted > total:
        raise UserError(
            f"{what} has {total:,} sentences, corpus.sizes asks for {wanted:,} that all differ; make the splits"
            " smaller (a run reads train again every epoch) or the language larger"
        )
    begin = 0
    for other in ("val", "test", "train"):
        if other == split:
            break
        begin += sizes.get(other, 0)
    order = rng.Permutation(total, key)
    for start in range(begin, begin + sizes[split], BLOCK):
        stop = min(begin + sizes[split], start + BLOCK)
        yield np.asarray(order[np.arange(start, stop)])


def digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """(n, width) uint8: decimal digits as characters, zero-padded, highest first."""
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def by_direction(
    direction: str, whole: float, forward: dict[str, float], backward: dict[str, float]
) -> dict[str, float]:
    """The floors of a direction: the whole for any order of reading, the parts for the two that are known."""
    parts = {"forward": forward, "backward": backward}.get(direction, {})
    return {"": whole, **parts}
