"""What tests of training share: a tiny configuration, a run of it, and a record of what a run left behind.

A tiny run trains in a fraction of a second. `record` reads a run directory without the package's own
readers where it can, so that a comparison of two records says something about the files themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from lexarium.foundation.config import Source, validate
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig

CORPUS = {"type": "question_formation", "sizes": {"train": 120, "val": 20, "test": 0, "ood": 20}}
STACK = {"preset": "hierarchical_generalization", "n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}

TRANSFORMER = {"type": "transformer", **STACK}
RECURRENT = {"type": "recurrent", "cell": "lstm", "n_layers": 1, "d_model": 16, "dropout": 0.1}
ENCODER_DECODER = {"type": "encoder_decoder", **STACK}
LAYERED: dict[str, Any] = {
    "model": {"type": "transformer", "preset": "legacy_2022", "n_layers": 3, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_positions": 600},
    "objective": {"type": "causal", "intermediate_losses": 2},
}  # fmt: skip
"""Every layer predicts; of 12 steps layer 0 is left out from step 3 on, and layer 1 from step 5 on."""

TINY: dict[str, Any] = {
    "corpus": CORPUS,
    "model": TRANSFORMER,
    "optimizer": {"type": "adamw", "lr": 3e-3, "weight_decay": 0.01},
    "schedule": {"type": "cosine", "warmup_steps": 3},
    "train": {
        "max_steps": 12,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "clip_norm": 1.0,
        "log_every": 5,
    },
    "checkpoint": {"every": 5},
    "plan": {"device": "cpu"},
    "evaluations": [{"type": "loss", "splits": ["val"], "every": 4}],
}


def tiny_config(**overrides: Any) -> RunConfig:
    """`TINY` with top-level keys replaced; a mapping without `type` changes only the keys it names."""
    data: dict[str, Any] = dict(TINY)
    for key, value in overrides.items():
        merge = isinstance(value, Mapping) and "type" not in value and isinstance(data.get(key), Mapping)
        data[key] = {**data[key], **value} if merge else value
    return validate(RunConfig, Source(data))


def tiny_run(folder: Path, config: RunConfig | None = None, **overrides: Any) -> Run:
    """A run of `config`, or of `tiny_config(**overrides)`, below `folder`; not trained yet."""
    return Run.create(config or tiny_config(**overrides), folder)


def pair_file(folder: Path) -> Path:
    """Minimal pairs of words of `CORPUS`, for evaluation `minimal_pairs`."""
    pairs = [
        ("some walrus does eat .", "some walrus do eat ."),
        ("my newts do smile .", "my newts does smile ."),
    ]
    path = folder / "agreement.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"sentence_good": a, "sentence_bad": b}) + "\n" for a, b in pairs))
    return path


def record(run: Run, step: int | None = None) -> dict[str, str]:
    """What a run left behind: tensors and evaluations as hashes, state and metrics as text, by name.

    `step` chooses the checkpoint; the newest by default.
    """
    folder = sorted((run.path / "checkpoints").glob("step-*"))[-1]
    if step is not None:
        folder = folder.with_name(f"step-{step:08d}")
    return {**checkpoint_record(folder), **log_record(run.path)}


def checkpoint_record(folder: Path) -> dict[str, str]:
    """Weights, optimiser state and trainer state of one checkpoint directory."""
    found = {"checkpoint": folder.name, "state": (folder / "state.json").read_text(encoding="utf-8")}
    for file in ("model", "optimizer"):
        for name, array in load_file(folder / f"{file}.safetensors").items():
            found[f"{file}: {name}"] = (
                f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
            )
    return found


def log_record(path: Path) -> dict[str, str]:
    """Metrics line by line, and every evaluation file."""
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = {f"metrics at {json.loads(line)['step']}": line for line in lines}
    for file in sorted((path / "evals").glob("*/*")):
        found[f"{file.parent.name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def weights(run: Run) -> dict[str, str]:
    """The part of `record` that must not depend on watching: weights and optimiser state of the last step."""
    return {k: v for k, v in record(run).items() if k.startswith(("checkpoint", "model", "optimizer"))}
