"""Every component that ships keeps its contract, and broken ones are caught."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from builders import pair_file
from lexarium.contracts import contract, failures, members
from lexarium.contracts.tools import data_with
from lexarium.foundation import registry
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.tokenizers import save_tokenizer
from phonemes import words_file

OPTIONS = {
    ("start", "run"): {("path",): "runs/x-0123456789"},
}
SHIPPED = [(kind, name) for kind in registry.FOLDERS for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_shipped_components_keep_their_contract(kind: str, name: str, tmp_path: Path) -> None:
    options: Any = OPTIONS.get((kind, name), {})
    if (kind, name) == ("start", "huggingface"):
        save_file({"wte.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
        options = {("path",): str(tmp_path)}
    if (kind, name) in FILES:
        options = FILES[kind, name](tmp_path)
    assert failures(contract(kind, name, options)) == []


def text_file(folder: Path) -> dict[Any, Any]:
    (folder / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(3000)))
    return {("path",): str(folder / "text.txt"), ("block_bytes",): 1024}


def utterance_file(folder: Path) -> dict[Any, Any]:
    lines = (f"{' '.join(str(i))} WORD_BOUNDARY b WORD_BOUNDARY\n" for i in range(300))
    (folder / "utterances.txt").write_text("".join(lines))
    return {("path",): str(folder / "utterances.txt")}


def token_file(folder: Path) -> dict[Any, Any]:
    np.arange(5000, dtype=np.uint16).tofile(folder / "ids.bin")
    return {("path",): str(folder / "ids.bin"), ("document_tokens",): 100}


def saved_set(folder: Path) -> dict[Any, Any]:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": f"row {i}"} for i in range(300)]).save_to_disk(str(folder / "set"))
    return {("path",): str(folder / "set")}


def saved_tokenizer(folder: Path) -> dict[Any, Any]:
    cls = registry.find("tokenizer", "byte")
    save_tokenizer(cls(cls.Config()), folder)
    return {("path",): str(folder)}


def word_table(folder: Path) -> dict[Any, Any]:
    corpus, words = data_with((), folder)
    symbols = open_tokenizer(words, prepare(corpus, words, folder).folder).symbols
    return {("features", "path"): str(words_file(folder, symbols)), ("min_phonemes",): 2}


FILES: Any = {
    ("evaluation", "feature_probe"): word_table,
    ("corpus", "text_files"): text_file,
    ("corpus", "token_files"): token_file,
    ("corpus", "utterances"): utterance_file,
    ("corpus", "hf_dataset"): saved_set,
    ("tokenizer", "file"): saved_tokenizer,
    ("evaluation", "minimal_pairs"): lambda folder: {("path",): str(pair_file(folder))},
}
"""Components that read files: what makes them, and the options that name them."""


HEAD = """
import numpy as np, torch
from torch import nn
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document, Output
from lexarium.models.layers import Layout

class Options(ComponentConfig):
    type: str = "x"
    d_model: int = 8
"""

MODEL = '''
class Mine(nn.Module):
    """A model of mine."""
    kind, name, version = "model", "mine", 1
    consumes, needs = frozenset({{"tokens", "real", "token_key"}}), frozenset({{"tokens"}})
    packs, stacks, compiles, randomness, max_length = False, False, False, "keyed", None
    Config = Options

    def __init__(self, config, vocab_size):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab_size, config.d_model))
        self.scale = nn.Parameter(torch.empty(config.d_model))
        {init}

    def initialise_parameter(self, name, parameter, generator):
        parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.5, generator=generator))

    def forward(self, tokens, real=None, token_key=None):
        layout = Layout.of(tokens, real)
        x = self.embedding[tokens] * (1 + self.scale)
        {forward}
        return Output(layout.flatten(x), lambda h: h @ self.embedding.T)
'''

MODELS = {
    # fault: (lines of __init__, lines of forward, the promise that is not kept)
    "none": ("pass", "pass", None),
    "looks ahead": ("pass", "x = x + x.flip(1).cumsum(1).flip(1)", "causality"),
    "padding": ("pass", "x = x + 0.1 * tokens.shape[1] * (tokens.shape[0] > 1)", "padding"),
    "unused": ("self.unused = nn.Parameter(torch.empty(3))", "pass", "a gradient reaches"),
    "cut": ("pass", "x = self.embedding[tokens] * (1 + self.scale.detach())", "a gradient reaches"),
    "unsaved": (
        "self.register_buffer('extra', torch.rand(config.d_model), persistent=False)",
        "x = x + self.extra",
        "save and load",
    ),
    "random": ("pass", "x = x + 0.1 * torch.randn(x.shape)", "randomness"),
    "raises": ("pass", "raise RuntimeError('out of ideas')", "shapes"),
}


@pytest.mark.parametrize("fault", MODELS)
def test_faulty_models_are_caught(fault: str, tmp_path: Path, lexarium) -> None:
    init, forward, promise = MODELS[fault]
    file = tmp_path / "mine.py"
    file.write_text(HEAD + MODEL.format(init=init, forward=forward))
    answer = lexarium("test-component", "model", f"{file}:Mine", "--json")
    broken = [c["name"] for c in answer.json["checks"] if not c["passed"]]
    if promise is None:
        assert (answer.status, broken) == (0, [])
    else:
        assert answer.status == 1 and any(name.startswith(promise) for name in broken), answer.json


OTHERS = {
    "direction": (
        """
    def apply(self, e):
        from dataclasses import replace
        return replace(e, ids=e.ids[::-1])
    def undo(self, ids):
        return ids[::-1]
""",
        "everything aligned",
    ),
    "schedule": (
        """
    calls = 0
    def scale(self, step, max_steps):
        type(self).calls += 1
        return 1.0 / self.calls
""",
        "a pure function",
    ),
    "corpus": (
        """
    splits = ("train", "val")
    def documents(self, split):
        for i in range(10 if split == "train" else 3):
            yield Document(f"text {i}", {}, {"c": [0] * 6})
    def symbols(self):
        return []
    def fingerprint(self):
        return ""
""",
        "splits are disjoint",
    ),
    "packing": (
        """
    longest = 12
    separator = False
    def plan(self, lengths, seed, epoch):
        class Plan:
            def __len__(self): return len(lengths)
            def pieces(self, i): return [(0, 0, int(lengths[0]))]
        return Plan()
""",
        "every token of every document once",
    ),
    "optimizer": (
        """
    def build(self, parameters, device):
        return torch.optim.SGD([p for n, p in parameters if n != "bias"], lr=0.1)
""",
        "every parameter in a group",
    ),
}


CLASS = '''
class Mine:
    """Mine."""
    kind, name, version = "{kind}", "mine", 1
    Config = Options
'''


@pytest.mark.parametrize("kind", OTHERS)
def test_other_faulty_components_are_caught(kind: str, tmp_path: Path) -> None:
    body, promise = OTHERS[kind]
    head = CLASS.format(kind=kind)
    build = "    def __init__(self, config):\n        self.config = config\n"
    file = tmp_path / "mine.py"
    file.write_text(HEAD + head + build + body)
    broken = failures(contract(kind, f"{file}:Mine"))
    assert any(line.startswith(promise) for line in broken), broken


@pytest.mark.parametrize(
    ("kind", "base", "body", "promise"),
    [
        ("model", "models.recurrent import Recurrent", "advances = frozenset({'tokens', 'real'})\n"
         "    def forward(self, tokens, **more):\n        return super().forward((tokens + 1) % 7, **more)", "rows in pieces"),
        ("objective", "objectives.causal import Causal", "appends = True\n"
         "    def read(self, prefixes):\n        return super().read([(a[::-1], b[::-1]) for a, b in prefixes])", "`appends`"),
    ],
)  # fmt: skip
def test_a_false_promise_of_reading_in_pieces_is_caught(
    kind: str, base: str, body: str, promise: str, tmp_path: Path
) -> None:
    cls = base.split()[-1]
    file = tmp_path / "mine.py"
    file.write_text(f"from lexarium.{base}\n\nclass Mine({cls}):\n    name = 'mine'\n    {body}\n")
    broken = failures(contract(kind, f"{file}:Mine"))
    assert [line for line in broken if line.startswith(promise)], broken


def test_a_component_that_cannot_be_built_is_a_failed_check(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + CLASS.format(kind="schedule"))
    lacking, told = failures(contract("schedule", f"{file}:Mine"))
    assert lacking.startswith("has the members of a schedule: has no scale")
    assert told.startswith("can be built: TypeError")


def test_the_page_for_authors_names_every_member() -> None:
    page = Path(__file__).parents[2] / "docs/design/data-flow.md"
    rows = {
        line.split("|")[1].strip(): line for line in page.read_text().splitlines() if line.startswith("| ")
    }
    for kind, names in members.CLASS.items():
        for member in (*names, *members.INSTANCE.get(kind, ())):
            assert re.search(rf"`{member}\b", rows[kind]), f"{kind}: {member}"


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from lexarium.training.schedules import Constant\n\n\nclass Mine:\n    '''Mine.'''\n\n"
        "    kind, name, version = 'schedule', 'mine', 1\n    Config = Constant.Config\n\n"
        "    def __init__(self, config): ...\n\n    def lr_scale(self, step, max_steps):\n        return 1.0\n"
    )
    found = failures(contract("schedule", f"{tmp_path / 'mine.py'}:Mine"))
    assert found[0] == "has the members of a schedule: has no scale (see docs/design/data-flow.md)"
