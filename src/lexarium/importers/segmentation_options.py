"""The command line of `segmentation` beside the overrides, and where values of the configuration come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from lexarium.foundation.types import UserError
from lexarium.importers.frame import Draft


class Form(StrEnum):
    """How the utterances of the data are written; see corpus `utterances`."""

    symbols = "symbols"
    letters = "letters"


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, as train.py takes them.", show_default=False),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE", help="The corpus: a table, or lines of utterances; repeatable."),
]
Valid = Annotated[
    list[str] | None, typer.Option("--valid", metavar="FILE", help="The validation set, whole; repeatable.")
]
ValShare = Annotated[
    float | None, typer.Option("--val-share", metavar="SHARE", help="Held out of --data; empty = 0.05.")
]
FormOption = Annotated[
    Form | None,
    typer.Option("--form", help="How utterances are written; empty = symbols of phonemes, letters of text."),
]
Phoible = Annotated[
    str | None, typer.Option("--phoible", metavar="FILE", help="Table of features, of model=gpt2_feature.")
]
BabySLM = Annotated[str | None, typer.Option("--babyslm", metavar="FOLDER", help="Stimuli of BabySLM.")]
BLiMP = Annotated[
    list[str] | None,
    typer.Option("--blimp", metavar="PATH", help="Pairs of BLiMP as JSON lines; repeatable."),
]
Scored = Annotated[
    int | None,
    typer.Option("--segmentation-utterances", min=1, metavar="N", help="Score the first N utterances only."),
]
Published = Annotated[
    bool,
    typer.Option("--published-thresholds", help="Choose thresholds on what is scored, by the code's search."),
]
Baselines = Annotated[bool, typer.Option("--baselines", help="Score what counting can do, too, at the end.")]
Requeue = Annotated[
    str | None,
    typer.Option(
        "--requeue-after", "--resubmit_after", metavar="HOURS", help="Refused: an option of `train`."
    ),
]


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
