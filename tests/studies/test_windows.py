"""Contrasts by window: estimates by hand, intervals against scipy and simulation, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.builders import tiny_run

from lexarium.foundation.config import resolved
from lexarium.foundation.types import Result
from lexarium.studies.compare import Contrast, collect, compare
from lexarium.studies.gaps import gaps
from lexarium.studies.intervals import block_effect, effect, noise_floor, t_interval
from lexarium.studies.run_files import RunFiles
from lexarium.studies.windows import Windows, blocks_of

DIRECTIONS = ("forward", "backward")
POSITIONS = 4


def losses(direction: str, seed: int, windows: int = 40) -> np.ndarray:
    """(W, POSITIONS) of one run: backward is 3 % worse, on the same windows."""
    base = np.random.default_rng(5).gamma(4.0, 0.7, (windows, POSITIONS))
    noise = np.random.default_rng([seed, len(direction)]).normal(1, 0.01, base.shape)
    return base * noise * (1.03 if direction == "backward" else 1.0)


def make(
    runs_dir: Path,
    seeds: int = 2,
    documents: int = 10,
    step: Callable[[str, int], int] = lambda d, s: 100,
    config: Callable[[str, int], dict[str, Any]] = lambda d, s: {},
    table: Callable[[str, int], np.ndarray] = losses,
    digest: Callable[[str, int], int] = lambda d, s: 77,
    items: bool = True,
    **index: Any,
) -> Any:
    """A study of two directions on disk, with the tables an evaluation of windows writes."""
    runs = []
    for direction in DIRECTIONS:
        for seed in range(1, seeds + 1):
            folder = f"{direction}-{seed}"
            values, at = table(direction, seed), step(direction, seed)
            first = np.cumsum(values.mean(0)) / np.arange(1, POSITIONS + 1)
            metrics: dict[str, Any] = {"val": values.mean(), "val.windows_hash": digest(direction, seed)}
            metrics |= {f"val.first.{k}": first[k - 1] for k in (1, 2, 4)}
            metrics |= {f"val.position.{k}": values[:, k - 1].mean() for k in (1, 2, 4)}
            metrics = {k: v if isinstance(v, int) else float(v) for k, v in metrics.items()}
            n = len(values)
            columns = {
                "split": ["val"] * n + ["train"],
                "view": [""] * (n + 1),
                "window": [*range(n), 0],
                "document": [*(np.arange(n) * documents // n).tolist(), 0],
                "sum": [*values.sum(1).tolist(), 99.0],
                "n": [POSITIONS] * (n + 1),
                "losses": [*values.astype(np.float32), np.full(POSITIONS, 99, np.float32)],
            }
            files = RunFiles(runs_dir / folder)
            files.write_evaluation("window_loss", 50, Result({**metrics, "val": 2 * metrics["val"]}), {})
            files.write_evaluation("window_loss", at, Result(metrics, columns), {}, items)
            files.set_status(state="done", step=at, max_steps=at)
            base = {
                "direction": {"type": direction},
                "corpus": {"type": "x"},
                "tokenizer": {"type": "bpe"},
                "packing": {"seq_len": POSITIONS},
                "schedule": {"type": "cosine"},
                "train": {"max_steps": 100, "global_batch_size": 8},
            }
            entry = {"name": folder, "dir": folder, "levels": {"direction": direction}, "seed": seed}
            runs.append({**entry, "config": {**base, **config(direction, seed)}})
    index = {"study": "arrow", "axes": {"direction": list(DIRECTIONS)}, "runs": runs, **index}
    path = runs_dir / "studies" / "arrow" / "index.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(index))
    return collect(runs_dir, "arrow")


def contrast(**changes: Any) -> Contrast:
    fields = {"metric": "window_loss.val", "axis": "direction", "from": "forward", "to": "backward"}
    return Contrast.model_validate({**fields, "as": "relative", "unit": "block", **changes})


def mean_of(direction: str, seeds: int = 2) -> np.ndarray:
    return np.mean([losses(direction, s) for s in range(1, seeds + 1)], axis=0)


# --- estimates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "columns"),
    [
        ("window_loss.val", slice(None)),
        ("window_loss.val.first.2", slice(2)),
        ("window_loss.val.position.4", slice(3, 4)),
    ],
)
def test_the_estimate_is_the_ratio_of_sums_of_the_same_windows(
    tmp_path: Path, metric: str, columns: slice
) -> None:
    table = make(tmp_path, documents=20)
    a, b = (mean_of(d)[:, columns].sum() for d in DIRECTIONS)
    expected = {
        "relative": b / a - 1,
        "symmetric": (b - a) / ((a + b) / 2),
        "ratio": b / a,
        "difference": (b - a) / mean_of("forward")[:, columns].size,
    }
    for form, value in expected.items():
        (result,) = compare([contrast(metric=metric, **{"as": form})], table)
        assert result["estimate"] == pytest.approx(value, rel=1e-6), form
        low, high = result["interval"]
        assert low < result["estimate"] < high and result["refused"] is None
        assert result["windows"] == {"windows": 40, "blocks": 20, "blocks_of": "documents"}
        seeds = {d: [losses(d, s)[:, columns].mean() for s in (1, 2)] for d in DIRECTIONS}
        by_seed = effect(seeds["forward"], seeds["backward"], form=form)
        assert result["seed_interval"] == pytest.approx(by_seed.t_interval, rel=1e-4)
        assert (result["p"], result["n"]["from"], result["n"]["to"]) == (None, 2, 2)
    assert compare([contrast(metric=metric)], table) == compare([contrast(metric=metric)], table)


def test_swapped_arms_negate_the_symmetric_gap(tmp_path: Path) -> None:
    table = make(tmp_path)
    one, two = compare(
        [
            contrast(**{"as": "symmetric"}),
            contrast(**{"as": "symmetric", "from": "backward", "to": "forward"}),
        ],
        table,
    )
    assert two["estimate"] == pytest.approx(-one["estimate"])
    assert two["interval"] == pytest.approx((-one["interval"][1], -one["interval"][0]))


def test_an_earlier_step_is_read_from_its_own_table(tmp_path: Path) -> None:
    table = make(tmp_path)
    (missing,) = compare([contrast(at=50)], table)
    assert missing["estimate"] is None
    assert "has no table of windows of window_loss at step 50" in missing["refused"]
    assert "lexarium evaluate forward-1 --step 50" in missing["refused"]


def test_few_documents_are_cut_into_stretches(tmp_path: Path) -> None:
    (five,) = compare([contrast()], make(tmp_path / "a", documents=5))
    assert five["windows"] == {"windows": 40, "blocks": 20, "blocks_of": "stretches of 2 windows"}
    assert five["interval"] is not None and "over stretches of 2 windows" in five["interval_method"]
    assert not any("Only" in note for note in five["notes"])
    short = lambda d, s: losses(d, s, 12)
    (twelve,) = compare([contrast()], make(tmp_path / "b", documents=1, seeds=1, table=short))
    assert twelve["windows"] == {"windows": 12, "blocks": 12, "blocks_of": "stretches of 1 window"}
    told = "Only 12 blocks (stretches of 1 window): an interval over so few covers less than it says."
    assert told in twelve["notes"]
    assert any("An arm has one seed" in note for note in twelve["notes"]) and twelve["seed_interval"] is None
    single = lambda d, s: losses(d, s, 1)
    (one,) = compare([contrast()], make(tmp_path / "c", documents=1, seeds=1, table=single))
    assert one["interval"] is None and any("All windows are of one block" in note for note in one["notes"])


@given(st.integers(1, 3000), st.integers(1, 19))
def test_stretches_are_many_and_long_where_that_is_possible(n: int, documents: int) -> None:
    windows = Windows(np.ones(n), np.ones(n), np.arange(n) * documents // n, 0.0)
    blocks, of = blocks_of(windows, [])
    sizes = np.bincount(blocks)
    assert (np.diff(blocks) >= 0).all() and len(blocks) == n, "consecutive windows"
    assert len(sizes) >= min(n, 20), "enough of them"
    assert len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0] and f"of {sizes[0]} window" in of
    if n >= 100:
        assert sizes[0] >= 5
    if n >= 200:
        assert 40 <= len(sizes) <= 50


def test_documents_that_are_pieces_of_a_file_are_stretches_of_text(tmp_path: Path) -> None:
    cut = lambda d, s: {"corpus": {"type": "text_files", "documents": "block"}}
    (result,) = compare([contrast()], make(tmp_path, documents=25, config=cut))
    assert result["windows"] == {"windows": 40, "blocks": 25, "blocks_of": "stretches of text"}


def test_trained_runs_of_two_directions(tmp_path: Path) -> None:
    """From training to the contrast: over all windows the gap is that of the recorded losses, by seed and by block."""
    runs = []
    for direction in DIRECTIONS:
        for seed in (1, 2):
            run = tiny_run(
                tmp_path,
                packing={"type": "windows", "seq_len": 12},
                direction={"type": direction},
                seed=seed,
                evaluations=[{"type": "window_loss", "every": 6}],
            )
            assert run.train() == "done"
            entry = {
                "name": run.path.name,
                "dir": run.path.name,
                "levels": {"direction": direction},
                "seed": seed,
            }
            runs.append({**entry, "config": resolved(run.config)})
    path = tmp_path / "studies" / "arrow" / "index.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"study": "arrow", "axes": {"direction": list(DIRECTIONS)}, "runs": runs}))
    table = collect(tmp_path, "arrow")
    a, b = (
        np.mean([r.curves["window_loss.val"][-1][1] for r in table.at({"direction": d})]) for d in DIRECTIONS
    )
    by_block, by_seed = compare([contrast(), contrast(unit="seed")], table)
    for result in (by_block, by_seed):
        assert result["refused"] is None
        assert result["estimate"] == pytest.approx(b / a - 1, abs=1e-9)
    assert by_block["windows"]["windows"] == table.runs[0].curves["window_loss.val.windows"][-1][1]
    (first,) = compare([contrast(metric="window_loss.val.first.4")], table)
    a, b = (
        np.mean([r.curves["window_loss.val.first.4"][-1][1] for r in table.at({"direction": d})])
        for d in DIRECTIONS
    )
    assert first["estimate"] == pytest.approx(b / a - 1, abs=1e-6)


# --- refusals -------------------------------------------------------------------------------------------

BACK = lambda value, other: lambda d, s: value if d == "backward" else other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"config": BACK({"tokenizer": {"type": "byte"}}, {})},
            r"directions of different data, seed 1: tokenizer \(from: .*bpe.*to: .*byte",
        ),
        ({"config": BACK({"corpus": {"type": "y"}}, {})}, "different data, seed 1: corpus"),
        ({"config": BACK({"packing": {"seq_len": 9}}, {})}, "packing.seq_len"),
        ({"config": BACK({"schedule": {"type": "constant"}}, {})}, "under different schedules: schedule"),
        ({"config": BACK({"train": {"max_steps": 99}}, {})}, "under different schedules: train.max_steps"),
        ({"step": BACK(120, 100)}, "two directions at different steps .from: 100; to: 120"),
        ({"digest": BACK(1, 2)}, r"asked about different windows: window_loss.val.windows_hash differs"),
        ({"digest": lambda d, s: s}, "the seeds of an arm were not asked about the same windows"),
        ({"items": False}, "has no table of windows"),
        (
            {"table": lambda d, s: losses(d, s, 41 if d == "backward" else 40)},
            "40 of 4 predicted tokens and 41 of 4",
        ),
    ],
)
def test_what_must_not_be_compared_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    import re

    (result,) = compare([contrast()], make(tmp_path, **options))
    assert result["estimate"] is None and result["interval"] is None and result["windows"] is None
    assert re.search(message, result["refused"]), result["refused"]
    assert result["notes"][0] == f"Refused: {result['refused']}"


def test_by_seed_only_directions_are_held_to_one_step_and_schedule(tmp_path: Path) -> None:
    later = {"step": BACK(120, 100)}
    by_seed = contrast(unit="seed")
    (result,) = compare([by_seed], make(tmp_path / "a", **later))
    assert "two directions at different steps" in result["refused"] and result["estimate"] is None
    (best,) = compare([contrast(unit="seed", at="best", better="lower")], make(tmp_path / "b", **later))
    assert best["refused"] is None and best["estimate"] is not None
    (at_50,) = compare([contrast(unit="seed", at=50)], make(tmp_path / "c", **later))
    assert at_50["refused"] is None and at_50["estimate"] is not None
    same = {"config": lambda d, s: {"direction": {"type": "forward"}}}
    (sizes,) = compare([by_seed], make(tmp_path / "d", **later, **same))
    assert sizes["refused"] is None and sizes["estimate"] is not None
    (block,) = compare([contrast()], make(tmp_path / "e", **later, **same))
    assert "windows at different steps" in block["refused"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": BACK({"corpus": {"type": "y"}}, {})}, "different data, seed 1: corpus"),
        ({"config": BACK({"tokenizer": {"type": "byte"}}, {})}, "different data, seed 1: tokenizer"),
        ({"config": BACK({"packing": {"seq_len": 9}}, {})}, "seed 1: packing.seq_len"),
        ({"config": BACK({"view": {"keep": [1]}}, {})}, "seed 1: view"),
        ({"digest": BACK(1, 2)}, "window_loss.val.windows_hash differs .forward-1, backward-1."),
    ],
)
def test_by_seed_two_directions_of_different_data_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    import re

    (result,) = compare([contrast(unit="seed")], make(tmp_path, **options))
    assert result["estimate"] is None and re.search(message, result["refused"]), result["refused"]
    one = options.get("config", lambda d, s: {})
    same = lambda d, s: {**one(d, s), "direction": {"type": "forward"}}
    (kept,) = compare([contrast(unit="seed")], make(tmp_path / "b", **{**options, "config": same}))
    assert kept["refused"] is None, "other axes may change the data: only directions are held to it"


def test_data_redrawn_for_every_seed_are_compared_seed_by_seed(tmp_path: Path) -> None:
    drawn = lambda d, s: {"corpus": {"type": "x", "seed": s, "n": 5}}
    by_seed, redraw = contrast(unit="seed"), {"redraw": ["corpus.seed"]}
    hashes = lambda d, s: s
    (result,) = compare([by_seed], make(tmp_path / "a", config=drawn, digest=hashes, **redraw))
    assert result["refused"] is None and result["estimate"] is not None
    (unknown,) = compare([by_seed], make(tmp_path / "b", config=drawn, digest=hashes))
    assert "two directions of different data: corpus" in unknown["refused"]
    other = lambda d, s: {"corpus": {"type": "x", "seed": s + (d == "backward"), "n": 5}}
    (seeds,) = compare([by_seed], make(tmp_path / "c", config=other, digest=hashes, **redraw))
    assert "different data, seed 1: corpus" in seeds["refused"]
    swapped = lambda d, s: s if d == "forward" else 3 - s
    (windows,) = compare([by_seed], make(tmp_path / "d", config=drawn, digest=swapped, **redraw))
    assert "window_loss.val.windows_hash differs (forward-1, backward-1)" in windows["refused"]
    larger = lambda d, s: {"corpus": {"type": "x", "seed": s, "n": 4 + s}}
    (rest,) = compare([by_seed], make(tmp_path / "e", config=larger, digest=hashes, **redraw))
    assert '"n": 5' in rest["refused"] and '"seed"' not in rest["refused"]


def test_windows_of_one_direction_are_held_to_their_data_too(tmp_path: Path) -> None:
    forward = {"direction": {"type": "forward"}}
    for i, (options, message) in enumerate(
        [
            (
                {"config": lambda d, s: {**forward, **BACK({"corpus": {"type": "y"}}, {})(d, s)}},
                "in their data: corpus",
            ),
            (
                {"config": lambda d, s: forward, "digest": BACK(1, 2)},
                "different windows (their windows_hash differs)",
            ),
        ]
    ):
        (result,) = compare([contrast()], make(tmp_path / str(i), **options))
        assert message in result["refused"]


def test_a_metric_without_windows_is_refused(tmp_path: Path) -> None:
    table = make(tmp_path)
    for metric, message in (
        ("window_loss.val.perplexity", "compares losses of windows"),
        ("window_loss.val.first.9", ""),
    ):
        for run in table.runs:
            run.curves.setdefault(metric, [(100, 1.0)])
        (result,) = compare([contrast(metric=metric)], table)
        assert message in result["refused"]
    assert "windows have 4 positions, found first.9" in result["refused"]


@pytest.mark.parametrize("at", ["best", {"mean_over": [1, 5]}])
def test_windows_are_those_of_one_step(at: Any) -> None:
    with pytest.raises(ValidationError, match="`unit: block` reads the windows of one step"):
        contrast(at=at, better="lower")


def test_the_hash_of_windows_is_no_metric_to_show(tmp_path: Path) -> None:
    assert "window_loss.val" in (metrics := make(tmp_path).metrics)
    assert not [m for m in metrics if "hash" in m]


# --- statistics -----------------------------------------------------------------------------------------


def test_equal_blocks_are_the_plain_bootstrap_of_block_means() -> None:
    """12 documents of 5 windows: interval of the mean of document differences, by scipy; closed-form error; and the
    t interval, which the expansion aims at."""
    from scipy.stats import bootstrap

    random = np.random.default_rng(3)
    a = random.gamma(5, 1, 60)
    b = a + np.repeat(random.normal(0.2, 0.3, 12), 5) + random.normal(0, 0.1, 60)
    found = block_effect(a, b, np.ones(60), np.repeat(np.arange(12), 5))
    means = (b - a).reshape(12, 5).mean(1)
    assert found.estimate == pytest.approx(means.mean())
    level = _expanded(0.95, 12)
    assert level == pytest.approx(0.9785, abs=1e-4)
    random = np.random.default_rng(0)
    expected = bootstrap(
        (means,), np.mean, method="percentile", n_resamples=40_000, confidence_level=level, rng=random
    )
    spread = expected.standard_error
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.07 * spread)
    assert found.interval == pytest.approx(t_interval(means.tolist()), abs=0.2 * spread)
    assert found.standard_error == pytest.approx(means.std() / np.sqrt(12), rel=0.03)


def _expanded(confidence: float, n: int) -> float:
    """The nominal level at which a percentile interval of n normal values is as long as the t interval."""
    from scipy.stats import norm, t

    return 1 - 2 * norm.sf(np.sqrt(n / (n - 1)) * t.ppf(0.5 + confidence / 2, n - 1))


def test_the_ratio_of_sums_against_a_naive_bootstrap() -> None:
    """Unequal documents, drawn one by one in a loop."""
    random = np.random.default_rng(4)
    blocks = np.repeat(np.arange(9), random.integers(1, 9, 9))
    a = random.gamma(3, 1, len(blocks))
    b = a * random.normal(1.05, 0.2, len(blocks))
    counts = random.integers(1, 5, len(blocks))
    places = [np.flatnonzero(blocks == g) for g in range(9)]
    for form, value in (
        ("relative", lambda i: b[i].sum() / a[i].sum() - 1),
        ("symmetric", lambda i: 2 * (b[i].sum() - a[i].sum()) / (b[i].sum() + a[i].sum())),
        ("difference", lambda i: (b[i].sum() - a[i].sum()) / counts[i].sum()),
    ):
        found = block_effect(a, b, counts, blocks, form=form, confidence=0.9)
        drawn = [value(np.concatenate([places[g] for g in random.integers(0, 9, 9)])) for _ in range(6000)]
        width, tail = np.std(drawn), (1 - _expanded(0.9, 9)) / 2
        assert found.interval == pytest.approx(tuple(np.quantile(drawn, [tail, 1 - tail])), abs=0.15 * width)
        assert found.standard_error == pytest.approx(width, rel=0.05)


def test_coverage_over_simulated_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 documents whose windows share an effect: about 95 % over documents, far less if windows counted alone."""
    monkeypatch.setattr("lexarium.studies.intervals.BLOCK_RESAMPLES", 400)
    truth, hits, alone, n = 0.02, 0, 0, 150
    for i in range(n):
        random = np.random.default_rng([9, i])
        shared = np.repeat(random.normal(0, 0.03, 40), 8)
        a = random.gamma(20, 0.1, 320)
        b = a * (1 + truth + shared + random.normal(0, 0.01, 320))
        blocks = np.repeat(np.arange(40), 8)
        for name, groups in (("documents", blocks), ("windows", np.arange(320))):
            low, high = block_effect(
                a, b, np.ones(320), groups, form="relative", name=f"{name}{i}"
            ).interval or (0, 0)
            inside = low <= truth <= high
            hits, alone = hits + (inside and name == "documents"), alone + (inside and name == "windows")
    assert 0.9 < hits / n < 0.99
    assert alone / n < 0.65


positive = st.lists(st.integers(1, 99).map(lambda i: i / 10), min_size=2, max_size=5)


@given(positive, positive)
def test_symmetric_is_the_difference_over_the_mean_of_both(x: list[float], y: list[float]) -> None:
    found, ratio = effect(x, y, form="symmetric"), effect(x, y, form="ratio")
    a, b = np.mean(x), np.mean(y)
    assert found.estimate == pytest.approx((b - a) / ((a + b) / 2), abs=1e-12)
    assert effect(y, x, form="symmetric").estimate == pytest.approx(-found.estimate, abs=1e-12)
    if ratio.interval:
        assert found.interval == pytest.approx([2 * (r - 1) / (r + 1) for r in ratio.interval])


def test_the_published_example_of_both_definitions() -> None:
    """arrow-of-time.md section 1: 2.65 % becomes 2.615 %."""
    assert effect([1.0], [1.0265], form="relative").estimate == pytest.approx(0.0265)
    assert effect([1.0], [1.0265], form="symmetric").estimate == pytest.approx(0.02615, abs=5e-6)


def test_noise_floor_by_hand() -> None:
    # pairs: |2-1|/1.5, |4-1|/2.5, |4-2|/3 and |6-5|/5.5
    value, pairs = noise_floor([[1, 2, 4], [5, 6]], "relative")
    assert pairs == 4 and value == pytest.approx((1 / 1.5 + 3 / 2.5 + 2 / 3 + 1 / 5.5) / 4)
    assert noise_floor([[1, 2, 4], [5, 6]], "difference") == (pytest.approx((1 + 3 + 2 + 1) / 4), 4)
    assert noise_floor([[1], [2]], "relative") == (None, 0)


# --- curves ---------------------------------------------------------------------------------------------


def test_gaps_over_steps_context_and_positions(tmp_path: Path) -> None:
    table = make(tmp_path, seeds=3)
    contrasts = [contrast(unit="seed"), contrast(), contrast(unit="seed", **{"as": "difference"})]
    results = compare(contrasts, table)
    (found,) = gaps(contrasts, table, results)
    values = {d: np.array([losses(d, s).mean() for s in (1, 2, 3)]) for d in DIRECTIONS}
    expected = effect(values["forward"].tolist(), values["backward"].tolist(), form="relative")
    assert [row["step"] for row in found["steps"]] == [50, 100]
    for row in found["steps"]:
        assert row["estimate"] == pytest.approx(expected.estimate)
        assert (row["low"], row["high"]) == pytest.approx(expected.t_interval)
        assert row["noise"] == pytest.approx(
            noise_floor([v.tolist() for v in values.values()], "relative")[0]
        )
    assert [row["k"] for row in found["context"]] == [1, 2, 4]
    for row in found["context"]:
        a, b = (np.mean([losses(d, s)[:, : row["k"]].mean() for s in (1, 2, 3)]) for d in DIRECTIONS)
        assert row["estimate"] == pytest.approx(b / a - 1)
    assert found["context"][-1]["estimate"] == pytest.approx(found["steps"][-1]["estimate"])
    assert [(r["side"], r["k"]) for r in found["positions"]] == [
        (s, k) for s in ("from", "to") for k in (1, 2, 4)
    ]
    assert found["positions"][4]["mean"] == pytest.approx(
        np.mean([losses("backward", s)[:, 1].mean() for s in (1, 2, 3)])
    )


def test_no_curve_of_what_is_refused_or_a_plain_difference(tmp_path: Path) -> None:
    table = make(tmp_path, step=BACK(120, 100))
    contrasts = [contrast(unit="seed"), contrast(unit="seed", **{"as": "difference"})]
    assert gaps(contrasts, table, compare(contrasts, table)) == []
