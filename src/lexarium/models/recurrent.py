"""Recurrent language models: GRU, LSTM and simple recurrences on the library's fused kernels.

Rows are right-padded, so the kernels need no packing: what follows the last real token of a row is never
read. The kernel is called layer by layer with keyed dropout between the layers, on the embeddings and on
the top states. `preset` fills in a published model: `arrow_gru_small` to `arrow_gru_big`, and the same with
`lstm` (Papadopoulos et al. 2024: a layer norm before an untied head without bias, library initialisation).

`advance` reads a row in pieces: the state is the hidden vector of every layer, and the cell of an LSTM. There
rows of unequal length go through the kernels packed, because the state wanted is that of the last real token. A
single token per row takes the library's cells: on a CPU the LSTM kernel re-orders its weights at every call (8.1 ms
against 0.5 for one token at width 512, torch 2.13 on AVX-512).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.types import Output, State
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, Unembedding, fill_preset, normal, uniform, xavier_uniform

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "tanh": nn.RNN, "relu": nn.RNN}
_STEPS: dict[str, Any] = {
    "gru": torch.gru_cell,
    "lstm": torch.lstm_cell,
    "tanh": torch.rnn_tanh_cell,
    "relu": torch.rnn_relu_cell,
}
_ARROW = {"small": (1, 256, 0.1), "de_med": (1, 512, 0.1), "med": (3, 512, 0.05), "big": (5, 768, 0.05)}

PRESETS: dict[str, dict[str, Any]] = {
    f"arrow_{cell}_{size}": {
        "cell": cell, "n_layers": n_layers, "d_model": d_model, "tied": False, "output_bias": False,
        "final_norm": True, "initialisation": "library", "dropout": 0.0, "embedding_dropout": dropout,
    }
    for cell in ("gru", "lstm")
    for size, (n_layers, d_model, dropout) in _ARROW.items()
}  # fmt: skip
"""Recurrent models of Papadopoulos, Wenger and Hongler (2024), sizes of their configuration files."""


class Recurrent(nn.Module):
    """Stacked recurrent language model."""

    kind, name, version = "model", "recurrent", 1
    consumes = frozenset({"tokens", "real", "token_key"})
    needs = frozenset({"tokens"})
    packs, stacks, compiles, randomness = False, False, False, "keyed"
    advances = frozenset({"tokens", "real"})
    max_length = None

    class Config(ComponentConfig):
        """Options of `recurrent`."""

        type: str = "recurrent"
        preset: str | None = outside_identity(None)
        """Fill in a published model's values; those written beside it win."""
        cell: Literal["gru", "lstm", "tanh", "relu"] = "lstm"
        n_layers: int = Field(2, gt=0)
        d_model: int = Field(512, gt=0)
        """Width of the states."""
        d_embedding: int | None = Field(None, gt=0)
        """Width of the embeddings; empty = d_model."""
        tied: bool = False
        output_bias: bool = True
        final_norm: bool = False
        """Layer norm of the top states (after their dropout), before they are unembedded."""
        initialisation: Literal["xavier", "library"] = "xavier"
        """Embeddings and output Xavier-uniform, or the defaults of torch.nn: see `initialise_parameter`."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Dropout between the layers, and at the two places below when they are left empty."""
        embedding_dropout: float | None = Field(None, ge=0, lt=1)
        output_dropout: float | None = Field(None, ge=0, lt=1)
        """On the top states."""

        @model_validator(mode="before")
        @classmethod
        def _preset(cls, values: Any) -> Any:
            return fill_preset(values, PRESETS)

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
        at = lambda own: config.dropout if own is None else own
        rates = [at(config.embedding_dropout)] + [config.dropout] * (config.n_layers - 1)
        self.dropouts = nn.ModuleList(Dropout(p) for p in [*rates, at(config.output_dropout)])
        self.final_norm = nn.LayerNorm(config.d_model) if config.final_norm else None
        self.unembedding = Unembedding(config.d_model, vocab_size, config.tied, config.output_bias)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Fill one parameter; the generator is the parameter's own.

        Recurrences U(-1/sqrt(d), 1/sqrt(d)) as the library does, norms 1 and 0. `xavier`: embeddings and output
        Xavier-uniform, output bias zero. `library`: embeddings N(0, 1), output as the recurrences.
        """
        xavier = self.config.initialisation == "xavier"
        if name.startswith("final_norm"):
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif xavier and name in ("embedding", "unembedding.weight"):
            xavier_uniform(parameter, generator)
        elif xavier and name == "unembedding.bias":
            parameter.zero_()
        elif name == "embedding":
            normal(parameter, generator, 1.0)
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
        return self._output(hidden, layers)

    def _output(self, hidden: Tensor, layers: list[Tensor] | None = None) -> Output:
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return self.unembedding.output(hidden, self.embedding, layers)

    @torch.no_grad()
    def advance(
        self, tokens: Tensor, state: State | None = None, real: Tensor | None = None
    ) -> tuple[Output, State]:
        """Read further tokens (B, T), right-padded, at least one real one per row (`foundation.types.Advances`)."""
        layout, after = Layout.of(tokens, real), State()
        b, t = tokens.shape
        lengths = None
        if layout.real is not None:
            lengths = torch.bincount(layout.real // t, minlength=b).cpu()
            if not lengths.all():
                raise ValueError("a row without a new token cannot advance: leave it out of tokens and state")
        x = nn.functional.embedding(tokens, self.embedding)
        for i, recurrence in enumerate(self.layers):
            before = () if state is None else tuple(state[n] for n in _names(i) if n in state)
            if t == 1:
                x, found = self._step(recurrence, x, before)
            else:
                x, found = _run(recurrence, x, before, lengths)
            after |= dict(zip(_names(i), found, strict=False))
        return self._output(layout.flatten(x)), after

    def _step(self, recurrence: Any, x: Tensor, before: Carried) -> tuple[Tensor, Carried]:
        """One token per row: (B, 1, d) and the state, or nothing -> the same of the layer above, and its state."""
        cell, zeros = self.config.cell, x.new_zeros(len(x), self.config.d_model)
        before = before or (zeros, zeros)
        weights = (
            recurrence.weight_ih_l0,
            recurrence.weight_hh_l0,
            recurrence.bias_ih_l0,
            recurrence.bias_hh_l0,
        )
        found = _STEPS[cell](x[:, 0], before if cell == "lstm" else before[0], *weights)
        found = found if cell == "lstm" else (found,)
        return found[0][:, None], found


Carried = tuple[Tensor, ...]
"""What one layer carries, each (B, D): its hidden vector, and the cell of an LSTM."""


def _names(layer: int) -> tuple[str, str]:
    return f"{layer}.hidden", f"{layer}.cell"


def _run(recurrence: Any, x: Tensor, before: Carried, lengths: Tensor | None) -> tuple[Tensor, Carried]:
    """A layer's kernel over (B, T, d), right-padded where `lengths` says so."""
    t, given = x.shape[1], tuple(part[None].contiguous() for part in before)
    rows: Any = x
    if lengths is not None:
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    rows, found = recurrence(rows, (given if len(given) == 2 else given[0]) if given else None)
    if lengths is not None:
        rows, _ = nn.utils.rnn.pad_packed_sequence(rows, batch_first=True, total_length=t)
    return rows, tuple(part[0] for part in (found if isinstance(found, tuple) else (found,)))
