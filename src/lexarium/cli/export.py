"""`lexarium export`: a corpus as text or as ids, or a trained model as a folder of its own.

lexarium export STUDY --to tsv --split ood -o ood.tsv      a split, in the released tab format
lexarium export STUDY --to bin --split train -o train.bin  its ids, as nanoGPT reads them (h5, npy: other forms)
lexarium export RUN --to weights -o model/                 weights, tokenizer, configuration, model card
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import Overrides, Preset, RunsDir, Select, Step, Target, Trust
from lexarium.foundation.types import UserError

if TYPE_CHECKING:
    from lexarium.foundation.types import Document
    from lexarium.studies.run import Run
    from lexarium.studies.run_config import RunConfig
    from lexarium.tokens.store import TokenStore, ViewConfig


class Form(StrEnum):
    """What can be exported."""

    tsv = "tsv"
    h5 = "h5"
    bin = "bin"
    npy = "npy"
    weights = "weights"


def export(
    what: Target,
    overrides: Overrides = None,
    to: Annotated[
        Form,
        typer.Option(
            "--to", help="tsv, or h5, bin, npy (ids): a split of the corpus; weights: a trained model."
        ),
    ] = ...,  # type: ignore[assignment]
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="The file, or new folder (weights)."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="SPLIT", help="train, val, test, ood, ...")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="The split as generated, not as the point's view keeps it.")
    ] = False,
    separator: Annotated[
        int | None,
        typer.Option(
            "--separator", metavar="ID", min=0, help="h5, bin, npy: an id to put after every document."
        ),
    ] = None,
    step: Step = None,
    preset: Preset = None,
    select: Select = None,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
) -> None:
    """Export a split of a corpus, as text in the released tab format or as ids, or a trained model with its tokenizer.

    Examples: lexarium export hierarchical-generalization --to tsv --split ood -o ood.tsv;
    lexarium export RUN --to bin --split train -o train.bin;
    lexarium export RUN --to weights -o model
    """
    talk = Talk()
    if output is None:
        raise UserError(f"-o: say where to write, for example -o {'ood.tsv' if to is Form.tsv else 'model'}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"-o {output}: there is no directory {output.parent}")
    if to is Form.weights:
        given = {"--split": split, "--whole": whole, "--select": select, "--preset": preset}
        _only_a_run({**given, "--separator": separator is not None}, overrides)
        return _weights(talk, what, runs_dir, output, step, trust_plugins)
    if step is not None:
        raise UserError("--step: belongs to --to weights")
    if output.is_dir():
        raise UserError(f"-o {output}: is a directory; give the name of a file")
    if to is not Form.tsv:
        store, seen = _store(talk, what, runs_dir, preset, overrides or (), select, trust_plugins)
        return _ids(talk, store, None if whole else seen, output, to.value, split, separator)
    config = _config(what, runs_dir, preset, overrides or (), select, trust_plugins)
    if separator is not None:
        raise UserError("--separator: belongs to --to h5, bin and npy")
    return _tsv(talk, config, runs_dir, output, split, whole)


def _only_a_run(given: dict[str, Any], overrides: Sequence[str] | None) -> None:
    """Refuse options that say nothing about a trained model."""
    for option, told in given.items():
        if told:
            raise UserError(f"{option}: belongs to the export of a corpus")
    if overrides:
        raise UserError(f"{overrides[0]!r}: a trained model is exported as it is")


# --- a corpus ---------------------------------------------------------------------------------------


def _config(
    what: str,
    runs_dir: Path,
    preset: str | None,
    overrides: Sequence[str],
    select: Sequence[str] | None,
    trust: bool,
) -> RunConfig:
    from lexarium.cli.target import load_target, parse_levels
    from lexarium.corpora.reading import COMPRESSIONS, FORMATS

    if Path(what).suffix in (*FORMATS, *COMPRESSIONS) and Path(what).exists():
        raise UserError(
            f"{what}: --to tsv writes sentence pairs as they are released; of text choose bin, h5 or npy"
        )
    found = load_target(what, runs_dir, preset, overrides, trust=trust)
    return found.points(runs_dir, parse_levels(select, "--select"))[0].config


def _tsv(talk: Talk, config: RunConfig, runs_dir: Path, output: Path, split: str | None, whole: bool) -> None:
    from lexarium.corpora.pairs import write_released
    from lexarium.studies.assembly import make

    corpus = make("corpus", config.corpus)
    _check_split(split, corpus.splits)
    assert split is not None
    seen = not whole and split in config.view.splits and _selects(config)
    documents = _viewed(talk, config, runs_dir, split) if seen else corpus.documents(split)
    n = write_released(documents, output)
    talk.say(f"{output}: {n:,} pairs of {split}" + (" that the point's view keeps" if seen else ""))


def _check_split(split: str | None, known: Sequence[str]) -> None:
    if split is None or split not in known:
        told = "say which" if split is None else f"no split {split!r}"
        raise UserError(f"--split: {told} (splits: {', '.join(known)})")


def _store(
    talk: Talk,
    what: str,
    runs_dir: Path,
    preset: str | None,
    overrides: Sequence[str],
    select: Sequence[str] | None,
    trust: bool,
) -> tuple[TokenStore, ViewConfig | None]:
    """A store by its folder, by its text, or by a study or run, with the view of the latter."""
    from lexarium.cli.prepare import build_store, groups_of
    from lexarium.tokens.store import TokenStore

    if (Path(what) / "manifest.json").exists() and not (Path(what) / "config.yaml").exists():
        store = TokenStore(Path(what))
        store.verify(remembered=True)
        return store, None
    (data, points), *others = groups_of(what, overrides, preset, runs_dir, trust)
    if points or others:
        config = _config(what, runs_dir, preset, overrides, select, trust)
        return build_store(config, runs_dir, 0, talk), config.view
    return build_store(data, runs_dir, 0, talk), None


def _ids(
    talk: Talk,
    store: TokenStore,
    seen: ViewConfig | None,
    output: Path,
    form: str,
    split: str | None,
    separator: int | None,
) -> None:
    from lexarium.tokens.export import write_tokens

    _check_split(split, store.splits)
    assert split is not None
    view = store.view(split, seen)
    n = write_tokens(store, view, output, form, separator)
    talk.say(f"{output}: {n:,} ids of {len(view):,} documents of {split}")


def _selects(config: RunConfig) -> bool:
    view = config.view
    return bool(view.keep or view.drop or view.quotas or view.fraction < 1 or view.subsample)


def _viewed(talk: Talk, config: RunConfig, runs_dir: Path, split: str) -> Iterator[Document]:
    """The documents of a split that the view keeps, as the corpus writes them."""
    from lexarium.cli.prepare import build_store
    from lexarium.studies.assembly import make

    kept = build_store(config, runs_dir, 0, talk).view(split, config.view).documents
    chosen = set(kept.tolist())
    documents = make("corpus", config.corpus).documents(split)
    return (document for i, document in enumerate(documents) if i in chosen)


# --- a model ----------------------------------------------------------------------------------------


def _weights(talk: Talk, what: str, runs_dir: Path, output: Path, step: Step, trust: bool) -> None:
    from lexarium.cli.target import find_run
    from lexarium.foundation.files import Directory, verify
    from lexarium.studies.assembly import load_model, resolve_step
    from lexarium.studies.run import Run
    from lexarium.tokens.tokenizers import FILES
    from lexarium.training import checkpoint

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"-o {output}: is there already; give a new folder")
    run = Run.open(find_run(what, runs_dir), trust)
    at = resolve_step(run, step)
    folder = checkpoint.directory(run.path, at)
    verify(folder)
    model, parts = load_model(run, at)
    if output.exists():
        output.rmdir()
    with Directory(output) as directory:
        directory.write("model.safetensors", (folder / "model.safetensors").read_bytes())
        for name in FILES:
            if (run.path / name).exists():
                directory.write(name, (run.path / name).read_bytes())
        directory.write("config.yaml", (run.path / "config.yaml").read_bytes())
        directory.write("README.md", model_card(run, at, model, parts.objective))
        directory.commit(run=run.path.name, step=at)
    talk.say(f"{output}: weights, tokenizer and configuration of {run.path.name} at step {at:,}")


CARD = """---
library_name: lexarium
tags: [language-model, lexarium]
---

# {name}

A {model} with {parameters:,} parameters, trained from scratch on the corpus `{corpus}` to step {step:,}
with the objective `{objective}`, reading {direction}. Seed {seed}.

| special token | id |
|---|---|
{roles}

The vocabulary has {vocab_size} ids; `tokenizer.json` holds those of the corpus, special tokens follow it.

## Results at this step

| metric | value |
|---|---|
{metrics}

## Loading

```python
from pathlib import Path

from lexarium.foundation.config import read_yaml, validate
from lexarium.models.build import build_model
from lexarium.studies.run_config import RunConfig
from lexarium.training.checkpoint import load_model

config = validate(RunConfig, read_yaml("config.yaml").sub("run"))
model = build_model(config.model, vocab_size={vocab_size}, seed=0)
load_model(Path("."), model)
```

`config.yaml` is the run's whole configuration; `lexarium train config.yaml` trains it again.
"""


def model_card(run: Run, step: int, model: Any, objective: Any) -> str:
    """README.md of an exported model."""
    from lexarium.models.layers import count_parameters

    c = run.config
    results = [
        f"| {name}.{metric} | {value} |"
        for name, at, metrics in run.files.evaluations()
        for metric, value in metrics.items()
        if at == step
    ]
    return CARD.format(
        name=run.path.name,
        model=c.model.type,
        parameters=count_parameters(model),
        corpus=c.corpus.type,
        step=step,
        objective=c.objective.type,
        direction=c.direction.type,
        seed=c.seed,
        roles="\n".join(f"| {role} | {i} |" for role, i in objective.roles.ids.items()),
        vocab_size=objective.vocab_size,
        metrics="\n".join(results) or "| none | |",
    )
