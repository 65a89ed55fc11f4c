"""The command lines of TransformerSegmentation and PhonemeTransformers (Goriely and Buttery 2024, 2025).

    lexarium import segmentation --data childes.csv model=gpt2_5M data_preprocessing.join_utts=static -o run.yaml

Their train.py takes a configuration composed by Hydra and overrides on the command line. The overrides are the
arguments here; groups (`model=`, `dataset=`, `tokenizer=`, `experiment=`) are known by what is in their files. Without
overrides the result is the default run: gpt2_85M on English CHILDES phonemes, dynamic joining, length 64, 200,000
steps. A key is given with its section or by its last name alone, where one section has it.

What the original reads from a hub is named by options: the corpus (`--data`, `--valid`), stimuli (`--babyslm`,
`--blimp`), the table of features (`--phoible`). Refused: keys of trackers and hubs, sweeps, resumed and requeued runs
(`lexarium train` does these), pretrained weights, segmentation where the model reads word boundaries or pieces of
words, and combinations whose meaning differs between versions of the code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lexarium.cli.options import Json
from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft, Force, Key, Output, Table, apply, deliver, refuse, used_by
from lexarium.importers.segmentation_data import (
    corpus,
    held_out,
    joining,
    subconfig,
    subsample,
    thinned,
    tokenizer,
)
from lexarium.importers.segmentation_groups import RESTART, compose
from lexarium.importers.segmentation_options import (
    BabySLM,
    Baselines,
    BLiMP,
    Data,
    FormOption,
    Options,
    Overrides,
    Phoible,
    Published,
    Requeue,
    Scored,
    Valid,
    ValShare,
)
from lexarium.importers.segmentation_training import (
    FAMILIES,
    class_name,
    evaluations,
    model,
    name,
    offline,
    place,
    pretrained,
    rate,
    seed,
    size,
    training,
)

PRE = "data_preprocessing"
GOES_ON = "a run of ours goes on by itself: lexarium train RUN, or the same command again"
ARGUMENTS = dict.fromkeys(argument for family in FAMILIES.values() for argument in family)
KEYS: Table = {  # in the order in which the run file has them
    "experiment": used_by("all that it sets"),
    "dataset": used_by("dataset.text_column"),
    "dataset.name": used_by("dataset.text_column"),
    "dataset.text_column": corpus,
    "dataset.is_phonemes": used_by("dataset.text_column"),
    "dataset.max_age": used_by("dataset.text_column"),
    "dataset.remove_child_utterances": used_by("dataset.text_column"),
    "dataset.subconfig": subconfig,
    "dataset.valid_size": Key(held_out, default=None),
    "dataset.num_examples": used_by(f"{PRE}.subsample"),
    "tokenizer": used_by("tokenizer.name"),
    "tokenizer.name": tokenizer,
    f"{PRE}.remove_word_boundaries": used_by("tokenizer.name"),
    f"{PRE}.subsample": subsample,
    f"{PRE}.subsample_type": used_by(f"{PRE}.subsample"),
    f"{PRE}.join_utts": joining,
    f"{PRE}.max_input_length": used_by(f"{PRE}.join_utts"),
    "model": model,
    "model.name": class_name,
    "model.name_or_path": pretrained,
    **{f"model.{argument}": size for argument in ARGUMENTS},
    "trainer.max_training_steps": training,
    "trainer.batch_size": used_by("trainer.max_training_steps"),
    "trainer.num_warmup_steps": used_by("trainer.max_training_steps"),
    "trainer.logging_steps": used_by("trainer.max_training_steps"),
    "trainer.save_steps": used_by("trainer.max_training_steps"),
    "trainer.lr": rate,
    "trainer.eval_steps": used_by("experiment.evaluate_segmentation"),
    "experiment.evaluate_segmentation": evaluations,
    "experiment.segmentation_subsample": used_by("experiment.evaluate_segmentation"),
    "experiment.evaluate_babyslm": used_by("experiment.evaluate_segmentation"),
    "experiment.blimp_tasks": used_by("experiment.evaluate_segmentation"),
    "experiment.seed": seed,
    "experiment.dry_run": thinned,
    "experiment.offline_run": offline,
    "experiment.name": name,
    "experiment.group": Key(place, default=None),
    "experiment.resume_checkpoint_path": refuse(GOES_ON),
    "experiment.resume_run_id": refuse(GOES_ON),
}


def convert(overrides: Iterable[str], options: Options, label: str = "overrides") -> Draft:
    """The draft of a run from overrides; raises UserError."""
    values, origins = compose(overrides, KEYS)
    draft = Draft(label, replace(options, origins=origins))
    apply(KEYS, values, draft)
    return draft


def command(
    overrides: Overrides = None,
    data: Data = None,
    valid: Valid = None,
    val_share: ValShare = None,
    form: FormOption = None,
    phoible: Phoible = None,
    babyslm: BabySLM = None,
    blimp: BLiMP = None,
    utterances: Scored = None,
    published_thresholds: Published = False,
    baselines: Baselines = False,
    requeue_after: Requeue = None,
    output: Output = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Word segmentation: overrides of TransformerSegmentation's and PhonemeTransformers' train.py.

    Example: lexarium import segmentation --data childes.csv model=gpt2_5M experiment.seed=1 -o run.yaml
    """
    if requeue_after is not None:
        raise UserError(f"--requeue-after, --resubmit_after: {RESTART}")
    given = tuple(overrides or ())
    options = Options(
        data=tuple(data or ()), valid=tuple(valid or ()), val_share=val_share, form=form, phoible=phoible,
        babyslm=babyslm, blimp=tuple(blimp or ()), utterances=utterances, published_thresholds=published_thresholds,
        baselines=baselines, target=str(output) if output else "FILE",
    )  # fmt: skip
    draft = convert(given, options)
    told = " ".join(given) or "no overrides: the default run"
    deliver(draft, f"Written by `lexarium import segmentation` from {told}.", output, force, as_json)
