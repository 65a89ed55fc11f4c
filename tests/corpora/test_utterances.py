"""Utterances: every word comes back from text and channel; mistakes are named with their line, or mended and counted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora.utterances import CHANNEL, Utterances
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.prepare import prepare
from lexarium.tokens.symbols import SymbolTokenizer

BRENT = Path(__file__).parents[3] / "shared/data/brent/br-phono.txt"
SYMBOLS = st.sampled_from(["a", "t̠ʃ", "oʊ", "iː", "ʌ", "d̠ʒ", "x"])
LETTERS = st.sampled_from(list("yuD6*&~ʃ"))


def utterances(symbols: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[list[str]]]]:
    words = st.lists(st.lists(symbols, min_size=1, max_size=4), min_size=1, max_size=4)
    return st.lists(words, min_size=1, max_size=6)


def corpus(path: Any, **options: Any) -> Utterances:
    given = {"type": "utterances", "path": str(path), "split": {"val": 0}, **options}
    return Utterances(validate(Utterances.Config, Source(given)))


def read(found: Utterances, counts: dict[str, int] | None = None) -> list[Document]:
    counts = {} if counts is None else counts
    return [d for part in found.parts() for _, d in found.read(part, counts)]


def words_of(document: Document, unit: str = "symbol") -> list[list[str]]:
    """Words from the tokens of a text and the values of the channel at their first characters."""
    tokenizer = SymbolTokenizer(SymbolTokenizer.Config(unit=unit))  # type: ignore[arg-type]
    found: list[list[str]] = []
    for symbol, first in tokenizer.split(document.text):
        if document.channels[CHANNEL][first]:
            found.append([])
        if symbol != "WORD_BOUNDARY":
            found[-1].append(symbol)
    return found


@pytest.mark.parametrize("boundaries", ["channel", "token"])
@given(lines=utterances(SYMBOLS))
def test_every_word_of_symbols_comes_back(boundaries: str, lines: list[list[list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_text("".join("".join(f"{' '.join(w)} ;eword " for w in line) + "\n" for line in lines))
        found = read(corpus(path, marker=";eword", boundaries=boundaries, normalise="none"))
    assert [words_of(d) for d in found] == lines
    if boundaries == "token":  # under the name that tokenizers know, whatever the file's marker
        expected = [[t for w in line for t in (*w, "WORD_BOUNDARY")] for line in lines]
        assert [d.text.split() for d in found] == expected
    starts = [[d.text[i] for i, v in enumerate(d.channels[CHANNEL]) if v] for d in found]
    assert starts == [[word[0][0] for word in line] for line in lines]
    assert all(len(d.channels[CHANNEL]) == len(d.text) for d in found)


@pytest.mark.parametrize("boundaries", ["channel", "token"])
@given(lines=utterances(LETTERS))
def test_every_word_of_letters_comes_back(boundaries: str, lines: list[list[list[str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_text("".join(" ".join("".join(w) for w in line) + "\n" for line in lines))
        found = read(corpus(path, form="letters", boundaries=boundaries))
    assert [words_of(d, "character") for d in found] == lines
    kept = " " if boundaries == "token" else ""
    assert [d.text for d in found] == [kept.join("".join(w) for w in line) for line in lines]


def test_joined_symbols_for_pieces_of_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w ʌ t WORD_BOUNDARY d̠ʒ ʌ s t WORD_BOUNDARY\n")
    (spaceless,) = read(corpus(tmp_path / "a.txt", joined=True))
    (spaced,) = read(corpus(tmp_path / "a.txt", joined=True, boundaries="token"))
    assert (spaceless.text, spaced.text) == ("wʌtd̠ʒʌst", "wʌt d̠ʒʌst")
    assert [i for i, v in enumerate(spaceless.channels[CHANNEL]) if v] == [0, 3]
    assert [i for i, v in enumerate(spaced.channels[CHANNEL]) if v] == [0, 4]


@pytest.mark.parametrize(
    "line, repair, told, mended",
    [
        (
            "a b WORD_BOUNDaRY c WORD_BOUNDARY",
            "misspelt",
            "'WORD_BOUNDaRY' for the marker",
            [["a", "b"], ["c"]],
        ),
        (
            "a WORD_BOUNDARY WORD_BOUNDARY c WORD_BOUNDARY",
            "doubled",
            "with no word before it",
            [["a"], ["c"]],
        ),
        ("WORD_BOUNDARY a WORD_BOUNDARY", "doubled", "with no word before it", [["a"]]),
        ("a WORD_BOUNDARY c", "missing", "no marker 'WORD_BOUNDARY' after the last word", [["a"], ["c"]]),
        ("a c", "missing", "no marker .*are words separated by spaces", [["a", "c"]]),
        ("  ", "empty", "an empty utterance", None),
        ("", "empty", "an empty utterance", None),
    ],
)
def test_mistakes_are_named_or_mended(
    tmp_path: Path, line: str, repair: str, told: str, mended: list[list[str]] | None
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"x WORD_BOUNDARY\n{line}\ny WORD_BOUNDARY\n")
    with pytest.raises(UserError, match=rf"a.txt: byte 16 \(line 2\): .*{told}.*corpus.repair: \[{repair}\]"):
        read(corpus(path))
    counts: dict[str, int] = {}
    found = read(corpus(path, repair=[repair]), counts)
    wanted = [[["x"]], *([mended] if mended else []), [["y"]]]
    assert [words_of(d) for d in found] == wanted and list(counts.values()) == [1]


@pytest.mark.parametrize(
    "line, told",
    [
        ("wʌtdʒ s WORD_BOUNDARY", "the symbol 'wʌtdʒ' has 5 letters: a word whose symbols are not separated"),
        ("a UTT_BOUNDARY WORD_BOUNDARY", "'UTT_BOUNDARY' is a mark of the vocabulary"),
        ("a PAD WORD_BOUNDARY", "'PAD' is a mark"),
    ],
)
def test_what_is_never_mended(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "a.txt").write_text(f"x WORD_BOUNDARY\n{line}\n")
    with pytest.raises(UserError, match=rf"\(line 2\): .*{told}"):
        read(corpus(tmp_path / "a.txt", repair=["misspelt", "doubled", "missing", "empty"]))


def test_combining_and_modifying_letters_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("t̠ʃʰ aɪə WORD_BOUNDARY\n")
    assert [words_of(d) for d in read(corpus(tmp_path / "a.txt", normalise="none"))] == [[["t̠ʃʰ", "aɪə"]]]


def test_a_table_with_ages_and_speakers(tmp_path: Path) -> None:
    rows = [
        ("a WORD_BOUNDARY", "24.5", "False"),
        ("b WORD_BOUNDARY", "130", "False"),
        ("c WORD_BOUNDARY", "12", "True"),
        ("d WORD_BOUNDARY", "", "False"),
        ("e WORD_BOUNDARY", "120", "False"),
    ]
    names = ("phonemized_utterance", "target_child_age", "is_child")
    (tmp_path / "c.tsv").write_text("\n".join("\t".join(r) for r in (names, *rows)) + "\n")
    records = [dict(zip(names, (u, float(a) if a else None, s == "True"), strict=True)) for u, a, s in rows]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(records), tmp_path / "c.parquet")
    for name in ("c.tsv", "c.jsonl", "c.parquet"):
        counts: dict[str, int] = {}
        options = {"column": "phonemized_utterance", "max_age": 120, "children": "drop"}
        assert [d.text for d in read(corpus(tmp_path / name, **options), counts)] == ["a", "e"], name
        assert counts == {"too old": 1, "child speech": 1, "no age": 1}
        assert len(read(corpus(tmp_path / name, column="phonemized_utterance"))) == 5
    with pytest.raises(ConfigError, match="are of the rows of a table; name its `column`"):
        corpus(tmp_path / "c.tsv", max_age=120)
    with pytest.raises(UserError, match="no 'gloss'"):
        read(corpus(tmp_path / "c.tsv", column="gloss"))


def test_orthographic_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Où est la Fête\n")
    (found,) = read(corpus(tmp_path / "a.txt", form="letters", case="lower", accents="strip"))
    assert words_of(found, "character") == [list(w) for w in ("ou", "est", "la", "fete")]


@pytest.mark.skipif(not BRENT.is_file(), reason="shared/data/brent is not there")
def test_the_brent_corpus(tmp_path: Path) -> None:
    """Counts of its SOURCE.md."""
    options = {"type": "utterances", "path": str(BRENT), "form": "letters", "split": {"val": 0.1}}
    tokenizer = SymbolTokenizer.Config(unit="character")
    store = prepare(validate(Utterances.Config, Source(options)), tokenizer, tmp_path)
    splits = store.manifest["splits"]
    assert sum(s["documents"] for s in splits.values()) == 9_790
    assert sum(s["tokens"] for s in splits.values()) == 95_809
    assert store.manifest["vocab_size"] == 54 and abs(splits["val"]["documents"] - 979) <= 2
    starts = sum(int(s.channel(CHANNEL, i).sum()) for s in map(store.split, splits) for i in range(len(s)))
    assert starts == 33_399


@pytest.mark.parametrize("line", ["w ʌ t WORD_BOUNDARY", "w ʌ t word_boundary"])
def test_symbols_are_not_taken_for_letters(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"yu want\n{line}\n")
    with pytest.raises(UserError, match=r"\(line 2\): .* among the words: .* say corpus\.form: symbols"):
        read(corpus(tmp_path / "a.txt", form="letters"))


@pytest.mark.parametrize("line", ["yu  want", " yu want", "yu \twant"])
def test_doubled_blanks_are_doubled_boundaries(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"a b  \n{line}\n")
    with pytest.raises(UserError, match=r"\(line 2\): several blanks .* corpus\.repair: \[doubled\]"):
        read(corpus(tmp_path / "a.txt", form="letters"))
    counts: dict[str, int] = {}
    found = read(corpus(tmp_path / "a.txt", form="letters", repair=["doubled"]), counts)
    assert [words_of(d, "character") for d in found] == [[["a"], ["b"]], [["y", "u"], list("want")]]
    assert counts == {"doubled markers": 1}


@pytest.mark.parametrize("marker", ["WORD_BOUNDRY", "WORD_BOUNDARRY", "WRD_BOUNDARY"])
def test_a_marker_with_a_wrong_letter_is_a_misspelt_one(tmp_path: Path, marker: str) -> None:
    (tmp_path / "a.txt").write_text(f"a b {marker} c WORD_BOUNDARY\n")
    with pytest.raises(UserError, match=rf"{marker}' for the marker .* corpus\.repair: \[misspelt\]"):
        read(corpus(tmp_path / "a.txt"))
    assert [words_of(d) for d in read(corpus(tmp_path / "a.txt", repair=["misspelt"]))] == [
        [["a", "b"], ["c"]]
    ]


def test_another_marker_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b ;eword c ;eword\n")
    with pytest.raises(UserError, match=r"is ';eword' the marker\? then say corpus\.marker"):
        read(corpus(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a WORD_BOUNDARY\t2;03.10\tfalse", r"target_child_age is '2;03.10'; expected a number of months"),
        ("a WORD_BOUNDARY\t-5\tfalse", r"target_child_age is '-5'; expected a number of months"),
        ("a WORD_BOUNDARY\t12\tmaybe", r"is_child is 'maybe'; expected true or false"),
        ("a WORD_BOUNDARY\t12\t", r"is_child is ''; expected true or false"),
    ],
)
def test_ages_and_speakers_that_cannot_be_read(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "a.tsv").write_text(f"u\ttarget_child_age\tis_child\n{row}\n")
    with pytest.raises(UserError, match=told):
        read(corpus(tmp_path / "a.tsv", column="u", max_age=24, children="drop"))
    with pytest.raises(UserError, match=r"no 'v'.* corpus\.column, corpus\.age_column"):
        read(corpus(tmp_path / "a.tsv", column="v"))


@pytest.mark.parametrize("control", ["uniform", "unigram"])
def test_a_control_keeps_lengths_and_boundaries_and_draws_the_symbols(tmp_path: Path, control: str) -> None:
    lines = ["a b WORD_BOUNDARY a WORD_BOUNDARY", "a a a c WORD_BOUNDARY"] * 400
    (tmp_path / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    plain, drawn = (read(corpus(tmp_path / "a.txt", control=c)) for c in ("none", control))
    assert [d.channels[CHANNEL] for d in plain] == [d.channels[CHANNEL] for d in drawn]
    assert [d.fields for d in plain] == [d.fields for d in drawn]
    symbols = [s for d in drawn for s in d.text.split(" ")]
    shares = {s: symbols.count(s) / len(symbols) for s in "abc"}
    wanted = {"a": 5 / 7, "b": 1 / 7, "c": 1 / 7} if control == "unigram" else dict.fromkeys("abc", 1 / 3)
    assert shares == pytest.approx(wanted, abs=4 * (0.25 / len(symbols)) ** 0.5)
    again = read(corpus(tmp_path / "a.txt", control=control))
    other = read(corpus(tmp_path / "a.txt", control=control, control_seed=1))
    assert again == drawn and [d.text for d in other] != [d.text for d in drawn]
    following = sum(a == "a" and b == "a" for a, b in zip(symbols, symbols[1:], strict=False)) / len(symbols)
    assert following == pytest.approx(shares["a"] ** 2, abs=0.04), "nothing says what follows"


@pytest.mark.parametrize("boundaries", ["channel", "token"])
def test_a_control_may_draw_its_boundaries_too(tmp_path: Path, boundaries: str) -> None:
    """At train's rate, at every place inside utterances alike: lengths of words say nothing any more."""
    lines = ["a b WORD_BOUNDARY a c WORD_BOUNDARY", "a a a c WORD_BOUNDARY", "a WORD_BOUNDARY"] * 600
    (tmp_path / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    options = {"control": "unigram", "control_boundaries": "draw", "boundaries": boundaries}
    drawn = read(corpus(tmp_path / "a.txt", **options))
    found = [words_of(d) for d in drawn]
    assert [sum(map(len, words)) for words in found] == [4, 4, 1] * 600
    assert [len(words) for words in found] == [d.fields["words"] for d in drawn]
    ends = [np.cumsum([len(w) for w in words])[:-1].tolist() for words in found]
    shares = [sum(k in e for e in ends) / 1200 for k in (1, 2, 3)]
    assert shares == pytest.approx([1 / 6] * 3, abs=4 * (0.14 / 1200) ** 0.5)
    assert read(corpus(tmp_path / "a.txt", **options)) == drawn
    with pytest.raises(ConfigError, match="belongs to a control"):
        corpus(tmp_path / "a.txt", control_boundaries="draw")
