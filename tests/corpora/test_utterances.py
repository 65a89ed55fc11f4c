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
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.segmentation.gold import gold_stream
from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.prepare import open_tokenizer, prepare
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


@pytest.mark.parametrize(
    "line", ["w ʌ tWORD_BOUNDARY s", "w ʌ WORD_BOUNDARYs WORD_BOUNDARY", "a WORD_BOUNDaRYb WORD_BOUNDARY"]
)
def test_a_marker_that_is_written_together_with_a_symbol_is_never_mended(tmp_path: Path, line: str) -> None:
    """Mended as a misspelt one it would take the symbol away."""
    (tmp_path / "a.txt").write_text(f"x WORD_BOUNDARY\n{line}\n")
    for repair in ([], ["misspelt", "missing"]):
        with pytest.raises(
            UserError, match=r"\(line 2\): .*is written together with something else; put a space"
        ):
            read(corpus(tmp_path / "a.txt", repair=repair))


def test_a_misspelt_marker_with_a_symbol_at_its_edge_is_no_misspelt_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x tWORD_BOUNDRY y WORD_BOUNDARY\n")
    with pytest.raises(UserError, match="the symbol 'tWORD_BOUNDRY' has .* letters.* say corpus.marker"):
        read(corpus(tmp_path / "a.txt", repair="misspelt"))


@pytest.mark.parametrize(
    ("character", "told"),
    [("\r", "U[+]000D"), ("\u2028", "U[+]2028, line separator"), ("\x85", "U[+]0085"), ("\x0b", "U[+]000B")],
)
@pytest.mark.parametrize("form", ["symbols", "letters"])
def test_line_ends_of_another_kind_are_refused(tmp_path: Path, character: str, told: str, form: str) -> None:
    lines = ["a b WORD_BOUNDARY", "c WORD_BOUNDARY"] if form == "symbols" else ["ab c", "c"]
    (tmp_path / "a.txt").write_bytes(f"{lines[1]}\r\n{lines[0]}{character}{lines[1]}\n".encode())
    with pytest.raises(UserError, match=rf"\(line 2\): a line end of another kind \({told}.*LF or CRLF"):
        read(corpus(tmp_path / "a.txt", form=form))


@pytest.mark.parametrize(
    "character", ["\u200b", "\ufeff", "\xad", "\u202a", "\x07", "\u034f", "\u3164", "\ufe0f", "\U000e0001"]
)
def test_characters_that_nobody_sees(tmp_path: Path, character: str) -> None:
    """Refused with their place, or left out and counted; joiners are part of how letters are written."""
    path = tmp_path / "a.txt"
    path.write_text(f"a WORD_BOUNDARY\nb {character}c{character} WORD_BOUNDARY\n")
    told = rf"\(line 2\): a character that nobody sees \(U\+{ord(character):04X}.*repair: \[invisible\]"
    with pytest.raises(UserError, match=told):
        read(corpus(path))
    counts: dict[str, int] = {}
    found = read(corpus(path, repair="invisible"), counts)
    assert words_of(found[1]) == [["b", "c"]] and counts == {"invisible characters": 2}
    path.write_text("a\u200cb\n")
    assert words_of(read(corpus(path, form="letters"))[0], "character") == [["a", "\u200c", "b"]]


def test_tables_and_lines_are_told_apart(tmp_path: Path) -> None:
    """A table read as lines would have a header among its utterances; lines have no rows to choose."""
    (tmp_path / "a.csv").write_text("u,target_child_age\na WORD_BOUNDARY,12\n")
    (tmp_path / "a.txt").write_text("a WORD_BOUNDARY\n")
    with pytest.raises(UserError, match=r"a\.csv: is a table, by its name; say which is corpus\.column"):
        read(corpus(tmp_path / "a.csv"))
    for more in ({}, {"max_age": 12}, {"children": "drop"}):
        with pytest.raises(
            UserError, match=r"a\.txt: is text, by its name, and corpus\.column names a column"
        ):
            read(corpus(tmp_path / "a.txt", column="u", **more))


def test_columns_are_kept_and_hold_out_whole_speakers(tmp_path: Path) -> None:
    rows = [f"a WORD_BOUNDARY\tspeaker {i % 7}\t{i}" for i in range(70)]
    (tmp_path / "a.tsv").write_text("\n".join(["u\twho\ttarget_child_age", *rows]) + "\n")
    options = {"column": "u", "fields": ["who", "target_child_age"], "max_age": 60}
    found = corpus(
        tmp_path / "a.tsv", **options, split={"by": "field", "field": "who", "val": 0.4, "seed": 2}
    )
    whose = {s: {d.fields["who"] for d in found.documents(s)} for s in found.splits}
    assert all(whose.values()) and not whose["train"] & whose["val"]
    assert set.union(*whose.values()) == {f"speaker {i}" for i in range(7)}
    assert sum(len(list(found.documents(s))) for s in found.splits) == 61
    with pytest.raises(ConfigError, match="'words' is what every utterance has already"):
        corpus(tmp_path / "a.tsv", column="u", fields="words")
    missing = corpus(tmp_path / "a.tsv", column="u", split={"by": "field", "field": "who", "val": 0.4})
    with pytest.raises(
        UserError, match=r"a\.tsv: byte \d+ \(line 2\): no field 'who'.*name it in corpus\.fields"
    ):
        read(missing)


def test_a_marker_keeps_its_case_between_tabs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A\tB\tWORD_BOUNDARY\n")
    assert words_of(read(corpus(tmp_path / "a.txt", case="lower"))[0]) == [["a", "b"]]


def test_what_tells_about_a_folder_is_no_part_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("About these files.\n")
    (tmp_path / "LICENSE.txt").write_text("Free.\n")
    (tmp_path / "a.txt").write_text("a WORD_BOUNDARY\n")
    (tmp_path / "source.txt").write_text("b WORD_BOUNDARY\n")  # data, by a common name
    (tmp_path / "NOTICE.jsonl.txt").write_text("c WORD_BOUNDARY\n")
    assert sorted(d.text for d in read(corpus(tmp_path))) == ["a", "b", "c"]


def test_bytes_that_are_no_text_point_to_no_option_it_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a é WORD_BOUNDARY\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"byte 2 \(0xe9\) is not UTF-8 \(line 1\); save the file as UTF-8$"):
        read(corpus(tmp_path / "a.txt"))


@pytest.mark.parametrize("boundaries", ["channel", "token"])
@pytest.mark.parametrize("form", ["letters", "symbols"])
def test_pieces_know_where_words_begin(tmp_path: Path, boundaries: str, form: str) -> None:
    """One flag for every word whose beginning a piece begins: of all words, where boundaries are blanks."""
    words = ["big", "dog", "ran", "to", "a", "dogma"]
    random = np.random.default_rng(0)
    lines = [random.choice(words, random.integers(1, 5)).tolist() for _ in range(60)]
    write = lambda line: (
        " ".join(line) if form == "letters" else "".join(f"{' '.join(w)} WORD_BOUNDARY " for w in line)
    )
    (tmp_path / "a.txt").write_text("".join(write(line).strip() + "\n" for line in lines))
    given = {"type": "utterances", "path": str(tmp_path / "a.txt"), "form": form, "split": {"val": 0}}
    given |= {"boundaries": boundaries, "joined": form == "symbols"}
    pieces = registry.find("tokenizer", "bpe").Config(vocab_size=270)
    store = prepare(validate(Utterances.Config, Source(given)), pieces, tmp_path / "stores")
    data = EvaluationData(store, open_tokenizer(pieces, store.folder))
    view = data.view("train")
    flags = [int(view.channel(CHANNEL, i).sum()) for i in range(len(view))]
    if boundaries == "token":
        assert flags == [len(line) for line in lines]
        told = "word boundaries stand in the text, or spaces between symbols"
    else:
        assert flags != [len(line) for line in lines]
        told = "some reach over a word boundary"
    with pytest.raises(UserError, match=told):
        gold_stream(data, "train", asks="segmentation")


def test_a_short_marker_is_known_by_its_very_spelling(tmp_path: Path) -> None:
    """`w` is a phoneme beside the marker `W`, and so is `kw`; not `kW`, and of two letters the case is a mistake."""
    for line, words in (
        ("t w o W d o g W", [["t", "w", "o"], ["d", "o", "g"]]),
        ("t kw o W", [["t", "kw", "o"]]),
    ):
        (tmp_path / "a.txt").write_text(f"{line}\n")
        for repair in ((), ("misspelt",)):
            assert words_of(read(corpus(tmp_path / "a.txt", marker="W", repair=repair))[0]) == words
    for line, marker, told in (
        ("t kW o W", "W", "is written together"),
        ("t w o wb d WB", "WB", "'wb' for the marker"),
    ):
        (tmp_path / "a.txt").write_text(f"{line}\n")
        with pytest.raises(UserError, match=told):
            read(corpus(tmp_path / "a.txt", marker=marker))


def test_a_table_whose_name_does_not_tell_its_form(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("u\twho\na WORD_BOUNDARY\tx\n")
    with pytest.raises(UserError, match="say corpus.format: text, jsonl, tsv, csv or parquet"):
        read(corpus(tmp_path / "a.dat", column="u"))
    assert [d.text for d in read(corpus(tmp_path / "a.dat", column="u", format="tsv"))] == ["a"]
    with pytest.raises(ConfigError, match="format is of tables; name their `column`"):
        corpus(tmp_path / "a.dat", format="tsv")


def test_whole_files_are_held_out_by_their_names(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text("a WORD_BOUNDARY\n" * 3)
    found = corpus(tmp_path, split={"by": "field", "field": "file", "val": 0.4, "seed": 3})
    whose = {s: {d.fields["file"] for d in found.documents(s)} for s in found.splits}
    assert all(whose.values()) and not whose["train"] & whose["val"] and len(set.union(*whose.values())) == 9
