"""Contracts of models and objectives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from lexarium.contracts.members import missing_when_built
from lexarium.contracts.tools import (
    TOLERANCE,
    Test,
    need,
    partner_model,
    partner_objective,
    run_model,
    tiny_examples,
    tiny_tokenizer,
)
from lexarium.foundation.types import INPUTS
from lexarium.models.build import build_model
from lexarium.training import checkpoint
from lexarium.training.step import PASSES, TrainStep, factors_of

DROPOUT = 0.3


class Models:
    """Contract of a model: everything needs a tokenizer, an objective and a few examples."""

    def __init__(self, cls: Any, config: Any) -> None:
        self.cls, self.config = cls, config
        self.tokenizer = tiny_tokenizer()
        self.examples = tiny_examples(self.tokenizer)

    @property
    def objective(self) -> Any:
        """What the model is trained with here."""
        return partner_objective(self.cls, self.tokenizer)

    def build(self, seed: int = 1, dropout: float = 0.0) -> Any:
        """The model, small."""
        config = self.config
        if dropout and "dropout" in type(config).model_fields:
            config = config.model_copy(update={"dropout": dropout})
        return build_model(config, self.objective.vocab_size, seed).eval()

    def inputs(self) -> None:
        """Only inputs of the closed list."""
        unknown = (self.cls.consumes | self.cls.needs) - set(INPUTS)
        need(not unknown, f"unknown inputs {sorted(unknown)}; the closed list is in foundation/types.py")
        need(self.cls.needs <= self.cls.consumes, "`needs` must be among `consumes`")
        for flag in ("packs", "stacks", "compiles", "randomness"):
            need(hasattr(self.cls, flag), f"the class does not declare `{flag}`")

    def shapes(self) -> str:
        """One state per real token, logits over the vocabulary."""
        objective, batch = self.objective, self.objective.collate(self.examples)
        output = run_model(self.build(), batch)
        n = batch.targets["labels"].shape[0]
        need(output.hidden.shape[0] == n, f"hidden has {output.hidden.shape[0]} rows for {n} real tokens")
        logits = output.unembed(output.hidden[:3])
        expected = (3, objective.vocab_size)
        need(tuple(logits.shape) == expected, f"logits are {tuple(logits.shape)}, expected {expected}")
        need(bool(torch.isfinite(logits).all()), "logits are not finite")
        return f"hidden {tuple(output.hidden.shape)}, vocabulary {objective.vocab_size}"

    def causality(self) -> str:
        """Changing a token moves no state before it."""
        model, batch = self.build(), self.objective.collate([max(self.examples, key=len)])
        tokens = batch.inputs["tokens"]
        before, moved = run_model(model, batch).hidden, False
        for t in range(1, tokens.shape[1]):
            changed = tokens.clone()
            changed[0, t] = tokens[0, t] % (self.tokenizer.vocab_size - 1) + 1
            after = run_model(model, batch, tokens=changed).hidden
            gap = float((after[:t] - before[:t]).abs().max())
            need(gap < TOLERANCE, f"changing token {t} moves states before it by {gap:.2g}")
            moved |= not torch.equal(after[t:], before[t:])
        need(moved, "no state depends on any token")
        return f"{tokens.shape[1] - 1} positions changed, one by one"

    def padding(self) -> str:
        """A row alone and in a padded batch, with dropout too."""
        objective, largest = self.objective, 0.0
        for key, what in ((None, ""), (7, " with dropout")):
            model = self.build(dropout=0.0 if key is None else DROPOUT)
            batches = [objective.collate([e], dropout_key=key) for e in self.examples]
            together = run_model(model, objective.collate(self.examples, dropout_key=key)).hidden
            alone = torch.cat([run_model(model, batch).hidden for batch in batches])
            gap = float((together - alone).abs().max())
            largest = max(largest, gap)
            need(gap < TOLERANCE, f"states in a padded batch differ from the row alone by {gap:.2g}{what}")
            if getattr(self.cls, "randomness", None) != "keyed":
                break
        return f"largest difference {largest:.1g}"

    def pieces(self) -> str:
        """Rows of unequal length, read but for their last token, and then that one."""
        if not hasattr(self.cls, "advances"):
            return "not tested: the model reads rows from their beginning"
        need(self.cls.advances <= self.cls.consumes, "`advances` must be among `consumes`")
        model, objective = self.build(), self.objective
        rows = [e.ids for e in self.examples]
        whole, last = objective.read([(ids[:3], ids[3:]) for ids in rows])
        begun, _ = objective.read([(ids[:3], ids[3:-1]) for ids in rows])
        unread = (begun.inputs.keys() & self.cls.consumes) - self.cls.advances
        need(not unread, f"`advance` does not take {', '.join(sorted(unread))}")
        first, state = model.advance(**{k: v for k, v in begun.inputs.items() if k in self.cls.consumes})
        second, _ = model.advance(torch.tensor([[int(ids[-1])] for ids in rows]), state)
        gaps = (
            float((first.hidden - run_model(model, begun).hidden).abs().max()),
            float((second.hidden - run_model(model, whole).hidden[last]).abs().max()),
        )
        need(
            max(gaps) < TOLERANCE, f"states of a row in pieces differ from the row at once by {max(gaps):.2g}"
        )
        return f"largest difference {max(gaps):.1g}"

    def gradients(self) -> str:
        """Every parameter gets a finite gradient that is not zero."""
        model, objective = self.build().train(), self.objective
        batch = objective.collate(self.examples)
        TrainStep(model, objective)(batch, factors_of({**batch.weights, PASSES: 1}))[0].backward()
        without = [n for n, p in model.named_parameters() if p.grad is None]
        need(not without, f"no gradient reaches {', '.join(without[:5])}")
        broken = [n for n, p in model.named_parameters() if not bool(torch.isfinite(p.grad).all())]
        need(not broken, f"the gradient is not finite in {', '.join(broken[:5])}")
        zero = [n for n, p in model.named_parameters() if not bool(p.grad.any())]
        need(not zero, f"the gradient is zero everywhere in {', '.join(zero[:5])}")
        return f"{len(list(model.parameters()))} parameters"

    def saving(self) -> None:
        """Saved tensors are all there is."""
        a = self.build(1)
        torch.rand(1)  # what is drawn from the global generator now differs between the builds
        b = self.build(2)
        batch = self.objective.collate(self.examples)
        tensors = {k: v.clone() for k, v in checkpoint.tensors_of(a).items()}
        checkpoint.load_tensors(tensors, b, "the saved tensors")
        same = torch.equal(run_model(a, batch).hidden, run_model(b, batch).hidden)
        need(same, "a model loaded from saved tensors gives other states: something it uses is not saved")

    def initialisation(self) -> None:
        """Equal for equal seeds, different for others."""
        a, b, c = (checkpoint.tensors_of(self.build(seed)) for seed in (1, 1, 2))
        for name in a:
            need(torch.equal(a[name], b[name]), f"{name}: two builds from one seed differ")
        need(any(not torch.equal(a[n], c[n]) for n in a), "another seed gives the same parameters")

    def randomness(self) -> str:
        """Token keys and nothing else."""
        model = self.build(dropout=DROPOUT).train()
        batch = self.objective.collate(self.examples, dropout_key=7)
        if self.cls.randomness != "keyed":
            return f"not tested: randomness is {self.cls.randomness!r}"
        state = torch.get_rng_state()
        first, second = run_model(model, batch).hidden, run_model(model, batch).hidden
        need(torch.equal(first, second), "two passes with the same keys differ: randomness that is not keyed")
        need(torch.equal(state, torch.get_rng_state()), "a forward pass draws from the global generator")
        return ""

    def overfit(self) -> str:
        """It learns."""
        model, objective = self.build().train(), self.objective
        batch, step = objective.collate(self.examples), TrainStep(model, objective)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        factors, losses = factors_of({**batch.weights, PASSES: 1}), []
        for _ in range(21):
            loss, _ = step(batch, factors)
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        need(
            losses[-1] < 0.95 * losses[0],
            f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in 20 steps on 5 sentences",
        )
        return f"loss {losses[0]:.2f} -> {losses[-1]:.2f} in 20 steps"


def models(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a model."""
    c = Models(cls, config)
    yield "inputs are from the closed list", c.inputs
    yield "shapes: one state per real token, logits over the vocabulary", c.shapes
    yield "causality: a token changes nothing before it", c.causality
    yield "padding changes nothing", c.padding
    yield "rows in pieces are the rows at once", c.pieces
    yield "a gradient reaches every parameter", c.gradients
    yield "save and load", c.saving
    yield "initial values are a function of the seed", c.initialisation
    yield "randomness comes from token keys alone", c.randomness
    yield "overfits five sentences in 20 steps", c.overfit


# --- objectives -------------------------------------------------------------------------------------


class Objectives:
    """Contract of an objective."""

    def __init__(self, cls: Any, config: Any) -> None:
        self.cls, self.config = cls, config
        self.tokenizer = tiny_tokenizer()
        self.examples = tiny_examples(self.tokenizer)

    @property
    def objective(self) -> Any:
        """A new one."""
        return self.cls(self.config, self.tokenizer)

    def declared(self) -> str:
        """What `collate` gives is declared."""
        lacking = missing_when_built("objective", self.objective)
        need(not lacking, f"once built it has no {', '.join(lacking)} (see docs/design/data-flow.md)")
        unknown = self.cls.produces - set(INPUTS)
        need(not unknown, f"produces unknown inputs {sorted(unknown)}")
        given = set(self.objective.collate(self.examples, dropout_key=3).inputs)
        need(
            given <= self.cls.produces,
            f"gives {sorted(given - self.cls.produces)}, which it does not declare",
        )
        return ", ".join(sorted(given))

    def extra_tokens(self) -> str:
        """Ids after the base vocabulary, each its own."""
        o, base = self.objective, self.tokenizer.vocab_size
        new = {role: o.roles[role] for role in o.extra_tokens if role not in self.tokenizer.roles}
        need(all(i >= base for i in new.values()), "an extra token has an id of the base vocabulary")
        need(len(set(new.values())) == len(new), "two extra tokens share an id")
        need(o.vocab_size == base + len(new), f"vocab_size is {o.vocab_size}, expected {base + len(new)}")
        return ", ".join(f"{r}={i}" for r, i in new.items())

    def weights(self) -> None:
        """Weights of micro-batches sum to that of the batch."""
        o = self.objective
        whole = o.collate(self.examples).weights
        parts = [o.collate([e]).weights for e in self.examples]
        for name, weight in whole.items():
            total = sum(p.get(name, 0.0) for p in parts)
            need(abs(total - weight) < 1e-6, f"{name}: micro-batches weigh {total}, the whole batch {weight}")

    def coefficients(self) -> str:
        """Terms that count differently in the course of training."""
        o = self.objective
        if not hasattr(o, "coefficients"):
            return "not tested: terms count the same in every step"
        names = set(o.collate(self.examples).weights)
        for step in range(10):
            given = o.coefficients(step, 10)
            need(set(given) <= names, f"coefficients for {sorted(set(given) - names)}, which are no terms")
            right = all(math.isfinite(value) for value in given.values())
            need(right, f"coefficients of step {step} are not finite: {given}")
            need(any(given.get(name, 1.0) for name in names), f"no term counts in step {step} of 10")
        return ""

    def gradients(self) -> str:
        """And so do their gradients."""
        o = self.objective
        model = build_model(partner_model(o), o.vocab_size, 1)
        step, whole = TrainStep(model, o), o.collate(self.examples)
        parts = [o.collate(self.examples[:2]), o.collate(self.examples[2:])]
        found = []
        for batches in ([whole], parts):
            model.zero_grad()
            for batch in batches:
                step(batch, factors_of({**whole.weights, PASSES: len(batches)}))[0].backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        gap = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
        need(gap < TOLERANCE, f"gradients of two micro-batches and of the whole batch differ by {gap:.2g}")
        return f"largest difference {gap:.1g}"

    def scored(self) -> None:
        """As many places as targets."""
        o = self.objective
        for example in self.examples:
            n = int((o.collate([example]).targets["labels"] != -100).sum())
            need(
                len(o.scored(example)) == n, f"`scored` names {len(o.scored(example))} places for {n} targets"
            )

    def read(self) -> None:
        """Prefixes lead to a state of the model."""
        o = self.objective
        words = self.examples[0].ids
        batch, last = o.read([(words[:2], words[2:3]), (words[:3], words[:0])])
        model = build_model(partner_model(o), o.vocab_size, 1).eval()
        hidden = run_model(model, batch).hidden
        need(len(last) == 2 and int(last.max()) < hidden.shape[0], "`read` names a state that is not there")

    def appends(self) -> str:
        """What `appends` says of `read`."""
        o, words = self.objective, self.examples[0].ids
        if not getattr(o, "appends", False):
            return "not tested: every prefix is read from its beginning"
        short, long = (o.read([(words[:2], words[2:n])])[0].inputs for n in (3, 4))
        need(short.keys() == long.keys(), "a longer prefix is read with other inputs")
        grown = torch.cat([short["tokens"], torch.tensor([[int(words[3])]])], 1)
        need(
            torch.equal(long["tokens"], grown),
            "a longer prefix is not the same row with its new token at the end",
        )
        other = [n for n in short if n not in ("tokens", "real") and not torch.equal(short[n], long[n])]
        need(not other, f"a longer prefix changes {', '.join(other)}")
        return ""


def objectives(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of an objective."""
    c = Objectives(cls, config)
    yield "gives the inputs it declares", c.declared
    yield "extra tokens follow the base vocabulary", c.extra_tokens
    yield "weights of micro-batches add up", c.weights
    yield "`coefficients`: finite numbers for its terms", c.coefficients
    yield "gradients of micro-batches add up", c.gradients
    yield "`scored` names a place for every target", c.scored
    yield "`read` asks a trained model", c.read
    yield "`appends`: a longer prefix is the same row, longer", c.appends
