"""What every verb shares on the way out: text for people, JSON for programs, plain tables.

With `--json` standard output holds one JSON value and nothing else; text for people goes to standard
error. Imports neither torch nor pydantic nor rich.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

DONE, FAILED, USER_ERROR, REQUEUE, INTERRUPTED = 0, 1, 2, 124, 130


class Talk:
    """Where a verb speaks."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        """`quiet`: another process of the same job does the talking."""
        self.as_json, self.quiet = as_json, quiet

    @property
    def stream(self) -> TextIO:
        """Text for people."""
        return sys.stderr if self.as_json else sys.stdout

    def say(self, text: str = "") -> None:
        """A line for people: part of the result."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """A line about what is going on, never part of the result."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def data(self, value: Any) -> None:
        """The JSON value, when a program asked for it."""
        if self.as_json and not self.quiet:
            print(json.dumps(plain(value), ensure_ascii=False, indent=1), flush=True)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> None:
        """Aligned columns; columns of numbers stand to the right."""
        for line in table_lines(header, rows):
            self.say(indent + line)


CONTROLS = {i: f"\\x{i:02x}" for i in (*range(0x20), *range(0x7F, 0xA0)) if chr(i) not in "\n\t"}
"""C0 without line end and tab, DEL and C1, written out."""


def harmless(text: str) -> str:
    """Text without characters that a terminal would obey: a model may write any."""
    return text.translate(CONTROLS)


def plain(value: Any) -> Any:
    """A value as JSON can hold it; numbers that are not finite become nan, inf, -inf as text."""
    from lexarium.foundation.files import dumps_line

    return json.loads(dumps_line(value))


def number(value: Any) -> str:
    """A number for people: thousands marked, four figures behind the point."""
    if isinstance(value, bool) or value is None:
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.3e}"
    return str(value)


def table_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table."""
    content = [list(row) for row in rows]
    right = [
        bool(content) and all(isinstance(row[i], int | float) or row[i] is None for row in content)
        for i in range(len(header))
    ]
    cells = [[number(cell) for cell in row] for row in content]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    lines = []
    for line in [list(header), *cells]:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        lines.append("  ".join(padded).rstrip())
    return lines


def rich_console(stream: TextIO) -> Any:
    """A rich console; wide when nobody's terminal sets its width, so that tables in files are not cut."""
    from rich.console import Console

    return Console(file=stream) if stream.isatty() else Console(file=stream, width=140)


@contextmanager
def early_stop() -> Any:
    """Before training listens to signals: a scheduler's signal ends the command with status 124.

    Nothing has been computed yet that could be lost.
    """
    import signal

    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(REQUEUE)

    previous: dict[int, Any] = {}
    try:
        for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            previous[each] = signal.signal(each, leave)
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
