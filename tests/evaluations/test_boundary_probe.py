"""Probes of states that are known: ones that hold the label, ones that do not; alignment, controls, and a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import tiny_run
from lexarium.corpora.utterances import Utterances
from lexarium.evaluations.boundary_probe import BoundaryProbe, last_symbols, layers, measure
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.segmentation.gold import stream_of
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.stream import END, Stream
from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import UserError
from lexarium.models.build import build_model
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.symbols import SymbolTokenizer

WORDS = ["ba", "dog", "ti", "a", "gola"]


def make(folder: Path, lines: list[str], **options: Any) -> EvaluationData:
    (folder / "u.txt").write_text("\n".join(lines) + "\n")
    given = {"type": "utterances", "path": str(folder / "u.txt"), "form": "letters"}
    corpus = validate(Utterances.Config, Source({**given, "split": {"val": 0.25}, **options}))
    tokenizer = SymbolTokenizer.Config(unit="character")
    store = prepare(corpus, tokenizer, folder / "stores")
    return EvaluationData(store, open_tokenizer(tokenizer, store.folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(120)]
    return make(tmp_path_factory.mktemp("u"), lines)


def component(kind: str, name: str, *given: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *given)


def asked(
    data: EvaluationData, direction: str = "forward", model: str = "transformer", bos: bool = False
) -> Scorer:
    turn = component("direction", direction)
    objective = component("objective", "causal", data.tokenizer, bos=bos, eos=False)
    objective.roles = objective.roles.extended(turn.extra_tokens)
    options = {"max_positions": 64, "n_heads": 2} if model == "transformer" else {"cell": "gru"}
    config = registry.find("model", model).Config(n_layers=2, d_model=8, **options)
    built = build_model(config, objective.roles.vocab_size, seed=3).eval()
    return Scorer(built, objective, turn, data.tokenizer, batch_tokens=50)


def evaluation(data: EvaluationData, **options: Any) -> BoundaryProbe:
    return BoundaryProbe(validate(BoundaryProbe.Config, Source({"type": "boundary_probe", **options})), data)


# --- what state belongs to what cut -------------------------------------------------------------------


@pytest.mark.parametrize("model, bos", [("transformer", False), ("transformer", True), ("recurrent", True)])
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_states_are_those_at_the_symbol(data: EvaluationData, direction: str, model: str, bos: bool) -> None:
    """Against one call of the model per utterance: layer 0 first; the state that has read x_t, and nothing beyond."""
    bos = bos or direction == "both"
    scorer, stream = asked(data, direction, model, bos), stream_of(data.view("val"), "word_start")
    for view, one in scorer.views().items():
        wanted: list[Any] = []
        backward = one.direction == "backward"
        for i in range(stream.n_utterances):
            ids = stream.symbols[stream.utterance == i][:-1].tolist()
            first = (
                scorer.roles[view] if view else 3
            )  # UTT_BOUNDARY is bos, and what is read where there is none
            for cut in range(1, len(ids)):
                read = ids[cut - 1 :][::-1] if backward else ids[: cut + 1]
                output = one.model(tokens=torch.tensor([[first, *read]]), layers=[])
                wanted.append([states[-1].detach().numpy() for states in output.layers])
        found = layers(one, stream)
        assert len(found) == len(wanted[0]) == 3
        np.testing.assert_allclose(np.stack(found, 1), np.array(wanted), atol=1e-5)


class Known:
    """A scorer with two layers of states: the first says nothing, the second whether the cut there is a boundary."""

    roles, objective = {"eos": 3}, type("O", (), {"config": type("C", (), {"bos": True})})

    def __init__(self, data: EvaluationData, direction: str = "forward", shift: int = 0) -> None:
        self.direction, self.shift = direction, shift
        self.known: dict[tuple[int, ...], np.ndarray] = {}
        for split in ("train", "val"):
            stream = stream_of(data.view(split), "word_start")
            for i in range(stream.n_utterances):
                own = stream.utterance == i
                self.known[tuple(stream.symbols[own][:-1].tolist())] = stream.starts[own]
        self.random = np.random.default_rng(1)

    def views(self) -> dict[str, Any]:
        return {"": self}

    def states(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        found = []
        for row in rows:
            backward = self.direction == "backward"
            flags = self.known[tuple(row[:: -1 if backward else 1].tolist())]
            ends = np.append(
                flags[1:-1], True
            )  # behind x_t: does the next symbol begin a word, or the utterance end
            signal = np.roll(ends[::-1] if backward else flags[:-1], self.shift)
            found.append(
                np.stack([self.random.normal(size=(len(row), 3)), np.stack([signal] * 3, 1) * 2.0 + 7])
            )
        return found


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_states_that_know_are_read_and_others_are_not(data: EvaluationData, direction: str) -> None:
    metrics = evaluation(data, symbols=[]).run(Known(data, direction), 0).metrics
    for name in ("accuracy", "balanced_accuracy", "boundary.f", "token.f", "type.f"):
        assert metrics[f"val.layer_1.{name}"] == 1.0
    assert metrics["val.layer_0.accuracy"] <= metrics["val.majority"] + 0.05
    assert abs(metrics["val.layer_0.balanced_accuracy"] - 0.5) < 0.1
    for shift in (1, -1):  # a state too late, or too early
        assert (
            evaluation(data, symbols=[]).run(Known(data, direction, shift), 0).metrics["val.layer_1.accuracy"]
            < 0.9
        )


def test_balanced_weights_decide_for_the_rarer_class(data: EvaluationData) -> None:
    """Of states that say nothing, a balanced probe calls about half of the cuts boundaries, another one next to none."""
    chosen = {
        w: evaluation(data, weights=w, symbols=[]).run(Known(data), 0).items for w in ("none", "balanced")
    }
    shares = {w: np.mean(np.array(items["layer_0"]) > 0) for w, items in chosen.items()}
    labels = np.mean(chosen["none"]["boundary"])
    assert labels < 0.45 and shares["none"] < labels and 0.25 < shares["balanced"] < 0.75


def test_a_penalty_shrinks_the_log_odds(data: EvaluationData) -> None:
    odds = lambda s: np.ptp(evaluation(data, strength=s, symbols=[]).run(Known(data), 0).items["layer_1"])
    assert odds(0.01) > odds(1.0) > odds(1e4) > 0


# --- controls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
def test_a_probe_of_symbols_knows_their_shares(data: EvaluationData, backward: bool) -> None:
    """Without a penalty to speak of, the probe of one symbol decides as the majority of its positions."""
    found = evaluation(data, fit_split="val", splits=["val"], symbols=[1], strength=1e-6)
    result = found.run(Known(data, "backward" if backward else "forward"), 0)
    rows = list(
        zip(*(result.items[c] for c in ("utterance", "symbol", "boundary", "symbols_1")), strict=True)
    )
    for utterance, symbol, _, odds in rows:
        others = [b for u, s, b, _ in rows if s == symbol and u % 2 != utterance % 2]
        if 0 < np.mean(others) < 1:
            assert odds == pytest.approx(np.log(np.mean(others) / (1 - np.mean(others))), abs=1e-3)
    right = np.mean([(odds > 0) == label for _, _, label, odds in rows])
    assert result.metrics["val.symbols_1.accuracy"] == pytest.approx(right)


def test_symbols_before_are_those_read_before() -> None:
    stream = Stream.of_words([[[5, 6], [7]], [[8]], [[9], [4]]])  # cuts before 6, before 7, before 4
    assert last_symbols(stream, 3, False).tolist() == [[6, 5, END], [7, 6, 5], [4, 9, END]]
    assert last_symbols(stream, 3, True).tolist() == [[5, 6, 7], [6, 7, END], [9, 4, END]]


def test_decisions_are_scored_as_cuts() -> None:
    stream = Stream.of_words([[[5, 6], [7]], [[8], [9], [4]]])
    found = measure(stream, np.array([True, True, True, False]))  # labels: no, yes, yes, yes
    assert found["accuracy"] == 0.5 and found["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["boundary.precision"] == pytest.approx(2 / 3) and found["boundary.recall"] == pytest.approx(
        2 / 3
    )
    cuts = np.array([0, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    assert (
        found["token.f"] == score(stream, cuts)["token.f"]
        and found["type.f"] == score(stream, cuts)["type.f"]
    )


def test_a_control_task_is_a_function_of_the_symbol(data: EvaluationData) -> None:
    """A probe that sees the symbol alone learns it by heart; of states that know only boundaries it does not."""
    found = evaluation(data, selectivity=True, symbols=[])
    labels = found._control(False)
    stream = found._streams["train"]
    at = labels[last_symbols(stream, 1, False)[:, 0]]
    rate, reached = stream.starts[stream.inside].mean(), at.mean()
    assert 0 < reached < 1 and abs(reached - rate) < 0.3
    metrics = found.run(Known(data), 0).metrics
    assert metrics["val.layer_1.selectivity"] == pytest.approx(1 - metrics["val.layer_1.control_accuracy"])
    assert metrics["val.layer_1.control_accuracy"] < 1
    plain = found.run(asked(data), 0).metrics  # layer 0 holds the symbol itself
    assert plain["val.layer_0.control_accuracy"] == 1.0


# --- splits -------------------------------------------------------------------------------------------


def test_one_split_is_crossed_by_utterance(data: EvaluationData) -> None:
    """No utterance is decided by a probe that was fitted on it: labels of one half changed leave its log-odds."""
    whole = evaluation(data, fit_split="val", splits=["val"], symbols=[1])
    before = whole.run(asked(data), 0).items
    stream = whole._streams["val"]
    even = stream.utterance % 2 == 0
    starts = stream.starts.copy()
    starts[even & stream.inside] ^= True
    whole._streams["val"] = Stream(stream.symbols, starts)
    after = whole.run(asked(data), 0).items
    mine = np.array(before["utterance"]) % 2 == 0
    for probe in ("layer_0", "layer_2", "symbols_1"):
        a, b = np.array(before[probe]), np.array(after[probe])
        assert (a[mine] == b[mine]).all() and (a[~mine] != b[~mine]).any()


def test_limits_are_of_utterances(data: EvaluationData) -> None:
    count = lambda split, n: sum(len(data.view(split).tokens(i)) - 1 for i in range(n))
    metrics = evaluation(data, fit_limit=20, limit=9).run(asked(data), 0).metrics
    assert (metrics["fit.positions"], metrics["val.positions"]) == (count("train", 20), count("val", 9))
    for options, n in (
        ({"fit_limit": 12}, 12),
        ({"fit_limit": 12, "limit": 9}, 12),
        ({"fit_limit": 0}, len(data.view("val"))),
    ):
        metrics = evaluation(data, fit_split="val", splits=["val"], **options).run(asked(data), 0).metrics
        assert metrics["fit.positions"] == metrics["val.positions"] == count("val", n)
    both = evaluation(data, splits=["val", "train"], fit_limit=20).run(asked(data, "both", bos=True), 0)
    assert {"val.forward.layer_2.boundary.f", "train.backward.symbols_2.accuracy"} <= both.metrics.keys()
    assert len({len(column) for column in both.items.values()}) == 1


def test_what_cannot_be_probed_is_refused(data: EvaluationData, tmp_path: Path) -> None:
    for i, (lines, options, told) in enumerate(
        (
            (
                ["ab cd", "ab"] * 4,
                {"boundaries": "token"},
                "boundary_probe: word boundaries stand in the text",
            ),
            (
                ["a b c"] * 8,
                {},
                "boundary_probe: in split 'train' every symbol is a word of its own",
            ),
            (["abc"] * 8, {}, "of 4 cuts inside utterances of split 'val' 0 are word boundaries"),
        )
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        with pytest.raises(UserError, match=told):
            evaluation(make(folder, lines, **options))
    with pytest.raises(ConfigError, match="expected different numbers of symbols"):
        evaluation(data, symbols=[1, 1])
    other = asked(data)
    other.direction = "permutation"
    with pytest.raises(UserError, match="direction 'permutation': what a state has read"):
        evaluation(data).run(other, 0)


# --- a run --------------------------------------------------------------------------------------------


def test_a_run_has_its_untrained_control(tmp_path: Path) -> None:
    """Step 0 without being asked for; training on artificial words makes their edges readable."""
    sizes = {"train": 400, "val": 60}
    run = tiny_run(
        tmp_path,
        corpus={"type": "artificial_words", "n_words": 20, "mean_words": 4, "syllables": 2, "sizes": sizes},
        tokenizer={"type": "symbol", "unit": "character"},
        model={"type": "recurrent", "cell": "gru", "n_layers": 1, "d_model": 48},
        optimizer={"type": "adamw", "lr": 1e-2},
        train={"max_steps": 150, "global_batch_size": 16, "micro_batch_size": 16},
        evaluations=[{"type": "boundary_probe", "fit_limit": 200}],
    )
    assert run.train() == "done"
    results = {step: metrics for _, step, metrics in run.files.evaluations()}
    assert sorted(results) == [0, 150]
    last = "val.layer_1.boundary.f"
    assert results[150][last] > results[0][last]
    assert results[150][last] > results[150]["val.symbols_2.boundary.f"] > 0.5
    assert results[0]["val.symbols_2.boundary.f"] == results[150]["val.symbols_2.boundary.f"]


def test_limits_of_tests_leave_what_is_fitted_alone(data: EvaluationData) -> None:
    """Naming the split that is fitted among those that are tested changes no answer about another."""
    asked = lambda **options: BoundaryProbe(BoundaryProbe.Config(**options), data)
    n = data.view("train").lengths
    whole = asked(splits=("train",), fit_limit=0, limit=2)._streams["train"]
    assert whole.n_utterances == len(n)
    few = asked(splits=("train",), fit_limit=len(n) - 1, limit=0)._streams["train"]
    assert few.n_utterances == len(n) - 1
