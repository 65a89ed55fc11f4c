"""What every component promises, as tests anyone can run on a component of their own.

    contract("model", "transformer", {"n_layers": 1}) -> [Check(name, passed, detail), ...]

`lexarium test-component KIND NAME` prints these; the package's own tests run them on every component that
ships. A check that raises has failed, with the error as its detail. Each kind has one function; each
takes seconds. Options that make a component large (`SMALL`) are reduced unless they are given.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, overlay, validate
from lexarium.foundation.types import INPUTS, Batch, Document, Example, UserError
from lexarium.models.build import build_model
from lexarium.tokens.tokenizers import FILE
from lexarium.training import checkpoint
from lexarium.training.step import TrainStep

SMALL: dict[str, Any] = {
    "n_layers": 2, "n_encoder_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 64, "d_embedding": 32,
    "max_positions": 64, "dropout": 0.0, "sizes": {"train": 200, "val": 20, "test": 20, "ood": 20},
    "seq_len": 16, "max_length": 64, "period": 10, "limit": 20,
}  # fmt: skip
"""Values tried for options of these names, so that a check takes seconds."""
TOLERANCE = 1e-4
DOCUMENTS = 2000


@dataclass(frozen=True)
class Check:
    """One promise, and whether it was kept."""

    name: str
    passed: bool
    detail: str = ""


class Broken(Exception):
    """A promise is not kept; the message says how."""


Test = tuple[str, Callable[[], str | None]]
"""Name of a promise, and a function that raises, or returns a remark."""


def contract(kind: str, name: str, options: Mapping[tuple[str | int, ...], Any] | None = None) -> list[Check]:
    """Test a component; `options` maps places in its config to values.

    Raises UserError when the component cannot be found, or its config cannot be made.
    """
    cls: Any = registry.find(kind, name)
    if kind not in KINDS:
        raise UserError(f"there is no contract for components of kind {kind!r}")
    config = small_config(cls, name, options or {})
    checks = []
    for title, test in [*_declared(cls, kind), *KINDS[kind](cls, config)]:
        try:
            checks.append(Check(title, True, test() or ""))
        except Broken as broken:
            checks.append(Check(title, False, str(broken)))
        except Exception as error:
            checks.append(Check(title, False, f"{type(error).__name__}: {error}".splitlines()[0]))
    return checks


def small_config(cls: Any, name: str, options: Mapping[tuple[str | int, ...], Any]) -> Any:
    """The component's config with the given options, the others small where that is valid."""
    given = overlay(Source({"type": name}), options, "command line")
    reduced = {k: v for k, v in SMALL.items() if k in cls.Config.model_fields and k not in given.data}
    for small in (reduced, {k: reduced[k] for k in ("seq_len", "period", "sizes") if k in reduced}, {}):
        try:
            return validate(cls.Config, Source({**small, **given.data}, given.origins))
        except ConfigError as error:
            problem = error
    raise problem


def _declared(cls: Any, kind: str) -> Iterator[Test]:
    def declared() -> str:
        if not isinstance(getattr(cls, "version", None), int):
            raise Broken("`version` must be a whole number; it is part of a run's identity")
        if not (cls.__doc__ or "").strip():
            raise Broken("no docstring; its first line is what `lexarium list` prints")
        if "type" not in cls.Config.model_fields:
            raise Broken("Config must derive from ComponentConfig, which holds `type`")
        return f"{kind} {cls.name}, version {cls.version}"

    yield "declares kind, name, version and a documented Config", declared


def need(condition: Any, message: str) -> None:
    """Raise Broken unless the condition holds."""
    if not condition:
        raise Broken(message)


# --- something to work on ---------------------------------------------------------------------------


class TinyCorpus:
    """Five sentence pairs, told apart by the channel `half`."""

    splits = ("train",)
    config: Any = None

    def documents(self, split: str) -> Iterator[Document]:
        for i, (a, b) in enumerate(
            [
                ("the cat sleeps .", "cat"),
                ("a dog runs and a cat sleeps .", "dog runs"),
                ("birds sing .", "birds do sing ?"),
                ("the dog and the bird and the cat eat .", "they eat ."),
                ("a cat .", "the dog does ?"),
            ]
        ):
            text = f"{a} {b}"
            yield Document(text, {"number": i}, {"half": [0] * (len(a) + 1) + [1] * len(b)})

    def symbols(self) -> list[str]:
        return ["moon"]

    def fingerprint(self) -> str:
        return ""


def component(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    """A component that ships, built small."""
    cls: Any = registry.find(kind, name)
    return cls(small_config(cls, name, {(k,): v for k, v in options.items()}), *arguments)


def tiny_tokenizer() -> Any:
    """A word tokenizer trained on `TinyCorpus`."""
    tokenizer = component("tokenizer", "word")
    tokenizer.train(TinyCorpus())
    return tokenizer


def tiny_examples(tokenizer: Any) -> list[Example]:
    """The documents of `TinyCorpus` as examples."""
    found = []
    for i, document in enumerate(TinyCorpus().documents("train")):
        ids, first = tokenizer.encode(document.text)
        channels = {"half": np.asarray(document.channels["half"])[first]}
        found.append(Example(ids, np.arange(len(ids)), np.zeros(len(ids), np.int64), channels, (i,), i))
    return found


def partner_objective(model: Any, tokenizer: Any) -> Any:
    """An objective that gives a model what it needs and nothing it ignores."""
    for name in registry.names("objective"):
        cls: Any = registry.find("objective", name)
        source = {"source"} & cls.produces
        if model.needs <= cls.produces and source <= model.consumes:
            return component("objective", name, tokenizer)
    raise Broken(f"no objective produces what the model needs: {', '.join(sorted(model.needs))}")


def partner_model(objective: Any) -> Any:
    """Config of a model that reads what an objective gives."""
    for name in registry.names("model"):
        cls: Any = registry.find("model", name)
        if cls.needs <= objective.produces and {"source"} & objective.produces <= cls.consumes:
            return small_config(cls, name, {})
    raise Broken("no model reads what the objective produces")


def run_model(model: Any, batch: Batch, **changes: Tensor) -> Any:
    """The model's output on the inputs it consumes."""
    inputs = {**batch.inputs, **changes}
    return model(**{k: v for k, v in inputs.items() if k in model.consumes})


# --- models -----------------------------------------------------------------------------------------


class _Models:
    """Contract of a model: everything needs a tokenizer, an objective and a few examples."""

    def __init__(self, cls: Any, config: Any) -> None:
        self.cls, self.config = cls, config
        self.tokenizer = tiny_tokenizer()
        self.examples = tiny_examples(self.tokenizer)

    @property
    def objective(self) -> Any:
        return partner_objective(self.cls, self.tokenizer)

    def build(self, seed: int = 1) -> Any:
        return build_model(self.config, self.objective.vocab_size, seed).eval()

    def inputs(self) -> None:
        unknown = (self.cls.consumes | self.cls.needs) - set(INPUTS)
        need(not unknown, f"unknown inputs {sorted(unknown)}; the closed list is in foundation/types.py")
        need(self.cls.needs <= self.cls.consumes, "`needs` must be among `consumes`")
        for flag in ("packs", "stacks", "compiles", "randomness"):
            need(hasattr(self.cls, flag), f"the class does not declare `{flag}`")

    def shapes(self) -> str:
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
        model, objective = self.build(), self.objective
        together = run_model(model, objective.collate(self.examples)).hidden
        alone = torch.cat([run_model(model, objective.collate([e])).hidden for e in self.examples])
        gap = float((together - alone).abs().max())
        need(gap < TOLERANCE, f"states in a padded batch differ from the same row alone by {gap:.2g}")
        return f"largest difference {gap:.1g}"

    def gradients(self) -> str:
        model, objective = self.build().train(), self.objective
        batch = objective.collate(self.examples)
        TrainStep(model, objective)(batch, batch.weights)[0].backward()
        without = [n for n, p in model.named_parameters() if p.grad is None]
        need(not without, f"no gradient reaches {', '.join(without[:5])}")
        broken = [n for n, p in model.named_parameters() if not bool(torch.isfinite(p.grad).all())]
        need(not broken, f"the gradient is not finite in {', '.join(broken[:5])}")
        zero = [n for n, p in model.named_parameters() if not bool(p.grad.any())]
        need(not zero, f"the gradient is zero everywhere in {', '.join(zero[:5])}")
        return f"{len(list(model.parameters()))} parameters"

    def saving(self) -> None:
        a, b = self.build(1), self.build(2)
        batch = self.objective.collate(self.examples)
        tensors = {k: v.clone() for k, v in checkpoint.tensors_of(a).items()}
        checkpoint.load_tensors(tensors, b, "the saved tensors")
        same = torch.equal(run_model(a, batch).hidden, run_model(b, batch).hidden)
        need(same, "a model loaded from saved tensors gives other states: something it uses is not saved")

    def initialisation(self) -> None:
        a, b, c = (checkpoint.tensors_of(self.build(seed)) for seed in (1, 1, 2))
        for name in a:
            need(torch.equal(a[name], b[name]), f"{name}: two builds from one seed differ")
        need(any(not torch.equal(a[n], c[n]) for n in a), "another seed gives the same parameters")

    def randomness(self) -> str:
        model, batch = self.build().train(), self.objective.collate(self.examples, dropout_key=7)
        if self.cls.randomness != "keyed":
            return f"not tested: randomness is {self.cls.randomness!r}"
        state = torch.get_rng_state()
        first, second = run_model(model, batch).hidden, run_model(model, batch).hidden
        need(torch.equal(first, second), "two passes with the same keys differ: randomness that is not keyed")
        need(torch.equal(state, torch.get_rng_state()), "a forward pass draws from the global generator")
        return ""

    def overfit(self) -> str:
        model, objective = self.build().train(), self.objective
        batch, step = objective.collate(self.examples), TrainStep(model, objective)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(21):
            loss, _ = step(batch, batch.weights)
            losses.append(float(loss))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        need(losses[-1] < 0.8 * losses[0], f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in 20 steps on 5 sentences")
        return f"loss {losses[0]:.2f} -> {losses[-1]:.2f} in 20 steps"


def _models(cls: Any, config: Any) -> Iterator[Test]:
    c = _Models(cls, config)
    yield "inputs are from the closed list", c.inputs
    yield "shapes: one state per real token, logits over the vocabulary", c.shapes
    yield "causality: a token changes nothing before it", c.causality
    yield "padding changes nothing", c.padding
    yield "a gradient reaches every parameter", c.gradients
    yield "save and load", c.saving
    yield "initial values are a function of the seed", c.initialisation
    yield "randomness comes from token keys alone", c.randomness
    yield "overfits five sentences in 20 steps", c.overfit


# --- objectives -------------------------------------------------------------------------------------


class _Objectives:
    """Contract of an objective."""

    def __init__(self, cls: Any, config: Any) -> None:
        self.cls, self.config = cls, config
        self.tokenizer = tiny_tokenizer()
        self.examples = tiny_examples(self.tokenizer)

    @property
    def objective(self) -> Any:
        return self.cls(self.config, self.tokenizer)

    def declared(self) -> str:
        unknown = self.cls.produces - set(INPUTS)
        need(not unknown, f"produces unknown inputs {sorted(unknown)}")
        given = set(self.objective.collate(self.examples, dropout_key=3).inputs)
        need(given <= self.cls.produces, f"gives {sorted(given - self.cls.produces)}, which it does not declare")
        return ", ".join(sorted(given))

    def extra_tokens(self) -> str:
        o, base = self.objective, self.tokenizer.vocab_size
        new = {role: o.roles[role] for role in o.extra_tokens if role not in self.tokenizer.roles}
        need(all(i >= base for i in new.values()), "an extra token has an id of the base vocabulary")
        need(len(set(new.values())) == len(new), "two extra tokens share an id")
        need(o.vocab_size == base + len(new), f"vocab_size is {o.vocab_size}, expected {base + len(new)}")
        return ", ".join(f"{r}={i}" for r, i in new.items())

    def weights(self) -> None:
        o = self.objective
        whole = o.collate(self.examples).weights
        parts = [o.collate([e]).weights for e in self.examples]
        for name, weight in whole.items():
            total = sum(p.get(name, 0.0) for p in parts)
            need(abs(total - weight) < 1e-6, f"{name}: micro-batches weigh {total}, the whole batch {weight}")

    def gradients(self) -> str:
        o = self.objective
        model = build_model(partner_model(o), o.vocab_size, 1)
        step, whole = TrainStep(model, o), o.collate(self.examples)
        parts = [o.collate(self.examples[:2]), o.collate(self.examples[2:])]
        found = []
        for batches in ([whole], parts):
            model.zero_grad()
            for batch in batches:
                step(batch, whole.weights)[0].backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        gap = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
        need(gap < TOLERANCE, f"gradients of two micro-batches and of the whole batch differ by {gap:.2g}")
        return f"largest difference {gap:.1g}"

    def scored(self) -> None:
        o = self.objective
        for example in self.examples:
            n = int((o.collate([example]).targets["labels"] != -100).sum())
            need(len(o.scored(example)) == n, f"`scored` names {len(o.scored(example))} places for {n} targets")

    def read(self) -> None:
        o = self.objective
        words = self.examples[0].ids
        batch, last = o.read([(words[:2], words[2:3]), (words[:3], words[:0])])
        model = build_model(partner_model(o), o.vocab_size, 1).eval()
        hidden = run_model(model, batch).hidden
        need(len(last) == 2 and int(last.max()) < hidden.shape[0], "`read` names a state that is not there")


def _objectives(cls: Any, config: Any) -> Iterator[Test]:
    c = _Objectives(cls, config)
    yield "gives the inputs it declares", c.declared
    yield "extra tokens follow the base vocabulary", c.extra_tokens
    yield "weights of micro-batches add up", c.weights
    yield "gradients of micro-batches add up", c.gradients
    yield "`scored` names a place for every target", c.scored
    yield "`read` asks a trained model", c.read


# --- tokenizers, directions, packings ---------------------------------------------------------------


def _tokenizers(cls: Any, config: Any) -> Iterator[Test]:
    texts = [d.text for d in TinyCorpus().documents("train")]

    def trained() -> Any:
        tokenizer = cls(config)
        tokenizer.train(TinyCorpus())
        return tokenizer

    def round_trip() -> str:
        tokenizer = trained()
        for text in texts:
            back = tokenizer.decode(tokenizer.encode(text)[0])
            need(back == text, f"{text!r} comes back as {back!r}")
        return f"{len(texts)} texts, vocabulary of {tokenizer.vocab_size}"

    def ids() -> None:
        tokenizer = trained()
        for text in texts:
            found, first = tokenizer.encode(text)
            need(len(found) == len(first), "ids and first characters differ in number")
            need(0 <= found.min() and found.max() < tokenizer.vocab_size, "an id outside the vocabulary")
            need((np.diff(first) >= 0).all() and first.max() < len(text), "first characters are out of order")
            need("pad" in tokenizer.roles, "no role `pad`")

    def same_again() -> None:
        a, b = trained(), trained()
        need(a.dump() == b.dump(), "training twice on the same corpus gives two tokenizers")

    def saving() -> None:
        a, b = trained(), cls(config)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / FILE).write_text(a.dump(), encoding="utf-8")
            b.load(Path(folder))
        for text in texts:
            need(np.array_equal(a.encode(text)[0], b.encode(text)[0]), f"{text!r}: other ids after loading")
        need(a.fingerprint() == b.fingerprint(), "another fingerprint after loading")

    yield "round trip: decode(encode(text)) is the text", round_trip
    yield "ids and first characters are in range", ids
    yield "training is deterministic", same_again
    yield "save and load", saving


def _directions(cls: Any, config: Any) -> Iterator[Test]:
    direction = cls(config)

    def example(n: int) -> Example:
        ids = np.arange(10, 10 + n)
        segment = (np.arange(n) >= n // 2).astype(np.int64)
        return Example(ids, np.arange(n), segment, {"copy": ids.copy()}, (0,), 0)

    def undone() -> None:
        for n in (1, 2, 3, 8, 17):
            back = direction.undo(direction.apply(example(n)).ids)
            need(np.array_equal(back, example(n).ids), f"undo(apply(x)) is not x for {n} tokens")

    def aligned() -> None:
        for n in (1, 2, 9):
            moved = direction.apply(example(n))
            need(np.array_equal(moved.channels["copy"], moved.ids), "channels do not follow the ids")
            need(len(moved.position) == len(moved.segment) == len(moved.ids), "position or segment has another length")
            need(sorted(moved.ids) == sorted(example(n).ids), "tokens are lost or added")

    def pure() -> None:
        source = example(9)
        a, b = direction.apply(source).ids, direction.apply(source).ids
        need(np.array_equal(a, b), "applying twice gives two orders")
        need(np.array_equal(source.ids, example(9).ids), "the example given was changed")

    yield "undo(apply(x)) is x", undone
    yield "everything aligned moves alike", aligned
    yield "pure", pure


def _packings(cls: Any, config: Any) -> Iterator[Test]:
    packing = cls(config)
    lengths = np.random.default_rng(1).integers(1, min(13, packing.longest + 1), size=60)

    def pieces(seed: int, epoch: int) -> list[list[tuple[int, int, int]]]:
        plan = packing.plan(lengths, seed, epoch)
        return [[tuple(p) for p in plan.pieces(i)] for i in range(len(plan))]

    def once() -> str:
        seen: set[tuple[int, int]] = set()
        for document, start, stop in itertools.chain(*pieces(1, 0)):
            for place in range(start, stop) if document >= 0 else ():
                need((document, place) not in seen, f"token {place} of document {document} comes twice")
                need(place < lengths[document], f"document {document} has no token {place}")
                seen.add((document, place))
        left = int(lengths.sum()) - len(seen)
        need(left < packing.longest, f"{left} tokens never come, more than one example")
        return f"{len(seen)} tokens once, {left} left over"

    def limited() -> None:
        longest = max(sum(stop - start for _, start, stop in example) for example in pieces(1, 0))
        need(longest <= packing.longest, f"an example of {longest} tokens, `longest` says {packing.longest}")

    def pure() -> None:
        first = pieces(1, 3)
        pieces(2, 0)
        need(pieces(1, 3) == first, "the same (seed, epoch) gives two plans")
        plan = packing.plan(lengths, 1, 3)
        backwards = [[tuple(p) for p in plan.pieces(i)] for i in reversed(range(len(plan)))]
        need(backwards[::-1] == first, "an example depends on which were asked for before")

    yield "every token of every document once per epoch", once
    yield "no example is longer than `longest`", limited
    yield "a pure function of (seed, epoch, i)", pure


# --- training ---------------------------------------------------------------------------------------


def _schedules(cls: Any, config: Any) -> Iterator[Test]:
    schedule, steps = cls(config), 200

    def finite() -> str:
        values = [schedule.scale(step, steps) for step in range(steps)]
        bad = [i for i, v in enumerate(values) if not np.isfinite(v) or v < 0]
        need(not bad, f"step {bad[0] if bad else 0}: {values[bad[0]] if bad else ''} is not a finite number from 0 on")
        need(max(values) > 0, "the learning rate is 0 at every step")
        return f"from {values[0]:.3g} over {max(values):.3g} to {values[-1]:.3g}"

    def pure() -> None:
        forward = [schedule.scale(step, steps) for step in range(steps)]
        backward = [cls(config).scale(step, steps) for step in reversed(range(steps))]
        need(forward == backward[::-1], "the value depends on which steps were asked for before")

    yield "finite and not negative at every step", finite
    yield "a pure function of the step", pure


def _optimizers(cls: Any, config: Any) -> Iterator[Test]:
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
        return float(loss)

    def descends() -> str:
        model, optimizer, _ = make()
        losses = [step(model, optimizer) for _ in range(30)]
        need(losses[-1] < losses[0], f"loss {losses[0]:.4g} -> {losses[-1]:.4g} on a quadratic")
        return f"loss {losses[0]:.3g} -> {losses[-1]:.3g} in 30 steps on a quadratic"

    def groups() -> None:
        model, optimizer, _ = make()
        have = {id(p) for g in optimizer.param_groups for p in g["params"]}
        need(have == {id(p) for p in model.parameters()}, "some parameters are in no group")
        need(all("lr" in g for g in optimizer.param_groups), "a group without lr: the schedule could not scale it")

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


def _starts(cls: Any, config: Any) -> Iterator[Test]:
    def fingerprint() -> None:
        a, b = cls(config).fingerprint(), cls(config).fingerprint()
        need(isinstance(a, str) and a == b, "`fingerprint()` must be text, the same every time")

    yield "its fingerprint is text, the same every time", fingerprint


# --- corpora ----------------------------------------------------------------------------------------


def _corpora(cls: Any, config: Any) -> Iterator[Test]:
    corpus = cls(config)
    take = lambda source, split: list(itertools.islice(source.documents(split), DOCUMENTS))

    def there() -> str:
        need(corpus.splits, "no split")
        sizes = {split: len(take(corpus, split)) for split in corpus.splits}
        need(all(sizes.values()), f"empty: {', '.join(s for s, n in sizes.items() if not n)}")
        return ", ".join(f"{s} {n}" for s, n in sizes.items())

    def disjoint() -> None:
        texts = {split: {d.text for d in take(corpus, split)} for split in corpus.splits}
        for a, b in itertools.combinations(texts, 2):
            shared = texts[a] & texts[b]
            need(not shared, f"{a} and {b} share {len(shared)} documents, e.g. {next(iter(shared), '')[:60]!r}")

    def deterministic() -> None:
        other = cls(config)
        for split in reversed(corpus.splits):
            need(take(other, split) == take(corpus, split), f"{split}: two objects give other documents")
            need(take(corpus, split) == take(corpus, split), f"{split}: reading twice gives other documents")
        need(other.fingerprint() == corpus.fingerprint(), "two objects have different fingerprints")

    def aligned() -> str:
        first: tuple[set[str], set[str]] | None = None
        for document in itertools.chain(*(take(corpus, split) for split in corpus.splits)):
            need(document.text, "a document without text")
            for name, values in document.channels.items():
                n = len(values)
                need(n == len(document.text), f"channel {name}: {n} values for {len(document.text)} characters")
            names = (set(document.fields), set(document.channels))
            first = first or names
            need(names == first, f"documents differ in fields or channels: {names} and {first}")
        assert first is not None
        return f"fields {', '.join(sorted(first[0])) or 'none'}; channels {', '.join(sorted(first[1])) or 'none'}"

    yield "every split has documents", there
    yield "splits are disjoint", disjoint
    yield "deterministic", deterministic
    yield "channels are aligned with characters, fields are the same everywhere", aligned


# --- evaluations ------------------------------------------------------------------------------------


QUESTIONS = frozenset({"token_scores", "next_scores", "generate", "hidden"})


def _evaluations(cls: Any, config: Any) -> Iterator[Test]:
    def result(key: int = 5) -> Any:
        from lexarium.evaluations.evaluation import EvaluationData
        from lexarium.evaluations.scorer import Scorer
        from lexarium.tokens.prepare import open_tokenizer, prepare

        with tempfile.TemporaryDirectory() as folder:
            corpus, words = component("corpus", "question_formation").config, component("tokenizer", "word").config
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
        strange = [k for k, v in found.metrics.items() if not isinstance(v, int | float) or isinstance(v, bool)]
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


KINDS: dict[str, Callable[[Any, Any], Iterable[Test]]] = {
    "model": _models,
    "objective": _objectives,
    "tokenizer": _tokenizers,
    "direction": _directions,
    "packing": _packings,
    "schedule": _schedules,
    "optimizer": _optimizers,
    "start": _starts,
    "corpus": _corpora,
    "evaluation": _evaluations,
}
"""Kind -> its contract."""


def failures(checks: Sequence[Check]) -> list[str]:
    """What is not kept, in words; empty when all is well."""
    return [f"{c.name}: {c.detail}" for c in checks if not c.passed]
