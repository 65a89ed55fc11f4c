"""Goal S15: what logging, evaluation hooks, status and checkpoint policy add to the bare step.

The same 3 x 128 model takes the same steps twice: by `Trainer.advance` alone, and by `Trainer.fit` with all the
listeners of a run, where nothing falls due but the log lines (every 50 steps). Blocks of 50 steps alternate. The
ratio is bare time / time with listeners; the goal is at most 2 % more, so 0.98.

    python benchmarks/overhead.py [--rounds 7]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import common
import goals
from lexarium.foundation.config import Source, validate
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig
from lexarium.studies.session import Session, build_trainer
from lexarium.training.host import settle
from lexarium.training.parallel import World
from lexarium.training.signals import StopFlag

STEPS = 50
CONFIG = {
    "corpus": {"type": "question_formation", "sizes": {"train": 8000, "val": 100, "test": 0, "ood": 100}},
    "packing": {"type": "documents", "max_length": 48},
    "model": {"type": "transformer", "preset": "gpt2", "n_layers": 3, "n_heads": 4, "d_model": 128, "d_ff": 512,
              "max_positions": 64},
    "train": {"max_steps": 1_000_000, "global_batch_size": 32, "log_every": 50},
    "plan": {"device": "cpu"},
    "checkpoint": {"every": 0, "minutes": 60},
    "evaluations": [{"type": "loss"}, {"type": "rule_choice"}],
}  # fmt: skip


def main() -> None:
    """Measure and write the result."""
    options = common.arguments(__doc__, rounds=7).parse_args()
    settle(1)
    with tempfile.TemporaryDirectory() as name:
        run = Run.create(validate(RunConfig, Source(CONFIG)), Path(name))
        bare, _ = build_trainer(run.config, run.parts(), torch.device("cpu"))

        class Pause:
            def boundary(self, trainer: object) -> bool:
                return full.step > 0 and full.step % STEPS == 0 and full.step != self.begin

            begin = 0

        with run.attempt(World(), say=lambda message: None, progress=lambda step: None) as attempt:
            full = Session(attempt, StopFlag(), World()).trainer
            pause = Pause()
            full.listeners.append(pause)

            def with_listeners() -> None:
                pause.begin = full.step
                full.fit()

            def alone() -> None:
                for _ in range(STEPS):
                    bare.advance()

            with_listeners(), alone()
            rounds = []
            for _ in range(options.rounds):
                ours_cpu, ours_wall = common.timed(with_listeners)
                bare_cpu, bare_wall = common.timed(alone)
                rounds.append(
                    {"our_cpu": ours_cpu, "bare_cpu": bare_cpu, "our_wall": ours_wall, "bare_wall": bare_wall}
                )
            equal = all(
                torch.equal(a, b)
                for a, b in zip(full.program.parameters, bare.program.parameters, strict=True)
            )
    ours, theirs = common.median(rounds, "our_cpu"), common.median(rounds, "bare_cpu")
    common.write(
        "overhead", **goals.entry("overhead"), ours=ours, theirs=theirs, ratio=theirs / ours, rounds=rounds,
        parity={"passed": equal, "what": "equal weights after equal steps"}, folder=options.output,
    )  # fmt: skip


if __name__ == "__main__":
    main()
