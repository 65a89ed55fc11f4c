"""CSV: what Python's own reader reads, for any window size, compressed or not; what is no CSV is refused with its line."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexarium.corpora import reading
from lexarium.corpora.text_files import TextFiles
from lexarium.corpora.utterances import Utterances
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import Document, UserError

CELL = st.text(st.sampled_from(list('ab é日",\n\r\t')), max_size=12)
ROWS = st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12)


def corpus(path: Path, **options: Any) -> TextFiles:
    given = {"type": "text_files", "path": str(path), "split": {"val": 0}, **options}
    return TextFiles(validate(TextFiles.Config, Source(given)))


def read(found: TextFiles | Utterances) -> list[Document]:
    return [document for part in found.parts() for _, document in found.read(part, {})]


def as_csv(rows: list[tuple[str, ...]], everything: bool, ending: str) -> str:
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    csv.writer(out, quoting=quoting, lineterminator=ending).writerows([("id", "text", "said, by"), *rows])
    return out.getvalue()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    everything=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
    window=st.sampled_from([1, 7, 32, 1 << 20]),
)
def test_rows_are_those_of_pythons_reader(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, ...]],
    everything: bool,
    ending: str,
    window: int,
) -> None:
    if not everything:  # Python's writer leaves these without quotes, and its reader takes them for line ends
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    content = as_csv(rows, everything, ending)
    other = [tuple(row) for row in csv.reader(io.StringIO(content, newline=""), strict=True)][1:]
    monkeypatch.setattr(reading, "WINDOW", window)
    monkeypatch.setattr(reading, "PEEK", 3)
    found = {}
    for name, data in (
        ("a.csv", content.encode()),
        ("a.csv.gz", gzip.compress(content.encode())),
        ("a.csv.zst", zstandard.compress(content.encode())),
    ):
        (tmp_path / name).write_bytes(data)
        documents = read(corpus(tmp_path / name, fields=["id", "said, by"]))
        found[name] = [(d.fields["id"], d.text, d.fields["said, by"], d.fields["place"]) for d in documents]
    assert [row[:3] for row in found["a.csv"]] == [row for row in other if row[1]]
    assert found["a.csv"] == found["a.csv.gz"] == found["a.csv.zst"]
    if found["a.csv"]:  # windows of a byte: every row's place is the byte it begins at
        places = [content.encode()[place:].decode() for *_, place in found["a.csv"]]
        again = [next(csv.reader(io.StringIO(rest, newline=""))) for rest in places]
        assert [tuple(row) for row in again] == [row[:3] for row in found["a.csv"]]


def test_a_table_of_childes_as_csv(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "id,is_child,target_child_age,phonemized_utterance,gloss\n"
        '1,False,24.5,w ʌ t WORD_BOUNDARY,"what, ""that""\n?"\n'
        "2,True,24.5,b WORD_BOUNDARY,b\n"
        '3,False,,"c WORD_BOUNDARY",c\n'
    )
    options = {"column": "phonemized_utterance", "max_age": 120, "children": "drop", "split": {"val": 0}}
    given = {"type": "utterances", "path": str(tmp_path / "c.csv"), **options}
    (found,) = read(Utterances(validate(Utterances.Config, Source(given))))
    assert found.text == "w ʌ t"


BAD = [
    ('text,b\nx,y\n5" pipe,z\n', r"\(line 3\): field 1 holds a quote and does not begin with one \('5\"'\)"),
    ('text,b\nx,"y" z\n', r"\(line 2\): field 2 goes on behind its closing quote \(' z'\)"),
    ('text,b\nx,"y\nz,1\n', r"\(line 2\): field 2 has a quote that is never closed"),
    ("text,b\nx,y\nx\n", r"byte 11 \(line 3\): 1 columns, expected 2"),
    ('text,b\n"x\n2",y\nx,y,z\n', r"\(line 4\): 3 columns, expected 2"),
    ("txt,b\nx,y\n", r"\(line 2\): no 'text'; did you mean 'txt'\? \(there are: txt, b\)"),
    ('text,"text"\nx,y\n', r"a.csv: two columns are named 'text'; rename one"),
    ('"text,b\nx,y\n', r"a.csv: the header: field 1 has a quote that is never closed"),
    ("text,b\nx\rx,y\n", r"\(line 2\): field 1 holds a carriage return outside quotes"),
    ("text;b\nx;y\n", r"a.csv: the header has ';' between its columns, a CSV has commas; write it"),
    ("text\tb\nx\ty\n", r"the header has '\\t' between its columns, .* say corpus.format: tsv"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[m[:30] for _, m in BAD])
@pytest.mark.parametrize("window", [4, 1 << 20])
def test_what_is_no_csv_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str, window: int
) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    monkeypatch.setattr(reading, "WINDOW", window)
    with pytest.raises(UserError, match=message):
        read(corpus(tmp_path / "a.csv"))


def test_a_missing_quote_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.corpora import tables

    monkeypatch.setattr(reading, "WINDOW", 64)
    monkeypatch.setattr(reading, "PEEK", 16)
    monkeypatch.setattr(tables, "LONGEST_ROW", 128)
    content = b'text,b\nx,"y\n' + b"x,y\n" * 500
    for name, data in (("a.csv", content), ("a.csv.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            UserError, match=r"no row ends for 128 bytes after byte 64.*is a quote missing before it"
        ):
            read(corpus(tmp_path / name))


def test_columns_of_a_csv_without_header_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"x",one\n\ny,"two, three"\n')
    found = read(corpus(tmp_path / "a.csv", text=1, fields="0"))
    assert [(d.fields["0"], d.text) for d in found] == [("x", "one"), ("y", "two, three")]


def test_tabs_and_quotes_of_a_tsv_mean_what_they_did(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tb\n"x, y\t""\n')
    (found,) = read(corpus(tmp_path / "a.tsv", fields="b"))
    assert (found.text, found.fields["b"]) == ('"x, y', '""')
    (tmp_path / "a.dat").write_text('text,b\n"x, y",1\n')
    assert [d.text for d in read(corpus(tmp_path / "a.dat", format="csv"))] == ["x, y"]
