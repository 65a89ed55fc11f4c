"""The stream of a split whose word boundaries are known and not in the text: what segmentation is scored on.

Refused: a corpus without the channel `word_start`, tokens that hold the end of one word and the beginning of the next,
and word boundaries that stand in the text, where the model reads them.
"""

from __future__ import annotations

import numpy as np

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.segmentation.cues import stream_of
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation.types import UserError

CHANNEL = "word_start"
MARKS = ("WORD_BOUNDARY", " ")
"""The word boundary in vocabularies of symbols, and of characters."""


def word_stream(data: EvaluationData, split: str, limit: int, who: str) -> Stream:
    """The first `limit` utterances (0 = all) of a split; `who` asks, as messages say."""
    view = data.view(split)
    if CHANNEL not in data.store.manifest["channels"]:
        raise UserError(
            f"evaluation {who}: the corpus has no channel {CHANNEL!r}, which says where words begin; use corpus"
            " utterances, or another with that channel"
        )
    n = min(len(view), limit or len(view))
    if not n:
        raise UserError(f"evaluation {who}: split {split!r} has no utterance")
    for i in range(n):
        starts = view.channel(CHANNEL, i)
        fields = view.split.fields
        words = fields["words"][view.documents[i]] if "words" in fields else starts.sum()
        if not starts[0] or starts.sum() != words:
            raise UserError(
                f"evaluation {who}: document {i} of split {split!r} has {words} words, and {int(starts.sum())} of its"
                " tokens begin one: some reach over a word boundary; use a tokenizer of single symbols"
            )
    stream = stream_of(view, CHANNEL, range(n))
    marks = [i for i, symbol in enumerate(data.tokenizer.symbols) if symbol in MARKS]
    if np.isin(stream.symbols, marks).any():
        raise UserError(
            f"evaluation {who}: word boundaries stand in the text, where the model reads them; say"
            " corpus.boundaries: channel"
        )
    return stream
