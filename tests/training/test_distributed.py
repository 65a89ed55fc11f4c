"""Two processes with gloo: the gradients of one process, and a training equal to it within rounding.

Ragged batches that do not divide evenly, accumulation, dropout on. A stop asked of one rank stops all at
the same step, and a run may go on with another number of processes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests import processes
from tests.builders import ENCODER_DECODER, RECURRENT, STACK, tiny_run

from lexarium.foundation.files import read_lines
from lexarium.models.build import build_model
from lexarium.studies.run import Run
from lexarium.training import checkpoint
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.signals import REQUEUE, StopFlag
from lexarium.training.step import TrainStep

pytestmark = pytest.mark.distributed

CPU = torch.device("cpu")
BATCH, MICRO = 7, 2  # two ranks hold 4 and 3 examples: micro-batches 2 + 2 and 2 + 1
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"model": {"type": "transformer", **STACK, "dropout": 0.3}},
    "recurrent": {"model": {**RECURRENT, "dropout": 0.3}},
    "encoder_decoder": {"model": {**ENCODER_DECODER, "dropout": 0.3}, "objective": {"type": "seq2seq"}},
}


def gradients(paths: list[str]) -> list[tuple[dict[str, np.ndarray], dict[str, float], list[int]]]:
    """Per run, in float64: the gradients of two steps added up, the summed losses, this rank's example numbers."""
    world = World.from_environment()
    world.start(CPU)
    torch.set_num_threads(1)
    found = []
    for path in paths:
        run = Run.open(path)
        parts = run.parts()
        model = build_model(run.config.model, parts.objective.vocab_size, seed=3).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        program = EagerProgram(TrainStep(model, parts.objective), optimizer, device=CPU, world=world)
        loader = parts.loader(world, keyed=True)
        totals: dict[str, float] = {}
        for step in (0, 1):
            batches = loader.batches(step)
            denominators = program._denominators(batches)
            sums = program._gradients(batches, denominators)
            for name, value in world.sum({k: float(v) for k, v in sums.items()}, CPU).items():
                totals[f"{name} at {step}"] = value / denominators[name]
        numbers = [int(i) for step in (0, 1) for i in loader.own(step)]
        found.append(({n: p.grad.numpy() for n, p in model.named_parameters()}, totals, numbers))
        del program  # see World.stop
    world.barrier()
    world.stop()
    return found


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    runs = [
        tiny_run(tmp_path / name, **options, train={"global_batch_size": BATCH, "micro_batch_size": MICRO})
        for name, options in MODELS.items()
    ]
    for run in runs:
        _ = run.parts().store  # prepared once, so that the ranks only read it
    paths = [str(run.path) for run in runs]
    alone, both = gradients(paths), processes.ranks(gradients, 2, paths)
    for i in range(len(runs)):
        expected, losses, numbers = alone[i]
        assert sorted(both[0][i][2] + both[1][i][2]) == numbers
        assert len(both[0][i][2]) == 8 and len(both[1][i][2]) == 6
        for rank in both:
            found, its_losses, _ = rank[i]
            assert its_losses == pytest.approx(losses, rel=1e-12)
            for name, value in expected.items():
                assert value.dtype == np.float64
                scale = np.abs(value).max()
                np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12 * scale, err_msg=name)


def train(path: str, stop_rank: int | None = None, stop_at: int = 0) -> tuple[str, int]:
    """Train as one of the ranks; a stop may be asked of one of them only. Rank 1 comes late to every evaluation."""
    flag, rank = StopFlag(), World.from_environment().rank

    def progress(step: int) -> None:
        if rank == 1 and step % 4 == 0:
            time.sleep(0.2)
        if rank == stop_rank and step == stop_at:
            flag.raise_flag("test", REQUEUE)

    try:
        return Run.open(path).train(flag, progress=progress), rank
    finally:
        World.from_environment().stop()


SETTINGS = {"train": {"global_batch_size": BATCH, "micro_batch_size": MICRO, "log_every": 1}}


def assert_close(run: Run, other: Run) -> None:
    """Metrics, evaluations and weights within rounding of float32; what is counted is equal."""
    for a, b in zip(run.files.metrics(), other.files.metrics(), strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            exact = name in ("step", "epoch", "tokens", "lr", "skipped", "non_finite")
            assert a[name] == (value if exact else pytest.approx(value, rel=1e-5)), name
    for (name, step, metrics), (_, _, others) in zip(
        run.files.evaluations(), other.files.evaluations(), strict=True
    ):
        assert metrics == pytest.approx(others, rel=1e-5), (name, step)
    ours, theirs = (load_file(checkpoint.directory(r.path, 12) / "model.safetensors") for r in (run, other))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    alone, both = tiny_run(tmp_path / "alone", **SETTINGS), tiny_run(tmp_path / "both", **SETTINGS)
    alone.train()
    assert processes.ranks(train, 2, str(both.path)) == [("done", 0), ("done", 1)]
    assert_close(both, alone)
    assert not list((both.path / "checkpoints").glob(".*"))
    assert [e["event"] for e in read_lines(both.path / "events.jsonl")] == ["start", "done"]


def test_a_stop_asked_of_one_rank_stops_all_and_the_run_goes_on_alone(tmp_path: Path) -> None:
    alone, moved = tiny_run(tmp_path / "alone", **SETTINGS), tiny_run(tmp_path / "moved", **SETTINGS)
    alone.train()
    assert processes.ranks(train, 2, str(moved.path), 1, 6) == [("preempted", 0), ("preempted", 1)]
    assert moved.files.status()["step"] == 6
    assert checkpoint.newest(moved.path) == (6, [])
    assert moved.train() == "done"
    assert_close(moved, alone)
    changed = [e for e in read_lines(moved.path / "events.jsonl") if e["event"] == "plan changed"]
    assert changed[0]["changed"]["world_size"] == [2, 1]
