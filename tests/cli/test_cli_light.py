"""Help, completion, `list` and `study status` answer without the heavy libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "scipy", "pyarrow", "altair", "transformers")
SCRIPT = """
import sys
from lexarium.cli.main import main
status = main(sys.argv[1:])
heavy = [name for name in {heavy!r} if name in sys.modules]
print("\\n#", status, ",".join(heavy))
"""


def lean(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """(status, heavy modules loaded, output) of a command in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    *output, last = done.stdout.strip().split("\n")
    assert last.startswith("#"), done.stderr
    _, status, *heavy = last.split()
    return int(status), "".join(heavy), "\n".join(output)


def write_index(runs: Path) -> None:
    entry = {"name": "a=1/seed=1", "dir": "x-s1-0123456789", "levels": {"a": "1"}, "seed": 1, "stage": "base"}
    other = {**entry, "name": "a=1/seed=2", "dir": "x-s2-0123456789", "seed": 2}
    (runs / "studies/s").mkdir(parents=True)
    index = {"study": "s", "claim": "c", "preset": None, "runs": [{**entry, "max_steps": 10}, other]}
    (runs / "studies/s/index.json").write_text(json.dumps(index))
    (runs / entry["dir"]).mkdir()
    status = {"state": "done", "step": 10, "max_steps": 10, "heartbeat": 3, "attempts": 1, "message": ""}
    (runs / str(entry["dir"]) / "status.json").write_text(json.dumps(status))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["profile", "--help"],
        ["list"],
        ["list", "models", "--json"],
        ["import", "--help"],
        ["import", "arrows", "--help"],
    ],
)
def test_help_and_list_load_nothing_heavy(arguments: list[str]) -> None:
    status, heavy, output = lean(*arguments)
    assert (status, heavy) == (0, "") and output


def test_study_status_reads_index_and_status_only(tmp_path: Path) -> None:
    write_index(tmp_path)
    status, heavy, output = lean("study", "status", "--json", "--runs-dir", str(tmp_path))
    assert (status, heavy) == (0, "")
    found = json.loads(output)["runs"]
    states = [(r["name"], r["dir"], r["state"], r["step"]) for r in found]
    expected = [
        ("a=1/seed=1", str(tmp_path / "x-s1-0123456789"), "done", 10),
        ("a=1/seed=2", str(tmp_path / "x-s2-0123456789"), "waiting", 0),
    ]
    assert states == expected


def test_completion_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from lexarium.cli.main import main\n"
        "try:\n    main([])\n"
        "finally:\n    print([m for m in ('torch', 'scipy') if m in sys.modules], file=sys.stderr)\n"
    )
    environment = {
        "_LEXARIUM_COMPLETE": "complete_bash",
        "COMP_WORDS": "lexarium train hier",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stdout.strip() == "hierarchical-generalization"
    assert done.stderr.strip().endswith("[]")


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "lexarium", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("lexarium ")
