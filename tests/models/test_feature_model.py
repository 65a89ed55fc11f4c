"""The feature model: its size, transformers' GPT-2 on the same vectors, and token distributions by brute force."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import tiny_config, tiny_run

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.features import FEATURES, FeatureTable, vocabulary_features
from lexarium.foundation.rng import torch_generator
from lexarium.foundation.types import Incompatible, UserError
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters
from lexarium.studies.assembly import make
from lexarium.studies.run import Run
from lexarium.studies.run_config import Identity, check
from lexarium.tokens.tokenizers import assign_roles
from lexarium.training import checkpoint
from lexarium.training.signals import StopFlag
from phonemes import ROWS, table_file, utterances_file
from toy import InMemory

SMALL = {"n_layers": 2, "n_heads": 2, "d_model": 16, "d_ff": 24, "max_positions": 20}


def config(path: Path, **options: Any) -> Any:
    cls = registry.find("model", "transformer").Config
    return validate(
        cls,
        Source({"type": "transformer", "preset": "gpt2_feature", "features": {"path": str(path)}, **options}),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return table_file(tmp_path)


def vocabulary(path: Path) -> tuple[Any, np.ndarray]:
    """A tokenizer of all phonemes of the table, and the values of its tokens (V, 39)."""
    cls = registry.find("tokenizer", "symbol")
    tokenizer = cls(cls.Config())
    tokenizer.train(InMemory([" ".join(ROWS)]))
    table = validate(FeatureTable, Source({"path": str(path)}))
    return tokenizer, vocabulary_features(table, tokenizer, assign_roles(tokenizer, ("bos", "eos")))


def spread(model: Any) -> Any:
    """As drawn, biases are zero and norms one: an error could hide."""
    generator = torch_generator(1, "spread")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.new_tensor(1.0) if parameter.ndim == 1 else parameter * 0)
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model.double().eval()


def described(path: Path, **options: Any) -> tuple[Any, np.ndarray]:
    _, values = vocabulary(path)
    model = build_model(config(path, **SMALL, **options), len(values), seed=1)
    model.describe(values)
    return spread(model), values


def rows(v: int) -> torch.Tensor:
    return torch.randint(0, v, (3, 15), generator=torch_generator(0, "ids"))


# --- size -------------------------------------------------------------------------------------------


def test_the_size_is_that_of_the_original_without_its_unused_table(path: Path) -> None:
    """Spec 2.3: 4,847,360 with a table of 47 tokens that the original has and never reads."""
    d, slots, n_layers = 256, 39, 6
    trunk = 256 * d + n_layers * (12 * d * d + 13 * d) + 2 * d
    ours = 3 * slots * d + d + 2 * d + trunk
    assert ours == 4_847_360 - 47 * d == 4_835_328
    for v in (47, 300):
        model = build_model(config(path), v, None, "meta")
        assert count_parameters(model) == ours
        assert count_parameters(model, non_embedding=True) == trunk - 256 * d
        assert dict(model.named_buffers())["embedding.multi_hot"].shape == (v, 117)


def test_initial_values(path: Path) -> None:
    """GPT-2's: N(0, 0.02), biases 0, norms 1; of `library` those of torch.nn.Linear(117, d)."""
    made = dict(build_model(config(path), 9, 1).named_parameters())
    assert float(made["embedding.weight"].detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not made["embedding.bias"].any() and bool((made["embedding.norm.weight"] == 1).all())
    made = dict(build_model(config(path, initialisation="library", tied=False), 9, 1).named_parameters())
    for name in ("embedding.weight", "embedding.bias"):
        assert 0.95 / math.sqrt(117) < float(made[name].detach().abs().max()) <= 1 / math.sqrt(117)


# --- what is computed ---------------------------------------------------------------------------------


def projected(model: Any, values: np.ndarray) -> torch.Tensor:
    """(V, D) the vectors of tokens, written out slot by slot."""
    weight, found = model.embedding.weight, []
    for row in values:
        total = model.embedding.bias.clone()
        for slot, value in enumerate(row):
            total = total + weight[3 * slot + int(value)]
        found.append(total)
    norm = model.embedding.norm
    return torch.nn.functional.layer_norm(
        torch.stack(found), (weight.shape[1],), norm.weight, norm.bias, 1e-5
    )


def test_states_are_those_of_gpt2_on_the_same_vectors(path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, values = described(path)
    settings = transformers.GPT2Config(
        vocab_size=3, n_positions=20, n_embd=16, n_layer=2, n_head=2, n_inner=24, attn_implementation="eager"
    )
    theirs = transformers.GPT2Model(settings).double().eval()
    own, state = dict(model.named_parameters()), theirs.state_dict()
    turned = lambda x: x.t() if x.ndim == 2 else x  # their matrices are (in, out)
    for end in ("weight", "bias"):
        state[f"ln_f.{end}"] = own[f"stack.final_norm.{end}"]
        for i in range(2):
            here, there = f"stack.blocks.{i}.", f"h.{i}."
            fused = torch.cat([own[f"{here}attention.{x}.{end}"] for x in "qkv"])
            state[f"{there}attn.c_attn.{end}"] = turned(fused)
            for mine, its in (
                ("attention.out", "attn.c_proj"), ("attention_norm", "ln_1"), ("feed_forward.up", "mlp.c_fc"),
                ("feed_forward.down", "mlp.c_proj"), ("feed_forward_norm", "ln_2"),
            ):  # fmt: skip
                state[f"{there}{its}.{end}"] = turned(own[f"{here}{mine}.{end}"])
    state["wpe.weight"] = own["stack.position_embedding"]
    theirs.load_state_dict({k: v.detach() for k, v in state.items()})
    ids = rows(len(values))
    with torch.no_grad():
        found = model(tokens=ids).hidden.reshape(3, 15, 16)
        expected = theirs(inputs_embeds=projected(model, values)[ids]).last_hidden_state
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_tokens_have_the_product_of_their_features(path: Path) -> None:
    """log p(v) = sum over 39 slots of log p(value of v), renormalised: by loops over tokens and slots."""
    model, values = described(path)
    with torch.no_grad():
        output = model(tokens=rows(len(values)))
        found = output.unembed(output.hidden).log_softmax(-1)
        slots = (output.hidden @ model.embedding.weight.T).reshape(-1, 39, 3).log_softmax(-1)
    brute = torch.zeros_like(found)
    for v, row in enumerate(values):
        for slot, value in enumerate(row):
            brute[:, v] += slots[:, slot, int(value)]
    brute -= brute.exp().sum(1, keepdim=True).log()
    assert torch.allclose(found, brute, rtol=0, atol=1e-10)
    assert float(brute.std()) > 0.5, "a flat distribution would prove nothing"
    weight, bias = output.head
    assert bias is None and torch.allclose(output.hidden @ weight.T, output.unembed(output.hidden))
    given, unembed = output.features
    assert given.argmax(-1).tolist() == values.tolist() and (given.sum(-1) == 1).all()
    assert torch.allclose(unembed(output.hidden).log_softmax(-1), slots)


def test_equal_features_are_equally_likely(path: Path) -> None:
    model, values = described(path)
    with torch.no_grad():
        output = model(tokens=rows(len(values)))
        found = output.unembed(output.hidden)
    assert values[2].tolist() == values[3].tolist(), "boundaries of words and of utterances"
    assert torch.allclose(found[:, 2], found[:, 3])
    assert not torch.allclose(found[:, 4], found[:, 5])


def test_one_weight_reads_and_predicts(path: Path) -> None:
    """Its gradient is the sum of those of both uses; untied, of the first alone."""
    gradients = {}
    for tied in (True, False):
        model, values = described(path, tied=tied)
        ids = rows(len(values))
        output = model.train()(tokens=ids)
        assert (output.features is None) != tied
        torch.nn.functional.cross_entropy(output.unembed(output.hidden), ids.reshape(-1)).backward()
        gradients[tied] = {n: p.grad for n, p in model.named_parameters()}
        assert all(g is not None and bool(g.any()) for g in gradients[tied].values())
    assert "unembedding.weight" in gradients[False] and "unembedding.weight" not in gradients[True]


def test_pieces_of_rows_are_the_rows(path: Path) -> None:
    model, values = described(path)
    ids = rows(len(values))
    with torch.no_grad():
        whole = model(tokens=ids)
        _, state = model.advance(ids[:, :9])
        rest, _ = model.advance(ids[:, 9:], state)
    expected = whole.unembed(whole.hidden).reshape(3, 15, -1)[:, 9:].reshape(18, -1)
    assert torch.allclose(rest.unembed(rest.hidden), expected, rtol=0, atol=1e-10)


def test_a_model_without_its_table_computes_no_number(path: Path) -> None:
    """Rows of zeros would train in silence, as in the original's loader."""
    model = build_model(config(path, **SMALL), 9, seed=1)
    output = model(tokens=rows(9))
    assert bool(output.hidden.isnan().all()) and bool(output.unembed(output.hidden).isnan().all())
    for values in (np.zeros((8, 39), np.int64), np.full((9, 39), 3), np.full((9, 39), -1)):
        with pytest.raises(ValueError, match=r"expected \(9, 39\) in 0\.\.2"):
            model.describe(values)


def test_configurations_that_say_nothing_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.path: missing"):
        validate(
            registry.find("model", "transformer").Config,
            Source({"type": "transformer", "preset": "gpt2_feature"}),
        )
    with pytest.raises(ConfigError, match="outputs of features have none"):
        config(path, output_bias=True)
    assert config(path, output_bias=True, tied=False).features.columns == FEATURES


LOSS = {"type": "loss", "splits": ["val"], "every": 4}


# --- a run --------------------------------------------------------------------------------------------


def options(folder: Path, **more: Any) -> dict[str, Any]:
    model = {"type": "transformer", "preset": "gpt2_feature", **SMALL, "max_positions": 520}
    return {
        "corpus": {"type": "utterances", "path": str(utterances_file(folder)), "split": {"val": 0.2}},
        "tokenizer": {"type": "symbol"},
        "model": {**model, "features": {"path": str(table_file(folder))}},
        "objective": {"type": "causal", "loss": "features"},
        "evaluations": [{"type": "loss", "splits": ["val"], "every": 4}],
        **more,
    }


def test_a_run_learns_goes_on_and_answers_without_the_table(tmp_path: Path) -> None:
    """Interrupted and resumed with the table gone, it gives the weights of the run that was not; then it is moved."""
    given = options(tmp_path / "data", checkpoint={"every": 6})
    whole = tiny_run(tmp_path / "whole", **given)
    assert whole.train() == "done"
    lines = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (line["train.feature_ce"] for line in lines)
    assert last < first < math.log(3), "less than of three values equally likely"
    cut = tiny_run(tmp_path / "cut", **{**given, "train": {"max_steps": 12}})
    flag = StopFlag()
    stop = lambda step: flag.raise_flag("stopped by the test", 124) if step == 6 else None
    assert cut.train(flag, progress=stop) == "preempted"
    Path(given["model"]["features"]["path"]).unlink()
    again = Run.open(cut.path)
    assert again.train() == "done"
    one, other = (
        load_file(run.path / "checkpoints/step-00000012/model.safetensors") for run in (whole, again)
    )
    assert all(torch.equal(one[name], other[name]) for name in one) and "embedding.multi_hot" in one
    scores = np.exp(again.scorer().next_scores(["p a", "n o s"]))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    assert again.scorer().generate(["p"], 5)
    with pytest.raises(ConfigError, match=r"phoible\.csv is not a file"):
        tiny_config(**given)


def test_what_was_learnt_goes_over_to_other_phonemes(tmp_path: Path) -> None:
    """Parameters do not depend on the vocabulary: a run starts from the weights of another, with a table of its own."""
    parent = tiny_run(tmp_path / "runs", **options(tmp_path / "data"))
    assert parent.train() == "done"
    data = options(
        tmp_path / "other", start={"type": "run", "path": str(parent.path)}, train={"max_steps": 1}
    )
    utterances_file(tmp_path / "other", words=("k i", "m a", "ɡ e"))
    child = tiny_run(tmp_path / "runs", **{**data, "checkpoint": {"at": [0]}})
    assert child.train() == "done"
    one, other = (
        load_file(run.path / f"checkpoints/step-{step:08d}/model.safetensors")
        for run, step in ((parent, 12), (child, 0))
    )
    assert one["embedding.multi_hot"].shape[0] > other["embedding.multi_hot"].shape[0] == 10
    assert other["embedding.multi_hot"].sum(1).tolist() == [39.0] * 10
    assert all(torch.equal(one[n], other[n]) for n in one if n != "embedding.multi_hot")


def test_the_loss_of_tokens_may_be_trained_too(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "runs", **options(tmp_path / "data", objective={"type": "causal"}))
    assert run.train() == "done"
    losses = {step: found["val"] for _, step, found in run.files.evaluations()}
    assert losses[12] < losses[0]


def test_the_table_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    name = lambda data: Identity(tiny_config(**data)).hash
    one = name(options(tmp_path / "a"))
    assert name(options(tmp_path / "b")) == one, "wherever it lies"
    data = options(tmp_path / "c")
    table_file(tmp_path / "c", {**ROWS, "m": ROWS["n"]})
    assert name(data) != one


def test_a_loss_of_features_needs_a_model_that_predicts_them(tmp_path: Path) -> None:
    data = options(tmp_path)
    for model in (
        {**data["model"], "tied": False},
        {k: v for k, v in data["model"].items() if k not in ("features", "preset")},
    ):
        with pytest.raises(Incompatible, match="does not predict features; set model.features"):
            check(tiny_config(**{**data, "model": model}))
    check(tiny_config(**data))


def test_symbols_that_cannot_be_told_apart_are_told(tmp_path: Path) -> None:
    data = options(tmp_path / "data")
    table_file(tmp_path / "data", {**ROWS, "m": ROWS["n"]})
    told: list[str] = []
    assert tiny_run(tmp_path / "runs", **data).train(say=told.append) == "done"
    (remark,) = [t for t in told if "which the model cannot tell apart" in t]
    assert remark.split(": ")[-1] in ("m, n", "n, m")


def test_a_symbol_without_a_row_stops_before_the_first_step(tmp_path: Path) -> None:
    data = options(tmp_path / "data")
    table_file(tmp_path / "data", {k: v for k, v in ROWS.items() if k != "m"})
    run = tiny_run(tmp_path / "runs", **data)
    with pytest.raises(UserError, match=r"has no row for 'm' \(U\+006D"):
        run.train()
    assert run.files.status()["state"] != "failed", "a mistake leaves the run as it was"


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_windows_and_documents_have_the_loss_on_features(tmp_path: Path, direction: str) -> None:
    """Means over what is predicted, each of the slots' losses one by one: what such a run is chosen by."""
    windows = {"type": "window_loss", "splits": ["val"], "seq_len": 5}
    best = {"best": {"metric": "loss.val.feature_ce"}}
    more = {"direction": {"type": direction}, "checkpoint": best}
    run = tiny_run(tmp_path, **options(tmp_path / "data", evaluations=[windows, LOSS], **more))
    assert run.train() == "done"
    scorer = run.scorer()
    documents = make("corpus", run.config.corpus).documents("val")
    ids = [scorer.tokenizer.encode(d.text)[0] for d in documents]
    turn = -1 if direction == "backward" else 1
    joined = np.concatenate(ids)
    rows = {
        "loss": [own[::turn] for own in ids],
        "window_loss": [joined[a : a + 5][::turn] for a in range(0, len(joined) - 4, 5)],
    }
    for name, own in rows.items():
        targets = [np.append(row, scorer.roles["eos"]) for row in own]
        losses = np.concatenate([p[:, 4] for p in scorer.predictions(own, targets, 3)])
        found = run.evaluate(run.evaluation(name), None, save=False)[1].metrics
        assert found["val.feature_ce"] == pytest.approx(losses.mean(), rel=1e-5)
        assert found["val.feature_ce"] != pytest.approx(found["val"], rel=0.1)
    chosen = {step: m["val.feature_ce"] for name, step, m in run.files.evaluations() if name == "loss"}
    assert len(chosen) > 1 and min(chosen, key=lambda s: chosen[s]) in checkpoint.steps(run.path)
