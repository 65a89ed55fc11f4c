"""`study run` does what is missing and nothing else; `study status` and `report` tell how it stands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexarium.foundation.files import read_json
from lexarium.studies.run_files import RunFiles

NAME = "tiny"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, study_text: str) -> Path:
    """The runs directory of a finished study; its file lies beside it."""
    from lexarium.cli.main import main

    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(study_text, encoding="utf-8")
    assert (
        main(["study", "run", str(folder / "tiny.yaml"), "--jobs", "1", "--runs-dir", str(folder / "runs")])
        == 0
    )
    return folder / "runs"


def file(runs: Path) -> Path:
    return runs.parent / "tiny.yaml"


def test_every_run_is_done_and_the_page_is_named_last(done: Path, lexarium) -> None:
    answer = lexarium("study", "run", file(done), "--runs-dir", done)
    assert answer.status == 0
    page = done / "studies/tiny/report/index.html"
    assert answer.out.splitlines()[-1] == str(page) and page.exists()
    index = read_json(done / "studies/tiny/index.json")
    assert len(index["runs"]) == 4
    states = [RunFiles(done / r["dir"]).status() for r in index["runs"]]
    assert [(s["state"], s["step"], s["attempts"]) for s in states] == [("done", 8, 1)] * 4


def test_a_second_call_writes_no_run_and_prints_the_same(done: Path, lexarium) -> None:
    kept = lambda: {
        p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file() and "studies" not in p.parts
    }
    first, before = lexarium("study", "run", file(done), "--runs-dir", done), kept()
    second = lexarium("study", "run", file(done), "--runs-dir", done)
    assert (second.status, second.out) == (first.status, first.out)
    assert kept() == before


def test_a_second_call_draws_no_report_until_something_changes(done: Path, lexarium) -> None:
    lexarium("study", "run", file(done), "--runs-dir", done)
    results = done / "studies/tiny/report/results.json"
    before = results.stat().st_mtime_ns
    lexarium("study", "run", file(done), "--runs-dir", done)
    assert results.stat().st_mtime_ns == before
    evaluation = next(done.glob("*-s2-*/evals/loss/step-*8.json"))
    evaluation.touch()
    lexarium("study", "run", file(done), "--runs-dir", done)
    assert results.stat().st_mtime_ns > before


def test_status_for_programs(done: Path, lexarium) -> None:
    found = lexarium("study", "status", NAME, "--runs-dir", done, "--json").json
    assert found["study"] == NAME and found["counts"] == {"done": 4}
    for run in found["runs"]:
        assert {"name", "dir", "state", "step"} <= set(run)
        assert (done / run["dir"]).is_dir()
    everything = lexarium("study", "status", "--runs-dir", done, "--json").json
    assert [s["study"] for s in everything["studies"]] == [NAME] and len(everything["runs"]) == 4


def test_report_for_programs(done: Path, lexarium) -> None:
    answer = lexarium("report", NAME, "--runs-dir", done, "--json")
    (contrast,) = answer.json["contrasts"]
    assert {"metric", "arms", "n", "estimate", "interval", "p"} <= set(contrast)
    values = {}
    for run in read_json(done / "studies/tiny/index.json")["runs"]:
        result = read_json(done / run["dir"] / "evals/loss/step-00000008.json")["metrics"]["val"]
        values.setdefault(run["levels"]["rate"], []).append(result)
    expected = sum(values["high"]) / 2 - sum(values["low"]) / 2
    assert contrast["estimate"] == pytest.approx(expected)
    assert answer.status == 0 and "loss.val" in answer.err
    human = lexarium("report", file(done), "--runs-dir", done)
    assert human.out.splitlines()[-1] == str(done / "studies/tiny/report/index.html")


def test_dry_run_writes_nothing(lexarium, study_file: Path, tmp_path: Path) -> None:
    answer = lexarium(
        "study", "run", study_file, "--dry-run", "--seeds", "1,4", "--runs-dir", tmp_path / "runs"
    )
    assert answer.status == 0 and "4 runs, 4 to train" in answer.out and "rate=high/seed=4" in answer.out
    assert not (tmp_path / "runs").exists()


def test_an_evaluation_added_later_is_made_for_every_checkpoint(done: Path, lexarium, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "runs")
    shutil.copy(file(done), tmp_path / "tiny.yaml")
    extra = "evaluations=[{type: loss, splits: [val]}, {type: loss, name: later, splits: [ood], every: 4}]"
    answer = lexarium(
        "study", "run", tmp_path / "tiny.yaml", extra, "--runs-dir", tmp_path / "runs", "--jobs", "1"
    )
    assert answer.status == 0
    for run in (tmp_path / "runs").glob("*/config.yaml"):
        have = sorted((name, step) for name, step, _ in RunFiles(run.parent).evaluations())
        assert have == [("later", 4), ("later", 8), ("loss", 8)]


def test_failures_are_listed_and_child_runs_follow_their_parents(
    lexarium, study_file: Path, tmp_path: Path
) -> None:
    text = study_file.read_text().replace("optimizer.lr: 1e-2", "optimizer.lr: 1e30")
    study_file.write_text(text + "stages: {child: {start: {steps: [4, 8]}, train.max_steps: 4}}\n")
    arguments = ("study", "run", study_file, "--seeds", "1", "--jobs", "1", "--runs-dir", tmp_path / "runs")
    answer = lexarium(*arguments)
    assert answer.status == 1
    (line,) = [x for x in answer.out.splitlines() if x.startswith("failed")]
    assert "rate=high/seed=1" in line and "step 1" in line
    assert "3 of 6 runs failed" in answer.out and "--retry" in answer.out
    assert answer.out.count("did not finish") == 2  # the children of the failed run
    again = lexarium(*arguments)  # a failed run waits for --retry, its children for it
    assert again.status == 1 and "step 1" in again.out and again.out.count("did not finish") == 2
    found = lexarium("study", "status", study_file, "--runs-dir", tmp_path / "runs", "--json").json["runs"]
    assert {r["name"]: (r["state"], r["step"]) for r in found} == {
        "rate=low/seed=1": ("done", 8),
        "rate=high/seed=1": ("failed", 1),
        "child/rate=low/start_step=4/seed=1": ("done", 4),
        "child/rate=low/start_step=8/seed=1": ("done", 4),
        "child/rate=high/start_step=4/seed=1": ("waiting", 0),
        "child/rate=high/start_step=8/seed=1": ("waiting", 0),
    }
    attempts = [RunFiles(tmp_path / "runs" / r["dir"]).status()["attempts"] for r in found]
    assert attempts == [1, 1, 1, 1, 0, 0]


def test_only_trains_some_and_keeps_the_index_whole(lexarium, study_file: Path, tmp_path: Path) -> None:
    from lexarium.foundation.lock import Lock

    runs = tmp_path / "runs"
    only = ("study", "run", study_file, "--only", "rate=low", "--seeds", "1", "--runs-dir", runs)
    listed = lexarium(*only, "--dry-run")
    assert "1 runs" in listed.out and "rate=high" not in listed.out
    folder = runs / next(w for w in listed.out.split() if w.startswith("question"))
    with Lock(folder):  # as another process would
        answer = lexarium(*only)
    assert answer.status == 124 and "in use by process" in answer.out
    index = read_json(runs / "studies/tiny/index.json")
    assert [r["name"] for r in index["runs"]] == ["rate=low/seed=1", "rate=high/seed=1"]
    assert RunFiles(folder).status()["state"] == "waiting"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 124), (signal.SIGINT, 130)])
def test_interrupted_anywhere_the_same_command_goes_on(
    number: int, status: int, study_file: Path, tmp_path: Path, lexarium
) -> None:
    runs = tmp_path / "runs"
    arguments = [
        "study",
        "run",
        str(study_file),
        "--seeds",
        "1",
        "train.max_steps=600",
        "--runs-dir",
        str(runs),
    ]
    command = [sys.executable, "-m", "lexarium", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(runs.glob("*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: to every process
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "the same command goes on" in out and "Traceback" not in err
    assert not list(runs.glob("*/owner.json"))
    assert lexarium(*arguments).status == 0
    found = lexarium("study", "status", NAME, "--runs-dir", runs, "--json").json
    assert found["counts"] == {"done": 2}


@pytest.mark.parametrize(
    "verb", [("study", "run"), ("prepare",), ("prepare", "tokenizer"), ("prepare", "tokens")]
)
def test_a_text_too_small_for_the_vocabulary_is_named(
    verb: tuple[str, ...], tmp_path: Path, lexarium
) -> None:
    """Of the languages of a study, the one that is at fault; of one text alone nothing is named."""
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = [f"line {i} of a text with {i * i} words and {i * 7 % 31} more" for i in range(900)]
    (texts / "en.txt").write_text("\n".join(lines))
    (texts / "fi.txt").write_text("a few words\n" * 300)
    common = (
        "corpus.block_bytes=1024",
        "corpus.split.val=0.3",
        "tokenizer.vocab_size=320",
        "--runs-dir",
        tmp_path / "runs",
    )
    study = ("arrow-of-time", "--preset", "languages", f"corpus.path={texts}")
    answer = lexarium(*verb, *study, *common)
    assert answer.status == 2 and "error: language=fi: tokenizer.vocab_size is 320" in answer.err
    if verb[0] == "prepare":
        alone = lexarium(*verb, texts / "fi.txt", *common)
        assert alone.status == 2 and "error: tokenizer.vocab_size is 320" in alone.err


def test_an_override_of_one_level_runs_beside_only(lexarium, tmp_path: Path) -> None:
    """The levels that replace the component are left out; the study is then of the others."""
    command = (
        "study",
        "run",
        "word-segmentation",
        "--preset",
        "smoke",
        "--runs-dir",
        tmp_path,
        "model.d_model=8",
    )
    answer = lexarium(*command)
    assert answer.status == 2 and "transformer (leaves it), gru" in answer.err
    answer = lexarium(*command, "--only", "family=transformer", "train.max_steps=2", "--jobs", "1")
    assert answer.status == 0, answer.err
    index = json.loads((tmp_path / "studies" / "word-segmentation" / "index.json").read_text())
    assert {run["levels"]["family"] for run in index["runs"]} == {"transformer"} and len(index["runs"]) == 2
