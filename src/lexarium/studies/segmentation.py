"""What evaluations `segmentation` and `segmentation_baselines` found, ready to be shown: scores of every cue and
baseline, utterances with their cues and cuts, and scores against thresholds.

`segmentation(table)` gives plain data:

    missing      stream -> {unknown, unseen}: the most symbols of a run that are UNK, or that training never has
    scores       rows {levels, stream, cue, strategy, measure -> {mean, low, high, n}}: final values of finished runs
                 with their t interval over seeds; baselines are rows of the same form with strategy `baseline`
    curves       rows {levels, run, seed, stream, cue, tokens, value}: boundary F at peaks against tokens read
    utterances   per arm the first seed's utterances: symbols, gold boundaries, cues, cuts at peaks
    thresholds   per arm and cue: precision, recall and F of boundaries at quantiles of the cue, of that seed's stream

A stream is named as metrics name it: `val`, `val.alone`, `val.backward`. Utterances and thresholds come from the table
of positions that the evaluation wrote at its last step (`items: true`). Cost: that file of one run per arm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.evaluations.segmentation.cues import BASE, FEATURES
from lexarium.evaluations.segmentation.decisions import peaks
from lexarium.foundation.files import Damaged, read_lines
from lexarium.studies.intervals import describe
from lexarium.studies.readings import reading
from lexarium.studies.results import RunRow, Table

_VALUES = (*BASE, *FEATURES)
CUES = (*_VALUES, *(f"increase_in_{name}" for name in _VALUES), "vote_peak", "vote_threshold")
MEASURES = tuple(
    f"{what}.{m}" for what in ("boundary", "token", "type") for m in ("precision", "recall", "f")
)
MEASURES += ("over", "under", "exact")
BASELINE = "baseline"
UTTERANCES, MOST_SYMBOLS = 4, 30
"""Utterances shown of an arm, and their most symbols."""
QUANTILES = 101

Row = dict[str, Any]


def segmentation(table: Table) -> Row | None:
    """Everything to be shown, or None for a study without such evaluations."""
    if not any(_named(run, "segmentation") for run in table.runs):
        return None
    scores = [row for cell in table.cells() for row in _scores(table, cell)]
    shown = [found for cell in table.cells() if (found := _positions(table, cell)) is not None]
    return {
        "tune": {row["stream"]: row["tune"] for row in scores if row["strategy"] != BASELINE},
        "scores": scores,
        "streams": sorted(
            {row["stream"] for row in scores if row["strategy"] != BASELINE}, key=lambda s: (len(s), s)
        ),
        "missing": _missing(table),
        "curves": [row for run in table.runs for row in _curve(table, run)],
        "utterances": [_utterances(*one) for one in shown],
        "thresholds": [_thresholds(*one) for one in shown],
    }


def _named(run: RunRow, kind: str) -> list[str]:
    """Names of a run's evaluations of a type."""
    entries = run.config.get("evaluations") or []
    return [e.get("name") or kind for e in entries if isinstance(e, Mapping) and e.get("type") == kind]


# --- scores -----------------------------------------------------------------------------------------


def _scores(table: Table, cell: Mapping[str, str]) -> Iterator[Row]:
    """Rows of one arm."""
    runs = table.at(cell)
    metrics = dict.fromkeys(metric for run in runs for metric in run.curves)
    found: dict[tuple[str, str, str], Row] = {}
    for metric in metrics:
        if (place := _place(metric, runs)) is None:
            continue
        stream, cue, strategy, measure, tune = place
        values = [value for run in runs if not isinstance(value := reading(run, metric, "final"), str)]
        summary = describe([value for value, _ in values])
        if not summary["n"]:
            continue
        low, high = summary["t_interval"] or (None, None)
        row = found.setdefault(
            (stream, cue, strategy),
            {
                "levels": dict(cell),
                "stream": stream,
                "cue": cue,
                "strategy": strategy,
                "tune": tune,
                "scores": {},
            },
        )
        row["scores"][measure] = {"mean": summary["mean"], "low": low, "high": high, "n": summary["n"]}
    order = lambda row: (row["strategy"] == BASELINE, CUES.index(row["cue"]) if row["cue"] in CUES else 0)
    yield from sorted(found.values(), key=order)


def _place(metric: str, runs: Sequence[RunRow]) -> tuple[str, str, str, str, str] | None:
    """(stream, cue or baseline, strategy, measure, how thresholds are chosen) of a metric; None for others. Where a run
    has several such evaluations, a stream is named with its own: `val (oracle)`."""
    for run in runs:
        names = _named(run, "segmentation")
        for name in names:
            pattern = rf"{re.escape(name)}\.(.+)\.({'|'.join(CUES)})\.(peak|threshold)\.(.+)"
            if (match := re.fullmatch(pattern, metric)) and match[4] in MEASURES:
                stream = match[1] if len(names) == 1 else f"{match[1]} ({name})"
                return stream, match[2], match[3], match[4], _tune(run, name)
        for name in _named(run, "segmentation_baselines"):
            match = re.fullmatch(rf"{re.escape(name)}\.([^.]+)\.([^.]+)\.(.+)", metric)
            if match and match[3] in MEASURES:
                return match[1], match[2], BASELINE, match[3], ""
    return None


def _missing(table: Table) -> dict[str, dict[str, int]]:
    """What a model could not know, of streams that have some of it."""
    found: dict[str, dict[str, int]] = {}
    for run in table.runs:
        names = _named(run, "segmentation")
        for name in names:
            for metric, curve in run.curves.items():
                match = re.fullmatch(rf"{re.escape(name)}\.(.+)\.(unknown|unseen)", metric)
                if match and curve and curve[-1][1]:
                    stream = match[1] if len(names) == 1 else f"{match[1]} ({name})"
                    known = found.setdefault(stream, {"unknown": 0, "unseen": 0})
                    known[match[2]] = max(known[match[2]], int(curve[-1][1]))
    return found


def _tune(run: RunRow, name: str) -> str:
    """How an evaluation chooses its thresholds."""
    entries = [e for e in run.config["evaluations"] if (e.get("name") or e.get("type")) == name]
    return str(entries[0].get("tune") or "crossed")


def _curve(table: Table, run: RunRow) -> Iterator[Row]:
    """Boundary F at peaks of the four cues against the tokens a run had read."""
    per_step = _tokens_per_step(table, run)
    for metric, curve in run.curves.items() if per_step else ():
        place = _place(metric, [run])
        if place and place[1] in BASE and place[2:4] == ("peak", "boundary.f"):
            for step, value in ((s, v) for s, v in curve if math.isfinite(v)):
                one = {
                    "levels": run.levels,
                    "run": run.name,
                    "seed": run.seed,
                    "stream": place[0],
                    "cue": place[1],
                }
                yield one | {"step": step, "tokens": round(step * per_step), "value": value}


def _tokens_per_step(table: Table, run: RunRow) -> float:
    """Tokens read per step, from the run's log; 0 where it has none."""
    try:
        rows = read_lines((table.root or Path()) / run.dir / "metrics.jsonl")
    except (Damaged, OSError):
        return 0.0
    last = next((row for row in reversed(rows) if row.get("tokens") and row.get("step")), None)
    return last["tokens"] / last["step"] if last else 0.0


# --- positions --------------------------------------------------------------------------------------


def _positions(table: Table, cell: Mapping[str, str]) -> tuple[Row, dict[str, np.ndarray]] | None:
    """(what it is, columns of the first stream) of the first seed of an arm that has a table of positions."""
    for run in table.at(cell):
        for name in _named(run, "segmentation"):
            folder = (table.root or Path()) / run.dir / "evals" / name
            files = sorted(folder.glob("step-*.parquet"))
            if run.state == "done" and files:
                columns = _read(files[-1])
                step = int(files[-1].stem.removeprefix("step-"))
                thetas = _thetas(run, f"{name}.{columns['first'][0]}", step)
                return {"levels": dict(cell), "seed": run.seed, "run": run.name, "thetas": thetas}, columns
    return None


def _thetas(run: RunRow, stream: str, step: int) -> dict[str, list[float | None]]:
    """Cue -> the thresholds at a step of the first, third, ... utterance and of the others, where there is one."""
    told = lambda cue, which: dict(run.curves.get(f"{stream}.{cue}.threshold.theta_{which}", [])).get(step)
    return {cue: [told(cue, which) for which in ("even", "odd")] for cue in BASE}


def _read(path: Path) -> dict[str, np.ndarray]:
    """Columns of the first stream of a table of positions."""
    import pyarrow.parquet as pq

    found = pq.read_table(path)
    first = found.column("stream")[0].as_py()
    own = found.filter(np.asarray(found.column("stream").to_pylist()) == first)
    columns = {name: own.column(name).to_numpy(zero_copy_only=False) for name in own.column_names}
    return {name: values for name, values in columns.items() if name != "stream"} | {
        "first": np.array([first])
    }


def _utterances(about: Row, columns: Mapping[str, np.ndarray]) -> Row:
    """The first utterances of several words: symbols, gold boundaries, and of every cue its values and cuts."""
    number, gold = columns["utterance"], columns["word_start"].astype(bool)
    last = np.flatnonzero(np.diff(number, append=number[-1] + 1))
    begin = np.concatenate([[0], last[:-1] + 1])
    words = np.add.reduceat(gold, begin)
    chosen = [i for i in range(len(last)) if words[i] > 2 and last[i] - begin[i] <= MOST_SYMBOLS][:UTTERANCES]
    cuts = {cue: peaks(columns[cue]) for cue in BASE}
    found = []
    for i in chosen or range(min(1, len(last))):
        at = slice(int(begin[i]), int(last[i]) + 1)
        found.append(
            {
                "symbols": columns["symbol"][at].tolist(),
                "gold": [bool(v) and k > 0 for k, v in enumerate(gold[at])],
                "cues": {cue: np.nan_to_num(columns[cue][at], posinf=0.0).tolist() for cue in BASE},
                "thetas": {cue: about["thetas"][cue][i % 2] for cue in BASE},
                "cuts": {cue: (cuts[cue][at] & _inside(at)).tolist() for cue in BASE},
            }
        )
    return {**about, "stream": str(columns["first"][0]), "utterances": found}


def _inside(at: slice) -> np.ndarray:
    """Where an utterance, its boundary included, may be cut."""
    found = np.ones(at.stop - at.start, dtype=bool)
    found[[0, -1]] = False
    return found


def _thresholds(about: Row, columns: Mapping[str, np.ndarray]) -> Row:
    """Precision, recall and F of boundaries inside utterances at quantiles of each cue."""
    number, gold = columns["utterance"], columns["word_start"].astype(bool)
    first = np.diff(number, prepend=number[0] - 1) != 0
    end = np.diff(number, append=number[-1] + 1) != 0
    inside = ~first & ~end
    wanted = gold[inside]
    rows = []
    for cue in BASE:
        values = columns[cue][inside]
        finite = values[np.isfinite(values)]
        for share in np.linspace(0, 1, QUANTILES if len(finite) else 0):
            theta = float(np.quantile(finite, share))
            cut = values > theta
            hits, n = int((cut & wanted).sum()), int(cut.sum())
            p, r = hits / n if n else None, hits / max(1, int(wanted.sum()))
            f = 2 * hits / max(1, n + int(wanted.sum()))
            rows.append(
                {"cue": cue, "share": float(share), "theta": theta, "precision": p, "recall": r, "f": f}
            )
    return {**about, "stream": str(columns["first"][0]), "rows": rows}
