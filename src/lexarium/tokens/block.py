"""Many examples at once: the arrays of a batch, joined, and how they are read from a store.

A `Block` is a sequence of examples, so whatever takes examples takes a block; who knows better works on its
joined arrays and loops over nothing. `gather` makes one from the pieces that a plan names for many examples
(`Plan.pieces_of`), equal to the bit to `loader.assemble` of each.

Cost. Windows that lie within one document are copied as rows; the others, and examples of different lengths,
are read token by token through one index. Memory is that of the batch, whatever the size of the store.
Position and segment are worked out when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np

from lexarium.foundation.types import Example
from lexarium.tokens.packing import Pieces
from lexarium.tokens.store import Joined, View


@dataclass
class Block(Sequence[Example]):
    """Several examples, their arrays joined in order; N tokens of B examples.

    ids (N,) of an integer type; lengths (B,) int64; channels name -> (N,); numbers and epochs (B,) int64;
    `layout()` gives position and segment, (N,) int64 each; `documents_of(i)` those of example i; start (B,) text:
    the role of the token each example is read from first, None when it is bos for all.
    """

    ids: np.ndarray
    lengths: np.ndarray
    channels: dict[str, np.ndarray]
    numbers: np.ndarray
    epochs: np.ndarray
    layout: Callable[[], tuple[np.ndarray, np.ndarray]]
    documents_of: Callable[[int], tuple[int, ...]]
    start: np.ndarray | None = None

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Block:
        """The examples as a block; a block is returned as it is."""
        if isinstance(examples, Block):
            return examples
        names = examples[0].channels if examples else ()
        whole = lambda values: np.asarray(values, dtype=np.int64)
        return cls(
            _joined([e.ids for e in examples]),
            whole([len(e.ids) for e in examples]),
            {name: _joined([e.channels[name] for e in examples]) for name in names},
            whole([e.index for e in examples]),
            whole([e.epoch for e in examples]),
            lambda: (_joined([e.position for e in examples]), _joined([e.segment for e in examples])),
            lambda i: examples[i].documents,
            np.array([e.start for e in examples]) if any(e.start for e in examples) else None,
        )

    @cached_property
    def ends(self) -> np.ndarray:
        """(B,) int64: where each example ends in the joined arrays."""
        return np.cumsum(self.lengths)

    @cached_property
    def width(self) -> int | None:
        """Length of every example, None when they differ."""
        first = int(self.lengths[0])
        return first if (self.lengths == first).all() else None

    @cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        return self.layout()

    @property
    def position(self) -> np.ndarray:
        """(N,) int64: position within the document."""
        return self._layout[0]

    @property
    def segment(self) -> np.ndarray:
        """(N,) int64: document number within the example."""
        return self._layout[1]

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, i: int) -> Example: ...

    @overload
    def __getitem__(self, i: slice) -> Block: ...

    def __getitem__(self, i: int | slice) -> Example | Block:
        if isinstance(i, slice):
            return self._part(*i.indices(len(self)))
        i = range(len(self))[i]  # raises IndexError
        cut = slice(int(self.ends[i] - self.lengths[i]), int(self.ends[i]))
        return Example(
            self.ids[cut].astype(np.int64),
            self.position[cut],
            self.segment[cut],
            {name: values[cut] for name, values in self.channels.items()},
            self.documents_of(i),
            int(self.numbers[i]),
            int(self.epochs[i]),
            "" if self.start is None else str(self.start[i]),
        )

    def _part(self, first: int, stop: int, step: int) -> Block:
        if step != 1:
            raise ValueError("only neighbours make a block")
        stop = max(first, stop)
        place = lambda i: int(self.ends[i - 1]) if i else 0
        cut, rows = slice(place(first), place(stop)), slice(first, stop)
        return Block(
            self.ids[cut],
            self.lengths[rows],
            {name: values[cut] for name, values in self.channels.items()},
            self.numbers[rows],
            self.epochs[rows],
            lambda: (self.position[cut], self.segment[cut]),
            lambda i: self.documents_of(first + i),
            None if self.start is None else self.start[rows],
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def reversed_rows(self, values: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """(N,) values with every example turned round, or those of `rows` (B,) bool."""
        if self.width is not None:
            table = values.reshape(len(self), self.width)
            turned = table[:, ::-1] if rows is None else np.where(rows[:, None], table[:, ::-1], table)
            return turned.reshape(-1)
        last, place = 2 * self.ends - self.lengths - 1, np.arange(len(values))
        turned = np.repeat(last, self.lengths) - place
        return values[turned if rows is None else np.where(np.repeat(rows, self.lengths), turned, place)]


def keeps_up(component: Any, many: str, one: str) -> bool:
    """Whether a method for many examples is there and no older than the one for a single example.

    A class that inherits `many` and changes `one` has said nothing about `many`.
    """
    defined = [
        many if many in vars(cls) else one for cls in type(component).__mro__ if {many, one} & set(vars(cls))
    ]
    return bool(defined) and defined[0] == many


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def gather(
    view: View,
    pieces: Pieces,
    separator: int,
    channels: Sequence[str],
    numbers: np.ndarray,
    epochs: np.ndarray,
) -> Block:
    """The examples that `pieces` make up, with the id that stands for a separator and the channels wanted.

    numbers and epochs (B,) int64 are those of the examples.
    """
    text = pieces.stop - pieces.start
    size = text + pieces.separated  # tokens each piece gives, its separator among them
    ends = np.cumsum(size)
    marks = ends[pieces.separated] - 1
    first = np.cumsum(pieces.counts) - pieces.counts
    part, offset = view.split.places(view.documents[pieces.document])
    read = _Reader(pieces, part, offset + pieces.start, size, ends, marks, first)
    ids = read(view.split.joined("ids"))
    ids[marks] = separator
    found = {}
    for name in channels:
        values = read(view.split.joined(name)).astype(np.int64)
        values[marks] = values[marks - 1]  # a separator is like the token before it
        values[marks[size[pieces.separated] == 1]] = 0  # unless it comes first
        found[name] = values

    def layout() -> tuple[np.ndarray, np.ndarray]:
        number = np.arange(len(size)) - np.repeat(first, pieces.counts)
        starts = np.where(text > 0, pieces.start, 0) - (ends - size)
        return np.repeat(starts, size) + np.arange(len(ids)), np.repeat(number, size)

    def documents_of(i: int) -> tuple[int, ...]:
        own = slice(int(first[i]), int(first[i] + pieces.counts[i]))
        return tuple(pieces.document[own][text[own] > 0].tolist())

    return Block(ids, pieces.lengths, found, numbers, epochs, layout, documents_of)


class _Reader(NamedTuple):
    """Where the tokens of pieces lie in the store, and where they go."""

    pieces: Pieces
    part: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    ends: np.ndarray
    marks: np.ndarray
    first: np.ndarray

    def __call__(self, source: Joined) -> np.ndarray:
        """(N,) values of a file of the store; a separator's own value is any."""
        address = source.first[self.part] + self.offset
        lengths, counts = self.pieces.lengths, self.pieces.counts
        length = int(lengths[0])
        whole = (counts == 1) & ~self.pieces.separated[self.first]
        if not whole.any() or (lengths != length).any():
            return self._by_token(source, address, self.size, self.ends, self.marks)
        starts = address[self.first]
        starts[~whole] = starts[whole.argmax()]  # some row that is there; what it should be follows
        found = source.rows(length)[starts]
        if not whole.all():
            broken = np.repeat(~whole, counts)
            size = self.size[broken]
            ends = np.cumsum(size)
            marks = ends[self.pieces.separated[broken]] - 1
            tokens = self._by_token(source, address[broken], size, ends, marks)
            found[~whole] = tokens.reshape(-1, length)
        return found.reshape(-1)

    @staticmethod
    def _by_token(
        source: Joined, address: np.ndarray, size: np.ndarray, ends: np.ndarray, marks: np.ndarray
    ) -> np.ndarray:
        place = np.repeat(address - (ends - size), size)
        place += np.arange(len(place))
        place[marks] = 0  # behind the last document there is nothing to read
        return source.flat[place]
