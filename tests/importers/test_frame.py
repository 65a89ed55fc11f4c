"""The frame by itself: every key is mapped or refused, and the file that comes out is one of ours."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lexarium.cli import importing
from lexarium.cli.main import main
from lexarium.foundation.config import parse_overrides, parse_yaml, validate
from lexarium.foundation.source import dotted
from lexarium.foundation.types import UserError
from lexarium.importers.frame import (
    Draft,
    Key,
    Table,
    apply,
    choice,
    deliver,
    finish,
    flatten,
    number,
    refuse,
    to,
    unused,
    used_by,
    whole,
)
from lexarium.studies.run_config import RunConfig

# A composed configuration, as Hydra's: groups, dotted overrides, a value computed from two.
TABLE: Table = {
    "data": Key(choice({"questions": {"corpus.type": "question_formation"}}), default="questions"),
    "model": Key(
        choice({"gpt": {"model.type": "transformer"}, "lstm": {"model.type": "recurrent"}}), required=True
    ),
    "model.hidden_size": to("model.d_model"),
    "trainer.batch": Key(
        lambda draft, key, value: draft.set(
            "train.global_batch_size",
            whole(draft, key, 1) * whole(draft, "trainer.accumulate", 1),
            draft.told(key),
        ),
        default=16,
    ),
    "trainer.accumulate": Key(used_by("trainer.batch"), default=1),
    "trainer.rate": to("optimizer.lr", by=float),
    "trainer.wandb": unused("metrics lie in the run's directory"),
    "trainer.fp16_backend": refuse("there is one backend", unless=(None, "auto")),
}


def draft(*words: str) -> Draft:
    """From words like `model=gpt trainer.batch=8`, as on a command line."""
    made = Draft("words")
    apply(TABLE, {dotted(place): value for place, value in parse_overrides(words).items()}, made)
    return made


def test_groups_overrides_defaults_and_computed_values() -> None:
    made = draft("model=gpt", "model.hidden_size=64", "trainer.accumulate=4", "trainer.rate=1")
    assert made.source().data == {
        "corpus": {"type": "question_formation"},
        "model": {"type": "transformer", "d_model": 64},
        "optimizer": {"lr": 1.0},
        "train": {"global_batch_size": 64},
    }
    finish(made)


def test_the_text_reads_back_equal_and_says_where_values_are_from() -> None:
    made = draft("model=lstm", "trainer.wandb=true", "model.hidden_size=64")
    text = made.text("Written by a test.")
    assert parse_yaml(text, "x").data == made.source().data
    lines = text.splitlines()
    assert lines[:2] == [
        "# Written by a test.",
        "# trainer.wandb: true has no counterpart: metrics lie in the run's directory",
    ]
    assert "  d_model: 64  # model.hidden_size: 64" in lines
    validate(RunConfig, parse_yaml(text, "x"))


def test_comments_cannot_leave_their_line() -> None:
    made = Draft("x")
    made.set("corpus.type", "question_formation", "a\nmodel: {type: recurrent}")
    made.note("b\nseed: 3")
    assert parse_yaml(made.text("h"), "x").data == {"corpus": {"type": "question_formation"}}


def test_lists_of_mappings() -> None:
    made = Draft("x")
    for i, name in enumerate(("loss", "rule_choice")):
        made.set(f"evaluations.{i}.every", 5 + i, "there")
        made.set(f"evaluations.{i}.type", name, "here")
    made.set("optimizer.betas", [0.8, 0.9], "b")
    expected = [{"type": "loss", "every": 5}, {"type": "rule_choice", "every": 6}]
    assert made.source().data == {"optimizer": {"betas": [0.8, 0.9]}, "evaluations": expected}
    text = made.text("h")
    assert parse_yaml(text, "x").data == made.source().data
    assert "  - type: loss  # here" in text.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=gpt", "trainer.bach=3"],
            r"^words: trainer\.bach: unknown key; did you mean 'trainer\.batch'\?$",
        ),
        (["model=gpt", "xyz=3"], "xyz: unknown key; known keys: data, model"),
        (["model=gpt", "trainer.hidden_size=3"], r"did you mean 'model\.hidden_size'"),
        (["model=gpt", "trainer=3"], "trainer: expected a mapping with keys of its own"),
        (["data=questions"], "model: missing; this key is required"),
        (["model=t5"], r'model: expected one of "gpt", "lstm", found \'t5\''),
        (["model=[gpt]"], "model: expected one of"),
        (
            ["model=gpt", "trainer.fp16_backend=apex"],
            'fp16_backend: "apex" is not imported: there is one backend',
        ),
        (["model=gpt", "trainer.batch=0"], "trainer.batch: expected a whole number from 1 on, found 0"),
        (["model=gpt", "trainer.batch=true"], "expected a whole number from 1 on, found True"),
        (["model=gpt", "trainer.batch=2.5"], "expected a whole number"),
        (["model=gpt", "trainer.batch=.inf"], "expected a whole number"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draft(*words)


def test_problems_of_keys_are_told_together() -> None:
    with pytest.raises(UserError) as told:
        draft("xyz=1", "trainer.bach=2")
    assert len(str(told.value).splitlines()) == 3


def test_an_allowed_value_of_a_refused_key() -> None:
    assert "fp16" not in draft("model=gpt", "trainer.fp16_backend=auto").text("h")


def test_two_keys_for_one_place() -> None:
    made = Draft("x")
    made.set("model.d_model", 3, "a")
    made.set("model.d_model", 3, "b")
    with pytest.raises(UserError, match=r"model\.d_model: is 3 by b, but 4 by c; keep one"):
        made.set("model.d_model", 4, "c")


def test_numbers() -> None:
    made = Draft("x", given={"a": 1e999, "b": "3", "c": 2, "d": False})
    assert number(made, "c") == 2.0
    for key in "abd":
        with pytest.raises(UserError, match=f"{key}: expected a number"):
            number(made, key)


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [{"e": 2}]}) == {"a.b": 1, "a.c": {}, "d": [{"e": 2}]}


def test_a_mistake_found_by_our_schema_names_their_key() -> None:
    with pytest.raises(
        UserError, match=r"^words \(model\.hidden_size: -1\): model\.d_model: .* greater than 0"
    ):
        finish(draft("model=lstm", "model.hidden_size=-1"))


def test_factors_that_do_not_fit_are_refused() -> None:
    made = draft("model=gpt")
    made.set("objective.type", "seq2seq", "x")
    with pytest.raises(UserError, match="^words: objective 'seq2seq' gives a source to read"):
        finish(made)


# --- writing --------------------------------------------------------------------------------------------


def test_a_file_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    deliver(draft("model=gpt", "trainer.wandb=1"), "Head.", file, force=False)
    captured = capsys.readouterr()
    assert captured.out == f"{file}: written\n" and "has no counterpart" in captured.err
    first = file.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="is there already; add --force"):
        deliver(draft("model=lstm"), "Head.", file, force=False)
    assert file.read_text(encoding="utf-8") == first
    deliver(draft("model=lstm"), "Head.", file, force=True)
    assert "type: recurrent" in file.read_text(encoding="utf-8")
    for wrong, message in ((tmp_path, "is a directory"), (tmp_path / "a/b.yaml", "there is no directory")):
        with pytest.raises(UserError, match=message):
            deliver(draft("model=gpt"), "Head.", wrong, force=True)


def test_nothing_is_written_of_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        deliver(draft("model=gpt", "model.hidden_size=7"), "Head.", tmp_path / "run.yaml", force=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_notes_are_told_once_on_a_terminal(
    terminal: bool, as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in what is printed; where that goes elsewhere they are told beside it."""
    noted = draft("model=gpt")
    noted.note("a note of mine")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
    deliver(noted, "Head.", None, force=False, as_json=as_json)
    out, err = capsys.readouterr()
    assert out.count("a note of mine") == 1 and err.count("a note of mine") == (not terminal)


def test_printed_text_can_be_piped(capsys: pytest.CaptureFixture[str]) -> None:
    deliver(draft("model=gpt", "trainer.wandb=1"), "Head.", None, force=False)
    out = capsys.readouterr().out
    assert parse_yaml(out, "out").data["model"] == {"type": "transformer"}


# --- the verb -------------------------------------------------------------------------------------------

MINE = '''
"""An importer."""
from typing import Annotated
import typer
from lexarium.importers.frame import Draft, Force, Output, deliver


def command(width: Annotated[int, typer.Argument(help="Its width.")], output: Output = None, force: Force = False) -> None:
    """One of my own."""
    draft = Draft("mine")
    draft.set("corpus.type", "question_formation", "always")
    draft.set("model.type", "recurrent", "always")
    draft.set("model.d_model", width, "WIDTH")
    deliver(draft, "Mine.", output, force)
'''


def test_one_file_is_one_importer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import lexarium.importers

    folder = tmp_path / "importers"
    shutil.copytree(importing.FOLDER, folder)
    (folder / "my_own.py").write_text(MINE, encoding="utf-8")
    monkeypatch.setattr(importing, "FOLDER", folder)
    monkeypatch.setattr(lexarium.importers, "__path__", [str(folder)])
    assert "my-own" in importing.importers()
    assert main(["import", "--help"]) == 0
    assert "my-own" in (out := capsys.readouterr().out) and "One of my own." in out
    assert main(["import", "my-own", "24"]) == 0
    assert parse_yaml(capsys.readouterr().out, "x").data["model"] == {"type": "recurrent", "d_model": 24}


def test_files_without_a_command_are_no_importers() -> None:
    assert importing.importers() == [n for n in importing.importers() if n not in ("frame", "commented-json")]
    assert "arrows" in importing.importers() and "arrows-rules" not in importing.importers()


def test_an_unknown_importer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "arows", "x.json"]) == 2
    assert "arows" in capsys.readouterr().err
