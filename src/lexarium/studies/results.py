"""What the runs of a study have measured, read from disk.

`collect` reads `studies/<study>/index.json`, then of every run `status.json` and all of
`evals/<evaluation>/step-*.json`. A metric is addressed as `<evaluation>.<metric>`. A run that has no
directory yet is `waiting`; a file that cannot be read is named in `Table.problems` and the rest is still
used. When a study has several stages, `stage` is one more axis. Cost: one small file per evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lexarium.foundation.files import Damaged, read_json
from lexarium.foundation.types import UserError
from lexarium.studies.run_files import state_of

HEADLINES = (
    *(f".boundary.peak.{what}.f" for what in ("boundary", "token", "type")),
    ".boundary.threshold.boundary.f",
    *(f".{baseline}.boundary.f" for baseline in ("random_true", "ngram_3_boundary", "puddle")),
)
"""Ends of metrics that are told although their names have many parts: words found by boundary probability, by chance
and by counting."""


def of_slice(metric: str) -> bool:
    """Whether a metric, named without its evaluation, is of a slice of the data, or one among very many."""
    return metric.count(".") > 1 and not metric.endswith(HEADLINES)


Curve = list[tuple[int, float]]
"""(step, value), in order of steps."""


def level_text(value: Any) -> str:
    """A level of an axis as text: `4`, `true`, `none`, `subject_rc`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return str(value)


@dataclass(slots=True)
class RunRow:
    """One run of a study: where it stands and every metric it has, over steps."""

    name: str
    dir: str
    levels: dict[str, str]
    seed: int
    state: str
    step: int
    max_steps: int | None
    message: str
    config: dict[str, Any]
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(slots=True)
class Table:
    """All results of a study. `index` is the study's own record; `problems` names unreadable files."""

    study: str
    axes: dict[str, list[str]]
    runs: list[RunRow]
    index: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    root: Path | None = None
    """The directory below which the runs lie; None for a table that was not read from disk."""

    @property
    def metrics(self) -> list[str]:
        """Every metric any run has."""
        found = {metric for run in self.runs for metric in run.curves}
        return sorted(metric for metric in found if not metric.endswith(".windows_hash"))

    @property
    def headlines(self) -> list[str]:
        """The same without those of slices, the best known first; all of them where there are but slices."""
        own = lambda metric: metric.partition(".")[2]
        kept = [metric for metric in self.metrics if not of_slice(own(metric))] or self.metrics
        return sorted(kept, key=lambda metric: not metric.endswith(HEADLINES))

    def cells(self) -> list[dict[str, str]]:
        """Combinations of levels that the study plans, in the order of the axes.

        Runs of a later stage may have axes that others lack; a cell names only the axes its runs have.
        """
        found = {tuple((a, run.levels[a]) for a in self.axes if a in run.levels): None for run in self.runs}
        place = {(axis, level): i for axis, levels in self.axes.items() for i, level in enumerate(levels)}
        order = lambda cell: [place.get((a, dict(cell).get(a, "")), -1) for a in self.axes]
        return [dict(cell) for cell in sorted(found, key=order)]

    def at(self, levels: Mapping[str, str]) -> list[RunRow]:
        """Runs with these levels, by seed."""
        found = [run for run in self.runs if all(run.levels.get(a) == v for a, v in levels.items())]
        return sorted(found, key=lambda run: (run.seed, run.name))


def collect(runs_dir: Path, study: str) -> Table:
    """Everything `runs_dir` holds about a study; a half-finished study is read as it stands.

    Raises UserError for a study without an index, Damaged for an index that is not JSON.
    """
    path = Path(runs_dir) / "studies" / study / "index.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in (Path(runs_dir) / "studies").glob("*/index.json"))
        there = f"known there: {', '.join(known)}" if known else "no study has been run there"
        raise UserError(
            f"{path}: there is no study {study!r}; {there}. Run `lexarium study run {study}` first."
        )
    index = read_json(path)
    problems: list[str] = []
    stages = list(dict.fromkeys(entry.get("stage") or "base" for entry in index["runs"]))
    rows = [_row(Path(runs_dir), entry, len(stages) > 1, problems) for entry in index["runs"]]
    axes = {axis: [level_text(v) for v in levels] for axis, levels in (index.get("axes") or {}).items()}
    if len(stages) > 1:
        axes["stage"] = stages
    for row in rows:
        for axis, level in row.levels.items():
            if level not in axes.setdefault(axis, []):
                axes[axis].append(level)
    return Table(index.get("study", study), axes, rows, index, problems, Path(runs_dir))


def _row(runs_dir: Path, entry: Mapping[str, Any], staged: bool, problems: list[str]) -> RunRow:
    folder = runs_dir / entry["dir"]
    status = state_of(folder)
    if status["state"] == "damaged":
        problems.append(status["message"])
    levels = {axis: level_text(level) for axis, level in (entry.get("levels") or {}).items()}
    if staged:
        levels["stage"] = entry.get("stage") or "base"
    return RunRow(
        name=entry["name"],
        dir=entry["dir"],
        levels=levels,
        seed=int(entry.get("seed", 0)),
        state=str(status.get("state", "unknown")),
        step=int(status.get("step") or 0),
        max_steps=status.get("max_steps") or entry.get("max_steps"),
        message=str(status.get("message") or ""),
        config=entry.get("config") or {},
        curves=_curves(folder, problems),
    )


def _curves(folder: Path, problems: list[str]) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for file in sorted(folder.glob("evals/*/step-*.json")):
        try:
            record = read_json(file)
            name, step, metrics = record["evaluation"], int(record["step"]), dict(record["metrics"])
        except (Damaged, KeyError, TypeError, ValueError) as error:
            problems.append(f"{file.relative_to(folder.parent)}: not an evaluation result ({error})")
            continue
        for metric, value in metrics.items():
            if isinstance(value, int | float) or value in ("nan", "inf", "-inf"):
                curves.setdefault(f"{name}.{metric}", []).append((step, float(value)))
    return {metric: sorted(curve) for metric, curve in curves.items()}
