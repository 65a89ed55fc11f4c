"""The batch of step s, as a pure function of the step.

Example number g = s * global_batch_size + j of a run belongs to epoch g // n and is the (g mod n)-th of
that epoch's plan, n being the number of examples of an epoch. So every epoch holds every example once,
a batch may hold the last examples of one epoch and the first of the next, nothing is skipped or repeated,
and resuming needs nothing but the step. A direction may want several `copies` of each example: an epoch is
then so many passes over the plan, copy c of the example at place p being read from the role
`extra_tokens[(c + p) mod copies]`, so that a batch holds all directions. Ranks take contiguous shares of the
global batch; micro-batches are consecutive slices of a share. Worker threads only compute batches ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from lexarium.foundation import rng
from lexarium.foundation.types import Batch, Example, UserError
from lexarium.tokens.block import Block, gather, keeps_up
from lexarium.tokens.packing import SEPARATOR, Pieces, Plan
from lexarium.tokens.store import View

TOKENS_AT_ONCE = 1 << 20
"""Steps whose examples hold fewer tokens are read several at a time: for small batches the calls cost most."""


class Loader:
    """Examples and batches of one run's training data."""

    def __init__(
        self,
        view: View,
        packing: Any,
        direction: Any,
        objective: Any,
        *,
        global_batch_size: int,
        micro_batch_size: int | None = None,
        order_seed: int = 0,
        dropout_seed: int = 0,
        keyed: bool = True,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        """`keyed`: give every token a dropout key (false for models without dropout)."""
        if world_size > global_batch_size:
            raise UserError(
                f"{world_size} processes cannot share a global batch of {global_batch_size} examples"
            )
        self.view, self.packing, self.direction, self.objective = view, packing, direction, objective
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size or global_batch_size
        self._order_seed, self._dropout_seed, self._keyed = order_seed, dropout_seed, keyed
        self._rank, self._world_size = rank, world_size
        self._plans: dict[int, Plan] = {}
        self._copies = getattr(direction, "copies", 1)
        self._planned = len(self._plan(0))
        self.examples_per_epoch = self._copies * self._planned
        self._in_blocks = keeps_up(self._plan(0), "pieces_of", "pieces") and keeps_up(
            direction, "apply_block", "apply"
        )
        steps = TOKENS_AT_ONCE // (max(1, global_batch_size // world_size) * packing.longest)
        self._steps_at_once = max(1, min(steps, self.examples_per_epoch // global_batch_size, 64))
        self._blocks: dict[int, Block] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="lexarium-loader") if workers else None
        self._ahead: dict[int, Future[list[Batch]]] = {}
        self._depth = 2 * workers

    def _plan(self, epoch: int) -> Plan:
        plans = self._plans  # worker threads replace the dictionary, never change it
        plan = plans.get(epoch)
        if plan is None:
            plan = self.packing.plan(self.view.lengths, self._order_seed, epoch)
            self._plans = {e: p for e, p in plans.items() if abs(e - epoch) <= 1} | {epoch: plan}
        return plan

    def numbers(self, step: int) -> np.ndarray:
        """(global_batch_size,) int64: the example numbers of a step, on every rank the same."""
        first = step * self.global_batch_size
        return np.arange(first, first + self.global_batch_size)

    def own(self, step: int) -> np.ndarray:
        """This rank's share of `numbers(step)`."""
        return self._shares(step, 1)[0]

    def _shares(self, first: int, steps: int) -> np.ndarray:
        """(steps, share) int64: this rank's example numbers of neighbouring steps."""
        size = self.global_batch_size
        numbers = np.arange(first * size, (first + steps) * size).reshape(steps, size)
        return np.array_split(numbers, self._world_size, axis=1)[self._rank]

    def epoch(self, step: int) -> float:
        """Epochs completed before a step."""
        return step * self.global_batch_size / self.examples_per_epoch

    def example(self, number: int) -> Example:
        """One example, in reading order."""
        epoch, i = divmod(int(number), self.examples_per_epoch)
        copy, place = divmod(i, self._planned)
        found = assemble(self.view, self._plan(epoch).pieces(place), self.objective, int(number), epoch)
        if self._copies > 1:
            found.start = self.direction.extra_tokens[(copy + place) % self._copies]
        return self.direction.apply(found)

    def examples(self, numbers: Sequence[int] | np.ndarray) -> Sequence[Example]:
        """Several examples, in reading order; a `Block` where packing and direction can make one."""
        if not self._in_blocks or len(numbers) == 0:
            return [self.example(n) for n in numbers]
        return self._gather(np.asarray(numbers, dtype=np.int64))

    def _gather(self, numbers: np.ndarray) -> Block:
        epochs, places = np.divmod(numbers, self.examples_per_epoch)
        copies, places = np.divmod(places, self._planned)
        cuts = np.flatnonzero(epochs[1:] != epochs[:-1]) + 1
        plan: Any = self._plan  # not every Plan has `pieces_of`
        runs = [
            plan(int(epochs[a])).pieces_of(places[a:b])
            for a, b in zip([0, *cuts], [*cuts, len(numbers)], strict=True)
        ]
        pieces = runs[0] if len(runs) == 1 else Pieces(*map(np.concatenate, zip(*runs, strict=True)))
        eos, channels = self.objective.roles["eos"], self.objective.channels
        block = gather(self.view, pieces, eos, channels, numbers, epochs)
        if self._copies > 1:
            block.start = np.array(self.direction.extra_tokens)[(copies + places) % self._copies]
        found: Block = self.direction.apply_block(block)
        return found

    def collate(self, step: int, numbers: np.ndarray) -> Batch:
        """One batch of given examples."""
        key = rng.key(self._dropout_seed, "dropout", step) if self._keyed else None
        return self.objective.collate(self.examples(numbers), dropout_key=key)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of this rank's share of a step."""
        if self._pool is None:
            return self._build(step)
        if step not in self._ahead:
            self._ahead.clear()
        for s in range(step, step + self._depth):
            if s not in self._ahead:
                self._ahead[s] = self._pool.submit(self._build, s)
        return self._ahead.pop(step).result()

    def _build(self, step: int) -> list[Batch]:
        if not self._in_blocks:
            examples: Sequence[Example] = [self.example(n) for n in self.own(step)]
            return self._micro_batches(step, examples, 0, len(examples))
        chunk, place = divmod(step, self._steps_at_once)
        blocks = self._blocks  # as with plans: replaced, never changed
        block = blocks.get(chunk)
        if block is None:
            block = self._gather(self._shares(chunk * self._steps_at_once, self._steps_at_once).reshape(-1))
            self._blocks = {c: b for c, b in blocks.items() if abs(c - chunk) <= 1} | {chunk: block}
        share = len(block) // self._steps_at_once
        return self._micro_batches(step, block, place * share, (place + 1) * share)

    def _micro_batches(self, step: int, examples: Sequence[Example], start: int, stop: int) -> list[Batch]:
        key = rng.key(self._dropout_seed, "dropout", step) if self._keyed else None
        return [
            self.objective.collate(examples[i : min(stop, i + self.micro_batch_size)], dropout_key=key)
            for i in range(start, stop, self.micro_batch_size)
        ]

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)


def assemble(view: View, pieces: list[Any], objective: Any, number: int = 0, epoch: int = 0) -> Example:
    """An example from pieces of documents, with the channels the objective reads.

    A separator belongs to the document before it.
    """
    ids: list[np.ndarray] = []
    position: list[np.ndarray] = []
    segment: list[np.ndarray] = []
    channels: dict[str, list[np.ndarray]] = {name: [] for name in objective.channels}
    documents: list[int] = []
    current = -1  # a window may begin with the separator of a document that lies before it
    for piece in pieces:
        if piece.document == SEPARATOR:
            current = max(current, 0)
            ids.append(np.array([objective.roles["eos"]]))
            position.append(position[-1][-1:] + 1 if position else np.array([0]))
            segment.append(np.array([current]))
            for stretch in channels.values():
                stretch.append(stretch[-1][-1:] if stretch else np.array([0]))
            continue
        current += 1
        ids.append(view.tokens(*piece))
        position.append(np.arange(piece.start, piece.stop))
        segment.append(np.full(piece.stop - piece.start, current))
        for name, stretches in channels.items():
            stretches.append(view.channel(name, *piece))
        documents.append(piece.document)
    join = lambda arrays: np.concatenate(arrays).astype(np.int64)
    return Example(
        join(ids),
        join(position),
        join(segment),
        {name: join(values) for name, values in channels.items()},
        tuple(documents),
        number,
        epoch,
    )


def in_order(view: View, direction: Any, objective: Any) -> Iterator[Example]:
    """Every document of a view as one example, in corpus order (for evaluations)."""
    from lexarium.tokens.packing import Piece

    for document in range(len(view)):
        piece = Piece(document, 0, int(view.lengths[document]))
        yield direction.apply(assemble(view, [piece], objective, document))
