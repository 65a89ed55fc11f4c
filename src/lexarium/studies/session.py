"""Training one run, put together: parts, program, listeners, and what is recorded about it.

with run.attempt(...) as attempt:              the directory is ours (studies/run.py)
    session = Session(attempt, flag, world)    trainer at its newest checkpoint, listeners attached
    state = session.train()                    or `train_together` for many (studies/cohorts.py)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lexarium.foundation.features import describe
from lexarium.foundation.files import read_json, write_json
from lexarium.models.build import build_model
from lexarium.models.dropout import uses_dropout
from lexarium.studies.assembly import Parts, make
from lexarium.studies.continuing import refuse_no_steps, whole_state
from lexarium.studies.listeners import Evaluator, Recorder, Saver, Stopper, series
from lexarium.studies.roofline import machine, operations_per_token
from lexarium.studies.run_config import RunConfig, evaluation_identity, evaluation_name, longest_row
from lexarium.studies.run_files import DONE, PLAN, PREEMPTED
from lexarium.tokens.loader import Loader
from lexarium.training import checkpoint
from lexarium.training.choice import EAGER, Choice, choose
from lexarium.training.host import repeatable, settle
from lexarium.training.parallel import World, check_precision, choose_device
from lexarium.training.signals import StopFlag
from lexarium.training.step import TrainStep, set_precision
from lexarium.training.trainer import Trainer, freeze, recompute_activations

if TYPE_CHECKING:
    from lexarium.studies.run import Attempt


class Session:
    """A run in training. `cohort`: names of the runs it is trained with, its own among them."""

    def __init__(self, attempt: Attempt, flag: StopFlag, world: World, cohort: Sequence[str] = ()) -> None:
        self.run, self.attempt, self.flag, self.world = attempt.run, attempt, flag, world
        self.config: RunConfig = self.run.config
        repeatable()
        self.device = choose_device(self.config.plan.device, world)
        check_precision(self.config.train.precision, self.device)
        settle(self.config.plan.threads)
        set_precision(self.config.train.precision)
        world.start(self.device)
        self.parts: Parts = self.run.parts(attempt.say)
        if world.main:
            _ = self.parts.store  # one process prepares, the others then find it
        world.barrier()
        step, skipped = checkpoint.newest(self.run.path)
        self._before = whole_state(self.run) if step is None else None
        self.rule = make("optimizer", self.config.optimizer)
        self.trainer, self.loader = build_trainer(
            self.config,
            self.parts,
            self.device,
            world,
            self.rule,
            self._chosen(cohort),
            step is None,
            attempt.say,
        )
        if world.main and self.config.train.max_steps is None:
            self.run.files.set_status(max_steps=self.trainer.max_steps)
        self._record_plan(cohort)
        self._used: tuple[float, float] | tuple[()] | None = None
        self._resume(step, skipped)
        self._listen()

    # -- how it is carried out -----------------------------------------------------------------------

    def _chosen(self, cohort: Sequence[str]) -> Choice:
        """The program: what the plan of an earlier attempt says when it was made for the same wish and machine."""
        wish, path = self.config.plan.program, self.run.path / PLAN
        if cohort:
            asked = wish not in ("auto", "captured")
            return Choice(wish, "stacked", "plan.cohort asks for more than one run at once" if asked else "")
        before = read_json(path) if path.exists() else {}
        here = self._machine()
        same = before.get("asked") == wish and all(before.get(k) == v for k, v in here.items())
        if same and before["program"] != "stacked":
            return Choice(wish, before["program"], before["why"])
        return Choice(wish)

    def _machine(self) -> dict[str, Any]:
        """What a choice of program depends on beside the run."""
        device = self.device
        return {
            "device": device.type,
            "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "precision": self.config.train.precision,
            "threads": self.config.plan.threads,
            "world_size": self.world.size,
            "micro_batch_size": self.config.train.micro_batch_size
            or -(-self.config.train.global_batch_size // self.world.size),
            "torch": torch.__version__,
            "python": sys.version.split()[0],
        }

    def _record_plan(self, cohort: Sequence[str]) -> None:
        """Write how the run is executed; a change since the last attempt is logged, not hidden."""
        if not self.world.main:
            return
        choice: Choice = self.trainer.choice
        optimizer = self.trainer.program.optimizer
        plan = {
            "program": choice.program,
            "asked": choice.asked,
            "why": choice.why,
            "cohort": list(cohort),
            **self._machine(),
            "kernels": {"fused_optimizer": not cohort and bool(optimizer.defaults.get("fused"))},
        }
        path = self.run.path / PLAN
        if path.exists() and (before := read_json(path)) != plan:
            changed = {k: [before.get(k), plan[k]] for k in plan if before.get(k) != plan[k]}
            self.run.files.event(
                "plan changed", changed=changed, promise="equal within rounding from here on"
            )
        if choice.why:
            self.attempt.say(f"{self.run.path.name}: program {choice.program}: {choice.why}")
        write_json(path, plan)

    def _resume(self, step: int | None, skipped: Sequence[str]) -> None:
        """Go to the newest checkpoint and set aside what is later."""
        run, world = self.run, self.world
        for message in skipped:
            self.attempt.say(message)
            if world.main:
                run.files.event("checkpoint skipped", message=message)
        if step is not None:
            program = self.trainer.program
            self.trainer.load_state(
                checkpoint.read(checkpoint.directory(run.path, step), program.step.model, program.optimizer)
            )
        elif self._before is not None:
            program = self.trainer.program
            state = checkpoint.read(self._before, program.step.model, program.optimizer)
            refuse_no_steps(self._before, state["step"], self.trainer.max_steps)
            self.trainer.load_state(state)
        world.barrier()  # every process has read the checkpoint before any is set aside
        if world.main:
            number = self.attempt.number
            discarded = run.files.discard_after(step, number)
            run.files.event(
                "start" if step is None else "resume",
                step=self.trainer.step,
                attempt=number,
                discarded=discarded,
            )
        world.barrier()

    # -- listeners -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Attach the listeners, in the order in which they act at a boundary.

        Evaluations are built now: what they lack is told before training, not after it.
        """
        config, run, world, lock = self.config, self.run, self.world, self.attempt.lock
        data = self.parts.evaluation_data() if world.main and config.evaluations else None
        self._built = {
            evaluation_name(e): make("evaluation", e, data) for e in config.evaluations if world.main
        }

        def due(step: int, last: bool) -> list[str]:
            return [
                evaluation_name(e) for e in config.evaluations if last or e.due(step, self.trainer.max_steps)
            ]

        history = lambda step: series(run.files, config.stop_when.metric, step) if config.stop_when else []
        self.saver = Saver(run.files, lock, world, config.checkpoint)
        self.recorder = Recorder(
            run.files, lock, world, self.attempt.number, self.loader.epoch, self.attempt.note, self._peak
        )
        self.stopper = Stopper(self.flag, world, config.stop_when, history)
        self.evaluator = Evaluator(due, self._evaluate, world, self.recorder)
        self.trainer.listeners += [self.recorder, self.evaluator, self.saver, self.stopper]

    def _peak(self) -> tuple[float, float] | None:
        """Operations per token of a training step, and what all devices do in a second; found at the first log line."""
        if self._used is None:
            per_token = operations_per_token(self.trainer.program.step, self.loader.batches(0)[0])
            device = machine(self.device, self.config.train.precision)
            self._used = (per_token, self.world.size * device.flops) if per_token else ()
        return self._used or None

    def _evaluate(self, name: str, step: int, last: bool) -> None:
        """Evaluate the weights as they are and write the result, unless it is there."""
        run, parts, program = self.run, self.parts, self.trainer.program
        evaluation = run.evaluation(name)
        asked = evaluation_identity(evaluation)
        built = self._built[name]
        wants_items = evaluation.items and (last or getattr(built, "items_at_every_step", False))
        table = run.files.evaluation_file(name, step).with_suffix(".parquet")
        if run.files.evaluated(name, step, asked) and (table.exists() or not wants_items):
            return
        scorer = parts.scorer(program.step.model, program.device)
        try:
            result = built.run(scorer, run.key(name, step))
        except Exception:
            if self.world.size == 1 and self.trainer.step:  # the others would wait for ever
                # a broken evaluation must not cost the steps since the last checkpoint
                self.saver.save(self.trainer)
            raise
        self.attempt.lock.check()
        run.files.write_evaluation(name, step, result, asked, items=wants_items)
        if hasattr(built, "log_line"):
            self.attempt.say(f"{run.path.name}: step {step:,}: {name}: {built.log_line(result)}")

    # -- training ------------------------------------------------------------------------------------

    def train(self) -> str:
        """Train alone; returns `done` or `preempted`."""
        try:
            finished = self.trainer.fit()
        finally:
            self.loader.close()
        return self.finish(finished)

    def finish(self, finished: bool) -> str:
        """Save where training stopped and say so."""
        run, trainer = self.run, self.trainer
        early = not finished and self.stopper.finished_early
        if early:  # by `stop_when`: what is due after the last step is due here
            self.recorder.flush(trainer)
            self.evaluator.evaluate(trainer, last=True)
        self.saver.save(trainer)
        state = DONE if finished or early else PREEMPTED
        if self.world.main:
            message = "" if state == DONE else self.flag.reason or "another process asked to stop"
            if early and trainer.step < trainer.max_steps:
                message = f"stop_when ended training at step {trainer.step}"
            run.files.event(state, step=trainer.step, message=message)
            run.files.set_status(state=state, step=trainer.step, message=message)
        self.world.barrier()
        return state


def build_trainer(
    config: RunConfig,
    parts: Parts,
    device: torch.device,
    world: World = World(),
    rule: Any = None,
    choice: Choice = EAGER,
    fresh: bool = True,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[Trainer, Loader]:
    """A trainer at step 0 and its loader. `rule`: the optimizer component, where the caller needs it too. A run that
    has a checkpoint is not `fresh`: it needs nothing of what it started from."""
    model = build_model(config.model, parts.objective.vocab_size, config.factor_seed("init"))
    if fresh:
        make("start", config.start).load(model)
    for remark in describe(model, parts.tokenizer, parts.objective.roles, fresh):
        say(remark)
    model = model.to(device)
    freeze(model, config.train.parameters)
    if config.plan.recompute:
        recompute_activations(model)
    loader = parts.loader(world, keyed=uses_dropout(model))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    train = config.train
    program, choice = choose(
        choice,
        TrainStep(model, parts.objective),
        (rule or make("optimizer", config.optimizer)).build(named, device),
        device=device,
        world=world,
        precision=train.precision,
        clip_norm=train.clip_norm,
        non_finite=train.non_finite,
        example=lambda: loader.batches(0),
        longest=longest_row(config),
        say=say,
    )
    schedule = make("schedule", config.schedule)
    steps = train.steps(loader.examples_per_epoch)
    trainer = Trainer(program, loader.batches, schedule.scale, train, [], steps)
    trainer.choice = choice
    return trainer, loader
