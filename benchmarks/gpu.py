"""Goals S3, S4, S5 and S7: what needs a GPU. Captured steps, cohorts, and the medium model.

    python benchmarks/gpu.py [--only NAME ...] [--steps 500] [--rounds 5] [--peer-original M:F] [--peer-nanogpt M:F]
    python benchmarks/gpu.py --smoke        every comparison, tiny and on the CPU; writes nothing

Blocks of steps of both sides alternate; the clock stops when the device has finished a block. Peers run eagerly on
the same GPU (S3), or compiled (S7), on the same batches from the same weights. Goals of 300,000 steps are measured
over whole runs of `--long` steps (at least 5,000), evaluations included and compilation left out, and reported as
extrapolated. Parity: without dropout the first 20 losses are equal to 1e-4 relative in fp32 (S3); a member's losses
equal its solo run's (S4, S5); 2e-2 in bf16 (S7).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import common
import goals
from gpt14m import RandomWords
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.models.build import template_of
from lexarium.models.transformer import Transformer
from lexarium.objectives.causal import Causal
from lexarium.studies.assembly import make
from lexarium.studies.cohorts import train_together
from lexarium.studies.roofline import machine, operations_per_token
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.training.captured import CapturedProgram
from lexarium.training.cohort import Cohort
from lexarium.training.signals import StopFlag
from lexarium.training.step import set_precision
from lexarium.training.trainer import Trainer
from seed_step import GPT2, PUBLISHED
from sides import trainer_of, work_for

LONG_STEPS = 300_000
CORPUS = {"type": "question_formation", "sizes": {"train": 100_000, "val": 1000, "test": 0, "ood": 1000}}


class Bench:
    """Options, device and sizes of one call."""

    def __init__(self, options: Any, folder: Path) -> None:
        self.options, self.folder, self.smoke = options, folder, options.smoke
        self.device = torch.device("cpu" if self.smoke else "cuda")
        self.steps = 3 if self.smoke else options.steps
        self.rounds = 1 if self.smoke else options.rounds

    # -- sides ---------------------------------------------------------------------------------------

    def seed(self, shape: dict[str, Any], dropout: float, lr: float) -> tuple[Trainer, Any]:
        """Our captured trainer of the seed step and the peer's work."""
        small = {"n_layers": 1, "d_model": 32, "n_heads": 2} if self.smoke else {}
        corpus = registry.find("corpus", "question_formation").Config(
            sizes={"train": 400 if self.smoke else 8000, "val": 0, "test": 0, "ood": 0}
        )
        tokenizer = registry.find("tokenizer", "word").Config()
        store = prepare(corpus, tokenizer, self.folder / "stores")
        objective = Causal(Causal.Config(), open_tokenizer(tokenizer, store.folder))
        inner = 0.0 if shape is GPT2 else None
        config = Transformer.Config(**shape | small, dropout=dropout, feed_forward_dropout=inner)
        packing = make("packing", registry.find("packing", "documents").Config())
        return self._both(config, store.view("train"), packing, objective, batch=8, lr=lr, eps=1e-7)

    def medium(self, shape: dict[str, Any], length: int, batch: int) -> tuple[Trainer, Any]:
        """Our captured bf16 trainer of a GPT on random words, and the peer's work."""
        if self.smoke:
            shape, length, batch = {"n_layers": 1, "d_model": 32, "n_heads": 2}, 32, 2
        tokenizer = registry.find("tokenizer", "word").Config()
        store = prepare(RandomWords.Config(documents=400 if self.smoke else 4000), tokenizer, self.folder)
        objective = Causal(Causal.Config(bos=False, eos=False), open_tokenizer(tokenizer, store.folder))
        windows = registry.find("packing", "windows").Config(seq_len=length + 1, separator=False)
        config = Transformer.Config(preset="gpt2", **shape, dropout=0.0, max_positions=length)
        return self._both(
            config, store.view("train"), make("packing", windows), objective, batch=batch, lr=6e-4, eps=1e-8,
            precision="bf16",
        )  # fmt: skip

    def _both(self, config: Any, view: Any, packing: Any, objective: Any, **how: Any) -> tuple[Trainer, Any]:
        set_precision(how.get("precision", "fp32"))
        trainer, loader, model = trainer_of(config, view, packing, objective, device=self.device, **how)
        n = max(20, 2 * self.steps)
        work = work_for(config, model, loader, objective, steps=n, device=str(self.device), **how)
        program = trainer.program
        trainer.program = CapturedProgram(
            program.step, program.optimizer, device=self.device, precision=how.get("precision", "fp32"),
            clip_norm=1.0, compiled=not self.smoke,
        )  # fmt: skip
        return trainer, work

    # -- measuring -----------------------------------------------------------------------------------

    def seconds(self, work: Callable[[], Any]) -> float:
        """Wall seconds of a call, the device's work included."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def block(self, trainer: Trainer) -> Callable[[], None]:
        """A block of our steps, their numbers read at its end as at a log line."""

        def run() -> None:
            for _ in range(self.steps):
                trainer.advance()
            trainer.settle()

        return run

    def alternate(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[dict[str, float]]:
        """Seconds of blocks in turn; one block of each goes first and does not count."""
        ours(), theirs()
        pairs = [(self.seconds(ours), self.seconds(theirs)) for _ in range(self.rounds)]
        return [{"our_wall": a, "their_wall": b} for a, b in pairs]

    def parity(self, trainer: Trainer, peer: Callable[[int], float], bound: float) -> dict[str, Any]:
        """First 20 losses of both sides."""
        found: dict[str, list[float]] = {"ours": [], "theirs": []}
        take = trainer._take
        trainer._take = lambda result: (found["ours"].append(result.losses["ce"]), take(result))  # type: ignore
        for i in range(20):
            trainer.advance()
            found["theirs"].append(peer(i))
        trainer.settle()
        trainer._take = take  # type: ignore[method-assign]
        return common.parity(found, bound)

    def write(self, name: str, **values: Any) -> None:
        """A result, or its gist when nothing is to be written."""
        if self.smoke:
            print(name, {k: values[k] for k in ("ours", "theirs", "ratio", "parity")}, flush=True)
        else:
            common.write(name, **{**goals.entry(name), **values}, folder=self.options.output)


# --- S3 ---------------------------------------------------------------------------------------------


def seed_step(bench: Bench, name: str, shape: dict[str, Any], peer: str) -> None:
    """Our captured step against a peer's eager one."""
    function, title = common.find_peer(peer)
    trainer, work = bench.seed(shape, 0.0, 1e-5)
    parity = bench.parity(trainer, function(work), 1e-4)
    trainer, work = bench.seed(shape, 0.1, 1e-4)
    step = function(work)
    rounds = bench.alternate(bench.block(trainer), lambda: [step(i) for i in range(bench.steps)])
    ours, theirs = common.median(rounds, "our_wall"), common.median(rounds, "their_wall")
    bench.write(
        name, peer=title, ours=bench.steps / ours, theirs=bench.steps / theirs, ratio=theirs / ours, rounds=rounds,
        parity=parity,
    )  # fmt: skip


def long_runs(bench: Bench, seeds: int) -> tuple[float, list[dict[str, float]]]:
    """Minutes of 300,000 steps of the study with evaluations every 2,000, for so many seeds at once; extrapolated.

    Two lengths of real runs are timed; their difference leaves start and compilation out.
    """
    steps = 6 if bench.smoke else max(5000, bench.options.long)
    times = []
    for number, n in enumerate((steps // 3, steps)):
        runs = [
            Run.create(_study_run(bench, seed, n), bench.folder / f"runs-{seeds}-{number}")
            for seed in range(seeds)
        ]
        flag = StopFlag()
        work = lambda runs=runs, flag=flag: train_together(runs, flag) if seeds > 1 else runs[0].train(flag)
        times.append(bench.seconds(work))
    per_step = (times[1] - times[0]) / (steps - steps // 3)
    rounds = [{"our_wall": t} for t in times]
    return LONG_STEPS * per_step / 60, rounds


def _study_run(bench: Bench, seed: int, steps: int) -> RunConfig:
    small = {"n_layers": 1, "d_model": 32, "n_heads": 2} if bench.smoke else {}
    sizes = {"train": 400, "val": 10, "test": 0, "ood": 10} if bench.smoke else CORPUS["sizes"]
    every = 2 if bench.smoke else 2000
    data = {
        "corpus": {**CORPUS, "sizes": sizes},
        "packing": {"type": "documents", "max_length": 62},
        "model": {"type": "transformer", **PUBLISHED, **small, "dropout": 0.1},
        "optimizer": {"type": "adamw", "lr": 1e-4, "eps": 1e-7},
        "train": {"max_steps": steps, "global_batch_size": 8, "clip_norm": 1.0, "log_every": 100},
        "plan": {"device": bench.device.type, "workers": 0 if bench.smoke else 2},
        "checkpoint": {"minutes": 0},
        "evaluations": [
            {"type": "loss", "every": every},
            {"type": "rule_choice", "every": every, "items": False},
        ],
        "seed": seed,
    }
    return validate(RunConfig, Source(data))


def seed_run(bench: Bench) -> None:
    """S3: minutes of one run."""
    minutes, rounds = long_runs(bench, 1)
    bench.write(
        "seed-run-gpu", ours=minutes, theirs=None, ratio=4 / minutes, rounds=rounds, parity=None,
        extrapolated_from=rounds,
    )  # fmt: skip


# --- S4, S5 -----------------------------------------------------------------------------------------


def cohort_20(bench: Bench) -> None:
    """S4: twenty seeds at once, against the original one after another."""
    minutes, rounds = long_runs(bench, 3 if bench.smoke else 20)
    bench.write("cohort-20-gpu", ours=minutes, theirs=None, ratio=40 / minutes, rounds=rounds, parity=None)
    function, title = common.find_peer(bench.options.peer_original)
    _, work = bench.seed(PUBLISHED, 0.1, 1e-4)
    step = function(work)
    block = lambda: [step(i) for i in range(bench.steps)]
    block()
    each = statistics.median(bench.seconds(block) for _ in range(bench.rounds)) / bench.steps
    theirs = 20 * LONG_STEPS * each / 60
    bench.write(
        "cohort-20-gpu-original", peer=title, ours=minutes, theirs=theirs, ratio=theirs / minutes,
        rounds=[*rounds, {"their_wall": each}], parity=None,
    )  # fmt: skip


def cohort_32(bench: Bench) -> None:
    """S5: thirty-two 2 x 128 models at once, against our own captured solo run."""
    shape = {**GPT2, "n_layers": 2, "d_model": 128, "n_heads": 4}
    n = 3 if bench.smoke else 32
    solo, _ = bench.seed(shape, 0.1, 1e-3)
    members = [bench.seed(shape, 0.1, 1e-3)[0] for _ in range(n)]
    rules = [make("optimizer", registry.find("optimizer", "adamw").Config(lr=1e-3, eps=1e-7))] * n
    losses: list[list[float]] = [[], []]
    for found, trainer in zip(losses, (solo, members[0]), strict=True):
        take = trainer._take
        trainer._take = lambda r, f=found, t=take: (f.append(r.losses["ce"]), t(r))  # type: ignore
    template = template_of([t.program.step.model for t in members])
    cohort = Cohort(members, rules, template=template, device=bench.device, compiled=not bench.smoke)

    def together() -> None:
        for _ in range(bench.steps):
            cohort.advance([t.batches() for t in members])
        for trainer in members:
            trainer.settle()

    rounds = bench.alternate(together, bench.block(solo))
    pairs = list(zip(*losses, strict=False))[:20]
    worst = max(abs(a - b) / b for a, b in pairs)
    ours, theirs = common.median(rounds, "our_wall"), common.median(rounds, "their_wall")
    bench.write(
        "cohort-32-gpu", ours=n * bench.steps / ours, theirs=bench.steps / theirs, ratio=n * theirs / ours, rounds=rounds,
        parity={"steps": len(pairs), "bound": 1e-3, "worst_relative": worst, "passed": worst <= 1e-3},
    )  # fmt: skip


# --- S7 ---------------------------------------------------------------------------------------------


def gpt(bench: Bench, name: str, shape: dict[str, Any], length: int, batch: int, limit: float) -> None:
    """Tokens per second against the compiled peer, and the part of the peak that is used."""
    function, title = common.find_peer(bench.options.peer_nanogpt)
    trainer, work = bench.medium(shape, length, batch)
    if not bench.smoke:
        torch._dynamo.config.cache_size_limit = 32
    parity = bench.parity(trainer, function(work), 2e-2)
    step = function(work)
    rounds = bench.alternate(bench.block(trainer), lambda: [step(i) for i in range(bench.steps)])
    ours, theirs = common.median(rounds, "our_wall"), common.median(rounds, "their_wall")
    batch_now = trainer.batches()[0]
    tokens = bench.steps * batch_now.n_tokens
    used = tokens / ours * operations_per_token(trainer.program.step, batch_now)
    mfu = used / machine(bench.device, "bf16").flops
    if f"{name}-nanogpt" in {c.name for c in goals.COMPARISONS}:
        bench.write(
            f"{name}-nanogpt", peer=title, ours=tokens / ours, theirs=tokens / theirs, ratio=theirs / ours, rounds=rounds,
            parity=parity,
        )  # fmt: skip
    bench.write(f"{name}-mfu", ours=mfu, theirs=None, ratio=mfu / limit, rounds=rounds, parity=parity)


# --- all --------------------------------------------------------------------------------------------


WORK: dict[str, Callable[[Bench], None]] = {
    "S3-original": lambda b: seed_step(b, "seed-step-gpu-original", PUBLISHED, b.options.peer_original),
    "S3-nanogpt": lambda b: seed_step(b, "seed-step-gpu-nanogpt", GPT2, b.options.peer_nanogpt),
    "S3-run": seed_run,
    "S4": cohort_20,
    "S5": cohort_32,
    "S7-124m": lambda b: gpt(b, "gpt124m-gpu", {"n_layers": 12, "n_heads": 12, "d_model": 768}, 1024, 16, 0.45),
    "S7-50m": lambda b: gpt(b, "gpt50m-gpu", {"n_layers": 8, "n_heads": 8, "d_model": 512}, 2048, 16, 0.42),
}  # fmt: skip


def main() -> None:
    """Measure what is asked for; one that fails does not keep the others from it."""
    parser = common.arguments(__doc__)
    parser.add_argument("--only", nargs="*", choices=WORK, default=list(WORK), metavar="NAME")
    parser.add_argument("--steps", type=int, default=500, help="steps per block")
    parser.add_argument("--long", type=int, default=6000, help="steps of the runs that are extrapolated from")
    parser.add_argument("--peer-original", default="peers.original_loop:make", metavar="MODULE:FUNCTION")
    parser.add_argument("--peer-nanogpt", default="peers.plain_gpt:make", metavar="MODULE:FUNCTION")
    parser.add_argument("--smoke", action="store_true", help="tiny and on the CPU; writes nothing")
    options = parser.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        sys.exit("no CUDA device here; these goals stay open (--smoke tries the script on the CPU)")
    common.each(options.only, lambda name, folder: WORK[name](Bench(options, folder)))


if __name__ == "__main__":
    main()
