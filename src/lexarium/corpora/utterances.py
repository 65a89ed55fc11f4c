"""Utterances of symbols with their words: phonemes or letters, one utterance per line or row, word boundaries known.

    {type: utterances, path: eng.txt}                     w ʌ t WORD_BOUNDARY dʒ ʌ s t WORD_BOUNDARY
    {type: utterances, path: br.txt, form: letters}       yu want tu si D6 bUk         (one character = one symbol)
    {type: utterances, path: childes.csv, column: phonemized_utterance, max_age: 120, children: drop}
    {type: utterances, path: book.txt, form: words, phonemise: en-us}                      (spoken by espeak-ng)

A document is an utterance; its field `words` is their number. With `boundaries: channel`, the default, its text holds
no word boundary: the channel `word_start` is 1 at the first character of every word (of every token that begins one),
0 elsewhere. With `token` the boundaries stay in the text too: `WORD_BOUNDARY` after every word, or, of letters, a space
between words. `joined` writes symbols without spaces between them, for tokenizers of pieces of words; word boundaries
that stay are then spaces.

Refused, with file and line: a last word without a marker, markers (of letters: blanks) that follow each other or begin
an utterance, a marker spelt otherwise (`WORD_BOUNDaRY` exists), empty utterances, the names of marks as symbols, and
symbols of more than `longest_symbol` letters: words whose symbols are not separated. So are a marker that is written
together with a symbol, line ends of another kind than LF and CRLF, and characters that nobody sees (zero-width blanks,
byte-order marks; joiners of letters are none of them). `repair` names which of these are mended instead; what was
mended is counted in the store's manifest. Ages and `is_child` that cannot be read are refused, rows without an age are
left out and counted. Files are read as `text_files` reads them: of any size, compressed or not.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from lexarium.corpora import espeak
from lexarium.corpora.reading import form_of
from lexarium.corpora.splits import ROLES, SplitConfig
from lexarium.corpora.text_files import TextFiles
from lexarium.corpora.utterance_text import BOUNDARY, Place, Reader, Repair, count
from lexarium.foundation import rng
from lexarium.foundation.config import ComponentConfig, outside_identity
from lexarium.foundation.files import sha256_json
from lexarium.foundation.types import Document, FieldValue, Part, UserError

CHANNEL = "word_start"
YES, NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
SPOKEN_AT_ONCE = 5_000
"""Utterances that are given to espeak-ng together."""


class Lines(TextFiles):
    """Text files whose empty lines are documents too."""

    keep_empty = True
    mends = False
    which = "say which are corpus.column, corpus.age_column, corpus.child_column and corpus.fields"


class Utterances:
    """Utterances of symbols, with the words they are made of."""

    kind, name, version = "corpus", "utterances", 1
    repeats = True

    class Config(ComponentConfig):
        """Options of `utterances`."""

        type: str = "utterances"
        path: tuple[str, ...] = outside_identity(())
        """Files, folders and glob patterns."""
        val_path: tuple[str, ...] = outside_identity(())
        """Files that are the validation split, whole."""
        test_path: tuple[str, ...] = outside_identity(())
        """Files that are the test split, whole."""
        form: Literal["symbols", "letters", "words"] = "symbols"
        """Symbols between spaces and a marker after every word; words between spaces, every letter a symbol; or words
        between spaces that `phonemise` turns into phonemes."""
        phonemise: str = Field("", pattern=r"^([A-Za-z][\w+/.-]*)?$")
        """Voice of espeak-ng, such as en-us or fr-fr, of `form: words`."""
        phonemise_by: Literal["word", "utterance"] = "word"
        """Ask for every distinct word once, alone (citation forms), or for utterances (weak forms, liaison)."""
        stress: Literal["drop", "keep"] = "drop"
        """Marks of stress, which espeak-ng writes before a vowel."""
        marker: str = Field("WORD_BOUNDARY", min_length=1)
        """What stands after every word; `;eword` in files for wordseg."""
        format: Literal["auto", "jsonl", "tsv", "csv", "parquet"] = "auto"
        """What tables are, where their names do not tell."""
        column: str = ""
        """Column or key of the utterance, of tables (CSV, TSV, JSONL, Parquet); empty = lines of text."""
        fields: tuple[str, ...] = ()
        """Columns kept with every utterance, for `split.field` and views: the speaker, the transcript."""
        max_age: float | None = Field(None, ge=0)
        """Keep rows whose `age_column` holds at most so many months; rows without an age are left out."""
        age_column: str = "target_child_age"
        children: Literal["keep", "drop"] = "keep"
        """Rows whose `child_column` is true: utterances of children."""
        child_column: str = "is_child"
        boundaries: Literal["channel", "token"] = "channel"
        """Where word boundaries are: in the channel `word_start` alone, or in the text too."""
        joined: bool = False
        """Write the symbols of a word without spaces."""
        normalise: Literal["NFC", "NFD", "none"] = "NFC"
        """Unicode form of the text."""
        case: Literal["keep", "lower"] = "keep"
        """Lower-case the text, for orthographic corpora."""
        accents: Literal["keep", "strip"] = "keep"
        """Leave combining marks out, for orthographic corpora."""
        control: Literal["none", "uniform", "unigram"] = "none"
        """Draw every symbol anew: all alike, or as frequent as in train. Lengths of utterances stay."""
        control_boundaries: Literal["keep", "draw"] = "keep"
        """Word boundaries of a control: where they were, which keeps word lengths, or anywhere inside utterances, as
        frequent as in train: then nothing at all says where words begin."""
        control_seed: int = 0
        """Seed of what `control` draws; the run's seeds do not touch it."""
        longest_symbol: int = Field(3, ge=1)
        """Letters of a symbol, combining and modifying ones not counted; of `form: symbols`."""
        repair: tuple[Repair, ...] = ()
        """Mistakes that are mended and counted instead of refused."""
        split: SplitConfig = SplitConfig()

        @field_validator("path", "val_path", "test_path", "fields", "repair", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

        @model_validator(mode="after")
        def _fits(self) -> Utterances.Config:
            if not self.column and self.format != "auto":
                raise ValueError(
                    "format is of tables; name their `column`, or leave it out for lines of text"
                )
            if not self.column and (self.max_age is not None or self.children == "drop" or self.fields):
                raise ValueError("max_age, children and fields are of the rows of a table; name its `column`")
            if taken := {"file", "place", "words"} & set(self.fields):
                raise ValueError(
                    f"fields: {sorted(taken)[0]!r} is what every utterance has already; rename the column"
                )
            if " " in self.marker:
                raise ValueError(f"marker {self.marker!r} holds a space; symbols are separated by spaces")
            if (self.form == "words") != bool(self.phonemise):
                raise ValueError(
                    "form: words and phonemise (a voice, as en-us) go together; give both or neither"
                )
            if not self.phonemise and (self.phonemise_by, self.stress) != ("word", "drop"):
                raise ValueError(
                    "phonemise_by and stress are of words that are phonemised; say form: words, phonemise"
                )
            if self.control == "none" and self.control_boundaries == "draw":
                raise ValueError("control_boundaries belongs to a control; say control: unigram, or uniform")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        filters = [config.age_column] * (config.max_age is not None)
        filters += [config.child_column] * (config.children == "drop")
        columns = tuple(dict.fromkeys([*config.fields, *filters]))
        table = {"text": config.column, "fields": columns, "format": config.format}
        table = table if config.column else {"format": "text"}
        self._lines = Lines(
            TextFiles.Config(
                path=config.path,
                val_path=config.val_path,
                test_path=config.test_path,
                documents="line",
                separators="keep",
                split=config.split,
                **table,
            )
        )

        self._reader = Reader(config)
        self._speaker = espeak.Speaker(config.phonemise, config.stress == "keep", config.phonemise_by)

    # -- what a corpus offers: see TextFiles ---------------------------------------------------------

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """train, and what is held out of it or named beside it."""
        return self._lines.splits

    def symbols(self) -> list[str]:
        """None beyond those of the text."""
        return []

    def fingerprint(self) -> str:
        """Hash of every file's role, name and content, and of the version of espeak-ng where that is used."""
        files = self._lines.fingerprint()
        return sha256_json([files, self._program()]) if self.config.phonemise else files

    def record(self) -> dict[str, Any]:
        """What was read, for the manifest."""
        spoken = {"phonemes": self._program()} if self.config.phonemise else {}
        return {**self._lines.record(), **spoken}

    def _program(self) -> dict[str, str]:
        return {"program": espeak.PROGRAM, "version": espeak.version(espeak.found())}

    def text_size(self, splits: Sequence[str] = ROLES) -> int:
        """Bytes of the text of some splits."""
        return self._lines.text_size(splits)

    def parts(self) -> list[Part]:
        """Every part of the corpus, in reading order. Raises UserError for tables without, and texts with, a column."""
        for _, file in self._lines.files:
            table = form_of(file.path)[0] not in (None, "text")
            if table and not self.config.column:
                raise UserError(
                    f"{file.path}: is a table, by its name; say which is corpus.column, for example"
                    " corpus.column=phonemized_utterance"
                )
            if self.config.column and file.format == "text":
                raise UserError(
                    f"{file.path}: is text, by its name, and corpus.column names a column of tables; leave it out, and"
                    " corpus.max_age, corpus.children and corpus.fields with it"
                )
        return self._lines.parts()

    def read(self, part: Part, counts: dict[str, int]) -> Iterator[tuple[str, Document]]:
        """(split, document) of one part; `counts` takes up what was mended and left out."""
        found = self._found(part, counts)
        for split, fields, where, words in self._spoken(found, counts) if self.config.phonemise else found:
            for symbol in itertools.chain.from_iterable(words):
                self._reader.check(symbol, where)
            if words:
                drawn = words if self.config.control == "none" else self._drawn(words, fields)
                yield split, self._document(drawn, fields)

    def documents(self, split: str) -> Iterator[Document]:
        """The utterances of a split, in order."""
        for part in self.parts():
            for name, document in self.read(part, {}):
                if name == split:
                    yield document

    # -- one utterance -------------------------------------------------------------------------------

    def _found(self, part: Part, counts: dict[str, int]) -> Iterator[Utterance]:
        """The utterances of a part as they are written."""
        number, _ = part.where
        for split, line in self._lines.read(part, counts):
            where = Place(self._lines.files[number][1], line.fields)
            if self._wanted(line.fields, where, counts):
                yield split, line.fields, where, self._reader.words(line.text, where, counts)

    def _drawn(self, words: list[list[str]], fields: Any) -> list[list[str]]:
        """As many symbols, drawn by the place of the utterance, in words of the same lengths or cut anywhere."""
        symbols, shares, rate = self._inventory
        random = rng.generator(self.config.control_seed, self.name, str(fields["file"]), int(fields["place"]))
        drawn = [symbols[i] for i in random.choice(len(symbols), sum(map(len, words)), p=shares).tolist()]
        edges = np.cumsum([len(word) for word in words])[:-1]
        if self.config.control_boundaries == "draw":
            edges = 1 + np.flatnonzero(random.random(len(drawn) - 1) < rate)
        places = [0, *edges.tolist(), len(drawn)]
        return [drawn[a:b] for a, b in itertools.pairwise(places)]

    @cached_property
    def _inventory(self) -> tuple[list[str], np.ndarray, float]:
        """The symbols of train, what a control draws them with, and the share of places inside utterances where a
        word begins: one more reading of the corpus."""
        plain = Utterances(
            self.config.model_copy(
                update={
                    "control": "none",
                    "control_boundaries": "keep",
                    "boundaries": "channel",
                    "joined": False,
                }
            )
        )
        counts, words, n = Counter[str](), 0, 0
        for document in plain.documents("train"):
            counts.update(document.text.split(" ") if self.config.form != "letters" else document.text)
            words, n = words + int(document.fields["words"]), n + 1
        symbols = sorted(counts)
        shares = np.array([counts[s] if self.config.control == "unigram" else 1.0 for s in symbols])
        return symbols, shares / shares.sum(), (words - n) / max(1, counts.total() - n)

    def _spoken(self, found: Iterator[Utterance], counts: dict[str, int]) -> Iterator[Utterance]:
        """Utterances of one orthographic word per list, as phonemes."""
        while batch := list(itertools.islice(found, SPOKEN_AT_ONCE)):
            said = self._speaker.say([[word for (word,) in words] for *_, words in batch], counts)
            for (split, fields, where, written), words in zip(batch, said, strict=True):
                for (word,), phonemes in zip(written, words, strict=True):
                    if not phonemes:
                        self._reader.mend(
                            "unspoken", where, f"espeak-ng does not say the word {word!r}", counts
                        )
                spoken = [word for word in words if word]
                if written and not spoken:
                    self._reader.mend("empty", where, "an utterance of which nothing is said", counts)
                yield split, fields, where, spoken

    def _wanted(self, fields: Any, where: Place, counts: dict[str, int]) -> bool:
        """Whether a row of a table is kept: the age is known and low enough, and the speaker wanted."""
        c = self.config
        if c.max_age is not None:
            age = _months(fields[c.age_column], c.age_column, where)
            if age is None or age > c.max_age:
                count(counts, "no age" if age is None else "too old")
                return False
        if c.children == "drop":
            child = str(fields[c.child_column]).strip().lower()
            if child not in (*YES, *NO):
                raise UserError(
                    f"{where}: {c.child_column} is {fields[c.child_column]!r}; expected true or false for a child's and"
                    " another's utterance"
                )
            if child in YES:
                count(counts, "child speech")
                return False
        return True

    def _document(self, words: list[list[str]], fields: Any) -> Document:
        c = self.config
        apart = "" if c.joined or c.form == "letters" else " "
        between = " " if c.joined or c.form == "letters" else f" {BOUNDARY} "
        if c.boundaries == "channel":
            between = apart
        text = between.join(apart.join(word) for word in words)
        if c.boundaries == "token" and between.strip():
            text += f" {BOUNDARY}"
        starts = [0] * len(text)
        place = 0
        for word in words:
            starts[place] = 1
            place += len(apart.join(word)) + len(between)
        kept: dict[str, FieldValue] = {k: fields[k] for k in ("file", "place", *c.fields)}
        kept["words"] = len(words)
        return Document(text, kept, {CHANNEL: starts})


Utterance = tuple[str, Any, Place, list[list[str]]]
"""Split, fields, place and words, each a list of symbols."""


def _months(value: Any, column: str, where: Place) -> float | None:
    """An age; None where there is none."""
    if value is None or str(value).strip().lower() in ("", "nan", "none", "null"):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not found >= 0:
        raise UserError(f"{where}: {column} is {value!r}; expected a number of months, like 27.5")
    return found
