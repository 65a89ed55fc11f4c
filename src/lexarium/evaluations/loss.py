"""Cross-entropy by split and by slice.

For every split the mean negative log-probability per predicted token, in nats (`val`), its exponential
(`val.perplexity`), the mean over documents of their sums (`val.per_document`), and the same mean over
slices: values of a channel (`val.half.0`, `val.half.1`: first and second half of a sentence pair) and
levels of a document field (`val.kind.quest`). A token belongs to the slice of the token that is
predicted; eos belongs to the slice of the last token. A model that reads in two directions gives every
metric twice: `val.forward`, `val.backward`, `val.forward.perplexity`, ...

Where the corpus knows its floor (the entropy of its documents, `EvaluationData.floors`), also the loss above it, in
nats per token: `val.excess`, and `val.half.1.excess` for a slice by a channel. That is the mean loss less the floor
of all documents over the predicted tokens; eos counts as a token and adds nothing to the floor. `val.half.determined`
is the mean loss of the slices whose floor is 0: what follows from what was read before, the second half in one
direction and the first half in the other. All this is left out where it would be wrong: when a token of the text is
not predicted (objective.bos: false), and for slices unless every token is one character.

Terms of the objective that are not this cross-entropy have their means beside it: `val.feature_ce` of `loss: features`,
`val.ce.layer_0` of intermediate losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.foundation.types import Example, Result, UserError
from lexarium.tokens.loader import in_order


class Loss:
    """Mean cross-entropy in nats per token."""

    kind, name, version = "evaluation", "loss", 1
    asks = frozenset({"token_scores"})

    class Config(SplitsConfig):
        """Options of `loss`."""

        type: str = "loss"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        by_channel: tuple[str, ...] = ()
        """Channels to slice tokens by."""
        by_field: tuple[str, ...] = ()
        """Document fields to slice by."""
        limit: int = Field(0, ge=0)
        """Only the first so many documents of each split; 0 = all."""

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.data = config, data
        self._prepared: dict[tuple[str, str], Any] = {}
        for split in config.splits:
            view = data.view(split)
            missing = [c for c in config.by_channel if c not in view.split.channel_names]
            missing += [f for f in config.by_field if f not in view.split.fields]
            if missing:
                known = ", ".join([*view.split.channel_names, *view.split.fields]) or "none"
                raise UserError(
                    f"evaluation loss: split {split!r} has no channel or field {missing[0]!r} (it has: {known})"
                )

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics per split and slice; one item per document."""
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {"split": [], "document": [], "text": [], "loss": [], "tokens": []}
        views = scorer.views()
        for split in self.config.splits:
            for name, asked in views.items():
                self._split(split, name, asked, metrics, items)
            if len(views) > 1:
                items.setdefault("direction", []).extend(
                    [name for name in views for _ in range(self._count(split))]
                )
        return Result(metrics, items)

    def _count(self, split: str) -> int:
        """Documents of a split that are asked about."""
        n = len(self.data.view(split))
        return min(n, self.config.limit or n)

    def _split(
        self,
        split: str,
        name: str,
        scorer: Any,
        metrics: dict[str, float | int],
        items: dict[str, list[Any]],
    ) -> None:
        """`name`: of the direction asked in, "" when there is one."""
        view, n = self.data.view(split), self._count(split)
        if (split, name) not in self._prepared:
            examples = [
                e for _, e in zip(range(n), in_order(view, scorer._direction, scorer.objective), strict=False)
            ]
            self._prepared[split, name] = examples
        scores = scorer.token_scores(self._prepared[split, name])
        losses = [-s for s in scores]
        sums = np.array([np.nansum(x) for x in losses])
        counts = np.array([int((~np.isnan(x)).sum()) for x in losses])
        if not counts.any():
            raise UserError(
                f"evaluation loss: nothing is predicted in split {split!r}: its documents have one token each, and the"
                " objective reads no bos; set objective.bos or objective.eos"
            )
        mean = float(sums.sum() / counts.sum())
        prefix = f"{split}.{name}" if name else split
        metrics[prefix] = mean
        metrics[f"{prefix}.perplexity"] = math.exp(min(mean, 700.0))
        metrics[f"{prefix}.per_document"] = float(sums.mean())
        metrics[f"{prefix}.tokens"] = int(counts.sum())
        metrics |= other_terms(scorer, self._prepared[split, name], prefix)
        text = [d.text for d in self.data.documents(split)[:n]]
        floors = self._floors(name or scorer.direction, text, losses)
        if "" in floors:
            metrics[f"{prefix}.excess"] = float((sums.sum() - n * floors[""]) / counts.sum())
        for channel in self.config.by_channel:
            self._by_channel(prefix, view, channel, losses, floors, metrics)
        for field in self.config.by_field:
            values = view.split.fields[field][view.documents][:n]
            for level in sorted(set(values.tolist()), key=str):
                chosen = values == level
                if counts[chosen].any():
                    metrics[f"{prefix}.{field}.{level}"] = float(sums[chosen].sum() / counts[chosen].sum())
        items["split"] += [split] * n
        items["document"] += list(range(n))
        items["text"] += text
        # a document of one token, without bos and eos, predicts nothing
        items["loss"] += np.where(counts > 0, sums / np.maximum(1, counts), np.nan).tolist()
        items["tokens"] += counts.tolist()

    def _floors(self, direction: str, text: list[str], losses: list[np.ndarray]) -> dict[str, float]:
        """The corpus's floors in nats per document, as far as they hold for what was predicted."""
        floors = self.data.floors(direction)
        if any(np.isnan(x[:-1]).any() for x in losses):
            return {}
        if any(len(x) - 1 != len(t) for x, t in zip(losses, text, strict=True)):
            return {part: value for part, value in floors.items() if part == ""}
        return floors

    def _by_channel(
        self,
        split: str,
        view: Any,
        name: str,
        losses: list[np.ndarray],
        floors: dict[str, float],
        metrics: dict[str, float | int],
    ) -> None:
        values = [view.channel(name, i) for i in range(len(losses))]
        flat = np.concatenate([np.append(v, v[-1]) for v in values])
        loss = np.concatenate(losses)
        predicted, determined = ~np.isnan(loss), np.zeros(len(loss), dtype=bool)
        for level in np.unique(flat):
            chosen = predicted & (flat == level)
            if chosen.any():
                total, tokens = float(loss[chosen].sum()), int(chosen.sum())
                metrics[f"{split}.{name}.{level}"] = total / tokens
                if (part := f"{name}.{level}") in floors:
                    metrics[f"{split}.{part}.excess"] = (total - len(losses) * floors[part]) / tokens
                    determined |= chosen & (floors[part] == 0)
        if determined.any():
            metrics[f"{split}.{name}.determined"] = float(loss[determined].mean())


def other_terms(scorer: Any, examples: Sequence[Example], name: str) -> dict[str, float]:
    """Means of the objective's loss terms but `ce` over examples in reading order, by metric; none for most."""
    if getattr(scorer.objective, "terms", ("ce",)) == ("ce",):
        return {}
    return {
        f"{name}.{term}": float(total / weight)
        for term, (total, weight) in scorer.terms(examples).items()
        if term != "ce"
    }
