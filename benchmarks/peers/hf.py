"""transformers: its GPT-2 in a plain loop (`make`), and in its own Trainer (`alternate_with_trainer`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from peers import PeerWork, Step
from peers.plain_gpt import loop


def gpt2(work: PeerWork) -> GPT2LMHeadModel:
    """The model with the weights of `work`."""
    if (work.norm, work.positions, work.feed_forward_dropout) != ("pre", "learned", 0.0):
        raise ValueError("GPT2LMHeadModel has pre-norm, learned positions and no dropout in its feed-forward")
    config = GPT2Config(
        vocab_size=work.vocab_size, n_positions=work.max_positions, n_embd=work.d_model, n_inner=work.d_ff,
        n_layer=work.n_layers, n_head=work.n_heads, resid_pdrop=work.dropout, embd_pdrop=work.dropout,
        attn_pdrop=work.dropout, activation_function="relu" if work.activation == "relu" else "gelu_new",
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = GPT2LMHeadModel(config)
    model.transformer.load_state_dict(work.weights)
    return model


class WithLoss(nn.Module):
    """(ids, labels) -> the mean loss, from labels that are already shifted."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """(B, T) ids and labels; right padding needs no mask under a causal rule."""
        logits = self.model(ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def make(work: PeerWork) -> Step:
    """GPT2LMHeadModel in a plain loop."""
    return loop(WithLoss(gpt2(work)), work)


make.title = "transformers GPT2LMHeadModel, plain loop"


class Padded(torch.utils.data.Dataset):
    """Batches as the Trainer wants them, each one item: ids, attention mask, labels."""

    def __init__(self, work: PeerWork, steps: int) -> None:
        self.batches, self.steps = work.batches, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids, labels = self.batches[i % len(self.batches)]
        return {"input_ids": ids, "attention_mask": (labels != -100).long(), "shifted": labels}


class OwnLoss(Trainer):
    """A Trainer that scores the given labels, in the given order, and keeps the losses in `losses`."""

    losses: list[float]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Mean over labels."""
        labels = inputs.pop("shifted")
        logits = model(**inputs).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        self.losses.append(loss.item())
        return loss

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def alternate_with_trainer(ours: Step, work: PeerWork, steps: int, folder: Path) -> dict[str, list[float]]:
    """As `common.alternate`, where a step of theirs is all that happens between two step ends of the Trainer."""
    found: dict[str, list[float]] = {
        k: [] for k in ("our_cpu", "our_wall", "their_cpu", "their_wall", "ours", "theirs")
    }

    class Alternate(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.cpu, self.wall = time.process_time(), time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            cpu, wall = time.process_time(), time.perf_counter()
            found["their_cpu"].append(cpu - self.cpu)
            found["their_wall"].append(wall - self.wall)
            found["ours"].append(ours(len(found["ours"])))
            self.cpu, self.wall = time.process_time(), time.perf_counter()
            found["our_cpu"].append(self.cpu - cpu)
            found["our_wall"].append(self.wall - wall)

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=1, learning_rate=work.lr,
        adam_epsilon=work.eps, weight_decay=0.0, max_grad_norm=work.clip, lr_scheduler_type="constant",
        save_strategy="no", report_to="none", use_cpu=True, logging_steps=10**9, disable_tqdm=True,
        dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip
    trainer = OwnLoss(
        model=gpt2(work), args=arguments, train_dataset=Padded(work, steps), data_collator=lambda rows: rows[0],
        callbacks=[Alternate()],
    )  # fmt: skip
    trainer.losses = found["theirs"]
    trainer.train()
    return found
