"""Promise 9: how a batch is cut and laid out changes rounding only.

16 ragged examples give the same gradient, in float64 and with dropout everywhere, as 16 micro-batches of
one, as 4 of 4, as one of 16, as a padded rectangle, as flat real tokens, and as one packed row whose
documents may not see each other. The loss is the sum over tokens divided once by the global number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import tiny_run
from torch import Tensor

from lexarium.foundation.features import describe
from lexarium.foundation.types import Batch
from lexarium.models.build import build_model
from lexarium.studies.run import Run
from lexarium.tokens.loader import Loader
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep
from phonemes import FEATURES_OF_LETTERS

DROPOUT = {"dropout": 0.2}
WIDTH = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32}
SEQ2SEQ = {"type": "seq2seq"}
MODELS: dict[str, dict[str, Any]] = {
    "post norm": {
        "model": {"type": "transformer", "preset": "hierarchical_generalization", **WIDTH, **DROPOUT}
    },
    "gpt2": {"model": {"type": "transformer", "preset": "gpt2", **WIDTH, **DROPOUT}},
    "rotary": {
        "model": {"type": "transformer", "positions": "rotary", "activation": "swiglu", **WIDTH, **DROPOUT}
    },
    "lstm": {"model": {"type": "recurrent", "cell": "lstm", "d_model": 16, "n_layers": 2, **DROPOUT}},
    "gru": {"model": {"type": "recurrent", "cell": "gru", "d_model": 16, "n_layers": 2, **DROPOUT}},
    "both": {
        "model": {"type": "transformer", "positions": "rotary", **WIDTH, **DROPOUT},
        "direction": {"type": "both"},
    },
    "permutation": {
        "model": {"type": "transformer", "preset": "gpt2", **WIDTH, **DROPOUT},
        "direction": {"type": "permutation"},
        "packing": {"type": "windows", "seq_len": 12},
        "evaluations": [{"type": "window_loss"}],
    },
    "features": {**FEATURES_OF_LETTERS, "model": {**FEATURES_OF_LETTERS["model"], **DROPOUT}},
    "encoder_decoder": {"model": {"type": "encoder_decoder", **WIDTH, **DROPOUT}, "objective": SEQ2SEQ},
}
WINDOWS = ("permutation",)
"""Arms without padding: all their examples are equally long."""
RAGGED = [name for name in MODELS if name not in WINDOWS]
PACKING = [name for name in RAGGED if name not in ("lstm", "gru")]
N = 16


class Workbench:
    """A model in float64 and a loader; `gradients` of any way to cut the first 16 examples."""

    def __init__(self, run: Run) -> None:
        parts, self.config = run.parts(), run.config
        model = build_model(self.config.model, parts.objective.vocab_size, seed=1).double()
        describe(model, parts.tokenizer, parts.objective.roles)
        for i, parameter in enumerate(model.parameters()):  # far from zero, so that every path matters
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
        self.step = TrainStep(model, parts.objective)
        self.parts = parts
        self.loader: Loader = parts.loader(World(), keyed=True)

    def batches(self, size: int) -> list[Batch]:
        return [self.loader.collate(0, range(i, i + size)) for i in range(0, N, size)]

    def gradients(self, batches: list[Batch]) -> dict[str, Tensor]:
        """Gradients of one global batch as the program accumulates them; the loss beside them."""
        self.step.zero_grad()
        optimizer = torch.optim.SGD(self.step.parameters(), lr=1.0)
        program = EagerProgram(self.step, optimizer, device=torch.device("cpu"), world=World())
        sums = program._gradients(batches, program._denominators(batches))
        found = {n: p.grad.clone() for n, p in self.step.named_parameters() if p.grad is not None}
        return {**found, "loss": next(iter(sums.values()))}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(
            found[name], value, rtol=1e-11, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Workbench:
    return Workbench(tiny_run(tmp_path, **MODELS[request.param]))


every_model = pytest.mark.parametrize("bench", MODELS, indirect=True)
ragged_model = pytest.mark.parametrize("bench", RAGGED, indirect=True)
packing_model = pytest.mark.parametrize("bench", PACKING, indirect=True)


@every_model
def test_cuts_of_the_batch(bench: Workbench) -> None:
    whole = bench.batches(16)
    lengths = {len(bench.loader.example(i)) for i in range(N)}
    fixed = bench.config.direction.type in WINDOWS
    assert len(lengths) > 3 or fixed, "examples must be ragged"
    expected = bench.gradients(whole)
    assert any(float(g.abs().max()) > 1e-4 for n, g in expected.items() if n != "loss")
    assert_equal(bench.gradients(bench.batches(4)), expected)
    assert_equal(bench.gradients(bench.batches(1)), expected)


@every_model
def test_the_order_of_rows_does_not_matter(bench: Workbench) -> None:
    numbers = [5, 3, 15, 0, 8, 1, 14, 2, 7, 4, 13, 6, 12, 9, 11, 10]
    shuffled = [bench.loader.collate(0, numbers[:5]), bench.loader.collate(0, numbers[5:])]
    assert_equal(bench.gradients(shuffled), bench.gradients(bench.batches(16)))


@every_model
def test_the_denominator_is_the_global_number_of_tokens(bench: Workbench) -> None:
    """Against the definition: sum over examples of the gradient of a sum, divided by all predicted tokens."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    bench.step.zero_grad()
    for batch in bench.batches(1):
        loss = next(iter(bench.step.terms(batch).values())).sum
        loss.backward()
        total, tokens = total + loss.detach(), tokens + len(batch.targets["labels"])
    expected = {n: p.grad / tokens for n, p in bench.step.named_parameters() if p.grad is not None}
    assert_equal(bench.gradients(bench.batches(16)), {**expected, "loss": total})


@ragged_model
def test_padded_rectangle_equals_real_tokens(bench: Workbench) -> None:
    """Without `real` the model computes every cell of the rectangle; padding is then left out of the loss."""
    (flat,) = bench.batches(16)
    inputs, real = dict(flat.inputs), flat.inputs["real"]
    rows, columns = inputs["tokens"].shape
    assert real.numel() < rows * columns
    for name in ("real", "source_real"):
        inputs.pop(name, None)
    labels = torch.full((rows * columns,), -100)
    labels[real] = flat.targets["labels"]
    padded = Batch(inputs, {"labels": labels}, flat.weights)
    assert_equal(bench.gradients([padded]), bench.gradients([flat]))


@packing_model
def test_one_packed_row_equals_many_rows(bench: Workbench) -> None:
    (flat,) = bench.batches(16)
    inputs = {
        **packed(flat.inputs, ""),
        **(packed(flat.inputs, "source_") if "source" in flat.inputs else {}),
    }
    row = Batch(inputs, flat.targets, flat.weights)
    assert inputs["tokens"].shape[0] == 1
    assert_equal(bench.gradients([row]), bench.gradients([flat]))


def packed(inputs: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The rows of a padded batch, one after the other in a single row."""
    ids, real = inputs["source" if prefix else "tokens"], inputs[f"{prefix}real"]
    rows, columns = real // ids.shape[1], real % ids.shape[1]
    found = {
        "source" if prefix else "tokens": ids.flatten()[real],
        f"{prefix}position": columns,
        f"{prefix}segment": rows,
        f"{prefix}key" if prefix else "token_key": inputs[
            f"{prefix}key" if prefix else "token_key"
        ].flatten()[real],
    }
    if prefix:
        found["source_mask"] = torch.ones_like(real, dtype=torch.bool)
    return {name: value[None] for name, value in found.items()}


@every_model
def test_dropout_is_on(bench: Workbench) -> None:
    """The tests above would say little about dropout if none happened."""
    (batch,) = bench.batches(16)
    plain = {k: v for k, v in batch.inputs.items() if not k.endswith("key")}
    without = bench.gradients([Batch(plain, batch.targets, batch.weights)])
    dropped, again = bench.gradients([batch]), bench.gradients([bench.loader.collate(1, range(N))])
    for found, other in ((dropped, without), (again, dropped)):  # another step drops something else
        for name in (n for n, g in dropped.items() if g.ndim > 1):
            assert float((found[name] - other[name]).norm()) > 0.02 * float(dropped[name].norm()), name


@pytest.mark.parametrize("arm", ["post norm", "encoder_decoder"])
def test_trained_runs_agree(arm: str, tmp_path: Path) -> None:
    """Whole runs in float32 with three micro-batch sizes: the same within rounding, and the same run by name."""
    losses = {}
    for size in (None, 3, 1):
        run = tiny_run(tmp_path / str(size), **MODELS[arm], train={"micro_batch_size": size, "log_every": 1})
        run.train()
        losses[size] = [m["train.ce"] for m in run.files.metrics()]
        name = run.path.name
    assert all(tiny_run(tmp_path / str(s), **MODELS[arm]).path.name == name for s in losses)
    for size in (3, 1):
        torch.testing.assert_close(torch.tensor(losses[size]), torch.tensor(losses[None]), rtol=2e-5, atol=0)
