"""Validation, overlays and the two views of a configuration: what was wrong, where, and what names a run."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from lexarium.foundation.config import (
    Config,
    ConfigError,
    Source,
    component,
    dotted,
    identity,
    outside_identity,
    overlay,
    parse_yaml,
    resolved,
    validate,
)
from lexarium.foundation.files import sha256_json


class Inner(Config):
    depth: int = 1
    label: str = "x"
    note: str = outside_identity("")


class Outer(Config):
    size: int = Field(3, gt=0)
    rate: float = 0.5
    names: tuple[str, ...] = ()
    inner: Inner = Inner(depth=5)
    maybe: Inner | None = None
    limit: int | None = 7
    many: tuple[Inner, ...] = ()
    free: dict[str, Any] = {}
    where: str = outside_identity("here")
    direction: component("direction") | None = None  # type: ignore[valid-type]
    models: tuple[component("model"), ...] = ()  # type: ignore[valid-type]


def read(text: str) -> Outer:
    return validate(Outer, parse_yaml(text, "o.yaml"))


# --- validation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("siez: 3", r"o\.yaml:1: siez: unknown key; did you mean 'size'\?"),
        ("zzzzzz: 3", r"o\.yaml:1: zzzzzz: unknown key; known keys: size, rate, names"),
        ("inner:\n  dept: 3", r"o\.yaml:2: inner\.dept: unknown key; did you mean 'depth'\?"),
        ("maybe:\n  dept: 3", r"o\.yaml:2: maybe\.dept: unknown key; did you mean 'depth'\?"),
        ("many:\n- depth: 1\n- dpeth: 3", r"o\.yaml:3: many\.1\.dpeth: unknown key; did you mean 'depth'\?"),
        (
            "models:\n- {type: transformer, n_heds: 3}",
            r"o\.yaml:2: models\.0\.n_heds: unknown key; did you mean 'n_heads'\?",
        ),
        ("size: many", r"o\.yaml:1: size: input should be a valid integer.*found 'many'"),
        ("size: 2.5", r"size: input should be a valid integer.*found 2\.5"),
        ("size: 0", r"size: input should be greater than 0, found 0"),
        ("size: true", r"size: .*found True"),
        ("rate: fast", r"rate: input should be a valid number.*found 'fast'"),
        ("names: one", r"names: .*found 'one'"),
        ("inner: 3", r"inner: .*found 3"),
        (
            "direction: backward",
            r"direction: a direction needs `type: NAME` \(known: backward, both, forward",
        ),
        ("direction: {typ: backward}", r"direction: a direction needs `type: NAME`"),
        (
            "direction: {type: bakward}",
            r"direction\.type: unknown direction 'bakward'; did you mean 'backward'\?",
        ),
        ("direction: {type: backward, speed: 3}", r"direction\.speed: unknown key; known keys: type"),
        (
            "models: [{type: transformer, d_model: 10, n_heads: 3}]",
            r"models\.0: d_model 10 is not a multiple of n_heads 3",
        ),
        ("models: {type: transformer}", r"models: expected a list of models"),
        ("1: 3", r"o\.yaml:1: 1: .*"),
    ],
)
def test_one_line_says_what_where_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("size: -1\nrat: 3\ndirection: {type: sideways}\nmodels:\n- {type: recurrent, cell: x}\n- 7\n")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "direction.type",
        "models.0.cell",
        "models.1",
        "size",
        "rat",
    ]


def test_a_required_key() -> None:
    class Needs(Config):
        seq_len: int

    with pytest.raises(ConfigError, match=r"o\.yaml:1: seq_len: missing; this key is required"):
        validate(Needs, parse_yaml("{}", "o.yaml"))


def test_the_top_must_be_a_mapping() -> None:
    with pytest.raises(ConfigError, match="top level: expected a mapping, found 3"):
        validate(Outer, Source(3))  # type: ignore[arg-type]


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read("size: 2").size = 3  # type: ignore[misc]


# --- overlay ----------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "type"])
trees = st.recursive(st.integers(0, 9), lambda t: st.dictionaries(names, t, max_size=3), max_leaves=8)
mappings = st.dictionaries(names, trees, max_size=3)


def plain_overlay(data: dict, changes: dict) -> dict:
    """The same by hand: shorter paths first."""
    data = copy.deepcopy(data)
    for place in sorted(changes, key=len):
        node = data
        for step in place[:-1]:
            if node.get(step) is None:
                node[step] = {}
            node = node[step]
            if not isinstance(node, dict):
                raise KeyError(place)
        node[place[-1]] = copy.deepcopy(changes[place])
    return data


@given(mappings, st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), trees, max_size=3))
def test_overlay_sets_paths_and_leaves_the_original_alone(data: dict, changes: dict) -> None:
    before = copy.deepcopy(data)
    try:
        expected = plain_overlay(data, changes)
    except KeyError:
        with pytest.raises(ConfigError):
            overlay(Source(data), changes, "here")
    else:
        found = overlay(Source(data), changes, "here")
        assert found.data == expected
        assert all(found.origin(place) == "here" for place in changes)
    assert data == before


def test_overlay_of_lists_and_origins() -> None:
    source = parse_yaml("a:\n- x: 1\n- x: 2\nb: 3\n", "s.yaml")
    changed = overlay(source, {("a", 1, "x"): 5}, "command line")
    assert changed.data == {"a": [{"x": 1}, {"x": 5}], "b": 3}
    assert changed.origin(("a", 1, "x")) == "command line"
    assert changed.origin(("a", 0, "x")) == "s.yaml:2"
    whole = overlay(source, {("a",): {"y": 1}}, "axis")
    assert whole.origin(("a", "y")) == "axis", "lines of what was replaced are forgotten"


@pytest.mark.parametrize(
    "place", [("a", 2, "x"), ("a", "x"), ("a", 2), ("b", "c"), ("b", 0), ("b", "c", "d")]
)
def test_a_path_that_leads_nowhere(place: tuple) -> None:
    source = parse_yaml("a:\n- x: 1\n- x: 2\nb: text\n", "s.yaml")
    with pytest.raises(ConfigError, match="command line: " + dotted(place)):
        overlay(source, {place: 5}, "command line")


def test_changes_are_copied() -> None:
    value = {"x": [1]}
    found = overlay(Source({}), {("a",): value}, "here")
    found.data["a"]["x"].append(2)
    assert value == {"x": [1]}


# --- the two views ----------------------------------------------------------------------------------


def name_of(config: Config) -> str:
    return sha256_json(identity(config))


def test_what_is_resolved_is_read_back_equal() -> None:
    config = read(
        "size: 9\ndirection: {type: backward}\nmodels: [{type: transformer, preset: gpt2, n_layers: 2}]\nfree: {a: [1]}"
    )
    written = resolved(config)
    assert written["rate"] == 0.5 and written["models"][0]["d_model"] == 768
    assert validate(Outer, Source(json.loads(json.dumps(written)))) == config


def test_defaults_and_what_lies_outside_are_left_out() -> None:
    assert identity(Outer()) == {}
    assert (
        identity(read("size: 3\nrate: 0.5\nwhere: there\ninner: {depth: 5, note: changed}\nnames: []")) == {}
    )
    assert identity(read("size: 4\ninner: {depth: 6}")) == {"size": 4, "inner": {"depth": 6}}


def test_a_component_adds_its_version() -> None:
    assert identity(read("direction: {type: backward}")) == {"direction": {"type": "backward", "version": 1}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("size: 3", "size: 4"),
        ("names: [a]", "names: [b]"),
        ("names: [a, b]", "names: [b, a]"),
        ("inner: {depth: 5}", "inner: {depth: 1}"),
        ("inner: {}", "inner: {depth: 5}"),
        ("maybe: null", "maybe: {}"),
        ("limit: null", "limit: 7"),
        ("limit: null", "limit: 0"),
        ("many: []", "many: [{}]"),
        ("many: [{}]", "many: [{}, {}]"),
        ("free: {}", "free: {a: null}"),
        ("free: {a: null}", "free: {a: 0}"),
        ("free: {a: 1}", "free: {a: '1'}"),
        ("direction: null", "direction: {type: forward}"),
        ("models: [{type: recurrent}]", "models: [{type: recurrent, cell: gru}]"),
        ("models: [{type: recurrent}]", "models: [{type: transformer}]"),
    ],
)
def test_what_differs_has_another_name(one: str, other: str) -> None:
    assert name_of(read(one)) != name_of(read(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{}", "size: 3"),
        ("rate: 1", "rate: 1.0"),
        ("size: 4\nrate: 0.1", "rate: 0.1\nsize: 4"),
        ("free: {a: 1, b: 2}", "free: {b: 2, a: 1}"),
        ("where: x", "where: y"),
        ("inner: {depth: 2, note: a}", "inner: {note: b, depth: 2}"),
        ("maybe: {note: a}", "maybe: {note: b}"),
        ("models: [{type: recurrent}]", "models: [{type: recurrent, cell: lstm, dropout: 0}]"),
        (
            "models: [{type: transformer, preset: gpt2}]",
            "models: [{type: transformer, preset: gpt2, d_model: 768}]",
        ),
    ],
)
def test_what_is_said_otherwise_has_the_same_name(one: str, other: str) -> None:
    assert name_of(read(one)) == name_of(read(other))


def test_an_identity_is_plain_data() -> None:
    found = identity(
        read("names: [a]\nmany: [{depth: 3}]\nmodels: [{type: transformer}]\nfree: {a: {b: [1, 2.5, null]}}")
    )
    assert json.loads(json.dumps(found)) == found
