"""Text that grows on a terminal, one sample or several, at its end or anywhere.

A single text that grows at its end is written piece by piece, so it may be longer than the screen. Everything else
(text that grows to the left, several texts at once) is drawn again after every token, as much as the screen holds,
and written out whole at the end. Imports rich only when it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

Show = Callable[[int, str], None]
"""Called with the number of a text and all of it so far."""


@contextmanager
def growing(stream: TextIO, texts: Sequence[str], at_its_end: bool) -> Iterator[Show]:
    """A function that shows how texts grow. What was shown last stays, also when the work is broken off."""
    with (_appended if at_its_end and len(texts) == 1 else _redrawn)(stream, list(texts)) as show:
        yield show


@contextmanager
def _appended(stream: TextIO, texts: list[str]) -> Iterator[Show]:
    (written,) = texts

    def show(_: int, text: str) -> None:
        nonlocal written
        texts[0] = text
        if text.startswith(
            written
        ):  # else a tokenizer has second thoughts: wait until it has made up its mind
            stream.write(text[len(written) :])
            stream.flush()
            written = text

    stream.write(written)
    stream.flush()
    try:
        yield show
    finally:
        stream.write("\n" if written == texts[0] else f"\n{texts[0]}\n")
        stream.flush()


@contextmanager
def _redrawn(stream: TextIO, texts: list[str]) -> Iterator[Show]:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from lexarium.cli.console import rich_console

    drawn: Any = lambda: Group(*(Text(text) for text in texts))
    live = Live(drawn(), console=rich_console(stream), transient=True, auto_refresh=False)

    def show(number: int, text: str) -> None:
        texts[number] = text
        live.update(drawn(), refresh=True)

    try:
        with live:
            yield show
    finally:
        stream.writelines(f"{text}\n" for text in texts)
        stream.flush()
