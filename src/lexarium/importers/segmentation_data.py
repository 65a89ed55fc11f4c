"""Rules of `segmentation` about data: corpus, tokenizer, what is trained on, and how utterances are joined.

The original reads its corpora from a hub. Here the user names files, tables as they are downloaded or lines of text;
the rules say which rows and which column of them, and where word boundaries are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexarium.corpora.reading import form_of
from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft, number, whole
from lexarium.importers.segmentation_groups import LANGUAGES
from lexarium.importers.segmentation_options import Form, Options, flag, why, words

PRE = "data_preprocessing"
VAL_SHARE = 0.05
TOKENS_PER_UTTERANCE = 13
"""(30,986,218 phonemes + 2,564,614 boundaries) / 2,564,614 utterances of English CHILDES, in whole tokens."""
TOKENS_PER_WORD = 3.8
"""21,096,863 tokens / 5.6 million words, the English training data."""


@dataclass(frozen=True)
class Kind:
    """What the name of a tokenizer says of it."""

    phonemes: bool
    bpe: bool
    spaceless: bool


def kind_of(name: str) -> Kind:
    """The kind of a tokenizer of the study, by its name; raises UserError for others."""
    parts = set(re.split(r"[-_/ ]", name.lower()))
    bpe, spaceless = "bpe" in parts, "spaceless" in parts
    if parts & {"phoneme", "phonemes", "phon"} or name.endswith("/CHILDES-Tokenizer"):
        return Kind(True, bpe, spaceless)
    if parts & {"gloss", "ortho", "txt", "text", "char"}:
        return Kind(False, bpe, spaceless)
    raise UserError(
        f"tokenizer.name: {name!r} does not tell whether it is of phonemes or of text, of symbols or BPE; choose with"
        " tokenizer=, like tokenizer=childes_english_phoneme"
    )


def tokenizer_of(draft: Draft) -> Kind:
    """The kind of this run's tokenizer."""
    return kind_of(words(draft, "tokenizer.name"))


def keeps_boundaries(draft: Draft) -> bool:
    """Whether the model reads word boundaries: neither the tokenizer nor the preprocessing takes them out."""
    return not tokenizer_of(draft).spaceless and not flag(draft, f"{PRE}.remove_word_boundaries")


def form(draft: Draft) -> Form:
    """How the data are written."""
    chosen: Form | None = draft.options.form
    return chosen or (Form.symbols if flag(draft, "dataset.is_phonemes") else Form.letters)


# --- corpus -------------------------------------------------------------------------------------------


def corpus(draft: Draft, key: str, value: Any) -> None:
    """Files, the column of a table, and which of its rows."""
    options: Options = draft.options
    if not options.data:
        raise UserError(
            f"--data FILE: is missing; {words(draft, 'dataset.name')} is not downloaded. Name its file, a table with"
            f" the column {words(draft, key)!r} (csv, tsv, jsonl, parquet), or lines of utterances (txt)"
        )
    draft.set("corpus.type", "utterances", why(draft, "dataset", "dataset.name"))
    for file in (*options.data, *options.valid):
        if not Path(file).expanduser().exists():
            draft.note(f"{file} is not here: `lexarium train` needs it where the run file says")
    draft.set("corpus.path", list(options.data) if len(options.data) > 1 else options.data[0], "--data")
    if options.valid:
        draft.set(
            "corpus.val_path", list(options.valid) if len(options.valid) > 1 else options.valid[0], "--valid"
        )
    told = "--form" if options.form else why(draft, "dataset.is_phonemes")
    draft.set("corpus.form", form(draft).value, told)
    if _table(options.data + options.valid):
        draft.set("corpus.column", words(draft, key), why(draft, key))
        _rows(draft)
    else:
        _no_rows(draft)
    if draft.given["dataset.subconfig"] == "German":
        draft.set("corpus.repair", ["misspelt"], "German has the marker WORD_BOUNDaRY too")


def _table(files: tuple[str, ...]) -> bool:
    """Whether the files are tables; raises UserError for names that do not tell, and for a mixture."""
    forms = {file: form_of(Path(file))[0] for file in files}
    for file, found in forms.items():
        if found is None:
            raise UserError(
                f"--data {file}: the name does not tell what it holds; name files, tables as .csv, .tsv, .jsonl or"
                " .parquet, lines of utterances as .txt"
            )
    tables = {found != "text" for found in forms.values()}
    if len(tables) > 1:
        raise UserError(f"--data: {', '.join(files)} are tables and lines of text; give one kind")
    return tables.pop()


def _rows(draft: Draft) -> None:
    if draft.given.get("dataset.max_age") is not None:
        age = number(draft, "dataset.max_age")
        draft.set(
            "corpus.max_age", age, why(draft, "dataset.max_age", more="months; rows without an age go too")
        )
    if flag(draft, "dataset.remove_child_utterances"):
        told = "as PhonemeTransformers; TransformerSegmentation kept them"
        draft.set("corpus.children", "drop", why(draft, "dataset.remove_child_utterances", more=told))


def _no_rows(draft: Draft) -> None:
    """Lines of text have no columns to choose rows by."""
    for key in ("dataset.max_age", "dataset.remove_child_utterances"):
        if draft.given.get(key) in (None, False):
            continue
        if not draft.options.origins.get(key):
            raise UserError(f"{key}: chooses rows of a table, and --data is lines of text; give the table")
        draft.note(
            f"{draft.told(key)} is left out: --data is lines of text, which have no ages and no speakers; give the"
            " table where rows are to be chosen"
        )


def subconfig(draft: Draft, key: str, value: Any) -> None:
    """The language, or the part of BabyLM; the file itself is the user's."""
    name = words(draft, key)
    if name == "strict-small":
        draft.note("dataset.subconfig: 'strict-small' is spelt strict_small where it works")
    drawn = name in ("Uniform", "Unigram")
    if drawn:
        draft.note(
            f"{draft.told(key)}: --data may be any corpus in that form; its symbols are drawn anew, lengths stay"
        )
    elif not draft.options.origins.get(key):
        draft.note(f"{draft.told(key)}: --data must be the files of it; nothing is downloaded")
    if drawn:  # drawn anew, a stream that was drawn at random already is one still
        told = f"{draft.told(key)}: a stream of symbols drawn at random"
        draft.set("corpus.control", name.lower(), told)
        draft.set("corpus.control_boundaries", "draw", told)


def held_out(draft: Draft, key: str, value: Any) -> None:
    """The validation set: files of its own, or a share of the documents, spread evenly."""
    options: Options = draft.options
    given, told = value is not None, draft.told(key)
    if options.valid:
        if options.val_share is not None:
            raise UserError("--val-share: --valid names the validation set; keep one")
        if given and not options.origins.get(key):
            raise UserError(f"{told}: --valid names the validation set, whole; leave the key out")
        return
    if given and not options.origins.get(key) and options.val_share is None:
        raise UserError(
            f"{told}: utterances are held out as a share here; add --val-share S with S = {whole(draft, key, 1)} / the"
            " number of utterances in the file (rows that are left out for age or speaker count too), or --valid FILE"
        )
    share = VAL_SHARE if options.val_share is None else options.val_share
    if not 0 < share < 1:
        raise UserError(f"--val-share {share}: expected a share between 0 and 1")
    wanted = f"{whole(draft, key, 1):,}" if given else "10,000 unless said otherwise"
    source = "--val-share" if options.val_share is not None else "no --valid and no --val-share"
    draft.set("corpus.split.by", "document", "the original held out evenly spaced utterances")
    draft.set("corpus.split.val", share, f"{source}; the original held out {wanted}")
    if options.val_share is None:
        draft.note(
            f"held out are {share:.0%} of the utterances, evenly spread; the original held out {wanted}: say"
            " --val-share, or --valid FILE for its own validation set (they must fill one window at least)"
        )


# --- tokenizer ----------------------------------------------------------------------------------------


def tokenizer(draft: Draft, key: str, value: Any) -> None:
    """Symbols or byte-level BPE, made anew from the training data, and where word boundaries are."""
    kind, told = tokenizer_of(draft), why(draft, "tokenizer", key)
    phonemes = flag(draft, "dataset.is_phonemes")
    if kind.phonemes != phonemes:
        raise UserError(
            f"{draft.told('tokenizer')}: is a tokenizer of {'phonemes' if kind.phonemes else 'text'}, and"
            f" {draft.told('dataset')} has {'phonemes' if phonemes else 'text'}; choose another with tokenizer= or"
            " dataset="
        )
    if kind.bpe:
        bpe(draft, kind, told)
    else:
        draft.set("tokenizer.type", "symbol", told)
        letters = form(draft) is Form.letters
        draft.set("tokenizer.unit", "character" if letters else "symbol", told)
        draft.set("tokenizer.min_count", 10, "the study's vocabularies hold what occurs more than 10 times")
        if not kind.phonemes:
            draft.set("corpus.case", "lower", f"{told}; it lower-cases")
            draft.set("corpus.accents", "strip", f"{told}; it strips accents")
            draft.set("corpus.normalise", "NFD", told)
    draft.note("the tokenizer is made from the training data; the original's is not downloaded")
    boundaries(draft, kind)


def bpe(draft: Draft, kind: Kind, told: str) -> None:
    """Pieces of words; the marks of the original's vocabulary that ours lacks are made up by merges."""
    small = "childes" in words(draft, "tokenizer.name").lower()
    draft.set("tokenizer.type", "bpe", told)
    draft.set("tokenizer.vocab_size", 8192 if small else 16_000, told)
    if kind.phonemes and form(draft) is Form.symbols:
        draft.set("corpus.joined", True, f"{told}; it takes the spaces between phonemes out")
    draft.note(
        "BPE here has one mark where the original has three (UTT_BOUNDARY, PAD, UNK), so two more merges, no space"
        " before the first word, and learns from all training data (the original's of BabyLM from strict_small)"
    )


def boundaries(draft: Draft, kind: Kind) -> None:
    """In the text, or known to evaluations alone."""
    key = f"{PRE}.remove_word_boundaries"
    if flag(draft, key) and kind.bpe and not kind.spaceless:
        raise UserError(
            f"{key}: True takes ids of WORD_BOUNDARY out, and BPE has none; say {key}=False, or choose a tokenizer"
            " whose name ends in _spaceless"
        )
    keeps = keeps_boundaries(draft)
    draft.set(
        "corpus.boundaries", "token" if keeps else "channel", why(draft, key, "tokenizer", more="" if keeps else (
            "the model does not see them, evaluations know them"))
    )  # fmt: skip


# --- what is trained on -------------------------------------------------------------------------------


def subsample(draft: Draft, key: str, value: Any) -> None:
    """A random part of the training utterances, whole ones, that holds so many of a unit."""
    old = "dataset.num_examples"
    if draft.given.get(old) is not None:
        if value is not None:
            raise UserError(f"{old}: {draft.told(key)} says it too; keep one")
        documents(draft, old, "of 2024's first half; evenly spaced there, drawn here")
        return
    unit = draft.given.get(f"{PRE}.subsample_type") or "examples"
    if unit not in ("examples", "words", "tokens"):
        raise UserError(f"{PRE}.subsample_type: expected examples, words or tokens, found {unit!r}")
    if value is None:
        return
    count, told = whole(draft, key, 1), why(draft, key, f"{PRE}.subsample_type")
    length, static = whole(draft, f"{PRE}.max_input_length", 1), draft.given[f"{PRE}.join_utts"] == "static"
    if unit == "examples" and static:
        raise UserError(
            f"{draft.told(key)}: examples with join_utts=static are utterances in one version of the code and chunks of"
            f" {length} tokens in another; say data_preprocessing.subsample_type=tokens with the number of tokens"
            f" ({count} chunks are {count * length}), or words"
        )
    if unit == "examples":
        documents(draft, key, "an example is an utterance")
        return
    if unit == "tokens":
        # comments of two of its files call the number one of words: a trap
        told += (
            f"; TOKENS, about {count / TOKENS_PER_WORD:,.0f} words of English CHILDES, whatever comments of the"
            " original say"
        )
    draft.set("view.subsample.unit", unit, told)
    draft.set("view.subsample.count", count, told)
    if unit == "tokens" and static:
        stretch = max(1, round(length / TOKENS_PER_UTTERANCE))
        draft.set(
            "view.subsample.stretch",
            stretch,
            f"utterances that stay together, about a chunk of {length} tokens",
        )
    draft.set("view.subsample.seed", whole(draft, "experiment.seed"), why(draft, "experiment.seed"))


def documents(draft: Draft, key: str, more: str) -> None:
    """So many utterances."""
    draft.set("view.subsample.unit", "documents", why(draft, key, more=more))
    draft.set("view.subsample.count", whole(draft, key, 1), why(draft, key))
    draft.set("view.subsample.seed", whole(draft, "experiment.seed"), why(draft, "experiment.seed"))


def joining(draft: Draft, key: str, value: Any) -> None:
    """Windows of joined utterances in corpus order or in a new one every epoch, or one utterance per example."""
    length = f"{PRE}.max_input_length"
    n, told = whole(draft, length, 3), why(draft, key)
    if value is None:
        draft.set("packing.type", "documents", told)
        more = "less the boundaries before and behind; longer ones were cut there, and are refused here"
        draft.set("packing.max_length", n - 2, why(draft, length, more=more))
        draft.set("objective.bos", True, "UTT_BOUNDARY stands before an utterance")
        draft.set("objective.eos", True, "and behind it")
        return
    orders = {
        "dynamic": ("each_epoch", "neighbours of utterances change every epoch"),
        "static": ("corpus", "utterances joined in corpus order, windows cut once and shuffled"),
    }
    if value not in orders:
        raise UserError(f"{key}: expected dynamic, static or None, found {value!r}")
    order, more = orders[value]
    draft.set("packing.type", "windows", told)
    draft.set("packing.seq_len", n, why(draft, length))
    draft.set("packing.separator", True, "UTT_BOUNDARY between utterances")
    draft.set("packing.order", order, why(draft, key, more=more))
    draft.set("objective.bos", False, "the first symbol of a window is read, not predicted")
    draft.set("objective.eos", False, "windows have no end")


def thinned(draft: Draft, key: str, value: Any) -> None:
    """A dry run takes a tenth of the data, and so few steps (`compose` sets them)."""
    if not flag(draft, key):
        return
    if any(draft.given.get(k) is not None for k in (f"{PRE}.subsample", "dataset.num_examples")):
        raise UserError(f"{key}: takes a tenth of training and validation data; leave the subsample out")
    told = why(draft, key, more="every tenth utterance there, the first tenth here")
    draft.set("view.fraction", 0.1, told)
    draft.set("view.splits", ["train"] if draft.options.valid else ["train", "val"], told)


NO_STIMULI = frozenset(LANGUAGES) - {"English", "EnglishNA", "EnglishUK"}
"""Languages for which there is no BabySLM."""
