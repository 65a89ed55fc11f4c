"""The schema of a study file, and where study files are found.

A study file says what is claimed and which runs answer it:

    study: NAME            claim: TEXT
    base: {...}            the run configuration every point starts from
    axes: {...}            what is varied: `path: [values]`, or `name: {level: {path: value, ...}, ...}`, or
                           `name: {each_file: path}`: a level for everything in the folder at that path
    seeds: [1, 2, 3]
    redraw: [corpus.seed]          seeds of the data that take the run's seed in every point
    exclude: [{axis: level}]       combinations that make no sense
    match: {...}           adjust a size so that arms have equally many parameters
    stages: {...}          child runs that start from checkpoints of the base runs
    compare: [...]         the contrasts that answer the claim
    presets: {NAME: {...}} variations of the file: `base.train.max_steps: 100`, `seeds: [1]`, ...
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from lexarium.foundation.config import (
    Config,
    ConfigError,
    Place,
    Source,
    overlay,
    parse_path,
    read_yaml,
    validate,
)
from lexarium.foundation.types import UserError
from lexarium.studies.compare import Contrast, ReportConfig

CATALOG = Path(__file__).parent / "catalog"


class MatchConfig(Config):
    """Adjust one number per level until a size equals that of the level `to`."""

    axis: str
    to: str
    """The level whose size is the target."""
    quantity: Literal["parameters", "non_embedding", "trainable", "flops"] = "non_embedding"
    adjust: dict[str, str]
    """level -> path of the whole number that is adjusted, for example `gru: model.d_model`."""
    tolerance: float = Field(0.01, gt=0)
    """Largest relative difference accepted."""


class StageStart(Config):
    """Which checkpoints of which stage the child runs start from."""

    stage: str = "base"
    steps: tuple[int, ...] = Field(min_length=1)
    parts: tuple[str, ...] = (".*",)
    """Regular expressions of the parameters taken over."""


class StudyConfig(Config):
    """A study file, after a preset was applied."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name: letters, digits, `.`, `_`, `-`."""
    claim: str = ""
    """What the study is to show, in one sentence."""
    description: str = ""
    base: dict[str, Any]
    axes: dict[str, Any] = {}
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    redraw: tuple[str, ...] = ()
    """Paths of seeds, for example `corpus.seed`, that take the run's seed in every point: new data for every seed."""
    exclude: tuple[dict[str, Any], ...] = ()
    match: MatchConfig | None = None
    stages: dict[str, dict[str, Any]] = {}
    compare: tuple[Contrast, ...] = ()
    report: ReportConfig = ReportConfig()
    presets: dict[str, dict[str, Any]] = {}

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a seed appears twice")
        return value

    @field_validator("redraw")
    @classmethod
    def _seeds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            last = path.rpartition(".")[2]
            if path == "seed" or not (last == "seed" or last.endswith("_seed")):
                raise ValueError(f"{path!r} is not the path of a data seed, like corpus.seed")
        if len(set(value)) != len(value):
            raise ValueError("a path appears twice")
        return value

    @field_validator("axes")
    @classmethod
    def _axes(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, levels in value.items():
            if not isinstance(levels, list | dict) or not levels:
                raise ValueError(f"axis {name!r}: expected a list of values or a mapping of levels")
            if isinstance(levels, dict) and "each_file" in levels:
                if len(levels) > 1 or not isinstance(levels["each_file"], str):
                    raise ValueError(
                        f"axis {name!r}: each_file stands alone and names a path, like corpus.path"
                    )
            elif isinstance(levels, dict):
                for level, content in levels.items():
                    if content is not None and not isinstance(content, dict):
                        raise ValueError(
                            f"axis {name!r}, level {level!r}: expected a mapping of paths, found {content!r}"
                        )
        return value


def catalog_names() -> list[str]:
    """Studies that ship with the package."""
    return sorted(p.stem for p in CATALOG.glob("*.yaml"))


def find_study(name: str) -> Path:
    """The file of a catalog name, or the file itself."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise UserError(f"{path}: no such study file")
        return path
    known = catalog_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown study {name!r}{hint} (catalog: {', '.join(known)}; or give a .yaml file)")
    return CATALOG / f"{name}.yaml"


def load_study(name: str, preset: str | None = None) -> tuple[StudyConfig, Source]:
    """The study of a catalog name or file with a preset applied, and its source for error messages."""
    source = read_yaml(find_study(name))
    if "study" not in source.data:
        raise ConfigError(f"{find_study(name)}: not a study file: the key `study` is missing")
    presets = source.data.get("presets") or {}
    if preset is not None:
        if not isinstance(presets, dict) or preset not in presets:
            known = ", ".join(presets) if isinstance(presets, dict) else ""
            raise UserError(f"study {name!r} has no preset {preset!r} (presets: {known or 'none'})")
        source = overlay(source, flatten(presets[preset] or {}, keep=("axes", "seeds")), f"preset {preset}")
    return validate(StudyConfig, source), source


def flatten(content: Mapping[str, Any], keep: Iterable[str | int] = ()) -> dict[Place, Any]:
    """Nested and dotted settings as {path: value}. A mapping with `type` replaces a whole component."""
    found: dict[Place, Any] = {}

    def visit(place: Place, value: Any) -> None:
        if isinstance(value, Mapping) and value and "type" not in value and place[0] not in keep:
            for key, inner in value.items():
                visit((*place, *parse_path(str(key))), inner)
        elif place in found:
            raise ConfigError(f"{'.'.join(map(str, place))}: set twice in one place")
        else:
            found[place] = value

    for key, value in content.items():
        visit(parse_path(str(key)), value)
    return found
