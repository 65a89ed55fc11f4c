"""The configuration of `segmentation`: its groups, their values, and the overrides of a command line laid over them.

Layers, the later over the earlier, as Hydra composes them: the file config.yaml, the chosen files of the groups model,
dataset and tokenizer, the file of `experiment`, the command line. `compose` returns the flat result with the origin of
every value. Values are those of TransformerSegmentation's conf/ of 2024; what PhonemeTransformers added to them is
marked below, because its files were not at hand.

Refused: what is no override (flags of Hydra, sweeps, deletions), keys of trackers and hubs, of restarts, and values
that are no scalar. Keys themselves are checked later, by the table of rules.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lexarium.foundation.types import UserError

MISSING = "???"
"""What stands in a file for a value that the command line must give."""
DEFAULT = "default"
SECTIONS = ("experiment", "dataset", "tokenizer", "data_preprocessing", "model", "trainer")

LANGUAGES = (
    "English", "EnglishNA", "EnglishUK", "German", "Japanese", "Indonesian", "French", "Spanish", "Mandarin", "Dutch",
    "Polish", "Serbian", "Estonian", "Welsh", "Cantonese", "Swedish", "PortuguesePt", "Korean", "Italian", "Croatian",
    "Catalan", "Icelandic", "Basque", "Hungarian", "Danish", "Norwegian", "PortugueseBr", "Romanian", "Turkish",
    "Irish", "Quechua", "Farsi",
)  # fmt: skip
"""Configurations of CHILDES; the models of 2024 say English for EnglishNA."""

DEFAULTS: dict[str, Any] = {
    "model": "gpt2_85M",
    "dataset": "childes_english_phoneme",
    "tokenizer": "childes_english_phoneme",
    "experiment": "base_experiment",
    "data_preprocessing.max_input_length": 64,
    "data_preprocessing.join_utts": "dynamic",
    "data_preprocessing.remove_word_boundaries": True,
    "data_preprocessing.subsample": None,
    "data_preprocessing.subsample_type": "examples",
    "trainer.batch_size": 32,
    "trainer.lr": 1e-3,
    "trainer.num_warmup_steps": 60_000,
    "trainer.max_training_steps": 200_000,
    "trainer.logging_steps": None,
    "trainer.eval_steps": None,
    "trainer.save_steps": None,
    "experiment.seed": 42,
    "experiment.dry_run": False,
    "experiment.evaluate_segmentation": True,
    "experiment.evaluate_babyslm": False,
    "experiment.blimp_tasks": "blimp_filtered",
}

_CHILDES = {"dataset.name": "transformersegmentation/CHILDES", "dataset.max_age": 120}
_BABYLM = {
    "dataset.name": "transformersegmentation/BabyLM-phonemized", "dataset.max_age": None,
    "dataset.remove_child_utterances": False,
}  # fmt: skip
_PHONEMES = {"dataset.text_column": "phonemized_utterance", "dataset.is_phonemes": True}


def _childes(language: str) -> dict[str, Any]:
    # PhonemeTransformers leaves children's own utterances out
    return {**_CHILDES, **_PHONEMES, "dataset.subconfig": language, "dataset.remove_child_utterances": True}


DATASETS: dict[str, dict[str, Any]] = {
    **{f"childes_{language.lower()}_phoneme": _childes(language) for language in LANGUAGES},
    "childes_english_text": {
        **_childes("English"), "dataset.text_column": "processed_gloss", "dataset.is_phonemes": False,
    },
    "babylm_strict_phoneme": {**_BABYLM, **_PHONEMES, "dataset.subconfig": "strict"},
    "babylm_strict_text": {
        **_BABYLM, "dataset.text_column": "text", "dataset.is_phonemes": False, "dataset.subconfig": "strict",
    },
}  # fmt: skip
DATASETS |= {f"{name}s": group for name, group in DATASETS.items() if name.endswith("_phoneme")}
"""Both spellings occur, with and without the s."""

_HUB = "transformersegmentation/"
TOKENIZERS: dict[str, dict[str, Any]] = {
    name: {"tokenizer.name": _HUB + hub}
    for name, hub in {
        **{f"childes_{x.lower()}_phoneme": f"CHILDES-{x}-phoneme-tokenizer" for x in LANGUAGES},
        "childes_english_text_bpe": "CHILDES-English-BPE-gloss-tokenizer",
        "babylm_phoneme": "BabyLM-phoneme-tokenizer",
        "babylm_phoneme_spaceless": "BabyLM-phoneme-tokenizer-spaceless",
        "babylm_phoneme_bpe": "BabyLM-BPE-phoneme-tokenizer",
        "babylm_phoneme_bpe_spaceless": "BabyLM-BPE-phoneme-tokenizer-spaceless",
        "babylm_text_bpe": "BabyLM-BPE-gloss-tokenizer",
        "babylm_text_bpe_spaceless": "BabyLM-BPE-ortho-tokenizer-spaceless",
        "babylm_text_char": "BabyLM-char-tokenizer",
        "babylm_text_char_spaceless": "BabyLM-char-tokenizer-spaceless",
    }.items()
}

_COMPARISON = {
    "model": MISSING,
    "data_preprocessing.max_input_length": 128,
    "data_preprocessing.join_utts": "static",
}
_BABYLM_RUN = {
    **_COMPARISON,
    "data_preprocessing.remove_word_boundaries": False,
    "experiment.group": "babylm",
    "experiment.evaluate_babyslm": True,
    "experiment.evaluate_segmentation": False,
    "trainer.eval_steps": 50_000,
    "trainer.save_steps": 50_000,
}


def _dropout(rate: float) -> dict[str, Any]:
    return {f"model.{name}_pdrop": rate for name in ("resid", "embd", "attn")}


_CHILDES_RUN = {**_COMPARISON, "experiment.group": "childes", "experiment.evaluate_babyslm": True}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "base_experiment": {},
    "debug": {
        "model": "gpt2_400k", "experiment.name": "debug", "experiment.group": "debug", "experiment.dry_run": True,
        "experiment.offline_run": True, "dataset.max_age": None,
    },
    "childes_comparison_phonemes": {**_CHILDES_RUN, "experiment.evaluate_segmentation": True},
    "childes_comparison_text": {
        **_CHILDES_RUN, "dataset": "childes_english_text", "tokenizer": "childes_english_text_bpe",
        "data_preprocessing.remove_word_boundaries": False, "experiment.evaluate_segmentation": False,
    },
    "babylm_comparison_phoneme": {
        **_BABYLM_RUN, "dataset": "babylm_strict_phoneme", "experiment.blimp_tasks": "blimp_filtered",
    },
    "babylm_comparison_text": {
        **_BABYLM_RUN, "dataset": "babylm_strict_text", "tokenizer": "babylm_text_bpe",
        "experiment.blimp_tasks": "blimp_filtered", "trainer.eval_steps": 25_000, "trainer.save_steps": 25_000,
    },
    **{
        f"dropout_babylm_{number}": {
            **_BABYLM_RUN, "dataset": "babylm_strict_phoneme", "tokenizer": "babylm_phoneme_spaceless",
            "data_preprocessing.subsample": MISSING, "data_preprocessing.subsample_type": "words",
            "experiment.group": "babylm-size-phonemes", "experiment.blimp_tasks": "blimp_filtered,blimp_supplement",
            **_dropout(rate),
        }
        for number, rate in (("01", 0.1), ("03", 0.3), ("05", 0.5), ("07", 0.7))
    },
    # of PhonemeTransformers, from what its scripts and notebooks say of it
    "childes_multilingual_2M": {
        **_COMPARISON, "model": "gpt2_5M", "data_preprocessing.subsample": 1_800_000,
        "data_preprocessing.subsample_type": "tokens", "dataset.valid_size": 1000, **_dropout(0.3),
    },
}  # fmt: skip

MODELS: dict[str, tuple[str, int]] = {
    "gpt2_400k": ("gpt2", 128),
    "gpt2_600k": ("gpt2", 128),
    "gpt2_800k": ("gpt2", 128),
    "gpt2_1M": ("gpt2", 128),
    "gpt2_5M": ("gpt2", 256),
    "gpt2_19M": ("gpt2", 512),
    "gpt2_25M": ("gpt2", 512),
    "gpt2_85M": ("gpt2", 768),
    "gpt2_100M": ("gpt2", 768),
    "gpt2_feature": ("gpt2_feature", 256),
    "gptneox_19M": ("gptneox", 512),
    "llama": ("llama", 0),
    "llama_5M": ("ours", 256),
}
"""Family and width; the sizes themselves are those of the preset of the same name."""

GROUPS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "model": {**{name: {} for name in MODELS}, "llama": {"model.name_or_path": "babylm/babyllama-100m-2024"}},
    "dataset": DATASETS,
    "tokenizer": TOKENIZERS,
    "experiment": EXPERIMENTS,
}
DRY_RUN = {
    "trainer.max_training_steps": 100, "trainer.num_warmup_steps": 10, "trainer.eval_steps": 50,
    "trainer.save_steps": 50, "trainer.logging_steps": 1,
}  # fmt: skip

ANYWHERE = {
    "segmentation_subsample": "experiment",
    "valid_size": "dataset",
    "remove_child_utterances": "dataset",
}
"""Keys of PhonemeTransformers whose section is not known: each is taken in any section. The value is ours for it."""

RESTART = (
    "restarts are no part of a run file: lexarium train --requeue-after HOURS saves, stops and exits with status 124,"
    " and the same command goes on"
)
OUTSIDE: tuple[tuple[str, str], ...] = (
    (r"^dropout$", "it stands for three keys; say model.resid_pdrop, model.embd_pdrop and model.attn_pdrop, each with"
     " the same value"),
    (r"(?i)^(trainer\.)?(weight_decay|adam_\w+|optim\w*|lr_scheduler_type|max_grad_norm)$", "the configuration has no"
     " such key: the code trains with AdamW, no weight decay, a linear schedule and gradients clipped at 1; change"
     " optimizer, schedule or train.clip_norm in the run file"),
    (r"(?i)(^|\.)(use_cpu|no_cuda|fp16|bf16)$", "it is about the machine; plan.device and train.precision in the run"
     " file say it here"),
    (r"^(model\.)?vocab_size$", "the tokenizer says it"),
    (r"(re(submit|queue)_after)$", RESTART),
    (r"(?i)(^|[._])wandb|(^|\.)report_to$", "no tracker is called; metrics are in the run's metrics.jsonl, lexarium"
     " report shows them"),
    (r"(?i)(^|\.)(push_to_hub|hub_\w+|hf_\w+|\w*_token)$", "nothing is sent to a hub or read from one; name files with"
     " --data, and write a trained model out with lexarium export"),
    (r"^hydra([./]|$)", "it says how Hydra runs, not what is trained"),
    (r"^(epochs|hidden_size|inner_linear|momentum|sequence_length)$", "it belongs to the model of 2022, whose losses at"
     " every layer and SGD this importer does not know; name a model of 2024 with model=..."),
)  # fmt: skip


def compose(overrides: Iterable[str], known: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(values by key, origins of those that the command line did not give); `known`: all keys there are.

    Raises UserError, with a line for every override that cannot be read.
    """
    line, problems = {}, []
    for text in overrides:
        try:
            key, value = read(text, list(known))
            line[key] = value
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    values, origins = dict(DEFAULTS), dict.fromkeys(DEFAULTS, DEFAULT)
    experiment = _member("experiment", line.get("experiment", DEFAULTS["experiment"]))
    upper: list[tuple[Mapping[str, Any], str]] = [
        (experiment, f"experiment={line.get('experiment')}"),
        (line, ""),
    ]
    _lay(values, origins, upper)
    chosen = [
        (_member(group, values[group]), f"{group}={values[group]}")
        for group in ("model", "dataset", "tokenizer")
    ]
    _lay(values, origins, [*chosen, *upper])
    if values["experiment.dry_run"] is True:
        _lay(values, origins, [(DRY_RUN, "experiment.dry_run")])
    lacking = [key for key, value in values.items() if value == MISSING]
    if lacking:
        raise UserError(
            f"{lacking[0]}: {origins.get(lacking[0], 'the command line')} leaves it open; give it, like"
            f" {lacking[0]}={'gpt2_5M' if lacking[0] == 'model' else 1_000_000}"
        )
    return values, {key: origin for key, origin in origins.items() if origin}


def _lay(
    values: dict[str, Any], origins: dict[str, str], layers: list[tuple[Mapping[str, Any], str]]
) -> None:
    for layer, origin in layers:
        for key, value in layer.items():
            values[key], origins[key] = value, origin


def _member(group: str, name: Any) -> Mapping[str, Any]:
    """The values of a file of a group; of `???`, none: the lack is told when all layers lie."""
    if name == MISSING:
        return {}
    members = GROUPS[group]
    if isinstance(name, str) and name in members:
        return members[name]
    if group == "experiment" and name == "childes_multilingual_03":
        raise UserError(
            "experiment=childes_multilingual_03: the script names a file that never was; childes_multilingual_2M is its"
            " content"
        )
    if group == "dataset" and re.search(r"(?i)random|uniform|unigram", str(name)):
        raise UserError(
            f"dataset={name}: streams drawn at random are made of any corpus here; say"
            " dataset.subconfig=Uniform or dataset.subconfig=Unigram"
        )
    near = difflib.get_close_matches(str(name), members, n=1, cutoff=0.6)
    shown = [x for x in members if not (x.startswith("childes_") and "english" not in x and "_2M" not in x)]
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(shown)}"
    raise UserError(f"{group}={name}: no such file is known; {hint}")


# --- one override -------------------------------------------------------------------------------------


def read(text: str, known: list[str]) -> tuple[str, Any]:
    """(key, value) of `key=value`, `+key=value` or `++key=value`; raises UserError."""
    name, equals, value = text.partition("=")
    if text.startswith("~"):
        raise UserError(f"{text}: deletes a key; say key=null where a value may be empty")
    if not equals or not name.strip("+ "):
        told = "; the files of 2022 are of another model" if re.search(r"\.(ya?ml|ini)$", text) else ""
        raise UserError(f"{text}: is no override; expected key=value, like trainer.lr=0.001{told}")
    key = name.strip().lstrip("+").replace("model.model_kwargs.", "model.")
    for pattern, reason in OUTSIDE:
        if re.search(pattern, key):
            raise UserError(f"{key}: is not imported: {reason}")
    return _resolved(key, known), _value(text, value.strip())


def _resolved(key: str, known: list[str]) -> str:
    """The key with its section; raises UserError for a last name that several sections have."""
    section, _, last = key.rpartition(".")
    if last in ANYWHERE and section in ("", *SECTIONS):
        return f"{ANYWHERE[last]}.{last}"
    if section or key in known:
        return key
    found = [name for name in known if name.rpartition(".")[2] == key]
    if len(found) > 1:
        raise UserError(f"{key}: several sections have it; say {' or '.join(found)}")
    if found:
        return found[0]
    near = difflib.get_close_matches(key, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.6)
    full = next((name for name in known if near and name.rpartition(".")[2] == near[0]), "")
    # unknown: in the section of its nearest neighbour the table of rules finds that neighbour
    return f"{full.rpartition('.')[0]}.{key}".lstrip(".")


def _value(text: str, value: str) -> Any:
    """A scalar as Hydra reads it: null, true, 60_000, 1e-3, 'text', text."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    if not value:
        raise UserError(f"{text}: has no value; say null for an empty one")
    if value[0] in "[{(":
        raise UserError(f"{text}: is a list or mapping; give its keys one by one, like model.attn_pdrop=0.3")
    if "," in value:
        raise UserError(
            f"{text}: several values are a sweep of Hydra; quote a text with commas inside the shell's quotes, or make"
            " a study with an axis of these values (lexarium study --help)"
        )
    plain = {"null": None, "none": None, "true": True, "false": False}
    if value.lower() in plain:
        return plain[value.lower()]
    for kind in (int, float):
        if re.fullmatch(r"[+-]?[\d_.]+(e[+-]?\d+)?", value, re.IGNORECASE):
            try:
                return kind(value)
            except ValueError:
                continue
    return value
