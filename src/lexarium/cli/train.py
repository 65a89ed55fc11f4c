"""`lexarium train`: one run, from the start or from its newest checkpoint, here and now.

Under torchrun every rank runs this file. All compute the same configuration; rank 0 makes the directory,
prepares the data, prints and writes, the others wait for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexarium.cli.console import DONE, REQUEUE, Talk, early_stop
from lexarium.cli.options import (
    Json,
    Overrides,
    Preset,
    Requeue,
    Retry,
    RunsDir,
    Seed,
    Select,
    Target,
    Trust,
)
from lexarium.foundation.types import UserError
from lexarium.launch.display import Meter
from lexarium.studies.results import of_slice
from lexarium.studies.run_files import METRICS, TIMING

if TYPE_CHECKING:
    from lexarium.studies.run import Run
    from lexarium.training.parallel import World

WAIT_FOR_MAIN = 600.0
TAIL = 1 << 14


def train(
    target: Target,
    overrides: Overrides = None,
    preset: Preset = None,
    select: Select = None,
    seed: Seed = None,
    requeue_after: Requeue = None,
    retry: Retry = False,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> int:
    """Train one run: a point of a study (the first, or by --select and --seed), a run file, a run directory.

    A run that was stopped goes on where it was saved; a finished one is left as it is. Signals and
    --requeue-after end with a saved state and status 124, Ctrl-C with 130.

    Example: lexarium train hierarchical-generalization --preset demo --select data=subject_rc --seed 2
    """
    with early_stop():
        from lexarium.training.parallel import World

        world = World.from_environment()
        talk = Talk(as_json, quiet=not world.main)
        if requeue_after is not None and requeue_after <= 0:
            raise UserError(f"--requeue-after {requeue_after}: expected a number of hours above 0")
        run = _run(target, overrides or (), preset, select, seed, runs_dir, trust_plugins, world)
        if world.main:
            from lexarium.cli.prepare import build_store

            build_store(run.config, run.runs_dir, 0, talk)
        talk.note(f"run {run.path}")
    return fit(run, requeue_after, retry, talk, world)


def _run(
    target: str,
    overrides: Sequence[str],
    preset: str | None,
    select: Sequence[str] | None,
    seed: int | None,
    runs_dir: Path,
    trust: bool,
    world: World,
) -> Run:
    """The run that is meant, its directory made if need be."""
    from lexarium.cli.target import load_target, parse_levels, parse_seed
    from lexarium.studies.run import Run

    found = load_target(target, runs_dir, preset, overrides, parse_seed(seed), trust)
    if found.path is not None:
        found.points(runs_dir, parse_levels(select, "--select"))
        return Run(found.path, found.config)  # type: ignore[arg-type]
    points = found.points(runs_dir, parse_levels(select, "--select"))
    point = points[0]
    if world.main:
        return Run.create(point.config, runs_dir)
    path, deadline = runs_dir / point.run, time.monotonic() + WAIT_FOR_MAIN
    while not (path / "config.yaml").exists():
        if time.monotonic() > deadline:
            raise UserError(f"{path}: rank 0 did not make this run within {WAIT_FOR_MAIN:.0f} s")
        time.sleep(0.1)
    return Run(path, point.config)


def fit(run: Run, requeue_after: float | None, retry: bool, talk: Talk, world: World) -> int:
    """Train with progress; prints where the run lies and what it measured; returns the exit status."""
    from lexarium.training.signals import StopFlag

    if run.files.status().get("state") == "done":
        talk.note("finished before: nothing is trained; other evaluations are asked with `lexarium evaluate`")
    flag = StopFlag(requeue_after)
    loss = LastLoss(run.path)
    first = True
    with Meter("training", run.config.train.max_steps or 0, quiet=not world.main) as meter:

        def progress(step: int) -> None:
            nonlocal first
            if first:
                meter.start_from(step, run.config.train.max_steps or run.files.status()["max_steps"])
            first = False
            meter.move(step, loss.text())

        try:
            state = run.train(flag, meter.say, progress, retry)
        finally:
            world.stop()
    done = state == "done"
    status = run.files.status()
    talk.data({**summary(run.path), "state": state})
    if not done:
        talk.say(
            f"stopped at step {status['step']:,}: {status['message']}; the same command goes on from there"
        )
        talk.say(str(run.path))
        return flag.exit_status or REQUEUE
    print_result(talk, run.path)
    return DONE


class LastLoss:
    """Loss, throughput and utilisation of a run's last log lines, read at most twice a second."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._text = path, float("-inf"), ""

    def text(self) -> str:
        """`loss 1.234, 4,120 tokens/s, MFU 31%`, as far as there is something to tell."""
        if time.monotonic() - self._read > 0.5:
            self._read = time.monotonic()
            record, timing = last_record(self._path / METRICS), last_record(self._path / TIMING)
            values = [v for k, v in record.items() if k.startswith("train.") and isinstance(v, int | float)]
            parts = [f"loss {sum(values):.4f}"] * bool(values)
            if "tokens_per_second" in timing:
                parts.append(f"{timing['tokens_per_second']:,.0f} tokens/s")
            if "mfu" in timing:
                parts.append(f"MFU {timing['mfu']:.0%}")
            self._text = ", ".join(parts)
        return self._text


def last_record(path: Path) -> dict[str, Any]:
    """The last complete line of a JSONL file, by reading its end only."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().split(b"\n")[:-1]
        return dict(json.loads(lines[-1])) if lines else {}
    except (OSError, ValueError):
        return {}


def summary(path: Path) -> dict[str, Any]:
    """A run in plain data: where it lies, how far it is, what it measured last."""
    from lexarium.studies.run_files import RunFiles

    files = RunFiles(path)
    status, last = files.status(), dict[str, Any]()
    for name, step, metrics in files.evaluations():
        last[name] = {"step": step, "metrics": metrics}
    return {
        "name": path.name,
        "dir": str(path.absolute()),
        **{k: status.get(k) for k in ("state", "step", "max_steps", "message", "attempts")},
        "train": last_record(path / "metrics.jsonl"),
        "evaluations": last,
    }


def print_result(talk: Talk, path: Path) -> None:
    """Final metrics of a run (slices left out), then its directory."""
    found = summary(path)
    talk.say(
        f"{found['state']} at step {found['step']:,}" + (f": {found['message']}" if found["message"] else "")
    )
    print_metrics(talk, found)
    talk.say(str(path))


def print_metrics(talk: Talk, found: Mapping[str, Any], slices: bool = False) -> None:
    """The last training loss and the last result of every evaluation; with `slices` every metric."""
    rows = [[name, value] for name, value in found["train"].items() if name.startswith("train.")]
    hidden = 0
    for name, last in found["evaluations"].items():
        for metric, value in last["metrics"].items():
            if not slices and (of_slice(metric) or metric.endswith("_hash")):
                hidden += 1
            else:
                rows.append([f"{name}.{metric}", value])
    talk.table(["metric", "value"], [[name, number_or_text(value)] for name, value in rows], "  ")
    if hidden:
        talk.say(f"  and {hidden:,} more: lexarium show {found['dir']} --slices")


def number_or_text(value: Any) -> Any:
    """A metric, with nan, inf and -inf as they are written in files turned into numbers."""
    return float(value) if value in ("nan", "inf", "-inf") else value
