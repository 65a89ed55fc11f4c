"""From a configuration to objects, and the one place where a run's training is put together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry, rng
from lexarium.foundation.files import Damaged, read_json, write_atomic, write_json
from lexarium.foundation.lock import Lock
from lexarium.foundation.types import Result, UserError
from lexarium.models.build import build_model
from lexarium.models.dropout import uses_dropout
from lexarium.studies.listeners import Evaluator, Recorder, Saver, Stopper, series
from lexarium.studies.run import refuse_changes
from lexarium.studies.run_config import RunConfig, evaluation_identity, evaluation_name
from lexarium.studies.run_files import DONE, PLAN, PREEMPTED, PROVENANCE
from lexarium.tokens.loader import Loader
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.store import TokenStore
from lexarium.tokens.tokenizers import FILE, is_tokenizer_file
from lexarium.training import checkpoint
from lexarium.training.host import settle
from lexarium.training.parallel import World, check_precision, choose_device
from lexarium.training.program import EagerProgram
from lexarium.training.signals import StopFlag
from lexarium.training.step import TrainStep
from lexarium.training.trainer import Trainer, freeze


def make(kind: str, config: Any, *arguments: Any) -> Any:
    """Build a component from its config."""
    return registry.find(kind, config.type)(config, *arguments)


class Parts:
    """The objects of a run, built when first asked for."""

    def __init__(self, config: RunConfig, stores: Path, run: Path, say: Callable[[str], None]) -> None:
        self.config, self._stores, self._run, self._say = config, stores, run, say

    @cached_property
    def store(self) -> TokenStore:
        """The token store, prepared if it is not there yet."""

        def wait(message: str) -> bool:
            self._say(f"waiting: {message}")
            return True

        refuse_changes(self._run, self.config, ("corpus", "tokenizer"))
        store = prepare(self.config.corpus, self.config.tokenizer, self._stores, wait=wait)
        copy = self._run / FILE
        if not copy.exists():
            write_atomic(copy, (store.folder / FILE).read_bytes())
            data = {"store": store.folder.name, "vocabulary": store.manifest["vocabulary"]}
            write_json(self._run / PROVENANCE, {**read_json(self._run / PROVENANCE), "data": data})
        mine = open_tokenizer(self.config.tokenizer, self._run)
        if mine.fingerprint() != store.manifest["vocabulary"]:
            theirs = open_tokenizer(self.config.tokenizer, store.folder)
            raise Damaged(
                f"{copy}: is not the vocabulary of {store.folder}: {_vocabulary_difference(mine, theirs)}."
                " Restore it, or start a new run in another --runs-dir"
            )
        return store

    @cached_property
    def tokenizer(self) -> Any:
        """The run's own copy of the tokenizer."""
        if not is_tokenizer_file(self._run):
            _ = self.store
        found = open_tokenizer(self.config.tokenizer, self._run)
        recorded = read_json(self._run / PROVENANCE).get("data", {}).get("vocabulary")
        if recorded not in (None, found.fingerprint()):
            raise Damaged(f"{self._run / FILE}: is not the vocabulary the run was trained with; restore it")
        return found

    @cached_property
    def objective(self) -> Any:
        """The objective, which knows the special tokens and the size of the vocabulary."""
        return make("objective", self.config.objective, self.tokenizer)

    @cached_property
    def direction(self) -> Any:
        """The direction."""
        return make("direction", self.config.direction)

    def loader(self, world: World, keyed: bool) -> Loader:
        """Training batches."""
        c = self.config
        return Loader(
            self.store.view("train", c.view),
            make("packing", c.packing),
            self.direction,
            self.objective,
            global_batch_size=c.train.global_batch_size,
            micro_batch_size=c.train.micro_batch_size,
            order_seed=c.factor_seed("order"),
            dropout_seed=c.factor_seed("dropout"),
            keyed=keyed,
            rank=world.rank,
            world_size=world.size,
            workers=c.plan.workers,
        )

    def evaluation_data(self) -> EvaluationData:
        """What the run's evaluations may look at."""
        return EvaluationData(self.store, self.tokenizer, self.config.view)


def _vocabulary_difference(mine: Any, theirs: Any) -> str:
    """How two vocabularies differ, in words."""
    one, other = getattr(mine, "symbols", []), getattr(theirs, "symbols", [])
    shown = lambda symbols: ", ".join(map(repr, sorted(symbols)[:5])) + (", ..." if len(symbols) > 5 else "")
    more, less = set(one) - set(other), set(other) - set(one)
    found = [f"{len(one)} symbols, expected {len(other)}"]
    found += [f"it has {shown(more)}"] * bool(more) + [f"it lacks {shown(less)}"] * bool(less)
    return "; ".join(found if more or less else ["the same symbols in another order"])


# --- trained models ---------------------------------------------------------------------------------


def resolve_step(run: Any, step: int | None) -> int:
    """A step that has a good checkpoint: the one asked for, or the newest."""
    if step is None:
        found, skipped = checkpoint.newest(run.path)
        if found is None:
            raise UserError(
                f"{run.path}: has no complete checkpoint; {'; '.join(skipped) or 'train it first'}"
            )
        return found
    if not checkpoint.directory(run.path, step).is_dir():
        have = ", ".join(map(str, checkpoint.steps(run.path))) or "none"
        raise UserError(f"{run.path}: has no checkpoint at step {step} (steps: {have})")
    return step


def load_model(run: Any, step: int | None) -> tuple[torch.nn.Module, Parts]:
    """A run's model with a checkpoint's weights, on the CPU, and its parts."""
    step, parts = resolve_step(run, step), run.parts()
    model = build_model(run.config.model, parts.objective.vocab_size, seed=0)
    checkpoint.load_model(checkpoint.directory(run.path, step), model)
    return model.eval(), parts


def load_scorer(run: Any, step: int | None) -> Scorer:
    """A scorer on a checkpoint, as the run's plan says (device, threads, precision)."""
    model, parts = load_model(run, step)
    device = choose_device(run.config.plan.device)
    settle(run.config.plan.threads)
    return Scorer(
        model.to(device),
        parts.objective,
        parts.direction,
        parts.tokenizer,
        device,
        run.config.train.precision,
    )


def evaluate(config: RunConfig, evaluation: Any, data: EvaluationData, scorer: Scorer, step: int) -> Result:
    """One evaluation on one scorer."""
    name = evaluation_name(evaluation)
    return make("evaluation", evaluation, data).run(scorer, rng.key(config.seed, "eval", name, step))


# --- training ---------------------------------------------------------------------------------------


def train(
    run: Any,
    lock: Lock,
    flag: StopFlag,
    world: World,
    attempt: int,
    say: Callable[[str], None],
    progress: Callable[[int], None],
) -> str:
    """Train a run its owner has locked; returns `done` or `preempted`."""
    config: RunConfig = run.config
    device = choose_device(config.plan.device, world)
    check_precision(config.train.precision, device)
    settle(config.plan.threads)
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler
    world.start(device)
    parts: Parts = run.parts(say)
    if world.main:
        _ = parts.store  # one process prepares, the others then find it
    world.barrier()
    step, skipped = checkpoint.newest(run.path)
    trainer, loader, kernels = _trainer(config, parts, device, world, fresh=step is None)
    _plan(run, device, world, kernels)
    for message in skipped:
        say(message)
        if world.main:
            run.files.event("checkpoint skipped", message=message)
    if step is not None:
        program = trainer.program
        trainer.load_state(
            checkpoint.read(checkpoint.directory(run.path, step), program.step.model, program.optimizer)
        )
    world.barrier()  # every process has read the checkpoint before any is set aside
    if world.main:
        discarded = run.files.discard_after(step, attempt)
        run.files.event(
            "start" if step is None else "resume", step=trainer.step, attempt=attempt, discarded=discarded
        )
    world.barrier()
    stopper = _listen(run, trainer, parts, loader, lock, flag, world, attempt, progress)
    try:
        finished = trainer.fit() or stopper.finished_early
    finally:
        loader.close()
    return _finish(run, trainer, finished, flag, world)


def _trainer(
    config: RunConfig, parts: Parts, device: torch.device, world: World, fresh: bool = True
) -> tuple[Trainer, Loader, dict[str, Any]]:
    """A trainer at step 0, its loader, and which kernels it got. A run that has a checkpoint is not `fresh`: it
    needs nothing of what it started from."""
    model = build_model(config.model, parts.objective.vocab_size, config.factor_seed("init"))
    if fresh:
        make("start", config.start).load(model)
    model = model.to(device)
    freeze(model, config.train.parameters)
    loader = parts.loader(world, keyed=uses_dropout(model))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = make("optimizer", config.optimizer).build(named, device)
    program = EagerProgram(
        TrainStep(model, parts.objective),
        optimizer,
        device=device,
        world=world,
        precision=config.train.precision,
        clip_norm=config.train.clip_norm,
        non_finite=config.train.non_finite,
    )
    schedule = make("schedule", config.schedule)
    trainer = Trainer(program, loader.batches, schedule.scale, config.train, [])
    return trainer, loader, {"fused_optimizer": bool(optimizer.defaults.get("fused"))}


def _plan(run: Any, device: torch.device, world: World, kernels: dict[str, Any]) -> None:
    """Record how the run is executed; a change since the last attempt is logged, not hidden."""
    if not world.main:
        return
    config: RunConfig = run.config
    plan = {
        "program": config.plan.program,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": config.train.precision,
        "threads": config.plan.threads,
        "world_size": world.size,
        "micro_batch_size": config.train.micro_batch_size or -(-config.train.global_batch_size // world.size),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "kernels": kernels,
    }
    path = run.path / PLAN
    if path.exists() and (before := read_json(path)) != plan:
        changed = {k: [before.get(k), plan[k]] for k in plan if before.get(k) != plan[k]}
        run.files.event("plan changed", changed=changed, promise="equal within rounding from here on")
    write_json(path, plan)


def _listen(
    run: Any,
    trainer: Trainer,
    parts: Parts,
    loader: Loader,
    lock: Lock,
    flag: StopFlag,
    world: World,
    attempt: int,
    progress: Callable[[int], None],
) -> Stopper:
    """Attach the listeners, in the order in which they act at a boundary.

    Evaluations are built now: what they lack is told before training, not after it.
    """
    config: RunConfig = run.config
    data = parts.evaluation_data() if world.main and config.evaluations else None
    built = {evaluation_name(e): make("evaluation", e, data) for e in config.evaluations if world.main}

    def due(step: int, last: bool) -> list[str]:
        return [evaluation_name(e) for e in config.evaluations if last or e.due(step, config.train.max_steps)]

    def evaluate_now(name: str, step: int, last: bool) -> None:
        evaluation = run.evaluation(name)
        asked = evaluation_identity(evaluation)
        wants_items = evaluation.items and last
        table = run.files.evaluation_file(name, step).with_suffix(".parquet")
        if run.files.evaluated(name, step, asked) and (table.exists() or not wants_items):
            return
        program = trainer.program
        scorer = Scorer(
            program.step.model,
            parts.objective,
            parts.direction,
            parts.tokenizer,
            program.device,
            config.train.precision,
        )
        try:
            result = built[name].run(scorer, run.key(name, step))
        except Exception:
            if world.size == 1 and trainer.step:  # the others would wait for ever
                saver.save(trainer)  # a broken evaluation must not cost the steps since the last checkpoint
            raise
        lock.check()
        run.files.write_evaluation(name, step, result, asked, items=wants_items)

    saver = Saver(run.files, lock, world, config.checkpoint)
    history = lambda step: series(run.files, config.stop_when.metric, step) if config.stop_when else []
    recorder = Recorder(run.files, lock, world, attempt, loader.epoch, progress)
    stopper = Stopper(flag, world, config.stop_when, history)
    trainer.listeners += [
        recorder,
        Evaluator(due, evaluate_now, world, recorder),
        saver,
        stopper,
    ]
    return stopper


def _finish(run: Any, trainer: Trainer, finished: bool, flag: StopFlag, world: World) -> str:
    """Save where training stopped and say so."""
    if finished:  # by `stop_when`: what is due after the last step is due here
        next(x for x in trainer.listeners if isinstance(x, Recorder)).flush(trainer)
        next(x for x in trainer.listeners if isinstance(x, Evaluator)).evaluate(trainer, last=True)
    saver = next(x for x in trainer.listeners if isinstance(x, Saver))
    saver.save(trainer)
    state = DONE if finished else PREEMPTED
    if world.main:
        message = "" if finished else flag.reason or "another process asked to stop"
        if finished and trainer.step < trainer.config.max_steps:
            message = f"stop_when ended training at step {trainer.step}"
        run.files.event(state, step=trainer.step, message=message)
        run.files.set_status(state=state, step=trainer.step, message=message)
    world.barrier()
    return state
