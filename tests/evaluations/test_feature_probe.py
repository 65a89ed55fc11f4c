"""The probe of distinctive features: its regression against scipy, planted features, and the states it looks at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.feature_probe import (
    END,
    FeatureProbe,
    by_phoneme,
    chance_of,
    held_out_accuracies,
    states_of,
    usable,
)
from lexarium.evaluations.logistic import solve
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.features import describe
from lexarium.foundation.types import UserError
from lexarium.models.build import build_model
from lexarium.tokens.prepare import open_tokenizer, prepare
from phonemes import ROWS, table_file, utterances_file

# --- regression -------------------------------------------------------------------------------------


def by_scipy(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    """The same problem by L-BFGS, written with labels 1 and -1."""
    sign = np.where(y, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -c * sign / (1 + np.exp(margin))
        gradient = np.append(w[:-1] + x.T @ pull, pull.sum())
        return float(w[:-1] @ w[:-1] / 2 + c * np.logaddexp(0, -margin).sum()), gradient

    options = {"maxiter": 20_000, "maxfun": 20_000, "gtol": 1e-11, "ftol": 0.0, "maxcor": 30}
    return optimize.minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options).x


@given(seed=st.integers(0, 10_000), c=st.sampled_from([0.1, 1.0, 30.0]), shift=st.floats(-3, 3))
def test_regression_is_that_of_scipy(seed: int, c: float, shift: float) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 5)) * random.uniform(0.1, 3, 5) + shift
    y = x @ random.normal(size=5) + random.normal(size=60) > shift
    y[:2] = [True, False]
    labels = y.astype(float)
    found = solve(x, labels, 1 / c)
    assert np.allclose(found, by_scipy(x, y, c), rtol=1e-4, atol=1e-5)
    again = solve(x, labels, 1 / c, start=random.normal(size=6))
    assert np.allclose(found, again, rtol=1e-6, atol=1e-7), "wherever the search begins"


def test_separable_classes_have_an_answer() -> None:
    """Of one dimension, points at -1 and 1: w = 2 C / (1 + exp(w)), b = 0."""
    found = solve(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), 1.0)
    w = optimize.brentq(lambda w: w - 2 / (1 + math.exp(w)), 0, 5)
    assert found.tolist() == pytest.approx([w, 0.0], abs=1e-7)


# --- the probe --------------------------------------------------------------------------------------


def planted(
    seed: int, n: int = 12, d: int = 20, strength: float = 4.0
) -> tuple[dict[int, Any], dict[int, bool]]:
    """States of n phonemes, each around a place of its own; along one direction lies a feature."""
    random = np.random.default_rng(seed)
    along = random.normal(size=d)
    along /= np.linalg.norm(along)
    signs = {i: i % 2 == 0 for i in range(n)}
    own = {i: random.normal(size=d) for i in range(n)}
    states = {
        i: own[i]
        - along * (along @ own[i])
        + strength * (1 if s else -1) * along
        + 0.1 * random.normal(size=(15, d))
        for i, s in signs.items()
    }
    return states, signs


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_feature_is_found_in_phonemes_not_seen(seed: int) -> None:
    states, signs = planted(seed)
    assert held_out_accuracies(states, signs) == dict.fromkeys(signs, 1.0)


def test_features_that_are_not_there_are_not_found() -> None:
    """Classes drawn at random over phonemes with places of their own: no better than chance, seed after seed."""
    means = []
    for seed in range(12):
        states, _ = planted(seed, strength=0.0)
        sign = np.random.default_rng(100 + seed).permutation([True, False] * 6)
        found = held_out_accuracies(states, dict(enumerate(sign.tolist())))
        means.append(np.mean(list(found.values())))
    assert 0.25 < np.mean(means) < 0.55
    trained = [np.mean(list(held_out_accuracies(*planted(seed)).values())) for seed in range(3)]
    assert min(trained) > max(means)


def test_accuracies_by_the_definition() -> None:
    """Phonemes of unequal numbers of states, a weak feature: loops, and scipy's solution."""
    states, signs = planted(5, n=8, d=4, strength=0.6)
    states = {i: s[: 4 + i] for i, s in states.items()}
    found = held_out_accuracies(states, signs)
    for phoneme, sign in signs.items():
        classes: dict[bool, list[np.ndarray]] = {True: [], False: []}
        for turn in range(15):
            for other in signs:
                if other != phoneme and turn < len(states[other]):
                    classes[signs[other]].append(states[other][turn])
        n = min(map(len, classes.values()))
        x = np.array(classes[True][:n] + classes[False][:n])
        w = by_scipy(x, np.arange(2 * n) < n, 1.0)
        right = [(float(s @ w[:-1] + w[-1]) > 0) == sign for s in states[phoneme]]
        assert found[phoneme] == pytest.approx(np.mean(right)), phoneme
    assert 0 < np.mean(list(found.values())) < 1


def test_a_phoneme_does_not_teach_about_itself() -> None:
    """One phoneme lies where only the other class is: alone against all, it must be wrong."""
    states, signs = planted(0)
    states[0] = states[0] - 8 * (states[0].mean(0) - states[1].mean(0)) / 8  # to the place of a `-`
    assert held_out_accuracies(states, signs)[0] == 0.0


@given(n=st.integers(1, 40), data=st.data())
def test_chance_is_the_binomial_test(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    assert chance_of(k, n) == pytest.approx(
        stats.binomtest(k, n, 0.5, alternative="greater").pvalue, rel=1e-9
    )


def test_features_need_phonemes_of_both_kinds() -> None:
    values = {i: np.array(v) for i, v in enumerate([[2, 1, 0], [2, 1, 2], [1, 0, 1], [1, 2, 0]])}
    assert usable(values, ["a", "b", "c"], 2) == ["a"]
    assert usable(values, ["a", "b", "c"], 1) == ["a", "b", "c"]
    assert usable({}, ["a"], 1) == []


def test_which_states_of_a_phoneme() -> None:
    ids = np.array([5, 6, 5, 5, 7, 5, 6, 5])
    states = np.arange(8.0)[:, None]
    found = by_phoneme(ids, states, [5, 6, 7], least=2, most=0)
    assert {i: s[:, 0].tolist() for i, s in found.items()} == {5: [0, 2, 3, 5, 7], 6: [1, 6]}
    few = by_phoneme(ids, states, [5, 6], least=2, most=2)
    assert {i: s[:, 0].tolist() for i, s in few.items()} == {5: [0, 3], 6: [1, 6]}


# --- states of a model ------------------------------------------------------------------------------


def component(kind: str, name: str, *given: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *given)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    folder = tmp_path_factory.mktemp("probe")
    table_file(folder)
    corpus = registry.find("corpus", "utterances").Config
    read = validate(
        corpus,
        Source({"type": "utterances", "path": str(utterances_file(folder, 150)), "split": {"val": 0.5}}),
    )
    tokenizer = registry.find("tokenizer", "symbol").Config()
    store = prepare(read, tokenizer, folder)
    return EvaluationData(store, open_tokenizer(tokenizer, store.folder))


def table(data: EvaluationData) -> Path:
    return data.store.folder.parent / "phoible.csv"


def asked(data: EvaluationData, bos: bool, direction: str = "forward", model: str = "transformer") -> Scorer:
    objective = component("objective", "causal", data.tokenizer, bos=bos)
    options = {"n_heads": 2, "max_positions": 70} if model == "transformer" else {}
    config = registry.find("model", model).Config(n_layers=2, d_model=8, **options)
    built = build_model(config, objective.vocab_size, seed=3).double()
    return Scorer(built, objective, component("direction", direction), data.tokenizer, batch_tokens=150)


def probe(data: EvaluationData, **options: Any) -> FeatureProbe:
    features = {"path": str(table(data)), **options.pop("features", {})}
    small = {"window": 20, "stride": 8, "min_phonemes": 2, "splits": ["val"]}
    return FeatureProbe(
        validate(
            FeatureProbe.Config, Source({"type": "feature_probe", "features": features, **small, **options})
        ),
        data,
    )


@pytest.mark.parametrize("layer", ["final", "embedding", 1, 2])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("model", ["transformer", "recurrent"])
def test_states_are_those_of_one_row_at_a_time(
    data: EvaluationData, layer: Any, bos: bool, model: str
) -> None:
    scorer = asked(data, bos, model=model)
    rows = [np.array([3, *range(4, 12), 5, 3, 7]) for _ in range(3)]
    rows[1], rows[2] = rows[1][::-1].copy(), rows[2][2:]
    found = states_of(scorer, rows, layer, 4).reshape(3, 4, 8)
    for row, states in zip(rows, found, strict=True):
        layers: list[torch.Tensor] = []
        ids = torch.tensor([[3, *row] if bos else row.tolist()])
        with torch.no_grad():
            output = scorer.model(tokens=ids, layers=layers)
        expected = output.hidden if layer == "final" else layers[0 if layer == "embedding" else layer]
        assert np.allclose(states, expected[-4:].numpy(), atol=1e-6)


def test_a_layer_that_is_not_there(data: EvaluationData) -> None:
    with pytest.raises(UserError, match="layer 3, and the model has 2"):
        probe(data, layer=3).run(asked(data, False), 0)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_every_position_is_kept_once_in_its_context(
    data: EvaluationData, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States replaced by the place in the stream: each must be at its own symbol, read in a context of 20."""
    found, places = probe(data, states=0, symbols=300), {}
    stream = found._streams["val"]
    assert len(stream) == 300 and stream[0] == END and (stream[1:] == END).sum() > 5
    eos = int(asked(data, False).roles["eos"])

    def look(scorer: Any, rows: list[np.ndarray], layer: Any, last: int) -> np.ndarray:
        made = []
        for i, row in enumerate(rows):
            where = np.arange(i * 8, i * 8 + 20)[:: -1 if direction == "backward" else 1]
            assert np.array_equal(row, np.where(stream[where] == END, eos, stream[where]))
            made += where[-last:].tolist()
        return np.array(made)[:, None]

    monkeypatch.setattr("lexarium.evaluations.feature_probe.states_of", look)
    for phoneme, states in found._states(asked(data, False, direction), "val", stream).items():
        places[phoneme] = states[:, 0].tolist()
        assert (stream[places[phoneme]] == phoneme).all()
    kept = sorted(p for found in places.values() for p in found)
    n = (300 - 20) // 8 + 1
    covered = range(12, 12 + 8 * n) if direction == "forward" else range(8 * n)
    common = [p for p in covered if stream[p] in places]
    assert kept == common and len(places) > 8


def test_an_untrained_model_and_one_that_has_the_features(data: EvaluationData, tmp_path: Path) -> None:
    """A model that reads features tells them from its embeddings; what is told are the names of the table."""
    config = {
        "type": "transformer",
        "n_layers": 1,
        "d_model": 64,
        "n_heads": 2,
        "max_positions": 70,
        "positions": "none",
    }
    objective = component("objective", "causal", data.tokenizer)
    scores = {}
    for name, more in (("features", {"features": {"path": str(table(data))}}), ("tokens", {})):
        model = build_model(
            validate(registry.find("model", "transformer").Config, Source({**config, **more})),
            objective.vocab_size,
            1,
        )
        if more:
            describe(model, data.tokenizer, objective.roles)
        scorer = Scorer(model, objective, component("direction", "forward"), data.tokenizer)
        result = probe(data, layer="embedding", features={"missing": "refuse"}).run(scorer, 0)
        scores[name] = result.metrics
    assert scores["features"]["val.syllabic.accuracy"] == 1.0
    assert scores["features"]["val.syllabic.p"] == chance_of(
        n := scores["features"]["val.syllabic.phonemes"], n
    )
    assert scores["tokens"]["val.accuracy"] < scores["features"]["val.accuracy"] - 0.2
    assert scores["tokens"].keys() == scores["features"].keys()
    columns = result.items
    assert len(set(map(len, columns.values()))) == 1 and set(columns["phoneme"]) <= set(ROWS)
    own = [a for f, a in zip(columns["feature"], columns["accuracy"], strict=True) if f == "syllabic"]
    assert np.mean(own) == pytest.approx(scores["tokens"]["val.syllabic.accuracy"])


def test_the_test_against_chance_counts_whole_phonemes(data: EvaluationData, monkeypatch: Any) -> None:
    """The study's test: the sum of accuracies, rounded, of so many phonemes."""
    monkeypatch.setattr(
        "lexarium.evaluations.feature_probe.held_out_accuracies",
        lambda states, signs, *more: dict.fromkeys(signs, 0.9),
    )
    metrics = probe(data).run(asked(data, bos=True), 0).metrics
    n = metrics["val.syllabic.phonemes"]
    assert (0.9 * n) % 1 > 0.5 and metrics["val.syllabic.p"] == chance_of(round(0.9 * n), n)
    assert metrics["val.syllabic.accuracy"] == pytest.approx(0.9)


def test_a_broken_model_is_told(data: EvaluationData) -> None:
    scorer = asked(data, False)
    with torch.no_grad():
        next(scorer.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="are not numbers; the model is broken"):
        probe(data).run(scorer, 0)


def test_what_is_refused(data: EvaluationData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stride 30 leaves gaps between contexts of 20"):
        probe(data, stride=30)
    with pytest.raises(ConfigError, match="states 5 is below min_count 10"):
        probe(data, states=5)
    with pytest.raises(UserError, match="fewer than one context of 64"):
        probe(data, window=64, symbols=50)
    with pytest.raises(UserError, match="no feature is `\\+` in 30 and `-` in 30"):
        probe(data, min_phonemes=30)
    lacking = table_file(tmp_path, {k: v for k, v in ROWS.items() if k != "i"})
    with pytest.raises(UserError, match="has no row for 'i'"):
        probe(data, features={"path": str(lacking)})
    few = probe(data, features={"path": str(lacking), "missing": "unknown"}).run(asked(data, False), 0)
    assert "i" not in few.items["phoneme"] and "a" in few.items["phoneme"]
