"""Goal S14: from the start of a process to its first optimiser step, against transformers' Trainer.

Both prepare the same 6 x 512 model on the question-formation corpus, tokenised before (ours: the token
store; theirs: one tensor file). Each process ends itself after its first step; what is measured is the
whole process. The goal: at most 0.65 of the peer's wall time. Another peer plugs in with `--peer FILE.py`, a
script that trains one step of the same shape and ends (for nanoGPT the goal is 1 / 1.1).

    python benchmarks/first_step.py [--rounds 7] [--peer FILE.py]

needs the `bench` extra (transformers, accelerate).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import yaml

import common
from seed_step import corpus_loader

LIMIT = 0.65
SHAPE = {
    "n_layers": 6,
    "n_heads": 8,
    "d_model": 512,
    "max_positions": 64,
    "activation": "relu",
    "dropout": 0.1,
}
RUN = {
    "corpus": {"type": "question_formation", "sizes": {"train": 8000, "val": 0, "test": 0, "ood": 0}},
    "packing": {"type": "documents", "max_length": 48},
    "model": {"type": "transformer", "preset": "gpt2", **SHAPE},
    "optimizer": {"type": "adamw", "lr": 1e-4, "eps": 1e-7},
    "train": {"max_steps": 1000, "global_batch_size": 8, "clip_norm": 1.0},
    "plan": {"device": "cpu"},
}

OURS = """
import os, sys
from pathlib import Path
from lexarium.foundation.config import read_yaml, validate
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig

run = Run.create(validate(RunConfig, read_yaml(Path(sys.argv[1]))), Path(sys.argv[2]))
run.train(progress=lambda step: os._exit(0) if step == 1 else None)
"""

THEIRS = """
import os, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

class Stop(TrainerCallback):
    def on_step_end(self, *_, **__):
        os._exit(0)

torch.set_num_threads(1)
rows = torch.load(sys.argv[1], weights_only=True)
model = GPT2LMHeadModel(GPT2Config(vocab_size=71, n_positions=64, n_embd=512, n_layer=6, n_head=8,
                                   activation_function="relu", bos_token_id=0, eos_token_id=0))
arguments = TrainingArguments(output_dir=sys.argv[2], max_steps=1000, per_device_train_batch_size=8, learning_rate=1e-4,
                              adam_epsilon=1e-7, save_strategy="no", report_to="none", use_cpu=True,
                              disable_tqdm=True, dataloader_pin_memory=False)
pad = lambda batch: {k: torch.nn.utils.rnn.pad_sequence([row[k] for row in batch], batch_first=True,
                     padding_value=-100 if k == "labels" else 0) for k in batch[0]}
data = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in rows]
Trainer(model=model, args=arguments, train_dataset=data, data_collator=pad, callbacks=[Stop()]).train()
"""


def main() -> None:
    """Measure and write the result."""
    parser = common.arguments(__doc__, rounds=7)
    parser.add_argument(
        "--peer", type=Path, metavar="FILE.py", help="another peer than transformers' Trainer"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(yaml.safe_dump(RUN))
        loader, _ = corpus_loader(folder / "runs" / "stores", keyed=False)
        rows = [torch.as_tensor(loader.example(i).ids) for i in range(2000)]
        torch.save(rows, folder / "rows.pt")
        ours = [sys.executable, "-c", OURS, str(folder / "run.yaml"), str(folder / "runs")]
        theirs = [sys.executable, "-c", THEIRS, str(folder / "rows.pt"), str(folder / "peer")]
        if options.peer:
            theirs = [sys.executable, str(options.peer)]
        common.timed_process(ours), common.timed_process(theirs)  # files into memory
        rounds = []
        for _ in range(options.rounds):
            for path in (folder / "runs").glob("question*"):
                for file in ("status.json", "owner.json"):
                    (path / file).unlink(missing_ok=True)
            (our_cpu, our_wall), (their_cpu, their_wall) = map(common.timed_process, (ours, theirs))
            rounds.append(
                {"our_cpu": our_cpu, "our_wall": our_wall, "their_cpu": their_cpu, "their_wall": their_wall}
            )
    ours_wall, theirs_wall = common.median(rounds, "our_wall"), common.median(rounds, "their_wall")
    common.write(
        "first-step", goal="S14", what="start of the process to the end of the first step, 6 x 512, batch 8",
        peer=options.peer.stem if options.peer else "transformers Trainer", unit="seconds", better="lower",
        ours=ours_wall, theirs=theirs_wall, ratio=theirs_wall / ours_wall,
        target=1 / 1.1 if options.peer else 1 / LIMIT, rounds=rounds, parity=None, folder=options.output,
    )  # fmt: skip


if __name__ == "__main__":
    main()
