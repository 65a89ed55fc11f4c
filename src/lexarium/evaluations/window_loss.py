"""Cross-entropy of windows: the same windows of the same tokens, whatever the direction in which a model reads.

Windows of `seq_len` tokens that do not overlap are cut from each split's documents, joined in corpus order with
the separator of the run's packing. Every token of a window is scored, framed by the objective as in training:
without bos the token that is read first is not predicted.
With packing `window_shuffle` the split `val` is the packing's own held-out windows. Per split, here `val`:

    val                    nats per predicted token, all positions (Papadopoulos et al. 2024: the loss)
    val.perplexity         its exponential
    val.bits_per_byte      bits per byte of what is predicted, for tokenizers that know `byte_lengths` (without bos, of
                           forward and backward only)
    val.position.K         mean loss at model position K = 1, 2, 4, ..., the last: K - 1 tokens have been read
    val.first.K            mean loss of the first K positions: the curve over context from one model
    val.feature_ce, ...    means of terms of the objective that are not this cross-entropy
    val.windows, .tokens   how many there are; tokens are predicted ones
    val.windows_hash       48 bits of a hash of the windows' tokens; two results are comparable when it is equal

For K below the last, two directions score different tokens (the first and the last K of each window). A model that
reads in two directions gives every metric twice: `val.forward`, `val.backward`, `val.forward.perplexity`, ...

Items: one row per window, with the document in which it begins (the block of a bootstrap) and its losses in reading
order. Cost: one forward pass over the split (or `limit` windows). Memory: a chunk of windows, and the items.
Refused: a packing without windows when `seq_len` is not given, and a split that does not fill one window.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from lexarium.evaluations.evaluation import EvaluationData, SplitsConfig
from lexarium.evaluations.loss import other_terms
from lexarium.foundation.types import Result, UserError
from lexarium.tokens.block import Block, gather
from lexarium.tokens.packing import WindowPlan

CHUNK_TOKENS = 1 << 18
"""Tokens of windows held at a time."""


class WindowLoss:
    """Mean cross-entropy of non-overlapping windows, with its curve over positions."""

    kind, name, version = "evaluation", "window_loss", 1
    asks = frozenset({"token_scores"})
    windows = True
    """It asks about windows, which every direction can read."""

    class Config(SplitsConfig):
        """Options of `window_loss`."""

        type: str = "window_loss"
        splits: tuple[str, ...] = Field(("val",), min_length=1)
        seq_len: int | None = Field(None, gt=0)
        """Tokens per window; empty = those of the packing."""
        limit: int = Field(0, ge=0)
        """At most so many windows of each split; 0 = all."""
        spread: bool = False
        """Take the `limit` windows evenly over the split, not its first ones."""

    def __init__(self, config: Config, data: EvaluationData) -> None:
        self.config, self.data = config, data
        found = config.seq_len or getattr(getattr(data.packing, "config", None), "seq_len", None)
        if found is None:
            raise UserError(
                "evaluation window_loss: the run's packing has no seq_len; set the evaluation's seq_len"
            )
        self.seq_len = int(found)
        self._plans = {split: self._plan(split) for split in config.splits}

    def _plan(self, split: str) -> tuple[Any, WindowPlan, np.ndarray]:
        """The view, its windows, and (W,) int64 which of them are scored."""
        packing, lengths = self.data.packing, lambda view: view.lengths
        if split == "val" and hasattr(packing, "held_out_windows"):
            if self.seq_len != packing.config.seq_len:
                raise UserError(
                    f"evaluation window_loss: the held-out windows of the packing have {packing.config.seq_len} tokens,"
                    f" found seq_len {self.seq_len}; leave it out"
                )
            view = self.data.view("train")
            plan = packing.held_out_windows(lengths(view))
        else:
            view = self.data.view(split)
            separator = bool(getattr(packing, "separator", False))
            try:
                plan = WindowPlan(lengths(view), self.seq_len, separator)
            except UserError as error:
                raise UserError(f"evaluation window_loss: split {split!r}: {error}") from None
        n, limit = len(plan), self.config.limit
        chosen = np.arange(n)
        if 0 < limit < n:
            chosen = np.arange(limit) * n // limit if self.config.spread else chosen[:limit]
        return view, plan, chosen

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics per split; one item per window."""
        metrics: dict[str, float | int] = {}
        items: dict[str, list[Any]] = {}
        for split in self.config.splits:
            for view, asked in scorer.views().items():
                self._split(split, view, asked, metrics, items)
        return Result(metrics, items)

    def _split(
        self,
        split: str,
        view: str,
        scorer: Any,
        metrics: dict[str, float | int],
        items: dict[str, list[Any]],
    ) -> None:
        """`view`: name of the direction asked in, "" when there is one."""
        name = f"{split}.{view}" if view else split
        byte_lengths = getattr(scorer.tokenizer, "byte_lengths", lambda: None)()  # None: ids without a text
        sizes = None if byte_lengths is None else np.asarray(byte_lengths)
        digest, positions, n_windows, n_bytes = hashlib.blake2b(digest_size=6), None, 0, 0
        others: dict[str, float] = {}
        for block, documents in self._blocks(split, scorer):
            ids = block.ids.astype("<u4").reshape(len(block), -1)
            digest.update(ids.tobytes())
            losses = -scorer.window_scores(block)
            total = losses.sum(0)
            positions = total if positions is None else positions + total
            if sizes is not None:
                told = _predicted(ids, scorer)
                n_bytes += int(sizes[told[told < len(sizes)]].sum())
            if self.config.items:
                self._items(items, split, view, n_windows, documents, losses)
            for term, mean in other_terms(scorer, scorer.moved(block), name).items():
                others[term] = others.get(term, 0.0) + mean * len(block)  # all windows weigh alike
            n_windows += len(block)
        assert positions is not None  # a plan has a window
        metrics |= _summary(name, positions, n_windows)
        metrics |= {term: total / n_windows for term, total in others.items()}
        if n_bytes:
            metrics[f"{name}.bits_per_byte"] = float(positions.sum()) / math.log(2) / n_bytes
        metrics[f"{name}.windows_hash"] = int.from_bytes(digest.digest(), "big")

    def _blocks(self, split: str, scorer: Any) -> Iterator[tuple[Block, np.ndarray]]:
        """Chunks of windows in corpus order, and the document each window begins in."""
        view, plan, chosen = self._plans[split]
        size = max(1, CHUNK_TOKENS // self.seq_len)
        objective = scorer.objective
        for start in range(0, len(chosen), size):
            numbers = chosen[start : start + size]
            pieces = plan.pieces_of(numbers)
            first = np.cumsum(pieces.counts) - pieces.counts
            block = gather(
                view, pieces, objective.roles["eos"], objective.channels, numbers, np.zeros_like(numbers)
            )
            yield block, pieces.document[first]

    def _items(
        self,
        items: dict[str, list[Any]],
        split: str,
        view: str,
        done: int,
        documents: np.ndarray,
        losses: np.ndarray,
    ) -> None:
        columns: dict[str, list[Any]] = {
            "split": [split] * len(losses),
            "view": [view] * len(losses),
            "window": list(range(done, done + len(losses))),
            "document": documents.tolist(),
            "sum": losses.sum(1).tolist(),
            "n": [losses.shape[1]] * len(losses),
            "losses": list(losses.astype(np.float32)),
        }
        for name, values in columns.items():
            items.setdefault(name, []).extend(values)


def _predicted(ids: np.ndarray, scorer: Any) -> np.ndarray:
    """The (B, W) ids of windows without those that nothing predicts: without bos, the one read first."""
    if getattr(scorer.objective.config, "bos", True):
        return ids
    return {"forward": ids[:, 1:], "backward": ids[:, :-1]}.get(scorer.direction, ids[:, :0])


def _summary(name: str, positions: np.ndarray, n: int) -> dict[str, float | int]:
    """Metrics of n windows from (P,) sums of losses over windows, position by position."""
    count = len(positions)
    mean, first = float(positions.sum()) / (n * count), np.cumsum(positions)
    marks = [1 << i for i in range(count.bit_length()) if 1 << i < count] + [count]
    return {
        name: mean,
        f"{name}.perplexity": math.exp(min(mean, 700.0)),
        **{f"{name}.position.{k}": float(positions[k - 1]) / n for k in marks},
        **{f"{name}.first.{k}": float(first[k - 1]) / (n * k) for k in marks},
        f"{name}.windows": n,
        f"{name}.tokens": n * count,
    }
