"""What was typed becomes what is meant: seeds, levels, runs by name, hash and point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lexarium.cli.target import find_run, parse_levels, parse_seeds
from lexarium.foundation.types import UserError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(None, None), ("3", [1, 2, 3]), ("1,2,7", [1, 2, 7]), ("7,", [7]), ("3-5", [3, 4, 5]), ("0,4", [0, 4])],
)
def test_seeds(text: str | None, seeds: list[int] | None) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-3", "a", "1,1", "1,-2", "5-3", "1-2-3", ","])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_levels() -> None:
    assert parse_levels(["a=x,y", "a=z", "model.type=gru"]) == {"a": ["x", "y", "z"], "model.type": ["gru"]}
    assert parse_levels(None) == {}


def test_find_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["corpus-model-forward-s1-0123456789", "corpus-model-forward-s2-abcdef0123"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("run: {}\n")
    (tmp_path / "studies/s").mkdir(parents=True)
    index = {"study": "s", "runs": [{"name": "a=b/seed=2", "dir": names[1]}]}
    (tmp_path / "studies/s/index.json").write_text(json.dumps(index))
    assert find_run(names[0], tmp_path) == tmp_path / names[0]
    assert find_run(str(tmp_path / names[0]), Path("elsewhere")) == tmp_path / names[0]
    assert find_run("0123456789", tmp_path) == tmp_path / names[0]
    assert find_run("a=b/seed=2", tmp_path) == tmp_path / names[1]
    with pytest.raises(UserError, match="did you mean 'corpus-model-forward-s2-abcdef0123'"):
        find_run("corpus-model-forward-s2-abcdef012", tmp_path)
    with pytest.raises(UserError, match="no such run"):
        find_run("", tmp_path)
