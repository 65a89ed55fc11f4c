"""Promise 13: changed data are refused, at resume and at evaluation, with a field-by-field difference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_run
from lexarium.foundation import registry
from lexarium.foundation.files import Damaged, read_json, write_json
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run
from lexarium.training.signals import StopFlag
from toy import TYPE, write_corpus

DOCUMENTS = {
    "train": [f"our newt number {i % 7} does wait ." for i in range(40)],
    "val": ["our newt number 3 does wait .", "our newt number 5 does wait ."],
}
TRAIN = {"max_steps": 6, "global_batch_size": 4, "micro_batch_size": None, "log_every": 2}


def file_run(folder: Path, **more: Any) -> Run:
    write_corpus(folder / "corpus", DOCUMENTS)
    corpus = {"type": TYPE, "folder": str(folder / "corpus")}
    return tiny_run(folder / "runs", corpus=corpus, train=TRAIN, checkpoint={"every": 3}, **more)


def half_trained(folder: Path, **more: Any) -> Run:
    """Stopped after step 3 of 6."""
    run, flag = file_run(folder, **more), StopFlag()

    def stop(step: int) -> None:
        if step == 3:
            flag.raise_flag("the test", 0)

    assert run.train(flag, progress=stop) == "preempted"
    return Run.open(run.path, trust_plugins=True)


def change_line(folder: Path, old: str = "number 6", new: str = "number 5") -> None:
    """One word of one line; with the default the vocabulary stays as it is."""
    path = folder / "corpus" / "train.jsonl"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def stores(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "runs" / "stores").iterdir())


def test_a_changed_source_line_is_refused_when_training_goes_on(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    before = stores(tmp_path)
    change_line(tmp_path)
    with pytest.raises(
        Damaged,
        match=r"not what it was when the run began: corpus\.files: '[0-9a-f]{64}' -> '[0-9a-f]{64}'\. Restore that, or start a new run",
    ):
        run.train()
    assert stores(tmp_path) == before, "nothing was prepared for the refusal"
    assert run.files.status()["state"] == "preempted", (
        "a refusal is no failure: it goes on once the data are back"
    )
    write_corpus(tmp_path / "corpus", DOCUMENTS)
    assert run.train() == "done"


def test_a_changed_source_line_is_refused_by_an_evaluation(tmp_path: Path) -> None:
    run = file_run(tmp_path)
    assert run.train() == "done"
    loss = run.evaluation("loss")
    step, first = run.evaluate(loss, 3)
    change_line(tmp_path)
    with pytest.raises(Damaged, match=r"corpus\.files: "):
        Run.open(run.path, trust_plugins=True).evaluate(loss, 3)
    assert read_json(run.files.evaluation_file("loss", 3))["metrics"] == first.metrics
    assert step == 3


def test_a_changed_source_is_a_new_run_for_who_asks_anew(tmp_path: Path) -> None:
    one = file_run(tmp_path)
    change_line(tmp_path)
    other = tiny_run(tmp_path / "runs", one.config)
    assert other.path != one.path


def test_a_trained_model_is_asked_without_its_data(tmp_path: Path) -> None:
    """Asking in one's own words needs no corpus, so a changed one does no harm."""
    run = file_run(tmp_path)
    run.train()
    change_line(tmp_path)
    assert Run.open(run.path, trust_plugins=True).scorer().next_scores(["our newt"]).shape[0] == 1


# --- tokenizer --------------------------------------------------------------------------------------


def swap(run: Run, old: str, new: str) -> None:
    path = run.path / "tokenizer.json"
    text = path.read_text()
    assert f'"{old}"' in text
    path.write_text(text.replace(f'"{old}"', f'"{new}"'))


def test_a_swapped_vocabulary_is_refused_symbol_by_symbol(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    swap(run, "newt", "yak")
    message = r"tokenizer\.json: is not the vocabulary of .*: 14 symbols, expected 14; it has 'yak'; it lacks 'newt'"
    with pytest.raises(Damaged, match=message):
        run.train(retry=True)
    with pytest.raises(Damaged, match="is not the vocabulary the run was trained with"):
        Run.open(run.path, trust_plugins=True).scorer(3)
    swap(run, "yak", "newt")
    assert Run.open(run.path, trust_plugins=True).train(retry=True) == "done"


def test_another_order_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    for old, new in (("newt", "x"), ("does", "newt"), ("x", "does")):
        swap(run, old, new)
    with pytest.raises(Damaged, match="the same symbols in another order"):
        run.train(retry=True)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    edit(run, "type: word", "type: character")
    with pytest.raises(Damaged, match=r"tokenizer\.type: 'word' -> 'character'"):
        Run.open(run.path, trust_plugins=True).train()


def edit(run: Run, old: str, new: str) -> None:
    path = run.path / "config.yaml"
    text = path.read_text()
    assert text.count(old) == 1, (old, text.count(old))
    path.write_text(text.replace(old, new))


# --- configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 0.003", "lr: 0.004", r"optimizer\.lr: 0\.003 -> 0\.004"),
        ("max_steps: 6", "max_steps: 8", r"train\.max_steps: 6 -> 8"),
        ("seed: 1\n", "seed: 2\n", r"seed: '\(default\)' -> 2"),
        ("fraction: 1.0", "fraction: 0.5", r"view: '\(default\)' -> \{'fraction': 0\.5\}"),
        ("type: forward", "type: backward", r"direction\.type: 'forward' -> 'backward'"),
    ],
)
def test_changed_science_is_refused_field_by_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    run = half_trained(tmp_path)
    edit(run, old, new)
    with pytest.raises(Damaged, match=rf"not what it was when the run began: {message}\. Restore"):
        Run.open(run.path, trust_plugins=True).train()


def test_several_changes_are_all_told(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    edit(run, "lr: 0.003", "lr: 0.004")
    edit(run, "type: forward", "type: backward")
    change_line(tmp_path)
    with pytest.raises(Damaged) as caught:
        Run.open(run.path, trust_plugins=True).train()
    found = re.findall(r"[\w.]+(?=: '?[\w.]+'? -> )", str(caught.value))
    assert found == ["corpus.files", "direction.type", "optimizer.lr"]


def test_what_lies_outside_the_science_may_change(tmp_path: Path) -> None:
    run = half_trained(tmp_path)
    edit(run, "log_every: 2", "log_every: 1")
    edit(run, "threads: 1", "threads: 2")
    assert Run.open(run.path, trust_plugins=True).train() == "done"


# --- code -------------------------------------------------------------------------------------------


def test_a_raised_version_of_a_component_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = half_trained(tmp_path)
    monkeypatch.setattr(registry.find("tokenizer", "word"), "version", 2)
    with pytest.raises(Damaged, match=r"tokenizer\.version: 1 -> 2"):
        run.train()
    monkeypatch.undo()
    monkeypatch.setattr(registry.find("model", "transformer"), "version", 2)
    with pytest.raises(Damaged, match=r"model\.version: 1 -> 2"):
        run.train()


CORPUS = """
from lexarium.foundation.config import ComponentConfig
from lexarium.foundation.types import Document

class Counting:
    kind, name, version = "corpus", "counting", 1
    splits = ("train", "val")
    class Config(ComponentConfig):
        type: str = "counting"
    def __init__(self, config):
        self.config = config
    def documents(self, split):
        return (Document(f"n {i % 5}") for i in range(20))
    def symbols(self):
        return []
    def fingerprint(self):
        return ""
"""


def test_a_corpus_of_ones_own_is_known_by_its_source_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CORPUS)
    options = {"corpus": {"type": f"{tmp_path / 'mine.py'}:Counting"}, "train": {**TRAIN, "max_steps": 4}}
    run = tiny_run(tmp_path / "runs", **options)
    flag = StopFlag()
    flag.raise_flag("the test", 0)
    run.train(flag)
    assert Run.open(run.path, trust_plugins=True).train() == "done"
    assert len(stores(tmp_path)) == 1, "the copy in the run directory gives the same store"
    (tmp_path / "mine.py").write_text(CORPUS.replace("range(20)", "range(21)"))
    changed = tiny_run(tmp_path / "runs", **options)
    assert changed.path != run.path, "changed code is changed data"
    changed.train()
    assert len(stores(tmp_path)) == 2


def test_an_edited_record_is_a_refusal_too(tmp_path: Path) -> None:
    """`Run.create` finds the directory by its name; what stands in it must be the same science."""
    run = file_run(tmp_path)
    provenance = read_json(run.path / "provenance.json")
    provenance["identity"]["optimizer"]["lr"] = 0.5
    write_json(run.path / "provenance.json", provenance)
    with pytest.raises(UserError, match=r"holds another run: optimizer\.lr: 0\.5 -> 0\.003"):
        tiny_run(tmp_path / "runs", run.config)
