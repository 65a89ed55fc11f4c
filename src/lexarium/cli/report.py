"""`lexarium report`: the table and the page of a study, from what its runs have written so far."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lexarium.cli.console import Talk, rich_console
from lexarium.cli.options import Json, RunsDir, Study


def report(
    study: Study,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the report of a study and print its table; a half-finished study is reported as it stands.

    Example: lexarium report hierarchical-generalization --json
    """
    from lexarium.cli.study_run import report_page
    from lexarium.cli.target import study_name
    from lexarium.reports.page import build_report
    from lexarium.reports.tables import print_results

    talk = Talk(as_json)
    folder = Path(study)
    if (
        folder.parent.name == "studies" and (folder / "index.json").is_file()
    ):  # where its index and report lie
        name, runs_dir = folder.name, folder.parent.parent
    else:
        name = study_name(study)
    results = build_report(runs_dir, name)
    page = report_page(runs_dir, name)
    runs = [{**run, "dir": str(runs_dir.absolute() / run["dir"])} for run in results["runs"]]
    talk.data({**results, "runs": runs, "page": str(page)})
    print_results(results, rich_console(talk.stream))
    talk.say(str(page))
    if open_page:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            talk.note("no browser could be started; open the page yourself")
