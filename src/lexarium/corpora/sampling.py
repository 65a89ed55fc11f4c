"""Drawing distinct sentences of a finite grammar, split by split.

A CELL is a template together with a marker (column 0: the sentence is repeated, column 1: it is
transformed); a weight per cell is a distribution. One draw is a cell, then a uniform code. A sentence
already drawn, in this split or an earlier one, is skipped whatever its marker, which is how the released
files of McCoy, Frank and Linzen (2020) came to be: the shortest template (2,808 sentences for questions,
1,404 for tense) runs out while the others hardly thin. Training data must be generated before the
validation data for their proportions to come out as released.

Randomness is the raw output of a counter-based generator, turned into numbers here, so that a split
depends on nothing but seed, name and request: not on how a library implements its distributions. Draws
come in blocks of fixed size; a shorter request is the beginning of a longer one.

Cost: about 0.6 microseconds per sentence wanted, before rendering. Refused before drawing: more
sentences than there are. Refused after 200 draws per wanted sentence: a request that is possible but
would take nearly every sentence there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lexarium.corpora.grammar import INTRANSITIVE, Grammar, relative_clause
from lexarium.foundation import rng
from lexarium.foundation.types import UserError

REPEAT, TRANSFORM = 0, 1
"""Columns of a cell array."""

BLOCK = 8192
PATIENCE = 200

Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(templates, codes) -> mask: a condition on the words, beyond the choice of template."""


@dataclass(frozen=True)
class Weights:
    """Relative frequency of the shapes of subjects and of verb phrases. Numbers are fair coins."""

    subject: Mapping[str, float]
    vp: Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """A request: `count` sentences from cells (272, 2). `what` names it in messages.

    `share` is the exact part of each template's sentences that `accept` lets pass.
    """

    count: int
    cells: np.ndarray
    what: str
    accept: Accept | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """Sentences drawn: template index, code and column (REPEAT or TRANSFORM) of each, arrays (n,)."""

    templates: np.ndarray
    codes: np.ndarray
    columns: np.ndarray

    def take(self, order: np.ndarray) -> Drawn:
        """The same sentences in another order, or some of them."""
        return Drawn(self.templates[order], self.codes[order], self.columns[order])


def template_weights(grammar: Grammar, weights: Weights) -> np.ndarray:
    """(272,) probability of each template under a profile."""
    values = []
    for template in grammar.templates:
        value = 0.5 * weights.subject[template.subject.shape] * weights.vp[template.vp]
        if template.vp != INTRANSITIVE:
            value *= 0.5  # number of the object's head
        for phrase in (template.subject, template.object):
            if phrase and phrase.inner and relative_clause(phrase.shape) != "obj":
                value *= 0.5  # number of the second noun; that of an object relative is its shape
        values.append(value)
    total = np.array(values, dtype=np.float64)
    return total / total.sum()


class Bits:
    """Numbers from a named stream of raw 64-bit words."""

    def __init__(self, seed: int, *names: str | int) -> None:
        self._bits = rng.generator(seed, *names).bit_generator

    def words(self, n: int) -> np.ndarray:
        """(n,) uint64."""
        return np.asarray(self._bits.random_raw(n), dtype=np.uint64)

    def uniform(self, n: int) -> np.ndarray:
        """(n,) float64 in [0, 1)."""
        return (self.words(n) >> np.uint64(11)) * 2.0**-53

    def below(self, limits: np.ndarray) -> np.ndarray:
        """(n,) int64, each uniform below its limit (limits below 2**40, so the bias is below 1e-7)."""
        return (self.words(len(limits)) % limits.astype(np.uint64)).astype(np.int64)

    def permutation(self, n: int) -> np.ndarray:
        """A shuffle of range(n)."""
        return np.argsort(self.words(n), kind="stable")


class Sampler:
    """Draws without replacement: no sentence twice over the life of a sampler."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self._used = [np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)]  # sorted: many, few

    def split(self, groups: Sequence[Group], bits: Bits) -> Drawn:
        """All groups of a split; several groups are shuffled together."""
        parts = [self.draw(group, bits) for group in groups]
        joined = Drawn(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))
        return joined.take(bits.permutation(len(joined.codes))) if len(groups) > 1 else joined

    def draw(self, group: Group, bits: Bits) -> Drawn:
        """`group.count` sentences not drawn before; UserError when there are not enough."""
        self._check_capacity(group)
        grammar, bounds = self.grammar, np.cumsum(group.cells.ravel())
        last = int(np.flatnonzero(group.cells.ravel())[-1]) if group.count else 0
        parts: list[Drawn] = []
        missing, limit = group.count, 10_000_000 + PATIENCE * group.count
        while missing > 0:
            limit -= BLOCK
            if limit < 0:
                raise UserError(
                    f"{group.what}: {group.count:,} distinct sentences are nearly all there are; gave up"
                    f" with {missing:,} missing. Ask for fewer, or allow more templates"
                )
            cells = np.searchsorted(bounds, bits.uniform(BLOCK) * bounds[-1], side="right")
            templates, columns = np.divmod(np.minimum(cells, last), 2)
            codes = bits.below(grammar.sizes[templates])
            fresh = self._fresh(templates, codes, group.accept)[:missing]
            parts.append(Drawn(templates[fresh], codes[fresh], columns[fresh]))
            keys = grammar.offsets[templates[fresh]] + codes[fresh]
            self._remember(keys)
            missing -= len(fresh)
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return Drawn(empty, empty, empty)
        return Drawn(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))

    def _fresh(self, templates: np.ndarray, codes: np.ndarray, accept: Accept | None) -> np.ndarray:
        """Positions of the first occurrence of sentences that are accepted and new, in drawing order."""
        keys = self.grammar.offsets[templates] + codes
        first = np.zeros(len(keys), dtype=bool)
        first[np.unique(keys, return_index=True)[1]] = True
        keep = first & ~self._is_used(keys)
        if accept is not None:
            keep &= accept(templates, codes)
        return np.flatnonzero(keep)

    def _remember(self, keys: np.ndarray) -> None:
        many, few = self._used
        few = np.sort(np.concatenate([few, keys]))
        if len(few) * 8 > len(many):  # so that the long array is sorted rarely
            many, few = np.sort(np.concatenate([many, few])), few[:0]
        self._used = [many, few]

    def _is_used(self, keys: np.ndarray) -> np.ndarray:
        found = np.zeros(len(keys), dtype=bool)
        for used in self._used:
            if len(used):
                place = np.searchsorted(used, keys)
                found |= used[np.minimum(place, len(used) - 1)] == keys
        return found

    def _check_capacity(self, group: Group) -> None:
        if not group.count:
            return
        allowed = group.cells.sum(axis=1) > 0
        if not allowed.any():
            raise UserError(f"{group.what}: no template of the grammar is left to draw from")
        total = int((self.grammar.sizes[allowed] * group.share).sum())
        used = np.concatenate(self._used)
        templates = np.searchsorted(self.grammar.offsets, used, side="right") - 1
        here = allowed[templates]
        codes = used[here] - self.grammar.offsets[templates[here]]
        taken = group.accept(templates[here], codes).sum() if group.accept else here.sum()
        if group.count > total - taken:
            raise UserError(
                f"{group.what}: {group.count:,} distinct sentences were asked for, but its"
                f" {int(allowed.sum())} templates have {total:,}, of which {int(taken):,} are already"
                " in other splits. Ask for fewer sentences or allow more templates"
            )


def _columns(drawn: Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return drawn.templates, drawn.codes, drawn.columns


def choose_cells(cells: np.ndarray, count: int, bits: Bits) -> np.ndarray:
    """Keep a random `count` of the cells that have weight; a larger choice contains a smaller one."""
    possible = np.flatnonzero(cells.ravel())
    keep = possible[bits.permutation(len(possible))[:count]]
    chosen = np.zeros(cells.size)
    chosen[keep] = cells.ravel()[keep]
    return chosen.reshape(cells.shape)


def quotas(total: int, shares: Iterable[float]) -> list[int]:
    """Whole numbers that sum to `total`, by largest remainder; ties go to the first."""
    exact = [total * share for share in shares]
    counts = [int(value + 1e-9) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
