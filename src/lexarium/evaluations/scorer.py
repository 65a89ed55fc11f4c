"""The scorer: uniform questions to any trained model.

A question is asked in text; the scorer encodes it, applies the run's direction, lets the objective frame
it (so the treatment of `bos` is the one of training: with `objective.bos` the first token is predicted
from `bos`, without it the first token has no score), sorts by length, batches, and puts the answers back
in order. A prefix is a text, or a pair (given, begun): what an encoder-decoder reads and what its decoder
has produced so far; a language model reads one after the other. Dropout is off: no token keys are given.
A model that reads in two directions is asked in each of them (`views`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lexarium.evaluations.decoding import (
    Context,
    InPieces,
    OnIds,
    Reading,
    Row,
    Sampling,
    decode,
    settled,
)
from lexarium.evaluations.predictability import feature_statistics, token_statistics
from lexarium.foundation.types import Batch, Document, Example, Output, State, UserError
from lexarium.objectives.framing import log_probabilities
from lexarium.tokens.block import Block, keeps_up
from lexarium.tokens.direction import views_of
from lexarium.tokens.parts import told_at

Prefix = str | tuple[str, str]
Rows = Sequence[np.ndarray]
Measure = Callable[[Output, np.ndarray], np.ndarray]
BATCH_TOKENS = 4096
"""Padded positions per forward pass."""
CARRIED = 8
"""Positions a model may carry while it generates, in forward passes: far less than a pass needs is kept of each."""


class Scorer:
    """A model, and how to ask it."""

    def __init__(
        self,
        model: nn.Module,
        objective: Any,
        direction: Any,
        tokenizer: Any,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_tokens: int = BATCH_TOKENS,
        opening: int | None = None,
    ) -> None:
        """`opening`: the token that stands before documents in training, where rows have no bos: what is read where a
        text is to be written from nothing."""
        self.opening = opening
        self.model, self.objective, self.tokenizer = model, objective, tokenizer
        self._direction, self.device, self.precision = direction, torch.device(device), precision
        self.direction: str = direction.name
        start = getattr(direction, "start", "")
        self._start = {"start": start} if start else {}
        self.roles = objective.roles
        self.vocab_size = objective.vocab_size
        self._batch_tokens = batch_tokens

    def views(self) -> dict[str, Scorer]:
        """A scorer for each direction the model reads in, by name; itself, named "", where there is but one."""
        found = views_of(self._direction)
        if list(found) == [""]:
            return {"": self}
        rest = (self.tokenizer, self.device, self.precision, self._batch_tokens, self.opening)
        return {name: Scorer(self.model, self.objective, view, *rest) for name, view in found.items()}

    # -- questions -----------------------------------------------------------------------------------

    def id(self, word: str) -> int:
        """The single token id of a word."""
        ids, _ = self.tokenizer.encode(word)
        if len(ids) != 1:
            raise UserError(f"{word!r} is {len(ids)} tokens under this tokenizer; one is needed")
        return int(ids[0])

    def next_scores(self, prefixes: Sequence[Prefix]) -> np.ndarray:
        """(n, V) float32: log-probability (nats) of every token after each prefix."""
        rows = [self._read(p) for p in prefixes]
        found = np.zeros((len(rows), self.vocab_size), dtype=np.float32)
        for chosen in self._batches([len(a) + len(b) for a, b in rows]):
            found[chosen] = self._next([rows[i] for i in chosen]).cpu().numpy()
        return found

    def predictions(self, rows: Rows, targets: Rows, mark: int) -> list[np.ndarray]:
        """Per row, float64 (L, 4): of what the model predicts after each token read, the loss of the target (nats), its
        rank (0 = best), the entropy (nats), and the probability of the token `mark`.

        Rows and targets are ids in READING order. L counts bos where the objective reads one, first; targets (L,) may
        be -1, where loss and rank are NaN. Of a number that is not one the loss is infinite. Of a model that predicts
        features the columns of `feature_statistics` follow, (L, 8).
        """

        def measure(output: Output, chosen: np.ndarray) -> np.ndarray:
            wanted = torch.from_numpy(np.concatenate([targets[i] for i in chosen])).to(self.device)
            values = token_statistics(output, wanted, mark)
            more = [feature_statistics(output, wanted)] if output.features is not None else []
            return np.concatenate([values, *more], axis=1)

        return self.measured(rows, measure)

    def measured(self, rows: Rows, measure: Measure, layers: bool = False) -> list[np.ndarray]:
        """Per row of ids in READING order, (L, ...): what `measure` makes of the states after each token read.

        `measure(output, chosen)` sees one batch, the rows with the numbers `chosen` one after the other, and gives an
        array with one entry per state. L counts bos where the objective reads one. With `layers` the output has them.
        """
        return self._measured([(np.zeros(0, np.int64), row) for row in rows], measure, layers)

    def _measured(self, rows: Sequence[Context], measure: Measure, layers: bool) -> list[np.ndarray]:
        found: list[np.ndarray] = [np.zeros(0)] * len(rows)
        for chosen in self._batches([len(a) + len(b) for a, b in rows]):
            batch, last = self._contexts([rows[i] for i in chosen])
            with self._inference():
                values = measure(self._forward(batch, **({"layers": []} if layers else {})), chosen)
            ends = (last + 1).tolist()
            for i, start, end in zip(chosen, [0, *ends], ends, strict=False):
                found[i] = values[start:end]
        return found

    def choose(
        self, prefixes: Sequence[Prefix], candidates: Sequence[str] | Sequence[Sequence[str]]
    ) -> np.ndarray:
        """(n,) int64: for each prefix the index of the candidate word with the highest score next.

        `candidates` is one list of words for all prefixes, or one list per prefix; a tie goes to the first.
        """
        scores = self.next_scores(prefixes)
        if candidates and isinstance(candidates[0], str):
            return scores[:, [self.id(str(w)) for w in candidates]].argmax(1)
        return np.array(
            [row[[self.id(w) for w in words]].argmax() for row, words in zip(scores, candidates, strict=True)]
        )

    def token_scores(self, documents: Sequence[Document | Example]) -> list[np.ndarray]:
        """Per document, float64 log-probabilities (nats) of its tokens in CORPUS order, then of eos.

        NaN where the objective predicts nothing (the source of an encoder-decoder, a first token without bos);
        minus infinity where the model's own answer is not a number.
        """
        examples = [d if isinstance(d, Example) else self._example(d, i) for i, d in enumerate(documents)]
        found: list[np.ndarray] = [np.zeros(0)] * len(examples)
        for chosen in self._batches([len(e) + 2 for e in examples]):
            group = [examples[i] for i in chosen]
            scores, start = self._predicted(group), 0
            for i, example in zip(chosen, group, strict=True):
                places = self.objective.scored(example)
                values = np.full(len(example) + 1, np.nan)
                values[places] = scores[start : start + len(places)]
                start += len(places)
                values[:-1] = self._direction.undo(values[:-1])
                found[i] = values
        return found

    def window_scores(self, windows: Block) -> np.ndarray:
        """(B, P) float64: log-probabilities (nats) of what is predicted in each example, in READING order.

        `windows` are in corpus order and equally long. P is their length, one more with eos, one less without bos.
        """
        if windows.width is None:
            raise ValueError("window_scores takes examples of one length")
        moved, size = self.moved(windows), max(1, self._batch_tokens // (windows.width + 1))
        parts = [self._predicted(moved[i : i + size]) for i in range(0, len(moved), size)]
        return np.concatenate(parts).reshape(len(windows), -1)

    def moved(self, examples: Block) -> Block:
        """Examples in corpus order as this direction reads them."""
        turn = self._direction
        if keeps_up(turn, "apply_block", "apply"):
            return turn.apply_block(examples)
        return Block.of([turn.apply(e) for e in examples])

    def terms(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """Name -> (2,) float64, sum and weight of each loss term of the objective over examples in READING order."""
        found: dict[str, np.ndarray] = {}
        for chosen in self._batches([len(e) + 2 for e in examples]):
            batch = self.objective.collate([examples[i] for i in chosen]).to(self.device)
            with self._inference():
                terms = self.objective.loss(self._forward(batch), batch)
            for name, weight in batch.weights.items():
                found[name] = found.get(name, np.zeros(2)) + [float(terms[name].sum), weight]
        return found

    def _predicted(self, examples: Sequence[Example]) -> np.ndarray:
        """(N,) float64: log-probabilities of the targets of one batch, in the order of `objective.scored`."""
        batch = self.objective.collate(examples)
        with self._inference():
            output = self._forward(batch)
            labels = batch.targets["labels"].to(self.device)
            scores = log_probabilities(output, labels.clamp_min(0)).double().cpu().numpy()
        scores[np.isnan(scores)] = -np.inf
        found: np.ndarray = scores[(labels >= 0).cpu().numpy()]  # -100: left out of the loss
        return found

    def generate(
        self,
        prefixes: Sequence[Prefix],
        max_new_tokens: int,
        temperature: float = 0.0,
        key: int = 0,
        top_k: int | None = None,
        top_p: float | None = None,
        slide: bool = False,
        on_token: Callable[[int, str], None] | None = None,
    ) -> list[str]:
        """Continuations as text, up to eos or `max_new_tokens`, in corpus order.

        A row that reaches the model's `max_length` ends there; with `slide` it reads the last half of its context
        anew and goes on. How a token is chosen: see `evaluations/decoding.py`. `on_token(number of the prefix,
        continuation so far)` is called after every token, without a character that is not complete yet.
        """
        seen: OnIds | None = None
        if on_token is not None:
            told = on_token
            seen = lambda place, ids: told(place, settled(self.text(ids), self.direction))
        sampling = Sampling(temperature, top_k, top_p, key)
        return [self.text(ids) for ids in self.generate_ids(prefixes, max_new_tokens, sampling, slide, seen)]

    def generate_ids(
        self,
        prefixes: Sequence[Prefix],
        max_new_tokens: int,
        sampling: Sampling | None = None,
        slide: bool = False,
        on_token: OnIds | None = None,
    ) -> list[list[int]]:
        """`generate` as ids in reading order, the eos that ended a row included."""
        rows = [self._row(i, prefix) for i, prefix in enumerate(prefixes)]
        limit = getattr(self.model, "max_length", None)
        if slide and limit is not None:
            for row in rows:
                if self._framed(row) > limit:
                    row.slide(limit)
        settings = (sampling or Sampling(), self.end, limit, slide, on_token)
        with self._inference():
            for group, reading in self._readings(rows, max_new_tokens):
                decode(group, max_new_tokens, reading, *settings)
        return [row.produced for row in rows]

    @property
    def end(self) -> int:
        """The token that ends a row; none where windows of one length are written."""
        return -1 if getattr(self._direction, "one_length", False) else int(self.roles["eos"])

    def text(self, ids: Sequence[int], prefix: Prefix = "") -> str:
        """Text in corpus order of what followed a prefix, together with the prefix; of one with a source, with what
        was begun only. Decoded as one: pieces of a text need not be texts. An eos at the end is left out."""
        ids = list(ids[:-1]) if len(ids) and ids[-1] == self.end else list(ids)
        both = np.array([*self._begun(prefix)[1], *ids], dtype=np.int64)
        return self.tokenizer.decode(self._direction.undo(both))

    def hidden(self, prefixes: Sequence[Prefix]) -> list[np.ndarray]:
        """Per prefix, float32 (layers + 1, L, D): states of every token of the prefix (bos left out).

        Of an encoder-decoder, the decoder's: L counts what it has begun to produce. Raises UserError for a
        model whose layers differ in width.
        """
        return self._states([self._read(p) for p in prefixes])

    def states(self, rows: Rows) -> list[np.ndarray]:
        """`hidden` of rows of ids in READING order: what is read need not be the tokens of a text."""
        return self._states([(np.zeros(0, np.int64), row) for row in rows])

    def _states(self, rows: Sequence[Context]) -> list[np.ndarray]:
        def measure(output: Output, _: np.ndarray) -> np.ndarray:
            assert output.layers is not None
            if len({states.shape[1] for states in output.layers}) > 1:
                raise UserError("the layers of this model differ in width, so their states cannot be stacked")
            return np.asarray(torch.stack(output.layers, dim=1).float().cpu().numpy())

        source = "source" in self.model.consumes  # type: ignore[operator]
        own = [len(begun) if source else len(given) + len(begun) for given, begun in rows]
        found = self._measured(rows, measure, layers=True)
        return [values[len(values) - n :].swapaxes(0, 1) for values, n in zip(found, own, strict=True)]

    # -- how -----------------------------------------------------------------------------------------

    def _example(self, document: Document, index: int) -> Example:
        ids, first = self.tokenizer.encode(document.text)
        places = told_at(document.text, first) if document.channels else first
        channels = {name: np.asarray(values)[places] for name, values in document.channels.items()}
        zeros = np.zeros(len(ids), dtype=np.int64)
        return self._direction.apply(Example(ids, np.arange(len(ids)), zeros, channels, (index,), index))

    def _read(self, prefix: Prefix) -> tuple[np.ndarray, np.ndarray]:
        given, begun = prefix if isinstance(prefix, tuple) else (prefix, "")
        if not isinstance(given, str):
            raise UserError(f"a prefix is a text, or a pair (source, target begun); found {prefix!r}")
        encode = lambda text: (
            self._direction.undo(self.tokenizer.encode(text)[0]) if text else np.zeros(0, np.int64)
        )
        return encode(given), encode(begun)

    def _batches(self, lengths: Sequence[int]) -> Iterator[np.ndarray]:
        """Indices in groups of similar length, each within the token budget."""
        order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
        start = 0
        while start < len(order):
            longest = max(1, lengths[order[start]] + 1)
            stop = start + max(1, self._batch_tokens // longest)
            yield order[start:stop]
            start = stop

    def _contexts(self, contexts: Sequence[Context]) -> tuple[Batch, Tensor]:
        """What the model reads of prefixes, in the direction it is asked in, and where the last state of each lies."""
        found: tuple[Batch, Tensor] = self.objective.read(contexts, **self._start)
        return found

    def _next(self, contexts: Sequence[Context]) -> Tensor:
        batch, last = self._contexts(contexts)
        with self._inference():
            return self._scores(self._forward(batch), last)

    def _scores(self, output: Output, last: Tensor | None = None) -> Tensor:
        """(n, V) log-probabilities after the states with flat indices `last`, or after all."""
        hidden = output.hidden if last is None else output.hidden.index_select(0, last.to(self.device))
        return output.unembed(hidden).float().log_softmax(-1)

    # -- writing on ----------------------------------------------------------------------------------

    def _begun(self, prefix: Prefix) -> tuple[np.ndarray, list[int]]:
        """A source, or nothing, and the ids that are written on."""
        given, begun = self._read(prefix)
        if "source" in self.model.consumes:  # type: ignore[operator]
            return given, begun.tolist()
        return given[:0], [*given.tolist(), *begun.tolist()]

    def _row(self, place: int, prefix: Prefix) -> Row:
        given, ids = self._begun(prefix)
        opening = [] if self.opening is None or len(given) else [self.opening]
        return Row(place, given, ids or opening)

    def _framed(self, row: Row) -> int:
        """Tokens of a row as the model reads it."""
        return int(self._contexts([row.context])[0].inputs["tokens"].shape[1])

    def _readings(self, rows: list[Row], max_new_tokens: int) -> Iterator[tuple[list[Row], Reading]]:
        """Groups of rows to be grown together, and how to read them."""
        if not rows:
            return
        if not self._in_pieces([row.context for row in rows[:1]]):
            yield rows, self._whole
            return
        lengths = [len(row.given) + len(row.ids) - row.start for row in rows]
        limit = getattr(self.model, "max_length", None)
        carried = [n + max_new_tokens if limit is None else min(n + max_new_tokens, limit) for n in lengths]
        for chosen in self._batches([max(n, m // CARRIED) for n, m in zip(lengths, carried, strict=True)]):
            yield [rows[i] for i in chosen], InPieces(self._begin, self._advance)

    def _in_pieces(self, contexts: Sequence[Context]) -> bool:
        """Whether the model can read in pieces what the objective gives it, and the objective only appends."""
        taken: frozenset[str] = getattr(self.model, "advances", frozenset())
        if not _promises(self.model, "advances", "forward") or not _promises(
            self.objective, "appends", "read"
        ):
            return False
        consumes: frozenset[str] = self.model.consumes  # type: ignore[assignment]
        return consumes & self._contexts(contexts)[0].inputs.keys() <= taken

    def _begin(self, contexts: Sequence[Context]) -> tuple[Tensor, list[int], State]:
        batch, last = self._contexts(contexts)
        output, state = self._forward(batch, self.model.advance)
        return self._scores(output, last), _lengths(last), state

    def _advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        output, state = self.model.advance(tokens.to(self.device), state)  # type: ignore[operator]
        return self._scores(output), state

    def _whole(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """A `Reading` from the beginning of every row."""
        scores: dict[int, Tensor] = {}
        lengths = [0] * len(rows)
        for chosen in self._batches([len(row.given) + len(row.ids) - row.start for row in rows]):
            batch, last = self._contexts([rows[i].context for i in chosen])
            found = self._scores(self._forward(batch), last)
            for i, values, length in zip(chosen, found, _lengths(last), strict=True):
                scores[i], lengths[i] = values, length
        return torch.stack([scores[i] for i in range(len(rows))]), lengths

    def _forward(self, batch: Batch, read: Any = None, **options: Any) -> Any:
        """What `read` (the model, or its `advance`) gives for a batch."""
        limit = getattr(self.model, "max_length", None)
        longest = max(batch.inputs[name].shape[1] for name in ("tokens", "source") if name in batch.inputs)
        if limit is not None and longest > limit:
            raise UserError(
                f"a row of {longest} tokens (frame included) is longer than model.max_positions {limit}; raise it,"
                " or leave out the longer documents"
            )
        batch = batch.to(self.device)
        consumes = self.model.consumes
        inputs = {k: v for k, v in batch.inputs.items() if k in consumes}  # type: ignore[operator]
        return (self.model if read is None else read)(**inputs, **options)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                if self.precision in ("fp32", "tf32"):
                    yield
                else:
                    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
                    with torch.autocast(self.device.type, dtype=dtype):
                        yield
        finally:
            self.model.train(training)


def _promises(component: Any, promise: str, method: str) -> bool:
    """Whether a component promises something of a method; one that defines the method anew has to promise anew."""
    owner = lambda name: next((c for c in type(component).__mro__ if name in vars(c)), object)
    return bool(getattr(component, promise, False)) and (
        promise in vars(component) or issubclass(owner(promise), owner(method))
    )


def _lengths(last: Tensor) -> list[int]:
    """Tokens of each row, from the flat indices of their last ones."""
    return last.diff(prepend=last.new_tensor([-1])).tolist()
