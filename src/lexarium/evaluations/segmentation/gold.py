"""The gold stream of a split: symbols a model reads, and where words begin, from the channel `word_start`.

Refused, with what to do: corpora without the channel, tokens that hold the end of one word and the beginning of the
next (fewer tokens begin a word than the utterance has words), and word boundaries that stand in the text, where a
model reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.segmentation.stream import END, Stream
from lexarium.foundation.types import UserError
from lexarium.tokens.tokenizers import Vocabulary

CHANNEL = "word_start"
ENOUGH = 10
"""Positions inside utterances from which on it is no chance that a word begins at all of them."""
BOUNDARIES = ("WORD_BOUNDARY", " ")
"""A word boundary in vocabularies of symbols, and of characters."""
BLANKS = ("\u0120", "\u2581", " ")
"""How pieces of text that begin with a blank are written (byte-level BPE, SentencePiece)."""
LOOK = 1000
"""Documents after which it is seen whether more need to be read."""


def gold_stream(data: EvaluationData, split: str, limit: int = 0, *, asks: str = "segmentation") -> Stream:
    """The first `limit` utterances of a split (0 = all); `asks`: the evaluation, for messages."""
    view = data.view(split)
    if CHANNEL not in data.store.manifest["channels"]:
        raise UserError(
            f"evaluation {asks}: the corpus has no channel {CHANNEL!r}, which says where words begin;"
            " use corpus utterances, or another with that channel"
        )
    n = min(len(view), limit or len(view))
    if not n:
        raise UserError(f"evaluation {asks}: split {split!r} has no utterance")
    for i in range(n):
        starts = view.channel(CHANNEL, i)
        fields = view.split.fields
        words = fields["words"][view.documents[i]] if "words" in fields else starts.sum()
        if not starts[0] or starts.sum() != words:
            raise UserError(
                f"evaluation {asks}: document {i} of split {split!r} has {words} words, and"
                f" {int(starts.sum())} of its tokens begin one: some reach over a word boundary; use a"
                " tokenizer of single symbols, and corpus.boundaries: channel"
            )
    stream = stream_of(view, CHANNEL, range(n))
    if stream.inside.sum() >= ENOUGH and stream.starts[stream.inside].all():
        raise UserError(
            f"evaluation {asks}: in split {split!r} every symbol is a word of its own: are the symbols of words not"
            " separated? Then write spaces between them, or say corpus.form: letters"
        )
    pieces = not isinstance(data.tokenizer, Vocabulary)
    marks = [
        i
        for i, symbol in enumerate(data.tokenizer.symbols)
        if symbol in BOUNDARIES or (pieces and symbol.startswith(BLANKS))
    ]
    if np.isin(stream.symbols, marks).any():
        raise UserError(
            f"evaluation {asks}: word boundaries stand in the text, or spaces between symbols, where the model reads"
            " them; say corpus.boundaries: channel, and tokenizer.type: symbol"
        )
    return stream


def unseen(data: EvaluationData, symbols: np.ndarray) -> np.ndarray:
    """(n,) bool: which of `symbols`, (n,) ids or END, occur in no document that the run trains on."""
    view = data.view("train")
    left = set(np.unique(symbols).tolist()) - {END}
    for start in range(0, len(view), LOOK):
        if not left:
            break
        for i in range(start, min(start + LOOK, len(view))):
            left.difference_update(view.tokens(i).tolist())
    return np.isin(symbols, list(left))


def stream_of(view: Any, channel: str, utterances: Sequence[int] | None = None) -> Stream:
    """The stream of a split's documents."""
    chosen = range(len(view)) if utterances is None else utterances
    symbols, starts = [], []
    for i in chosen:
        symbols += [view.tokens(i).astype(np.int64), np.array([END])]
        starts += [view.channel(channel, i).astype(bool), np.array([False])]
    return Stream(np.concatenate(symbols), np.concatenate(starts))
