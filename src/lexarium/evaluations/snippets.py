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

Metrics: how many samples, how many tokens they have in the mean (read back from text), and the share of distinct ones
(near 0 = the model repeats itself). Cost: samples * max_new_tokens passes of the model over rows of growing length.
Refused: a prefix for a model of whole windows, none for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.foundation import rng
from lexarium.foundation.types import Result, UserError

TRIES = 20
SHOWN = 300
"""Characters of a sample in the log."""


class Snippets:
    """Samples of text from places of a split, kept at every step."""

    kind, name, version = "evaluation", "snippets", 1
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
        found = self._ask(scorer, prefixes, rng.key(key, split, "draws"))
        ids = [self.data.tokenizer.encode(text)[0] for text in found]
        every, name = np.concatenate(ids), f"{split}.{view}" if view else split
        metrics[f"{name}.samples"] = n
        metrics[f"{name}.mean_length"] = len(every) / n
        metrics[f"{name}.distinct"] = len(np.unique(every)) / max(1, len(every))
        columns: dict[str, list[Any]] = {
            "split": [split] * n,
            **({"view": [view] * n} if view else {}),
            "document": [document for document, _, _ in places],
            "start": [start for _, start, _ in places],
            "prefix": prefixes,
            "continuation": found,
            "text": [
                self._whole(scorer, given, new) if given else text
                for given, new, text in zip(prefixes, ids, found, strict=True)
            ],
        }
        for column, values in columns.items():
            items.setdefault(column, []).extend(values)

    def log_line(self, result: Result) -> str:
        """One sample for the run's log: on one line, without characters that a terminal would obey."""
        text = result.items["text"][0]
        return f"sample: {text[:SHOWN]!r}" + ("..." if len(text) > SHOWN else "")

    def _ask(self, scorer: Any, prefixes: list[str], key: int) -> list[str]:
        """Continuations in corpus order."""
        c = self.config
        found: list[str] = scorer.generate(prefixes, c.max_new_tokens, temperature=c.temperature, key=key)
        return found

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

    def _whole(self, scorer: Any, prefix: str, new: np.ndarray) -> str:
        """Prefix and continuation as one text in corpus order: joined as ids, in the order the model read them."""
        undo = scorer._direction.undo  # forwards and backwards it is its own inverse
        given = self.data.tokenizer.encode(prefix)[0]
        whole: str = self.data.tokenizer.decode(undo(np.concatenate([undo(given), undo(new)])))
        return whole
