"""Promise 18: no network, no account, no token is needed for any verb on prepared data.

A fresh process in which every socket connection fails, with an almost empty environment, prepares a
corpus, trains, evaluates, samples, exports and reports.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, socket, sys
from pathlib import Path

def refuse(*_, **__):
    raise AssertionError("a network connection was tried")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse

from lexarium.cli.main import main

def verb(*arguments):
    print("===", arguments[0], flush=True)
    sys.argv = ["lexarium", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, f"{arguments}: status {end.code}"

verb("prepare", "s.yaml")
verb("train", "s.yaml", "plan.device=cpu")
(run,) = [str(p.parent) for p in Path("runs").glob("*/config.yaml")]
verb("evaluate", run, "--evaluation", "rule_choice", "--json")
verb("sample", run, "--prompt", "my newt does sleep . quest")
verb("export", run, "--to", "weights", "-o", "exported")

from lexarium.studies.run import Run
from lexarium.studies.study import Study

study = Study.load("s.yaml", overrides=["plan.device=cpu"])
points = study.expand(Path("runs"))
for point in points:
    assert Run.create(point.config, Path("runs")).train() == "done"
study.write_index(Path("runs"), points)
verb("report", "offline", "--json")
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


def test_every_step_of_a_study_works_offline(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    assert list(said) == ["prepare", "train", "evaluate", "sample", "export", "report"]
    assert "hierarchical" in json.dumps(json.loads(said["evaluate"]))
    assert json.loads(said["report"])
    assert (tmp_path / "exported" / "model.safetensors").exists()
    page = (tmp_path / "runs" / "studies" / "offline" / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page), (
        "a page loads nothing from outside"
    )
