"""The losses of windows that an evaluation `window_loss` wrote, and what must be equal before two arms are compared.

`window_losses` reads the tables of an arm's runs at one step and averages them over seeds, window by window.
`blocks_of` says which windows are drawn together: those of a document, or of a stretch of text where a split has few
documents. `same_windows` refuses arms that were not asked about the same windows of the same tokens. `unequal` refuses
two directions at unequal steps or under unequal schedules, because at a restart or during a decay the loss moves by
2 to 3 %, more than the gap (arrow-of-time.md 10.11), and two directions of different data (6.1): data that a study
redraws for every seed are compared seed by seed. Cost: one Parquet file per run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lexarium.studies.results import RunRow

SCHEDULE = ("schedule", "train.max_steps", "train.epochs", "train.global_batch_size")
"""What fixes the learning rate and the data seen at a step."""
DATA = ("tokenizer", "corpus", "packing.seq_len")
SOURCES = (*DATA, "view")
"""What fixes the data two directions are trained on. The split is part of the metric's name."""
MIN_BLOCKS, BLOCKS, BLOCK_WINDOWS = 20, 40, 5
"""Documents needed to be the blocks of a bootstrap; blocks wanted where there are fewer; windows each should have."""


VIEWS = ("forward", "backward")


class Incomparable(Exception):
    """Two arms that must not be compared; the message says what differs."""


class Windows(NamedTuple):
    """The windows of one arm: sums of losses, averaged over its runs, and what they belong to. All (W,)."""

    sums: np.ndarray
    counts: np.ndarray
    documents: np.ndarray
    hash: float
    """Of the windows' tokens."""


def unequal(
    runs: Mapping[str, Sequence[RunRow]],
    steps: Mapping[str, Sequence[int]],
    exact: bool,
    always: bool = False,
    metric: str = "",
    redraw: Sequence[str] = (),
) -> str | None:
    """Why two directions cannot be compared, or None.

    `exact`: the steps of the values must be equal (a value that is a mean, or the best, has none of its own).
    Arms that share their direction may be at any step, unless `always`. `metric` tells whose windows must be the same;
    `redraw`: paths of the configuration that take the run's seed and so differ between seeds.
    """
    directions = [{_shown(run, "direction") for run in arm} for arm in runs.values()]
    differ = all(directions) and directions[0] != directions[1] and {"absent"} not in directions
    found = sorted({step for arm in steps.values() for step in arm})
    if (differ or always) and exact and len(found) > 1:
        shown = lambda arm: ", ".join(f"{step:,}" for step in sorted(set(arm)))
        told = "; ".join(f"{side}: {shown(arm)}" for side, arm in steps.items())
        what = "two directions" if differ else "windows"
        return f"{what} at different steps ({told}). Compare them `at` a step that all runs have."
    if not differ:
        return None
    schedules = _differs(runs, SCHEDULE, "two directions trained under different schedules")
    return schedules or _other_data(runs, metric, redraw)


def _other_data(runs: Mapping[str, Sequence[RunRow]], metric: str, redraw: Sequence[str]) -> str | None:
    """In which data two directions differ: seed by seed, and over all seeds in what is not redrawn."""
    what = "two directions of different data"
    seeds = sorted(set.intersection(*({run.seed for run in arm} for arm in runs.values())))
    for seed in seeds:
        pair = {side: [run for run in arm if run.seed == seed] for side, arm in runs.items()}
        if told := _differs(pair, SOURCES, f"{what}, seed {seed}"):
            return told
        if told := _other_windows(pair, metric):
            return told
    told = _differs(runs, SOURCES, what, redraw)
    return told or (None if redraw or seeds else _other_windows(runs, metric))


def _other_windows(runs: Mapping[str, Sequence[RunRow]], metric: str) -> str | None:
    """A sentence when two runs were asked about different windows; runs without a windows_hash say nothing."""
    parts = metric.split(".")
    view = [parts[2]] if len(parts) > 2 and parts[2] in VIEWS else []
    name = ".".join([*parts[:2], *view, "windows_hash"])
    found = {
        run.name: run.curves[name][-1][1] for arm in runs.values() for run in arm if run.curves.get(name)
    }
    if len(set(found.values())) < 2:
        return None
    return f"two directions were asked about different windows: {name} differs ({', '.join(found)})."


def window_losses(root: Path | None, runs: Sequence[RunRow], metric: str, step: int) -> Windows:
    """The windows of an arm at a step, averaged over its runs; raises Incomparable, naming what is missing.

    `metric`: `<evaluation>.<split>[.<view>][.first.K | .position.K]`.
    """
    evaluation, split, view, kind, k = _parse(metric)
    tables, hashes = [], {}
    for run in runs:
        name = f"{evaluation}.{split}{'.' + view if view else ''}.windows_hash"
        hashes[run.name] = dict(run.curves.get(name, [])).get(step)
        path = (root or Path()) / run.dir / "evals" / evaluation / f"step-{step:08d}.parquet"
        if root is None or hashes[run.name] is None or not path.is_file():
            raise Incomparable(
                f"{run.name} has no table of windows of {evaluation} at step {step:,}; `unit: block` needs evaluation"
                f" window_loss with items (`lexarium evaluate {run.dir} --step {step}` writes them)."
            )
        tables.append(_read(path, split, view, kind, k))
    if len(set(hashes.values())) > 1:
        raise Incomparable(
            f"the seeds of an arm were not asked about the same windows ({', '.join(hashes)}); where data are redrawn"
            " for every seed use `unit: seed`."
        )
    sums = np.mean([sums for sums, _, _ in tables], axis=0)
    _, counts, documents = tables[0]
    return Windows(sums, counts, documents, float(hashes[runs[0].name] or 0))


def blocks_of(windows: Windows, runs: Sequence[RunRow]) -> tuple[np.ndarray, str]:
    """(W,) the block of each window, and what the blocks are.

    Documents, where there are at least `MIN_BLOCKS`; otherwise stretches of N consecutive windows: about `BLOCKS` of
    them, of at least `BLOCK_WINDOWS` windows, or, where that leaves fewer than `MIN_BLOCKS`, of fewer windows.
    """
    n, n_documents = len(windows.sums), len(np.unique(windows.documents))
    if n_documents >= MIN_BLOCKS:
        cut = any(
            _shown(run, "corpus.documents") == '"block"' for run in runs
        )  # a document is a piece of a file
        return windows.documents, "stretches of text" if cut else "documents"
    size = max(n // BLOCKS, min(BLOCK_WINDOWS, n // MIN_BLOCKS), 1)
    return np.arange(n) // size, f"stretches of {size} window{'s' if size > 1 else ''}"


def same_windows(runs: Mapping[str, Sequence[RunRow]], a: Windows, b: Windows) -> None:
    """Raises Incomparable, naming what differs, unless both arms were asked about the same windows of the same data."""
    if told := _differs(runs, DATA, "the arms differ in their data"):
        raise Incomparable(told)
    if len(a.sums) != len(b.sums) or not np.array_equal(a.counts, b.counts):
        raise Incomparable(
            f"the arms have different windows: {len(a.sums):,} of {_sizes(a)} predicted tokens and {len(b.sums):,} of"
            f" {_sizes(b)}."
        )
    if a.hash != b.hash or not np.array_equal(a.documents, b.documents):
        raise Incomparable("the arms were asked about different windows (their windows_hash differs).")


def _sizes(windows: Windows) -> str:
    return "/".join(str(int(n)) for n in np.unique(windows.counts))


def _parse(metric: str) -> tuple[str, str, str, str, int]:
    """(evaluation, split, view, "" | first | position, K) of a metric."""
    evaluation, *rest = metric.split(".")
    kind, k = "", 0
    if len(rest) >= 3 and rest[-2] in ("first", "position") and rest[-1].isdigit():
        kind, k, rest = rest[-2], int(rest[-1]), rest[:-2]
    if not 1 <= len(rest) <= 2 or (len(rest) == 2 and rest[1] not in VIEWS):
        raise Incomparable(
            "`unit: block` compares losses of windows (`window_loss.val`, `.first.K` or `.position.K` of it), found"
            f" {metric!r}."
        )
    return evaluation, rest[0], rest[1] if len(rest) == 2 else "", kind, k


def _read(path: Path, split: str, view: str, kind: str, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of losses, their numbers and documents of one run's windows, (W,) each."""
    import pyarrow.parquet as pq

    wanted = ["split", "view", "document", "sum", "n"] + ["losses"] * bool(kind)
    try:
        table = pq.read_table(path, columns=wanted, filters=[("split", "==", split), ("view", "==", view)])
    except (OSError, ValueError, KeyError) as error:
        raise Incomparable(f"{path}: not a table of windows ({error}).") from None
    column = lambda name: table.column(name).to_numpy()
    documents, sums, counts = column("document"), column("sum"), column("n").astype(np.int64)
    if not kind:
        return sums, counts, documents
    losses = table.column("losses").combine_chunks().flatten().to_numpy().reshape(len(sums), -1)
    if not 1 <= k <= losses.shape[1]:
        raise Incomparable(f"{path}: windows have {losses.shape[1]} positions, found {kind}.{k}.")
    part = losses[:, k - 1 : k] if kind == "position" else losses[:, :k]
    return part.astype(np.float64).sum(1), np.full(len(sums), part.shape[1]), documents


def _differs(
    runs: Mapping[str, Sequence[RunRow]], keys: Sequence[str], what: str, without: Sequence[str] = ()
) -> str | None:
    """A sentence that names the first of these keys of the configuration in which the arms differ; paths `without`
    do not count."""
    for key in keys:
        sides = {side: sorted({_shown(run, key, without) for run in arm}) for side, arm in runs.items()}
        if len({value for values in sides.values() for value in values}) > 1:
            told = "; ".join(f"{side}: {', '.join(values)[:200]}" for side, values in sides.items())
            return f"{what}: {key} ({told})."
    return None


def _shown(run: RunRow, key: str, without: Sequence[str] = ()) -> str:
    """A value of a run's configuration as text; paths `without` are left out of it."""
    value: Any = run.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    for path in without:
        if path.startswith(f"{key}."):
            value = _dropped(value, path.removeprefix(f"{key}.").split("."))
    return "absent" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _dropped(value: Any, path: Sequence[str]) -> Any:
    """The value without what lies at a path inside it; a list is entered by number."""
    if isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
        i = int(path[0])
        return [*value[:i], *([_dropped(value[i], path[1:])] if path[1:] else []), *value[i + 1 :]]
    if not isinstance(value, Mapping) or path[0] not in value:
        return value
    kept = {k: v for k, v in value.items() if k != path[0]}
    return {**kept, path[0]: _dropped(value[path[0]], path[1:])} if path[1:] else kept
