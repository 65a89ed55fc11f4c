"""A run: one resolved configuration and its directory.

    run = Run.create(config, runs_dir)     finds the directory of the same science, or makes it
    run = Run.open(path)                   the directory alone is enough
    run.train()                            from the newest good checkpoint, or from the start
    run.scorer(step), run.model(step)      a trained model
    run.evaluate(name, step)               the same bytes as in the loop

Training a finished run again does nothing but the evaluations it lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lexarium.foundation import registry, rng
from lexarium.foundation.config import Source, resolved, validate, write_yaml
from lexarium.foundation.files import (
    Damaged,
    DiskError,
    dumps,
    make_directory,
    read_json,
    remove_leftovers,
    write_atomic,
    write_json,
)
from lexarium.foundation.lock import Held, Lock, held
from lexarium.foundation.provenance import collect, patch, refuse_secrets
from lexarium.foundation.types import NonFinite, Result, UserError
from lexarium.studies.run_config import (
    SCHEMA,
    Identity,
    RunConfig,
    check,
    check_splits,
    component_configs,
    evaluation_identity,
    evaluation_name,
)
from lexarium.studies.run_files import CONFIG, DONE, FAILED, PREEMPTED, PROVENANCE, RUNNING, RunFiles, Step

Say = Callable[[str], None]
STORES = "stores"


def stores_dir(runs_dir: Path) -> Path:
    """Where the token stores of a runs directory lie."""
    return runs_dir / STORES


class Run:
    """See the module docstring."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config, self.files = path, config, RunFiles(path)

    # -- finding and making --------------------------------------------------------------------------

    @classmethod
    def create(cls, config: RunConfig, runs_dir: Path) -> Run:
        """The run of this science below `runs_dir`; its directory is made when it is new.

        What lies outside the identity (evaluations, plan, logging, checkpoints) is taken from `config`.
        """
        check(config)
        identity = Identity(config)
        path = runs_dir / identity.name
        files = RunFiles(path)
        data = resolved(config)
        refuse_secrets(data)
        check_splits(config)
        if files.exists:
            recorded = files.identity()
            if other := differences(recorded, json.loads(dumps(identity.data))):
                raise UserError(f"{path}: holds another run: {'; '.join(other)}")
            provenance = read_json(path / PROVENANCE)
            plugins = _copy_plugins(config, path, provenance.get("plugins", {}))
            if plugins != provenance.get("plugins", {}):  # an evaluation was added
                write_json(path / PROVENANCE, {**provenance, "plugins": plugins})
            if files.config() == data or held(path):  # what is in use belongs to the process that uses it
                return cls(path, config)
        else:
            write_json(
                path / PROVENANCE,
                {**collect(), "identity": identity.data, "plugins": _copy_plugins(config, path)},
            )
            if changes := patch():
                write_atomic(path / "changes.patch", changes)
        write_atomic(path / CONFIG, write_yaml({"schema": SCHEMA, "run": data}))
        return cls(path, config)

    @classmethod
    def open(cls, path: Path | str, trust_plugins: bool = False) -> Run:
        """The run in a directory. Code of plug-ins is imported only with `trust_plugins`."""
        path = Path(path)
        files = RunFiles(path)
        data = files.config()
        used = _plugins_of(data)
        if used and not trust_plugins:
            names = ", ".join(used)
            raise UserError(
                f"{path}: uses code of its own ({names}); read plugins/ in the run directory and open it with"
                " trust_plugins (--trust-plugins)"
            )
        copies = read_json(path / PROVENANCE).get("plugins", {}) if used else {}
        for name, copy in copies.items():
            data = _replace_type(data, name, f"{path / copy}:{name.rpartition(':')[2]}")
        config = validate(RunConfig, Source(data, {(): str(path / CONFIG)}))
        return cls(path, config)

    @cached_property
    def runs_dir(self) -> Path:
        """The directory this run lies in."""
        return self.path.parent

    # -- parts ---------------------------------------------------------------------------------------

    def parts(self, say: Say = lambda message: None) -> Any:
        """Store, tokenizer, objective and the other objects the config describes (see `assembly.Parts`)."""
        from lexarium.studies.assembly import Parts

        return Parts(self.config, stores_dir(self.runs_dir), self.path, say)

    def model(self, step: Step = None) -> Any:
        """The model with the weights of a checkpoint (the newest by default), on the CPU."""
        from lexarium.studies.assembly import load_model

        return load_model(self, step)[0]

    def scorer(self, step: Step = None) -> Any:
        """A scorer on the weights of a checkpoint (the newest by default). Needs no token store."""
        from lexarium.studies.assembly import load_scorer

        return load_scorer(self, step)

    # -- evaluating ----------------------------------------------------------------------------------

    def evaluation(self, name: str) -> Any:
        """The config of one of the run's evaluations, by name."""
        for config in self.config.evaluations:
            if evaluation_name(config) == name:
                return config
        known = ", ".join(evaluation_name(e) for e in self.config.evaluations) or "none"
        raise UserError(f"{self.path}: has no evaluation {name!r} (it has: {known})")

    def evaluate(
        self,
        config: Any,
        step: Step = None,
        save: bool = True,
        say: Say = lambda message: None,
    ) -> tuple[int, Result]:
        """Evaluate a checkpoint; (its step, the result). With `save` the result joins the run's others."""
        from lexarium.studies.assembly import evaluate, load_scorer, resolve_step

        step = resolve_step(self, step)
        parts = self.parts()
        scorer = load_scorer(self, step)
        result = evaluate(self.config, config, parts.evaluation_data(), scorer, step)
        if save:
            with Lock(self.path):
                self._set_aside_other_answers(say)
                self.files.write_evaluation(
                    evaluation_name(config), step, result, evaluation_identity(config)
                )
        return step, result

    # -- training ------------------------------------------------------------------------------------

    def train(
        self,
        flag: Any = None,
        say: Say = lambda message: None,
        progress: Callable[[int], None] = lambda step: None,
        retry: bool = False,
    ) -> str:
        """Train to the end or until `flag` is raised; returns `done` or `preempted`.

        A finished run only gets the evaluations it lacks. A failed run raises UserError unless `retry`.
        Any error leaves status `failed`, its trace in logs/, and the last checkpoint valid; but a mistake
        that is found before the first update (a device that is not there, an evaluation without data) leaves
        the run as it was, to be called again corrected.
        """
        from lexarium.training.parallel import World
        from lexarium.training.signals import StopFlag

        if not self.unfinished(say, retry):
            return DONE
        flag, world = flag or StopFlag(), World.from_environment()
        with self.attempt(world, say, progress) as attempt, flag:
            from lexarium.studies.session import Session

            return Session(attempt, flag, world).train()

    def unfinished(self, say: Say, retry: bool) -> bool:
        """Whether there is anything left to train or evaluate; raises UserError for a failed run unless `retry`."""
        status = self.files.status()
        if status["state"] == FAILED and not retry:
            raise UserError(
                f"{self.path}: failed before ({status['message']}); mend the cause and add --retry"
            )
        if status["state"] != DONE:
            return True
        if self._final_checkpoint():
            return bool(self._missing_evaluations() or self._other_answers())
        say(f"{self.path.name}: its last checkpoint is gone; training goes on from the one before")
        return True

    @contextlib.contextmanager
    def attempt(self, world: Any, say: Say, progress: Callable[[int], None]) -> Iterator[Attempt]:
        """Own the directory for one try at training; an error is recorded and raised again."""
        refuse_changes(self.path, self.config)
        status = self.files.status()
        with self._owned(world) as lock:
            attempt = Attempt(self, lock, world, status, say, progress)
            try:
                yield attempt.begin()
            except BaseException as error:
                attempt.fail(error)
                raise

    @contextlib.contextmanager
    def _owned(self, world: Any) -> Iterator[Lock]:
        """Ownership of the directory: rank 0 holds the lock for all."""
        lock = Lock(self.path)
        if not world.main:
            yield lock
            return
        with lock:
            remove_leftovers(self.path)
            remove_leftovers(self.path / "checkpoints")
            for folder in (self.path / "evals").glob("*"):
                remove_leftovers(folder)
            yield lock

    def _final_checkpoint(self) -> bool:
        """Whether the checkpoint of the step at which the run ended is there."""
        from lexarium.training.checkpoint import directory

        return directory(self.path, self.files.status()["step"]).is_dir()

    def _missing_evaluations(self) -> list[str]:
        last = self.files.status()["step"]
        return [
            evaluation_name(e)
            for e in self.config.evaluations
            if not self.files.evaluated(evaluation_name(e), last, evaluation_identity(e))
        ]

    def _other_answers(self) -> dict[str, list[Path]]:
        """Results of evaluations whose options or version have changed since, by evaluation."""
        found = {
            evaluation_name(e): self.files.other_answers(evaluation_name(e), evaluation_identity(e))
            for e in self.config.evaluations
        }
        return {name: files for name, files in found.items() if files}

    def _set_aside_other_answers(self, say: Say) -> None:
        """No curve may mix answers to two questions."""
        for name, files in self._other_answers().items():
            folder = self.files.set_aside(files)
            self.files.event("evaluation changed", evaluation=name, discarded=len(files), folder=folder)
            say(
                f"{self.path.name}: {len(files)} results of {name} were measured with other options; set aside in"
                f" {folder}/"
            )

    def key(self, evaluation: str, step: int) -> int:
        """The key of an evaluation's random choices."""
        return rng.key(self.config.seed, "eval", evaluation, step)


class Attempt:
    """One try at training a run: what is told about its progress, and what an error leaves behind."""

    def __init__(
        self,
        run: Run,
        lock: Lock,
        world: Any,
        status: dict[str, Any],
        say: Say,
        progress: Callable[[int], None],
    ) -> None:
        self.run, self.lock, self.say, self.number = run, lock, say, status["attempts"] + 1
        self._world, self._before, self._progress = world, status, progress
        self._first: int | None = None
        self._last: int | None = None
        self._updated = False

    def begin(self) -> Attempt:
        """Say that the run is being trained."""
        if self._world.main:
            self.run._set_aside_other_answers(self.say)
            self.run.files.set_status(
                state=RUNNING,
                attempts=self.number,
                max_steps=self.run.config.train.max_steps or self._before["max_steps"],
                message="",
            )
        return self

    def note(self, step: int) -> None:
        """The run has come to a step."""
        if self._first is None:
            self._first = step
        self._last = step
        self._updated = self._updated or step > self._first
        self._progress(step)

    def reached(self, step: int) -> None:
        """The last step whose results are known, where `note` was told of later ones."""
        self._last = step

    def withdraw(self) -> None:
        """Say that the run is as it was before this attempt."""
        before = {k: v for k, v in self._before.items() if k != "heartbeat"}
        self.run.files.set_status(**before)

    def fail(self, error: BaseException) -> None:
        """Record an error, unless it is a mistake found before anything was done: that leaves the run as it was."""
        if not self._world.main:
            return
        files = self.run.files
        if not self._updated and is_mistake(error):
            self.withdraw()
            return
        if isinstance(error, Held):  # the directory is another process's now
            return
        with contextlib.suppress(Exception):  # the disk may be full; the cause is raised to the caller
            if isinstance(error, KeyboardInterrupt):
                files.set_status(state=PREEMPTED, message="interrupted")
                return
            message = f"{type(error).__name__}: {error}"[:500]
            files.set_status(
                state=FAILED, message=message, **({} if self._last is None else {"step": self._last})
            )
            logs = self.run.path / "logs"
            make_directory(logs)
            number = len(list(logs.glob("failure-*.txt"))) + 1
            write_atomic(logs / f"failure-{number}.txt", "".join(traceback.format_exception(error)))
            files.event("failed", error=message)


def is_mistake(error: BaseException) -> bool:
    """Whether an error is a mistake in what was asked, not something that happened to the run."""
    return isinstance(error, UserError) and not isinstance(error, NonFinite | DiskError | Damaged | Held)


def refuse_changes(path: Path, config: RunConfig, only: Sequence[str] = ()) -> None:
    """Raise Damaged, field by field, when a run's science or data are not those it was created with.

    `only` names parts of the identity, such as `corpus`. What was recorded with plug-ins is compared with
    their copies in the run directory.
    """
    recorded = RunFiles(path).identity()
    for name, copy in read_json(path / PROVENANCE).get("plugins", {}).items():
        copied = f"{path / copy}:{name.rpartition(':')[2]}"
        if any(part.type == copied for _, part in component_configs(config)):
            recorded = _replace_type(recorded, name, copied)
    identity = Identity(config)
    now = {key: identity.part(key) for key in only} if only else identity.data
    found = differences({k: v for k, v in recorded.items() if not only or k in only}, json.loads(dumps(now)))
    if found:
        raise Damaged(
            f"{path}: not what it was when the run began: {'; '.join(found)}. Restore that, or start a new run"
        )


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Field-by-field differences of two plain structures, in words."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in sorted({*a, *b}, key=str):
            if key not in a or key not in b:
                found.append(f"{place}{key}: {a.get(key, '(default)')!r} -> {b.get(key, '(default)')!r}")
            else:
                found += differences(a[key], b[key], f"{place}{key}.")
        return found
    return [] if a == b else [f"{place.rstrip('.')}: {a!r} -> {b!r}"]


def _copy_plugins(config: RunConfig, path: Path, known: dict[str, str] | None = None) -> dict[str, str]:
    """Copy the source of every component from outside the package; type -> file in the run directory.

    Raises UserError when a source is no longer the one that `known` names: the run was made with another.
    """
    found = dict(known or {})
    for kind, part in component_configs(config):
        if not registry.is_plugin(part.type):
            continue
        source = registry.source_file(registry.find(kind, part.type))
        if source is None:
            raise UserError(
                f"{kind} {part.type!r}: its source file cannot be found, so the run could not be reproduced"
            )
        content = source.read_bytes()
        copy = f"plugins/{source.stem}_{hashlib.sha256(content).hexdigest()[:8]}.py"
        if kind == "evaluation":  # outside the run's identity: the newest code is kept
            found[part.type] = copy
        if found.setdefault(part.type, copy) != copy:
            raise UserError(
                f"{path}: {source} has changed since the run began (see {found[part.type]} there); restore it, or"
                " raise the `version` of its class to start a new run"
            )
        if not (path / copy).exists():
            write_atomic(path / copy, content)
    return found


def _plugins_of(value: Any) -> list[str]:
    """Every `type` in a configuration that names code outside the package."""
    if isinstance(value, dict):
        own = value.get("type")
        here = [own] if isinstance(own, str) and registry.is_plugin(own) else []
        return sorted({*here, *(name for v in value.values() for name in _plugins_of(v))})
    return sorted({name for v in value for name in _plugins_of(v)}) if isinstance(value, list) else []


def _replace_type(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {k: new if k == "type" and v == old else _replace_type(v, old, new) for k, v in value.items()}
    return [_replace_type(v, old, new) for v in value] if isinstance(value, list) else value
