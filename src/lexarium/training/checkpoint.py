"""Checkpoints: inert data that appears whole or not at all.

    checkpoints/step-00012000/{model.safetensors, optimizer.safetensors, state.json, manifest.json}

Tensors are safetensors, the rest JSON; loading executes nothing. There is no random state to save. The
manifest (size and sha256 of every file) is written last and the directory renamed into place. `newest`
returns the newest checkpoint whose files verify and names those it skipped. Permanent checkpoints (every
N steps, or at listed steps) stay; of the others the newest `keep` stay, and the one at which a metric was best.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lexarium.foundation.config import Config, outside_identity
from lexarium.foundation.files import Damaged, Directory, dumps, read_verified, verify
from lexarium.foundation.types import UserError

FORMAT = 1


class BestConfig(Config):
    """A metric on `val` whose best evaluation so far is worth a checkpoint."""

    metric: str
    """`<evaluation>.<metric>`, for example `loss.val`."""
    better: Literal["lower", "higher"] = "lower"


class CheckpointConfig(Config):
    """When to save and what to keep. Does not change the science."""

    every: int = outside_identity(0, ge=0)
    """Permanent checkpoint every so many steps; 0 = none."""
    at: tuple[int, ...] = outside_identity(())
    """Permanent checkpoints at these steps."""
    log_spaced: int = outside_identity(0, ge=0)
    """Permanent checkpoints at this many steps spaced evenly in log scale from 1 to max_steps."""
    rolling: int = outside_identity(0, ge=0)
    """Rolling checkpoint every so many steps; 0 = none."""
    minutes: float = outside_identity(10.0, ge=0)
    """Rolling checkpoint after so many minutes, too; 0 = none. The last step is always saved."""
    keep: int = outside_identity(1, ge=1)
    """Rolling checkpoints kept."""
    best: BestConfig | None = outside_identity(None)
    """Keep the checkpoint at which a metric was best, too; `--step best` asks for it."""

    def permanent(self, step: int, max_steps: int) -> bool:
        """Whether the checkpoint of a step is kept for good."""
        if step == max_steps or step in self.at or (self.every and step and step % self.every == 0):
            return True
        return step in self.spaced(max_steps)

    def spaced(self, max_steps: int) -> set[int]:
        """The log-spaced steps."""
        n = self.log_spaced
        return {round(max_steps ** (i / max(1, n - 1))) for i in range(n)} if n else set()


def directory(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """Steps that have a checkpoint directory, ascending; not verified."""
    found = (run / "checkpoints").glob("step-*")
    return sorted(int(p.name[5:]) for p in found if p.name[5:].isdigit())


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, on the CPU; a shared one appears once."""
    seen: dict[int, str] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen[id(tensor)] = name
        found[name] = tensor.detach().cpu().contiguous()
    return found


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """`<parameter>/<quantity>` -> tensor, for the state of a torch optimiser.

    Raises UserError for state that is not a tensor: it would be lost.
    """
    for parameter, state in optimizer.state.items():
        for quantity, value in state.items():
            if not isinstance(value, Tensor) and value is not None:
                raise UserError(
                    f"optimizer {type(optimizer).__name__}: its state {quantity!r} of {names[id(parameter)]} is"
                    f" {type(value).__name__}, which a checkpoint cannot hold; make it a tensor"
                )
    return {
        # members of a cohort count their updates once for all parameters: a file holds no shared tensors
        f"{names[id(parameter)]}/{quantity}": (value.clone() if value.ndim == 0 else value)
        .detach()
        .cpu()
        .contiguous()
        for parameter, state in optimizer.state.items()
        for quantity, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor]
) -> None:
    """Put saved state tensors back beside their parameters, on the device where the optimiser wants them."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        parameter, _, quantity = key.rpartition("/")
        by_parameter.setdefault(parameter, {})[quantity] = value
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for quantity, value in by_parameter.get(names[id(parameter)], {}).items():
                on_host = quantity == "step" and not group.get("fused") and not group.get("capturable")
                optimizer.state[parameter][quantity] = (
                    value.clone() if on_host else value.to(parameter.device).clone()
                )


def write(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Save everything needed to go on; `check` may refuse just before the rename."""
    names = {id(p): n for n, p in model.named_parameters()}
    with Directory(path) as directory:
        directory.write("model.safetensors", save(tensors_of(model)))
        directory.write("optimizer.safetensors", save(optimizer_tensors(optimizer, names)))
        directory.write("state.json", dumps({"format": FORMAT, **state}))
        check()
        directory.commit(format=FORMAT)


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors by name from the bytes of a safetensors file; `path` is for the message of `Damaged`."""
    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise Damaged(f"{path}: not a readable safetensors file ({error})") from None


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Tensors of one file of a checkpoint, checked against its manifest."""
    return parse_tensors(read_verified(path, name), path / name)


def load_model(path: Path, model: nn.Module) -> None:
    """Fill a model from `path/model.safetensors`; names and shapes must match exactly."""
    load_tensors(read_tensors(path, "model.safetensors"), model, str(path))


def load_tensors(tensors: dict[str, Tensor], model: nn.Module, where: str) -> None:
    """Fill a model from tensors by name; a difference in names or shapes is listed and refused."""
    own = tensors_of(model)
    problems = [f"missing {n}" for n in own if n not in tensors]
    problems += [f"unexpected {n}" for n in tensors if n not in own]
    problems += [
        f"{n}: {tuple(tensors[n].shape)}, expected {tuple(own[n].shape)}"
        for n in own
        if n in tensors and tensors[n].shape != own[n].shape
    ]
    if problems:
        raise Damaged(f"{where}: does not fit the model: {'; '.join(problems[:6])}")
    targets = dict(model.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)


def read(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore model and optimiser from a checkpoint, each file checked; returns its state."""
    load_model(path, model)
    names = {id(p): n for n, p in model.named_parameters()}
    load_optimizer(optimizer, names, read_tensors(path, "optimizer.safetensors"))
    state = read_verified(path, "state.json")
    try:
        return dict(json.loads(state))
    except ValueError as error:
        raise Damaged(f"{path / 'state.json'}: not valid JSON ({error})") from None


def newest(run: Path) -> tuple[int | None, list[str]]:
    """Step of the newest checkpoint that verifies (None when there is none), and what was skipped, in words."""
    skipped: list[str] = []
    for step in reversed(steps(run)):
        try:
            verify(directory(run, step))
            return step, skipped
        except Damaged as damage:
            skipped.append(f"skipped checkpoint {step}: {damage}")
    return None, skipped


def prune(run: Path, config: CheckpointConfig, max_steps: int, best: int | None = None) -> None:
    """Delete rolling checkpoints beyond the newest `keep`; that of the step `best` stays."""
    rolling = [s for s in steps(run) if not config.permanent(s, max_steps) and s != best]
    for step in rolling[: -config.keep]:
        shutil.rmtree(directory(run, step), ignore_errors=True)
