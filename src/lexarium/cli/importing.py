"""`lexarium import`: run files from other code bases' configurations.

Every file of `importers/` that has a function `command` is a sub-command of its name. It is imported when it is asked
for, or listed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

FOLDER = Path(__file__).resolve().parent.parent / "importers"


def importers() -> list[str]:
    """Names of the importers, by reading files."""
    files = sorted(FOLDER.glob("*.py"))
    return [p.stem.replace("_", "-") for p in files if "\ndef command(" in p.read_text(encoding="utf-8")]


class Importers(TyperGroup):
    """The importers as sub-commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return importers()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; None when there is none of that name."""
        if cmd_name not in importers():
            return None
        module = importlib.import_module(f"lexarium.importers.{cmd_name.replace('-', '_')}")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name)(module.command)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=Importers,
    help="Write a run file from another code base's configuration. Nothing is trained; every value says where it is"
    " from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _importers() -> None:
    pass
