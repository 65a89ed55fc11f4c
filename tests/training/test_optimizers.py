"""Optimisers: decay groups, equality with torch's plain step and with the published formula, clipping."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import tiny_config, tiny_run
from torch import Tensor, nn

from lexarium.foundation import registry
from lexarium.studies.session import build_trainer
from lexarium.training.optimizers import groups
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep

CPU = torch.device("cpu")


class Small(nn.Module):
    """One of every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
        self.linear, self.norm = nn.Linear(4, 3), nn.LayerNorm(4)
        for i, parameter in enumerate(self.linear.parameters()):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(i))

    def loss(self, step: int) -> Tensor:
        x = self.norm(self.embedding) * (step + 1)
        return self.linear(x).square().sum()


def build(name: str, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    cls = registry.find("optimizer", name)
    return cls(cls.Config(**options)).build(list(model.named_parameters()), CPU)


def take_steps(model: Small, optimizer: torch.optim.Optimizer, n: int = 5) -> dict[str, Tensor]:
    for step in range(n):
        optimizer.zero_grad()
        model.loss(step).backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_decay_reaches_matrices_and_embeddings_only() -> None:
    model = Small()
    with_decay, without = groups(model.named_parameters(), 0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    assert [names[id(p)] for p in with_decay["params"]] == ["embedding", "linear.weight"]
    assert [names[id(p)] for p in without["params"]] == ["linear.bias", "norm.weight", "norm.bias"]
    assert (with_decay["weight_decay"], without["weight_decay"]) == (0.1, 0.0)


def test_decay_of_all_as_the_library_does_it() -> None:
    """The study trained with torch's AdamW over `model.parameters()`: decay 0.01 on embeddings, norms and biases."""
    ours = take_steps(model := Small(), build("adamw", model, lr=0.05, weight_decay=0.01, decay="all"))
    plain = Small()
    theirs = take_steps(plain, torch.optim.AdamW(plain.parameters(), lr=0.05))
    only_matrices = take_steps(model := Small(), build("adamw", model, lr=0.05, weight_decay=0.01))
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(only_matrices["norm.weight"], theirs["norm.weight"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", registry.names("model"))
def test_decay_groups_of_the_models(model: str, tmp_path: Path) -> None:
    """Every parameter is in exactly one group; what is a norm gain or a bias is not decayed."""
    from lexarium.models.build import build_model

    cls = registry.find("model", model)
    width = {"n_layers": 1, "d_model": 8, **({"n_heads": 2} if "n_heads" in cls.Config.model_fields else {})}
    built = build_model(cls.Config(**width), 11, seed=0)
    names = {id(p): n for n, p in built.named_parameters()}
    found = groups(built.named_parameters(), 0.1)
    assert sorted(names[id(p)] for g in found for p in g["params"]) == sorted(names.values())
    undecayed = {names[id(p)] for g in found if g["weight_decay"] == 0 for p in g["params"]}
    assert undecayed == {n for n in names.values() if "bias" in n or "norm" in n}


def test_adamw_equals_torchs_plain_step() -> None:
    """The fused kernel with our groups against torch's reference loop, parameter by parameter."""
    options = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6}
    ours = take_steps(model := Small(), build("adamw", model, weight_decay=0.1, **options))
    plain = Small()
    split = [
        {"params": [p], "weight_decay": 0.1 if p.ndim >= 2 else 0.0} for _, p in plain.named_parameters()
    ]
    expected = take_steps(plain, torch.optim.AdamW(split, foreach=False, fused=False, **options))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_adamw_by_the_formula() -> None:
    """Loshchilov and Hutter (2019), algorithm 2, in Python floats on one number."""
    parameter = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    holder = nn.ParameterDict({"w": parameter})
    lr, b1, b2, eps, decay = 0.1, 0.9, 0.99, 1e-8, 0.2
    optimizer = build("adamw", holder, lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    w, m, v = 2.0, 0.0, 0.0
    for t in range(1, 6):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
        g = 2 * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w -= lr * decay * w
        w -= lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
        assert parameter.item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_by_the_formula(momentum: float, nesterov: bool) -> None:
    parameter = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    holder = nn.ParameterDict({"w": parameter})
    optimizer = build("sgd", holder, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.05)
    w, velocity = 2.0, 0.0
    for _ in range(5):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
        g = 2 * w + 0.05 * w
        velocity = momentum * velocity + g
        w -= 0.1 * (g + momentum * velocity if nesterov else velocity)
        assert parameter.item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm", [0.01, 0.5, 1e6])
def test_clipping_equals_torchs(norm: float, fused: bool) -> None:
    """Same update after clipping (done by a fused optimiser itself); the norm reported is the one before it."""
    ours, theirs = Small(), Small()
    for model in (ours, theirs):
        model.loss(0).backward()
    step = TrainStep.__new__(TrainStep)  # only its model is looked at
    nn.Module.__init__(step)
    step.model = ours
    optimizer = build("sgd", ours, lr=1.0) if fused else torch.optim.SGD(ours.parameters(), lr=1.0)
    program = EagerProgram(step, optimizer, device=CPU, world=World(), clip_norm=norm)
    assert program.scales_gradients == fused
    found = program._clip()
    optimizer.step()
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), norm)
    torch.optim.SGD(theirs.parameters(), lr=1.0).step()
    torch.testing.assert_close(found, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_whole_update_equals_a_plain_loop(tmp_path: Path) -> None:
    """Five updates of a run (clipping, decay, warm-up, two micro-batches) against torch alone, from equal weights."""
    config = tiny_config(optimizer={"type": "adamw", "lr": 0.01, "weight_decay": 0.1}, evaluations=[])
    parts = tiny_run(tmp_path, config).parts()
    trainer, _ = build_trainer(config, parts, CPU)
    plain, loader = build_trainer(config, parts, CPU)
    model, objective = plain.program.step.model, parts.objective
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in named.values()],
        lr=0.01,
        foreach=False,
    )
    warmup, steps = 3, config.train.max_steps
    for step in range(5):
        trainer.advance()
        batches = loader.batches(step)
        tokens = sum(len(b.targets["labels"]) for b in batches)
        optimizer.zero_grad()
        for b in batches:
            output = model(**{k: v for k, v in b.inputs.items() if k in model.consumes})
            objective.loss(output, b)["ce"].sum.div(tokens).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup)))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, (step + 1) / warmup) * cosine
        optimizer.step()
        for name, value in trainer.program.step.model.named_parameters():
            torch.testing.assert_close(value, named[name], rtol=1e-4, atol=1e-6, msg=f"{name} at {step}")
