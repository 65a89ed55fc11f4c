"""What happens at step boundaries: log, evaluate, save, stop. In this order, so that a checkpoint never
lacks a record or an evaluation of its own step.

None of it changes training: each listener only reads the trainer. The one exception is `Stopper` when the
run has `stop_when`, which is part of its identity.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable

from lexarium.foundation.lock import Lock
from lexarium.foundation.types import UserError
from lexarium.studies.run_config import StopConfig
from lexarium.studies.run_files import METRICS, TIMING, RunFiles, best_step
from lexarium.training import checkpoint
from lexarium.training.checkpoint import CheckpointConfig
from lexarium.training.parallel import World
from lexarium.training.signals import StopFlag
from lexarium.training.trainer import Trainer, Window

STATUS_SECONDS = 2.0


class Recorder:
    """Appends means to metrics.jsonl, clocks to timing.jsonl, and keeps status.json fresh."""

    def __init__(
        self,
        files: RunFiles,
        lock: Lock,
        world: World,
        attempt: int,
        epoch: Callable[[int], float],
        say: Callable[[int], None],
        peak: Callable[[], tuple[float, float] | None] = lambda: None,
    ) -> None:
        """`peak()`: operations per token, and what the device does in a second; None when that is not known."""
        self.files, self.lock, self.world, self.attempt = files, lock, world, attempt
        self._epoch, self._say, self._peak = epoch, say, peak
        self._time = self._status_time = time.monotonic()
        self._evaluating = 0.0
        self.companions: list[Recorder] = [self]
        """Recorders whose runs stand still when this run is evaluated: members of one cohort."""

    def boundary(self, trainer: Trainer) -> bool:
        """Log when due; never asks to stop."""
        step, config = trainer.step, trainer.config
        if step % config.log_every == 0 or step == trainer.max_steps:
            self.flush(trainer)
        elif trainer.odd:
            self._report(trainer)
        self._say(step)
        now = time.monotonic()
        if self.world.main and now - self._status_time > STATUS_SECONDS:
            self.lock.check()
            self.files.set_status(step=step)
            self._status_time = now
        return False

    def flush(self, trainer: Trainer) -> None:
        """Write the means since the last log line, if any step was made since."""
        trainer.settle()
        self._report(trainer)
        if trainer.window.steps:
            if self.world.main:
                self._log(trainer)
            trainer.window = Window()

    def _report(self, trainer: Trainer) -> None:
        """One event for every step that was not finite."""
        for step in trainer.odd if self.world.main else ():
            self.files.event("step was not finite", step=step, policy=trainer.config.non_finite)
        trainer.odd.clear()

    def _log(self, trainer: Trainer) -> None:
        self.lock.check()
        step, window, last = trainer.step, trainer.window, trainer.step - 1
        lr = trainer.program.optimizer.param_groups[0]["base_lr"] * trainer._lr_scale(last, trainer.max_steps)
        means = window.means()
        self.files.record(
            METRICS,
            step=step,
            epoch=self._epoch(step),
            tokens=trainer.tokens_seen,
            lr=lr,
            skipped=trainer.skipped,
            non_finite=trainer.non_finite,
            **means,
        )
        now = time.monotonic()
        seconds = max(now - self._time, 1e-9)
        peak = self._peak()
        used = {} if peak is None else {"mfu": round(window.tokens / seconds * peak[0] / peak[1], 4)}
        self.files.record(
            TIMING,
            step=step,
            attempt=self.attempt,
            seconds=round(seconds, 4),
            steps_per_second=round(window.steps / seconds, 3),
            tokens_per_second=round(window.tokens / seconds, 1),
            **used,
        )
        self._time = now

    def pause(self) -> None:
        """Leave the time from now on out of the next log lines' rates (an evaluation runs)."""
        self._evaluating = time.monotonic()

    def go_on(self) -> None:
        """End of `pause`."""
        for recorder in self.companions:
            recorder._time += time.monotonic() - self._evaluating


class Evaluator:
    """Runs the evaluations that are due and writes their results."""

    def __init__(
        self,
        due: Callable[[int, bool], list[str]],
        run: Callable[[str, int, bool], None],
        world: World,
        recorder: Recorder,
    ) -> None:
        """`due(step, last)` depends on its arguments alone, so that every rank waits for the same evaluations;
        `run(name, step, last)` writes a result unless it is there."""
        self._due, self._run, self.world, self._recorder = due, run, world, recorder

    def boundary(self, trainer: Trainer) -> bool:
        """Evaluate what is due at this step; never asks to stop."""
        self.evaluate(trainer, trainer.step == trainer.max_steps)
        return False

    def evaluate(self, trainer: Trainer, last: bool) -> None:
        """Evaluate at this step; after the `last` step every evaluation is due."""
        names = self._due(trainer.step, last)
        if not names:
            return
        trainer.settle()
        if self.world.main:
            self._recorder.pause()
            try:
                for name in names:
                    self._run(name, trainer.step, last)
            finally:
                self._recorder.go_on()
        self.world.barrier()


class Saver:
    """Writes checkpoints when due, and when training stops."""

    def __init__(self, files: RunFiles, lock: Lock, world: World, config: CheckpointConfig) -> None:
        self.files, self.lock, self.world, self.config = files, lock, world, config
        self._time = time.monotonic()

    def boundary(self, trainer: Trainer) -> bool:
        """Save when due; never asks to stop."""
        old = self.config.minutes > 0 and time.monotonic() - self._time > 60 * self.config.minutes
        step, rolling, best = trainer.step, self.config.rolling, self.config.best
        due = bool(rolling and step and step % rolling == 0) or self.config.permanent(step, trainer.max_steps)
        # results are read only at steps that have one
        if best and series(self.files, best.metric, step, "checkpoint.best"):
            due = self._best() == step or due
        if self.world.any(old, trainer.program.device) or due:
            self.save(trainer)
        return False

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint of the current step unless a good one is there."""
        path = checkpoint.directory(self.files.path, trainer.step)
        if self.world.main and not path.exists():
            program = trainer.program
            checkpoint.write(path, program.step.model, program.optimizer, trainer.state(), self.lock.check)
            checkpoint.prune(self.files.path, self.config, trainer.max_steps, self._best())
        self._time = time.monotonic()
        self.world.barrier()

    def _best(self) -> int | None:
        """The step at which the metric of `checkpoint.best` was best so far: on every rank, for `Evaluator` waits."""
        best = self.config.best
        return best_step(self.files, best.metric, best.better) if best else None


class Stopper:
    """Asks to stop when a signal came on any rank, or when `stop_when` says so."""

    def __init__(
        self,
        flag: StopFlag,
        world: World,
        stop: StopConfig | None,
        history: Callable[[int], list[float]],
    ) -> None:
        """`history(step)`: the metric up to a step at which it was measured, else nothing."""
        self.flag, self.world, self.stop, self._history = flag, world, stop, history
        self.finished_early = False

    def boundary(self, trainer: Trainer) -> bool:
        """True to end training at this step."""
        if self.stop is not None:
            self.finished_early = satisfied(self.stop, self._history(trainer.step))
        asked = self.flag.raised
        return self.world.any(asked or self.finished_early, trainer.program.device)


def satisfied(stop: StopConfig, values: list[float]) -> bool:
    """Whether a series of evaluation results ends training. A pure function of the series."""
    if not values or math.isnan(values[-1]):
        return False
    if (stop.above is not None and values[-1] > stop.above) or (
        stop.below is not None and values[-1] < stop.below
    ):
        return True
    if not stop.patience or len(values) <= stop.patience:
        return False
    sign = 1 if stop.better == "lower" else -1
    best_before = min(sign * v for v in values[: -stop.patience])
    return all(sign * v >= best_before for v in values[-stop.patience :])


def series(files: RunFiles, metric: str, step: int, key: str = "stop_when") -> list[float]:
    """Values of one metric up to a step, in order; empty when it was not measured at that step.

    Raises UserError when the evaluation gives no such metric.
    """
    evaluation, _, name = metric.partition(".")
    if not files.evaluation_file(evaluation, step).exists():
        return []
    found: list[float] = []
    for this, at, metrics in files.evaluations():
        if this == evaluation and at <= step:
            if name not in metrics:
                near = ", ".join(difflib.get_close_matches(name, metrics, n=5) or list(metrics)[:20])
                raise UserError(f"{key}.metric: evaluation {evaluation!r} gives no {name!r}; it gives {near}")
            found.append(float(metrics[name]))
    return found
