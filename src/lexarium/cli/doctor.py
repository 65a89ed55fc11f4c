"""`lexarium doctor`: what this machine and this environment can do, and what is wrong with them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lexarium.cli.console import DONE, FAILED, Talk
from lexarium.cli.options import Json, RunsDir

EXTRAS = {
    "hf": ("datasets", "data sets of the Hugging Face hub; comparison with transformers' models"),
    "data": ("h5py", "token files in HDF5; text compressed with zstd"),
    "spm": ("sentencepiece", "SentencePiece tokenizers; byte-level BPE several times faster (tiktoken)"),
    "dev": ("pytest", "tests, linting and type checks"),
    "bench": ("accelerate", "benchmarks against other trainers"),
}
"""Extra -> (a module it brings, what it enables)."""

CORE = (
    "torch",
    "numpy",
    "pydantic",
    "safetensors",
    "tokenizers",
    "scipy",
    "pyarrow",
    "vl-convert-python",
    "typer",
    "rich",
)
LOW_DISK = 1 << 30

Line = tuple[str, bool | None, str]
"""What was looked at; true, false, or None for a mere remark; what was found."""


def doctor(runs_dir: RunsDir = Path("runs"), as_json: Json = False) -> int:
    """Check versions, device, disk, optional parts and speed. Exit status 1 when something needs mending."""
    talk = Talk(as_json)
    lines: list[Line] = []
    for line in _all(runs_dir):
        lines.append(line)
        mark = {True: "ok  ", False: "BAD ", None: "    "}[line[1]]
        talk.say(f"{mark} {line[0].ljust(18)} {line[2]}")
    bad = [line for line in lines if line[1] is False]
    talk.data({"ok": not bad, "checks": [{"what": a, "ok": b, "found": c} for a, b, c in lines]})
    talk.say(f"{len(bad)} things need mending" if bad else "all is well")
    return FAILED if bad else DONE


def _all(runs_dir: Path) -> Iterator[Line]:
    yield from _versions()
    yield _torchvision()
    yield from _device()
    yield from _disk(runs_dir)
    yield from _extras()
    yield _espeak()
    yield _speed()


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Line]:
    import platform

    yield (
        "lexarium",
        None,
        f"{_version('lexarium')}, Python {platform.python_version()}, {platform.platform()}",
    )
    found = {name: _version(name) for name in CORE}
    missing = [name for name, version in found.items() if version is None]
    there = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    yield "packages", not missing, there + (f"; missing: {', '.join(missing)}" if missing else "")


def _torchvision() -> Line:
    """A torchvision built for another torch breaks every import of transformers, without a word from pip."""
    if _version("torchvision") is None:
        return "torchvision", True, "not installed (not needed)"
    try:
        import torch  # noqa: F401
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except Exception as error:
        return (
            "torchvision",
            False,
            f"{_version('torchvision')} does not fit torch ({str(error).splitlines()[0][:80]});"
            " transformers cannot be imported beside it: pip uninstall torchvision",
        )
    return "torchvision", True, f"{_version('torchvision')} fits torch"


def _device() -> Iterator[Line]:
    import torch

    from lexarium.foundation.provenance import hardware
    from lexarium.training.parallel import choose_device

    machine = hardware()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = f", {machine['memory_gib']} GiB" if "memory_gib" in machine else ""
    yield "processor", None, f"{machine['processor']}, {cores} of {machine['cores']} cores usable{memory}"
    device = choose_device("auto")
    names = machine.get("accelerators") or []
    yield "device", None, f"auto = {device}" + (f" ({', '.join(names)})" if names else "")
    yield (
        "threads",
        None,
        f"torch {torch.get_num_threads()}; a run uses plan.threads (1), a study one run per core",
    )
    yield "precision", None, ", ".join(_precisions(device))


def _precisions(device: Any) -> list[str]:
    from lexarium.foundation.types import UserError
    from lexarium.training.parallel import check_precision

    found = []
    for precision in ("fp32", "bf16", "fp16"):
        try:
            check_precision(precision, device)
            found.append(f"{precision} yes")
        except UserError:
            found.append(f"{precision} no")
    return found


def _disk(runs_dir: Path) -> Iterator[Line]:
    import shutil
    import tempfile

    place = runs_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield "disk", free > LOW_DISK, f"{free / 2**30:,.1f} GiB free at {place}"
    if not place.is_dir():
        yield "runs directory", False, f"{place} is a file; choose another --runs-dir"
        return
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        new = "" if runs_dir.exists() else " (not there yet, can be made)"
        yield "runs directory", True, f"{runs_dir} can be written{new}"
    except OSError as error:
        yield (
            "runs directory",
            False,
            f"{place}: {error.strerror}; choose another --runs-dir or change its rights",
        )


def _extras() -> Iterator[Line]:
    import importlib.util
    from importlib import metadata

    offered = metadata.metadata("lexarium").get_all("Provides-Extra") or []
    for extra in offered:
        module, enables = EXTRAS.get(extra, ("", "see pyproject.toml"))
        there = bool(module) and importlib.util.find_spec(module) is not None
        how = "installed" if there else f"not installed: pip install 'lexarium[{extra}]'"
        yield f"extra {extra}", None, f"{how}; {enables}"


def _espeak() -> Line:
    """The program that turns words into phonemes."""
    from lexarium.corpora import espeak
    from lexarium.foundation.types import UserError

    enables = "phonemes from orthographic text (corpus utterances, form: words)"
    try:
        path = espeak.found()
        there = f"{espeak.version(path)} at {path}" if path else f"not installed ({espeak.INSTALL})"
    except UserError as error:
        return espeak.PROGRAM, False, str(error)
    return espeak.PROGRAM, None, f"{there}; {enables}"


def _speed() -> Line:
    """Matrix products of 512 x 512 for one second, on the device a run would use."""
    import torch

    from lexarium.training.parallel import choose_device

    device = choose_device("auto")
    a = torch.ones(512, 512, device=device)
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    a @ a
    finish()
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < 1.0:
        for _ in range(10):
            a @ a
        finish()
        n += 10
    rate = n * 2 * 512**3 / (time.perf_counter() - start)
    return "speed", None, f"{rate / 1e9:,.0f} GFLOP/s in float32 on {device} (matrix product, 512 x 512)"
