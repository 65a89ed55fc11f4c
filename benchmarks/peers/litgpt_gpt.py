"""litgpt's GPT class in a plain loop, in the GPT-2-like shape that has rotary instead of learned positions."""

from __future__ import annotations

from litgpt.config import Config
from litgpt.model import GPT
from torch import Tensor, nn

from peers import PeerWork, Step
from peers.plain_gpt import loop

NAMES = {"attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj", "mlp.c_fc": "mlp.fc", "mlp.c_proj": "mlp.proj", "ln_1": "norm_1", "ln_2": "norm_2"}  # fmt: skip


def gpt(work: PeerWork) -> GPT:
    """The model with the weights of `work`, its output tied to the embedding."""
    if (work.norm, work.positions, work.activation, work.dropout) != ("pre", "rotary", "gelu_tanh", 0.0):
        raise ValueError("litgpt's GPT is compared with pre-norm, rotary positions, gelu_tanh and no dropout")
    model = GPT(
        Config(
            block_size=work.max_positions, n_layer=work.n_layers, n_head=work.n_heads, n_embd=work.d_model,
            vocab_size=work.vocab_size, padded_vocab_size=work.vocab_size, intermediate_size=work.d_ff,
            norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP", gelu_approximate="tanh", bias=True,
            lm_head_bias=False, parallel_residual=False, rotary_percentage=1.0,
        )
    )  # fmt: skip
    found = {"lm_head.weight": work.weights["wte.weight"]}
    for name, tensor in work.weights.items():
        is_matrix = name.startswith("h.") and tensor.ndim == 2
        for theirs, mine in NAMES.items():
            name = name.replace(theirs, mine)
        found[f"transformer.{name}"] = tensor.T if is_matrix else tensor
    model.load_state_dict(found)
    model.lm_head.weight = model.transformer.wte.weight
    return model


class WithLoss(nn.Module):
    """(ids, labels) -> the mean loss."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """(B, T) ids and labels."""
        return nn.functional.cross_entropy(self.model(ids).flatten(0, 1), labels.flatten(), ignore_index=-100)


def make(work: PeerWork) -> Step:
    """The peer."""
    return loop(WithLoss(gpt(work)), work)


make.title = "litgpt GPT, plain loop"
