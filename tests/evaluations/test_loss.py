"""Cross-entropy by split and slice, against sums written out one token at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.loss import Loss
from lexarium.foundation import registry
from lexarium.foundation.rng import generator
from lexarium.foundation.types import Document, Example, UserError
from lexarium.tokens.prepare import open_tokenizer
from lexarium.tokens.store import TokenStore, ViewConfig
from toy import tokenizer_config, toy_store


def corpus(n: int, seed: int) -> list[Document]:
    random, found = generator(seed, "loss"), []
    for i in range(n):
        words = [f"w{random.integers(0, 20)}" for _ in range(random.integers(1, 8))]
        text, middle = " ".join(words), int(random.integers(0, 20))
        half = [int(place >= middle) for place in range(len(text))]
        found.append(
            Document(
                text, {"kind": ["decl", "quest"][i % 2], "even": i % 4 == 0, "n": len(words)}, {"half": half}
            )
        )
    return found


DOCUMENTS = {"train": corpus(5, 0), "val": corpus(30, 1), "ood": corpus(9, 2)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return toy_store(tmp_path_factory.mktemp("store"), DOCUMENTS)


class TableScorer:
    """A score for every word, whatever its context; `first` of a document may be unpredicted."""

    def __init__(
        self, store: TokenStore, direction: str = "forward", first: bool = True, eos: bool = True
    ) -> None:
        self.tokenizer = open_tokenizer(tokenizer_config(), store.folder)
        cls = registry.find("objective", "causal")
        self.objective = cls(cls.Config(), self.tokenizer)
        self._direction = registry.find("direction", direction)(
            registry.find("direction", direction).Config()
        )
        self.direction, self.first, self.eos = direction, first, eos

    def views(self) -> dict[str, TableScorer]:
        return {"": self}

    def token_scores(self, examples: list[Example]) -> list[np.ndarray]:
        found = []
        for e in examples:
            scores = [-self.loss(self.tokenizer.symbols[i]) for i in self._direction.undo(e.ids)]
            if not self.first:
                scores[0] = math.nan
            found.append(np.array([*scores, -0.5 if self.eos else math.nan]))
        return found

    @staticmethod
    def loss(word: str) -> float:
        return 0.1 + int(word[1:]) / 7


def run(store: TokenStore, scorer: Any, view: ViewConfig | None = None, **options: Any) -> Any:
    return Loss(Loss.Config(**options), EvaluationData(store, scorer.tokenizer, view)).run(scorer, 0)


def tokens(documents: list[Document], first: bool = True, eos: bool = True) -> list[list[tuple[float, int]]]:
    """Per document, (loss, half) of every predicted token; eos has the half of the last word."""
    found = []
    for d in documents:
        place, members = 0, []
        for word in d.text.split():
            members.append((TableScorer.loss(word), d.channels["half"][place]))
            place += len(word) + 1
        found.append((members if first else members[1:]) + ([(0.5, members[-1][1])] if eos else []))
    return found


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("first", "eos"), [(True, True), (False, True), (True, False)])
def test_metrics_are_sums_over_tokens(store: TokenStore, direction: str, first: bool, eos: bool) -> None:
    result = run(
        store,
        TableScorer(store, direction, first, eos),
        splits=("val", "ood"),
        by_channel=("half",),
        by_field=("kind", "even"),
    )
    for split in ("val", "ood"):
        by_document = tokens(DOCUMENTS[split], first, eos)
        flat = [t for members in by_document for t in members]
        mean = sum(loss for loss, _ in flat) / len(flat)
        expected = {
            split: mean,
            f"{split}.perplexity": math.exp(mean),
            f"{split}.per_document": sum(loss for loss, _ in flat) / len(by_document),
            f"{split}.tokens": len(flat),
        }
        for half in (0, 1):
            here = [loss for loss, h in flat if h == half]
            expected[f"{split}.half.{half}"] = sum(here) / len(here)
        for field in ("kind", "even"):
            for level in {d.fields[field] for d in DOCUMENTS[split]}:
                here = [
                    t
                    for d, members in zip(DOCUMENTS[split], by_document, strict=True)
                    if d.fields[field] == level
                    for t in members
                ]
                expected[f"{split}.{field}.{level}"] = sum(loss for loss, _ in here) / len(here)
        found = {name: value for name, value in result.metrics.items() if name.split(".")[0] == split}
        assert found.keys() == expected.keys()
        assert list(found.values()) == pytest.approx([expected[name] for name in found])
    assert isinstance(result.metrics["val.tokens"], int)


def test_items_are_documents(store: TokenStore) -> None:
    result = run(store, TableScorer(store), splits=("val",))
    assert result.items["text"] == [d.text for d in DOCUMENTS["val"]]
    assert result.items["document"] == list(range(30)) and set(result.items["split"]) == {"val"}
    losses = [sum(loss for loss, _ in members) / len(members) for members in tokens(DOCUMENTS["val"])]
    assert result.items["loss"] == pytest.approx(losses)
    assert result.items["tokens"] == [len(d.text.split()) + 1 for d in DOCUMENTS["val"]]


def test_a_document_of_which_nothing_is_predicted(tmp_path: Path) -> None:
    """One token, no bos, no eos: it counts nowhere; where that is all there is, the evaluation says so."""
    one = [Document("w3", {}, {"half": [0, 0]}), Document("w1 w2", {}, {"half": [0, 0, 0, 1, 1]})]
    store = toy_store(tmp_path / "a", {"train": one, "val": one})
    result = run(store, TableScorer(store, first=False, eos=False), splits=("val",))
    assert result.metrics["val"] == pytest.approx(TableScorer.loss("w2"))
    assert result.items["tokens"] == [0, 1] and math.isnan(result.items["loss"][0])
    alone = toy_store(tmp_path / "b", {"train": one[:1], "val": one[:1]})
    with pytest.raises(UserError, match="nothing is predicted in split 'val'"):
        run(alone, TableScorer(alone, first=False, eos=False), splits=("val",))


def test_a_limit_takes_the_first_documents(store: TokenStore) -> None:
    result = run(
        store, TableScorer(store), splits=("val",), limit=4, by_field=("kind",), by_channel=("half",)
    )
    flat = [loss for members in tokens(DOCUMENTS["val"][:4]) for loss, _ in members]
    assert result.metrics["val"] == pytest.approx(sum(flat) / len(flat))
    assert len(result.items["text"]) == 4
    assert run(store, TableScorer(store), splits=("ood",), limit=99).metrics["ood.tokens"] == sum(
        map(len, tokens(DOCUMENTS["ood"]))
    )


def test_a_view_of_the_evaluated_split_is_respected(store: TokenStore) -> None:
    view = ViewConfig(keep=({"kind": "quest"},), splits=("val",))
    result = run(store, TableScorer(store), view, splits=("val", "ood"))
    quest = [d for d in DOCUMENTS["val"] if d.fields["kind"] == "quest"]
    assert result.metrics["val.tokens"] == sum(map(len, tokens(quest)))
    assert result.metrics["ood.tokens"] == sum(map(len, tokens(DOCUMENTS["ood"]))), (
        "other splits are seen whole"
    )
    assert result.items["text"][: len(quest)] == [d.text for d in quest]


def test_an_infinite_loss_is_told_not_left_out(store: TokenStore) -> None:
    class Broken(TableScorer):
        def token_scores(self, examples: list[Example]) -> list[np.ndarray]:
            found = super().token_scores(examples)
            found[3][0] = -np.inf
            return found

    metrics = run(store, Broken(store), splits=("val",), by_channel=("half",)).metrics
    assert metrics["val"] == math.inf and metrics["val.perplexity"] > 1e300
    assert math.inf in (metrics["val.half.0"], metrics["val.half.1"])


def test_the_same_evaluation_twice_is_the_same(store: TokenStore) -> None:
    scorer = TableScorer(store)
    evaluation = Loss(Loss.Config(splits=("val",)), EvaluationData(store, scorer.tokenizer))
    assert evaluation.run(scorer, 0) == evaluation.run(scorer, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ("test",)}, "no split 'test'; it has ood, train, val"),
        (
            {"by_channel": ("halves",)},
            r"split 'val' has no channel or field 'halves' \(it has: half, kind, even, n\)",
        ),
        ({"by_field": ("knid",)}, "no channel or field 'knid'"),
    ],
)
def test_what_is_not_there_is_refused_when_it_is_built(
    store: TokenStore, options: dict, message: str
) -> None:
    tokenizer = TableScorer(store).tokenizer
    with pytest.raises(UserError, match=message):
        Loss(Loss.Config(**options), EvaluationData(store, tokenizer))


def test_data_of_a_run(store: TokenStore, tmp_path: Path) -> None:
    data = EvaluationData(store, TableScorer(store).tokenizer)
    assert data.splits == ["ood", "train", "val"]
    assert [(d.text, d.fields) for d in data.documents("ood")] == [
        (d.text, d.fields) for d in DOCUMENTS["ood"]
    ]
    assert data.documents("ood") is data.documents("ood"), "decoded once"


@pytest.mark.parametrize(
    ("every", "at", "steps"),
    [(0, (), [10]), (4, (), [0, 4, 8, 10]), (0, (3, 7), [3, 7, 10]), (5, (3,), [0, 3, 5, 10])],
)
def test_when_an_evaluation_is_due(every: int, at: tuple[int, ...], steps: list[int]) -> None:
    config = Loss.Config(every=every, at=at)
    assert [s for s in range(11) if config.due(s, 10)] == steps
