"""A straightforward eager GPT-2 and its loop in the manner of nanoGPT: padded, fused attention, fused AdamW.

Written here to stand for the algorithm of karpathy/nanoGPT `train.py` where that repository is absent; it
is no copy of it. What it shares with it: one matrix for queries, keys and values; the library's attention
call; logits and loss over the whole padded rectangle; AdamW `fused=True`; gradients set to None; the loss
read once per step. It learns positions only, and normalises before each sublayer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers import PeerWork, Step


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, work: PeerWork) -> None:
        super().__init__()
        d = work.d_model
        self.n_heads, self.dropout = work.n_heads, work.dropout
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.attn_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.c_fc, self.mlp_proj = nn.Linear(d, work.d_ff), nn.Linear(work.d_ff, d)
        self.activation = nn.ReLU() if work.activation == "relu" else nn.GELU(approximate="tanh")
        self.residual, self.hidden = nn.Dropout(work.dropout), nn.Dropout(work.feed_forward_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        b, t, d = x.shape
        heads = self.c_attn(self.ln_1(x)).view(b, t, 3, self.n_heads, d // self.n_heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, d)
        y = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0, is_causal=True
        )
        x = x + self.residual(self.attn_proj(y.transpose(1, 2).reshape(b, t, d)))
        return x + self.residual(self.mlp_proj(self.hidden(self.activation(self.c_fc(self.ln_2(x))))))


class GPT(nn.Module):
    """GPT-2 (Radford et al. 2019) with a tied output."""

    def __init__(self, work: PeerWork) -> None:
        super().__init__()
        if (work.norm, work.positions) != ("pre", "learned") or "lm_head.bias" in work.weights:
            raise ValueError(
                f"a GPT-2 has pre-norm, learned positions and no output bias, not {work.norm}, {work.positions}"
            )
        self.wte = nn.Embedding(work.vocab_size, work.d_model)
        self.wpe = nn.Embedding(work.max_positions, work.d_model)
        self.h = nn.ModuleList(Block(work) for _ in range(work.n_layers))
        self.ln_f = nn.LayerNorm(work.d_model)
        self.dropout = nn.Dropout(work.dropout)
        self.load_state_dict(renamed(work.weights))

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """(B, T) ids and labels -> mean loss."""
        x = self.dropout(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's tensors under the names of this model, matrices output-major."""
    found = {}
    for name, tensor in weights.items():
        is_matrix = name.startswith("h.") and tensor.ndim == 2
        short = name.replace("attn.c_proj", "attn_proj").replace("mlp.c_proj", "mlp_proj")
        found[short.replace("attn.c_attn", "c_attn").replace("mlp.c_fc", "c_fc")] = (
            tensor.T if is_matrix else tensor
        )
    return found


def loop(model: nn.Module, work: PeerWork) -> Step:
    """The loop around a module that gives the loss of (ids, labels)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.lr, eps=work.eps, weight_decay=0.0, fused=True)
    device = torch.device(work.device)
    model.to(device).train()

    def step(i: int) -> float:
        ids, labels = (x.to(device) for x in work.batches[i % len(work.batches)])
        with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            loss = model(ids, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), work.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def make(work: PeerWork) -> Step:
    """The peer."""
    return loop(GPT(work), work)


make.title = "nanoGPT-style loop (re-created)"
