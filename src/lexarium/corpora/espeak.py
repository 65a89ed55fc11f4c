"""Words to phonemes by the program `espeak-ng`, which runs as a process of its own (its library is GPL: not imported).

    by: word         every distinct word is asked once, alone on its line: exact word boundaries, and the same phonemes
                     wherever a word stands; so citation forms of function words ("a" as the letter's name) and no
                     changes where words meet
    by: utterance    an utterance is asked whole, for weak forms and liaison. espeak-ng joins some words ("of the") and
                     says others as several (1984): such utterances are asked word by word, and counted

Lines go to its standard input, one line comes back for each. A line may come back as several clauses: when the numbers
differ the lines are asked again in halves, so no answer is ever given to another line. Before a word is asked, what is
neither letter, mark, digit, apostrophe nor hyphen is taken for a gap in it; a word is one word of phonemes whatever
it sounds like (1984, ice-cream). Phonemes are those of espeak-ng (`--sep`): tʃ, oʊ and oːɹ are one symbol each. Words
of another language than the voice's may be spoken by another voice; their marks, as (en), are taken out and the words
counted. A script that the voice does not know is spelt out ("Chinese letter"): look at the text you give.

Cost: about 1.2 ms of processor time per distinct word (measured, 1.51); a process remembers 1,000,000 words.
Refused: a program that is not there, knows no such voice, fails, dies or writes nothing; see `utterances.py` for words
it does not say.
"""

from __future__ import annotations

import difflib
import functools
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence

from lexarium.foundation.types import UserError

PROGRAM = "espeak-ng"
INSTALL = (
    "Debian and Ubuntu: apt-get install espeak-ng; Fedora: dnf install espeak-ng; macOS: brew install espeak-ng;"
    " Windows: the installer at github.com/espeak-ng/espeak-ng/releases"
)
LONGEST = 900
"""Bytes of a line; the program cuts lines of 1,000."""
REMEMBERED = 1_000_000
INSIDE = "'-\u200c\u200d"
"""What may stand in a word beside letters, marks and digits: joiners tell letters' forms in some scripts."""
OTHER_VOICE = re.compile(r"\([a-z][a-z0-9-]*\)")

Spoken = tuple[list[str], bool]
"""Phonemes of a word; whether another voice spoke it."""


@functools.cache
def version(path: str | None = None) -> str:
    """The version of the program; raises UserError where it is not installed. `path` is that of `found()`."""
    told = _call(["--version"], "")
    match = re.search(r"eSpeak NG text-to-speech: *(\S+)", told)
    if match is None:
        raise UserError(
            f"{path}: is not eSpeak NG (--version says {told[:60]!r}); put {PROGRAM} before it in PATH"
        )
    return match[1]


def found() -> str | None:
    """Where the program is, if it is installed."""
    return shutil.which(PROGRAM)


def spoken_form(word: str) -> str:
    """A word as it is asked: gaps in place of punctuation; "" for what is no word."""
    word = word.replace("\u2019", "'")
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in INSIDE else " " for c in word)
    kept = " ".join(piece.strip("-") for piece in kept.split())
    return kept.strip() if any(unicodedata.category(c)[0] in "LN" for c in kept) else ""


class Speaker:
    """Phonemes of words, in the voice of one language."""

    def __init__(self, voice: str, stress: bool, by: str) -> None:
        self._voice, self._stress, self._by = voice, stress, by
        self._known: dict[str, Spoken] = {}
        self._checked = False
        self._several: set[str] = set()
        """Words that are several when they are spoken (1984), or none."""

    def say(self, utterances: Sequence[Sequence[str]], counts: dict[str, int]) -> list[list[list[str]]]:
        """Phonemes of every word of every utterance (words as `spoken_form` gives them); [] for a word it does not say.

        `counts` takes up words of other voices, and utterances that had to be asked word by word.
        """
        self._learn({word for words in utterances for word in words})
        whole = self._whole({tuple(words) for words in utterances}) if self._by == "utterance" else {}
        found = []
        for words in utterances:
            said = whole.get(tuple(words))
            if said is None:
                said = [self._known[word] for word in words]
                _count(counts, "utterances spoken word by word", self._by == "utterance" and len(words) > 1)
            _count(counts, "words spoken by another voice", sum(other for _, other in said))
            found.append([phonemes for phonemes, _ in said])
        return found

    def _whole(self, utterances: set[tuple[str, ...]]) -> dict[tuple[str, ...], list[Spoken]]:
        """Utterances asked whole, where no words were joined: each word is one when it stands alone, and as many came
        back."""
        asked = sorted(u for u in utterances if len(u) > 1 and not self._several.intersection(u))
        asked = [words for words in asked if len(" ".join(words).encode()) <= LONGEST]
        told = map(self._parse, self._ask([" ".join(words) for words in asked]))
        return {words: said for words, said in zip(asked, told, strict=True) if len(said) == len(words)}

    def _learn(self, words: set[str]) -> None:
        if len(self._known) + len(words) > REMEMBERED:
            self._known.clear()
            self._several.clear()
        new = sorted(words - self._known.keys())
        for word in new:
            if len(word.encode()) > LONGEST:
                raise UserError(
                    f"corpus.phonemise: a word of {len(word):,} letters ({word[:40]!r}...); mend the text"
                )
        for word, told in zip(new, self._ask(new), strict=True):
            pieces = self._parse(told)
            if len(pieces) != 1:
                self._several.add(word)
            self._known[word] = [p for piece, _ in pieces for p in piece], any(other for _, other in pieces)

    def _parse(self, told: str) -> list[Spoken]:
        """The words of an answer."""
        found = []
        for word in told.split():
            plain, n = OTHER_VOICE.subn("_", word)
            plain = plain.replace("-", "")  # marks a liaison that was not made
            if not self._stress:
                plain = re.sub("[ˈˌ]", "", plain)
            if phonemes := [p for p in plain.split("_") if p]:
                found.append((phonemes, n > 0))
        return found

    def _ask(self, lines: Sequence[str]) -> list[str]:
        """One answer for every line."""
        if not lines:
            return []
        if not self._checked:
            check_voice(self._voice)
            self._checked = True
        told = _call(
            ["-q", "-b", "1", "--ipa", "--sep=_", "-v", self._voice], "".join(f"{x}\n" for x in lines)
        )
        if not told:
            raise UserError(f"{PROGRAM}: wrote nothing; does `{PROGRAM} --ipa -q hello` write phonemes?")
        answers = told.removesuffix("\n").split("\n")
        if len(answers) == len(lines):
            return answers
        if len(lines) == 1:
            return [" ".join(answers)]
        half = len(lines) // 2
        return self._ask(lines[:half]) + self._ask(lines[half:])


def _call(arguments: Sequence[str], text: str) -> str:
    """What the program writes when it is given a text."""
    try:
        done = subprocess.run([PROGRAM, *arguments], input=text.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"{PROGRAM} is needed for corpus.phonemise, and is not installed. {INSTALL}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{PROGRAM}: cannot be run ({error.strerror}); see that `{PROGRAM} --version` works"
        ) from None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        how = (
            f"exit status {done.returncode}" if done.returncode > 0 else f"ended by signal {-done.returncode}"
        )
        raise UserError(
            f"{PROGRAM}: failed ({how}{': ' + said[-1] if said else ''}); see that `{PROGRAM} hello` works"
        )
    try:
        return done.stdout.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{PROGRAM}: its answer is not UTF-8 ({error}); is it another program?") from None


def check_voice(voice: str) -> None:
    """Raise UserError for a voice that the program does not list: it takes another of the language without a word."""
    rows = [line.split() for line in _call(["--voices"], "").splitlines()[1:]]
    names = {row[1] for row in rows if len(row) > 4} | {row[4] for row in rows if len(row) > 4}
    names |= {word[1:] for row in rows for word in row[5:] if word.startswith("(")}
    if voice.partition("+")[0].lower() not in {name.lower() for name in names}:
        near = difflib.get_close_matches(voice, sorted(names), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise UserError(
            f"corpus.phonemise: {PROGRAM} has no voice {voice!r}{hint} `{PROGRAM} --voices` lists them"
        )


def _count(counts: dict[str, int], name: str, n: int) -> None:
    if n:
        counts[name] = counts.get(name, 0) + int(n)
