"""The table of features: rows of PHOIBLE read back value by value, and what is refused."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, identity, validate
from lexarium.foundation.features import FEATURES, FeatureTable, alike, read_features, vocabulary_features
from lexarium.foundation.types import UserError
from lexarium.tokens.tokenizers import assign_roles
from phonemes import ROWS, cells, table_file
from toy import InMemory

VALUE = {"-": 1, "+": 2, "0": 0, "+,-": 0}


def table(path: Path, **options: Any) -> FeatureTable:
    return validate(FeatureTable, Source({"path": str(path), **options}))


def expected(phoneme: str) -> list[int]:
    return [VALUE[cell] for cell in cells(ROWS[phoneme])]


def test_the_features_are_those_of_the_study() -> None:
    """Spec 2.3: 38 features; first, some and last."""
    assert len(FEATURES) == len(set(FEATURES)) == 38
    assert FEATURES[:4] == ("tone", "stress", "syllabic", "short") and FEATURES[-1] == "click"
    assert FEATURES.index("delayedRelease") == 8 and FEATURES.index("advancedTongueRoot") == 28


@pytest.mark.parametrize(("name", "delimiter"), [("phoible.csv", ","), ("phoible.tsv", "\t")])
def test_rows_are_read_value_by_value(name: str, delimiter: str, tmp_path: Path) -> None:
    """The first row of a phoneme counts; a contour is neither plus nor minus."""
    found = read_features(table(table_file(tmp_path, delimiter=delimiter, name=name)), list(ROWS))
    assert found.tolist() == [expected(phoneme) for phoneme in ROWS]
    assert found[list(ROWS).index("mb"), FEATURES.index("nasal")] == 0
    assert found[list(ROWS).index("p"), FEATURES.index("labial")] == 2


def test_a_few_columns_in_another_order(tmp_path: Path) -> None:
    chosen = ["nasal", "stress", "syllabic"]
    found = read_features(table(table_file(tmp_path), columns=chosen), ["m", "a", "mb"])
    assert found.tolist() == [[2, 1, 1], [1, 1, 2], [0, 1, 1]]


def test_composed_and_decomposed_are_one_symbol(tmp_path: Path) -> None:
    nfc = unicodedata.normalize("NFC", "a\u0303")
    assert len(nfc) == 1
    found = read_features(table(table_file(tmp_path)), [nfc, "a\u0303"])
    assert found.tolist() == [expected("a\u0303")] * 2
    written = table_file(tmp_path / "composed", {nfc: ROWS["a\u0303"]})
    assert read_features(table(written), ["a\u0303"]).tolist() == [expected("a\u0303")]


def test_tones_are_left_out_and_stress_is_a_feature(tmp_path: Path) -> None:
    path = table_file(tmp_path)
    found = read_features(table(path), ["a\u02e6\u02e8", "\u02c8a", "\u02cca\u02e5", "\u02e6"])
    stressed = expected("a")
    stressed[FEATURES.index("stress")] = 2
    assert found.tolist() == [expected("a"), stressed, stressed, expected("\u02e6")]
    with pytest.raises(UserError, match="has no row for 'a\u02e6'"):
        read_features(table(path, tones="keep"), ["a\u02e6"])
    with pytest.raises(UserError, match="has no row for '\u02c8a'"):
        read_features(table(path, stress="keep"), ["\u02c8a"])


def test_symbols_without_a_row_are_named_with_near_ones(tmp_path: Path) -> None:
    path = table_file(tmp_path)
    with pytest.raises(UserError) as error:
        read_features(table(path), ["a", "g", "mbb", "Q"])
    told = str(error.value)
    assert "'g' (U+0067; near: \u0261)" in told and "'mbb'" in told and "near: mb" in told
    assert "'Q' (U+0051)" in told and "features.missing: unknown" in told and "'a'" not in told
    found = read_features(table(path, missing="unknown"), ["g", "a"])
    assert (found[0] == -1).all() and found[1].tolist() == expected("a")


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Phoneme,nasal\nm,+\n")
    with pytest.raises(UserError, match=r"has no column tone, stress, .*it has Phoneme, nasal\. Name others"):
        read_features(table(tmp_path / "a.csv"), ["m"])
    (tmp_path / "b.csv").write_text("Phoneme,nasal,stress\nm,+,-\nn\n")
    with pytest.raises(UserError, match=r"b\.csv:3: 1 cells, expected 3"):
        read_features(table(tmp_path / "b.csv", columns=["nasal", "stress"]), ["m"])
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe,\x00\n")
    with pytest.raises(UserError, match="not a table in UTF-8"):
        read_features(table(tmp_path / "c.csv"), ["m"])
    with pytest.raises(ConfigError, match=r"path: .*d\.csv is not a file"):
        table(tmp_path / "d.csv")
    with pytest.raises(ConfigError, match="a feature is named twice"):
        table(tmp_path / "a.csv", columns=["nasal", "stress", "nasal"])
    with pytest.raises(ConfigError, match="say stress: keep"):
        table(tmp_path / "a.csv", columns=["nasal"])


def test_the_content_counts_and_not_the_place(tmp_path: Path) -> None:
    one, other = table(table_file(tmp_path / "here")), table(table_file(tmp_path / "there"))
    assert one.path != other.path and identity(one) == identity(other)
    assert one.content == hashlib.sha256(Path(one.path).read_bytes()).hexdigest()
    changed = table(table_file(tmp_path / "there", {**ROWS, "m": ROWS["n"]}))
    assert identity(changed) != identity(one)
    with pytest.raises(UserError, match=r"has changed since features\.content was written"):
        read_features(other, ["m"])


# --- a vocabulary -----------------------------------------------------------------------------------


def symbols(texts: list[str], **options: Any) -> Any:
    cls = registry.find("tokenizer", "symbol")
    tokenizer = cls(cls.Config(**options))
    tokenizer.train(InMemory(texts))
    return tokenizer


def test_special_tokens_have_the_slot_of_their_own(tmp_path: Path) -> None:
    """Spec 2.3: 1 for boundaries of words and utterances, 0 for padding, 2 for unknown symbols."""
    tokenizer = symbols(["m a", "t a"])
    values = vocabulary_features(
        table(table_file(tmp_path)), tokenizer, assign_roles(tokenizer, ("bos", "eos"))
    )
    assert tokenizer.symbols[:4] == ["UNK", "PAD", "WORD_BOUNDARY", "UTT_BOUNDARY"]
    assert values.shape == (7, 39) and not values[:4, :38].any()
    assert values[:, 38].tolist() == [2, 0, 1, 1, 0, 0, 0]
    assert values[4:, :38].tolist() == [expected("m"), expected("a"), expected("t")]


def test_tokens_that_an_objective_appends_are_neither(tmp_path: Path) -> None:
    cls = registry.find("tokenizer", "word")
    tokenizer = cls(cls.Config())
    tokenizer.train(InMemory(["m a"]))
    values = vocabulary_features(
        table(table_file(tmp_path)), tokenizer, assign_roles(tokenizer, ("eos", "bos"))
    )
    assert values.shape == (5, 39) and not values[[0, 3, 4]].any()
    assert values[1:3, :38].tolist() == [expected("a"), expected("m")]


def test_symbols_of_equal_features_are_found(tmp_path: Path) -> None:
    tokenizer = symbols(["a m a\u02e6", "p Q R t"])
    told = table(table_file(tmp_path), missing="unknown")
    roles = assign_roles(tokenizer, ("bos", "eos"))
    values = vocabulary_features(told, tokenizer, roles)
    assert values[[tokenizer.id("Q"), tokenizer.id("R")], 38].tolist() == [2, 2]
    found = alike(values, tokenizer.symbols, roles.ids.values())
    assert sorted(map(tuple, found)) == [("UNK", "Q", "R"), ("a", "a\u02e6")]
    assert not alike(np.eye(3, dtype=np.int64), ["x", "y", "z"], ())


def test_pieces_of_text_have_no_features(tmp_path: Path) -> None:
    tokenizer = registry.find("tokenizer", "byte")(registry.find("tokenizer", "byte").Config())
    with pytest.raises(UserError, match=r"has no row for .* and 2\d\d more"):
        vocabulary_features(table(table_file(tmp_path)), tokenizer, assign_roles(tokenizer, ()))
