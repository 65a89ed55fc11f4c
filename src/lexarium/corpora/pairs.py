"""Corpora of sentence pairs: a sentence, a marker, and the same sentence repeated or transformed.

What question formation and tense inflection share: the `Task` (grammar, markers, the answers of the two
rules), the released text format, and `PairCorpus`, which either generates its splits or reads files.

Text format of McCoy, Frank and Linzen (2020), one pair per line, UTF-8, the marker before a tab:

    my raven that doesn't sleep does change . quest<TAB>does my raven that doesn't sleep change ?

A document's text is the line with a space in place of the tab; lines stored that way are read as well.

Splits are generated in the order ood, train, val, test, each skipping every sentence of the ones before.
So the ood split depends on its own size and the seed alone, and every arm of a comparison that varies
the training data is scored on the same sentences.

Refused, with file and line: text that is not UTF-8, an empty file or line, no marker or two, words or
sentences outside the grammar, and outputs that the marker's rule does not give (see `targets`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from lexarium.corpora.grammar import Grammar, Template
from lexarium.corpora.sampling import (
    REPEAT,
    TRANSFORM,
    Bits,
    Drawn,
    Group,
    Sampler,
    Weights,
    choose_cells,
    template_weights,
)
from lexarium.foundation.config import ComponentConfig, Config, outside_identity
from lexarium.foundation.files import sha256_file, write_atomic
from lexarium.foundation.types import Document, FieldValue, UserError

SPLITS = ("train", "val", "test", "ood")
HIERARCHICAL, LINEAR = "hierarchical", "linear"
MARKERS = ("decl", "quest", "PAST", "PRESENT")
LARGEST = 10_000_000
"""Pairs per split; documents are held in memory, about 300 bytes each."""
Words = Sequence[str]
Targets = Literal["hierarchical", "linear", "any"]


@dataclass(frozen=True)
class Task:
    """Grammar, markers and rules of one of the two tasks.

    answer(words, template, rule) is what the transforming marker asks for, without its final sign,
    under the `hierarchical` or the `linear` rule; distinguishes(template) tells whether these differ.
    fields(words, template) are document fields beyond those of the template. `symbols` are all words of
    the vocabulary.
    """

    name: str
    grammar: Grammar
    markers: tuple[str, str]
    end: str
    answer: Callable[[Words, Template, str], list[str]]
    distinguishes: Callable[[Template], bool]
    fields: Callable[[Words, Template], dict[str, FieldValue]]
    symbols: tuple[str, ...]

    def output(self, words: Words, template: Template, column: int, rule: str) -> list[str]:
        """The second half of a pair, with its final sign."""
        if column == REPEAT:
            return [*words, "."]
        return [*self.answer(words, template, rule), self.end]

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The symbols as a set."""
        return frozenset(self.symbols)

    def column(self, marker: str) -> int:
        """REPEAT or TRANSFORM."""
        return self.markers.index(marker)


@dataclass(frozen=True)
class Pair:
    """One line taken apart. `words` are the input without its full stop, `output` has its final sign."""

    words: tuple[str, ...]
    template: Template
    column: int
    output: tuple[str, ...]


class Sizes(Config):
    """Number of pairs in each split; 0 leaves a split out."""

    train: int = Field(100_000, ge=0, le=LARGEST)
    val: int = Field(1_000, ge=0, le=LARGEST)
    test: int = Field(10_000, ge=0, le=LARGEST)
    ood: int = Field(10_000, ge=0, le=LARGEST)


class Files(Config):
    """Paths of files in the released format, one per split."""

    train: str | None = None
    val: str | None = None
    test: str | None = None
    ood: str | None = None

    def paths(self) -> dict[str, Path]:
        """Split -> path, for the splits that are given."""
        given = {split: getattr(self, split) for split in SPLITS}
        return {split: Path(path).expanduser() for split, path in given.items() if path is not None}


class PairConfig(ComponentConfig):
    """Fields that both tasks share."""

    sizes: Sizes = Sizes()
    """Pairs per split."""
    seed: int = 0
    """Seed of the data; the run's seeds do not touch it."""
    weights: Literal["released", "literal"] = "released"
    """Frequencies of sentence types: as counted in the released files, or as written in the grammar."""
    rule: Literal["ambiguous", "hierarchical", "linear"] = "ambiguous"
    """`ambiguous`: train, val and test hold only pairs on which both rules agree. Otherwise all pairs
    occur and outputs follow this rule, in every split."""
    disambiguating: int = Field(0, ge=0, le=LARGEST)
    """So many pairs on which the rules differ, with the hierarchical output, are added to train."""
    templates: int | None = Field(None, ge=1)
    """Number of distinct templates (counted with their marker) in train, val and test."""
    template_weights: Literal["natural", "uniform"] = "natural"
    """Frequencies of the templates: those of `weights`, or all equal."""
    files: Files | None = outside_identity(None)
    """Read these files instead of generating; their content enters the fingerprint."""
    targets: Targets = "hierarchical"
    """Which outputs a file may hold: those of the rule, or any words of the lexicon."""

    @model_validator(mode="after")
    def _one_source(self) -> PairConfig:
        if self.files is None:
            if self.targets != "hierarchical":
                raise ValueError("`targets` is about files; generated outputs follow `rule`")
            if not any(getattr(self.sizes, split) for split in SPLITS):
                raise ValueError("every split has size 0; give at least one a size")
        else:
            if not self.files.paths():
                raise ValueError(f"`files` names no file; give at least one of {', '.join(SPLITS)}")
            told = [
                name
                for name, info in type(self).model_fields.items()
                if name not in ("type", "files", "targets") and getattr(self, name) != info.default
            ]
            if told:
                raise ValueError(f"with `files` nothing is generated; remove {', '.join(told)}")
        if self.disambiguating and self.rule != "ambiguous":
            raise ValueError("`disambiguating` adds to ambiguous data; it needs rule: ambiguous")
        if self.disambiguating and not self.sizes.train:
            raise ValueError("`disambiguating` adds to train, whose size is 0")
        return self


class PairCorpus(ABC):
    """Generates or reads the splits of a task, once per object.

    A component adds `task`, `profiles` (name -> Weights), `ood_groups` and, where its config has more
    to say about the composition of the training data, `train_groups`.
    """

    task: Task
    profiles: dict[str, Weights]

    def __init__(self, config: PairConfig) -> None:
        self.config = config
        self._read: dict[str, list[Document]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are not empty, in the order train, val, test, ood."""
        if self.config.files is not None:
            return tuple(self.config.files.paths())
        return tuple(split for split in SPLITS if getattr(self.config.sizes, split))

    def documents(self, split: str) -> Iterator[Document]:
        """The pairs of a split, always in the same order."""
        if split not in self.splits:
            raise UserError(f"{self.task.name} has no split {split!r}; it has {', '.join(self.splits)}")
        if self.config.files is None:
            return iter(self._generated[split])
        if split not in self._read:
            path = self.config.files.paths()[split]
            self._read[split] = read_released(path, self.task, self.config.targets)
        return iter(self._read[split])

    def symbols(self) -> list[str]:
        """All words of the task, whether or not a document holds them."""
        return list(self.task.symbols)

    def fingerprint(self) -> str:
        """sha256 over the splits' names and the content of their files; "" when generated."""
        if self.config.files is None:
            return ""
        digest = hashlib.sha256()
        for split, path in self.config.files.paths().items():
            _require_file(path)
            digest.update(f"{split} {sha256_file(path)}\n".encode())
        return digest.hexdigest()

    # --- generation -----------------------------------------------------------------------------

    @abstractmethod
    def ood_groups(self, count: int, cells: np.ndarray, what: str) -> list[Group]:
        """Requests for pairs on which the rules differ; cells (272, 2) are the profile's weights."""

    def train_groups(self, count: int, cells: np.ndarray) -> list[Group]:
        """Requests for the training split; cells (272, 2) are those of the validation data."""
        return [Group(count, cells, "train")]

    def cells(self) -> np.ndarray:
        """(272, 2) weights of template x marker in train, val and test."""
        config, grammar = self.config, self.task.grammar
        cells = self._natural_cells()
        if config.rule == "ambiguous":
            differ = [template.index for template in grammar.templates if self.task.distinguishes(template)]
            cells[differ, TRANSFORM] = 0.0
        if config.template_weights == "uniform":
            cells = (cells > 0).astype(np.float64)
        if config.templates is not None:
            possible = int((cells > 0).sum())
            if config.templates > possible:
                repeat, transform = (cells > 0).sum(axis=0)
                raise UserError(
                    f"{self.task.name}: templates: {config.templates} is more than the {possible} there"
                    f" are ({repeat} with {self.task.markers[0]}, {transform} with {self.task.markers[1]})"
                )
            cells = choose_cells(cells, config.templates, Bits(config.seed, self.task.name, "templates"))
        return cells

    def _natural_cells(self) -> np.ndarray:
        weights = template_weights(self.task.grammar, self.profiles[self.config.weights])
        return np.stack([weights, weights], axis=1)

    @cached_property
    def _generated(self) -> dict[str, list[Document]]:
        config, sampler = self.config, Sampler(self.task.grammar)
        natural, cells = self._natural_cells(), self.cells()
        requests = {
            "ood": self.ood_groups(config.sizes.ood, natural, "ood"),
            "train": self.train_groups(config.sizes.train, cells)
            + self.ood_groups(config.disambiguating, natural, "disambiguating"),
            "val": [Group(config.sizes.val, cells, "val")],
            "test": [Group(config.sizes.test, cells, "test")],
        }
        drawn = {}
        for split, groups in requests.items():
            groups = [group for group in groups if group.count]
            if groups:
                drawn[split] = sampler.split(groups, Bits(config.seed, self.task.name, split))
        rule = LINEAR if config.rule == LINEAR else HIERARCHICAL
        builder = _Builder(self.task)
        return {split: list(builder.generated(sentences, rule)) for split, sentences in drawn.items()}


class _Builder:
    """Makes documents of one task; equal fields and channels are shared between documents."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._fields: dict[tuple, dict[str, FieldValue]] = {}
        self._halves: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {}

    def generated(self, drawn: Drawn, rule: str) -> Iterator[Document]:
        grammar = self.task.grammar
        sentences = grammar.words(drawn.templates, drawn.codes)
        for words, index, column in zip(
            sentences, drawn.templates.tolist(), drawn.columns.tolist(), strict=True
        ):
            template = grammar.templates[index]
            yield self.document(words, template, column, self.task.output(words, template, column, rule))

    def document(self, words: Words, template: Template, column: int, output: Words) -> Document:
        first = f"{' '.join(words)} . {self.task.markers[column]} "
        text = first + " ".join(output)
        halves = self._halves.get((len(first), len(text)))
        if halves is None:
            halves = {"half": (0,) * len(first) + (1,) * (len(text) - len(first))}
            self._halves[len(first), len(text)] = halves
        return Document(text, self.fields(words, template, column, output), halves)

    def fields(self, words: Words, template: Template, column: int, output: Words) -> dict[str, FieldValue]:
        """All fields of a pair; `rule` says whose answer the output is."""
        own = self.task.fields(words, template)
        main = self.task.output(words, template, column, HIERARCHICAL)
        linear = self.task.output(words, template, column, LINEAR)
        given = list(output)
        key = (template.index, column, given == main, given == linear, *own.values())
        if key not in self._fields:
            rules = {(True, True): "both", (True, False): HIERARCHICAL, (False, True): LINEAR}
            self._fields[key] = {
                "kind": self.task.markers[column],
                "transformed": column == TRANSFORM,
                **template.fields(),
                **own,
                "rules_agree": main == linear,
                "rule": rules.get((given == main, given == linear), "neither"),
            }
        return self._fields[key]


# --- the released format ----------------------------------------------------------------------------


def parse_pair(text: str, task: Task, targets: Targets = "hierarchical") -> Pair:
    """Take a line or a document's text apart; UserError says what is wrong with it."""
    words = text.replace("\t", " ").split(" ")
    if "" in words:
        raise UserError("two spaces in a row, or a space at an end; words stand one space apart")
    places = [place for place, word in enumerate(words) if word in task.markers]
    if len(places) != 1:
        foreign = [word for word in words if word in MARKERS]
        found = f"{len(places)} markers" if places else "no marker"
        found = f"the other task's marker {foreign[0]!r}" if foreign and not places else found
        raise UserError(f"{found}; expected one of {' and '.join(task.markers)} after the first sentence")
    (place,) = places
    sentence, output, column = words[:place], words[place + 1 :], task.column(words[place])
    if "\t" in text and (text.count("\t") > 1 or not text.split("\t")[0].endswith(words[place])):
        raise UserError(f"the tab must stand right after {words[place]!r}, once")
    if not sentence or sentence[-1] != ".":
        raise UserError(f"the first sentence must end in ' .' before {words[place]!r}")
    template = task.grammar.parse(sentence[:-1])
    pair = Pair(tuple(sentence[:-1]), template, column, tuple(output))
    _check_output(pair, task, targets)
    return pair


def _check_output(pair: Pair, task: Task, targets: Targets) -> None:
    if targets == "any":
        strange = [word for word in pair.output if word not in task.vocabulary]
        if strange or not pair.output:
            raise UserError(f"unknown word {strange[0]!r}" if strange else "nothing follows the marker")
        return
    expected = task.output(pair.words, pair.template, pair.column, targets)
    if list(pair.output) != expected:
        raise UserError(
            f"the output is {' '.join(pair.output)!r}, but {task.markers[pair.column]!r} asks for"
            f" {' '.join(expected)!r} ({targets} rule; `targets` accepts {', '.join(get_args(Targets))})"
        )


def read_released(path: Path | str, task: Task, targets: Targets = "hierarchical") -> list[Document]:
    """Documents from a file in the released format; fields come from parsing the sentences."""
    path = Path(path).expanduser()
    _require_file(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")  # a byte order mark is no word
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from None
    if not text:
        raise UserError(f"{path}: empty; expected one pair per line")
    builder, documents = _Builder(task), []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            if not line.strip():
                raise UserError("empty line; expected a pair such as 'our newt does wait . decl<TAB>...'")
            pair = parse_pair(line.removesuffix("\r"), task, targets)
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        documents.append(builder.document(pair.words, pair.template, pair.column, pair.output))
    return documents


def write_released(documents: Iterable[Document], path: Path | str) -> int:
    """Write documents of either task in the released format, replacing the file at once; returns how many."""
    lines = []
    for number, document in enumerate(documents, start=1):
        words = document.text.split(" ")
        places = [place for place, word in enumerate(words) if word in MARKERS]
        if len(places) != 1 or "\n" in document.text or "\t" in document.text:
            raise UserError(
                f"document {number} is not a pair: {document.text!r}; expected one of"
                f" {', '.join(MARKERS)} between two sentences"
            )
        cut = places[0] + 1
        lines.append(f"{' '.join(words[:cut])}\t{' '.join(words[cut:])}\n")
    write_atomic(Path(path).expanduser(), "".join(lines))
    return len(lines)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file; `files` wants files in the released format")
