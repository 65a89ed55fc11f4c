"""What objectives share: rows of ids into padded tensors, dropout keys, and cross-entropy.

Keys. The dropout key of a token is mix32(h + place) with h a hash of (dropout seed, step) and the number
of the example, and `place` the token's index in the framed example: a function of what the token is,
never of where it lies in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lexarium.foundation.rng import mix32, mix32_int
from lexarium.foundation.types import Output

LARGEST_LOGITS = 1 << 25
"""Logits (tokens x vocabulary) computed in one piece; more are computed, and recomputed, in pieces."""


def token_keys(dropout_key: int, example: int, length: int, stream: int = 0) -> np.ndarray:
    """(length,) int32 dropout keys of one example; `stream` separates source from target."""
    low, high = dropout_key & 0xFFFFFFFF, dropout_key >> 32
    h = mix32_int(
        low + mix32_int(high ^ mix32_int((example & 0xFFFFFFFF) ^ mix32_int((example >> 32) + stream)))
    )
    return mix32(np.uint32(h) + np.arange(length, dtype=np.uint32)).view(np.int32)


def pad_rows(rows: Sequence[np.ndarray], value: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows right-padded to (B, T); the flat indices of real tokens (None without padding); lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    longest = int(lengths.max())
    table = np.full((len(rows), longest), value, dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    if (lengths == longest).all():
        return table, None, lengths
    return table, np.flatnonzero(np.arange(longest) < lengths[:, None]), lengths


def rows_to_inputs(
    ids: Sequence[np.ndarray], pad: int, prefix: str = "", keys: Sequence[np.ndarray] | None = None
) -> dict[str, Tensor]:
    """`tokens`, `real` and `token_key` of framed rows (or `source`, `source_real`, `source_key`)."""
    name, real_name, key_name = (
        ("source", "source_real", "source_key") if prefix else ("tokens", "real", "token_key")
    )
    table, real, _ = pad_rows(ids, pad)
    inputs = {name: torch.from_numpy(table)}
    if real is not None:
        inputs[real_name] = torch.from_numpy(real)
    if keys is not None:
        inputs[key_name] = torch.from_numpy(pad_rows(keys, 0)[0].astype(np.int32))
    return inputs


def cross_entropy_sum(output: Output, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over tokens of the cross-entropy in nats, labels (N,); -100 is left out.

    Label smoothing e mixes the target with the uniform distribution (Szegedy et al. 2016, section 7).
    """

    def piece(hidden: Tensor, wanted: Tensor) -> Tensor:
        logits = output.unembed(hidden).float() if hidden.dtype != torch.float64 else output.unembed(hidden)
        return F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=smoothing, ignore_index=-100)

    hidden = output.hidden
    vocabulary = output.unembed(hidden[:1]).shape[-1] if hidden.shape[0] > 1 << 12 else 0
    if hidden.shape[0] * vocabulary <= LARGEST_LOGITS:
        return piece(hidden, labels)
    n = max(1, LARGEST_LOGITS // vocabulary)
    parts = [
        checkpoint(piece, hidden[i : i + n], labels[i : i + n], use_reentrant=False)
        for i in range(0, hidden.shape[0], n)
    ]
    return torch.stack(parts).sum()


def log_probabilities(output: Output, labels: Tensor) -> Tensor:
    """(N,) float32: log-probability in nats of each label, computed in pieces."""
    found = []
    n = max(1, LARGEST_LOGITS // max(1, output.unembed(output.hidden[:1]).shape[-1]))
    for i in range(0, output.hidden.shape[0], n):
        logits = output.unembed(output.hidden[i : i + n]).float()
        found.append(logits.log_softmax(-1).gather(1, labels[i : i + n, None])[:, 0])
    return torch.cat(found)
