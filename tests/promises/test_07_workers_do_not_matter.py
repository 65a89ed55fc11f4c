"""Promise 7: 0, 1 or 4 loader workers give identical batches, dropout keys included, in whatever order they are
asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import ENCODER_DECODER, tiny_config, tiny_run

from lexarium.foundation.types import Batch
from lexarium.studies.run import Run
from lexarium.training.parallel import World
from phonemes import JOINED

STEPS = 50
DATA: dict[str, dict[str, Any]] = {
    "documents": {},
    "windows": {
        "packing": {"type": "windows", "seq_len": 20},
        "objective": {"type": "causal", "document_mask": True},
    },
    "backward": {"direction": {"type": "backward"}},
    "permutation": {
        "packing": {"type": "windows", "seq_len": 20, "stride": 7},
        "direction": {"type": "permutation", "seed": 3},
        "evaluations": [{"type": "window_loss"}],
    },
    "both": {"direction": {"type": "both"}},
    "both over windows": {"packing": {"type": "windows", "seq_len": 20}, "direction": {"type": "both"}},
    "window_shuffle": {
        "packing": {"type": "window_shuffle", "seq_len": 20, "held_out": 9},
        "direction": {"type": "both"},
    },
    "utterances joined anew": JOINED,
    "seq2seq": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "several epochs per batch": {"view": {"quotas": [{"where": {"kind": ["decl", "quest"]}, "count": 5}]}},
}


def with_workers(run: Run, workers: int) -> Run:
    plan = run.config.plan.model_copy(update={"workers": workers})
    return Run(run.path, run.config.model_copy(update={"plan": plan}))


def plain(batches: list[Batch]) -> list[dict[str, Any]]:
    """Everything a batch holds, comparable."""
    listed = lambda tensors: {k: (v.dtype, v.tolist()) for k, v in tensors.items()}
    return [
        {
            "in": listed(b.inputs),
            "out": listed(b.targets),
            "weights": b.weights,
            "ids": b.examples,
            "n": b.n_tokens,
        }
        for b in batches
    ]


@pytest.mark.parametrize("data", DATA)
def test_the_first_batches_are_identical(data: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, tiny_config(**DATA[data]))
    expected: list[Any] = []
    for workers in (0, 1, 4):
        loader = with_workers(run, workers).parts().loader(World(), keyed=True)
        assert any("key" in name for b in loader.batches(0) for name in b.inputs)
        found = [plain(loader.batches(step)) for step in range(STEPS)]
        loader.close()
        expected = expected or found
        assert found == expected, f"{workers} workers"
    assert len({str(batch) for batch in expected}) == STEPS, "batches repeat"


def test_jumping_about_gives_the_same(tmp_path: Path) -> None:
    """Resuming asks for a step out of order; what was computed ahead for other steps must not be used."""
    run = tiny_run(tmp_path)
    single = run.parts().loader(World(), keyed=True)
    several = with_workers(run, 4).parts().loader(World(), keyed=True)
    for step in (0, 1, 7, 3, 4, 40, 2, 41):
        assert plain(several.batches(step)) == plain(single.batches(step))
    several.close()


def test_ranks_and_micro_batches_cut_the_same_batch(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={"global_batch_size": 10, "micro_batch_size": 3})
    whole = run.parts().loader(World(), keyed=True)
    keys = lambda batches: torch.cat([b.inputs["token_key"].flatten() for b in batches]).unique()
    for step in range(20):
        shares = [run.parts().loader(World(rank, 3), keyed=True).batches(step) for rank in range(3)]
        assert [len(b.examples) for b in shares[0]] == [3, 1]
        ids = [i for share in shares for b in share for i in b.examples]
        assert ids == whole.numbers(step).tolist() == list(range(10 * step, 10 * step + 10))
        assert torch.equal(keys([b for share in shares for b in share]), keys(whole.batches(step)))


def test_an_error_in_a_worker_reaches_the_trainer(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, objective={"type": "seq2seq", "channel": "absent"}, model=ENCODER_DECODER)
    loader = with_workers(run, 4).parts().loader(World(), keyed=True)
    with pytest.raises(Exception, match="no channel 'absent'"):
        loader.batches(0)
    loader.close()


def test_many_threads_may_ask_for_many_epochs(tmp_path: Path) -> None:
    """With five documents every step spans epochs, and plans of old epochs are forgotten."""
    run = tiny_run(tmp_path, tiny_config(**DATA["several epochs per batch"]))
    loader = run.parts().loader(World(), keyed=True)
    assert loader.examples_per_epoch == 5
    asked = np.random.default_rng(0).integers(0, 400, 800).tolist()
    expected = [loader.example(i).documents for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: loader.example(i).documents, asked))
    assert found == [expected[i] for i in asked]
