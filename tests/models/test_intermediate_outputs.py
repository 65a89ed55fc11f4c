"""The character transformer of 2022: positions and a classifier at every layer, and the loss that trains them.

The forward pass is compared with torch's own encoder layers; what each layer's loss counts with the rule in words; the
losses of a whole training with a loop written here that forms the mean of the layers that remain itself.
"""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import LAYERED, tiny_config, tiny_run
from torch import Tensor, nn
from torch.nn import functional as F

from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.rng import torch_generator
from lexarium.foundation.types import Incompatible, UserError
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters
from lexarium.studies.run_config import check
from lexarium.studies.session import build_trainer
from lexarium.training.step import PASSES, TrainStep, factors_of
from toy import example, toy_tokenizer

V, D, LAYERS, INNER, LENGTH = 13, 32, 3, 48, 24
SMALL = {"n_layers": LAYERS, "d_model": D, "d_ff": INNER, "max_positions": LENGTH}
TINY = LAYERED["model"]


def config(**options: Any) -> Any:
    cls = registry.find("model", "transformer").Config
    return validate(cls, Source({"type": "transformer", **options}))


def small(**options: Any) -> Any:
    return build_model(config(preset="legacy_2022", **SMALL, **options), V, seed=1).double()


def causal(n: int, **options: Any) -> Any:
    cls = registry.find("objective", "causal")
    words = " ".join(chr(ord("a") + i) for i in range(9))
    return cls(cls.Config(intermediate_losses=n, **options), toy_tokenizer([words]))


# --- size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "d", "inner", "length", "dropout", "counts"),
    [
        ("legacy_2022", 128, 1024, 128, 0.1, (4_233_908, 4_240_612)),
        ("legacy_2022_text8", 512, 2048, 512, 0.2, (41_288_756, 41_315_428)),
    ],
)
def test_size(preset: str, d: int, inner: int, length: int, dropout: float, counts: tuple[int, int]) -> None:
    """Counted by hand: per layer a table of positions, four square maps, two norms, two maps of the feed-forward layer
    and a classifier; beside them the embedding and the final norm."""
    found = config(preset=preset)
    assert (found.n_layers, found.n_heads, found.activation) == (12, 8, "relu")
    assert (found.dropout, found.embedding_dropout) == (dropout, 0.0)
    for v, count in zip((47, 51), counts, strict=True):
        layer = length * d + 4 * (d * d + d) + 2 * 2 * d + (d * inner + inner) + (inner * d + d) + (v * d + v)
        assert v * d + 12 * layer + 2 * d == count
        with torch.device("meta"):
            model = registry.find("model", "transformer")(found, v)
        assert count_parameters(model) == count


def test_initial_values_are_those_of_the_library() -> None:
    model = build_model(config(preset="legacy_2022"), 47, seed=1)
    tables = [b.position_embedding.detach() for b in model.stack.blocks]
    assert len(tables) == 12 and all(t.shape == (128, 128) for t in tables)
    assert all(abs(float(t.std()) - 1) < 0.02 and abs(float(t.mean())) < 0.03 for t in tables)
    assert len({float(t[0, 0]) for t in tables}) == 12
    bound = 1 / math.sqrt(128)
    assert all(0.95 * bound < float(u.weight.detach().abs().max()) <= bound for u in model.layer_unembeddings)


# --- the forward pass -----------------------------------------------------------------------------------


class Reference(nn.Module):
    """The same model out of torch's layers; gives the logits of every layer, (n, B, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.positions = nn.ParameterList(torch.empty(LENGTH, D) for _ in range(LAYERS))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                D, 8, INNER, dropout=0.0, activation="relu", norm_first=True, batch_first=True
            )
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(D)
        self.classifiers = nn.ModuleList(nn.Linear(D, V) for _ in range(LAYERS))

    def forward(self, rows: Tensor) -> Tensor:
        t = rows.shape[1]
        mask = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
        x, found = self.embedding(rows) * D**0.5, []
        for table, layer, classifier in zip(self.positions, self.layers, self.classifiers, strict=True):
            x = layer(x + table[:t], src_mask=mask, is_causal=True)
            found.append(classifier(self.norm(x)))
        return torch.stack(found)

    def copy(self, model: Any) -> None:
        """Take over the parameters of ours, every one once."""
        own = dict(model.named_parameters())
        give = lambda target, name: target.data.copy_(own.pop(name))
        give(self.embedding.weight, "embedding")
        for i, layer in enumerate(self.layers):
            block = f"stack.blocks.{i}."
            give(self.positions[i], f"{block}position_embedding")
            for kind in ("weight", "bias"):
                joined = torch.cat([own.pop(f"{block}attention.{part}.{kind}") for part in "qkv"])
                getattr(layer.self_attn, f"in_proj_{kind}").data.copy_(joined)
                give(getattr(layer.self_attn.out_proj, kind), f"{block}attention.out.{kind}")
                give(getattr(layer.linear1, kind), f"{block}feed_forward.up.{kind}")
                give(getattr(layer.linear2, kind), f"{block}feed_forward.down.{kind}")
                give(getattr(layer.norm1, kind), f"{block}attention_norm.{kind}")
                give(getattr(layer.norm2, kind), f"{block}feed_forward_norm.{kind}")
                last = "unembedding" if i == LAYERS - 1 else f"layer_unembeddings.{i}"
                give(getattr(self.classifiers[i], kind), f"{last}.{kind}")
        for kind in ("weight", "bias"):
            give(getattr(self.norm, kind), f"stack.final_norm.{kind}")
        assert not own, f"parameters the reference does not know: {list(own)}"


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Reference]:
    """Ours and theirs with equal weights; norms and biases too are drawn, so that no error hides."""
    mine, theirs = small(dropout=0.0), Reference().double()
    generator = torch_generator(1, "spread")
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    theirs.copy(mine)
    return mine, theirs


def test_every_layer_predicts_as_torchs_layers_do(pair: tuple[Any, Reference]) -> None:
    mine, theirs = pair
    rows = torch.randint(0, V, (3, 20), generator=torch_generator(0, "ids"))
    output, expected = mine(tokens=rows), theirs(rows)
    assert len(output.intermediate) == LAYERS - 1
    for own, wanted in zip([*output.intermediate, output], expected, strict=True):
        torch.testing.assert_close(own.unembed(own.hidden), wanted.reshape(60, V), rtol=0, atol=1e-10)
        assert own.head is not None
        torch.testing.assert_close(own.unembed(own.hidden), F.linear(own.hidden, *own.head))


def test_losses_and_gradients_are_torchs(pair: tuple[Any, Reference]) -> None:
    """At the start of training: the mean over the layers; late: the last layer alone."""
    mine, theirs = pair
    objective = causal(LAYERS - 1, bos=False, eos=False)
    batch = objective.collate([example([1, 2, 3, 4, 5, 6]), example([6, 2, 8, 1, 1, 3], index=1)])
    rows, labels = batch.inputs["tokens"], batch.targets["labels"]
    for step, active in ((0, [0, 1, 2]), (10, [0, 1, 2]), (11, [1, 2]), (59, [2])):
        mine.zero_grad()
        theirs.zero_grad()
        factors = factors_of({**batch.weights, PASSES: 1.0}, coefficients=objective.coefficients(step, 60))
        found, terms = TrainStep(mine, objective)(batch, factors)
        logits = theirs(rows).flatten(1, 2)
        expected = torch.stack([F.cross_entropy(logits[i], labels) for i in active]).mean()
        found.backward()
        expected.backward()
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
        each = [float(F.cross_entropy(x, labels, reduction="sum")) for x in logits.detach()]
        assert [float(terms[n]) for n in ("ce.layer_0", "ce.layer_1", "ce")] == pytest.approx(each)
        torch.testing.assert_close(mine.embedding.grad, theirs.embedding.weight.grad, rtol=0, atol=1e-10)
        for i, block in enumerate(mine.stack.blocks):
            ours = (block.position_embedding, block.feed_forward.up.weight)
            other = (theirs.positions[i], theirs.layers[i].linear1.weight)
            for a, b in zip(ours, other, strict=True):
                torch.testing.assert_close(a.grad[:12], b.grad[:12], rtol=0, atol=1e-10)
        for i, classifier in enumerate(mine.layer_unembeddings):
            nothing = all(not bool(p.grad.any()) for p in classifier.parameters())
            assert nothing == (i not in active)


def test_pieces_of_a_row_and_hidden_states() -> None:
    """A row read in pieces, with a table at every layer, is the row read at once; the states of every layer are those
    its classifier reads, before the norm."""
    model = small(dropout=0.0).eval()
    rows = torch.randint(0, V, (2, 10), generator=torch_generator(0, "ids"))
    whole = model(tokens=rows)
    first, state = model.advance(rows[:, :6])
    second, _ = model.advance(rows[:, 6:], state)
    pieces = torch.cat([first.hidden.view(2, 6, D), second.hidden.view(2, 4, D)], 1)
    torch.testing.assert_close(pieces.reshape(20, D), whole.hidden, rtol=0, atol=1e-10)
    asked = model(tokens=rows, layers=[])
    assert whole.layers is None and len(asked.layers) == LAYERS + 1
    for own, states in zip(asked.intermediate, asked.layers[1:-1], strict=True):
        assert torch.equal(own.hidden, model.stack.final_norm(states))


# --- what the layers count ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 12])
def test_layers_are_switched_off_one_after_the_other(n: int) -> None:
    """At fraction 0, at each switching point (not yet: the rule says `exceeds`), and just after it."""
    objective, length = causal(n - 1), 2 * n * 1000
    names = [f"ce.layer_{i}" for i in range(n - 1)]
    assert objective.coefficients(0, length) == pytest.approx(dict.fromkeys([*names, "ce"], 1 / n))
    for i in range(n - 1):
        point = (i + 1) * 1000  # (i + 1) / (2n) of the training
        for step, gone in ((point - 1, i), (point, i), (point + 1, i + 1)):
            found = objective.coefficients(step, length)
            assert [found[name] for name in names[:gone]] == [0.0] * gone
            rest = [found[name] for name in (*names[gone:], "ce")]
            assert rest == pytest.approx([1 / (n - gone)] * (n - gone))
    half = objective.coefficients(n * 1000, length)
    assert half["ce"] == 1.0 and not any(half[name] for name in names)


@given(st.integers(1, 20), st.integers(1, 10_000), st.data())
def test_the_rule_in_exact_fractions(n: int, max_steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, max_steps))
    active = [i for i in range(n) if i == n - 1 or not Fraction(step, max_steps) > Fraction(i + 1, 2 * n)]
    found = causal_rule(n).coefficients(step, max_steps)
    expected = {
        "ce" if i == n - 1 else f"ce.layer_{i}": 1 / len(active) if i in active else 0.0 for i in range(n)
    }
    assert found == expected


KNOWN: dict[int, Any] = {}


def causal_rule(n: int) -> Any:
    """The objective for n layers, made once."""
    return KNOWN.setdefault(n, causal(n - 1))


def test_an_objective_without_them_has_one_term() -> None:
    objective = causal(0)
    assert objective.coefficients(0, 10) == objective.coefficients(9, 10) == {"ce": 1.0}
    assert set(objective.collate([example([1, 2])]).weights) == {"ce"}


# --- training -------------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "model": {**TINY, "dropout": 0.0},
    "objective": LAYERED["objective"],
    "optimizer": {"type": "sgd", "lr": 0.01, "momentum": 0.9},
    "schedule": {"type": "constant"},
    "train": {"max_steps": 12, "clip_norm": 0.0, "log_every": 1},
}


def test_a_training_is_the_loop_written_out(tmp_path: Path) -> None:
    """12 updates of 3 layers: layer 0 is left out from update 3 on (3/12 > 1/6), layer 1 from update 5 on."""
    run = tiny_run(tmp_path, **RUN)
    trainer, _ = build_trainer(run.config, run.parts(), torch.device("cpu"))
    trainer.program.step.double()
    twin: Any = copy.deepcopy(trainer.program.step.model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)
    for step in range(12):
        batches, active = trainer.batches(), [i for i in range(3) if i == 2 or step / 12 <= (i + 1) / 6]
        assert active == [[0, 1, 2], [1, 2], [2]][(step > 2) + (step > 4)]
        tokens = sum(b.n_tokens for b in batches)
        optimizer.zero_grad(set_to_none=False)
        for batch in batches:
            output = twin(**{k: v for k, v in batch.inputs.items() if k in twin.consumes})
            outputs = [*output.intermediate, output]
            for i in active:
                logits = outputs[i].unembed(outputs[i].hidden)
                total = F.cross_entropy(logits, batch.targets["labels"], reduction="sum")
                (total / tokens / len(active)).backward(retain_graph=True)
        optimizer.step()
        result = trainer.advance()
        assert result is not None and set(result.losses) == {"ce", "ce.layer_0", "ce.layer_1"}
        assert min(result.losses.values()) > 1, "each is a loss of its own, not a share of one"
        for (name, a), b in zip(
            trainer.program.step.model.named_parameters(), twin.parameters(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=f"{name} after update {step}")
    assert trainer.step == 12


def test_evaluation_and_sampling_ask_the_last_layer(tmp_path: Path) -> None:
    """Spoiling every other classifier changes no answer."""
    run = tiny_run(tmp_path, **{**RUN, "train": {"max_steps": 2}})
    assert run.train() == "done"
    scorer = run.scorer()
    data = [example([3, 4, 5, 6]), example([2, 7, 5], index=1)]
    ask = lambda: [s.tolist() for s in scorer.token_scores(data)]
    before = ask()
    with torch.no_grad():
        for parameter in scorer.model.layer_unembeddings.parameters():
            parameter.fill_(7.0)
    assert repr(ask()) == repr(before)
    metrics = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert {"train.ce", "train.ce.layer_0", "train.ce.layer_1"} <= set(metrics[-1])
    with torch.no_grad():
        scorer.model.unembedding.weight.fill_(0.0)
    assert repr(ask()) != repr(before)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "taken"), [(3, 0), (3, 3), (2, 2)])
def test_model_and_objective_must_agree(layers: int, taken: int) -> None:
    objective = {"type": "causal", "intermediate_losses": taken}
    with pytest.raises(Incompatible, match=rf"is {taken}, but {layers - 1} layers.*set it to {layers - 1}"):
        check(tiny_config(model={**TINY, "n_layers": layers}, objective=objective, evaluations=[]))
    check(tiny_config(**{**RUN, "evaluations": []}))


def test_a_loss_without_predictions_to_take_it_of_is_refused() -> None:
    batch = causal(2).collate([example([1, 2, 3])])
    model = build_model(config(n_layers=3, d_model=8, n_heads=2), causal(2).vocab_size, seed=1)
    with pytest.raises(UserError, match="intermediate_losses: is 2, but 0 layers"):
        TrainStep(model, causal(2))(batch, factors_of({**batch.weights, PASSES: 1.0}))
    with pytest.raises(UserError, match="1 layer has none before the last"):
        config(n_layers=1, intermediate_outputs=True)
