"""Recurrent language models: GRU, LSTM and simple recurrences on the library's fused kernels.

Rows are right-padded, so the kernels need no packing: what follows the last real token of a row is never
read. The kernel is called layer by layer with keyed dropout between the layers, on the embeddings and on
the top states.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Output
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, Unembedding, uniform, xavier_uniform

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "tanh": nn.RNN, "relu": nn.RNN}


class Recurrent(nn.Module):
    """Stacked recurrent language model."""

    kind, name, version = "model", "recurrent", 1
    consumes = frozenset({"tokens", "real", "token_key"})
    needs = frozenset({"tokens"})
    packs, stacks, compiles, randomness = False, False, False, "keyed"
    max_length = None

    class Config(ComponentConfig):
        """Options of `recurrent`."""

        type: str = "recurrent"
        cell: Literal["gru", "lstm", "tanh", "relu"] = "lstm"
        n_layers: int = Field(2, gt=0)
        d_model: int = Field(512, gt=0)
        """Width of the states."""
        d_embedding: int | None = Field(None, gt=0)
        """Width of the embeddings; empty = d_model."""
        tied: bool = False
        output_bias: bool = True
        dropout: float = Field(0.0, ge=0, lt=1)

        @model_validator(mode="after")
        def _fits(self) -> Recurrent.Config:
            if self.tied and self.d_embedding not in (None, self.d_model):
                raise ValueError("tied output needs d_embedding equal to d_model")
            return self

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        width = config.d_embedding or config.d_model
        options = {"nonlinearity": config.cell} if config.cell in ("tanh", "relu") else {}
        self.embedding = nn.Parameter(torch.empty(vocab_size, width))
        self.layers = nn.ModuleList(
            _CELLS[config.cell](
                width if i == 0 else config.d_model, config.d_model, batch_first=True, **options
            )
            for i in range(config.n_layers)
        )
        self.dropouts = nn.ModuleList(Dropout(config.dropout) for _ in range(config.n_layers + 1))
        self.unembedding = Unembedding(config.d_model, vocab_size, config.tied, config.output_bias)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Embeddings and output Xavier-uniform, recurrences U(-1/sqrt(d), 1/sqrt(d)) as the library does."""
        if name == "embedding" or name == "unembedding.weight":
            xavier_uniform(parameter, generator)
        elif name == "unembedding.bias":
            parameter.zero_()
        else:
            uniform(parameter, generator, 1 / math.sqrt(self.config.d_model))

    def forward(
        self,
        tokens: Tensor,
        real: Tensor | None = None,
        token_key: Tensor | None = None,
        layers: list[Tensor] | None = None,
    ) -> Output:
        """tokens (B, T) right-padded -> states of the real tokens."""
        layout = Layout.of(tokens, real)
        b, t = tokens.shape
        flat_key = None if token_key is None else token_key.reshape(-1)
        x = nn.functional.embedding(tokens, self.embedding)
        for recurrence, dropout in zip(self.layers, self.dropouts, strict=False):
            x = dropout(x.reshape(b * t, -1), flat_key).view(b, t, -1)
            if layers is not None:
                layers.append(layout.flatten(x))
            x, _ = recurrence(x)
        x = self.dropouts[-1](x.reshape(b * t, -1), flat_key).view(b, t, -1)
        hidden = layout.flatten(x)
        if layers is not None:
            layers.append(hidden)
        return self.unembedding.output(hidden, self.embedding, layers)
