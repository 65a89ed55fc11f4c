"""Writing on from a prefix: which token comes next, and how a model is asked for one after the other.

A token is the likeliest one (temperature 0), or drawn: the distribution is sharpened by 1/temperature, cut to its
`top_k` likeliest tokens and to the smallest set of them that holds the share `top_p`, and inverted at a number in
[0, 1) that is a function of (key, number of the prefix, position). So a draw depends neither on batching nor on the
other prefixes.

Two ways of reading give the same scores, to rounding. `InPieces` reads a prefix once and then one token per step: n
tokens after a prefix of p cost p + n products per layer. `Whole` reads every row from its beginning each time, p + n
tokens n times: for models without `advance`, and the reference that the other is tested against.

A row whose context is full ends, or slides: it goes on from the last half of the model's positions, read anew with
its frame. Refuses a temperature below 0, a top_k below 1, a top_p outside ]0, 1], and a prefix longer than the model
unless rows slide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lexarium.foundation import rng
from lexarium.foundation.types import State, UserError

Context = tuple[np.ndarray, np.ndarray]
"""What an objective's `read` takes: what is given, and what follows it, in reading order."""
OnIds = Callable[[int, list[int]], None]
"""Called after every token with the number of the prefix and the ids that follow it so far, in reading order."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. With temperature 0 nothing is drawn, and the others have no effect."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    key: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(
                f"temperature: found {self.temperature}, expected a number of at least 0 (0 = greedy)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(
                f"top_k: found {self.top_k}, expected at least 1; leave it out to draw from all tokens"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p: found {self.top_p}, expected a share above 0 and up to 1")

    def choose(self, scores: Tensor, places: Sequence[int], position: int) -> list[int]:
        """One token per row of log-probabilities (n, V). `places`: numbers of the prefixes."""
        if self.temperature == 0:
            return [int(token) for token in scores.argmax(-1).tolist()]
        drawn = np.array([rng.generator(self.key, "sample", i, position).random() for i in places])
        found = draw(scores.cpu().numpy(), self.temperature, drawn, self.top_k, self.top_p)
        return [int(token) for token in found]


def draw(
    scores: np.ndarray,
    temperature: float,
    uniform: np.ndarray,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """(n, V) log-probabilities and (n,) numbers in [0, 1) -> (n,) tokens, by inverting the distribution.

    Tokens that score as much as the last one kept by `top_k` or `top_p` (Holtzman et al. 2020) are kept too.
    """
    scaled = scores.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(1, keepdims=True))
    if top_k is not None and top_k < weights.shape[1]:
        least = np.partition(weights, -top_k, axis=1)[:, -top_k, None]
        weights[weights < least] = 0.0
    if top_p is not None:
        falling = -np.sort(-weights, axis=1)
        before = falling.cumsum(1) - falling  # what the likelier tokens hold
        kept = (before < top_p * weights.sum(1, keepdims=True)).sum(1)
        weights[weights < np.take_along_axis(falling, kept[:, None] - 1, 1)] = 0.0
    summed = weights.cumsum(1)
    # the largest uniform, 1 - 2**-53, times a sum is less than the sum in doubles: no token of weight 0 is reached
    return (summed[:, :-1] <= (uniform * summed[:, -1])[:, None]).sum(1)


@dataclass
class Row:
    """One prefix and what follows it. `given` stays as it is (the source of an encoder); `ids` grow, the first
    `n_begun` of them being the prefix's; the model reads those from `start` on."""

    place: int
    given: np.ndarray
    ids: list[int]
    start: int = 0
    n_begun: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_begun = len(self.ids)

    @property
    def context(self) -> Context:
        """What the model reads now."""
        return self.given, np.array(self.ids[self.start :], dtype=np.int64)

    @property
    def produced(self) -> list[int]:
        """What followed the prefix."""
        return self.ids[self.n_begun :]

    def slide(self, limit: int) -> None:
        """Leave out all but the last half of a context of `limit` positions."""
        self.start = len(self.ids) - max(1, limit // 2)


Reading = Callable[[Sequence[Row]], tuple[Tensor, list[int]]]
"""Rows (some of those of the call before, each longer by a token) -> (n, V) log-probabilities of the next token, and
how many tokens of each row, frame included, the model has read."""
Begin = Callable[[Sequence[Context]], tuple[Tensor, list[int], State]]
Advance = Callable[[Tensor, State], tuple[Tensor, State]]


class InPieces:
    """A `Reading` that carries the model's state from token to token."""

    def __init__(self, begin: Begin, advance: Advance) -> None:
        self._begin, self._advance = begin, advance
        self._state: State | None = None
        self._starts: dict[int, int] = {}  # place -> start, of the rows in the order of the state
        self._lengths: list[int] = []

    def __call__(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        if self._state is None or any(self._starts[row.place] != row.start for row in rows):
            # rows that slide are read anew, and the others with them: a rare event
            scores, self._lengths, self._state = self._begin([row.context for row in rows])
        else:
            order = {place: i for i, place in enumerate(self._starts)}
            kept = [order[row.place] for row in rows]
            if len(kept) < len(order):
                self._lengths = [self._lengths[i] for i in kept]
                self._state = {
                    name: x[torch.tensor(kept, device=x.device)] for name, x in self._state.items()
                }
            scores, self._state = self._advance(torch.tensor([[row.ids[-1]] for row in rows]), self._state)
            self._lengths = [n + 1 for n in self._lengths]
        self._starts = {row.place: row.start for row in rows}
        return scores, self._lengths


def decode(
    rows: Sequence[Row],
    max_new_tokens: int,
    reading: Reading,
    sampling: Sampling,
    end: int,
    limit: int | None,
    slide: bool = False,
    on_token: OnIds | None = None,
) -> None:
    """Let rows grow, each up to the token `end`, `max_new_tokens`, or a full context of `limit` tokens."""
    going = list(rows)
    for position in range(max_new_tokens):
        if not going:
            break
        scores, lengths = reading(going)
        tokens = sampling.choose(scores, [row.place for row in going], position)
        staying = []
        for row, token, length in zip(going, tokens, lengths, strict=True):
            row.ids.append(token)
            if on_token is not None:
                on_token(row.place, row.produced)
            full = limit is not None and length >= limit
            if token != end and (slide or not full):
                staying.append(row)
                if full and limit is not None:
                    row.slide(limit)
        going = staying


def settled(text: str, direction: str) -> str:
    """Text without an incomplete character where it grows: the bytes still missing decode as U+FFFD there."""
    if direction == "forward":
        return text.rstrip("\ufffd")
    return text.lstrip("\ufffd") if direction == "backward" else text.strip("\ufffd")
