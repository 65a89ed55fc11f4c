"""Schedules against their closed forms, worked by hand, and against transformers and torch.

Our convention: warm-up reaches 1 at update `warmup_steps - 1`. Theirs starts at 0, so that the same slope
is reached one update later; after warm-up both agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation import registry

STEPS = 100


NEEDS: dict[str, dict[str, Any]] = {"warm_restarts": {"period": 30}, "cosine_restarts": {"period": 30}}


def scale(name: str, **options: Any) -> Callable[[int], float]:
    """The schedule as a function of the step, for runs of 100 steps."""
    cls = registry.find("schedule", name)
    schedule = cls(cls.Config(**options))
    return lambda step: schedule.scale(step, STEPS)


def theirs(get: str, **options: Any) -> list[float]:
    """Learning-rate factors of transformers' schedule at steps 0 to 100."""
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = getattr(transformers, get)(optimizer, **options)
    factor = schedule.lr_lambdas[0]
    return [factor(step) for step in range(STEPS + 1)]


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("name", [n for n in registry.names("schedule") if n != "cosine_restarts"])
def test_warm_up(name: str, warmup: int) -> None:
    at = scale(name, warmup_steps=warmup, **NEEDS.get(name, {}))
    assert [at(s) for s in range(warmup)] == pytest.approx([(s + 1) / warmup for s in range(warmup)])
    if warmup:
        assert at(warmup - 1) == 1.0
    if name != "inverse_sqrt":
        assert at(warmup) == pytest.approx(1.0)


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("name", registry.names("schedule"))
def test_warm_up_from_a_given_start_as_torch(name: str, warmup: int) -> None:
    """LinearLR: update 0 stands at `start`, update `warmup` at the peak (which inverse_sqrt has left by then)."""
    at = scale(name, warmup_steps=warmup, start=1e-7, **NEEDS.get(name, {}))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-7, total_iters=warmup)
    for step in range(warmup):
        assert at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        linear.step()
    if name != "inverse_sqrt":
        assert at(warmup) == pytest.approx(1.0)


def test_warmup_constant_cooldown_of_the_arrow_study() -> None:
    """Linear from 1e-7 of the peak, constant, linear to 0 over the last 15 of 100 updates: worked by hand."""
    at = scale("warmup_stable_decay", warmup_steps=10, start=1e-7, decay_fraction=0.15)
    assert at(0) == pytest.approx(1e-7)
    assert at(5) == pytest.approx(0.5 + 0.5e-7)
    assert {at(s) for s in range(10, 86)} == {1.0}
    assert [at(s) for s in (88, 91, 97)] == pytest.approx([0.8, 0.6, 0.2])


ARROWS = {"warmup_steps": 4000, "period": 300_000, "shrink": 0.85, "start": 1e-7 / 1e-4, "floor": 1e-6 / 1e-4}
"""The arrow study: lr 1e-4, lr_init 1e-7, lr_min 1e-6."""


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-7),
        (2000, 5.005e-5),
        (4000, 1e-4),
        (154_000, 5.05e-5),
        (303_999, 1.0e-6),
        (304_000, 8.5e-5),
        (454_000, 0.85 * 5.05e-5),
        (603_999, 0.85e-6),
        (604_000, 0.85**2 * 1e-4),
    ],
)
def test_cosine_restarts_by_the_published_numbers(step: int, rate: float) -> None:
    assert 1e-4 * scale("cosine_restarts", **ARROWS)(step) == pytest.approx(rate, rel=1e-6)


@given(
    warmup=st.integers(0, 20),
    period=st.integers(1, 30),
    shrink=st.floats(0.1, 1),
    start=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_cosine_restarts_as_torchs_cosine_within_each_cycle(
    warmup: int, period: int, shrink: float, start: float, floor: float
) -> None:
    """Each cycle is torch's CosineAnnealingLR from shrink**n down to shrink**n * floor, the warm-up its LinearLR."""
    at = scale("cosine_restarts", warmup_steps=warmup, period=period, shrink=shrink, start=start, floor=floor)
    assert [at(s) for s in range(warmup)] == pytest.approx(
        [start + (1 - start) * s / warmup for s in range(warmup)]
    )
    for cycle in range(3):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=shrink**cycle)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, period, eta_min=shrink**cycle * floor)
        for done in range(period):
            rate = optimizer.param_groups[0]["lr"]
            assert at(warmup + cycle * period + done) == pytest.approx(rate, abs=1e-7)
            optimizer.step()
            cosine.step()


@pytest.mark.parametrize("warmup", [0, 10])
def test_after_warm_up_as_transformers(warmup: int) -> None:
    common = {"num_warmup_steps": warmup, "num_training_steps": STEPS}
    after = range(max(1, warmup), STEPS)
    pairs = {
        "constant": theirs("get_constant_schedule_with_warmup", num_warmup_steps=warmup),
        "linear": theirs("get_linear_schedule_with_warmup", **common),
        "cosine": theirs("get_cosine_schedule_with_warmup", **common),
    }
    for name, expected in pairs.items():
        ours = scale(name, warmup_steps=warmup)
        assert [ours(s) for s in after] == pytest.approx([expected[s] for s in after], abs=1e-12), name
        if warmup:  # the same slope, one update earlier
            assert [ours(s) for s in range(warmup - 1)] == pytest.approx(expected[1:warmup])


def test_inverse_sqrt_as_transformers_one_update_earlier() -> None:
    expected = theirs("get_inverse_sqrt_schedule", num_warmup_steps=10)
    ours = scale("inverse_sqrt", warmup_steps=10)
    assert [ours(s) for s in range(STEPS)] == pytest.approx(expected[1:])
    assert ours(39) == pytest.approx(0.5)  # 40 updates are four times 10


@pytest.mark.parametrize(("shape", "decay"), [("linear", "linear"), ("sqrt", "1-sqrt")])
def test_warmup_stable_decay_as_transformers(shape: str, decay: str) -> None:
    options = {"num_warmup_steps": 10, "num_stable_steps": 70, "num_decay_steps": 20, "min_lr_ratio": 0.1}
    expected = theirs("get_wsd_schedule", decay_type=decay, **options)
    ours = scale("warmup_stable_decay", warmup_steps=10, decay_fraction=0.2, shape=shape, floor=0.1)
    assert [ours(s) for s in range(10, STEPS)] == pytest.approx(expected[10:STEPS], abs=1e-12)


def test_floors_by_hand() -> None:
    linear, cosine = scale("linear", floor=0.2), scale("cosine", floor=0.2)
    assert [linear(s) for s in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])
    assert [cosine(s) for s in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])
    assert cosine(25) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert linear(99) > 0.2, "the last update is not wasted on the floor"


def test_warm_restarts_as_torch() -> None:
    """Cycles of 8, 16, 32, ... updates, against CosineAnnealingWarmRestarts."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=8, T_mult=2, eta_min=0.1)
    ours = scale("warm_restarts", period=8, factor=2.0, floor=0.1)
    for step in range(STEPS):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        schedule.step()


def test_warm_restarts_of_uneven_length_start_at_their_peak() -> None:
    """Cycles of 4, 6 and 9 updates (factor 1.5), then 14 (13.5 rounded to even); each peak 0.8 of the last."""
    ours = scale("warm_restarts", warmup_steps=2, period=4, factor=1.5, peak_decay=0.8)
    starts = [2, 6, 12, 21, 35]
    for cycle, start in enumerate(starts):
        assert ours(start) == pytest.approx(0.8**cycle)
        if cycle:
            assert ours(start - 1) < 0.8**cycle
    assert ours(2 + 2) == pytest.approx(0.5)
    assert ours(6 + 3) == pytest.approx(0.8 * 0.5)


@given(
    name=st.sampled_from(registry.names("schedule")),
    warmup=st.integers(0, 30),
    step=st.integers(0, 200),
    max_steps=st.integers(1, 150),
)
def test_always_within_bounds(name: str, warmup: int, step: int, max_steps: int) -> None:
    cls = registry.find("schedule", name)
    value = cls(cls.Config(warmup_steps=warmup, **NEEDS.get(name, {}))).scale(step, max_steps)
    assert 0.0 <= value <= 1.0
    if step < max_steps:
        assert value > 0.0, "an update at rate 0 is wasted"
