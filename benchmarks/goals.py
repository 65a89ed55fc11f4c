"""The goals of speed, each comparison once: what is measured, against whom, and the ratio that is asked for.

A ratio is oriented so that `ratio >= target` means met, whichever way the raw figure goes. Where a goal is a limit
and not a peer (`peer="-"`), the ratio is the limit over our figure, or our figure over the limit, and the
target 1. The results of a comparison are the files `benchmarks/results/<name>-<machine>.json`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ORIGINAL = "original loop (re-created from its description)"
NANOGPT = "nanoGPT-style loop (re-created)"
SENTENCES = "one sentence at a time (re-created), transformers GPT2LMHeadModel"
SEED = "seed step, 6 x 512, batch 8, dropout 0.1"
CPU_STEPS, GPU_STEPS = "steps per CPU-second", "steps per second"
CPU_TOKENS, GPU_TOKENS = "tokens per CPU-second", "tokens per second"


@dataclass(frozen=True)
class Comparison:
    """One row of the table."""

    goal: str
    name: str
    what: str
    peer: str
    target: float
    unit: str
    better: str = "higher"
    gpu: bool = False


COMPARISONS = (
    Comparison("S1", "seed-step-original", f"{SEED}, fp32, one thread", ORIGINAL, 1.5, CPU_STEPS),
    Comparison("S1", "seed-step-trainer", f"{SEED}, fp32, one thread", "transformers Trainer", 1.25, CPU_STEPS),
    Comparison("S2", "seed-step-bf16", f"{SEED}, ours in bf16, the peer in fp32, one thread", ORIGINAL, 2.3, CPU_STEPS),
    Comparison("S3", "seed-step-gpu-original", f"{SEED}, captured program", f"{ORIGINAL}, eager", 10, GPU_STEPS, gpu=True),
    Comparison("S3", "seed-step-gpu-nanogpt", f"{SEED}, captured program", f"{NANOGPT}, eager", 4, GPU_STEPS, gpu=True),
    Comparison("S3", "seed-run-gpu", "300,000 seed steps, loss and first-auxiliary accuracy every 2,000; limit 4",
               "-", 1, "minutes", "lower", gpu=True),
    Comparison("S4", "cohort-20-gpu-original", "20 seeds x 300,000 seed steps in one cohort",
               f"20 runs of the {ORIGINAL}, one after another", 20, "minutes", "lower", gpu=True),
    Comparison("S4", "cohort-20-gpu", "20 seeds x 300,000 seed steps in one cohort; limit 40", "-", 1, "minutes", "lower",
               gpu=True),
    Comparison("S5", "cohort-32-gpu", "32 runs of a 2 x 128 model in one cohort", "32 x our own captured solo run", 10,
               "steps of all runs per second", gpu=True),
    Comparison("S6", "gpt14m-nanogpt", "14 M GPT, 6 x 384, T 256, vocabulary 8192, fp32", NANOGPT, 1.0, CPU_TOKENS),
    Comparison("S6", "gpt14m-hf", "14 M GPT, 6 x 384, T 256, vocabulary 8192, fp32", "transformers GPT2LMHeadModel, plain loop",
               1.15, CPU_TOKENS),
    Comparison("S6", "gpt14m-litgpt", "14 M GPT, 6 x 384, T 256, vocabulary 8192, rotary, fp32", "litgpt GPT, plain loop", 1.0,
               CPU_TOKENS),
    Comparison("S6", "gpt14m-bf16", "14 M GPT, 6 x 384, T 256, vocabulary 8192, ours in bf16, the peer in fp32", NANOGPT, 1.7,
               CPU_TOKENS),
    Comparison("S7", "gpt124m-gpu-nanogpt", "124 M GPT, bf16", f"{NANOGPT}, compiled", 1.15, GPU_TOKENS, gpu=True),
    Comparison("S7", "gpt124m-gpu-mfu", "124 M GPT, bf16, part of the peak; limit 0.45", "-", 1, "model FLOPs utilisation",
               gpu=True),
    Comparison("S7", "gpt50m-gpu-mfu", "50 M GPT, 8 x 512, T 2048, bf16, part of the peak; limit 0.42 (autoresearch: 0.398)",
               "-", 1, "model FLOPs utilisation", gpu=True),
    Comparison("S11", "windows-h5", "windows of 256 tokens in batches of 64, documents of 1,000 tokens", "h5 dataset of the arrow-of-time study (re-created)", 60,
               "windows per CPU-second"),
    Comparison("S11", "windows-nanogpt", "windows of 256 tokens in batches of 64, documents of 1,000 tokens", "nanoGPT's get_batch (re-created)", 25,
               "windows per CPU-second"),
    Comparison("S12", "tokenise-study", "text to token store, byte-level BPE of 50,257 ids, one process",
               "pipeline of the arrow-of-time study (re-created)", 8, "MB per CPU-second"),
    Comparison("S12", "tokenise-hf", "text to token store, byte-level BPE of 50,257 ids, one process",
               "tokenizers encode_batch, ids only", 3, "MB per CPU-second"),
    Comparison("S12", "tokenise-memory", "largest memory of preparing four times the text; at most 1.1 times that of the"
               " smaller", "the smaller text", 1 / 1.1, "bytes", "lower"),
    Comparison("S13", "startup", "start of a command (0.5 s; report of 10 runs 3 s), none imports torch", "-", 1, "seconds",
               "lower"),
    Comparison("S14", "first-step-trainer", "start of the process to the end of the first step, 6 x 512, batch 8",
               "transformers Trainer", 1 / 0.65, "seconds", "lower"),
    Comparison("S14", "first-step-nanogpt", "start of the process to the end of the first step, 6 x 512, batch 8", NANOGPT,
               1 / 1.1, "seconds", "lower"),
    Comparison("S15", "overhead", "step of 3 x 128 with every listener of a run: CPU time of its steps and boundaries", "its steps alone", 0.98,
               "CPU-seconds", "lower"),
    Comparison("S16", "growth-status", "CPU time of `study status` by number of runs", "linear growth", 1, "CPU-seconds", "lower"),
    Comparison("S16", "growth-report", "CPU time of `report` by number of runs", "linear growth", 1, "CPU-seconds", "lower"),
    Comparison("S16", "growth-plan", "CPU time of the plan of an epoch by number of documents", "linear growth", 1,
               "CPU-seconds", "lower"),
    Comparison("S16", "growth-batch", "CPU time of a batch of 64 windows by number of documents", "linear growth", 1,
               "CPU-seconds", "lower"),
    Comparison("S17", "segmentation", "word segmentation by cues, peaks and searched thresholds, 2 x 128 model, windows of 64,"
               " stride 10, one thread", "the original evaluation (re-created from its description)", 20,
               "CPU-seconds per 10,000 utterances", "lower"),
    Comparison("S17", "segmentation-scores", "the same without the model: peaks, searched thresholds, votes and scores from"
               " given cues", "the original evaluation (re-created from its description)", 20,
               "CPU-seconds per 10,000 utterances", "lower"),
    Comparison("S17", "minimal-pairs", "minimal pairs of utterances, 2 x 128 model, one thread",
               "one forward pass per text (re-created), transformers GPT2LMHeadModel", 20, "CPU-seconds per 10,000 pairs", "lower"),
    Comparison("S17", "rule-choice", "rule choice, the best of four words after a sentence, 6 x 512 model, one thread", SENTENCES, 20,
               "CPU-seconds per 10,000 questions", "lower"),
    Comparison("S17", "rule-choice-written", "the same, whole questions written greedily", SENTENCES, 20,
               "CPU-seconds per 10,000 questions", "lower"),
)  # fmt: skip


def entry(name: str, **other: Any) -> dict[str, Any]:
    """The fields of a result that are known before it is measured; `other` replaces some."""
    found = next(c for c in COMPARISONS if c.name == name)
    return {k: v for k, v in asdict(found).items() if k != "name"} | other
