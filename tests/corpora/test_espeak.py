"""Words to phonemes: with the program itself where it is installed, and with stand-ins that fail in every way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexarium.corpora import espeak
from lexarium.corpora.utterances import CHANNEL, Utterances
from lexarium.foundation.config import ConfigError, Source, identity, validate
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.prepare import prepare
from lexarium.tokens.symbols import SymbolTokenizer

needs_the_program = pytest.mark.skipif(
    espeak.found() is None, reason="the program espeak-ng is not installed: its phonemes are not looked at"
)

BRENT = Path(__file__).parents[3] / "shared/data/brent/br-text.txt"
VOICES = """Pty Language       Age/Gender VoiceName          File                 Other Languages
 5  en-us           --/M      English_(America)  gmw/en-US            (en 3)
"""
STAND_IN = """#!/usr/bin/env python3
import sys
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 9.9  Data at: /nowhere")
elif "--voices" in sys.argv:
    print({voices!r}, end="")
else:
    {body}
"""
SPELL = """for line in sys.stdin:
        with open({log!r}, "a") as log:
            log.write(line)
        for clause in line.strip("\\n").split("|"):
            print(" ".join("_".join(word) for word in clause.split()))"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program of this body into the path as espeak-ng; returns what it logs the lines to."""

    def put(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        log = tmp_path / "log"
        program = folder / "espeak-ng"
        program.write_text(STAND_IN.format(voices=VOICES, body=body.format(log=str(log))))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return log

    return put


def corpus(path: Path, text: str, **options: Any) -> Utterances:
    (path / "a.txt").write_text(text)
    given = {"type": "utterances", "path": str(path / "a.txt"), "form": "words", "phonemise": "en-us"}
    return Utterances(validate(Utterances.Config, Source({**given, "split": {"val": 0}, **options})))


def read(found: Utterances, counts: dict[str, int] | None = None) -> list[Document]:
    counts = {} if counts is None else counts
    return [d for part in found.parts() for _, d in found.read(part, counts)]


def words_of(document: Document) -> list[list[str]]:
    found: list[list[str]] = []
    for symbol, first in SymbolTokenizer(SymbolTokenizer.Config()).split(document.text):
        if document.channels[CHANNEL][first]:
            found.append([])
        found[-1].append(symbol)
    return found


# --- the program itself -----------------------------------------------------------------------------


@needs_the_program
def test_words_are_phonemes_with_their_boundaries(tmp_path: Path) -> None:
    """Pronunciations as in a dictionary of American English; affricates and diphthongs are one symbol each."""
    counts: dict[str, int] = {}
    text = "look at that dog .\nof the judge?\n— don't church ice-cream\n"
    found = read(corpus(tmp_path, text, boundaries="channel"), counts)
    assert [words_of(d) for d in found] == [
        [["l", "ʊ", "k"], ["æ", "t"], ["ð", "æ", "t"], ["d", "ɑː", "ɡ"]],
        [["ʌ", "v"], ["ð", "ə"], ["dʒ", "ʌ", "dʒ"]],
        [["d", "oʊ", "n", "t"], ["tʃ", "ɜː", "tʃ"], ["aɪ", "s", "k", "ɹ", "iː", "m"]],
    ]
    assert [d.fields["words"] for d in found] == [4, 3, 3] and counts == {"punctuation between words": 2}
    (kept,) = read(corpus(tmp_path, "dog judge\n", stress="keep", boundaries="token"))
    assert kept.text == "d ˈɑː ɡ WORD_BOUNDARY dʒ ˈʌ dʒ WORD_BOUNDARY"


@needs_the_program
def test_an_utterance_asked_whole_has_weak_forms_and_its_own_words(tmp_path: Path) -> None:
    text = "a dog\nof the dog\nof the xx\n"
    counts: dict[str, int] = {}
    alone = [words_of(d) for d in read(corpus(tmp_path, text))]
    whole = [words_of(d) for d in read(corpus(tmp_path, text, phonemise_by="utterance"), counts)]
    assert alone[0][0] == ["eɪ"] and whole[0][0] == ["ɐ"]
    assert (
        whole[1:] == alone[1:]
    )  # espeak-ng says "of the" as one word, and xx as two: three in all, as it should not be
    assert [len(words) for words in whole] == [2, 3, 3]
    assert counts == {"utterances spoken word by word": 2}


@needs_the_program
def test_words_of_another_voice_are_counted(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    (found,) = read(corpus(tmp_path, "le football\n", phonemise="fr-fr"), counts)
    assert words_of(found)[1] == ["f", "ʊ", "t", "b", "ɔː", "l"]
    assert counts == {"words spoken by another voice": 1}


@needs_the_program
@settings(max_examples=10)
@given(
    words=st.lists(st.sampled_from(["the", "of", "cat", "1984", "xx", "a", "it's", "and/or", "…", "bœuf"]))
)
def test_every_word_has_its_phonemes_whatever_its_company(words: list[str]) -> None:
    asked = [form for word in words if (form := espeak.spoken_form(word))]
    together = espeak.Speaker("en-us", False, "word").say([asked], {})[0]
    assert together == [
        ALONE.setdefault(w, espeak.Speaker("en-us", False, "word").say([[w]], {})[0][0]) for w in asked
    ]
    whole = espeak.Speaker("en-us", False, "utterance").say([asked], {})[0]
    assert len(whole) == len(asked) and all(whole)


ALONE: dict[str, list[str]] = {}


@needs_the_program
@pytest.mark.parametrize("voice, near", [("en-uss", "en-us"), ("zz", "")])
def test_a_voice_that_there_is_not(tmp_path: Path, voice: str, near: str) -> None:
    told = f"espeak-ng has no voice '{voice}'" + (f"; did you mean '{near}'" if near else "")
    with pytest.raises(UserError, match=told):
        read(corpus(tmp_path, "a\n", phonemise=voice))


@needs_the_program
def test_a_store_of_phonemes_says_who_spoke_them(tmp_path: Path) -> None:
    text = "".join(f"look at the dog number {i} .\n" for i in range(40))
    found = corpus(tmp_path, text, split={"val": 0.1})
    store = prepare(found.config, SymbolTokenizer.Config(), tmp_path / "stores")
    assert store.manifest["sources"]["phonemes"] == {
        "program": "espeak-ng",
        "version": espeak.version(espeak.found()),
    }
    assert store.manifest["mended"] == {"punctuation between words": 40}
    assert store.manifest["channels"] == [CHANNEL]


@needs_the_program
@pytest.mark.skipif(not BRENT.is_file(), reason="shared/data/brent is not there")
def test_the_brent_corpus_keeps_its_words() -> None:
    """Utterance by utterance, as many words as are written; phonemes as many as in its dictionary, within a few percent."""
    given = {"type": "utterances", "path": str(BRENT), "form": "words", "phonemise": "en-us"}
    counts: dict[str, int] = {}
    found = read(Utterances(validate(Utterances.Config, Source({**given, "split": {"val": 0}}))), counts)
    assert [d.fields["words"] for d in found] == [
        len(line.split()) for line in BRENT.read_text().splitlines()
    ]
    assert [sum(d.channels[CHANNEL]) for d in found] == [d.fields["words"] for d in found]
    assert abs(sum(len(d.text.split()) for d in found) / 95_809 - 1) < 0.03 and not counts


# --- what goes to the program and comes back ----------------------------------------------------------


def test_every_word_is_asked_once_and_answers_stay_with_their_lines(
    tmp_path: Path, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stand_in(SPELL)
    (alone,) = espeak.Speaker("en-us", False, "word").say([["of", "the", "cat", "of", "the"]], {})
    assert alone == [["o", "f"], ["t", "h", "e"], ["c", "a", "t"], ["o", "f"], ["t", "h", "e"]]
    assert sorted(log.read_text().split()) == ["cat", "of", "the"]
    words = ["ab|cd", "x", "", "yz|", "w"]  # some come back as two clauses
    assert espeak.Speaker("en-us", False, "word")._ask(words) == ["a_b c_d", "x", "", "y_z ", "w"]
    log.unlink()
    monkeypatch.setattr("lexarium.corpora.utterances.SPOKEN_AT_ONCE", 2)
    found = read(corpus(tmp_path, "a b\nb c\na c\nd\n"))
    assert [d.text for d in found] == ["a b", "b c", "a c", "d"]
    assert log.read_text().split() == ["a", "b", "c", "d"]  # batches of two utterances, a word only once


def test_a_longer_line_than_the_program_reads_is_asked_word_by_word(stand_in: Callable[[str], Path]) -> None:
    log = stand_in(SPELL)
    counts: dict[str, int] = {}
    (found,) = espeak.Speaker("en-us", False, "utterance").say([["ab"] * 400], counts)
    assert found == [["a", "b"]] * 400 and counts == {"utterances spoken word by word": 1}
    assert log.read_text() == "ab\n"
    with pytest.raises(UserError, match="a word of 1,000 letters"):
        espeak.Speaker("en-us", False, "word").say([["a" * 1000]], {})


def test_a_word_that_is_not_said(tmp_path: Path, stand_in: Callable[[str], Path]) -> None:
    stand_in('for line in sys.stdin: print("" if line == "hm\\n" else "a_b")')
    with pytest.raises(
        UserError, match=r"a.txt: byte 6 \(line 2\): espeak-ng does not say the word 'hm'; .*\[unspoken\]"
    ):
        read(corpus(tmp_path, "a dog\na hm\nhm\n"))
    counts: dict[str, int] = {}
    found = read(corpus(tmp_path, "a dog\na hm\nhm\n", repair=["unspoken", "empty"]), counts)
    assert [words_of(d) for d in found] == [[["a", "b"]] * 2, [["a", "b"]]]
    assert counts == {"unspoken words": 2, "empty utterances": 1}
    with pytest.raises(UserError, match=r"\(line 1\): an utterance of punctuation alone; .*\[empty\]"):
        read(corpus(tmp_path, ". ?\n"))


FAILURES = [
    ("sys.exit(3)", r"espeak-ng: failed \(exit status 3\)"),
    ('sys.exit("no data")', r"failed \(exit status 1: no data\)"),
    ("import os; os.kill(os.getpid(), 9)", r"failed \(ended by signal 9\)"),
    ("pass", r"wrote nothing; does"),
    (r'sys.stdout.buffer.write(b"\xff\n")', r"its answer is not UTF-8"),
]


@pytest.mark.parametrize("body, told", FAILURES, ids=[told[:30] for _, told in FAILURES])
def test_a_program_that_fails(tmp_path: Path, stand_in: Callable[[str], Path], body: str, told: str) -> None:
    stand_in(body)
    with pytest.raises(UserError, match=told):
        read(corpus(tmp_path, "a\n"))


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = corpus(tmp_path, "a\n")
    for ask in (found.fingerprint, found.record, lambda: read(found)):
        with pytest.raises(
            UserError, match="espeak-ng is needed .* apt-get install espeak-ng; Fedora: dnf .*brew"
        ):
            ask()


def test_another_version_is_another_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, prints = corpus(tmp_path, "a\n"), set()
    for version in ("1.51", "1.52", "1.51"):
        monkeypatch.setattr(espeak, "version", lambda path, v=version: v)
        prints.add(found.fingerprint())
    assert len(prints) == 2
    letters = {"form": "letters", "phonemise": ""}
    monkeypatch.setenv("PATH", str(tmp_path))  # who does not phonemise needs no program
    assert corpus(tmp_path, "a\n", **letters).fingerprint() not in prints


def test_another_form_is_another_corpus(tmp_path: Path) -> None:
    forms = [{}, {"form": "letters", "phonemise": ""}, {"form": "symbols", "phonemise": ""}]
    found = [identity(corpus(tmp_path, "a\n", **options).config) for options in forms]
    assert [i.get("form") for i in found] == ["words", "letters", None] and "phonemise" not in found[1]


@pytest.mark.parametrize(
    "options, told",
    [
        ({"phonemise": ""}, "go together"),
        ({"form": "letters"}, "go together"),
        ({"form": "letters", "phonemise": "", "stress": "keep"}, "phonemise_by and stress are of words"),
        ({"phonemise": "-x"}, "phonemise"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        corpus(tmp_path, "a\n", **options)


@pytest.mark.parametrize(
    "word, asked",
    [
        ("that?", "that"),
        ("...", ""),
        ("—", ""),
        ("-", ""),
        ("and/or", "and or"),
        ("’cause", "'cause"),
        ("ice-cream", "ice-cream"),
        ("a_b", "a b"),
        ("$5", "5"),
        ("نمی\u200cخواهم", "نمی\u200cخواهم"),
        ("[[x]]", "x"),
    ],
)
def test_what_is_asked_for_a_word(word: str, asked: str) -> None:
    assert espeak.spoken_form(word) == asked
