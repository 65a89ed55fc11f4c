"""Whether a model's states tell the distinctive features of phonemes, of phonemes the probe has not seen.

A stream of utterances, with an utterance boundary before, between and behind them, is read in contexts of `window`
symbols that move by `stride`; of each the last `stride` states are kept, those of special tokens and of phonemes with
fewer than `min_count` states left out. A feature is usable when `min_phonemes` of the phonemes have `+` and as many
`-`. For each phoneme with one of the two, a logistic regression (C = 1) learns the feature from the states of the
OTHER phonemes, classes of equal size, and is tested on the states of this one (Goriely and Buttery, 2025).

Metrics of a split, for each usable feature: `val.syllabic.accuracy`, the plain mean over held-out phonemes;
`val.syllabic.phonemes`, their number n; `val.syllabic.p`, the probability of at least k of n right by chance, k being
the rounded sum of accuracies. That test is rough: accuracies are fractions, and phonemes are not independent. Then
`val.accuracy`, the mean over features, and `val.features`, `val.phonemes`, `val.states`. The control is the same at
step 0, before training (`at`). Items: one row per feature and held-out phoneme.

Two things differ from the original. At most `states` states of each phoneme are used, spread evenly over the stream:
a common phoneme counts no more than others, and the cost is bounded. Classes are truncated in turns, the first state
of every phoneme before the second of any, so that no phoneme is cut off whole.

Cost: a forward pass over the stream, and a regression per usable feature and phoneme, some five steps of N d^2 products
for N states. Refused: an encoder-decoder, directions other than forward and backward, a split with no usable feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.evaluations.logistic import solve
from lexarium.foundation.config import outside_identity
from lexarium.foundation.features import MINUS, PLUS, FeatureTable, read_features
from lexarium.foundation.types import Output, Result, UserError

END = -1
"""An utterance boundary in a stream."""
STRENGTH = 1.0
"""Of the penalty: 1 / C, C = 1 being the default of scikit-learn, with which the study fitted."""
States = Mapping[int, np.ndarray]
"""Token id -> (n, d) states of its occurrences."""


class FeatureProbe:
    """Distinctive features in the states of a model, tested on phonemes held out."""

    kind, name, version = "evaluation", "feature_probe", 1
    asks = frozenset({"hidden"})
    directions = ("forward", "backward")

    class Config(SplitsConfig):
        """Options of `feature_probe`."""

        type: str = "feature_probe"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        features: FeatureTable
        """The table of features. With `missing: unknown`, phonemes without a row are left out of the probe."""
        layer: Literal["final", "embedding"] | Annotated[int, Field(ge=0)] = "final"
        """States that are predicted from, what enters the first layer (positions included), or what leaves layer n."""
        symbols: int = Field(50_000, ge=0)
        """Symbols of the stream, boundaries included; 0 = the whole split."""
        window: int = Field(64, ge=1)
        """Symbols of a context."""
        stride: int = Field(32, ge=1)
        """Symbols by which contexts move, and states kept of each."""
        min_count: int = Field(10, ge=1)
        """States a phoneme must have."""
        min_phonemes: int = Field(4, ge=2)
        """Phonemes with `+`, and with `-`, that a feature must have."""
        states: int = Field(100, ge=0)
        """States of a phoneme used at most; 0 = all."""
        at: tuple[int, ...] = outside_identity((0,))
        """Evaluate at these steps too."""

        @property
        def reads(self) -> int:
            """Tokens of the longest window that is read."""
            return self.window

        @model_validator(mode="after")
        def _fits(self) -> FeatureProbe.Config:
            if self.stride > self.window:
                raise ValueError(
                    f"stride {self.stride} leaves gaps between contexts of {self.window}; make it smaller"
                )
            if 0 < self.states < self.min_count:
                raise ValueError(f"states {self.states} is below min_count {self.min_count}")
            return self

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.data = config, data
        self._streams = {split: self._stream(split) for split in config.splits}
        self._features = {split: self._table(split, stream) for split, stream in self._streams.items()}

    def _stream(self, split: str) -> np.ndarray:
        """(M,) int64 ids, END for an utterance boundary."""
        view, parts, n = self.data.view(split), [np.array([END])], 1
        limit = self.config.symbols or math.inf
        for i in range(len(view)):
            parts += [view.tokens(i).astype(np.int64), np.array([END])]
            n += len(parts[-2]) + 1
            if n >= limit:
                break
        stream = np.concatenate(parts)[: self.config.symbols or None]
        if len(stream) < self.config.window:
            raise UserError(
                f"evaluation feature_probe: split {split!r} has {len(stream)} symbols, fewer than one context of"
                f" {self.config.window}; lower `window`"
            )
        return stream

    def _table(self, split: str, stream: np.ndarray) -> dict[int, np.ndarray]:
        """Phoneme -> values (F,) of its features, for those that occur often enough."""
        c, tokenizer = self.config, self.data.tokenizer
        ids, counts = np.unique(stream, return_counts=True)
        special = {END, *tokenizer.roles.values()}
        chosen = [i for i in ids[counts >= c.min_count].tolist() if i not in special]
        values = read_features(c.features, [tokenizer.symbols[i] for i in chosen])
        found = dict(zip(chosen, values, strict=True))
        if not usable(found, c.features.columns, c.min_phonemes):
            raise UserError(
                f"evaluation feature_probe: no feature is `+` in {c.min_phonemes} and `-` in {c.min_phonemes} of the"
                f" {len(chosen)} phonemes that occur {c.min_count} times in split {split!r}; take more symbols, or"
                " lower min_phonemes"
            )
        return found

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics per split and feature; one item per feature and phoneme."""
        if "source" in scorer.model.consumes:
            raise UserError(
                "evaluation feature_probe: an encoder-decoder reads no stream; use a language model"
            )
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {
            n: [] for n in ("split", "feature", "phoneme", "value", "states", "accuracy")
        }
        for split, stream in self._streams.items():
            self._split(split, self._states(scorer, split, stream), metrics, items)
        return Result(metrics, items)

    def _states(self, scorer: Any, split: str, stream: np.ndarray) -> dict[int, np.ndarray]:
        c = self.config
        starts = range(0, len(stream) - c.window + 1, c.stride)
        turn = -1 if scorer.direction == "backward" else 1
        eos = int(scorer.roles["eos"])
        rows = [np.where(w == END, eos, w)[::turn].copy() for w in (stream[a : a + c.window] for a in starts)]
        kept = [stream[a : a + c.window][::turn][-c.stride :] for a in starts]
        states = states_of(scorer, rows, c.layer, c.stride)
        return by_phoneme(np.concatenate(kept), states, list(self._features[split]), c.min_count, c.states)

    def _split(
        self, split: str, states: States, metrics: dict[str, float | int], items: dict[str, list[Any]]
    ) -> None:
        c, symbols = self.config, self.data.tokenizer.symbols
        if not all(np.isfinite(found).all() for found in states.values()):
            raise UserError(
                f"evaluation feature_probe: states in split {split!r} are not numbers; the model is broken"
            )
        values = {i: v for i, v in self._features[split].items() if i in states}
        means = []
        for feature in usable(values, c.features.columns, c.min_phonemes):
            place = c.features.columns.index(feature)
            signs = {i: bool(v[place] == PLUS) for i, v in values.items() if v[place] in (MINUS, PLUS)}
            found = held_out_accuracies(states, signs)
            means.append(sum(found.values()) / len(found))
            metrics[f"{split}.{feature}.accuracy"] = means[-1]
            metrics[f"{split}.{feature}.p"] = chance_of(round(sum(found.values())), len(found))
            metrics[f"{split}.{feature}.phonemes"] = len(found)
            items["split"] += [split] * len(found)
            items["feature"] += [feature] * len(found)
            items["phoneme"] += [symbols[i] for i in found]
            items["value"] += ["+" if signs[i] else "-" for i in found]
            items["states"] += [len(states[i]) for i in found]
            items["accuracy"] += list(found.values())
        if not means:
            raise UserError(
                f"evaluation feature_probe: no feature is left in split {split!r}: too few phonemes have"
                f" {c.min_count} states; take more symbols"
            )
        metrics[f"{split}.accuracy"] = sum(means) / len(means)
        metrics[f"{split}.features"] = len(means)
        metrics[f"{split}.phonemes"] = len(states)
        metrics[f"{split}.states"] = sum(map(len, states.values()))


def states_of(scorer: Any, rows: Sequence[np.ndarray], layer: str | int, last: int) -> np.ndarray:
    """(rows * last, d) float32: states of the last tokens of each row of ids, in reading order."""

    def measure(output: Output, chosen: np.ndarray) -> np.ndarray:
        states = output.hidden
        if layer != "final":
            place, found = 0 if layer == "embedding" else int(layer), output.layers or []
            if place >= len(found):
                raise UserError(
                    f"evaluation feature_probe: layer {place}, and the model has {len(found) - 1}"
                )
            states = found[place]
        return np.asarray(states.float().cpu().numpy())

    found = scorer.measured(rows, measure, layers=layer != "final")
    return np.concatenate([states[-last:] for states in found])


def by_phoneme(
    ids: np.ndarray, states: np.ndarray, phonemes: Sequence[int], least: int, most: int
) -> dict[int, np.ndarray]:
    """Phoneme -> its states, of those that have `least`; `most` of them at most (0 = all), spread evenly."""
    found = {}
    for phoneme in phonemes:
        places = np.flatnonzero(ids == phoneme)
        if len(places) >= least:
            if most and len(places) > most:
                places = places[np.arange(most) * len(places) // most]
            found[phoneme] = states[places]
    return found


def usable(values: Mapping[int, np.ndarray], names: Sequence[str], least: int) -> list[str]:
    """Features that are `+` in at least so many phonemes, and `-` in as many. values: phoneme -> (F,)."""
    enough = lambda sign, place: sum(v[place] == sign for v in values.values()) >= least
    return [n for place, n in enumerate(names) if enough(PLUS, place) and enough(MINUS, place)]


def held_out_accuracies(states: States, signs: Mapping[int, bool]) -> dict[int, float]:
    """For each phoneme the share of its states whose sign is right by a regression on those of the others.

    Each class needs two phonemes. A state on the border is taken for `-`.
    """
    classes = {sign: _in_turns(states, [i for i in signs if signs[i] == sign]) for sign in (True, False)}
    everything = solve(*_balanced(classes, None), STRENGTH)
    found = {}
    for phoneme, sign in signs.items():
        weights = solve(*_balanced(classes, phoneme), STRENGTH, start=everything)
        own = states[phoneme].astype(np.float64)
        found[phoneme] = float(((own @ weights[:-1] + weights[-1] > 0) == sign).mean())
    return found


Class = tuple[np.ndarray, np.ndarray]
"""Owners (n,) and states (n, d) of a class."""


def _in_turns(states: States, phonemes: Sequence[int]) -> Class:
    """The first state of every phoneme, then the second of every phoneme, and so on."""
    owners = np.concatenate([np.full(len(states[i]), i) for i in phonemes])
    turns = np.concatenate([np.arange(len(states[i])) for i in phonemes])
    order = np.argsort(turns, kind="stable")
    joined = np.concatenate([states[i] for i in phonemes])
    return owners[order], joined[order].astype(np.float64)


def _balanced(classes: Mapping[bool, Class], without: int | None) -> tuple[np.ndarray, np.ndarray]:
    """States (2 n, d) of both classes, equally many, and which are `+`; none of one phoneme."""
    parts = {sign: rows[owners != without] for sign, (owners, rows) in classes.items()}
    n = min(len(parts[True]), len(parts[False]))
    return np.concatenate([parts[True][:n], parts[False][:n]]), (np.arange(2 * n) < n).astype(np.float64)


def chance_of(k: int, n: int) -> float:
    """P(at least k of n fair coins show heads)."""
    return sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
