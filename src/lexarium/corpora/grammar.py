"""The English fragment behind question formation and tense inflection, as a finite set of templates.

The grammars of McCoy, Frank and Linzen (2020; `cfgs/question.gr`, `cfgs/tense.gr` of
tommccoy1/rnn-hierarchical-biases) do not recurse: a subject or object is a bare noun phrase or carries
one prepositional phrase or one relative clause, and what is inside is bare. So a grammar is exactly
272 TEMPLATES (2 numbers x 8 subjects x 17 verb phrases), each a row of word classes:

    det n_s rel aux_s v_intrans aux_s v_trans det n_p       "my raven that doesn't sleep does amuse our yaks"

and a sentence is a template plus one number, its CODE, that says which word of each class stands in
each slot (mixed radix, last slot fastest). Counting is exact, drawing is integer arithmetic on arrays,
and two sentences are equal exactly when template and code are. No word belongs to two classes of the
same grammar, so parsing is a look-up: words -> classes -> template.

Word classes are named as in the `.type` files of sunnytqin/hier_gen. Shapes of noun phrases, which are
also the values of the document fields `subject` and `vp`:

    bare      det n                         rc_sbj_i  det n rel (aux) v_intrans
    pp        det n prep det n              rc_sbj_t  det n rel (aux) v_trans det n
    rc_obj_s  det n rel det n_s (aux) v_trans         rc_obj_p  det n rel det n_p (aux) v_trans

Cost: building a grammar takes about 9 ms; parsing a sentence about 2 microseconds. Refused, each with
what was found and what the grammar allows there: words outside the lexicon, sequences outside the
templates, wrong agreement.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lexarium.foundation.types import UserError

SINGULAR, PLURAL = "sg", "pl"
NUMBERS = (SINGULAR, PLURAL)
SHAPES = ("bare", "pp", "rc_sbj_i", "rc_sbj_t", "rc_obj_s", "rc_obj_p")
"""Shapes of a noun phrase."""
INTRANSITIVE = "intrans"
"""Verb phrase without object; the other values of `vp` are the shape of the object."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DETERMINERS = _words("the some my your our her")
NOUNS_SINGULAR = _words(
    "newt orangutan peacock quail raven salamander tyrannosaurus unicorn vulture walrus xylophone yak zebra"
)
NOUNS_PLURAL = _words(
    "newts orangutans peacocks quails ravens salamanders tyrannosauruses unicorns vultures walruses"
    " xylophones yaks zebras"
)
PREPOSITIONS = _words("around near with upon by behind above below")
RELATIVES = _words("who that")
VERBS_INTRANSITIVE = _words("giggle smile sleep swim wait move change read eat")
VERBS_TRANSITIVE = _words("entertain amuse high_five applaud confuse admire accept remember comfort")
PAST_INTRANSITIVE = _words("giggled smiled slept swam waited moved changed read ate")
PAST_TRANSITIVE = _words(
    "entertained amused high_fived applauded confused admired accepted remembered comforted"
)
AUXILIARIES = {SINGULAR: ("does", "doesn't"), PLURAL: ("do", "don't")}
"""Auxiliaries by number; the two lists are parallel: affirmative, negated."""

NOMINAL: dict[str, Sequence[str]] = {
    "det": DETERMINERS,
    "n_s": NOUNS_SINGULAR,
    "n_p": NOUNS_PLURAL,
    "prep": PREPOSITIONS,
    "rel": RELATIVES,
}
"""Word classes that both grammars share."""


class NotInGrammar(UserError):
    """A sentence that the grammar does not generate."""


class Phrase(NamedTuple):
    """A noun phrase without its words: number of the head, shape, number of the second noun ("" if none)."""

    number: str
    shape: str
    inner: str


class Slot(NamedTuple):
    """One place of a template: its word class and, for a word that agrees, the number of its subject."""

    tag: str
    agrees: str = ""


class Inflected(NamedTuple):
    """An auxiliary (question grammar) or verb (tense grammar): place, number of its subject, number of
    the noun before it."""

    place: int
    number: str
    nearest: str


def phrases(number: str) -> list[Phrase]:
    """The eight noun phrases whose head has this number."""
    return [
        Phrase(number, "bare", ""),
        Phrase(number, "pp", SINGULAR),
        Phrase(number, "pp", PLURAL),
        Phrase(number, "rc_sbj_i", ""),
        Phrase(number, "rc_sbj_t", SINGULAR),
        Phrase(number, "rc_sbj_t", PLURAL),
        Phrase(number, "rc_obj_s", SINGULAR),
        Phrase(number, "rc_obj_p", PLURAL),
    ]


def relative_clause(shape: str) -> str:
    """`none`, `sbj` (subject-extracted) or `obj` (object-extracted) for a shape."""
    return shape.split("_")[1] if shape.startswith("rc_") else "none"


@dataclass(frozen=True)
class Template:
    """One of the 272 sentence templates of a grammar.

    `inflected` lists auxiliaries (or verbs) from left to right; `main` is the place of the main one.
    """

    index: int
    subject: Phrase
    object: Phrase | None
    tags: tuple[str, ...]
    inflected: tuple[Inflected, ...]
    main: int

    @property
    def number(self) -> str:
        """Number of the subject's head noun."""
        return self.subject.number

    @property
    def vp(self) -> str:
        """`intrans` or the shape of the object."""
        return self.object.shape if self.object else INTRANSITIVE

    @cached_property
    def main_inflected(self) -> Inflected:
        """The entry of `inflected` at `main`."""
        return next(word for word in self.inflected if word.place == self.main)

    @property
    def nearest(self) -> str:
        """Number of the last noun before the main auxiliary or verb."""
        return self.main_inflected.nearest

    @property
    def rules_differ(self) -> bool:
        """True when some auxiliary or verb has a subject whose number differs from the noun before it."""
        return any(word.number != word.nearest for word in self.inflected)

    @property
    def depth(self) -> int:
        """Levels of clauses inside the main one: 1 with a relative clause anywhere (the grammars nest no deeper)."""
        return int(any(p is not None and p.shape.startswith("rc_") for p in (self.subject, self.object)))

    def fields(self) -> dict[str, str | int]:
        """Document fields that depend on the template alone, common to both tasks."""
        return {
            "subject": self.subject.shape,
            "subject_rc": relative_clause(self.subject.shape),
            "vp": self.vp,
            "depth": self.depth,
            "number": self.number,
            "template": " ".join(self.tags),
        }


class Grammar:
    """The templates over a lexicon, with counting, rendering and parsing.

    classes: word class -> words. `auxiliaries` chooses between the question grammar (every verb has an
    auxiliary that agrees, verbs are bare) and the tense grammar (every verb agrees; past forms).
    """

    def __init__(self, classes: Mapping[str, Sequence[str]], auxiliaries: bool) -> None:
        self.classes = {tag: tuple(words) for tag, words in classes.items()}
        self.auxiliaries = auxiliaries
        self.templates = self._build()
        self.by_tags = {template.tags: template for template in self.templates}
        self.tag = {word: tag for tag, words in self.classes.items() for word in words}
        self.sizes = np.array([self.stride(t, -1) for t in self.templates], dtype=np.int64)
        """(272,) number of sentences of each template."""
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        """(272,) first key of each template: key = offset + code numbers all sentences of the grammar."""

    # --- construction ---------------------------------------------------------------------------

    def _build(self) -> tuple[Template, ...]:
        templates = []
        for number in NUMBERS:
            for subject in phrases(number):
                objects = [None, *(phrase for n in NUMBERS for phrase in phrases(n))]
                templates += [(subject, phrase) for phrase in objects]
        return tuple(self._template(i, *pair) for i, pair in enumerate(templates))

    def _template(self, index: int, subject: Phrase, object: Phrase | None) -> Template:
        slots = self._noun_phrase(subject)
        main = len(slots)
        slots += self._verb("trans" if object else "intrans", subject.number)
        if object:
            slots += self._noun_phrase(object)
        inflected, nearest = [], SINGULAR
        for place, slot in enumerate(slots):
            if slot.agrees:
                inflected.append(Inflected(place, slot.agrees, nearest))
            elif slot.tag.startswith("n_"):
                nearest = SINGULAR if slot.tag == "n_s" else PLURAL
        return Template(index, subject, object, tuple(s.tag for s in slots), tuple(inflected), main)

    def _noun_phrase(self, phrase: Phrase) -> list[Slot]:
        head, inner = self._noun(phrase.number), self._noun(phrase.inner)
        match relative_clause(phrase.shape), phrase.shape:
            case "sbj", "rc_sbj_i":
                return [*head, Slot("rel"), *self._verb("intrans", phrase.number)]
            case "sbj", _:
                return [*head, Slot("rel"), *self._verb("trans", phrase.number), *inner]
            case "obj", _:
                return [*head, Slot("rel"), *inner, *self._verb("trans", phrase.inner)]
            case _, "pp":
                return [*head, Slot("prep"), *inner]
        return head

    def _noun(self, number: str) -> list[Slot]:
        return [Slot("det"), Slot(f"n_{number[0]}")] if number else []

    def _verb(self, valency: str, number: str) -> list[Slot]:
        if self.auxiliaries:
            return [Slot(f"aux_{number[0]}", number), Slot(f"v_{valency}")]
        return [Slot(f"v_past_{valency}", number)]

    # --- sentences ------------------------------------------------------------------------------

    def words(self, templates: np.ndarray, codes: np.ndarray) -> list[tuple[str, ...]]:
        """Sentences (without the full stop) from template indices (n,) and codes (n,)."""
        result: list[tuple[str, ...]] = [()] * len(templates)
        order = np.argsort(templates, kind="stable")
        bounds = np.flatnonzero(np.diff(templates[order])) + 1
        for rows in np.split(order, bounds):
            if not len(rows):
                continue
            columns, rest = [], codes[rows]
            for tag in reversed(self.templates[templates[rows[0]]].tags):
                rest, digit = np.divmod(rest, len(self.classes[tag]))
                columns.append(np.array(self.classes[tag], dtype=object)[digit])
            for row, sentence in zip(rows.tolist(), zip(*reversed(columns), strict=True), strict=True):
                result[row] = sentence
        return result

    def stride(self, template: Template, place: int) -> int:
        """codes // stride % size of the class = which word of its class stands at `place`."""
        return math.prod(len(self.classes[tag]) for tag in template.tags[place + 1 :])

    def parse(self, words: Sequence[str]) -> Template:
        """The template of a sentence given without its full stop; NotInGrammar says what is wrong."""
        try:
            return self.by_tags[tuple([self.tag[word] for word in words])]
        except KeyError:
            raise NotInGrammar(self._explain(words)) from None

    def _explain(self, words: Sequence[str]) -> str:
        for word in words:
            if word not in self.tag:
                near = difflib.get_close_matches(word, list(self.tag), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                return f"unknown word {word!r}{hint}"
        found: tuple[str, ...] = ()
        for word in words:
            allowed = self._continuations.get(found, set())
            if self.tag[word] not in allowed:
                before = f"after {' '.join(words[: len(found)])!r}" if found else "at the start"
                allows = ", ".join(sorted(allowed)) or "the end of the sentence"
                return f"{before} found {word!r} ({self.tag[word]}); the grammar allows {allows}"
            found = (*found, self.tag[word])
        allows = ", ".join(sorted(self._continuations.get(found, set())))
        return f"{' '.join(words)!r} is incomplete; the grammar goes on with {allows}"

    @cached_property
    def _continuations(self) -> dict[tuple[str, ...], set[str]]:
        found: dict[tuple[str, ...], set[str]] = {}
        for template in self.templates:
            for n, tag in enumerate(template.tags):
                found.setdefault(template.tags[:n], set()).add(tag)
        return found
