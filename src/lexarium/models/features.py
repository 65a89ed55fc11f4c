"""Tokens read and predicted by their features (the feature model of Goriely and Buttery).

A token is S slots with one of C values each: a multi-hot vector m of S * C numbers, frozen. It is read as
norm(W m + b). Predicted are the slots, z = W^T h in S groups of C, with the weight W that reads: p(slot = c) is the
softmax of the group. A token's probability is the product over its slots, renormalised over the vocabulary. Of

    log p(v) = sum over slots of (z[value of v] - logsumexp of the slot) - log of the norm over the vocabulary

only the first part depends on the token, and it is m_v . z = (M W^T)_v . h. So the distribution is exactly a softmax
of logits with the matrix M W^T (V, D), and every way of asking a model with a linear unembedding holds for this one.

Such a product is too sure of itself. Features repeat each other, and it counts them as if they did not: trained on the
loss of features, a small model came to 5.2 nats per token where uniform guessing has 2.9, and the same one trained on
the loss of tokens 0.8. Ranks and peaks may be of use all the same; likelihoods are not comparable with those of others.

The rows M are not parameters. They are a buffer of the checkpoint: a saved model needs no table. Until `describe` or a
checkpoint fills it, it is not a number, and so is all that is computed from it: rows of zeros would train in silence.

The study's code gives log(p / (1 - p)) of these probabilities as logits, whose softmax is not p; here they are the
logits of p. Its loader also rebuilt the model without its table, so that all features were zero: unfilled rows are NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class FeatureEmbedding(nn.Module):
    """Vectors of the tokens of a vocabulary, made of their features."""

    multi_hot: Tensor

    def __init__(self, vocab_size: int, n_slots: int, n_values: int, d_model: int, norm_eps: float) -> None:
        super().__init__()
        self.n_slots, self.n_values = n_slots, n_values
        self.weight = nn.Parameter(torch.empty(n_slots * n_values, d_model))
        self.bias = nn.Parameter(torch.empty(d_model))
        self.norm = nn.LayerNorm(d_model, eps=norm_eps)
        self.register_buffer("multi_hot", torch.full((vocab_size, n_slots * n_values), torch.nan))

    @torch.no_grad()
    def describe(self, values: np.ndarray) -> None:
        """Take over the values (V, S) of every token's slots."""
        n, slots = self.multi_hot.shape[0], self.n_slots
        if values.shape != (n, slots) or values.min() < 0 or values.max() >= self.n_values:
            raise ValueError(
                f"values of features are {values.shape} in {values.min()}..{values.max()}, expected {(n, slots)} in"
                f" 0..{self.n_values - 1}"
            )
        one_hot = torch.from_numpy(values)[:, :, None] == torch.arange(self.n_values)
        self.multi_hot.copy_(one_hot.reshape(n, -1))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """(V, D) what tokens are read as, and (V, D) the matrix whose products with a state are their logits."""
        projected = self.multi_hot.to(self.weight.dtype) @ self.weight
        return self.norm(projected + self.bias), projected

    def slots(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """(V, S, C) values of every token, one-hot, and the way from states (n, D) to logits (n, S, C)."""
        shape = (-1, self.n_slots, self.n_values)
        return self.multi_hot.reshape(shape), lambda hidden: (hidden @ self.weight.t()).reshape(shape)
