"""Precision: bf16 autocast trains and resumes on a CPU; fp16 is refused there, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.builders import ENCODER_DECODER, RECURRENT, TRANSFORMER, record, tiny_run

from lexarium.foundation.types import UserError
from lexarium.training import checkpoint
from lexarium.training.parallel import check_precision, choose_device
from lexarium.training.signals import StopFlag
from lexarium.training.step import autocast

ARMS = {
    "transformer": {"model": TRANSFORMER},
    "recurrent": {"model": RECURRENT},
    "encoder_decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
}


@pytest.mark.parametrize("arm", ARMS)
def test_bf16_trains_near_fp32_and_keeps_float32_weights(arm: str, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        run = tiny_run(tmp_path, **ARMS[arm], train={"precision": precision, "log_every": 1})
        assert run.train() == "done"
        losses[precision] = [m["train.ce"] for m in run.files.metrics()]
        tensors = load_file(checkpoint.directory(run.path, 12) / "model.safetensors")
        assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"], "autocast did nothing"


def test_bf16_resumes_exactly(tmp_path: Path) -> None:
    settings = {"train": {"precision": "bf16"}}
    whole, cut = tiny_run(tmp_path / "whole", **settings), tiny_run(tmp_path / "cut", **settings)
    whole.train()
    flag = StopFlag()
    assert cut.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 7 else None) == "preempted"
    assert cut.train() == "done"
    assert record(cut) == record(whole)


def test_precision_is_part_of_the_name(tmp_path: Path) -> None:
    assert tiny_run(tmp_path).path.name != tiny_run(tmp_path, train={"precision": "bf16"}).path.name


def test_fp16_is_refused_on_a_cpu(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={"precision": "fp16"})
    with pytest.raises(
        UserError, match=r"train\.precision fp16 needs a CUDA device \(found cpu\); use bf16 or fp32"
    ):
        run.train()
    assert run.files.status()["state"] == "waiting"
    assert not (run.path / "checkpoints").exists() and not (run.path / "metrics.jsonl").exists()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mps_takes_neither(precision: str) -> None:
    with pytest.raises(UserError, match=precision):
        check_precision(precision, torch.device("mps"))


def test_a_device_that_is_not_there_is_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"plan\.device: 'cuda' is not available here \(available: .*cpu"):
            choose_device("cuda")
    with pytest.raises(UserError, match="'abacus' is not available"):
        choose_device("abacus")
    assert choose_device("cpu").type == "cpu"


def test_fp32_ignores_an_outer_autocast() -> None:
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        with autocast(torch.device("cpu"), "fp32"):
            assert (a @ b).dtype == torch.float32
