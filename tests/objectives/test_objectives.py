"""Objectives, worked by hand: what is read, what is predicted, what is weighed, and how a question is framed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lexarium.foundation import registry
from lexarium.foundation.types import INPUTS, Output, UserError
from toy import example, toy_tokenizer

TOKENIZER = toy_tokenizer(["a b c d e"])  # ids: a 1, b 2, c 3, d 4, e 5
PAD, A, B, C, D, E, EOS, BOS = range(8)


def objective(kind: str = "causal", **options: Any) -> Any:
    cls = registry.find("objective", kind)
    return cls(cls.Config(**options), TOKENIZER)


@pytest.mark.parametrize("kind", registry.names("objective"))
def test_declarations_are_from_the_closed_list(kind: str) -> None:
    cls = registry.find("objective", kind)
    assert cls.produces <= set(INPUTS)
    assert cls.answers <= {"token_scores", "next_scores", "generate", "hidden"}


# --- causal -----------------------------------------------------------------------------------------


def test_special_tokens_follow_the_vocabulary() -> None:
    assert objective().roles.ids == {"pad": PAD, "eos": EOS, "bos": BOS}
    assert objective().vocab_size == 8
    without = objective(bos=False)
    assert (without.roles.ids, without.vocab_size) == ({"pad": PAD, "eos": EOS}, 7)


@pytest.mark.parametrize(
    ("bos", "eos", "row", "targets"),
    [
        (True, True, [BOS, A, B, C], [A, B, C, EOS]),
        (True, False, [BOS, A, B], [A, B, C]),
        (False, True, [A, B, C], [B, C, EOS]),
        (False, False, [A, B], [B, C]),
    ],
)
def test_one_row(bos: bool, eos: bool, row: list[int], targets: list[int]) -> None:
    causal = objective(bos=bos, eos=eos)
    batch = causal.collate([example([A, B, C], index=5)])
    assert batch.inputs["tokens"].tolist() == [row]
    assert batch.targets["labels"].tolist() == targets
    assert batch.weights == {"ce": len(targets)}
    assert (batch.n_tokens, batch.examples) == (len(targets), (5,))
    places = causal.scored(example([A, B, C]))
    assert [([A, B, C, EOS])[p] for p in places] == targets


def test_rows_of_several_lengths() -> None:
    batch = objective().collate([example([A, B]), example([C], index=1), example([D, E, A], index=2)])
    assert batch.inputs["tokens"].tolist() == [[BOS, A, B, PAD], [BOS, C, PAD, PAD], [BOS, D, E, A]]
    assert batch.inputs["real"].tolist() == [0, 1, 2, 4, 5, 8, 9, 10, 11]
    assert batch.targets["labels"].tolist() == [A, B, EOS, C, EOS, D, E, A, EOS]
    assert set(batch.inputs) == {"tokens", "real"}, "no keys without dropout, no segments unless asked for"


def test_documents_of_a_window_are_told_apart() -> None:
    window = example([A, B, EOS, C, D], segment=[0, 0, 0, 1, 1])
    batch = objective(document_mask=True).collate([window, example([E])])
    assert batch.inputs["tokens"].tolist() == [[BOS, A, B, EOS, C, D], [BOS, E, *[PAD] * 4]]
    assert batch.inputs["segment"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, -1, -1, -1, -1]]
    assert batch.inputs["position"].tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 0, 0, 0, 0]]
    no_bos = objective(document_mask=True, bos=False).collate([window])
    assert no_bos.inputs["segment"].tolist() == [[0, 0, 0, 1, 1]]
    assert no_bos.inputs["position"].tolist() == [[0, 1, 2, 0, 1]]


def test_loss_is_the_sum_over_predicted_tokens() -> None:
    causal = objective()
    batch = causal.collate([example([A]), example([B, C])])
    scores = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = causal.loss(Output(scores, lambda h: h), batch)
    assert list(terms) == ["ce"] and batch.weights == {"ce": 5}
    expected = -sum(scores.log_softmax(-1)[i, t] for i, t in enumerate([A, EOS, B, C, EOS]))
    assert float(terms["ce"].sum) == pytest.approx(float(expected))


def test_one_token_and_no_frame_leaves_nothing_to_predict() -> None:
    with pytest.raises(UserError, match=r"nothing to predict without objective\.bos and objective\.eos"):
        objective(bos=False, eos=False).collate([example([A]), example([B])])
    mixed = objective(bos=False, eos=False).collate([example([A]), example([B, C])])
    assert mixed.targets["labels"].tolist() == [C]


@pytest.mark.parametrize("bos", [True, False])
def test_reading_a_prefix(bos: bool) -> None:
    """The state that predicts what follows is that of the last token; `given` and `begun` simply follow each other."""
    array = lambda *x: np.array(x, dtype=np.int64)
    prefixes = [(array(A, B), array()), (array(C), array(D, E)), (array(E), array())]
    batch, last = objective(bos=bos).read(prefixes)
    rows = [[BOS] * bos + r for r in ([A, B], [C, D, E], [E])]
    assert [row[: len(r)].tolist() for row, r in zip(batch.inputs["tokens"], rows, strict=True)] == rows
    flat = batch.inputs["tokens"].reshape(-1)[batch.inputs["real"]]
    assert flat[last].tolist() == [B, E, E]


def test_an_empty_prefix_needs_bos() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    batch, last = objective().read([(nothing, nothing)])
    assert (batch.inputs["tokens"].tolist(), last.tolist()) == ([[BOS]], [0])
    with pytest.raises(UserError, match=r"an empty prefix needs objective\.bos"):
        objective(bos=False).read([(nothing, nothing)])


# --- seq2seq ----------------------------------------------------------------------------------------


def test_a_pair() -> None:
    seq2seq = objective("seq2seq")
    batch = seq2seq.collate(
        [example([A, B, C, D, E], half=[0, 0, 0, 1, 1]), example([A, E], index=1, half=[0, 1])]
    )
    assert batch.inputs["source"].tolist() == [[A, B, C], [A, PAD, PAD]]
    assert batch.inputs["source_mask"].tolist() == [[True, True, True], [True, False, False]]
    assert batch.inputs["source_real"].tolist() == [0, 1, 2, 3]
    assert batch.inputs["tokens"].tolist() == [[BOS, D, E], [BOS, E, PAD]]
    assert batch.inputs["real"].tolist() == [0, 1, 2, 3, 4]
    assert batch.targets["labels"].tolist() == [D, E, EOS, E, EOS]
    assert batch.weights == {"ce": 5} and batch.n_tokens == 5
    assert set(batch.inputs) <= seq2seq.produces


def test_source_and_target_have_keys_of_their_own() -> None:
    pair = example([A, B, C, D], half=[0, 0, 1, 1])
    batch = objective("seq2seq").collate([pair], dropout_key=77)
    assert batch.inputs["token_key"].shape == batch.inputs["tokens"].shape == (1, 3)
    assert batch.inputs["source_key"].shape == (1, 2)
    assert not set(batch.inputs["token_key"][0].tolist()) & set(batch.inputs["source_key"][0].tolist())


def test_which_places_of_a_pair_are_scored() -> None:
    assert objective("seq2seq").scored(example([A, B, C, D], half=[0, 0, 1, 1])).tolist() == [2, 3, -1]


def test_reading_a_source_and_a_begun_target() -> None:
    array = lambda *x: np.array(x, dtype=np.int64)
    batch, last = objective("seq2seq").read([(array(A, B), array()), (array(C), array(D, E))])
    assert batch.inputs["source"].tolist() == [[A, B], [C, PAD]]
    assert batch.inputs["tokens"].tolist() == [[BOS, PAD, PAD], [BOS, D, E]]
    flat = batch.inputs["tokens"].reshape(-1)[batch.inputs["real"]]
    assert flat[last].tolist() == [BOS, E]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (example([A, B]), "channel 'half'"),
        (example([A, B], index=3, half=[0, 0]), r"document \(3,\) lacks a source or a target part"),
        (example([A, B], index=3, half=[1, 1]), r"document \(3,\) lacks a source or a target part"),
    ],
)
def test_what_is_no_pair(pair: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective("seq2seq").collate([pair])


def test_another_channel() -> None:
    seq2seq = objective("seq2seq", channel="side")
    assert seq2seq.channels == ("side",)
    assert seq2seq.collate([example([A, B], side=[0, 1])]).inputs["source"].tolist() == [[A]]


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_is_a_share(kind: str, smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        objective(kind, label_smoothing=smoothing)
