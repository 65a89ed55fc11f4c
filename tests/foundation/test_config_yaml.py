"""YAML in and out: the scalars of YAML 1.2, the line of every key, errors that name file and line."""

from __future__ import annotations

import json
import math
import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lexarium.foundation.config import (
    ConfigError,
    dotted,
    parse_overrides,
    parse_path,
    parse_yaml,
    read_yaml,
    write_yaml,
)


def scalar(text: str) -> object:
    return parse_yaml(f"x: {text}\n", "t.yaml").data["x"]


SCALARS = {
    # the examples of the YAML 1.2.2 specification, chapter 10.3.2 (core schema)
    "null": None, "NULL": None, "~": None, "": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "0": 0, "7": 7, "0o14": 12, "0x3A": 58, "-19": -19, "+12": 12,
    "0.": 0.0, "-0.0": -0.0, ".5": 0.5, "+12e03": 12000.0, "-2E+05": -200000.0,
    ".inf": math.inf, "-.Inf": -math.inf, "+.INF": math.inf,
    # traps of YAML 1.1
    "1e-4": 1e-4, "1e5": 1e5, "5E-4": 5e-4, "1.e3": 1000.0, "3.": 3.0, "1.5e-3": 1.5e-3,
    "no": "no", "yes": "yes", "on": "on", "off": "off", "y": "y", "n": "n", "No": "No", "ON": "ON", "tRue": "tRue",
    "010": 10, "007": 7, "-010": -10, "1:30": "1:30", "12:30:45": "12:30:45", "1:30.5": "1:30.5",
    "2024-01-01": "2024-01-01", "2001-12-14t21:59:43.10-05:00": "2001-12-14t21:59:43.10-05:00",
    "=": "=", "0b101": "0b101", "0xG": "0xG", "0o8": "0o8", "1e": "1e", "e5": "e5", ".": ".", "-": None, "+": "+", "-.": "-.",
    "._1": "._1", "_1": "_1", "1__": "1__", "1.2.3": "1.2.3", "--1": "--1", "infinity": "infinity", "nan": "nan", "inf": "inf",
    # a convenience beyond 1.2: digits in groups
    "100_000": 100000, "1_000.5": 1000.5,
    # quoting
    "'1e-4'": "1e-4", '"no"': "no", "'007'": "007", '"~"': "~", "!!str 5": "5", "!!float 5": 5.0, "!!int '5'": 5,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(k, v) for k, v in SCALARS.items() if k != "-"], ids=repr)
def test_scalars(text: str, expected: object) -> None:
    found = scalar(text)
    assert (found, type(found)) == (expected, type(expected))


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(scalar(".nan")) and math.isnan(scalar(".NaN"))


@given(st.floats(allow_nan=False) | st.integers())
def test_any_number_in_pythons_spelling(number: float) -> None:
    text = repr(number).replace("inf", ".inf")
    assert scalar(text) == number and type(scalar(text)) is type(number)


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.yaml: empty"),
        ("# nothing\n", "t.yaml: empty"),
        ("a: 1\nb: 2\na: 3\n", "t.yaml:3: key 'a' appears twice"),
        ("a:\n  b: 1\n  b: 1\n", "t.yaml:3: key 'b' appears twice"),
        ("a: 1\n\tb: 2\n", "t.yaml:2: not valid YAML.*\\\\t"),
        ("a: [1, 2\nb: 3\n", "t.yaml:2: not valid YAML"),
        ("a: 1\n b: 2\n", "t.yaml:2: not valid YAML"),
        ("- 1\n- 2\n", "t.yaml: expected a mapping at the top, found list"),
        ("just text\n", "t.yaml: expected a mapping at the top, found str"),
        ("? [1, 2]\n: 3\n", "t.yaml:1: a key must be text"),
        ("1.5: a\n", "t.yaml:1: a key must be text, found 1.5"),
        ("true: a\n", "t.yaml:1: a key must be text, found True"),
        ("~: a\n", "t.yaml:1: a key must be text, found None"),
        ("a: !!python/object:os.system 1\n", "t.yaml:1: not valid YAML"),
        ("a: !mine 1\n", "t.yaml:1: not valid YAML"),
        ("a: !!int x\n", "t.yaml:1: not valid YAML"),
        ("a: !!float x\n", "t.yaml:1: not valid YAML"),
        ("a: !!timestamp x\n", "t.yaml:1: not valid YAML"),
        ("a: *unknown\n", "t.yaml:1: not valid YAML"),
        ("a: &x [*x]\n", "t.yaml:1: .*itself"),
        ("a: 1\n--- \nb: 2\n", "not valid YAML"),
        ("a: 1\nb: '\0'\n", "t.yaml:2: not valid YAML: a character"),
        ("base: &b {x: 1}\nother:\n  <<: *b\n", "t.yaml:3: .*<<"),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_bad_yaml_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "t.yaml")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 at byte 6"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_yaml(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: x\r\n")
    source = read_yaml(tmp_path / "w.yaml")
    assert source.data == {"a": 1, "b": {"c": "x"}}
    assert source.origin(("b", "c")).endswith("w.yaml:3")


# --- origins ----------------------------------------------------------------------------------------


def test_every_value_knows_its_line() -> None:
    source = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n  e: 3\n", "s.yaml")
    places = {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
        ("b", "e"): 6,
    }
    assert {place: source.origin(place) for place in places} == {p: f"s.yaml:{n}" for p, n in places.items()}
    assert source.origin(("b", "c", 7, "deeper")) == "s.yaml:3", (
        "an unknown place has the line of what encloses it"
    )


def test_a_part_keeps_its_lines() -> None:
    source = parse_yaml("a: 1\nb:\n  c: 2\n  d: [5]\n", "s.yaml").sub("b")
    assert source.data == {"c": 2, "d": [5]}
    assert source.origin(("c",)) == "s.yaml:3"
    assert source.origin(()) == "s.yaml:2"


def test_aliases_are_copies() -> None:
    source = parse_yaml("a: &x {k: [1]}\nb: *x\n", "s.yaml")
    assert source.data == {"a": {"k": [1]}, "b": {"k": [1]}}
    source.data["a"]["k"].append(2)
    assert source.data["b"] == {"k": [1]}


# --- round trips ------------------------------------------------------------------------------------

tricky = st.sampled_from(
    [
        *SCALARS,
        "1e-4",
        "a: b",
        "- x",
        "#",
        "'",
        '"',
        " a ",
        "a\nb",
        "\t",
        "|",
        "<<",
        "a #b",
        "é",
        "\u2028",
        "\x85",
    ]
)
texts = tricky | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
keys_ = (
    st.text(string.ascii_letters + "_.", min_size=1, max_size=8) | tricky.filter(bool) | st.integers(-99, 99)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys_, inner, max_size=4),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equal, types included (True is not 1)."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(st.dictionaries(keys_, values, min_size=1, max_size=5))
@example({"a": "1e5", "b": "0o17", "c": "1E-4"})
@example({"1e5": 1, "no": 2, "<<": 3})
@example({"\x85": "\u2028"})
def test_what_is_written_is_read_back_equal(data: dict) -> None:
    text = write_yaml(data)
    assert same(parse_yaml(text, "t.yaml").data, data)
    assert same(yaml.safe_load(text), data), "and equally by readers of YAML 1.1"


# --- overrides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "place", "value"),
    [
        ("train.max_steps=100", ("train", "max_steps"), 100),
        ("evaluations.0.every=5", ("evaluations", 0, "every"), 5),
        ("optimizer.lr=1e-4", ("optimizer", "lr"), 1e-4),
        ("a=", ("a",), None),
        ("a=null", ("a",), None),
        ("a=no", ("a",), "no"),
        ("a=x=y", ("a",), "x=y"),
        ("a=[1, {b: 2}]", ("a",), [1, {"b": 2}]),
        ("view.keep={kind: quest}", ("view", "keep"), {"kind": "quest"}),
        ("a='5'", ("a",), "5"),
        ("a.²=1", ("a", "²"), 1),
    ],
)
def test_overrides(argument: str, place: tuple, value: object) -> None:
    assert parse_overrides([argument]) == {place: value}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["max_steps"], r"override 'max_steps' is not of the form a\.b=value"),
        (["=5"], r"not of the form"),
        (["a..b=5"], r"not of the form"),
        ([".a=5"], r"not of the form"),
        (["a.=5"], r"not of the form"),
        (["a=1", "a=2"], r"override 'a' is given twice"),
        (["a=[1,"], r"override 'a=\[1,': the value is not valid YAML"),
        (["a=!x 1"], r"command line.*not valid YAML"),
        (["a={b: 1, b: 2}"], r"command line.*key 'b' appears twice"),
        (["a=\0"], r"the value is not valid YAML"),
    ],
)
def test_overrides_that_are_none(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_overrides(arguments)


steps = st.text(string.ascii_letters + "_-", min_size=1, max_size=6) | st.integers(0, 99)


@given(
    st.lists(steps, min_size=1, max_size=4),
    values.filter(lambda v: not re.search("Infinity|ud[89ab]", json.dumps(v))),
)
def test_an_override_carries_any_value(place: list, value: object) -> None:
    """JSON is YAML, so whoever quotes as JSON does gets what was meant."""
    found = parse_overrides([f"{dotted(tuple(place))}={json.dumps(value)}"])
    assert list(found) == [tuple(place)]
    assert same(found[tuple(place)], json.loads(json.dumps(value)))


@given(st.text(max_size=20))
def test_any_text_is_an_override_or_a_config_error(text: str) -> None:
    try:
        found = parse_overrides([text])
    except ConfigError:
        return
    assert len(found) == 1 and "=" in text


@given(st.text(max_size=40))
def test_any_text_is_a_mapping_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text, "t.yaml").data, dict)
    except ConfigError as error:
        assert str(error).startswith("t.yaml")


@given(st.lists(steps, min_size=1, max_size=5))
def test_paths_round_trip(place: list) -> None:
    assert parse_path(dotted(tuple(place))) == tuple(place)
