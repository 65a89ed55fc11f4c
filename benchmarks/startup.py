"""Goal S13: `--help`, `list` and `study status` within 0.5 s, `report` of ten runs within 3 s, without torch.

Absolute times of fresh processes, wall clock; the slowest command of each kind counts. The ratio is the limit
divided by the time, so 1 or more means that the goal is met.

    python benchmarks/startup.py [--rounds 7]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common
import goals

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.reports.synthetic import OOD, contrast, make_study

LIMITS = {"--help": 0.5, "list": 0.5, "study status": 0.5, "report": 3.0}
HEAVY = (
    "import sys; from lexarium.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
)


def main() -> None:
    """Measure and write the result."""
    parser = common.arguments(__doc__, rounds=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        study = make_study(Path(name), seeds=5, compare=[contrast(metric=OOD)])
        commands = {
            "--help": ["--help"],
            "list": ["list"],
            "study status": ["study", "status", "--runs-dir", name],
            "report": ["report", study, "--runs-dir", name],
        }
        rounds = []
        for _ in range(options.rounds):
            found = {}
            for what, arguments in commands.items():
                cpu, wall = common.timed_process([sys.executable, "-c", HEAVY, *arguments])
                found |= {f"{what}: cpu": cpu, f"{what}: wall": wall}
            rounds.append(found)
    times = {what: common.median(rounds, f"{what}: wall") for what in commands}
    ratios = {what: LIMITS[what] / seconds for what, seconds in times.items()}
    worst = min(ratios, key=lambda what: ratios[what])
    common.write(
        "startup", **goals.entry("startup"), ours=times[worst], theirs=None, ratio=ratios[worst], rounds=rounds,
        parity={"passed": True, "what": f"no command imports torch; farthest from its limit: {worst}"},
        folder=options.output, seconds=times,
    )  # fmt: skip


if __name__ == "__main__":
    main()
