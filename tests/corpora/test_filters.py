"""Every training filter of sunnytqin/hier_gen is a keep/drop condition on document fields.

The left side of each comparison is the filter as that code defines it, by substrings and word positions,
written anew; the right side is what `docs/reference/hier-gen-filters.md` tells users to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lexarium.corpora.question_formation import QuestionFormation
from lexarium.corpora.tense_inflection import TenseInflection
from lexarium.foundation.types import Document
from toy import matches

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "hier-gen-filters.md"
DETERMINERS = ("the", "some", "my", "your", "our", "her")
AUXILIARIES = ("do", "does", "don't", "doesn't")
PREPOSITIONS = ("around", "near", "with", "upon", "by", "behind", "above", "below")


def view(documents: list[Document], keep: list = (), drop: list = ()) -> list[Document]:
    kept = [d for d in documents if not keep or any(matches(d.fields, c) for c in keep)]
    return [d for d in kept if not any(matches(d.fields, c) for c in drop)]


# --- the original definitions, on lines with a space for the tab ------------------------------------


def k(line: str) -> int:
    return line.split(" quest ")[0].split(" decl ")[0].count("do")


def subject_clause(line: str) -> str:
    words = line.split()
    if words[2] not in ("who", "that"):
        return "none"
    return "obj" if words[3] in DETERMINERS else "sbj"


def quest(line: str) -> bool:
    return "quest" in line


def subject_type(line: str) -> str:
    third = line.split()[2]
    return "rc" if third in ("who", "that") else "simple" if third in PREPOSITIONS else "v"


def past_or(condition: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda line: "PAST" in line or condition(line)


def present_or(condition: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda line: "PRESENT" in line or condition(line)


QUESTION_FILTERS: dict[str, Callable[[str], bool]] = {
    "exclude_identity": quest,
    "train_on_decl_only": lambda line: not quest(line),
    "pretrain": lambda line: line.count("do") <= 2 or not quest(line),
    "train_on_compl_only": lambda line: k(line) >= 2,
    "train_on_simple_only": lambda line: k(line) < 2,
    "train_on_hier_only": lambda line: quest(line) or subject_clause(line) == "obj",
    "train_on_linear_only": lambda line: quest(line) or subject_clause(line) == "sbj",
    "exclude_complex_decls": lambda line: quest(line) or k(line) < 2,
    "exclude_simple_decls": lambda line: quest(line) or k(line) == 2,
    "exclude_middle_decls": lambda line: quest(line) or k(line) > 2,
    "exclude_complex_quest": lambda line: "decl" in line or k(line) < 2,
    "exclude_simple_quest": lambda line: "decl" in line or k(line) >= 2,
    "use_specified_decls 1,3": lambda line: quest(line) or k(line) in (1, 3),
}
TENSE_FILTERS: dict[str, Callable[[str], bool]] = {
    "exclude_identity": lambda line: "PRESENT" in line,
    "include_past_simple": present_or(lambda line: subject_type(line) == "simple"),
    "include_past_simple_verb": present_or(lambda line: subject_type(line) in ("v", "simple")),
    "include_past_complex": present_or(lambda line: subject_type(line) == "rc"),
    "include_past_complex_verb": present_or(lambda line: subject_type(line) in ("rc", "v")),
    "include_present_simple": past_or(lambda line: subject_type(line) == "simple"),
    "include_present_simple_verb": past_or(lambda line: subject_type(line) in ("v", "simple")),
    "include_present_complex": past_or(lambda line: subject_type(line) == "rc"),
    "include_present_complex_verb": past_or(lambda line: subject_type(line) in ("rc", "v")),
    "include_subject_rc_obj": past_or(lambda line: subject_clause(line) in ("obj", "none")),
    "include_subject_rc_subj": past_or(lambda line: subject_clause(line) in ("sbj", "none")),
}


# --- the documented table ---------------------------------------------------------------------------


def documented(section: str) -> dict[str, dict]:
    """Filter -> {keep: ..., drop: ...} from the table under a heading of the page."""
    text = DOCS.read_text(encoding="utf-8").split(f"## {section}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", text, flags=re.MULTILINE)
    return {name: yaml.safe_load("{" + conditions + "}") for name, conditions in rows}


@pytest.fixture(scope="module")
def lines() -> dict[str, list[Document]]:
    sizes = {"train": 8000, "val": 0, "test": 0, "ood": 500}
    made = [corpus(corpus.Config(sizes=sizes)) for corpus in (QuestionFormation, TenseInflection)]
    return {
        name: [*corpus.documents("train"), *corpus.documents("ood")]
        for name, corpus in zip(("Question formation", "Tense inflection"), made, strict=True)
    }


CASES = [("Question formation", name, f) for name, f in QUESTION_FILTERS.items()]
CASES += [("Tense inflection", name, f) for name, f in TENSE_FILTERS.items()]


@pytest.mark.parametrize(("section", "name", "original"), CASES, ids=[f"{c[0][0]}-{c[1]}" for c in CASES])
def test_the_documented_conditions_keep_what_the_original_filter_keeps(
    section, name, original, lines
) -> None:
    documents = lines[section]
    expected = [d for d in documents if original(d.text)]
    assert view(documents, **documented(section)[name]) == expected
    assert 0 < len(expected) < len(documents)


def test_every_filter_is_documented_and_nothing_else() -> None:
    assert documented("Question formation").keys() == QUESTION_FILTERS.keys()
    assert documented("Tense inflection").keys() == TENSE_FILTERS.keys()


def test_one_past_one_present_and_one_clause_filter_combine_by_dropping(lines) -> None:
    together = ("include_past_simple", "include_present_complex", "include_subject_rc_obj")
    documents = lines["Tense inflection"]
    expected = [d for d in documents if all(TENSE_FILTERS[name](d.text) for name in together)]
    conditions = documented("Tense inflection")
    dropped = [condition for name in together for condition in conditions[name]["drop"]]
    assert view(documents, drop=dropped) == expected
    assert 0 < len(expected) < len(documents)


def test_counting_the_substring_do_counts_auxiliaries(lines) -> None:
    """The original's substring test is exact on this lexicon, so no deviation is needed."""
    for document in lines["Question formation"]:
        assert k(document.text) == document.fields["n_aux"]
    words = {w for d in lines["Question formation"] for w in d.text.split()}
    assert {w for w in words if "do" in w} == set(AUXILIARIES)
    assert {w for w in words if "quest" in w or "decl" in w} == {"quest", "decl"}
