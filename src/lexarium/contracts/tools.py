"""What the contracts share: a promise and its outcome, small configurations, and something to work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, overlay, validate
from lexarium.foundation.types import Batch, Document, Example

SMALL: dict[str, Any] = {
    "n_layers": 2, "n_encoder_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 64, "d_embedding": 32,
    "max_positions": 64, "dropout": 0.0, "sizes": {"train": 200, "val": 20, "test": 20, "ood": 20},
    "seq_len": 16, "held_out": 5, "max_length": 64, "period": 10, "limit": 20, "vocab_size": 300,
}  # fmt: skip
"""Values tried for options of these names, so that a check takes seconds."""
TOLERANCE = 1e-4


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


def need(condition: Any, message: str) -> None:
    """Raise Broken unless the condition holds."""
    if not condition:
        raise Broken(message)


def small_config(cls: Any, name: str, options: Mapping[tuple[str | int, ...], Any]) -> Any:
    """The component's config with the given options, the others small where that is valid."""
    given = overlay(Source({"type": name}), options, "command line")
    reduced = {k: v for k, v in SMALL.items() if k in cls.Config.model_fields and k not in given.data}
    required = {k: v for k, v in reduced.items() if k in ("seq_len", "held_out", "period", "sizes")}
    for small in (reduced, required, {}):
        try:
            return validate(cls.Config, Source({**small, **given.data}, given.origins))
        except ConfigError as error:
            problem = error
    raise problem


# --- something to work on ---------------------------------------------------------------------------


class TinyCorpus:
    """Five sentence pairs, told apart by the channel `half`."""

    splits = ("train",)
    config: Any = None

    def documents(self, split: str) -> Iterator[Document]:
        """The five pairs."""
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
        """A word that occurs nowhere."""
        return ["moon"]

    def fingerprint(self) -> str:
        """Nothing is read."""
        return ""


class Sentences:
    """Sentences of many words, for tokenizers that learn from what is frequent."""

    splits = ("train",)
    config: Any = None
    text = (
        "while seventeen curious travellers quickly examined broken umbrellas beneath yellow lanterns they heard"
        " strange names of forgotten villages and nobody answered because every window was closed"
    )

    def __init__(self, numbers: bool = False) -> None:
        """`numbers`: numbers in place of words, for what reads ids and no text."""
        self.words = [str(i) for i in range(1, 30)] if numbers else self.text.split()

    def documents(self, split: str) -> Iterator[Document]:
        """Sixty sentences."""
        for i in range(1, 61):
            yield Document(" ".join(self.words[(i * j) % len(self.words)] for j in range(1, 12)))

    def symbols(self) -> list[str]:
        """None."""
        return []


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


@torch.no_grad()
def run_model(model: Any, batch: Batch, **changes: Tensor) -> Any:
    """The model's output on the inputs it consumes, without gradients."""
    inputs = {**batch.inputs, **changes}
    return model(**{k: v for k, v in inputs.items() if k in model.consumes})


def data_with(channels: Sequence[str], folder: Path) -> tuple[Any, Any]:
    """Configs of a small corpus with these channels and of its tokenizer; files it needs are written to `folder`."""
    if "word_start" not in channels:
        return component("corpus", "question_formation").config, component("tokenizer", "word").config
    path = folder / "utterances.txt"
    path.write_text("".join(f"ba dog{'o' * (i % 4)} ti{i % 7} a\n" for i in range(40)), encoding="utf-8")
    corpus = component("corpus", "utterances", path=str(path), form="letters", split={"val": 0.2})
    return corpus.config, component("tokenizer", "symbol", unit="character").config
