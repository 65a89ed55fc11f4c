"""How predictable what comes next is to a model, state by state: what `Scorer.predictions` says.

Of a model that predicts features also feature by feature. For every state, with p_s the distribution over the three
values of slot s (Goriely and Buttery, feature model):

    loss         mean over slots of - ln p_s(value of the target)                          nats
    entropy      mean over slots of the entropy of p_s                                     nats
    deviation    standard deviation over slots of - ln p_s(value of the target)            nats
    boundary     p of slot `special` for the value of boundaries of words and utterances   probability

Evaluation `segmentation` reads all of them as cues of word boundaries, each with its increase. The original divides its
loss by the number of logits, 117, once more, which moves no peak; the deviation here is that of the slots themselves,
not an estimate for others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lexarium.foundation.features import BOUNDARY
from lexarium.foundation.types import Output

LOGITS = 1 << 22
"""Logits held at a time."""


def token_statistics(output: Output, targets: Tensor, mark: int) -> np.ndarray:
    """(N, 4) float64 for N states: loss and rank of the target, entropy, probability of the token `mark`; targets (N,)
    are ids, of -1 there is no loss and no rank (NaN). Where a logit is no number, nothing is (NaN), and the loss of a
    target is infinite."""
    parts = []
    size = max(1, LOGITS // output.unembed(output.hidden[:1]).shape[1])
    for start in range(0, len(targets), size):
        scores = output.unembed(output.hidden[start : start + size]).double().log_softmax(-1)
        wanted = targets[start : start + size]
        own = scores.gather(1, wanted.clamp_min(0)[:, None])
        rank = (scores > own).sum(1).double()
        entropy = -torch.where(scores > -torch.inf, scores.exp() * scores, 0.0).sum(1)
        found = torch.stack([-own[:, 0], rank, entropy, scores[:, mark].exp()], dim=1)
        found[scores.isnan().any(1)] = torch.nan
        found[wanted < 0, :2] = torch.nan
        parts.append(found)
    values: np.ndarray = torch.cat(parts).cpu().numpy()
    values[:, 0][np.isnan(values[:, 0]) & (targets >= 0).cpu().numpy()] = np.inf
    return values


def feature_statistics(output: Output, targets: Tensor) -> np.ndarray:
    """(N, 4) float64 for N states: loss, entropy, deviation, boundary; targets (N,) are ids, of -1 there is
    no loss and no deviation (NaN). The output must have `features`."""
    assert output.features is not None
    values, unembed = output.features
    scores = unembed(output.hidden).double().log_softmax(-1)
    own = -(scores * values[targets.clamp_min(0)].double()).sum(-1)
    entropy = -(scores.exp() * scores).sum((1, 2)) / scores.shape[1]
    boundary = scores[:, -1, BOUNDARY].exp()
    found = torch.stack([own.mean(1), entropy, own.std(1, correction=0), boundary], dim=1)
    found[targets < 0, 0] = torch.nan
    found[targets < 0, 2] = torch.nan
    return np.asarray(found.cpu().numpy())
