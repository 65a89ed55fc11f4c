"""Models of the word-segmentation study: the published parameter counts, and transformers' NeoX and Llama."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.rng import torch_generator
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters

V = 13
COUNTS = {
    "gpt2_400k": (435_584, 436_096, 2_477_568),
    "gpt2_600k": (633_856, 634_368, 2_675_840),
    "gpt2_800k": (832_128, 832_640, 2_874_112),
    "gpt2_1M": (1_228_672, 1_229_184, 3_270_656),
    "gpt2_5M": (4_816_640, 4_817_664, 8_900_608),
    "gpt2_19M": (19_070_464, 19_072_512, 27_238_400),
    "gpt2_25M": (25_375_232, 25_377_280, 33_543_168),
    "gpt2_85M": (85_288_704, 85_291_776, 97_540_608),
    "gpt2_100M": (113_640_192, 113_643_264, 125_892_096),
}


def config(**options: Any) -> Any:
    cls = registry.find("model", "transformer").Config
    return validate(cls, Source({"type": "transformer", **options}))


def size(preset: str, vocab_size: int) -> int:
    with torch.device("meta"):
        return count_parameters(registry.find("model", "transformer")(config(preset=preset), vocab_size))


@pytest.mark.parametrize("preset", COUNTS)
def test_sizes_are_those_of_the_study(preset: str) -> None:
    """Spec 2.1, with vocabularies of CHILDES English, Brent, and byte-pair encoding."""
    assert tuple(size(preset, v) for v in (47, 51, 16_000)) == COUNTS[preset]


def test_the_neox_model_has_its_size() -> None:
    """Spec 2.2."""
    assert size("gptneox_19M", 47) == 18_963_456
    assert abs(size("llama_5M", 47) / size("gpt2_5M", 47) - 1) < 0.02


def ours(preset: str, **options: Any) -> Any:
    small = {"n_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 48, "max_positions": 24}
    return build_model(config(preset=preset, **small, **options), V, seed=1).double().eval()


def spread(model: Any) -> Any:
    """As drawn, biases are zero and norms one: an error could hide."""
    generator = torch_generator(1, "spread")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.new_tensor(1.0) if parameter.ndim == 1 else parameter * 0)
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model.double().eval()


def agree(mine: Any, theirs: Any, weights: dict[str, Tensor]) -> None:
    mine.load_state_dict(weights, strict=True)
    rows = torch.randint(0, V, (3, 20), generator=torch_generator(0, "ids"))
    with torch.no_grad():
        output = mine(tokens=rows)
        found, expected = output.unembed(output.hidden), theirs(rows).logits.reshape(60, V)
    assert torch.allclose(found, expected, rtol=0, atol=5e-5)  # angles are float32 on both sides


def test_neox_gives_the_same_logits() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = spread(
        transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                max_position_embeddings=24, rotary_pct=0.25, use_parallel_residual=True, attn_implementation="eager",
            )
        )
    )  # fmt: skip
    state, weights = theirs.state_dict(), {}
    weights["embedding"], weights["unembedding.weight"] = (
        state["gpt_neox.embed_in.weight"],
        theirs.get_output_embeddings().weight,
    )
    for end in ("weight", "bias"):
        weights[f"stack.final_norm.{end}"] = state[f"gpt_neox.final_layer_norm.{end}"]
        for i in range(2):
            here, there = f"stack.blocks.{i}.", f"gpt_neox.layers.{i}."
            fused = state[f"{there}attention.query_key_value.{end}"].unflatten(
                0, (2, 3, 16)
            )  # heads, q k v, width
            for j, name in enumerate("qkv"):
                weights[f"{here}attention.{name}.{end}"] = fused[:, j].flatten(0, 1)
            for mine, its in (
                ("attention.out", "attention.dense"),
                ("attention_norm", "input_layernorm"),
                ("feed_forward.up", "mlp.dense_h_to_4h"),
                ("feed_forward.down", "mlp.dense_4h_to_h"),
                ("feed_forward_norm", "post_attention_layernorm"),
            ):
                weights[f"{here}{mine}.{end}"] = state[f"{there}{its}.{end}"]
    agree(ours("gptneox_19M"), theirs, weights)


def test_llama_gives_the_same_logits() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = spread(
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                max_position_embeddings=24, rms_norm_eps=1e-5, tie_word_embeddings=False,
                attn_implementation="eager",
            )
        )
    )  # fmt: skip
    state = theirs.state_dict()
    weights = {
        "embedding": state["model.embed_tokens.weight"],
        "unembedding.weight": state["lm_head.weight"],
        "stack.final_norm.weight": state["model.norm.weight"],
    }
    names = {
        "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj", "attention.v": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj", "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm", "feed_forward.up": "mlp.up_proj",
        "feed_forward.gate": "mlp.gate_proj", "feed_forward.down": "mlp.down_proj",
    }  # fmt: skip
    for i in range(2):
        for mine, its in names.items():
            weights[f"stack.blocks.{i}.{mine}.weight"] = state[f"model.layers.{i}.{its}.weight"]
    agree(ours("llama_5M"), theirs, weights)


def test_a_share_of_one_turns_the_whole_head() -> None:
    whole, named = (ours("llama_5M", **o) for o in ({}, {"rotary_share": 1.0}))
    rows = torch.arange(10)[None] % V
    with torch.no_grad():
        a, b = (m(tokens=rows).hidden for m in (whole, named))
        other = ours("llama_5M", rotary_share=0.5)(tokens=rows).hidden
    assert torch.equal(a, b) and not torch.allclose(a, other)


def test_layouts_that_do_not_fit_are_refused() -> None:
    for options, told in (
        ({"residual": "parallel", "norm": "post"}, "residual: parallel needs norm: pre"),
        (
            {"positions": "rotary", "rotary_share": 0.01},
            "rotary positions need an even width per head, found 0",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            config(**options)
    with pytest.raises(ConfigError, match="no place for the attention to the encoder"):
        cls = registry.find("model", "encoder_decoder").Config
        validate(cls, Source({"type": "encoder_decoder", "residual": "parallel"}))
