"""Hashes of files that are read again and again, without reading them again and again.

The sha256 of a large file is remembered in the user's cache folder under its path, size, inode and times. It is
trusted while all of them are unchanged, and only when the file was at rest when it was hashed: one changed
within two seconds before might change again without its time showing it.

`Stamp` is what tells that a file was changed while somebody worked on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from lexarium.foundation.files import sha256_file, write_atomic

LARGE = 1 << 24
"""Bytes from which on a hash is worth remembering."""
RESTED_NS = 2_000_000_000


class Stamp(NamedTuple):
    """Size and times of a file, as the file system knows them."""

    size: int
    inode: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path | str) -> Stamp:
        """The file as it is now; raises OSError when it is gone."""
        found = os.stat(path)
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def cache_folder() -> Path:
    """`$LEXARIUM_CACHE`, else `lexarium` in the user's cache folder."""
    if own := os.environ.get("LEXARIUM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lexarium"


def fingerprint(path: Path) -> str:
    """sha256 of a file's content, remembered for large files."""
    before = Stamp.of(path)
    if before.size < LARGE:
        return sha256_file(path)
    name, known = str(path.resolve()), _read()
    if name in known and known[name][0] == list(before):
        return str(known[name][1])
    found = sha256_file(path)
    rested = time.time_ns() - max(before.modified_ns, before.changed_ns) > RESTED_NS
    if rested and Stamp.of(path) == before:
        _remember(name, before, found)
    return found


def _file() -> Path:
    return cache_folder() / "fingerprints.json"


def _read() -> dict[str, tuple[list[int], str]]:
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _remember(name: str, stamp: Stamp, found: str) -> None:
    """Two processes may lose each other's entry; it is then computed again."""
    with contextlib.suppress(Exception):  # a cache that cannot be written is no reason to stop
        write_atomic(_file(), json.dumps({**_read(), name: [list(stamp), found]}))
