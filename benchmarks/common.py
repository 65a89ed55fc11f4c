"""What every benchmark shares: interleaved rounds, medians, and a result as JSON.

A benchmark measures ours and a peer's in turn, round after round, so that a machine that slows down slows
both. The result holds every round; `ours` and `theirs` are medians, `ratio` is oriented so that `ratio >=
target` means that the goal is met, whatever `better` says of the raw figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lexarium.foundation.provenance import collect

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


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
    **more: Any,
) -> Path:
    """Write `<name>-<processor>.json` and print its gist; returns the path."""
    about = collect()
    result = {
        "goal": goal, "what": what, "peer": peer, "unit": unit, "better": better, "ours": ours, "theirs": theirs,
        "ratio": ratio, "target": target, "rounds": list(rounds), "parity": parity, **more,
        "hardware": about["hardware"], "versions": about["packages"], "date": date.today().isoformat(),
        "command": "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    kind = "".join(c if c.isalnum() else "-" for c in about["hardware"]["processor"].lower())
    path = folder / f"{name}-{'-'.join(filter(None, kind.split('-')))}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("goal", "ours", "theirs", "ratio", "target", "parity")}))
    return path
