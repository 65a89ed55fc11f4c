"""The phases of a step and its operations, against a clock turned by hand and a closed form."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lexarium.foundation.types import Batch, Output, Term, UserError
from lexarium.studies.profile import profile_trainer
from lexarium.training import phases
from lexarium.training.captured import CapturedProgram
from lexarium.training.operators import KINDS, Operator, kind_of, summary
from lexarium.training.optimizers import AdamW
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep
from lexarium.training.trainer import TrainConfig, Trainer

WORDS, WIDTH, DEPTH, ROWS, LENGTH = 11, 8, 3, 4, 5
CPU = torch.device("cpu")


class HandClock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def costs(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def paid(*arguments: Any, **named: Any) -> Any:
            self.now += seconds
            return work(*arguments, **named)

        return paid


class Stack(nn.Module):
    """Linear maps on embedded tokens."""

    consumes = ("tokens", "real")

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)))
        self.out = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Output:
        flat = tokens.reshape(-1)
        return Output(self.layers(self.embedding(flat if real is None else flat[real])), self.out)


class NextWord:
    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        logits = output.unembed(output.hidden)
        return {"ce": Term(F.cross_entropy(logits, batch.targets["labels"], reduction="sum"))}


def batch(real: list[int] | None = None) -> Batch:
    tokens = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % WORDS
    inputs = {"tokens": tokens} | ({} if real is None else {"real": torch.tensor(real)})
    n = ROWS * LENGTH if real is None else len(real)
    return Batch(inputs, {"labels": torch.arange(n) % WORDS}, {"ce": float(n)}, n_tokens=n)


def trainer(micro: int = 1, real: list[int] | None = None, captured: bool = False, **train: Any) -> Trainer:
    step = TrainStep(Stack(), NextWord())
    optimizer = AdamW(AdamW.Config()).build(step.model.named_parameters(), CPU)
    program: Any
    if captured:
        program = CapturedProgram(step, optimizer, device=CPU, compiled=False)
    else:
        program = EagerProgram(step, optimizer, device=CPU, world=World(), clip_norm=1.0)
    batches = lambda step: [batch(real) for _ in range(micro)]
    return Trainer(program, batches, lambda step, last: 1.0, TrainConfig(max_steps=1000, **train), [])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    found = HandClock()
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=found.perf_counter))
    return found


def test_every_part_of_an_eager_step_is_in_its_phase(
    clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer(micro=2)
    program: Any = one.program
    one._batches = clock.costs(1.0, one._batches)
    monkeypatch.setattr(Stack, "forward", clock.costs(2.0, Stack.forward))
    monkeypatch.setattr(Tensor, "backward", clock.costs(4.0, Tensor.backward))
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", clock.costs(8.0, torch.nn.utils.get_total_norm))
    program.optimizer.step = clock.costs(16.0, program.optimizer.step)
    program._denominators = clock.costs(32.0, program._denominators)
    times = phases.measure(one, 3)
    assert times.phases == {
        "data": 1.0,
        "forward": 2 * 2.0,  # two micro-batches
        "backward": 2 * 4.0,
        "optimiser": 8.0 + 16.0,
        "host and other": 32.0,
    }
    assert times.marked == times.step == sum(times.phases.values())


def test_a_captured_step_has_data_replay_and_host(clock: HandClock) -> None:
    one = trainer(captured=True)
    program: Any = one.program
    one._batches = clock.costs(1.0, one._batches)
    program._replays = clock.costs(2.0, program._replays)
    program.update = clock.costs(4.0, program.update)
    times = phases.measure(one, 3)
    assert times.phases == {"data": 1.0, "replay": 2.0, "host and other": 4.0}
    assert times.marked == times.step == 7.0


def test_a_captured_program_meets_every_shape_twice_before_it_is_measured() -> None:
    asked = []
    one = trainer(captured=True)
    batches = one._batches
    one._batches = lambda step: asked.append(step) or batches(step)
    phases.warm_up(one, 4)
    assert asked == [0, 1, 2, 3, 0, 1, 2, 3] and one.step == 0


def test_nothing_is_left_of_the_clock() -> None:
    one = trainer()
    before = {id(o): dict(vars(o)) for o in (one, one.program)}
    with phases.marked(one, phases.Clock(CPU)):
        assert "batches" in vars(one) and "_clip" in vars(one.program)
    assert all(vars(o) == before[id(o)] for o in (one, one.program))


def test_more_steps_than_the_run_has() -> None:
    one = trainer()
    one.max_steps = 2
    for _ in range(5):
        phases.advance(one)
        assert one.step <= 2


def test_operations_of_a_linear_stack_are_six_per_weight_and_token() -> None:
    real = [0, 1, 2, 5, 6, 10, 11, 12, 13, 15]  # 10 of 20 tokens
    found = profile_trainer(trainer(micro=2, real=real), steps=2)
    roof, weights = found.roofline, DEPTH * WIDTH * WIDTH + WIDTH * WORDS
    assert roof.operations == 6 * weights * len(real) * 2
    assert (roof.rows, roof.real, roof.padding) == (40, 20, 0.5)
    assert roof.bound_ms == max(roof.arithmetic_ms, roof.memory_ms)
    assert roof.arithmetic_ms == pytest.approx(1e3 * roof.operations / roof.peak)
    assert roof.gap == pytest.approx(found.step_ms / roof.bound_ms)
    assert roof.mfu == pytest.approx(roof.operations / (found.step_ms / 1e3) / roof.peak)
    assert roof.tokens_per_second == pytest.approx(2 * len(real) / (found.step_ms / 1e3))


def test_weights_are_moved_once_however_many_micro_batches() -> None:
    one, two = (profile_trainer(trainer(micro=n), steps=1).roofline for n in (1, 2))
    weights = DEPTH * WIDTH * WIDTH + 2 * WIDTH * WORDS
    assert two.bytes - one.bytes == one.bytes - 44 * weights  # what one more forward pass keeps, twice


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        profile_trainer(trainer(), steps=0)


# --- operators --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "matrix products"),
        ("aten::_log_softmax_backward_data", "targets"),
        ("aten::_softmax", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_layer_norm_backward", "norms"),
        ("aten::_fused_adamw_", "optimiser and clipping"),
        ("aten::linalg_vector_norm", "optimiser and clipping"),
        ("aten::bitwise_xor", "dropout and integers"),
        ("aten::copy_", "data movement"),
        ("Memcpy HtoD (Pinned -> Device)", "data movement"),
        ("aten::mul", "elementwise"),
        ("AddmmBackward0", "autograd"),
        ("autograd::engine::evaluate_function: MulBackward0", "autograd"),
        ("cudaDeviceSynchronize", "other"),
    ],
)
def test_operators_have_their_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind and kind in {k for k, _ in KINDS} | {"other"}


def event(name: str, us: float, above: Any = None, device: Any = torch.autograd.DeviceType.CPU) -> Any:
    return SimpleNamespace(
        name=name,
        self_cpu_time_total=us,
        self_device_time_total=us,
        cpu_parent=above,
        device_type=device,
        is_user_annotation=False,
    )


def test_times_of_operators_are_per_step_and_what_dropout_calls_is_dropout() -> None:
    dropout = event("Dropout", 100.0)
    events = [
        event("aten::mm", 3000.0),
        event("aten::mm", 1000.0),
        dropout,
        event("aten::mul", 500.0, dropout),
        event("aten::mul", 400.0),
    ]
    found = summary(events, 2, on_device=False, kernels=False)
    assert found.ms == 2.5 and found.busy_ms is None
    assert found.kinds == pytest.approx(
        {"matrix products": 2.0, "dropout and integers": 0.3, "elementwise": 0.2}
    )
    assert found.top[0] == Operator("aten::mm", "matrix products", 2.0, 1.0)
    assert found.share("dropout and integers") == pytest.approx(0.3 / 2.5)


def test_a_replayed_graph_is_told_by_its_kernels() -> None:
    gpu = torch.autograd.DeviceType.CUDA
    events = [event("cudaGraphLaunch", 900.0), event("ampere_sgemm_128x64", 600.0, device=gpu)]
    found = summary(events, 1, on_device=True, kernels=True)
    assert (found.ms, found.busy_ms, found.launches) == (0.6, 0.6, 1.0)
    assert found.kinds == {"matrix products": 0.6}
