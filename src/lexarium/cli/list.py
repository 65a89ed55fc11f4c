"""`lexarium list`: components and catalog studies, read as text; nothing is imported."""

from __future__ import annotations

import difflib
import re
from typing import Annotated

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import CATALOG, Json, catalog
from lexarium.foundation import registry
from lexarium.foundation.types import UserError

STUDIES = "studies"
_TITLE = re.compile(r"^report:(?:\n  .*)*?\n  title:(.*)$", re.MULTILINE)
_CLAIM = re.compile(r"^claim:(.*(?:\n[ ]+.*)*)", re.MULTILINE)


def _kinds(incomplete: str) -> list[str]:
    return [
        kind for kind in [*map(registry.plural, registry.FOLDERS), STUDIES] if kind.startswith(incomplete)
    ]


def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="models, corpora, studies, ...", autocompletion=_kinds),
    ] = None,
    as_json: Json = False,
) -> None:
    """List models, objectives, corpora, evaluations and other components, and the catalog of studies.

    Example: lexarium list models
    """
    talk = Talk(as_json)
    wanted = list(registry.FOLDERS) + [STUDIES] if kind is None else [_kind(kind)]
    found = {_title(k): _studies() if k == STUDIES else registry.summaries(k) for k in wanted}
    talk.data({title: list(content) for title, content in found.items()})
    if as_json:
        return
    width = max(len(name) for content in found.values() for name in content)
    for title, content in found.items():
        talk.say(f"{title}:")
        for name, summary in content.items():
            talk.say(f"  {name.ljust(width)}  {summary}".rstrip())


def _title(kind: str) -> str:
    return STUDIES if kind == STUDIES else registry.plural(kind)


def _kind(text: str) -> str:
    """The kind meant by its singular or plural."""
    known = {**{k: k for k in registry.FOLDERS}, **{registry.plural(k): k for k in registry.FOLDERS}}
    known |= {STUDIES: STUDIES, "study": STUDIES}
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        kinds = ", ".join([*map(registry.plural, registry.FOLDERS), STUDIES])
        raise UserError(f"nothing to list is called {text!r}{hint} (there are: {kinds})")
    return known[text]


def _studies() -> dict[str, str]:
    """Name -> title or first words of the claim, for every study of the catalog."""
    return {name: _summary((CATALOG / f"{name}.yaml").read_text(encoding="utf-8")) for name in catalog()}


def _summary(text: str) -> str:
    """The report's title, or the beginning of the claim, found in the text of a study file."""
    for pattern in (_TITLE, _CLAIM):
        if match := pattern.search(text):
            words = match.group(1).split()
            line = " ".join(words[1:] if words and words[0][0] in ">|" else words).strip("'\"")
            return line if len(line) <= 90 else line[:87].rsplit(" ", 1)[0] + " ..."
    return ""
