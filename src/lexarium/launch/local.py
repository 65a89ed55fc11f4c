"""Runs of a study in parallel processes on this machine.

Each worker is one process that trains run after run, so the cost of starting Python and torch is paid
once per worker. On CPU there are as many workers as cores (one thread each: on shared cores two threads
per process are slower); with CUDA one per device. A worker that dies takes only its current run with it.

Safe to interrupt and to call again: a signal makes every worker save its state and stop; finished runs are
skipped the next time, unfinished ones go on from their newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from lexarium.foundation.types import UserError
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
        while not flag.raised and (path := connection.recv()) is not None:
            connection.send(("ended", path, 0, *_train(Path(path), flag, retry, connection)))


def _train(path: Path, flag: Any, retry: bool, connection: Connection) -> tuple[str, str]:
    from lexarium.studies.run import Run

    last = 0.0

    def progress(step: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            connection.send(("moved", str(path), step, ""))

    try:
        run = Run.open(path, trust_plugins=True)  # this machine's user has just asked for these runs
        return run.train(flag, lambda m: connection.send(("say", str(path), 0, m)), progress, retry), ""
    except UserError as error:
        return FAILED, str(error)
    except BaseException as error:
        return FAILED, f"{type(error).__name__}: {error} ({path / 'logs'})\n{traceback.format_exc(limit=-2)}"


# --- in the parent ----------------------------------------------------------------------------------


class _Worker:
    """A process and what it is doing."""

    def __init__(self, context: Any, retry: bool, cuda_device: str | None) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs, retry, cuda_device), daemon=False)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
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

    def run(self, jobs: Sequence[Job], stop: Callable[[], bool]) -> dict[str, str]:
        """Run name -> final state. `stop()` is asked often; once true, every worker saves and ends."""
        waiting = deque(jobs)
        names = {job.path.name for job in jobs}
        stopping = False
        try:
            while waiting or any(w.job for w in self._workers):
                if stop() and not stopping:
                    stopping = True
                    waiting.clear()
                    self._signal(signal.SIGTERM)
                if not stopping:
                    self._dispatch(waiting, names)
                self._listen()
                if not waiting and not any(w.job for w in self._workers):
                    break
        finally:
            self._end()
        return {job.path.name: self.states.get(job.path.name, WAITING) for job in jobs}

    def _dispatch(self, waiting: deque[Job], names: set[str]) -> None:
        """Give every idle worker a job whose parent is done; start workers as needed."""
        for _ in range(len(waiting)):
            job = waiting.popleft()
            parent = self.states.get(job.after or "")
            if job.after in names and parent in (FAILED, PREEMPTED):
                self._ended(job, FAILED, f"the run it starts from ({job.after}) did not finish")
                continue
            if job.after in names and parent != DONE:
                waiting.append(job)
                continue
            worker = next((w for w in self._workers if w.ready and w.job is None), None)
            if worker is None:
                starting = sum(1 for w in self._workers if not w.ready)
                busy = sum(1 for w in self._workers if w.job)
                if starting + busy < self._n and starting <= len(waiting):
                    device = self._devices[len(self._workers) % len(self._devices)] if self._devices else None
                    self._workers.append(_Worker(self._context, self.retry, device))
                waiting.appendleft(job)
                return
            worker.job = job
            worker.connection.send(str(job.path))
            self.display.started(job)

    def _listen(self) -> None:
        """Take in what workers say; notice those that died."""
        by_connection: dict[Any, _Worker] = {w.connection: w for w in self._workers}
        for connection in wait(list(by_connection), timeout=0.2):
            worker = by_connection[connection]
            try:
                kind, _, step, *rest = worker.connection.recv()
            except (EOFError, OSError):
                self._died(worker)
                continue
            if kind == "ready":
                worker.ready = True
            elif kind == "moved" and worker.job:
                self.display.moved(worker.job, step)
            elif kind == "say":
                self.display.say(rest[0])
            elif kind == "ended" and worker.job:
                job, worker.job = worker.job, None
                self._ended(job, rest[0], rest[1])

    def _ended(self, job: Job, state: str, message: str) -> None:
        self.states[job.path.name], self.messages[job.path.name] = state, message
        self.display.ended(job, state, message)

    def _died(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        if worker.job:
            code = worker.process.exitcode
            self._ended(
                worker.job,
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
            if worker.job is None:
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
