"""Fresh processes for tests: forked from a server that has imported the package and computed nothing.

Starting an interpreter and importing torch takes seconds; a fork of such a process takes none, and is as
real a process as any other: it has its own id, it can be killed, and it shares no state with the test.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["lexarium.studies.assembly", "torch._dynamo"])


def start(target: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> Child:
    """Call `target(*args)` in a process of its own."""
    return Child(target, args, dict(environment or {}))


class Child:
    """A running process. What its target returns, or sends while it runs, is read with `receive`."""

    def __init__(
        self, target: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str]
    ) -> None:
        self.value: Any = None
        self._from_child, to_parent = _context.Pipe(duplex=False)
        self.process: ForkServerProcess = _context.Process(
            target=_call, args=(to_parent, target, args, environment), daemon=True
        )
        self.process.start()
        to_parent.close()

    def receive(self, timeout: float = 120.0) -> Any:
        """The next thing sent; raises EOFError when the process ended without sending more."""
        if not self._from_child.poll(timeout):
            raise TimeoutError(f"the process sent nothing for {timeout} s")
        return self._from_child.recv()

    def result(self, timeout: float = 120.0) -> Any:
        """What the target returned; its exception becomes an AssertionError here."""
        while True:
            kind, value = self.receive(timeout)
            if kind == "returned":
                self.join()
                return value
            if kind == "raised":
                self.join()
                raise AssertionError(f"in the process: {value}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def join(self, timeout: float = 120.0) -> int | None:
        """Wait for the end; the exit code, negative for a signal."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"the process did not end within {timeout} s"
        return self.process.exitcode


_to_parent: Connection | None = None


def tell(value: Any) -> None:
    """Send something to the test while the target runs."""
    assert _to_parent is not None
    _to_parent.send(("told", value))


def _call(
    to_parent: Connection, target: Callable[..., Any], args: tuple[Any, ...], environment: dict
) -> None:
    global _to_parent
    _to_parent = to_parent
    os.environ.update(environment)
    try:
        to_parent.send(("returned", target(*args)))
    except BaseException as error:
        to_parent.send(("raised", f"{type(error).__name__}: {error}"))
        raise


def ranks(target: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """`target(*args)` in `size` processes that find each other as torchrun's do; what each returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = lambda rank: {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    children = [start(target, *args, environment=own(rank)) for rank in range(size)]
    waiting = {child._from_child: child for child in children}
    try:
        while (
            waiting
        ):  # whichever speaks first: a rank that failed must not be waited for behind one that hangs
            ready = multiprocessing.connection.wait(list(waiting), timeout=120.0)
            assert ready, f"{len(waiting)} of {size} ranks hang"
            for connection in ready:
                child = waiting.pop(connection)  # type: ignore[arg-type]
                child.value = child.result()
    finally:
        for child in waiting.values():
            child.kill()
    return [child.value for child in children]
