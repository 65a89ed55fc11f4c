"""What the generated splits promise: rules, quotas, disjointness, reproducibility; and impossible requests."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter

import pytest
from scipy import stats

from lexarium.corpora.grammar import NOUNS_PLURAL, NOUNS_SINGULAR
from lexarium.corpora.question_formation import QuestionFormation
from lexarium.corpora.tense_inflection import VARIANTS, TenseInflection
from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, identity, resolved, validate
from lexarium.foundation.types import Document, UserError

NOTHING = {"train": 0, "val": 0, "test": 0, "ood": 0}
SMALL = {"train": 2000, "val": 100, "test": 300, "ood": 300}
AUXILIARIES = {"do": ("pl", 1), "don't": ("pl", 0), "does": ("sg", 1), "doesn't": ("sg", 0)}
BOTH = pytest.mark.parametrize("corpus", [QuestionFormation, TenseInflection], ids=["question", "tense"])
POOL = ("train", "val", "test")


def make(corpus: type, sizes=SMALL, **options) -> dict[str, list[Document]]:
    """All documents; a split whose size is not given is empty."""
    made = corpus(corpus.Config(sizes={**NOTHING, **sizes}, **options))
    return {split: list(made.documents(split)) for split in made.splits}


def halves(document: Document) -> tuple[list[str], str, list[str]]:
    words = document.text.split(" ")
    place = next(i for i, word in enumerate(words) if word in ("decl", "quest", "PAST", "PRESENT"))
    return words[:place], words[place], words[place + 1 :]


def auxiliaries(words: list[str]) -> list[str]:
    return [word for word in words if word in AUXILIARIES]


# --- the rules of the sets --------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["question", "tense"])
def test_sizes_are_met_and_no_sentence_occurs_twice_anywhere(task, request) -> None:
    splits = request.getfixturevalue(task)
    assert {split: len(documents) for split, documents in splits.items()} == {
        "train": 100_000,
        "val": 1_000,
        "test": 10_000,
        "ood": 10_000,
    }
    sentences = [" ".join(halves(d)[0]) for d in itertools.chain(*splits.values())]
    assert len(set(sentences)) == len(sentences) == 121_000


def test_in_distribution_questions_front_the_first_auxiliary_which_is_the_main_one(question) -> None:
    for split in POOL:
        for document in question[split]:
            sentence, kind, output = halves(document)
            if kind == "decl":
                assert output == sentence
            else:
                first = auxiliaries(sentence)[0]
                rest = list(sentence)
                rest.remove(first)
                assert output == [first, *rest[:-1], "?"]
                assert sentence[2] not in ("who", "that")
                assert document.fields["rules_agree"] and document.fields["rule"] == "both"


def test_generalisation_questions_have_two_agreeing_auxiliaries_of_opposite_polarity(question) -> None:
    for document in question["ood"]:
        sentence, kind, output = halves(document)
        first, main = auxiliaries(sentence)
        assert kind == "quest" and sentence[2] in ("who", "that")
        assert AUXILIARIES[first][0] == AUXILIARIES[main][0] and AUXILIARIES[first][1] != AUXILIARIES[main][1]
        rest = list(sentence)
        del rest[len(rest) - 1 - rest[::-1].index(main)]
        assert output == [main, *rest[:-1], "?"]
        assert document.fields["vp"] in ("intrans", "bare", "pp")
        assert document.fields["rules_agree"] is False and document.fields["rule"] == "hierarchical"


def test_generalisation_questions_are_two_thirds_subject_relatives(question) -> None:
    assert Counter(d.fields["subject_rc"] for d in question["ood"]) == {"sbj": 6667, "obj": 3333}
    small = make(QuestionFormation, sizes={"ood": 1000})["ood"]
    assert Counter(d.fields["subject_rc"] for d in small) == {"sbj": 667, "obj": 333}


def test_present_pairs_are_ambiguous_in_the_pool_and_differ_at_the_main_verb_outside(tense) -> None:
    number_of = {**dict.fromkeys(NOUNS_SINGULAR, "sg"), **dict.fromkeys(NOUNS_PLURAL, "pl")}
    assert len(number_of) == 26
    for split, documents in tense.items():
        for document in documents:
            sentence, kind, output = halves(document)
            if kind == "PAST":
                assert output == sentence and split != "ood"
                continue
            verbs = [
                i for i, (a, b) in enumerate(zip(sentence, output, strict=True)) if a != b or a == "read"
            ]
            main = verbs[1] if sentence[2] in ("who", "that") else verbs[0]
            recent = [number_of[w] for w in sentence[:main] if w in number_of][-1]
            assert document.fields["number"] == number_of[sentence[1]]
            assert document.fields["nearest_number"] == recent
            assert (recent != number_of[sentence[1]]) == (split == "ood")
            assert output[main].endswith("s") == (number_of[sentence[1]] == "sg")


def test_template_counts_stay_within_the_grammar(question, tense) -> None:
    def templates(documents, kind):
        return {d.fields["template"] for d in documents if d.fields["kind"] == kind}

    assert len(templates(question["train"], "decl")) == 272
    assert len(templates(question["train"], "quest")) == 102
    assert len(templates(question["ood"], "quest")) == 56
    assert len(templates(tense["train"], "PAST")) == 272
    assert len(templates(tense["train"], "PRESENT")) == 170
    assert len(templates(tense["ood"], "PRESENT")) == 102


def test_some_lines_of_each_corpus_read_as_they_should(question, tense) -> None:
    pattern = r"^\w+ \w+ .* \. (quest|decl|PAST|PRESENT) .* [.?]$"
    for documents in (*question.values(), *tense.values()):
        assert all(re.match(pattern, d.text) for d in documents[:200])


@pytest.mark.parametrize("task", ["question", "tense"])
def test_the_channel_marks_the_second_sentence_by_character(task, request) -> None:
    for document in request.getfixturevalue(task)["val"]:
        half = document.channels["half"]
        assert len(half) == len(document.text)
        first = "".join(c for c, h in zip(document.text, half, strict=True) if h == 0)
        second = "".join(c for c, h in zip(document.text, half, strict=True) if h == 1)
        assert first.split(" ")[-2] == document.fields["kind"] and first.endswith(" ")
        assert second == " ".join(halves(document)[2])


def test_fields_describe_the_sentence(question) -> None:
    for document in question["train"][:3000]:
        sentence, kind, _ = halves(document)
        found = auxiliaries(sentence)
        assert document.fields["kind"] == kind
        assert document.fields["transformed"] == (kind == "quest")
        assert document.fields["n_aux"] == len(found)
        assert document.fields["n_distinct_aux"] == len(set(found))
        relative = sentence[2] in ("who", "that")
        extracted = "obj" if sentence[3] in ("the", "some", "my", "your", "our", "her") else "sbj"
        assert document.fields["subject_rc"] == (extracted if relative else "none")
        assert len(str(document.fields["template"]).split()) == len(sentence) - 1


# --- reproducibility --------------------------------------------------------------------------------


@BOTH
def test_the_config_determines_every_document(corpus) -> None:
    assert make(corpus) == make(corpus)
    other = make(corpus, seed=1)
    assert all(make(corpus)[split] != other[split] for split in SMALL)


@pytest.mark.parametrize(
    ("corpus", "digest"),
    [(QuestionFormation, "6ec58a3a8557e688"), (TenseInflection, "4f0f1467db127f5e")],
    ids=["question", "tense"],
)
def test_generated_text_is_the_one_of_this_version(corpus, digest) -> None:
    """Golden value: when it changes on purpose, raise the component's `version` in the same commit."""
    text = "\n".join(d.text for documents in make(corpus).values() for d in documents)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"sizes": {**SMALL, "train": 500, "val": 0}},
        {"templates": 30},
        {"template_weights": "uniform"},
        {"disambiguating": 50},
        {"rule": "hierarchical"},
    ],
)
def test_the_generalisation_set_does_not_depend_on_the_training_data(corpus, options) -> None:
    assert make(corpus, **options)["ood"] == make(corpus)["ood"]


@BOTH
def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(corpus) -> None:
    large = make(corpus, sizes={**SMALL, "train": 20_000})["train"]
    assert make(corpus)["train"] == large[:2000]


@BOTH
def test_an_empty_split_is_left_out(corpus) -> None:
    made = corpus(corpus.Config(sizes={"train": 20, "val": 5, "test": 0, "ood": 10}))
    assert made.splits == ("train", "val", "ood")
    with pytest.raises(UserError, match="no split 'test'; it has train, val, ood"):
        made.documents("test")


@BOTH
def test_the_identity_of_the_default_is_empty_and_the_fingerprint_too(corpus) -> None:
    assert identity(corpus.Config()) == {}
    assert corpus(corpus.Config()).fingerprint() == ""
    assert identity(corpus.Config(seed=3)) == {"seed": 3}
    config = corpus.Config(templates=30, sizes={"train": 5})
    assert validate(corpus.Config, Source(resolved(config))) == config
    assert registry.find("corpus", corpus.name) is corpus


# --- unambiguous and disambiguating data ------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("rule", ["hierarchical", "linear"])
def test_unambiguous_data_follow_their_rule_everywhere(corpus, rule) -> None:
    splits = make(corpus, rule=rule)
    seen = Counter((split, d.fields["rule"]) for split, documents in splits.items() for d in documents)
    other = {"hierarchical": "linear", "linear": "hierarchical"}[rule]
    assert not any(name == other for _, name in seen)
    assert all(seen[split, rule] > 10 for split in splits) and seen["ood", rule] == SMALL["ood"]


def test_a_question_under_the_linear_rule_fronts_the_first_auxiliary() -> None:
    for document in make(QuestionFormation, rule="linear")["ood"]:
        sentence, _, output = halves(document)
        assert output[0] == auxiliaries(sentence)[0] != auxiliaries(sentence)[1]


@BOTH
def test_disambiguating_pairs_are_added_to_train_among_the_others(corpus) -> None:
    train = make(corpus, disambiguating=100)["train"]
    places = [i for i, d in enumerate(train) if d.fields["rule"] == "hierarchical"]
    assert (len(train), len(places)) == (2100, 100)
    assert stats.kstest(places, stats.uniform(0, 2100).cdf).pvalue > 1e-3
    assert {d.text for d in train}.isdisjoint(d.text for d in make(corpus, disambiguating=100)["ood"])


# --- template diversity -----------------------------------------------------------------------------


def cells(documents: list[Document]) -> set:
    return {(d.fields["template"], d.fields["kind"]) for d in documents}


@pytest.mark.parametrize("count", [20, 50, 150, 374])
@pytest.mark.parametrize("weights", ["uniform", "natural"])
def test_template_diversity(count, weights) -> None:
    sizes = {"train": 30_000, "val": 2000, "test": 500, "ood": 1000}
    splits = make(QuestionFormation, templates=count, template_weights=weights, sizes=sizes)
    if weights == "uniform" or count < 100:
        assert len(cells(splits["train"])) == count
    assert len(cells(splits["train"])) > 0.95 * count
    assert cells(splits["val"]) | cells(splits["test"]) <= cells(splits["train"])
    assert len(cells(splits["ood"])) > 50  # of 56: all of them whatever the training templates


def test_more_templates_contain_fewer() -> None:
    found = [
        cells(make(QuestionFormation, templates=n, template_weights="uniform")["train"]) for n in (20, 50)
    ]
    assert found[0] < found[1]


def test_uniform_templates_are_uniform_and_have_the_shares_of_the_published_variant() -> None:
    """D374: question share 102/374 = 0.28 (quoted ~0.28); subject relatives 0.65 of the declaratives."""
    train = make(QuestionFormation, template_weights="uniform", sizes={"train": 40_000})["train"]
    seen = Counter((d.fields["template"], d.fields["kind"]) for d in train if d.fields["vp"] != "intrans")
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3
    assert Counter(d.fields["kind"] for d in train)["quest"] / 40_000 == pytest.approx(0.28, abs=0.02)
    declaratives = [d for d in train if d.fields["kind"] == "decl"]
    relatives = sum(d.fields["subject_rc"] != "none" for d in declaratives)
    assert relatives / len(declaratives) == pytest.approx(0.65, abs=0.03)


def test_natural_templates_have_the_shares_of_the_published_variant(question) -> None:
    """D374v2: question share 0.408, subject relatives 0.299 of the declaratives."""
    declaratives = [d for d in question["test"] if d.fields["kind"] == "decl"]
    assert 1 - len(declaratives) / 10_000 == pytest.approx(0.408, abs=0.015)
    relatives = sum(d.fields["subject_rc"] != "none" for d in declaratives)
    assert relatives / len(declaratives) == pytest.approx(0.305, abs=0.02)


# --- compositions of the tense training data --------------------------------------------------------


def composition(documents: list[Document]) -> Counter:
    names = []
    for document in documents:
        clause = document.fields["subject_rc"]
        present = document.fields["kind"] == "PRESENT"
        names.append((document.fields["subject"] if clause == "none" else clause) if present else "PAST")
    return Counter(names)


def test_the_recorded_composition_of_a_published_variant() -> None:
    """D130 in ti_inventory.txt: PAST 10,000, V 9,000, PREP 40,500, RC 40,500 of 100,000."""
    found = composition(make(TenseInflection, variant="D130", sizes={"train": 100_000})["train"])
    assert found["PAST"] == 10_000 and found["bare"] == 9_000 and found["pp"] == 40_500
    assert found["sbj"] + found["obj"] == 40_500


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("D102", {"PAST": 5000, "bare": 300, "pp": 200, "rc": 4500}),
        ("D112", {"PAST": 2000, "bare": 4304, "pp": 0, "rc": 3696}),
        ("D121", {"PAST": 5000, "bare": 500, "pp": 0, "rc": 4500}),
        ("D139", {"PAST": 1000, "bare": 900, "pp": 7695, "rc": 405}),
        ("D142", {"PAST": 0, "bare": 500, "pp": 500, "sbj": 8550, "obj": 450}),
    ],
)
def test_named_variants(variant, expected) -> None:
    splits = make(TenseInflection, variant=variant, sizes={**SMALL, "train": 10_000})
    found = composition(splits["train"])
    found["rc"] = found["sbj"] + found["obj"]
    assert {name: found[name] for name in expected} == expected
    assert splits["ood"] == make(TenseInflection)["ood"]
    assert all(d.fields["rules_agree"] for d in splits["train"])
    assert composition(splits["val"])["PAST"] > 40  # validation data keep the plain composition


def test_every_variant_can_be_made_and_sums_to_one() -> None:
    assert len(VARIANTS) == 9 + 9 + 7 + 8 + 5
    for name, parts in VARIANTS.items():
        assert sum(parts.present_type_ratio.model_dump().values()) == pytest.approx(1), name
        assert len(make(TenseInflection, variant=name, sizes={"train": 200})["train"]) == 200


def test_a_part_left_open_keeps_the_proportions_of_the_grammar() -> None:
    options = {"rc_type_ratio": {"sbj": 0.1, "obj": 0.9}, "sizes": {"train": 20_000}}
    found = composition(make(TenseInflection, **options)["train"])
    relatives = found["sbj"] + found["obj"]
    assert found["obj"] / relatives == pytest.approx(0.9, abs=1e-3)
    present = 20_000 - found["PAST"]
    assert present / 20_000 == pytest.approx(13 / 31, abs=1e-3)
    assert relatives / present == pytest.approx(4 / 13, abs=1e-3)


# --- impossible requests ----------------------------------------------------------------------------


def refused(corpus: type, **options) -> str:
    with pytest.raises((UserError, ValueError)) as error:
        make(corpus, **options)
    return str(error.value)


def test_more_templates_than_the_grammar_has() -> None:
    message = refused(QuestionFormation, templates=375)
    assert "375 is more than the 374 there are (272 with decl, 102 with quest)" in message
    assert "the 442 there are" in refused(TenseInflection, templates=443)


def test_more_sentences_than_a_template_has() -> None:
    """A seed whose only template is the shortest one: 1,404 sentences."""
    for seed in range(400):
        options = {"templates": 1, "template_weights": "uniform", "seed": seed}
        train = make(QuestionFormation, sizes={"train": 1}, **options)["train"]
        if len(str(train[0].fields["template"]).split()) == 4:
            break
    assert len(make(QuestionFormation, sizes={"train": 1404}, **options)["train"]) == 1404
    message = refused(QuestionFormation, sizes={"train": 1405}, **options)
    assert "1,405 distinct sentences were asked for, but its 1 templates have 1,404" in message
    message = refused(QuestionFormation, sizes={"train": 1000, "val": 500}, **options)
    assert "of which 1,000 are already in other splits" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": {}}, "every split has size 0"),
        ({"sizes": {"train": 10**9}}, "less than or equal to 10000000"),
        ({"disambiguating": 5, "rule": "linear"}, "needs rule: ambiguous"),
        ({"disambiguating": 5, "sizes": {"val": 5}}, "whose size is 0"),
        ({"targets": "any"}, "is about files"),
    ],
)
@BOTH
def test_contradictions_are_refused(corpus, options, message) -> None:
    assert message in refused(corpus, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "D105"}, "unknown variant"),
        ({"variant": "D130", "past_ratio": 0.1}, "remove past_ratio"),
        ({"present_type_ratio": {"bare": 0.5, "pp": 0.2, "rc": 0.2}}, "present_type_ratio must sum to 1"),
        ({"rc_type_ratio": {"sbj": 0.5}}, "rc_type_ratio must sum to 1"),
        ({"past_ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_impossible_compositions_are_refused(options, message) -> None:
    assert message in refused(TenseInflection, **options)


def test_a_composition_that_the_chosen_templates_cannot_make() -> None:
    message = refused(TenseInflection, past_ratio=0.5, templates=1)
    assert "no template of the grammar is left to draw from" in message


def test_problems_in_a_config_file_name_the_key() -> None:
    with pytest.raises(ConfigError, match="weights"):
        validate(QuestionFormation.Config, Source({"type": "question_formation", "weights": "realeased"}))
