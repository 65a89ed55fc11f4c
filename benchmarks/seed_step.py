"""Goals S1 and S2: the training step of the hierarchical-generalization study on a CPU, one thread.

`--precision fp32` (S1) compares with two peers, in turn: the published loop, re-created (`--peer` puts another in its
place), on the study's own model; and transformers' Trainer, on the GPT-2 of that size that it can build. Both
have 6 x 512 with 8 heads, relu, dropout 0.1 and vocabulary 71; batches of 8 sentence pairs; AdamW lr 1e-4
eps 1e-7, clipping 1.0. `--precision bf16` (S2) compares ours in bf16 with the published loop in fp32. Peers compute
their padding, ours real tokens only. Steps alternate. Parity, without dropout: the first 20 losses are equal to 1e-4
relative in fp32; ours in bf16 to 2e-2 of the peer's in fp32. Against the published loop it is shown at lr 1e-5: at 1e-4
without warm-up this post-norm model is chaotic (weights changed by 1e-7 move its losses by up to 7e-4 in 10 steps).

    OMP_NUM_THREADS=1 python benchmarks/seed_step.py [--precision bf16] [--steps 40] [--rounds 5] [--peer module:function]

needs the `bench` extra (transformers, accelerate).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import goals
from lexarium.foundation import registry
from lexarium.models.transformer import Transformer
from lexarium.objectives.causal import Causal
from lexarium.studies.assembly import make
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.training.host import settle
from peers import PeerWork, Step
from sides import bf16_units, sides

BF16_BOUND = 2e-2
GPT2 = {
    "preset": "gpt2",
    "n_layers": 6,
    "n_heads": 8,
    "d_model": 512,
    "activation": "relu",
    "max_positions": 64,
}
PUBLISHED = {"preset": "hierarchical_generalization", "max_positions": 64}


def both(
    model: dict[str, Any], dropout: float, steps: int, precision: str, folder: Path, lr: float = 1e-4
) -> tuple[Step, PeerWork]:
    """Our step and the peer's work, from fresh weights. GPT-2 has no dropout inside its feed-forward."""
    corpus = registry.find("corpus", "question_formation").Config(
        sizes={"train": 8000, "val": 0, "test": 0, "ood": 0}
    )
    tokenizer = registry.find("tokenizer", "word").Config()
    store = prepare(corpus, tokenizer, folder / "stores")
    config = Transformer.Config(**model, dropout=dropout, feed_forward_dropout=0.0 if model is GPT2 else None)
    return sides(
        config, store.view("train"), make("packing", registry.find("packing", "documents").Config()),
        Causal(Causal.Config(), open_tokenizer(tokenizer, store.folder)), steps=steps, batch=8, lr=lr, eps=1e-7,
        precision=precision,
    )  # fmt: skip


def against_loop(
    peer: Any, dropout: float, steps: int, precision: str, folder: Path
) -> dict[str, list[float]]:
    """Steps of ours and of a loop, in turn, on the study's own model; without dropout to show parity."""
    ours, work = both(PUBLISHED, dropout, steps, precision, folder, 1e-4 if dropout else 1e-5)
    return common.alternate(ours, peer(work), steps)


def against_trainer(dropout: float, steps: int, folder: Path) -> dict[str, list[float]]:
    """Steps of ours and of transformers' Trainer, in turn, on a GPT-2."""
    from peers.hf import alternate_with_trainer

    ours, work = both(GPT2, dropout, steps, "fp32", folder)
    return alternate_with_trainer(ours, work, steps, folder / "trainer")


def report(name: str, found: dict[str, list[float]], options: Any, **more: Any) -> None:
    """Write one result."""
    rounds = common.rounds_of(found, options.rounds)
    ours, theirs = common.median(rounds, "our_cpu"), common.median(rounds, "their_cpu")
    known = goals.entry(name) | more
    common.write(
        name,
        **known,
        ours=1 / ours,
        theirs=1 / theirs,
        ratio=theirs / ours,
        rounds=rounds,
        folder=options.output,
    )


def main() -> None:
    """Measure and write the results."""
    parser = common.arguments(__doc__, peer="peers.original_loop:make")
    parser.add_argument("--steps", type=int, default=40, help="steps per round")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="ours; the peers' is fp32"
    )
    options = parser.parse_args()
    settle(1)
    peer, title = common.find_peer(options.peer)
    steps = options.steps * options.rounds + 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parity = common.parity(against_loop(peer, 0.0, 20, "fp32", folder))
        if options.precision == "bf16":
            units = bf16_units()
            loose = common.parity(against_loop(peer, 0.0, 20, "bf16", folder), BF16_BOUND)
            parity |= {"bf16": loose, "passed": parity["passed"] and loose["passed"]}
            found = against_loop(peer, 0.1, steps, "bf16", folder)
            return report("seed-step-bf16", found, options, peer=title, parity=parity, bf16_units=units)
        report(
            "seed-step-original",
            against_loop(peer, 0.1, steps, "fp32", folder),
            options,
            peer=title,
            parity=parity,
        )
        parity = common.parity(against_trainer(0.0, 20, folder))
        report("seed-step-trainer", against_trainer(0.1, steps, folder), options, parity=parity)
    return None


if __name__ == "__main__":
    main()
