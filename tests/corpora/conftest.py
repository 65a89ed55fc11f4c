"""Shared fixtures: the released validation files, and one generated corpus of each task."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexarium.corpora.question_formation import QuestionFormation
from lexarium.corpora.tense_inflection import TenseInflection
from lexarium.foundation.types import Document

RELEASED = Path(__file__).parents[3] / "shared" / "data" / "mccoy2020"


@pytest.fixture
def question_val() -> Path:
    return _released("question.val")


@pytest.fixture
def tense_val() -> Path:
    return _released("tense.val")


def _released(name: str) -> Path:
    path = RELEASED / name
    if not path.is_file():
        pytest.skip(f"the released file {name} of McCoy et al. (2020) is not at {RELEASED}")
    return path


@pytest.fixture(scope="session")
def question() -> dict[str, list[Document]]:
    """The default corpus, split by split."""
    corpus = QuestionFormation(QuestionFormation.Config())
    return {split: list(corpus.documents(split)) for split in corpus.splits}


@pytest.fixture(scope="session")
def tense() -> dict[str, list[Document]]:
    """The default corpus, split by split."""
    corpus = TenseInflection(TenseInflection.Config())
    return {split: list(corpus.documents(split)) for split in corpus.splits}
