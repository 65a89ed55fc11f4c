"""Goal S15: what logging, evaluation hooks, status and checkpoint policy add to the bare step.

A run of a 3 x 128 model takes blocks of 50 steps with all its listeners attached, where nothing falls due but the log
lines (every 50 steps). The clock is read around every step and around every boundary between steps, so that both
are timed under the same conditions. The ratio is steps / (steps + boundaries); the goal is at most 2 % more, so 0.98.
Parity: a trainer without listeners has equal weights after the same steps.

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

        with run.attempt(World(), say=lambda message: None, progress=lambda step: None) as attempt:
            full = Session(attempt, StopFlag(), World()).trainer
            rounds = []
            for _ in range(options.rounds + 1):  # the first warms up
                found = {"step_cpu": 0.0, "boundary_cpu": 0.0, "step_wall": 0.0, "boundary_wall": 0.0}
                for _ in range(STEPS):
                    for what, work in (("step", full.advance), ("boundary", full.boundary)):
                        cpu, wall = common.timed(work)
                        found[f"{what}_cpu"] += cpu
                        found[f"{what}_wall"] += wall
                rounds.append(found)
            for _ in range(full.step):
                bare.advance()
            equal = all(
                torch.equal(a, b)
                for a, b in zip(full.program.parameters, bare.program.parameters, strict=True)
            )
    rounds = [r | {"whole_cpu": r["step_cpu"] + r["boundary_cpu"]} for r in rounds[1:]]
    ours, theirs = common.median(rounds, "whole_cpu"), common.median(rounds, "step_cpu")
    common.write(
        "overhead", **goals.entry("overhead"), ours=ours, theirs=theirs, ratio=theirs / ours, rounds=rounds,
        parity={"passed": equal, "what": "equal weights after equal steps"}, folder=options.output,
    )  # fmt: skip


if __name__ == "__main__":
    main()
