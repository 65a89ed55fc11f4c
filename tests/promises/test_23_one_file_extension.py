"""Promise 23: a new model, objective, corpus or evaluation is one file outside the package, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import builders
from lexarium.foundation import registry
from lexarium.foundation.files import read_json
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run

MODEL = '''
"""A bag of words with a decay: a model in one file."""
import torch
from pydantic import Field
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Output
from lexarium.models.dropout import Dropout
from lexarium.models.layers import Layout, normal

class Decay(torch.nn.Module):
    """State t is decay * state t-1 + embedding t."""
    kind, name, version = "model", "decay", 1
    consumes = frozenset({"tokens", "real", "token_key"})
    needs = frozenset({"tokens"})
    packs, stacks, compiles, randomness = False, False, False, "keyed"
    max_length = None

    class Config(ComponentConfig):
        """Options of `decay`."""
        type: str = "decay"
        d_model: int = Field(8, gt=0)
        decay: float = Field(0.5, ge=0, lt=1)

    def __init__(self, config, vocab_size):
        super().__init__()
        self.config = config
        self.embedding = torch.nn.Parameter(torch.empty(vocab_size, config.d_model))
        self.dropout = Dropout(0.1)

    def initialise_parameter(self, name, parameter, generator):
        normal(parameter, generator, 0.1)

    def forward(self, tokens, real=None, token_key=None, layers=None):
        layout = Layout.of(tokens, real)
        states, state = [], 0.0
        for t in range(tokens.shape[1]):
            state = self.config.decay * state + self.embedding[tokens[:, t]]
            states.append(state)
        hidden = layout.flatten(torch.stack(states, 1))
        key = None if token_key is None else layout.flatten(token_key)
        return Output(self.dropout(hidden, key), lambda h: h @ self.embedding.T, layers=layers)
'''

OBJECTIVE = '''
from lexarium.foundation.types import Term
from lexarium.objectives.causal import Causal

class WithPenalty(Causal):
    """Next-token prediction and a penalty on large states: two loss terms."""
    kind, name, version = "objective", "with_penalty", 1

    class Config(Causal.Config):
        """Options of `with_penalty`."""
        type: str = "with_penalty"
        strength: float = 0.01

    def loss(self, output, batch):
        size = output.hidden.square().mean(-1).sum()
        return {**super().loss(output, batch), "size": Term(size, self.config.strength)}

    def collate(self, examples, dropout_key=None):
        batch = super().collate(examples, dropout_key)
        batch.weights["size"] = batch.weights["ce"]
        return batch
'''

CORPUS = '''
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document

class Counting:
    """Numbers counted up from i."""
    kind, name, version = "corpus", "counting", 1
    splits = ("train", "val")

    class Config(ComponentConfig):
        """How many."""
        type: str = "counting"
        n: int = 40

    def __init__(self, config):
        self.config = config

    def documents(self, split):
        for i in range(self.config.n if split == "train" else 5):
            words = [str((i + j) % 10) for j in range(i % 4 + 2)]
            yield Document(" ".join(words), {"first": words[0]})

    def symbols(self):
        return [str(i) for i in range(10)]

    def fingerprint(self):
        return ""
'''

EVALUATION = '''
from lexarium.evaluations.evaluation import EvaluationConfig
from lexarium.foundation.types import Result

class Successor:
    """Does the model know what follows a number?"""
    kind, name, version = "evaluation", "successor", 1
    asks = frozenset({"next_scores"})

    class Config(EvaluationConfig):
        """Options of `successor`."""
        type: str = "successor"
        up_to: int = 9

    def __init__(self, config, data):
        self.config = config
        self.texts = [d.text.split()[0] for d in data.documents("val")][: config.up_to]

    def run(self, scorer, key):
        words = sorted(set(self.texts))
        right = scorer.choose(self.texts, words) == [words.index(t) for t in self.texts]
        return Result({"val.right": float(right.mean())}, {"text": self.texts, "right": right.tolist()})
'''

FILES = {
    "model": (MODEL, "Decay"),
    "objective": (OBJECTIVE, "WithPenalty"),
    "corpus": (CORPUS, "Counting"),
    "evaluation": (EVALUATION, "Successor"),
}
TRAIN = {"max_steps": 3, "global_batch_size": 4, "micro_batch_size": None, "log_every": 1}


def plugin(folder: Path, kind: str) -> str:
    """Write the file of a kind; returns its `type`."""
    text, name = FILES[kind]
    path = folder / f"my_{kind}.py"
    path.write_text(text)
    return f"{path}:{name}"


def options(folder: Path, *kinds: str) -> dict[str, Any]:
    found: dict[str, Any] = {"train": TRAIN, "checkpoint": {"every": 1}}
    for kind in kinds:
        part = {"type": plugin(folder, kind)}
        found |= (
            {"evaluations": [{"type": "loss", "splits": ["val"]}, {**part, "every": 1}]}
            if kind == "evaluation"
            else {kind: part}
        )
    return found


@pytest.mark.parametrize("kind", FILES)
def test_one_file_trains(tmp_path: Path, kind: str) -> None:
    run = builders.tiny_run(tmp_path / "runs", **options(tmp_path, kind))
    assert run.train() == "done"
    metrics = run.files.metrics()
    assert [record["step"] for record in metrics] == [1, 2, 3]
    assert metrics[0]["train.ce"] != metrics[2]["train.ce"]
    if kind == "objective":
        assert all(record["train.size"] > 0 for record in metrics)
    if kind == "evaluation":
        steps = [
            step
            for name, step, values in run.files.evaluations()
            if name == "Successor" and 0 <= values["val.right"] <= 1
        ]
        assert steps == [0, 1, 2, 3]


def test_all_four_together_and_from_the_run_directory_alone(tmp_path: Path) -> None:
    """The originals are gone, the process is another: the copies in the run directory are enough."""
    run = builders.tiny_run(tmp_path / "runs", **options(tmp_path, *FILES))
    assert run.train() == "done"
    before = read_json(run.files.evaluation_file("Successor", 3))
    for kind in FILES:
        (tmp_path / f"my_{kind}.py").unlink()
    code = f"""
import sys
from lexarium.studies.run import Run
run = Run.open({str(run.path)!r}, trust_plugins=True)
step, result = run.evaluate(run.evaluation("Successor"))
print(step, result.metrics["val.right"], type(run.model()).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", str(before["metrics"]["val.right"]), "Decay"]
    assert len(list((tmp_path / "runs" / "stores").iterdir())) == 1


def test_the_run_directory_holds_the_source(tmp_path: Path) -> None:
    run = builders.tiny_run(tmp_path / "runs", **options(tmp_path, *FILES))
    plugins = read_json(run.path / "provenance.json")["plugins"]
    assert set(plugins) == {plugin(tmp_path, kind) for kind in FILES}
    for kind, (text, _) in FILES.items():
        assert (run.path / plugins[plugin(tmp_path, kind)]).read_text() == text
    with pytest.raises(UserError, match="read plugins/ in the run directory and open it with trust_plugins"):
        Run.open(run.path)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    """Files that share a name, or a class that shares a name, are kept apart."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model, corpus = plugin(tmp_path / "a", "model"), plugin(tmp_path / "b", "corpus")
    for old, new in ((model, tmp_path / "a" / "mine.py"), (corpus, tmp_path / "b" / "mine.py")):
        Path(old.rpartition(":")[0]).rename(new)
    run = builders.tiny_run(
        tmp_path / "runs",
        model={"type": f"{tmp_path / 'a' / 'mine.py'}:Decay"},
        corpus={"type": f"{tmp_path / 'b' / 'mine.py'}:Counting"},
        train=TRAIN,
    )
    assert Run.open(run.path, trust_plugins=True).train() == "done"


def test_a_module_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, "model")
    monkeypatch.syspath_prepend(tmp_path)
    run = builders.tiny_run(tmp_path / "runs", model={"type": "my_model:Decay"}, train=TRAIN)
    assert run.train() == "done"
    assert Run.open(run.path, trust_plugins=True).model().config.decay == 0.5


@pytest.mark.parametrize("kind", ["model", "corpus", "objective"])
def test_options_of_a_plugin_are_checked_like_any(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=rf"{kind}\.d_modell: unknown key"):
        builders.tiny_config(**{kind: {"type": plugin(tmp_path, kind), "d_modell": 3}})


def test_a_plugin_is_part_of_the_name(tmp_path: Path) -> None:
    one = builders.tiny_run(tmp_path / "runs", model={"type": plugin(tmp_path, "model")}, train=TRAIN)
    other = builders.tiny_run(
        tmp_path / "runs", model={"type": plugin(tmp_path, "model"), "decay": 0.6}, train=TRAIN
    )
    assert one.path != other.path and "-decay-" in one.path.name


@pytest.mark.parametrize("kind", FILES)
def test_registering_needs_no_edit(tmp_path: Path, kind: str) -> None:
    cls = registry.find(kind, plugin(tmp_path, kind))
    assert (
        cls.__module__.startswith("lexarium_plugin_")
        and registry.describe(kind, plugin(tmp_path, kind))["version"] == 1
    )
