"""Promise 18: no network, no account, no token is needed for any verb on prepared data.

A fresh process in which every socket connection fails, with an almost empty environment, prepares a
corpus, trains, evaluates, reports and exports.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lexarium.reports.page import build_report
from lexarium.studies.run import Run
from lexarium.studies.study import Study

SCRIPT = """
import socket, sys

def refuse(*_, **__):
    raise AssertionError("a network connection was tried")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse

from lexarium.cli.main import main

sys.argv = ["lexarium", *sys.argv[1:]]
main()
"""

STUDY = """
study: offline
base:
  corpus: {type: question_formation, sizes: {train: 60, val: 10, test: 0, ood: 10}}
  model: {type: transformer, n_layers: 1, n_heads: 2, d_model: 8, d_ff: 16}
  train: {max_steps: 3, global_batch_size: 4, log_every: 1}
  evaluations: [{type: rule_choice, splits: [val, ood]}]
axes: {optimizer.lr: [0.01, 0.02]}
seeds: [1]
compare: [{metric: rule_choice.ood.hierarchical, axis: optimizer.lr, from: 0.01, to: 0.02, as: difference}]
"""


def offline(folder: Path, *arguments: str) -> str:
    """Run a verb offline; its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_step_of_a_study_works_offline(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")
    offline(tmp_path, "prepare", "s.yaml")
    offline(tmp_path, "train", "s.yaml", "plan.device=cpu")
    (run,) = [p.parent for p in (tmp_path / "runs").glob("*/config.yaml")]
    assert "hierarchical" in offline(tmp_path, "evaluate", str(run), "--evaluation", "rule_choice", "--json")
    offline(tmp_path, "sample", str(run), "--prompt", "my newt does sleep . quest")
    offline(tmp_path, "export", str(run), "--to", "weights", "-o", "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()


def test_a_report_is_made_without_network_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: every way to the network raises, and the environment is empty."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    (tmp_path / "s.yaml").write_text(STUDY.replace("base:", "base:\n  plan: {device: cpu}"), encoding="utf-8")
    study = Study.load(str(tmp_path / "s.yaml"))
    points = study.expand(tmp_path / "runs")
    for point in points:
        assert Run.create(point.config, tmp_path / "runs").train() == "done"
    study.write_index(tmp_path / "runs", points)
    results = build_report(tmp_path / "runs", study.name)
    assert results
    page = (tmp_path / "runs" / "studies" / "offline" / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page), (
        "the page loads nothing from outside"
    )
