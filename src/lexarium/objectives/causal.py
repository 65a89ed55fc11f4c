"""Next-token prediction: the loss of every position of the row, in reading order.

A row is `bos w1 ... wn` and its targets `w1 ... wn eos` (either frame token can be switched off; without
`bos` the first token is read but not predicted). The single loss term `ce` is the sum over predicted
tokens, divided once by their number over the whole global batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Batch, Example, Output, Term, UserError
from lexarium.objectives.framing import cross_entropy_sum, rows_to_inputs, token_keys
from lexarium.tokens.tokenizers import Vocabulary, assign_roles


class Causal:
    """Language modelling in reading order."""

    kind, name, version = "objective", "causal", 1
    produces = frozenset({"tokens", "real", "position", "segment", "token_key"})
    answers = frozenset({"token_scores", "next_scores", "generate"})
    channels: tuple[str, ...] = ()

    class Config(ComponentConfig):
        """Options of `causal`."""

        type: str = "causal"
        bos: bool = True
        """Read a `bos` token first, so that every token of the text is predicted."""
        eos: bool = True
        """Predict `eos` after the last token."""
        label_smoothing: float = Field(0.0, ge=0, lt=1)
        document_mask: bool = False
        """Where several documents share a row, attend within the same document only."""

    def __init__(self, config: Config, tokenizer: Vocabulary) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.roles = assign_roles(tokenizer, self.extra_tokens)
        self.vocab_size = self.roles.vocab_size

    @property
    def extra_tokens(self) -> tuple[str, ...]:
        """Roles appended to the vocabulary, in order."""
        return tuple(role for role, wanted in (("eos", True), ("bos", self.config.bos)) if wanted)

    def frame(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Input row and its targets, of equal length."""
        row = np.concatenate(
            [
                [self.roles["bos"]] if self.config.bos else [],
                ids,
                [self.roles["eos"]] if self.config.eos else [],
            ]
        ).astype(np.int64)
        return row[:-1], row[1:]

    def collate(self, examples: Sequence[Example], dropout_key: int | None = None) -> Batch:
        """Rows of examples, padded; targets `labels` (N,) in the order of the real tokens."""
        framed = [self.frame(example.ids) for example in examples]
        rows = [row for row, _ in framed]
        keys = None
        if dropout_key is not None:
            keys = [token_keys(dropout_key, e.index, len(row)) for e, row in zip(examples, rows, strict=True)]
        inputs = rows_to_inputs(rows, self.roles["pad"], keys=keys)
        if self.config.document_mask:
            inputs |= self._documents(examples, rows)
        labels = torch.from_numpy(np.concatenate([target for _, target in framed]))
        n = int(labels.shape[0])
        if n == 0:
            raise UserError(
                "documents of one token leave nothing to predict without objective.bos and objective.eos"
            )
        return Batch(inputs, {"labels": labels}, {"ce": float(n)}, tuple(e.index for e in examples), n)

    def _documents(self, examples: Sequence[Example], rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """`segment` and `position` of rows that hold several documents; bos belongs to the first."""
        shift = int(self.config.bos)
        longest = max(len(row) for row in rows)
        segment = np.full((len(rows), longest), -1, dtype=np.int64)
        position = np.zeros((len(rows), longest), dtype=np.int64)
        for i, (example, row) in enumerate(zip(examples, rows, strict=True)):
            n = len(row)
            segment[i, shift:n] = example.segment[: n - shift]
            segment[i, :shift] = example.segment[0]
            starts = np.flatnonzero(np.diff(segment[i, :n], prepend=-2))
            position[i, :n] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        return {"segment": torch.from_numpy(segment), "position": torch.from_numpy(position)}

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """`ce`: cross-entropy in nats."""
        total = cross_entropy_sum(output, batch.targets["labels"], self.config.label_smoothing)
        return {"ce": Term(total)}

    # -- asking the trained model --------------------------------------------------------------------

    def read(self, prefixes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Batch, Tensor]:
        """A batch of (given, begun) prefixes and (B,) the flat index of the state that predicts what follows.

        `given` and `begun` are ids in reading order; for a language model they simply follow each other.
        """
        bos = [self.roles["bos"]] if self.config.bos else []
        rows = [np.concatenate([bos, given, begun]).astype(np.int64) for given, begun in prefixes]
        if any(len(row) == 0 for row in rows):
            raise UserError("an empty prefix needs objective.bos: there is nothing to predict from")
        last = torch.from_numpy(np.cumsum([len(row) for row in rows]) - 1)
        return Batch(rows_to_inputs(rows, self.roles["pad"]), {}, {}), last

    def scored(self, example: Example) -> np.ndarray:
        """Places of `example.ids` that `collate` predicts, in the order of its targets; -1 stands for eos."""
        places = np.arange(0 if self.config.bos else 1, len(example))
        return np.append(places, -1) if self.config.eos else places
