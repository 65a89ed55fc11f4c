"""What a model that predicts features says about what comes next, feature by feature.

For every state, with p_s the distribution over the three values of slot s (Goriely and Buttery, feature model):

    loss         mean over slots of - ln p_s(value of the target)                          nats
    entropy      mean over slots of the entropy of p_s                                     nats
    deviation    standard deviation over slots of - ln p_s(value of the target)            nats
    boundary     p of slot `special` for the value of boundaries of words and utterances   probability

No evaluation asks for them yet: this is for one's own. As cues of word boundaries they are read like those of tokens
(`segmentation/cues.py`), each with its increase. The
original divides its loss by the number of logits, 117, once more, which moves no peak; the deviation here is that of
the slots themselves, not an estimate for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lexarium.foundation.features import BOUNDARY
from lexarium.foundation.types import UserError

NAMES = ("loss", "entropy", "deviation", "boundary")


def feature_predictions(
    scorer: Any, rows: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Per row, float64 (L, 4) in the order of NAMES, of what is predicted after each token read.

    Rows and targets are as in `Scorer.predictions`: ids in reading order; L counts bos where the objective reads one;
    a target of -1 has no loss and no deviation (NaN).
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    nothing = np.zeros(0, dtype=np.int64)
    for chosen in scorer._batches([len(row) for row in rows]):
        batch, last = scorer._contexts([(nothing, rows[i]) for i in chosen])
        wanted = torch.from_numpy(np.concatenate([targets[i] for i in chosen])).to(scorer.device)
        with scorer._inference():
            output = scorer._forward(batch)
            if output.features is None:
                raise UserError("cues of features need a model that predicts features: set model.features")
            values, unembed = output.features
            scores = unembed(output.hidden).double().log_softmax(-1)
            own = -(scores * values[wanted.clamp_min(0)].double()).sum(-1)
            entropy = -(scores.exp() * scores).sum((1, 2)) / scores.shape[1]
            boundary = scores[:, -1, BOUNDARY].exp()
            table = torch.stack([own.mean(1), entropy, own.std(1, correction=0), boundary], dim=1)
            table[wanted < 0, 0] = torch.nan
            table[wanted < 0, 2] = torch.nan
        ends = (last + 1).tolist()
        for i, start, end in zip(chosen, [0, *ends], ends, strict=False):
            found[i] = table[start:end].cpu().numpy()
    return found
