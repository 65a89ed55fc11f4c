"""Samples: prefixes are the text's own, continuations stand where the model put them, every place is possible."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.builders import tiny_config, tiny_run
from torch import nn

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.snippets import Snippets
from lexarium.foundation import registry
from lexarium.foundation.types import Incompatible, Output, UserError
from lexarium.studies.run import Run
from lexarium.studies.run_config import check
from toy import toy_store, toy_tokenizer

WORDS = [f"w{i:02}" for i in range(30)]


class Counting(nn.Module):
    """Predicts, with certainty, the word that stands `step` places later in the vocabulary than the last one read."""

    consumes = frozenset({"tokens", "real"})
    max_length = None

    def __init__(self, vocab_size: int, step: int) -> None:
        super().__init__()
        self.step, self.vocab_size = step, vocab_size

    def forward(self, tokens: torch.Tensor, real: torch.Tensor | None = None) -> Output:
        flat = tokens.reshape(-1) if real is None else tokens.reshape(-1)[real]
        hidden = torch.nn.functional.one_hot(
            (flat + self.step).clamp(0, self.vocab_size - 1), self.vocab_size
        )
        return Output(50.0 * hidden.float(), lambda h: h)


def setting(
    folder: Path, documents: list[str], direction: str = "forward", step: int = 1, **options: Any
) -> tuple[Snippets, Scorer]:
    store = toy_store(folder, {"val": documents, "train": [" ".join(WORDS)]})
    tokenizer = toy_tokenizer([" ".join(WORDS)])
    make = lambda kind, name, *a, **o: registry.find(kind, name)(registry.find(kind, name).Config(**o), *a)
    objective = make("objective", "causal", tokenizer)
    model = Counting(objective.vocab_size, step)
    scorer = Scorer(model, objective, make("direction", direction), tokenizer)
    return Snippets(Snippets.Config(**options), EvaluationData(store, tokenizer)), scorer


@pytest.mark.parametrize(("direction", "step"), [("forward", 1), ("backward", -1)])
def test_a_model_that_counts_goes_on_in_the_order_of_the_corpus(
    direction: str, step: int, tmp_path: Path
) -> None:
    """Read forwards it counts up after w07; read backwards it counts down before the first word of the prefix."""
    evaluation, scorer = setting(
        tmp_path, [" ".join(WORDS[10:16])], direction, step, prefix=3, max_new_tokens=4, samples=5
    )
    found = evaluation.run(scorer, 11)
    assert found.metrics == {
        "val.samples": 5,
        "val.mean_length": 4.0,
        "val.distinct": found.metrics["val.distinct"],
    }
    for i in range(5):
        start = 10 + found.items["start"][i]
        prefix, new = WORDS[start : start + 3], [start + 3, start + 7] if step == 1 else [start - 4, start]
        assert found.items["prefix"][i] == " ".join(prefix)
        assert found.items["continuation"][i] == " ".join(WORDS[slice(*new)])
        both = prefix + WORDS[slice(*new)] if step == 1 else WORDS[slice(*new)] + prefix
        assert found.items["text"][i] == " ".join(both)


def test_the_share_of_distinct_tokens_by_hand(tmp_path: Path) -> None:
    """Step 0 says the last word again and again: one distinct token among eight."""
    evaluation, scorer = setting(tmp_path, [WORDS[3]], step=0, prefix=1, max_new_tokens=8)
    found = evaluation.run(scorer, 1)
    assert found.items["text"] == [" ".join([WORDS[3]] * 9)]
    assert found.metrics == {"val.samples": 1, "val.mean_length": 8.0, "val.distinct": 1 / 8}


def test_every_place_is_equally_likely(tmp_path: Path) -> None:
    """Documents of 6, 2 and 3 tokens have 4, 1 and 1 places for three tokens."""
    documents = [" ".join(WORDS[:6]), " ".join(WORDS[6:8]), " ".join(WORDS[8:11])]
    evaluation, scorer = setting(tmp_path, documents, prefix=3, max_new_tokens=1, samples=1200)
    items = evaluation.run(scorer, 5).items
    counts = Counter(zip(items["document"], items["start"], strict=True))
    assert set(counts) == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0)}
    expected = 1200 / 6
    assert (
        sum((n - expected) ** 2 / expected for n in counts.values()) < 20.5
    )  # chi squared, 5 degrees: p = 0.001


def test_the_key_chooses_the_places(tmp_path: Path) -> None:
    evaluation, scorer = setting(tmp_path, [" ".join(WORDS)], prefix=2, max_new_tokens=1, samples=8)
    one, same, other = (evaluation.run(scorer, key).items["start"] for key in (1, 1, 2))
    assert one == same != other


class TwoBytes:
    """Ids are bytes of UTF-8; text that is cut inside a character decodes to a replacement character."""

    def decode(self, ids: Any) -> str:
        return bytes(int(i) for i in ids).decode("utf-8", "replace")

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        return ids, np.arange(len(ids))


class OneView:
    def __init__(self, ids: np.ndarray) -> None:
        self.ids, self.lengths = ids, np.array([len(ids)])

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.ids[start:stop]


def test_a_prefix_is_not_cut_inside_a_character() -> None:
    """Half the places of a text of two-byte characters would cut one; none of them is taken."""
    tokenizer = TwoBytes()
    view = OneView(tokenizer.encode("äöüß" * 10)[0])
    data = type("Data", (), {"tokenizer": tokenizer, "view": lambda self, split: view})()
    evaluation = Snippets(Snippets.Config(prefix=2), data)
    texts = {evaluation._place("val", key)[2] for key in range(200)}
    assert texts == set("äöüß")


def test_the_log_line_obeys_nothing() -> None:
    evaluation = Snippets.log_line
    result = type("R", (), {"items": {"text": ["a\x1b[31m\nb" + "x" * 400]}})()
    line = evaluation(None, result)  # type: ignore[arg-type]
    assert (
        "\x1b" not in line
        and "\n" not in line
        and line.startswith(r"sample: 'a\x1b[31m\nb")
        and line.endswith("...")
    )


# --- in a run -------------------------------------------------------------------------------------------

SNIPPETS = {"type": "snippets", "every": 4, "samples": 2, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    told: list[str] = []
    found = tiny_run(tmp_path_factory.mktemp("runs"), evaluations=[SNIPPETS, {"type": "loss", "every": 4}])
    found.train(say=told.append)
    return found, told


def test_the_table_is_kept_at_every_step(run: tuple[Run, list[str]]) -> None:
    table = lambda name, step: run[0].files.evaluation_file(name, step).with_suffix(".parquet")
    assert [s for s in (0, 4, 8, 12) if table("snippets", s).exists()] == [0, 4, 8, 12]
    assert [s for s in (0, 4, 8, 12) if table("loss", s).exists()] == [12]
    columns = pq.read_table(table("snippets", 4)).to_pydict()
    assert list(columns) == ["split", "document", "start", "prefix", "continuation", "text"]
    assert len(columns["text"]) == 2
    assert columns["text"][0].split() == (columns["prefix"][0] + " " + columns["continuation"][0]).split()


def test_one_sample_is_told_at_every_step(run: tuple[Run, list[str]]) -> None:
    lines = [line for line in run[1] if "snippets: sample: " in line]
    assert [line.split(": ")[1] for line in lines] == ["step 0", "step 4", "step 8", "step 12"]


def test_a_table_is_left_out_when_that_is_asked_for(tmp_path: Path) -> None:
    found = tiny_run(tmp_path, evaluations=[{**SNIPPETS, "items": False}])
    found.train()
    assert not list(found.path.glob("evals/snippets/*.parquet"))


def test_it_begins_at_real_text(run: tuple[Run, list[str]]) -> None:
    data = run[0].parts().evaluation_data()
    for step in (0, 4, 8, 12):
        file = run[0].files.evaluation_file("snippets", step).with_suffix(".parquet")
        columns = pq.read_table(file).to_pydict()
        for document, start, prefix in zip(
            columns["document"], columns["start"], columns["prefix"], strict=True
        ):
            words = data.documents("val")[document].text.split()
            assert words[start : start + 4] == prefix.split()


# --- refusals -------------------------------------------------------------------------------------------


def test_a_split_without_documents() -> None:
    empty = type("Data", (), {"view": lambda self, split: type("V", (), {"lengths": np.zeros(0, int)})})()
    with pytest.raises(UserError, match="split 'val' has no tokens"):
        Snippets(Snippets.Config(), empty)


# --- other directions -----------------------------------------------------------------------------------

WINDOWS = {
    "packing": {"type": "windows", "seq_len": 10, "separator": False},
    "objective": {"type": "causal", "eos": False},
}


def test_a_model_of_both_directions_is_asked_in_each(tmp_path: Path) -> None:
    """From the same places: forwards the prefix is the text's beginning, backwards its end."""
    many = {**SNIPPETS, "samples": 3}
    found = tiny_run(tmp_path, evaluations=[many], direction={"type": "both"}, **WINDOWS)
    found.train()
    file = found.files.evaluation_file("snippets", 12)
    names = {
        f"val.{view}.{what}"
        for view in ("forward", "backward")
        for what in ("samples", "mean_length", "distinct")
    }
    assert set(json.loads(file.read_text())["metrics"]) == names
    columns = pq.read_table(file.with_suffix(".parquet")).to_pydict()
    assert columns["view"] == ["forward"] * 3 + ["backward"] * 3
    assert columns["start"][:3] == columns["start"][3:] and columns["prefix"][:3] == columns["prefix"][3:]
    for view, prefix, text in zip(columns["view"], columns["prefix"], columns["text"], strict=True):
        assert (text.startswith if view == "forward" else text.endswith)(prefix)


def test_a_permutation_writes_whole_windows(tmp_path: Path) -> None:
    """Greedy, so the same as asked by ids here, put back by the order that is given."""
    order = [9, 0, 8, 1, 7, 2, 6, 3, 5, 4]
    asked = {"type": "snippets", "prefix": 0, "max_new_tokens": 10, "temperature": 0}
    found = tiny_run(
        tmp_path, evaluations=[asked], direction={"type": "permutation", "order": order}, **WINDOWS
    )
    found.train()
    file = found.files.evaluation_file("snippets", 12).with_suffix(".parquet")
    columns = pq.read_table(file).to_pydict()
    scorer = found.scorer()
    (ids,) = scorer.generate_ids([""], 10)
    back = [0] * 10
    for place, token in zip(order, ids, strict=True):
        back[place] = token
    assert columns["text"] == columns["continuation"] == [scorer.tokenizer.decode(back)]
    assert (columns["document"], columns["start"], columns["prefix"]) == ([-1], [-1], [""])


@pytest.mark.parametrize(
    ("options", "objective", "message"),
    [
        ({}, {}, "whole windows of 10 tokens from nothing; set prefix: 0 and max_new_tokens: 10"),
        ({"prefix": 0, "max_new_tokens": 9}, {}, "max_new_tokens: 10"),
        ({"prefix": 0, "max_new_tokens": 10}, {"bos": False}, r"needs objective\.bos"),
    ],
)
def test_what_does_not_fit_a_permutation(
    options: dict[str, Any], objective: dict[str, Any], message: str
) -> None:
    config = tiny_config(
        evaluations=[{"type": "snippets", **options}],
        direction={"type": "permutation"},
        packing=WINDOWS["packing"],
        objective={**WINDOWS["objective"], **objective},
    )
    with pytest.raises(Incompatible, match=message):
        check(config)


def test_nothing_to_begin_from_is_for_whole_windows_only() -> None:
    with pytest.raises(Incompatible, match="prefix: 0 is for directions that read whole windows"):
        check(tiny_config(evaluations=[{"type": "snippets", "prefix": 0}]))
