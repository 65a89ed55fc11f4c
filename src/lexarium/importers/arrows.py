"""The configuration files and command lines of LLM-Arrows-of-Time (Papadopoulos, Wenger and Hongler 2024).

    lexarium import arrows --script train_gru configs/gru_med.json -d cuda:0 -o gru_med.yaml

Two generations of files are told apart by their keys: those of the paper's code (with `oscil_steps`, torchEnhanced
0.2.x, steps are minibatches) and those of the later one (with `tokenizer_path`, `permutation` or `cooldown_finish`, or
without a cosine; torchEnhanced 0.3.x, steps are updates). What the code did without saying so in the file is written
out: AdamW with the library's weight decay on all parameters, clipping to norm 1, overlapping windows, evaluations.

Choices that a file leaves open are options, each told when it matters: what an empty `embd_dropout` means, what a step
is, which windows are held out, the aggregation bug of torchEnhanced before 0.2.14. Refused: keys that the code does not
know or that have no counterpart, a tokenizer whose size is not the model's, several devices for one-device scripts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from lexarium.cli.options import Json
from lexarium.foundation.types import UserError
from lexarium.importers.arrows_model import architecture, dropout, length, vocabulary
from lexarium.importers.arrows_options import OPTIM, M, Meaning, Options, Script, Split, Steps, T
from lexarium.importers.arrows_rules import (
    batch,
    corpus,
    duration,
    in_steps,
    optimizer,
    place,
    reading,
    saving,
    schedule,
    validation,
)
from lexarium.importers.commented_json import read_json
from lexarium.importers.frame import (
    Draft,
    Force,
    Key,
    Output,
    Table,
    apply,
    deliver,
    flatten,
    refuse,
    to,
    used_by,
)

TRANSFORMER_KEYS: Table = {
    f"{M}.n_heads": Key(used_by(f"{M}.n_layers"), required=True),
    f"{M}.attn_length": Key(length, required=True),
    f"{M}.mlp_ratio": Key(used_by(f"{M}.n_layers"), default=4.0),
}
RECURRENT_KEYS: Table = {
    f"{M}.attn_length": Key(length, default=None),
    f"{M}.desired_attn_length": used_by(f"{M}.attn_length"),
}
KEYS: Table = {  # in the order in which the run file has them
    f"{T}.dataset_folder": Key(corpus, required=True),
    f"{M}.vocab_size": Key(vocabulary, required=True),
    f"{T}.backwards": Key(reading, default=None),
    f"{T}.permutation": used_by(f"{T}.backwards"),
    f"{M}.n_layers": Key(architecture, required=True),
    f"{M}.embed_dim": Key(used_by(f"{M}.n_layers"), required=True),
    f"{M}.dropout": Key(used_by(f"{M}.embd_dropout"), default=0.1),
    f"{M}.embd_dropout": Key(dropout, default=None),
    f"{OPTIM}.lr": Key(optimizer, required=True),
    f"{OPTIM}.warmup_steps": Key(schedule, required=True),
    f"{OPTIM}.oscil_steps": used_by(f"{OPTIM}.warmup_steps"),
    f"{OPTIM}.lr_shrink": used_by(f"{OPTIM}.warmup_steps"),
    f"{OPTIM}.lr_init": used_by(f"{OPTIM}.warmup_steps"),
    f"{OPTIM}.lr_min": used_by(f"{OPTIM}.warmup_steps"),
    f"{T}.cooldown_finish": used_by(f"{OPTIM}.warmup_steps"),
    f"{T}.batch_size": Key(batch, required=True),
    f"{T}.aggregate": Key(used_by(f"{T}.batch_size"), default=1),
    f"{T}.steps_to_train": Key(duration, default=None),
    f"{T}.step_log": to("train.log_every"),
    f"{T}.save_every": Key(saving, default=None),
    f"{T}.backup_every": in_steps("checkpoint.every"),
    f"{T}.valid_steps": Key(validation, required=True),
    f"{T}.val_batch_size": used_by(f"{T}.valid_steps"),
    f"{T}.fast_scrambling": refuse("it leaves out most of a huge data set; nothing needs it here", (None, False)),
    f"{T}.tokenizer_path": used_by(f"{M}.vocab_size"),
    f"{T}.state_save_loc": Key(place, default=None),
    f"{T}.save_loc": used_by(f"{T}.state_save_loc"),
}  # fmt: skip


def convert(data: dict[str, Any], options: Options, name: str) -> Draft:
    """The draft of a run from a file's content; raises UserError with all problems."""
    for device in options.devices:
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
            raise UserError(f"-d {device}: expected cpu, cuda, cuda:N or mps")
    if len(options.devices) > 1 and not all(re.fullmatch(r"cuda:\d+", d) for d in options.devices):
        raise UserError(
            f"-d {','.join(options.devices)}: several devices are numbered GPUs, like cuda:0,cuda:1"
        )
    if len(set(options.devices)) < len(options.devices):
        raise UserError(f"-d {','.join(options.devices)}: a device is named twice")
    if len(options.devices) > 1 and options.script is not Script.train_parallel:
        raise UserError(f"-d: {len(options.devices)} devices need --script train_parallel")
    draft = Draft(name, options)
    own = RECURRENT_KEYS if options.recurrent else TRANSFORMER_KEYS
    given = flatten(data)
    if options.recurrent is None and f"{M}.n_heads" not in given and f"{M}.n_layers" in given:
        raise UserError(
            f"{name}: {M}.n_heads: missing, so this is a recurrent model; --script train_gru or train_lstm"
        )
    if options.recurrent and f"{M}.n_heads" in given:
        raise UserError(
            f"{name}: {M}.n_heads: a recurrent model has none, so this is a GPT file: --script train_script"
        )
    apply({f"{M}.attn_length": own[f"{M}.attn_length"], **own, **KEYS}, given, draft)
    if options.devices:
        device = options.devices[0] if len(options.devices) == 1 else "cuda"
        draft.set("plan.device", device, f"-d {','.join(options.devices)}")
    return draft


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json", help="The file; comments are fine.")],
    script: Annotated[Script, typer.Option("--script", help="The program it is for.")] = Script.train_script,
    device: Annotated[
        str, typer.Option("-d", "--device", metavar="DEVICES", help="cpu, cuda:0, or cuda:0,cuda:1.")
    ] = "",
    tokenizer: Annotated[
        str | None,
        typer.Option("-t", "--tokenizer_path", metavar="PATH", help="The tokenizer's folder or file."),
    ] = None,
    project: Annotated[
        str | None, typer.Option("-p", "--project_name", metavar="NAME", help="Last part of --runs-dir.")
    ] = None,
    more_steps: Annotated[
        bool, typer.Option("-s", "--no_step_pickup", help="steps_to_train MORE steps; needs --from.")
    ] = False,
    from_run: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Directory of a finished run to go on from.")
    ] = None,
    embd_dropout: Annotated[
        Meaning, typer.Option("--embd-dropout", help="What an empty embd_dropout means.")
    ] = Meaning.code,
    legacy_aggregate: Annotated[
        bool, typer.Option("--legacy-aggregate", help="The bug of torchEnhanced before 0.2.14.")
    ] = False,
    steps: Annotated[
        Steps | None, typer.Option("--steps", help="What the file counts; empty = by its generation.")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="How windows are held out.")] = Split.contiguous,
    output: Output = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Arrows of Time: a JSON configuration of its train scripts.

    Example: lexarium import arrows --script train_gru gru_med.json -d cuda:0 -o gru_med.yaml
    """
    devices = tuple(d.strip() for d in device.split(",") if d.strip())
    options = Options(
        script, devices, tokenizer, project, more_steps, from_run, embd_dropout, legacy_aggregate, steps, split,
        str(output) if output else "FILE",
    )  # fmt: skip
    draft = convert(read_json(config), options, str(config))
    deliver(draft, f"Written by `lexarium import arrows` from {config} ({script}).", output, force, as_json)
