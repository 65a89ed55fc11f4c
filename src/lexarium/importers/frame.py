"""What importers share: tables from their keys to ours, and the run file that comes of them.

An importer is one file of this folder. It has `command`, a function with typer annotations that `lexarium import` finds
by the name of the file, and tables

    key of theirs -> rule          a rule is called with the draft, the key and its value

Whatever the input is (a JSON file, flags, overrides of a composed configuration), it comes here as a flat mapping
`dotted key -> value`. `apply` gives every key to its rule. A key that the table does not have is refused with the
nearest one it has; so nothing is dropped in silence: what needs nothing of ours has the rule `unused`, with a reason,
what cannot be had the rule `refuse`, and what another key's rule reads the rule `used_by`. Problems of keys are told
together, then the first problem of a value. A `Draft` collects our values, each with a comment that says where it comes
from, and notes for the reader. `finish` checks the result by our own schema, as `lexarium check` does, before anybody
sees it.

Refused: a value for a place that another key has set to something else, and a file that would be overwritten.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.foundation.source import Place, Source, annotated_yaml, parse_path
from lexarium.foundation.types import UserError

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write the run file here; empty = print it."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file of -o.")]


SECTIONS: tuple[str | int, ...] = (
    "corpus", "tokenizer", "view", "packing", "direction", "objective", "model", "optimizer", "schedule", "start",
    "train", "checkpoint", "plan", "evaluations", "seed",
)  # fmt: skip
SHOWN = 60
"""Characters of a value in a comment."""


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()
"""No default: a key that is absent does nothing."""


@dataclass
class Draft:
    """A run file in the making. name: the input, for messages; options: the importer's own; given: the input with the
    defaults of absent keys; given_keys: those that were there."""

    name: str
    options: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    given_keys: frozenset[str] = frozenset()
    values: dict[Place, Any] = field(default_factory=dict)
    comments: dict[Place, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, path: str, value: Any, why: str) -> None:
        """Our value at `a.b.0.c`, and where it comes from."""
        place, why = parse_path(path), " ".join(why.split())
        if place in self.values and self.values[place] != value:
            raise UserError(
                f"{path}: is {self.values[place]!r} by {self.comments[place]}, but {value!r} by {why}; keep one"
            )
        self.values[place], self.comments[place] = value, why

    def note(self, text: str) -> None:
        """Something the reader should know; said once."""
        if (line := " ".join(text.split())) not in self.notes:
            self.notes.append(line)

    def told(self, *keys: str) -> str:
        """`section.key: value` of keys of the input, as a comment."""
        text = lambda value: short if len(short := json.dumps(value)) <= SHOWN else short[:SHOWN] + "..."
        return ", ".join(
            f"{key}: {text(self.given[key])}" if self.given.get(key) is not None else f"{key} is empty"
            for key in keys
        )

    def source(self) -> Source:
        """Nested plain data with the origin of every value."""
        data: dict[str, Any] = {}
        for place, value in sorted(self.values.items(), key=lambda item: _order(item[0])):
            node: Any = data
            for step, following in zip(place, [*place[1:], None], strict=True):
                empty: Any = value if following is None else [] if isinstance(following, int) else {}
                if isinstance(node, list):
                    if step == len(node):
                        node.append(empty)
                    node = node[int(step)]
                else:
                    node = node.setdefault(step, empty)
        return Source(data, {place: f"{self.name} ({why})" for place, why in self.comments.items()})

    def text(self, head: str) -> str:
        """The run file, every value with its origin as a comment."""
        lines = [f"# {line}\n" for line in (head, *self.notes)]
        return "".join(lines) + annotated_yaml(self.source().data, lambda place: self.comments.get(place, ""))


def _order(place: Place) -> tuple[Any, ...]:
    """Sections in the order of the flow; `type`, then `preset`, before the other keys of a component."""
    section = SECTIONS.index(place[0]) if place[0] in SECTIONS else len(SECTIONS)
    return section, place[1:-1], {"type": 0, "preset": 1}.get(str(place[-1]), 2)


Rule = Callable[[Draft, str, Any], None]


@dataclass(frozen=True)
class Key:
    """A rule, and what an absent key means: `default`, or an error."""

    rule: Rule
    default: Any = NOTHING
    required: bool = False


Table = Mapping[str, Key | Rule]


# --- rules ------------------------------------------------------------------------------------------


def to(*paths: str, by: Callable[[Any], Any] = lambda value: value) -> Rule:
    """The value goes to these paths, changed by `by`."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        for path in paths:
            draft.set(path, by(value), draft.told(key))

    return rule


def choice(levels: Mapping[Any, Mapping[str, Any]]) -> Rule:
    """The value names a group of settings, as a Hydra group or a `--variant` does."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if not isinstance(value, str | int | bool | None) or value not in levels:
            raise UserError(f"{key}: expected one of {', '.join(map(json.dumps, levels))}, found {value!r}")
        for path, ours in levels[value].items():
            draft.set(path, ours, draft.told(key))

    return rule


def refuse(reason: str, unless: tuple[Any, ...] = (None,)) -> Rule:
    """The value is not supported, `unless` it is one of these, which change nothing."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if value not in unless:
            raise UserError(f"{key}: {json.dumps(value)} is not imported: {reason}")

    return rule


def unused(reason: str) -> Rule:
    """Needs nothing of ours; the reader is told why."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        draft.note(f"{draft.told(key)} has no counterpart: {reason}")

    return rule


def used_by(other: str) -> Rule:
    """Read by the rule of another key."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        """Nothing: `other` reads it."""

    rule.__name__ = f"used_by_{other}"
    return rule


def whole(draft: Draft, key: str, least: int = 0) -> int:
    """A value of the input as a whole number; raises UserError."""
    value: Any = draft.given.get(key)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or value != int(value) or value < least:
        raise UserError(f"{key}: expected a whole number from {least} on, found {value!r}")
    return int(value)


def number(draft: Draft, key: str) -> float:
    """A value of the input as a number; raises UserError."""
    value: Any = draft.given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{key}: expected a number, found {value!r}")
    return float(value)


# --- applying a table -------------------------------------------------------------------------------


def flatten(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as `{a.b: value}`. An empty mapping stays a value."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def apply(table: Table, given: Mapping[str, Any], draft: Draft) -> None:
    """Give every key to its rule, in the order of the table; raises UserError, a line for every problem of keys."""
    keys = {name: key if isinstance(key, Key) else Key(key) for name, key in table.items()}
    problems = [_unknown(name, keys) for name in given if name not in keys]
    problems += [
        f"{name}: missing; this key is required"
        for name, key in keys.items()
        if key.required and name not in given
    ]
    defaults = {name: key.default for name, key in keys.items() if key.default is not NOTHING}
    draft.given, draft.given_keys = {**defaults, **given}, frozenset(given)
    if problems:
        raise UserError("\n".join(f"{draft.name}: {problem}" for problem in problems))
    for name, key in keys.items():
        if name in draft.given:
            try:
                key.rule(draft, name, draft.given[name])
            except UserError as error:
                raise UserError(f"{draft.name}: {error}") from None


def _unknown(name: str, keys: Mapping[str, Key]) -> str:
    if any(key.startswith(f"{name}.") for key in keys):
        return f"{name}: expected a mapping with keys of its own"
    last = name.rpartition(".")[2]
    near = [key for key in keys if key.rpartition(".")[2] == last][:1]  # the right word in the wrong section
    near = near or difflib.get_close_matches(name, keys, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(keys)}"
    return f"{name}: unknown key; {hint}"


# --- the result -------------------------------------------------------------------------------------


def finish(draft: Draft) -> None:
    """Raise UserError, naming the key of the input, for what our schema does not accept or what does not fit."""
    from lexarium.foundation.config import validate
    from lexarium.studies.run_config import RunConfig, check

    config = validate(RunConfig, draft.source())
    try:
        check(config)
    except UserError as error:
        raise UserError(f"{draft.name}: {error}") from None


def deliver(draft: Draft, head: str, output: Path | None, force: bool, as_json: bool = False) -> None:
    """Check the draft, then print or write it; notes go to standard error, unless they are read at the head of what is
    printed to the same terminal."""
    from lexarium.foundation.files import write_atomic

    talk = Talk(as_json)
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"-o {output}: there is no directory {output.parent}")
    if output is not None and (output.is_dir() or (output.exists() and not force)):
        told = (
            "is a directory; give a file"
            if output.is_dir()
            else "is there already; add --force to replace it"
        )
        raise UserError(f"-o {output}: {told}")
    finish(draft)
    seen = (as_json or output is None) and sys.stdout.isatty() and sys.stderr.isatty()
    for note in draft.notes if not seen else ():
        talk.note(note)
    talk.data({"run": draft.source().data, "notes": draft.notes})
    if output is not None:
        write_atomic(output, draft.text(head))
        talk.say(f"{output}: written")
    elif not as_json:
        print(draft.text(head), end="")
