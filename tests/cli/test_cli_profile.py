"""`profile`: where a step goes, as text and as JSON; it leaves runs alone and writes only the trace it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PHASES = ["data", "forward", "backward", "optimiser", "host and other"]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and the time of its last change."""
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
    }


def test_a_file_is_profiled_and_no_run_is_made(lexarium, run_file: Path, tmp_path: Path) -> None:
    runs, trace = tmp_path / "runs", tmp_path / "trace.json"
    answer = lexarium("profile", run_file, "--runs-dir", runs, "--steps", 3, "--trace", trace, "--json")
    assert answer.status == 0, answer.err
    assert [p.name for p in runs.iterdir()] == ["stores"]
    found = answer.json
    assert (found["program"], found["asked"], found["why"], found["steps"]) == ("eager", "auto", "", 3)
    assert list(found["phases"]) == PHASES
    assert sum(found["phases"].values()) == pytest.approx(found["marked_ms"], rel=0.3)
    assert sum(found["operators"]["kinds"].values()) == pytest.approx(found["operators"]["ms"])
    assert 0 < len(found["operators"]["top"]) <= 12
    assert "dropout and integers" in found["operators"]["kinds"]
    assert found["gaps_ms"] is None and 0 < found["roofline"]["real"] <= found["roofline"]["rows"]
    events = json.loads(trace.read_text())["traceEvents"]
    assert any(e.get("name") == "aten::mm" for e in events)
    assert found["trace"] == str(trace)


def test_a_run_directory_is_left_as_it_is(lexarium, trained: Path) -> None:
    before = listing(trained.parent)
    answer = lexarium("profile", trained, "--steps", 2)
    assert answer.status == 0, answer.err
    assert listing(trained.parent) == before
    out = answer.out
    assert out.startswith("program eager (plan.program auto); cpu, fp32, 1 thread\na step takes ")
    assert all(f"\n{phase} " in out for phase in PHASES)
    for words in ("aten::mm", "matrix products", "roofline", "bound", "MFU", "tokens/s", "padding"):
        assert words in out


def test_a_point_of_a_study_and_more_steps_than_it_has(lexarium, study_file: Path, tmp_path: Path) -> None:
    choice = ("--select", "rate=high", "--seed", "2", "--preset", "short", "--steps", "4")
    answer = lexarium(
        "profile", study_file, "train.global_batch_size=4", *choice, "--runs-dir", tmp_path, "--json"
    )
    assert answer.status == 0, answer.err
    assert answer.json["run"].count("-s2-") == 1
    assert not list(tmp_path.glob("*-s2-*"))


def test_the_trace_comes_before_everything_else(lexarium, run_file: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("mine")
    for trace, told in (
        (tmp_path / "no" / "t.json", "make it first"),
        (there, "exists already"),
        (tmp_path, "is a directory"),
    ):
        answer = lexarium("profile", run_file, "--runs-dir", tmp_path / "runs", "--trace", trace)
        (line,) = answer.err.splitlines()
        assert answer.status == 2 and told in line and line.startswith(f"error: --trace {trace}: ")
    assert there.read_text() == "mine" and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nope",), "hierarchical-generalization"),
        (("missing.yaml",), "no such file"),
        (("RUN", "--steps", "0"), "--steps"),
        (("RUN", "--steps", "x"), "valid integer"),
        (("RUN", "train.max_stepz=3"), "did you mean 'max_steps'"),
        (("RUN", "--preset", "p"), "presets belong to studies"),
        (("RUN", "plan.device=cuda:99"), "plan.device"),
        (("RUN", "train.precision=fp16", "plan.device=cpu"), "fp16 needs a CUDA device"),
    ],
)
def test_a_mistake_is_one_line(
    lexarium, run_file: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    typed = [str(run_file) if a == "RUN" else a for a in arguments]
    answer = lexarium("profile", *typed, "--runs-dir", tmp_path / "runs")
    line = answer.err.splitlines()[-1]
    assert answer.status == 2 and line.startswith("error: ") and told in line.replace("Mean", "mean"), answer
    assert not list((tmp_path / "runs").glob("*/config.yaml"))


def test_several_processes_are_refused(
    lexarium, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = lexarium("profile", run_file, "--runs-dir", tmp_path / "runs")
    assert answer.status == 2 and "without torchrun" in answer.err


def test_an_update_that_is_not_finite_is_told(lexarium, run_file: Path, tmp_path: Path) -> None:
    answer = lexarium(
        "profile", run_file, "optimizer.lr=1e30", "--runs-dir", tmp_path / "runs", "--steps", "1"
    )
    assert answer.status == 1 and "Lower optimizer.lr" in answer.err
