"""Write docs/benchmarks.md from the results that are committed. `--check` fails when the page is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Speed, measured

Every row is a file of `benchmarks/results/`, written by the command it names; nothing here was typed in. `ratio` is
oriented so that a ratio at or above the target means that the goal is met. Ours and the peer's steps alternate
in one process, or their processes one after the other; figures are medians of the rounds.

| goal | what | ours | peer | ratio | target | | machine, date |
|---|---|---|---|---|---|---|---|
"""


def row(result: dict[str, Any]) -> str:
    """One line of the table."""
    shown = lambda value: "" if value is None else f"{value:.3g} {result['unit']}"
    peer = result["peer"] if result["theirs"] is None else f"{result['peer']}: {shown(result['theirs'])}"
    verdict = "met" if result["ratio"] >= result["target"] else "not met"
    parity = result.get("parity")
    if parity and not parity["passed"]:
        verdict = "not equal"
    machine = (
        f"{result['hardware']['processor']}, {result['hardware'].get('cores', '?')} cores, {result['date']}"
    )
    cells = [result["goal"], result["what"], shown(result["ours"]), peer, f"{result['ratio']:.2f}"]
    return "| " + " | ".join([*cells, f"{result['target']:.2f}", verdict, machine]) + " |\n"


def page() -> str:
    """The whole page."""
    results = [
        json.loads(p.read_text(encoding="utf-8")) for p in (ROOT / "benchmarks/results").glob("*.json")
    ]
    results.sort(key=lambda r: (int(r["goal"][1:]), r["hardware"]["processor"]))
    commands = "".join(f"* {r['goal']}: `{r['command']}`\n" for r in results)
    return HEAD + "".join(map(row, results)) + "\n## Commands\n\n" + commands


def main() -> None:
    """Write, or compare."""
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE}: out of date; run python {Path(__file__).name}")
        return
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
