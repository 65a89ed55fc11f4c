"""The results of a report as tables: for the terminal, and as CSV files.

`print_results` writes to a rich console what the page says: the answer, contrasts, arms, what is missing.
The CSV files hold full precision and plain names (no labels), one row per thing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lexarium.reports.words import (
    VERDICTS,
    Words,
    interval,
    many,
    number,
    p_value,
    verdict,
)
from lexarium.studies.compare import ReportConfig, Table

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"supported": "green", "difference": "green", "contradicted": "red", "undecided": "yellow"}
COLOURS |= {"refused": "red"}
SHOWN_MISSING = 10


def print_results(results: Mapping[str, Any], console: Console) -> None:
    """Write the results of `build_report` to a terminal."""
    from rich.markup import escape

    words = words_of(results)
    console.print(f"[bold]{escape(results['title'])}[/bold]")
    if results["claim"]:
        console.print(f"Claim: {escape(results['claim'])}")
    answered = any(result["estimate"] is not None for result in results["contrasts"])
    if not results["counts"].get("done") and not answered:
        console.print("[yellow]No run has finished: there is nothing to compare yet.[/yellow]")
        _print_missing(results, console)
        return
    for result in results["contrasts"]:
        colour = COLOURS.get(result["verdict"], "cyan")
        label = VERDICTS[result["verdict"]]
        console.print(f"[{colour}]{label}.[/{colour}] {escape(result['sentence'])}")
    if results["contrasts"]:
        console.print(_contrast_table(results, words))
    for group in results["arms"]:
        if any(arm["n"] for arm in group["arms"]):
            console.print(_arm_table(group, results["axes"], words))
    _print_missing(results, console)


def _print_missing(results: Mapping[str, Any], console: Console) -> None:
    from rich.markup import escape

    absent = results["missing"]
    if absent:
        console.print(f"[yellow]Not in these numbers ({many(len(absent), 'entry', 'entries')}):[/yellow]")
        for item in absent[:SHOWN_MISSING]:
            why = item["why"] + (f" ({item['message']})" if item["message"] else "")
            console.print(f"  {escape(item['run'])}: {escape(why)}")
        if len(absent) > SHOWN_MISSING:
            console.print(f"  and {len(absent) - SHOWN_MISSING} more, in results.json")
    for problem in results["problems"]:
        console.print(f"[yellow]  {escape(problem)}[/yellow]")


def words_of(results: Mapping[str, Any]) -> Words:
    """The words of a study, from its results."""
    report = ReportConfig(labels=results["labels"]["metrics"], levels=results["labels"]["levels"])
    return Words(report, results["axes"])


def _contrast_table(results: Mapping[str, Any], words: Words) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, title="Contrasts", title_justify="left", title_style="bold")
    for name in ("metric", "comparison", "estimate", "interval", "p", "effect", "seeds"):
        table.add_column(name, justify="left" if name in ("metric", "comparison") else "right")
    for result in results["contrasts"]:
        where = words.levels(result["where"])
        comparison = words.comparison(result) + (f"\n{where}" if where else "")
        at = "" if result["at"] == "final" else f"\n{words.when(result)}"
        cells = (
            words.metric(result["metric"]) + at + _form(result),
            comparison,
            words.value(result, result["estimate"], signed=True),
            words.bounds(result, result["interval"]),
            p_value(result["p_adjusted"]),
            number(result["effect_size"]),
            f"{result['n']['from']} + {result['n']['to']}"
            + (f"\n{result['windows']['windows']:,} windows" if result["windows"] else ""),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _form(result: Mapping[str, Any]) -> str:
    """How a contrast is stated, where that is not the plain difference over seeds."""
    parts = [] if result["as"] == "difference" else [result["as"]]
    parts += ["over the text"] * bool(result["windows"])
    return f"\n{', '.join(parts)}" if parts else ""


def _arm_table(group: Mapping[str, Any], axes: Mapping[str, Sequence[str]], words: Words) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(f"{words.metric(group['metric'])}, {words.when(group)}", style="bold")
    table = RichTable(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    columns = [
        *(words.metric(axis) for axis in axes),
        "seeds",
        "mean",
        "95% interval",
        "sd",
        "median",
        "range",
    ]
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if i < len(axes) else "right")
    for arm in group["arms"]:
        cells = [words.level(axis, arm["levels"].get(axis, "")) for axis in axes]
        cells += [f"{arm['n']} of {arm['planned']}", number(arm["mean"]), interval(arm["t_interval"])]
        cells += [number(arm["sd"]), number(arm["median"])]
        cells += [f"{number(arm['min'])} to {number(arm['max'])}" if arm["n"] else number(None)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


# --- CSV --------------------------------------------------------------------------------------------


def csv_files(results: Mapping[str, Any], table: Table, curves: Sequence[str]) -> dict[str, str]:
    """File name -> CSV text: arms, contrasts, points, curves, runs and, when there is one, stability."""
    axes = list(results["axes"])
    files = {
        "arms.csv": _csv(_arm_rows(results)),
        "contrasts.csv": _csv(_contrast_rows(results)),
        "points.csv": _csv(_point_rows(results)),
        "curves.csv": _csv(
            [
                {"run": run.name, **_levels(run.levels, axes), "seed": run.seed, "state": run.state}
                | {"metric": metric, "step": step, "value": value}
                for run in table.runs
                for metric in curves
                for step, value in run.curves.get(metric, [])
            ]
        ),
        "runs.csv": _csv(
            [
                {"run": r["name"], "dir": r["dir"], **_levels(r["levels"], axes), "seed": r["seed"]}
                | {k: r[k] for k in ("state", "step", "max_steps", "message")}
                | r["provenance"]
                for r in results["runs"]
            ]
        ),
    }
    if results["gaps"]:
        files["gaps.csv"] = _csv(_gap_rows(results))
    if results["segmentation"]:
        files["segmentation.csv"] = _csv(
            [
                {
                    **_levels(row["levels"], axes),
                    **{k: row[k] for k in ("stream", "cue", "strategy")},
                    "measure": m,
                }
                | score
                for row in results["segmentation"]["scores"]
                for m, score in row["scores"].items()
            ]
        )
    if results["symbol_maps"]:
        files["symbols.csv"] = _csv(
            [
                {**_levels(row["levels"], axes), **{k: row[k] for k in ("seed", "map", "direction")}} | symbol
                for row in results["symbol_maps"]
                for symbol in row["symbols"]
            ]
        )
    if results["stability"]:
        rows = [{**_levels(r["levels"], axes), **r} for r in results["stability"]["runs"]]
        files["stability.csv"] = _csv([{k: v for k, v in row.items() if k != "levels"} for row in rows])
    return {name: text for name, text in files.items() if text}


def _levels(levels: Mapping[str, str], axes: Sequence[str]) -> dict[str, str]:
    return {f"level.{axis}": levels.get(axis, "") for axis in axes}


def _arm_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = ("n", "planned", "mean", "sd", "median", "min", "max", "t_interval", "share_high", "share_low")
    return [
        {"metric": group["metric"], "at": group["at"], **_levels(arm["levels"], list(results["axes"]))}
        | _flat({k: arm[k] for k in (*keys, "bimodality")})
        for group in results["arms"]
        for arm in group["arms"]
    ]


def _contrast_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = [
        "metric",
        "axis",
        "from",
        "to",
        "as",
        "at",
        "estimate",
        "interval",
        "interval_method",
        "t_interval",
        "bootstrap_interval",
        "bootstrap_method",
    ]
    keys += ["seed_interval", "standard_error", "noise_floor", "noise_pairs", "refused"]
    keys += ["p", "p_adjusted", "p_method", "correction", "effect_size", "effect_size_method", "verdict"]
    return [
        _flat({k: r[k] for k in keys})
        | {
            "n_from": r["n"]["from"],
            "n_to": r["n"]["to"],
            **(r["windows"] or {"windows": None, "blocks": None, "blocks_of": None}),
        }
        | {f"grows_{key}": (r["grows"] or {}).get(key) for key in ("axis", "from", "to")}
        | {"where": _where(r), "sentence": r["sentence"]}
        for r in results["contrasts"]
    ]


def _gap_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps, context and positions of every gap, told apart by `curve`."""
    return [
        {k: gap[k] for k in ("metric", "axis", "from", "to", "as")}
        | {"where": _where(gap), "curve": curve}
        | row
        for gap in results["gaps"]
        for curve in ("steps", "context", "positions")
        for row in gap[curve]
    ]


def _point_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "metric": group["metric"],
            "at": group["at"],
            **_levels(arm["levels"], list(results["axes"])),
            **point,
        }
        for group in results["arms"]
        for arm in group["arms"]
        for point in arm["points"]
    ]


def _where(result: Mapping[str, Any]) -> str:
    """`family=gru layers=2`."""
    return " ".join(f"{axis}={level}" for axis, level in result["where"].items())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals as two columns."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("interval"):
            low, high = value or (None, None)
            flat |= {f"{key}_low": low, f"{key}_high": high}
        else:
            flat[key] = value
    return flat


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def add_words(results: list[dict[str, Any]], words: Words) -> None:
    """Give every contrast its `verdict`, `sentence` and `expectation`."""
    for result in results:
        result["verdict"] = verdict(result)
        result["sentence"] = words.sentence(result)
        result["expectation"] = words.expectation(result)
