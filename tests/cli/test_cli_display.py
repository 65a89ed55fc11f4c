"""Progress: arithmetic of time left, sparse lines in a log, bars on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lexarium.launch.display import BarDisplay, LineDisplay, Meter, Pace, duration, study_display
from lexarium.launch.local import Job


class Clock:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_is_work_to_do_by_rate() -> None:
    clock = Clock()
    pace = Pace({"a": 100, "b": 100}, clock=clock)
    assert pace.left is None and pace.rate == 0
    clock.now += 10
    pace.move("a", 50)
    assert pace.rate == 5.0 and pace.left == 150 / 5


def test_work_found_done_is_not_progress() -> None:
    clock = Clock()
    pace = Pace({"a": 100, "b": 100}, {"a": 80}, clock, resumes=True)
    clock.now += 1000  # starting up
    pace.move("a", 80)
    clock.now += 2
    pace.move("a", 90)
    assert pace.rate == 5.0 and pace.left == (10 + 100) / 5


def test_meter_prints_few_lines() -> None:
    clock, stream = Clock(), io.StringIO()
    with Meter("training", 100, stream=stream, clock=clock) as meter:
        for step in range(101):
            meter.move(step, "loss 1.0")
            clock.now += 0.25
    first, *rest = stream.getvalue().splitlines()
    assert first == "training: 8/100 steps, 4.00 steps/s, 23 s left, loss 1.0"
    assert len(rest) == 2  # 25 seconds: after 2, 12 and 22


def test_quiet_meter_is_silent() -> None:
    clock, stream = Clock(), io.StringIO()
    with Meter("training", 10, stream=stream, quiet=True, clock=clock) as meter:
        clock.now += 100
        meter.move(3)
        meter.say("x")
    assert stream.getvalue() == ""


def jobs(n: int = 3) -> list[Job]:
    return [Job(Path(f"runs/r{i}"), f"arm={i}", 100) for i in range(n)]


def test_lines_of_a_study() -> None:
    clock, stream = Clock(), io.StringIO()
    a, b, c = jobs()
    with LineDisplay([a, b, c], {"r0": 50}, stream, clock) as display:
        display.started(a)
        display.started(b)
        display.moved(a, 50)
        clock.now += 5
        display.moved(a, 75)
        display.ended(a, "done", "")
        clock.now += 20
        display.ended(b, "failed", "no good\nand a trace")
        display.started(c)
        display.moved(c, 10)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "0/3 runs done, 2 running, 25 %, 5.00 steps/s, 45 s left"
    assert lines[1:3] == ["done      arm=0 (5 s)", "failed    arm=1 (25 s): no good"]
    assert lines[3].startswith("1/3 runs done, 1 running, 1 not finished, 55 %")


def test_bars_on_a_terminal_name_every_run() -> None:
    stream = Terminal()
    display = study_display(jobs(), {}, stream)
    assert isinstance(display, BarDisplay)
    with display:
        for job in jobs():
            display.started(job)
            display.moved(job, 40)
            display.say("a remark [not markup]")
            display.ended(job, "done", "")
    text = stream.getvalue()
    assert "a remark [not markup]" in text and "arm=2" in text and "3/3 runs done" in text


def test_meter_on_a_terminal() -> None:
    stream = Terminal()
    with Meter("training", 4, stream=stream) as meter:
        meter.say("hello")
        meter.move(4, "loss 2.5")
    assert "hello" in stream.getvalue() and "4/4 steps" in stream.getvalue()
