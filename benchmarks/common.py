"""What every benchmark shares: interleaved rounds, medians, and a result as JSON.

A benchmark measures ours and a peer's in turn, round after round, so that a machine that slows down slows
both. The result holds every round; `ours` and `theirs` are medians, `ratio` is oriented so that `ratio >=
target` means that the goal is met, whatever `better` says of the raw figures. Texts and targets stand in
`goals.py`; peers in `peers/`, or outside (`--peer module:function`, see `peers/__init__.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from lexarium.foundation.provenance import collect
from peers import PeerWork, Step

PEER_PACKAGES = ("accelerate", "litgpt", "lightning", "x-transformers", "h5py")
RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, rounds: int = 5, peer: str | None = None) -> argparse.ArgumentParser:
    """Options that all benchmarks have; with `peer` also `--peer`, which replaces it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--output", type=Path, default=RESULTS)
    if peer:
        parser.add_argument(
            "--peer",
            default=peer,
            metavar="MODULE:FUNCTION",
            help="the loop to compare with; default %(default)s",
        )
    return parser


def find_peer(name: str) -> tuple[Callable[[PeerWork], Step], str]:
    """The function `module:function`, and what results call it. Ends the program when there is none."""
    module, _, function = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"--peer {name}: {error}; expected module:function, found on sys.path") from None
    return found, getattr(found, "title", name)


def alternate(ours: Step, theirs: Step, steps: int) -> dict[str, list[float]]:
    """Take steps in turn; per step the CPU and wall seconds and the loss of both sides."""
    found: dict[str, list[float]] = {}
    for i in range(steps):
        for side, other, step in (("their", "theirs", theirs), ("our", "ours", ours)):
            cpu, wall = time.process_time(), time.perf_counter()
            loss = step(i)
            found.setdefault(f"{side}_cpu", []).append(time.process_time() - cpu)
            found.setdefault(f"{side}_wall", []).append(time.perf_counter() - wall)
            found.setdefault(other, []).append(loss)
    return found


def parity(found: dict[str, list[float]], bound: float = 1e-4, steps: int = 20) -> dict[str, Any]:
    """The largest relative difference between the first losses of both sides. Raises ValueError for fewer steps."""
    pairs = list(zip(found["ours"], found["theirs"], strict=True))[:steps]
    if len(pairs) < steps:
        raise ValueError(f"parity is shown on {steps} steps, found {len(pairs)}")
    worst = max(abs(a - b) / abs(b) for a, b in pairs)
    return {"steps": steps, "bound": bound, "worst_relative": worst, "passed": worst <= bound}


def rounds_of(found: dict[str, list[float]], rounds: int, warmup: int = 2) -> list[dict[str, float]]:
    """Medians of the measured steps in `rounds` equal stretches, the first `warmup` steps left out."""
    times = {k: v[warmup:] for k, v in found.items() if k.endswith(("_cpu", "_wall"))}
    size = len(times["our_cpu"]) // rounds
    return [
        {k: statistics.median(v[r * size : (r + 1) * size]) for k, v in times.items()} for r in range(rounds)
    ]


def each(names: Sequence[str], work: Callable[[str, Path], None]) -> None:
    """Carry out comparisons by name, with a folder they share; one that fails does not keep the others from it."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                work(name, Path(folder))
            except Exception:
                traceback.print_exc()
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(CPU, wall) seconds of a call in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def timed_process(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """(CPU, wall) seconds of a fresh process and its children; raises when it fails."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - wall


def median(rounds: Sequence[dict[str, float]], key: str) -> float:
    """Median over rounds."""
    return statistics.median(r[key] for r in rounds)


def machine(hardware: dict[str, Any], gpu: bool) -> str:
    """The end of a result's file name: the processor, or the accelerator where that did the work."""
    name = hardware["accelerators"][0] if gpu else hardware["processor"]
    return "-".join(filter(None, "".join(c if c.isalnum() else "-" for c in name.lower()).split("-")))


def _peer_versions() -> dict[str, str]:
    found = {}
    for name in PEER_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write(
    name: str,
    *,
    goal: str,
    what: str,
    peer: str,
    unit: str,
    better: str,
    ours: float,
    theirs: float | None,
    ratio: float,
    target: float,
    rounds: Sequence[dict[str, float]],
    parity: dict[str, Any] | None,
    folder: Path,
    gpu: bool = False,
    **more: Any,
) -> Path:
    """Write `<name>-<machine>.json` and print its gist; returns the path."""
    if not math.isfinite(ratio):
        raise ValueError(f"{name}: ratio {ratio}")
    about = collect()
    result = {
        "goal": goal, "what": what, "peer": peer, "unit": unit, "better": better, "ours": ours, "theirs": theirs,
        "ratio": ratio, "target": target, "rounds": list(rounds), "parity": parity, **more,
        "hardware": about["hardware"], "versions": about["packages"] | _peer_versions(), "date": date.today().isoformat(),
        "command": "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{machine(about['hardware'], gpu)}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("goal", "ours", "theirs", "ratio", "target", "parity")}))
    return path
