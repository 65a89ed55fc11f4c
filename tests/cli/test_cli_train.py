"""`train`: from a file, a point or a directory; stopped anywhere and gone on with; exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lexarium.cli.console import Talk
from lexarium.cli.train import print_metrics
from lexarium.foundation.files import read_json
from lexarium.studies.run_files import RunFiles


def only_run(runs: Path) -> Path:
    (found,) = [p.parent for p in runs.glob("*/config.yaml")]
    return found


def test_trains_and_prints_result_and_directory(lexarium, trained: Path) -> None:
    answer = lexarium("train", trained)
    assert answer.status == 0
    assert answer.out.splitlines()[0] == "done at step 12" and "finished before" in answer.err
    assert answer.out.splitlines()[-1] == str(trained)
    assert "loss.val" in answer.out and "loss.val.half.0" not in answer.out  # slices are in `show`


def test_words_found_are_told_although_they_are_slices(capsys: pytest.CaptureFixture[str]) -> None:
    """Segmentation has thousands of numbers, each with many parts to its name: its headline is not among the hidden."""
    metrics = {f"val.{c}.{s}.{m}.f": 0.5 for c in ("boundary", "loss") for s in ("peak", "threshold")
               for m in ("boundary", "token", "boundary_all")}  # fmt: skip
    counted = {
        "val.puddle.boundary.f": 0.8,
        "val.puddle.token.f": 0.7,
        "val.ngram_2_boundary.boundary.f": 0.6,
    }
    evaluations = {"cuts": {"step": 3, "metrics": metrics}, "counted": {"step": 3, "metrics": counted}}
    found = {"dir": "run", "train": {}, "evaluations": evaluations}
    print_metrics(Talk(), found)
    told = capsys.readouterr().out
    shown = [line.split()[0] for line in told.splitlines()[1:-1]]
    assert shown == [
        "cuts.val.boundary.peak.boundary.f",
        "cuts.val.boundary.peak.token.f",
        "cuts.val.boundary.threshold.boundary.f",
        "counted.val.puddle.boundary.f",
    ]
    assert "and 11 more" in told


def test_json_holds_the_metrics(lexarium, trained: Path) -> None:
    answer = lexarium("train", trained.name, "--runs-dir", trained.parent, "--json")
    found = answer.json
    assert (found["state"], found["step"], found["dir"]) == ("done", 12, str(trained))
    stored = {n: m for n, s, m in RunFiles(trained).evaluations() if s == 12}
    assert found["evaluations"]["loss"]["metrics"] == stored["loss"]
    assert found["attempts"] == 1  # asking again trains nothing


def test_out_of_time_is_124_and_goes_on_to_the_same_bytes(
    lexarium, trained: Path, tmp_path: Path, run_file: Path
) -> None:
    arguments = ("train", run_file, "--runs-dir", tmp_path / "runs", "--requeue-after", "1e-9")
    answer = lexarium(*arguments)
    assert answer.status == 124 and "--requeue-after is over" in answer.out
    run = only_run(tmp_path / "runs")
    assert RunFiles(run).status()["state"] == "preempted"
    assert lexarium("train", run).status == 0
    for file in (
        "metrics.jsonl",
        "evals/loss/step-00000012.json",
        "checkpoints/step-00000012/model.safetensors",
    ):
        assert (run / file).read_bytes() == (trained / file).read_bytes(), file


def test_select_and_seed_choose_a_point(lexarium, study_file: Path, tmp_path: Path) -> None:
    choice = ("--select", "rate=high", "--seed", "2", "--preset", "short")
    answer = lexarium("train", study_file, *choice, "--runs-dir", tmp_path / "runs")
    assert answer.status == 0
    config = RunFiles(only_run(tmp_path / "runs")).config()
    assert (config["optimizer"]["lr"], config["seed"], config["train"]["max_steps"]) == (0.01, 2, 4)


def test_a_failed_run_waits_for_retry(lexarium, run_file: Path, tmp_path: Path) -> None:
    arguments = ("train", run_file, "optimizer.lr=1e30", "--runs-dir", tmp_path / "runs")
    first = lexarium(*arguments)
    assert first.status == 1 and "not finite" not in first.err and "step 1" in first.err
    second = lexarium(*arguments)
    assert second.status == 2 and "--retry" in second.err.splitlines()[-1]
    third = lexarium(*arguments, "--retry")
    assert third.status == 1 and "step 1" in third.err
    assert RunFiles(only_run(tmp_path / "runs")).status()["attempts"] == 2


def test_a_run_keeps_its_configuration(lexarium, trained: Path) -> None:
    answer = lexarium("train", trained, "train.max_steps=5")
    assert answer.status == 2 and "config.yaml a.b=value" in answer.err
    answer = lexarium("check", trained / "config.yaml", "train.max_steps=5", "--json")
    assert answer.status == 0 and answer.json["arms"][0]["max_steps"] == 5


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 124), (signal.SIGINT, 130)])
def test_signals_save_and_leave(number: int, status: int, lexarium, run_file: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    handlers = signal.getsignal(number)

    def send() -> None:
        while not list(runs.glob("*/metrics.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    answer = lexarium("train", run_file, "train.max_steps=20000", "train.log_every=1", "--runs-dir", runs)
    assert answer.status == status and "the same command goes on from there" in answer.out
    found = RunFiles(only_run(runs)).status()
    assert found["state"] == "preempted" and 0 < found["step"] < 20000
    assert (only_run(runs) / f"checkpoints/step-{found['step']:08d}/manifest.json").exists()
    assert signal.getsignal(number) == handlers


@pytest.mark.distributed
@pytest.mark.slow
def test_torchrun_trains_one_run_on_two_ranks(run_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command += ["lexarium", "train", str(run_file), "--runs-dir", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done at step 12") == 1  # one rank speaks
    run = only_run(tmp_path / "runs")
    assert read_json(run / "plan.json")["world_size"] == 2
