"""Text files: every byte of a file is read once, whatever its form; splits follow from places; bad input is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexarium.corpora import reading
from lexarium.corpora.text_files import TextFiles
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Document, UserError

LINES = st.lists(
    st.sampled_from(["", "a", "bé", "日本", "  indented", "x" * 50, "\t", "end.\r"]), max_size=60
)


def corpus(**options: Any) -> TextFiles:
    return TextFiles(validate(TextFiles.Config, Source({"type": "text_files", **options})))


def read(found: TextFiles, counts: dict[str, int] | None = None) -> list[tuple[str, Document]]:
    counts = {} if counts is None else counts
    return [pair for part in found.parts() for pair in found.read(part, counts)]


def texts(found: TextFiles) -> list[str]:
    return [document.text for _, document in read(found)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 64 bytes, looking 16 bytes ahead: a small file has many of both."""
    monkeypatch.setattr(reading, "WINDOW", 64)
    monkeypatch.setattr(reading, "PEEK", 16)


def no_limit(**options: Any) -> TextFiles:
    """As `corpus`, with blocks smaller than a user may ask for."""
    config = validate(TextFiles.Config, Source({"type": "text_files", "path": options.pop("path")}))
    return TextFiles(config.model_copy(update=options))


# --- every byte once --------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, ending=st.sampled_from(["", "\n"]), size=st.sampled_from([8, 16, 64]))
def test_blocks_joined_are_the_file(
    tmp_path: Path, small: None, lines: list[str], ending: str, size: int
) -> None:
    data = "\n".join(lines) + ending
    path = tmp_path / "a.txt"
    path.write_bytes(data.encode())
    if not data:
        return
    found = texts(no_limit(path=str(path), block_bytes=size))
    assert "".join(found) == data
    for text in found[:-1]:
        assert text.endswith("\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES, form=st.sampled_from(["block", "line", "blank_line"]), kind=st.sampled_from(["gz", "zst"])
)
def test_a_compressed_file_gives_the_documents_of_the_plain_one(
    tmp_path: Path, small: None, lines: list[str], form: str, kind: str
) -> None:
    data = ("\n".join(["first", *lines]) + "\n").encode()
    plain, packed = tmp_path / "a.txt", tmp_path / "b" / f"a.txt.{kind}"
    packed.parent.mkdir(exist_ok=True)
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data) if kind == "gz" else zstandard.compress(data))
    options = {"documents": form, "block_bytes": 16}
    one, other = (
        [(split, d.text, d.fields["place"]) for split, d in read(no_limit(path=str(p), **options))]
        for p in (plain, packed)
    )
    assert one == other


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES)
def test_lines_and_paragraphs_are_those_of_the_whole_file(
    tmp_path: Path, small: None, lines: list[str]
) -> None:
    """Against the simple way: the whole file in memory."""
    path = tmp_path / "a.txt"
    path.write_bytes(("first\n" + "\n".join(lines)).encode())
    whole = path.read_bytes().decode()
    want = [line.removesuffix("\r") for line in whole.split("\n") if line.strip()]
    assert texts(no_limit(path=str(path), documents="line")) == want
    paragraphs: list[list[str]] = [[]]
    for line in whole.split("\n"):
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    found = [
        [x for x in text.split("\n") if x.strip()]
        for text in texts(no_limit(path=str(path), documents="blank_line"))
    ]
    strip = lambda groups: [[x.rstrip("\r") for x in group] for group in groups if group]
    assert strip(found) == strip(paragraphs)


def test_the_splitting_of_a_file_of_100_gb(tmp_path: Path) -> None:
    """A sparse file of 100 GB, a line end now and then: windows cover it without gap or overlap, from a few reads."""
    path, size = tmp_path / "large.txt", 100 * 10**9
    with path.open("wb") as file:
        file.truncate(size)
        for k in range(1, 2981):
            file.seek(k * reading.WINDOW + (k % 5) * 1000)
            file.write(b"\n")
    (found,) = reading.find_files([str(path)], "text", "corpus.path")
    count = reading.count_windows(found)
    assert count == -(-size // reading.WINDOW) == 2981
    with path.open("rb") as handle:
        for k in (0, 1, 2, 1499, 1500, 2979, 2980):
            start = reading.cut(handle, k * reading.WINDOW, size, reading.LINE, path)
            stop = reading.cut(handle, (k + 1) * reading.WINDOW, size, reading.LINE, path)
            assert start == (k * reading.WINDOW + (k % 5) * 1000 + 1 if k else 0)
            assert stop == (size if k == 2980 else (k + 1) * reading.WINDOW + ((k + 1) % 5) * 1000 + 1)


# --- formats ----------------------------------------------------------------------------------------

ROWS = [{"text": f"text {i}\nsecond line", "author": f"a{i % 7}", "year": 1900 + i} for i in range(300)]


def write_rows(folder: Path) -> dict[str, Path]:
    flat = [{**row, "text": row["text"].replace("\n", " ")} for row in ROWS]
    paths = {form: folder / f"rows.{form}" for form in ("jsonl", "tsv", "parquet")}
    paths["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tsv = ["text\tauthor\tyear", *("\t".join(map(str, row.values())) for row in flat)]
    paths["tsv"].write_text("\n".join(tsv) + "\n")
    pq.write_table(pa.Table.from_pylist(ROWS), paths["parquet"], row_group_size=70)
    return paths


@pytest.mark.parametrize("form", ["jsonl", "tsv", "parquet"])
def test_tables_give_text_and_fields(tmp_path: Path, small: None, form: str) -> None:
    path = write_rows(tmp_path)[form]
    found = read(corpus(path=str(path), fields=["author", "year"]))
    want = [row["text"].replace("\n", " ") if form == "tsv" else row["text"] for row in ROWS]
    assert [d.text for _, d in found] == want
    assert [d.fields["author"] for _, d in found] == [row["author"] for row in ROWS]
    year = [str(row["year"]) if form == "tsv" else row["year"] for row in ROWS]
    assert [d.fields["year"] for _, d in found] == year
    assert {d.fields["file"] for _, d in found} == {path.name}


def test_columns_of_a_table_without_header_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("x\tone\ny\ttwo\n")
    assert texts(corpus(path=str(tmp_path / "a.tsv"), text="1")) == ["one", "two"]


def test_a_folder_and_a_pattern_give_files_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.jsonl", ".hidden.txt", "notes.pdf"):
        (tmp_path / name).write_text('{"text": "of c"}\n' if name.endswith("jsonl") else f"of {name}")
    assert texts(corpus(path=str(tmp_path))) == ["of a.txt", "of b.txt", "of c"]
    assert texts(corpus(path=str(tmp_path / "*.txt"))) == ["of a.txt", "of b.txt"]
    assert texts(corpus(path=[str(tmp_path / "b.txt"), str(tmp_path / "a.txt")])) == ["of b.txt", "of a.txt"]


def test_reversed_text_read_backwards_is_the_text(tmp_path: Path, small: None) -> None:
    data = "".join(f"ligne {i} é\n" for i in range(40))
    path = tmp_path / "a.txt"
    path.write_text(data)
    assert "".join(texts(corpus(path=str(path), reverse="characters")))[::-1] == data


def test_combining_marks_are_composed_before_text_is_reversed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("e\u0301a")
    assert texts(corpus(path=str(tmp_path / "a.txt"), reverse="characters")) == ["a\u00e9"]


# --- splits -----------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i} of the book\n" for i in range(20_000)))
    return path


def test_held_out_blocks_are_spread_evenly(book: Path) -> None:
    found = [
        split for split, _ in read(corpus(path=str(book), block_bytes=1024, split={"val": 0.1, "test": 0.05}))
    ]
    n = len(found)
    assert n > 350
    for name, share in (("val", 0.1), ("test", 0.05)):
        assert abs(found.count(name) - share * n) <= 3
        places = [i for i, split in enumerate(found) if split == name]
        assert max(b - a for a, b in zip(places, places[1:], strict=False)) <= 3 / share
    other = [
        s
        for s, _ in read(
            corpus(path=str(book), block_bytes=1024, split={"val": 0.1, "test": 0.05, "seed": 1})
        )
    ]
    assert other != found


def test_the_end_of_each_file_is_held_out(book: Path) -> None:
    found = [split for split, _ in read(corpus(path=str(book), split={"by": "end", "val": 0.1, "test": 0.1}))]
    assert found == sorted(found, key=["train", "val", "test"].index)
    assert abs(found.count("val") / len(found) - 0.1) < 0.05


def test_documents_of_one_author_stay_together(tmp_path: Path) -> None:
    path = write_rows(tmp_path)["jsonl"]
    found = read(
        corpus(path=str(path), fields=["author"], split={"by": "field", "field": "author", "val": 0.4})
    )
    by_author: dict[str, set[str]] = {}
    for split, document in found:
        by_author.setdefault(str(document.fields["author"]), set()).add(split)
    assert all(len(splits) == 1 for splits in by_author.values())
    assert {"train", "val"} == set.union(*by_author.values())


def test_named_files_are_splits_of_their_own(tmp_path: Path, book: Path) -> None:
    (tmp_path / "other.txt").write_text("another author\n")
    found = corpus(path=str(book), val_path=str(tmp_path / "other.txt"))
    assert found.splits == ("train", "val")
    assert [d.text for split, d in read(found) if split == "val"] == ["another author\n"]
    with pytest.raises(UserError, match=r"corpus.val_path: .*book.txt is also named for train"):
        _ = corpus(path=str(book), val_path=str(book)).files


def test_the_fingerprint_is_of_content_and_roles(tmp_path: Path, book: Path) -> None:
    first = corpus(path=str(book)).fingerprint()
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "book.txt"
    moved.write_bytes(book.read_bytes())
    assert corpus(path=str(moved)).fingerprint() == first
    moved.write_bytes(book.read_bytes().replace(b"line 77 ", b"line 78 "))
    assert corpus(path=str(moved)).fingerprint() != first


# --- what does not belong into text -----------------------------------------------------------------


@pytest.mark.parametrize(("policy", "want"), [("replace", "ab\ufffdc\ufffdd\n"), ("drop", "abcd\n")])
def test_bytes_that_are_no_text_are_mended_and_counted(tmp_path: Path, policy: str, want: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xffc\0d\n")
    counts: dict[str, int] = {}
    ((_, document),) = read(corpus(path=str(tmp_path / "a.txt"), undecodable=policy), counts)
    assert document.text == want and counts == {"undecodable": 1, "nul": 1}


@pytest.mark.parametrize(("policy", "want"), [("newline", "a\nb\nc"), ("keep", "a\u2028b\u2029c")])
def test_separators_of_unicode(tmp_path: Path, policy: str, want: str) -> None:
    (tmp_path / "a.txt").write_text("a\u2028b\u2029c")
    counts: dict[str, int] = {}
    ((_, document),) = read(corpus(path=str(tmp_path / "a.txt"), separators=policy), counts)
    assert document.text == want and counts == ({"separators": 2} if policy == "newline" else {})


def test_a_mark_of_byte_order_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfabc")
    assert texts(corpus(path=str(tmp_path / "a.txt"))) == ["abc"]


BAD: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("a.txt", b"ok\nab\xffc", {}, r"a.txt: byte 5 \(0xff\) is not UTF-8 \(line 2\); save the file as UTF-8"),
    ("a.txt", "Grüße".encode("utf-16-le"), {}, r"is not UTF-8|a NUL character"),
    ("a.txt", b"a\0b", {}, r"a.txt: byte 1 \(line 1\): a NUL character; is it UTF-16"),
    ("a.txt", b"", {}, r"a.txt: is empty; remove it, or mend the download"),
    ("a.pdf", b"x", {}, r"a.pdf: the name does not tell what it holds .*say corpus.format"),
    (
        "a.jsonl",
        b'{"text": "x"}\n{"text": 3}\n',
        {},
        r"a.jsonl: byte 14 \(line 2\): 'text' is 3, expected a text",
    ),
    ("a.jsonl", b'{"text": "x"}\n{"body"', {}, r"byte 14 \(line 2\): not a line of JSON"),
    ("a.jsonl", b'{"body": "x"}\n', {}, r"no 'text' \(there are: body\); say which is corpus.text"),
    ("a.jsonl", b'["x"]\n', {}, r"expected \{...\}, found"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', {}, r"half a surrogate pair"),
    (
        "a.jsonl",
        b'{"text": "x", "k": null}\n',
        {"fields": ["k"]},
        r"field 'k' is None, expected a text or a number",
    ),
    ("a.tsv", b"text\tb\nx\n", {}, r"byte 7 \(line 2\): 1 columns, expected 2"),
    ("a.tsv", b"a\tb\nx\ty\n", {}, r"no 'text' \(there are: a, b\)"),
    ("a.parquet", b"PAR1 no", {}, r"a.parquet: not a Parquet file"),
    ("a.txt.gz", b"\x1f\x8b\x08 no", {}, r"a.txt.gz: not whole gzip data .*mend the download"),
    ("a.txt.gz", gzip.compress(b"text\n" * 5000)[:-20], {}, r"a.txt.gz: not whole gzip data"),
    (
        "a.txt.zst",
        zstandard.compress(b"text\n" * 5000) + zstandard.compress(b"text\n" * 5000)[:10],
        {},
        r"a.txt.zst: not whole zstd data",
    ),
    (
        "a.txt.gz",
        gzip.compress(b"text\n"),
        {"split": {"by": "end"}},
        r"by: end needs to know where a file ends",
    ),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), BAD, ids=[m[:40] for *_, m in BAD])
def test_bad_files_are_refused_with_their_place(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts(corpus(path=str(tmp_path / name), **options))


def test_a_missing_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.path: say which text to read"):
        _ = corpus().files
    with pytest.raises(UserError, match=r"corpus.path: '.*none.txt' is no file, no folder, and no pattern"):
        _ = corpus(path=str(tmp_path / "none.txt")).files
    with pytest.raises(UserError, match=r"holds no file whose name ends in"):
        _ = corpus(path=str(tmp_path)).files
    with pytest.raises(ConfigError, match=r"block_bytes 3000 is not a power of two"):
        corpus(path="x", block_bytes=3000)


def test_a_file_that_changes_while_it_is_read_is_refused(book: Path) -> None:
    found = corpus(path=str(book))
    parts = found.parts()
    documents: Iterator[Any] = found.read(parts[0], {})
    next(documents)
    with book.open("a") as file:
        file.write("one more line\n")
    with pytest.raises(UserError, match=r"book.txt: changed while it was read .*prepare again"):
        list(documents)
    book.unlink()
    with pytest.raises(UserError, match=r"book.txt: is gone"):
        list(found.read(parts[0], {}))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 500)
    (tmp_path / "a.txt").write_text("x" * 3000)
    with pytest.raises(UserError, match=r"nothing ends a line for 500 bytes after byte 64; is it text\?"):
        texts(corpus(path=str(tmp_path / "a.txt")))


def test_several_frames_in_one_compressed_file(tmp_path: Path) -> None:
    for name, pack in (("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)):
        (tmp_path / name).write_bytes(pack(b"one\n" * 1000) + pack(b"two\n" * 1000))
        assert "".join(texts(corpus(path=str(tmp_path / name)))) == "one\n" * 1000 + "two\n" * 1000


def test_empty_texts_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "two"}\n')
    counts: dict[str, int] = {}
    found = read(corpus(path=str(tmp_path / "a.jsonl")), counts)
    assert [d.text for _, d in found] == ["one", "two"] and counts == {"empty": 1}


def test_damaged_pages_and_deep_records_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i} " * 20 for i in range(500)]}), path, compression="snappy")
    data = bytearray(path.read_bytes())
    data[60:400] = bytes(340)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a.parquet: row group 0: damaged"):
        texts(corpus(path=str(path)))
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"not a line of JSON"):
        texts(corpus(path=str(tmp_path / "a.jsonl")))


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16"))
    for policy in ("refuse", "drop"):
        with pytest.raises(UserError, match="is UTF-16, by the mark it begins with"):
            texts(corpus(path=str(tmp_path / "a.txt"), undecodable=policy))


def test_names_with_numbers_are_in_their_order(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        (tmp_path / f"part_{i}.txt").write_text(str(i))
    assert (
        texts(corpus(path=str(tmp_path))) == texts(corpus(path=str(tmp_path / "*.txt"))) == ["1", "9", "10"]
    )


def test_separators_inside_json_are_text(tmp_path: Path) -> None:
    """A raw U+2028 in a string is valid JSON; it becomes a line end of the text, and is counted."""
    lines = [json.dumps({"text": f"a\u2028b {i}"}, ensure_ascii=False) for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    counts: dict[str, int] = {}
    found = read(corpus(path=str(tmp_path / "a.jsonl")), counts)
    assert [d.text for _, d in found] == [f"a\nb {i}" for i in range(20)] and counts == {"separators": 20}


def test_records_without_text_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": null}\n{"text": ""}\n')
    counts: dict[str, int] = {}
    assert len(read(corpus(path=str(tmp_path / "a.jsonl")), counts)) == 1 and counts == {"empty": 2}


def test_headers_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\n \nid\ttext\n1\tone\n2\ttwo\n")
    assert texts(corpus(path=str(path))) == ["one", "two"]
    path.write_text("text\ttext\n1\tone\n")
    with pytest.raises(UserError, match="two columns are named 'text'"):
        texts(corpus(path=str(path)))
    path.write_text("1\tone\n2\ttwo\n")
    assert texts(corpus(path=str(path), text=1, fields="0")) == ["one", "two"]


def test_fields_are_looked_at_like_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for value, told in (
        ('"\\ud800x"', r"\(line 2\): field 'author': half a surrogate pair"),
        (str(10**25), r"\(line 2\): field 'author' is 10+, a number of more than 64 bits"),
    ):
        path.write_text('{"text": "a", "author": "b"}\n{"text": "c", "author": ' + value + "}\n")
        with pytest.raises(UserError, match=told):
            read(corpus(path=str(path), fields="author"))


def test_a_nul_is_named_at_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(60)) + "a\0b\n")
    with pytest.raises(UserError, match=r"a.txt: byte 471 \(line 61\): a NUL character"):
        read(corpus(path=str(tmp_path / "a.txt")))


def test_frames_with_a_long_window_are_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True, write_content_size=False)
    data = b"".join(b"line %d\n" % i for i in range(1000))
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(packed.compress(data) + packed.flush())
    assert "".join(texts(corpus(path=str(tmp_path / "a.txt.zst")))) == data.decode()
