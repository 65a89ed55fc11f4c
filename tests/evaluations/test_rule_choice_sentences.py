"""Whole generated sentences: every category of auxiliary errors by hand, and the tense outcomes."""

from __future__ import annotations

import pytest

from lexarium.corpora.tense_inflection import TENSE
from lexarium.evaluations.rule_choice import RuleChoice
from lexarium.evaluations.rule_outputs import (
    CATEGORIES,
    cut,
    question_category,
    same_classes,
    tense_outcome,
    verb_number,
)
from lexarium.foundation.types import Document

DECLARATIVE = "my walrus that does eat doesn't giggle"


@pytest.mark.parametrize(
    ("output", "category"),
    [
        ("does my walrus that eat doesn't giggle ?", "d1p1"),  # the linear rule
        ("doesn't my walrus that eat doesn't giggle ?", "d1p2"),
        ("don't my walrus that eat doesn't giggle ?", "d1po"),
        ("does my walrus that does eat giggle ?", "d2p1"),
        ("doesn't my walrus that does eat giggle ?", "d2p2"),  # the hierarchical rule
        ("do my walrus that does eat giggle ?", "d2po"),
        ("does my walrus that does eat doesn't giggle ?", "dnp1"),
        ("doesn't my walrus that does eat doesn't giggle ?", "dnp2"),
        ("don't my walrus that does eat doesn't giggle ?", "dnpo"),
        ("doesn't my walrus that does eat giggle .", "d2p2"),  # either final sign, as in the original
        ("doesn't my walrus that does eat giggle", "other"),
        ("doesn't my walrus that does eat sleep ?", "other"),
        ("my walrus that does eat doesn't giggle ?", "other"),
        ("walrus my walrus that does eat giggle ?", "other"),
        ("doesn't", "other"),
        ("", "other"),
    ],
)
def test_question_categories(output, category) -> None:
    assert question_category(DECLARATIVE.split(), output.split()) == category
    assert category in CATEGORIES


@pytest.mark.parametrize(
    ("declarative", "output", "category"),
    [
        ("some yaks do eat", "do some yaks eat ?", "d1p1"),
        ("some yaks do eat", "do some yaks do eat ?", "dnp1"),
        ("some yaks do eat", "don't some yaks eat ?", "d1po"),
        # both auxiliaries the same word: the one that was deleted counts as the one in front
        ("my yak that does eat does read", "does my yak that does eat read ?", "d2p2"),
        ("my yak that does eat does read", "does my yak that eat does read ?", "d1p1"),
        # a third auxiliary in front is in the input, and neither the first nor the second
        (
            "my yak that does eat doesn't amuse the newts who do read",
            "do my yak that does eat amuse the newts who do read ?",
            "other",
        ),
        (
            "my yak that does eat doesn't amuse the newts who do read",
            "don't my yak that does eat amuse the newts who do read ?",
            "d2po",
        ),
    ],
)
def test_question_categories_with_one_equal_or_three_auxiliaries(declarative, output, category) -> None:
    assert question_category(declarative.split(), output.split()) == category


@pytest.mark.parametrize(
    ("text", "words"),
    [("a b ? c d", ["a", "b", "?"]), ("a . b ?", ["a", "."]), ("a b", ["a", "b"]), ("", [])],
)
def test_generated_text_ends_at_the_first_final_sign(text, words) -> None:
    assert cut(text) == words


@pytest.mark.parametrize(
    ("output", "same"),
    [
        ("her newts by my yak smile .", True),
        ("some walrus near the zebras swim .", True),  # other words and numbers of the same classes
        ("her newts by my yak .", False),
        ("her newts by my yak does .", False),
        ("her newts by my yak smile . .", False),
        ("her newts by my frog smile .", False),
    ],
)
def test_word_classes(output, same) -> None:
    target = "her newts by my yaks smile ."
    assert same_classes(target.split(), output.split()) is same


def test_number_of_forms() -> None:
    expected = {"smiles": "sg", "smile": "pl", "read": "pl", "reads": "sg", "smiled": "", "yaks": ""}
    assert {word: verb_number(word) for word in expected} == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("her newts by my yak smile .", {"main_verb", "correct_number"}),
        ("her newts by my yak smiles .", {"linear_verb", "incorrect_number"}),
        ("her newts by my yak swim .", {"correct_number"}),
        ("her newts by my yak swims .", {"incorrect_number"}),
        ("her newts by my yak smiled .", set()),  # a past form has no number
        ("her newts smile by my yak .", set()),  # the right verb, but not the right classes
        ("her newts by my yak smile", set()),
    ],
)
def test_tense_outcomes(output, expected) -> None:
    sentence, target = "her newts by my yak smiled", "her newts by my yak smile ."
    template = TENSE.grammar.parse(sentence.split())
    found = tense_outcome(template, target.split(), output.split(), "smiles")
    assert {name for name, value in found.items() if value} == expected


# --- in the evaluation ------------------------------------------------------------------------------


class Writer:
    """A scorer that writes given texts in turn and always prefers the first candidate."""

    direction = "forward"

    def __init__(self, *texts: str) -> None:
        self._texts, self.asked = texts, []

    def generate(self, prefixes, max_new_tokens: int) -> list[str]:
        self.asked = [asked for asked, _ in prefixes]
        return list(self._texts)

    def choose(self, prefixes, candidates) -> list[int]:
        return [0] * len(prefixes)


class Data:
    tokenizer = None

    def __init__(self, *texts: str) -> None:
        self._documents = [Document(text) for text in texts]

    def documents(self, split: str) -> list[Document]:
        return self._documents


def run(scorer: Writer, *texts: str, **options):
    config = RuleChoice.Config(splits=("ood",), by_subject=False, full_sentence=True, **options)
    evaluation = RuleChoice(config, Data(*texts))
    assert "generate" in evaluation.asks
    return evaluation.run(scorer, 0)


def test_question_sentences() -> None:
    text = f"{DECLARATIVE} . quest doesn't my walrus that does eat giggle ?"
    answers = (
        "doesn't my walrus that does eat giggle ?",
        "does my walrus that eat doesn't giggle ? does my",
        "don't my walrus that does eat giggle ?",
        "does does ?",
    )
    scorer = Writer(*answers)
    result = run(scorer, text, text, text, text, definition="greedy")
    assert scorer.asked == [f"{DECLARATIVE} . quest"] * 4
    expected = dict.fromkeys(CATEGORIES, 0.0) | dict.fromkeys(("d2p2", "d1p1", "d2po", "other"), 0.25)
    assert {c: result.metrics[f"ood.category.{c}"] for c in CATEGORIES} == expected
    assert result.metrics["ood.full_sentence"] == result.metrics["ood.full_sentence_linear"] == 0.25
    assert result.metrics["ood.word_classes"] == 0.5  # the linear answer has another order of classes
    # greedy: the first written word decides
    assert result.metrics["ood.hierarchical"] == 0.25 and result.metrics["ood.linear_rule"] == 0.5
    assert result.metrics["ood.other"] == 0.25
    assert result.items["category"] == ["d2p2", "d1p1", "d2po", "other"]
    assert result.items["output"][1] == "does my walrus that eat doesn't giggle ?"
    assert not [name for name in result.metrics if ".written." in name]


def test_tense_sentences() -> None:
    text = "her newts by my yak smiled . PRESENT her newts by my yak smile ."
    answers = (
        "her newts by my yak smile .",
        "her newts by my yak smiles .",
        "her yaks by my yak swim .",
        "her newts .",
    )
    result = run(Writer(*answers), text, text, text, text, definition="constrained")
    metrics = {name.removeprefix("ood."): value for name, value in result.metrics.items()}
    assert metrics["full_sentence"] == metrics["full_sentence_linear"] == 0.25
    assert metrics["word_classes"] == 0.75
    assert metrics["written.main_verb"] == metrics["written.linear_verb"] == 0.25
    assert metrics["written.correct_number"] == 0.5 and metrics["written.incorrect_number"] == 0.25
    # `constrained` asks by itself: the first candidate is the singular form, the linear answer here
    assert metrics["linear_rule"] == 1
    assert not [name for name in metrics if name.startswith("category.")]
    assert result.items["category"] == [""] * 4


def test_an_ambiguous_answer_is_not_counted_as_linear() -> None:
    text = "her newts smiled . PRESENT her newts smile ."
    metrics = run(Writer("her newts smile ."), text, definition="greedy").metrics
    assert metrics["ood.full_sentence"] == metrics["ood.hierarchical"] == 1
    assert metrics["ood.full_sentence_linear"] == metrics["ood.written.linear_verb"] == 0
    assert metrics["ood.linear_rule"] == metrics["ood.rules_differ"] == 0
