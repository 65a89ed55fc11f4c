"""Golden losses: the first 20 steps of every model and objective in float64 on a CPU.

They are the published behaviour of the package: a change that moves them says so in its commit and
regenerates them there (style.md, habit 6). One file per arm, `<arm>.json`.

    python -m tests.golden                 show the difference to the stored values
    python -m tests.golden --regenerate    show it and store the new ones
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tests.builders import LAYERED, tiny_config, tiny_run
from tests.phonemes import FEATURES_OF_LETTERS, JOINED

from lexarium.models.layers import count_parameters
from lexarium.studies.session import build_trainer

HERE = Path(__file__).resolve().parent
STEPS = 20
SMALL = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32}
HG = {"preset": "hierarchical_generalization", **SMALL}
GPT2 = {"preset": "gpt2", **SMALL}
BACKWARD = {"type": "backward"}
SEQ2SEQ = {"type": "seq2seq"}
SMOOTHED = {"type": "causal", "label_smoothing": 0.1}

ARMS: dict[str, dict[str, Any]] = {
    "transformer-causal": {"model": {"type": "transformer", **HG}},
    "transformer-causal-backward": {"model": {"type": "transformer", **HG}, "direction": BACKWARD},
    "transformer-causal-smoothed": {"model": {"type": "transformer", **HG}, "objective": SMOOTHED},
    "transformer-gpt2-causal": {"model": {"type": "transformer", **GPT2}},
    "transformer-rotary-windows": {
        "model": {
            "type": "transformer",
            **SMALL,
            "positions": "rotary",
            "norm_type": "rms",
            "activation": "swiglu",
        },
        "packing": {"type": "windows", "seq_len": 32},
        "objective": {"type": "causal", "document_mask": True},
    },
    "transformer-causal-both": {"model": {"type": "transformer", **GPT2}, "direction": {"type": "both"}},
    "transformer-permutation-window-shuffle": {
        "model": {"type": "transformer", **GPT2},
        "objective": {"type": "causal", "eos": False},
        "direction": {"type": "permutation"},
        "packing": {"type": "window_shuffle", "seq_len": 32, "held_out": 10},
    },
    "recurrent-lstm-causal": {"model": {"type": "recurrent", "cell": "lstm", "d_model": 16, "dropout": 0.1}},
    "recurrent-lstm-causal-backward": {
        "model": {"type": "recurrent", "cell": "lstm", "d_model": 16, "dropout": 0.1},
        "direction": BACKWARD,
    },
    "recurrent-gru-causal": {"model": {"type": "recurrent", "cell": "gru", "d_model": 16, "tied": True}},
    "encoder_decoder-seq2seq": {"model": {"type": "encoder_decoder", **HG}, "objective": SEQ2SEQ},
    "encoder_decoder-seq2seq-sgd": {
        "model": {"type": "encoder_decoder", **SMALL},
        "objective": {"type": "seq2seq", "label_smoothing": 0.1},
        "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    },
    "transformer-legacy2022-causal": {**LAYERED, "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9}},
    "transformer-features-causal": FEATURES_OF_LETTERS,
    "transformer-gpt2-joined": JOINED,
    "transformer-gptneox-joined": {
        **JOINED,
        "model": {"type": "transformer", "preset": "gptneox_19M", **SMALL, "rotary_share": 0.5},
    },
    "transformer-llama-joined": {**JOINED, "model": {"type": "transformer", "preset": "llama_5M", **SMALL}},
}


def measure(arm: str) -> dict[str, Any]:
    """Train an arm for 20 steps in float64: loss (the sum of its terms) and gradient norm of every step."""
    config = tiny_config(**ARMS[arm], train={"max_steps": STEPS}, evaluations=[])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = tiny_run(Path(folder), config).parts()
        trainer, _ = build_trainer(config, parts, torch.device("cpu"))
        trainer.program.step.double()
        results = [trainer.advance() for _ in range(STEPS)]
    return {
        "parameters": count_parameters(trainer.program.step.model),
        "tokens": [r.tokens for r in results],
        "losses": [sum(r.losses.values()) for r in results],
        "grad_norms": [r.grad_norm for r in results],
    }


def stored(arm: str) -> dict[str, Any] | None:
    """The golden values of an arm, if there are any."""
    file = HERE / f"{arm}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def store(arm: str, values: dict[str, Any]) -> None:
    """Write the golden values of an arm."""
    (HERE / f"{arm}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def difference(new: dict[str, Any], old: dict[str, Any] | None) -> str:
    """In words: how new values differ from the stored ones."""
    if old is None:
        return "new"
    if (new["parameters"], new["tokens"]) != (old["parameters"], old["tokens"]):
        return f"other data or size: {old['parameters']} -> {new['parameters']} parameters"
    gaps = [abs(a / b - 1) for a, b in zip(new["losses"], old["losses"], strict=True)]
    first = next((i for i, gap in enumerate(gaps) if gap > 1e-9), None)
    if first is None:
        return f"equal (largest relative difference {max(gaps):.1e})"
    return f"from step {first}: {old['losses'][first]:.9f} -> {new['losses'][first]:.9f}; largest {max(gaps):.1e}"
