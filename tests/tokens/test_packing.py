"""Plans against the plain thing they stand for: all documents joined, cut, and visited in some order."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.foundation import registry
from lexarium.foundation.types import UserError
from lexarium.tokens.packing import SEPARATOR, Piece

lengths_ = st.lists(st.integers(1, 12), min_size=1, max_size=25)
ORDERS = ("corpus", "once", "each_epoch")


def packing(kind: str, **options: object) -> object:
    cls = registry.find("packing", kind)
    return cls(cls.Config(**options))


def stream(pieces: list[Piece]) -> list[object]:
    """Tokens a list of pieces stands for: (document, place), or "|" for a separator."""
    found: list[object] = []
    for piece in pieces:
        if piece.document == SEPARATOR:
            assert (piece.start, piece.stop) == (0, 1)
            found.append("|")
        else:
            assert 0 <= piece.start < piece.stop
            found += [(piece.document, place) for place in range(piece.start, piece.stop)]
    return found


def joined(lengths: list[int], order: list[int], separator: bool) -> list[object]:
    """All documents in an order, one token after the other."""
    found: list[object] = []
    for document in order:
        found += [(document, place) for place in range(lengths[document])] + ["|"] * separator
    return found


# --- documents --------------------------------------------------------------------------------------


@given(lengths_, st.integers(0, 99), st.integers(0, 5))
def test_documents_each_once_and_whole(lengths: list[int], seed: int, epoch: int) -> None:
    plan = packing("documents").plan(np.array(lengths), seed, epoch)
    assert len(plan) == len(lengths)
    found = [plan.pieces(i) for i in range(len(plan))]
    assert sorted(found) == [[Piece(d, 0, n)] for d, n in enumerate(lengths)]


def test_a_new_order_every_epoch_and_seed() -> None:
    lengths = np.ones(50, dtype=np.int64)
    order = lambda seed, epoch: [
        packing("documents").plan(lengths, seed, epoch).pieces(i)[0].document for i in range(50)
    ]
    orders = {tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert order(1, 2) == order(1, 2)
    assert tuple(range(50)) not in orders


def test_a_document_beyond_max_length_is_named() -> None:
    with pytest.raises(
        UserError,
        match=r"packing\.max_length is 4 but document 1 has 5 tokens; raise it or use packing type windows",
    ):
        packing("documents", max_length=4).plan(np.array([3, 5, 4]), 1, 0)
    assert len(packing("documents", max_length=5).plan(np.array([3, 5, 4]), 1, 0)) == 3


# --- windows ----------------------------------------------------------------------------------------


@given(
    lengths_, st.integers(1, 20), st.booleans(), st.sampled_from(ORDERS), st.integers(0, 9), st.integers(0, 3)
)
def test_windows_are_slices_of_the_joined_documents(
    lengths: list[int], seq_len: int, separator: bool, order: str, seed: int, epoch: int
) -> None:
    total = sum(lengths) + separator * len(lengths)
    maker = packing("windows", seq_len=seq_len, separator=separator, order=order)
    if total < seq_len:
        with pytest.raises(
            UserError,
            match=f"{total} tokens do not fill one window of seq_len {seq_len}; use a shorter seq_len",
        ):
            maker.plan(np.array(lengths), seed, epoch)
        return
    plan = maker.plan(np.array(lengths), seed, epoch)
    windows = [stream(plan.pieces(i)) for i in range(len(plan))]
    assert len(windows) == total // seq_len
    assert all(len(window) == seq_len for window in windows)
    # every window is somewhere in the stream; where, tells the order in which documents were joined
    documents = list(range(len(lengths)))
    if order != "corpus":
        documents = joined_order(plan)
        assert sorted(documents) == list(range(len(lengths)))
    expected = joined(lengths, documents, separator)[: total // seq_len * seq_len]
    slices = [expected[i : i + seq_len] for i in range(0, len(expected), seq_len)]
    assert sorted(map(repr, windows)) == sorted(map(repr, slices))


def joined_order(plan: object) -> list[int]:
    return plan._order.tolist()  # type: ignore[attr-defined]


@given(st.lists(st.integers(1, 12), min_size=9, max_size=25), st.integers(0, 9))
def test_when_documents_are_joined_anew(lengths: list[int], seed: int) -> None:
    order = lambda kind, epoch, seed=seed: joined_order(
        packing("windows", seq_len=1, order=kind).plan(np.array(lengths), seed, epoch)
    )
    identity = list(range(len(lengths)))
    assert order("corpus", 0) == order("corpus", 1) == identity
    assert order("once", 0) == order("once", 1) != identity
    assert order("each_epoch", 0) != order("each_epoch", 1)
    assert order("once", 0) != order("once", 0, seed + 1)


def test_windows_are_visited_in_another_order_every_epoch() -> None:
    maker = packing("windows", seq_len=2, separator=False, order="corpus")
    visits = [
        [maker.plan(np.full(40, 2), 1, epoch).pieces(i)[0].document for i in range(40)] for epoch in range(3)
    ]
    assert all(sorted(visit) == list(range(40)) for visit in visits)
    assert len({tuple(visit) for visit in visits}) == 3


def test_the_remainder_differs_from_epoch_to_epoch() -> None:
    """50 documents of 3 tokens and 7-token windows: 3 tokens are left over, not always the same."""
    maker = packing("windows", seq_len=7, separator=False)
    left: collections.Counter = collections.Counter()
    for epoch in range(60):
        plan = maker.plan(np.full(50, 3), 1, epoch)
        seen = {token for i in range(len(plan)) for token in stream(plan.pieces(i))}
        missing = {(d, p) for d in range(50) for p in range(3)} - seen
        assert len(missing) == 150 % 7
        left.update(missing)
    assert len(left) > 60, "the same documents would be left out again and again"


def test_a_plan_is_random_access() -> None:
    plan = packing("windows", seq_len=5).plan(np.arange(1, 30), 3, 1)
    forwards = [plan.pieces(i) for i in range(len(plan))]
    assert [plan.pieces(i) for i in reversed(range(len(plan)))][::-1] == forwards


def test_a_hand_worked_stream() -> None:
    """Documents of 3, 1 and 2 tokens with separators: 000|1|22| cut into fours."""
    plan = packing("windows", seq_len=4, order="corpus").plan(np.array([3, 1, 2]), 0, 0)
    windows = sorted((plan.pieces(i) for i in range(2)), key=lambda w: w[0].document)
    assert windows[0] == [Piece(0, 0, 3), Piece(SEPARATOR, 0, 1)]
    assert windows[1] == [Piece(1, 0, 1), Piece(SEPARATOR, 0, 1), Piece(2, 0, 2)]


@pytest.mark.parametrize(
    ("kind", "options", "longest"), [("documents", {"max_length": 9}, 9), ("windows", {"seq_len": 7}, 7)]
)
def test_longest_example(kind: str, options: dict, longest: int) -> None:
    assert packing(kind, **options).longest == longest


@pytest.mark.parametrize("options", [{}, {"seq_len": 0}, {"seq_len": 4, "order": "random"}])
def test_options_that_make_no_windows(options: dict) -> None:
    with pytest.raises(ValueError, match="seq_len|order"):
        packing("windows", **options)


# --- strides ----------------------------------------------------------------------------------------


def test_overlapping_windows_by_hand() -> None:
    """20 tokens, windows of 8 every 3: they begin at 0, 3, 6, 9 and 12, and the last ends with the stream."""
    plan = packing("windows", seq_len=8, stride=3, separator=False, order="corpus").plan(
        np.array([9, 11]), 1, 0
    )
    tokens = joined([9, 11], [0, 1], False)
    found = sorted((stream(plan.pieces(i)) for i in range(len(plan))), key=lambda w: tokens.index(w[0]))
    assert found == [tokens[s : s + 8] for s in (0, 3, 6, 9, 12)]


@given(lengths_, st.integers(1, 9), st.integers(1, 12), st.booleans(), st.sampled_from(ORDERS))
def test_many_overlapping_windows_are_as_one_by_one(
    lengths: list[int], seq_len: int, stride: int, separator: bool, order: str
) -> None:
    total = sum(lengths) + separator * len(lengths)
    if total < seq_len:
        return
    plan = packing("windows", seq_len=seq_len, stride=stride, separator=separator, order=order).plan(
        np.array(lengths), 3, 1
    )
    i = np.arange(len(plan))
    pieces = plan.pieces_of(i)
    flat: list[tuple[int, int, int]] = []
    for d, a, b, separated in zip(*(x.tolist() for x in pieces[:4]), strict=True):
        flat += [(d, a, b)] * (b > a) + [(SEPARATOR, 0, 1)] * separated
    assert flat == [tuple(p) for j in i.tolist() for p in plan.pieces(j)]
    assert pieces.lengths.tolist() == [seq_len] * len(plan)


def test_the_order_of_windows_is_new_every_epoch() -> None:
    make = packing("windows", seq_len=5, stride=2, order="corpus")
    orders = {tuple(tuple(make.plan(np.array([90]), 1, e).pieces(i)) for i in range(40)) for e in range(3)}
    assert len(orders) == 3


# --- the published scheme ---------------------------------------------------------------------------


def published(n_tokens: int, length: int, held_out: int) -> tuple[list[int], list[int]]:
    """Starts of training and validation windows, as arrow-of-time.md section 3.1 words it."""
    stride = (length - 1) // 2
    indices = np.arange((n_tokens - length) // stride)
    np.random.default_rng(42).shuffle(indices)
    starts = (indices * stride).tolist()
    return starts[: len(starts) - held_out], starts[len(starts) - held_out :]


@given(lengths_, st.integers(3, 12), st.integers(1, 4))
def test_window_shuffle_is_the_published_scheme(lengths: list[int], length: int, held_out: int) -> None:
    tokens = joined(lengths, list(range(len(lengths))), False)
    train, validation = published(len(tokens), length, held_out)
    one = packing("window_shuffle", seq_len=length, held_out=held_out)
    if not train:
        with pytest.raises(UserError, match=rf"packing.held_out is {held_out} but|do not fill one window"):
            one.plan(np.array(lengths), 1, 0)
        return
    plans = [one.plan(np.array(lengths), seed, epoch) for seed, epoch in ((1, 0), (2, 3))]
    for plan in plans:
        assert [stream(plan.pieces(i)) for i in range(len(plan))] == [tokens[s : s + length] for s in train]
    kept = one.held_out_windows(np.array(lengths))
    assert [stream(kept.pieces(i)) for i in range(len(kept))] == [tokens[s : s + length] for s in validation]
    pieces = plans[0].pieces_of(np.arange(len(train)))
    assert pieces.lengths.tolist() == [length] * len(train)


def test_the_published_numbers() -> None:
    """A = 256: stride 127, M = (N - A) // stride; the leak: a held-out token lies in a training window too."""
    one, n = packing("window_shuffle", seq_len=256, held_out=50), 100_000
    train, kept = one.plan(np.array([n]), 1, 0), one.held_out_windows(np.array([n]))
    assert len(train) + len(kept) == (n - 256) // 127 == 785 and len(kept) == 50
    starts = lambda plan: {plan.pieces(i)[0].start for i in range(len(plan))}
    assert all(s % 127 == 0 for s in starts(train) | starts(kept))
    neighbours = [s for s in starts(kept) if {s - 127, s + 127} & starts(train)]
    assert len(neighbours) >= 45
