"""Contracts of schedules, optimizers, starts and evaluations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexarium.contracts.tools import Test, component, data_with, need, partner_model
from lexarium.models.build import build_model
from lexarium.training import checkpoint

QUESTIONS = frozenset({"token_scores", "next_scores", "generate", "hidden"})


def schedules(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a schedule."""
    schedule, steps = cls(config), 200

    def finite() -> str:
        values = [schedule.scale(step, steps) for step in range(steps)]
        bad = [i for i, v in enumerate(values) if not np.isfinite(v) or v < 0]
        need(
            not bad,
            f"step {bad[0] if bad else 0}: {values[bad[0]] if bad else ''} is not a finite number from 0 on",
        )
        need(max(values) > 0, "the learning rate is 0 at every step")
        return f"from {values[0]:.3g} over {max(values):.3g} to {values[-1]:.3g}"

    def pure() -> None:
        forward = [schedule.scale(step, steps) for step in range(steps)]
        backward = [cls(config).scale(step, steps) for step in reversed(range(steps))]
        need(forward == backward[::-1], "the value depends on which steps were asked for before")

    yield "finite and not negative at every step", finite
    yield "a pure function of the step", pure


def optimizers(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of an optimizer."""

    def make(start: Mapping[str, Tensor] | None = None) -> tuple[torch.nn.Module, Any, dict[int, str]]:
        model = torch.nn.Linear(4, 3)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(start[name] if start else torch.linspace(-1, 1, p.numel()).view_as(p))
        optimizer = cls(config).build(list(model.named_parameters()), torch.device("cpu"))
        return model, optimizer, {id(p): n for n, p in model.named_parameters()}

    def step(model: torch.nn.Module, optimizer: Any) -> float:
        loss = sum((p - 0.3).square().sum() for p in model.parameters())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        return float(loss.detach())  # type: ignore[union-attr]

    def descends() -> str:
        model, optimizer, _ = make()
        losses = [step(model, optimizer) for _ in range(30)]
        need(losses[-1] < losses[0], f"loss {losses[0]:.4g} -> {losses[-1]:.4g} on a quadratic")
        return f"loss {losses[0]:.3g} -> {losses[-1]:.3g} in 30 steps on a quadratic"

    def groups() -> None:
        model, optimizer, _ = make()
        have = {id(p) for g in optimizer.param_groups for p in g["params"]}
        need(have == {id(p) for p in model.parameters()}, "some parameters are in no group")
        need(
            all("lr" in g for g in optimizer.param_groups),
            "a group without lr: the schedule could not scale it",
        )

    def resumes() -> None:
        model, optimizer, names = make()
        for _ in range(3):
            step(model, optimizer)
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        saved = {k: v.clone() for k, v in checkpoint.optimizer_tensors(optimizer, names).items()}
        other, again, other_names = make(weights)
        checkpoint.load_optimizer(again, other_names, saved)
        step(model, optimizer)
        step(other, again)
        for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
            need(torch.equal(a, b), f"{name}: other values after saving and loading the state")

    yield "reduces a quadratic", descends
    yield "every parameter in a group with a learning rate", groups
    yield "goes on from a saved state to the bit", resumes


def starts(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a start."""

    def fingerprint() -> None:
        a, b = cls(config).fingerprint(), cls(config).fingerprint()
        need(isinstance(a, str) and a == b, "`fingerprint()` must be text, the same every time")

    yield "its fingerprint is text, the same every time", fingerprint


def evaluations(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of an evaluation, asked of an untrained model on sentence pairs."""

    def result(key: int = 5) -> Any:
        from lexarium.evaluations.evaluation import EvaluationData
        from lexarium.evaluations.scorer import Scorer
        from lexarium.tokens.prepare import open_tokenizer, prepare

        with tempfile.TemporaryDirectory() as folder:
            corpus, words = data_with(getattr(cls, "channels", ()), Path(folder))
            store = prepare(corpus, words, Path(folder))
            tokenizer = open_tokenizer(words, store.folder)
            objective = component("objective", "causal", tokenizer)
            model = build_model(partner_model(objective), objective.vocab_size, 1).eval()
            scorer = Scorer(model, objective, component("direction", "forward"), tokenizer)
            return cls(config, EvaluationData(store, tokenizer)).run(scorer, key)

    def asks() -> str:
        unknown = cls.asks - QUESTIONS
        need(not unknown, f"asks for {sorted(unknown)}; a scorer answers {', '.join(sorted(QUESTIONS))}")
        return ", ".join(sorted(cls.asks))

    def numbers() -> str:
        found = result()
        need(found.metrics, "no metric")
        strange = [
            k for k, v in found.metrics.items() if not isinstance(v, int | float) or isinstance(v, bool)
        ]
        need(not strange, f"not a number: {', '.join(strange[:5])}")
        lengths = {name: len(values) for name, values in found.items.items()}
        need(len(set(lengths.values())) <= 1, f"columns of the item table differ in length: {lengths}")
        return f"{len(found.metrics)} metrics, {next(iter(lengths.values()), 0)} items"

    def same() -> None:
        first, second = result(), result()
        differ = [k for k in first.metrics if not _equal(first.metrics[k], second.metrics.get(k))]
        need(not differ, f"two runs with the same key differ in {', '.join(differ[:5])}")

    yield "asks questions a scorer answers", asks
    yield "numbers by name, and columns of equal length", numbers
    yield "a function of the model, the data and the key", same


def _equal(a: Any, b: Any) -> bool:
    return a == b or (a != a and b != b)  # nan equals nan here
