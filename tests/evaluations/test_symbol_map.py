"""Maps of symbols whose places are known: a planted plane, a planted tree, and states counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import ward
from scipy.spatial.distance import pdist
from test_boundary_probe import asked, make

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.symbol_map import SymbolMap, components, tree
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import UserError

LINES = ["ba dog", "gola ti a", "dog ba ba", "a gola", "ti dog dog", "ba", "gola gola ti"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    return make(tmp_path_factory.mktemp("m"), LINES, split={"val": 0})


def evaluation(data: EvaluationData, **options: Any) -> SymbolMap:
    given = {"type": "symbol_map", "min_count": 1, **options}
    return SymbolMap(validate(SymbolMap.Config, Source(given)), data)


def turn(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


# --- the map ------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.floats(1.5, 4))
def test_a_plane_that_was_turned_and_moved_is_found_again(seed: int, n: int, ratio: float) -> None:
    """Places in a plane, uncorrelated and with different spread, put into 9 dimensions: found up to the signs."""
    random = np.random.default_rng(seed)
    plane = np.linalg.qr(np.concatenate([np.ones((n, 1)), random.normal(size=(n, 2))], axis=1))[0][:, 1:]
    plane = plane * [ratio, 1.0]  # columns of mean 0, without correlation
    moved = np.concatenate([plane, np.zeros((n, 7))], axis=1) @ turn(9, seed) + random.normal(size=9)
    places, shares = components(moved)
    for axis in (0, 1):
        own, found = plane[:, axis], places[:, axis]
        sign = np.sign(own @ found)
        np.testing.assert_allclose(sign * found, own, atol=1e-9)
        assert found[np.abs(found).argmax()] > 0
    assert shares == pytest.approx([ratio**2 / (1 + ratio**2), 1 / (1 + ratio**2)])


def test_the_share_of_an_axis_is_its_part_of_the_variance() -> None:
    """A cross in three dimensions: variances 9 : 4 : 1."""
    cross = np.concatenate([np.diag([3.0, 2.0, 1.0]), -np.diag([3.0, 2.0, 1.0])])
    places, shares = components(cross + 5)
    assert shares == pytest.approx((9 / 14, 4 / 14))
    np.testing.assert_allclose(places, [[3, 0], [0, 2], [0, 0], [-3, 0], [0, -2], [0, 0]], atol=1e-12)


def test_on_a_line_the_second_axis_is_empty() -> None:
    places, shares = components(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(places, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    assert shares == (1.0, 0.0)


# --- the tree -----------------------------------------------------------------------------------------


def test_two_pairs_and_one_alone() -> None:
    """On a line: 0 and 1, 10 and 12, 100. Ward's height of two clusters is sqrt(2 a b / (a + b)) times the distance of
    their middles."""
    leaf, height, correlation = tree(np.array([[0.0], [10.0], [1.0], [100.0], [12.0]]))
    ranks = {name: int(leaf[i]) for i, name in enumerate(("a0", "b10", "a1", "far", "b12"))}
    assert abs(ranks["a0"] - ranks["a1"]) == abs(ranks["b10"] - ranks["b12"]) == 1 and ranks["far"] in (0, 4)
    assert sorted(leaf) == list(range(5))
    wanted = [0.0, 1.0, 2.0, np.sqrt(2 * 2 * 2 / 4) * 10.5, np.sqrt(2 * 4 * 1 / 5) * (100 - 5.75)]
    assert sorted(height) == pytest.approx(wanted)
    assert height[leaf.tolist().index(0)] == 0.0 and 0.9 < correlation < 1


@given(st.integers(0, 2**32 - 1), st.integers(3, 14))
def test_order_and_heights_hold_the_whole_tree(seed: int, n: int) -> None:
    """Of two leaves the greatest height between them is where scipy's tree joins them; that gives the correlation too."""
    from scipy.cluster.hierarchy import cophenet
    from scipy.spatial.distance import squareform

    vectors = np.random.default_rng(seed).normal(size=(n, 4))
    leaf, height, correlation = tree(vectors)
    order = np.argsort(leaf)
    along = height[order]
    between = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            between[order[i], order[j]] = between[order[j], order[i]] = along[i + 1 : j + 1].max()
    wanted = cophenet(ward(pdist(vectors)))
    np.testing.assert_allclose(squareform(between), wanted)
    assert correlation == pytest.approx(np.corrcoef(wanted, pdist(vectors))[0, 1])


def test_equal_distances_have_no_correlation() -> None:
    assert np.isnan(tree(np.eye(4))[2])


# --- the vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, bos", [("transformer", False), ("transformer", True), ("recurrent", True)])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_the_map_of_embeddings_is_that_of_the_matrix(
    data: EvaluationData, direction: str, model: str, bos: bool
) -> None:
    scorer = asked(data, direction, model, bos or direction == "both")
    result = evaluation(data).run(scorer, 0)
    ids = [data.tokenizer.encode(symbol)[0][0] for symbol in result.items["symbol"]]
    matrix = scorer.model.embedding
    own = matrix.detach().double().numpy()[ids]
    places, shares = components(own)
    np.testing.assert_allclose(np.stack([result.items["x"], result.items["y"]], 1), places, atol=1e-5)
    assert (result.metrics["share_x"], result.metrics["share_y"]) == pytest.approx(shares, abs=1e-5)
    assert result.metrics["cophenetic"] == pytest.approx(tree(own)[2], abs=1e-5)
    assert "direction" not in result.items


@pytest.mark.parametrize("direction, bos", [("forward", False), ("backward", True), ("both", True)])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_mean_states_are_those_of_every_occurrence(
    data: EvaluationData, direction: str, bos: bool, layer: int
) -> None:
    """Against one call of the model per document, summed symbol by symbol."""
    scorer = asked(data, direction, "transformer", bos)
    result = evaluation(data, of="states", layer=layer, limit=5).run(scorer, 0)
    rows = [data.view("train").tokens(i).tolist() for i in range(5)]
    assert sum(result.items["count"]) == sum(map(len, rows)) * len(scorer.views())
    start = 0
    for view, one in scorer.views().items():
        states: dict[int, list[np.ndarray]] = {}
        for row in rows:
            read = row[::-1] if one.direction == "backward" else row
            first = scorer.roles[view] if view else scorer.roles["bos" if bos else "eos"]
            with torch.no_grad():
                found = one.model(tokens=torch.tensor([[first, *read]]), layers=[]).layers[layer]
            for symbol, state in zip(read, found[1:].double().numpy(), strict=True):
                states.setdefault(symbol, []).append(state)
        wanted = np.stack([np.mean(states[symbol], axis=0) for symbol in sorted(states)])
        own = slice(start, start := start + len(wanted))
        assert result.items["count"][own] == [len(states[symbol]) for symbol in sorted(states)]
        places, shares = components(wanted)
        found_places = np.stack([result.items["x"][own], result.items["y"][own]], 1)
        np.testing.assert_allclose(found_places, places, atol=1e-4)
        name = f"{view}." if view else ""
        assert result.metrics[f"{name}share_x"] == pytest.approx(shares[0], abs=1e-5)
        if view:
            assert set(result.items["direction"][own]) == {view}


def test_rare_symbols_are_left_out_and_the_most_frequent_kept(data: EvaluationData) -> None:
    text = "".join(LINES).replace(" ", "")
    counts = {symbol: text.count(symbol) for symbol in set(text)}
    scorer = asked(data)
    shown = lambda **options: evaluation(data, **options).run(scorer, 0).items
    items = shown(min_count=5)
    assert dict(zip(items["symbol"], items["count"], strict=True)) == {
        s: n for s, n in counts.items() if n >= 5
    }
    three = sorted(counts.values())[-3:]
    assert sorted(shown(most=3)["count"]) == three


def test_what_is_refused(data: EvaluationData) -> None:
    with pytest.raises(UserError, match="0 symbols occur 1000 times or more in 7 documents of split 'train'"):
        evaluation(data, min_count=1000)
    with pytest.raises(UserError, match="layer 3: this model has layers 0 to 2"):
        evaluation(data, of="states", layer=3).run(asked(data), 0)
    with pytest.raises(ConfigError, match="layer 1 belongs to of: states"):
        evaluation(data, layer=1)
    scorer = asked(data)
    with torch.no_grad():
        scorer.model.embedding.fill_(1.0)
    with pytest.raises(UserError, match="all symbols have the same vector"):
        evaluation(data).run(scorer, 0)
    with torch.no_grad():
        scorer.model.embedding.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        evaluation(data).run(scorer, 0)
