"""Which runs are trained together, and training them.

`plan_teams` groups runs whose programs have equal shape and sizes the groups; a team of one trains alone. Runs
that cannot or should not be stacked become teams of one, and the plan says why. `train_together` trains a team in
this process: every member has its own lock, status, metrics, evaluations and checkpoints, ends or fails on its own,
and can go on alone later, or in another cohort.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexarium.foundation import registry
from lexarium.foundation.types import UserError, gist
from lexarium.studies.run_config import longest_row
from lexarium.studies.run_files import DONE, FAILED

if TYPE_CHECKING:
    from lexarium.studies.run import Attempt, Run
    from lexarium.studies.session import Session

States = dict[Path, tuple[str, str]]
"""Run directory -> its state and a message."""

GAIN = 10
"""A cohort need not be larger than where the time of launching a step is a tenth of its work."""
LAUNCH_SECONDS = 250e-6
"""Time of a replayed step that does not depend on its size: a few hundred kernels of a microsecond each. Estimated
from public records, not measured here."""
SHARE = 0.8
"""Part of the free memory that a cohort may use."""
WEIGHT_BYTES = 36
"""Per weight: itself, gradient and two moments, and five more while they are updated."""

LOSS_BYTES = 4 << 27
"""Logits, softmax and gradient of one piece of a large vocabulary's loss (2^25 each), and some to spare."""


@dataclass
class Teams:
    """What is trained by which worker: teams of run directories, and the reasons as lines to print."""

    teams: list[list[Path]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# --- planning ---------------------------------------------------------------------------------------


def plan_teams(runs: Sequence[Run], after: dict[Path, str | None], workers: int, devices: int = 1) -> Teams:
    """Teams for runs that are to be trained by `workers` processes on `devices` devices. after: the run each one
    starts from, when that is trained now too."""
    found = Teams()
    alone: dict[str, list[Path]] = {}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        reason = obstacle(run)
        if reason:
            alone.setdefault(reason, []).append(run.path)
        else:
            shape = {**shape_of(run), "after": after.get(run.path) is not None}
            groups.setdefault(json.dumps(shape, sort_keys=True), []).append(run)
    for group in groups.values():
        if len(group) == 1:
            alone.setdefault("no other run has its shape", []).append(group[0].path)
            continue
        size, why = cohort_size(group[0], len(group), workers, devices)
        teams = even(group, size)
        found.teams += [[r.path for r in team] for team in teams]
        if size > 1:
            sizes = " + ".join(str(len(team)) for team in teams)
            found.notes.append(f"{len(group)} runs as cohorts of {sizes}: {why}")
        else:
            found.notes.append(f"{_counted(len(group))} alone: {why}")
    for reason, paths in alone.items():
        found.teams += [[path] for path in paths]
        found.notes.append(f"{_counted(len(paths))} alone: {reason}")
    place = {run.path: i for i, run in enumerate(runs)}
    found.teams.sort(key=lambda team: min(place[path] for path in team))
    return found


def _counted(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def even(group: Sequence[Any], size: int) -> list[list[Any]]:
    """A group in parts of at most `size` that differ by one at most, in order."""
    n = -(-len(group) // size)
    cuts = [len(group) * i // n for i in range(n + 1)]
    return [list(group[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def obstacle(run: Run) -> str:
    """Why a run is not stacked with others; empty when it can be."""
    from lexarium.training.parallel import choose_device

    config = run.config
    plan, device = config.plan, choose_device(config.plan.device)
    if getattr(config.start, "state", "weights") == "all":
        return "start.state all goes on at the step of another run"
    if plan.cohort == "off":
        return "plan.cohort is off"
    if plan.cohort == "auto":
        if device.type == "cpu":
            return "on a CPU stacking does not pay (0.8 to 1.2 of the time of processes)"
        if plan.program not in ("auto", "captured"):
            return f"plan.program {plan.program} asks for a program of its own"
    if device.type not in ("cpu", "cuda"):
        return f"stacking is not supported on {device.type}"
    model: Any = registry.find("model", config.model.type)
    if not getattr(model, "stacks", False):
        return f"model {config.model.type} has fused kernels without a stacked form"
    if not hasattr(registry.find("optimizer", config.optimizer.type), "stacked_step"):
        return f"optimizer {config.optimizer.type} has no stacked form"
    if plan.recompute:
        return "plan.recompute computes activations again, which has no stacked form"
    if config.train.precision == "fp16":
        return "precision fp16 scales its loss by what the host reads"
    return ""


def shape_of(run: Run) -> dict[str, Any]:
    """What must be equal for runs to be stacked. Numbers that may differ (rates, seeds, data) are left out."""
    config = run.config
    numbers = lambda name: name.endswith("dropout")
    model = {k: v for k, v in config.model.model_dump(mode="json").items() if not numbers(k)}
    train = config.train.model_dump(
        mode="json",
        include={"global_batch_size", "micro_batch_size", "precision", "non_finite", "parameters"},
    )
    plan = config.plan.model_dump(mode="json", include={"device", "threads", "cohort"})
    return {
        "model": model,
        "vocab_size": run.parts().objective.vocab_size,
        "objective": config.objective.model_dump(mode="json"),
        "optimizer": config.optimizer.type,
        "train": train,
        "plan": plan,
    }


def cohort_size(run: Run, n: int, workers: int, devices: int) -> tuple[int, str]:
    """Members per cohort for `n` runs like this one, and the reason in words. Workers share the devices' memory."""
    wish = run.config.plan.cohort
    if isinstance(wish, int):
        return wish, f"plan.cohort is {wish}"
    import torch

    from lexarium.studies.roofline import machine
    from lexarium.training.parallel import choose_device

    device = choose_device(run.config.plan.device)
    free, _ = torch.cuda.mem_get_info(device)
    work, weights = step_work(run)
    here = machine(device, run.config.train.precision)
    share = free / -(-workers // max(1, devices))
    return fitting(n, workers, share, WEIGHT_BYTES * weights + work.kept + LOSS_BYTES, work.bound(here))


def fitting(n: int, workers: int, free: float, member: float, seconds: float) -> tuple[int, str]:
    """Size of cohorts for n runs on `workers` devices with `free` bytes each, for a member of so many bytes and
    seconds per step."""
    room = int(SHARE * free / member)
    if room < 2:
        return 1, f"a member needs {member / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free"
    pays = max(2, -(-int(1e9 * GAIN * LAUNCH_SECONDS) // max(1, int(1e9 * seconds))))
    share = -(-n // workers)
    size = max(1, min(room, pays, share))
    parts = -(-share // size)
    return -(-share // parts), (
        f"{member / 1e9:.2f} GB per member, {free / 1e9:.0f} GB free; a member's step takes at least"
        f" {1e6 * seconds:.0f} us, so more than {pays} at once gain nothing"
    )


def step_work(run: Run) -> tuple[Any, int]:
    """What one step of a run takes (see `studies.roofline`), and its number of weights; computed on the CPU."""
    import torch

    from lexarium.models.build import build_model
    from lexarium.models.dropout import uses_dropout
    from lexarium.studies.roofline import BYTES_PER_WEIGHT, Work, work_of
    from lexarium.training.captured import common_lengths, rectangular
    from lexarium.training.parallel import World
    from lexarium.training.step import TrainStep

    parts = run.parts()
    model = build_model(run.config.model, parts.objective.vocab_size, 0)
    loader = parts.loader(World(), uses_dropout(model))
    batches = loader.batches(0)
    loader.close()
    lengths = common_lengths(batches)
    step = TrainStep(model, parts.objective)
    precision, cpu = run.config.train.precision, torch.device("cpu")
    works = [work_of(step, rectangular(batch, lengths), precision, cpu) for batch in batches]
    weights = sum(p.numel() for p in model.parameters())
    moved = sum(w.bytes for w in works) - (len(works) - 1) * BYTES_PER_WEIGHT * weights
    return Work(sum(w.flops for w in works), moved, max(w.kept for w in works)), weights


# --- training ---------------------------------------------------------------------------------------


class _Member:
    """A run of a team while it is trained."""

    def __init__(self, run: Run, stack: ExitStack, attempt: Attempt) -> None:
        self.run, self.stack, self.attempt = run, stack, attempt
        self.session: Session | None = None

    def let_go(self) -> None:
        """Stop its threads and give its directory free."""
        if self.session:
            self.session.loader.close()
        self.stack.close()


def train_together(
    runs: Sequence[Run],
    flag: Any,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[Path, int], None] = lambda path, step: None,
    retry: bool = False,
) -> States:
    """Train runs as one cohort; what became of each.

    A run that fails leaves the others to go on. When the device has no memory for all, halves are tried; when they
    cannot be one program after all, each is trained alone, so that a mistake in one is told to that one only.
    """
    if len(runs) == 1:
        return {runs[0].path: _alone(runs[0], flag, say, progress, retry)}
    states: States = {}
    members = _begin(runs, say, progress, retry, states)
    names = [m.run.path.name for m in members]
    for member in list(members):
        try:
            member.session = _session(member, flag, names)
        except Exception as error:
            members.remove(member)
            _fail(member, error, states)
    parts, why = 1, ""
    try:
        _fit(members, states)
    except Exception as error:
        parts, why = _parts(error, sum(m.run.path not in states for m in members))
    except BaseException as error:
        for member in members:
            if member.run.path not in states:
                _fail(member, error, states)
        raise
    going = [m.run for m in members if m.run.path not in states]
    if not going:
        return states
    note = f"{_counted(len(going))} cannot go on as one program: {why}; {parts} parts are tried"
    say(f"{note} from their last checkpoints")
    for member in members:
        if member.run.path not in states:
            _stop(member, f"not trained as one program: {why}")
    members.clear()
    _free_memory()
    for part in even(going, -(-len(going) // parts)):
        states |= train_together(part, flag, say, progress, retry=True)
    return states


def _parts(error: Exception, n: int) -> tuple[int, str]:
    """Into how many parts a cohort of n is divided after an error of all, and the reason."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) and n > 1:
        return 2, "there is not enough memory"
    return n, gist(error)


def _free_memory() -> None:
    """Give back what a cohort held: tensors refer to each other, and the library keeps freed memory."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _alone(run: Run, flag: Any, say: Callable[[str], None], progress: Any, retry: bool) -> tuple[str, str]:
    try:
        return run.train(flag, say, functools.partial(progress, run.path), retry), ""
    except BaseException as error:
        return FAILED, told(error, run.path)


def _begin(
    runs: Sequence[Run], say: Callable[[str], None], progress: Any, retry: bool, states: States
) -> list[_Member]:
    """Take hold of every run that has something left to do."""
    from lexarium.training.parallel import World

    members = []
    for run in runs:
        stack = ExitStack()
        note = lambda step, path=run.path: progress(path, step)
        try:
            if not run.unfinished(say, retry):
                states[run.path] = (DONE, "")
                continue
            attempt = stack.enter_context(run.attempt(World(), say, note))
        except Exception as error:
            states[run.path] = (FAILED, told(error, run.path))
        else:
            members.append(_Member(run, stack, attempt))
    return members


def _session(member: _Member, flag: Any, names: Sequence[str]) -> Session:
    from lexarium.studies.session import Session
    from lexarium.training.parallel import World

    return Session(member.attempt, flag, World(), names if len(names) > 1 else ())


def _fit(members: Sequence[_Member], states: States) -> None:
    from lexarium.models.build import template_of
    from lexarium.training.captured import no_rectangles
    from lexarium.training.cohort import Cohort, fit_together

    sessions_of = {id(m.session.trainer): m.session for m in members if m.session}
    recorders = [session.recorder for session in sessions_of.values()]
    for session in sessions_of.values():
        session.recorder.companions = recorders
        if why := no_rectangles(session.parts.objective, session.loader.batches(session.trainer.step)):
            raise UserError(why)
    of = {id(m.session.trainer): m for m in members if m.session}

    def stack(trainers: list[Any]) -> Cohort:
        sessions = [sessions_of[id(t)] for t in trainers]
        device = sessions[0].device
        return Cohort(
            trainers,
            [s.rule for s in sessions],
            template=template_of([t.program.step.model for t in trainers]),
            device=device,
            precision=sessions[0].config.train.precision,
            longest=max(longest_row(s.config) for s in sessions),
            compiled=device.type == "cuda",
        )

    def ended(trainer: Any, how: bool | Exception) -> None:
        member = of[id(trainer)]
        if isinstance(how, Exception):
            _fail(member, how, states)
            return
        try:
            state = sessions_of[id(trainer)].finish(how)
        except Exception as error:
            _fail(member, error, states)
        else:
            member.let_go()
            states[member.run.path] = (state, "")

    fit_together([m.session.trainer for m in members if m.session], stack, ended)


def _fail(member: _Member, error: BaseException, states: States) -> None:
    if member.session:  # the host may have been behind the device
        member.attempt.reached(member.session.trainer.known)
    member.attempt.fail(error)
    member.let_go()
    states[member.run.path] = (FAILED, told(error, member.run.path))


def _stop(member: _Member, message: str) -> None:
    """Let go of a run that will be taken up again from its last checkpoint, as if this attempt had not been."""
    member.attempt.withdraw()
    member.run.files.event("cohort given up", message=message)
    member.let_go()
    member.session = None


def told(error: BaseException, path: Path) -> str:
    """What a person is told about an error of a run."""
    if isinstance(error, UserError):
        return str(error)
    import traceback

    trace = "".join(traceback.format_exception(error, limit=-2))
    return f"{type(error).__name__}: {error} ({path / 'logs'})\n{trace}"
