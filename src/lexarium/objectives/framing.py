"""What objectives share: rows of ids into padded tensors, dropout keys, and cross-entropy.

Keys. The dropout key of a token is mix32(h + place) with h a hash of (dropout seed, step) and the number
of the example, and `place` the token's index in the framed example: a function of what the token is,
never of where it lies in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lexarium.foundation.rng import mix32
from lexarium.foundation.types import Output, UserError

LARGEST_LOGITS = 1 << 25
"""Logits (tokens x vocabulary) computed in one piece; more are computed in pieces."""


def token_keys(dropout_key: int, example: int, length: int, stream: int = 0) -> np.ndarray:
    """(length,) int32 dropout keys of one example; `stream` separates source from target."""
    return row_keys(dropout_key, np.array([example]), np.array([length]), stream)[0]


def row_keys(dropout_key: int, examples: np.ndarray, lengths: np.ndarray, stream: int = 0) -> np.ndarray:
    """(B, T) int32 dropout keys of examples (B,) of lengths (B,), T the largest; 0 behind the end of a row."""
    low, high = np.uint32(dropout_key & 0xFFFFFFFF), np.uint32(dropout_key >> 32)
    upper, lower = (examples >> 32).astype(np.uint32), (examples & 0xFFFFFFFF).astype(np.uint32)
    h = mix32(low + mix32(high ^ mix32(lower ^ mix32(upper + np.uint32(stream)))))
    place = np.arange(lengths.max(), dtype=np.uint32)
    keys = mix32(h[:, None] + place).view(np.int32)
    if (lengths != len(place)).any():
        keys[place >= lengths[:, None]] = 0
    return keys


class Framed(NamedTuple):
    """Rows with their frame tokens, and what each of them predicts."""

    table: np.ndarray
    """(B, T) int64: what is read, right-padded."""
    mask: np.ndarray | None
    """(B, T) bool: true on real tokens; None without padding."""
    labels: np.ndarray
    """(N,) int64: what follows each real token."""
    lengths: np.ndarray
    """(B,) int64: real tokens of each row."""


def frame(
    ids: np.ndarray, lengths: np.ndarray, bos: int | np.ndarray | None, eos: int | None, pad: int
) -> Framed:
    """Joined ids (N,) of rows of `lengths` (B,), with bos before and eos after each, as far as they are given.

    `bos` is one id for all rows, or one for each (B,).
    """
    before, after = int(bos is not None), int(eos is not None)
    real, longest = lengths + (before + after - 1), int(lengths.max())
    rows = pad_joined(ids, lengths, pad)
    table = np.empty((len(rows), longest + before + after - 1), dtype=np.int64)
    labels = np.empty_like(table)
    if bos is not None:
        table[:, 0] = bos
    table[:, before:] = rows if after else rows[:, :-1]
    labels[:, : longest + before - 1] = rows if before else rows[:, 1:]
    if eos is not None:
        labels[:, -1] = eos
    if len(ids) == len(lengths) * longest:
        return Framed(table, None, labels.reshape(-1), real)
    if eos is not None:
        labels[np.arange(len(rows)), real - 1] = eos
    mask = np.arange(table.shape[1]) < real[:, None]
    table[~mask] = pad
    return Framed(table, mask, labels[mask], real)


def pad_joined(values: np.ndarray, lengths: np.ndarray, fill: int) -> np.ndarray:
    """(B, T) integers: joined values (N,) of rows of `lengths` (B,), right-padded; not a copy without padding."""
    longest = int(lengths.max())
    if len(values) == len(lengths) * longest:
        return values.reshape(len(lengths), longest)
    table = np.full((len(lengths), longest), fill, dtype=np.int64)
    table[np.arange(longest) < lengths[:, None]] = values
    return table


def pad_rows(rows: Sequence[np.ndarray], value: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows right-padded to (B, T); the flat indices of real tokens (None without padding); lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    table = pad_joined(np.concatenate(rows), lengths, value).astype(np.int64, copy=False)
    longest = table.shape[1]
    real = None if table.size == lengths.sum() else np.flatnonzero(np.arange(longest) < lengths[:, None])
    return table, real, lengths


def rows_to_inputs(ids: Sequence[np.ndarray], pad: int, prefix: str = "") -> dict[str, Tensor]:
    """`tokens` and `real` of framed rows (or `source` and `source_real`)."""
    name, real_name = ("source", "source_real") if prefix else ("tokens", "real")
    table, real, _ = pad_rows(ids, pad)
    inputs = {name: torch.from_numpy(table)}
    if real is not None:
        inputs[real_name] = torch.from_numpy(real)
    return inputs


def cross_entropy_sum(output: Output, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over tokens of the cross-entropy in nats, labels (N,); -100 is left out.

    Label smoothing e mixes the target with the uniform distribution (Szegedy et al. 2016, section 7). Where tokens x
    vocabulary exceeds LARGEST_LOGITS, logits exist only for a piece of the tokens at a time.
    """

    def piece(hidden: Tensor, wanted: Tensor) -> Tensor:
        logits = output.unembed(hidden).float() if hidden.dtype != torch.float64 else output.unembed(hidden)
        return F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=smoothing, ignore_index=-100)

    hidden = output.hidden
    rows = _rows_at_once(output)
    if hidden.shape[0] <= rows:
        return piece(hidden, labels)
    if output.head is not None:
        weight, bias = output.head
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        found: Tensor = LinearCrossEntropy.apply(hidden, weight, bias, labels, smoothing, rows)[0]
        return found
    parts = [
        checkpoint(piece, hidden[i : i + rows], labels[i : i + rows], use_reentrant=False)
        for i in range(0, hidden.shape[0], rows)
    ]
    return torch.stack(parts).sum()


def feature_cross_entropy_sum(output: Output, labels: Tensor) -> Tensor:
    """Sum over tokens of the mean over features of the cross-entropy in nats, labels (N,); -100 is left out.

    For a model whose output has logits of features (Goriely and Buttery, feature model).
    """
    if output.features is None:
        raise UserError("objective.loss: features needs a model that predicts features: set model.features")
    values, unembed = output.features
    logits = unembed(output.hidden)
    if logits.dtype != torch.float64:
        logits = logits.float()
    wanted = values[labels.clamp_min(0)].to(logits.dtype)
    losses = -(wanted * logits.log_softmax(-1)).sum((1, 2)) / values.shape[1]
    return losses.masked_fill(labels < 0, 0.0).sum()


def _rows_at_once(output: Output) -> int:
    """Tokens whose logits may exist at the same time."""
    if output.head is not None:
        vocabulary = output.head[0].shape[0]
    elif output.hidden.shape[0] > 1 << 8:
        vocabulary = output.unembed(output.hidden[:1]).shape[-1]
    else:
        return output.hidden.shape[0]
    return max(1, LARGEST_LOGITS // vocabulary)


class LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear map, piece by piece: a piece's logits give its loss and, at once, its gradients.

    The gradient of the sum over tokens is (softmax - target) for every logit (Bishop 2006, eq. 4.109); it is carried
    to the states and the matrix while the piece is there, so nothing is computed twice and no logits are kept.
    """

    generate_vmap_rule = True  # the members of a cohort each have their own pieces

    @staticmethod
    def forward(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float, rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """hidden (N, D), weight (V, D), bias (V,), labels (N,) -> the sum in nats, and its gradients."""
        half = hidden.dtype in (torch.bfloat16, torch.float16)
        exact = torch.float32 if half else hidden.dtype
        matrix = weight.to(hidden.dtype)
        totals, d_hidden = [], []
        d_weight = torch.zeros_like(weight, dtype=exact)
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=exact)
        for i in range(0, hidden.shape[0], rows):
            states, wanted = hidden[i : i + rows], labels[i : i + rows]
            logits = torch.mm(states, matrix.t()).to(exact)
            if bias is not None:
                logits = logits + bias.to(exact)
            totals.append(
                F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=smoothing, ignore_index=-100)
            )
            error = _logit_gradient(logits, wanted, smoothing)
            if d_bias is not None:
                d_bias += error.sum(0)
            error = error.to(hidden.dtype)
            d_hidden.append(torch.mm(error, matrix))
            d_weight += torch.mm(error.t(), states)
        return torch.stack(totals).sum(), torch.cat(d_hidden), d_weight, d_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep the gradients."""
        _, d_hidden, d_weight, d_bias = output
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.mark_non_differentiable(*(x for x in output[1:] if x is not None))
        ctx.types = inputs[1].dtype, None if inputs[2] is None else inputs[2].dtype

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients times that of the sum."""
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        weight, bias = ctx.types
        return (
            (d_hidden * scale).to(d_hidden.dtype),
            (d_weight * scale).to(weight),
            None if d_bias is None else (d_bias * scale).to(bias),
            None,
            None,
            None,
        )


def _logit_gradient(logits: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """(n, V): softmax minus the smoothed target; zero rows where nothing is predicted."""
    predicted = wanted != -100
    error = torch.softmax(logits, -1)
    if smoothing:
        error -= smoothing / logits.shape[-1]
    place = wanted.clamp_min(0)[:, None]
    error.scatter_add_(1, place, torch.full_like(place, smoothing - 1.0, dtype=error.dtype))
    return error * predicted[:, None]


def log_probabilities(output: Output, labels: Tensor) -> Tensor:
    """(N,) float32: log-probability in nats of each label, computed in pieces."""
    found = []
    n = max(1, _rows_at_once(output))
    for i in range(0, output.hidden.shape[0], n):
        logits = output.unembed(output.hidden[i : i + n]).float()
        found.append(logits.log_softmax(-1).gather(1, labels[i : i + n, None])[:, 0])
    return torch.cat(found)
