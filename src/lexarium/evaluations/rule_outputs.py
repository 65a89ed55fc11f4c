"""What a generated second sentence shows about the rule behind it.

For questions the categories of McCoy, Frank and Linzen (2020), after Crain and Nakayama (1987): which
auxiliary of the input was deleted (d1 the first, d2 the second, dn none) and which word was put in front
(p1, p2, or po for an auxiliary that is not in the input). `d2p2` is the hierarchical answer to a question
with a relative clause on the subject, `d1p1` the linear one. In `sent_evals.py` of
tommccoy1/rnn-hierarchical-biases the po categories compare a list with a string and never apply; here
they do.

For both tasks whether the output has the word classes of the target, and for tense what became of the
main verb. As there, the main verb of an output counts only when all its word classes are right. Unlike
there, number is read off the form and not off a final s, so that a verb left in the past has no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lexarium.corpora.grammar import AUXILIARIES, Template
from lexarium.corpora.pairs import Task
from lexarium.corpora.question_formation import QUESTION
from lexarium.corpora.tense_inflection import PRESENT_PLURAL, PRESENT_SINGULAR, TENSE

CATEGORIES = ("d1p1", "d1p2", "d1po", "d2p1", "d2p2", "d2po", "dnp1", "dnp2", "dnpo", "other")
AUXILIARY_WORDS = tuple(word for words in AUXILIARIES.values() for word in words)
FINAL = (".", "?")

_COARSE = {"det": "D", "n": "N", "prep": "P", "rel": "R", "aux": "A", "v": "V"}


def _classes() -> dict[str, str]:
    classes = dict.fromkeys(FINAL, ".")
    for task in (QUESTION, TENSE):
        classes |= {word: _COARSE[tag.split("_")[0]] for word, tag in task.grammar.tag.items()}
    for forms in (PRESENT_SINGULAR, PRESENT_PLURAL):
        classes |= dict.fromkeys(forms.values(), "V")
    return classes


WORD_CLASS: Mapping[str, str] = _classes()
"""Word -> class without number, form or valency."""


def cut(text: str) -> list[str]:
    """Words of a generated text up to and including the first final sign."""
    words = text.split()
    ends = [place for place, word in enumerate(words) if word in FINAL]
    return words[: ends[0] + 1] if ends else words


def same_classes(target: Sequence[str], output: Sequence[str]) -> bool:
    """True when output and target have the same sequence of word classes."""
    unknown = object()
    return [WORD_CLASS.get(word, unknown) for word in output] == [WORD_CLASS[word] for word in target]


def question_category(words: Sequence[str], output: Sequence[str]) -> str:
    """One of CATEGORIES for an output, given the declarative without its full stop.

    With both auxiliaries the same word, the one in front counts as the one that was deleted.
    """
    if len(output) < 2 or output[0] not in AUXILIARY_WORDS or output[-1] not in FINAL:
        return "other"
    places = [place for place, word in enumerate(words) if word in AUXILIARY_WORDS]
    front, body = output[0], list(output[1:-1])
    for name, place in (*zip(("d1", "d2"), places, strict=False), ("dn", None)):
        if body == [word for i, word in enumerate(words) if i != place]:
            fronted = [n for n, p in zip("12", places, strict=False) if words[p] == front]
            if fronted:
                return f"{name}p{name[1] if name[1] in fronted else fronted[0]}"
            return "other" if front in words else f"{name}po"
    return "other"


def verb_number(word: str) -> str:
    """sg, pl, or "" for a word that is not a present-tense verb."""
    if word in PRESENT_SINGULAR.values():
        return "sg"
    return "pl" if word in PRESENT_PLURAL.values() else ""


def tense_outcome(
    template: Template, target: Sequence[str], output: Sequence[str], linear: str
) -> dict[str, bool]:
    """What became of the main verb in an output whose word classes are right; all False otherwise."""
    if not same_classes(target, output):
        return dict.fromkeys(("main_verb", "linear_verb", "correct_number", "incorrect_number"), False)
    found = output[template.main]
    number = verb_number(found)
    return {
        "main_verb": found == target[template.main],
        "linear_verb": found == linear != target[template.main],
        "correct_number": number == template.number,
        "incorrect_number": number not in ("", template.number),
    }


def task_of(words: Sequence[str]) -> Task | None:
    """The task whose marker occurs among the words; None when there is no marker."""
    for task in (QUESTION, TENSE):
        if any(marker in words for marker in task.markers):
            return task
    return None
