"""Promise 27: programs agree. Eager, compiled and captured steps give the same losses within rounding.

The captured program runs here with nothing captured (there is no CUDA graph on a CPU): staging, rectangles, ring,
predicated update and late results are the same code. The explicit and fused forms of attention are compared with
the plain formula in tests/models/test_attention.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import ENCODER_DECODER, LAYERED, TRANSFORMER, record, tiny_config, tiny_run

from lexarium.foundation.types import Batch, NonFinite, UserError
from lexarium.studies.session import build_trainer
from lexarium.training import choice as choices
from lexarium.training import program
from lexarium.training.captured import CapturedProgram, Ring, Staging, common_lengths, rectangular
from lexarium.training.choice import Choice, choose
from lexarium.training.parallel import World
from lexarium.training.program import AHEAD, CompiledProgram, EagerProgram
from lexarium.training.step import TrainStep
from lexarium.training.trainer import Trainer
from phonemes import FEATURES_OF_LETTERS

CPU = torch.device("cpu")
STEPS = 20
ARMS: dict[str, dict[str, Any]] = {
    "documents": {"model": TRANSFORMER},
    "windows": {"model": TRANSFORMER, "packing": {"type": "windows", "seq_len": 24}},
    "encoder and decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "recurrent": {"model": {"type": "recurrent", "cell": "gru", "n_layers": 2, "d_model": 16, "dropout": 0.2}},
    "losses of layers": LAYERED,
    "features of letters": FEATURES_OF_LETTERS,
    "sgd": {"optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9}},
}  # fmt: skip


def trainer(folder: Path, kind: str, dtype: torch.dtype = torch.float64, **options: Any) -> Trainer:
    """A trainer of a tiny run whose steps are carried out by a program of the test's choice."""
    options = {"train": {"max_steps": STEPS, "clip_norm": 1.0}, **options}
    run = tiny_run(folder, **options)
    found, _ = build_trainer(run.config, run.parts(), CPU)
    eager, train = found.program, run.config.train
    kept = {"precision": train.precision, "clip_norm": train.clip_norm, "non_finite": train.non_finite}
    eager.step.to(dtype)
    if kind == "captured":
        found.program = CapturedProgram(eager.step, eager.optimizer, device=CPU, compiled=False, **kept)
    elif kind == "compiled":
        found.program = CompiledProgram(eager.step, eager.optimizer, device=CPU, world=World(), **kept)
    return found


def history(found: Trainer) -> list[dict[str, float]]:
    """Losses and gradient norm of every step, read at the end."""
    seen: list[dict[str, float]] = []
    take = found._take
    found._take = lambda r: (seen.append({**r.losses, "norm": r.grad_norm}), take(r))  # type: ignore
    assert found.fit()
    found.settle()
    return seen


def check_equal(a: Trainer, b: Trainer, rtol: float) -> None:
    one, two = history(a), history(b)
    assert len(one) == len(two) == STEPS and a.tokens_seen == b.tokens_seen > 0
    for step, (x, y) in enumerate(zip(one, two, strict=True)):
        assert x == pytest.approx(y, rel=rtol), step
    for (name, x), y in zip(a.program.step.named_parameters(), b.program.step.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=100 * rtol, atol=100 * rtol, msg=name)


@pytest.mark.parametrize("arm", ARMS)
def test_captured_equals_eager(arm: str, tmp_path: Path) -> None:
    # clipping goes through float32 in the library's fused optimisers
    check_equal(trainer(tmp_path, "eager", **ARMS[arm]), trainer(tmp_path, "captured", **ARMS[arm]), 1e-7)


@pytest.mark.parametrize(
    ("backend", "arm"),
    [
        ("aot_eager", "documents"),
        ("aot_eager", "losses of layers"),
        pytest.param("inductor", "documents", marks=pytest.mark.slow),
    ],
)
def test_compiled_equals_eager_for_all_shapes_with_one_program(
    backend: str, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of many lengths, dropout on, layers that are left out: no recompilation after the first batch. Generating
    code takes a minute, so that the default suite stops before it."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(program, "BACKEND", backend)
    torch._dynamo.reset()
    counters.clear()
    kinds = [trainer(tmp_path, kind, torch.float32, **ARMS[arm]) for kind in ("eager", "compiled")]
    check_equal(*kinds, 2e-5)
    assert counters["stats"]["unique_graphs"] == 1, dict(counters["stats"])
    assert not counters["graph_break"]


def test_captured_and_compiled_equals_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA captures, traced whole."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(program, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    eager, found = trainer(tmp_path, "eager", torch.float32), trainer(tmp_path, "eager", torch.float32)
    found.program = CapturedProgram(found.program.step, found.program.optimizer, device=CPU, clip_norm=1.0)
    check_equal(eager, found, 2e-5)
    assert counters["stats"]["unique_graphs"] <= 2 and not counters["graph_break"]


# --- rectangles -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 9))
def test_rectangles_hold_the_same_tokens_and_targets(lengths: list[int], more: int) -> None:
    longest, n = max(lengths), sum(lengths)
    tokens = torch.zeros(len(lengths), longest, dtype=torch.int64)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    tokens[mask] = torch.arange(1, n + 1)
    real = mask.flatten().nonzero()[:, 0]
    inputs = {"tokens": tokens, "segment": torch.where(mask, 3, -1)}
    if n < mask.numel():
        inputs["real"] = real
    targets = {"labels": torch.arange(1, n + 1) * 10, "weight": torch.arange(1.0, n + 1)}
    batch = Batch(inputs, targets, {"ce": float(n)}, n_tokens=n)
    found = rectangular(batch, {"tokens": longest + more})
    assert found.inputs["tokens"].shape == (len(lengths), longest + more) and "real" not in found.inputs
    kept = found.targets["labels"] != -100
    assert torch.equal(found.targets["labels"][kept], targets["labels"])
    assert torch.equal(found.inputs["tokens"].flatten()[kept] * 10, targets["labels"])
    assert torch.equal(found.targets["weight"][kept], targets["weight"])
    assert not found.targets["weight"][~kept].any()
    assert (found.inputs["segment"].flatten()[~kept] == -1).all()


def test_lengths_are_shared_and_rounded_up() -> None:
    batch = lambda t, s: Batch({"tokens": torch.zeros(2, t), "source": torch.zeros(2, s)}, {}, {})
    assert common_lengths([batch(9, 3), batch(4, 16)]) == {"tokens": 16, "source": 16}


def test_targets_of_another_form_are_refused() -> None:
    batch = Batch({"tokens": torch.zeros(2, 4, dtype=torch.int64)}, {"pairs": torch.zeros(3)}, {})
    with pytest.raises(UserError, match=r"'pairs' of shape \(3,\) has no row for each of the 8 real tokens"):
        rectangular(batch, {"tokens": 8})


@given(st.lists(st.sampled_from(["float32", "int64", "int32", "bool"]), min_size=1, max_size=5), st.data())
@settings(max_examples=30)
def test_staged_values_arrive(kinds: list[str], data: st.DataObject) -> None:
    def draw() -> dict[str, torch.Tensor]:
        shape = [(3, 2), (5,), (), (1, 7)]
        return {
            str(i): (torch.rand(shape[i % 4], generator=generator) * 9).to(getattr(torch, kind))
            for i, kind in enumerate(kinds)
        }

    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    staging = Staging(draw(), CPU)
    for _ in range(3):
        values = draw()
        staging.fill(values)
        for name, value in values.items():
            assert torch.equal(staging.tensors[name], value) and staging.tensors[name].dtype == value.dtype


def test_the_ring_keeps_order_across_its_end() -> None:
    ring, expected = Ring(2, CPU), []
    for i in range(3 * AHEAD // 2):
        ring.write(torch.tensor([i, -i], dtype=torch.float64))
        ring.count()
        expected.append([float(i), -float(i)])
        if i % 200 == 7:
            assert ring.read() == expected
            expected = []
    assert ring.read() == expected and ring.read() == []


# --- results that come later ------------------------------------------------------------------------


def test_the_host_reads_at_log_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps, a line every five, evaluations every four, a checkpoint every five."""
    reads: list[int] = []
    read = Ring.read
    monkeypatch.setattr(Ring, "read", lambda self: reads.append(len(rows := read(self))) or rows)
    take_captured(monkeypatch)
    run = tiny_run(tmp_path / "a")
    run.train()
    assert [n for n in reads if n] == [4, 1, 3, 2, 2], "at steps 4, 5, 8, 10 and 12"
    monkeypatch.undo()
    eager = tiny_run(tmp_path / "b")
    eager.train()
    one, two = record(run), record(eager)
    assert one.keys() == two.keys()
    for name in one:
        if name.startswith("metrics"):
            assert json.loads(one[name]) == pytest.approx(json.loads(two[name]), rel=1e-4), name


def take_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs on a CPU use the captured program."""
    monkeypatch.setattr(choices, "_decide", lambda asked, *_: Choice(asked, "captured"))
    init = CapturedProgram.__init__
    monkeypatch.setattr(
        CapturedProgram, "__init__", lambda self, *a, **k: init(self, *a, **{**k, "compiled": False})
    )


def test_a_captured_run_is_exact_through_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lexarium.training.signals import StopFlag

    take_captured(monkeypatch)
    whole, cut = tiny_run(tmp_path / "a"), tiny_run(tmp_path / "b")
    whole.train()
    flag = StopFlag()
    cut.train(flag, progress=lambda step: flag.raise_flag("enough", 124) if step == 7 else None)
    cut.train()
    assert record(whole) == record(cut)


@pytest.mark.parametrize("policy", ["stop", "skip", "warn"])
def test_a_step_that_is_not_finite(policy: str, tmp_path: Path) -> None:
    """The same rule as in eager, although the host hears of it later: compare with the step before."""
    options: dict[str, Any] = {
        "optimizer": {"type": "adamw", "lr": 1e38},
        "schedule": {"type": "constant"},
        "train": {"max_steps": STEPS, "non_finite": policy, "clip_norm": 0.0},
    }
    eager = trainer(tmp_path, "eager", torch.float32, **options)
    captured = trainer(tmp_path, "captured", torch.float32, **options)
    if policy == "stop":
        with pytest.raises(NonFinite, match="step 1: "):
            eager.fit()
        with pytest.raises(NonFinite, match="step 1: .*no parameter was changed"):
            captured.fit()
            captured.settle()
        assert captured.step == eager.step == 1
    else:
        assert eager.fit() and captured.fit()
        captured.settle()
        assert captured.skipped == eager.skipped and captured.non_finite == eager.non_finite > 0
        assert captured.odd == eager.odd
    for a, b in zip(eager.program.step.parameters(), captured.program.step.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
    steps = [{float(s["step"]) for s in t.program.optimizer.state.values()} for t in (eager, captured)]
    assert steps[0] == steps[1], "a held step does not count"


def test_the_trainer_reads_before_the_ring_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.training import captured
    from lexarium.training import trainer as loop

    monkeypatch.setattr(captured, "AHEAD", 4)
    monkeypatch.setattr(loop, "AHEAD", 4)
    found = trainer(tmp_path, "captured")
    seen = history(found)
    assert len(seen) == STEPS and all(math.isfinite(s["ce"]) for s in seen)


# --- the choice -------------------------------------------------------------------------------------


def chosen(
    folder: Path, asked: str, monkeypatch: pytest.MonkeyPatch, gain: float = 1.0, **options: Any
) -> Choice:
    monkeypatch.setattr(choices, "trial", lambda *_: (gain, 33.0))
    run = tiny_run(folder, plan={"device": "cpu", "program": asked}, **options)
    said: list[str] = []
    run.train(say=said.append)
    plan = json.loads((run.path / "plan.json").read_text())
    assert plan["asked"] == asked and (not plan["why"] or any(plan["why"] in line for line in said))
    return Choice(plan["asked"], plan["program"], plan["why"])


def test_what_is_chosen_here_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(tmp_path / "a", "auto", monkeypatch) == Choice("auto", "eager", "")
    assert chosen(tmp_path / "b", "eager", monkeypatch) == Choice("eager", "eager", "")
    found = chosen(tmp_path / "c", "captured", monkeypatch)
    assert found.program == "eager" and "no CUDA device (found cpu)" in found.why
    found = chosen(tmp_path / "d", "compiled", monkeypatch, gain=0.8)
    assert found.program == "eager" and "compiled in 33 s" in found.why and "1.25 of the eager" in found.why
    recurrent = {"type": "recurrent", "cell": "gru", "n_layers": 1, "d_model": 8}
    found = chosen(tmp_path / "e", "compiled", monkeypatch, model=recurrent)
    assert found.program == "eager" and "does not compile" in found.why


def test_where_compiling_pays_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "trial", lambda *_: (1.5, 33.0))
    run = tiny_run(tmp_path)
    found, _ = build_trainer(run.config, run.parts(), CPU)
    step, optimizer = found.program.step, found.program.optimizer
    options: dict[str, Any] = {"precision": "fp32", "clip_norm": 0.0, "non_finite": "stop"}
    chosen_one, choice = choose(
        Choice("compiled"), step, optimizer, device=CPU, world=World(), example=list, **options
    )
    assert isinstance(chosen_one, CompiledProgram) and choice.program == "compiled" and "0.67" in choice.why
    chosen_one, _ = choose(
        Choice("compiled", "eager", "measured before"), step, optimizer, device=CPU, world=World(),
        example=lambda: pytest.fail("a choice that was made is not measured again"), **options,
    )  # fmt: skip
    assert type(chosen_one) is EagerProgram and chosen_one.step._compiled_call_impl is None


def test_a_resumed_run_keeps_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.training.signals import StopFlag

    monkeypatch.setattr(choices, "trial", lambda *_: (0.5, 1.0))
    run = tiny_run(tmp_path, plan={"device": "cpu", "program": "compiled"})
    flag = StopFlag()
    run.train(flag, progress=lambda step: flag.raise_flag("enough", 124) if step == 3 else None)
    monkeypatch.setattr(choices, "trial", lambda *_: pytest.fail("measured again"))
    assert run.train() == "done"
    assert "plan changed" not in (run.path / "events.jsonl").read_text()


@pytest.mark.slow
def test_the_trial_changes_nothing(tmp_path: Path) -> None:
    found = trainer(tmp_path, "eager", torch.float32)
    before = {n: p.detach().clone() for n, p in found.program.step.named_parameters()}
    gain, seconds = choices.trial(found.program.step, found.batches(), CPU, "fp32", rounds=3)
    assert gain > 0 and seconds > 0
    for name, parameter in found.program.step.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None
    assert tiny_config().plan.program == "auto"


class Spare(torch.nn.Module):
    """A model with a weight that its loss does not reach."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.consumes = inner, inner.consumes
        self.spare = torch.nn.Parameter(torch.ones(3, 3))

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


@pytest.mark.parametrize("kind", ["eager", "captured"])
def test_a_weight_without_a_gradient_is_left_alone(kind: str, tmp_path: Path) -> None:
    found = trainer(tmp_path, "eager")
    model = Spare(found.program.step.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5, fused=True)
    optimizer.param_groups[0]["base_lr"] = 0.1
    step = TrainStep(model, found.program.step.objective)
    if kind == "captured":
        found.program = CapturedProgram(step, optimizer, device=CPU, compiled=False)
    else:
        found.program = EagerProgram(step, optimizer, device=CPU, world=World())
    for _ in range(3):
        found.advance()
    assert torch.equal(model.spare, torch.ones(3, 3)) and not optimizer.state.get(model.spare)


def test_momenta_begin_at_zero_when_the_first_step_is_held(tmp_path: Path) -> None:
    options = {"optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9}, "train": {"non_finite": "skip"}}
    found = trainer(tmp_path, "captured", torch.float32, **options)
    parameter = found.program.parameters[0]
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(math.inf)
    found.advance()
    assert all(not bool(s["momentum_buffer"].any()) for s in found.program.optimizer.state.values())
    with torch.no_grad():
        parameter.copy_(kept)
    found.advance()
    found.settle()
    assert found.skipped == 1 and all(bool(torch.isfinite(p).all()) for p in found.program.parameters)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no C++ compiler\nmore"), "no C++ compiler"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_without_a_compiler_the_eager_program_is_taken_and_the_reason_told(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(choices, "trial", broken)
    run, said = tiny_run(tmp_path, plan={"device": "cpu", "program": "compiled"}), list[str]()
    assert run.train(say=said.append) == "done"
    assert any(f"cannot be compiled here ({told})" in line for line in said)
    assert json.loads((run.path / "plan.json").read_text())["program"] == "eager"
