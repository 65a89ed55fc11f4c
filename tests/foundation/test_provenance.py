"""Provenance says where a result comes from and takes no secret along."""

from __future__ import annotations

import json

import pytest

from lexarium.foundation import provenance
from lexarium.foundation.types import UserError


def test_only_listed_variables_of_the_environment_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tell-nobody-1")
    monkeypatch.setenv("HF_TOKEN", "tell-nobody-2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = provenance.collect()
    assert found["environment"]["OMP_NUM_THREADS"] == "1"
    assert set(found["environment"]) <= set(provenance.ENVIRONMENT)
    assert "tell-nobody" not in json.dumps(found)


def test_what_is_needed_to_repeat_a_run_is_recorded() -> None:
    found = provenance.collect()
    assert {"time", "command", "python", "packages", "hardware"} <= set(found)
    assert {"torch", "numpy", "lexarium"} <= set(found["packages"])
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["processor"]


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"a": {"api_key": "x"}}, "a.api_key"),
        ({"a": [{"Password": "x"}]}, "a.0.Password"),
        ({"corpus": {"files": {"my_secret_file": "x"}}}, "corpus.files.my_secret_file"),
    ],
)
def test_fields_that_look_like_secrets_are_refused(data: dict, place: str) -> None:
    with pytest.raises(UserError, match=rf"{place}: looks like a secret; .*keep it out"):
        provenance.refuse_secrets(data)


def test_ordinary_fields_are_not() -> None:
    provenance.refuse_secrets(
        {"tokenizer": {"type": "word"}, "tokens": 3, "author": "x", "keys": [{"key": 1}]}
    )
