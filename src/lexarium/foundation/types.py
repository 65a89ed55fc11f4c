"""The words every layer shares, as plain data.

A `Document` leaves a corpus; an `Example` leaves a packing plan; a `Batch` leaves an objective's
`collate`; an `Output` leaves a model; a `Term` leaves an objective's `loss`; a `Result` leaves an
evaluation. Nothing here computes and nothing here imports torch at run time, so that the verbs which
only read files stay fast.

Inputs of a model are a closed list, documented once in `INPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lexarium.foundation.config import ComponentConfig

FieldValue = str | int | float | bool

INPUTS: dict[str, str] = {
    "tokens": "(B, T) int64: input ids, right-padded with the pad id",
    "position": "(B, T) int64: position within the document, counted from 0",
    "segment": "(B, T) int64: which document of the row a token belongs to; -1 on padding",
    "document_ends": "(K,) int32: cumulative lengths of the documents in the order of the real tokens, from 0 to N, N"
    " repeated to fill K; says the same as `segment` to variable-length attention",
    "mask": "(B, T) bool: true on real tokens",
    "real": "(N,) int64: flat indices of the real tokens of `tokens`, in row order; N = mask.sum()",
    "token_key": "(B, T) int32: dropout key of each token; absent = evaluation",
    "source": "(B, S) int64: input ids of an encoder, right-padded",
    "source_position": "(B, S) int64",
    "source_segment": "(B, S) int64",
    "source_mask": "(B, S) bool",
    "source_real": "(M,) int64: flat indices of the real tokens of `source`",
    "source_key": "(B, S) int32: dropout keys of the source tokens",
    "features": "(B, T, F) float: feature vectors in place of, or beside, ids",
}
"""Every name a model may consume and an objective may produce."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what was found, what was expected, where, what to do.

    The command line prints it without a trace (``--debug`` shows one).
    """


def gist(error: BaseException) -> str:
    """The first line of what an error says, or its kind when it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


class Incompatible(UserError):
    """Two factors of a run that do not fit together; found before anything is built."""


class NonFinite(UserError):
    """A loss or gradient that is not finite, under the policy `stop`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus.

    `channels` are aligned with the CHARACTERS of `text`; a token takes the value at its first
    character, so a channel means the same under every tokenizer.
    """

    text: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    channels: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a corpus that can be read without the others: in another process, again after an interruption.

    `name` says to people what it is; `size` is in bytes on disk (or rows), for progress; `where` is how the corpus
    finds it; `stamp` is what its source was when preparation began: a process that finds another refuses.
    """

    name: str
    size: int
    where: tuple[int, ...]
    stamp: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenPart:
    """Ids of one split that exist already: in a file, from byte `offset` on, as `dtype`; or, with offset None, to be
    copied. ids (n,) integers; documents (k + 1,) int64: where each begins, and n."""

    path: str
    offset: int | None
    dtype: str
    ids: np.ndarray
    documents: np.ndarray


class Corpus(Protocol):
    """What every corpus offers. A class in `corpora/` with `kind = "corpus"` is found by its `name`.

    A corpus of any size also offers `parts() -> list[Part]` and `read(part, counts) -> Iterator[tuple[str, Document]]`,
    the documents of a part with the split of each; `counts` (name -> number) takes up what was mended on the way.
    Then `documents(split)` gives the same, part after part. `record() -> dict` is what its store's manifest
    keeps about it. A corpus of ids that were made before offers `token_parts(split) -> Iterator[TokenPart]` instead.
    Documents of two splits are never equal, unless it says `repeats = True`: people say the same thing twice.
    A corpus that knows the entropy of its documents may also have `floors(direction: str) -> dict[str, float]`: the
    expected negative log-probability under the true distribution, in nats per document, of the whole (key "") and,
    where known, of slices by a channel (key "half.1"). Evaluation `loss` then reports the excess over it.
    """

    config: ComponentConfig

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold documents, among `train val test ood` and others."""

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, always in the same order."""

    def symbols(self) -> list[str]:
        """Words that are in the vocabulary whether or not a document holds them."""

    def fingerprint(self) -> str:
        """Hash of the content of files read; "" when the config alone determines every document."""


@dataclass(slots=True)
class Example:
    """What one row of a batch is made of, before an objective frames it.

    ids (L,) int64; position (L,) position within the document; segment (L,) document number within
    the example; channels name -> (L,). `index` is the global number of the example: epoch * len(plan)
    + place in the epoch's order, and is what keyed randomness hashes. `start` is the role of the token
    that is read first; "" = bos.
    """

    ids: np.ndarray
    position: np.ndarray
    segment: np.ndarray
    channels: dict[str, np.ndarray]
    documents: tuple[int, ...]
    index: int
    epoch: int = 0
    start: str = ""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Batch:
    """Model inputs (see `INPUTS`), targets, and the weight of every loss term.

    weights: term name -> this batch's share of the term's denominator (usually a token count).
    coefficients: term name -> what the term counts in this step, where that changes in the course of training; 1 for
    terms left out. The same for every micro-batch and process of a step.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    weights: dict[str, float]
    examples: tuple[int, ...] = ()
    n_tokens: int = 0
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def to(self, device: Any) -> Batch:
        """The same batch on another device."""
        move = lambda tensors: {k: v.to(device, non_blocking=True) for k, v in tensors.items()}
        return replace(self, inputs=move(self.inputs), targets=move(self.targets))


@dataclass(slots=True)
class Output:
    """What a model returns: hidden states of the REAL target-side tokens and the way to logits.

    hidden (N, D), in the order of the input `real` (all B*T tokens when `real` is absent);
    unembed: (n, D) -> (n, V) logits. The loss may call it on pieces, so that all logits of a large
    vocabulary are never held at once. head: the matrix (V, D) and bias (V,) or None of an `unembed` that is one
    linear map, from which the loss of a large vocabulary has its gradients without computing logits twice.
    `terms` are loss terms of the model's own (a gate penalty).
    `layers` holds per-layer hidden states, only when asked for. `intermediate` holds what layers before the last one
    predict through unembeddings of their own, in the order of the layers; questions are answered without it.
    `features`, of a model that predicts tokens by their features: the values (V, S, C) of every token, one-hot, and the
    way (n, D) -> (n, S, C) to the features' logits.
    """

    hidden: Tensor
    unembed: Callable[[Tensor], Tensor]
    terms: dict[str, Term] = field(default_factory=dict)
    layers: list[Tensor] | None = None
    head: tuple[Tensor, Tensor | None] | None = None
    intermediate: list[Output] = field(default_factory=list)
    features: tuple[Tensor, Callable[[Tensor], Tensor]] | None = None


State = dict[str, "Tensor"]
"""What a model carries from the tokens of a batch of rows read so far: tensors by name. The first dimension of each is
the row, so rows are left out, repeated or re-ordered by indexing every tensor alike."""


class Advances(Protocol):
    """A model that also reads rows in pieces: how text is generated without reading its beginning again.

    Optional. The states it returns are, to rounding, those of the same tokens read at once, without dropout, and no
    gradient flows. Rows may be of unequal length and advance by unequal numbers of tokens.
    """

    advances: frozenset[str]
    """Inputs that `advance` takes, among `INPUTS`. A batch with others that the model consumes is read at once."""

    def advance(self, tokens: Tensor, state: State | None = None, **inputs: Tensor) -> tuple[Output, State]:
        """Read (B, T) further tokens of every row, right-padded (`real` says which are there; at least one per row).

        Without `state` the rows begin here, and the inputs are those of `forward`; with it they are `tokens` and, where
        rows are padded, `real`. Returns the output of the tokens just read, and the state after them. The state
        given is used up: its tensors may have been written to.
        """


@dataclass(slots=True)
class Term:
    """One named part of a loss. The loss of a step is the sum over terms of coefficient * sum / weight, with the
    term's weight in `Batch.weights` summed over the whole global batch. `Batch.coefficients` multiplies a term once
    more.

    A `per_step` term has no weight: it is a property of the weights or of the whole step (a gate penalty). Its
    mean over the step's forward passes is added once, however many micro-batches and processes there are.
    """

    sum: Tensor
    coefficient: float = 1.0
    per_step: bool = False


@dataclass(slots=True)
class Result:
    """What an evaluation returns: numbers by name, and one row per item (column name -> values)."""

    metrics: dict[str, float | int]
    items: dict[str, list[Any]] = field(default_factory=dict)
