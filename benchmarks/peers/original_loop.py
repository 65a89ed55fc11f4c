"""The published hierarchical-generalization loop's seed step, re-created from a description. Not the original.

The code of Qin, Saphra and Alvarez-Melis (2025) and its ancestors (Murty et al. 2023; Ahuja et al. 2024) was not at
hand. The description it is re-created from names: padded batches with a causal mask and a mask of lengths;
an encoder stack, post norm, sinusoidal positions, one matrix for queries and one for keys and values, explicit
softmax with dropout on its weights; dropout in four places per layer; masked sums of the loss, and of its
two halves for the log; default AdamW (not fused), which reads one step count per parameter; clipping; the gradient
norm logged after clipping, read parameter by parameter (our guess at the 68 host reads it counts: there are
68 parameters); and a decoder of 25 million parameters that is built and never used. Left out: the learning-rate
schedule (ours is constant in a comparison too), and evaluations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers import PeerWork, Step


class Attention(nn.Module):
    """Multi-head attention without biases, every step of it written out."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key_value = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x (B, T, D); hidden (B, 1, T, T) is true where attention is forbidden."""
        b, t, d = x.shape
        heads = lambda y: y.view(b, t, self.n_heads, d // self.n_heads).transpose(1, 2)
        k, v = map(heads, self.key_value(x).chunk(2, dim=-1))
        scores = heads(self.query(x)) @ k.transpose(2, 3) / math.sqrt(d // self.n_heads)
        weights = self.dropout(scores.masked_fill(hidden, float("-inf")).softmax(-1))
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))


class Layer(nn.Module):
    """Post-norm encoder layer; `cross` adds the second attention of a decoder layer."""

    def __init__(self, work: PeerWork, cross: bool = False) -> None:
        super().__init__()
        d = work.d_model
        self.attention = Attention(d, work.n_heads, work.dropout)
        self.cross = Attention(d, work.n_heads, work.dropout) if cross else None
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d) if cross else None
        self.linear1, self.linear2 = nn.Linear(d, work.d_ff), nn.Linear(work.d_ff, d)
        self.hidden, self.branch = nn.Dropout(work.feed_forward_dropout), nn.Dropout(work.dropout)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), of an encoder layer."""
        x = self.norm1(x + self.branch(self.attention(x, hidden)))
        return self.norm2(x + self.branch(self.linear2(self.hidden(F.relu(self.linear1(x))))))


class Model(nn.Module):
    """The language model, with the decoder that it does not use."""

    def __init__(self, work: PeerWork) -> None:
        super().__init__()
        if (work.norm, work.positions, work.activation) != ("post", "sinusoidal", "relu"):
            raise ValueError(
                f"the original has post-norm, sinusoidal positions and relu, not {work.norm}, {work.positions}, {work.activation}"
            )
        d = work.d_model
        self.embedding = nn.Embedding(work.vocab_size, d)
        self.layers = nn.ModuleList(Layer(work) for _ in range(work.n_layers))
        self.unused = nn.ModuleList(Layer(work, cross=True) for _ in range(work.n_layers))
        self.output_bias = nn.Parameter(torch.zeros(work.vocab_size))
        self.dropout = nn.Dropout(work.dropout)
        angle = torch.arange(work.max_positions)[:, None] * torch.exp(
            torch.arange(0, d, 2) * (-math.log(10000.0) / d)
        )
        self.register_buffer("table", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
        self._load(work.weights)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids, (B,) lengths -> logits (B, T, V)."""
        t = ids.shape[1]
        place = torch.arange(t, device=ids.device)
        hidden = (place >= lengths[:, None])[:, None, None, :] | (place[None, :] > place[:, None])
        x = self.dropout(self.embedding(ids) * math.sqrt(self.embedding.embedding_dim) + self.table[:t])
        for layer in self.layers:
            x = layer(x, hidden)
        return F.linear(x, self.embedding.weight, self.output_bias)

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        self.embedding.weight.copy_(weights["wte.weight"])
        self.output_bias.copy_(weights["lm_head.bias"])
        names = {
            "attention.out": "attn.c_proj",
            "linear1": "mlp.c_fc",
            "linear2": "mlp.c_proj",
            "norm1": "ln_1",
            "norm2": "ln_2",
        }
        for i, layer in enumerate(self.layers):
            joined = weights[f"h.{i}.attn.c_attn.weight"].T  # (3 D, D)
            query, key_value = joined.split([joined.shape[1], 2 * joined.shape[1]])
            layer.attention.query.weight.copy_(query)
            layer.attention.key_value.weight.copy_(key_value)
            for mine, theirs in names.items():
                module = layer.get_submodule(mine)
                for leaf, parameter in module.named_parameters():
                    tensor = weights[f"h.{i}.{theirs}.{leaf}"]
                    parameter.copy_(tensor.T if tensor.ndim == 2 else tensor)


def make(work: PeerWork) -> Step:
    """The peer."""
    device = torch.device(work.device)
    model = Model(work).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.lr, eps=work.eps, weight_decay=0.0)

    def step(i: int) -> float:
        ids, labels = (x.to(device) for x in work.batches[i % len(work.batches)])
        with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            loss, logged = losses(model, ids, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), work.clip)
        optimizer.step()
        logged["grad_norm"] = math.sqrt(
            sum(p.grad.norm(2).item() ** 2 for p in model.parameters() if p.grad is not None)
        )
        model.zero_grad()
        return logged["loss"]

    return step


def losses(model: Model, ids: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The mean loss of a padded batch, and what is logged: it and the means of its two halves."""
    real = labels != -100
    lengths = real.sum(1)
    each = F.cross_entropy(
        model(ids, lengths).transpose(1, 2), labels.clamp(min=0), reduction="none"
    )  # (B, T)
    total = (each * real).sum() / real.sum()
    first = real & (torch.arange(ids.shape[1], device=ids.device) < (lengths[:, None] // 2))
    mean = lambda where: ((each * where).sum() / where.sum()).item()
    return total, {"loss": total.item(), "first_half": mean(first), "second_half": mean(real & ~first)}


make.title = "original loop (re-created from its description)"
