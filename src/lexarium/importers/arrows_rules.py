"""Rules of `arrows` about training: from keys of the files of LLM-Arrows-of-Time to values of ours.

The formulas are those of the published code: effective batch = batch_size * aggregate, stride (A - 1) // 2, a
validation of 250 * valid_steps windows every int(valid_steps / 0.05) minibatches (later code: valid_steps *
val_batch_size, / 0.04), learning rates as fractions of their peak. What is chosen among several meanings is told.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError
from lexarium.importers.arrows_options import OPTIM, Options, Script, Split, Steps, T
from lexarium.importers.frame import Draft, Rule, number, whole
from lexarium.studies.run_files import RunFiles

SAVE_EVERY = 2000
"""Steps between saves of all scripts but one."""
HELD_OUT = 250
"""Windows that the paper's code validates on, times valid_steps; it splits them off whatever the batch size."""
LATER_ONLY = (
    "tokenizer_path",
    "permutation",
    "val_batch_size",
    "save_loc",
    "fast_scrambling",
    "cooldown_finish",
)


def later(draft: Draft) -> bool:
    """Whether the file is one of the later code, which is said when it is."""
    given = draft.given
    marks = [key for key in LATER_ONLY if given.get(f"{T}.{key}") is not None]
    marks += ["no oscil_steps"] * (f"{OPTIM}.oscil_steps" not in given)
    marks += ["backwards is null"] * (given.get(f"{T}.backwards") is None)
    if marks:
        draft.note(f"a file of the later code ({', '.join(marks)})")
    return bool(marks)


# --- training ---------------------------------------------------------------------------------------


def aggregate(draft: Draft) -> int:
    """Minibatches per update."""
    n = whole(draft, f"{T}.aggregate", 1)
    if not draft.options.legacy_aggregate:
        return n
    if n == 1:
        raise UserError(f"--legacy-aggregate: {draft.told(f'{T}.aggregate')}; the bug shows from 2 on")
    return n - 1


def batch(draft: Draft, key: str, value: Any) -> None:
    """Windows per update, over all devices, and per forward pass of one."""
    size, n = whole(draft, key, 1), aggregate(draft)
    told = draft.told(key, f"{T}.aggregate")
    if draft.options.legacy_aggregate:
        told += ", --legacy-aggregate: an update every aggregate - 1 minibatches, as torchEnhanced before 0.2.14 did"
        draft.note(f"--legacy-aggregate: {n} minibatches per update, not {n + 1}")
    draft.set("train.global_batch_size", size * n, told)
    devices = max(1, len(draft.options.devices))
    told = draft.told(key) + (f" over {devices} devices" if devices > 1 else "")
    draft.set("train.micro_batch_size", -(-size // devices), told)


def updates(draft: Draft, n: int, told: str) -> tuple[int, str]:
    """Steps of the file as updates, and what was done to them."""
    chosen = draft.options.steps
    unit = chosen or (Steps.updates if later(draft) else Steps.minibatches)
    per_update = aggregate(draft) if unit is Steps.minibatches else 1
    if per_update == 1:
        return n, told
    draft.note(
        f"steps of the file are minibatches (torchEnhanced 0.2.x), {per_update} to an update: they are divided, all but"
        " those of the learning rate and of step_log, which the code counted in updates; --steps updates takes them as"
        " they are"
    )
    return max(1, n // per_update), f"{told} minibatches, {per_update} to an update"


def in_steps(path: str) -> Rule:
    """A rule: a number of steps goes to this path, as updates."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if value is None:
            return
        told = draft.told(key)
        draft.set(path, *updates(draft, whole(draft, key, 1), told))

    return rule


def saving(draft: Draft, key: str, value: Any) -> None:
    """Rolling checkpoints: only `train_parallel` of the paper's code read its key."""
    reads = draft.options.script is Script.train_parallel and not later(draft)
    told = draft.told(key) if reads else f"{SAVE_EVERY}, fixed in the code"
    if not reads and value not in (None, SAVE_EVERY):
        draft.note(
            f"{draft.told(key)} was not read by the code, which saved every {SAVE_EVERY} steps (train_parallel of the"
            f" paper's code alone read it): {SAVE_EVERY}; change checkpoint.rolling as you like"
        )
    n = whole(draft, key, 1) if reads and value is not None else SAVE_EVERY
    draft.set("checkpoint.rolling", *updates(draft, n, told))


def duration(draft: Draft, key: str, value: Any) -> None:
    """How long; with `--from` where an old run stands, up to the steps of the file or (`-s`) so many more."""
    options: Options = draft.options
    if options.from_run is not None:
        going_on(draft, key, value, Path(options.from_run))
        return
    if options.more_steps:
        raise UserError(
            "-s: trains on from an old run for steps_to_train MORE steps; a run of ours goes on UP TO its length by"
            " itself, and more steps are a new run that goes on from the old: name it with --from RUN"
        )
    if value is None:
        draft.set("train.epochs", 1, f"{key} is empty: one epoch")
        if aggregate(draft) > 1 and (options.steps is Steps.updates or later(draft)):
            draft.note(
                f"{key} is empty: one epoch; the later code counted updates and made {aggregate(draft)} of it"
            )
    else:
        in_steps("train.max_steps")(draft, key, value)


def going_on(draft: Draft, key: str, value: Any, path: Path) -> None:
    """A run that takes over everything a finished run of ours has, and its length in updates."""
    more, files = draft.options.more_steps, RunFiles(path)
    if not files.exists:
        raise UserError(f"--from {path}: not a run directory; steps are counted from where it stands")
    status = files.status()
    if status["state"] != "done":
        raise UserError(
            f"--from {path}: is not finished (step {status['step']}); it goes on by itself: lexarium train {path}"
        )
    if value is None:
        raise UserError(
            f"--from: {key} is empty, one epoch; say how many steps{' more' if more else ' in all'}"
        )
    n, told = updates(draft, whole(draft, key, 1), draft.told(key))
    step = int(status["step"])
    if not more and n <= step:
        raise UserError(
            f"{key}: {n} updates in all, but --from {path} stands at {step} already; raise it, or add -s"
        )
    draft.set("train.max_steps", step + n if more else n, f"{told}, after {step} (-s)" if more else told)
    draft.set("start.type", "run", "--from")
    draft.set("start.path", str(path), "--from")
    draft.set("start.step", step, f"where {path.name} stands")
    draft.set("start.state", "all", "training goes on: weights, optimiser, step and place in the data")
    draft.note(
        f"--from: goes on at step {step}, {n} updates {'more' if more else 'in all'}; it is refused where anything but"
        " length and schedule differs from that run"
    )
    if f"{OPTIM}.oscil_steps" not in draft.given:
        draft.note(
            "--from: the schedule looks at max_steps, and the old run had come to the end of its own: this is not one"
            " run of the whole length"
        )


def validation(draft: Draft, key: str, value: Any) -> None:
    """When, and on how many windows; with the published split also which are held out."""
    steps, told, new = whole(draft, key, 1), draft.told(key), later(draft)
    per_step = HELD_OUT
    if new:
        own = draft.given.get(f"{T}.val_batch_size") is not None
        name = f"{T}.val_batch_size" if own else f"{T}.batch_size"
        per_step, told = whole(draft, name, 1), draft.told(key, name)
    n, share = steps * per_step, 0.04 if new else 0.05
    every, why = updates(draft, int(steps / share), f"int(valid_steps / {share})")
    draft.set("evaluations.0.type", "window_loss", told)
    draft.set("evaluations.0.every", every, why)
    draft.set("evaluations.0.limit", n, told)
    if draft.options.split is Split.window_shuffle:
        draft.set("packing.type", "window_shuffle", "--split window_shuffle: as published")
        draft.set("packing.held_out", n, told)
        draft.set("corpus.split.by", "end", "the packing holds out windows, not the corpus")
        draft.set("corpus.split.val", 0.0, "the packing holds out windows, not the corpus")
        draft.note(
            "--split window_shuffle: the published scheme; nearly all held-out text is in training windows, too"
        )
        splits = ["train"]
    else:
        contiguous(draft)
        splits = ["val"]
    samples(draft, every, why, splits, new)


def contiguous(draft: Draft) -> None:
    """Windows as the code cut them, of a stream whose end is held out."""
    a = draft.source().data["packing"]["seq_len"]
    mixed = draft.source().data["direction"]["type"] == "both"
    draft.set("packing.type", "windows", "--split contiguous")
    draft.set(
        "packing.stride",
        a if mixed else (a - 1) // 2,
        "A, as of mixed directions" if mixed else "(A - 1) // 2",
    )
    draft.set("packing.separator", False, "nothing stands between documents")
    draft.set("packing.order", "corpus", "one stream of tokens")
    draft.note(
        "validation is a part of the stream of its own; the code shuffled overlapping windows before it split them, so"
        " that it validated on text it had trained on (--split window_shuffle does the same)"
    )


def samples(draft: Draft, every: int, why: str, splits: list[str], new: bool) -> None:
    """The text that the code logged after each validation: 4 tokens of a window and 100 more, without top-k."""
    data = draft.source().data
    if data["tokenizer"]["type"] == "ids":
        draft.note("no samples of text after validations: no tokenizer was given (-t)")
        return
    seq_len, windows = data["packing"]["seq_len"], data["direction"]["type"] == "permutation"
    prefix, tokens = (2, seq_len - 2) if new else (4, 100)
    if windows:
        prefix, tokens = 0, seq_len
    told = "whole windows, as they are read in an order of their own" if windows else ""
    draft.set("evaluations.1.type", "snippets", "samples after each validation")
    draft.set("evaluations.1.every", every, why)
    draft.set("evaluations.1.splits", splits, "as the windows held out")
    draft.set("evaluations.1.prefix", prefix, told or "tokens of a window after bos")
    draft.set("evaluations.1.max_new_tokens", tokens, told or ("A - 2" if new else "as the code did"))


def reading(draft: Draft, key: str, value: Any) -> None:
    """Direction: a permutation wins over `backwards`; both empty is mixed-direction training."""
    order = draft.given.get(f"{T}.permutation")
    if order is not None:
        draft.set("direction.type", "permutation", f"{T}.permutation")
        draft.set("direction.order", order, f"{T}.permutation, which wins over backwards")
        a = draft.source().data["packing"]["seq_len"]
        if not isinstance(order, list) or sorted(order, key=repr) != sorted(range(a), key=repr):
            raise UserError(
                f"{T}.permutation: expected every number from 0 to {a - 1} once (attn_length {a})"
            )
    elif key not in draft.given_keys and f"{OPTIM}.oscil_steps" in draft.given:
        raise UserError(f"{key}: missing; this key is required beside {OPTIM}.oscil_steps")
    elif value is None:
        draft.set("direction.type", "both", f"{T}.backwards and {T}.permutation are empty")
        draft.note(
            "backwards and permutation are empty: every window is read in both directions (mixed training)"
        )
    elif isinstance(value, bool):
        draft.set("direction.type", "backward" if value else "forward", draft.told(key))
    else:
        raise UserError(f"{key}: expected true, false or null, found {value!r}")


def place(draft: Draft, key: str, value: Any) -> None:
    """Where states were saved: the runs directory, and the command that trains."""
    options: Options = draft.options
    folders = [draft.given.get(f"{T}.{name}") for name in ("save_loc", "state_save_loc")]
    parts = [str(p) for p in (folders[0] or folders[1], options.project) if p]
    folder = ["--runs-dir", "/".join(parts)] if parts else []
    command = shlex.join(["lexarium", "train", options.target, *folder])
    if len(options.devices) > 1:
        visible = ",".join(device.partition(":")[2] for device in options.devices)
        command = f"torchrun --nproc-per-node {len(options.devices)} -m {command}"
        command = f"CUDA_VISIBLE_DEVICES={visible} {command}" if visible.strip(",") else command
        draft.note(
            "every process takes its part of each batch: the batch is that of the file, on any number of devices"
        )
    draft.note(f"train it with: {command}")


# --- learning rate ----------------------------------------------------------------------------------


def schedule(draft: Draft, key: str, value: Any) -> None:
    """Cosine with restarts, or warm-up, constant and cooldown where the file has no cosine."""
    lr, warmup = number(draft, f"{OPTIM}.lr"), whole(draft, f"{OPTIM}.warmup_steps")
    draft.set("schedule.warmup_steps", warmup, draft.told(f"{OPTIM}.warmup_steps") + ", in updates")
    cosine = [f"{OPTIM}.{name}" for name in ("oscil_steps", "lr_shrink", "lr_init", "lr_min")]
    present = [name for name in cosine if draft.given.get(name) is not None]
    cooldown = f"{T}.cooldown_finish"
    if not present:
        draft.set("schedule.type", "warmup_stable_decay", "no oscil_steps: the later code")
        draft.set("schedule.start", 1e-7, "as the later code did")
        given = draft.given.get(cooldown) is not None
        draft.set("schedule.decay_fraction", number(draft, cooldown) if given else 0.15, draft.told(cooldown))
        return
    if missing := [name for name in cosine if name not in present]:
        raise UserError(f"{missing[0]}: missing; {present[0]} needs it")
    if draft.given.get(cooldown) is not None:
        raise UserError(
            f"{cooldown}: belongs to the later code, whose schedule has no {present[0]}; keep one"
        )
    fraction = lambda name: float(f"{number(draft, name) / lr:.12g}")
    draft.set("schedule.type", "cosine_restarts", draft.told(cosine[0]))
    draft.set("schedule.period", whole(draft, cosine[0], 1), draft.told(cosine[0]) + ", in updates")
    draft.set("schedule.shrink", number(draft, cosine[1]), draft.told(cosine[1]))
    draft.set("schedule.start", fraction(cosine[2]), draft.told(cosine[2]) + " / lr")
    draft.set("schedule.floor", fraction(cosine[3]), draft.told(cosine[3]) + " / lr")


def optimizer(draft: Draft, key: str, value: Any) -> None:
    """AdamW as the library builds it from a rate alone, and the clipping of torchEnhanced."""
    lr = number(draft, key)
    if lr <= 0:
        raise UserError(f"{key}: expected a rate above 0, found {value!r}")
    draft.set("optimizer.type", "adamw", "the code")
    draft.set("optimizer.lr", lr, draft.told(key))
    draft.set("optimizer.weight_decay", 0.01, "the library's default")
    draft.set("optimizer.decay", "all", "the library decays every parameter")
    draft.set("train.clip_norm", 1.0, "torchEnhanced clips before each update")


def corpus(draft: Draft, key: str, value: Any) -> None:
    """The file of tokens, a file in spite of the key's name."""
    if not isinstance(value, str) or not value:
        raise UserError(f"{key}: expected the path of the .h5 file, found {value!r}")
    draft.set("corpus.type", "token_files", draft.told(key))
    draft.set("corpus.path", value, draft.told(key))
    if not Path(value).exists():
        draft.note(f"{value} is not here; corpus.path is where the tokens lie (a file, in spite of {key})")
    if draft.given.get(f"{T}.backwards") is True and Path(value).stem.endswith("_b"):
        draft.note(
            "the study's backward files name copies of the data (..._b.h5): give both directions the same file"
        )
    draft.set("objective.type", "causal", "the code")
    draft.set("objective.bos", True, "every window begins with id 0")
    draft.set("objective.eos", False, "windows have no end")
