"""Promise 26: a cohort member is its solo run, dropout included.

In float64 weights agree tightly; in float32 losses and logits do, and weights except those whose true gradient is
zero (the bias of attention keys: softmax does not see it). Members differ in seed, data order, learning rate, weight
decay, dropout, clipping and length. What a member leaves on disk is what its solo run leaves, within rounding; it can
be interrupted with the others, go on alone, and come back. A member that breaks leaves the others alone.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from tests.builders import (
    ENCODER_DECODER,
    LAYERED,
    TRANSFORMER,
    checkpoint_record,
    log_record,
    tiny_config,
    tiny_run,
)

from lexarium.models.build import template_of
from lexarium.studies import cohorts
from lexarium.studies.assembly import make
from lexarium.studies.cohorts import even, fitting, obstacle, plan_teams, shape_of, train_together
from lexarium.studies.run import Run
from lexarium.studies.session import build_trainer
from lexarium.tokens.loader import Loader
from lexarium.training import program
from lexarium.training.cohort import Cohort, fit_together
from lexarium.training.signals import StopFlag
from lexarium.training.trainer import Trainer
from phonemes import FEATURES_OF_LETTERS

CPU = torch.device("cpu")
STEPS = 20
GPT2 = {
    "type": "transformer",
    "preset": "gpt2",
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 2,
    "d_ff": 32,
}
ROTARY = {
    "type": "transformer",
    "n_layers": 1,
    "d_model": 16,
    "n_heads": 2,
    "positions": "rotary",
    "activation": "swiglu",
    "norm_type": "rms",
}
ARMS: dict[str, dict[str, Any]] = {
    "post norm, documents": {"model": TRANSFORMER},
    "pre norm, biases": {"model": GPT2},
    "rotary, windows": {"model": ROTARY, "packing": {"type": "windows", "seq_len": 24}},
    "documents kept apart": {"model": GPT2, "packing": {"type": "windows", "seq_len": 30}, "objective": {"type": "causal", "document_mask": True}},
    "encoder and decoder": {"model": ENCODER_DECODER, "objective": {"type": "seq2seq"}},
    "losses of layers": LAYERED,
    "features of letters": FEATURES_OF_LETTERS,
}  # fmt: skip


def member_configs(arm: dict[str, Any], clip: float = 0.0, steps: int = STEPS, **more: Any) -> list[Any]:
    """Three members that differ in everything that may differ."""
    train = {"max_steps": steps, "clip_norm": clip, "global_batch_size": 8, "micro_batch_size": 4}
    return [
        tiny_config(
            **{**arm, "model": {**arm["model"], "dropout": dropout}, **more},
            optimizer={
                "type": "adamw",
                "lr": lr,
                "weight_decay": decay,
                "betas": betas,
                "decay": "all" if seed == 3 else "matrices",
            },
            train={**train, "clip_norm": clip * (1 + seed)},
            seed=seed,
        )
        for seed, lr, decay, dropout, betas in (
            (2, 1e-3, 0.1, 0.0, (0.9, 0.95)),
            (1, 3e-3, 0.0, 0.1, (0.9, 0.999)),
            (3, 1e-2, 0.01, 0.4, (0.8, 0.99)),
        )
    ]


def trainers(folder: Path, configs: Sequence[Any], dtype: torch.dtype) -> list[tuple[Trainer, Any]]:
    """Trainers of runs that write nothing while they train, and their optimizer components."""
    found = []
    for config in configs:
        rule = make("optimizer", config.optimizer)
        trainer, _ = build_trainer(config, tiny_run(folder, config).parts(), CPU, rule=rule)
        trainer.program.step.to(dtype)
        found.append((trainer, rule))
    return found


def solo(folder: Path, configs: Sequence[Any], dtype: torch.dtype) -> list[Trainer]:
    """The same runs, each on its own."""
    found = [t for t, _ in trainers(folder, configs, dtype)]
    for trainer in found:
        assert trainer.fit()
    return found


def together(
    folder: Path,
    configs: Sequence[Any],
    dtype: torch.dtype,
    device: torch.device = CPU,
    compiled: bool = False,
) -> list[Trainer]:
    """And as one cohort."""
    members = trainers(folder, configs, dtype)
    rules = {id(t): rule for t, rule in members}
    ended: list[Any] = []
    fit_together(
        [t for t, _ in members],
        lambda ts: Cohort(
            ts,
            [rules[id(t)] for t in ts],
            template=template_of([t.program.step.model for t in ts]),
            device=device,
            compiled=compiled,
        ),
        lambda trainer, how: ended.append(how),
    )
    assert ended == [True] * len(members)
    return [t for t, _ in members]


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    return dict(trainer.program.step.model.named_parameters())


# --- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_weights_in_float64(arm: str, tmp_path: Path) -> None:
    configs = member_configs(ARMS[arm])
    for alone, member in zip(
        solo(tmp_path, configs, torch.float64), together(tmp_path, configs, torch.float64), strict=True
    ):
        assert member.step == STEPS and member.tokens_seen == alone.tokens_seen
        for name, value in parameters(alone).items():
            torch.testing.assert_close(parameters(member)[name], value, rtol=1e-9, atol=1e-11, msg=name)
        for name, value in alone.window.means().items():
            assert member.window.means()[name] == pytest.approx(value, rel=1e-11), name


@pytest.mark.parametrize("arm", ["post norm, documents", "pre norm, biases"])
def test_losses_and_logits_in_float32(arm: str, tmp_path: Path) -> None:
    """With clipping. The gradient of the key biases is zero but for rounding, which AdamW magnifies."""
    configs = member_configs(ARMS[arm], clip=0.3)
    for alone, member in zip(
        solo(tmp_path, configs, torch.float32), together(tmp_path, configs, torch.float32), strict=True
    ):
        for name, value in alone.window.means().items():
            assert member.window.means()[name] == pytest.approx(value, rel=1e-5), name
        for name, value in parameters(alone).items():
            if not name.endswith("attention.k.bias"):
                torch.testing.assert_close(parameters(member)[name], value, rtol=1e-3, atol=2e-4, msg=name)
        batch = alone.batches()[0]
        logits = []
        for trainer in (alone, member):
            model = trainer.program.step.model.eval()
            output = model(**{k: v for k, v in batch.inputs.items() if k in model.consumes})
            logits.append(output.unembed(output.hidden))
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-3)


def test_stochastic_gradient_descent_with_its_momenta(tmp_path: Path) -> None:
    configs = [
        tiny_config(
            optimizer={"type": "sgd", "lr": 0.1, "momentum": m, "nesterov": n, "weight_decay": d}, seed=s
        )
        for s, m, n, d in ((1, 0.9, True, 0.0), (2, 0.0, False, 0.1), (3, 0.5, False, 0.01))
    ]
    for alone, member in zip(
        solo(tmp_path, configs, torch.float64), together(tmp_path, configs, torch.float64), strict=True
    ):
        for name, value in parameters(alone).items():
            # clipping goes through float32 in the library's optimiser
            torch.testing.assert_close(parameters(member)[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_frozen_parameters_stay_and_the_cohort_does_not_mind(tmp_path: Path) -> None:
    configs = member_configs({"model": GPT2}, steps=5)
    configs = [
        c.model_copy(update={"train": c.train.model_copy(update={"parameters": (r"stack\.blocks.*",)})})
        for c in configs
    ]
    fresh = [
        parameters(t)["embedding"].detach().clone() for t, _ in trainers(tmp_path, configs, torch.float64)
    ]
    alone, members = solo(tmp_path, configs, torch.float64), together(tmp_path, configs, torch.float64)
    for before, a, m in zip(fresh, alone, members, strict=True):
        assert torch.equal(parameters(m)["embedding"], before)
        for name, value in parameters(a).items():
            torch.testing.assert_close(parameters(m)[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_a_member_of_two_equals_a_member_of_four(tmp_path: Path) -> None:
    configs = [*member_configs(ARMS["pre norm, biases"]), tiny_config(model=GPT2, seed=9)]
    configs[3] = configs[3].model_copy(update={"train": configs[0].train})
    four = together(tmp_path, configs, torch.float64)
    two = together(tmp_path, configs[:2], torch.float64)
    for a, b in zip(two, four[:2], strict=True):
        for name, value in parameters(a).items():
            torch.testing.assert_close(parameters(b)[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_the_compiled_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA runs is traced here whole, without the generation of code, which takes minutes."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(program, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    configs = member_configs({"model": {**GPT2, "n_layers": 1}}, clip=0.3, steps=4)
    alone = solo(tmp_path, configs, torch.float32)
    members = together(tmp_path, configs, torch.float32, compiled=True)
    for a, b in zip(alone, members, strict=True):
        assert b.window.means() == pytest.approx(a.window.means(), rel=1e-5)
    assert counters["stats"]["unique_graphs"] <= 4 and not counters["graph_break"]


# --- what is left on disk ---------------------------------------------------------------------------


def runs(folder: Path, **more: Any) -> list[Run]:
    return [tiny_run(folder, seed=seed, **more) for seed in (1, 2, 3)]


def numbers(run: Run) -> list[dict[str, float]]:
    """Every line of the log and every evaluation, in order."""
    log = log_record(run.path)
    lines = [json.loads(text) for name, text in log.items() if name.startswith("metrics")]
    results = [json.loads(f.read_text())["metrics"] for f in sorted(run.path.glob("evals/*/*.json"))]
    return [*lines, *results]


def files(run: Run) -> set[str]:
    """Names of everything but checkpoints that only an interruption leaves (step 4 and 8)."""
    names = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    return {n for n in names if "step-00000004/" not in n and "step-00000008/" not in n}


def check_equal(member: Run, alone: Run) -> None:
    assert files(member) == files(alone)
    mine, others = numbers(member), numbers(alone)
    assert len(mine) == len(others)
    for a, b in zip(mine, others, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert member.files.status()["state"] == alone.files.status()["state"] == "done"


def test_directories_are_those_of_solo_runs(tmp_path: Path) -> None:
    members, alone = runs(tmp_path / "a"), runs(tmp_path / "b")
    states = train_together(members, StopFlag())
    assert set(states.values()) == {("done", "")}
    for member, other in zip(members, alone, strict=True):
        other.train()
        check_equal(member, other)
        plan = json.loads((member.path / "plan.json").read_text())
        assert plan["program"] == "stacked" and plan["cohort"] == [r.path.name for r in members]


def stop_at(step: int) -> tuple[StopFlag, Any]:
    """A flag that is raised when every member has come to a step."""
    flag = StopFlag()

    def progress(path: Path, at: int) -> None:
        if at == step:
            flag.raise_flag("stopped by the test", 124)

    return flag, progress


def test_an_interrupted_cohort_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, cut = runs(tmp_path / "a"), runs(tmp_path / "b")
    train_together(whole, StopFlag())
    flag, progress = stop_at(7)
    assert {s for s, _ in train_together(cut, flag, progress=progress).values()} == {"preempted"}
    assert {s for s, _ in train_together(cut, StopFlag()).values()} == {"done"}
    for a, b in zip(whole, cut, strict=True):
        last = [sorted((run.path / "checkpoints").iterdir())[-1] for run in (a, b)]
        assert checkpoint_record(last[0]) == checkpoint_record(last[1])
        assert log_record(a.path) == log_record(b.path)


def test_a_member_goes_on_alone_and_comes_back(tmp_path: Path) -> None:
    members, alone = runs(tmp_path / "a"), runs(tmp_path / "b")
    flag, progress = stop_at(4)
    train_together(members, flag, progress=progress)
    flag = StopFlag()
    members[0].train(flag, progress=lambda step: flag.raise_flag("enough", 124) if step == 8 else None)
    assert members[0].files.status()["step"] == 8 and members[1].files.status()["step"] == 4
    plan = json.loads((members[0].path / "plan.json").read_text())
    assert plan["program"] == "eager" and plan["cohort"] == []
    train_together(members, StopFlag())
    for member, other in zip(members, alone, strict=True):
        other.train()
        check_equal(member, other)
    events = (members[0].path / "events.jsonl").read_text()
    assert events.count("plan changed") == 2, "going alone and coming back are logged"


def test_members_of_different_length_end_on_their_own(tmp_path: Path) -> None:
    lengths = (5, 12, 8)
    members = [tiny_run(tmp_path / "a", seed=s, train={"max_steps": n}) for s, n in enumerate(lengths)]
    alone = [tiny_run(tmp_path / "b", seed=s, train={"max_steps": n}) for s, n in enumerate(lengths)]
    assert {s for s, _ in train_together(members, StopFlag()).values()} == {"done"}
    for member, other in zip(members, alone, strict=True):
        other.train()
        check_equal(member, other)


# --- what breaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["stop", "skip", "warn"])
def test_not_a_number_in_one_member_leaves_the_others_untouched(policy: str, tmp_path: Path) -> None:
    """The second member's rate makes it overflow; the others end as they would have."""
    rates = (3e-3, 1e38, 3e-3)
    make_runs = lambda folder, kept: [
        tiny_run(
            tmp_path / folder,
            seed=seed,
            optimizer={"type": "adamw", "lr": rate},
            train={"non_finite": policy},
            schedule={"type": "constant"},
        )
        for seed, rate in enumerate(rates)
        if kept(rate)
    ]
    members = make_runs("a", lambda rate: True)
    states = train_together(members, StopFlag())
    healthy = make_runs("b", lambda rate: rate < 1)
    train_together(healthy, StopFlag())
    for a, b in zip((members[0], members[2]), healthy, strict=True):
        assert states[a.path] == ("done", "")
        mine, others = numbers(a), numbers(b)
        for x, y in zip(mine, others, strict=True):
            assert x == pytest.approx(y, rel=1e-5)
    state, message = states[members[1].path]
    if policy == "stop":
        assert state == "failed" and "no parameter was changed" in message and "step " in message
        status = members[1].files.status()
        assert status["state"] == "failed"
        bad = int(message.split("step ")[1].split(":")[0])
        assert 0 < bad < 12, "the step that broke is named, not the one at which it was read"
        with pytest.raises(Exception, match="failed before"):
            members[1].train()
    else:
        assert state == "done"
        events = (members[1].path / "events.jsonl").read_text()
        assert events.count("step was not finite") > 0
        alone = make_runs("c", lambda rate: rate > 1)[0]
        alone.train()
        last = lambda run: json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])
        assert last(members[1])["non_finite"] == last(alone)["non_finite"] > 0
        assert last(members[1])["skipped"] == last(alone)["skipped"]


def test_a_broken_evaluation_fails_its_member_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.studies.session import Session

    members = runs(tmp_path)
    evaluate = Session._evaluate

    def broken(self: Session, name: str, step: int, last: bool) -> None:
        if self.run.path == members[1].path and step == 4:
            raise RuntimeError("this evaluation is broken")
        evaluate(self, name, step, last)

    monkeypatch.setattr(Session, "_evaluate", broken)
    states = train_together(members, StopFlag())
    assert [states[r.path][0] for r in members] == ["done", "failed", "done"]
    assert "this evaluation is broken" in states[members[1].path][1]
    monkeypatch.undo()
    assert members[1].train(retry=True) == "done"


def test_without_memory_for_all_halves_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is played by an error of the library's at more than two members."""
    members = [tiny_run(tmp_path, seed=seed) for seed in range(4)]
    advance, said, matrices = Cohort.advance, list[str](), list[Any]()

    def crowded(self: Cohort, batches: Any) -> None:
        assert not any(ref() is not None for ref in matrices if ref() is not self._weight), "the old is gone"
        matrices.append(weakref.ref(self._weight))
        if len(self) > 2:
            raise torch.OutOfMemoryError("out of memory")
        advance(self, batches)

    monkeypatch.setattr(Cohort, "advance", crowded)
    states = train_together(members, StopFlag(), said.append)
    assert {s for s, _ in states.values()} == {"done"} and len(states) == 4
    assert any("not enough memory; 2 parts are tried from" in line for line in said)


def test_a_finished_member_is_left_as_it_is(tmp_path: Path) -> None:
    members = runs(tmp_path)
    members[0].train()
    before = (members[0].path / "events.jsonl").read_bytes()
    states = train_together(members, StopFlag())
    assert {s for s, _ in states.values()} == {"done"}
    assert (members[0].path / "events.jsonl").read_bytes() == before


# --- the plan ---------------------------------------------------------------------------------------


def test_what_stacks_and_what_does_not_and_why(tmp_path: Path) -> None:
    reason = lambda **options: obstacle(tiny_run(tmp_path, **options))
    assert "on a CPU stacking does not pay" in reason()
    forced = {"plan": {"device": "cpu", "cohort": 4}}
    assert reason(**forced) == ""
    assert "fused kernels" in reason(
        model={"type": "recurrent", "cell": "gru", "n_layers": 1, "d_model": 8}, **forced
    )
    assert "off" in reason(plan={"device": "cpu", "cohort": "off"})


def test_groups_are_by_shape(tmp_path: Path) -> None:
    forced = {"plan": {"device": "cpu", "cohort": 2}}
    make_run = lambda **options: tiny_run(tmp_path, **forced, **options)
    same = [
        make_run(seed=s, optimizer={"type": "adamw", "lr": 0.1 / (1 + s)}, schedule={"type": "constant"})
        for s in range(3)
    ]
    dropout = make_run(seed=7, model={**TRANSFORMER, "dropout": 0.3})
    wide = make_run(seed=8, model={**TRANSFORMER, "d_model": 32})
    batch = make_run(seed=9, train={"global_batch_size": 4})
    assert shape_of(same[0]) == shape_of(dropout) != shape_of(wide)
    found = plan_teams([*same, dropout, wide, batch], {}, workers=2)
    assert [len(team) for team in found.teams] == [2, 2, 1, 1]
    assert sorted(p for team in found.teams for p in team) == sorted(
        r.path for r in (*same, dropout, wide, batch)
    )
    assert any("4 runs as cohorts of 2 + 2" in note for note in found.notes)
    assert any("2 runs alone: no other run has its shape" in note for note in found.notes)


def test_children_wait_for_their_parents_together(tmp_path: Path) -> None:
    forced = {"plan": {"device": "cpu", "cohort": 4}}
    members = [tiny_run(tmp_path, seed=s, **forced) for s in range(4)]
    found = plan_teams(members, {members[3].path: members[0].path.name}, workers=1)
    assert [len(t) for t in found.teams] == [3, 1]


@pytest.mark.parametrize(
    ("n", "workers", "free", "member", "seconds", "size"),
    [
        (20, 1, 140e9, 1e9, 200e-6, 10),  # launches rule below 13 members: two even cohorts
        (20, 1, 140e9, 1e9, 20e-6, 20),  # very small steps: all at once
        (20, 2, 140e9, 1e9, 20e-6, 10),  # two devices share them
        (20, 1, 10e9, 1e9, 20e-6, 7),  # memory for eight: three cohorts of seven
        (20, 1, 1e9, 1e9, 20e-6, 1),  # not even two fit
        (20, 1, 140e9, 1e9, 1.0, 2),  # a large model fills the device alone
    ],
)
def test_sizes_follow_memory_and_roofline(
    n: int, workers: int, free: float, member: float, seconds: float, size: int
) -> None:
    found, why = fitting(n, workers, free, member, seconds)
    assert found == size and why


def test_even_parts() -> None:
    assert even(list(range(7)), 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert even([1], 5) == [[1]]
    for n in range(1, 30):
        for size in range(1, 12):
            parts = even(list(range(n)), size)
            assert [x for p in parts for x in p] == list(range(n))
            assert max(map(len, parts)) <= size and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_memory_of_a_member_is_measured(tmp_path: Path) -> None:
    work, weights = cohorts.step_work(tiny_run(tmp_path))
    model = tiny_run(tmp_path).parts().objective.vocab_size
    assert weights > model * 16 and work.kept > 0 and work.flops > 6 * 8 * weights / 2


def test_a_member_that_broke_unseen_does_not_skip_a_step_when_another_leaves(tmp_path: Path) -> None:
    """The second overflows at its first steps; nobody has read of it when the first one ends at step 3."""
    options = {"schedule": {"type": "constant"}, "evaluations": [], "checkpoint": {"every": 0}}
    lengths, rates = (3, 12), (3e-3, 1e38)
    members = [
        tiny_run(
            tmp_path,
            seed=i,
            optimizer={"type": "adamw", "lr": rate},
            train={"max_steps": n, "log_every": 100},
            **options,
        )
        for i, (n, rate) in enumerate(zip(lengths, rates, strict=True))
    ]
    states = train_together(members, StopFlag())
    assert states[members[0].path] == ("done", "")
    state, message = states[members[1].path]
    assert state == "failed" and "no parameter was changed" in message
    alone = tiny_run(tmp_path / "alone", members[1].config)
    with pytest.raises(Exception, match="no parameter was changed") as error:
        alone.train()
    step = lambda text: int(text.split("step ")[1].split(":")[0])
    assert step(message) == step(str(error.value))


def test_a_member_whose_data_break_leaves_the_others_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, alone = runs(tmp_path / "a"), runs(tmp_path / "b")
    batches = Loader.batches

    def broken(self: Loader, step: int) -> Any:
        if step == 7 and self._order_seed == members[1].config.factor_seed("order"):
            raise OSError("a disk went away")
        return batches(self, step)

    monkeypatch.setattr(Loader, "batches", broken)
    states = train_together(members, StopFlag())
    monkeypatch.undo()
    assert [states[r.path][0] for r in members] == ["done", "failed", "done"]
    assert "a disk went away" in states[members[1].path][1]
    for i in (0, 2):
        alone[i].train()
        check_equal(members[i], alone[i])


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_one_bad_step_of_one_member(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At step 4 the second member's loss is not a number; steps before and after are healthy. Nothing is read until 12."""
    options = {"evaluations": [], "checkpoint": {"every": 0, "at": [4]}}
    make_runs = lambda name: [
        tiny_run(tmp_path / name, seed=i, train={"non_finite": policy, "log_every": 100}, **options)
        for i in range(3)
    ]
    members, healthy = make_runs("a"), make_runs("b")
    each, calls = Cohort._each, 0

    def poisoned(self: Cohort, inputs: Any, targets: Any, factors: Any) -> Any:
        nonlocal calls
        losses, sums = each(self, inputs, targets, factors)
        bad = torch.tensor([1.0, math.nan if calls // 2 == 4 else 1.0, 1.0])  # two micro-batches a step
        calls += 1
        return losses * bad, {name: value * bad for name, value in sums.items()}

    monkeypatch.setattr(Cohort, "_each", poisoned)
    states = train_together(members, StopFlag())
    monkeypatch.undo()
    train_together(healthy, StopFlag())
    newest = lambda run: checkpoint_record(sorted((run.path / "checkpoints").iterdir())[-1])
    for i in (0, 2):
        assert newest(members[i]) == newest(healthy[i]), "to the bit"
    bad = members[1]
    if policy == "stop":
        assert states[bad.path][0] == "failed" and "step 4:" in states[bad.path][1]
        assert newest(bad)["checkpoint"] == "step-00000004", "no later state was saved"
        assert bad.files.status()["step"] == 4
        return
    assert states[bad.path] == ("done", "")
    last = sorted((bad.path / "checkpoints").iterdir())[-1]
    counts = {float(v) for k, v in load_file(last / "optimizer.safetensors").items() if k.endswith("/step")}
    assert counts == {11.0}, "a step that is left out does not count"


def test_a_held_member_stays_where_it_was(tmp_path: Path) -> None:
    """Under `stop` healthy steps after the bad one change nothing either, until the host has read of it."""
    configs = member_configs({"model": GPT2}, steps=8)
    members = trainers(tmp_path, configs, torch.float32)
    cohort = Cohort(
        [t for t, _ in members],
        [r for _, r in members],
        template=template_of([t.program.step.model for t, _ in members]),
        device=CPU,
    )
    each = cohort._losses
    for step in range(4):
        factor = torch.tensor([1.0, math.inf if step == 1 else 1.0, 1.0])
        cohort._losses = lambda *a, f=factor: (
            lambda found: (found[0] * f, {k: v * f for k, v in found[1].items()})
        )(each(*a))
        before = [cohort._weight[i].clone() for i in range(3)]
        cohort.advance([t.batches() for t, _ in members])
        moved = [not torch.equal(b, cohort._weight[i]) for i, b in enumerate(before)]
        assert moved == [True, step < 1, True], step
    assert cohort._steps.flatten().tolist()[1] == 1.0


def test_a_mistake_in_one_member_is_told_to_that_one_only(tmp_path: Path) -> None:
    """Dropout on the attention of long rows is refused when it comes to it; the member without it is innocent."""
    long = {"packing": {"type": "windows", "seq_len": 600}, "evaluations": []}
    rows = {"max_steps": 2, "global_batch_size": 1, "micro_batch_size": 1}
    members = [
        tiny_run(tmp_path, model={**TRANSFORMER, "attention_dropout": p}, train=rows, **long)
        for p in (0.0, 0.1)
    ]
    said: list[str] = []
    states = train_together(members, StopFlag(), said.append)
    assert states[members[0].path] == ("done", "")
    assert states[members[1].path][0] == "failed" and "attention_dropout" in states[members[1].path][1]
    assert any("cannot go on as one program" in line for line in said)
    assert members[1].files.status()["state"] == "waiting", "as if it had not been tried, like a solo run"
    assert "cohort given up" in (members[0].path / "events.jsonl").read_text()


def test_rows_are_not_padded_beyond_the_positions_a_model_has(tmp_path: Path) -> None:
    """Windows of 29 with bos are 30 long, as many as there are positions; the next multiple of 8 is 32."""
    options = {
        "packing": {"type": "windows", "seq_len": 29},
        "model": {**GPT2, "max_positions": 30},
        "evaluations": [],
    }
    states = train_together([tiny_run(tmp_path, seed=s, **options) for s in range(2)], StopFlag())
    assert {s for s, _ in states.values()} == {"done"}


def test_a_large_vocabulary_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.objectives import framing

    monkeypatch.setattr(framing, "LARGEST_LOGITS", 20 * 71)
    configs = member_configs({"model": GPT2}, steps=4)
    for alone, member in zip(
        solo(tmp_path, configs, torch.float64), together(tmp_path, configs, torch.float64), strict=True
    ):
        for name, value in parameters(alone).items():
            torch.testing.assert_close(parameters(member)[name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("beta", [0.999, 0.9999])
def test_second_moments_in_float32_are_those_of_the_library(beta: float, tmp_path: Path) -> None:
    """1 - beta is taken before it is rounded to float32."""
    optimizer = {"type": "adamw", "lr": 1e-3, "betas": (0.9, beta)}
    configs = [
        tiny_config(model=GPT2, optimizer=optimizer, seed=s, train={"max_steps": 3, "clip_norm": 0.0})
        for s in (1, 2)
    ]
    for alone, member in zip(
        solo(tmp_path, configs, torch.float32), together(tmp_path, configs, torch.float32), strict=True
    ):
        for (name, a), b in zip(parameters(alone).items(), parameters(member).values(), strict=True):
            if name.endswith("attention.k.bias"):
                continue
            x, y = (t.program.optimizer.state[p]["exp_avg_sq"] for t, p in ((alone, a), (member, b)))
            large = x > x.max() * 1e-3
            assert float(((x - y).abs() / x)[large].median()) < 2e-6, name
