"""Goal S12: the memory that preparation takes does not grow with the text.

Text of made-up words is written once and prepared in a fresh process, then a file of it four times over; the largest resident
memory of that process and its workers is read when it ends. Also how fast it went, and what 100 GB would take.

    python benchmarks/tokenise_memory.py [--bytes 1000000000] [--workers 2]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import goals
from tokenise import made_up

WORK = """
import json, resource, sys
from pathlib import Path
from lexarium.cli.main import main
status = main(["prepare", sys.argv[1], "tokenizer.vocab_size=8192", "tokenizer.sample_bytes=20000000", "--workers", sys.argv[2],
               "--runs-dir", sys.argv[3]])
peak = lambda who: resource.getrusage(who).ru_maxrss * 1024
print(json.dumps({"status": status, "own": peak(resource.RUSAGE_SELF), "worker": peak(resource.RUSAGE_CHILDREN)}))
"""


def grow(source: Path, path: Path, size: int) -> None:
    """A file of `size` bytes of whole lines: the source again and again, each time with another word in its lines."""
    text, n = source.read_text(encoding="utf-8"), 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            n += 1
            file.write(text.replace(" the", f" the{n} "))


def main() -> None:
    """Measure and write the result."""
    parser = common.arguments(__doc__, rounds=1)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = made_up(folder)
        for times in (1, 4):
            path = folder / f"{times}.txt"
            grow(source, path, times * options.bytes)
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", WORK, str(path), str(options.workers), str(folder / f"runs{times}")],
                check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "LEXARIUM_CACHE": str(folder / "cache")},
            )  # fmt: skip
            seconds = time.perf_counter() - begin
            row = json.loads(done.stdout.splitlines()[-1])
            size = path.stat().st_size
            found[str(times)] = {
                **row,
                "bytes": size,
                "seconds": seconds,
                "mb_per_second": size / 1e6 / seconds,
            }
            print(found[str(times)])
            path.unlink()
    peak = {times: max(row["own"], row["worker"]) for times, row in found.items()}
    common.write(
        "tokenise-memory", **goals.entry("tokenise-memory"), ours=peak["4"], theirs=peak["1"],
        ratio=peak["1"] / peak["4"], rounds=list(found.values()), parity=None, folder=options.output,
        hours_for_100_gb=100e9 / (found["4"]["mb_per_second"] * 1e6) / 3600, workers=options.workers,
    )  # fmt: skip


if __name__ == "__main__":
    main()
