"""Studies: a set of points and the contrasts that answer a question.

`expand` makes the points: every combination of levels, times seeds, less what is excluded. A point's run
configuration is the base, then the whole components its levels replace, then their dotted paths, then the
seed, which the paths of `redraw` take too. Two levels that set the same path are an error, and so is a path
the resulting component does not have. Command-line overrides address the base; a path that an axis sets
cannot be overridden (select a level with `only` instead).

Points with the same science are the same run, whichever study asked for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lexarium.corpora.reading import tells
from lexarium.foundation.config import (
    ConfigError,
    Place,
    Source,
    dotted,
    overlay,
    parse_overrides,
    parse_path,
    resolved,
    validate,
)
from lexarium.foundation.files import write_json
from lexarium.foundation.types import UserError
from lexarium.studies.compare import check as check_contrasts
from lexarium.studies.matching import solve
from lexarium.studies.questions import check_questions
from lexarium.studies.results import level_text
from lexarium.studies.run_config import Identity, RunConfig, check, check_splits
from lexarium.studies.study_config import StageStart, StudyConfig, flatten, load_study

Level = tuple[str, str]
EACH_FILE = "each_file"


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    name: str
    levels: dict[str, str]
    seed: int
    stage: str
    config: RunConfig
    run: str
    """Directory name of the run."""
    parent: str | None = None
    """Directory name of the run it starts from."""
    notes: tuple[str, ...] = field(default=())


class Study:
    """A study with a preset and overrides applied."""

    def __init__(
        self,
        config: StudyConfig,
        source: Source,
        preset: str | None = None,
        overrides: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.preset = preset
        if seeds is not None:
            source = overlay(source, {("seeds",): list(seeds)}, "--seeds")
            config = validate(StudyConfig, source)
        self.config = config
        self._given = parse_overrides(overrides)
        self._base = overlay(source.sub("base"), self._given, "command line")
        self.axes = {name: _levels(name, levels, self._base.data) for name, levels in config.axes.items()}
        self._redraw = tuple(map(parse_path, config.redraw))
        self._refuse_study_keys(self._given)
        self._check_redraw()
        check_contrasts(self.config.compare, self._comparable())
        self._files: dict[str, str] = {}

    @classmethod
    def load(
        cls,
        name: str,
        preset: str | None = None,
        overrides: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
    ) -> Study:
        """The study of a catalog name or a file."""
        config, source = load_study(name, preset)
        return cls(config, source, preset, overrides, seeds)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.config.study

    def _comparable(self) -> dict[str, list[str]]:
        """Axes and levels a contrast may name: the study's, and with stages `stage` and `start_step`."""
        found = {axis: list(levels) for axis, levels in self.axes.items()}
        if self.config.stages:
            found["stage"] = ["base", *self.config.stages]
            starts = [
                dict(content.get("start") or {}).get("steps", ()) for content in self.config.stages.values()
            ]
            found["start_step"] = sorted({str(step) for steps in starts for step in steps}, key=int)
        return found

    def planned(self, only: dict[str, list[str]]) -> dict[str, list[str]]:
        """What the study is of: every level, or those that `only` keeps of axes that an override is not for."""
        kept: dict[str, list[str]] = {}
        while (axis := self._overridden_axis(kept)[0]) in only and axis not in kept:
            kept[axis] = only[axis]
        return kept

    def _overridden_axis(self, only: Mapping[str, Sequence[str]]) -> tuple[str, str]:
        """(axis, what is wrong) where a level that `only` keeps sets what an override does; empty where none does."""
        for place in self._given:
            for axis, levels in self.axes.items():
                if EACH_FILE in self.config.axes[axis]:
                    continue  # it takes its levels from the value
                setting = [level for level, changes in levels.items() if _touches(changes, place)]
                if set(setting) & set(only.get(axis, levels)) or dotted(place) == axis:
                    names = ", ".join(level + " (leaves it)" * (level not in setting) for level in levels)
                    return axis, (
                        f"override {dotted(place)}: the axis {axis!r} sets it; choose a level with `lexarium study run"
                        f" ... --only {axis}=LEVEL` (levels: {names})"
                    )
        return "", ""

    def _refuse_study_keys(self, overrides: dict[Place, Any]) -> None:
        """Refuse overrides of what is not of a run."""
        for place in overrides:
            told = ""
            if place == ("seed",) or (place == ("seeds",) and not isinstance(overrides[place], dict)):
                told = "a study's seeds are set with --seeds, for example --seeds 1,2,3 (of `train`: --seed)"
            elif place[0] in ("base", "axes"):
                told = "overrides leave `base` out; levels are chosen with --only (of `train`: --select)"
            if told:
                raise ConfigError(f"override {dotted(place)}: {told}")

    def _check_redraw(self) -> None:
        """What takes the run's seed has no other value, and contrasts know that data are redrawn."""
        known: list[tuple[str, Mapping[Place, Any]]] = [
            (f"axis {axis}={level}", changes)
            for axis, levels in self.axes.items()
            for level, changes in levels.items()
        ]
        known.append(("base, or an override of it,", {(): self._base.data}))
        for place in self._redraw:
            for where, changes in known:
                if _sets(changes, place):
                    raise ConfigError(
                        f"redraw: {dotted(place)} takes the run's seed in every point, but {where} sets it too;"
                        " remove one"
                    )
        for i, contrast in enumerate(self.config.compare):
            if self._redraw and not contrast.redrawn:
                raise ConfigError(
                    f"compare.{i}.redrawn: `redraw` draws new data for every seed; say `redrawn: true`"
                )

    # -- points --------------------------------------------------------------------------------------

    def expand(self, runs_dir: Path, only: Mapping[str, Sequence[str]] | None = None) -> list[Point]:
        """All points, base stage first. `only` keeps the named levels of an axis.

        `runs_dir` is where parents of staged runs will lie; matching sizes prepares token stores there.
        """
        self._check_only(only or {})
        if told := self._overridden_axis(only or {})[1]:
            raise ConfigError(told)
        solved = solve(self, runs_dir) if self.config.match else {}
        points: list[Point] = []
        for combination in self._combinations():
            if any(
                axis in combination and combination[axis] not in wanted
                for axis, wanted in (only or {}).items()
            ):
                continue
            for seed in self.config.seeds:
                source = self._point_source(combination, seed, solved)
                points.append(self._point(source, combination, seed, "base", None))
        if not points:
            raise ConfigError("no point is left: `exclude` and --only together leave out every combination")
        for stage in self.config.stages:
            points += self._stage_points(stage, points, runs_dir)
            points = self._with_checkpoints(stage, points)
        check_questions(self.config.compare, self.config.report, [point.config for point in points])
        return points

    def _with_checkpoints(self, stage: str, points: Sequence[Point]) -> list[Point]:
        """The same points; the parents of a stage keep checkpoints at the steps its runs start from."""
        begin = self.config.stages[stage].get("start") or {}
        steps, of = begin.get("steps", ()), begin.get("stage", "base")

        def keeping(point: Point) -> Point:
            kept = point.config.checkpoint
            at = tuple(sorted({*kept.at, *steps}))
            if point.stage != of or at == kept.at:
                return point
            config = point.config.model_copy(update={"checkpoint": kept.model_copy(update={"at": at})})
            return replace(point, config=config)

        return [keeping(point) for point in points]

    def _check_only(self, only: Mapping[str, Sequence[str]]) -> None:
        for axis, wanted in only.items():
            if axis not in self.axes:
                raise UserError(
                    f"--only {axis}: the study has no such axis (axes: {', '.join(self.axes) or 'none'})"
                )
            for level in wanted:
                if level not in self.axes[axis]:
                    raise UserError(
                        f"--only {axis}={level}: no such level (levels: {', '.join(self.axes[axis])})"
                    )

    def _combinations(self) -> list[dict[str, str]]:
        """Levels by axis, for every combination that is not excluded."""
        found = [
            dict(zip(self.axes, c, strict=True)) for c in itertools.product(*map(list, self.axes.values()))
        ]
        for rule in self.config.exclude:
            for axis, wanted in rule.items():
                if axis not in self.axes:
                    raise ConfigError(f"exclude: no axis {axis!r} (axes: {', '.join(self.axes)})")
                for level in map(level_text, wanted if isinstance(wanted, list) else [wanted]):
                    if level not in self.axes[axis]:
                        raise ConfigError(
                            f"exclude: axis {axis!r} has no level {level!r} (levels: {', '.join(self.axes[axis])})"
                        )
        return [c for c in found if not any(_excluded(c, rule) for rule in self.config.exclude)]

    def _point_source(self, combination: Mapping[str, str], seed: int, solved: Mapping[str, Any]) -> Source:
        """The base with a combination's levels applied: whole components, then dotted paths."""
        owner: dict[Place, str] = {}
        whole: dict[Place, Any] = {}
        paths: dict[Place, Any] = {}
        for axis, level in combination.items():
            for place, value in self.axes[axis][level].items():
                if place in owner:
                    raise ConfigError(f"{dotted(place)}: set by both {owner[place]} and {axis}={level}")
                owner[place] = f"{axis}={level}"
                (whole if isinstance(value, Mapping) and "type" in value else paths)[place] = value
            if axis in solved and level in solved[axis]:
                paths |= solved[axis][level]
        source = self._base
        for changes in (whole, paths):
            for place, value in sorted(changes.items(), key=lambda item: len(item[0])):
                source = overlay(source, {place: value}, f"axis {owner.get(place, 'match')}")
        source = overlay(source, dict.fromkeys(self._redraw, seed), "redraw")
        return overlay(source, {("seed",): seed}, "seeds")

    def _point(
        self, source: Source, combination: Mapping[str, str], seed: int, stage: str, parent: str | None
    ) -> Point:
        name = "/".join([*(f"{axis}={level}" for axis, level in combination.items()), f"seed={seed}"])
        if stage != "base":
            name = f"{stage}/{name}"
        try:
            config = validate(RunConfig, source)
            check(config)
        except UserError as error:
            raise ConfigError(f"point {name}: {error}") from None
        run = Identity(config, self._files).name
        check_splits(config)
        return Point(name, dict(combination), seed, stage, config, run, parent)

    def _stage_points(self, stage: str, points: Sequence[Point], runs_dir: Path) -> list[Point]:
        content = dict(self.config.stages[stage])
        start = validate(StageStart, Source(content.pop("start", {}), {(): f"stages.{stage}.start"}))
        parents = [p for p in points if p.stage == start.stage]
        if not parents:
            raise ConfigError(f"stages.{stage}.start.stage: no runs of stage {start.stage!r}")
        changes, found = flatten(content), []
        for parent, step in itertools.product(parents, start.steps):
            limit = parent.config.train.max_steps
            if limit is None:
                raise ConfigError(
                    f"stages.{stage}.start.steps: whether {parent.name} comes to step {step} is not known before its"
                    f" data are, because its length is train.epochs; give it train.max_steps"
                )
            if step > limit:
                raise ConfigError(
                    f"stages.{stage}.start.steps: {step} is beyond max_steps {limit} of {parent.name}"
                )
            source = Source({k: v for k, v in resolved(parent.config).items() if k != "stop_when"})
            begin = {
                "type": "run",
                "path": str(runs_dir / parent.run),
                "step": step,
                "parts": list(start.parts),
            }
            source = overlay(source, {("start",): begin}, f"stages.{stage}")
            source = overlay(source, changes, f"stages.{stage}")
            own = f"{start.stage}_start_step"  # the parent's, where it is a child itself
            levels = {own if axis == "start_step" else axis: level for axis, level in parent.levels.items()}
            levels["start_step"] = str(step)
            found.append(self._point(source, levels, parent.seed, stage, parent.run))
        return found

    # -- index ---------------------------------------------------------------------------------------

    def write_index(self, runs_dir: Path, points: Sequence[Point]) -> Path:
        """Write `studies/<study>/index.json`, which `study status` and `report` read."""
        c = self.config
        path = runs_dir / "studies" / c.study / "index.json"
        write_json(
            path,
            {
                "study": c.study,
                "claim": c.claim,
                "description": c.description,
                "preset": self.preset,
                "axes": {axis: list(levels) for axis, levels in self.axes.items()},
                "seeds": list(c.seeds),
                "redraw": list(c.redraw),
                "compare": [contrast.model_dump(mode="json") for contrast in c.compare],
                "report": c.report.model_dump(mode="json"),
                "runs": [
                    {
                        "name": p.name,
                        "dir": p.run,
                        "levels": p.levels,
                        "seed": p.seed,
                        "stage": p.stage,
                        "max_steps": p.config.train.max_steps,
                        "config": resolved(p.config),
                    }
                    for p in points
                ],
            },
        )
        return path


def _levels(axis: str, content: Any, base: Mapping[str, Any]) -> dict[str, dict[Place, Any]]:
    """Level name -> what it sets. A list axis is a path and its values; `each_file: PATH` makes a level of every file
    and folder inside the folder that `base` has at the path."""
    if isinstance(content, list):
        names = [level_text(value) for value in content]
        if len(set(names)) != len(names):
            raise ConfigError(f"axis {axis!r}: a level appears twice")
        return {name: {parse_path(axis): value} for name, value in zip(names, content, strict=True)}
    if EACH_FILE in content:
        place = parse_path(content[EACH_FILE])
        return {path.name.split(".")[0]: {place: str(path)} for path in _inside(axis, place, base)}
    return {level_text(level): flatten(settings or {}) for level, settings in content.items()}


def _inside(axis: str, place: Place, base: Mapping[str, Any]) -> list[Path]:
    """What the folder at a place of the base holds, by name."""
    node: Any = base
    for step in place:
        node = node.get(step) if isinstance(node, Mapping) else None
    folder = Path(str(node)).expanduser() if isinstance(node, str) else None
    found = (
        sorted(p for p in folder.iterdir() if not p.name.startswith(".") and not tells(p))
        if folder and folder.is_dir()
        else []
    )
    if not found:
        raise ConfigError(
            f"axis {axis!r}: every file or folder inside {dotted(place)} is a level; give a folder that holds some, for"
            f" example {dotted(place)}=texts/ (found: {node!r})"
        )
    if len({p.name.split(".")[0] for p in found}) < len(found):
        raise ConfigError(
            f"axis {axis!r}: two entries of {folder} differ only behind the first dot of their names"
        )
    return found


def _touches(changes: Mapping[Place, Any], place: Place) -> bool:
    """Whether settings by path are about a place, what is below it, or what holds it."""
    return any(place[: len(p)] == p or p[: len(place)] == place for p in changes)


def _sets(changes: Mapping[Place, Any], place: Place) -> bool:
    """Whether settings by path say something about a place, or about what is below it."""

    def holds(value: Any, rest: Place) -> bool:
        return not rest or (
            isinstance(value, Mapping) and rest[0] in value and holds(value[rest[0]], rest[1:])
        )

    return any(
        p[: len(place)] == place or (place[: len(p)] == p and holds(value, place[len(p) :]))
        for p, value in changes.items()
    )


def _excluded(combination: Mapping[str, str], rule: Mapping[str, Any]) -> bool:
    def fits(axis: str, wanted: Any) -> bool:
        levels = wanted if isinstance(wanted, list) else [wanted]
        return combination[axis] in map(level_text, levels)

    return all(fits(axis, wanted) for axis, wanted in rule.items())
