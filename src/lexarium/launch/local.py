"""Runs of a study in parallel processes on this machine.

Each worker is one process that trains team after team (a team is one run, or a cohort of runs trained as one
program; see studies/cohorts.py), so the cost of starting Python and torch is paid once per worker. On CPU there
are as many workers as cores (one thread each: on shared cores two threads per process are slower); with CUDA one
per device. A worker that dies takes only its current team with it.

Safe to interrupt and to call again: a signal makes every worker save its state and stop; finished runs are
skipped the next time, unfinished ones go on from their newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from lexarium.studies.run_files import DONE, FAILED, PREEMPTED, WAITING

PROGRESS_SECONDS = 0.3


@dataclass
class Job:
    """A run to train, and the run that must be finished first."""

    path: Path
    name: str
    max_steps: int
    after: str | None = None


class Display(Protocol):
    """Shows what happens."""

    def started(self, job: Job) -> None: ...
    def moved(self, job: Job, step: int) -> None: ...
    def ended(self, job: Job, state: str, message: str) -> None: ...
    def say(self, message: str) -> None: ...


def workers_here(device: str = "auto") -> int:
    """How many runs this machine trains at once by default."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    if device != "cpu" and torch.backends.mps.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- in a worker ------------------------------------------------------------------------------------


def _worker(connection: Connection, retry: bool, cuda_device: str | None) -> None:
    """Train runs named over the connection until told to stop."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if cuda_device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cuda_device
    from lexarium.training.signals import StopFlag

    with StopFlag() as flag:
        connection.send(("ready", "", 0, ""))
        while not flag.raised and (paths := connection.recv()) is not None:
            for path, (state, message) in _train([Path(p) for p in paths], flag, retry, connection).items():
                connection.send(("ended", str(path), 0, state, message))


def _train(paths: list[Path], flag: Any, retry: bool, connection: Connection) -> dict[Path, tuple[str, str]]:
    """Train a team; run directory -> state and message."""
    from lexarium.studies.cohorts import told, train_together
    from lexarium.studies.run import Run

    last = dict.fromkeys(paths, 0.0)

    def progress(path: Path, step: int) -> None:
        if time.monotonic() - last[path] > PROGRESS_SECONDS:
            last[path] = time.monotonic()
            connection.send(("moved", str(path), step, ""))

    say = lambda message: connection.send(("say", "", 0, message))
    runs, states = [], dict[Path, tuple[str, str]]()
    for path in paths:
        try:
            runs.append(Run.open(path, trust_plugins=True))  # this machine's user has just asked for these
        except Exception as error:
            states[path] = (FAILED, told(error, path))
    return states | (train_together(runs, flag, say, progress, retry) if runs else {})


# --- in the parent ----------------------------------------------------------------------------------


class _Worker:
    """A process and what it is doing."""

    def __init__(self, context: Any, retry: bool, cuda_device: str | None) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs, retry, cuda_device), daemon=False)
        self.process.start()
        theirs.close()
        self.jobs: dict[str, Job] = {}
        """Runs it trains now, by directory."""
        self.ready = False


class LocalLauncher:
    """Trains jobs in worker processes and reports to a display."""

    def __init__(
        self, display: Display, jobs: int, retry: bool = False, cuda_devices: Sequence[str] = ()
    ) -> None:
        self.display, self.retry = display, retry
        self._devices = list(cuda_devices)
        self._n = jobs
        self._context = get_context("spawn")
        self._workers: list[_Worker] = []
        self.states: dict[str, str] = {}
        self.messages: dict[str, str] = {}

    def run(self, teams: Sequence[Sequence[Job]], stop: Callable[[], bool]) -> dict[str, str]:
        """Run name -> final state. `stop()` is asked often; once true, every worker saves and ends."""
        waiting, jobs = deque(list(team) for team in teams), [job for team in teams for job in team]
        names = {job.path.name for job in jobs}
        stopping = False
        try:
            while waiting or any(w.jobs for w in self._workers):
                if stop() and not stopping:
                    stopping = True
                    waiting.clear()
                    self._signal(signal.SIGTERM)
                if not stopping:
                    self._dispatch(waiting, names)
                self._listen()
                if not waiting and not any(w.jobs for w in self._workers):
                    break
        finally:
            self._end()
        return {job.path.name: self.states.get(job.path.name, WAITING) for job in jobs}

    def _dispatch(self, waiting: deque[list[Job]], names: set[str]) -> None:
        """Give every idle worker a team whose parents are done; start workers as needed."""
        for _ in range(len(waiting)):
            team = [job for job in waiting.popleft() if not self._orphaned(job, names)]
            if not team:
                continue
            if any(job.after in names and self.states.get(job.after or "") != DONE for job in team):
                waiting.append(team)
                continue
            worker = next((w for w in self._workers if w.ready and not w.jobs), None)
            if worker is None:
                starting = sum(1 for w in self._workers if not w.ready)
                busy = sum(1 for w in self._workers if w.jobs)
                if starting + busy < self._n and starting <= len(waiting):
                    device = self._devices[len(self._workers) % len(self._devices)] if self._devices else None
                    self._workers.append(_Worker(self._context, self.retry, device))
                waiting.appendleft(team)
                return
            worker.jobs = {str(job.path): job for job in team}
            worker.connection.send([str(job.path) for job in team])
            for job in team:
                self.display.started(job)

    def _orphaned(self, job: Job, names: set[str]) -> bool:
        """Whether the run a job starts from came to nothing; the job is then ended."""
        if job.after in names and self.states.get(job.after or "") in (FAILED, PREEMPTED):
            self._ended(job, FAILED, f"the run it starts from ({job.after}) did not finish")
            return True
        return False

    def _listen(self) -> None:
        """Take in what workers say; notice those that died."""
        by_connection: dict[Any, _Worker] = {w.connection: w for w in self._workers}
        for connection in wait(list(by_connection), timeout=0.2):
            worker = by_connection[connection]
            try:
                kind, path, step, *rest = worker.connection.recv()
            except (EOFError, OSError):
                self._died(worker)
                continue
            if kind == "ready":
                worker.ready = True
            elif kind == "moved" and path in worker.jobs:
                self.display.moved(worker.jobs[path], step)
            elif kind == "say":
                self.display.say(rest[0])
            elif kind == "ended" and path in worker.jobs:
                self._ended(worker.jobs.pop(path), rest[0], rest[1])

    def _ended(self, job: Job, state: str, message: str) -> None:
        self.states[job.path.name], self.messages[job.path.name] = state, message
        self.display.ended(job, state, message)

    def _died(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        code = worker.process.exitcode
        for job in worker.jobs.values():
            self._ended(
                job,
                FAILED,
                f"its process ended with status {code} (out of memory?); run the study again to go on",
            )

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process.pid and worker.process.is_alive():
                os.kill(worker.process.pid, number)

    def _end(self) -> None:
        """Let idle workers go, stop the others after they have saved, and wait for all."""
        for worker in self._workers:
            if not worker.jobs:
                try:
                    worker.connection.send(None)
                except OSError:
                    pass
            elif worker.process.pid and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)
        for worker in self._workers:
            worker.process.join(timeout=120)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()
            worker.connection.close()
