"""The word segmentation study's command lines: its default run, every grid of its scripts, and each refusal.

What is expected was written down from the study's configuration and scripts, not from the importer's tables.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluations.test_minimal_pairs import babyslm

from lexarium.cli.main import main
from lexarium.foundation import registry
from lexarium.foundation.config import parse_yaml, validate
from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft, finish
from lexarium.importers.segmentation import KEYS, convert
from lexarium.importers.segmentation_data import TOKENS_PER_WORD, kind_of
from lexarium.importers.segmentation_groups import DATASETS, EXPERIMENTS, LANGUAGES, MODELS, TOKENIZERS, read
from lexarium.importers.segmentation_options import Form, Options
from lexarium.models.presets import PRESETS
from lexarium.studies.run_config import RunConfig

DATA = Options(data=("childes.csv",))
FEATURES = str(Path(__file__).parents[1] / "fixtures" / "letters.csv")


def convert_with(overrides: str, **options: Any) -> Draft:
    """A draft that our schema accepts."""
    draft = convert(overrides.split(), dataclasses.replace(DATA, **options))
    finish(draft)
    return draft


def run_of(overrides: str, **options: Any) -> Any:
    """The run of overrides, with all defaults of ours."""
    return validate(RunConfig, parse_yaml(convert_with(overrides, **options).text("made"), "made"))


# --- the default run ----------------------------------------------------------------------------------


def test_without_overrides_it_is_the_originals_default_run() -> None:
    run = run_of("")
    assert (run.model.type, run.model.preset) == ("transformer", "gpt2_85M")
    assert (run.model.n_layers, run.model.n_heads, run.model.d_model, run.model.dropout) == (12, 12, 768, 0.1)
    assert (run.model.max_positions, run.model.tied) == (256, True)
    corpus = run.corpus
    assert (corpus.type, corpus.column, corpus.form) == ("utterances", "phonemized_utterance", "symbols")
    assert (corpus.max_age, corpus.children, corpus.boundaries) == (120, "drop", "channel")
    assert (run.tokenizer.type, run.tokenizer.unit, run.tokenizer.min_count) == ("symbol", "symbol", 10)
    assert (run.packing.type, run.packing.seq_len, run.packing.order) == ("windows", 64, "each_epoch")
    assert run.packing.separator and not run.objective.bos and not run.objective.eos
    assert (run.optimizer.type, run.optimizer.lr, run.optimizer.weight_decay) == ("adamw", 1e-3, 0)
    assert (run.optimizer.betas, run.optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert (run.schedule.type, run.schedule.warmup_steps) == ("linear", 60_000)
    train = run.train
    assert (train.max_steps, train.global_batch_size, train.clip_norm) == (200_000, 32, 1.0)
    assert (train.precision, train.log_every) == ("fp32", 2000)
    assert (run.seed, run.checkpoint.every, run.view.subsample) == (42, 20_000, None)
    assert [(e.type, e.every) for e in run.evaluations] == [("window_loss", 20_000), ("segmentation", 20_000)]
    assert all(e.due(0, 200_000) for e in run.evaluations), "the untrained control"
    scored = run.evaluations[1]
    assert (scored.window, scored.stride, scored.contexts, scored.tune) == (64, 10, ("stream",), "crossed")


def test_the_rate_is_that_of_transformers() -> None:
    from transformers import get_linear_schedule_with_warmup

    run = run_of("trainer.max_training_steps=50 trainer.num_warmup_steps=15 trainer.lr=0.5")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_linear_schedule_with_warmup(optimizer, 15, 50)
    ours = registry.find("schedule", "linear")(run.schedule)
    for step in range(50):
        assert 0.5 * ours.scale(step, 50) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_every_value_says_where_it_is_from() -> None:
    draft = convert_with("experiment=childes_comparison_phonemes model=gpt2_5M trainer.lr=3e-4", babyslm="b")
    text = draft.text("made")
    assert set(draft.values) == set(draft.comments) and all(draft.comments.values())
    assert "lr: 0.0003  # trainer.lr: 0.0003\n" in text
    assert (
        'order: corpus  # data_preprocessing.join_utts: "static" (experiment=childes_comparison_phonemes)'
        in text
    )
    assert "warmup_steps: 60000  # trainer.num_warmup_steps: 60000 (default)" in text


# --- single keys --------------------------------------------------------------------------------------

MAPPED: list[tuple[str, dict[str, Any]]] = [
    ("trainer.lr=0.005", {"optimizer.lr": 0.005}),
    ("lr=0.005", {"optimizer.lr": 0.005}),
    ("+trainer.lr=5e-3", {"optimizer.lr": 0.005}),
    ("trainer.batch_size=8", {"train.global_batch_size": 8}),
    ("trainer.max_training_steps=100_000", {"train.max_steps": 100_000, "checkpoint.every": 10_000}),
    ("trainer.num_warmup_steps=0", {"schedule.warmup_steps": 0}),
    ("trainer.logging_steps=7", {"train.log_every": 7}),
    ("trainer.save_steps=50_000", {"checkpoint.every": 50_000}),
    ("trainer.eval_steps=50_000", {"evaluations.0.every": 50_000, "evaluations.1.every": 50_000}),
    ("experiment.seed=7", {"seed": 7}),
    ("data_preprocessing.max_input_length=128", {"packing.seq_len": 128}),
    ("join_utts=static", {"packing.order": "corpus", "packing.type": "windows"}),
    ("join_utts=dynamic", {"packing.order": "each_epoch", "packing.type": "windows"}),
    ("join_utts=None", {"packing.type": "documents", "packing.max_length": 62, "evaluations.0.type": "loss"}),
    ("join_utts=null", {"objective.bos": True, "objective.eos": True}),
    ("subsample=500", {"view.subsample.unit": "documents", "view.subsample.count": 500}),
    ("dataset.num_examples=10000", {"view.subsample.unit": "documents", "view.subsample.count": 10_000}),
    ("subsample=1e5 subsample_type=words", {"view.subsample.unit": "words", "view.subsample.count": 100_000}),
    ("subsample=100 subsample_type=words seed=3", {"view.subsample.seed": 3}),
    ("subsample=300000 subsample_type=tokens", {"view.subsample.unit": "tokens"}),
    ("model=gpt2_5M model.n_layer=3 model.n_head=4", {"model.n_layers": 3, "model.n_heads": 4}),
    ("model=gpt2_5M model.n_embd=128", {"model.d_model": 128, "model.d_ff": 1024}),
    ("model=gpt2_5M model.n_embd=128 model.n_inner=64", {"model.d_ff": 64}),
    ("model.n_positions=512", {"model.max_positions": 512}),
    ("model.model_kwargs.n_positions=512", {"model.max_positions": 512}),
    ("model.attn_pdrop=0.3", {"model.attention_dropout": 0.3}),
    ("resid_pdrop=0.5", {"model.residual_dropout": 0.5}),
    ("model.embd_pdrop=0", {"model.embedding_dropout": 0.0}),
    ("+model.attn_pdrop=0.3 +model.resid_pdrop=0.3 +model.embd_pdrop=0.3", {"model.dropout": 0.3}),
    ("model=gptneox_19M model.hidden_size=256", {"model.preset": "gptneox_19M", "model.d_model": 256}),
    ("model=gpt2_5M model.name=gpt2_lm", {"model.preset": "gpt2_5M"}),
    ("model=llama_5M", {"model.preset": "llama_5M"}),
    ("dataset.max_age=60", {"corpus.max_age": 60.0}),
    ("dataset=childes_german_phoneme tokenizer=childes_german_phoneme", {"corpus.repair": ["misspelt"]}),
    ("dataset.text_column=ipa", {"corpus.column": "ipa"}),
]


@pytest.mark.parametrize("overrides, expected", MAPPED)
def test_a_key_goes_to_its_place(overrides: str, expected: dict[str, Any]) -> None:
    draft = convert_with(overrides)
    found = {".".join(map(str, place)): value for place, value in draft.values.items()}
    assert {path: found.get(path) for path in expected} == expected


def test_keys_that_leave_something_out() -> None:
    kept = run_of("dataset.max_age=null dataset.remove_child_utterances=False").corpus
    assert (kept.max_age, kept.children) == (None, "keep")
    assert [e.type for e in run_of("experiment.evaluate_segmentation=False").evaluations] == ["window_loss"]
    assert run_of("remove_word_boundaries=False evaluate_segmentation=False").corpus.boundaries == "token"


@pytest.mark.parametrize("section", ["", "experiment.", "dataset.", "data_preprocessing."])
def test_keys_of_unknown_sections_are_taken_in_any(section: str) -> None:
    share = run_of(f"{section}valid_size=1000", val_share=0.01).corpus.split
    assert (share.by, share.val) == ("document", 0.01)
    assert run_of(f"{section}remove_child_utterances=False").corpus.children == "keep"
    assert run_of(f"{section}segmentation_subsample=25000", utterances=2000).evaluations[1].limit == 2000


def test_subsamples_of_tokens_are_not_called_words() -> None:
    draft = convert_with("join_utts=static max_input_length=128 subsample=180000 subsample_type=tokens")
    told = draft.comments["view", "subsample", "count"]
    assert "TOKENS, about 47,368 words" in told, "180,000 / 3.8"
    for tokens, words in ((700e3, 180e3), (7e6, 1.8e6), (18e6, 5e6)):  # the study's table
        assert tokens / TOKENS_PER_WORD == pytest.approx(words, rel=0.06)
    assert draft.values["view", "subsample", "stretch"] == 10, "128 tokens at 13 an utterance"
    assert "TOKENS" not in convert_with("subsample=180000 subsample_type=words").text("made")


def test_files_and_their_forms() -> None:
    held = run_of("", data=("a.csv", "b.csv"), valid=("v.csv",)).corpus
    assert (held.path, held.val_path, held.split.val) == (("a.csv", "b.csv"), ("v.csv",), None)
    lines = convert_with("", data=("eng.txt.gz",))
    assert ("corpus", "column") not in lines.values and ("corpus", "max_age") not in lines.values
    assert sum("lines of text" in note for note in lines.notes) == 2
    brent = run_of("", data=("br.txt",), form=Form.letters)
    assert (brent.corpus.form, brent.tokenizer.unit) == ("letters", "character")


def test_options_of_evaluations() -> None:
    published = run_of("", published_thresholds=True).evaluations[1]
    assert (published.tune, published.search) == ("oracle", "bounded")
    assert run_of("", baselines=True).evaluations[-1].type == "segmentation_baselines"
    both = run_of("evaluate_babyslm=True", babyslm="slm", blimp=("a.jsonl", "b.jsonl")).evaluations
    assert [(e.type, e.name) for e in both[2:]] == [("minimal_pairs", "babyslm"), ("minimal_pairs", "blimp")]
    assert (both[2].path, both[3].path, both[2].unknown) == (("slm",), ("a.jsonl", "b.jsonl"), "allow")
    assert any("BLiMP is not evaluated" in note for note in convert_with("").notes)
    assert not any("BLiMP" in note for note in convert_with("experiment.blimp_tasks=null").notes)


@pytest.mark.parametrize("overrides, told", [
    ("experiment.offline_run=False", "nothing is sent to a hub, whatever it says"),
    ("experiment.offline_run=True", "nothing is sent to a hub, as asked"),
    ("experiment.group=childes", "train it with: lexarium train FILE --runs-dir checkpoints/childes"),
    ("experiment.name=mine", "experiment.name: 'mine' is not needed"),
    ("dataset.subconfig=French", "--data must be the files of it"),
    ("dataset.subconfig=strict-small", "is spelt strict_small"),
    ("model=llama_5M", "model=llama_5M is ours"),
    ("", "the original held out 10,000 unless said otherwise"),
    ("experiment=childes_multilingual_2M", "the original held out 1,000"),
])  # fmt: skip
def test_notes(overrides: str, told: str) -> None:
    assert any(told in note for note in convert_with(overrides).notes)


def test_the_feature_model() -> None:
    run = run_of("model=gpt2_feature", phoible=FEATURES)
    assert (run.model.preset, run.model.features.path, run.objective.loss) == (
        "gpt2_feature",
        FEATURES,
        "features",
    )
    assert run.model.features.missing == "unknown"
    assert run.checkpoint.best.metric == f"{run.evaluations[0].type}.val.feature_ce"
    notes = convert_with("model=gpt2_feature", phoible=FEATURES).notes
    assert any("exponential of its loss on features" in note for note in notes)
    assert not any("stride=2" in note for note in notes)
    assert any("stride=2" in note for note in convert_with("").notes)


def test_a_dry_run() -> None:
    run = run_of("experiment=debug")
    assert (run.model.preset, run.train.max_steps, run.schedule.warmup_steps) == ("gpt2_400k", 100, 10)
    assert [e.every for e in run.evaluations] == [50, 50] and run.checkpoint.every == 50
    assert (run.view.fraction, run.view.splits, run.train.log_every) == (0.1, ("train", "val"), 1)
    assert run.corpus.max_age is None


# --- the grids of the scripts -------------------------------------------------------------------------

GPT2 = ("gpt2_400k", "gpt2_600k", "gpt2_800k", "gpt2_1M", "gpt2_5M", "gpt2_19M", "gpt2_25M", "gpt2_85M")
LAYOUT = {
    "gpt2_400k": (2, 4, 128), "gpt2_600k": (3, 4, 128), "gpt2_800k": (4, 4, 128), "gpt2_1M": (6, 4, 128),
    "gpt2_5M": (6, 8, 256), "gpt2_19M": (6, 8, 512), "gpt2_25M": (8, 8, 512), "gpt2_85M": (12, 12, 768),
    "gpt2_100M": (16, 12, 768), "gptneox_19M": (6, 8, 512),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUT)
def test_every_model(name: str) -> None:
    model = run_of(f"model={name}").model
    assert (model.n_layers, model.n_heads, model.d_model) == LAYOUT[name]


@pytest.mark.parametrize("n", [10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000])
@pytest.mark.parametrize("name", GPT2)
def test_size_comparison_by_examples(name: str, n: int) -> None:
    run = run_of(
        "experiment.group=size-comparison experiment.evaluate_babyslm=True"
        f" tokenizer.name=transformersegmentation/CHILDES-English-phoneme-tokenizer model={name}"
        f" dataset.num_examples={n}",
        babyslm="slm",
    )
    assert (run.model.preset, run.view.subsample.unit, run.view.subsample.count) == (name, "documents", n)


@pytest.mark.parametrize("tokens", [300_000, 700_000, 1_800_000, 3_000_000, 7_000_000, 18_000_000, None])
@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("name", ["gpt2_400k", "gpt2_600k", "gpt2_800k", "gpt2_1M", "gpt2_5M", "gpt2_19M"])
def test_size_comparison_by_tokens(name: str, dropout: float, tokens: int | None) -> None:
    size = f"data_preprocessing.subsample={tokens} data_preprocessing.subsample_type=tokens" if tokens else ""
    drops = " ".join(f"model.{x}_pdrop={dropout}" for x in ("resid", "embd", "attn"))
    run = run_of(f"experiment=childes_comparison_phonemes model={name} {size} {drops}", babyslm="slm")
    assert (run.packing.seq_len, run.packing.order, run.model.dropout) == (128, "corpus", dropout)
    assert (run.view.subsample and run.view.subsample.count) == tokens
    assert [e.name or e.type for e in run.evaluations] == ["window_loss", "segmentation", "babyslm"]


# tokenizer, text or phonemes, form, joined, boundaries, unit
BABYLM = [
    ("babylm_text_bpe", "text", ("letters", False, "token"), ("bpe", None)),
    ("babylm_text_bpe_spaceless", "text", ("letters", False, "channel"), ("bpe", None)),
    ("babylm_text_char", "text", ("letters", False, "token"), ("symbol", "character")),
    ("babylm_text_char_spaceless", "text", ("letters", False, "channel"), ("symbol", "character")),
    ("babylm_phoneme_bpe", "phoneme", ("symbols", True, "token"), ("bpe", None)),
    ("babylm_phoneme_bpe_spaceless", "phoneme", ("symbols", True, "channel"), ("bpe", None)),
    ("babylm_phoneme", "phoneme", ("symbols", False, "token"), ("symbol", "symbol")),
    ("babylm_phoneme_spaceless", "phoneme", ("symbols", False, "channel"), ("symbol", "symbol")),
]


@pytest.mark.parametrize("tokenizer, of, corpus, made", BABYLM, ids=[row[0] for row in BABYLM])
def test_the_eight_tokenizers_of_babylm(
    tokenizer: str, of: str, corpus: tuple[Any, ...], made: tuple[Any, ...]
) -> None:
    run = run_of(
        f"experiment=babylm_comparison_{of} model=gpt2_85M tokenizer={tokenizer} experiment.name=x",
        data=("babylm.jsonl",), babyslm="slm", blimp=("blimp",),
    )  # fmt: skip
    assert (run.corpus.form, run.corpus.joined, run.corpus.boundaries) == corpus
    assert (run.tokenizer.type, getattr(run.tokenizer, "unit", None)) == made
    assert made[0] != "bpe" or run.tokenizer.vocab_size == 16_000
    assert (run.corpus.column, run.corpus.max_age) == (
        {"text": "text", "phoneme": "phonemized_utterance"}[of],
        None,
    )
    assert (run.packing.seq_len, run.packing.order) == (128, "corpus")
    assert [e.name or e.type for e in run.evaluations] == ["window_loss", "babyslm", "blimp"]
    assert run.evaluations[0].every == (25_000 if of == "text" else 50_000)


SEEN = {  # what the model reads of an utterance, by tokenizer
    "babylm_text_bpe": "He sat: Café",
    "babylm_text_bpe_spaceless": "Hesat:Café",
    "babylm_text_char": "he sat: cafe",
    "babylm_text_char_spaceless": "hesat:cafe",
    "babylm_phoneme_bpe": "hiː sæt",
    "babylm_phoneme_bpe_spaceless": "hiːsæt",
    "babylm_phoneme": "h iː WORD_BOUNDARY s æ t WORD_BOUNDARY",
    "babylm_phoneme_spaceless": "h iː s æ t",
}


@pytest.mark.parametrize("tokenizer", SEEN)
def test_what_the_model_reads(tmp_path: Path, tokenizer: str) -> None:
    row = {"text": "He sat: Café", "phonemized_utterance": "h iː WORD_BOUNDARY s æ t WORD_BOUNDARY"}
    file = tmp_path / "babylm.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    of = "text" if "text" in tokenizer else "phoneme"
    run = run_of(
        f"experiment=babylm_comparison_{of} model=gpt2_85M tokenizer={tokenizer}",
        data=(str(file),), val_share=1e-9, babyslm="slm", blimp=("blimp",),
    )  # fmt: skip
    (document,) = registry.find("corpus", "utterances")(run.corpus).documents("train")
    assert document.text == SEEN[tokenizer]


@pytest.mark.parametrize("n", [100_000, 1_000_000, 10_000_000, 95_334_997])
@pytest.mark.parametrize("number, rate", [("01", 0.1), ("03", 0.3), ("05", 0.5), ("07", 0.7)])
@pytest.mark.parametrize("name", ["gpt2_600k", "gpt2_1M", "gpt2_19M"])
def test_size_and_dropout_on_babylm(name: str, number: str, rate: float, n: int) -> None:
    run = run_of(
        f"experiment=dropout_babylm_{number} model={name} data_preprocessing.subsample={n}"
        f" experiment.name={name}-{n}-{number}",
        data=("babylm.jsonl",), babyslm="slm", blimp=("filtered", "supplement"),
    )  # fmt: skip
    assert (run.model.preset, run.model.dropout, run.model.feed_forward_dropout) == (name, rate, 0)
    assert (run.view.subsample.unit, run.view.subsample.count) == ("words", n)
    assert (run.corpus.boundaries, run.corpus.children) == ("channel", "keep")


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x != "English"])
def test_multilingual(language: str) -> None:
    groups = f"dataset=childes_{language.lower()}_phoneme tokenizer=childes_{language.lower()}_phoneme"
    large = run_of(f"experiment=childes_multilingual_2M {groups}")
    assert (large.model.preset, large.model.dropout, large.packing.seq_len) == ("gpt2_5M", 0.3, 128)
    assert (large.view.subsample.unit, large.view.subsample.count) == ("tokens", 1_800_000)
    drops = "attn_pdrop=0.3 resid_pdrop=0.3 embd_pdrop=0.3"
    small = run_of(
        f"{groups} model=gpt2_800k {drops} max_input_length=128 join_utts=static subsample=180000 subsample_type=tokens"
        " segmentation_subsample=25000",
        utterances=2000,
    )
    assert (small.model.preset, small.view.subsample.count) == ("gpt2_800k", 180_000)
    assert small.evaluations[1].limit == 2000


@pytest.mark.parametrize("stream", ["Uniform", "Unigram"])
def test_random_controls(stream: str) -> None:
    draft = convert_with(
        f"experiment=childes_multilingual_2M dataset.name=phonemetransformers/random dataset.subconfig={stream}",
        data=(f"{stream}.csv",),
    )
    assert any(stream in note and "--data" in note for note in draft.notes)
    corpus = validate(RunConfig, parse_yaml(draft.text("made"), "made")).corpus
    assert (corpus.control, corpus.control_boundaries) == (stream.lower(), "draw")
    assert any(note.startswith(f"{stream}.csv is not here") for note in draft.notes)


# --- refusals -----------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("trainer.lrr=1", {}, "trainer.lrr: unknown key; did you mean 'trainer.lr'"),
    ("lrr=1", {}, "did you mean 'trainer.lr'"),
    ("trainer.max_input_length=3", {}, "did you mean 'data_preprocessing.max_input_length'"),
    ("model.activation_function=relu", {}, "model.activation_function: unknown key"),
    ("name=x", {}, "several sections have it; say dataset.name or tokenizer.name or model.name or experiment.name"),
    ("model=gpt2_5m", {}, "did you mean 'gpt2_5M'"),
    ("model=elephant", {}, "expected one of gpt2_400k, "),
    ("dataset=childes_frensh_phoneme", {}, "did you mean 'childes_french_phoneme"),
    ("tokenizer=childes_frensh_phoneme", {}, "did you mean 'childes_french_phoneme'"),
    ("experiment=childes_multilingual_03", {}, "childes_multilingual_2M is its content"),
    ("experiment=childes_comparison_phonemes", {}, "model: experiment=childes_comparison_phonemes leaves it open"),
    ("experiment=dropout_babylm_03 model=gpt2_1M", {}, "data_preprocessing.subsample: experiment=dropout_babylm_03"),
    ("model=llama", {}, "say model=llama_5M"),
    ("model.name_or_path=gpt2", {}, "pretrained weights"),
    ("model=gpt2_feature", {}, "--phoible"),
    ("", {"phoible": "x.csv"}, "only model=gpt2_feature"),
    ("model.name=gptneox_lm", {}, "the model is gpt2_85M"),
    ("model=gptneox_19M model.n_embd=3", {}, "model.n_embd: model: \"gptneox_19M\" does not have it"),
    ("model=llama_5M model.attn_pdrop=0.1", {}, "it has: none"),
    ("model.attn_pdrop=1.5", {}, "expected a share"),
    ("model.n_layer=2.5", {}, "expected a whole number"),
    ("trainer.lr=fast", {}, "trainer.lr: expected a number"),
    ("trainer.lr=-1", {}, "expected a rate above 0"),
    ("trainer.batch_size=0", {}, "expected a whole number from 1"),
    ("trainer.max_training_steps=many", {}, "expected a whole number"),
    ("trainer.max_training_steps=50", {}, "60000 is more than trainer.max_training_steps 50"),
    ("experiment.seed=True", {}, "expected a whole number"),
    ("experiment.seed=-1", {}, "leaves the original unseeded"),
    ("experiment.evaluate_segmentation=1", {}, "expected True or False"),
    ("experiment.evaluate_segmentation=yes", {}, "expected True or False"),
    ("dropout=0.3", {}, "say model.resid_pdrop, model.embd_pdrop and model.attn_pdrop"),
    ("trainer.weight_decay=0.1", {}, "no weight decay"),
    ("use_cpu=True", {}, "plan.device"),
    ("dataset=random_uniform", {}, "dataset.subconfig=Uniform or dataset.subconfig=Unigram"),
    ("subsample_type=chars", {}, "examples, words or tokens"),
    ("dataset.valid_size=500", {}, "rows that are left out for age or speaker count too"),
    ("data_preprocessing.join_utts=both", {}, "expected dynamic, static or None"),
    ("data_preprocessing.subsample=3 data_preprocessing.subsample_type=lines", {}, "examples, words or tokens"),
    ("subsample=3 join_utts=static", {}, "3 chunks are 192"),
    ("subsample=3 dataset.num_examples=4", {}, "says it too"),
    ("dry_run=True subsample=3", {}, "leave the subsample out"),
    ("experiment.dry_run=maybe", {}, "expected True or False"),
    ("max_input_length=300", {}, "max_positions"),
    ("remove_word_boundaries=False", {}, "word boundaries in the text"),
    ("dataset=childes_english_text", {}, "is a tokenizer of phonemes"),
    ("dataset=childes_english_text tokenizer=childes_english_text_bpe", {}, "BPE has none"),
    ("dataset=babylm_strict_phoneme tokenizer=babylm_phoneme_bpe_spaceless", {}, "pieces of words"),
    ("tokenizer.name=gpt2", {}, "does not tell"),
    ("tokenizer.vocab_size=7", {}, "tokenizer.vocab_size: unknown key"),
    ("experiment.evaluate_babyslm=True", {}, "name their folder with --babyslm"),
    ("experiment.evaluate_babyslm=True dataset.subconfig=French", {"babyslm": "x"}, "BabySLM is English"),
    ("", {"babyslm": "x"}, "say experiment.evaluate_babyslm=True"),
    ("experiment.blimp_tasks=blimp_filtered", {}, "name them with --blimp"),
    ("experiment.blimp_tasks=blump", {"blimp": ("x",)}, "expected blimp_filtered or blimp_supplement"),
    ("experiment.blimp_tasks=null", {"blimp": ("x",)}, "is empty"),
    ("segmentation_subsample=25000", {}, "--segmentation-utterances"),
    ("evaluate_segmentation=False", {"baselines": True}, "--baselines"),
    ("evaluate_segmentation=False", {"published_thresholds": True}, "--published-thresholds"),
    ("evaluate_segmentation=False", {"utterances": 3}, "--segmentation-utterances"),
    ("valid_size=1000", {}, "add --val-share S with S = 1000"),
    ("valid_size=1000", {"valid": ("v.csv",)}, "--valid names the validation set"),
    ("", {"valid": ("v.csv",), "val_share": 0.1}, "keep one"),
    ("", {"val_share": 1.5}, "between 0 and 1"),
    ("", {"data": ()}, "--data FILE: is missing"),
    ("", {"data": ("folder",)}, "does not tell what it holds"),
    ("", {"data": ("a.csv", "b.txt")}, "one kind"),
    ("dataset.max_age=30", {"data": ("a.txt",)}, "dataset.max_age: chooses rows of a table"),
    ("experiment.resume_checkpoint_path=checkpoints/x", {}, "goes on by itself"),
    ("experiment.resume_run_id=abc", {}, "goes on by itself"),
    ("resubmit_after=11", {}, "lexarium train --requeue-after HOURS"),
    ("experiment.requeue_after=11", {}, "lexarium train --requeue-after HOURS"),
    ("wandb.project=x", {}, "no tracker is called"),
    ("experiment.wandb_entity=x", {}, "no tracker is called"),
    ("trainer.report_to=wandb", {}, "no tracker is called"),
    ("trainer.push_to_hub=True", {}, "lexarium export"),
    ("trainer.hub_token=x", {}, "lexarium export"),
    ("HF_READ_TOKEN=x", {}, "lexarium export"),
    ("hydra.run.dir=x", {}, "how Hydra runs"),
    ("hydra/launcher=slurm", {}, "how Hydra runs"),
    ("momentum=0.9", {}, "model of 2022"),
    ("configs/sweep.yaml", {}, "files of 2022"),
    ("model=gpt2_400k,gpt2_600k", {}, "sweep"),
    ("model.model_kwargs={n_layer:3}", {}, "one by one"),
    ("~model.n_layer", {}, "deletes a key"),
    ("trainer.lr=", {}, "has no value"),
    ("trainer.lr", {}, "expected key=value"),
    ("=3", {}, "expected key=value"),
]  # fmt: skip


@pytest.mark.parametrize(
    "overrides, options, told", REFUSED, ids=[f"{row[0]} {list(row[1])}" for row in REFUSED]
)
def test_refusals_name_the_key_and_say_what_to_do(overrides: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        convert_with(overrides, **options)
    assert told in str(error.value)


def test_all_problems_of_keys_are_told_together() -> None:
    with pytest.raises(UserError) as error:
        convert_with("trainer.lrr=1 model.depth=3")
    assert "trainer.lrr" in str(error.value) and "model.depth" in str(error.value)
    with pytest.raises(UserError) as error:
        convert_with("wandb.project=x resubmit_after=3")
    assert len(str(error.value).splitlines()) == 2


# --- the tables ---------------------------------------------------------------------------------------


def test_tables_agree_with_each_other_and_with_the_presets() -> None:
    for name, (family, width) in MODELS.items():
        assert family == "llama" or PRESETS[name]["d_model"] == width
        assert family not in ("gpt2", "gpt2_feature") or "d_ff" not in PRESETS[name], "4 * d_model"
    for groups in (DATASETS, TOKENIZERS, EXPERIMENTS):
        for content in groups.values():
            assert set(content) <= set(KEYS)
    for content in TOKENIZERS.values():
        kind_of(content["tokenizer.name"])


@pytest.mark.parametrize("size", ["TXT", "PHON"])
@pytest.mark.parametrize("unit", ["BPE", "CHAR"])
@pytest.mark.parametrize("end", ["", "-SPACELESS"])
def test_names_of_tokenizers_in_the_papers(size: str, unit: str, end: str) -> None:
    kind = kind_of(f"phonemetransformers/BABYLM-TOKENIZER-{unit}-{size}{end}")
    assert (kind.phonemes, kind.bpe, kind.spaceless) == (size == "PHON", unit == "BPE", bool(end))


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_scalars_are_read_as_they_are_written(value: Any) -> None:
    written = {None: "null", True: "True", False: "false"}.get(value) if not isinstance(value, int | float) or isinstance(
        value, bool
    ) else repr(value)  # fmt: skip
    key, found = read(f"trainer.lr={written}", list(KEYS))
    assert key == "trainer.lr" and found == value and type(found) is type(value)


@given(st.text(alphabet="abc,[]{}=+~ ", max_size=8))
def test_quoted_text_is_taken_as_it_is(text: str) -> None:
    assert read(f"experiment.name='{text}'", list(KEYS)) == ("experiment.name", text)


def test_numbers_may_have_underscores() -> None:
    assert read("trainer.num_warmup_steps=60_000", list(KEYS))[1] == 60_000
    assert read("experiment.name=gpt2_5M-01", list(KEYS))[1] == "gpt2_5M-01"
    assert read("experiment.name=3.4.5", list(KEYS))[1] == "3.4.5"


# --- the command, and a run ---------------------------------------------------------------------------


def test_the_command_refuses_to_requeue(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--requeue-after", "--resubmit_after"):
        assert main(["import", "segmentation", "--data", "a.csv", flag, "11"]) == 2
        assert "lexarium train --requeue-after HOURS" in capsys.readouterr().err


def test_the_default_command_prints_a_run_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "segmentation", "--data", "a.csv"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Written by `lexarium import segmentation` from no overrides: the default run.")
    assert validate(RunConfig, parse_yaml(out, "out")).model.preset == "gpt2_85M"


def corpus_file(folder: Path) -> Path:
    """A table of 120 utterances of three phonemes; every fourth is a child's, every fifth by an older one."""
    dice, lines = random.Random(1), ["target_child_age,is_child,phonemized_utterance"]
    lexicon = ["b a", "d i b", "t̠ʃ a", "d a", "i t̠ʃ"]
    for i in range(120):
        words = [dice.choice(lexicon) for _ in range(dice.randint(1, 4))]
        utterance = "".join(f"{word} WORD_BOUNDARY " for word in words).strip()
        lines.append(f"{'130.0' if i % 5 == 0 else '24.5'},{i % 4 == 0},{utterance}")
    path = folder / "childes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("joined", ["static", "dynamic", "None"])
def test_a_tiny_run_trains(tmp_path: Path, joined: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "run.yaml"
    overrides = [
        "model=gpt2_400k", "model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.n_inner=16",
        f"data_preprocessing.join_utts={joined}", "data_preprocessing.max_input_length=32", "trainer.batch_size=4",
        "trainer.max_training_steps=2", "trainer.num_warmup_steps=1", "trainer.eval_steps=1",
        "experiment.evaluate_babyslm=True", "experiment.group=tiny",
    ]  # fmt: skip
    options = ["--data", str(corpus_file(tmp_path)), "--val-share", "0.2", "--baselines"]
    options += ["--babyslm", str(babyslm(tmp_path / "slm")), "-o", str(target)]
    assert main(["import", "segmentation", *options, *overrides]) == 0
    assert f"lexarium train {target} --runs-dir checkpoints/tiny" in capsys.readouterr().err
    assert main(["check", str(target)]) == 0
    runs = tmp_path / "runs"
    assert main(["train", str(target), "--runs-dir", str(runs), "--json"]) == 0
    (run,) = runs.glob("utterances-*")
    loss = "loss" if joined == "None" else "window_loss"
    steps = {0, 1, 2}
    for name, at in {
        loss: steps,
        "segmentation": steps,
        "babyslm": steps,
        "segmentation_baselines": {2},
    }.items():
        results = {int(file.stem[5:]): file for file in (run / "evals" / name).glob("*.json")}
        assert set(results) == at
    measured = json.loads((run / "evals/segmentation/step-00000002.json").read_text("utf-8"))["metrics"]
    assert 0 < measured["val.boundary.peak.boundary_all.f"] <= 1 and not any(
        "alone" in name for name in measured
    )
    vocabulary = json.loads((run / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert set(vocabulary) == {"UNK", "PAD", "WORD_BOUNDARY", "UTT_BOUNDARY", "a", "b", "d", "i", "t̠ʃ"}
    (store,) = runs.glob("stores/*/manifest.json")
    left_out = json.loads(store.read_text("utf-8"))["mended"]
    assert left_out == {"too old": 120 // 5, "child speech": 120 * 4 // 5 // 4}
