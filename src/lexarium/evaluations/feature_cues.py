"""What a model that predicts features says about what comes next, feature by feature.

For every state, with p_s the distribution over the three values of slot s (Goriely and Buttery, feature model):

    loss         mean over slots of - ln p_s(value of the target)                          nats
    entropy      mean over slots of the entropy of p_s                                     nats
    deviation    standard deviation over slots of - ln p_s(value of the target)            nats
    boundary     p of slot `special` for the value of boundaries of words and utterances   probability

`Scorer.predictions` adds them to what it says about tokens, and evaluation `segmentation` reads them as cues of word
boundaries, each with its increase. The original divides its loss by the number of logits, 117, once more, which moves
no peak; the deviation here is that of the slots themselves, not an estimate for others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lexarium.foundation.features import BOUNDARY
from lexarium.foundation.types import Output


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
