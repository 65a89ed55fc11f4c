"""The report of a study: one self-contained page, the same results as JSON and CSV, figures as SVG.

`build_report` reads what the runs have written and nothing else. The page loads nothing from outside: the
JavaScript of Vega (shipped inside vl-convert), the data and, for print and for readers without scripts,
every figure as an image are part of it. Its Content-Security-Policy lets only the page's own two scripts run,
by their hashes, and forbids every connection. All text is escaped; data for scripts travel as JSON in
which `<` cannot occur. No clock enters, so that equal runs give equal bytes.

Cost: about 2 s for ten runs. The JavaScript bundle takes 2.5 s more to make, so it is made in a second
process, once, and kept beside the studies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lexarium.foundation.files import dumps, write_atomic
from lexarium.reports import words as w
from lexarium.reports.charts import Drawing
from lexarium.reports.context import config_differences, missing, run_records
from lexarium.reports.figures import DARK, DASHES, LIGHT, Figure, look, svg
from lexarium.reports.gap_charts import gap_figures
from lexarium.reports.segmentation_charts import cue_words, segmentation_figures
from lexarium.reports.symbol_charts import symbol_figures
from lexarium.reports.tables import add_words, csv_files
from lexarium.studies.compare import (
    Contrast,
    ReportConfig,
    Table,
    arms,
    collect,
    compare,
    contrasts_of,
    report_of,
)
from lexarium.studies.gaps import gaps
from lexarium.studies.intervals import SEEDS_FOR_TESTS
from lexarium.studies.segmentation import segmentation
from lexarium.studies.stability import stability, summarise
from lexarium.studies.symbol_maps import symbol_maps

TEMPLATES = Path(__file__).parent / "templates"
STABILITY_POINTS = 10
"""Evaluations a run needs before its stability is reported."""
MOST_METRICS = 12
"""Metrics shown for a study that names none."""


def build_report(runs_dir: Path, study: str) -> dict[str, Any]:
    """Write `studies/<study>/report/` and return its results, which are also `results.json`.

    Raises UserError for an unknown study or contrasts that name unknown axes or levels.
    """
    runs_dir = Path(runs_dir)
    table = collect(runs_dir, study)
    report, contrasts = report_of(table), contrasts_of(table)
    words = w.Words(report, table.axes)
    script = vega_bundle(runs_dir / "studies") if any(run.curves for run in table.runs) else None
    results = results_of(table, contrasts, report, words, runs_dir)
    figures = draw(table, contrasts, report, words, results)
    images = {figure.name: svg(figure.static()) for figure in figures}
    curves = report.curves or _metrics(contrasts, table)
    tables = csv_files(results, table, curves)
    results["figures"] = [
        {"name": f.name, "file": f"figures/{f.name}.svg", "title": f.title, "caption": f.caption}
        for f in figures
    ]
    results["tables"] = [f"tables/{name}" for name in tables]
    folder = runs_dir / "studies" / study / "report"
    _write(folder / "figures", {f"{name}.svg": text for name, text in images.items()})
    _write(folder / "tables", tables)
    write_atomic(folder / "results.json", dumps(results))
    write_atomic(folder / "index.html", render(results, figures, images, words, script() if script else ""))
    return results


def results_of(
    table: Table, contrasts: Sequence[Contrast], report: ReportConfig, words: w.Words, runs_dir: Path
) -> dict[str, Any]:
    """Everything the report says, as plain data."""
    compared = compare(contrasts, table, report.correction)
    add_words(compared, words)
    counts: dict[str, int] = {}
    for run in table.runs:
        counts[run.state] = counts.get(run.state, 0) + 1
    index = table.index
    return {
        "study": table.study,
        "title": report.title or table.study,
        "claim": index.get("claim") or "",
        "description": index.get("description") or "",
        "preset": index.get("preset") or "",
        "axes": table.axes,
        "labels": {"metrics": report.labels, "levels": report.levels},
        "counts": counts,
        "complete": counts.get("done", 0) == len(table.runs) and bool(table.runs),
        "answer": [r["sentence"] for r in compared if r["contrast"] == 0],
        "contrasts": compared,
        "gaps": gaps(contrasts, table, compared),
        "arms": _arm_groups(table, contrasts, report),
        "stability": _stability(table, contrasts, report),
        "segmentation": segmentation(table),
        "symbol_maps": symbol_maps(table),
        "runs": run_records(runs_dir, table),
        "missing": missing(table, compared),
        "problems": table.problems,
        "config": config_differences(table),
    }


def _metrics(contrasts: Sequence[Contrast], table: Table) -> list[str]:
    return list(dict.fromkeys(c.metric for c in contrasts)) or table.headlines[:MOST_METRICS]


def _arm_groups(table: Table, contrasts: Sequence[Contrast], report: ReportConfig) -> list[dict[str, Any]]:
    """Summaries of every arm: for the metrics of contrasts, at their step, then for `distribution`."""
    wanted = [(c.metric, c.at, c.better) for c in contrasts]
    wanted += [(*c.other, c.better) for c in contrasts if c.against is not None]
    wanted += [(metric, "final", "none") for metric in report.distribution]
    if not wanted:
        wanted = [(metric, "final", "none") for metric in table.headlines[:MOST_METRICS]]
    groups: dict[str, dict[str, Any]] = {}
    for metric, at, better in wanted:
        found = arms(table, metric, at, better)
        if found:
            first = found[0]
            key = json.dumps([metric, first["at"], better if at == "best" else ""])
            group = {"metric": metric, "at": first["at"], "at_label": first["at_label"], "arms": found}
            groups.setdefault(key, group)
    return list(groups.values())


def _stability(table: Table, contrasts: Sequence[Contrast], report: ReportConfig) -> dict[str, Any] | None:
    """Stability of finished runs; without a metric named for it, of the first contrast if it is a share."""
    metric = report.stability or (contrasts[0].metric if contrasts else None)
    done = [run for run in table.runs if run.state == "done" and metric in run.curves]
    curves = (
        [(run, run.curves[metric]) for run in done if len(run.curves[metric]) >= STABILITY_POINTS]
        if metric
        else []
    )
    shares = all(0 <= value <= 1 for _, curve in curves for _, value in curve)
    if not curves or not (report.stability or shares):
        return None
    settings = report.stability_settings
    rows = [
        {"run": run.name, "levels": run.levels, "seed": run.seed}
        | stability([v for _, v in curve], [s for s, _ in curve], settings)
        for run, curve in curves
    ]
    notes = [f"{len(done) - len(curves)} runs with fewer than {STABILITY_POINTS} evaluations are left out."]
    notes = notes if len(done) > len(curves) else []
    gaps = {b[0] - a[0] for _, curve in curves for a, b in zip(curve, curve[1:], strict=False)}
    if len(gaps) > 1:
        notes.append(
            f"Evaluations are {min(gaps):,} to {max(gaps):,} steps apart; total variation depends on spacing."
        )
    summaries = [
        {"levels": cell, **summarise([r for r in rows if r["levels"] == cell], settings)}
        for cell in table.cells()
    ]
    return {
        "metric": metric,
        "settings": settings.model_dump(mode="json"),
        "runs": rows,
        "arms": [s for s in summaries if s["n"]],
        "notes": notes,
    }


def draw(
    table: Table,
    contrasts: Sequence[Contrast],
    report: ReportConfig,
    words: w.Words,
    results: Mapping[str, Any],
) -> list[Figure]:
    """The figures of a report, in the order of the page."""
    if not any(run.curves for run in table.runs):
        return []
    drawing = Drawing(table, report, words, contrasts[0].axis if contrasts else None)
    joined = {c.metric for c in contrasts if c.paired}
    groups = results["arms"]
    figures = [drawing.points(group["arms"], group["metric"] in joined) for group in groups]
    figures += drawing.contrasts(results["contrasts"])
    figures += gap_figures(drawing, results["gaps"])
    figures += segmentation_figures(results["segmentation"], words)
    figures += symbol_figures(results["symbol_maps"], words)
    figures += [drawing.curves(metric) for metric in report.curves or _metrics(contrasts, table)]
    shown = report.distribution or [c.metric for c in contrasts]
    figures += [
        drawing.distribution(group["arms"], SEEDS_FOR_TESTS)
        for group in groups
        if group["at"] == "final" and group["metric"] in shown
    ]
    found = results["stability"]
    if found:
        figures.append(drawing.stability(found["metric"], found["runs"], found["settings"]["tau"]))
    return _named_apart([figure for figure in figures if figure is not None])


def _named_apart(figures: Sequence[Figure]) -> list[Figure]:
    """The same, with a number behind names that were there: arms may be alike but for letters no file name has."""
    seen: dict[str, int] = {}
    found = []
    for figure in figures:
        key = figure.name.lower()  # as some file systems compare names
        seen[key] = seen.get(key, 0) + 1
        found.append(figure if seen[key] == 1 else replace(figure, name=f"{figure.name}--{seen[key]}"))
    return found


# --- files ------------------------------------------------------------------------------------------


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Exactly these files in `folder`; those of an earlier report go."""
    for name, text in files.items():
        write_atomic(folder / name, text)
    if folder.is_dir():
        for old in folder.iterdir():
            if old.suffix in (".svg", ".csv") and old.name not in files:
                old.unlink()


BUNDLE = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


def vega_bundle(folder: Path) -> Callable[[], str]:
    """Start making the JavaScript of Vega, Vega-Lite and Vega-Embed; the result waits for it.

    It is made once per version of vl-convert, by a second process while this one computes, and kept in
    `folder`.
    """
    kept = folder / f".vega-{metadata.version('vl-convert-python')}.js"
    if kept.is_file():
        return lambda: kept.read_text(encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", BUNDLE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def finish() -> str:
        output, _ = process.communicate()
        if process.returncode or not output:
            import vl_convert

            make: Any = vl_convert.javascript_bundle
            output = make().encode()
        text = output.decode().replace("</script", "<\\/script")
        write_atomic(kept, text)
        return text

    return finish


# --- page -------------------------------------------------------------------------------------------


def render(
    results: Mapping[str, Any],
    figures: Sequence[Figure],
    images: Mapping[str, str],
    words: w.Words,
    bundle: str,
) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": w.number,
        "percent": w.percent,
        "change": w.change,
        "interval": w.interval,
        "p_value": w.p_value,
        "tenths": lambda value: f"{100 * value:.1f}",
        "interval_of": lambda ends: (
            w.DASH if None in ends else "[{:.1f}, {:.1f}]".format(*(100 * v for v in ends))
        ),
        "unique_levels": lambda levels: list({json.dumps(one): one for one in levels}.values()),
        "duration": w.duration,
    }
    environment.globals |= {
        "cue_words": cue_words,
        "many": w.many,
        "blocks": w.blocks,
        "VERDICTS": w.VERDICTS,
    }
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    scripts = [bundle, script] if figures else []
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    allowed = f"{hashes} 'unsafe-eval'" if scripts else "'none'"
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    data = {"figures": {f.name: f.panels for f in figures}, "light": _screen(False), "dark": _screen(True)}
    return environment.get_template("report.html").render(
        r=results,
        words=words,
        figures=figures,
        images={name: base64.b64encode(text.encode()).decode() for name, text in images.items()},
        policy=policy,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        data=Markup(script_json(data)),
        colours=list(zip(LIGHT, DARK, strict=True)),
        dashes=DASHES,
        notes=_shared_notes(results["contrasts"]),
        methods=_methods(results["contrasts"]),
        answers=_answers(results["contrasts"]),
        provenance=_provenance(results["runs"]),
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _screen(dark: bool) -> dict[str, Any]:
    """The look on a screen: no background, and the legend is the page's own."""
    found = look(dark)
    return {**found, "background": "transparent", "legend": {**found["legend"], "disable": True}}


def script_json(data: Any) -> str:
    """JSON that is safe inside a script element: no `<`, `>`, `&` or line separators."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _answers(contrasts: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Contrasts that ask the same thing (over seeds, over text, as another ratio) together, the first one's answer
    leading; the study's first contrast before the others."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in sorted(contrasts, key=lambda c: c["contrast"] != 0):
        question = [result[key] for key in ("metric", "at", "axis", "from", "to", "where")]
        found.setdefault(json.dumps(question, sort_keys=True), []).append(result)
    return list(found.values())


def _shared_notes(contrasts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    """(note, numbers of the contrasts it belongs to), each note once."""
    found: dict[str, list[int]] = {}
    for i, result in enumerate(contrasts, start=1):
        for note in dict.fromkeys(result["notes"]):
            found.setdefault(note, []).append(i)
    return list(found.items())


def _methods(contrasts: Sequence[Mapping[str, Any]]) -> list[str]:
    """How intervals, p and effect sizes were computed, each way once."""
    found = [
        f"Interval ({c['confidence']:g}): {c['interval_method']}." for c in contrasts if c["interval_method"]
    ]
    for name, key in (("p", "p_method"), ("Correction", "correction"), ("Effect size", "effect_size_method")):
        found += [f"{name}: {c[key]}." for c in contrasts if c[key]]
    return list(dict.fromkeys(found))


def _provenance(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Provenance in two parts: what all recorded runs share, and the columns that differ."""
    recorded = [run["provenance"] for run in runs if run["provenance"]]
    keys = list(dict.fromkeys(key for p in recorded for key in p))
    alike = [k for k in keys if len({p.get(k) for p in recorded}) == 1 and len(recorded) > 1]
    return {
        "shared": {k: recorded[0][k] for k in alike},
        "columns": [k for k in keys if k not in alike],
        "unrecorded": len(runs) - len(recorded),
    }
