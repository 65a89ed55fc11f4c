"""Samples of text, to look at while a model trains.

For every sample a place is drawn in the documents of a split; `prefix` tokens there are given to the model in the
order in which it reads (a backward model reads the last of them first) and `max_new_tokens` are drawn after them.
The scorer puts what was drawn back into corpus order as ids, before they become text, so that characters of several
tokens stay whole. The table of samples is kept at every step, and one of them is shown in the run's log.

A place is a function of the evaluation's key, so every step shows another one, and a step the same one always. All
places of all documents are equally likely. A model is asked in text: where a prefix cut out of the ids would not be
read back as the same ids (a character cut in two), up to `TRIES` other places are drawn, and after those the prefix
is what its text reads as.

A model of both directions is asked in each of them, from the same places. One that reads whole windows in an order of
its own writes windows from nothing: `prefix: 0` and `max_new_tokens` equal to the length of its windows say so.

Metrics: how many samples, how many tokens they have in the mean (an eos not counted), and the share of distinct ones
(near 0 = the model repeats itself). Cost: samples * max_new_tokens passes of the model over rows of growing length.
Refused: a prefix for a model of whole windows, none for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from lexarium.evaluations.decoding import Sampling
from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.foundation import rng
from lexarium.foundation.types import Result, UserError

TRIES = 20
SHOWN = 300
"""Characters of a sample in the log."""


class Snippets:
    """Samples of text from places of a split, kept at every step."""

    kind, name, version = "evaluation", "snippets", 2
    asks = frozenset({"generate"})
    items_at_every_step = True

    class Config(SplitsConfig):
        """Options of `snippets`."""

        type: str = "snippets"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        samples: int = Field(1, gt=0)
        """Samples per split."""
        prefix: int = Field(4, ge=0)
        """Tokens of the text that the model is given; 0 for a model that writes whole windows."""
        max_new_tokens: int = Field(100, gt=0)
        """Tokens drawn after them; a sample ends earlier where the model says so or can read no longer row."""
        temperature: float = Field(1.0, ge=0)
        """Scores are divided by it before drawing; 0 = always the likeliest token."""

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.data = config, data
        for split in config.splits:
            if not int(np.sum(data.view(split).lengths)):
                raise UserError(f"evaluation snippets: split {split!r} has no tokens to begin from")

    @staticmethod
    def mismatch(config: Any, windows: int | None, bos: bool) -> str:
        """Why it cannot ask a model, in words; "" where it can. windows: length of the windows that a model reads in an
        order of its own, None for others; bos: whether it can write from nothing."""
        if windows is None:
            return (
                "" if config.prefix else "prefix: 0 is for directions that read whole windows; give a prefix"
            )
        if config.prefix or config.max_new_tokens != windows:
            return (
                f"this direction writes whole windows of {windows} tokens from nothing; set prefix: 0 and"
                f" max_new_tokens: {windows}"
            )
        return "" if bos else "whole windows are written from nothing, which needs objective.bos"

    def run(self, scorer: Any, key: int) -> Result:
        """Three numbers per split (and direction); items `split document start prefix continuation text`.

        A model of several directions has a column `view`, the direction, too. Samples from nothing have no place:
        document and start are -1.
        """
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        for split in self.config.splits:
            for view, asked in scorer.views().items():
                self._split(split, view, asked, key, metrics, items)
        return Result(metrics, items)

    def _split(
        self,
        split: str,
        view: str,
        scorer: Any,
        key: int,
        metrics: dict[str, float | int],
        items: dict[str, list[Any]],
    ) -> None:
        """`view`: name of the direction asked in, "" where there is one."""
        n = self.config.samples
        places = [self._place(split, rng.key(key, split, i)) for i in range(n)]
        prefixes = [text for _, _, text in places]
        ids = self._ask(scorer, prefixes, rng.key(key, split, "draws"))
        every, name = np.array([i for row in ids for i in row]), f"{split}.{view}" if view else split
        metrics[f"{name}.samples"] = n
        metrics[f"{name}.mean_length"] = len(every) / n
        metrics[f"{name}.distinct"] = len(np.unique(every)) / max(1, len(every))
        columns: dict[str, list[Any]] = {
            "split": [split] * n,
            **({"view": [view] * n} if view else {}),
            "document": [document for document, _, _ in places],
            "start": [start for _, start, _ in places],
            "prefix": prefixes,
            "continuation": [scorer.text(new) for new in ids],
            "text": [scorer.text(new, given) for given, new in zip(prefixes, ids, strict=True)],
        }
        for column, values in columns.items():
            items.setdefault(column, []).extend(values)

    def log_line(self, result: Result) -> str:
        """One sample for the run's log: on one line, without characters that a terminal would obey."""
        text = result.items["text"][0]
        return f"sample: {text[:SHOWN]!r}" + ("..." if len(text) > SHOWN else "")

    def _ask(self, scorer: Any, prefixes: list[str], key: int) -> list[list[int]]:
        """Continuations as ids in reading order, an eos left out."""
        c, end = self.config, scorer.end
        sampling = Sampling(c.temperature, key=key)
        found = scorer.generate_ids(prefixes, c.max_new_tokens, sampling)
        return [row[:-1] if row and row[-1] == end else row for row in found]

    def _place(self, split: str, key: int) -> tuple[int, int, str]:
        """(document, first token, text of the prefix) of one sample; (-1, -1, "") without a prefix."""
        if not self.config.prefix:
            return -1, -1, ""
        view, tokenizer, length = self.data.view(split), self.data.tokenizer, self.config.prefix
        places = np.maximum(1, view.lengths - length + 1).cumsum()
        for attempt in range(TRIES):
            number = int(rng.generator(key, "place", attempt).integers(int(places[-1])))
            document = int(np.searchsorted(places, number, side="right"))
            start = number - (int(places[document - 1]) if document else 0)
            stop = min(start + length, int(view.lengths[document]))
            ids = view.tokens(document, start, stop)
            text = tokenizer.decode(ids)
            if text and np.array_equal(tokenizer.encode(text)[0], ids):
                break
        return document, start, text
