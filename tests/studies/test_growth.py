"""Contrasts of contrasts: the change of a gap along another axis, by hand, by scipy, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lexarium.foundation.types import UserError
from lexarium.reports.words import Words, verdict
from lexarium.studies.compare import Contrast, ReportConfig, compare
from lexarium.studies.results import RunRow, Table

CONTEXTS = ("16", "128")
DIRECTIONS = ("forward", "backward")
METRIC = "window_loss.val"


def loss(direction: str, context: str, seed: int) -> float:
    """A gap of about 0.5 % with context 16 and 2.5 % with 128; seeds differ by more than that."""
    noise = np.random.default_rng([seed, int(context), len(direction)]).normal(0, 0.001)
    gap = {"16": 0.005, "128": 0.025}[context] if direction == "backward" else 0.0
    return (5 - int(context) / 100 + seed / 10) * (1 + gap + noise)


def study(
    seeds: int = 3,
    value: Callable[[str, str, int], float] = loss,
    config: Callable[[str, str], dict[str, Any]] = lambda d, c: {},
    leave_out: tuple[tuple[str, str, int], ...] = (),
    step: Callable[[str, str], int] = lambda d, c: 100,
    more: dict[str, list[str]] | None = None,
) -> Table:
    runs = []
    for other in (more or {"": [""]})["language" if more else ""]:
        for c in CONTEXTS:
            for d in DIRECTIONS:
                for s in range(1, seeds + 1):
                    levels = {"direction": d, "context": c} | ({"language": other} if more else {})
                    name = f"{d}-{c}-{s}{other}"
                    curves = {} if (d, c, s) in leave_out else {METRIC: [(step(d, c), value(d, c, s))]}
                    found = {"direction": {"type": d}, "packing": {"seq_len": int(c)}, **config(d, c)}
                    runs.append(RunRow(name, name, levels, s, "done", step(d, c), 100, "", found, curves))
    axes = {"direction": list(DIRECTIONS), "context": list(CONTEXTS)} | (more or {})
    return Table("arrow-context", axes, runs)


def contrast(**changes: Any) -> Contrast:
    grows = {"axis": "context", "from": "16", "to": "128"}
    fields = {"metric": METRIC, "axis": "direction", "from": "forward", "to": "backward", "grows": grows}
    return Contrast.model_validate({**fields, "as": "relative", **changes})


FORMS: dict[str, Callable[[float, float], float]] = {
    "relative": lambda a, b: b / a - 1,
    "symmetric": lambda a, b: 2 * (b - a) / (a + b),
    "difference": lambda a, b: b - a,
}


def changes_of(form: str, seeds: int) -> np.ndarray:
    """(seeds,) the gap with 128 less the gap with 16, one seed after the other."""
    effect = lambda c, s: FORMS[form](loss("forward", c, s), loss("backward", c, s))
    return np.array([effect("128", s) - effect("16", s) for s in range(1, seeds + 1)])


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("seeds", [3, 7])
def test_the_change_of_the_gap_and_its_interval_by_scipy(form: str, seeds: int) -> None:
    from scipy.stats import permutation_test, ttest_1samp

    (result,) = compare([contrast(**{"as": form})], study(seeds))
    found = changes_of(form, seeds)
    assert result["estimate"] == pytest.approx(found.mean(), abs=1e-14)
    expected = ttest_1samp(found, 0).confidence_interval(0.95)
    assert result["t_interval"] == result["interval"] == pytest.approx((expected.low, expected.high))
    assert result["interval_method"] == "paired t"
    assert result["n"] == {"from": seeds, "to": seeds, "pairs": seeds, "total": 2 * seeds}
    assert result["where"] == {} and result["windows"] is None and result["missing"] == []
    if seeds == 3:
        assert result["p"] is None and any("smallest possible p = 0.25" in n for n in result["notes"])
    else:
        flips = permutation_test((found, 0 * found), lambda x, y, axis: (x - y).mean(axis=axis),
                                 permutation_type="samples", vectorized=True, n_resamples=np.inf)  # fmt: skip
        assert result["p"] == pytest.approx(flips.pvalue)
    gaps = {c: [FORMS[form](loss("forward", c, s), loss("backward", c, s)) for s in range(1, seeds + 1)]
            for c in CONTEXTS}  # fmt: skip
    assert result["arms"]["from"]["mean"] == pytest.approx(np.mean(gaps["16"]))
    assert result["arms"]["to"]["mean"] == pytest.approx(np.mean(gaps["128"]))


def test_what_grows_is_supported_and_what_shrinks_contradicts() -> None:
    up = compare([contrast(expect="higher")], study())[0]
    down = compare(
        [contrast(expect="higher", grows={"axis": "context", "from": "128", "to": "16"})], study()
    )[0]
    assert (verdict(up), verdict(down)) == ("supported", "contradicted")
    assert down["estimate"] == pytest.approx(-up["estimate"])
    assert down["interval"] == pytest.approx((-up["interval"][1], -up["interval"][0]))
    words = Words(ReportConfig(labels={"context": "context"}), {"context": list(CONTEXTS)})
    assert "larger with context 128 (" in words.sentence(up)
    (one,) = compare([contrast(expect="higher")], study(seeds=1))
    assert verdict(one) == "estimate" and one["estimate"] is not None


constants = st.floats(0.1, 9).map(lambda x: round(x, 3))


@given(constants, constants)
def test_a_relative_gap_knows_no_units(low: float, high: float) -> None:
    """Nats or bits, and a harder text at one context: relative gaps, and so their change, stay as they are."""
    scaled = lambda d, c, s: loss(d, c, s) * (low if c == "16" else high)
    (result,) = compare([contrast()], study(value=scaled))
    assert result["estimate"] == pytest.approx(changes_of("relative", 3).mean(), abs=1e-12)


def test_a_seed_counts_when_all_four_cells_have_it() -> None:
    (result,) = compare([contrast()], study(seeds=4, leave_out=(("backward", "16", 2),)))
    kept = changes_of("relative", 4)[[0, 2, 3]]
    assert result["estimate"] == pytest.approx(kept.mean()) and result["n"]["pairs"] == 3
    assert "Seeds without a partner in all four cells are left out: 2." in result["notes"]
    assert [item["run"] for item in result["missing"]] == ["backward-16-2"]
    nothing = tuple(("backward", "16", s) for s in (1, 2, 3))
    (none,) = compare([contrast()], study(leave_out=nothing))
    assert none["estimate"] is None and verdict(none) == "none"


def test_axes_left_open_give_one_result_each() -> None:
    results = compare([contrast()], study(more={"language": ["en", "fr"]}))
    assert [r["where"] for r in results] == [{"language": "en"}, {"language": "fr"}]
    fixed = compare([contrast(where={"language": "fr"})], study(more={"language": ["en", "fr"]}))
    assert [r["where"] for r in fixed] == [{"language": "fr"}] and fixed[0]["n"]["pairs"] == 3


def test_directions_must_be_comparable_at_both_levels() -> None:
    later = lambda d, c: 120 if (d, c) == ("backward", "128") else 100
    (steps,) = compare([contrast()], study(step=later))
    assert steps["estimate"] is None and "two directions at different steps" in steps["refused"]
    other = lambda d, c: {"corpus": {"type": "y"}} if (d, c) == ("backward", "16") else {}
    (data,) = compare([contrast()], study(config=other))
    assert "different data, seed 1: corpus" in data["refused"]
    longer = lambda d, c: 100 if c == "16" else 200
    (levels,) = compare([contrast()], study(step=longer))
    assert levels["refused"] is None, "the levels that are compared may be trained differently"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grows": {"axis": "direction", "from": "a", "to": "b"}}, "`grows` needs another axis"),
        ({"where": {"context": "16"}}, "`grows` needs another axis"),
        ({"grows": {"axis": "context", "from": "16", "to": "16"}}, "are the same level '16'"),
        ({"unit": "block"}, "`grows` compares effects seed by seed"),
        ({"as": "ratio"}, "`grows` compares effects seed by seed"),
        ({"paired": False}, "`grows` pairs by seed"),
    ],
)
def test_what_has_no_meaning_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        contrast(**changes)


def test_unknown_axes_and_levels_are_named() -> None:
    with pytest.raises(UserError, match="no axis 'size'"):
        compare([contrast(grows={"axis": "size", "from": "a", "to": "b"})], study())
    with pytest.raises(UserError, match="axis 'context' has no level '512'"):
        compare([contrast(grows={"axis": "context", "from": 16, "to": 512})], study())
