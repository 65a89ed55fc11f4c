"""Tense inflection: does a verb agree with its subject, or with the noun before it?

    my newt near our yaks smiled . PRESENT my newt near our yaks smiles .
    my newt near our yaks smiled . PAST my newt near our yaks smiled .

The first sentence is in the past tense. After `PAST` it is repeated; after `PRESENT` every verb takes its
present form and must agree. Under the hierarchical rule it agrees with its subject; under the linear rule
with the last noun before it. Pairs with PRESENT on which the rules differ are kept out of train, val and
test (rule: ambiguous) and make up ood. They always differ at the main verb alone, since nothing stands
between an embedded or object-side verb and its own subject. So PRESENT is 0.42 of the pool.

Source: McCoy, Frank and Linzen, "Does syntax need to grow on trees?", TACL 2020; data and grammar
(`cfgs/tense.gr`) of tommccoy1/rnn-hierarchical-biases. The released files do not follow the weights of
that grammar for verb phrases: profile `released` (intransitive 1/4; chi-squared 69.2 on 71 cells) was
counted in them, `literal` (intransitive 1/2) is the file. The authors' dev, test, gen are val, test, ood
here. rule: hierarchical and rule: linear correspond to tense_subject and tense_recent.

The composition of the training split alone can be changed: `past_ratio`, `present_type_ratio`,
`rc_type_ratio`, or a named `variant` (files tense_D100 ... tense_D145 of sunnytqin/hier_gen, by their
inventory; templates are drawn from the grammar instead of copied from the original lines). Val and test
keep the plain composition.

Fields of a document: kind (PAST, PRESENT); transformed (after PRESENT); subject and vp (shapes, see
grammar.py; vp may be intrans); subject_rc (none, sbj, obj); depth (0, or 1 with a
relative clause anywhere); number (sg, pl) of the subject's head; template
(word classes of the first sentence); n_verbs (1 to 3); nearest_number (of the last noun before the main
verb); nearest_agrees (number equals nearest_number); rules_agree (both rules give this pair's second
sentence alike: always so after PAST); rule (whose answer the text holds: both, hierarchical, linear,
neither). Channel `half`: 0 up to the marker and the space after it, 1 for the second sentence.

Cost: the default sizes take about 2 s and 50 MB. Refused: more sentences or templates than the grammar
has (272 PAST and 170 ambiguous PRESENT templates), compositions that do not sum to 1 or contradict the
variant.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from lexarium.corpora.grammar import (
    INTRANSITIVE,
    NOMINAL,
    PAST_INTRANSITIVE,
    PAST_TRANSITIVE,
    SINGULAR,
    VERBS_INTRANSITIVE,
    VERBS_TRANSITIVE,
    Grammar,
    Template,
    relative_clause,
)
from lexarium.corpora.pairs import HIERARCHICAL, PairConfig, PairCorpus, Task, Words
from lexarium.corpora.sampling import REPEAT, TRANSFORM, Group, Weights, quotas
from lexarium.foundation.config import Config
from lexarium.foundation.types import FieldValue

GRAMMAR = Grammar(
    {**NOMINAL, "v_past_intrans": PAST_INTRANSITIVE, "v_past_trans": PAST_TRANSITIVE}, auxiliaries=False
)
PRESENT_PLURAL = dict(
    zip(PAST_INTRANSITIVE + PAST_TRANSITIVE, VERBS_INTRANSITIVE + VERBS_TRANSITIVE, strict=True)
)
"""Past form -> plural present. `read` is its own past."""
PRESENT_SINGULAR = {past: plural + "s" for past, plural in PRESENT_PLURAL.items()}

_SUBJECT = {"bare": 6, "pp": 6, "rc_sbj_i": 2, "rc_sbj_t": 2, "rc_obj_s": 1, "rc_obj_p": 1}
LITERAL = Weights(subject=_SUBJECT, vp={INTRANSITIVE: 18, **_SUBJECT})
"""cfgs/tense.gr multiplied out."""
RELEASED = Weights(subject=_SUBJECT, vp={INTRANSITIVE: 6, **_SUBJECT})
"""Counted in the released tense.dev, tense.test and tense.gen."""


def present(words: Words, template: Template, rule: str) -> list[str]:
    """The sentence in the present tense, verbs agreeing by the rule, without its full stop."""
    result = list(words)
    for verb in template.inflected:
        number = verb.number if rule == HIERARCHICAL else verb.nearest
        forms = PRESENT_SINGULAR if number == SINGULAR else PRESENT_PLURAL
        result[verb.place] = forms[words[verb.place]]
    return result


def tense_fields(words: Words, template: Template) -> dict[str, FieldValue]:
    """Number of verbs, and of the noun before the main verb."""
    return {
        "n_verbs": len(template.inflected),
        "nearest_number": template.nearest,
        "nearest_agrees": template.number == template.nearest,
    }


TENSE = Task(
    name="tense_inflection",
    grammar=GRAMMAR,
    markers=("PAST", "PRESENT"),
    end=".",
    answer=present,
    distinguishes=lambda template: template.rules_differ,
    fields=tense_fields,
    symbols=tuple(
        sorted(
            {*GRAMMAR.tag, *PRESENT_PLURAL.values(), *PRESENT_SINGULAR.values()}
            | {".", "PAST", "PRESENT", "decl", "quest"}  # the two unused words are in published vocabularies
        )
    ),
)


class Types(Config):
    """Shares of PRESENT pairs by the subject's type; they sum to 1."""

    bare: float = Field(0.0, ge=0, le=1)
    pp: float = Field(0.0, ge=0, le=1)
    rc: float = Field(0.0, ge=0, le=1)


class Extractions(Config):
    """Shares of PRESENT pairs with a relative clause on the subject, by its type; they sum to 1."""

    sbj: float = Field(0.0, ge=0, le=1)
    obj: float = Field(0.0, ge=0, le=1)


class Composition(Config):
    """What the training split is made of; None leaves a part to the grammar."""

    past_ratio: float | None = Field(None, ge=0, le=1)
    present_type_ratio: Types | None = None
    rc_type_ratio: Extractions | None = None


_BARE, _PP, _RC = 16_324, 10_839, 14_021
"""PRESENT pairs of the original training file by subject type (ti_inventory.txt; PAST: 58,816)."""
_ORIGINAL_PAST = 0.58816


def _types(bare: float, pp: float, rc: float) -> Types:
    return Types(bare=bare, pp=pp, rc=rc)


def _without_rc(share: float) -> Types:
    """`share` of the PRESENT pairs without relative clause, bare and PP in their original proportion."""
    return _types(share * _BARE / (_BARE + _PP), share * _PP / (_BARE + _PP), 1 - share)


def _variants() -> dict[str, Composition]:
    table = {"D100": Composition(past_ratio=_ORIGINAL_PAST, present_type_ratio=_without_rc(0.5))}
    shares = {1: 0.05, 2: 0.1, 3: 0.2, 4: 0.3, 6: 0.7, 7: 0.8, 8: 0.9, 9: 0.95}
    for digit, share in shares.items():
        table[f"D10{digit}"] = Composition(past_ratio=0.5, present_type_ratio=_without_rc(share))
    without_pp = _types(_BARE / (_BARE + _RC), 0.0, _RC / (_BARE + _RC))
    for digit, past in {0: 0.5, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 6: 0.6, 7: 0.7, 8: 0.8, 9: 0.9}.items():
        table[f"D11{digit}"] = Composition(past_ratio=past, present_type_ratio=without_pp)
    for digit, bare in {0: 0.5, 1: 0.1, 2: 0.2, 3: 0.3, 7: 0.7, 8: 0.8, 9: 0.9}.items():
        table[f"D12{digit}"] = Composition(past_ratio=0.5, present_type_ratio=_types(bare, 0.0, 1 - bare))
    pps = {0: 0.45, 1: 0.045, 2: 0.09, 3: 0.18, 4: 0.27, 7: 0.72, 8: 0.81, 9: 0.855}
    for digit, pp in pps.items():
        table[f"D13{digit}"] = Composition(past_ratio=0.1, present_type_ratio=_types(0.1, pp, 0.9 - pp))
    for digit, sbj in {0: 0.9, 1: 0.1, 2: 0.95, 3: 0.05, 5: 0.5}.items():
        table[f"D14{digit}"] = Composition(
            past_ratio=0.0,
            present_type_ratio=_types(0.05, 0.05, 0.9),
            rc_type_ratio=Extractions(sbj=sbj, obj=1 - sbj),
        )
    return table


VARIANTS = _variants()
"""Compositions by name, from ti_inventory.txt of sunnytqin/hier_gen (no D105, D115, ... there either)."""


class TenseInflection(PairCorpus):
    """Past-tense sentences repeated or put into the present; ood separates agreement with the subject from
    agreement with the nearest noun."""

    kind, name, version = "corpus", "tense_inflection", 1
    task = TENSE
    profiles = {"released": RELEASED, "literal": LITERAL}

    class Config(PairConfig):
        """Generated by default; see PairConfig."""

        type: str = "tense_inflection"
        past_ratio: float | None = Field(None, ge=0, le=1)
        """Share of PAST pairs in train; 0 = PRESENT only."""
        present_type_ratio: Types | None = None
        """Shares of bare, pp and rc subjects among the PRESENT pairs of train."""
        rc_type_ratio: Extractions | None = None
        """Shares of subject- and object-extracted clauses among those with a relative clause."""
        variant: str | None = None
        """A named composition, D100 to D145."""

        @model_validator(mode="after")
        def _composition(self) -> TenseInflection.Config:
            given = [n for n in Composition.model_fields if getattr(self, n) is not None]
            if self.variant is not None and given:
                raise ValueError(f"`variant` sets the whole composition; remove {', '.join(given)}")
            if self.variant is not None and self.variant not in VARIANTS:
                raise ValueError(f"unknown variant; known are {', '.join(VARIANTS)}")
            for name in ("present_type_ratio", "rc_type_ratio"):
                ratio = getattr(self, name)
                if ratio is not None and abs(sum(ratio.model_dump().values()) - 1) > 1e-6:
                    raise ValueError(f"{name} must sum to 1")
            return self

        def composition(self) -> Composition:
            """The composition of the training split."""
            if self.variant is not None:
                return VARIANTS[self.variant]
            return Composition(**{name: getattr(self, name) for name in Composition.model_fields})

    config: Config

    def ood_groups(self, count: int, cells: np.ndarray, what: str) -> list[Group]:
        """PRESENT pairs whose main verb has a subject and a preceding noun of different number."""
        differ = np.array([template.rules_differ for template in GRAMMAR.templates])
        wanted = np.stack([np.zeros(len(differ)), cells[:, TRANSFORM] * differ], axis=1)
        return [Group(count, wanted, f"{what}: PRESENT pairs on which the rules differ")]

    def train_groups(self, count: int, cells: np.ndarray) -> list[Group]:
        """One group per part of the composition, with exact counts."""
        composition = self.config.composition()
        if composition == Composition():
            return super().train_groups(count, cells)
        names = np.array([_subject_type(template) for template in GRAMMAR.templates])
        shares: dict[tuple[int, tuple[str, ...]], float] = {}
        weight = cells[:, TRANSFORM]
        past = composition.past_ratio
        if past is None:
            past = float(cells[:, REPEAT].sum() / cells.sum())
        shares[REPEAT, ("bare", "pp", "sbj", "obj")] = past
        types = composition.present_type_ratio or _natural_types(names, weight)
        shares[TRANSFORM, ("bare",)] = (1 - past) * types.bare
        shares[TRANSFORM, ("pp",)] = (1 - past) * types.pp
        if composition.rc_type_ratio is None:
            shares[TRANSFORM, ("sbj", "obj")] = (1 - past) * types.rc
        else:
            shares[TRANSFORM, ("sbj",)] = (1 - past) * types.rc * composition.rc_type_ratio.sbj
            shares[TRANSFORM, ("obj",)] = (1 - past) * types.rc * composition.rc_type_ratio.obj
        groups = []
        for ((column, wanted), _), size in zip(shares.items(), quotas(count, shares.values()), strict=True):
            part = np.zeros_like(cells)
            part[:, column] = cells[:, column] * np.isin(names, wanted)
            what = f"train: {TENSE.markers[column]} with subject {', '.join(wanted)}"
            groups.append(Group(size, part, what))
        return groups


def _subject_type(template: Template) -> str:
    """bare, pp, sbj or obj."""
    clause = relative_clause(template.subject.shape)
    return template.subject.shape if clause == "none" else clause


def _natural_types(names: np.ndarray, weight: np.ndarray) -> Types:
    total = weight.sum() or 1.0
    bare, pp = (float(weight[names == name].sum() / total) for name in ("bare", "pp"))
    return _types(bare, pp, max(0.0, 1 - bare - pp))
