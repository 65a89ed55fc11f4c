"""Options and arguments that several verbs share, with their help and completion. Imports typer only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

CATALOG = Path(__file__).resolve().parent.parent / "studies" / "catalog"


def catalog() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def _studies(incomplete: str) -> Iterator[str]:
    here = [str(p) for p in Path().glob(f"{incomplete}*") if p.suffix in (".yaml", ".yml") or p.is_dir()]
    return iter([n for n in catalog() if n.startswith(incomplete)] + here)


def _runs(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    folder = Path(ctx.params.get("runs_dir") or "runs")
    names = [p.parent.name for p in folder.glob("*/config.yaml")] if folder.is_dir() else []
    return iter([n for n in names if n.startswith(incomplete)])


def _targets(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    return iter([*_studies(incomplete), *_runs(ctx, incomplete)])


def _kinds(incomplete: str) -> Iterator[str]:
    from lexarium.foundation.registry import FOLDERS

    return iter([kind for kind in FOLDERS if kind.startswith(incomplete)])


RunsDir = Annotated[
    Path,
    typer.Option("--runs-dir", metavar="DIR", help="Where runs, stores and studies lie.", file_okay=True),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output; text goes to standard error.")
]
Preset = Annotated[str | None, typer.Option("--preset", metavar="P", help="A preset of the study file.")]
Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A catalog name or a study file.", autocompletion=_studies),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="STUDY_OR_FILE",
        help="A catalog name, a study file, a file with one run's configuration, or a run directory.",
        autocompletion=_targets,
    ),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run directory, or its name below --runs-dir.", autocompletion=_runs
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=value", help="Changes, for example train.max_steps=100."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=LEVEL", help="Only these levels of an axis; may be repeated."),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", metavar="AXIS=LEVEL", help="Choose a point by a level; may be repeated."),
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="SEEDS", help="1,2,3 for these seeds; N for seeds 1 to N.")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="S", help="The point's seed.")]


def _step(text: str) -> int | Literal["best"]:
    if text != "best" and not text.isdigit():
        raise typer.BadParameter(f"{text!r} is no step; give a number, or best")
    return "best" if text == "best" else int(text)


Step = Annotated[
    Any,
    typer.Option(
        "--step", metavar="S", parser=_step, help="Step of the checkpoint, or best; empty = the newest."
    ),
]
Requeue = Annotated[
    float | None,
    typer.Option(
        "--requeue-after",
        metavar="HOURS",
        help="Save, stop and exit with status 124 after so many hours.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Train runs that failed before.")]
Trust = Annotated[
    bool, typer.Option("--trust-plugins", help="Import code that the run directory brought along.")
]
Kind = Annotated[
    str, typer.Argument(metavar="KIND", help="Kind of component: model, corpus, ...", autocompletion=_kinds)
]
