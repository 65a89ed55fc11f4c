"""What evaluations `segmentation` and `segmentation_baselines` found, ready to be shown: scores of every cue and
baseline, utterances with their cues and cuts, and scores against thresholds.

`segmentation(table)` gives plain data:

    left_out     levels of the arms with finished runs and no score: models whose predictions are no numbers
    missing      stream -> {unknown, unseen}: the most symbols of a run that are UNK, or that training never has
    streams      names of what is scored, in the order of the runs' evaluations, whole streams before utterances alone
    scores       rows {levels, stream, base, view, cue, strategy, measure -> {mean, low, high, n}}: final values of
                 finished runs with their t interval over seeds; baselines are rows of the same form with strategy
                 `baseline`
    curves       rows {levels, run, seed, stream, cue, tokens, value}: boundary F at peaks against tokens read
    utterances   per arm the first seed's utterances: symbols, gold boundaries, cues, cuts at peaks
    thresholds   per arm and cue: precision, recall and F of boundaries at quantiles of the cue, of that seed's stream

A stream is named as metrics name it: `val`, `val.alone`, `val.backward`; `view` is the direction in which a model of
both was asked, and `base` the name without it. Where runs have several such evaluations, their names stand behind:
`val (oracle)`; of baselines, behind those of all but the first. Utterances and thresholds come from the table
of positions that the evaluation wrote at its last step (`items: true`). Cost: that file of one run per arm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lexarium.evaluations.segmentation.cues import BASE, DIRECTIONS, FEATURES
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
    shown = [found for cell in table.cells() for found in _positions(table, cell)]
    return {
        "tune": {row["base"]: row["tune"] for row in scores if row["strategy"] != BASELINE},
        "scores": scores,
        "streams": _streams(table, scores),
        "missing": _missing(table),
        "left_out": _left_out(table, scores),
        "curves": [row for run in table.runs for row in _curve(table, run)],
        "utterances": [_utterances(*one) for one in shown],
        "thresholds": [found for one in shown if (found := _thresholds(*one))["rows"]],
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
        stream, cue, strategy, measure = place.stream, place.cue, place.strategy, place.measure
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
                "base": place.base,
                "view": place.view,
                "evaluation": place.evaluation,
                "cue": cue,
                "strategy": strategy,
                "tune": place.tune,
                "scores": {},
            },
        )
        row["scores"][measure] = {"mean": summary["mean"], "low": low, "high": high, "n": summary["n"]}
    order = lambda row: (
        row["strategy"] == BASELINE,
        ("", *DIRECTIONS).index(row["view"]),
        CUES.index(row["cue"]) if row["cue"] in CUES else 0,
    )
    yield from sorted(found.values(), key=order)


class Place(NamedTuple):
    """What a metric is about; `tune`: how its thresholds are chosen."""

    evaluation: str
    stream: str
    base: str
    view: str
    cue: str
    """A cue, or a baseline."""
    strategy: str
    measure: str
    tune: str


def _place(metric: str, runs: Sequence[RunRow]) -> Place | None:
    """What a metric is about; None for others."""
    for run in runs:
        names = _named(run, "segmentation")
        for name in names:
            pattern = rf"{re.escape(name)}\.(.+)\.({'|'.join(CUES)})\.(peak|threshold)\.(.+)"
            if (match := re.fullmatch(pattern, metric)) and match[4] in MEASURES:
                own = f" ({name})" if len(names) > 1 else ""
                base, view = _parts(match[1])
                named = (f"{match[1]}{own}", f"{base}{own}", view)
                return Place(name, *named, match[2], match[3], match[4], _tune(run, name))
        for i, name in enumerate(_named(run, "segmentation_baselines")):
            match = re.fullmatch(rf"{re.escape(name)}\.([^.]+)\.([^.]+)\.(.+)", metric)
            if match and match[3] in MEASURES:
                stream = f"{match[1]} ({name})" if i else match[1]
                return Place(name, stream, stream, "", match[2], BASELINE, match[3], "")
    return None


def _parts(stream: str) -> tuple[str, str]:
    """The name of a stream without the direction of a model of both, and that direction."""
    split, *rest = stream.split(".")
    view = next((part for part in rest if part in DIRECTIONS), "")
    return ".".join([split, *(part for part in rest if part != view)]), view


def _streams(table: Table, scores: Sequence[Row]) -> list[str]:
    order = {name: i for run in table.runs for i, name in enumerate(_named(run, "segmentation"))}
    found = {row["stream"]: row for row in scores if row["strategy"] != BASELINE}
    key = lambda stream: (order[found[stream]["evaluation"]], "alone" in stream.split(" ")[0], stream)
    return sorted(found, key=key)


def _left_out(table: Table, scores: Sequence[Row]) -> list[dict[str, str]]:
    shown = [row["levels"] for row in scores if row["strategy"] != BASELINE]
    asked = lambda run: run.state == "done" and _named(run, "segmentation")
    return [
        dict(cell) for cell in table.cells() if any(map(asked, table.at(cell))) and dict(cell) not in shown
    ]


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
        if place and place.cue in BASE and (place.strategy, place.measure) == ("peak", "boundary.f"):
            for step, value in ((s, v) for s, v in curve if math.isfinite(v)):
                one = {
                    "levels": run.levels,
                    "run": run.name,
                    "seed": run.seed,
                    "stream": place.stream,
                    "base": place.base,
                    "view": place.view,
                    "cue": place.cue,
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


def _positions(table: Table, cell: Mapping[str, str]) -> Iterator[tuple[Row, dict[str, np.ndarray]]]:
    """(what it is, columns) of the first seed of an arm that has a table of positions: of its first stream, in every
    direction of a model of both."""
    for run in table.at(cell):
        for name in _named(run, "segmentation"):
            folder = (table.root or Path()) / run.dir / "evals" / name
            files = sorted(folder.glob("step-*.parquet"))
            if run.state == "done" and files:
                step = int(files[-1].stem.removeprefix("step-"))
                for stream, columns in _read(files[-1]):
                    about = {"levels": dict(cell), "seed": run.seed, "run": run.name, "stream": stream}
                    about |= {"view": _parts(stream)[1], "thetas": _thetas(run, f"{name}.{stream}", step)}
                    yield about, columns
                return


def _thetas(run: RunRow, stream: str, step: int) -> dict[str, list[float | None]]:
    """Cue -> the thresholds at a step of the first, third, ... utterance and of the others, where there is one."""
    told = lambda cue, which: dict(run.curves.get(f"{stream}.{cue}.threshold.theta_{which}", [])).get(step)
    return {cue: [told(cue, which) for which in ("even", "odd")] for cue in BASE}


def _read(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(stream, columns) of a table of positions: the first stream, and the same one in another direction."""
    import pyarrow.parquet as pq

    found = pq.read_table(path)
    names = np.asarray(found.column("stream").to_pylist())
    streams = list(dict.fromkeys(names.tolist()))
    for stream in streams:
        if _parts(stream)[0] == _parts(streams[0])[0]:
            own = found.drop_columns(["stream"]).filter(names == stream)
            yield stream, {name: own.column(name).to_numpy(zero_copy_only=False) for name in own.column_names}


def _utterances(about: Row, columns: Mapping[str, np.ndarray]) -> Row:
    """The first utterances of several words: symbols, gold boundaries, and of every cue its values and cuts."""
    number, gold = columns["utterance"], columns["word_start"].astype(bool)
    last = np.flatnonzero(np.diff(number, append=number[-1] + 1))
    begin = np.concatenate([[0], last[:-1] + 1])
    words = np.add.reduceat(gold, begin)
    if not all(np.isfinite(columns[cue]).all() for cue in BASE):
        return {**about, "utterances": []}  # a broken model shows nothing
    chosen = [i for i in range(len(last)) if words[i] > 2 and last[i] - begin[i] <= MOST_SYMBOLS][:UTTERANCES]
    cuts = {cue: peaks(columns[cue]) for cue in BASE}
    found = []
    for i in chosen or range(min(1, len(last))):
        at = slice(int(begin[i]), int(last[i]) + 1)
        found.append(
            {
                "symbols": columns["symbol"][at].tolist(),
                "gold": [bool(v) and k > 0 for k, v in enumerate(gold[at])],
                "cues": {cue: columns[cue][at].tolist() for cue in BASE},
                "thetas": {cue: about["thetas"][cue][i % 2] for cue in BASE},
                "cuts": {cue: (cuts[cue][at] & _inside(at)).tolist() for cue in BASE},
            }
        )
    return {**about, "utterances": found}


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
    return {**about, "rows": rows}
