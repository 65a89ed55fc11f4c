"""From what was typed to what is meant: a study, one run's configuration, or a run on disk.

    hierarchical-generalization        a study of the catalog
    my-study.yaml                      a study file (it has the key `study`)
    my-run.yaml, runs/x/config.yaml    one run (keys `corpus`, `model`, ...; or below `run`)
    runs/x, x                          a run directory, or its name below the runs directory

Every verb then works on points, so a single run is a study of one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexarium.foundation.files import Damaged, read_json
from lexarium.foundation.types import UserError

if TYPE_CHECKING:
    from lexarium.foundation.config import Source
    from lexarium.studies.run_config import RunConfig
    from lexarium.studies.study import Point, Study

CONFIG = "config.yaml"


@dataclass
class Target:
    """What a command works on: `study`, or one run by its `config`; `path` when the run lies on disk."""

    name: str
    study: Study | None = None
    config: RunConfig | None = None
    source: Source | None = None
    path: Path | None = None

    def points(
        self, runs_dir: Path, only: dict[str, list[str]] | None = None, option: str = "--select"
    ) -> list[Point]:
        """The points of the study, or the one run; raises UserError when `only` leaves none."""
        check_levels(self, only or {}, option)
        if self.study is not None:
            points = self.study.expand(runs_dir, only)
            if not points:
                raise UserError(f"{self.name}: no point is left; every one is excluded or not selected")
            return points
        from lexarium.studies.run_config import Identity, check
        from lexarium.studies.study import Point

        assert self.config is not None
        check(self.config)
        name = self.path.name if self.path else Identity(self.config).name
        return [Point(name, {}, self.config.seed, "base", self.config, name)]


def load_target(
    name: str,
    runs_dir: Path,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    trust: bool = False,
) -> Target:
    """Resolve a name; raises UserError saying what was looked for and where."""
    check_runs_dir(runs_dir)
    path = _run_directory(name, runs_dir)
    if path is not None:
        return _existing_run(path, preset, overrides, seeds, trust)
    from lexarium.studies.study import Study

    file = Path(name)
    if file.suffix in (".yaml", ".yml") or file.exists():
        if file.is_dir():
            raise UserError(f"{file}: not a run directory (no {CONFIG}); give a study file or a run")
        if not file.is_file():
            raise UserError(f"{file}: no such file")
        from lexarium.foundation.config import read_yaml

        source = read_yaml(file)
        if "study" not in source.data:
            return _single_run(name, source, preset, overrides, seeds)
    elif "/" in name:
        raise UserError(f"{name}: no such file, and no such run directory")
    study = Study.load(name, preset, overrides, seeds)
    return Target(name, study=study)


def check_runs_dir(runs_dir: Path) -> None:
    """Raise UserError when a file stands where the runs directory is, or would have to be made."""
    for path in (runs_dir, *runs_dir.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--runs-dir {runs_dir}: {path} is a file; choose another directory")


def load_study(
    name: str,
    runs_dir: Path,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
) -> Study:
    """As `load_target`, for verbs that need a study."""
    target = load_target(name, runs_dir, preset, overrides, seeds)
    if target.study is None:
        raise UserError(f"{name}: is one run, not a study; train it with `lexarium train {name}`")
    return target.study


def _run_directory(name: str, runs_dir: Path) -> Path | None:
    for path in (Path(name), runs_dir / name):
        if name and path.is_dir() and (path / CONFIG).exists():
            return path
    return None


def _existing_run(
    path: Path, preset: str | None, overrides: Sequence[str], seeds: Sequence[int] | None, trust: bool
) -> Target:
    from lexarium.studies.run import Run

    if overrides or preset or seeds:
        told = "--preset" if preset else "--seed" if seeds else repr(overrides[0])
        raise UserError(
            f"{path}: a run keeps its configuration, so {told} cannot be applied;"
            f" start another run with `lexarium train {path / CONFIG} a.b=value`"
        )
    return Target(str(path), config=Run.open(path, trust).config, path=path)


def _single_run(
    name: str, source: Source, preset: str | None, overrides: Sequence[str], seeds: Sequence[int] | None
) -> Target:
    from lexarium.foundation.config import ConfigError, overlay, parse_overrides, validate
    from lexarium.studies.run_config import RunConfig

    if isinstance(source.data.get("run"), dict):
        source = source.sub("run")
    elif not {"corpus", "model"} & set(source.data):
        found = ", ".join(map(str, source.data)) or "nothing"
        raise ConfigError(
            f"{name}: neither a study (key `study`) nor a run (keys `corpus`, `model`, ...); found {found}"
        )
    if preset is not None:
        raise UserError(f"--preset {preset}: {name} is a single run; presets belong to studies")
    source = overlay(source, parse_overrides(overrides), "command line")
    if seeds is not None:
        if len(seeds) > 1:
            raise UserError(f"--seeds: {name} is a single run; give one --seed")
        source = overlay(source, {("seed",): seeds[0]}, "--seed")
    return Target(name, config=validate(RunConfig, source), source=source)


# --- runs on disk -----------------------------------------------------------------------------------


def find_run(name: str, runs_dir: Path) -> Path:
    """The directory of a run: a path, a name below `runs_dir`, a point of a study, or the hash of a name."""
    path = _run_directory(name, runs_dir)
    if path is not None:
        return path
    if Path(name).is_dir() and name not in ("", "."):
        raise UserError(f"{name}: not a run directory (no {CONFIG})")
    if not runs_dir.is_dir():
        raise UserError(f"{runs_dir}: no such directory; give the runs directory with --runs-dir")
    known = sorted(p.parent.name for p in runs_dir.glob(f"*/{CONFIG}"))
    found = {n for n in known if name and n.endswith(f"-{name}")} | _by_point(name, runs_dir)
    if len(found) == 1:
        return runs_dir / found.pop()
    if found:
        raise UserError(f"{name}: means {len(found)} runs ({', '.join(sorted(found))}); give one of them")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" ({len(known)} runs there)"
    raise UserError(f"{name}: no such run, neither here nor below {runs_dir}{hint}")


def _by_point(name: str, runs_dir: Path) -> set[str]:
    """Directories of the points called `name` in the indexes of studies."""
    found = set()
    for index in read_indexes(runs_dir):
        found |= {r["dir"] for r in index["runs"] if r["name"] == name and (runs_dir / r["dir"]).is_dir()}
    return found


def read_indexes(runs_dir: Path, study: str | None = None) -> list[dict[str, Any]]:
    """The index of every study below `runs_dir`, or of one."""
    paths = sorted((runs_dir / "studies").glob("*/index.json"))
    found = []
    for path in paths:
        if study is None or path.parent.name == study:
            data = read_json(path)
            if not isinstance(data, dict) or not isinstance(data.get("runs"), list):
                raise Damaged(f"{path}: not the index of a study; run the study again to write it anew")
            found.append(data)
    return found


def study_name(name: str) -> str:
    """The name of a study, from itself or its file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return name
    if not path.is_file():
        raise UserError(f"{path}: no such study file")
    from lexarium.foundation.config import read_yaml

    study = read_yaml(path).data.get("study")
    if not isinstance(study, str):
        raise UserError(f"{path}: not a study file: the key `study` is missing")
    return study


# --- small parsers ----------------------------------------------------------------------------------


def parse_levels(values: Sequence[str] | None, option: str = "--only") -> dict[str, list[str]]:
    """`["data=a,b", "data=c"]` -> {"data": ["a", "b", "c"]}."""
    found: dict[str, list[str]] = {}
    for value in values or ():
        axis, equals, levels = value.partition("=")
        if not equals or not axis or not levels:
            raise UserError(f"{option} {value}: expected AXIS=LEVEL, for example {option} data=subject_rc")
        found.setdefault(axis, []).extend(levels.split(","))
    return found


def check_levels(target: Target, levels: dict[str, list[str]], option: str) -> None:
    """Raise UserError for an axis or a level the study does not have."""
    axes = target.study.axes if target.study else {}
    for axis, wanted in levels.items():
        if axis not in axes:
            known = f"axes: {', '.join(axes)}" if axes else "it has no axes"
            raise UserError(f"{option} {axis}: {target.name} has no such axis ({known})")
        for level in wanted:
            if level not in axes[axis]:
                near = difflib.get_close_matches(level, axes[axis], n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(
                    f"{option} {axis}={level}: no such level; {hint}levels: {', '.join(axes[axis])}"
                )


def parse_seeds(text: str | None) -> list[int] | None:
    """`5` -> 1 to 5; `1,2,7` -> these; `7,` -> only 7; `3-6` -> 3, 4, 5, 6."""
    if text is None:
        return None
    try:
        if "-" in text.strip("-"):
            first, last = text.split("-")
            seeds = list(range(int(first), int(last) + 1))
        elif "," in text:
            seeds = [int(part) for part in text.split(",") if part.strip()]
        else:
            seeds = list(range(1, int(text) + 1))
    except ValueError:
        raise UserError(f"--seeds {text}: expected a number of seeds, or seeds such as 1,2,3") from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: expected distinct whole numbers from 0 on, at least one")
    return seeds


def parse_seed(seed: int | None) -> list[int] | None:
    """`--seed S` as a list of seeds."""
    if seed is not None and seed < 0:
        raise UserError(f"--seed {seed}: expected a whole number from 0 on")
    return None if seed is None else [seed]
