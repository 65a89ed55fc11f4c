"""Permutations against the directions they are a case of; `both` against its two halves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import tiny_config, tiny_run

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Example, Incompatible, UserError
from lexarium.studies.run_config import RunConfig, check
from lexarium.tokens.block import Block
from lexarium.tokens.direction import views_of
from lexarium.training.parallel import World
from toy import example

lengths_ = st.lists(st.integers(1, 6), min_size=1, max_size=6)
WINDOWS = {"type": "windows", "seq_len": 10}


def direction(name: str, **options: Any) -> Any:
    cls = registry.find("direction", name)
    return cls(cls.Config(**options))


def made(n: int, seed: int = 0) -> Example:
    """n tokens of documents of three tokens each, the first begun before the window, with a channel."""
    random = np.random.default_rng([n, seed])
    found = example(random.integers(0, 50, n).tolist(), segment=[(i + 1) // 3 for i in range(n)])
    found.channels["c"] = random.integers(0, 9, n)
    found.position = found.position + (found.segment == 0) * 40
    return found


def same(a: Example, b: Example) -> bool:
    arrays = lambda e: (e.ids, e.position, e.segment, e.channels["c"])
    equal = all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))
    return equal and (a.documents, a.index, a.epoch, a.start) == (b.documents, b.index, b.epoch, b.start)


# --- permutation --------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.integers(0, 5))
def test_identity_is_forward_and_its_reverse_is_backward(n: int, seed: int) -> None:
    e = made(n, seed)
    for name, order in (("forward", range(n)), ("backward", reversed(range(n)))):
        one = direction("permutation", order=tuple(order))
        plain = direction(name)
        assert same(one.apply(e), plain.apply(e))
        assert np.array_equal(one.undo(e.ids), plain.undo(e.ids))
        blocks = [d.apply_block(Block.of([e, made(n, seed + 1)])) for d in (one, plain)]
        assert all(same(a, b) for a, b in zip(*blocks, strict=True))


def test_three_tokens_by_hand() -> None:
    one = direction("permutation", order=(2, 0, 1))
    moved = one.apply(example([10, 11, 12], c=[0, 1, 2]))
    assert moved.ids.tolist() == [12, 10, 11] and moved.channels["c"].tolist() == [2, 0, 1]
    assert one.undo(np.array([7, 8, 9])).tolist() == [8, 9, 7]


def test_a_drawn_order_is_a_function_of_seed_and_length() -> None:
    orders = {
        (seed, n): tuple(direction("permutation", seed=seed).order(n).tolist())
        for seed in (0, 1, 2)
        for n in (64, 65)
    }
    assert len(set(orders.values())) == 6
    assert all(sorted(order) == list(range(n)) for (_, n), order in orders.items())
    again = direction("permutation", seed=1).for_length(64)
    assert tuple(again.order(64).tolist()) == orders[1, 64]
    mean = np.mean([direction("permutation", seed=s).order(64) for s in range(200)], axis=0)
    assert np.abs(mean - 31.5).max() < 6, "every place is as likely as any other (sd of a mean: 1.3)"


def test_examples_of_another_length_are_refused() -> None:
    for one in (direction("permutation").for_length(8), direction("permutation", order=range(8))):
        with pytest.raises(
            UserError, match=r"windows of 8 tokens \(packing\.seq_len\), found an example of 7"
        ):
            one.apply(made(7))
        with pytest.raises(UserError, match=r"packing\.seq_len"):
            one.apply_block(Block.of([made(8), made(7)]))
    with pytest.raises(UserError, match=r"direction\.order has 8 places but packing\.seq_len is 9"):
        direction("permutation", order=range(8)).for_length(9)


@pytest.mark.parametrize("order", [[0, 2], [0, 0, 1], [1, 2, 3], []])
def test_an_order_names_every_place_once(order: list[int]) -> None:
    cls = registry.find("direction", "permutation").Config
    with pytest.raises(ConfigError, match="expected every place of the window once"):
        validate(cls, Source({"type": "permutation", "order": order}))


def test_what_does_not_fit_is_refused_before_training() -> None:
    fit = {"direction": {"type": "permutation"}, "packing": WINDOWS, "evaluations": [{"type": "window_loss"}]}
    check(tiny_config(**fit))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"packing": {"type": "documents"}}, r"packing\.seq_len is None"),
        ({"direction": {"type": "permutation", "order": [1, 0]}}, r"2 tokens, but packing\.seq_len is 10"),
        ({"evaluations": [{"type": "loss"}]}, "'loss' asks about documents or texts"),
        ({"evaluations": [{"type": "window_loss", "seq_len": 5}]}, "asks about windows of 5"),
    ]
    for change, message in refused:
        with pytest.raises(Incompatible, match=message):
            check(tiny_config(**{**fit, **change}))


# --- both -----------------------------------------------------------------------------------------------


@given(lengths_, st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_mixed_block_is_its_examples_one_by_one(lengths: list[int], turned: list[bool]) -> None:
    examples = [made(n, i) for i, n in enumerate(lengths)]
    for e, t in zip(examples, turned, strict=False):
        e.start = "backward" if t else "forward"
    both = direction("both")
    found = both.apply_block(Block.of(examples))
    for e, one in zip(examples, found, strict=True):
        assert same(one, both.apply(e))
        plain = direction(e.start).apply(e)
        assert same(one, plain), "that direction by itself, but for the token read first"
    assert [e.start for e in found[1:]] == [e.start for e in examples[1:]]


def test_views_are_the_two_directions() -> None:
    e = made(5)
    views = views_of(direction("both"))
    assert list(views) == ["forward", "backward"] and list(views_of(direction("forward"))) == [""]
    for name, view in views.items():
        moved = view.apply(e)
        assert moved.start == view.start == name
        assert np.array_equal(moved.ids, direction(name).apply(e).ids)
        assert np.array_equal(view.undo(moved.ids), e.ids)


def test_without_a_direction_both_says_so() -> None:
    for ask in (lambda d: d.apply(made(3)), lambda d: d.undo(np.arange(3))):
        with pytest.raises(UserError, match="use the view 'forward' or 'backward'"):
            ask(direction("both"))
    with pytest.raises(UserError, match="use the view"):
        direction("both").apply_block(Block.of([made(3)]))


def test_the_order_of_an_epoch_by_hand(tmp_path: Path) -> None:
    """Five examples: 0 to 4 in turn forward and backward, then again with the directions exchanged."""
    view = {"quotas": [{"where": {"kind": ["decl", "quest"]}, "count": 5}]}
    run = tiny_run(tmp_path, direction={"type": "both"}, view=view)
    plain = tiny_run(tmp_path, view=view)
    loader, single = (r.parts().loader(World(), keyed=False) for r in (run, plain))
    assert (loader.examples_per_epoch, single.examples_per_epoch) == (10, 5)
    ways = [loader.example(i).start[0] for i in range(20)]
    assert "".join(ways) == "fbfbf" + "bfbfb" + "fbfbf" + "bfbfb"
    for i in range(20):
        epoch, place = i // 10, i % 5
        assert loader.example(i).documents == single.example(5 * epoch + place).documents
    for step in range(3):
        batch = list(
            itertools.chain.from_iterable(b.inputs["tokens"][:, 0].tolist() for b in loader.batches(step))
        )
        roles = loader.objective.roles
        expected = [
            roles["forward" if ways[i % 20] == "f" else "backward"] for i in range(8 * step, 8 * step + 8)
        ]
        assert batch == expected


def test_both_needs_an_objective_that_reads_its_tokens() -> None:
    both = {"direction": {"type": "both"}}
    check(tiny_config(**both))
    for change in (
        {"objective": {"type": "causal", "bos": False}},
        {
            "objective": {"type": "seq2seq"},
            "model": {"type": "encoder_decoder", "n_layers": 1, "d_model": 16, "n_heads": 2},
        },
    ):
        with pytest.raises(Incompatible, match="puts a token of its own in the place of bos"):
            check(tiny_config(**both, **change))


def test_other_runs_keep_their_names() -> None:
    """Options that did not exist before are not in the identity while they have their defaults."""
    from lexarium.foundation.config import identity

    config = tiny_config(packing={"type": "windows", "seq_len": 8})
    assert identity(config)["packing"] == {"type": "windows", "version": 1, "seq_len": 8}
    assert isinstance(config, RunConfig)
