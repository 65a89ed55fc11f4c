"""The encoder-decoder transformer: a bidirectional encoder and a causal decoder that looks at it.

Options are those of `transformer` (the hierarchical-generalization studies use the same blocks on both
sides); embeddings are shared between source, target and, when tied, the output.

`advance` reads a target in pieces: the encoder runs once, and what every decoder layer makes of its states is kept
beside the keys and values of the target (`models/cache.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexarium.foundation.config import outside_identity
from lexarium.foundation.types import Output, State
from lexarium.models.attention import Rule
from lexarium.models.cache import Cache
from lexarium.models.layers import Layout, Unembedding, fill_preset
from lexarium.models.presets import PRESETS
from lexarium.models.transformer import Stack, StackConfig, initialise_parameter


class EncoderDecoder(nn.Module):
    """Encoder-decoder transformer."""

    kind, name, version = "model", "encoder_decoder", 1
    consumes = frozenset(
        {"tokens", "position", "segment", "real", "token_key", "source", "source_position", "source_segment"}
        | {"source_real", "source_mask", "source_key"}
    )
    needs = frozenset({"tokens", "source", "source_mask"})
    packs, stacks, compiles, randomness = True, True, True, "keyed"
    advances = frozenset({"tokens", "real", "source", "source_mask", "source_real"})

    class Config(StackConfig):
        """Options of `encoder_decoder`."""

        type: str = "encoder_decoder"
        preset: str | None = outside_identity(None)
        """Fill in a published model's values; those written beside it win."""
        n_layers: int = Field(6, gt=0)
        """Layers of the decoder."""
        n_encoder_layers: int | None = Field(None, gt=0)
        """Layers of the encoder; empty = n_layers."""

        @model_validator(mode="before")
        @classmethod
        def _preset(cls, values: Any) -> Any:
            return fill_preset(values, PRESETS)

        @model_validator(mode="after")
        def _sequential(self) -> EncoderDecoder.Config:
            if self.residual == "parallel":
                raise ValueError("residual: parallel has no place for the attention to the encoder")
            return self

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_positions
        self.embedding = nn.Parameter(torch.empty(vocab_size, config.d_model))
        self.encoder = Stack(config, config.n_encoder_layers or config.n_layers, causal=False)
        self.decoder = Stack(config, config.n_layers, causal=True, cross=True)
        self.unembedding = Unembedding(config.d_model, vocab_size, config.tied, config.output_bias)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Fill one parameter; the generator is the parameter's own."""
        initialise_parameter(name, parameter, generator, self.config, self.config.n_layers)

    def forward(
        self,
        tokens: Tensor,
        source: Tensor,
        source_mask: Tensor,
        position: Tensor | None = None,
        segment: Tensor | None = None,
        real: Tensor | None = None,
        token_key: Tensor | None = None,
        source_position: Tensor | None = None,
        source_segment: Tensor | None = None,
        source_real: Tensor | None = None,
        source_key: Tensor | None = None,
        layers: list[Tensor] | None = None,
    ) -> Output:
        """tokens (B, T) of the target side, source (B, S); hidden states are the decoder's."""
        counted = lambda ids: torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        source_layout, layout = Layout.of(source, source_real), Layout.of(tokens, real)
        if source_segment is None:
            source_segment = torch.where(source_mask, 0, -1)
        place = counted(source) if source_position is None else source_position
        rule = Rule(False, source_segment, source_segment)
        memory = self.encoder(self._embed(source, source_layout), source_layout, rule, place, source_key)
        cross = Rule(False, torch.zeros_like(tokens) if segment is None else segment, source_segment)
        place = counted(tokens) if position is None else position
        hidden = self.decoder(
            self._embed(tokens, layout),
            layout,
            Rule(True, segment, segment),
            place,
            token_key,
            memory=(memory, source_layout, cross, source_key),
            layers=layers,
        )
        return self.unembedding.output(hidden, self.embedding, layers)

    def _embed(self, ids: Tensor, layout: Layout) -> Tensor:
        return nn.functional.embedding(layout.flatten(ids), self.embedding)

    @torch.no_grad()
    def advance(
        self,
        tokens: Tensor,
        state: State | None = None,
        real: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        source_real: Tensor | None = None,
    ) -> tuple[Output, State]:
        """Read further tokens (B, T) of the target, right-padded; the source with the first only (`Advances`)."""
        layout = Layout.of(tokens, real)
        cache, memory = Cache(state, layout, tokens.device), None
        if source is not None and source_mask is not None:
            cache.state["source_segment"] = segment = torch.where(source_mask, 0, -1)
            source_layout = Layout.of(source, source_real)
            place = torch.arange(source.shape[1], device=source.device).expand_as(source)
            rule = Rule(False, segment, segment)
            memory = self.encoder(self._embed(source, source_layout), source_layout, rule, place, None)
        segment = cache.state["source_segment"]
        cross = Rule(False, torch.zeros_like(tokens), segment)
        looked = (memory, Layout(*segment.shape) if memory is None else source_layout, cross, None)
        hidden = self.decoder(
            self._embed(tokens, layout), layout, cache.rule, cache.position, None, memory=looked, cache=cache
        )
        return self.unembedding.output(hidden, self.embedding, None), cache.state
