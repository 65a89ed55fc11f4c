"""Goal S14: from the start of a process to its first optimiser step, against transformers' Trainer and nanoGPT.

All prepare a 6 x 512 model on the question-formation corpus, tokenised before (ours: the token store; theirs: one
tensor file). Each process ends itself after its first step; what is measured is the whole process. The goals: at
most 0.65 of the Trainer's wall time, and 1.1 of nanoGPT's, whose algorithm is re-created in `peers/plain_gpt.py`
(`--peer module:function` puts another loop in its place; it is called in a fresh process, with the work read
from a file).

    python benchmarks/first_step.py [--rounds 7] [--peer module:function]

needs the `bench` extra (transformers, accelerate).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

import common
import goals
from seed_step import GPT2, both

SIZES = {"train": 8000, "val": 0, "test": 0, "ood": 0}
RUN = {
    "corpus": {"type": "question_formation", "sizes": SIZES},
    "packing": {"type": "documents", "max_length": 48},
    "model": {"type": "transformer", **GPT2, "dropout": 0.1},
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

TRAINER = """
import os, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

class Stop(TrainerCallback):
    def on_step_end(self, *_, **__):
        os._exit(0)

torch.set_num_threads(1)
work = torch.load(sys.argv[1], weights_only=True)
model = GPT2LMHeadModel(GPT2Config(vocab_size=work["vocab_size"], n_positions=64, n_embd=512, n_layer=6, n_head=8,
                                   activation_function="relu", bos_token_id=0, eos_token_id=0))
arguments = TrainingArguments(output_dir=sys.argv[2], max_steps=1000, per_device_train_batch_size=8, learning_rate=1e-4,
                              adam_epsilon=1e-7, save_strategy="no", report_to="none", use_cpu=True,
                              disable_tqdm=True, dataloader_pin_memory=False)
pad = lambda batch: {k: torch.nn.utils.rnn.pad_sequence([row[k] for row in batch], batch_first=True,
                     padding_value=-100 if k == "labels" else 0) for k in batch[0]}
rows = [row[:n] for ids, labels in work["batches"] for row, n in zip(ids, (labels != -100).sum(1))]
data = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in rows]
Trainer(model=model, args=arguments, train_dataset=data, data_collator=pad, callbacks=[Stop()]).train()
"""

LOOP = """
import importlib, os, sys
import torch
from peers import PeerWork

torch.set_num_threads(1)
module, _, function = sys.argv[2].partition(":")
sys.path.append(os.getcwd())
make = getattr(importlib.import_module(module), function)
make(PeerWork(**torch.load(sys.argv[1], weights_only=True)))(0)
os._exit(0)
"""


def compare(ours: Sequence[str], theirs: Sequence[str], runs: Path, rounds: int) -> list[dict[str, float]]:
    """Processes of both sides in turn; the first of each only brings files into memory."""
    found = []
    for number in range(rounds + 1):
        for path in runs.glob("question*"):
            for file in ("status.json", "owner.json"):
                (path / file).unlink(missing_ok=True)
        (our_cpu, our_wall), (their_cpu, their_wall) = map(common.timed_process, (ours, theirs))
        if number:
            found.append(
                {"our_cpu": our_cpu, "our_wall": our_wall, "their_cpu": their_cpu, "their_wall": their_wall}
            )
    return found


def main() -> None:
    """Measure and write the results."""
    options = common.arguments(__doc__, rounds=7, peer="peers.plain_gpt:make").parse_args()
    _, title = common.find_peer(options.peer)
    with tempfile.TemporaryDirectory() as name:
        folder, here = Path(name), str(Path(__file__).parent)
        (folder / "run.yaml").write_text(yaml.safe_dump(RUN))
        _, work = both(GPT2, 0.1, 250, "fp32", folder / "runs")
        torch.save(asdict(work), folder / "work.pt")
        python = [sys.executable, "-c"]
        ours = [*python, OURS, str(folder / "run.yaml"), str(folder / "runs")]
        at = f"import sys; sys.path.insert(0, {here!r})\n"  # `-c` knows nothing of this directory
        for name, command, known in (
            ("first-step-trainer", [*python, TRAINER, str(folder / "work.pt"), str(folder / "peer")], {}),
            (
                "first-step-nanogpt",
                [*python, at + LOOP, str(folder / "work.pt"), options.peer],
                {"peer": title},
            ),
        ):
            rounds = compare(ours, command, folder / "runs", options.rounds)
            wall, their_wall = common.median(rounds, "our_wall"), common.median(rounds, "their_wall")
            common.write(
                name, **goals.entry(name, **known), ours=wall, theirs=their_wall, ratio=their_wall / wall, rounds=rounds,
                parity=None, folder=options.output,
            )  # fmt: skip


if __name__ == "__main__":
    main()
