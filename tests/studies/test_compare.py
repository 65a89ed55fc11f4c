"""Contrasts over tables made in memory: which runs count, what is said about the others."""

from __future__ import annotations

import json
import math
import random

import pytest
from pydantic import ValidationError

from lexarium.foundation.config import Source, resolved, validate
from lexarium.foundation.files import dumps
from lexarium.foundation.types import UserError
from lexarium.studies.compare import Contrast, ReportConfig, RunRow, Table, arms, check, compare
from lexarium.studies.intervals import effect

FORWARD = [0.31, 0.52, 0.44, 0.68, 0.40]
BACKWARD = [0.71, 0.95, 0.88, 0.60, 0.93]


def run(levels: dict, seed: int, curve, state: str = "done", metric: str = "loss.val", **changes) -> RunRow:
    """One run; `curve` is a final value at step 100, or a list of (step, value)."""
    points = [(100, curve)] if isinstance(curve, int | float) else list(curve)
    name = "/".join([*(f"{a}={v}" for a, v in levels.items()), f"seed={seed}"])
    step = points[-1][0] if points else 0
    values = {"step": step, "max_steps": 100, "message": "", "config": {}, **changes}
    curves = {metric: points} if points else {}
    return RunRow(name, f"d-{name}", dict(levels), seed, state, curves=curves, **values)


def table(runs: list[RunRow]) -> Table:
    axes: dict[str, list[str]] = {}
    for row in runs:
        for axis, level in row.levels.items():
            if level not in axes.setdefault(axis, []):
                axes[axis].append(level)
    return Table("arrow", axes, runs)


def two_arms(first=FORWARD, second=BACKWARD) -> Table:
    return table(
        [run({"direction": "forward"}, s, v) for s, v in enumerate(first, 1)]
        + [run({"direction": "backward"}, s, v) for s, v in enumerate(second, 1)]
    )


def contrast(**changes) -> Contrast:
    fields = {"metric": "loss.val", "axis": "direction", "from": "forward", "to": "backward"}
    return Contrast.model_validate({**fields, **changes})


def test_a_contrast_gives_the_statistics_of_its_two_arms() -> None:
    (result,) = compare([contrast()], two_arms())
    expected = effect(FORWARD, BACKWARD)
    assert result["estimate"] == pytest.approx(sum(BACKWARD) / 5 - sum(FORWARD) / 5)
    assert result["interval"] == expected.interval
    assert result["n"] == {"from": 5, "to": 5, "pairs": None, "total": 10}
    assert result["arms"]["to"]["median"] == 0.88
    assert sorted(p["value"] for p in result["points"] if p["arm"] == "from") == sorted(FORWARD)
    assert (result["p"], result["p_adjusted"], result["correction"]) == (None, None, None)
    assert any("too few seeds" in note.lower() for note in result["notes"])
    assert (result["from"], result["as"], result["at"]) == ("forward", "difference", "final")


def test_swapping_from_and_to_negates() -> None:
    one, two = compare(
        [contrast(), contrast(**{"from": "backward", "to": "forward"})],
        two_arms([*FORWARD, 0.5], [*BACKWARD, 0.9]),
    )
    assert two["estimate"] == -one["estimate"]
    assert two["interval"] == tuple(-v for v in reversed(one["interval"]))
    assert two["p"] == one["p"]


def test_relabelling_seeds_matters_only_when_paired() -> None:
    data = two_arms()
    shuffled = two_arms(random.Random(1).sample(FORWARD, 5))
    paired = contrast(paired=True, pairing="equal seeds share initial weights and order")
    before, after = (compare([contrast(), paired], t) for t in (data, shuffled))
    assert before[0]["interval"] == after[0]["interval"]
    assert before[1]["interval"] != after[1]["interval"]
    assert before[1]["estimate"] == pytest.approx(after[1]["estimate"])


def test_pairing_uses_common_seeds_and_names_the_others() -> None:
    data = two_arms(FORWARD, BACKWARD[:4])
    (result,) = compare([contrast(paired=True, pairing="same order")], data)
    assert result["n"] == {"from": 4, "to": 4, "pairs": 4, "total": 8}
    assert len(result["points"]) == 9
    assert "Seeds without a partner in the other arm are left out: 5." in result["notes"]
    assert "Paired by seed: same order." in result["notes"]


def test_unfinished_failed_and_unmeasured_runs_are_named_not_dropped() -> None:
    runs = two_arms().runs
    runs[0].state, runs[0].step = "running", 40
    runs[1].state, runs[1].message = "failed", "loss is not finite"
    runs[2].state, runs[2].curves = "waiting", {}
    runs[3].curves = {"other.metric": [(100, 1.0)]}
    (result,) = compare([contrast()], table(runs))
    assert result["n"]["from"] == 1
    assert {m["run"]: m["why"] for m in result["missing"]} == {
        "direction=forward/seed=1": "the run is running at step 40",
        "direction=forward/seed=2": "the run is failed at step 100: loss is not finite",
        "direction=forward/seed=3": "the run has not started",
        "direction=forward/seed=4": "this metric was not measured",
    }
    assert result["estimate"] == pytest.approx(sum(BACKWARD) / 5 - FORWARD[4])
    assert result["interval"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_excluded_by_name(bad: float) -> None:
    (result,) = compare([contrast()], two_arms([*FORWARD, bad]))
    assert result["n"]["from"] == 5
    assert (
        f"direction=forward/seed=6 is excluded: the value is {bad}, not a finite number." in result["notes"]
    )
    assert result["missing"][0]["run"] == "direction=forward/seed=6"
    json.loads(dumps(result), parse_constant=pytest.fail)


def test_no_finished_run_gives_a_result_without_numbers() -> None:
    runs = two_arms().runs
    for row in runs:
        row.state, row.curves = "waiting", {}
    (result,) = compare([contrast()], table(runs))
    assert (result["estimate"], result["interval"], result["n"]["total"]) == (None, None, 0)
    assert len(result["missing"]) == 10
    json.loads(dumps(result), parse_constant=pytest.fail)


CURVE = [(0, 0.9), (50, 0.2), (100, 0.6)]


@pytest.mark.parametrize(
    ("at", "better", "value", "label"),
    [
        ("final", "none", 0.6, "at the end of training"),
        ("best", "lower", 0.2, "best over training, chosen on this metric itself"),
        ("best", "higher", 0.9, "best over training, chosen on this metric itself"),
        (50, "none", 0.2, "at step 50"),
        ({"mean_over": [50, 100]}, "none", 0.4, "mean over steps 50 to 100"),
    ],
)
def test_at_chooses_the_evaluation_and_says_so(at, better: str, value: float, label: str) -> None:
    data = table([run({"direction": d}, 1, CURVE) for d in ("forward", "backward")])
    (result,) = compare([contrast(at=at, better=better)], data)
    assert result["points"][0]["value"] == pytest.approx(value)
    assert result["at_label"] == label
    assert any("optimistic" in note for note in result["notes"]) == (at == "best")
    assert arms(data, "loss.val", contrast(at=at, better=better).at, better)[0]["mean"] == pytest.approx(
        value
    )


def test_a_step_or_window_that_is_complete_counts_in_an_unfinished_run() -> None:
    unfinished = run({"direction": "forward"}, 1, CURVE[:2], state="running")
    data = table([unfinished, run({"direction": "backward"}, 1, CURVE)])
    final, step, window, late = compare(
        [
            contrast(),
            contrast(at=50),
            contrast(at={"mean_over": [0, 50]}),
            contrast(at={"mean_over": [0, 100]}),
        ],
        data,
    )
    assert [r["n"]["from"] for r in (final, step, window, late)] == [0, 1, 1, 0]


def test_a_run_whose_last_evaluation_is_early_is_noted() -> None:
    data = table(
        [run({"direction": "forward"}, 1, 0.5, step=120), run({"direction": "backward"}, 1, CURVE[:2])]
    )
    (result,) = compare([contrast()], data)
    assert "direction=forward/seed=1: last evaluated at step 100, the run ended at 120." in result["notes"]
    assert "Final values are from different steps (50 to 100)." in result["notes"]


def test_open_axes_give_one_contrast_per_combination() -> None:
    runs = [
        run({"direction": d, "family": f}, s, v + (f == "gru"))
        for f in ("gpt", "gru", "lstm")
        for d, vs in (("forward", FORWARD), ("backward", BACKWARD))
        for s, v in enumerate(vs, 1)
        if (d, f) != ("backward", "lstm")
    ]
    everywhere = compare([contrast()], table(runs))
    assert [r["where"] for r in everywhere] == [{"family": "gpt"}, {"family": "gru"}, {"family": "lstm"}]
    assert everywhere[0]["estimate"] == pytest.approx(everywhere[1]["estimate"])
    assert everywhere[2]["estimate"] is None
    assert "No run is planned for family=lstm, direction=backward." in everywhere[2]["notes"]
    (one,) = compare([contrast(where={"family": "gru"})], table(runs))
    assert one["arms"]["from"]["mean"] == pytest.approx(sum(FORWARD) / 5 + 1)


def test_a_stage_that_never_measures_the_metric_is_no_combination() -> None:
    runs = [
        run({"direction": d, "stage": "base"}, s, 0.5 + s) for d in ("forward", "backward") for s in (1, 2)
    ]
    runs += [run({"direction": d, "stage": "tune"}, 1, 0.1, metric="tune.x") for d in ("forward", "backward")]
    assert [r["where"] for r in compare([contrast()], table(runs))] == [{"stage": "base"}]
    assert [arm["levels"]["stage"] for arm in arms(table(runs), "tune.x")] == ["tune", "tune"]


def test_two_runs_of_one_seed_are_one_observation() -> None:
    runs = [*two_arms().runs, run({"direction": "forward"}, 1, 0.41)]
    (result,) = compare([contrast()], table(runs))
    assert result["n"]["from"] == 5
    assert result["points"][0]["value"] == pytest.approx((FORWARD[0] + 0.41) / 2)
    assert any(note.startswith("Seed 1 has 2 runs") for note in result["notes"])


def test_p_values_are_corrected_together() -> None:
    runs = [
        run({"direction": d, "family": f}, s, v / 10 + (0.25 if d == "backward" else 0) * shift)
        for f, shift in (("gpt", 1), ("gru", 0.5), ("lstm", 0))
        for d in ("forward", "backward")
        for s, v in enumerate([3, 5, 4, 6, 2, 7, 4.5], 1)
    ]
    results = compare([contrast()], table(runs))
    p = [r["p"] for r in results]
    assert p[0] < p[1] < p[2]
    assert [r["p_adjusted"] for r in results] == pytest.approx(
        [min(1, 3 * p[0]), min(1, max(3 * p[0], 2 * p[1])), 1.0]
    )
    assert results[0]["correction"] == "Holm over 3 tests"
    assert compare([contrast()], table(runs), "bh")[0]["correction"] == "Benjamini-Hochberg over 3 tests"


def test_results_are_equal_when_computed_twice() -> None:
    data = two_arms([*FORWARD, 0.5, 0.6], [*BACKWARD, 0.9, 0.7])
    assert dumps(compare([contrast()], data)) == dumps(compare([contrast()], data))


def test_notes_state_what_the_interval_is_about() -> None:
    same, redrawn = compare([contrast(), contrast(redrawn=True)], two_arms())
    assert "All seeds share the training data: the interval covers training, not new data." in same["notes"]
    assert (
        "Training data are redrawn for every seed: the interval covers data and training." in redrawn["notes"]
    )
    assert any("not stated" in note for note in same["notes"])


def test_arms_summarise_every_planned_combination() -> None:
    runs = two_arms().runs
    runs[0].state = "failed"
    first, second = arms(table(runs), "loss.val")
    assert first["levels"] == {"direction": "forward"}
    assert (first["n"], first["planned"], second["n"]) == (4, 5, 5)
    assert first["missing"][0]["run"] == "direction=forward/seed=1"
    assert second["mean"] == pytest.approx(sum(BACKWARD) / 5)


def test_unknown_axes_and_levels_are_refused_with_what_is_known() -> None:
    axes = {"direction": ["forward", "backward"], "layers": [2, 4]}
    check([contrast(), contrast(axis="layers", **{"from": 2, "to": "4"})], axes)
    with pytest.raises(UserError, match="no axis 'direktion'; axes of this study: direction, layers"):
        check([contrast(axis="direktion")], axes)
    with pytest.raises(UserError, match="no level 'sideways'; levels: forward, backward"):
        check([contrast(to="sideways")], axes)
    with pytest.raises(UserError, match="no level '8'; levels: 2, 4"):
        check([contrast(where={"layers": 8})], axes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "forward"}, "same level"),
        ({"at": "best"}, "needs `better"),
        ({"at": "last"}, "expected final, best, a step"),
        ({"at": {"mean_over": [9, 3]}}, "is after"),
        ({"paired": True}, "needs `pairing`"),
        ({"where": {"direction": "forward"}}, "the axis that is compared"),
        ({"unit": "item"}, "seed"),
        ({"confidence": 1.0}, "less than 1"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_contrasts_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        contrast(**changes)


def test_configs_survive_being_written_out() -> None:
    made = contrast(at={"mean_over": [1, 2]}, where={"deep": True, "layers": 4}, **{"as": "ratio"})
    assert made.where == {"deep": "true", "layers": "4"}
    plain = resolved(made)
    assert (plain["from"], plain["as"]) == ("forward", "ratio")
    assert validate(Contrast, Source(json.loads(json.dumps(plain)))) == made
    report = ReportConfig(
        levels={"layers": {4: "four"}}, reference=[{"metric": "a", "value": 0.5, "label": "chance"}]
    )
    assert report.levels == {"layers": {"4": "four"}}
    assert validate(ReportConfig, Source(resolved(report))) == report
