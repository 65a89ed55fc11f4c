"""One writer per directory.

The owner creates `owner.json` exclusively, with a random nonce, and a thread moves a counter in
`owner.heartbeat` every `BEAT` seconds. Whoever finds the file decides whether the owner lives without
comparing clocks: on the same host and boot by asking for the process (pid and start time); elsewhere by
watching the counter for `WATCH` seconds. A dead owner's lock is taken over by renaming it away, which
only one contender can do. `check()` must precede every rename and append: it refuses once the nonce on
disk is another's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lexarium.foundation.files import disk_errors, make_directory
from lexarium.foundation.types import UserError

OWNER, HEARTBEAT = "owner.json", "owner.heartbeat"
BEAT, WATCH = 2.0, 10.0


class Held(UserError):
    """The directory belongs to another living process."""


class Lock:
    """Exclusive ownership of a directory, as a context manager."""

    def __init__(self, directory: Path, wait: Callable[[str], bool] | None = None) -> None:
        """`wait(message)` is asked every second while another process holds the lock; false gives up."""
        self.directory, self.nonce, self._wait = directory, uuid.uuid4().hex, wait
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def _owner(self) -> Path:
        return self.directory / OWNER

    def __enter__(self) -> Lock:
        while not self._create():
            holder = read_owner(self.directory)
            if holder is not None and not alive(self.directory, holder):
                self._remove_dead(holder)
            elif holder is not None:
                message = f"{self.directory}: in use by process {holder.get('pid')} on {holder.get('host')}"
                if self._wait is None or not self._wait(message):
                    raise Held(
                        f"{message}; wait for it to finish or stop it, then run the same command again"
                    )
                time.sleep(1.0)
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lexarium-heartbeat")
        self._thread.start()
        return self

    def _create(self) -> bool:
        record = {"nonce": self.nonce, "host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid()}
        record["started"] = _process_start(os.getpid())
        temporary = self.directory / f".{OWNER}.{self.nonce[:8]}.tmp"
        make_directory(self.directory)  # its last owner may just have removed it
        with disk_errors(self.directory):
            try:
                temporary.write_text(json.dumps(record), encoding="utf-8")
                os.link(temporary, self._owner)  # atomic, and the file is complete when it appears
            except (FileExistsError, FileNotFoundError):
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _remove_dead(self, holder: dict[str, Any]) -> None:
        """Rename the dead owner's record away. Whoever was faster and owns the directory by now keeps it:
        a record that turns out to be another's is put back."""
        aside = self.directory / f".{OWNER}.{self.nonce[:8]}.old"
        current = read_owner(self.directory)
        if current is None or current.get("nonce") != holder.get("nonce"):
            return
        with contextlib.suppress(FileNotFoundError), disk_errors(self.directory):
            self._owner.rename(aside)
            if _parse(aside).get("nonce") != holder.get("nonce"):
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self._owner)
            aside.unlink()

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(BEAT):
            count += 1
            with contextlib.suppress(OSError):  # a full disk must not end the owner
                (self.directory / HEARTBEAT).write_text(f"{self.nonce} {count}\n", encoding="utf-8")

    def check(self) -> None:
        """Raise Held when this process is no longer the owner."""
        current = read_owner(self.directory)
        if current is None or current.get("nonce") != self.nonce:
            raise Held(f"{self.directory}: taken over by another process; this one stops without writing")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        current = read_owner(self.directory)
        if current is not None and current.get("nonce") == self.nonce:
            self._owner.unlink(missing_ok=True)
            (self.directory / HEARTBEAT).unlink(missing_ok=True)


def read_owner(directory: Path) -> dict[str, Any] | None:
    """The owner's record, or None when nobody owns the directory; empty when it cannot be read."""
    try:
        return _parse(directory / OWNER)
    except FileNotFoundError:
        return None


def _parse(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def alive(directory: Path, holder: dict[str, Any]) -> bool:
    """Whether the owner lives: its process on this host, else a heartbeat that moves while watched."""
    if holder.get("host") == socket.gethostname() and holder.get("boot") == _boot_id() and holder.get("boot"):
        return _process_start(int(holder.get("pid", -1))) == holder.get("started")
    before = _read(directory / HEARTBEAT)
    deadline = time.monotonic() + WATCH
    while time.monotonic() < deadline:
        time.sleep(0.25)
        if _read(directory / HEARTBEAT) != before:
            return True
    return False


def held(directory: Path) -> bool:
    """Whether a living process owns the directory (used by `study status`; never waits on this host)."""
    holder = read_owner(directory)
    return holder is not None and alive(directory, holder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _boot_id() -> str:
    """This start of the system and this process-number space (containers may share a host name); or ""."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return boot


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (Linux), or None when it does not exist."""
    stat = _read(Path(f"/proc/{pid}/stat"))
    if not stat:
        return None
    after_name = stat[stat.rfind(")") + 2 :].split()
    return None if after_name[0] == "Z" else after_name[19]
