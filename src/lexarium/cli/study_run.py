"""How `lexarium study run` goes about it: index, runs, data, training, evaluations, report.

Each stage does only what is missing, so the command can be interrupted anywhere and called again. The
index always holds the whole study; `--only` restricts what is trained now.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexarium.cli.console import DONE, FAILED, REQUEUE, Talk, early_stop, rich_console
from lexarium.cli.target import Target, load_study, parse_levels, parse_seeds, read_indexes
from lexarium.foundation.types import UserError
from lexarium.launch.display import Meter, study_display
from lexarium.studies.run_files import state_of

if TYPE_CHECKING:
    from lexarium.studies.cohorts import Teams
    from lexarium.studies.run import Run
    from lexarium.studies.study import Point, Study
    from lexarium.training.signals import StopFlag

MADE_FROM = "made-from.txt"


@dataclass(frozen=True)
class Options:
    """What was asked on the command line."""

    preset: str | None = None
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    seeds: str | None = None
    jobs: int | None = None
    retry: bool = False
    requeue_after: float | None = None
    dry_run: bool = False


@dataclass
class Work:
    """The runs of a study (points with the same science are one run) and what became of them."""

    points: list[Point]
    runs: dict[str, Run] = field(default_factory=dict)
    new: list[Path] = field(default_factory=list)
    """Directories that were not there before this call."""
    states: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def point(self, name: str) -> Point:
        """The first point of a run."""
        return next(p for p in self.points if p.run == name)


def run_study(name: str, runs_dir: Path, options: Options) -> int:
    """Everything; returns the exit status."""
    talk = Talk()
    with early_stop():
        from lexarium.training.signals import StopFlag

        if options.requeue_after is not None and options.requeue_after <= 0:
            raise UserError(f"--requeue-after {options.requeue_after}: expected a number of hours above 0")
        seeds = parse_seeds(options.seeds)
        study = load_study(name, runs_dir, options.preset, options.overrides, seeds)
        target, only = Target(name, study=study), parse_levels(options.only)
        everything = target.points(runs_dir, study.planned(only), "--only")
        points = target.points(runs_dir, only, "--only") if only else everything
        if options.dry_run:
            return _dry_run(talk, points, runs_dir)
        known = _announce(talk, study, everything, runs_dir)
        index = lambda: study.write_index(runs_dir, everything)
        if not known:
            index()
        work = _create(points, runs_dir)
        flag = StopFlag(options.requeue_after)
    with flag:
        status = _work(work, runs_dir, options, flag, talk, index)
    if status == flag.exit_status != DONE:
        talk.say(f"stopped: {flag.reason}; everything is saved, the same command goes on")
        return status
    _report(talk, study.name, runs_dir)
    return status


def _announce(talk: Talk, study: Study, points: Sequence[Point], runs_dir: Path) -> bool:
    """Say that a study was run in another way before; whether it was run at all."""
    indexes = list(read_indexes(runs_dir, study.name))
    for index in indexes:
        shared = {run["dir"] for run in index.get("runs", [])} & {point.run for point in points}
        if index.get("preset") != study.preset:
            before = index.get("preset") or "no preset"
            now = study.preset or "no preset"
            talk.note(
                f"{study.name}: was run with {before} before, now with {now}; runs stay, the report changes"
            )
        elif not shared:
            talk.note(
                f"{study.name}: was run with other data or options before; those runs stay, the report changes."
                " Another --runs-dir keeps both reports"
            )
    return bool(indexes)


def _dry_run(talk: Talk, points: Sequence[Point], runs_dir: Path) -> int:
    rows = []
    for point in {p.run: p for p in points}.values():
        state = state_of(runs_dir / point.run, point.config.train.max_steps)
        rows.append([state["state"], state["step"], state["max_steps"], point.name, point.run])
    talk.table(["state", "step", "of", "run", "directory"], rows)
    todo = sum(row[0] != "done" for row in rows)
    talk.say(f"{len(rows)} runs, {todo} to train")
    return DONE


def _create(points: Sequence[Point], runs_dir: Path) -> Work:
    """The directories of all runs."""
    from lexarium.studies.run import Run

    distinct = {p.run: p for p in points}
    work = Work(list(points))
    with Meter("creating runs", len(distinct), "runs") as meter:
        for i, (name, point) in enumerate(distinct.items(), start=1):
            if not (runs_dir / name).exists():
                work.new.append(runs_dir / name)
            work.runs[name] = Run.create(point.config, runs_dir)
            meter.move(i)
    return work


# --- training ---------------------------------------------------------------------------------------


def _work(
    work: Work, runs_dir: Path, options: Options, flag: StopFlag, talk: Talk, index: Callable[[], object]
) -> int:
    """Train and evaluate what is missing; returns the exit status so far. `index()` makes these runs those of the
    study: only when the data are there, so that a mistyped path leaves an earlier report as it was."""
    todo = _todo(work, options.retry)
    if todo:
        try:
            _prepare(work, todo, runs_dir, talk, flag)
        except UserError:
            for folder in work.new:  # their data cannot be made
                if not (folder / "metrics.jsonl").exists():
                    shutil.rmtree(folder, ignore_errors=True)
            raise
    if not flag.raised:
        index()
    if todo and not flag.raised:
        _train(work, todo, options, flag, talk)
    if not flag.raised:
        _evaluate(work, flag)
    if flag.raised:
        return flag.exit_status
    return _verdict(talk, work, runs_dir)


def _todo(work: Work, retry: bool) -> list[str]:
    """Runs to train now: not finished, not failed before (unless `retry`), not in other hands."""
    from lexarium.foundation.lock import held, read_owner

    found = []
    for name, run in work.runs.items():
        status = state_of(run.path)
        work.states[name], work.messages[name] = status["state"], status["message"]
        if status["state"] == "failed" and not retry:
            continue
        if held(run.path):
            work.states[name], owner = "held", read_owner(run.path) or {}
            work.messages[name] = f"in use by process {owner.get('pid')} on {owner.get('host')}"
        elif status["state"] != "done":
            found.append(name)
    blocked = {n for n in found if _failed_parent(work, n, found)}
    for name in blocked:
        work.messages[name] = f"the run it starts from ({work.point(name).parent}) did not finish"
        work.states[name] = "blocked"
    return [n for n in found if n not in blocked]


def _failed_parent(work: Work, name: str, todo: Sequence[str]) -> bool:
    """Whether the run this one starts from is neither done nor about to be trained."""
    parent = work.point(name).parent
    while parent is not None and parent in work.runs:
        if parent not in todo and work.states[parent] != "done":
            return True
        parent = work.point(parent).parent
    return False


def _prepare(work: Work, todo: Sequence[str], runs_dir: Path, talk: Talk, flag: StopFlag) -> None:
    from lexarium.cli.prepare import build_store, by_store, named

    for group in by_store([work.point(name) for name in todo]):
        if not flag.raised:
            with named(group):
                build_store(group[0].config, runs_dir, 0, talk)


def _train(work: Work, todo: Sequence[str], options: Options, flag: StopFlag, talk: Talk) -> None:
    from lexarium.launch.local import Job, LocalLauncher

    jobs: dict[Path, Job] = {}
    steps: dict[str, int] = {}
    for name in todo:
        point, run = work.point(name), work.runs[name]
        of = point.config.train.max_steps or run.parts().max_steps
        jobs[run.path] = Job(run.path, point.name, of, point.parent)
        steps[name] = state_of(run.path)["step"]
    plan, n = _teams(work, todo, options)
    for note in plan.notes:
        talk.note(f"plan: {note}")
    device = work.point(todo[0]).config.plan.device
    with study_display(list(jobs.values()), steps) as display:
        launcher = LocalLauncher(display, n, options.retry, _cuda_devices(device))
        teams = [[jobs[path] for path in team] for team in plan.teams]
        work.states |= launcher.run(teams, lambda: flag.raised)
        work.messages |= launcher.messages
    for name in todo:
        now = state_of(work.runs[name].path)
        if (
            flag.raised and work.states[name] == "preempted"
        ):  # its worker knows only the signal it got from here
            work.runs[name].files.set_status(message=flag.reason)
        # another process may have taken a run in the meantime
        if work.states[name] == "failed" and now["state"] == "running":
            work.states[name] = "held"
        elif work.states[name] == "failed" and now["state"] == "waiting":
            work.states[name] = "blocked"


def _teams(work: Work, todo: Sequence[str], options: Options) -> tuple[Teams, int]:
    """Which runs are trained together, and by how many workers."""
    from lexarium.launch.local import workers_here
    from lexarium.studies.cohorts import plan_teams

    device = work.point(todo[0]).config.plan.device
    n = options.jobs or workers_here(device)
    after = {work.runs[name].path: parent for name in todo if (parent := work.point(name).parent) in todo}
    devices = len(_cuda_devices(device)) or 1
    plan = plan_teams([work.runs[name] for name in todo], after, n, devices)
    return plan, min(n, len(plan.teams))


def _cuda_devices(device: str) -> list[str]:
    """Names of the devices that workers are spread over; none without CUDA."""
    import torch

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


# --- evaluations that are missing -------------------------------------------------------------------


def missing_evaluations(run: Run) -> list[tuple[Any, int]]:
    """(evaluation, step) for which a checkpoint is there but no result."""
    from lexarium.studies.run_config import evaluation_identity, evaluation_name
    from lexarium.training.checkpoint import steps

    last = state_of(run.path)["step"]
    return [
        (evaluation, step)
        for evaluation in run.config.evaluations
        for step in steps(run.path)
        if (step == last or evaluation.due(step, run.config.train.max_steps))
        and not run.files.evaluated(evaluation_name(evaluation), step, evaluation_identity(evaluation))
    ]


def _evaluate(work: Work, flag: StopFlag) -> None:
    """Evaluate checkpoints of finished runs that lack a result: evaluations that were added later."""
    found = [
        (run, evaluation, step)
        for name, run in work.runs.items()
        if work.states[name] == "done"
        for evaluation, step in missing_evaluations(run)
    ]
    if not found:
        return
    with Meter("evaluating", len(found), "evaluations") as meter:
        meter.move(0)
        for i, (run, evaluation, step) in enumerate(found, start=1):
            if flag.raised:
                return
            run.evaluate(evaluation, step, say=meter.say)
            meter.move(i, run.path.name)


# --- the end ----------------------------------------------------------------------------------------


def _verdict(talk: Talk, work: Work, runs_dir: Path) -> int:
    """Say which runs are not done and why."""
    lines: dict[str, list[str]] = {"held": [], "failed": [], "blocked": [], "other": []}
    for name in work.runs:
        state = work.states[name]
        if state != "done":
            message = (work.messages.get(name) or "").splitlines()
            reason = f": {message[0]}" if message else ""
            kind = state if state in lines else "other"
            lines[kind].append(f"{state:8} {work.point(name).name} ({runs_dir / name}){reason}")
    for kind in ("held", "other", "blocked", "failed"):
        for line in lines[kind]:
            talk.say(line)
    if lines["held"]:
        talk.say(f"in the hands of another process: {len(lines['held'])}; call again when it is done")
    if lines["failed"] or lines["blocked"]:
        n = len(lines["failed"]) + len(lines["blocked"])
        recorded = any(state_of(run.path)["state"] == "failed" for run in work.runs.values())
        how = "mend the cause, then run again with --retry" if recorded else "run the same command again"
        talk.say(f"{n} of {len(work.runs)} runs failed; {how}")
        return FAILED
    return REQUEUE if lines["held"] or lines["other"] else DONE


def _report(talk: Talk, study: str, runs_dir: Path) -> None:
    """The report's table, and where its page is. Nothing is drawn anew when nothing has changed."""
    from lexarium.foundation.files import read_json, write_atomic
    from lexarium.reports.page import build_report
    from lexarium.reports.tables import print_results

    page = report_page(runs_dir, study)
    mark, made_from = page.with_name(MADE_FROM), _made_from(study, runs_dir)
    if page.exists() and mark.exists() and mark.read_text(encoding="utf-8") == made_from:
        results = read_json(page.with_name("results.json"))
    else:
        results = build_report(runs_dir, study)
        write_atomic(mark, made_from)
    print_results(results, rich_console(sys.stdout))
    talk.say(str(page))


def _made_from(study: str, runs_dir: Path) -> str:
    """A digest of everything a report shows: the index, every status and result, and the code that draws."""
    from lexarium import reports, studies
    from lexarium.foundation.files import sha256_file, sha256_json

    index = runs_dir / "studies" / study / "index.json"
    files = [f for p in (reports, studies) for f in Path(p.__path__[0]).rglob("*.*") if f.suffix != ".pyc"]
    for name in {r["dir"] for r in read_indexes(runs_dir, study)[0]["runs"]}:
        files += [runs_dir / name / "status.json", *(runs_dir / name).glob("evals/*/*.json")]
    seen = [(str(f), s.st_size, s.st_mtime_ns) for f in sorted(files) if f.exists() for s in [f.stat()]]
    return sha256_json([sha256_file(index), seen])


def report_page(runs_dir: Path, study: str) -> Path:
    """Where the page of a study lies."""
    return runs_dir / "studies" / study / "report" / "index.html"
