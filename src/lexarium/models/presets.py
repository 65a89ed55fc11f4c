"""The sizes and layouts of published transformer language models: what `preset` fills in.

`hierarchical_generalization` (Murty et al. 2023; Ahuja et al. 2024; Qin et al. 2025): post norm, sinusoidal, relu, no
attention biases, tied with an output bias, Xavier. `gpt2` (Radford et al. 2019). `arrow_nano` to `arrow_xl`
(Papadopoulos et al. 2024): GPT-2 with exact gelu, untied, library initialisation, no dropout inside the feed-forward
layer. `gpt2_400k` to `gpt2_100M` (Goriely and Buttery 2024, 2025): GPT-2 of 256 positions, named by their size with a
vocabulary of phonemes. `gpt2_feature`: the trunk of `gpt2_5M` between features of phonemes; it wants `features.path`,
and the study trains it with `objective.loss: features`. Its 4,835,328 parameters are the 4,847,360 of the original less
a table of 47 tokens that is never read there. `gptneox_19M`: the layout of Pythia-70m (Biderman et al. 2023) at their
size. `llama_5M`: the layout of Llama (Touvron et al. 2023) at the size of `gpt2_5M`, from scratch; the study itself
loads a pretrained Llama whose vocabulary is another.

`legacy_2022` and `legacy_2022_text8` (the character transformer that the word-segmentation study began with, after
Al-Rfou et al. 2019): a table of positions and a classifier at every layer. They go with

    objective: {type: causal, bos: false, eos: false, intermediate_losses: 11}
    packing: {type: windows, seq_len: 128, separator: true, order: each_epoch}       (512 for text8)
    optimizer: {type: sgd, lr: 0.003, momentum: 0.99}
    schedule: {type: constant}
    train: {epochs: 500, max_steps: null, global_batch_size: 16}                     (128 for text8)

and were trained from seed 32. What is published leaves open, and is chosen here: a layer's classifier reads its states
after the model's one final norm; initial values are those of torch.nn, so tables of positions are N(0, 1); nothing is
dropped between the embeddings and the first layer.
"""

from __future__ import annotations

from typing import Any

Preset = dict[str, Any]


def _arrow(n_layers: int, n_heads: int, d_model: int, max_positions: int = 256) -> Preset:
    # `dropout` after the embeddings, on attention weights and on both outputs into the residual stream
    return {
        "n_layers": n_layers, "n_heads": n_heads, "d_model": d_model, "norm": "pre", "positions": "learned",
        "activation": "gelu", "tied": False, "output_bias": False, "attention_bias": True, "embedding_scale": False,
        "initialisation": "library", "dropout": 0.1, "feed_forward_dropout": 0.0, "max_positions": max_positions,
    }  # fmt: skip


def _phonemes(n_layers: int, n_heads: int, d_model: int) -> Preset:
    # transformers' GPT-2 has no dropout inside the feed-forward layer
    return {
        "n_layers": n_layers, "n_heads": n_heads, "d_model": d_model, "norm": "pre", "positions": "learned",
        "activation": "gelu_tanh", "tied": True, "output_bias": False, "attention_bias": True, "embedding_scale": False,
        "initialisation": "gpt2", "dropout": 0.1, "feed_forward_dropout": 0.0, "max_positions": 256,
    }  # fmt: skip


def _legacy(d_model: int, d_ff: int, dropout: float, max_positions: int) -> Preset:
    return {
        "n_layers": 12, "n_heads": 8, "d_model": d_model, "d_ff": d_ff, "norm": "pre", "positions": "learned_per_layer",
        "activation": "relu", "tied": False, "output_bias": True, "attention_bias": True, "embedding_scale": True,
        "initialisation": "library", "dropout": dropout, "embedding_dropout": 0.0, "max_positions": max_positions,
        "intermediate_outputs": True,
    }  # fmt: skip


PRESETS: dict[str, Preset] = {
    "hierarchical_generalization": {
        "n_layers": 6, "n_heads": 8, "d_model": 512, "d_ff": 2048, "norm": "post", "positions": "sinusoidal",
        "activation": "relu", "tied": True, "output_bias": True, "attention_bias": False, "embedding_scale": True,
        "initialisation": "xavier", "dropout": 0.1,
    },
    "gpt2": {
        "n_layers": 12, "n_heads": 12, "d_model": 768, "norm": "pre", "positions": "learned", "activation": "gelu_tanh",
        "tied": True, "output_bias": False, "attention_bias": True, "embedding_scale": False,
        "initialisation": "gpt2", "dropout": 0.1, "max_positions": 1024,
    },
    "arrow_nano": _arrow(3, 3, 48),
    "arrow_micro": _arrow(4, 4, 128),
    "arrow_mini": _arrow(6, 6, 192),
    "arrow_small": _arrow(10, 10, 380),
    "arrow_gpt1": _arrow(12, 12, 768),
    "arrow_medium": _arrow(24, 16, 1024),
    "arrow_large": _arrow(36, 20, 1280, 128),
    "arrow_xl": _arrow(48, 25, 1600),
    "gpt2_400k": _phonemes(2, 4, 128),
    "gpt2_600k": _phonemes(3, 4, 128),
    "gpt2_800k": _phonemes(4, 4, 128),
    "gpt2_1M": _phonemes(6, 4, 128),
    "gpt2_5M": _phonemes(6, 8, 256),
    "gpt2_19M": _phonemes(6, 8, 512),
    "gpt2_25M": _phonemes(8, 8, 512),
    "gpt2_85M": _phonemes(12, 12, 768),
    "gpt2_100M": _phonemes(16, 12, 768),
    "gpt2_feature": {**_phonemes(6, 8, 256), "features": {}},
    "gptneox_19M": {
        "n_layers": 6, "n_heads": 8, "d_model": 512, "d_ff": 2048, "norm": "pre", "residual": "parallel",
        "positions": "rotary", "rotary_share": 0.25, "activation": "gelu", "tied": False, "output_bias": False,
        "attention_bias": True, "embedding_scale": False, "initialisation": "gpt2", "dropout": 0.0,
        "max_positions": 2048,
    },
    "llama_5M": {
        "n_layers": 6, "n_heads": 8, "d_model": 256, "d_ff": 688, "norm": "pre", "norm_type": "rms",
        "positions": "rotary", "activation": "swiglu", "feed_forward_bias": False, "tied": False, "output_bias": False,
        "attention_bias": False, "embedding_scale": False, "initialisation": "gpt2", "dropout": 0.0,
        "max_positions": 256,
    },
    "legacy_2022": _legacy(128, 1024, 0.1, 128),
    "legacy_2022_text8": _legacy(512, 2048, 0.2, 512),
}  # fmt: skip
