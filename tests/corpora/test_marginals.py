"""Generated sentence types have the frequencies of the released files; other weights are told apart.

Reference counts were taken by parsing the released dev, test and gen files of McCoy et al. (2020) and are
written out below, so that these tests need no data. The shortest template (det n (aux) v) is left out: it
is exhausted, and its share depends on the order of drawing. Seeds are fixed; a wrong profile is rejected
by tens of orders of magnitude, so the threshold of 0.001 is far from both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy import stats

from lexarium.corpora import question_formation, tense_inflection
from lexarium.corpora.pairs import read_released
from lexarium.corpora.question_formation import QUESTION, QuestionFormation
from lexarium.corpora.sampling import Weights, template_weights
from lexarium.corpora.tense_inflection import TENSE, TenseInflection
from lexarium.foundation.types import Document

ACCEPT, REJECT = 1e-3, 1e-12
VPS = ("intrans", "bare", "pp", "rc_sbj_i", "rc_sbj_t", "rc_obj_s", "rc_obj_p")

# dev + test, subject x verb phrase
QUESTION_DECL = {
    "bare": (35, 850, 897, 581, 309, 156, 147),
    "pp": (373, 341, 372, 228, 127, 60, 58),
    "rc_sbj_i": (104, 120, 128, 81, 41, 27, 15),
    "rc_sbj_t": (115, 116, 111, 83, 38, 34, 15),
    "rc_obj_s": (104, 107, 129, 68, 42, 18, 19),
    "rc_obj_p": (112, 110, 119, 84, 44, 23, 19),
}
QUESTION_QUEST = {
    "bare": (30, 858, 915, 573, 286, 127, 141),
    "pp": (348, 352, 350, 226, 117, 58, 59),
}
# gen, shares of 10,000; the sampling of intransitive subject relatives thinned in the released file
QUESTION_GEN = {
    "rc_sbj_i": (1883, 636, 685),
    "rc_sbj_t": (2053, 708, 702),
    "rc_obj_s": (1005, 342, 353),
    "rc_obj_p": (980, 316, 337),
}
QUESTION_LENGTHS = {  # test file, words of the first sentence with full stop, without the shortest
    "quest": {7: 778, 8: 320, 10: 1675, 12: 501, 13: 524, 15: 208},
    "decl": {7: 772, 8: 446, 10: 2035, 12: 875, 13: 742, 15: 841, 17: 223},
}
TENSE_LENGTHS = {
    "PAST": {6: 676, 7: 549, 8: 667, 9: 953, 10: 744, 11: 342, 12: 759, 13: 642, 14: 234},
    "PRESENT": {6: 666, 7: 269, 8: 509, 9: 770, 10: 557, 11: 258, 12: 425, 13: 348, 14: 100},
}
TENSE_GEN_LENGTHS = {7: 1537, 8: 999, 9: 1521, 10: 1017, 11: 477, 12: 1787, 13: 2037, 14: 625}
TENSE_GEN_SUBJECTS = {"pp": 6045, "rc_sbj": 1950, "rc_obj": 2005}
# test file: shares, with the shortest template taken out of `bare` and `intrans` (260 and 272 items)
SUBJECTS = ("bare", "pp=", "pp!", "rc_sbj_i", "rc_sbj_t=", "rc_sbj_t!", "rc_obj=", "rc_obj!")
TENSE_SUBJECTS = {
    "PAST": (5826, 260, (0.302, 0.172, 0.181, 0.113, 0.052, 0.063, 0.061, 0.056)),
    "PRESENT": (4174, 272, (0.429, 0.247, 0, 0.170, 0.077, 0, 0.077, 0)),
}
MERGED_VPS = ("intrans", "bare", "pp", "rc_sbj_i", "rc_sbj_t", "rc_obj")
TENSE_VPS = {
    "PAST": (5826, 260, (0.224, 0.258, 0.251, 0.092, 0.091, 0.085)),
    "PRESENT": (4174, 272, (0.210, 0.258, 0.275, 0.084, 0.085, 0.088)),
}


def two_samples(first: Counter, second: Counter) -> float:
    """p of the chi-squared test that two samples have one distribution."""
    cells = sorted(set(first) | set(second), key=str)
    table = np.array([[first[cell] for cell in cells], [second[cell] for cell in cells]])
    result = stats.chi2_contingency(table, correction=False)
    print(f"chi2 = {result.statistic:.1f} on {result.dof} df, p = {result.pvalue:.3g}")
    return float(result.pvalue)


def shortest(document: Document) -> bool:
    return document.fields["subject"] == "bare" and document.fields["vp"] == "intrans"


def counts(
    documents: Iterable[Document], kind: str, cell: Callable[[Document], object] | None = None
) -> Counter:
    """Counter of a cell (default: subject and vp) over documents of a kind, shortest template left out."""
    cell = cell or (lambda document: (document.fields["subject"], document.fields["vp"]))
    return Counter(cell(d) for d in documents if d.fields["kind"] == kind and not shortest(d))


def table(rows: dict[str, tuple[int, ...]]) -> Counter:
    cells = {(s, v): n for s, row in rows.items() for v, n in zip(VPS, row, strict=False)}
    return Counter({cell: n for cell, n in cells.items() if cell != ("bare", "intrans")})


def length(document: Document) -> int:
    return len(str(document.fields["template"]).split()) + 1


def literal(corpus: type) -> dict[str, list[Document]]:
    made = corpus(corpus.Config(weights="literal", sizes={"train": 0, "val": 0}))
    return {split: list(made.documents(split)) for split in made.splits}


# --- question formation -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "rows"), [("decl", QUESTION_DECL), ("quest", QUESTION_QUEST)])
def test_question_types_match_the_released_pool(question, kind, rows) -> None:
    pool = question["val"] + question["test"]
    assert two_samples(counts(pool, kind), table(rows)) > ACCEPT
    assert two_samples(counts(question["train"], kind), table(rows)) > ACCEPT


@pytest.mark.parametrize(("kind", "rows"), [("decl", QUESTION_DECL), ("quest", QUESTION_QUEST)])
def test_literal_question_weights_do_not_match_the_released_pool(kind, rows) -> None:
    assert two_samples(counts(literal(QuestionFormation)["test"], kind), table(rows)) < REJECT


def test_a_simpler_subject_ratio_does_not_match_the_released_pool(monkeypatch) -> None:
    """6:3:1:1:1:1 instead of 15:6:2:2:2:2: a small mistake in the weights is seen too."""
    subject = dict(zip(QUESTION_DECL, (6, 3, 1, 1, 1, 1), strict=True))
    wrong = Weights(subject, question_formation.RELEASED.vp)
    monkeypatch.setitem(QuestionFormation.profiles, "released", wrong)
    sizes = {"train": 50_000, "val": 0, "test": 0, "ood": 0}
    corpus = QuestionFormation(QuestionFormation.Config(sizes=sizes))
    assert two_samples(counts(corpus.documents("train"), "decl"), table(QUESTION_DECL)) < ACCEPT / 100


def test_question_generalisation_set_has_the_released_types(question) -> None:
    released = table(QUESTION_GEN)
    del released["rc_sbj_i", "intrans"]
    generated = counts(question["ood"], "quest")
    del generated["rc_sbj_i", "intrans"]
    assert two_samples(generated, released) > ACCEPT


@pytest.mark.parametrize("kind", ["quest", "decl"])
def test_question_lengths_match(question, kind) -> None:
    generated = counts(question["val"] + question["test"], kind, length)
    assert set(generated) <= {7, 8, 10, 12, 13, 15, 17}
    assert two_samples(generated, Counter(QUESTION_LENGTHS[kind])) > ACCEPT


@pytest.mark.parametrize(
    "cell", [lambda d: d.fields["subject"], lambda d: d.fields["vp"], length, lambda d: d.fields["n_aux"]]
)
@pytest.mark.parametrize("kind", ["decl", "quest"])
def test_question_matches_the_released_validation_file(question, question_val, kind, cell) -> None:
    released = read_released(question_val, QUESTION)
    generated = question["val"] + question["test"]
    assert two_samples(counts(generated, kind, cell), counts(released, kind, cell)) > ACCEPT


def test_literal_weights_do_not_match_the_released_validation_file(question_val) -> None:
    released = read_released(question_val, QUESTION)
    assert two_samples(counts(literal(QuestionFormation)["test"], "decl"), counts(released, "decl")) < REJECT


def test_the_share_of_questions_is_that_of_the_released_pool(question) -> None:
    """406 + 4,034 questions of 11,000."""
    pool = question["val"] + question["test"]
    generated = Counter(d.fields["kind"] for d in pool if not shortest(d))
    released = Counter(quest=406 + 4034 - 30, decl=594 + 5966 - 35)
    assert two_samples(generated, released) > ACCEPT


# --- tense inflection -------------------------------------------------------------------------------


def merged(document: Document, field: str) -> str:
    return str(document.fields[field]).removesuffix("_s").removesuffix("_p")


def subject_and_attraction(document: Document) -> str:
    name = merged(document, "subject")
    if name in ("bare", "rc_sbj_i"):
        return name
    return name + ("=" if document.fields["nearest_agrees"] else "!")


def from_shares(reference: tuple, cells: tuple[str, ...], without: str) -> Counter:
    total, left_out, shares = reference
    found = Counter({cell: round(share * total) for cell, share in zip(cells, shares, strict=True) if share})
    found[without] -= left_out
    return found


@pytest.mark.parametrize("kind", ["PAST", "PRESENT"])
def test_tense_types_match_the_released_test_file(tense, kind) -> None:
    pool = tense["val"] + tense["test"]
    subjects = counts(pool, kind, subject_and_attraction)
    assert two_samples(subjects, from_shares(TENSE_SUBJECTS[kind], SUBJECTS, "bare")) > ACCEPT
    verb_phrases = counts(pool, kind, lambda d: merged(d, "vp"))
    assert two_samples(verb_phrases, from_shares(TENSE_VPS[kind], MERGED_VPS, "intrans")) > ACCEPT
    assert two_samples(counts(pool, kind, length), Counter(TENSE_LENGTHS[kind])) > ACCEPT


@pytest.mark.parametrize("kind", ["PAST", "PRESENT"])
def test_literal_tense_weights_do_not_match_the_released_test_file(kind) -> None:
    pool = literal(TenseInflection)["test"]
    verb_phrases = counts(pool, kind, lambda d: merged(d, "vp"))
    assert two_samples(verb_phrases, from_shares(TENSE_VPS[kind], MERGED_VPS, "intrans")) < REJECT
    assert two_samples(counts(pool, kind, length), Counter(TENSE_LENGTHS[kind])) < REJECT


def test_tense_generalisation_set_has_the_released_types(tense) -> None:
    generated = counts(
        tense["ood"], "PRESENT", lambda d: merged(d, "subject").removesuffix("_t").removesuffix("_i")
    )
    assert two_samples(generated, Counter(TENSE_GEN_SUBJECTS)) > ACCEPT
    assert two_samples(counts(tense["ood"], "PRESENT", length), Counter(TENSE_GEN_LENGTHS)) > ACCEPT


@pytest.mark.parametrize("cell", [subject_and_attraction, lambda d: d.fields["vp"], length])
@pytest.mark.parametrize("kind", ["PAST", "PRESENT"])
def test_tense_matches_the_released_validation_file(tense, tense_val, kind, cell) -> None:
    released = read_released(tense_val, TENSE)
    generated = tense["val"] + tense["test"]
    assert two_samples(counts(generated, kind, cell), counts(released, kind, cell)) > ACCEPT


def test_the_share_of_present_pairs_is_that_of_the_released_data(tense) -> None:
    """13/31 by the grammar; 4,616 of 11,000 in dev and test."""
    pool = tense["val"] + tense["test"]
    generated = Counter(d.fields["kind"] for d in pool if not shortest(d))
    released = Counter(PRESENT=442 + 4174 - 272, PAST=558 + 5826 - 260)
    assert two_samples(generated, released) > ACCEPT


# --- the sampler ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "weights"),
    [(QuestionFormation, question_formation.LITERAL), (TenseInflection, tense_inflection.RELEASED)],
    ids=["question", "tense"],
)
def test_templates_are_drawn_with_their_weights(corpus, weights) -> None:
    """All 271 other templates against the exact probabilities."""
    profile = "literal" if weights is question_formation.LITERAL else "released"
    made = corpus(
        corpus.Config(
            weights=profile, rule="hierarchical", sizes={"train": 20_000, "val": 0, "test": 0, "ood": 0}
        )
    )
    grammar = made.task.grammar
    expected = template_weights(grammar, weights)
    seen = Counter(d.fields["template"] for d in made.documents("train"))
    kept = [t.index for t in grammar.templates if (t.subject.shape, t.vp) != ("bare", "intrans")]
    observed = np.array([seen[" ".join(grammar.templates[i].tags)] for i in kept])
    result = stats.chisquare(observed, expected[kept] / expected[kept].sum() * observed.sum())
    print(f"chi2 = {result.statistic:.1f} on {len(kept) - 1} df, p = {result.pvalue:.3g}")
    assert result.pvalue > ACCEPT


@pytest.mark.parametrize("task", ["question", "tense"])
def test_words_are_uniform_within_their_class(task, request) -> None:
    documents = request.getfixturevalue(task)["train"]
    grammar = {"question": QUESTION, "tense": TENSE}[task].grammar
    markers = {"question": ("decl", "quest"), "tense": ("PAST", "PRESENT")}[task]
    seen: Counter = Counter()
    for document in documents:
        if not shortest(document):
            words = document.text.split()
            seen.update(words[: next(i for i, w in enumerate(words) if w in markers)])
    for tag, words in grammar.classes.items():
        observed = [seen[word] for word in words]
        assert stats.chisquare(observed).pvalue > ACCEPT, tag
