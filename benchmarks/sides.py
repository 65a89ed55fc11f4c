"""Both sides of a comparison of training steps: our trainer, and the same work described for a peer.

Ours runs what a run runs: `Loader` -> `Trainer.advance`, data included. The peer gets the loader's batches padded
and ready in memory, and the weights ours starts from under GPT-2's names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexarium.foundation import registry
from lexarium.models.build import build_model
from lexarium.models.dropout import uses_dropout
from lexarium.models.transformer import Transformer
from lexarium.studies.assembly import make
from lexarium.tokens.loader import Loader
from lexarium.tokens.store import View
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.step import TrainStep
from lexarium.training.trainer import TrainConfig, Trainer
from peers import PeerWork, Step

BF16_UNITS = ("avx512_bf16", "amx_bf16")


def sides(
    config: Transformer.Config,
    view: View,
    packing: Any,
    objective: Any,
    *,
    steps: int,
    batch: int,
    lr: float,
    eps: float,
    precision: str = "fp32",
) -> tuple[Step, PeerWork]:
    """Our step, and the peer's work of `steps` batches in fp32. `precision` is ours alone."""
    how: dict[str, Any] = {"batch": batch, "lr": lr, "eps": eps}
    trainer, loader, model = trainer_of(config, view, packing, objective, precision=precision, **how)
    work = work_for(config, model, loader, objective, steps=steps, **how)
    return lambda i: trainer.advance().losses["ce"], work


def trainer_of(
    config: Transformer.Config,
    view: View,
    packing: Any,
    objective: Any,
    *,
    batch: int,
    lr: float,
    eps: float,
    precision: str = "fp32",
    device: torch.device = torch.device("cpu"),
) -> tuple[Trainer, Loader, torch.nn.Module]:
    """Our trainer with an eager program (AdamW, clipping 1, constant rate), its loader and model."""
    model = build_model(config, objective.vocab_size, seed=0, device=device)
    direction = make("direction", registry.find("direction", "forward").Config())
    loader = Loader(view, packing, direction, objective, global_batch_size=batch, keyed=uses_dropout(model))
    optimizer = make("optimizer", registry.find("optimizer", "adamw").Config(lr=lr, eps=eps))
    program = EagerProgram(
        TrainStep(model, objective), optimizer.build(list(model.named_parameters()), device),
        device=device, world=World(), clip_norm=1.0, precision=precision,
    )  # fmt: skip
    settings = TrainConfig(max_steps=10**9, clip_norm=1.0, global_batch_size=batch)
    return Trainer(program, loader.batches, lambda step, last: 1.0, settings, []), loader, model


def work_for(
    config: Transformer.Config,
    model: torch.nn.Module,
    loader: Loader,
    objective: Any,
    *,
    steps: int,
    lr: float,
    eps: float,
    device: str = "cpu",
    precision: str = "fp32",
    batch: int = 0,
) -> PeerWork:
    """The same work for a peer: initial weights and the first `steps` batches, padded."""
    return PeerWork(
        n_layers=config.n_layers, n_heads=config.n_heads, d_model=config.d_model, d_ff=config.d_ff or 4 * config.d_model,
        vocab_size=objective.vocab_size, max_positions=config.max_positions, activation=config.activation,
        norm=config.norm, positions=config.positions, weights=to_gpt2(model, config.n_layers), lr=lr, eps=eps, clip=1.0,
        batches=[padded(loader.collate(i, loader.numbers(i))) for i in range(steps)], device=device,
        precision=precision, dropout=config.rate("residual"), feed_forward_dropout=config.rate("feed_forward"),
    )  # fmt: skip


def padded(batch: Any) -> tuple[Tensor, Tensor]:
    """(B, T) ids and labels of a batch of ours."""
    tokens = batch.inputs["tokens"]
    labels = torch.full((tokens.numel(),), -100)
    labels[batch.inputs.get("real", torch.arange(tokens.numel()))] = batch.targets["labels"]
    return tokens, labels.view_as(tokens)


def to_gpt2(model: torch.nn.Module, n_layers: int) -> dict[str, Tensor]:
    """The tensors of a `transformer` with a tied output under GPT-2's names; what the model lacks is left out."""
    ours = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = {
        "embedding": "wte.weight",
        "stack.position_embedding": "wpe.weight",
        "unembedding.bias": "lm_head.bias",
    }
    found = {theirs: ours[name] for name, theirs in names.items() if name in ours}
    parts = {"attention.out": "attn.c_proj", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj",
             "attention_norm": "ln_1", "feed_forward_norm": "ln_2"}  # fmt: skip
    for leaf in ("weight", "bias"):
        found[f"ln_f.{leaf}"] = ours.get(f"stack.final_norm.{leaf}")
        for i in range(n_layers):
            block = f"stack.blocks.{i}."
            for name, theirs in parts.items():
                tensor = ours.get(f"{block}{name}.{leaf}")
                found[f"h.{i}.{theirs}.{leaf}"] = (
                    tensor.T if tensor is not None and tensor.ndim == 2 else tensor
                )
            heads = [ours.get(f"{block}attention.{part}.{leaf}") for part in "qkv"]
            found[f"h.{i}.attn.c_attn.{leaf}"] = None if heads[0] is None else torch.cat(heads).t()
    return {name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}


def bf16_units() -> list[str]:
    """Which of this processor's instructions multiply in bf16, as far as the system says; printed too."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    found = [unit for unit in BF16_UNITS if unit in flags]
    print(
        f"bf16 units of this processor: {', '.join(found) or 'none known'} ({os.cpu_count()} cores)",
        flush=True,
    )
    return found
