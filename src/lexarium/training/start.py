"""Where the weights come from: from scratch, from another run's checkpoint, or from a Hugging Face folder.

What was started from is part of a run's identity: another run by its own hash (the end of its name) and
the step, so that a child can be named before its parent is trained; a folder by its weights' checksum.
With `state: all` a run goes on where another stood: weights, optimiser, step and so its place in the data. That both
are one science but for their length is checked where runs are known (studies/continuing.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator
from torch import Tensor, nn

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.files import Damaged, read_json, sha256_file
from lexarium.foundation.types import UserError
from lexarium.training import checkpoint


class Scratch:
    """Random weights from the init seed."""

    kind, name, version = "start", "scratch", 1

    class Config(ComponentConfig):
        """No options."""

        type: str = "scratch"

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def fingerprint(self) -> str:
        """Nothing beyond the seed."""
        return ""

    def load(self, model: nn.Module) -> list[str]:
        """Nothing to load."""
        return []


class FromRun:
    """Weights of another run at a step, or everything it had there."""

    kind, name, version = "start", "run", 1

    class Config(ComponentConfig):
        """Options of `run`."""

        type: str = "run"
        path: str = outside_identity()
        """Directory of the other run."""
        step: int | None = None
        """Step of its checkpoint; empty = the last, of a finished run."""
        parts: tuple[str, ...] = (".*",)
        """Regular expressions of the parameters taken over; the others keep their random values."""
        state: Literal["weights", "all"] = "weights"
        """What is taken over: the weights alone, for a new run; or `all`, weights, optimiser, step and place in the
        data, so that a run with more max_steps goes on where the other stood. `all` counts steps from the other's."""

        @model_validator(mode="after")
        def _all_is_all(self) -> FromRun.Config:
            if self.state == "all" and self.parts != (".*",):
                raise ValueError(
                    "state: all takes over every parameter; leave parts out, or set state: weights"
                )
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def whole_state(self) -> Path | None:
        """The checkpoint of which everything is taken over; None where it is the weights alone."""
        return self._checkpoint() if self.config.state == "all" else None

    def _checkpoint(self) -> Path:
        run = Path(self.config.path)
        if not (run / "checkpoints").is_dir():
            raise UserError(f"start.path: {run} is not a run directory with checkpoints")
        step = self.config.step
        if step is None:
            status = read_json(run / "status.json") if (run / "status.json").exists() else {}
            if status.get("state") != "done":
                raise UserError(
                    f"start.path: {run} is not finished (step {status.get('step', 0)}), so its last step is not"
                    " known; finish it or name a start.step"
                )
            step = int(status["step"])
        path = checkpoint.directory(run, step)
        if not path.is_dir():
            have = ", ".join(map(str, checkpoint.steps(run))) or "none"
            raise UserError(
                f"start.step: {run} has no checkpoint at step {step} (steps: {have}); a finished run is not trained"
                " again for it: remove its directory, or use another --runs-dir"
            )
        return path

    def fingerprint(self) -> str:
        """The hash at the end of the other run's name (the step is an option of its own)."""
        name = Path(self.config.path).name
        if not re.fullmatch(r".+-[0-9a-f]{10}", name):
            raise UserError(f"start.path: {name!r} is not the name of a run directory (<slug>-<hash>)")
        return name[-10:]

    def load(self, model: nn.Module) -> list[str]:
        """Fill the matching parameters; returns their names."""
        path = self._checkpoint()
        return _fill(model, checkpoint.read_tensors(path, "model.safetensors"), self.config.parts, str(path))


class FromHuggingFace:
    """GPT-2 weights from a local folder in the Hugging Face format (no download)."""

    kind, name, version = "start", "huggingface", 1

    class Config(ComponentConfig):
        """Options of `huggingface`."""

        type: str = "huggingface"
        path: str = outside_identity()
        """Folder with model.safetensors of a GPT-2."""
        parts: tuple[str, ...] = (".*",)
        """Regular expressions of the parameters taken over."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def _file(self) -> Path:
        path = Path(self.config.path) / "model.safetensors"
        if not path.is_file():
            raise UserError(f"start.path: {path} does not exist; expected a local folder with GPT-2 weights")
        return path

    def fingerprint(self) -> str:
        """Hash of the weights."""
        return sha256_file(self._file())

    def load(self, model: nn.Module) -> list[str]:
        """Fill the matching parameters; returns their names."""
        theirs = checkpoint.parse_tensors(self._file().read_bytes(), self._file())
        try:
            ours = from_gpt2(theirs)
        except KeyError as error:
            raise Damaged(f"{self._file()}: not the weights of a GPT-2: it has no {error}") from None
        return _fill(model, ours, self.config.parts, self.config.path)


def _fill(model: nn.Module, tensors: dict[str, Tensor], parts: tuple[str, ...], where: str) -> list[str]:
    wanted = lambda name: any(re.fullmatch(p, name) for p in parts)
    chosen = [n for n, _ in model.named_parameters() if wanted(n)]
    if not chosen:
        raise UserError(f"start.parts: {list(parts)} match no parameter of the model")
    missing = [n for n in chosen if n not in tensors]
    if missing:
        raise Damaged(f"{where}: has no weights for {', '.join(missing[:4])}; narrow start.parts")
    own: dict[str, Any] = checkpoint.tensors_of(model)
    extra = [n for n in tensors if wanted(n) and n not in own]
    if extra:
        raise Damaged(
            f"{where}: has weights that the model lacks: {', '.join(extra[:4])}; narrow start.parts"
        )
    checkpoint.load_tensors(own | {n: tensors[n] for n in chosen}, model, where)
    return chosen


def from_gpt2(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2 tensors (Hugging Face names, input-major matrices) under the names of `transformer`."""
    get = lambda name: theirs[name] if name in theirs else theirs[f"transformer.{name}"]
    ours = {"embedding": get("wte.weight"), "stack.position_embedding": get("wpe.weight")}
    layers = {int(m.group(1)) for n in theirs if (m := re.search(r"(?:^|\.)h\.(\d+)\.", n))}
    for i in sorted(layers):
        h, block = f"h.{i}.", f"stack.blocks.{i}."
        d = get(h + "attn.c_proj.weight").shape[0]
        for j, part in enumerate("qkv"):
            ours[f"{block}attention.{part}.weight"] = get(h + "attn.c_attn.weight")[:, j * d : (j + 1) * d].T
            ours[f"{block}attention.{part}.bias"] = get(h + "attn.c_attn.bias")[j * d : (j + 1) * d]
        pairs = {
            "attention.out": "attn.c_proj",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
        }
        for mine, other in pairs.items():
            ours[f"{block}{mine}.weight"] = get(h + other + ".weight").T
            ours[f"{block}{mine}.bias"] = get(h + other + ".bias")
        for mine, other in {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}.items():
            for leaf in ("weight", "bias"):
                ours[f"{block}{mine}.{leaf}"] = get(f"{h}{other}.{leaf}")
    for leaf in ("weight", "bias"):
        ours[f"stack.final_norm.{leaf}"] = get(f"ln_f.{leaf}")
    return {name: tensor.contiguous() for name, tensor in ours.items()}
