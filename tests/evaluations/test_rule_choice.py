"""rule_choice against scorers that follow a rule exactly, and examples worked by hand.

The fake scorers know the rules only through their own few lines below (counting auxiliaries, scanning
nouns), not through the grammar of the package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lexarium.corpora.pairs import write_released
from lexarium.corpora.question_formation import QUESTION, QuestionFormation
from lexarium.corpora.tense_inflection import TENSE, TenseInflection
from lexarium.evaluations.rule_choice import RuleChoice
from lexarium.foundation import registry
from lexarium.foundation.types import Document, UserError

WORDS = ["<pad>", *sorted({*QUESTION.symbols, *TENSE.symbols})]
AUXILIARIES = ("do", "does", "don't", "doesn't")
REGULAR = ("entertain", "applaud", "accept", "remember", "comfort", "wait")
REGULAR_IN_E = ("giggle", "smile", "move", "change", "amuse", "high_five", "confuse", "admire")
PAST = {verb + "ed": verb for verb in REGULAR}
PAST |= {verb + "d": verb for verb in REGULAR_IN_E}
PAST |= {"slept": "sleep", "swam": "swim", "read": "read", "ate": "eat"}
STEMS = ("newt", "orangutan", "peacock", "quail", "raven", "salamander", "tyrannosaurus", "unicorn")
STEMS += ("vulture", "walrus", "xylophone", "yak", "zebra")
SINGULAR_IN_S = ("tyrannosaurus", "walrus")


def is_noun(word: str) -> bool:
    return word.startswith(STEMS)


def is_plural(noun: str) -> bool:
    return noun.endswith("s") and noun not in SINGULAR_IN_S


def question_by(rule: str, words: list[str]) -> list[str]:
    """A subject relative clause holds exactly one auxiliary, so the main one is then the second."""
    places = [i for i, word in enumerate(words) if word in AUXILIARIES]
    nth = 1 if rule == "hierarchical" and words[2] in ("who", "that") else 0
    place = places[nth]
    return [words[place], *words[:place], *words[place + 1 : -1], "?"]


def present_by(rule: str, words: list[str]) -> list[str]:
    """The linear rule scans; the hierarchical one gives the main verb the number of the first noun."""
    output, plural, verbs = [], False, 0
    main = 1 if words[2] in ("who", "that") else 0
    for word in words:
        if is_noun(word):
            plural = is_plural(word)
        if word in PAST:
            by = is_plural(words[1]) if rule == "hierarchical" and verbs == main else plural
            output.append(PAST[word] + ("" if by else "s"))
            verbs += 1
        else:
            output.append(word)
    return output


def answer_by(rule: str, asked: str) -> list[str]:
    words = asked.split(" ")
    by = {"quest": question_by, "PRESENT": present_by}[words[-1]]
    return by(rule, words[:-1])


class FakeScorer:
    """Scores from a function (asked, begun) -> words in falling order of preference."""

    direction = "forward"

    def __init__(self, prefer: Callable[[str, list[str]], Sequence[str]], write=None) -> None:
        self._prefer, self._write, self.calls = prefer, write, []

    def id(self, word: str) -> int:
        return WORDS.index(word)

    def next_scores(self, prefixes) -> np.ndarray:
        self.calls.append(len(prefixes))
        scores = np.full((len(prefixes), len(WORDS) + 2), -20.0, dtype=np.float32)
        for row, (asked, begun) in zip(scores, prefixes, strict=True):
            for rank, word in enumerate(self._prefer(asked, begun.split())):
                row[self.id(word) if word else len(WORDS)] = -rank
        return scores

    def choose(self, prefixes, candidates) -> np.ndarray:
        scores = self.next_scores(prefixes)
        rows = [candidates] * len(prefixes) if isinstance(candidates[0], str) else candidates
        return np.array([
            s[[self.id(w) for w in words]].argmax() for s, words in zip(scores, rows, strict=True)
        ])  # fmt: skip

    def generate(self, prefixes, max_new_tokens: int) -> list[str]:
        assert all(begun == "" for _, begun in prefixes)
        return [self._write(asked) for asked, _ in prefixes]


def follower(rule: str) -> FakeScorer:
    """A model that has learned a rule perfectly."""
    return FakeScorer(
        lambda asked, begun: [answer_by(rule, asked)[len(begun)]],
        lambda asked: " ".join(answer_by(rule, asked)),
    )


class Judge(FakeScorer):
    """Follows a rule and finds every word that departs from the rule's answer less probable."""

    def __init__(self, rule: str) -> None:
        super().__init__(lambda asked, begun: [answer_by(rule, asked)[len(begun)]])
        self.rule = rule

    def token_scores(self, documents) -> list[np.ndarray]:
        found = []
        for document in documents:
            asked, answer = document.text.split(" quest ")
            right = answer_by(self.rule, f"{asked} quest")
            wrong = [-1.0 * (a != b) for a, b in zip(answer.split(), right, strict=True)]
            assert [document.channels["half"][document.text.index(" quest ") + n] for n in (6, 7)] == [0, 1]
            found.append(np.array([np.nan, *wrong]))  # as without bos
        return found


def guesser(choose_from: Callable[[str], Sequence[str]]) -> FakeScorer:
    """A model with a random order of preference over some words."""
    generator = np.random.default_rng(1)
    return FakeScorer(lambda asked, begun: generator.permutation(choose_from(asked)).tolist())


class FakeData:
    def __init__(self, **splits: Sequence[Document]) -> None:
        self._splits, self.tokenizer = splits, self

    def documents(self, split: str) -> Sequence[Document]:
        return self._splits[split]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i] for i in ids if i < len(WORDS))


SIZES = {"train": 0, "val": 400, "test": 0, "ood": 600}


def corpus_data(corpus: type, **options) -> FakeData:
    made = corpus(corpus.Config(sizes=SIZES, **options))
    return FakeData(val=list(made.documents("val")), ood=list(made.documents("ood")))


@pytest.fixture(scope="module")
def question() -> FakeData:
    return corpus_data(QuestionFormation)


@pytest.fixture(scope="module")
def tense() -> FakeData:
    return corpus_data(TenseInflection)


def evaluate(source: FakeData, scorer: FakeScorer, **options):
    return RuleChoice(RuleChoice.Config(**options), source).run(scorer, 0)


DEFINITIONS = pytest.mark.parametrize("definition", ["teacher_forced", "constrained", "greedy"])
TASKS = pytest.mark.parametrize(("task", "alias"), [("question", "main_auxiliary"), ("tense", "main_verb")])


# --- scorers that follow a rule ---------------------------------------------------------------------


@TASKS
@DEFINITIONS
@pytest.mark.parametrize("rule", ["hierarchical", "linear"])
def test_a_rule_follower_scores_one_on_its_rule(task, alias, definition, rule, request) -> None:
    data = request.getfixturevalue(task)
    metrics = evaluate(data, follower(rule), definition=definition).metrics
    hierarchical = float(rule == "hierarchical")
    assert metrics["ood.hierarchical"] == metrics[f"ood.{alias}"] == hierarchical
    assert metrics["ood.linear_rule"] == 1 - hierarchical
    assert metrics["ood.other"] == 0 and metrics["ood.rules_differ"] == 1
    assert metrics["ood.items"] == 600
    # in the validation data the rules agree, so either follower is right
    assert metrics["val.hierarchical"] == metrics[f"val.{alias}"] == 1
    assert metrics["val.linear_rule"] == metrics["val.other"] == metrics["val.rules_differ"] == 0
    assert metrics["val.items"] == sum(
        d.fields["kind"] in ("quest", "PRESENT") for d in data.documents("val")
    )


def test_a_uniform_choice_among_four_auxiliaries(question) -> None:
    metrics = evaluate(question, guesser(lambda asked: AUXILIARIES)).metrics
    shares = [metrics[f"ood.{name}"] for name in ("hierarchical", "linear_rule", "other")]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.06)
    assert sum(shares) == pytest.approx(1)
    assert metrics["val.hierarchical"] == pytest.approx(0.25, abs=0.1)


def test_a_uniform_choice_between_the_two_auxiliaries_of_the_sentence(question) -> None:
    scorer = guesser(lambda asked: [w for w in asked.split() if w in AUXILIARIES])
    metrics = evaluate(question, scorer).metrics
    assert metrics["ood.hierarchical"] == pytest.approx(0.5, abs=0.06)
    assert metrics["ood.other"] == 0


def test_the_constrained_definition_ignores_words_outside_the_two_forms(tense) -> None:
    """A model that prefers a noun, then the hierarchical form: wrong by one definition, right by the other."""
    right = follower("hierarchical")
    scorer = FakeScorer(lambda asked, begun: ["newt", *right._prefer(asked, begun)])
    full = evaluate(tense, scorer)
    assert full.metrics["ood.hierarchical"] == full.metrics["ood.linear_rule"] == 0
    assert full.metrics["ood.other"] == 1
    assert set(full.items["prediction"]) == {"newt"}
    assert evaluate(tense, scorer, definition="constrained").metrics["ood.hierarchical"] == 1


def test_an_auxiliary_wins_over_other_words_for_questions(question) -> None:
    right = follower("hierarchical")
    scorer = FakeScorer(lambda asked, begun: ["newt", "", *right._prefer(asked, begun)])
    assert evaluate(question, scorer).metrics["ood.hierarchical"] == 1


def test_greedy_looks_at_the_place_of_the_main_verb_only(tense) -> None:
    """Words before and after may be anything; a text that is too short is `other`."""

    def garble(asked: str) -> str:
        words = answer_by("hierarchical", asked)
        place = next(
            i for i, (a, b) in enumerate(zip(words, answer_by("linear", asked), strict=True)) if a != b
        )
        return " ".join(["newt"] * place + [words[place], "newt"])

    data = FakeData(ood=tense.documents("ood"))
    scorer = FakeScorer(None, garble)
    metrics = evaluate(data, scorer, definition="greedy", splits=["ood"]).metrics
    assert metrics["ood.hierarchical"] == 1
    short = FakeScorer(None, lambda asked: "the newt")
    assert evaluate(data, short, definition="greedy", splits=["ood"]).metrics["ood.other"] == 1


@pytest.mark.parametrize("definition", ["teacher_forced", "constrained"])
def test_the_prefix_of_a_tense_item_is_right_up_to_the_main_verb(tense, definition) -> None:
    seen = []

    def prefer(asked: str, begun: list[str]) -> list[str]:
        expected = answer_by("hierarchical", asked)
        assert begun == expected[: len(begun)]
        seen.append((asked, " ".join(begun), expected[len(begun)]))
        return [expected[len(begun)]]

    result = evaluate(tense, FakeScorer(prefer), definition=definition, splits=["ood"])
    assert len(seen) == 600
    for (asked, begun, following), text, gold in zip(
        seen, result.items["text"], result.items["gold"], strict=True
    ):
        assert text.startswith(f"{asked} {begun} {following}") and following == gold


# --- by hand ----------------------------------------------------------------------------------------

BY_HAND = [
    "my raven that doesn't sleep does change . quest does my raven that doesn't sleep change ?",
    "some yaks do giggle . decl some yaks do giggle .",
    "our newts who the yak does amuse don't read . quest don't our newts who the yak does amuse read ?",
]


def test_a_worked_example() -> None:
    scorer = FakeScorer(lambda asked, begun: ["does", "don't", "doesn't", "do"])
    result = evaluate(FakeData(val=[Document(text) for text in BY_HAND]), scorer, splits=["val"])
    assert result.metrics == {
        "val.hierarchical": 0.5,
        "val.main_auxiliary": 0.5,
        "val.linear_rule": 0.5,
        "val.other": 0.0,
        "val.rules_differ": 1.0,
        "val.items": 2,
        **{f"val.by_subject.{g}.hierarchical": v for g, v in _GROUPS.items()},
        **{f"val.by_subject.{g}.linear_rule": 1 - v for g, v in _GROUPS.items()},
        **{f"val.by_subject.{g}.items": 2 if g == "rc" else 1 for g in _GROUPS},
    }
    assert result.items == {
        "split": ["val", "val"],
        "document": [0, 2],
        "task": ["question_formation"] * 2,
        "text": [BY_HAND[0], BY_HAND[2]],
        "template": [
            "det n_s rel aux_s v_intrans aux_s v_intrans",
            "det n_p rel det n_s aux_s v_trans aux_p v_intrans",
        ],
        "subject": ["rc_sbj_i", "rc_obj_s"],
        "prediction": ["does", "does"],
        "gold": ["does", "don't"],
        "linear": ["doesn't", "does"],
        "correct": [True, False],
        "choice": ["hierarchical", "linear"],
    }


_GROUPS = {"rc_sbj_i": 1.0, "rc_sbj": 1.0, "rc_obj_s": 0.0, "rc_obj": 0.0, "rc": 0.5}


def test_both_tasks_may_stand_in_one_split(question, tense) -> None:
    data = FakeData(ood=[*question.documents("ood")[:30], *tense.documents("ood")[:10]])
    right = evaluate(data, follower("hierarchical"), splits=["ood"]).metrics
    assert (right["ood.main_auxiliary"], right["ood.main_verb"], right["ood.hierarchical"]) == (1, 1, 1)
    scorer = FakeScorer(
        lambda asked, begun: [answer_by("hierarchical" if "quest" in asked else "linear", asked)[len(begun)]]
    )
    mixed = evaluate(data, scorer, splits=["ood"]).metrics
    assert (mixed["ood.main_auxiliary"], mixed["ood.main_verb"], mixed["ood.hierarchical"]) == (1, 0, 0.75)


@pytest.mark.parametrize(("rule", "expected"), [("hierarchical", 1.0), ("linear", 0.0)])
def test_whole_questions_are_compared(question, rule, expected) -> None:
    """Out of distribution the two rules disagree; in distribution only sentences with two auxiliaries count."""
    result = evaluate(question, Judge(rule), sentence_probability=True)
    assert result.metrics["ood.sentence_probability"] == expected
    assert result.metrics["ood.sentence_probability_items"] == result.metrics["ood.items"]
    assert result.metrics["val.sentence_probability"] == 1.0
    two = [
        len(set(d.text.split(" . ")[0].split()) & set(AUXILIARIES)) > 1
        for d in question.documents("val")
        if " quest " in d.text
    ]
    assert result.metrics["val.sentence_probability_items"] == sum(two) < len(two)
    advantage = np.array(result.items["sentence_advantage"])[np.array(result.items["split"]) == "val"]
    assert np.isnan(advantage).sum() == len(two) - sum(two)


def test_breakdowns_are_weighted_back_to_the_whole(question) -> None:
    """A model that is hierarchical on object relatives only."""
    scorer = FakeScorer(
        lambda asked, begun: answer_by(
            "hierarchical" if asked.split()[3] in ("the", "some", "my", "your", "our", "her") else "linear",
            asked,
        )[:1]
    )
    metrics = evaluate(question, scorer, splits=["ood"], by_template=True).metrics
    assert metrics["ood.hierarchical"] == pytest.approx(1 / 3)
    assert metrics["ood.by_subject.rc_obj.hierarchical"] == metrics["ood.by_subject.rc_sbj.linear_rule"] == 1
    assert metrics["ood.by_subject.rc_sbj_t.hierarchical"] == 0
    templates = {
        m: v for m, v in metrics.items() if m.startswith("ood.by_template.") and m.endswith(".items")
    }
    assert sum(templates.values()) == 600 and 50 < len(templates) <= 56
    name = "ood.by_template.det-n_s-rel-det-n_s-aux_s-v_trans-aux_s-v_intrans"
    assert metrics[f"{name}.hierarchical"] == 1


def test_breakdowns_can_be_left_out(question) -> None:
    metrics = evaluate(question, follower("linear"), by_subject=False).metrics
    assert not [name for name in metrics if ".by_" in name]


# --- data and options -------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [QuestionFormation, TenseInflection], ids=["question", "tense"])
def test_items_follow_the_rules_and_not_the_labels_of_the_data(corpus) -> None:
    metrics = evaluate(corpus_data(corpus, rule="linear"), follower("hierarchical")).metrics
    assert metrics["ood.hierarchical"] == 1 and 0 < metrics["val.rules_differ"] < 1


@pytest.mark.parametrize("task", ["question", "tense"])
def test_a_file_can_be_scored_instead(task, request, tmp_path) -> None:
    data = request.getfixturevalue(task)
    write_released(data.documents("ood"), tmp_path / "pairs")
    metrics = evaluate(FakeData(), follower("linear"), data=str(tmp_path / "pairs")).metrics
    assert metrics["data.linear_rule"] == 1 and metrics["data.items"] == 600
    assert {name.split(".")[0] for name in metrics} == {"data"}


def test_limit_takes_the_first_items(question) -> None:
    whole = evaluate(question, follower("hierarchical"), splits=["val"])
    part = evaluate(question, follower("hierarchical"), splits=["val"], limit=7)
    assert part.metrics["val.items"] == 7
    assert part.items == {name: values[:7] for name, values in whole.items.items()}


def test_requests_are_bounded_and_preparation_is_done_once() -> None:
    made = TenseInflection(TenseInflection.Config(sizes={**SIZES, "val": 0, "ood": 5000}))
    evaluation = RuleChoice(RuleChoice.Config(splits=("ood",)), FakeData(ood=list(made.documents("ood"))))
    scorer = FakeScorer(lambda asked, begun: ["eats"])
    first = evaluation.run(scorer, 0)
    assert scorer.calls == [2048, 2048, 904]
    start = time.perf_counter()
    assert evaluation.run(scorer, 1) == first
    assert time.perf_counter() - start < 2


def test_the_registry_finds_it_and_the_cadence_is_outside_its_identity() -> None:
    from lexarium.foundation.config import identity

    assert registry.find("evaluation", "rule_choice") is RuleChoice
    config = RuleChoice.Config(every=100, at=(5,), name="probe", definition="greedy")
    assert identity(config) == {"definition": "greedy"}
    assert config.splits == ("val", "ood")


# --- refusals ---------------------------------------------------------------------------------------


def test_other_directions_are_refused(question) -> None:
    scorer = follower("hierarchical")
    scorer.direction = "backward"
    with pytest.raises(UserError, match="needs direction forward; this run has direction 'backward'"):
        evaluate(question, scorer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("once upon a time", "split 'val' has no pair to score: none of its 1 documents has the marker"),
        ("some yaks do giggle . decl some yaks do giggle .", "has no pair to score"),
        (
            "some yaks do gigle . quest do some yaks gigle ?",
            "document 1 .* unknown word 'gigle'; did you mean",
        ),
        ("some yaks does giggle . quest does some yaks giggle ?", "found 'does' \\(aux_s\\)"),
    ],
)
def test_data_without_items_or_outside_the_grammar_are_refused(text, message) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(FakeData(val=[Document(text)]), follower("linear"), splits=["val"])


def test_bad_files_are_refused(tmp_path) -> None:
    path = tmp_path / "pairs"
    with pytest.raises(UserError, match="No such file"):
        evaluate(FakeData(), follower("linear"), data=str(path))
    path.write_text("once upon a time\n")
    with pytest.raises(UserError, match=":1: no marker; expected one of decl, quest, PAST, PRESENT"):
        evaluate(FakeData(), follower("linear"), data=str(path))
    for content, message in ((b"", "empty; expected one pair"), ("ab\n".encode("utf-16"), "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            evaluate(FakeData(), follower("linear"), data=str(path))
