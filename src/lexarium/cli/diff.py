"""`lexarium diff`: what sets two runs apart, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import Json, Run, RunsDir

ABSENT = "(absent)"


def diff(
    first: Run,
    second: Run,
    everything: Annotated[
        bool, typer.Option("--all", help="Also plan, versions, hardware and code (provenance).")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare the resolved configurations of two runs.

    Example: lexarium diff RUN RUN --all
    """
    from lexarium.cli.target import find_run

    talk = Talk(as_json)
    paths = [find_run(name, runs_dir) for name in (first, second)]
    a, b = (_facts(path, everything) for path in paths)
    rows = [
        [key, a.get(key, ABSENT), b.get(key, ABSENT)]
        for key in dict.fromkeys([*a, *b])
        if a.get(key, ABSENT) != b.get(key, ABSENT)
    ]
    talk.data(
        {"runs": [p.name for p in paths], "differences": [{"key": k, "values": [x, y]} for k, x, y in rows]}
    )
    if rows:
        talk.table(["key", *(p.name for p in paths)], [[k, _text(x), _text(y)] for k, x, y in rows])
    else:
        talk.say(f"{paths[0].name} and {paths[1].name}: no difference")


def _facts(path: Path, everything: bool) -> dict[str, Any]:
    """Dotted key -> value, of the configuration and, with `everything`, of plan.json and provenance.json."""
    from lexarium.foundation.files import read_json
    from lexarium.studies.run_files import RunFiles

    found = dict(_flat(RunFiles(path).config(), ""))
    for name in ("plan", "provenance") if everything else ():
        file = path / f"{name}.json"
        if file.exists():
            found |= {
                k: v for k, v in _flat(read_json(file), name) if not k.startswith("provenance.identity")
            }
    return found


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{place}.{i}")
    else:
        yield place, value


def _text(value: Any) -> str:
    from lexarium.foundation.files import dumps_line

    return value if isinstance(value, str) else dumps_line(value)
