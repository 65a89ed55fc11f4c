"""The models of Papadopoulos, Wenger and Hongler (2024): sizes, dropout places and initial values of the presets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation import registry
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters

WORDS = 50_257
GPT = {
    "nano": (3, 3, 48, 256, 4_921_872),
    "micro": (4, 4, 128, 256, 13_691_904),
    "mini": (6, 6, 192, 256, 22_017_408),
    "small": (10, 10, 380, 256, 55_670_760),
    "gpt1": (12, 12, 768, 256, 162_447_360),
    "medium": (24, 16, 1024, 256, 405_499_904),
    "large": (36, 20, 1280, 128, 837_212_160),
    "xl": (48, 25, 1600, 256, 1_636_793_600),
}
"""Layers, heads, width, context length and number of parameters, from the study's configuration files."""
RECURRENT = {
    "gru_small": (1, 256, 0.1, 26_126_848),
    "gru_de_med": (1, 512, 0.1, 53_040_128),
    "gru_med": (3, 512, 0.05, 56_192_000),
    "gru_big": (5, 768, 0.05, 94_914_048),
    "lstm_small": (1, 256, 0.1, 26_258_432),
    "lstm_de_med": (1, 512, 0.1, 53_565_440),
    "lstm_med": (3, 512, 0.05, 57_767_936),
    "lstm_big": (5, 768, 0.05, 100_819_968),
}


def config(kind: str, **options: Any) -> Any:
    return registry.find("model", kind).Config(**options)


def count(found: Any, words: int = WORDS) -> int:
    return count_parameters(build_model(found, words, device="meta"))


@pytest.mark.parametrize("name", GPT)
def test_published_sizes_of_the_gpts(name: str) -> None:
    layers, heads, d, length, expected = GPT[name]
    found = config("transformer", preset=f"arrow_{name}")
    assert (found.n_layers, found.n_heads, found.d_model, found.max_positions) == (layers, heads, d, length)
    assert count(found) == expected


@pytest.mark.parametrize("name", RECURRENT)
def test_published_sizes_of_the_recurrent_models(name: str) -> None:
    layers, d, dropout, expected = RECURRENT[name]
    found = config("recurrent", preset=f"arrow_{name}")
    assert (found.cell, found.n_layers, found.d_model) == (name.split("_")[0], layers, d)
    assert count(found) == expected
    assert [site.p for site in build_model(found, 5, device="meta").dropouts] == [dropout, *[0.0] * layers]


def test_there_is_a_preset_for_every_published_size_and_no_other() -> None:
    from lexarium.models import presets, recurrent

    found = {name for name in presets.PRESETS if name.startswith("arrow_")}
    assert found == {f"arrow_{name}" for name in GPT}
    assert set(recurrent.PRESETS) == {f"arrow_{name}" for name in RECURRENT}


@given(
    words=st.integers(1, 300), layers=st.integers(1, 5), heads=st.integers(1, 6), width=st.integers(1, 9),
    length=st.integers(1, 50),
)  # fmt: skip
def test_size_of_a_gpt_in_closed_form(words: int, layers: int, heads: int, width: int, length: int) -> None:
    d = heads * width
    found = config(
        "transformer", preset="arrow_nano", n_layers=layers, n_heads=heads, d_model=d, max_positions=length
    )
    expected = 2 * words * d + length * d + layers * (12 * d**2 + 13 * d) + 2 * d
    assert count(found, words) == expected


@given(words=st.integers(1, 300), layers=st.integers(1, 5), d=st.integers(1, 40), lstm=st.booleans())
def test_size_of_a_recurrent_model_in_closed_form(words: int, layers: int, d: int, lstm: bool) -> None:
    preset, gates = ("arrow_lstm_med", 4) if lstm else ("arrow_gru_med", 3)
    found = config("recurrent", preset=preset, n_layers=layers, d_model=d)
    assert count(found, words) == 2 * words * d + layers * gates * (2 * d**2 + 2 * d) + 2 * d


def test_places_of_dropout() -> None:
    """After the embeddings, on attention weights and on the outputs of both sublayers; not inside the second."""
    built = build_model(config("transformer", preset="arrow_micro"), 5, device="meta")
    rates: dict[str, set[float]] = {}
    for path, module in built.named_modules():
        if hasattr(module, "site"):
            rates.setdefault(path.split(".", 3)[-1] if "blocks" in path else path, set()).add(module.p)
    assert rates == {
        "stack.dropout": {0.1},
        "attention.dropout": {0.1},
        "attention_residual": {0.1},
        "feed_forward_residual": {0.1},
        "feed_forward.dropout": {0.0},
    }


def uniform(values: torch.Tensor, bound: float) -> bool:
    """Within the bound, and reaching near both ends; standard deviation bound / sqrt(3)."""
    near = 0.8 if values.numel() < 200 else 0.97
    spread = values.numel() < 200 or values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
    return bool(near * bound < values.max() <= bound and -bound <= values.min() < -near * bound and spread)


@pytest.mark.parametrize("kind", ["transformer", "encoder_decoder"])
@pytest.mark.parametrize("gate", [False, True])
def test_library_initialisation_of_a_transformer(kind: str, gate: bool) -> None:
    """The defaults of torch.nn.Linear, Embedding and LayerNorm, place by place."""
    found = config(
        kind, n_layers=2, n_heads=4, d_model=64, d_ff=150, positions="learned", max_positions=80, tied=False,
        output_bias=True, attention_bias=True, initialisation="library", activation="swiglu" if gate else "gelu",
    )  # fmt: skip
    for name, parameter in build_model(found, 90, 1).named_parameters():
        value, leaf = parameter.detach(), name.rpartition(".")[2]
        if leaf in ("embedding", "position_embedding"):
            assert value.std().item() == pytest.approx(1, rel=0.03) and value.abs().max() > 3, name
            assert abs(value.mean().item()) < 0.05
        elif "norm" in name:
            assert torch.equal(value, torch.full_like(value, float(leaf == "weight"))), name
        else:
            assert uniform(value, 1 / math.sqrt(150 if ".down." in name else 64)), name


@pytest.mark.parametrize("cell", ["gru", "lstm", "tanh"])
def test_library_initialisation_of_a_recurrent_model(cell: str) -> None:
    found = config(
        "recurrent", cell=cell, d_model=64, d_embedding=80, initialisation="library", final_norm=True
    )
    for name, parameter in build_model(found, 90, 1).named_parameters():
        value = parameter.detach()
        if name == "embedding":
            assert value.std().item() == pytest.approx(1, rel=0.03) and value.abs().max() > 3
        elif name.startswith("final_norm"):
            assert torch.equal(value, torch.full_like(value, float(name.endswith("weight"))))
        else:
            assert uniform(value, 1 / 8), name


def test_dropout_of_a_recurrent_model_by_place() -> None:
    rates = lambda **o: [
        s.p for s in build_model(config("recurrent", n_layers=3, d_model=4, **o), 5, 1).dropouts
    ]
    assert rates(dropout=0.2) == [0.2] * 4
    assert rates(dropout=0.2, embedding_dropout=0.0) == [0.0, 0.2, 0.2, 0.2]
    assert rates(dropout=0.2, output_dropout=0.5) == [0.2, 0.2, 0.2, 0.5]
    assert rates(embedding_dropout=0.1) == [0.1, 0.0, 0.0, 0.0]


def test_a_value_beside_a_preset_wins() -> None:
    found = config("recurrent", preset="arrow_lstm_med", n_layers=2, embedding_dropout=0.3)
    assert (found.n_layers, found.embedding_dropout, found.d_model, found.final_norm) == (2, 0.3, 512, True)
    with pytest.raises(ValueError, match="unknown preset 'arrow_rnn'; presets are arrow_gru_small"):
        config("recurrent", preset="arrow_rnn")
