"""The losses of windows that an evaluation `window_loss` wrote, and what must be equal before two arms are compared.

`window_losses` reads the tables of an arm's runs at one step and averages them over seeds, window by window.
`same_windows` refuses arms that were not asked about the same windows of the same tokens; `unequal` refuses two
directions at unequal steps or under unequal schedules, because at a restart or during a decay the loss moves by
2 to 3 %, more than the gap (arrow-of-time.md 10.11). Cost: one Parquet file per run.
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
) -> str | None:
    """Why two directions cannot be compared, or None.

    `exact`: the steps of the values must be equal (a value that is a mean, or the best, has none of its own).
    Arms that share their direction may be at any step, unless `always`.
    """
    directions = [{_shown(run, "direction") for run in arm} for arm in runs.values()]
    differ = all(directions) and directions[0] != directions[1] and {"absent"} not in directions
    found = sorted({step for arm in steps.values() for step in arm})
    if (differ or always) and exact and len(found) > 1:
        shown = lambda arm: ", ".join(f"{step:,}" for step in sorted(set(arm)))
        told = "; ".join(f"{side}: {shown(arm)}" for side, arm in steps.items())
        what = "two directions" if differ else "windows"
        return f"{what} at different steps ({told}). Compare them `at` a step that all runs have."
    return _differs(runs, SCHEDULE, "two directions trained under different schedules") if differ else None


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
    if not 1 <= len(rest) <= 2 or (len(rest) == 2 and rest[1] not in ("forward", "backward")):
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


def _differs(runs: Mapping[str, Sequence[RunRow]], keys: Sequence[str], what: str) -> str | None:
    """A sentence that names the first of these keys of the configuration in which the arms differ."""
    for key in keys:
        sides = {side: sorted({_shown(run, key) for run in arm}) for side, arm in runs.items()}
        if len({value for values in sides.values() for value in values}) > 1:
            told = "; ".join(f"{side}: {', '.join(values)[:200]}" for side, values in sides.items())
            return f"{what}: {key} ({told})."
    return None


def _shown(run: RunRow, key: str) -> str:
    """A value of a run's configuration as text."""
    value: Any = run.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "absent" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)
