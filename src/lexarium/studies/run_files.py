"""A run's directory: names of its files, and how records of an abandoned future are set aside.

    config.yaml plan.json provenance.json status.json tokenizer.json
    metrics.jsonl                deterministic values only
    timing.jsonl                 clocks
    events.jsonl                 starts, stops, changed plans, skipped checkpoints, discarded rows
    evals/<name>/step-00012000.json (+ .parquet)      checkpoints/step-00012000/
    discarded-evals-<n>/         results of an evaluation whose options were changed later
    discarded-<attempt>/         rows, evaluations and damaged checkpoints later than the one a run resumed from

This file imports neither torch nor scipy: `study status`, `show` and `report` read runs through it.
"""

from __future__ import annotations

import itertools
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from lexarium.foundation.files import (
    Damaged,
    append_line,
    dumps_line,
    make_directory,
    read_json,
    read_lines,
    write_atomic,
    write_json,
)
from lexarium.foundation.lock import alive, held, read_owner
from lexarium.foundation.types import Result, UserError

CONFIG, PLAN, PROVENANCE, STATUS = "config.yaml", "plan.json", "provenance.json", "status.json"
METRICS, TIMING, EVENTS = "metrics.jsonl", "timing.jsonl", "events.jsonl"
RUNNING, PREEMPTED, FAILED, DONE, WAITING = "running", "preempted", "failed", "done", "waiting"


Step = int | Literal["best"] | None
"""A checkpoint: of a step, of the best step by `checkpoint.best`, or the newest."""


class RunFiles:
    """Reading and writing the records of one run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether the run has been created."""
        return (self.path / CONFIG).exists()

    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        if not self.exists:
            raise UserError(f"{self.path}: not a run directory (no {CONFIG})")
        try:
            loaded = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Damaged(f"{self.path / CONFIG}: not valid YAML; the file was cut or edited") from error
        if not isinstance(loaded, dict) or not isinstance(loaded.get("run"), dict):
            raise UserError(f"{self.path}: not a run directory ({CONFIG} has no key `run`)")
        return dict(loaded["run"])

    def identity(self) -> dict[str, Any]:
        """What the run is (see `run_config.Identity`), as recorded when it was created."""
        return dict(read_json(self.path / PROVENANCE).get("identity", {}))

    def status(self) -> dict[str, Any]:
        """`state step max_steps heartbeat attempts message`; a `running` run without a living owner is `preempted`."""
        path = self.path / STATUS
        if not path.exists():
            return {
                "state": WAITING,
                "step": 0,
                "max_steps": None,
                "heartbeat": 0,
                "attempts": 0,
                "message": "",
            }
        status = read_json(path)
        if status["state"] == RUNNING and not held(self.path):
            status |= {"state": PREEMPTED, "message": "the process that trained it is gone"}
        return status

    def set_status(self, **changes: Any) -> None:
        """Update status.json; the heartbeat counter moves with every write."""
        path = self.path / STATUS
        empty: dict[str, Any] = {
            "state": WAITING,
            "step": 0,
            "max_steps": None,
            "heartbeat": 0,
            "attempts": 0,
            "message": "",
        }
        status = read_json(path) if path.exists() else empty
        write_json(path, {**status, **changes, "heartbeat": status["heartbeat"] + 1})

    def event(self, name: str, **details: Any) -> None:
        """One line of events.jsonl."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_line(self.path / EVENTS, dumps_line({"time": when, "event": name, **details}))

    def record(self, file: str, **values: Any) -> None:
        """One line of metrics.jsonl or timing.jsonl."""
        append_line(self.path / file, dumps_line(values))

    def metrics(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl."""
        return read_lines(self.path / METRICS)

    # -- evaluations ---------------------------------------------------------------------------------

    def evaluation_file(self, name: str, step: int) -> Path:
        """Where the result of an evaluation at a step lies."""
        return self.path / "evals" / name / f"step-{step:08d}.json"

    def write_evaluation(
        self, name: str, step: int, result: Result, asked: dict[str, Any], items: bool = True
    ) -> Path:
        """Write numbers (and the per-item table beside them, first); returns the JSON file.

        `asked` says what was measured (see `run_config.evaluation_identity`).
        """
        path = self.evaluation_file(name, step)
        if items and result.items:
            write_parquet(path.with_suffix(".parquet"), result.items)
        write_json(path, {"evaluation": name, "step": step, "asked": asked, "metrics": result.metrics})
        return path

    def evaluations(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(evaluation, step, metrics) of every result, in order."""
        for path in sorted((self.path / "evals").glob("*/step-*.json")):
            data = read_json(path)
            yield data["evaluation"], data["step"], data["metrics"]

    def evaluated(self, name: str, step: int, asked: dict[str, Any]) -> bool:
        """Whether the answer to just this question is there (older results do not say what was asked)."""
        path = self.evaluation_file(name, step)
        return path.exists() and read_json(path).get("asked", asked) == asked

    def other_answers(self, name: str, asked: dict[str, Any]) -> list[Path]:
        """Results of an evaluation that was asked otherwise."""
        files = sorted((self.path / "evals" / name).glob("step-*.json"))
        return [file for file in files if read_json(file).get("asked", asked) != asked]

    def set_aside(self, results: list[Path]) -> str:
        """Move results, with their tables, to a folder of their own; returns its name."""
        number = itertools.count(1)
        aside = next(f for n in number if not (f := self.path / f"discarded-evals-{n}").exists())
        for path in results:
            target = aside / path.parent.name
            make_directory(target)
            for file in (path.with_suffix(".parquet"), path):
                if file.exists():
                    file.replace(target / file.name)
        return aside.name

    # -- resuming ------------------------------------------------------------------------------------

    def discard_after(self, checkpoint: int | None, attempt: int) -> dict[str, int]:
        """Set aside everything later than the checkpoint a run resumes from (None: it starts anew).

        Checkpoints that are passed over are damaged; left in place they would hide the good ones to come.
        Returns how much of what.
        """
        step = checkpoint or 0
        aside = self.path / f"discarded-{attempt}"
        count: dict[str, int] = {}
        for file in (METRICS, TIMING):
            records = read_lines(self.path / file)
            later = [r for r in records if r["step"] > step]
            unfinished = (self.path / file).exists() and not (self.path / file).read_bytes().endswith(b"\n")
            if later or unfinished:
                make_directory(aside)
                write_atomic(aside / file, "".join(dumps_line(r) + "\n" for r in later))
                kept = "".join(dumps_line(r) + "\n" for r in records if r["step"] <= step)
                write_atomic(self.path / file, kept)
                count[file] = len(later)
        for path in sorted((self.path / "evals").glob("*/step-*.*")):
            if int(path.stem[5:]) > step:
                target = aside / "evals" / path.parent.name
                make_directory(target)
                path.replace(target / path.name)
                count["evals"] = count.get("evals", 0) + 1
        for path in sorted((self.path / "checkpoints").glob("step-*")):
            number = path.name[5:]
            if number.isdigit() and (checkpoint is None or int(number) > checkpoint):
                make_directory(aside / "checkpoints")
                path.replace(aside / "checkpoints" / path.name)
                count["checkpoints"] = count.get("checkpoints", 0) + 1
        return count


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    """A table as Parquet, atomically; the bytes are a function of the values."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    write_atomic(path, sink.getvalue())


def state_of(path: Path, max_steps: int | None = None) -> dict[str, Any]:
    """`state step max_steps message` of a run, from its status.json.

    Unlike `RunFiles.status` it never waits: whether a process on ANOTHER machine still lives is not asked,
    its run is reported as running there.
    """
    empty = {"state": WAITING, "step": 0, "max_steps": max_steps, "message": ""}
    if not (path / STATUS).exists():
        return empty
    try:
        found = {k: v for k, v in read_json(path / STATUS).items() if k in empty}
    except Damaged as error:
        return {**empty, "state": "damaged", "message": str(error)}
    if found.get("state") == RUNNING:
        owner = read_owner(path)
        if owner is not None and owner.get("host", socket.gethostname()) != socket.gethostname():
            found["message"] = f"on {owner['host']}"
        elif owner is None or not alive(path, owner):
            found |= {"state": PREEMPTED, "message": "the process that trained it is gone"}
    found["max_steps"] = found.get("max_steps") or max_steps
    return {**empty, **found}


def best_step(files: RunFiles, metric: str, better: str) -> int | None:
    """The first step at which `<evaluation>.<metric>` was best, of those evaluated; None where none was."""
    evaluation, _, name = metric.partition(".")
    sign = 1 if better == "lower" else -1
    found = [
        (sign * float(metrics[name]), step)
        for this, step, metrics in files.evaluations()
        if this == evaluation and math.isfinite(float(metrics.get(name, "nan")))
    ]
    return min(found)[1] if found else None
