"""`lexarium test-component`: the public contract tests, on a component that ships or on your own."""

from __future__ import annotations

from typing import Annotated

import typer

from lexarium.cli.console import DONE, FAILED, Talk
from lexarium.cli.options import Json, Kind

Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="option=value", help="Options of the component, for example d_model=64."),
]


def run_contract(
    kind: Kind,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, package.module:Class or file.py:Class.")
    ],
    options: Options = None,
    as_json: Json = False,
) -> int:
    """Test what a component of its kind promises; exit status 1 when a promise is not kept.

    Sizes are small unless given. Example: lexarium test-component model my_model.py:Mixer d_model=64
    """
    from lexarium.contracts import contract
    from lexarium.foundation.config import parse_overrides

    talk = Talk(as_json)
    checks = contract(kind, name, parse_overrides(options or ()))
    talk.data(
        {
            "kind": kind,
            "name": name,
            "passed": all(c.passed for c in checks),
            "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
        }
    )
    for c in checks:
        talk.say(f"{'ok    ' if c.passed else 'FAILED'} {c.name}" + (f" ({c.detail})" if c.detail else ""))
    failed = sum(not c.passed for c in checks)
    talk.say(f"{failed} of {len(checks)} promises not kept" if failed else f"all {len(checks)} promises kept")
    return FAILED if failed else DONE
