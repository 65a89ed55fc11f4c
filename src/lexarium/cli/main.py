"""The command `lexarium`: its verbs, and what becomes of errors.

Exit status: 0 done; 1 training or some runs failed, or a check did not pass; 2 a mistake in what was asked
(one line on standard error, no trace); 124 stopped with its state saved, call again to go on; 130 the same
after Ctrl-C.

Importing this file costs typer and nothing more; every verb imports what it needs when it is called, so
that help, completion, `list` and `study status` answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lexarium.cli import (
    check,
    diff,
    doctor,
    evaluate,
    export,
    importing,
    prepare,
    profile,
    report,
    sample,
    show,
    study,
    test_component,
    train,
)
from lexarium.cli import list as list_verb
from lexarium.cli.console import DONE, FAILED, INTERRUPTED, USER_ERROR
from lexarium.foundation.types import NonFinite, UserError

app = typer.Typer(
    name="lexarium",
    help="Train small language models from scratch under controlled conditions, and answer questions about"
    " what they learned.",
    epilog="A mistake is told in one line; --debug, anywhere, shows the trace as well.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for name, verb, short in (
    ("check", check.check, "Validate a study or a run; print arms, sizes, number of runs."),
    ("prepare", prepare.prepare, "Generate or read the data and tokenise them."),
    ("train", train.train, "Train one run, or go on with it."),
    ("profile", profile.profile, "Where a step goes on this machine, and its bound."),
    ("study", study.app, "Run a whole study, or see how far it is."),
    ("evaluate", evaluate.evaluate, "Ask a trained model, at any checkpoint."),
    ("report", report.report, "Table and page of a study's results."),
    ("export", export.export, "A corpus as text, a model as a folder."),
    ("import", importing.app, "A run file from another code base's configuration."),
    ("sample", sample.sample, "Text from a trained model."),
    ("list", list_verb.list_components, "Components and the catalog of studies."),
    ("show", show.show, "What is known of a run, a study, a component."),
    ("diff", diff.diff, "What sets two runs apart."),
    ("doctor", doctor.doctor, "Check this machine and this environment."),
    ("test-component", test_component.run_contract, "Test what a component promises."),
):
    if isinstance(verb, typer.Typer):
        app.add_typer(verb, name=name, short_help=short)
    else:
        app.command(name, short_help=short)(verb)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"lexarium {metadata.version('lexarium')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"] or ["--help"]
    try:
        status = app(argv, prog_name="lexarium", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except NonFinite as error:
        return _told(str(error), debug, FAILED)
    except UserError as error:
        return _told(str(error), debug)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            return _bug(error, debug)
        return _told(f"{os.fsdecode(error.filename)}: {error.strerror.lower()}", debug)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return DONE
        if hasattr(error, "format_message"):  # the command line itself is wrong
            return _told(_usage(error), debug)
        return _bug(error, debug)


def _told(message: str, debug: bool, status: int = USER_ERROR) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    for line in message.splitlines() or ["unknown mistake"]:
        print(f"error: {line}", file=sys.stderr)
    return status


def _usage(error: Exception) -> str:
    """What typer says about the command line, in one line, with the way to the verb's help."""
    message = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
    option = getattr(error, "option_name", "")
    if isinstance(option, str) and "." in option:
        return f"{message}; settings are written without dashes: {option.lstrip('-')}=VALUE"
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "lexarium"
    return f"{message}; see `{where} --help`"


def _bug(error: BaseException, debug: bool) -> int:
    import tempfile
    import traceback

    trace = traceback.format_exc()
    what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if debug:
        print(trace, file=sys.stderr)
        print(f"error: this is a bug in lexarium ({what})", file=sys.stderr)
        return FAILED
    try:
        handle, name = tempfile.mkstemp(prefix="lexarium-trace-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(trace)
        where = f"the trace is in {Path(name)}; "
    except OSError:
        where = ""
    print(
        f"error: this is a bug in lexarium ({what}); {where}run the command again with --debug to see it",
        file=sys.stderr,
    )
    return FAILED
