"""Stacked optimisers against the library's, member by member, and the arithmetic of rooflines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import ENCODER_DECODER, TRANSFORMER, tiny_run
from torch import nn

from lexarium.foundation.types import UserError
from lexarium.models.flops import Counter
from lexarium.models.layers import Layout
from lexarium.studies.roofline import BYTES_PER_WEIGHT, GPUS, Machine, Work, machine, work_of
from lexarium.studies.session import build_trainer
from lexarium.training.optimizers import SGD, AdamW
from lexarium.training.parallel import check_precision

CPU = torch.device("cpu")
STEPS, WEIGHTS = 6, 5
unit = st.floats(0, 0.99)


def run_stacked(cls: Any, options: list[dict[str, Any]], start: torch.Tensor, gradients: torch.Tensor) -> Any:
    """(M, P) weights after all steps; every option a column."""
    columns = [cls(cls.Config(**o)).columns() for o in options]
    column = lambda values: torch.tensor([[v] for v in values], dtype=torch.float64)
    o = {k: column(c[k] for c in columns) for k in columns[0]}
    o["weight_decay"] = o["weight_decay"].expand_as(start)
    lr = column(x["lr"] for x in options)
    weight, state = start.clone(), {q: torch.zeros_like(start) for q in cls.stacked_state}
    for step in range(STEPS):
        count = torch.full_like(lr, step + 1)
        weight, state = cls.stacked_step(weight, gradients[step], state, count, lr, o)
    return weight


def run_alone(optimizer: Any, leaf: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    for gradient in gradients:
        leaf.grad = gradient.clone()
        optimizer.step()
    return leaf.detach()


@given(
    st.lists(
        st.tuples(st.floats(1e-5, 1), unit, unit, st.floats(1e-9, 1e-3), st.floats(0, 0.5)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=40, deadline=None)
def test_adamw(members: list[tuple[float, ...]]) -> None:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    start, gradients = draw(len(members), WEIGHTS), draw(STEPS, len(members), WEIGHTS)
    options = [{"lr": lr, "betas": (a, b), "eps": eps, "weight_decay": wd} for lr, a, b, eps, wd in members]
    found = run_stacked(AdamW, options, start, gradients)
    for i, o in enumerate(options):
        leaf = nn.Parameter(start[i].clone())
        expected = run_alone(torch.optim.AdamW([leaf], **o), leaf, gradients[:, i])
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-12)


@given(
    st.lists(st.tuples(st.floats(1e-5, 1), unit, st.booleans(), st.floats(0, 0.5)), min_size=1, max_size=4)
)
@settings(max_examples=40, deadline=None)
def test_sgd(members: list[tuple[float, float, bool, float]]) -> None:
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    start, gradients = draw(len(members), WEIGHTS), draw(STEPS, len(members), WEIGHTS)
    options = [
        {"lr": lr, "momentum": m, "nesterov": bool(n and m), "weight_decay": wd} for lr, m, n, wd in members
    ]
    found = run_stacked(SGD, options, start, gradients)
    for i, o in enumerate(options):
        leaf = nn.Parameter(start[i].clone())
        expected = run_alone(torch.optim.SGD([leaf], **o), leaf, gradients[:, i])
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-12)


# --- operations and rooflines -----------------------------------------------------------------------


def test_operations_of_a_transformer_against_a_closed_form(tmp_path: Path) -> None:
    """2 x weights x tokens for every matrix, 4 B T S D for every attention."""
    run = tiny_run(tmp_path, model={**TRANSFORMER, "n_layers": 2})
    trainer, _ = build_trainer(run.config, run.parts(), CPU)
    step, batch = trainer.program.step, trainer.batches()[0]
    b, t = batch.inputs["tokens"].shape
    d, ff, v, n = 16, 32, run.parts().objective.vocab_size, batch.n_tokens
    with Counter(step.model) as counter:
        step.terms(batch)
    assert counter.flops == 2 * (2 * n * (4 * d * d + 2 * d * ff) + 4 * b * t * t * d) + 2 * n * d * v
    step.terms(batch)
    assert counter.flops == 2 * (2 * n * (4 * d * d + 2 * d * ff) + 4 * b * t * t * d) + 2 * n * d * v, (
        "outside `with` nothing is counted"
    )


def test_operations_of_cross_attention_and_recurrence(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, model=ENCODER_DECODER, objective={"type": "seq2seq"})
    trainer, _ = build_trainer(run.config, run.parts(), CPU)
    batch = trainer.batches()[0]
    b, t = batch.inputs["tokens"].shape
    s, d, ff, v = batch.inputs["source"].shape[1], 16, 32, run.parts().objective.vocab_size
    n = batch.n_tokens
    m = int(batch.inputs["source_mask"].sum())
    with Counter(trainer.program.step.model) as counter:
        trainer.program.step.terms(batch)
    encoder = 2 * m * (4 * d * d + 2 * d * ff) + 4 * b * s * s * d
    decoder = 2 * n * (4 * d * d + 2 * d * ff) + 4 * b * t * t * d
    cross = 2 * (2 * n + 2 * m) * d * d + 4 * b * t * s * d
    assert counter.flops == encoder + decoder + cross + 2 * n * d * v
    gru = nn.GRU(8, 16, batch_first=True)
    with Counter(gru) as counter:
        gru(torch.zeros(3, 5, 8))
    assert counter.flops == 2 * 15 * 3 * 16 * (8 + 16)


def test_work_of_a_step(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    trainer, _ = build_trainer(run.config, run.parts(), CPU)
    step, batch = trainer.program.step, trainer.batches()[0]
    work = work_of(step, batch)
    weights = sum(p.numel() for p in step.parameters())
    assert work.bytes == BYTES_PER_WEIGHT * weights + 2 * work.kept and work.kept > 0
    assert all(p.grad is None for p in step.parameters())
    assert Layout.of(batch.inputs["tokens"], None).length == batch.inputs["tokens"].shape[1]


def test_a_bound_is_the_larger_of_two() -> None:
    here = machine(CPU, "fp32")
    assert here.source == "measured" and here.flops > 1e9 and here.bandwidth > 1e8
    assert Work(2 * here.flops, 0, 0).bound(here) == pytest.approx(2)
    assert Work(0, 3 * here.bandwidth, 0).bound(here) == pytest.approx(3)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA T400 4GB", None),
    ],
)
def test_gpus_are_known_by_name(name: str, known: str | None) -> None:
    device = Machine(torch.device("cuda"), "bf16")
    device.__dict__["name"] = name  # as cached from the driver
    assert device._known == (GPUS[known] if known else None)
    if known:
        assert device.flops == 1e12 * GPUS[known][2] and device.source == "data sheet"


def test_tf32_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="tf32 needs an NVIDIA GPU since Ampere"):
        check_precision("tf32", CPU)
