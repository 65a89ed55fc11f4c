"""`lexarium study`: run all of a study, and see how far it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import (
    Json,
    Only,
    Overrides,
    Preset,
    Requeue,
    Retry,
    RunsDir,
    Seeds,
    Study,
)
from lexarium.foundation.types import UserError

app = typer.Typer(help="Run a study, or see how far it is.", rich_markup_mode=None, no_args_is_help=True)

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", min=1, help="Runs trained at once; empty = one per core, or per GPU."
    ),
]


@app.command("run")
def run(
    study: Study,
    overrides: Overrides = None,
    preset: Preset = None,
    only: Only = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    retry: Retry = False,
    requeue_after: Requeue = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, and stop.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> int:
    """Prepare the data, train every run, evaluate, and write the report. Does only what is missing.

    Safe to interrupt and to call again. Exit status: 0 all done, 1 some runs failed, 124 or 130 stopped
    with everything saved (or some runs are in the hands of another process).

    Example: lexarium study run hierarchical-generalization --preset demo
    """
    from lexarium.cli.study_run import Options, run_study

    options = Options(
        preset, tuple(overrides or ()), tuple(only or ()), seeds, jobs, retry, requeue_after, dry_run
    )
    return run_study(study, runs_dir, options)


@app.command("status")
def status(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="A study's name or file; empty = all.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """How far every run of a study is. Reads index.json and status.json only.

    Example: lexarium study status hierarchical-generalization --json
    """
    talk = Talk(as_json)
    studies = [_study(index, runs_dir) for index in _indexes(study, runs_dir)]
    place = runs_dir.absolute()
    runs = [{"study": s["study"], **r, "dir": str(place / r["dir"])} for s in studies for r in s["runs"]]
    brief = [{k: v for k, v in s.items() if k != "runs"} for s in studies]
    talk.data({**brief[0], "runs": runs} if study is not None else {"studies": brief, "runs": runs})
    if not studies:
        talk.say(f"no study has been run in {runs_dir}")
    for found in studies:
        _print(talk, found, every_run=study is not None or len(studies) == 1)


def _indexes(study: str | None, runs_dir: Path) -> list[dict[str, Any]]:
    from lexarium.cli.target import read_indexes, study_name

    if not runs_dir.is_dir():
        raise UserError(f"{runs_dir}: no such directory; nothing has been run there (see --runs-dir)")
    name = None if study is None else study_name(study)
    found = read_indexes(runs_dir, name)
    if name is not None and not found:
        known = ", ".join(sorted(index["study"] for index in read_indexes(runs_dir))) or "none"
        raise UserError(f"{runs_dir}: study {name!r} has not been run there (studies there: {known})")
    return found


def _study(index: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    from lexarium.studies.run_files import state_of

    runs = [
        {"name": r["name"], "dir": r["dir"], **state_of(runs_dir / r["dir"], r.get("max_steps"))}
        for r in index["runs"]
    ]
    counts = Counter(r["state"] for r in {r["dir"]: r for r in runs}.values())
    return {
        "study": index["study"],
        "preset": index.get("preset"),
        "claim": index.get("claim", ""),
        "counts": dict(sorted(counts.items())),
        "runs": runs,
    }


def _print(talk: Talk, found: dict[str, Any], every_run: bool) -> None:
    counts = ", ".join(f"{n} {state}" for state, n in found["counts"].items()) or "no runs"
    preset = f" (preset {found['preset']})" if found["preset"] else ""
    talk.say(f"{found['study']}{preset}: {counts}")
    if every_run:
        rows = [
            [r["state"], r["step"], r["max_steps"], r["name"], r["dir"], _short(r)] for r in found["runs"]
        ]
        talk.table(["state", "step", "of", "run", "directory", "message"], rows, "  ")


def _short(run: dict[str, Any]) -> str:
    first = (run["message"] or "").splitlines()
    return first[0][:80] if first else ""
