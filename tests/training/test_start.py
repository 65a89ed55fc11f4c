"""Where weights come from: from scratch by name, from another run, from a GPT-2 in the Hugging Face format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.builders import RECURRENT, TRANSFORMER, record, tiny_config, tiny_run
from torch import nn

from lexarium.foundation.files import Damaged
from lexarium.foundation.types import UserError
from lexarium.models.build import build_model
from lexarium.studies.run import Run
from lexarium.studies.run_config import Identity
from lexarium.training import checkpoint
from lexarium.training.signals import StopFlag
from lexarium.training.trainer import freeze

STEP_0 = {"checkpoint": {"every": 5, "at": [0]}, "evaluations": []}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("parent"))
    run.train()
    return run


def child_of(parent: Run, folder: Path, **options: Any) -> Run:
    start = {"type": "run", "path": str(parent.path), **options}
    run = tiny_run(folder, start=start, seed=2, **STEP_0)
    assert run.train() == "done"
    return run


def weights(run: Run, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.directory(run.path, step) / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)


# --- from another run -------------------------------------------------------------------------------


def test_starts_at_the_weights_of_the_newest_checkpoint(parent: Run, tmp_path: Path) -> None:
    child = child_of(parent, tmp_path)
    assert_same(weights(child, 0), weights(parent, 12))
    assert not torch.equal(weights(child, 12)["embedding"], weights(parent, 12)["embedding"])


def test_starts_at_a_step(parent: Run, tmp_path: Path) -> None:
    assert_same(weights(child_of(parent, tmp_path, step=5), 0), weights(parent, 5))


def test_takes_over_some_parts_only(parent: Run, tmp_path: Path) -> None:
    child, fresh = child_of(parent, tmp_path, parts=["embedding"]), tiny_run(tmp_path, seed=2, **STEP_0)
    fresh.train()
    begun, scratch = weights(child, 0), weights(fresh, 0)
    for name in begun:
        expected = weights(parent, 12) if name == "embedding" else scratch
        assert torch.equal(begun[name], expected[name]), name


def test_an_interrupted_child_does_not_start_again_from_its_parent(parent: Run, tmp_path: Path) -> None:
    from lexarium.training.signals import StopFlag

    whole = child_of(parent, tmp_path / "whole")
    start = {"type": "run", "path": str(parent.path)}
    cut, flag = tiny_run(tmp_path / "cut", start=start, seed=2, **STEP_0), StopFlag()
    assert cut.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 7 else None) == "preempted"
    assert cut.train() == "done"
    assert record(cut) == record(whole)


def test_identity_names_the_parent_and_the_step_but_not_the_place(parent: Run, tmp_path: Path) -> None:
    name = lambda **options: Identity(tiny_config(start={"type": "run", **options})).hash
    here = name(path=str(parent.path))
    assert here == name(path=str(tmp_path / "moved" / parent.path.name))
    assert here != name(path=str(parent.path), step=5)
    assert here != name(path=str(parent.path.with_name(parent.path.name[:-10] + "0123456789")))
    assert here != Identity(tiny_config()).hash


def test_the_last_step_is_that_of_a_finished_run(tmp_path: Path) -> None:
    """Without a step the child means the parent's last one; which that is must be fixed."""
    parent = tiny_run(tmp_path / "parent")
    flag = StopFlag()
    parent.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 7 else None)
    with pytest.raises(UserError, match=r"is not finished \(step 7\), .* name a start\.step"):
        child_of(parent, tmp_path / "child")
    parent.train()
    child = child_of(parent, tmp_path / "child")
    assert_same(weights(child, 0), weights(parent, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 7}, r"no checkpoint at step 7 \(steps: 5, 10, 12\)"),
        ({"parts": ["decoder.*"]}, "match no parameter of the model"),
        ({"path": "nowhere-0123456789"}, "not a run directory"),
        ({"path": "nowhere"}, "not the name of a run directory"),
    ],
)
def test_mistakes_are_told(options: dict, message: str, parent: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        tiny_run(tmp_path, start={"type": "run", "path": str(parent.path), **options}).train()


def test_another_architecture_is_refused(parent: Run, tmp_path: Path) -> None:
    start = {"type": "run", "path": str(parent.path)}
    with pytest.raises(Damaged, match=r"has no weights for layers\.0.*start\.parts"):
        tiny_run(tmp_path, start=start, model=RECURRENT).train()
    with pytest.raises(Damaged, match=r"has no weights for stack\.blocks\.1"):
        tiny_run(tmp_path, start=start, model={**TRANSFORMER, "n_layers": 2}).train()
    with pytest.raises(Damaged, match=r"embedding: \(\d+, 16\), expected \(\d+, 8\)"):
        tiny_run(tmp_path, start=start, model={**TRANSFORMER, "d_model": 8}).train()


# --- from a GPT-2 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tiny GPT-2 with the vocabulary of our corpus, saved by transformers; and the model itself."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    parts = tiny_run(folder / "runs").parts()
    config = transformers.GPT2Config(
        vocab_size=parts.objective.vocab_size, n_positions=520, n_embd=16, n_layer=2, n_head=2
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():  # biases and norms away from their trivial values
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1.0 if "ln" in name and "weight" in name else 0.0, std=0.1)
    model.save_pretrained(folder / "model")
    return folder / "model", model


OURS = {
    "type": "transformer",
    "preset": "gpt2",
    "n_layers": 2,
    "n_heads": 2,
    "d_model": 16,
    "max_positions": 520,
}


def test_gpt2_gives_the_same_logits(gpt2: tuple[Path, Any], tmp_path: Path) -> None:
    folder, theirs = gpt2
    run = tiny_run(tmp_path, model=OURS, start={"type": "huggingface", "path": str(folder)}, **STEP_0)
    run.train()
    model = run.model(0)
    tokens = torch.randint(0, theirs.config.vocab_size, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model(tokens)
        logits = output.unembed(output.hidden).view(3, 17, -1)
        torch.testing.assert_close(logits, theirs(tokens).logits, rtol=1e-4, atol=1e-5)
    assert not torch.equal(weights(run, 12)["embedding"], weights(run, 0)["embedding"])


def test_gpt2_trains_as_theirs_does(gpt2: tuple[Path, Any], tmp_path: Path) -> None:
    """Gradients of one batch, without dropout, against transformers' own backward pass."""
    folder, theirs = gpt2
    config = tiny_config(model={**OURS, "dropout": 0.0}, start={"type": "huggingface", "path": str(folder)})
    parts = tiny_run(tmp_path, config).parts()
    model = build_model(config.model, parts.objective.vocab_size, seed=0)
    from lexarium.foundation import registry

    registry.find("start", "huggingface")(config.start).load(model)
    tokens = torch.randint(0, theirs.config.vocab_size, (4, 9), generator=torch.Generator().manual_seed(1))
    output = model(tokens[:, :-1].contiguous())
    loss = nn.functional.cross_entropy(output.unembed(output.hidden), tokens[:, 1:].flatten())
    loss.backward()
    theirs.zero_grad()
    expected = theirs(tokens, labels=tokens).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(model.embedding.grad, theirs.transformer.wte.weight.grad, rtol=1e-3, atol=1e-6)


def test_gpt2_is_named_by_its_weights_not_its_place(gpt2: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = gpt2
    copy = tmp_path / "copy"
    copy.mkdir()
    tensors = load_file(folder / "model.safetensors")
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    name = lambda path: (
        Identity(tiny_config(model=OURS, start={"type": "huggingface", "path": str(path)})).hash
    )
    assert name(folder) == name(copy)
    tensors[next(iter(tensors))].view(-1)[0] += 1
    save_file(tensors, copy / "model.safetensors")
    assert name(folder) != name(copy)


def test_other_layouts_are_refused(gpt2: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = gpt2
    start = {"type": "huggingface", "path": str(folder)}
    with pytest.raises(Damaged, match="embedding"):
        tiny_run(tmp_path, model={**OURS, "d_model": 8}, start=start).train()
    with pytest.raises(Damaged, match=r"has weights that the model lacks: stack\.blocks\.1.*start\.parts"):
        tiny_run(tmp_path, model={**OURS, "n_layers": 1}, start=start).train()
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        tiny_run(tmp_path, model=OURS, start={"type": "huggingface", "path": str(tmp_path)}).train()
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04 not safetensors")
    with pytest.raises(Damaged, match="not a readable safetensors file"):
        tiny_run(tmp_path, model=OURS, start={"type": "huggingface", "path": str(tmp_path)}).train()
    save_file({"encoder.layer.0.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="GPT-2"):
        tiny_run(tmp_path, model=OURS, start={"type": "huggingface", "path": str(tmp_path)}).train()


# --- freezing ---------------------------------------------------------------------------------------


def test_only_the_parameters_named_are_trained(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train={"parameters": [r"stack\.blocks\..*norm.*", "unembedding.bias"]}, **STEP_0)
    run.train()
    before, after = weights(run, 0), weights(run, 12)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {n for n in before if "norm" in n or n == "unembedding.bias"} and len(moved) > 2
    state = load_file(checkpoint.directory(run.path, 12) / "optimizer.safetensors")
    assert {name.rpartition("/")[0] for name in state} == moved
    other = tiny_run(tmp_path, **STEP_0)
    assert other.path.name != run.path.name


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"match no parameter; names look like 'embedding'"):
        tiny_run(tmp_path, train={"parameters": ["head"]}).train()


def test_freezing_matches_whole_names() -> None:
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "ab": nn.Linear(1, 1)})
    assert freeze(model, ("a", r"ab\.bias")) == ["ab.bias"]
    assert freeze(model, (r"a\..*",)) == ["a.weight", "a.bias"]
    assert not model["ab"].weight.requires_grad


def test_initial_weights_depend_on_seed_and_name_alone(tmp_path: Path) -> None:
    """Two models of different depth share the values of the parameters they share."""
    short = build_model(tiny_config(model={**TRANSFORMER, "n_layers": 1}).model, 20, seed=5)
    deep = build_model(tiny_config(model={**TRANSFORMER, "n_layers": 3}).model, 20, seed=5)
    deeper = dict(deep.named_parameters())
    for name, parameter in short.named_parameters():
        assert torch.equal(parameter, deeper[name]), name
    assert json.dumps(sorted(deeper)) != json.dumps(sorted(dict(short.named_parameters())))


def test_a_half_trained_child_goes_on_without_its_parent(tmp_path: Path) -> None:
    parent = tiny_run(tmp_path / "parent")
    parent.train()
    start = {"type": "run", "path": str(parent.path), "step": 12}
    child, flag = tiny_run(tmp_path / "child", start=start, seed=2), StopFlag()
    assert (
        child.train(flag, progress=lambda s: flag.raise_flag("test", 124) if s == 7 else None) == "preempted"
    )
    shutil.rmtree(parent.path)
    assert child.train() == "done"
