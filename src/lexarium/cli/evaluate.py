"""`lexarium evaluate`: ask a trained model, at any checkpoint.

Results of the run's own evaluations join the others in its directory, as if they had been computed while
it was trained. An evaluation with other options, or of a file, is only printed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import Json, RunsDir, Step, Trust
from lexarium.cli.options import Run as RunName
from lexarium.foundation import registry
from lexarium.foundation.types import UserError
from lexarium.launch.display import Meter

if TYPE_CHECKING:
    from lexarium.foundation.types import Result
    from lexarium.studies.run import Run

Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="option=value", help="Options of the evaluation, for example limit=100."),
]

MOST = 100
"""Metrics of an evaluation that are printed whole."""
SCORES = {
    "boundaries P": "boundary.precision", "R": "boundary.recall", "F": "boundary.f", "words F": "token.f",
    "types F": "type.f",
}  # fmt: skip
"""Of one that has more, in columns beside the plain ones: how well a cue or a baseline cuts into words."""


def evaluate(
    run: RunName,
    options: Options = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--evaluation", metavar="NAME", help="One of the run's, or any type; empty = all of the run's."
        ),
    ] = None,
    step: Step = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="Score this file (the evaluation's option `data`)."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE.parquet", help="Write the per-item table.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Run an evaluation on a checkpoint of a run.

    Example: lexarium evaluate RUN --evaluation rule_choice --data questions.tsv --json
    """
    from lexarium.cli.target import find_run
    from lexarium.studies.run import Run

    talk = Talk(as_json)
    _check_files(data, items)
    found = Run.open(find_run(run, runs_dir), trust_plugins)
    wanted = _wanted(found, evaluation, data, options or ())
    if items is not None and len(wanted) > 1:
        raise UserError("--items: name one evaluation with --evaluation")
    results: list[tuple[str, int, Result, bool]] = []
    with Meter("evaluating", len(wanted), "evaluations") as meter:
        meter.move(0)
        for i, config in enumerate(wanted, start=1):
            results.append(_run(found, config, step))
            meter.move(i)
    if items is not None:
        _write_items(items, results[0][2])
    _print(talk, found, results, step)


def _check_files(data: str | None, items: Path | None) -> None:
    if data is not None and not Path(data).is_file():
        raise UserError(f"--data {data}: no such file")
    if items is not None:
        if items.suffix != ".parquet":
            raise UserError(f"--items {items}: the name must end in .parquet")
        if not items.absolute().parent.is_dir():
            raise UserError(f"--items {items}: there is no directory {items.parent}")


def _wanted(run: Run, name: str | None, data: str | None, options: Sequence[str]) -> list[Any]:
    """Configs of the evaluations to run."""
    if name is None:
        if data is not None or options:
            told = "--data" if data is not None else repr(options[0])
            raise UserError(f"{told}: say of which evaluation with --evaluation NAME")
        if not run.config.evaluations:
            raise UserError(f"{run.path}: has no evaluation of its own; name one with --evaluation")
        return list(run.config.evaluations)
    return [_config(run, name, data, options)]


def _config(run: Run, name: str, data: str | None, options: Sequence[str]) -> Any:
    """The run's evaluation of this name, else the type with its defaults, with options applied."""
    from lexarium.foundation.config import Source, overlay, parse_overrides, resolved, validate
    from lexarium.studies.run_config import check, evaluation_name
    from lexarium.training.checkpoint import CheckpointConfig

    own = {evaluation_name(e): e for e in run.config.evaluations}
    if name not in own and ":" not in name and name not in registry.names("evaluation"):
        known = sorted({*own, *registry.names("evaluation")})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"--evaluation {name}: no such evaluation{hint} (known: {', '.join(known)})")
    cls: Any = registry.find("evaluation", own[name].type if name in own else name)
    source = Source(resolved(own[name]) if name in own else {"type": name}, {(): f"--evaluation {name}"})
    if data is not None:
        if "data" not in cls.Config.model_fields:
            raise UserError(
                f"--data: evaluation {name!r} has no option `data`; it looks at splits of the corpus"
            )
        source = overlay(source, {("data",): data}, "--data")
    source = overlay(source, parse_overrides(options), "command line")
    config = validate(cls.Config, source)
    alone = {
        "evaluations": (config,),
        "stop_when": None,
        "checkpoint": CheckpointConfig(),
    }  # it chooses nothing
    check(run.config.model_copy(update=alone))
    return config


def _run(run: Run, config: Any, step: Step) -> tuple[str, int, Result, bool]:
    """(name, step, result, whether it was stored)."""
    from lexarium.foundation.lock import held
    from lexarium.studies.run_config import evaluation_name

    own = config in run.config.evaluations
    stored = own and not held(run.path)  # while the run is trained, its directory is the trainer's
    at, result = run.evaluate(config, step, save=stored)
    return evaluation_name(config), at, result, stored


def _write_items(path: Path, result: Result) -> None:
    from lexarium.studies.run_files import write_parquet

    if not result.items:
        raise UserError(f"--items {path}: this evaluation has no per-item table")
    write_parquet(path, result.items)


def _print(talk: Talk, run: Run, results: Sequence[tuple[str, int, Result, bool]], step: Step) -> None:
    head = {"run": run.path.name, "dir": str(run.path.absolute()), "step": results[0][1]}
    if len(results) == 1:
        name, _, result, stored = results[0]
        talk.data({**head, "evaluation": name, "metrics": result.metrics, "stored": stored})
    else:
        metrics = {f"{name}.{k}": v for name, _, result, _ in results for k, v in result.metrics.items()}
        one = [{"evaluation": n, "metrics": r.metrics, "stored": s} for n, _, r, s in results]
        talk.data({**head, "evaluations": one, "metrics": metrics})
    best = run.config.checkpoint.best
    why = f" (the best {best.metric})" if best and step == "best" else ""
    talk.say(f"{run.path.name} at step {results[0][1]:,}{why}")
    for name, _, result, stored in results:
        shown = result.metrics
        if len(shown) > MOST:
            shown = {k: v for k, v in shown.items() if k.count(".") <= 1}
        talk.table(["metric", "value"], [[f"{name}.{k}", v] for k, v in shown.items()], "  ")
        more = len(result.metrics) - len(shown)
        if more and (rows := _scores(result.metrics)):
            talk.table([name, *SCORES], rows, "  ")
            more -= len(rows) * len(SCORES)
        if more:
            talk.say(f"  and {more:,} more: --json")
        if not stored:
            talk.say(f"  ({name} was not stored among the run's results)")


def _scores(metrics: Mapping[str, Any]) -> list[list[Any]]:
    """One row for everything that cuts: its name and its scores."""
    end = f".{SCORES['F']}"
    names = [metric.removesuffix(end) for metric in metrics if metric.endswith(end)]
    return [[name, *(metrics.get(f"{name}.{score}", "") for score in SCORES.values())] for name in names]
