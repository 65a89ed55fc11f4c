"""Two metrics of the same runs, compared seed by seed: by scipy, at another step, in words, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from scipy import stats

from lexarium.reports.words import Words, verdict
from lexarium.studies.compare import Contrast, ReportConfig, Table, compare
from lexarium.studies.results import RunRow

F, BASE = "segmentation.val.boundary.peak.boundary.f", "baselines.val.ngram.boundary.f"
BEFORE, AFTER, COUNTED = [0.31, 0.35, 0.28, 0.40], [0.71, 0.75, 0.66, 0.69], [0.60, 0.66, 0.58, 0.55]


def study(leave_out: int | None = None) -> Table:
    runs = []
    for family, worse in (("gru", 0.1), ("gpt", 0.0)):
        for seed, (a, b, c) in enumerate(zip(BEFORE, AFTER, COUNTED, strict=True), 1):
            curves = {F: [(0, a), (50, b - worse)], BASE: [(50, c)]}
            if seed == leave_out:
                del curves[BASE]
            runs.append(
                RunRow(f"{family}-{seed}", "d", {"family": family}, seed, "done", 50, 50, "", {}, curves)
            )
    return Table("s", {"family": ["gru", "gpt"]}, runs)


def contrast(**changes: Any) -> Contrast:
    return Contrast.model_validate({"metric": F, "against": BASE, **changes})


def test_a_baseline_is_compared_seed_by_seed_in_every_arm() -> None:
    gru, gpt = compare([contrast()], study())
    assert (gru["where"], gpt["where"]) == ({"family": "gru"}, {"family": "gpt"})
    wanted = stats.ttest_rel(AFTER, COUNTED)
    assert gpt["estimate"] == pytest.approx(sum(AFTER) / 4 - sum(COUNTED) / 4)
    assert gpt["interval"] == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert (gpt["n"]["pairs"], gpt["paired"], gpt["refused"]) == (4, True, None)
    assert gru["estimate"] == pytest.approx(gpt["estimate"] - 0.1)


def test_a_metric_is_compared_with_itself_before_training() -> None:
    (found,) = compare([contrast(against=f"{F} @ 0", where={"family": "gpt"})], study())
    assert found["estimate"] == pytest.approx(sum(AFTER) / 4 - sum(BEFORE) / 4)
    assert {p["step"] for p in found["points"] if p["arm"] == "from"} == {0}


def test_a_seed_without_the_other_number_is_named() -> None:
    (found,) = compare([contrast(where={"family": "gpt"})], study(leave_out=2))
    assert found["n"]["pairs"] == 3
    assert any("Seeds without a partner" in note and "2" in note for note in found["notes"])
    assert {m["metric"] for m in found["missing"]} == {BASE}


def test_it_is_told_in_words() -> None:
    report = ReportConfig(labels={F: "boundary F", BASE: "the n-gram counter"})
    words = Words(report, study().axes)
    first, second = (
        compare([contrast(against=other, where={"family": "gpt"}, expect="higher")], study())[0]
        for other in (BASE, f"{F} @ 0")
    )
    assert verdict(first) == verdict(second) == "supported"
    told = words.sentence(first)
    assert told.startswith("Boundary F (family gpt): 0.703, 0.105 higher than the n-gram counter (0.597)")
    assert "from 4 seeds, both numbers from each" in told
    assert "higher than boundary F at step 0 (0.335)" in words.sentence(second)
    assert words.expectation(second) == "Predicted by the claim: higher than boundary F at step 0."
    assert words.comparison(first) == "the n-gram counter → boundary F"


def test_it_comes_back_from_the_index() -> None:
    one = contrast()
    assert Contrast.model_validate(one.model_dump(mode="json", by_alias=True)) == one


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"axis": "family"}, "leave `axis` out"),
        ({"paired": False}, "leave `paired` out"),
        ({"unit": "block"}, "no `unit: block`"),
        ({"against": f"{F} @ end"}, "expected METRIC, METRIC @ STEP or"),
        ({"against": F}, "the same level"),
    ],
)
def test_what_has_no_meaning_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        contrast(**changes)


def test_a_number_at_the_end_beside_one_at_a_chosen_step() -> None:
    """A baseline is measured once; `@ final` reads it there, whichever step another metric chooses."""
    table = study()
    for run in table.runs:
        run.curves["loss.val"] = [(0, 1.0), (50, 2.0)]
    asked = {"at": {"best_of": "loss.val"}, "where": {"family": "gpt"}}
    (found,) = compare([contrast(against=f"{BASE} @ final", **asked)], table)
    assert found["estimate"] == pytest.approx(sum(BEFORE) / 4 - sum(COUNTED) / 4) and found["n"]["pairs"] == 4
    (lost,) = compare([contrast(**asked)], table)
    assert lost["estimate"] is None
    words = Words(ReportConfig(labels={BASE: "the n-gram counter"}), {})
    assert words.level("measure", f"{BASE} @ final") == "the n-gram counter at the end of training"
