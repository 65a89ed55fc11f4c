"""Write docs/benchmarks.md from the goals and the committed results. `--check` fails when the page is out of date.

Every result has a row. A comparison of `goals.py` without one has a row too: `open`, and the command that would
measure it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from goals import COMPARISONS, Comparison

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Speed, measured

Every row with figures is a file of `benchmarks/results/`, written by the command it names; nothing here was typed in.
`ratio` is oriented so that a ratio at or above the target means that the goal is met. Ours and the peer's steps
alternate in one process, or their processes one after the other; figures are medians of the rounds. Goals and targets
are those of `benchmarks/goals.py`. *Re-created* peers are written here after a description or in the manner of a
repository that was not at hand; `--peer module:function` puts the real one in their place (see `benchmarks/peers/`).
A goal is *open* where nothing has been measured: neither met nor missed.

| goal | what | ours | peer | ratio | target | | machine, date |
|---|---|---|---|---|---|---|---|
"""


def order(comparison: Comparison) -> int:
    """Place of a comparison in the table."""
    return int(comparison.goal[1:])


def results_of(name: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results of one comparison, by machine. A longer name of another comparison is not a machine."""
    longer = [c.name for c in COMPARISONS if c.name.startswith(name + "-")]
    paths = [
        p
        for p in sorted(folder.glob(f"{name}-*.json"))
        if not any(p.name.startswith(n + "-") for n in longer)
    ]
    return [json.loads(p.read_text(encoding="utf-8")) for p in paths]


def row(result: dict[str, Any]) -> str:
    """One line of the table, measured."""
    shown = lambda value: "" if value is None else f"{value:.3g} {result['unit']}"
    peer = result["peer"] if result["theirs"] is None else f"{result['peer']}: {shown(result['theirs'])}"
    verdict = "met" if result["ratio"] >= result["target"] else "not met"
    if result["parity"] and not result["parity"]["passed"]:
        verdict = "not equal"
    hardware = result["hardware"]
    machine = f"{hardware['processor']}, {hardware.get('cores', '?')} cores, {result['date']}"
    cells = [result["goal"], result["what"], shown(result["ours"]), peer, f"{result['ratio']:.2f}"]
    return "| " + " | ".join([*cells, f"{result['target']:.2f}", verdict, machine]) + " |\n"


def open_row(c: Comparison) -> str:
    """One line of the table, not measured."""
    need = "needs a GPU: `make bench-gpu`" if c.gpu else "`make bench`"
    return f"| {c.goal} | {c.what} | | {c.peer} | | {c.target:.2f} | open | {need} |\n"


def page(folder: Path = RESULTS) -> str:
    """The whole page."""
    rows, commands = "", ""
    for comparison in sorted(COMPARISONS, key=order):
        found = results_of(comparison.name, folder)
        rows += "".join(map(row, found)) or open_row(comparison)
        commands += "".join(f"* {r['goal']}, {r['peer']}: `{r['command']}`\n" for r in found)
    return HEAD + rows + "\n## Commands\n\n" + commands


def main() -> None:
    """Write, or compare."""
    if set(sys.argv[1:]) - {"--check"}:
        sys.exit(__doc__)
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE}: out of date; run python {Path(__file__).name}")
        return
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
