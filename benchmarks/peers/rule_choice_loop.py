"""Rule choice as the code bases of hierarchical generalization are described: one sentence at a time.

Written from a description of sunnytqin/hier_gen and kabirahuja2431/transformers-hg; no code of theirs is here. `choose`:
one forward pass for each sentence, the best of some words after it. `write`: greedy decoding of each sentence, every
word after a forward pass over all that stands before it, until the end mark or `most` words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TITLE = "one sentence at a time (re-created), transformers GPT2LMHeadModel"
Model = Callable[[Tensor], Tensor]
"""(B, T) ids -> (B, T, V) logits."""


@torch.no_grad()
def choose(model: Model, prefixes: Sequence[Sequence[int]], candidates: Sequence[int]) -> list[int]:
    """For each prefix, the candidate with the highest logit next."""
    found = []
    for ids in prefixes:
        last = model(torch.tensor([list(ids)]))[0, -1]
        found.append(candidates[int(last[list(candidates)].argmax())])
    return found


@torch.no_grad()
def write(model: Model, prefixes: Sequence[Sequence[int]], end: int, most: int = 50) -> list[list[int]]:
    """What the model writes after each prefix, without the end mark."""
    found = []
    for ids in prefixes:
        row, written = list(ids), []
        while len(written) < most:
            token = int(model(torch.tensor([row]))[0, -1].argmax())
            if token == end:
                break
            row.append(token)
            written.append(token)
        found.append(written)
    return found
