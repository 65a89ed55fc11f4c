"""Stopping politely: signals and deadlines only raise a flag, which is read between steps.

SIGTERM, SIGUSR1 and SIGUSR2 (a scheduler's notice) and the deadline of `--requeue-after` end with a saved
state and exit status 124 (queue me again); Ctrl-C with a saved state and 130. A second Ctrl-C interrupts
at once; what was saved before stays valid.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

REQUEUE, INTERRUPTED = 124, 130


class StopFlag:
    """Why training should stop at the next step boundary, if it should."""

    def __init__(self, requeue_after_hours: float | None = None) -> None:
        self.reason: str | None = None
        self.exit_status = 0
        self._deadline = (
            None if requeue_after_hours is None else time.monotonic() + 3600 * requeue_after_hours
        )
        self._previous: dict[int, Any] = {}

    def raise_flag(self, reason: str, exit_status: int) -> None:
        """Ask for a stop; the first reason stays."""
        if self.reason is None:
            self.reason, self.exit_status = reason, exit_status

    @property
    def raised(self) -> bool:
        """Whether training should stop now."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.raise_flag("the time given by --requeue-after is over", REQUEUE)
        return self.reason is not None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.reason is not None:
                raise KeyboardInterrupt
            self.raise_flag("interrupted from the keyboard", INTERRUPTED)
        else:
            self.raise_flag(f"received {signal.Signals(number).name}", REQUEUE)

    def __enter__(self) -> StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread: the owner of the main thread listens
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
