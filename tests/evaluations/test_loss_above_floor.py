"""The loss above the floor: zero for a scorer that knows the language, the missing bits for one that does not, and
nothing at all where the floor would be wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.builders import tiny_config

from lexarium.corpora.synthetic.linear_language import LinearLanguage
from lexarium.corpora.synthetic.markov_chain import MarkovChain
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.loss import Loss
from lexarium.foundation import registry
from lexarium.foundation.types import Example
from lexarium.studies.run import Run
from lexarium.tokens.prepare import open_tokenizer, prepare
from toy import tokenizer_config

LN2 = math.log(2)


class Known:
    """Scores of tokens by a rule: `score(text, forward) -> log-probability of every character, of eos`."""

    def __init__(self, tokenizer: Any, score: Any, direction: str) -> None:
        build = lambda kind, name, *more: registry.find(kind, name)(registry.find(kind, name).Config(), *more)
        self.objective, self._direction = (
            build("objective", "causal", tokenizer),
            build("direction", direction),
        )
        self.tokenizer, self.score, self.direction = tokenizer, score, direction

    def views(self) -> dict[str, Known]:
        return {"": self}

    def token_scores(self, examples: list[Example]) -> list[np.ndarray]:
        texts = [self.tokenizer.decode(self._direction.undo(e.ids)) for e in examples]
        return [np.array(self.score(t, self.direction == "forward"), dtype=np.float64) for t in texts]


def measure(
    folder: Path, corpus: Any, score: Any, direction: str = "forward", tokenizer: str = "character"
) -> dict[str, Any]:
    store = prepare(corpus.config, tokenizer_config(tokenizer), folder)
    vocabulary = open_tokenizer(tokenizer_config(tokenizer), store.folder)
    data = EvaluationData(store, vocabulary, corpus=corpus)
    config = Loss.Config(splits=("val",), by_channel=("half",))
    return dict(Loss(config, data).run(Known(vocabulary, score, direction), 0).metrics)


def linear(**options: Any) -> LinearLanguage:
    return LinearLanguage(LinearLanguage.Config(m=6, sizes={"train": 20, "val": 30}, **options))


@pytest.mark.parametrize("eos", [0.0, math.nan], ids=["eos", "no eos"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_who_knows_the_matrix_is_at_the_floor(tmp_path: Path, direction: str, eos: float) -> None:
    free_first = lambda text, forward: [-LN2 * (forward == (i < 6)) for i in range(12)] + [eos]
    metrics = measure(tmp_path, linear(), free_first, direction)
    assert metrics["val"] == pytest.approx(6 * LN2 / (12 if math.isnan(eos) else 13))
    excess = [metrics[f"val{part}.excess"] for part in ("", ".half.0", ".half.1")]
    assert excess == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_who_knows_nothing_misses_the_determined_half(tmp_path: Path, direction: str) -> None:
    metrics = measure(tmp_path, linear(), lambda text, forward: [-LN2] * 12 + [0.0], direction)
    determined, free = ("half.1", "half.0") if direction == "forward" else ("half.0", "half.1")
    # eos belongs to the slice of the last character, and so to half.1
    tokens = {"half.0": 6, "half.1": 7}
    assert metrics[f"val.{determined}.excess"] == pytest.approx(6 * LN2 / tokens[determined])
    assert metrics[f"val.{free}.excess"] == pytest.approx(0, abs=1e-12)
    assert metrics["val.half.determined"] == metrics[f"val.{determined}"] > 0
    assert metrics["val.excess"] == pytest.approx(6 * LN2 / 13)


def test_a_separator_has_no_entropy(tmp_path: Path) -> None:
    knows = lambda text, forward: [-LN2] * 6 + [0.0] * 8
    metrics = measure(tmp_path, linear(separator=True), knows)
    assert metrics["val.half.2.excess"] == metrics["val.half.2"] == 0
    assert metrics["val.excess"] == pytest.approx(0, abs=1e-12)


def test_the_true_chain_is_at_the_floor_within_the_scatter_of_the_sample(tmp_path: Path) -> None:
    corpus = MarkovChain(
        MarkovChain.Config(n_states=3, length=20, reversible=False, sizes={"train": 5, "val": 2000})
    )

    def score(text: str, forward: bool) -> list[float]:
        states = [ord(c) - ord("a") for c in text]
        following = [math.log(corpus.transition[a, b]) for a, b in zip(states, states[1:], strict=False)]
        return [math.log(corpus.stationary[states[0]]), *following, 0.0]

    metrics = measure(tmp_path, corpus, score)
    assert abs(metrics["val.excess"]) < 0.01 and abs(metrics["val.half.1.excess"]) < 0.02
    assert metrics["val"] > 0.3 and "val.half.determined" not in metrics


def test_nothing_is_said_where_it_would_be_wrong(tmp_path: Path) -> None:
    said = lambda metrics: {name for name in metrics if "excess" in name}
    unpredicted = lambda text, forward: [math.nan] + [-LN2] * 11 + [0.0]
    assert said(metrics := measure(tmp_path / "a", linear(), unpredicted)) == set()
    assert "val.half.determined" not in metrics
    word = measure(tmp_path / "b", linear(), lambda text, forward: [-6 * LN2, 0.0], tokenizer="word")
    assert said(word) == {"val.excess"} and word["val.excess"] == pytest.approx(0, abs=1e-12)


def test_a_run_reports_the_excess_of_its_corpus(tmp_path: Path) -> None:
    config = tiny_config(
        corpus={"type": "linear_language", "m": 6, "sizes": {"train": 40, "val": 20}},
        tokenizer={"type": "character"},
        evaluations=[{"type": "loss", "by_channel": ["half"]}],
        checkpoint={"every": 0},
    )
    run = Run.create(config, tmp_path)
    assert run.train() == "done"
    ((_, step, metrics),) = run.files.evaluations()
    assert metrics["val.excess"] == pytest.approx(metrics["val"] - 6 * LN2 / 13)
    assert metrics["val.half.1.excess"] == metrics["val.half.1"], "forward, the second half is determined"
    _, afterwards = Run.open(run.path).evaluate(run.config.evaluations[0], step)
    assert afterwards.metrics == metrics
    other = tiny_config(evaluations=[{"type": "loss", "splits": ["val"], "by_channel": ["half"]}])
    plain = Run.create(other, tmp_path)
    plain.train()
    assert not [n for _, _, m in plain.files.evaluations() for n in m if "excess" in n]
