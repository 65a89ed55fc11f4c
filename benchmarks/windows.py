"""Goal S11: windows of 256 tokens per CPU-second, against an HDF5 dataset and nanoGPT's way of reading.

A store of 20 M random tokens in 20,000 documents (one part) or 1 M documents (50 parts), a separator after each.
Ours is what training gets: `Loader.batches`, tokens and labels as tensors, every window once per epoch in a new
order. The peers read the same stream from one flat file, as they do:

* nanoGPT `get_batch`: 64 random places, the memory map opened anew for each batch, one tensor per row, stacked;
* the dataset of the arrow study: one slice of an HDF5 file, one tensor and one BOS per window, then the default
  collation of torch (needs h5py; left out where it is missing).

All three give 64 rows of 256 inputs and 256 targets. Two results are written, one for each peer.

    python benchmarks/windows.py [--rounds 5]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

import common
import goals
from lexarium.tokens.loader import Loader
from lexarium.training.host import settle
from made_up import random_split, whole, windows_loader

TOKENS, LENGTH, BATCH = 20_000_000, 256, 64
OURS = {
    "corpus": {"order": "corpus"},
    "each epoch": {"order": "each_epoch"},
    "backward": {"order": "corpus", "direction": "backward"},
    "with dropout keys": {"order": "corpus", "keyed": True},
}
HEADLINE = "corpus, 1000 tokens per document"
"""The order in which the peers' file has the documents; the other rates are in the result."""


def joined(loader: Loader) -> np.ndarray:
    """The stream that is cut into windows, made with a plain loop over the documents."""
    eos = [loader.objective.roles["eos"]]
    view = loader.view
    return np.concatenate([x for d in range(len(view)) for x in (view.tokens(d), eos)]).astype(np.uint16)


def nanogpt(path: Path) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random windows as nanoGPT's `get_batch` reads them."""

    def batch() -> tuple[Tensor, Tensor]:
        data = np.memmap(path, dtype=np.uint16, mode="r")
        places = torch.randint(len(data) - LENGTH, (BATCH,))
        rows = lambda shift: torch.stack(
            [torch.from_numpy(data[i + shift : i + shift + LENGTH].astype(np.int64)) for i in places]
        )
        return rows(0), rows(1)

    return batch


def hdf5(path: Path) -> Callable[[], tuple[Tensor, Tensor]]:
    """Windows of the arrow study: half overlapping, in a fixed shuffled order, BOS before each."""
    import h5py

    data = h5py.File(path, "r")["tokens"]
    stride = (LENGTH - 1) // 2
    order = np.random.default_rng(42).permutation((len(data) - LENGTH) // stride)
    bos, number = torch.zeros(1, dtype=torch.long), iter(range(len(order)))

    def item(i: int) -> tuple[Tensor, Tensor]:
        text = torch.tensor(data[i * stride : i * stride + LENGTH], dtype=torch.long)
        return torch.cat([bos, text[:-1]]), text

    return lambda: default_collate([item(int(order[next(number)])) for _ in range(BATCH)])


def right(loader: Loader, stream: np.ndarray, peers: dict[str, Callable[[], tuple[Tensor, Tensor]]]) -> bool:
    """One batch of each: ours at the places that the plan names, the peers' rows somewhere in the stream."""
    starts = np.concatenate([[0], np.cumsum(loader.view.lengths + 1)])
    (batch,) = loader.batches(3)
    labels = batch.targets["labels"].view(BATCH, LENGTH).numpy()
    equal = bool((batch.inputs["tokens"][:, 1:] == batch.targets["labels"].view(BATCH, LENGTH)[:, :-1]).all())
    plan: Any = loader.packing.plan(loader.view.lengths, 0, 0)
    for row, number in zip(labels, batch.examples, strict=True):
        first = plan.pieces(number)[0]
        place = next(p for p in plan.pieces(number) if p.document >= 0)
        begin = int(starts[place.document]) + place.start - int(first.document < 0)
        equal &= bool((row == stream[begin : begin + LENGTH]).all())
    text = stream.tobytes()
    for peer in peers.values():
        x, y = peer()
        equal &= bool((x[:, 1:] == y[:, :-1]).all())
        equal &= all(text.find(row.numpy().astype(np.uint16).tobytes()) >= 0 for row in y[:4])
    return equal


def rate(batches: Callable[[], Any], n: int) -> float:
    """Windows per CPU-second over n batches."""

    def read() -> None:
        for _ in range(n):
            batches()  # not kept: training does not keep them either

    return n * BATCH / common.timed(read)[0]


def sources(folder: Path) -> tuple[dict[str, Loader], dict[str, Callable[[], tuple[Tensor, Tensor]]], bool]:
    """Our loaders, the peers, and whether they read the right tokens."""
    loaders = {}
    for length in (1000, 20):
        view = whole(random_split(folder / str(length), TOKENS // length, length))
        for name, options in OURS.items():
            loaders[f"{name}, {length} tokens per document"] = windows_loader(view, LENGTH, BATCH, **options)
    stream = joined(loaders[HEADLINE])
    stream.tofile(folder / "stream.bin")
    peers = {"nanogpt": nanogpt(folder / "stream.bin")}
    try:
        import h5py
    except ImportError:
        return loaders, peers, right(loaders[HEADLINE], stream, peers)
    with h5py.File(folder / "stream.h5", "w") as file:
        data = file.create_dataset("tokens", (0,), maxshape=(None,), dtype=np.int32)
        data.resize(len(stream), axis=0)
        data[:] = stream
    peers["h5"] = hdf5(folder / "stream.h5")
    return loaders, peers, right(loaders[HEADLINE], stream, peers)


def main() -> None:
    """Measure and write the results."""
    options = common.arguments(__doc__).parse_args()
    settle(1)
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        loaders, peers, equal = sources(Path(name))
        for number in range(options.rounds + 1):
            found = {}
            for what, loader in loaders.items():
                steps = iter(range(1000 * number, 1000 * (number + 1)))
                found[what] = rate(lambda loader=loader, steps=steps: loader.batches(next(steps)), 1000)
            found |= {what: rate(peer, 60) for what, peer in peers.items()}
            rounds += [found] if number else []  # the first warms the caches
    ours = common.median(rounds, HEADLINE)
    for peer in ("h5", "nanogpt"):
        if peer not in peers:
            print(f"{peer}: h5py is not installed; nothing is written", file=sys.stderr)
            continue
        theirs = common.median(rounds, peer)
        common.write(
            f"windows-{peer}", **goals.entry(f"windows-{peer}"), ours=ours, theirs=theirs, ratio=ours / theirs,
            rounds=rounds, folder=options.output, medians={what: common.median(rounds, what) for what in rounds[0]},
            parity={"passed": equal, "what": "each source's windows lie in the stream where they should"},
        )  # fmt: skip


if __name__ == "__main__":
    main()
