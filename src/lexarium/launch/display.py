"""What a person sees while something runs: steps, rate, time left.

`Meter` shows one long piece of work, `StudyDisplay` many runs at once (it is the `Display` of the local
launcher). On a terminal both draw bars; anywhere else they print a plain line after `FIRST` seconds and
then every `EVERY` seconds, so that a log file stays short. Both write to one stream, standard error by
default, and leave standard output to results.

Time left is work to do divided by the rate since the start; work found done at the start counts as done
but not towards the rate.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from lexarium.launch.local import Job

FIRST, EVERY = 2.0, 10.0
REFRESH = 0.1


def duration(seconds: float) -> str:
    """`40 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def rate_text(rate: float) -> str:
    """A rate with three figures."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def is_terminal(stream: TextIO) -> bool:
    """Whether bars can be drawn."""
    return hasattr(stream, "isatty") and stream.isatty()


class Pace:
    """Amounts of work and the clock: the arithmetic of both displays.

    With `resumes` the first report of a name tells where it starts from (a resumed run), which is not
    progress; the clock then starts with the first report.
    """

    def __init__(
        self,
        totals: Mapping[str, float],
        initial: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        resumes: bool = False,
    ) -> None:
        self.totals = dict(totals)
        self.done: dict[str, float] = {name: (initial or {}).get(name, 0) for name in totals}
        self._found = dict(self.done)
        self._waiting = set(totals) if resumes else set()
        self._resumes = resumes
        self._clock, self._first, self._last = clock, clock(), clock()

    def move(self, name: str, done: float) -> None:
        """`name` has come so far."""
        self._last = self._clock()
        if self._resumes and len(self._waiting) == len(self.totals):
            self._first = self._last
        if name in self._waiting:
            self._waiting.remove(name)
            self._found[name] = done
        self.done[name] = done

    @property
    def total(self) -> float:
        """All work."""
        return sum(self.totals.values())

    @property
    def sum(self) -> float:
        """Work done."""
        return sum(self.done.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._first

    @property
    def rate(self) -> float:
        """Work per second since the start, of what was not found done."""
        worked = self.sum - sum(self._found.values())
        seconds = self._last - self._first
        return worked / seconds if seconds > 0 and worked > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go, or None while nothing is known."""
        return (self.total - self.sum) / self.rate if self.rate and self.total else None

    def text(self, unit: str) -> str:
        """`1,200/2,000 steps, 41.2 steps/s, 20 s left`, as far as it is known."""
        amount = f"{self.sum:,}/{self.total:,} {unit}" if self.total else f"{self.sum:,} {unit}"
        parts = [amount]
        if self.rate:
            parts.append(f"{rate_text(self.rate)} {unit}/s")
        if self.left is not None and self.total > self.sum:
            parts.append(f"{duration(self.left)} left")
        return ", ".join(parts)


class _Lines:
    """Plain lines, sparse in time."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._next = clock() + FIRST

    def due(self) -> bool:
        """True when the next line may be printed; it then counts as printed."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + EVERY
        return True

    def print(self, text: str) -> None:
        """One line, at once."""
        print(text, file=self._stream, flush=True)


class Meter:
    """Progress of one long piece of work, as a context manager.

    with Meter("training", total=2000, unit="steps") as meter:
        meter.move(40, "loss 3.21")
    """

    def __init__(
        self,
        what: str,
        total: int = 0,
        unit: str = "steps",
        initial: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total` 0 = not known. `quiet` shows nothing."""
        self.what, self.unit, self.quiet = what, unit, quiet
        self._stream = stream or sys.stderr
        self.pace = Pace({"": total}, {"": initial}, clock)
        self._lines = _Lines(self._stream, clock)
        self._clock, self._drawn = clock, float("-inf")
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Meter:
        if not self.quiet and is_terminal(self._stream):
            self._bar = _bars(self._stream, 28)
            self._bar.start()
            total = self.pace.total or None
            self._task = self._bar.add_task(self.what, total=total, completed=self.pace.sum, text="")
        return self

    def start_from(self, done: float, total: float | None = None) -> None:
        """Work turns out to be done already, and to be so much in all (empty = what was said before)."""
        self.pace = Pace({"": total or self.pace.total}, {"": done}, self._clock)
        if self._bar is not None:
            self._bar.update(self._task, total=self.pace.total or None)

    def restart(self, unit: str, total: float) -> None:
        """Another piece of work begins, counted in another unit."""
        self.unit, self.pace = unit, Pace({"": total}, {"": 0}, self._clock)
        if self._bar is not None:
            self._bar.update(self._task, total=total or None, completed=0)

    def move(self, done: float, note: str = "") -> None:
        """So much is done; `note` stands behind the numbers."""
        self.pace.move("", done)
        if self.quiet:
            return
        if self._bar is None:
            if self._lines.due():
                self._lines.print(f"{self.what}: {self._text(note)}")
        elif self._clock() - self._drawn > REFRESH or done == self.pace.total:
            self._drawn = self._clock()
            self._bar.update(self._task, completed=done, text=self._text(note), description=self.what)

    def _text(self, note: str) -> str:
        return ", ".join(part for part in (self.pace.text(self.unit), note) if part)

    def say(self, message: str) -> None:
        """A line beside the progress."""
        if self.quiet:
            return
        if self._bar is None:
            self._lines.print(message)
        else:
            self._bar.console.print(message, markup=False, highlight=False)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bars(stream: TextIO, width: int) -> Any:
    """rich's bars with our text behind them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=width),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(file=stream),
        transient=True,
    )


# --- many runs --------------------------------------------------------------------------------------


class StudyDisplay(Protocol):
    """A launcher's display, as a context manager."""

    def __enter__(self) -> StudyDisplay: ...
    def __exit__(self, *_: object) -> None: ...
    def started(self, job: Job) -> None: ...
    def moved(self, job: Job, step: int) -> None: ...
    def ended(self, job: Job, state: str, message: str) -> None: ...
    def say(self, message: str) -> None: ...


def study_display(
    jobs: Sequence[Job], steps: Mapping[str, int] | None = None, stream: TextIO | None = None
) -> StudyDisplay:
    """Bars on a terminal, plain lines elsewhere. `steps`: what runs (by directory name) have done already."""
    stream = stream or sys.stderr
    return BarDisplay(jobs, steps, stream) if is_terminal(stream) else LineDisplay(jobs, steps, stream)


class _Runs:
    """Which of the jobs run, and how far all have come."""

    def __init__(
        self, jobs: Sequence[Job], steps: Mapping[str, int] | None, clock: Callable[[], float]
    ) -> None:
        self.pace = Pace({j.path.name: j.max_steps for j in jobs}, steps, clock, resumes=True)
        self.n, self.running, self.ended = len(jobs), dict[str, float](), dict[str, str]()
        self._clock = clock

    def start(self, job: Job) -> None:
        self.running[job.path.name] = self._clock()

    def end(self, job: Job, state: str) -> float:
        """Seconds the job took in this session."""
        name = job.path.name
        self.ended[name] = state
        if state == "done":
            self.pace.move(name, job.max_steps)
        else:  # a failed run leaves the sum of what is still to do
            self.pace.totals[name] = self.pace.done[name]
        return self._clock() - self.running.pop(name, self._clock())

    def text(self, running: bool = True) -> str:
        """`12/30 runs done, 2 running, 31 %, 41.2 steps/s, 20 min 10 s left`."""
        finished = sum(state == "done" for state in self.ended.values())
        parts = [f"{finished}/{self.n} runs done"]
        if running:
            parts.append(f"{len(self.running)} running")
        other = len(self.ended) - finished
        if other:
            parts.append(f"{other} not finished")
        if self.pace.total:
            parts.append(f"{100 * self.pace.sum / self.pace.total:.0f} %")
        if self.pace.rate:
            parts.append(f"{rate_text(self.pace.rate)} steps/s")
        if self.pace.left is not None and self.pace.total > self.pace.sum:
            parts.append(f"{duration(self.pace.left)} left")
        return ", ".join(parts)


def _ended_line(job: Job, state: str, seconds: float, message: str) -> str:
    first = message.splitlines()[0] if message else ""
    return f"{state:9} {job.name} ({duration(seconds)})" + (f": {first}" if first else "")


class LineDisplay:
    """Plain lines: one per run that ends, and a summary every few seconds."""

    def __init__(
        self,
        jobs: Sequence[Job],
        steps: Mapping[str, int] | None,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._lines = _Runs(jobs, steps, clock), _Lines(stream, clock)

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, job: Job) -> None:
        """A worker has taken a run."""
        self._runs.start(job)

    def moved(self, job: Job, step: int) -> None:
        """A run has come to a step."""
        self._runs.pace.move(job.path.name, step)
        if self._lines.due():
            self._lines.print(self._runs.text())

    def ended(self, job: Job, state: str, message: str) -> None:
        """A run is finished, stopped or failed."""
        seconds = self._runs.end(job, state)
        self._lines.print(_ended_line(job, state, seconds, message))

    def say(self, message: str) -> None:
        """Something a run wants to be known."""
        self._lines.print(message)


class BarDisplay:
    """One bar for everything and one for every run in work."""

    def __init__(self, jobs: Sequence[Job], steps: Mapping[str, int] | None, stream: TextIO) -> None:
        from rich.console import Group
        from rich.live import Live

        self._runs = _Runs(jobs, steps, time.monotonic)
        self._whole, self._each = _bars(stream, 16), _bars(stream, 28)
        self._live = Live(Group(self._whole, self._each), console=self._whole.console, transient=True)
        self._tasks: dict[str, Any] = {}
        self._drawn = float("-inf")
        self._all = self._whole.add_task("all", total=None, text="")
        self._overall()

    def __enter__(self) -> BarDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _overall(self) -> None:
        pace = self._runs.pace
        text = self._runs.text(running=False)
        self._whole.update(self._all, total=pace.total or None, completed=pace.sum, text=text)

    def _print(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def started(self, job: Job) -> None:
        """A worker has taken a run."""
        self._runs.start(job)
        done = self._runs.pace.done[job.path.name]
        self._tasks[job.path.name] = self._each.add_task(
            job.name, total=job.max_steps, completed=done, text=""
        )
        self._overall()

    def moved(self, job: Job, step: int) -> None:
        """A run has come to a step."""
        self._runs.pace.move(job.path.name, step)
        if job.path.name in self._tasks:
            text = f"{step:,}/{job.max_steps:,} steps"
            self._each.update(self._tasks[job.path.name], completed=step, text=text)
        if time.monotonic() - self._drawn > REFRESH:
            self._drawn = time.monotonic()
            self._overall()

    def ended(self, job: Job, state: str, message: str) -> None:
        """A run is finished, stopped or failed."""
        task = self._tasks.pop(job.path.name, None)
        if task is not None:
            self._each.remove_task(task)
        self._print(_ended_line(job, state, self._runs.end(job, state), message))
        self._overall()

    def say(self, message: str) -> None:
        """Something a run wants to be known."""
        self._print(message)
