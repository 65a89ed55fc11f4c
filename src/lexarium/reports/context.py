"""What surrounds the numbers: configuration differences between arms, provenance, what is missing.

A key of the configuration is *different between arms* when all runs of an arm agree on it and arms do
not. When its value follows from the level of one axis, it is listed under that axis's levels alone. Keys
that vary inside an arm (the seed) are named but not listed. Provenance is whatever `provenance.json` and
`timing.jsonl` hold; every part of it may be absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lexarium.foundation.config import write_yaml
from lexarium.foundation.files import Damaged, read_json, read_lines
from lexarium.studies.compare import RunRow, Table

ABSENT = "(absent)"
PACKAGES = ("lexarium", "torch", "numpy")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists and empty mappings are values."""
    if not isinstance(config, Mapping) or (prefix and not config):
        return {prefix: config}
    return {
        k: v
        for key, value in config.items()
        for k, v in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def show(value: Any) -> str:
    """A configuration value as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def config_differences(table: Table) -> dict[str, Any]:
    """`rows`: key, axis, values [{of, value}]; `varies`: keys that differ inside arms; `base`: the rest.

    `of` maps axes to levels: one axis when the value follows from it, else all of them. `base` is YAML.
    """
    flat = [(run, flatten(run.config)) for run in table.runs if run.config]
    keys = list(dict.fromkeys(key for _, values in flat for key in values))
    rows: list[dict[str, Any]] = []
    varies: list[str] = []
    base: dict[str, Any] = {}
    for key in keys:
        values = [(run, values.get(key, ABSENT)) for run, values in flat]
        if len({_hashable(value) for _, value in values}) == 1:
            _nest(base, key, values[0][1])
            continue
        by_arm = _function_of(values, list(table.axes))
        if by_arm is None:
            varies.append(key)
            continue
        axis, single = next(
            ((a, found) for a in table.axes if (found := _function_of(values, [a])) is not None), ("", by_arm)
        )
        rows.append({"key": key, "axis": axis, "values": [{"of": of, "value": show(v)} for of, v in single]})
    return {"rows": rows, "varies": varies, "base": write_yaml(base) if base else ""}


def _hashable(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _function_of(
    values: list[tuple[RunRow, Any]], axes: list[str]
) -> list[tuple[dict[str, str], Any]] | None:
    """Value for each combination of levels of `axes`, or None when they do not determine it."""
    found: dict[tuple[str, ...], Any] = {}
    for run, value in values:
        levels = tuple(run.levels.get(axis, "") for axis in axes)
        if _hashable(found.setdefault(levels, value)) != _hashable(value):
            return None
    return [(dict(zip(axes, levels, strict=True)), value) for levels, value in found.items()]


def _nest(target: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for step in path:
        target = target.setdefault(step, {})
    target[last] = value


# --- provenance -------------------------------------------------------------------------------------


def provenance(folder: Path) -> dict[str, str | float]:
    """Commit, versions, hardware, start and seconds of one run, as far as they are recorded."""
    data: dict[str, Any] = {}
    try:
        if (folder / "provenance.json").is_file():
            data = read_json(folder / "provenance.json")
        timing = read_lines(folder / "timing.jsonl")
    except (Damaged, OSError):
        timing = []
    data = data if isinstance(data, dict) else {}
    found: dict[str, str | float] = {}
    code = data.get("code") or {}
    if isinstance(code, Mapping) and code.get("commit"):
        found["commit"] = str(code["commit"])[:10] + (" with changes" if code.get("changed") else "")
    packages = data.get("packages") or {}
    if isinstance(packages, Mapping):
        found |= {name: str(packages[name]) for name in PACKAGES if name in packages}
    if data.get("python"):
        found["python"] = str(data["python"])
    hardware = data.get("hardware") or {}
    if isinstance(hardware, Mapping):
        devices = hardware.get("accelerators") or [hardware.get("processor")]
        text = ", ".join(str(d) for d in devices if d)
        if text:
            found["hardware"] = text
    if data.get("time"):
        found["started"] = str(data["time"])
    seconds = _seconds(timing)
    if seconds is not None:
        found["seconds"] = seconds
    return found


def _seconds(timing: list[dict[str, Any]]) -> float | None:
    """Recorded time: the sum of `seconds`, or the largest `elapsed`."""
    parts = [r["seconds"] for r in timing if isinstance(r.get("seconds"), int | float)]
    if parts:
        return float(sum(parts))
    totals = [r["elapsed"] for r in timing if isinstance(r.get("elapsed"), int | float)]
    return float(max(totals)) if totals else None


def run_records(runs_dir: Path, table: Table) -> list[dict[str, Any]]:
    """One record per run: name, dir, levels, seed, state, step, max_steps, message, provenance."""
    return [
        {
            "name": run.name,
            "dir": run.dir,
            "levels": run.levels,
            "seed": run.seed,
            "state": run.state,
            "step": run.step,
            "max_steps": run.max_steps,
            "message": run.message,
            "provenance": provenance(runs_dir / run.dir),
        }
        for run in table.runs
    ]


def missing(table: Table, results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Everything a reader must know is not in the numbers: runs that are not done, metrics and values."""
    found = []
    for run in table.runs:
        if run.state != "done":
            steps = (
                f" at step {run.step:,}" + (f" of {run.max_steps:,}" if run.max_steps else "")
                if run.step
                else ""
            )
            found.append(
                {"run": run.name, "state": run.state, "why": f"{run.state}{steps}", "message": run.message}
            )
    done = {run.name for run in table.runs if run.state == "done"}
    seen = set()
    for result in results:
        for item in result["missing"]:
            key = (item["run"], item["metric"], item["why"])
            if item["run"] in done and key not in seen:
                seen.add(key)
                why = f"{item['metric']}: {item['why']}"
                found.append({"run": item["run"], "state": "done", "why": why, "message": ""})
    return found
