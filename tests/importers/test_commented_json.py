"""JSON with comments: a comment is one outside of strings only, and lines keep their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation.types import UserError
from lexarium.importers.commented_json import parse_json, read_json, without_comments

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
gaps = st.lists(
    st.sampled_from([" ", "\n", '# a, ]} "\n', '// {"a": 1,\n', "/* , ] \n // # */", "\t"]), max_size=3
).map("".join)


def pieces(value: Any, draw: Any, extra: bool) -> str:
    """A value as JSON with gaps between its tokens, and a comma after the last member where `extra`."""
    gap = lambda: draw(gaps)
    comma = "," if extra else ""
    if isinstance(value, dict):
        members = [
            f"{gap()}{json.dumps(k)}{gap()}:{gap()}{pieces(v, draw, extra)}{gap()}" for k, v in value.items()
        ]
        return "{" + ",".join(members) + (comma if members else "") + gap() + "}"
    if isinstance(value, list):
        members = [f"{gap()}{pieces(v, draw, extra)}{gap()}" for v in value]
        return "[" + ",".join(members) + (comma if members else "") + gap() + "]"
    return json.dumps(value, ensure_ascii=False)


@given(value=st.dictionaries(st.text(), values, max_size=4), extra=st.booleans(), data=st.data())
def test_comments_and_commas_change_nothing(value: dict[str, Any], extra: bool, data: st.DataObject) -> None:
    text = data.draw(gaps) + pieces(value, data.draw, extra) + data.draw(gaps)
    assert parse_json(text, "x") == value
    plain = without_comments(text)
    assert len(plain) == len(text) and plain.count("\n") == text.count("\n")


@given(value=st.dictionaries(st.text(), values, max_size=4))
def test_plain_json_is_left_as_it_is(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    assert without_comments(text) == text


def test_what_looks_like_a_comment_in_a_string_is_none() -> None:
    text = r'{"a": "http://x/#y, ]", "b": "/* \" # */", "c\\": 1} # end'
    assert parse_json(text, "x") == {"a": "http://x/#y, ]", "b": '/* " # */', "c\\": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n# two\n"b": x}', r"^f\.json:3: not valid JSON"),
        ('{"a": 1,, "b": 2}', "not valid JSON"),
        ("{,}", "not valid JSON"),
        ("[1, 2]", "expected an object in braces, found list"),
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ('{"a": {"b": 1, "b": 1}}', "key 'b' appears twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": "open\n}', r"f\.json:1: not valid JSON"),
        ('{\n/* "a": 1}', r"f\.json:2: a comment begins"),
        ("", "not valid JSON"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_json(text, "f.json")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1} // with a mark at its beginning')
    assert read_json(file) == {"a": 1}
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8 at byte 7"):
        read_json(file)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a directory"):
        read_json(tmp_path)
