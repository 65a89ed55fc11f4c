"""The resolved configuration of one run: the factors that make a point, and what is said about its execution.

    corpus x tokenizer x view x packing x direction x objective x model x optimizer x schedule x start x seed

`RunConfig` is the schema of `config.yaml`. `check` refuses factors that do not fit together before
anything is built. `Identity` names the run: two configs with the same science have the same hash.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lexarium.foundation import registry, rng
from lexarium.foundation.config import ComponentConfig, Config, component, identity, outside_identity
from lexarium.foundation.files import sha256_file, sha256_json
from lexarium.foundation.types import Incompatible, UserError
from lexarium.tokens.prepare import corpus_identity, tokenizer_identity
from lexarium.tokens.store import ViewConfig
from lexarium.training.checkpoint import CheckpointConfig
from lexarium.training.trainer import TrainConfig

SCHEMA = 1


class SeedsConfig(Config):
    """Factor seeds; empty = derived from the run's seed. Pin one to hold a factor fixed over seeds."""

    init: int | None = None
    order: int | None = None
    dropout: int | None = None


class PlanConfig(Config):
    """How a run is executed. Changes rounding only, never the science."""

    device: str = outside_identity("auto")
    """auto, cpu, cuda, cuda:N or mps."""
    program: Literal["auto", "eager", "compiled", "captured"] = outside_identity("auto")
    """How a step is carried out: operator by operator, through torch.compile, or as one CUDA graph."""
    cohort: Literal["auto", "off"] | Annotated[int, Field(ge=2)] = outside_identity("auto")
    """Runs of a study trained as one stacked program: as many as pay on this device, `off`, or up to so many."""
    recompute: bool = outside_identity(False)
    """Activation checkpointing: keep less of the forward pass and compute it again. Less memory, a third more work."""
    threads: int = outside_identity(1, gt=0)
    """CPU threads of the process."""
    workers: int = outside_identity(0, ge=0)
    """Threads that prepare batches ahead of time."""

    @field_validator("cohort", mode="before")
    @classmethod
    def _cohort(cls, value: Any) -> Any:
        number = isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
        if value in ("auto", "off") or (number and int(value) >= 2):
            return value
        raise ValueError("expected auto, off, or a number of runs from 2 on")


class StopConfig(Config):
    """End training early when an evaluation on `val` says so. Part of the identity."""

    metric: str
    """`<evaluation>.<metric>`, for example `loss.val`."""
    above: float | None = None
    below: float | None = None
    patience: int = Field(0, ge=0)
    """End after so many evaluations in a row without improvement (0 = off); the direction is `better`."""
    better: Literal["lower", "higher"] = "lower"

    @model_validator(mode="after")
    def _some_rule(self) -> StopConfig:
        if self.above is None and self.below is None and not self.patience:
            raise ValueError("say when: above, below or patience")
        return self


def _default(kind: str, name: str) -> Any:
    return lambda: registry.find(kind, name).Config()


class DataConfig(Config):
    """A corpus and a tokenizer: what a token store is made of."""

    corpus: component("corpus")  # type: ignore[valid-type]
    tokenizer: component("tokenizer")  # type: ignore[valid-type]


class RunConfig(Config):
    """One point. Every default is written out in the run's `config.yaml`."""

    corpus: component("corpus")  # type: ignore[valid-type]
    tokenizer: component("tokenizer") = Field(default_factory=_default("tokenizer", "word"))  # type: ignore[valid-type]
    view: ViewConfig = ViewConfig()
    packing: component("packing") = Field(default_factory=_default("packing", "documents"))  # type: ignore[valid-type]
    direction: component("direction") = Field(default_factory=_default("direction", "forward"))  # type: ignore[valid-type]
    objective: component("objective") = Field(default_factory=_default("objective", "causal"))  # type: ignore[valid-type]
    model: component("model")  # type: ignore[valid-type]
    optimizer: component("optimizer") = Field(default_factory=_default("optimizer", "adamw"))  # type: ignore[valid-type]
    schedule: component("schedule") = Field(default_factory=_default("schedule", "constant"))  # type: ignore[valid-type]
    start: component("start") = Field(default_factory=_default("start", "scratch"))  # type: ignore[valid-type]
    train: TrainConfig = TrainConfig()
    stop_when: StopConfig | None = None
    checkpoint: CheckpointConfig = outside_identity(CheckpointConfig())
    plan: PlanConfig = outside_identity(PlanConfig())
    evaluations: tuple[component("evaluation"), ...] = outside_identity(())  # type: ignore[valid-type]
    seed: int = Field(1, ge=0)
    seeds: SeedsConfig = SeedsConfig()

    def factor_seed(self, name: str) -> int:
        """The seed of `init`, `order` or `dropout`."""
        pinned = getattr(self.seeds, name)
        return rng.key(self.seed, "factor", name) if pinned is None else rng.key(pinned, "factor", name)


def evaluation_name(config: Any) -> str:
    """Folder of an evaluation's results and first part of its metrics' names."""
    return config.name or config.type.rpartition(":")[2]


def splits_of(evaluation: Any) -> tuple[str, ...]:
    """Splits of the corpus that an evaluation looks at; none when it reads a file."""
    return () if getattr(evaluation, "data", None) is not None else getattr(evaluation, "splits", ())


def evaluation_identity(config: Any) -> dict[str, Any]:
    """What an evaluation measures: its type, version and options, but not when it runs or what it is called."""
    cls: Any = registry.find("evaluation", config.type)
    asked = {"type": config.type.rpartition(":")[2], "version": cls.version, **identity(config)}
    if hasattr(cls, "content"):  # of the files that its options name
        with contextlib.suppress(UserError):  # they are told missing when it is built
            asked["content"] = cls.content(config)
    data = getattr(config, "data", None)
    if isinstance(data, str) and Path(data).expanduser().is_file():
        asked["data_sha256"] = sha256_file(Path(data).expanduser())
    return asked


@dataclass(frozen=True)
class Identity:
    """What a run is, and the name that follows from it."""

    config: RunConfig
    files: dict[str, str] = field(default_factory=dict, compare=False)
    """Fingerprints of corpora already read, by config; pass one dictionary to many identities."""

    def part(self, name: str) -> dict[str, Any]:
        """`corpus` or `tokenizer`: the parts that make the data."""
        return self._corpus() if name == "corpus" else tokenizer_identity(self.config.tokenizer)

    def _corpus(self) -> dict[str, Any]:
        written = self.config.corpus.model_dump_json()
        if written not in self.files:
            self.files[written] = registry.find("corpus", self.config.corpus.type)(
                self.config.corpus
            ).fingerprint()
        return corpus_identity(self.config.corpus, self.files[written])

    @cached_property
    def data(self) -> dict[str, Any]:
        """Canonical data of everything that changes the science."""
        c = self.config
        found = identity(c)
        found["corpus"] = self._corpus()
        found["tokenizer"] = tokenizer_identity(c.tokenizer)
        start: Any = registry.find("start", c.start.type)
        found["start"]["weights"] = start(c.start).fingerprint()
        if c.stop_when:
            found["evaluations"] = [
                {
                    "type": e.type,
                    "version": registry.find("evaluation", e.type).version,
                    **identity(e),
                    "every": e.every,
                    "at": sorted(e.at),
                }
                for e in c.evaluations
                if evaluation_name(e) == c.stop_when.metric.split(".")[0]
            ]
        return {"schema": SCHEMA, **found}

    @cached_property
    def hash(self) -> str:
        """Ten hexadecimal digits."""
        return sha256_json(self.data)[:10]

    @property
    def name(self) -> str:
        """`<corpus>-<model>-<direction>-s<seed>-<hash>`: the run's directory."""
        c = self.config
        short = lambda component: component.type.rpartition(":")[2].replace("_", "-").lower()
        return f"{short(c.corpus)}-{short(c.model)}-{short(c.direction)}-s{c.seed}-{self.hash}"


# --- compatibility ----------------------------------------------------------------------------------


def check(config: RunConfig) -> None:
    """Raise Incompatible naming the first pair of factors that do not fit, and the legal partners."""
    objective: Any = registry.find("objective", config.objective.type)
    model: Any = registry.find("model", config.model.type)
    missing = model.needs - objective.produces
    if missing:
        partners = [
            n for n in registry.names("model") if registry.find("model", n).needs <= objective.produces
        ]
        raise Incompatible(
            f"model {config.model.type!r} needs the input {sorted(missing)[0]!r}, which objective"
            f" {config.objective.type!r} does not produce; models for this objective: {', '.join(partners) or 'none'}"
        )
    unread = objective.produces & {"source"} - model.consumes
    if unread:
        partners = [n for n in registry.names("model") if "source" in registry.find("model", n).consumes]
        raise Incompatible(
            f"objective {config.objective.type!r} gives a source to read, which model {config.model.type!r} ignores;"
            f" models for this objective: {', '.join(partners)}"
        )
    if "real" in objective.produces and "real" not in model.consumes:
        raise Incompatible(
            f"objective {config.objective.type!r} predicts at real tokens only, and model {config.model.type!r} does"
            " not take the input 'real', which says where they are: return hidden states (N, D) of those"
        )
    if getattr(config.objective, "document_mask", False) and "segment" not in model.consumes:
        raise Incompatible(
            f"objective.document_mask keeps documents apart by the input 'segment', which model"
            f" {config.model.type!r} does not take; leave it out, or use packing documents"
        )
    given, taken = (
        getattr(config.model, "n_intermediate", 0),
        getattr(config.objective, "intermediate_losses", 0),
    )
    if given != taken:
        raise Incompatible(
            f"objective.intermediate_losses: is {taken}, but {given} layers of model {config.model.type!r} predict"
            f" beside the last one (model.intermediate_outputs, model.n_layers); set it to {given}"
        )
    if getattr(config.objective, "loss", "") == "features" and not getattr(
        config.model, "predicts_features", False
    ):
        raise Incompatible(
            f"objective.loss: features, and model {config.model.type!r} as it is set does not predict features; set"
            " model.features (and tied: true), for example by preset gpt2_feature"
        )
    _check_direction(config, objective)
    _check_length(config)
    _check_evaluations(config, objective)


def check_splits(config: RunConfig) -> None:
    """Raise Incompatible when an evaluation looks at a split that the corpus does not have."""
    corpus: Any = registry.find("corpus", config.corpus.type)
    splits = corpus(config.corpus).splits if config.evaluations else ()
    kept = hasattr(registry.find("packing", config.packing.type), "held_out_windows")
    for evaluation in config.evaluations:
        windows = getattr(registry.find("evaluation", evaluation.type), "windows", False)
        for split in splits_of(evaluation):
            if split == "val" and kept and windows:  # the packing's own
                continue
            if split not in splits:
                near = difflib.get_close_matches(split, splits, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise Incompatible(
                    f"evaluation {evaluation_name(evaluation)!r}: the corpus has no split {split!r}{hint}; it has"
                    f" {', '.join(splits) or 'none'}"
                )


def _frame(config: RunConfig) -> int:
    """Tokens by which a row that the model reads is longer than its example: `bos` before it and `eos` after it where
    the objective has them, less the last token, which is only predicted."""
    return sum(bool(getattr(config.objective, role, True)) for role in ("bos", "eos")) - 1


def longest_row(config: RunConfig) -> int:
    """Tokens of the longest row that the model reads in training."""
    packing: Any = registry.find("packing", config.packing.type)(config.packing)
    return int(packing.longest) + _frame(config)


def _check_direction(config: RunConfig, objective: Any) -> None:
    name, direction = config.direction.type, registry.find("direction", config.direction.type)
    if direction.extra_tokens and not (
        getattr(objective, "starts", False) and getattr(config.objective, "bos", True)
    ):
        partners = [
            n for n in registry.names("objective") if getattr(registry.find("objective", n), "starts", False)
        ]
        raise Incompatible(
            f"direction {name!r} puts a token of its own in the place of bos, which objective"
            f" {config.objective.type!r} as it is set does not read; objectives that do: {', '.join(partners)},"
            " with objective.bos"
        )
    if not getattr(direction, "one_length", False):
        return
    seq_len, order = getattr(config.packing, "seq_len", None), getattr(config.direction, "order", None)
    if seq_len is None or (order is not None and len(order) != seq_len):
        raise Incompatible(
            f"direction {name!r} re-orders windows of one length"
            + (f", {len(order)} tokens," if order is not None else "")
            + f" but packing.seq_len is {seq_len} (packing {config.packing.type!r}); use packing windows of that length"
        )


def _check_length(config: RunConfig) -> None:
    packing: Any = registry.find("packing", config.packing.type)(config.packing)
    frame, bos = _frame(config), bool(getattr(config.objective, "bos", True))
    limit = getattr(config.model, "max_positions", None)
    rows = [(f"packing {config.packing.type!r}", packing.longest + frame, "the packing")]
    for e in config.evaluations:
        what, windows = f"evaluation {evaluation_name(e)!r}", "its windows"
        rows.append((what, (getattr(e, "seq_len", None) or 0) + frame, windows))
        rows.append((what, getattr(e, "reads", 0) + bos, windows))
    for what, length, shorter in rows:
        if limit is not None and length > limit:
            raise Incompatible(
                f"{what} makes rows of up to {length} tokens (frame included) but model.max_positions is {limit};"
                f" raise it or shorten {shorter}"
            )


def _check_evaluations(config: RunConfig, objective: Any) -> None:
    names = [evaluation_name(e) for e in config.evaluations]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise Incompatible(f"two evaluations are named {sorted(twice)[0]!r}; give one of them a `name`")
    for evaluation in config.evaluations:
        cls: Any = registry.find("evaluation", evaluation.type)
        # `asked`, where an evaluation has it: what it asks depends on its options
        asks = cls.asked(evaluation) if hasattr(cls, "asked") else cls.asks
        unanswered = asks - objective.answers - {"hidden"}
        if unanswered:
            raise Incompatible(
                f"evaluation {evaluation.type!r} asks for {sorted(unanswered)[0]!r}, which objective"
                f" {config.objective.type!r} cannot answer (it answers: {', '.join(sorted(objective.answers))})"
            )
        _check_windows(config, cls, evaluation, objective)
        if getattr(cls, "whole_texts", False) and "source" in objective.produces:
            raise Incompatible(
                f"evaluation {evaluation_name(evaluation)!r} scores whole texts, and objective"
                f" {config.objective.type!r} predicts only what follows its source"
            )
        directions = getattr(cls, "directions", None)
        if directions and config.direction.type not in directions:
            raise Incompatible(
                f"evaluation {evaluation.type!r} needs direction {' or '.join(directions)},"
                f" found {config.direction.type!r}"
            )
    named = dict(zip(names, config.evaluations, strict=True))
    if stop := config.stop_when:
        check_chooser("stop_when.metric", stop.metric, stop.better if stop.patience else "", named)
    if best := config.checkpoint.best:
        check_chooser("checkpoint.best.metric", best.metric, best.better, named)


def _check_windows(config: RunConfig, cls: Any, evaluation: Any, objective: Any) -> None:
    """Windows have a length and are read as a language model reads; a direction of one length reads no other."""
    windows = getattr(cls, "windows", False)
    asked, known = getattr(evaluation, "seq_len", None), getattr(config.packing, "seq_len", None)
    if windows and asked is None and known is None:
        raise Incompatible(
            f"evaluation {evaluation_name(evaluation)!r} cuts windows, and packing {config.packing.type!r} has no"
            " seq_len to cut by; set the evaluation's seq_len"
        )
    if windows and "source" in objective.produces:
        raise Incompatible(
            f"evaluation {evaluation_name(evaluation)!r} scores every token of a window, and objective"
            f" {config.objective.type!r} predicts only some; use evaluation loss"
        )
    one_length = getattr(registry.find("direction", config.direction.type), "one_length", False)
    if hasattr(cls, "mismatch"):  # it knows itself which windows it can ask about
        bos = getattr(config.objective, "bos", True)
        if why := cls.mismatch(evaluation, known if one_length else None, bos):
            raise Incompatible(f"evaluation {evaluation_name(evaluation)!r}: {why}")
        return
    if not one_length:
        return
    if not windows or asked not in (None, known):
        what = f"windows of {asked}" if asked else "documents or texts"
        raise Incompatible(
            f"evaluation {evaluation_name(evaluation)!r} asks about {what}, but direction"
            f" {config.direction.type!r} reads windows of {known} tokens only; use evaluation window_loss"
        )


def check_chooser(key: str, chooser: str, better: str, evaluations: Mapping[str, Any]) -> None:
    """A metric that chooses looks at `val`, during training, and the better of two values is the one that is wanted.
    Raises Incompatible that names `key`; better "" = no value is preferred."""
    evaluation, _, metric = chooser.partition(".")
    if evaluation not in evaluations:
        raise Incompatible(
            f"{key}: no evaluation is named {evaluation!r} (evaluations: {', '.join(evaluations) or 'none'})"
        )
    if metric.split(".")[0] != "val":
        raise Incompatible(
            f"{key}: {chooser!r} does not look at `val`; choosing by any other split would spoil it as a test"
        )
    if not evaluations[evaluation].every and not evaluations[evaluation].at:
        raise Incompatible(
            f"{key}: evaluation {evaluation!r} runs after the last step only; set its `every` or `at`"
        )
    wanted = {"lower": "higher", "higher": "lower"}.get(better, "")
    if metric.rpartition(".")[2] in getattr(
        registry.find("evaluation", evaluations[evaluation].type), wanted, ()
    ):
        raise Incompatible(
            f"{key}: {chooser!r} is the better the {wanted} it is; say `better: {wanted}` beside it"
        )


def component_configs(config: RunConfig) -> list[tuple[str, ComponentConfig]]:
    """(kind, config) of every component of a run."""
    kinds = (
        "corpus",
        "tokenizer",
        "packing",
        "direction",
        "objective",
        "model",
        "optimizer",
        "schedule",
        "start",
    )
    return [(k, getattr(config, k)) for k in kinds] + [("evaluation", e) for e in config.evaluations]
