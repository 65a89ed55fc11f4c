"""Whether a language model that saw no word boundary finds words: its cues, cut at peaks and at thresholds.

The stream are the utterances of a split without word boundaries; the channel `word_start` of the corpus says where
words begin. Every cue (see `cues.py`) is cut in two ways (see `decisions.py`) and scored (see `scores.py`). Names of
metrics:

    val.<cue>.<strategy>.<measure>          utterances read one after the other
    val.alone.<cue>.<strategy>.<measure>    each utterance by itself

with cues `boundary entropy loss rank increase_in_...` (and `feature_...` of a model that predicts features), strategies
`peak` and `threshold`, measures `boundary.f`, `token.f`, `type.f`, ... `vote_peak` and `vote_threshold` are the shares
of the eight cues of every model that peak, or exceed their own thresholds, as cues of their own: cut above 0.5
(`threshold`), or at peaks. `val.bits_per_symbol` and
`val.perplexity` are those of all symbols and utterance boundaries in the first context.

A threshold is chosen on gold boundaries. `tune: crossed`, the default, chooses that of every second utterance on the
other half, so no utterance is scored by a threshold it was used for, and all are scored. `tune: oracle` chooses on
the very stream that is scored, as published scores do; with `search: bounded` also by their search. `aim` is the F it
is chosen for. `val.<cue>.threshold.theta_even` is that of the first, third, ... utterance, `theta_odd` that of the
others (with `oracle` they are one); none is told where nothing, or everything, is cut.

Type F depends on how many utterances there are: `val.utterances`. `val.unknown` counts symbols that the vocabulary does
not hold (UNK): words that differ in those alone are one type. `val.unseen` counts symbols that are in the vocabulary
but never in what the run trains on: no model can know them, and their loss and rank are chance. What is a symbol here
is a token of the run: with tokens of several symbols, pieces are joined to words. A run that never predicts the
utterance boundary (no eos, no separator) counts those among the unseen: its boundary probability means nothing.

A model whose predictions are not numbers has no scores: all are NaN.

Items: one row per position, for plots of utterances: the symbol, whether a word begins there, and every cue. Cost:
about window / stride forward passes over the split, and for `aim: type` half a second per cue and 100,000 symbols.
Refused: tokens that hold the end of one word and the beginning of the next, word boundaries that stand in the text,
and directions other than forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.evaluations.segmentation.cues import CUES, DIRECTIONS, cues_alone, cues_in_stream
from lexarium.evaluations.segmentation.decisions import inner_peaks, peaks, tuned, votes
from lexarium.evaluations.segmentation.gold import CHANNEL, gold_stream, unseen
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import Result, UserError


class Segmentation:
    """Word boundaries at the peaks of a model's uncertainty."""

    kind, name, version = "evaluation", "segmentation", 1
    asks = frozenset({"next_scores"})
    channels = (CHANNEL,)
    directions = (*DIRECTIONS, "both")
    higher = ("f", "precision", "recall", "exact", "rand", "hits")
    lower = ("bits_per_symbol", "perplexity", "over", "under")

    class Config(SplitsConfig):
        """Options of `segmentation`."""

        type: str = "segmentation"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        contexts: tuple[Literal["stream", "alone"], ...] = Field(("stream", "alone"), min_length=1)
        """Utterances read one after the other, or each by itself."""
        window: int = Field(64, ge=2)
        """Tokens a prediction sees at most, itself included; context `stream`."""
        stride: int = Field(10, ge=1)
        """Tokens by which windows move."""
        strategies: tuple[Literal["peak", "threshold"], ...] = Field(("peak", "threshold"), min_length=1)
        votes: bool = True
        """Score the votes of all cues too."""
        aim: Literal["boundary", "type"] = "boundary"
        """The F for which thresholds are chosen."""
        tune: Literal["crossed", "oracle"] = "crossed"
        """Choose the threshold of each half on the other one, or on the stream that is scored."""
        search: Literal["exact", "bounded"] = "exact"
        """Every threshold there is, or the search of the original code."""
        limit: int = Field(0, ge=0)
        """At most so many utterances of each split, the first ones; 0 = all."""

        @property
        def reads(self) -> int:
            """Tokens of the longest window that is read; 0 = none is."""
            return self.window if "stream" in self.contexts else 0

        @model_validator(mode="after")
        def _fits(self) -> Segmentation.Config:
            if self.stride >= self.window:
                raise ValueError(
                    f"stride {self.stride} leaves gaps between windows of {self.window}; make it smaller"
                )
            if self.search == "bounded" and self.tune != "oracle":
                raise ValueError(
                    "search: bounded is the original code's, on the stream it scores; say tune: oracle"
                )
            return self

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.data = config, data
        self._streams = {
            split: gold_stream(data, split, config.limit, asks=self.name) for split in config.splits
        }
        for split, stream in self._streams.items():
            longest, limit = int(np.bincount(stream.utterance).max()), data.max_length
            if "alone" in config.contexts and limit is not None and longest > limit:
                raise UserError(
                    f"evaluation segmentation: an utterance of split {split!r} has {longest} tokens with its boundary,"
                    f" and model.max_positions is {limit}: it cannot be read alone; say contexts: [stream], or raise it"
                )

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics of every cue and strategy; one item per position."""
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        symbols = list(self.data.tokenizer.symbols)
        unk = symbols.index("UNK") if "UNK" in symbols else -2  # a number that no position has
        for split, stream in self._streams.items():
            unknown = stream.symbols == unk
            never = unseen(self.data, stream.symbols) & ~unknown
            if not self._predicts_ends(scorer):
                never |= stream.ends
            for view, asked in scorer.views().items():
                if asked.direction not in DIRECTIONS:
                    raise UserError(
                        f"evaluation segmentation: direction {asked.direction!r}: what a cue says about a boundary is"
                        f" known for {' and '.join(DIRECTIONS)} only"
                    )
                name = f"{split}.{view}" if view else split
                for context in self.config.contexts:
                    self._context(name, context, stream, asked, metrics, items)
                metrics[f"{name}.utterances"] = stream.n_utterances
                metrics[f"{name}.unknown"] = int(unknown.sum())
                metrics[f"{name}.unseen"] = int(never.sum())
        return Result(metrics, items)

    def log_line(self, result: Result) -> str:
        """The headline, for the log of a run in training."""
        end = ".boundary.peak.boundary.f"
        found = [(n.removesuffix(end), v) for n, v in result.metrics.items() if n.endswith(end)]
        told = ", ".join(f"{name} {value:.3f}" for name, value in found)
        kinds = {".unknown": "symbols outside the vocabulary", ".unseen": "symbols never seen in training"}
        never = "".join(
            f"; {name.removesuffix(end)}: {words}: {value:,}"
            for name, value in result.metrics.items()
            for end, words in kinds.items()
            if name.endswith(end) and value
        )
        return f"boundary F at peaks of boundary probability: {told or 'not asked for'}{never}"

    def _predicts_ends(self, scorer: Any) -> bool:
        """Whether training has utterance boundaries among what is predicted."""
        return bool(getattr(scorer.objective.config, "eos", False)) or self.data.separated

    def _context(
        self,
        name: str,
        context: str,
        stream: Stream,
        scorer: Any,
        metrics: dict[str, float | int],
        items: dict[str, list[Any]],
    ) -> None:
        c = self.config
        if context == "stream":
            cues = cues_in_stream(scorer, stream, c.window, c.stride)
            mean = float(cues["loss"].mean())
            metrics[f"{name}.bits_per_symbol"] = mean / math.log(2)
            metrics[f"{name}.perplexity"] = math.exp(mean) if mean < 700.0 else mean * math.inf
        else:
            cues = cues_alone(scorer, stream)
            name = f"{name}.alone"
        known = not any(np.isnan(values).any() for values in cues.values())
        thetas = self._thetas(cues, stream)
        ends = np.flatnonzero(stream.ends)[:2]
        for cue, values in thetas.items():
            for which, theta in zip(("even", "odd"), values[ends].tolist(), strict=False):
                if math.isfinite(theta):
                    metrics[f"{name}.{cue}.threshold.theta_{which}"] = theta
        for cue, by_strategy in self._cuts(cues, stream, thetas).items():
            for strategy, cuts in by_strategy.items():
                for measure, value in score(stream, cuts).items():
                    if measure != "utterances":
                        metrics[f"{name}.{cue}.{strategy}.{measure}"] = value if known else math.nan
        if c.items:
            self._items(name, stream, cues, items)

    def _thetas(self, cues: Mapping[str, np.ndarray], stream: Stream) -> dict[str, np.ndarray]:
        """Cue -> (M,) the threshold of every position."""
        c = self.config
        return {name: tuned(values, stream, c.aim, c.tune, c.search) for name, values in cues.items()}

    def _cuts(
        self, cues: Mapping[str, np.ndarray], stream: Stream, thetas: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Cue -> strategy -> cuts; votes are cues too."""
        c = self.config
        above = {name: values > thetas[name] for name, values in cues.items()}
        ways = {"peak": peaks, "threshold": lambda values: values > 0.5}
        found = {name: {"peak": peaks(values), "threshold": above[name]} for name, values in cues.items()}
        if c.votes:
            shares = {
                "vote_peak": votes({name: inner_peaks(cues[name]) for name in CUES}),
                "vote_threshold": votes({name: above[name] for name in CUES}),
            }
            found |= {
                name: {way: cut(values) for way, cut in ways.items()} for name, values in shares.items()
            }
        return {
            name: {way: cuts for way, cuts in by.items() if way in c.strategies} for name, by in found.items()
        }

    def _items(
        self, name: str, stream: Stream, cues: Mapping[str, np.ndarray], items: dict[str, list[Any]]
    ) -> None:
        symbols = [*self.data.tokenizer.symbols, "|"]  # END is -1
        columns = {
            "stream": [name] * len(stream),
            "utterance": stream.utterance.tolist(),
            "symbol": [symbols[i] for i in stream.symbols.tolist()],
            "word_start": stream.starts.tolist(),
            **{cue: values.tolist() for cue, values in cues.items()},
        }
        for column, values in columns.items():
            items.setdefault(column, []).extend(values)
