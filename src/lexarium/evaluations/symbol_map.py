"""A map of the symbols: which ones a model treats alike, in two dimensions and as a tree.

Every symbol that occurs at least `min_count` times in the documents read has one vector, float64:

    of: embedding   its input embedding. Each symbol is read alone, so all stand at one place, and the state of layer 0
                    is the embedding plus one and the same position vector, which neither the map nor the tree sees:
                    both look at differences only. So the question is the same for every model that answers `hidden`,
                    scaled embeddings and recurrent models included, and no model has to name its matrix.
    of: states      the mean of the states of `layer` at its occurrences: documents read alone, in the run's direction,
                    behind bos, or behind what ends a text where the objective reads no bos. A model that reads in
                    both directions has a map of each.

The map is a principal component analysis: vectors less their mean, projected on the two directions of largest variance
(by singular value decomposition). A component has no sign of its own: the symbol farthest from the middle is put on the
positive side (of several, the one of the smallest id). Symbols count alike, whatever their frequency. No t-SNE, which
published maps of phonemes use: its picture depends on chance and on a perplexity, and its distances have no scale.

The tree is Ward's (1963) over Euclidean distances (scipy.cluster.hierarchy.ward). `leaf` is a symbol's place in its
order and `height` where it joins the leaf before it, 0 for the first one: these two columns are the whole dendrogram.

    symbols                 how many are on the map
    share_x, share_y        share of the variance along each axis
    cophenetic              correlation of the tree's distances with the true ones (Sokal and Rohlf 1962); left out
                            where all distances are equal

Items: one row per symbol. Nothing is random. Cost: a row per symbol, or a forward pass over `limit` documents; n
symbols need a singular value decomposition of (n, d_model) and n^2 distances. Refused: splits with fewer than three
such symbols, layers the model does not have or that differ in width, vectors that are not finite or all the same, and
objectives that read a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.evaluations.evaluation import EvaluationConfig, EvaluationData
from lexarium.foundation.types import Example, Incompatible, Result, UserError

CHUNK = 256
"""Documents whose states are held at a time."""
LEAST = 3
"""Symbols of which a map is drawn."""


class SymbolMap:
    """Symbols in two dimensions, from their embeddings or their mean states."""

    kind, name, version = "evaluation", "symbol_map", 1
    asks = frozenset({"hidden"})
    whole_texts = True

    class Config(EvaluationConfig):
        """Options of `symbol_map`."""

        type: str = "symbol_map"
        of: Literal["embedding", "states"] = "embedding"
        """The vector of a symbol: its input embedding, or its mean state."""
        layer: int = -1
        """Of `of: states`: 0 = embeddings with positions, 1 = the first layer, -1 = the last."""
        split: str = "train"
        """Split that is counted and, of `of: states`, read."""
        limit: int = Field(2000, ge=0)
        """At most so many documents of it, the first ones; 0 = all."""
        min_count: int = Field(10, ge=1)
        """Leave out symbols that occur less often in them."""
        most: int = Field(200, ge=LEAST)
        """At most so many symbols, the most frequent ones."""

        @model_validator(mode="after")
        def _fits(self) -> SymbolMap.Config:
            if self.of == "embedding" and self.layer != -1:
                raise ValueError(f"layer {self.layer} belongs to of: states; an embedding has none")
            return self

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config = config
        view = data.view(config.split)
        n = min(len(view), config.limit or len(view))
        self._documents = [view.tokens(i).astype(np.int64) for i in range(n)]
        counts = np.bincount(np.concatenate([[], *self._documents]).astype(np.int64))
        often = np.flatnonzero(counts >= config.min_count)
        if len(often) < LEAST:
            raise UserError(
                f"evaluation symbol_map: {len(often)} symbols occur {config.min_count} times or more in {n} documents"
                f" of split {config.split!r}, expected {LEAST} or more; lower min_count, or raise limit"
            )
        self._ids = np.sort(often[np.argsort(-counts[often], kind="stable")][: config.most])
        self._counts = counts[self._ids]
        known = getattr(data.tokenizer, "symbols", None)
        self._names = [known[i] if known else data.tokenizer.decode([i]) for i in self._ids.tolist()]

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics of the map and the tree; one item per symbol. Nothing is random: `key` is not used."""
        if "source" in getattr(scorer.objective, "produces", ()):
            raise Incompatible(
                "evaluation symbol_map reads symbols alone, and this objective reads a source beside them; use"
                " objective causal"
            )
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        views = scorer.views()
        if self.config.of == "embedding":
            views = {"": next(iter(views.values()))}  # read in any direction, one symbol is one symbol
        for view, asked in views.items():
            vectors = self._embeddings(asked) if self.config.of == "embedding" else self._means(asked)
            _check(vectors)
            places, shares = components(vectors)
            leaf, height, cophenetic = tree(vectors)
            name = f"{view}." if view else ""
            metrics |= {
                f"{name}symbols": len(vectors),
                f"{name}share_x": shares[0],
                f"{name}share_y": shares[1],
            }
            if np.isfinite(cophenetic):
                metrics[f"{name}cophenetic"] = cophenetic
            columns: dict[str, list[Any]] = {
                **({"direction": [view] * len(vectors)} if view else {}),
                "symbol": self._names,
                "count": self._counts.tolist(),
                "x": places[:, 0].tolist(),
                "y": places[:, 1].tolist(),
                "leaf": leaf.tolist(),
                "height": height.tolist(),
            }
            for column, values in columns.items():
                items.setdefault(column, []).extend(values)
        return Result(metrics, items)

    def _embeddings(self, scorer: Any) -> np.ndarray:
        """(n, D): layer 0 of every symbol alone."""
        return np.stack([states[0, -1] for states in scorer.states(self._ids[:, None])]).astype(np.float64)

    def _means(self, scorer: Any) -> np.ndarray:
        """(n, D): the mean state at each symbol."""
        framed = bool(getattr(scorer.objective.config, "bos", False))
        front = np.zeros(0, np.int64) if framed else np.array([int(scorer.roles["eos"])])
        rows = [scorer._direction.apply(_example(ids, i)).ids for i, ids in enumerate(self._documents)]
        place = np.full(max(int(ids.max()) for ids in rows) + 1, -1)
        place[self._ids] = np.arange(len(self._ids))
        total: np.ndarray | float = 0.0
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            found = scorer.states([np.concatenate([front, row]) for row in some])
            layer = self._layer(len(found[0]))
            states = np.concatenate([values[layer, len(front) :] for values in found])
            total = total + _sums(states, place[np.concatenate(some)], len(self._ids))
        return np.asarray(total / self._counts[:, None])

    def _layer(self, n: int) -> int:
        """The number of the layer, of n with the embeddings."""
        if not -n <= self.config.layer < n:
            raise UserError(
                f"evaluation symbol_map: layer {self.config.layer}: this model has layers 0 to {n - 1} (-1 is the last)"
            )
        return self.config.layer % n


def _example(ids: np.ndarray, number: int) -> Example:
    zeros = np.zeros(len(ids), np.int64)
    return Example(ids, np.arange(len(ids)), zeros, {}, (number,), number)


def _sums(states: np.ndarray, place: np.ndarray, n: int) -> np.ndarray:
    """(n, D) float64: sums of (N, D) states by their places, from 0; -1 is left out. Each in the order of the text."""
    kept = np.flatnonzero(place >= 0)
    order = kept[np.argsort(place[kept], kind="stable")]
    found = np.zeros((n, states.shape[1]))
    there, first = np.unique(place[order], return_index=True)
    if len(there):
        found[there] = np.add.reduceat(states[order].astype(np.float64), first, axis=0)
    return found


def _check(vectors: np.ndarray) -> None:
    """Raise UserError for vectors of which there is no map."""
    if not np.isfinite(vectors).all():
        raise UserError("evaluation symbol_map: vectors are not finite numbers; did training diverge?")
    if (vectors == vectors[0]).all():
        raise UserError("evaluation symbol_map: all symbols have the same vector; was the model initialised?")


def components(vectors: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """(n, 2) places of (n, D) vectors, and the share of the variance along each axis.

    The two principal components; along each, the symbol farthest from the middle is positive. An axis without variance
    has share 0 and places 0.
    """
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    k = min(2, len(sizes))
    places[:, :k] = left[:, :k] * sizes[:k]
    # of two that are equally far but for rounding, the first
    far = np.abs(places)
    farthest = (far >= far.max(axis=0) * (1 - 1e-9)).argmax(axis=0)
    places *= np.where(places[farthest, [0, 1]] < 0, -1.0, 1.0)
    shares = np.append(sizes**2 / (sizes**2).sum(), 0.0)
    return places, (float(shares[0]), float(shares[1]))


def tree(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Ward's tree of (n, D) vectors: (n,) each one's place in its order, (n,) the height at which it joins the leaf
    before it (0: the first), and the cophenetic correlation (NaN where all distances are equal)."""
    from scipy.cluster.hierarchy import cophenet, leaves_list, ward
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(vectors)
    joins = ward(distances)
    joined = cophenet(joins)
    order: Sequence[int] = leaves_list(joins)
    leaf, height = np.empty(len(vectors), np.int64), np.zeros(len(vectors))
    leaf[order] = np.arange(len(vectors))
    height[order[1:]] = squareform(joined)[order[:-1], order[1:]]
    if np.ptp(distances) <= 1e-12 * distances.max() or np.ptp(joined) == 0:
        return leaf, height, float("nan")
    return leaf, height, float(np.corrcoef(joined, distances)[0, 1])
