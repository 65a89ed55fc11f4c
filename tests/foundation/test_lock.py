"""One writer per directory: living owners are respected, dead ones replaced, lost ownership is noticed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexarium.foundation import lock
from lexarium.foundation.files import DiskError
from lexarium.foundation.lock import HEARTBEAT, OWNER, Held, Lock, held, read_owner

OWN = """
import sys, time
from pathlib import Path
from lexarium.foundation.lock import Lock
with Lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that owns `tmp_path / "d"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process believes itself on another machine, and watches briefly."""
    monkeypatch.setattr(lock, "WATCH", 0.8)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")


def test_the_owner_is_on_record_and_leaves_nothing(tmp_path: Path) -> None:
    with Lock(tmp_path / "d") as mine:
        owner = read_owner(tmp_path / "d")
        assert owner and owner["pid"] == os.getpid() and owner["nonce"] == mine.nonce
        assert held(tmp_path / "d")
        mine.check()
    assert list((tmp_path / "d").iterdir()) == []
    assert not held(tmp_path / "d")


def test_a_living_process_is_respected_and_a_killed_one_replaced(
    tmp_path: Path, other: subprocess.Popen
) -> None:
    with (
        pytest.raises(Held, match=rf"in use by process {other.pid} on .*wait for it to finish or stop it"),
        Lock(tmp_path / "d"),
    ):
        pass
    assert held(tmp_path / "d")
    other.kill()
    other.wait()
    assert not held(tmp_path / "d")
    with Lock(tmp_path / "d") as mine:
        mine.check()
    assert list((tmp_path / "d").iterdir()) == []


def test_waiting_ends_when_the_owner_does(
    tmp_path: Path, other: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    told: list[str] = []

    def wait(message: str) -> bool:
        told.append(message)
        if len(told) == 3:
            other.kill()
            other.wait()
        return True

    with Lock(tmp_path / "d", wait):
        assert len(told) == 3 and all(str(other.pid) in message for message in told)


def test_waiting_can_be_given_up(tmp_path: Path, other: subprocess.Popen) -> None:
    with pytest.raises(Held), Lock(tmp_path / "d", lambda message: False):
        pass
    assert other.poll() is None


def test_a_process_with_the_number_of_a_dead_owner_is_not_the_owner(tmp_path: Path) -> None:
    with Lock(tmp_path / "d"):
        record = read_owner(tmp_path / "d")
    assert record
    (tmp_path / "d" / OWNER).write_text(json.dumps({**record, "started": "1"}))
    assert not held(tmp_path / "d")


@pytest.mark.usefixtures("elsewhere")
def test_a_moving_heartbeat_is_life(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / OWNER).write_text(
        json.dumps({"nonce": "n", "host": "far", "boot": "b", "pid": 1, "started": "1"})
    )
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.05):
            count += 1
            (folder / HEARTBEAT).write_text(f"n {count}\n")

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(Held, match="in use by process 1 on far"), Lock(folder):
            pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("beats", [None, "n 7\n"])
def test_a_heartbeat_that_stands_still_is_death_whatever_the_clocks_say(
    tmp_path: Path, beats: str | None
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / OWNER).write_text(
        json.dumps({"nonce": "n", "host": "far", "boot": "b", "pid": os.getpid(), "started": "1"})
    )
    if beats:
        (folder / HEARTBEAT).write_text(beats)
        os.utime(folder / HEARTBEAT, (time.time() + 3600, time.time() + 3600))
    with Lock(folder) as mine:
        mine.check()


@pytest.mark.usefixtures("elsewhere")
def test_an_owner_beats_so_that_others_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lock(tmp_path / "d"):
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "a third place")
        assert held(tmp_path / "d")


def test_an_owner_record_that_cannot_be_read_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.3)
    (tmp_path / OWNER).write_text('{"nonce": "')
    with Lock(tmp_path) as mine:
        mine.check()


def test_lost_ownership_is_noticed_and_the_new_owner_left_alone(tmp_path: Path) -> None:
    with Lock(tmp_path) as mine:
        (tmp_path / OWNER).write_text(json.dumps({"nonce": "another", "pid": 1, "host": "far"}))
        with pytest.raises(Held, match="taken over by another process; this one stops without writing"):
            mine.check()
    assert read_owner(tmp_path) == {"nonce": "another", "pid": 1, "host": "far"}


def test_a_removed_lock_is_noticed(tmp_path: Path) -> None:
    with Lock(tmp_path) as mine:
        (tmp_path / OWNER).unlink()
        with pytest.raises(Held):
            mine.check()


def test_two_contenders_for_a_dead_owners_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has found the owner dead when the first has already taken over: it must not push the first out."""
    dead = {
        "nonce": "dead",
        "host": lock.socket.gethostname(),
        "boot": lock._boot_id(),
        "pid": 1,
        "started": "0",
    }
    (tmp_path / OWNER).write_text(json.dumps(dead))
    first, late = Lock(tmp_path), Lock(tmp_path)
    real, looks = lock.read_owner, []

    def read(directory: Path) -> dict | None:
        found = real(directory)
        if found and found.get("nonce") == "dead":
            looks.append(True)
            if len(looks) == 2:
                first.__enter__()  # between the late one's last look and its rename
        return found

    monkeypatch.setattr(lock, "read_owner", read)
    with pytest.raises(Held):
        late.__enter__()
    first.check()
    late_view = real(tmp_path)
    assert late_view and late_view["nonce"] == first.nonce
    first.__exit__()
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    dead = {
        "nonce": "dead",
        "host": lock.socket.gethostname(),
        "boot": lock._boot_id(),
        "pid": 1,
        "started": "0",
    }
    (tmp_path / "d" / OWNER).write_text(json.dumps(dead))
    winners, barrier = [], threading.Barrier(8)
    done = threading.Event()

    def contend() -> None:
        barrier.wait()
        try:
            with Lock(tmp_path / "d") as mine:
                winners.append(mine.nonce)
                done.wait(5)
                mine.check()
        except Held:
            pass

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    done.set()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(DiskError, match=str(tmp_path)), Lock(tmp_path):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DiskError, match=str(tmp_path / "d")), Lock(tmp_path / "d"):
        pass


def test_a_full_disk_does_not_stop_the_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with Lock(tmp_path) as mine:
        (tmp_path / HEARTBEAT).mkdir()  # every write to it fails
        time.sleep(0.3)
        assert mine._thread and mine._thread.is_alive()
        (tmp_path / HEARTBEAT).rmdir()
        beats = lambda: (tmp_path / HEARTBEAT).exists() and (tmp_path / HEARTBEAT).read_text()
        deadline = time.monotonic() + 60
        while not beats() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert str(beats()).startswith(mine.nonce)
