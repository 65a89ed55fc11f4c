"""The transformer language model: one decoder stack with everything that distinguishes the studies as options.

Pre or post norm; sinusoidal, learned (once or at every layer), rotary or no positions; relu, gelu or gated
feed-forward; tied or untied output; biases, initialisation and each dropout place chosen one by one. `preset` fills in
the values of a published model (see `presets.py`). A value written beside `preset` wins. With `features` tokens are
read by the features of phonemes, and, tied, predicted by them (see `features.py`).

`advance` reads a row in pieces with keys and values kept (`models/cache.py`): a new token costs one token's
products, and attention over those before it.

With `intermediate_outputs` every layer but the last predicts too, through an unembedding of its own (Al-Rfou et al.
2019): `Output.intermediate`, for an objective that trains these. Their cost is a norm of every layer's states, and
what the objective makes of them; a question is answered by the last layer alone.

Without dropout and with it, the results on padded rows, on flat real tokens and on packed rows are equal
to rounding. The model knows no loss, file or device.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.features import VALUES, FeatureTable
from lexarium.foundation.types import Output, State
from lexarium.models.attention import Attention, Rule
from lexarium.models.cache import Cache
from lexarium.models.dropout import Dropout
from lexarium.models.features import FeatureEmbedding
from lexarium.models.layers import (
    Activation,
    FeedForward,
    Layout,
    Rotation,
    Unembedding,
    fill_preset,
    make_norm,
    normal,
    rotation_of,
    sinusoidal_table,
    uniform,
    xavier_uniform,
)
from lexarium.models.presets import PRESETS


class StackConfig(ComponentConfig):
    """Options shared by the transformer models."""

    n_heads: int = Field(8, gt=0)
    d_model: int = Field(512, gt=0)
    d_ff: int | None = Field(None, gt=0)
    """Width of the feed-forward layer; empty = 4 * d_model."""
    norm: Literal["pre", "post"] = "pre"
    norm_type: Literal["layer", "rms"] = "layer"
    norm_eps: float = Field(1e-5, gt=0)
    norm_bias: bool = True
    """Bias of layer norms (RMS norms have none)."""
    positions: Literal["sinusoidal", "learned", "learned_per_layer", "rotary", "none"] = "sinusoidal"
    """learned_per_layer: every layer adds a table of its own to what it reads (Al-Rfou et al. 2019), after
    `embedding_dropout`."""
    rotary_share: float = Field(1.0, gt=0, le=1)
    """Share of a head's width that rotary positions turn; the rest knows no position."""
    residual: Literal["sequential", "parallel"] = "sequential"
    """The feed-forward layer reads what attention wrote, or, beside it, what attention read (GPT-J, GPT-NeoX)."""
    max_positions: int = Field(1024, gt=0)
    """Longest row, tokens added by the objective included."""
    activation: Activation = "gelu"
    tied: bool = True
    """Unembed with the embedding matrix."""
    output_bias: bool = False
    attention_bias: bool = False
    attention_output_bias: bool | None = None
    """Bias of the projection after attention; empty = as attention_bias."""
    feed_forward_bias: bool = True
    embedding_scale: bool = False
    """Multiply embeddings by sqrt(d_model) at the input."""
    initialisation: Literal["xavier", "gpt2", "library"] = "gpt2"
    """Scheme of the initial values: see `initialise_parameter`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout at every place below that is left empty."""
    embedding_dropout: float | None = Field(None, ge=0, lt=1)
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    feed_forward_dropout: float | None = Field(None, ge=0, lt=1)
    residual_dropout: float | None = Field(None, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> StackConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if self.positions == "rotary" and (self.rotary_width % 2 or not self.rotary_width):
            raise ValueError(f"rotary positions need an even width per head, found {self.rotary_width}")
        if self.residual == "parallel" and self.norm == "post":
            raise ValueError("residual: parallel needs norm: pre, both layers read the same states")
        if self.norm_type == "rms" and not self.norm_bias:
            raise ValueError("norm_bias: rms norms have no bias to leave out; remove this option")
        return self

    @property
    def rotary_width(self) -> int:
        """Channels of a head that rotary positions turn."""
        return int(self.d_model // self.n_heads * self.rotary_share)

    def rate(self, place: str) -> float:
        """Dropout probability at `embedding`, `attention`, `feed_forward` or `residual`."""
        own = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own


Memory = tuple[Tensor | None, Layout, Rule, Tensor | None]
"""States (M, D) of an encoder (None once a cache holds what they came to), layout, rule and keys (B, S)."""


class Block(nn.Module):
    """Attention, optionally cross-attention, feed-forward; each with its norm and residual."""

    def __init__(self, config: StackConfig, causal: bool, cross: bool = False) -> None:
        super().__init__()
        c = config
        out_bias = c.attention_bias if c.attention_output_bias is None else c.attention_output_bias
        self.pre, self.causal, self.parallel = c.norm == "pre", causal, c.residual == "parallel"
        attention = lambda: Attention(c.d_model, c.n_heads, c.attention_bias, out_bias, c.rate("attention"))
        norm = lambda: make_norm(c.norm_type, c.d_model, c.norm_eps, c.norm_bias)
        self.attention, self.attention_norm = attention(), norm()
        self.cross: Any = attention() if cross else None
        self.cross_norm: Any = norm() if cross else None
        self.feed_forward = FeedForward(
            c.d_model, c.d_ff or 4 * c.d_model, c.activation, c.feed_forward_bias, c.rate("feed_forward")
        )
        self.feed_forward_norm = norm()
        own = c.positions == "learned_per_layer"
        self.position_embedding = nn.Parameter(torch.empty(c.max_positions, c.d_model)) if own else None
        self.attention_residual = Dropout(c.rate("residual"))
        self.cross_residual = Dropout(c.rate("residual")) if cross else None
        self.feed_forward_residual = Dropout(c.rate("residual"))

    def _add(self, x: Tensor, sublayer: Any, norm: Any, dropout: Any, key: Tensor | None) -> Tensor:
        if self.pre:
            return x + dropout(sublayer(norm(x)), key)
        return norm(x + dropout(sublayer(x), key))

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        rule: Rule,
        rotation: Rotation | None,
        key: Tensor | None,
        flat_key: Tensor | None,
        memory: Memory | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(N, D) -> (N, D)."""
        attend = lambda y: self.attention(y, layout, rule, rotation, key, cache=cache)
        feed = lambda y: self.feed_forward(y, flat_key)
        if self.parallel:
            fed = self.feed_forward_residual(feed(self.feed_forward_norm(x)), flat_key)
            return self._add(x, attend, self.attention_norm, self.attention_residual, flat_key) + fed
        x = self._add(x, attend, self.attention_norm, self.attention_residual, flat_key)
        if self.cross is not None and memory is not None:
            cross, (states, its_layout, its_rule, its_key) = self.cross, memory
            look = lambda y: cross(y, layout, its_rule, None, key, states, its_layout, its_key, cache)
            x = self._add(x, look, self.cross_norm, self.cross_residual, flat_key)
        return self._add(x, feed, self.feed_forward_norm, self.feed_forward_residual, flat_key)


class Stack(nn.Module):
    """Positions, blocks and the final norm of a pre-norm model."""

    def __init__(self, config: StackConfig, n_layers: int, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.dropout = Dropout(config.rate("embedding"))
        self.position_embedding: nn.Parameter | None = None
        if config.positions == "learned":
            self.position_embedding = nn.Parameter(torch.empty(config.max_positions, config.d_model))
        if config.positions == "sinusoidal":
            table = sinusoidal_table(config.max_positions, config.d_model).float()
            self.register_buffer("position_table", table, persistent=False)
        self.blocks = nn.ModuleList(Block(config, causal, cross) for _ in range(n_layers))
        norm = make_norm(config.norm_type, config.d_model, config.norm_eps, config.norm_bias)
        self.final_norm = norm if config.norm == "pre" else None
        self.recompute = False
        """Keep the input of each block only, and compute the rest again in the backward pass."""

    def forward(
        self,
        embedded: Tensor,
        layout: Layout,
        rule: Rule,
        position: Tensor,
        key: Tensor | None,
        memory: Memory | None = None,
        layers: list[Tensor] | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Embedded real tokens (N, D) -> final states (N, D); per-layer states are appended to `layers`."""
        flat_position = layout.flatten(position)
        flat_key = None if key is None else layout.flatten(key)
        x = embedded * math.sqrt(self.config.d_model) if self.config.embedding_scale else embedded
        if self.position_embedding is not None:
            x = x + self.position_embedding[flat_position]
        elif self.config.positions == "sinusoidal":
            x = x + self.position_table[flat_position].to(x.dtype)  # type: ignore[index]
        x = self.dropout(x, flat_key)
        rotary = self.config.positions == "rotary"
        rotation = rotation_of(position, self.config.rotary_width) if rotary else None
        for i, block in enumerate(self.blocks):
            if layers is not None:
                layers.append(x)
            if cache is not None:
                cache.layer = i
            table: Any = block.position_embedding
            if table is not None:
                x = x + table[flat_position]
            arguments = (x, layout, rule, rotation, key, flat_key, memory, cache)
            if (
                self.recompute and torch.is_grad_enabled()
            ):  # dropout is keyed: there is no random state to restore
                x = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(*arguments)
        if layers is not None:
            layers.append(x)
        return self.finish(x)

    def finish(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D): the states of a layer as an unembedding reads them."""
        return x if self.final_norm is None else self.final_norm(x)


def initialise_parameter(
    name: str, parameter: Tensor, generator: torch.Generator, config: StackConfig, depth: int
) -> None:
    """Fill one parameter of a transformer by the scheme of the config.

    `xavier` (the hierarchical-generalization models): Xavier-uniform everywhere, gain sqrt(2) before the
    relu, feed-forward biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)), other biases zero. `gpt2` (Radford et al.
    2019): N(0, 0.02), projections into the residual stream scaled by 1/sqrt(2 * n_layers), biases zero. `library`
    (the defaults of torch.nn): embeddings N(0, 1), weights and biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """
    leaf = name.rsplit(".", 1)[-1]
    width = (config.d_ff or 4 * config.d_model) if ".down." in name else config.d_model
    if "norm" in name:
        parameter.fill_(1.0 if leaf == "weight" else 0.0)
    elif config.initialisation == "library":
        if leaf.endswith("embedding"):
            normal(parameter, generator, 1.0)
        else:
            uniform(parameter, generator, 1 / math.sqrt(width))
    elif config.initialisation == "gpt2":
        if leaf == "bias":
            parameter.zero_()
        else:
            residual = name.endswith((".out.weight", ".down.weight"))
            normal(parameter, generator, 0.02 / math.sqrt(2 * depth) if residual else 0.02)
    elif leaf == "bias":
        if ".feed_forward." in name:
            uniform(parameter, generator, 1 / math.sqrt(width))
        else:
            parameter.zero_()
    else:
        xavier_uniform(parameter, generator, math.sqrt(2.0) if name.endswith(".up.weight") else 1.0)


class Transformer(nn.Module):
    """Decoder-only transformer language model."""

    kind, name, version = "model", "transformer", 1
    consumes = frozenset({"tokens", "position", "segment", "document_ends", "real", "token_key"})
    needs = frozenset({"tokens"})
    packs, stacks, compiles, randomness = True, True, True, "keyed"
    advances = frozenset({"tokens", "real"})

    class Config(StackConfig):
        """Options of `transformer`."""

        type: str = "transformer"
        preset: str | None = outside_identity(None)
        """Fill in a published model's values; those written beside it win."""
        n_layers: int = Field(6, gt=0)
        intermediate_outputs: bool = False
        """Every layer but the last predicts too, from its states after the final norm, by an unembedding of its own;
        needs objective.intermediate_losses."""
        features: FeatureTable | None = None
        """Read tokens by the features of this table in place of a vector of their own; tied, predict them so too."""

        @model_validator(mode="before")
        @classmethod
        def _preset(cls, values: Any) -> Any:
            return fill_preset(values, PRESETS)

        @model_validator(mode="after")
        def _fits_output(self) -> Transformer.Config:
            if self.intermediate_outputs and self.n_layers == 1:
                raise ValueError("intermediate_outputs: a model of 1 layer has none before the last")
            if self.features and self.tied and self.output_bias:
                raise ValueError(
                    "output_bias: the outputs of features have none; remove it, or say tied: false"
                )
            return self

        @property
        def n_intermediate(self) -> int:
            """Layers that predict beside the last one."""
            return self.n_layers - 1 if self.intermediate_outputs else 0

        @property
        def predicts_features(self) -> bool:
            """Whether the output has a part for every feature."""
            return self.features is not None and self.tied

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_positions
        d, table = config.d_model, config.features
        self.embedding: Any = (
            FeatureEmbedding(vocab_size, table.n_slots, VALUES, d, config.norm_eps)
            if table
            else nn.Parameter(torch.empty(vocab_size, d))
        )
        self.stack = Stack(config, config.n_layers, causal=True)
        unembedding = lambda tied: Unembedding(config.d_model, vocab_size, tied, config.output_bias)
        self.unembedding = unembedding(config.tied)
        self.layer_unembeddings = nn.ModuleList(unembedding(False) for _ in range(config.n_intermediate))

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Fill one parameter; the generator is the parameter's own."""
        if self.config.initialisation == "library" and name in ("embedding.weight", "embedding.bias"):
            uniform(parameter, generator, 1 / math.sqrt(self.embedding.weight.shape[0]))
        else:
            initialise_parameter(name, parameter, generator, self.config, self.config.n_layers)

    def describe(self, values: np.ndarray) -> None:
        """Take over the features of every token: values (V, slots); of a model with `features`."""
        self.embedding.describe(values)

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """(V, D) what tokens are read as, and what they are predicted by where that is tied."""
        if isinstance(self.embedding, FeatureEmbedding):
            return self.embedding.vectors()
        return self.embedding, self.embedding

    def _output(self, hidden: Tensor, matrix: Tensor, layers: list[Tensor] | None) -> Output:
        output = self.unembedding.output(hidden, matrix, layers)
        if self.config.predicts_features:
            output.features = self.embedding.slots()
        return output

    def forward(
        self,
        tokens: Tensor,
        position: Tensor | None = None,
        segment: Tensor | None = None,
        document_ends: Tensor | None = None,
        real: Tensor | None = None,
        token_key: Tensor | None = None,
        layers: list[Tensor] | None = None,
    ) -> Output:
        """tokens (B, T); see `foundation.types.INPUTS`. `segment` restricts attention to one document."""
        layout = Layout.of(tokens, real)
        if position is None:
            position = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        vectors, matrix = self._vectors()
        embedded = nn.functional.embedding(layout.flatten(tokens), vectors)
        rule = Rule(True, segment, segment, document_ends)
        states = [] if layers is None and len(self.layer_unembeddings) else layers
        hidden = self.stack(embedded, layout, rule, position, token_key, layers=states)
        output = self._output(hidden, matrix, layers)
        for i, unembedding in enumerate(self.layer_unembeddings, start=1):
            assert states is not None
            own: Any = unembedding
            output.intermediate.append(own.output(self.stack.finish(states[i]), matrix, None))
        return output

    @torch.no_grad()
    def advance(
        self, tokens: Tensor, state: State | None = None, real: Tensor | None = None
    ) -> tuple[Output, State]:
        """Read further tokens (B, T), right-padded (`foundation.types.Advances`)."""
        layout = Layout.of(tokens, real)
        cache = Cache(state, layout, tokens.device)
        vectors, matrix = self._vectors()
        embedded = nn.functional.embedding(layout.flatten(tokens), vectors)
        hidden = self.stack(embedded, layout, cache.rule, cache.position, None, cache=cache)
        return self._output(hidden, matrix, None), cache.state
