"""Goal S16: what grows with the number of runs of a study, and of documents in a store.

`study status` of 10 to 10,000 finished runs and `report` of 10 to 1,000, each in a fresh process, on made-up run
directories. A store's plan (windows, documents in a new order every epoch) and 1,000 batches, 100 steps from each of
ten random places, for 10^3 to `--documents` documents of 20 tokens: ids are one sparse file of zeros, offsets are real, so nothing is
tokenised but everything is read. Time is that of a fresh process; memory is its own (RssAnon, so Linux only), without
the pages of mapped files.

The ratio is (growth of size) / (growth of time) from the second size to the largest: 1 or more means linear or
better. The smallest shows what a command costs at all, and would flatter. For batches, which should not grow, the
growth of time is divided out in the same way; `bytes_per_document` is the memory of the plan, that of batches is in
the rounds.

    python benchmarks/growth.py [--rounds 3] [--documents 10000000] [--runs 10000]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import goals

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.reports.synthetic import OOD, contrast, make_study

COMMAND = "import sys; from lexarium.cli.main import main; main(sys.argv[1:])"
STORE = """
import json, sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[3])
from made_up import Split, View, windows_loader
from lexarium.foundation.rng import generator
from lexarium.training.host import settle
settle(1)
status = Path("/proc/self/status")
used = lambda: 1024 * int(status.read_text().split("RssAnon:")[1].split()[0])
n, before = int(sys.argv[2]), used()
begin = time.process_time()
view = View(split := Split(Path(sys.argv[1]), "train", [{"name": "part-00000"}], []), np.arange(n, dtype=np.int64))
loader = windows_loader(view, 256, 64, order="each_epoch")
plan = time.process_time() - begin
planned = used()
starts = generator(1, "starts").integers(0, max(1, loader.examples_per_epoch // 64 - 100), 10).tolist()
begin = time.process_time()
for start in starts:
    for step in range(start, start + 100):
        loader.batches(step)
batch = (time.process_time() - begin) / 1000
print(json.dumps({"plan": plan, "batch": batch, "plan_bytes": planned - before, "batch_bytes": used() - planned}))
"""
LENGTH = 20


def sparse_store(folder: Path, documents: int) -> None:
    """One part of documents of about 20 tokens, all of them token 0, that takes no room on the disk for ids."""
    import numpy as np

    (folder / "train").mkdir(parents=True)
    path = folder / "train" / "part-00000"
    offsets = np.lib.format.open_memmap(f"{path}.docs.npy", mode="w+", dtype=np.int64, shape=(documents + 1,))
    offsets[0], step = 0, 1 << 20
    for a in range(0, documents, step):
        lengths = np.resize(np.arange(LENGTH // 2, LENGTH + LENGTH // 2 + 1), min(step, documents - a))
        offsets[a + 1 : a + 1 + len(lengths)] = offsets[a] + np.cumsum(lengths)
    np.lib.format.open_memmap(f"{path}.ids.npy", mode="w+", dtype=np.uint16, shape=(int(offsets[-1]),))


def study(folder: Path, runs: int, points: int) -> str:
    """A finished study of two arms below `folder`; returns its name."""
    return make_study(folder, seeds=runs // 2, points=points, compare=[contrast(metric=OOD)])


def fresh(*arguments: str) -> float:
    """CPU-seconds of a command in a fresh process."""
    return common.timed_process([sys.executable, "-c", COMMAND, *arguments])[0]


def sizes(smallest: int, largest: int) -> list[int]:
    """Powers of ten between two limits."""
    return [10**k for k in range(1, 10) if smallest <= 10**k <= largest]


def linear(sizes_: list[int], times: dict[int, float]) -> float:
    """(growth of size) / (growth of time) from the second size to the largest."""
    first, last = sizes_[min(1, len(sizes_) - 1)], sizes_[-1]
    return (last / first) / (times[last] / times[first]) if last > first else 1.0


def commands(largest: int, rounds: int) -> list[dict[str, float]]:
    """Times of `study status` and `report` by number of runs."""
    found: list[dict[str, float]] = [{} for _ in range(rounds)]
    for runs in sizes(10, largest):
        with tempfile.TemporaryDirectory() as name:
            made = study(Path(name), runs, 21 if runs <= 1000 else 2)
            for one in found:
                one[f"status: {runs}"] = fresh("study", "status", made, "--runs-dir", name)
                if runs <= 1000:
                    one[f"report: {runs}"] = fresh("report", made, "--runs-dir", name)
    return found


def stores(largest: int, rounds: int) -> list[dict[str, float]]:
    """Times and memory of a plan and of batches by number of documents."""
    found: list[dict[str, float]] = [{} for _ in range(rounds)]
    for documents in sizes(1000, largest):
        with tempfile.TemporaryDirectory() as name:
            sparse_store(Path(name), documents)
            for one in found:
                command = [sys.executable, "-c", STORE, name, str(documents), str(Path(__file__).parent)]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
                one |= {f"{what}: {documents}": value for what, value in json.loads(out).items()}
    return found


def main() -> None:
    """Measure and write the results."""
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--documents", type=int, default=10**7)
    parser.add_argument("--runs", type=int, default=10**4)
    options = parser.parse_args()
    given_sizes = {
        "status": sizes(10, options.runs),
        "report": sizes(10, min(1000, options.runs)),
        "plan": sizes(1000, options.documents),
        "batch": sizes(1000, options.documents),
    }
    rounds = commands(options.runs, options.rounds)
    for one, more in zip(rounds, stores(options.documents, options.rounds), strict=True):
        one |= more
    medians = {what: common.median(rounds, what) for what in rounds[0]}
    for name, given in given_sizes.items():
        times = {n: medians[f"{name}: {n}"] for n in given}
        memory = {n: medians[f"plan_bytes: {n}"] / n for n in given} if name == "plan" else None
        known = goals.entry(f"growth-{name}")
        known["what"] += f", {given[0]:,} to {given[-1]:,}"
        common.write(
            f"growth-{name}", **known, ours=times[given[-1]], theirs=None, ratio=linear(given, times), parity=None,
            rounds=[{k: v for k, v in one.items() if k.startswith(name)} for one in rounds], folder=options.output,
            seconds=times, bytes_per_document=memory,
        )  # fmt: skip


if __name__ == "__main__":
    main()
