"""A split of a token store made of random numbers, and what a loader needs around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lexarium.foundation import registry, rng
from lexarium.tokens.loader import Loader
from lexarium.tokens.prepare import PART
from lexarium.tokens.store import Split, View
from lexarium.tokens.tokenizers import Vocabulary

VOCABULARY = 8000


class Symbols(Vocabulary):
    """A vocabulary of numbers."""

    roles = {"pad": 0, "eos": 1}
    vocab_size = VOCABULARY


def random_split(folder: Path, documents: int, length: int, seed: int = 1) -> Split:
    """Documents of `length` / 2 to `length` * 3 / 2 random tokens, in parts as `lexarium prepare` writes them."""
    draw = rng.generator(seed, "store")
    (folder / "train").mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, documents, PART):
        lengths = draw.integers(length // 2, length + length // 2 + 1, min(PART, documents - start))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = draw.integers(2, VOCABULARY, int(offsets[-1]), dtype=np.uint16)
        parts.append(f"part-{start // PART:05d}")
        np.save(folder / "train" / f"{parts[-1]}.docs.npy", offsets)
        np.save(folder / "train" / f"{parts[-1]}.ids.npy", ids)
    return Split(folder, "train", [{"name": part} for part in parts], [])


def whole(split: Split) -> View:
    """The view of all documents of a split."""
    return View(split, np.arange(len(split), dtype=np.int64))


def windows_loader(
    view: View, seq_len: int, batch: int, direction: str = "forward", **options: Any
) -> Loader:
    """Batches of windows for next-token prediction; options of the packing, and `keyed`."""
    keyed = options.pop("keyed", False)
    make = lambda kind, name, *arguments, **config: (cls := registry.find(kind, name))(
        cls.Config(**config), *arguments
    )
    return Loader(
        view,
        make("packing", "windows", seq_len=seq_len, **options),
        make("direction", direction),
        make("objective", "causal", Symbols(registry.find("tokenizer", "word").Config()), eos=False),
        global_batch_size=batch,
        keyed=keyed,
    )
