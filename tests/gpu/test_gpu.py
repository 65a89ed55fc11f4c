"""What only a CUDA device can show: graphs that are really captured, cohorts compiled and captured, the variable-length
kernel. `pytest -m gpu` runs it; nothing here has been run by the project's own CI, which has no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import ENCODER_DECODER, TRANSFORMER, checkpoint_record, record, tiny_run
from tests.promises.test_26_cohorts import ARMS, check_equal, member_configs, runs, stop_at, together

from lexarium.foundation.rng import torch_generator
from lexarium.models.attention import Rule, document_attention, fused_attention
from lexarium.studies.cohorts import train_together
from lexarium.studies.session import build_trainer
from lexarium.training.captured import CapturedProgram
from lexarium.training.signals import StopFlag
from lexarium.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
PLAN = {"device": "cuda"}


def trainer(folder: Path, captured: bool, **options: Any) -> Trainer:
    """Eager or captured, on the device."""
    run = tiny_run(folder, train={"max_steps": 30, "clip_norm": 0.5}, **options)
    found, _ = build_trainer(run.config, run.parts(), CUDA)
    if captured:
        eager = found.program
        found.program = CapturedProgram(eager.step, eager.optimizer, device=CUDA, clip_norm=0.5)
    return found


@pytest.mark.parametrize("arm", ["post norm, documents", "rotary, windows", "encoder and decoder"])
def test_captured_steps_equal_eager_ones(arm: str, tmp_path: Path) -> None:
    eager, captured = (trainer(tmp_path, kind, **ARMS[arm]) for kind in (False, True))
    assert eager.fit() and captured.fit()
    captured.settle()
    graphs = [g for g in captured.program._replays._graphs.values() if g is not None]
    assert graphs, "steps were replayed"
    assert captured.window.means() == pytest.approx(eager.window.means(), rel=1e-4)
    for a, b in zip(eager.program.step.parameters(), captured.program.step.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_a_captured_run_is_exact_through_an_interruption(tmp_path: Path) -> None:
    whole, cut = tiny_run(tmp_path / "a", plan=PLAN), tiny_run(tmp_path / "b", plan=PLAN)
    whole.train()
    assert json.loads((whole.path / "plan.json").read_text())["program"] == "captured"
    flag = StopFlag()
    cut.train(flag, progress=lambda step: flag.raise_flag("enough", 124) if step == 7 else None)
    cut.train()
    assert record(whole) == record(cut)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_step_that_is_not_finite_is_held_on_the_device(policy: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "optimizer": {"type": "adamw", "lr": 1e38},
        "schedule": {"type": "constant"},
        "train": {"max_steps": 20, "non_finite": policy, "clip_norm": 0.0},
    }
    run = tiny_run(tmp_path, plan=PLAN, **options)
    if policy == "stop":
        with pytest.raises(Exception, match=r"step \d+: .*no parameter was changed"):
            run.train()
    else:
        assert run.train() == "done"
        assert "step was not finite" in (run.path / "events.jsonl").read_text()


@pytest.mark.parametrize("arm", ["post norm, documents", "pre norm, biases"])
def test_a_cohort_on_the_device_equals_solo_runs(arm: str, tmp_path: Path) -> None:
    configs = member_configs(ARMS[arm], clip=0.3)
    members = together(tmp_path, configs, torch.float32, CUDA, compiled=True)
    for config, member in zip(configs, members, strict=True):
        run = tiny_run(tmp_path, config)
        alone, _ = build_trainer(run.config, run.parts(), CUDA)
        assert alone.fit()
        assert member.window.means() == pytest.approx(alone.window.means(), rel=1e-3)


def test_directories_of_members_and_an_interruption(tmp_path: Path) -> None:
    plan = {"device": "cuda", "cohort": 3}
    whole, cut, alone = (runs(tmp_path / name, plan=plan) for name in "abc")
    train_together(whole, StopFlag())
    flag, progress = stop_at(7)
    train_together(cut, flag, progress=progress)
    train_together(cut, StopFlag())
    for a, b, c in zip(whole, cut, alone, strict=True):
        last = [sorted((run.path / "checkpoints").iterdir())[-1] for run in (a, b)]
        assert checkpoint_record(last[0]) == checkpoint_record(last[1])
        c.train()
        check_equal(a, c)


def test_the_variable_length_kernel_equals_the_mask() -> None:
    lengths = [5, 130, 1, 64, 56]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    segment = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))[None].to(CUDA)
    make = lambda seed: torch.randn(1, 2, 256, 64, generator=torch_generator(seed, "q")).to(
        CUDA, torch.bfloat16
    )
    q, k, v = (make(seed).requires_grad_() for seed in range(3))
    masked = fused_attention(q.float(), k.float(), v.float(), Rule(True, segment, segment))
    flat = lambda x: x[0].transpose(0, 1)
    filled = torch.cat([ends, ends[-1:].expand(58)]).to(CUDA)
    found = document_attention(flat(q), flat(k), flat(v), filled, 256)
    torch.testing.assert_close(found.float(), flat(masked), rtol=2e-2, atol=2e-2)
    found.float().square().sum().backward()
    assert all(bool(torch.isfinite(x.grad).all()) for x in (q, k, v))


def test_bf16_and_tf32_train(tmp_path: Path) -> None:
    for precision in ("bf16", "tf32"):
        run = tiny_run(tmp_path, plan=PLAN, model=TRANSFORMER, train={"precision": precision})
        assert run.train() == "done"
        assert json.loads((run.path / "plan.json").read_text())["precision"] == precision


@pytest.mark.parametrize("arm", ["transformer", "lstm", "gru", "encoder_decoder"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_reading_in_pieces_on_a_device(arm: str, precision: str, tmp_path: Path) -> None:
    """Log-probabilities step by step, rows of unequal length of which some end: pieces against whole rows."""
    options: dict[str, Any] = {"model": {"type": "recurrent", "cell": arm, "d_model": 16}}
    if arm == "transformer":
        options = {}
    elif arm == "encoder_decoder":
        options = {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}}
    run = tiny_run(tmp_path, train={"max_steps": 2, "precision": precision}, plan=PLAN, **options)
    run.train()
    s = run.scorer()
    assert s.device.type == "cuda"
    texts = ["my raven does sleep .", "her newt", "my raven that her newt does admire does change ."]
    ((going, pieces),) = s._readings([s._row(i, t) for i, t in enumerate(texts)], 20)
    for step in range(12):
        with s._inference():
            (found, lengths), (expected, wanted) = pieces(going), s._whole(going)
        assert lengths == wanted
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if precision == "fp32" else 0.1)
        for row, token in zip(going, expected.argmax(-1).tolist(), strict=True):
            row.ids.append(token)
        going = going[1:] if step == 6 else going
