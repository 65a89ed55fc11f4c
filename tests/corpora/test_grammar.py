"""The finite templates equal the published grammars, expanded independently; parsing inverts rendering."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora import question_formation, tense_inflection
from lexarium.corpora.grammar import Grammar, NotInGrammar
from lexarium.corpora.pairs import Task, parse_pair
from lexarium.corpora.question_formation import QUESTION
from lexarium.corpora.sampling import template_weights
from lexarium.corpora.tense_inflection import PRESENT_PLURAL, PRESENT_SINGULAR, TENSE

# The two grammars as weighted context-free rules. A capital first letter marks a symbol that is rewritten;
# `main:` marks the auxiliary of the main clause.
QUESTION_RULES = {
    "S": [(1, "M_s V_s"), (1, "M_p V_p")],
    "N": [(1, "n_s"), (1, "n_p")],
    "O": [
        (1, "det n_s"),
        (1, "det n_p"),
        (1, "det n_s prep det N"),
        (1, "det n_p prep det N"),
        (1, "det n_s R_s"),
        (1, "det n_p R_p"),
    ],
    **{f"M_{x}": [(1, f"det n_{x}"), (1, f"det n_{x} prep det N"), (1, f"det n_{x} R_{x}")] for x in "sp"},
    **{f"V_{x}": [(1, f"main:aux_{x} v_intrans"), (1, f"main:aux_{x} v_trans O")] for x in "sp"},
    **{
        f"R_{x}": [
            (2, f"rel aux_{x} v_intrans"),
            (1, "rel det n_s aux_s v_trans"),
            (1, "rel det n_p aux_p v_trans"),
            (2, f"rel aux_{x} v_trans det N"),
        ]
        for x in "sp"
    },
}


def _tense_phrase(x: str) -> list[tuple[float, str]]:
    return [
        (1, f"det n_{x}"),
        (0.5, f"det n_{x} prep det n_s"),
        (0.5, f"det n_{x} prep det n_p"),
        (1, f"det n_{x} R_{x}"),
    ]


TENSE_RULES = {
    "S": [(1, "M_s V_s"), (1, "M_p V_p")],
    **{f"M_{x}": _tense_phrase(x) for x in "sp"},
    **{f"O_{x}": _tense_phrase(x) for x in "sp"},
    **{f"V_{x}": [(1, f"main:vi_{x}"), (0.5, f"main:vt_{x} O_s"), (0.5, f"main:vt_{x} O_p")] for x in "sp"},
    **{
        f"R_{x}": [
            (1, f"rel vi_{x}"),
            (0.5, "rel det n_s vt_s"),
            (0.5, "rel det n_p vt_p"),
            (0.5, f"rel vt_{x} det n_s"),
            (0.5, f"rel vt_{x} det n_p"),
        ]
        for x in "sp"
    },
}
PAST_CLASS = {"vi": "v_past_intrans", "vt": "v_past_trans"}


def expand(rules: dict, symbols: list[str]) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Every terminal string below a row of symbols, with its probability."""
    for place, symbol in enumerate(symbols):
        if symbol in rules:
            total = sum(weight for weight, _ in rules[symbol])
            for weight, right in rules[symbol]:
                inner = [*symbols[:place], *right.split(), *symbols[place + 1 :]]
                for probability, terminals in expand(rules, inner):
                    yield probability * weight / total, terminals
            return
    yield 1.0, tuple(symbols)


def plain(symbol: str) -> str:
    """The word class of a terminal of the rules above."""
    symbol = symbol.removeprefix("main:")
    return PAST_CLASS.get(symbol[:2], symbol) if symbol[:2] in PAST_CLASS else symbol


@pytest.mark.parametrize(
    ("rules", "task", "weights"),
    [
        (QUESTION_RULES, QUESTION, question_formation.LITERAL),
        (TENSE_RULES, TENSE, tense_inflection.LITERAL),
    ],
    ids=["question", "tense"],
)
def test_templates_and_their_literal_weights_are_those_of_the_grammar(rules, task, weights) -> None:
    expected: dict[tuple[str, ...], float] = defaultdict(float)
    for probability, terminals in expand(rules, ["S"]):
        expected[tuple(map(plain, terminals))] += probability
    assert len(expected) == len(task.grammar.templates) == 272
    found = dict(
        zip((t.tags for t in task.grammar.templates), template_weights(task.grammar, weights), strict=True)
    )
    assert found.keys() == expected.keys()
    assert all(found[tags] == pytest.approx(expected[tags], rel=1e-12) for tags in expected)


def _instantiate(terminals: tuple[str, ...], grammar: Grammar, draw: random.Random) -> list[str]:
    return [draw.choice(grammar.classes[plain(symbol)]) for symbol in terminals]


def test_questions_move_the_auxiliary_that_the_grammar_marks_as_main() -> None:
    draw = random.Random(1)
    for _, terminals in expand(QUESTION_RULES, ["S"]):
        words = _instantiate(terminals, QUESTION.grammar, draw)
        main = next(i for i, symbol in enumerate(terminals) if symbol.startswith("main:"))
        first = next(i for i, word in enumerate(words) if word in {"do", "does", "don't", "doesn't"})
        template = QUESTION.grammar.parse(words)
        moved = lambda i, words=words: [words[i], *words[:i], *words[i + 1 :]]
        assert QUESTION.answer(words, template, "hierarchical") == moved(main)
        assert QUESTION.answer(words, template, "linear") == moved(first)
        assert QUESTION.distinguishes(template) == (main != first)


def test_verbs_agree_as_the_present_tense_grammar_says_and_linearly_by_scanning() -> None:
    """tense.gr generates the present-tense sentence; the linear answer is a scan over the words."""
    draw = random.Random(2)
    nouns = {word: tag for tag in ("n_s", "n_p") for word in TENSE.grammar.classes[tag]}
    for _, terminals in expand(TENSE_RULES, ["S"]):
        words = _instantiate(terminals, TENSE.grammar, draw)
        template = TENSE.grammar.parse(words)
        expected, scanned, number = [], [], "n_s"
        for symbol, word in zip(terminals, words, strict=True):
            number = nouns.get(word, number)
            is_verb = symbol.removeprefix("main:")[:2] in PAST_CLASS
            forms = {"s": PRESENT_SINGULAR, "p": PRESENT_PLURAL}
            expected.append(forms[symbol[-1]][word] if is_verb else word)
            scanned.append(forms[number[-1]][word] if is_verb else word)
        assert TENSE.answer(words, template, "hierarchical") == expected
        assert TENSE.answer(words, template, "linear") == scanned
        assert TENSE.distinguishes(template) == (expected != scanned)
        main = next(i for i, symbol in enumerate(terminals) if symbol.startswith("main:"))
        assert template.main == main
        differing = [i for i in range(len(words)) if expected[i] != scanned[i]]
        assert differing in ([], [main])  # the rules part at the main verb only
        assert (template.number == template.nearest) == (not differing)


def test_sizes_count_sentences() -> None:
    shortest = min(QUESTION.grammar.sizes) + min(TENSE.grammar.sizes)
    assert shortest == 6 * 13 * 2 * 9 + 6 * 13 * 9  # 1,404 questions and 702 tense, per number


@st.composite
def sentences(draw: st.DrawFn, task: Task) -> tuple[int, int]:
    index = draw(st.integers(0, 271))
    return index, draw(st.integers(0, int(task.grammar.sizes[index]) - 1))


@pytest.mark.parametrize("task", [QUESTION, TENSE], ids=["question", "tense"])
@given(data=st.data())
def test_every_rendered_sentence_parses_back_to_its_template(task: Task, data: st.DataObject) -> None:
    index, code = data.draw(sentences(task))
    (words,) = task.grammar.words(np.array([index]), np.array([code]))
    template = task.grammar.parse(words)
    assert template.index == index
    column = data.draw(st.sampled_from([0, 1]))
    output = task.output(words, template, column, "hierarchical")
    pair = parse_pair(f"{' '.join(words)} . {task.markers[column]}\t{' '.join(output)}", task)
    assert (pair.words, pair.template, pair.column, list(pair.output)) == (words, template, column, output)


@pytest.mark.parametrize("task", [QUESTION, TENSE], ids=["question", "tense"])
def test_codes_number_the_sentences_of_a_template_without_repetition(task: Task) -> None:
    index = int(np.argmin(task.grammar.sizes))
    size = int(task.grammar.sizes[index])
    found = task.grammar.words(np.full(size, index), np.arange(size))
    assert len(set(found)) == size


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("my ravem does sleep", "unknown word 'ravem'; did you mean 'raven'?"),
        ("my raven do sleep", "after 'my raven' found 'do' (aux_p); the grammar allows aux_s, prep, rel"),
        ("my raven does", "'my raven does' is incomplete; the grammar goes on with v_intrans, v_trans"),
        ("does my raven sleep", "at the start found 'does' (aux_s); the grammar allows det"),
        (
            "my raven does sleep now",
            "unknown word 'now'",
        ),
        (
            "my raven does sleep my newt",
            "after 'my raven does sleep' found 'my' (det); the grammar allows the end of the sentence",
        ),
    ],
)
def test_sentences_outside_the_grammar_are_explained(sentence: str, message: str) -> None:
    with pytest.raises(NotInGrammar) as error:
        QUESTION.grammar.parse(sentence.split())
    assert str(error.value).startswith(message)


def test_vocabularies_have_the_published_sizes() -> None:
    """69 and 101 with the padding symbol, and the published places of some words."""
    question = ["<pad>", *QUESTION.symbols]
    tense = ["<pad>", *TENSE.symbols]
    assert (len(question), len(tense)) == (69, 101)
    assert question[1:] == sorted(set(question[1:])) and tense[1:] == sorted(set(tense[1:]))
    places = {".": 1, "?": 2, "decl": 15, "do": 16, "does": 17, "doesn't": 18, "don't": 19, "quest": 37}
    assert {word: question.index(word) for word in places} == places
    assert [tense.index(word) for word in (".", "PAST", "PRESENT")] == [1, 2, 3]
    assert {"decl", "quest"} <= set(tense)
