"""Word segmentation by counting, in the measures of evaluation `segmentation`: what a model has to be compared with.

Metrics `val.<baseline>.<measure>`, for example `segmentation_baselines.val.ngram_3_boundary.boundary.f`: the names of
baselines are those of `evaluations/baselines`, the measures those of `segmentation`. A baseline counts on the split
`fit` and cuts each of `splits`; where the two are one split it cuts what it counted, as is the tradition on Brent. The
model is never asked, so the numbers belong to the data: runs that differ in their model alone have the same ones.
Randomness is that of the evaluation's key.

    utterance, symbol                            no cut, every cut
    random_half, random_oracle, random_true      cuts at random: half, words per symbol, the true rate
    ftp, btp, mi  _relative, _absolute           transitional probability forwards and backwards, mutual information
    dibs_phrasal, dibs_lexical, dibs_gold        diphones (Daland and Pierrehumbert 2011); `gold` is supervised
    puddle, puddle_folds                         a growing lexicon (Monaghan and Christiansen 2010)
    ftp_relative_legacy, puddle_legacy,          as the package wordseg treats the edges of streams and utterances (its
    puddle_folds_legacy                          PUDDLE takes five folds)
    multicue_14, multicue_17, multicue_23        weighted votes of cues that learn as they cut (Coltekin and Nerbonne
                                                 2014 without stress; Coltekin 2017; Goriely and others 2023)
    ngram_K_CUE, ngram_K_CUE_threshold           n-gram predictability with K symbols of context, at peaks or above
                                                 thresholds that were tuned as a model's are

Cost: some seconds for 10,000 utterances; each `multicue` takes some 40 microseconds per symbol of both splits, so 5
minutes for 7 million. Refused: what `segmentation` refuses of the data.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import Field, field_validator, model_validator

from lexarium.evaluations.baselines import BASELINES, FOLDED, FOLDS, ngrams
from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.evaluations.segmentation.gold import CHANNEL, gold_stream
from lexarium.evaluations.segmentation.scores import score
from lexarium.foundation import rng
from lexarium.foundation.types import Result, UserError


class SegmentationBaselines:
    """Baselines of word segmentation, scored on the same utterances as a model."""

    kind, name, version = "evaluation", "segmentation_baselines", 1
    asks: frozenset[str] = frozenset()
    channels = (CHANNEL,)

    class Config(SplitsConfig):
        """Options of `segmentation_baselines`."""

        type: str = "segmentation_baselines"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        fit: str = "train"
        """The split that is counted."""
        baselines: tuple[str, ...] = Field(tuple(BASELINES), min_length=1)
        """Names of baselines."""
        limit: int = Field(0, ge=0)
        """At most so many utterances of each split, the first ones; 0 = all. Of `fit` itself: as `fit_limit`."""
        fit_limit: int = Field(0, ge=0)
        """The same of the split that is counted."""

        @field_validator("baselines")
        @classmethod
        def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            for name in value:
                if name not in BASELINES:
                    near = difflib.get_close_matches(name, BASELINES, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(BASELINES)}"
                    raise ValueError(f"no baseline {name!r}; {hint}")
            return value

        @model_validator(mode="after")
        def _one_pass(self) -> SegmentationBaselines.Config:
            if self.fit in self.splits and self.limit != self.fit_limit:
                raise ValueError(
                    f"split {self.fit!r} is cut as it is counted, in one pass: give limit and fit_limit one value,"
                    f" found {self.limit} and {self.fit_limit}"
                )
            return self

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config = config
        read = lambda split, limit: gold_stream(data, split, limit, asks=self.name)
        self._train = read(config.fit, config.fit_limit)
        self._tests = {
            split: self._train if split == config.fit else read(split, config.limit)
            for split in config.splits
        }
        folded = [name for name in config.baselines if name in FOLDED]
        few = [split for split, test in self._tests.items() if folded and test.n_utterances < FOLDS]
        if few:
            raise UserError(
                f"evaluation segmentation_baselines: split {few[0]!r} has"
                f" {self._tests[few[0]].n_utterances} utterances, and {folded[0]} takes turns on {FOLDS} parts of"
                " them; name `baselines` without it"
            )

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics of every baseline; no items."""
        metrics: dict[str, float | int] = {}
        for split, test in self._tests.items():
            for name in self.config.baselines:
                cuts = BASELINES[name](self._train, test, rng.key(key, split, name))
                for measure, value in score(test, cuts).items():
                    if measure != "utterances":
                        metrics[f"{split}.{name}.{measure}"] = value
            metrics[f"{split}.utterances"] = test.n_utterances
        ngrams.cues.cache_clear()
        return Result(metrics, {})
