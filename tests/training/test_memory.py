"""Large models: recomputed activations change nothing but memory, and say where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, record, tiny_run

from lexarium.foundation.types import UserError
from lexarium.studies.roofline import work_of
from lexarium.studies.session import build_trainer


@pytest.mark.parametrize(
    "arm", [{"model": TRANSFORMER}, {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}}]
)
def test_recomputed_activations_give_the_same_run_to_the_bit(arm: dict, tmp_path: Path) -> None:
    """Dropout on: what is computed again drops the same values."""
    plain, again = tiny_run(tmp_path / "a", **arm), tiny_run(tmp_path / "b", plan={"recompute": True}, **arm)
    assert plain.path.name == again.path.name, "it does not change the science"
    plain.train(), again.train()
    assert record(plain) == record(again)


def test_less_is_kept(tmp_path: Path) -> None:
    kept = []
    model = {**TRANSFORMER, "n_layers": 4}
    for recompute in (False, True):
        run = tiny_run(tmp_path / str(recompute), model=model, plan={"recompute": recompute})
        trainer, _ = build_trainer(run.config, run.parts(), torch.device("cpu"))
        kept.append(work_of(trainer.program.step, trainer.batches()[0]).kept)
    assert kept[1] < 0.5 * kept[0]


def test_a_model_without_this_is_refused(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, model=RECURRENT, plan={"recompute": True})
    with pytest.raises(UserError, match="plan.recompute: Recurrent cannot compute its activations again"):
        run.train()
    assert run.files.status()["state"] == "waiting"
