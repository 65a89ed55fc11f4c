"""Re-ordering the tokens of an example. Everything aligned with the ids is re-ordered alike.

A direction acts on ids, never on strings, and before the objective adds bos and eos: a backward model
reads `bos w_n ... w_1 eos`. Summed over an example, the log-probabilities of exact models of any two
directions are equal (chain rule), because all of them predict the same tokens, the first one included.

`permutation` is any fixed order of a window; forward and backward are two of them. `both` reads every
example in both directions with one model, told which by the token it reads first. It gives its `views`:
the two directions, each by itself, in which the trained model is asked; other directions have one view.

Cost: one copy of the arrays. Refused: examples of another length than a permutation's; questions to a
model of `both` that do not say in which direction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Example, UserError

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
        return _moved(example, slice(None, None, -1))

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        return _turned(block)

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Ids in corpus order, from ids in reading order."""
        return ids[::-1]


class Permutation:
    """One fixed order of the places of a window, the same for every window."""

    kind, name, version = "direction", "permutation", 1
    extra_tokens: tuple[str, ...] = ()
    one_length = True
    """All examples are equally long, so only windows of `packing.seq_len` tokens can be read."""

    class Config(ComponentConfig):
        """Options of `permutation`."""

        type: str = "permutation"
        order: tuple[int, ...] | None = None
        """Places of the window in the order in which they are read, from 0; empty = drawn from `seed`."""
        seed: int = Field(0, ge=0)
        """Seed of the order, where none is given; runs that share it share the order."""

        @field_validator("order")
        @classmethod
        def _every_place_once(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
            if value is not None and (not value or sorted(value) != list(range(len(value)))):
                raise ValueError(
                    "expected every place of the window once, 0 to seq_len - 1"
                    + (f" (here 0 to {len(value) - 1})" if value else "")
                )
            return value

    def __init__(self, config: Config, length: int | None = None) -> None:
        """`length`: of every example; None: any, each with the order drawn for it."""
        self.config = config
        self._length = len(config.order) if config.order is not None else length
        self._orders: dict[int, np.ndarray] = {}
        if length is not None and self._length != length:
            raise UserError(
                f"direction.order has {self._length} places but packing.seq_len is {length}; make them equal"
            )

    def for_length(self, length: int) -> Permutation:
        """The direction of examples of this length alone."""
        return Permutation(self.config, length)

    def order(self, length: int) -> np.ndarray:
        """(length,) int64: the places in the order in which they are read."""
        if self._length not in (None, length):
            raise UserError(
                f"direction permutation orders windows of {self._length} tokens (packing.seq_len), found an"
                f" example of {length}; ask about whole windows (evaluation window_loss)"
            )
        if length not in self._orders:
            fixed = self.config.order
            drawn = lambda: rng.Permutation(length, rng.key(self.config.seed, "permutation", length)).all()
            none = np.zeros(0, dtype=np.int64)
            self._orders[length] = (
                np.array(fixed, dtype=np.int64) if fixed is not None else drawn() if length else none
            )
        return self._orders[length]

    def apply(self, example: Example) -> Example:
        """The example in the order the model reads it; positions count within a run of one document's tokens."""
        order = self.order(len(example))
        return example if _unmoved(order) else _moved(example, order)

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        orders = [self.order(n) for n in block.lengths.tolist()]
        if all(map(_unmoved, orders)):
            return block
        place = np.concatenate(orders) if orders else np.zeros(0, dtype=np.int64)
        place += np.repeat(block.ends - block.lengths, block.lengths)

        def layout() -> tuple[np.ndarray, np.ndarray]:
            segment = block.segment[place]
            return _positions(segment, block.ends), segment

        channels = {name: values[place] for name, values in block.channels.items()}
        return replace(block, ids=block.ids[place], channels=channels, layout=layout)

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Ids in corpus order, from ids in reading order."""
        found = np.empty_like(ids)
        found[self.order(len(ids))] = ids
        return found


class Both:
    """Every example once forwards and once backwards per epoch, by one model that is told which.

    The token `forward` or `backward` takes the place of bos. The two losses share the model's capacity, so
    they are not comparable with those of runs of one direction.
    """

    kind, name, version = "direction", "both", 1
    extra_tokens = ("forward", "backward")
    copies = 2
    """How often an epoch holds each example; copy c of the example at place p has direction (c + p) mod 2."""

    class Config(ComponentConfig):
        """No options."""

        type: str = "both"

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def views(self) -> dict[str, View]:
        """The two directions by themselves, by name."""
        return {"forward": View(Forward, "forward"), "backward": View(Backward, "backward")}

    def apply(self, example: Example) -> Example:
        """The example in the direction that its `start` names."""
        if example.start not in self.extra_tokens:
            raise _which_direction()
        return self.views()[example.start].apply(example)

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        if block.start is None or not np.isin(block.start, self.extra_tokens).all():
            raise _which_direction()
        return _turned(block, block.start == "backward")

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Not possible: ids alone do not say in which direction they were read; ask a view."""
        raise _which_direction()


class View:
    """One direction of a model that has several: like that direction, but reading begins with `start`."""

    extra_tokens: tuple[str, ...] = ()

    def __init__(self, direction: Any, start: str) -> None:
        self.start, self.name = start, direction.name
        self._direction = direction(direction.Config())

    def apply(self, example: Example) -> Example:
        """The example in the order the model reads it."""
        return replace(self._direction.apply(example), start=self.start)

    def apply_block(self, block: Block) -> Block:
        """`apply` of many examples at once."""
        return replace(self._direction.apply_block(block), start=np.full(len(block), self.start))

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Ids in corpus order, from ids in reading order."""
        found: np.ndarray = self._direction.undo(ids)
        return found


def views_of(direction: Any) -> dict[str, Any]:
    """The directions in which a model is asked, by name; one named "" where there is no choice."""
    return direction.views() if hasattr(direction, "views") else {"": direction}


def _which_direction() -> UserError:
    return UserError(
        "a model of direction both is asked in one of its directions; use the view 'forward' or 'backward'"
    )


def _unmoved(order: np.ndarray) -> bool:
    return bool((order[1:] > order[:-1]).all())


def _moved(example: Example, order: Any) -> Example:
    """Everything aligned with the ids, in another order."""
    segment = np.ascontiguousarray(example.segment[order])
    return replace(
        example,
        ids=np.ascontiguousarray(example.ids[order]),
        position=_positions(segment),
        segment=segment,
        channels={name: np.ascontiguousarray(values[order]) for name, values in example.channels.items()},
    )


def _turned(block: Block, rows: np.ndarray | None = None) -> Block:
    """A block with every example turned round, or those of `rows` (B,) bool."""
    turn = lambda values: block.reversed_rows(values, rows)

    def layout() -> tuple[np.ndarray, np.ndarray]:
        segment = turn(block.segment)
        position = _positions(segment, block.ends)
        if (
            rows is not None
        ):  # what is read forwards keeps its positions: a piece of a document counts within it
            position = np.where(np.repeat(rows, block.lengths), position, block.position)
        return position, segment

    channels = {name: turn(values) for name, values in block.channels.items()}
    return replace(block, ids=turn(block.ids), channels=channels, layout=layout)


def _positions(segment: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """Position of each token within its run of equal segments; examples that end at `ends` are kept apart."""
    if len(segment) == 0:
        return segment.astype(np.int64)
    new = np.diff(segment, prepend=segment[0] - 1) != 0
    if ends is not None:
        new[ends[:-1]] = True
    starts = np.flatnonzero(new)
    return np.arange(len(segment)) - np.repeat(starts, np.diff(np.append(starts, len(segment))))
