"""Promise 18: no network, no account, no token is needed for any verb on prepared data.

A fresh process in which every socket connection fails, with an almost empty environment, prepares a
corpus, trains, evaluates, reports and exports.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
