"""Sentences and verdicts: they claim what the statistics allow and no more."""

from __future__ import annotations

from typing import Any

import pytest

from lexarium.reports.words import Words, duration, interval, number, p_value, percent, verdict
from lexarium.studies.compare import ReportConfig

AXES = {"data": ["plain", "rich"], "family": ["gpt", "gru"]}
REPORT = ReportConfig(
    labels={"ood": "OOD accuracy", "family": "model"},
    levels={"data": {"plain": "plain data", "rich": "rich data"}},
)
WORDS = Words(REPORT, AXES)


def result(**changes: Any) -> dict[str, Any]:
    """A contrast's result, as `compare` gives it."""
    base: dict[str, Any] = {
        "metric": "ood",
        "axis": "data",
        "from": "plain",
        "to": "rich",
        "as": "difference",
        "at": "final",
        "at_label": "at the end of training",
        "where": {},
        "confidence": 0.95,
        "expect": None,
        "estimate": 0.21,
        "interval": (0.05, 0.37),
        "p": None,
        "p_adjusted": None,
        "n": {"from": 5, "to": 5, "pairs": None, "total": 10},
        "arms": {"from": {"mean": 0.6}, "to": {"mean": 0.81}},
        "noise_floor": None,
        "windows": None,
        "seed_interval": None,
        "grows": None,
        "refused": None,
        "notes": [],
    }
    return {**base, **changes}


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def test_five_seeds_state_the_interval_and_that_there_is_no_test() -> None:
    assert plain(WORDS.sentence(result())) == (
        "OOD accuracy: 0.210 higher with rich data (0.810) than with plain data (0.600), "
        "95% interval [0.050, 0.370], from 5 + 5 seeds; too few seeds for a permutation test."
    )


def test_an_interval_with_no_difference_inside_is_no_clear_difference() -> None:
    unclear = result(estimate=-0.02, interval=(-0.1, 0.06))
    assert verdict(unclear) == "undecided"
    assert plain(WORDS.sentence(unclear)).startswith(
        "No clear difference in OOD accuracy: 0.020 lower with rich data (0.810) than with plain data (0.600),"
    )


def test_best_over_training_says_so_in_the_sentence() -> None:
    best = result(at="best", at_label="best over training, chosen on this metric itself")
    assert "OOD accuracy (best over training, chosen on this metric itself): 0.210 higher" in WORDS.sentence(
        best
    )


def test_other_axes_stand_with_the_metric_and_forms_have_their_words() -> None:
    relative = result(**{"as": "relative"}, estimate=-0.032, interval=(-0.05, -0.01), where={"family": "gru"})
    text = plain(WORDS.sentence(relative))
    assert text.startswith("OOD accuracy (model gru): 3.2% lower with rich data")
    assert "[-5%, -1%]" in text
    ratio = result(**{"as": "ratio"}, estimate=1.32, interval=(1.1, 1.6))
    assert "OOD accuracy: 1.320 times as high with rich data (0.810) as with plain data" in WORDS.sentence(
        ratio
    )


def test_corrected_p_pairs_and_missing_intervals_are_named() -> None:
    tested = result(p=0.01, p_adjusted=0.03, n={"from": 8, "to": 8, "pairs": 8, "total": 16})
    assert "from 8 pairs of seeds; permutation p = 0.03 (corrected)." in plain(WORDS.sentence(tested))
    tiny = result(p=1e-5, p_adjusted=1e-5)
    assert "permutation p < 0.0001." in plain(WORDS.sentence(tiny))
    assert WORDS.sentence(result(interval=None)).endswith("seeds; no interval can be given.")


def test_no_estimate_is_no_answer_with_the_reason() -> None:
    nothing = result(estimate=None, interval=None, notes=["No value in one of the arms: nothing to compare."])
    assert verdict(nothing) == "none"
    assert WORDS.sentence(nothing) == (
        "OOD accuracy: no answer yet. No value in one of the arms: nothing to compare."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "difference"),
        ({"expect": "higher"}, "supported"),
        ({"expect": "lower"}, "contradicted"),
        ({"expect": "higher", "interval": (-0.01, 0.4)}, "undecided"),
        ({"expect": "higher", "interval": None}, "estimate"),
        ({"expect": "higher", "p": 0.01, "p_adjusted": 0.06}, "undecided"),
        ({"expect": "higher", "p": 0.01, "p_adjusted": 0.05}, "supported"),
        ({"expect": "higher", "interval": None, "p": 0.002, "p_adjusted": 0.002}, "supported"),
        ({"expect": "higher", "as": "ratio", "estimate": 1.2, "interval": (1.1, 1.3)}, "supported"),
        ({"expect": "higher", "as": "ratio", "estimate": 0.8, "interval": (0.7, 0.9)}, "contradicted"),
        ({"as": "ratio", "estimate": 1.1, "interval": (0.9, 1.3)}, "undecided"),
    ],
)
def test_verdicts(changes: dict, expected: str) -> None:
    assert verdict(result(**changes)) == expected


def test_expectation_is_stated_only_when_there_is_one() -> None:
    assert WORDS.expectation(result()) == ""
    assert WORDS.expectation(result(expect="lower")) == (
        "Predicted by the claim: lower with rich data than with plain data."
    )


def test_levels_with_one_label_stay_apart() -> None:
    words = Words(ReportConfig(levels={"data": {"plain": "same", "rich": "same"}}), AXES)
    assert words.level("data", "plain") == "same (plain)"
    assert words.level("data", "rich") == "same (rich)"


def test_numbers() -> None:
    shown = [number(v) for v in (None, 0, 0.5, -0.25, 12.345, 123.456, 12345.6, 0.00001)]
    assert [plain(v) for v in shown] == ["–", "0", "0.500", "-0.250", "12.35", "123.5", "12,346", "1.0e-05"]
    assert number(0.5, signed=True) == "+0.500"
    assert [percent(v) for v in (0.5, 0.333, 1.0, None)] == ["50%", "33.3%", "100%", "–"]
    assert [p_value(v) for v in (0.5, 0.0123, 0.00001, None)] == ["0.50", "0.012", "<0.0001", "–"]
    assert plain(interval((1, 2))) == "[1.000, 2.000]"
    assert [duration(v) for v in (12, 200, 3900, None)] == ["12.0 s", "3 min 20 s", "1 h 05 min", "–"]


def test_gaps_have_two_digits_and_stand_beside_the_noise() -> None:
    gap = result(**{"as": "relative"}, estimate=0.0265, interval=(0.0201, 0.0333), noise_floor=0.0042)
    text = plain(WORDS.sentence(gap))
    assert "2.65% higher with rich data" in text and "[2.01%, 3.3%]" in text
    assert text.endswith("; two seeds of one arm differ by 0.42% on average.")
    symmetric = result(**{"as": "symmetric"}, estimate=-0.0007, interval=None)
    assert "0.07% of their mean lower with rich data" in plain(WORDS.sentence(symmetric))


WINDOWS = {"windows": 412, "blocks": 35, "blocks_of": "documents"}


def windows(**changes: Any) -> dict[str, Any]:
    """A comparison of windows whose both intervals exclude no difference."""
    base = {"windows": WINDOWS, "as": "relative", "estimate": 0.02, "interval": (0.015, 0.025)}
    return result(**{**base, "seed_interval": (0.005, 0.035), "noise_floor": 0.004, **changes})


def test_windows_are_counted_and_both_intervals_are_told() -> None:
    text = plain(WORDS.sentence(windows()))
    assert (
        "95% interval [1.50%, 2.50%] over the text, from 412 windows of 35 documents (5 + 5 seeds, averaged); interval"
        " over seeds [0.50%, 3.5%]; two seeds of one arm differ by 0.40% on average." in text
    )
    assert "permutation" not in text
    one = plain(WORDS.sentence(windows(seed_interval=None)))
    assert "; no interval over seeds; two seeds" in one
    none = plain(WORDS.sentence(windows(interval=None, seed_interval=None)))
    assert "averaged); no interval over the text can be given; no interval over seeds" in none


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("documents", "35 documents"),
        ("stretches of text", "35 stretches of text"),
        ("stretches of 7 windows", "35 stretches of text (7 windows each)"),
    ],
)
def test_what_windows_are_drawn_with_is_named(of: str, expected: str) -> None:
    assert f"412 windows of {expected} (5 + 5" in WORDS.sentence(
        windows(windows={**WINDOWS, "blocks_of": of})
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "difference"),
        ({"expect": "higher"}, "supported"),
        ({"expect": "lower"}, "contradicted"),
        ({"seed_interval": (-0.001, 0.041)}, "undecided"),
        ({"interval": (-0.001, 0.04)}, "undecided"),
        ({"seed_interval": (-0.03, -0.01)}, "undecided"),
        ({"seed_interval": None}, "estimate"),
        ({"interval": None}, "estimate"),
        ({"noise_floor": 0.5}, "difference"),
        ({"noise_floor": None}, "difference"),
        ({"expect": "none", "within": 0.04}, "supported"),
        ({"expect": "none", "within": 0.03}, "undecided"),
        ({"expect": "none", "within": 0.004}, "contradicted"),
        ({"expect": "none", "within": 0.004, "seed_interval": None}, "estimate"),
    ],
)
def test_windows_are_decided_only_by_other_text_and_other_training(changes: dict, expected: str) -> None:
    assert verdict(windows(**changes)) == expected


def test_a_gap_that_grows_is_told_in_percentage_points() -> None:
    grown = result(
        **{"as": "relative"},
        grows={"axis": "context", "from": "16", "to": "128"},
        expect="higher",
        estimate=0.0252,
        interval=(0.0105, 0.0399),
        n={"from": 3, "to": 3, "pairs": 3, "total": 6},
        arms={"from": {"mean": 0.004}, "to": {"mean": 0.0292}},
    )
    assert plain(WORDS.sentence(grown)) == (
        "OOD accuracy: the gap plain data \u2192 rich data is 2.52 percentage points larger with context 128 (+2.92%) than"
        " with context 16 (+0.40%), 95% interval [1.05 pp, 4.0 pp], from 3 seeds, both numbers from each; too few seeds"
        " for a permutation test."
    )
    assert verdict(grown) == "supported"
    assert WORDS.expectation(grown) == "Predicted by the claim: a larger gap with context 128 than with 16."
    unclear = WORDS.sentence({**grown, "estimate": -0.0252, "interval": (-0.06, 0.01)})
    assert unclear.startswith("No clear change in OOD accuracy") and "points smaller with" in unclear
    assert WORDS.comparison(grown).endswith(", context 16 \u2192 128")


def test_a_refusal_names_its_reason() -> None:
    refused = result(estimate=None, interval=None, refused="the arms differ in their data: corpus (a; b).")
    assert verdict(refused) == "refused"
    assert WORDS.sentence(refused).endswith(
        "OOD accuracy: not compared. The arms differ in their data: corpus (a; b)."
    )


@pytest.mark.parametrize(
    ("interval_", "expected"),
    [
        ((-0.02, 0.04), "supported"),
        ((-0.02, 0.06), "undecided"),
        ((0.051, 0.2), "contradicted"),
        (None, "estimate"),
    ],
)
def test_no_difference_is_claimed_only_where_the_whole_interval_is_small(
    interval_: Any, expected: str
) -> None:
    found = result(expect="none", within=0.05, estimate=0.01, interval=interval_)
    assert verdict(found) == expected
    assert plain(WORDS.expectation(found)) == (
        "Predicted by the claim: no difference larger than 0.050 between rich data and plain data."
    )
    ratio = {
        "as": "ratio",
        "interval": None if interval_ is None else tuple(1 + x for x in interval_),
        "estimate": 1.01,
    }
    assert verdict({**found, **ratio}) == expected
