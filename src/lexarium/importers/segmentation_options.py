"""The command line of `segmentation` beside the overrides, and where values of the configuration come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft


class Form(StrEnum):
    """How the utterances of the data are written; see corpus `utterances`."""

    symbols = "symbols"
    letters = "letters"


@dataclass(frozen=True)
class Options:
    """The command line beside the overrides; `origins`: what gave the values that no override did."""

    data: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    val_share: float | None = None
    form: Form | None = None
    phoible: str | None = None
    babyslm: str | None = None
    blimp: tuple[str, ...] = ()
    utterances: int | None = None
    published_thresholds: bool = False
    baselines: bool = False
    target: str = "FILE"
    origins: Mapping[str, str] = field(default_factory=dict)


def why(draft: Draft, *keys: str, more: str = "") -> str:
    """The comment of a value: keys of the input, each with its origin, and what is to be said of it."""
    told = []
    for key in keys:
        origin = draft.options.origins.get(key)
        told.append(draft.told(key) + (f" ({origin})" if origin else ""))
    return ", ".join(told) + ("; " + more if more else "")


def from_default(draft: Draft, key: str) -> bool:
    """Whether neither the command line nor `experiment` gave the value."""
    origin = draft.options.origins.get(key, "")
    return bool(origin) and not origin.startswith("experiment=")


def flag(draft: Draft, key: str) -> bool:
    """A value of the input as true or false; raises UserError."""
    value: Any = draft.given.get(key)
    if not isinstance(value, bool):
        raise UserError(f"{key}: expected True or False, found {value!r}")
    return value


def words(draft: Draft, key: str) -> str:
    """A value of the input as a text that is not empty; raises UserError."""
    value: Any = draft.given.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{key}: expected a name, found {value!r}")
    return value
