"""Sequence to sequence: an encoder reads the first part of an example, a decoder predicts the second.

The parts are told apart by a channel of the corpus (0 = source, 1 = target). The decoder reads
`bos t1 ... tn` and predicts `t1 ... tn eos`; the term `ce` is over target tokens and eos only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Batch, Example, Output, Term, UserError
from lexarium.objectives.framing import cross_entropy_sum, row_keys, rows_to_inputs
from lexarium.tokens.tokenizers import Vocabulary, assign_roles


class Seq2Seq:
    """Source in, target out."""

    kind, name, version = "objective", "seq2seq", 1
    produces = frozenset(
        {"tokens", "real", "token_key", "source", "source_real", "source_mask", "source_key"}
    )
    answers = frozenset({"token_scores", "next_scores", "generate"})
    extra_tokens = ("eos", "bos")
    appends = True  # a longer prefix is read as the same row, with its new tokens at the end

    class Config(ComponentConfig):
        """Options of `seq2seq`."""

        type: str = "seq2seq"
        channel: str = "half"
        """Channel that is 0 on source tokens and 1 on target tokens."""
        label_smoothing: float = Field(0.0, ge=0, lt=1)

    def __init__(self, config: Config, tokenizer: Vocabulary) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.channels = (config.channel,)
        self.roles = assign_roles(tokenizer, self.extra_tokens)
        self.vocab_size = self.roles.vocab_size

    def _parts(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        if self.config.channel not in example.channels:
            raise UserError(
                f"objective seq2seq: a document without the channel {self.config.channel!r} cannot be split"
            )
        target = example.channels[self.config.channel] == 1
        if target.all() or not target.any():
            raise UserError(
                f"objective seq2seq: document {example.documents} lacks a source or a target part"
            )
        return example.ids[~target], example.ids[target]

    def _inputs(self, sources: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        pad = self.roles["pad"]
        inputs = rows_to_inputs(rows, pad) | rows_to_inputs(sources, pad, "source")
        mask = np.arange(inputs["source"].shape[1]) < _lengths(sources)[:, None]
        return inputs | {"source_mask": torch.from_numpy(mask)}

    def collate(self, examples: Sequence[Example], dropout_key: int | None = None) -> Batch:
        """Decoder rows and encoder rows, each padded; targets `labels` (N,) in the order of the real tokens."""
        parts = [self._parts(example) for example in examples]
        rows = [np.concatenate([[self.roles["bos"]], target]) for _, target in parts]
        sources = [source for source, _ in parts]
        numbers = np.array([e.index for e in examples])
        inputs = self._inputs(sources, rows)
        if dropout_key is not None:
            for name, given, stream in (("token_key", rows, 0), ("source_key", sources, 1)):
                inputs[name] = torch.from_numpy(row_keys(dropout_key, numbers, _lengths(given), stream))
        labels = np.concatenate([np.append(target, self.roles["eos"]) for _, target in parts])
        n = len(labels)
        targets = {"labels": torch.from_numpy(labels)}
        return Batch(inputs, targets, {"ce": float(n)}, tuple(numbers.tolist()), n)

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """`ce`: cross-entropy in nats."""
        total = cross_entropy_sum(output, batch.targets["labels"], self.config.label_smoothing)
        return {"ce": Term(total)}

    def read(self, prefixes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Batch, Tensor]:
        """A batch of (source, begun target) and (B,) the flat index of the state that predicts what follows."""
        rows = [np.concatenate([[self.roles["bos"]], begun]).astype(np.int64) for _, begun in prefixes]
        last = torch.from_numpy(np.cumsum([len(row) for row in rows]) - 1)
        return Batch(self._inputs([given for given, _ in prefixes], rows), {}, {}), last

    def scored(self, example: Example) -> np.ndarray:
        """Places of `example.ids` that `collate` predicts; -1 stands for eos."""
        return np.append(np.flatnonzero(example.channels[self.config.channel] == 1), -1)


def _lengths(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(row) for row in rows])
