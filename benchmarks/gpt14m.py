"""Goal S6: tokens per CPU-second of a 14 M GPT, against nanoGPT's algorithm, transformers and litgpt.

6 layers x 384, 6 heads, rows of 256 tokens, vocabulary 8192, no dropout, one thread; AdamW lr 1e-3, clipping 1.0. Ours
reads windows from a token store of random words (their frequencies fall with rank, so that there is something
to learn) and steps through `Trainer.advance`; peers get the same batches ready in memory. Each peer's steps
alternate with ours; for litgpt, which has no learned positions, both sides use rotary ones. `gpt14m-bf16` compares
ours in bf16 with nanoGPT's algorithm in fp32. Parity: the first 20 losses are equal to 1e-4 relative; to 2e-2 for bf16.

    OMP_NUM_THREADS=1 python benchmarks/gpt14m.py [--batch 16] [--steps 4] [--rounds 5] [--only NAME ...]
                                                  [--peer module:function]

`--peer` takes the place of the re-created nanoGPT. Needs the environment of `make bench`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import common
import goals
from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document
from lexarium.models.transformer import Transformer
from lexarium.objectives.causal import Causal
from lexarium.studies.assembly import make
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.training.host import settle
from sides import bf16_units, sides

LENGTH, VOCABULARY, BF16_BOUND = 256, 8192, 2e-2
SHAPE = {
    "preset": "gpt2",
    "n_layers": 6,
    "n_heads": 6,
    "d_model": 384,
    "max_positions": LENGTH,
    "dropout": 0.0,
}
PEERS = {
    "gpt14m-nanogpt": "",
    "gpt14m-hf": "peers.hf:make",
    "gpt14m-litgpt": "peers.litgpt_gpt:make",
    "gpt14m-bf16": "",
}  # "" = --peer


class RandomWords:
    """Documents of random words w0, w1, ...; rank r has a probability in proportion to 1 / (r + 1)."""

    kind, name, version = "corpus", "random_words", 1
    splits = ("train",)
    words = VOCABULARY - 2
    """The vocabulary less padding and the objective's `eos`."""

    class Config(ComponentConfig):
        """Size of the corpus."""

        type: str = f"{Path(__file__).resolve()}:RandomWords"
        documents: int = 400

    def __init__(self, config: Config) -> None:
        self.config = config

    def documents(self, split: str) -> Iterator[Document]:
        """400 words each."""
        generator = np.random.default_rng(0)
        weights = 1 / np.arange(1, self.words + 1)
        for _ in range(self.config.documents):
            drawn = generator.choice(self.words, size=400, p=weights / weights.sum())
            yield Document(" ".join(f"w{i}" for i in drawn))

    def symbols(self) -> list[str]:
        """Every word."""
        return [f"w{i}" for i in range(self.words)]

    def fingerprint(self) -> str:
        """The config says it all."""
        return ""


def measure(name: str, peer: str, options: Any, folder: Path) -> None:
    """One comparison."""
    function, title = common.find_peer(peer or options.peer)
    tokenizer = registry.find("tokenizer", "word").Config()
    store = prepare(RandomWords.Config(), tokenizer, folder)
    objective = Causal(Causal.Config(bos=False, eos=False), open_tokenizer(tokenizer, store.folder))
    assert objective.vocab_size == VOCABULARY
    windows = registry.find("packing", "windows").Config(seq_len=LENGTH + 1, separator=False)
    bf16 = name.endswith("bf16")
    steps = max(20, options.steps * options.rounds + 2)
    ours, work = sides(
        Transformer.Config(**SHAPE, positions="rotary" if "litgpt" in name else "learned"), store.view("train"),
        make("packing", windows), objective, steps=steps, batch=options.batch, lr=1e-3, eps=1e-8,
        precision="bf16" if bf16 else "fp32",
    )  # fmt: skip
    found = common.alternate(ours, function(work), steps)
    rounds = common.rounds_of(found, options.rounds)
    tokens = options.batch * LENGTH
    cpu, their_cpu = common.median(rounds, "our_cpu"), common.median(rounds, "their_cpu")
    known = goals.entry(name, peer=title)
    known["what"] += f", batch {options.batch}, one thread"
    common.write(
        name, **known, ours=tokens / cpu, theirs=tokens / their_cpu, ratio=their_cpu / cpu, rounds=rounds,
        parity=common.parity(found, BF16_BOUND if bf16 else 1e-4), folder=options.output,
        **({"bf16_units": bf16_units()} if bf16 else {}),
    )  # fmt: skip


def main() -> None:
    """Measure and write the results; a peer that fails does not keep the others from it."""
    parser = common.arguments(__doc__, peer="peers.plain_gpt:make")
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--batch", type=int, default=16, help="rows per step")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME")
    options = parser.parse_args()
    settle(1)
    common.each(options.only, lambda name, folder: measure(name, PEERS[name], options, folder))


if __name__ == "__main__":
    main()
