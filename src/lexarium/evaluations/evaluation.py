"""What every evaluation has in common: its options and the data it may look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import Field

from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.types import Corpus, Document, Result
from lexarium.tokens.store import TokenStore, View, ViewConfig


class EvaluationConfig(ComponentConfig):
    """Options of every evaluation. None of them changes training."""

    name: str | None = outside_identity(None)
    """Name of the results folder and first part of its metrics' names; empty = the type."""
    every: int = outside_identity(0, ge=0)
    """Evaluate every so many steps, from step 0 on; 0 = only after the last step."""
    at: tuple[int, ...] = outside_identity(())
    """Evaluate at these steps too."""
    items: bool = outside_identity(True)
    """Keep the per-item table of the last step (of every step: `lexarium evaluate RUN --step S`)."""

    def due(self, step: int, max_steps: int | None) -> bool:
        """Whether the evaluation runs at a step; max_steps None = the last step is not known."""
        return step == max_steps or step in self.at or bool(self.every and step % self.every == 0)


class Evaluation(Protocol):
    """Asks a scorer and answers with numbers and a per-item table.

    What it may have beside these: `items_at_every_step = True`, where its table is what it is for, `log_line(result) ->
    str`, one line for the log of a run in training, `channels`, names of those it needs of the corpus, `content(config)
    -> str`, a hash of the files that its options name, `whole_texts = True`, where it cannot ask about a source, and
    `higher` and `lower`, last parts of the names of those of its metrics that are the better the higher, or the lower,
    they are.
    """

    asks: frozenset[str]
    """The scorer's questions it uses: token_scores, next_scores, generate, hidden."""

    def run(self, scorer: Any, key: int) -> Result:
        """Evaluate; `key` seeds whatever is random."""


class EvaluationData:
    """The data of a run, for its evaluations. `corpus`: where the documents come from, where that is known."""

    def __init__(
        self,
        store: TokenStore,
        tokenizer: Any,
        view: ViewConfig | None = None,
        packing: Any = None,
        corpus: Corpus | None = None,
        max_length: int | None = None,
    ) -> None:
        """`packing`: of the run's training data; `max_length`: of a row that its model reads; where they are known."""
        self.max_length = max_length
        self.store, self.tokenizer, self.packing = store, tokenizer, packing
        self._view, self._corpus = view, corpus
        self._documents: dict[str, list[Document]] = {}

    @property
    def separated(self) -> bool:
        """Whether training reads a boundary between documents; taken for granted where the packing is not known."""
        return self.packing is None or bool(getattr(self.packing, "separator", False))

    @property
    def splits(self) -> list[str]:
        """Splits of the corpus."""
        return self.store.splits

    def floors(self, direction: str) -> dict[str, float]:
        """What the corpus says the least loss is, in nats per document: of the whole ("") and of parts
        ("half.1"); nothing for a corpus that does not know (`Corpus` in foundation/types.py)."""
        known = getattr(self._corpus, "floors", None)
        return known(direction) if known else {}

    def view(self, split: str) -> View:
        """The documents of a split: whole, unless the run's `view` names this split too."""
        return self.store.view(split, self._view)

    def documents(self, split: str) -> Sequence[Document]:
        """The same documents as text and fields (channels belong to tokens: see `view`)."""
        if split not in self._documents:
            view = self.view(split)
            columns = {name: values[view.documents].tolist() for name, values in view.split.fields.items()}
            self._documents[split] = [
                Document(
                    self.tokenizer.decode(view.tokens(i)), {n: values[i] for n, values in columns.items()}
                )
                for i in range(len(view))
            ]
        return self._documents[split]


class SplitsConfig(EvaluationConfig):
    """Options of evaluations that run over splits of the corpus."""

    splits: tuple[str, ...] = Field(("val", "ood"), min_length=1)
