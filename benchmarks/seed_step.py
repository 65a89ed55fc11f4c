"""Goal S1: the training step of the hierarchical-generalization study on a CPU, against transformers' Trainer.

Both sides train the same 6 x 512 GPT-2-shaped model (8 heads, relu, dropout 0.1, vocabulary 71) from the
same weights on the same batches of 8 sentence pairs, fp32, one thread, AdamW lr 1e-4 eps 1e-7, clipping
1.0. The peer pads its batches and masks padding; Lexarium computes real tokens only. Steps alternate: one
of theirs (everything between two of its step ends: data, forward, backward, clipping, optimiser, logging
hooks), one of ours. Parity: without dropout the first 20 losses are equal to 1e-4 relative.

    OMP_NUM_THREADS=1 python benchmarks/seed_step.py [--steps 60] [--rounds 5]

needs the `bench` extra (transformers, accelerate).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import common
from lexarium.foundation import registry
from lexarium.models.build import build_model
from lexarium.models.transformer import Transformer
from lexarium.objectives.causal import Causal
from lexarium.studies.assembly import make
from lexarium.tokens.loader import Loader
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.training.checkpoint import load_tensors
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.start import from_gpt2
from lexarium.training.step import TrainStep
from lexarium.training.trainer import TrainConfig, Trainer

BATCH, LR, EPS, CLIP = 8, 1e-4, 1e-7, 1.0
TARGET = 1.25


def corpus_loader(folder: Path, keyed: bool) -> tuple[Loader, Any]:
    """Batches of the question-formation corpus."""
    corpus = registry.find("corpus", "question_formation").Config(
        sizes={"train": 8000, "val": 0, "test": 0, "ood": 0}
    )
    tokenizer_config = registry.find("tokenizer", "word").Config()
    store = prepare(corpus, tokenizer_config, folder)
    objective = Causal(Causal.Config(), open_tokenizer(tokenizer_config, store.folder))
    packing = make("packing", registry.find("packing", "documents").Config())
    direction = make("direction", registry.find("direction", "forward").Config())
    loader = Loader(store.view("train"), packing, direction, objective, global_batch_size=BATCH, keyed=keyed)
    return loader, objective


def their_model(vocab_size: int, dropout: float) -> Any:
    """A GPT-2 of transformers in the study's shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size, n_positions=64, n_embd=512, n_layer=6, n_head=8, activation_function="relu",
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the peer draws its weights from the global generator; ours are copied from it
        return GPT2LMHeadModel(config)


def our_trainer(theirs: Any, loader: Loader, objective: Any, dropout: float) -> Trainer:
    """Our trainer on a copy of the peer's weights."""
    config = Transformer.Config(
        preset="gpt2",
        n_layers=6,
        n_heads=8,
        d_model=512,
        activation="relu",
        dropout=dropout,
        max_positions=64,
    )
    model = build_model(config, objective.vocab_size, seed=0)
    load_tensors(from_gpt2(theirs.state_dict()), model, "peer")
    optimizer = make("optimizer", registry.find("optimizer", "adamw").Config(lr=LR, eps=EPS)).build(
        list(model.named_parameters()), torch.device("cpu")
    )
    program = EagerProgram(
        TrainStep(model, objective), optimizer, device=torch.device("cpu"), world=World(), clip_norm=CLIP
    )
    return Trainer(program, loader.batches, lambda step, max_steps: 1.0, TrainConfig(max_steps=10**9), [])


class PaddedBatches(torch.utils.data.Dataset):
    """The loader's batches as the peer wants them: padded ids, attention mask, labels with -100."""

    def __init__(self, loader: Loader, n: int) -> None:
        self.items = []
        for step in range(n):
            batch = loader.batches(step)[0]
            tokens = batch.inputs["tokens"]
            real = batch.inputs.get("real", torch.arange(tokens.numel()))
            mask = torch.zeros(tokens.numel(), dtype=torch.int64)
            mask[real] = 1
            # GPT2LMHeadModel shifts labels itself: give it input + last target, so that it scores the same
            labels = torch.full((tokens.numel(),), -100)
            labels[real] = batch.targets["labels"]
            self.items.append(
                {
                    "input_ids": tokens,
                    "attention_mask": mask.view_as(tokens),
                    "shift_labels": labels.view_as(tokens),
                }
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.items[i]


def run(steps: int, dropout: float, folder: Path) -> dict[str, list[float]]:
    """Alternate steps; per-step CPU and wall seconds and losses of both sides."""
    from transformers import Trainer as TheirTrainer
    from transformers import TrainerCallback, TrainingArguments

    loader, objective = corpus_loader(folder / "stores", keyed=dropout > 0)
    theirs = their_model(objective.vocab_size, dropout)
    ours = our_trainer(theirs, loader, objective, dropout)
    found: dict[str, list[float]] = {
        k: [] for k in ("their_cpu", "our_cpu", "their_wall", "our_wall", "ours", "theirs")
    }

    class Loss(TheirTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("shift_labels")
            logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=-100
            )
            found["theirs"].append(loss.item())
            return loss

    class Alternate(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.cpu, self.wall = time.process_time(), time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            cpu, wall = time.process_time(), time.perf_counter()
            found["their_cpu"].append(cpu - self.cpu)
            found["their_wall"].append(wall - self.wall)
            found["ours"].append(ours.advance().losses["ce"])
            self.cpu, self.wall = time.process_time(), time.perf_counter()
            found["our_cpu"].append(self.cpu - cpu)
            found["our_wall"].append(self.wall - wall)

    arguments = TrainingArguments(
        output_dir=str(folder / "peer"), max_steps=steps, per_device_train_batch_size=1, learning_rate=LR,
        adam_epsilon=EPS, weight_decay=0.0, max_grad_norm=CLIP, lr_scheduler_type="constant", save_strategy="no",
        report_to="none", use_cpu=True, logging_steps=10**9, disable_tqdm=True, dataloader_pin_memory=False,
        remove_unused_columns=False,
    )  # fmt: skip
    ordered = PaddedBatches(loader, steps)
    trainer = Loss(
        model=theirs,
        args=arguments,
        train_dataset=ordered,
        data_collator=lambda rows: rows[0],
        callbacks=[Alternate()],
    )
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(ordered)
    trainer.train()
    return found


def main() -> None:
    """Measure and write the result."""
    parser = common.arguments(__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps per round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parity = run(20, 0.0, folder)
        worst = max(abs(a - b) / b for a, b in zip(parity["ours"], parity["theirs"], strict=True))
        rounds = []
        for number in range(options.rounds):
            found = run(options.steps + 3, 0.1, folder)
            middle = {k: statistics.median(v[3:]) for k, v in found.items()}
            rounds.append({k: middle[k] for k in ("our_cpu", "their_cpu", "our_wall", "their_wall")})
            print(
                f"round {number + 1}: ours {middle['our_cpu']:.4f}, theirs {middle['their_cpu']:.4f} CPU s/step",
                file=sys.stderr,
            )
    ours, theirs = common.median(rounds, "our_cpu"), common.median(rounds, "their_cpu")
    common.write(
        "seed-step", goal="S1", what="seed step, 6 x 512, batch 8, fp32, dropout 0.1, one thread",
        peer="transformers Trainer", unit="steps per CPU-second", better="higher", ours=1 / ours, theirs=1 / theirs,
        ratio=theirs / ours, target=TARGET, rounds=rounds, folder=options.output,
        parity={"steps": 20, "worst_relative": worst, "passed": worst <= 1e-4},
    )  # fmt: skip


if __name__ == "__main__":
    main()
