"""Whether word boundaries can be read, by a linear map, from the states of a model that never saw one.

For every layer (0 = embeddings) a logistic regression is fitted to the states at x_t of utterances without word
boundaries; each utterance is read alone, behind an utterance boundary. The label is whether x_t begins a word, so a
forward model's state has read x_t and what precedes it. A backward model has read x_t and what follows it: there the
label is whether a word ENDS at x_t, which is the cut behind x_t. The first symbol of an utterance (read backwards, the
last) always is one and is left out; so every example is a cut inside an utterance, before x_t or behind it.

    val.layer_<l>.accuracy, .balanced_accuracy    share of right decisions; mean of the shares in the two classes
    val.layer_<l>.boundary.f, .token.f, .type.f   the decisions as cuts (segmentation/scores.py; edges are not counted)
    val.symbols_<n>...                            the same of a probe that sees no state, only the last n symbols read
    val.layer_<l>.selectivity                     with `selectivity`: accuracy less that on a control task
    val.majority, val.positions, fit.positions    accuracy of the more frequent answer; examples

What a layer knows is to be read against three controls. An untrained network of the same shape: `at` holds step 0 by
default, where this evaluation sees the run's own initial weights. Probes on symbol identity (one-hot of the last n
symbols read). And a control task (Hewitt and Liang 2019): every symbol has a label of its own, drawn so that as many
positions are positive as in the task; accuracy on it tells what the probe can learn by heart.

Fitting minimises the weighted mean of -log p(label) plus strength / (2 n) |w|^2 over n examples, the intercept free
(scikit-learn's C = 1 / strength), features scaled to mean 0 and variance 1 on the fitted part: a convex problem with
one solution, found by Newton's method in float64 until the gradient vanishes, so nothing is random. A probe is fitted
on `fit_split` and tested on `splits`; where they are the same, two halves are crossed: utterances of even number are
decided by the probe fitted on the odd ones, and the other way round.

Cost: one forward pass; layers x positions x d_model floats; per layer some ten times positions x d_model^2 operations.
Refused: what `segmentation` refuses, splits of one kind of label only, models whose layers differ in width, and states
that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.evaluations.logistic import fit
from lexarium.evaluations.segmentation.cues import DIRECTIONS
from lexarium.evaluations.segmentation.gold import CHANNEL, gold_stream
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.stream import END, Stream
from lexarium.foundation import rng
from lexarium.foundation.config import outside_identity
from lexarium.foundation.types import Result, UserError

MEASURES = ("boundary.precision", "boundary.recall", "boundary.f", "token.f", "type.f")
Table = tuple[str, np.ndarray, np.ndarray]
"""Name of a probe, and its features (N, D) of the cuts it is fitted on and of those it is tested on."""


class BoundaryProbe:
    """Linear probes of every layer for word boundaries, and what they are to be compared with."""

    kind, name, version = "evaluation", "boundary_probe", 1
    asks = frozenset({"hidden"})
    channels = (CHANNEL,)
    directions = ("forward", "backward", "both")
    higher = ("accuracy", "balanced_accuracy", "selectivity")

    class Config(SplitsConfig):
        """Options of `boundary_probe`."""

        type: str = "boundary_probe"
        at: tuple[int, ...] = outside_identity((0,))
        """Evaluate at these steps too; step 0 is the untrained network."""
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        """Splits that probes are tested on."""
        fit_split: str = "train"
        """Split that they are fitted on."""
        fit_limit: int = Field(2000, ge=0)
        """At most so many utterances of it, the first ones; 0 = all. Holds for it as a tested split, too."""
        limit: int = Field(0, ge=0)
        """At most so many utterances of each tested split, the first ones; 0 = all (of `fit_split`: as many as
        `fit_limit` has)."""
        strength: float = Field(1.0, gt=0)
        """Weight of the L2 penalty: 1 / C of scikit-learn."""
        weights: Literal["none", "balanced"] = "none"
        """Count every example alike in fitting, or both classes alike."""
        symbols: tuple[int, ...] = (1, 2)
        """Probes on the last so many symbols read, for comparison."""
        selectivity: bool = False
        """Fit a control task per layer too."""

        @field_validator("symbols")
        @classmethod
        def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            if any(n < 1 for n in value) or len(set(value)) < len(value):
                raise ValueError("expected different numbers of symbols, each 1 or more")
            return value

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.symbols = config, data.tokenizer.symbols
        limit = dict.fromkeys(config.splits, config.limit) | {config.fit_split: config.fit_limit}
        self._streams = {split: gold_stream(data, split, n, asks=self.name) for split, n in limit.items()}
        for split, stream in self._streams.items():
            labels, alone = labels_of(stream), split in config.splits and split == config.fit_split
            halves = _halves(stream) if alone else [np.ones(len(labels), dtype=bool)]
            if any(labels[half].all() or not labels[half].any() for half in halves):
                raise UserError(
                    f"evaluation boundary_probe: of {len(labels)} cuts inside utterances of split {split!r}"
                    f" {int(labels.sum())} are word boundaries{' (too few in one half)' if alone else ''}; a probe"
                    " needs some of each kind"
                )

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics per layer and control; one item per cut. Nothing is random: `key` is not used."""
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        for view, asked in scorer.views().items():
            if asked.direction not in DIRECTIONS:
                raise UserError(
                    f"evaluation boundary_probe: direction {asked.direction!r}: what a state has read is known for"
                    f" {' and '.join(DIRECTIONS)} only"
                )
            states = {split: layers(asked, stream) for split, stream in self._streams.items()}
            for split in self.config.splits:
                name = f"{split}.{view}" if view else split
                self._split(name, split, asked.direction == "backward", states, metrics, items)
        return Result(metrics, items)

    def _split(
        self,
        name: str,
        split: str,
        backward: bool,
        states: dict[str, list[np.ndarray]],
        metrics: dict[str, float | int],
        items: dict[str, list[Any]],
    ) -> None:
        c = self.config
        fitted, tested = self._streams[c.fit_split], self._streams[split]
        labels = labels_of(tested)
        columns: dict[str, list[Any]] = {
            "stream": [name] * len(labels),
            "utterance": tested.utterance[tested.inside].tolist(),
            "symbol": [self.symbols[i] for i in read_at(tested, backward).tolist()],
            "boundary": labels.tolist(),
        }
        control = self._control(backward) if c.selectivity else None
        for probe, *features in self._tables(split, backward, states):
            odds = self._decide(split, features[0], features[1], labels_of(fitted))
            measures = measure(tested, odds > 0)
            if control is not None and probe.startswith("layer"):
                own, other = (control[read_at(s, backward)] for s in (fitted, tested))
                right = (self._decide(split, features[0], features[1], own) > 0) == other
                measures["control_accuracy"] = float(right.mean())
                measures["selectivity"] = measures["accuracy"] - measures["control_accuracy"]
            metrics |= {f"{name}.{probe}.{measure}": value for measure, value in measures.items()}
            columns[probe] = odds.tolist()
        metrics[f"{name}.majority"] = float(max(labels.mean(), 1 - labels.mean()))
        metrics[f"{name}.positions"] = len(labels)
        metrics["fit.positions"] = int(fitted.inside.sum())
        for column, values in columns.items():
            items.setdefault(column, []).extend(values)

    def _tables(self, split: str, backward: bool, states: dict[str, list[np.ndarray]]) -> Iterator[Table]:
        """Every probe with its features."""
        fit_split = self.config.fit_split
        for number, pair in enumerate(zip(states[fit_split], states[split], strict=True)):
            yield f"layer_{number}", *pair
        for n in self.config.symbols:
            fitted, tested = (last_symbols(self._streams[s], n, backward) for s in (fit_split, split))
            yield f"symbols_{n}", _one_hot(fitted, fitted), _one_hot(tested, fitted)

    def _decide(self, split: str, fitted: np.ndarray, tested: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(N,) log-odds of the tested cuts, from features and labels of the fitted ones."""
        c = self.config
        balanced = c.weights == "balanced"
        if split != c.fit_split:
            return fit(fitted, labels, c.strength, balanced).log_odds(tested)
        found = np.empty(len(tested))
        for half in _halves(self._streams[split]):
            probe = fit(fitted[~half], labels[~half], c.strength, balanced)
            found[half] = probe.log_odds(tested[half])
        return found

    def _control(self, backward: bool) -> np.ndarray:
        """(V,) bool: a label for every symbol, the same in all runs for symbols of the same names and frequencies.

        Symbols in an order drawn from their names are positive until they are as many positions as word boundaries
        are in the fitted part; at least one symbol is positive, and one is not.
        """
        stream = self._streams[self.config.fit_split]
        counts = np.bincount(read_at(stream, backward), minlength=len(self.symbols))
        there = sorted(np.flatnonzero(counts), key=lambda i: rng.key(0, "control task", self.symbols[i]))
        if len(there) < 2:
            raise UserError("evaluation boundary_probe: selectivity needs two symbols or more")
        reached = np.cumsum(counts[there]) - counts[there] < labels_of(stream).sum()
        reached[[0, -1]] = True, False
        found = np.zeros(len(self.symbols), dtype=bool)
        found[np.array(there)[reached]] = True
        return found


def labels_of(stream: Stream) -> np.ndarray:
    """(N,) bool: of every cut inside utterances, whether it is a word boundary."""
    found: np.ndarray = stream.starts[stream.inside]
    return found


def measure(stream: Stream, decisions: np.ndarray) -> dict[str, float]:
    """Measures of (N,) bool decisions about the cuts inside utterances."""
    labels = labels_of(stream)
    right = decisions == labels
    cuts = np.zeros(len(stream), dtype=bool)
    cuts[stream.inside] = decisions
    scores = score(stream, cuts)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((right[labels].mean() + right[~labels].mean()) / 2),
        **{name: scores[name] for name in MEASURES},
    }


# --- features -----------------------------------------------------------------------------------------


def layers(scorer: Any, stream: Stream) -> list[np.ndarray]:
    """Of every layer (N, D) float32: the state that belongs to each cut inside utterances, in corpus order.

    That is the state at the symbol before which the cut lies; of a backward model, at the one behind which it lies.
    """
    backward = scorer.direction == "backward"
    framed = bool(getattr(scorer.objective.config, "bos", False))
    mark = int(scorer.roles["eos"])
    edges = np.flatnonzero(stream.ends).tolist()
    rows = []
    for a, b in zip([0, *(e + 1 for e in edges[:-1])], edges, strict=True):
        own = stream.symbols[a:b][:: -1 if backward else 1]
        rows.append(own.copy() if framed else np.concatenate([[mark], own]))
    # what is read first has no cut: of n symbols, the states of the last n - 1 read
    found = [states[:, 1 + (not framed) :] for states in scorer.states(rows)]
    if backward:
        found = [states[:, ::-1] for states in found]
    tables = [np.concatenate([states[i] for states in found]) for i in range(len(found[0]))]
    for number, table in enumerate(tables):
        if not np.isfinite(table).all():
            raise UserError(
                f"evaluation boundary_probe: states of layer {number} are not finite numbers; did training diverge?"
            )
    return tables


def read_at(stream: Stream, backward: bool) -> np.ndarray:
    """(N,) int64: the symbol whose state belongs to each cut."""
    return last_symbols(stream, 1, backward)[:, 0]


def last_symbols(stream: Stream, n: int, backward: bool) -> np.ndarray:
    """(N, n) int64: of every cut the symbol whose state belongs to it, the one read before it, ...; END beyond the
    utterance."""
    cuts = np.flatnonzero(stream.inside)
    places = cuts[:, None] + (np.arange(n) - 1 if backward else -np.arange(n))
    there = (places >= 0) & (places < len(stream))
    places = places.clip(0, len(stream) - 1)
    there &= stream.utterance[places] == stream.utterance[cuts][:, None]
    return np.where(there, stream.symbols[places], END)


def _one_hot(symbols: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, D) float32: for each column of (N, n) symbols an indicator of every value that column of `known` holds."""
    found = [symbols[:, j, None] == np.unique(known[:, j]) for j in range(symbols.shape[1])]
    return np.concatenate(found, axis=1).astype(np.float32)


def _halves(stream: Stream) -> Sequence[np.ndarray]:
    """(N,) bool: cuts in utterances of even number, and the others."""
    even = stream.utterance[stream.inside] % 2 == 0
    return even, ~even
