"""Next-token prediction: the loss of every position of the row, in reading order.

A row is `bos w1 ... wn` and its targets `w1 ... wn eos` (either frame token can be switched off; without
`bos` the first token is read but not predicted). A direction that reads in several ways puts a token of its
own in the place of bos (`Example.start`). The single loss term `ce` is the sum over predicted
tokens, divided once by their number over the whole global batch.

Intermediate losses (Al-Rfou et al. 2019, "Intermediate Layer Losses"). A model whose layers predict for themselves
(`Output.intermediate`) is trained by the mean of the losses of its n layers: `ce` of the last and `ce.layer_i` of
layer i = 0 .. n - 2. Layer i is left out once the share of updates done, step / max_steps, exceeds (i + 1) / (2n), and
the mean is over the layers that remain; in the second half that is the last one alone. A layer left out is still
computed and logged: its term is multiplied by 0, so all that reaches its classifier is a gradient of exactly zero
(momentum and weight decay go on). Every program and every cohort takes this one form. Cost: one unembedding per layer.

With `loss: features`, for a model that predicts tokens by their features, the term is `feature_ce`: the cross-entropy
of every feature, averaged over features. Its scale is another; evaluations ask about tokens all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Batch, Example, Output, Term, UserError
from lexarium.objectives.framing import (
    Framed,
    cross_entropy_sum,
    feature_cross_entropy_sum,
    frame,
    pad_joined,
    row_keys,
    rows_to_inputs,
)
from lexarium.tokens.block import Block
from lexarium.tokens.tokenizers import Vocabulary, assign_roles

ENDS = 64
"""The length of `document_ends` is a multiple of this, so that few shapes occur."""


class Causal:
    """Language modelling in reading order."""

    kind, name, version = "objective", "causal", 1
    produces = frozenset({"tokens", "real", "position", "segment", "document_ends", "token_key"})
    answers = frozenset({"token_scores", "next_scores", "generate"})
    channels: tuple[str, ...] = ()
    appends = True  # a longer prefix is read as the same row, with its new tokens at the end
    starts = True
    """Rows may begin with a direction's own token in the place of bos."""

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
        intermediate_losses: int = Field(0, ge=0)
        """Layers before the last one that are trained to predict too: n_layers - 1 of a model with
        `intermediate_outputs`, else 0."""
        loss: Literal["tokens", "features"] = "tokens"
        """What the cross-entropy is of: the next token, or each of its features (model.features)."""

        @model_validator(mode="after")
        def _fits(self) -> Causal.Config:
            for name in ("label_smoothing", "intermediate_losses"):
                if self.loss == "features" and getattr(self, name):
                    raise ValueError(f"{name} belongs to loss: tokens; leave one of them out")
            return self

    def __init__(self, config: Config, tokenizer: Vocabulary) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.roles = assign_roles(tokenizer, self.extra_tokens)
        self.vocab_size = self.roles.vocab_size
        self._term = "ce" if config.loss == "tokens" else "feature_ce"

    @property
    def extra_tokens(self) -> tuple[str, ...]:
        """Roles appended to the vocabulary, in order."""
        return tuple(role for role, wanted in (("eos", True), ("bos", self.config.bos)) if wanted)

    def collate(self, examples: Sequence[Example], dropout_key: int | None = None) -> Batch:
        """Rows of examples, padded; targets `labels` (N,) in the order of the real tokens."""
        block, config, roles = Block.of(examples), self.config, self.roles
        bos, eos = self._starts(block) if config.bos else None, roles["eos"] if config.eos else None
        framed = frame(block.ids, block.lengths, bos, eos, roles["pad"])
        inputs = {"tokens": torch.from_numpy(framed.table)}
        if framed.mask is not None:
            inputs["real"] = torch.from_numpy(np.flatnonzero(framed.mask))
        if dropout_key is not None:
            inputs["token_key"] = torch.from_numpy(row_keys(dropout_key, block.numbers, framed.lengths))
        if config.document_mask:
            inputs |= self._documents(block, framed)
        n = len(framed.labels)
        if n == 0:
            raise UserError(
                "documents of one token leave nothing to predict without objective.bos and objective.eos"
            )
        targets = {"labels": torch.from_numpy(framed.labels)}
        weights = dict.fromkeys(self.terms, float(n))
        return Batch(inputs, targets, weights, tuple(block.numbers.tolist()), n)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms: of the last layer, and of those before it in their order."""
        return (self._term, *(f"ce.layer_{i}" for i in range(self.config.intermediate_losses)))

    def coefficients(self, step: int, max_steps: int) -> dict[str, float]:
        """What each loss term counts in update number `step`: one over the layers that remain, or 0."""
        early = self.config.intermediate_losses
        # in whole numbers, so that a layer is left out at the same update everywhere
        gone = sum(2 * (early + 1) * step > (i + 1) * max_steps for i in range(early))
        share = 1 / (early + 1 - gone)
        return {name: 0.0 if 0 < i <= gone else share for i, name in enumerate(self.terms)}

    def _starts(self, block: Block) -> int | np.ndarray:
        """The id each row begins with."""
        if block.start is None:
            return self.roles["bos"]
        return np.array([self.roles[role or "bos"] for role in block.start.tolist()])

    def _documents(self, block: Block, framed: Framed) -> dict[str, Tensor]:
        """`segment`, `position` and `document_ends` of rows that hold several documents; bos belongs to the first."""
        shift, width = int(self.config.bos), framed.table.shape[1]
        given = pad_joined(block.segment, block.lengths, -1)
        segment = np.empty((len(given), width), dtype=np.int64)
        segment[:, shift:] = given[:, : width - shift]
        if shift:
            segment[:, 0] = given[:, 0]
        place = np.arange(width)
        new = segment[:, 1:] != segment[:, :-1]
        starts = np.zeros_like(segment)
        starts[:, 1:] = np.maximum.accumulate(np.where(new, place[1:], 0), axis=1)
        position = place - starts
        if framed.mask is not None:
            segment[~framed.mask], position[~framed.mask] = -1, 0
        real = position.reshape(-1) if framed.mask is None else position[framed.mask]
        begins = np.flatnonzero(real == 0)
        ends = np.full(-(-(len(begins) + 1) // ENDS) * ENDS, len(real), dtype=np.int32)
        ends[: len(begins)] = begins
        return {
            "segment": torch.from_numpy(segment),
            "position": torch.from_numpy(position),
            "document_ends": torch.from_numpy(ends),
        }

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """`ce`: cross-entropy in nats; `ce.layer_i`: that of an earlier layer's own prediction; or `feature_ce`."""
        labels, smoothing = batch.targets["labels"], self.config.label_smoothing
        if len(output.intermediate) != self.config.intermediate_losses:
            raise UserError(
                f"objective.intermediate_losses: is {self.config.intermediate_losses}, but"
                f" {len(output.intermediate)} layers of the model predict for themselves; make them equal"
            )
        if self.config.loss == "features":
            return {self._term: Term(feature_cross_entropy_sum(output, labels))}
        outputs = zip(self.terms, (output, *output.intermediate), strict=True)
        return {name: Term(cross_entropy_sum(own, labels, smoothing)) for name, own in outputs}

    # -- asking the trained model --------------------------------------------------------------------

    def read(
        self, prefixes: Sequence[tuple[np.ndarray, np.ndarray]], start: str = ""
    ) -> tuple[Batch, Tensor]:
        """A batch of (given, begun) prefixes and (B,) the flat index of the state that predicts what follows.

        `given` and `begun` are ids in reading order; for a language model they simply follow each other. `start`: the
        role that takes the place of bos.
        """
        bos = [self.roles[start or "bos"]] if self.config.bos else []
        rows = [np.concatenate([bos, given, begun]).astype(np.int64) for given, begun in prefixes]
        if any(len(row) == 0 for row in rows):
            raise UserError("an empty prefix needs objective.bos: there is nothing to predict from")
        last = torch.from_numpy(np.cumsum([len(row) for row in rows]) - 1)
        return Batch(rows_to_inputs(rows, self.roles["pad"]), {}, {}), last

    def scored(self, example: Example) -> np.ndarray:
        """Places of `example.ids` that `collate` predicts, in the order of its targets; -1 stands for eos."""
        places = np.arange(0 if self.config.bos else 1, len(example))
        return np.append(places, -1) if self.config.eos else places
