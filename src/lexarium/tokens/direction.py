"""Re-ordering the tokens of an example. Everything aligned with the ids is re-ordered alike.

A direction acts on ids, never on strings, and before the objective adds bos and eos: a backward model
reads `bos w_n ... w_1 eos`. Summed over a document, the log-probabilities of an exact forward and an
exact backward model are equal (chain rule).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Example

if TYPE_CHECKING:
    from lexarium.tokens.block import Block


class Forward:
    """Left to right: the order of the corpus."""

    kind, name, version = "direction", "forward", 1
    extra_tokens: tuple[str, ...] = ()

    class Config(ComponentConfig):
        """No options."""

        type: str = "forward"

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def apply(self, example: Example) -> Example:
        """The example in the order the model reads it."""
        return example

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        return block

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Ids in corpus order, from ids in reading order."""
        return ids


class Backward:
    """Right to left: the last token is read first."""

    kind, name, version = "direction", "backward", 1
    extra_tokens: tuple[str, ...] = ()

    class Config(ComponentConfig):
        """No options."""

        type: str = "backward"

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def apply(self, example: Example) -> Example:
        """The example in the order the model reads it; positions count from where reading starts."""
        segment = example.segment[::-1]
        return replace(
            example,
            ids=np.ascontiguousarray(example.ids[::-1]),
            position=_positions(segment),
            segment=np.ascontiguousarray(segment),
            channels={name: np.ascontiguousarray(values[::-1]) for name, values in example.channels.items()},
        )

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        turn = block.reversed_rows

        def layout() -> tuple[np.ndarray, np.ndarray]:
            segment = turn(block.segment)
            return _positions(segment, block.ends), segment

        channels = {name: turn(values) for name, values in block.channels.items()}
        return replace(block, ids=turn(block.ids), channels=channels, layout=layout)

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Ids in corpus order, from ids in reading order."""
        return ids[::-1]


def _positions(segment: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """Position of each token within its run of equal segments; examples that end at `ends` are kept apart."""
    if len(segment) == 0:
        return segment.astype(np.int64)
    new = np.diff(segment, prepend=segment[0] - 1) != 0
    if ends is not None:
        new[ends[:-1]] = True
    starts = np.flatnonzero(new)
    return np.arange(len(segment)) - np.repeat(starts, np.diff(np.append(starts, len(segment))))
