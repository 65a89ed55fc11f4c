"""Question formation: move the main auxiliary to the front, or just the first one?

    my raven that doesn't sleep does change . quest does my raven that doesn't sleep change ?
    my raven that doesn't sleep does change . decl my raven that doesn't sleep does change .

After `decl` the sentence is repeated, after `quest` it becomes a question. The hierarchical rule moves the
main auxiliary, the linear rule the first one. They differ only when the subject has a relative clause.
Such questions are kept out of train, val and test (rule: ambiguous), and make up ood, where in addition
the sentence has exactly two auxiliaries, equal in number and opposite in polarity, so that agreement
gives nothing away and the two answers are different words. Two thirds of ood have a subject-extracted
relative clause, one third an object-extracted one. Questions in the pool are therefore 0.4 of the pairs.

Source: McCoy, Frank and Linzen, "Does syntax need to grow on trees?", TACL 2020; data and grammar
(`cfgs/question.gr`) of tommccoy1/rnn-hierarchical-biases. The released train, dev and test files do not
follow the weights of that grammar. Profile `released` has weights counted in those files (chi-squared
39.1 on 54 cells over 10,935 sentences); `literal` has those of the file. Ood follows question.gr under
both. Names differ between sources: the authors' dev, test, gen are val, test, ood here, and their
descendants call gen "test". Template-diversity data (files question_D20 ... question_D374 of
kabirahuja2431/transformers-hg) are `templates: 20` with `template_weights: uniform`; with `natural`, the
variants named v2. rule: hierarchical and rule: linear correspond to question_main and question_first.

Fields of a document: kind (quest, decl); transformed (after quest); subject and vp (shapes, see
grammar.py; vp may be intrans); subject_rc (none, sbj, obj); depth (0, or 1 with a
relative clause anywhere); number (sg, pl) of the subject; template (word
classes of the first sentence); n_aux (auxiliaries in the first sentence, 1 to 3); n_distinct_aux;
rules_agree (both rules give this pair's second sentence alike); rule (whose answer the text holds: both,
hierarchical, linear, neither). Channel `half`: 0 up to the marker and the space after it, 1 for the second
sentence.

Cost: the default sizes take about 2 s and 50 MB. Refused: more sentences or templates than the grammar
has (272 declarative and 102 question templates).
"""

from __future__ import annotations

import numpy as np

from lexarium.corpora.grammar import (
    AUXILIARIES,
    INTRANSITIVE,
    NOMINAL,
    PLURAL,
    SINGULAR,
    VERBS_INTRANSITIVE,
    VERBS_TRANSITIVE,
    Grammar,
    Template,
    relative_clause,
)
from lexarium.corpora.pairs import HIERARCHICAL, PairConfig, PairCorpus, Task, Words
from lexarium.corpora.sampling import Group, Weights, quotas, template_weights
from lexarium.foundation.types import FieldValue

GRAMMAR = Grammar(
    {
        **NOMINAL,
        "aux_s": AUXILIARIES[SINGULAR],
        "aux_p": AUXILIARIES[PLURAL],
        "v_intrans": VERBS_INTRANSITIVE,
        "v_trans": VERBS_TRANSITIVE,
    },
    auxiliaries=True,
)
_AUXILIARY_PLACES = [tuple(word.place for word in template.inflected) for template in GRAMMAR.templates]

LITERAL = Weights(
    subject={"bare": 6, "pp": 6, "rc_sbj_i": 2, "rc_sbj_t": 2, "rc_obj_s": 1, "rc_obj_p": 1},
    vp={INTRANSITIVE: 18, "bare": 6, "pp": 6, "rc_sbj_i": 2, "rc_sbj_t": 2, "rc_obj_s": 1, "rc_obj_p": 1},
)
"""cfgs/question.gr multiplied out."""
RELEASED = Weights(
    subject={"bare": 15, "pp": 6, "rc_sbj_i": 2, "rc_sbj_t": 2, "rc_obj_s": 2, "rc_obj_p": 2},
    vp={INTRANSITIVE: 6, "bare": 6, "pp": 6, "rc_sbj_i": 4, "rc_sbj_t": 2, "rc_obj_s": 1, "rc_obj_p": 1},
)
"""Counted in the released question.dev and question.test."""

OOD_SHARES = {"sbj": 2 / 3, "obj": 1 / 3}
"""Relative clause of the subject in ood: 6,667 and 3,333 of 10,000."""


def question(words: Words, template: Template, rule: str) -> list[str]:
    """The question without its question mark: an auxiliary moved to the front, the rest unchanged."""
    place = template.main if rule == HIERARCHICAL else template.inflected[0].place
    return [words[place], *words[:place], *words[place + 1 :]]


def main_is_not_first(template: Template) -> bool:
    """True when another auxiliary precedes the main one: the subject has a relative clause."""
    return template.inflected[0].place != template.main


def question_fields(words: Words, template: Template) -> dict[str, FieldValue]:
    """Number of auxiliaries, and of different ones."""
    auxiliaries = [words[place] for place in _AUXILIARY_PLACES[template.index]]
    return {"n_aux": len(auxiliaries), "n_distinct_aux": len(set(auxiliaries))}


QUESTION = Task(
    name="question_formation",
    grammar=GRAMMAR,
    markers=("decl", "quest"),
    end="?",
    answer=question,
    distinguishes=main_is_not_first,
    fields=question_fields,
    symbols=tuple(sorted({*GRAMMAR.tag, ".", "?", "decl", "quest"})),
)


class QuestionFormation(PairCorpus):
    """Declaratives repeated or turned into questions; ood separates the hierarchical from the linear rule."""

    kind, name, version = "corpus", "question_formation", 1
    task = QUESTION
    profiles = {"released": RELEASED, "literal": LITERAL}

    class Config(PairConfig):
        """Generated by default; see PairConfig."""

        type: str = "question_formation"

    def ood_groups(self, count: int, cells: np.ndarray, what: str) -> list[Group]:
        """Questions with a relative clause on the subject, two auxiliaries of one number and opposite
        polarity, by relative clause; frequencies are those of question.gr whatever the profile."""
        weights = template_weights(GRAMMAR, LITERAL)
        groups = []
        for (extracted, _), size in zip(OOD_SHARES.items(), quotas(count, OOD_SHARES.values()), strict=True):
            fits = np.array([_fits_ood(template, extracted) for template in GRAMMAR.templates])
            wanted = np.stack([np.zeros_like(weights), weights * fits], axis=1)
            name = f"{what}: questions with {extracted} relative clause on the subject"
            groups.append(Group(size, wanted, name, accept=_opposite_polarity, share=0.5))
        return groups


def _fits_ood(template: Template, extracted: str) -> bool:
    numbers = {word.number for word in template.inflected}
    return (
        relative_clause(template.subject.shape) == extracted
        and len(template.inflected) == 2
        and len(numbers) == 1
    )


def _strides() -> np.ndarray:
    """(272, 2) strides of the first two auxiliaries in a code; 1 where there is no second."""
    strides = np.ones((len(GRAMMAR.templates), 2), dtype=np.int64)
    for template, places in zip(GRAMMAR.templates, _AUXILIARY_PLACES, strict=True):
        for nth, place in enumerate(places[:2]):
            strides[template.index, nth] = GRAMMAR.stride(template, place)
    return strides


_STRIDES = _strides()


def _opposite_polarity(templates: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n,) bool: the first two auxiliaries are one affirmative and one negated."""
    polarity = codes[:, None] // _STRIDES[templates] % 2
    return polarity[:, 0] != polarity[:, 1]
