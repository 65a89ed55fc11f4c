"""From a configuration to objects: the parts of a run, its trained models, its evaluations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry, rng
from lexarium.foundation.files import Damaged, read_json, write_json
from lexarium.foundation.types import Result, UserError
from lexarium.models.build import build_model
from lexarium.studies.run import refuse_changes
from lexarium.studies.run_config import RunConfig, evaluation_name
from lexarium.studies.run_files import PROVENANCE, Step, best_step
from lexarium.tokens.loader import Loader
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.store import TokenStore
from lexarium.tokens.tokenizers import FILE, copy_tokenizer, is_tokenizer_file
from lexarium.training import checkpoint
from lexarium.training.host import settle
from lexarium.training.parallel import World, choose_device
from lexarium.training.step import set_precision


def make(kind: str, config: Any, *arguments: Any) -> Any:
    """Build a component from its config."""
    return registry.find(kind, config.type)(config, *arguments)


def make_objective(config: RunConfig, tokenizer: Any) -> Any:
    """The objective of a run, with the special tokens of its direction behind those of its own."""
    objective = make("objective", config.objective, tokenizer)
    if more := registry.find("direction", config.direction.type).extra_tokens:
        objective.roles = objective.roles.extended(more)
        objective.vocab_size = objective.roles.vocab_size
    return objective


class Parts:
    """The objects of a run, built when first asked for."""

    def __init__(self, config: RunConfig, stores: Path, run: Path, say: Callable[[str], None]) -> None:
        self.config, self._stores, self._run, self._say = config, stores, run, say

    @cached_property
    def store(self) -> TokenStore:
        """The token store, prepared if it is not there yet."""

        def wait(message: str) -> bool:
            self._say(f"waiting: {message}")
            return True

        refuse_changes(self._run, self.config, ("corpus", "tokenizer"))
        store = prepare(self.config.corpus, self.config.tokenizer, self._stores, wait=wait)
        copy = self._run / FILE
        if not copy.exists():
            copy_tokenizer(store.folder, self._run)
            data = {"store": store.folder.name, "vocabulary": store.manifest["vocabulary"]}
            write_json(self._run / PROVENANCE, {**read_json(self._run / PROVENANCE), "data": data})
        mine = open_tokenizer(self.config.tokenizer, self._run)
        if mine.fingerprint() != store.manifest["vocabulary"]:
            theirs = open_tokenizer(self.config.tokenizer, store.folder)
            raise Damaged(
                f"{copy}: is not the vocabulary of {store.folder}: {_vocabulary_difference(mine, theirs)}."
                " Restore it, or start a new run in another --runs-dir"
            )
        return store

    @cached_property
    def tokenizer(self) -> Any:
        """The run's own copy of the tokenizer."""
        if not is_tokenizer_file(self._run):
            _ = self.store
        found = open_tokenizer(self.config.tokenizer, self._run)
        recorded = read_json(self._run / PROVENANCE).get("data", {}).get("vocabulary")
        if recorded not in (None, found.fingerprint()):
            raise Damaged(f"{self._run / FILE}: is not the vocabulary the run was trained with; restore it")
        return found

    @cached_property
    def objective(self) -> Any:
        """The objective, which knows the special tokens and the size of the vocabulary."""
        return make_objective(self.config, self.tokenizer)

    @cached_property
    def packing(self) -> Any:
        """The packing."""
        return make("packing", self.config.packing)

    @cached_property
    def direction(self) -> Any:
        """The direction."""
        found = make("direction", self.config.direction)
        return found.for_length(self.packing.longest) if getattr(found, "one_length", False) else found

    def loader(self, world: World, keyed: bool) -> Loader:
        """Training batches."""
        c = self.config
        return Loader(
            self.store.view("train", c.view),
            self.packing,
            self.direction,
            self.objective,
            global_batch_size=c.train.global_batch_size,
            micro_batch_size=c.train.micro_batch_size,
            order_seed=c.factor_seed("order"),
            dropout_seed=c.factor_seed("dropout"),
            keyed=keyed,
            rank=world.rank,
            world_size=world.size,
            workers=c.plan.workers,
        )

    @cached_property
    def max_steps(self) -> int:
        """Updates of the run; those of `train.epochs` follow from the data."""
        train = self.config.train
        return train.max_steps or train.steps(self.loader(World(), keyed=False).examples_per_epoch)

    def scorer(self, model: torch.nn.Module, device: torch.device) -> Scorer:
        """How the run's model is asked. Where rows have no bos and the packing puts a token between documents, that
        token stands before what is written from nothing."""
        bos, between = getattr(self.config.objective, "bos", True), getattr(self.packing, "separator", False)
        opening = self.objective.roles["eos"] if between and not bos else None
        own = (self.objective, self.direction, self.tokenizer)
        return Scorer(model, *own, device, self.config.train.precision, opening=opening)

    def evaluation_data(self) -> EvaluationData:
        """What the run's evaluations may look at."""
        corpus = make("corpus", self.config.corpus)
        longest = getattr(self.config.model, "max_positions", None)
        return EvaluationData(self.store, self.tokenizer, self.config.view, self.packing, corpus, longest)


def _vocabulary_difference(mine: Any, theirs: Any) -> str:
    """How two vocabularies differ, in words."""
    one, other = getattr(mine, "symbols", []), getattr(theirs, "symbols", [])
    shown = lambda symbols: ", ".join(map(repr, sorted(symbols)[:5])) + (", ..." if len(symbols) > 5 else "")
    more, less = set(one) - set(other), set(other) - set(one)
    found = [f"{len(one)} symbols, expected {len(other)}"]
    found += [f"it has {shown(more)}"] * bool(more) + [f"it lacks {shown(less)}"] * bool(less)
    return "; ".join(found if more or less else ["the same symbols in another order"])


# --- trained models ---------------------------------------------------------------------------------


def resolve_step(run: Any, step: Step) -> int:
    """A step that has a good checkpoint: the one asked for, the best by `checkpoint.best`, or the newest. Of a damaged
    one that is passed over, standard error is told."""
    if chosen := step == "best":
        best = run.config.checkpoint.best
        if best is None:
            raise UserError(
                f"{run.path}: was trained without checkpoint.best, which says what the best step is"
            )
        step = best_step(run.files, best.metric, best.better)
        if step is None:
            raise UserError(f"{run.path}: {best.metric} was not measured yet")
    if step is None:
        found, skipped = checkpoint.newest(run.path)
        if found is None:
            raise UserError(
                f"{run.path}: has no complete checkpoint; {'; '.join(skipped) or 'train it first'}"
            )
        for problem in skipped:
            print(f"WARNING: {problem}; step {found} is read in its place", file=sys.stderr)
        return found
    if not checkpoint.directory(run.path, step).is_dir():
        have = ", ".join(map(str, checkpoint.steps(run.path))) or "none"
        why = "; it was the best, but checkpoint.best was not set while the run was trained" if chosen else ""
        raise UserError(f"{run.path}: has no checkpoint at step {step} (steps: {have}){why}")
    return step


def load_model(run: Any, step: Step) -> tuple[torch.nn.Module, Parts]:
    """A run's model with a checkpoint's weights, on the CPU, and its parts."""
    step, parts = resolve_step(run, step), run.parts()
    model = build_model(run.config.model, parts.objective.vocab_size, seed=0)
    checkpoint.load_model(checkpoint.directory(run.path, step), model)
    return model.eval(), parts


def load_scorer(run: Any, step: Step) -> Scorer:
    """A scorer on a checkpoint, as the run's plan says (device, threads, precision)."""
    model, parts = load_model(run, step)
    device = choose_device(run.config.plan.device)
    settle(run.config.plan.threads)
    set_precision(run.config.train.precision)
    return parts.scorer(model.to(device), device)


def evaluate(config: RunConfig, evaluation: Any, data: EvaluationData, scorer: Scorer, step: int) -> Result:
    """One evaluation on one scorer."""
    name = evaluation_name(evaluation)
    return make("evaluation", evaluation, data).run(scorer, rng.key(config.seed, "eval", name, step))
