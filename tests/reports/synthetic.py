"""A study on disk, made up: the files of the contract, without training anything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation.files import dumps

OOD, LOSS = "rule_choice.ood.main_auxiliary", "loss.val"


def contrast(**changes: Any) -> dict[str, Any]:
    fields = {"metric": OOD, "axis": "data", "from": "questions_only", "to": "subject_rc", "better": "higher"}
    return {**fields, "expect": "higher", **changes}


def curve(level: int, seed: int, steps: np.ndarray, unstable: bool = False) -> np.ndarray:
    """A curve that starts at chance and settles high or low, depending on arm and seed."""
    rng = np.random.default_rng([level, seed])
    goal = np.clip(0.55 + 0.35 * level + rng.normal() * (0.25 if not level else 0.08), 0.02, 1.0)
    rise = 1 / (1 + np.exp(-(steps / steps[-1] - 0.35) * 12))
    noise = rng.normal(size=len(steps)) * (0.12 if unstable else 0.03)
    return np.clip(0.2 + (goal - 0.2) * rise + noise * rise, 0, 1)


def make_study(
    runs_dir: Path,
    *,
    axes: dict[str, list[str]] | None = None,
    seeds: int = 5,
    points: int = 21,
    compare: list[dict[str, Any]] | None = None,
    report: dict[str, Any] | None = None,
    claim: str = "Declaratives with a relative clause on the subject lead to the hierarchical rule.",
    states: dict[str, str] | None = None,
    values: Callable[[dict[str, str], int], float] | None = None,
    name: str = "hierarchy",
) -> str:
    """Write a study below `runs_dir`; `states` maps run names to states other than done.

    Returns the study's name. `values` gives final values of the OOD metric; else `curve` does.
    """
    axes = {"data": ["questions_only", "subject_rc"]} if axes is None else axes
    states = states or {}
    runs = []
    for combination in itertools.product(*axes.values()):
        levels = dict(zip(axes, combination, strict=True))
        for seed in range(1, seeds + 1):
            run = "/".join([*(f"{a}={v}" for a, v in levels.items()), f"seed={seed}"])
            folder = f"run-{len(runs):03d}"
            entry = {"name": run, "dir": folder, "levels": levels, "seed": seed, "stage": "base"}
            runs.append({**entry, "config": _config(levels, seed)})
            final = None if values is None else values(levels, seed)
            place = list(next(iter(axes.values()))).index(combination[0]) if axes else 0
            _write_run(runs_dir / folder, states.get(run, "done"), place, seed, points, final)
    index = {
        "study": name,
        "claim": claim,
        "preset": "demo",
        "axes": axes,
        "seeds": list(range(1, seeds + 1)),
    }
    index |= {"compare": [contrast()] if compare is None else compare, "report": report or {}, "runs": runs}
    _write_json(runs_dir / "studies" / name / "index.json", index)
    return name


def _config(levels: dict[str, str], seed: int) -> dict[str, Any]:
    drop = [] if levels.get("data") == "subject_rc" else [{"kind": "decl", "subject_rc": "any"}]
    return {
        "seed": seed,
        "corpus": {"type": "question_formation", "splits": ["train", "val", "ood"]},
        "view": {"keep": [], "drop": drop},
        "model": {"type": levels.get("family", "transformer"), "n_layers": 6, "d_model": 512},
        "optimizer": {"type": "adamw", "lr": 1e-4},
        "train": {"max_steps": 2000, "global_batch_size": 8},
    }


def _write_run(folder: Path, state: str, place: int, seed: int, points: int, final: float | None) -> None:
    if state == "waiting":
        return
    steps = np.linspace(0, 2000, points).astype(int)
    ood, loss = curve(place, seed, np.maximum(steps, 1)), 0.4 + 2.5 * np.exp(-steps / 500) + seed / 100
    if final is not None:
        ood[-1] = final
    stop = len(steps) if state == "done" else len(steps) // 2
    for step, a, b in list(zip(steps.tolist(), ood.tolist(), loss.tolist(), strict=True))[:stop]:
        for evaluation, metric, value in (("rule_choice", "ood.main_auxiliary", a), ("loss", "val", b)):
            record = {"evaluation": evaluation, "step": step, "metrics": {metric: value}}
            _write_json(folder / "evals" / evaluation / f"step-{step:08d}.json", record)
    message = "loss is not finite at step 900" if state == "failed" else ""
    status = {"state": state, "step": int(steps[stop - 1]), "max_steps": 2000, "heartbeat": 3, "attempts": 1}
    _write_json(folder / "status.json", {**status, "message": message})
    code = {"commit": "0123456789abcdef0123", "changed": seed == 2, "patch_bytes": 0}
    packages = {"lexarium": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.17.1"}
    hardware = {"platform": "Linux", "processor": "Example CPU 3000", "cores": 2}
    record = {
        "time": f"2025-01-0{1 + seed % 9}T10:00:00Z",
        "code": code,
        "python": "3.11.9",
        "packages": packages,
    }
    _write_json(folder / "provenance.json", {**record, "hardware": hardware})
    lines = "".join(f'{{"step": {s}, "seconds": {1.5 + seed / 10}}}\n' for s in steps[:stop])
    (folder / "timing.jsonl").write_text(lines)


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(data), encoding="utf-8")  # no fsync: thousands of small files


def finite(data: Any) -> bool:
    """No number anywhere in plain data is NaN or infinite."""
    if isinstance(data, dict):
        return all(finite(v) for v in data.values())
    if isinstance(data, list | tuple):
        return all(finite(v) for v in data)
    return not (isinstance(data, float) and not math.isfinite(data)) and data not in ("nan", "inf", "-inf")
