"""Which rule a model follows where two rules part: hierarchical or linear.

Every question (`quest`) and every PRESENT pair of a split is an item; pairs whose sentence is only
repeated are not scored. The model is asked for the one word that decides:

    question  prefix: declarative with its full stop + `quest`
              decision: the best of does, doesn't, do, don't
              hierarchical: the main auxiliary; linear: the first auxiliary
    tense     prefix: past-tense sentence + `PRESENT` + right output up to the main verb
              decision: the best of ALL tokens
              hierarchical: the verb agreeing with the subject; linear: with the nearest noun

This is how sunnytqin/hier_gen (Qin, Saphra and Alvarez-Melis, EMNLP 2025) measures. For tense two more
definitions are in use, and one number means nothing without its definition: `constrained` chooses between
the two present forms of the verb, and `greedy` lets the model write the whole second sentence after
`PRESENT` and looks at the place of the main verb, whatever stands around it (Ahuja et al., TACL 2025).
For questions `constrained` changes nothing and `greedy` looks at the first word written (McCoy, Frank and
Linzen, TACL 2020).

Metrics of a split: `hierarchical`, also called `main_auxiliary` or `main_verb`; `linear_rule`, only where
it gives another word than the hierarchical rule; `other`. The three sum to 1. `rules_differ` is the share
of items where the rules give different words: 0 in the validation data, where `hierarchical` is plain
accuracy, and 1 in ood. `by_subject` repeats the first two for each type of subject, with relative clauses
together too (rc, rc_sbj, rc_obj); `by_template` for each row of word classes.

`full_sentence` adds greedy generation: `full_sentence` (exactly the hierarchical answer),
`full_sentence_linear` (exactly the linear one, where it differs), `word_classes` (right sequence of word
classes). Questions get `category.d2p2` and so on, tense `written.main_verb`, `written.linear_verb`,
`written.correct_number`, `written.incorrect_number` (see rule_outputs.py).

`sentence_probability` asks for no word but compares two whole lines: of the questions whose sentence has two
different auxiliaries, the share whose right question has a higher log-probability than the one that fronts
the other auxiliary (the third measure of the hierarchical-generalization code base, which takes at most
1,000 of them). `sentence_probability_items` is their number.

The rules' answers come from parsing each sentence, so files labelled by another rule are scored alike.
Cost: parsing happens once, when the evaluation is built (about 30 microseconds per document); a run is
one forward pass over the prefixes, with `greedy` or `full_sentence` one per generated word. Refused: a
split without an item, sentences outside the grammar, a direction other than forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from lexarium.corpora.grammar import Template, relative_clause
from lexarium.corpora.pairs import HIERARCHICAL, LINEAR, Task, parse_pair, read_released
from lexarium.corpora.question_formation import QUESTION
from lexarium.corpora.sampling import TRANSFORM
from lexarium.corpora.tense_inflection import PRESENT_PLURAL, PRESENT_SINGULAR, TENSE
from lexarium.evaluations.evaluation import SplitsConfig
from lexarium.evaluations.rule_outputs import (
    AUXILIARY_WORDS,
    CATEGORIES,
    cut,
    question_category,
    same_classes,
    task_of,
    tense_outcome,
)
from lexarium.foundation.types import Document, Result, UserError

CHUNK = 2048
"""Prefixes per request, which bounds the array of scores."""
MAX_WORDS = 50
"""Tokens generated at most; the longest answer of the grammars has 18 words."""
FROM_FILE = "data"
"""Name of the split when a file is scored."""
WRITTEN = ("main_verb", "linear_verb", "correct_number", "incorrect_number")
Prefix = tuple[str, str]


class Data(Protocol):
    """The part of EvaluationData that is used."""

    tokenizer: Any

    def documents(self, split: str) -> Sequence[Document]:
        """Documents of a split, with their text."""


@dataclass(frozen=True)
class Item:
    """One decision: everything that depends on the data alone."""

    document: int
    text: str
    task: Task
    template: Template
    words: tuple[str, ...]
    gold: tuple[str, ...]
    linear: tuple[str, ...]

    @property
    def place(self) -> int:
        """Place of the deciding word in the second sentence."""
        return 0 if self.task is QUESTION else self.template.main

    @property
    def asked(self) -> str:
        """First sentence with its marker."""
        return f"{' '.join(self.words)} . {self.task.markers[TRANSFORM]}"


@dataclass
class Prepared:
    """The items of a split as parallel columns, with masks (n,) by task and group."""

    items: list[Item]
    prefixes: list[Prefix]
    gold: np.ndarray
    linear: np.ndarray
    tasks: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)


class RuleChoice:
    """Shares of items on which the model follows the hierarchical rule, the linear rule, or neither."""

    kind, name, version = "evaluation", "rule_choice", 1
    asks = frozenset({"next_scores"})
    directions = ("forward",)

    class Config(SplitsConfig):
        """What is asked, and what is reported."""

        type: str = "rule_choice"
        definition: Literal["teacher_forced", "constrained", "greedy"] = "teacher_forced"
        """How the deciding word is obtained."""
        full_sentence: bool = False
        """Generate second sentences as well and score them whole."""
        sentence_probability: bool = False
        """Compare the probabilities of whole questions as well."""
        by_subject: bool = True
        """Metrics for each type of subject."""
        by_template: bool = False
        """Metrics for each row of word classes."""
        data: str | None = None
        """Score this file in the released format instead of the splits; its split is called `data`."""
        limit: int = Field(0, ge=0)
        """Only the first so many items of each split; 0 = all."""

    def __init__(self, config: Config, data: Data) -> None:
        self.config, self.tokenizer = config, data.tokenizer
        self.asks = self.asked(config)
        found: dict[str, Sequence[Document]]
        if config.data is not None:
            found = {FROM_FILE: _read(Path(config.data).expanduser())}
        else:
            found = {split: data.documents(split) for split in config.splits}
        self.prepared = {split: self._prepare(split, documents) for split, documents in found.items()}

    @staticmethod
    def asked(config: Config) -> frozenset[str]:
        """Questions of the scorer that these options need."""
        asks = {"generate"} if config.definition == "greedy" else {"next_scores"}
        asks |= {"generate"} if config.full_sentence else set()
        return frozenset(asks | ({"token_scores"} if config.sentence_probability else set()))

    # --- preparation ----------------------------------------------------------------------------

    def _prepare(self, split: str, documents: Sequence[Document]) -> Prepared:
        items: list[Item] = []
        for number, document in enumerate(documents):
            if self.config.limit and len(items) == self.config.limit:
                break
            item = _item(split, number, document)
            if item is not None:
                items.append(item)
        if not items:
            example = f"; its first document is {documents[0].text!r}" if documents else ""
            raise UserError(
                f"evaluation rule_choice: split {split!r} has no pair to score: none of its {len(documents)}"
                f" documents has the marker {QUESTION.markers[TRANSFORM]!r} or"
                f" {TENSE.markers[TRANSFORM]!r}{example}"
            )
        prepared = Prepared(
            items=items,
            prefixes=[self._prefix(item) for item in items],
            gold=np.array([item.gold[item.place] for item in items]),
            linear=np.array([item.linear[item.place] for item in items]),
        )
        for task, name in ((QUESTION, "main_auxiliary"), (TENSE, "main_verb")):
            mask = np.array([item.task is task for item in items])
            if mask.any():
                prepared.tasks[name] = mask
        prepared.groups = self._groups(items)
        return prepared

    def _prefix(self, item: Item) -> Prefix:
        begun = "" if self.config.definition == "greedy" else " ".join(item.gold[: item.place])
        return item.asked, begun

    def _groups(self, items: list[Item]) -> dict[str, np.ndarray]:
        named: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            names = []
            if self.config.by_subject:
                shape = item.template.subject.shape
                clause = relative_clause(shape)
                names = [f"by_subject.{shape}"]
                names += [] if clause == "none" else ["by_subject.rc", f"by_subject.rc_{clause}"]
            if self.config.by_template:
                names.append(f"by_template.{'-'.join(item.template.tags)}")
            for name in names:
                named.setdefault(name, []).append(i)
        masks = {}
        for name in sorted(named):
            masks[name] = np.zeros(len(items), dtype=bool)
            masks[name][named[name]] = True
        return masks

    # --- asking ---------------------------------------------------------------------------------

    def run(self, scorer: Any, key: int) -> Result:
        """Metrics by split and one row per item. Nothing is random: `key` is not used."""
        if scorer.direction != "forward":
            raise UserError(
                "evaluation rule_choice asks for the word after a prefix, which needs direction forward;"
                f" this run has direction {scorer.direction!r}. Remove the evaluation from the run"
            )
        result = Result({})
        for split, prepared in self.prepared.items():
            written = self._written(scorer, prepared)
            predictions = self._predictions(scorer, prepared, written)
            chosen = self._choices(split, prepared, predictions, result.metrics)
            columns = _columns(split, prepared, predictions, chosen)
            if self.config.full_sentence:
                columns |= _whole_sentences(split, prepared.items, written, result.metrics)
            if self.config.sentence_probability:
                columns |= _sentence_probabilities(split, prepared.items, scorer, result.metrics)
            for name, values in columns.items():
                result.items.setdefault(name, []).extend(values)
        return result

    def _written(self, scorer: Any, prepared: Prepared) -> list[list[str]]:
        """Generated second sentences, where they are needed."""
        if not self.config.full_sentence and self.config.definition != "greedy":
            return []
        return [
            cut(text) for text in scorer.generate([(item.asked, "") for item in prepared.items], MAX_WORDS)
        ]

    def _predictions(self, scorer: Any, prepared: Prepared, written: list[list[str]]) -> np.ndarray:
        """(n,) the deciding words."""
        if self.config.definition == "greedy":
            pairs = zip(prepared.items, written, strict=True)
            return np.array([words[item.place] if item.place < len(words) else "" for item, words in pairs])
        words = np.full(len(prepared.items), "", dtype=object)
        for task in (QUESTION, TENSE):
            rows = np.array([i for i, item in enumerate(prepared.items) if item.task is task], dtype=np.int64)
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                prefixes = [prepared.prefixes[i] for i in part]
                if task is QUESTION:
                    best = scorer.choose(prefixes, list(AUXILIARY_WORDS))
                    words[part] = [AUXILIARY_WORDS[i] for i in best]
                elif self.config.definition == "constrained":
                    forms = [_forms(prepared.items[i]) for i in part]
                    best = scorer.choose(prefixes, forms)
                    words[part] = [pair[i] for pair, i in zip(forms, best, strict=True)]
                else:
                    words[part] = self._words(scorer, scorer.next_scores(prefixes).argmax(axis=1), prepared)
        return words

    def _words(self, scorer: Any, ids: np.ndarray, prepared: Prepared) -> list[str]:
        """Words of token ids: verbs by the scorer's own ids, anything else as the tokenizer writes it."""
        verbs = {str(word) for words in (prepared.gold, prepared.linear) for word in np.unique(words)}
        known = {scorer.id(word): word for word in verbs if word in TENSE.symbols}
        other = lambda i: self.tokenizer.decode([i]).strip() or f"<{i}>"
        return [known[i] if i in known else other(i) for i in ids.tolist()]

    # --- counting -------------------------------------------------------------------------------

    def _choices(
        self, split: str, prepared: Prepared, predictions: np.ndarray, metrics: dict[str, float | int]
    ) -> np.ndarray:
        """(n,) `hierarchical`, `linear` or `other` per item; adds the split's metrics."""
        differ = prepared.gold != prepared.linear
        main = predictions == prepared.gold
        linear = differ & (predictions == prepared.linear)
        metrics[f"{split}.hierarchical"] = float(main.mean())
        for name, mask in prepared.tasks.items():
            metrics[f"{split}.{name}"] = float(main[mask].mean())
        metrics[f"{split}.linear_rule"] = float(linear.mean())
        metrics[f"{split}.other"] = float((~main & ~linear).mean())
        metrics[f"{split}.rules_differ"] = float(differ.mean())
        metrics[f"{split}.items"] = len(main)
        for name, mask in prepared.groups.items():
            metrics[f"{split}.{name}.hierarchical"] = float(main[mask].mean())
            metrics[f"{split}.{name}.linear_rule"] = float(linear[mask].mean())
            metrics[f"{split}.{name}.items"] = int(mask.sum())
        return np.where(main, HIERARCHICAL, np.where(linear, LINEAR, "other"))


def _item(split: str, number: int, document: Document) -> Item | None:
    """The item of a document, or None when its sentence is only repeated or it has no marker."""
    task = task_of(document.text.split(" "))
    if task is None:
        return None
    try:
        pair = parse_pair(document.text, task, "any")
    except UserError as error:
        raise UserError(
            f"evaluation rule_choice: document {number + 1} of split {split!r} is not a pair of"
            f" {task.name}: {error} (in: {document.text!r})"
        ) from None
    if pair.column != TRANSFORM:
        return None
    gold = task.output(pair.words, pair.template, TRANSFORM, HIERARCHICAL)
    linear = task.output(pair.words, pair.template, TRANSFORM, LINEAR)
    return Item(number, document.text, task, pair.template, pair.words, tuple(gold), tuple(linear))


def _read(path: Path) -> list[Document]:
    """Documents of a file of either task, whatever rule its second sentences follow."""
    where = f"evaluation rule_choice: data: {path}"
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8; save the file as UTF-8") from None
    if not first:
        raise UserError(f"{where}: empty; expected one pair per line")
    task = task_of(first.replace("\t", " ").split())
    if task is None:
        known = ", ".join((*QUESTION.markers, *TENSE.markers))
        raise UserError(f"{where}:1: no marker; expected one of {known}")
    return read_released(path, task, "any")


def _forms(item: Item) -> list[str]:
    """Singular and plural present form of the main verb."""
    past = item.words[item.template.main]
    return [PRESENT_SINGULAR[past], PRESENT_PLURAL[past]]


def _columns(
    split: str, prepared: Prepared, predictions: np.ndarray, chosen: np.ndarray
) -> dict[str, list[Any]]:
    items = prepared.items
    return {
        "split": [split] * len(items),
        "document": [item.document for item in items],
        "task": [item.task.name for item in items],
        "text": [item.text for item in items],
        "template": [" ".join(item.template.tags) for item in items],
        "subject": [item.template.subject.shape for item in items],
        "prediction": [str(word) for word in predictions],
        "gold": prepared.gold.tolist(),
        "linear": prepared.linear.tolist(),
        "correct": (chosen == HIERARCHICAL).tolist(),
        "choice": chosen.tolist(),
    }


def _other_question(item: Item) -> tuple[str, ...] | None:
    """The question that fronts the first auxiliary that is another word than the main one."""
    if item.task is not QUESTION:
        return None
    words, right = item.words, item.gold[0]
    place = next((w.place for w in item.template.inflected if words[w.place] != right), None)
    return None if place is None else (words[place], *words[:place], *words[place + 1 :], item.gold[-1])


def _line(item: Item, question: Sequence[str]) -> Document:
    """A sentence and a question as one document, with the channel `half`."""
    asked = f"{item.asked} "
    text = asked + " ".join(question)
    return Document(text, channels={"half": [0] * len(asked) + [1] * (len(text) - len(asked))})


def _sentence_probabilities(
    split: str, items: list[Item], scorer: Any, metrics: dict[str, float | int]
) -> dict[str, list[Any]]:
    """The share of right questions that are the more probable ones; column `sentence_advantage` in nats."""
    others = [(i, other) for i, item in enumerate(items) if (other := _other_question(item))]
    lines = [_line(items[i], q) for i, other in others for q in (items[i].gold, other)]
    # nothing predicts a first token without bos, or the source of an encoder-decoder: NaN there
    sums = np.array([np.nansum(scores) for scores in scorer.token_scores(lines)]).reshape(-1, 2)
    advantage = np.full(len(items), np.nan)
    advantage[[i for i, _ in others]] = sums[:, 0] - sums[:, 1]
    if others:
        metrics[f"{split}.sentence_probability"] = float((sums[:, 0] > sums[:, 1]).mean())
    metrics[f"{split}.sentence_probability_items"] = len(others)
    return {"sentence_advantage": advantage.tolist()}


def _whole_sentences(
    split: str, items: list[Item], written: list[list[str]], metrics: dict[str, float | int]
) -> dict[str, list[Any]]:
    """Metrics of generated sentences; columns `output` and `category`."""
    pairs = list(zip(items, written, strict=True))
    right = [tuple(words) == item.gold for item, words in pairs]
    linear = [tuple(words) == item.linear != item.gold for item, words in pairs]
    classes = [same_classes(item.gold, words) for item, words in pairs]
    metrics[f"{split}.full_sentence"] = float(np.mean(right))
    metrics[f"{split}.full_sentence_linear"] = float(np.mean(linear))
    metrics[f"{split}.word_classes"] = float(np.mean(classes))
    categories = [
        question_category(item.words, words) if item.task is QUESTION else "" for item, words in pairs
    ]
    counted = Counter(category for category in categories if category)
    for category in CATEGORIES if counted else ():
        metrics[f"{split}.category.{category}"] = counted[category] / counted.total()
    outcomes = [
        tense_outcome(item.template, item.gold, words, item.linear[item.place])
        for item, words in pairs
        if item.task is TENSE
    ]
    for name in WRITTEN if outcomes else ():
        metrics[f"{split}.written.{name}"] = float(np.mean([outcome[name] for outcome in outcomes]))
    return {"output": [" ".join(words) for words in written], "category": categories}
