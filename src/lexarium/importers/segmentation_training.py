"""Rules of `segmentation` about the model, its training and its evaluations.

Written out because the original did it without saying so: AdamW without weight decay, clipping to norm 1 and a linear
schedule, which are defaults of its trainer, and an evaluation before the first step, the untrained control.
"""

from __future__ import annotations

import shlex
from typing import Any

from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft, number, whole
from lexarium.importers.segmentation_data import (
    NO_STIMULI,
    PRE,
    form,
    keeps_boundaries,
    tokenizer_of,
)
from lexarium.importers.segmentation_groups import MODELS
from lexarium.importers.segmentation_options import Form, Options, flag, from_default, why, words

GPT2_SIZES = {
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "n_embd": "d_model",
    "n_inner": "d_ff",
    "n_positions": "max_positions",
}
GPT2_DROPOUTS = {
    "resid_pdrop": "residual_dropout",
    "embd_pdrop": "embedding_dropout",
    "attn_pdrop": "attention_dropout",
}
NEOX_SIZES = {
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "max_position_embeddings": "max_positions",
}
FAMILIES: dict[str, dict[str, str]] = {
    "gpt2": {**GPT2_SIZES, **GPT2_DROPOUTS},
    "gpt2_feature": {**GPT2_SIZES, **GPT2_DROPOUTS},
    "gptneox": NEOX_SIZES,
    "llama": {},
    "ours": {},
}
"""Keys of the model's arguments by family, and ours for them."""
CLASSES = {"gpt2": "gpt2_lm", "gpt2_feature": "gpt2_feature_lm", "gptneox": "gptneox_lm", "llama": "llama_lm"}
"""Names of the classes, which the files of the group model have under `name`."""
LLAMA = (
    "pretrained weights are not trained from scratch, and their vocabulary is another; say model=llama_5M, a small"
    " Llama from scratch with the vocabulary of the data"
)


# --- model --------------------------------------------------------------------------------------------


def model(draft: Draft, key: str, value: Any) -> None:
    """The preset of the same name."""
    family, width = MODELS[value]
    if family == "llama":
        raise UserError(f"{key}={value}: loads {draft.given['model.name_or_path']}: {LLAMA}")
    if family == "ours":
        draft.note(f"model={value} is ours, no configuration of the study")
    draft.set("model.type", "transformer", why(draft, key))
    draft.set("model.preset", value, why(draft, key))
    if "model.n_embd" in draft.given and "model.n_inner" not in draft.given and "n_inner" in FAMILIES[family]:
        draft.set("model.d_ff", 4 * width, f"n_inner of {value} stays with another n_embd")
    if family == "gpt2_feature":
        features(draft)
    elif draft.options.phoible:
        raise UserError(f"--phoible: only model=gpt2_feature reads it, found {draft.told(key)}")


def features(draft: Draft) -> None:
    """The table of phonological features, and the loss on features."""
    if not draft.options.phoible:
        raise UserError("model=gpt2_feature: needs the table of features; name it with --phoible phoible.csv")
    if not flag(draft, "dataset.is_phonemes"):
        raise UserError("model=gpt2_feature: features are of phonemes, and dataset.is_phonemes is False")
    draft.set("model.features.path", draft.options.phoible, "--phoible")
    draft.set("model.features.missing", "unknown", "the original gives unknown symbols a vector of their own")
    draft.set("objective.loss", "features", why(draft, "model"))


def size(draft: Draft, key: str, value: Any) -> None:
    """An argument of the model's class, over that of the chosen size."""
    family, last = MODELS[draft.given["model"]][0], key.rpartition(".")[2]
    ours = FAMILIES[family].get(last)
    if ours is None:
        told = ", ".join(f"model.{name}" for name in FAMILIES[family]) or "none"
        raise UserError(f"{key}: {draft.told('model')} does not have it (it has: {told})")
    if last not in GPT2_DROPOUTS:
        draft.set(f"model.{ours}", whole(draft, key, 1), why(draft, key))
        return
    if not 0 <= number(draft, key) < 1:
        raise UserError(f"{key}: expected a share from 0 to below 1, found {value!r}")
    every = [f"model.{name}" for name in GPT2_DROPOUTS]
    if all(draft.given.get(name) == value for name in every):
        draft.set("model.dropout", number(draft, key), why(draft, *every))
    else:
        draft.set(f"model.{ours}", number(draft, key), why(draft, key))


def class_name(draft: Draft, key: str, value: Any) -> None:
    """The class, or the size, by its name: it must be the one that `model` chose."""
    chosen = draft.given["model"]
    if value not in (chosen, CLASSES.get(MODELS[chosen][0])):
        raise UserError(
            f"{key}: is {value!r}, but the model is {chosen}; choose with model=, like model=gpt2_5M"
        )


def pretrained(draft: Draft, key: str, value: Any) -> None:
    """Weights of others."""
    if value is not None and draft.given["model"] != "llama":
        raise UserError(f"{key}: {value!r} is not imported: {LLAMA}")


# --- training -----------------------------------------------------------------------------------------


def steps(draft: Draft, name: str, share: int) -> tuple[int, str]:
    """A number of steps, or its default, so much of the training; and where it comes from."""
    key, whole_training = f"trainer.{name}", "trainer.max_training_steps"
    if draft.given.get(key) is not None:
        return whole(draft, key, 1), why(draft, key)
    n = whole(draft, whole_training, 1)
    return max(1, n // share), f"{draft.told(key)}: max_training_steps / {share}"


def training(draft: Draft, key: str, value: Any) -> None:
    """How long, how much at a time, and the trainer's defaults."""
    n = whole(draft, key, 1)
    draft.set("train.max_steps", n, why(draft, key))
    batch = whole(draft, "trainer.batch_size", 1)
    told = "per device, and its scripts use one; its comment of 1,024 on 8 is not what it does"
    draft.set("train.global_batch_size", batch, why(draft, "trainer.batch_size", more=told))
    draft.set("train.clip_norm", 1.0, "the trainer's default")
    draft.set("train.log_every", *steps(draft, "logging_steps", 100))
    draft.set("checkpoint.every", *steps(draft, "save_steps", 10))
    warmup = whole(draft, "trainer.num_warmup_steps")
    if warmup > n:
        raise UserError(
            f"trainer.num_warmup_steps: {warmup} is more than trainer.max_training_steps {n}, so the rate would never"
            " reach its peak; lower it"
        )
    draft.set("schedule.type", "linear", "the trainer's default")
    draft.set("schedule.warmup_steps", warmup, why(draft, "trainer.num_warmup_steps"))
    if warmup:
        draft.set("schedule.start", 0.0, "its first update has the rate 0")


def rate(draft: Draft, key: str, value: Any) -> None:
    """AdamW as the trainer builds it."""
    lr = number(draft, key)
    if lr <= 0:
        raise UserError(f"{key}: expected a rate above 0, found {value!r}")
    draft.set("optimizer.type", "adamw", "the trainer's default")
    draft.set("optimizer.lr", lr, why(draft, key))
    draft.set("optimizer.weight_decay", 0.0, "the trainer's default")


def seed(draft: Draft, key: str, value: Any) -> None:
    """Seed of weights, order, dropout and samples."""
    if value == -1:
        raise UserError(f"{key}: -1 leaves the original unseeded; a run of ours has a seed, from 0 on")
    draft.set("seed", whole(draft, key), why(draft, key))


def place(draft: Draft, key: str, value: Any) -> None:
    """Where the original put its checkpoints, as the command that trains."""
    folder = ["--runs-dir", f"checkpoints/{words(draft, key)}"] if value is not None else []
    draft.note(f"train it with: {shlex.join(['lexarium', 'train', draft.options.target, *folder])}")


def name(draft: Draft, key: str, value: Any) -> None:
    """The name of an experiment."""
    if value is not None:
        draft.note(
            f"experiment.name: {words(draft, key)!r} is not needed: a run's name follows from what it is"
        )


def offline(draft: Draft, key: str, value: Any) -> None:
    """Runs are always offline."""
    asked = "as asked" if flag(draft, key) else "whatever it says"
    draft.note(f"{draft.told(key)}: no tracker is called and nothing is sent to a hub, {asked}")


# --- evaluations --------------------------------------------------------------------------------------


def evaluations(draft: Draft, key: str, value: Any) -> None:
    """Validation loss, word segmentation, and minimal pairs, every so many steps from step 0 on."""
    every, told = steps(draft, "eval_steps", 10)
    windows = draft.given[f"{PRE}.join_utts"] is not None
    wanted: list[tuple[dict[str, Any], str]] = [
        ({"type": "window_loss" if windows else "loss", "splits": ["val"]}, "the original's validation loss")
    ]
    wanted += segmentation(draft, key)
    wanted += babyslm(draft, "experiment.evaluate_babyslm")
    wanted += blimp(draft, "experiment.blimp_tasks")
    for i, (settings, reason) in enumerate(wanted):
        for option, setting in settings.items():
            draft.set(f"evaluations.{i}.{option}", setting, reason)
        draft.set(f"evaluations.{i}.every", every, f"{told}; from step 0, the untrained control")
    loss = wanted[0][0]["type"]
    features = MODELS[draft.given["model"]][0] == "gpt2_feature"
    draft.set(
        "checkpoint.best.metric",
        f"{loss}.val.feature_ce" if features else f"{loss}.val",
        "the original reloads the checkpoint with the lowest perplexity"
        + (", which is that of the loss it trains on" if features else ""),
    )
    if draft.options.baselines:
        i = len(wanted)
        draft.set(f"evaluations.{i}.type", "segmentation_baselines", "--baselines; the original has none")
        draft.set(f"evaluations.{i}.splits", ["val"], "as segmentation")
    if features:
        draft.note(
            f"the original's perplexity is the exponential of its loss on features, {loss}.val.feature_ce here; the"
            " metrics called perplexity are those of tokens"
        )
        return
    draft.note(
        "the original ends with its best checkpoint and perplexity by windows that move by 2: that is val.perplexity of"
        " lexarium evaluate RUN --step best --evaluation segmentation stride=2 window=LENGTH contexts=[stream];"
        f" perplexity during training is that of evaluation {loss}"
    )


def segmentation(draft: Draft, key: str) -> list[tuple[dict[str, Any], str]]:
    """Word boundaries at peaks and above thresholds of the cues."""
    options: Options = draft.options
    sample = "experiment.segmentation_subsample"
    if draft.given.get(sample) is not None and options.utterances is None:
        raise UserError(
            f"{draft.told(sample)}: symbols of the stream; whole utterances are scored here: say how many with"
            " --segmentation-utterances N"
        )
    if not flag(draft, key):
        extra = {"--published-thresholds": options.published_thresholds, "--baselines": options.baselines}
        for asked in (
            option for option, on in {**extra, "--segmentation-utterances": options.utterances}.items() if on
        ):
            raise UserError(f"{asked}: {draft.told(key)}; say {key}=True")
        return []
    if tokenizer_of(draft).bpe or keeps_boundaries(draft):
        found = "pieces of words" if tokenizer_of(draft).bpe else "word boundaries in the text"
        raise UserError(
            f"{key}: True needs single symbols without word boundaries, and the model reads {found}; say {key}=False,"
            f" or choose another tokenizer and {PRE}.remove_word_boundaries=True"
        )
    settings: dict[str, Any] = {
        "type": "segmentation",
        "splits": ["val"],
        "contexts": ["stream"],
        "window": 64,
        "stride": 10,
    }
    if options.published_thresholds:
        settings |= {"tune": "oracle", "search": "bounded"}
    else:
        draft.note(
            "thresholds are chosen on the other half of the utterances; the original chose them on those it scored"
            " (--published-thresholds does)"
        )
    if options.utterances is not None:
        settings["limit"] = options.utterances
    return [(settings, why(draft, key, more="window 64 and stride 10 are fixed in the code"))]


def babyslm(draft: Draft, key: str) -> list[tuple[dict[str, Any], str]]:
    """Lexical and syntactic pairs of BabySLM, part dev."""
    folder = draft.options.babyslm
    if not flag(draft, key):
        if folder:
            raise UserError(f"--babyslm: {draft.told(key)}; say {key}=True")
        return []
    if draft.given["dataset.subconfig"] in NO_STIMULI:
        raise UserError(f"{key}: BabySLM is English, and {draft.told('dataset.subconfig')}; say {key}=False")
    if not folder:
        raise UserError(f"{key}: needs the stimuli; name their folder with --babyslm, or say {key}=False")
    settings = {"type": "minimal_pairs", "name": "babyslm", "path": folder, **stimuli(draft)}
    return [(settings, why(draft, key))]


def blimp(draft: Draft, key: str) -> list[tuple[dict[str, Any], str]]:
    """Sets of BLiMP's pairs as files of the user."""
    tasks, files = draft.given.get(key), list(draft.options.blimp)
    if tasks is None:
        if files:
            raise UserError(f"--blimp: {key} is empty; say {key}=blimp_filtered")
        return []
    known = ("blimp_filtered", "blimp_supplement")
    for task in words(draft, key).split(","):
        if task.strip() not in known:
            raise UserError(f"{key}: expected {' or '.join(known)}, or both with a comma, found {task!r}")
    if not files and from_default(draft, key):
        draft.note(f"{draft.told(key)}: BLiMP is not evaluated, because no --blimp names its files")
        return []
    if not files:
        raise UserError(
            f"{key}: {tasks!r} needs the files of pairs; name them with --blimp, or say {key}=null"
        )
    path = files if len(files) > 1 else files[0]
    settings = {"type": "minimal_pairs", "name": "blimp", "path": path, **stimuli(draft)}
    settings.pop("stimuli", None)  # BabySLM alone has two
    return [(settings, why(draft, key))]


def stimuli(draft: Draft) -> dict[str, Any]:
    """How texts of pairs are written for this run's tokenizer."""
    kind = tokenizer_of(draft)
    found: dict[str, Any] = {"unknown": "allow"}
    if kind.bpe:
        found["boundaries"] = "keep" if keeps_boundaries(draft) else "drop"
    if kind.phonemes and (kind.bpe or form(draft) is Form.letters):
        found |= {"joined": True, "stimuli": "phono"}
    if not kind.phonemes:
        found["stimuli"] = "ortho"
        if not kind.bpe:
            found |= {"case": "lower", "normalise": "NFD"}
    return found
