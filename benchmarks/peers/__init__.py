"""Peers: training loops that are measured beside ours, each a Python function.

A peer that is a package has a file here; one that is a repository plugs in from outside with
`--peer module:function`. The function is looked for on `sys.path`, to which the working directory is added. It
gets a `PeerWork` and returns a callable `step(i) -> float` that takes one optimiser step on
`work.batches[i % len(work.batches)]` and returns its mean loss in nats:

    def make(work):
        model = ...                      # work.weights, so that both sides start from the same model
        def step(i):
            ids, labels = work.batches[i % len(work.batches)]
            ...
            return loss.item()
        return step

What every side does in a step: mean cross-entropy over the labels that are not -100; clipping of the global
gradient norm at `clip`; AdamW (Loshchilov and Hutter 2019) with betas (0.9, 0.999), no weight decay and a constant
learning rate. A function that cannot train the shape it is given raises ValueError. Its attribute `title`, where it
has one, is what results call the peer. This module imports nothing, so that a peer's start can be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Step = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class PeerWork:
    """What a peer is to train, and on what."""

    n_layers: int
    n_heads: int
    d_model: int
    d_ff: int
    vocab_size: int
    max_positions: int
    activation: str
    """`relu` or `gelu_tanh`."""
    norm: str
    """`pre` with a final norm (GPT-2), or `post` without (Vaswani et al. 2017); eps 1e-5."""
    positions: str
    """`learned`; `rotary` (halves rotated, base 10,000); or `sinusoidal`, with embeddings times sqrt(d_model)."""
    weights: dict[str, Tensor]
    """GPT-2's names (`wte.weight`, `h.0.attn.c_attn.weight`, ..., matrices input-major). The output is tied to
    `wte.weight`, with a bias where there is `lm_head.bias`; a bias that is absent is not in the model."""
    batches: list[tuple[Tensor, Tensor]]
    """(B, T) int64 ids, right-padded with 0; (B, T) int64 labels, already shifted, -100 where nothing is predicted."""
    lr: float
    eps: float
    clip: float
    precision: str = "fp32"
    """`fp32`, or `bf16`: autocast, with weights and optimiser in fp32."""
    dropout: float = 0.0
    """On embeddings, attention weights and both residual branches."""
    feed_forward_dropout: float = 0.0
    """On the hidden layer of the feed-forward."""
    device: str = "cpu"
