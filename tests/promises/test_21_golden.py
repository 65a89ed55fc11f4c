"""Promise 21: published behaviour. The first 20 losses of every model and objective equal the golden values.

`make golden` regenerates them and shows the difference.
"""

from __future__ import annotations

import pytest
from tests.builders import tiny_config
from tests.golden import ARMS, HERE, STEPS, measure, stored
from tests.golden.__main__ import difference

from lexarium.foundation import registry
from lexarium.foundation.types import Incompatible
from lexarium.studies.run_config import check


@pytest.mark.parametrize("arm", ARMS)
def test_golden_losses(arm: str) -> None:
    expected, found = stored(arm), measure(arm)
    assert expected is not None, "no golden values: run `make golden`"
    assert found["parameters"] == expected["parameters"]
    assert found["tokens"] == expected["tokens"]
    assert len(found["losses"]) == STEPS
    for name in ("losses", "grad_norms"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9), difference(found, expected)


def test_every_legal_model_and_objective_has_golden_values() -> None:
    covered = {
        (c.model.type, c.objective.type) for c in (tiny_config(**options) for options in ARMS.values())
    }
    legal = set()
    for model in registry.names("model"):
        for objective in registry.names("objective"):
            config = tiny_config(model={"type": model}, objective={"type": objective}, evaluations=[])
            try:
                check(config)
            except Incompatible:
                continue
            legal.add((model, objective))
    assert covered == legal
    directions = {tiny_config(**options).direction.type for options in ARMS.values()}
    assert directions == set(registry.names("direction"))
    packings = {tiny_config(**options).packing.type for options in ARMS.values()}
    assert packings == set(registry.names("packing"))


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in HERE.glob("*.json")} == set(ARMS)


def test_losses_fall() -> None:
    """Golden values of something that does not learn would be worth little."""
    for arm in ARMS:
        losses = (stored(arm) or {})["losses"]
        assert sum(losses[-5:]) < 0.99 * sum(losses[:5]), arm


def test_the_difference_is_told_in_words() -> None:
    old = {"parameters": 5, "tokens": [1, 1], "losses": [2.0, 1.0]}
    assert difference(old, None) == "new"
    assert difference(old, old).startswith("equal")
    assert (
        difference({**old, "losses": [2.0, 1.5]}, old)
        == "from step 1: 1.000000000 -> 1.500000000; largest 5.0e-01"
    )
    assert "6 parameters" in difference({**old, "parameters": 6}, old)
