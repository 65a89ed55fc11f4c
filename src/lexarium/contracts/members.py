"""What a class of each kind must have, beside `kind`, `name`, `version` and `Config`.

`test-component` looks for these first and names what is missing; docs/design/data-flow.md says what each
one takes and gives (a test compares the two).
"""

from __future__ import annotations

from typing import Any

CLASS: dict[str, tuple[str, ...]] = {
    "corpus": ("splits", "documents", "symbols", "fingerprint"),
    "tokenizer": ("train", "load", "dump", "encode", "decode", "id", "roles", "vocab_size", "fingerprint"),
    "packing": ("plan", "longest", "separator"),
    "direction": ("apply", "undo", "extra_tokens"),
    "objective": ("produces", "answers", "extra_tokens", "collate", "loss", "read", "scored"),
    "model": ("needs", "consumes", "packs", "stacks", "compiles", "randomness", "forward", "initialise_parameter"),
    "optimizer": ("build",),
    "schedule": ("scale",),
    "start": ("fingerprint", "load"),
    "evaluation": ("asks", "run"),
}  # fmt: skip
"""Kind -> members of the class."""

INSTANCE: dict[str, tuple[str, ...]] = {"objective": ("channels", "roles", "vocab_size")}
"""Kind -> attributes that an object has once it is built."""


def missing(kind: str, cls: Any) -> list[str]:
    """Members that a class lacks."""
    return [member for member in CLASS[kind] if not hasattr(cls, member)]


def missing_when_built(kind: str, component: Any) -> list[str]:
    """Attributes that a built component lacks."""
    return [member for member in INSTANCE.get(kind, ()) if not hasattr(component, member)]
