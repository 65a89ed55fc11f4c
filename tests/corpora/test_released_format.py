"""Reading and writing the released text format, and what is refused with file and line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lexarium.corpora.pairs import read_released, write_released
from lexarium.corpora.question_formation import QUESTION, QuestionFormation
from lexarium.corpora.tense_inflection import TENSE, TenseInflection
from lexarium.foundation.config import identity
from lexarium.foundation.types import Document, UserError

QUEST = "my raven that doesn't sleep does change . quest\tdoes my raven that doesn't sleep change ?"
DECL = "some yaks do giggle . decl\tsome yaks do giggle ."
LINEAR = "my raven that doesn't sleep does change . quest\tdoesn't my raven that sleep does change ?"
PRESENT = "her newt near our yaks smiled . PRESENT\ther newt near our yaks smiles ."


def write(folder: Path, text: str | bytes, name: str = "pairs.train") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- the released files -----------------------------------------------------------------------------


def test_every_released_question_parses_and_follows_the_hierarchical_rule(question_val) -> None:
    documents = read_released(question_val, QUESTION)  # refuses any other output
    assert Counter(d.fields["kind"] for d in documents) == {"decl": 594, "quest": 406}
    assert all(d.fields["rule"] == "both" for d in documents)
    assert read_released(question_val, QUESTION, "linear") == documents
    quest = [d for d in documents if d.fields["kind"] == "quest"]
    assert Counter(d.fields["subject"] for d in quest) == {"bare": 266, "pp": 140}
    assert sum(d.fields["n_distinct_aux"] >= 2 for d in quest) == 108  # published size of question_disamb.val
    assert len({d.fields["template"] for d in quest}) == 86
    assert len({d.fields["template"] for d in documents if d.fields["kind"] == "decl"}) == 178


def test_every_released_tense_pair_parses_and_follows_the_hierarchical_rule(tense_val) -> None:
    documents = read_released(tense_val, TENSE)
    assert Counter(d.fields["kind"] for d in documents) == {"PAST": 558, "PRESENT": 442}
    present = [d for d in documents if d.fields["kind"] == "PRESENT"]
    assert all(d.fields["nearest_agrees"] and d.fields["rules_agree"] for d in present)
    past = [d for d in documents if d.fields["kind"] == "PAST"]
    assert sum(d.fields["nearest_agrees"] for d in past) == round(0.694 * 558)
    # sizes of the files tense.val_prep (no relative clause), val_rc_obj, val_rc_sbj of hier_gen
    clauses = Counter(d.fields["subject_rc"] for d in present)
    assert clauses == {"none": 285, "obj": 34, "sbj": 123}
    assert len({d.fields["template"] for d in past}) == 177


@pytest.mark.parametrize("name", ["question_val", "tense_val"])
def test_writing_what_was_read_gives_the_released_file_byte_for_byte(name, request, tmp_path) -> None:
    path = request.getfixturevalue(name)
    task = {"question_val": QUESTION, "tense_val": TENSE}[name]
    assert write_released(read_released(path, task), tmp_path / "copy") == 1000
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


# --- round trip -------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [QuestionFormation, TenseInflection], ids=["question", "tense"])
@pytest.mark.parametrize("rule", ["ambiguous", "linear"])
def test_generated_splits_read_back_as_the_same_documents(corpus, rule, tmp_path) -> None:
    sizes = {"train": 300, "val": 50, "test": 0, "ood": 100}
    made = corpus(corpus.Config(sizes=sizes, rule=rule))
    files = {}
    for split in made.splits:
        files[split] = str(tmp_path / split)
        write_released(made.documents(split), files[split])
    targets = "linear" if rule == "linear" else "hierarchical"
    read = corpus(corpus.Config(files=files, targets=targets))
    assert read.splits == made.splits == ("train", "val", "ood")
    for split in made.splits:
        assert list(read.documents(split)) == list(made.documents(split))
    assert read.symbols() == made.symbols()


def test_the_fingerprint_follows_content_and_split_but_not_the_path(tmp_path) -> None:
    first, copy = write(tmp_path, QUEST + "\n", "a"), write(tmp_path, QUEST + "\n", "b")
    other = write(tmp_path, DECL + "\n", "c")

    def fingerprint(**files) -> str:
        return QuestionFormation(QuestionFormation.Config(files=files)).fingerprint()

    assert fingerprint(train=str(first)) == fingerprint(train=str(copy))
    assert (
        len({fingerprint(train=str(first)), fingerprint(train=str(other)), fingerprint(val=str(first))}) == 3
    )
    assert identity(QuestionFormation.Config(files={"train": str(first)})) == {}


def test_accepted_variations_of_the_format(tmp_path) -> None:
    """Without the final newline, with a space for the tab, with Windows line ends."""
    expected = read_released(write(tmp_path, f"{QUEST}\n{DECL}\n"), QUESTION)
    for text in (f"{QUEST}\n{DECL}", f"{QUEST}\n{DECL}\n".replace("\t", " "), f"{QUEST}\r\n{DECL}\r\n"):
        assert read_released(write(tmp_path, text, "other"), QUESTION) == expected
    assert expected[0].text == QUEST.replace("\t", " ")


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (DECL.replace("giggle", "gigle", 1), "unknown word 'gigle'; did you mean 'giggle'?"),
        (DECL.replace(" decl", ""), "no marker; expected one of decl and quest after the first sentence"),
        (PRESENT, "the other task's marker 'PRESENT'; expected one of decl and quest"),
        (QUEST + " quest", "2 markers"),
        ("", "empty line"),
        ("   ", "empty line"),
        (DECL.replace("yaks", " yaks", 1), "two spaces in a row"),
        (DECL + " ", "two spaces in a row, or a space at an end"),
        (DECL.replace(" . decl", " decl"), "the first sentence must end in ' .' before 'decl'"),
        (
            DECL.replace("\t", " ").replace("some yaks", "some\tyaks", 1),
            "the tab must stand right after 'decl'",
        ),
        ("newt some does giggle . decl\tnewt some does giggle .", "at the start found 'newt' (n_s)"),
        (LINEAR, "the output is \"doesn't my raven that sleep does change ?\", but 'quest' asks for"),
        (DECL.removesuffix(" ."), "the output is 'some yaks do giggle', but 'decl' asks for"),
        (DECL.split("\t")[0] + "\t", "a space at an end"),
        (DECL.split("\t")[0], "the output is '', but 'decl' asks for 'some yaks do giggle .'"),
    ],
)
def test_a_bad_line_is_refused_with_file_line_and_reason(line, message, tmp_path) -> None:
    path = write(tmp_path, f"{DECL}\n{QUEST}\n{line}\n{DECL}\n")
    with pytest.raises(UserError) as error:
        read_released(path, QUESTION)
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)


def test_a_bad_file_is_refused(tmp_path) -> None:
    path = write(tmp_path, "")
    with pytest.raises(UserError, match="empty; expected one pair per line"):
        read_released(path, QUESTION)
    write(tmp_path, f"{DECL}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(UserError, match=rf"{path}:2: not UTF-8"):
        read_released(path, QUESTION)
    with pytest.raises(UserError, match="no such file"):
        read_released(tmp_path / "absent", QUESTION)
    with pytest.raises(UserError, match="no such file"):
        QuestionFormation(QuestionFormation.Config(files={"val": str(tmp_path / "absent")})).fingerprint()


def test_targets_decide_which_outputs_are_accepted(tmp_path) -> None:
    scrambled = QUEST.replace("does my raven", "raven my does")
    path = write(tmp_path, f"{LINEAR}\n")
    assert read_released(path, QUESTION, "linear")[0].fields["rule"] == "linear"
    path = write(tmp_path, f"{LINEAR}\n{QUEST}\n{scrambled}\n{DECL}\n")
    with pytest.raises(UserError, match=":2:"):
        read_released(path, QUESTION, "linear")
    rules = [d.fields["rule"] for d in read_released(path, QUESTION, "any")]
    assert rules == ["linear", "hierarchical", "neither", "both"]
    path = write(tmp_path, DECL.removesuffix("giggle .") + "hop .")
    with pytest.raises(UserError, match="unknown word 'hop'"):
        read_released(path, QUESTION, "any")


def test_files_and_generation_do_not_mix(tmp_path) -> None:
    path = str(write(tmp_path, DECL))
    with pytest.raises(ValueError, match="with `files` nothing is generated; remove seed, templates"):
        QuestionFormation.Config(files={"train": path}, seed=1, templates=20)
    with pytest.raises(ValueError, match="names no file"):
        QuestionFormation.Config(files={})
    with pytest.raises(UserError, match="has no split 'ood'; it has train"):
        QuestionFormation(QuestionFormation.Config(files={"train": path})).documents("ood")


def test_only_pairs_can_be_written(tmp_path) -> None:
    with pytest.raises(UserError, match="document 2 is not a pair"):
        write_released([Document(DECL.replace("\t", " ")), Document("once upon a time")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
