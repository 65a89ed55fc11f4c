"""Whole batches at once against the plain way: piece by piece, example by example, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexarium.foundation import registry, rng
from lexarium.foundation.files import Damaged
from lexarium.foundation.types import Batch, Example
from lexarium.objectives.causal import Causal
from lexarium.tokens.block import Block
from lexarium.tokens.direction import Backward
from lexarium.tokens.loader import Loader
from lexarium.tokens.store import Split, View
from toy import toy_tokenizer

WORDS = toy_tokenizer([" ".join(f"w{i}" for i in range(300))])
lengths_ = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *arguments)


def split_of(folder: Path, lengths: Sequence[int], parts: int, dtype: type = np.uint16) -> Split:
    """Random tokens and a channel `half`, cut into parts of about equally many documents."""
    draw = rng.generator(sum(lengths), "tokens")
    (folder / "train").mkdir(parents=True, exist_ok=True)
    names = []
    for part in np.array_split(np.array(lengths), min(parts, len(lengths))):
        names.append(f"part-{len(names):05d}")
        offsets = np.concatenate([[0], np.cumsum(part)]).astype(np.int64)
        n = int(offsets[-1])
        np.save(folder / "train" / f"{names[-1]}.docs.npy", offsets)
        np.save(folder / "train" / f"{names[-1]}.ids.npy", draw.integers(0, 300, n).astype(dtype))
        np.save(folder / "train" / f"{names[-1]}.half.npy", draw.integers(0, 9, n).astype(np.int32))
    return Split(folder, "train", [{"name": name} for name in names], ["half"])


# --- the plain way ----------------------------------------------------------------------------------


def plain_keys(dropout_key: int, example: int, length: int) -> list[int]:
    """Keys of one row, from the definition at the head of objectives/framing.py, in Python integers."""
    mix, low, high = rng.mix32_int, dropout_key & 0xFFFFFFFF, dropout_key >> 32
    h = mix(low + mix(high ^ mix((example & 0xFFFFFFFF) ^ mix(example >> 32))))
    keys = [mix(h + place) for place in range(length)]
    return [k - (1 << 32) if k >= 1 << 31 else k for k in keys]


def plain_documents(example: Example, n: int, shift: int) -> tuple[list[int], list[int]]:
    """Segment and position of one framed row of n tokens."""
    segment = ([int(example.segment[0])] * shift + example.segment.tolist() + [None])[:n]
    if len(example) + shift < n:
        segment[len(example) + shift :] = [segment[-1]] * (n - len(example) - shift)
    position: list[int] = []
    for i in range(n):
        position.append(position[-1] + 1 if i and segment[i] == segment[i - 1] else 0)
    return segment, position


def plain_collate(objective: Causal, examples: Sequence[Example], dropout_key: int | None) -> dict[str, Any]:
    """What `Causal.collate` says it gives, row by row, in lists."""
    bos, eos, pad = (objective.roles.ids.get(role) for role in ("bos", "eos", "pad"))
    rows, targets = [], []
    for e in examples:
        row = [bos] * objective.config.bos + e.ids.tolist() + [eos] * objective.config.eos
        rows.append(row[:-1])
        targets += row[1:]
    width = max(map(len, rows))
    padded = lambda lists, fill: [list(x) + [fill] * (width - len(x)) for x in lists]
    found: dict[str, Any] = {"tokens": padded(rows, pad), "labels": targets}
    if any(len(row) != width for row in rows):
        found["real"] = [i * width + j for i, row in enumerate(rows) for j in range(len(row))]
    if dropout_key is not None:
        keys = [plain_keys(dropout_key, e.index, len(r)) for e, r in zip(examples, rows, strict=True)]
        found["token_key"] = padded(keys, 0)
    if objective.config.document_mask:
        shift = int(objective.config.bos)
        both = [plain_documents(e, len(r), shift) for e, r in zip(examples, rows, strict=True)]
        found |= {"segment": padded([s for s, _ in both], -1), "position": padded([p for _, p in both], 0)}
        lengths = [0]
        for place in (p for _, positions in both for p in positions):
            lengths = [*lengths, lengths[-1] + 1] if place == 0 else [*lengths[:-1], lengths[-1] + 1]
        found["document_ends"] = lengths
    return found


def listed(batch: Batch) -> dict[str, Any]:
    return {k: v.tolist() for k, v in (batch.inputs | batch.targets).items()}


def equal(a: Example, b: Example) -> bool:
    """Every field, its type included."""
    arrays = lambda e: {"ids": e.ids, "position": e.position, "segment": e.segment, **e.channels}
    return (a.documents, a.index, a.epoch) == (b.documents, b.index, b.epoch) and all(
        x.dtype == np.int64 and np.array_equal(x, arrays(b)[name]) for name, x in arrays(a).items()
    )


# --- equal to the bit -------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    lengths=lengths_,
    parts=st.integers(1, 4),
    keep=st.integers(1, 3),
    packing=st.sampled_from(["windows", "windows", "documents"]),
    seq_len=st.integers(1, 50),
    separator=st.booleans(),
    order=st.sampled_from(["corpus", "once", "each_epoch"]),
    direction=st.sampled_from(["forward", "backward"]),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    frame=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    channel=st.booleans(),
    keyed=st.booleans(),
    step=st.integers(0, 40),
)
def test_batches_are_those_of_the_plain_way(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], parts: int, keep: int, packing: str, seq_len: int,
    separator: bool, order: str, direction: str, sizes: tuple[int, int, int], frame: tuple[bool, bool, bool],
    channel: bool, keyed: bool, step: int,
) -> None:  # fmt: skip
    split = split_of(tmp_path_factory.mktemp("split"), lengths, parts, np.uint16 if parts % 2 else np.uint32)
    view = View(split, np.arange(len(lengths))[::keep].astype(np.int64))
    if view.n_tokens + separator * len(view) < seq_len:
        seq_len = 1
    bos, eos, mask = frame
    if not bos and not eos and (packing == "documents" or seq_len == 1):
        eos = True  # a row of one token would leave nothing to predict
    objective = make("objective", "causal", WORDS, bos=bos, eos=eos, document_mask=mask)
    objective.channels = ("half",) if channel else ()
    options = {"seq_len": seq_len, "separator": separator, "order": order} if packing == "windows" else {}
    size, micro, world = sizes
    loader = Loader(
        view, make("packing", packing, **options), make("direction", direction), objective, order_seed=3,
        dropout_seed=2**40 + 5, global_batch_size=max(size, world), micro_batch_size=micro, keyed=keyed,
        rank=step % world, world_size=world,
    )  # fmt: skip
    assert loader._in_blocks
    key = rng.key(2**40 + 5, "dropout", step) if keyed else None
    own = loader.own(step).tolist()
    cuts = [own[i : i + micro] for i in range(0, len(own), micro)]
    found = loader.batches(step)
    assert [list(batch.examples) for batch in found] == cuts
    for batch, numbers in zip(found, cuts, strict=True):
        examples = [loader.example(n) for n in numbers]
        expected = plain_collate(objective, examples, key)
        mine = listed(batch)
        if "document_ends" in mine:  # filled up with the number of tokens
            ends = mine["document_ends"]
            assert len(ends) % 64 == 0 and set(ends[len(expected["document_ends"]) :]) <= {ends[-1]}
            mine["document_ends"] = ends[: len(expected["document_ends"])]
        assert mine == expected
        assert (
            batch.weights == {"ce": float(len(expected["labels"]))} and batch.n_tokens == batch.weights["ce"]
        )
        dtypes = {name: tensor.dtype for name, tensor in (batch.inputs | batch.targets).items()}
        narrow = {dtypes.pop(name, torch.int32) for name in ("token_key", "document_ends")}
        assert narrow == {torch.int32} and set(dtypes.values()) == {torch.int64}
        assert all(tensor.is_contiguous() for tensor in (batch.inputs | batch.targets).values())
        block = loader.examples(numbers)
        assert isinstance(block, Block) and all(map(equal, block, examples))
        assert all(map(equal, block[1:], examples[1:])) and all(map(equal, Block.of(examples), examples))


def test_many_steps_with_epochs_between(tmp_path: Path) -> None:
    """23 windows of 5, batches of 4 asked for out of order: every chunk of steps crosses epochs."""
    view = View(split_of(tmp_path, [7, 3, 11, 2] * 5, 3), np.arange(20))
    objective = make("objective", "causal", WORDS)
    loader = Loader(view, make("packing", "windows", seq_len=5, separator=False), make("direction", "backward"), objective,
                    global_batch_size=4)  # fmt: skip
    assert loader.examples_per_epoch == 23
    for step in [0, 1, 900, 17, 16, 40, 5000, 3, 901]:
        examples = [loader.example(n) for n in loader.own(step)]
        key = rng.key(0, "dropout", step)
        assert [listed(b) for b in loader.batches(step)] == [plain_collate(objective, examples, key)]


# --- parts from outside that know of no blocks ----------------------------------------------------------


class Simple:
    """A direction in the fewest words: every second token first."""

    kind, name, version = "direction", "simple", 1

    def apply(self, example: Example) -> Example:
        order = np.argsort(np.arange(len(example)) % 2, kind="stable")
        values = {name: channel[order] for name, channel in example.channels.items()}
        return Example(example.ids[order], example.position[order], example.segment[order], values,
                       example.documents, example.index, example.epoch)  # fmt: skip


class Rotated(Backward):
    """Inherits `apply_block`, changes `apply`."""

    def apply(self, example: Example) -> Example:
        found = super().apply(example)
        found.ids = np.roll(found.ids, 1)
        return found


class RowByRow(Causal):
    """An objective that looks at single examples."""

    def collate(self, examples: Sequence[Example], dropout_key: int | None = None) -> Batch:
        assert all(isinstance(e, Example) and e.position[0] >= 0 for e in examples)
        return super().collate([e for e in examples if e.ids[0] >= 0], dropout_key)


class OnePlan:
    """A packing whose plan has only `pieces`."""

    def __init__(self, packing: Any) -> None:
        self._packing, self.longest = packing, packing.longest

    def plan(self, *arguments: Any) -> Any:
        plan = self._packing.plan(*arguments)

        class Plan:
            __len__ = lambda self: len(plan)
            pieces = lambda self, i: plan.pieces(i)

        return Plan()


@pytest.mark.parametrize("direction", [Simple(), Rotated(Backward.Config()), Backward(Backward.Config())])
@pytest.mark.parametrize("alone", [True, False])
def test_simple_parts_work_as_they_are(tmp_path: Path, direction: Any, alone: bool) -> None:
    view = View(split_of(tmp_path, [7, 3, 11, 2], 2), np.arange(4))
    packing = make("packing", "windows", seq_len=6)
    objective = RowByRow(Causal.Config(), WORDS)
    loader = Loader(view, OnePlan(packing) if alone else packing, direction, objective, global_batch_size=3)
    assert loader._in_blocks == (type(direction) is Backward and not alone)
    for step in range(5):
        examples = [loader.example(n) for n in loader.own(step)]
        key = rng.key(0, "dropout", step)
        assert [listed(b) for b in loader.batches(step)] == [plain_collate(objective, examples, key)]


# --- reaching every part as one array -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change"),
    [("docs", lambda a: a + 1), ("docs", lambda a: a[::-1].copy()), ("ids", lambda a: a[:-1]), ("half", lambda a: a[:-1])],
)  # fmt: skip
def test_offsets_outside_the_files_are_damage(tmp_path: Path, file: str, change: Any) -> None:
    split_of(tmp_path, [4, 5, 6], 2)
    path = tmp_path / "train" / f"part-00001.{file}.npy"
    np.save(path, change(np.load(path)))
    split = Split(tmp_path, "train", [{"name": "part-00000"}, {"name": "part-00001"}], ["half"])
    with pytest.raises(Damaged, match="delete the store and prepare it again"):
        for name in ("docs", "ids", "half"):
            split.joined(name)


def test_parts_of_different_types_are_damage(tmp_path: Path) -> None:
    split_of(tmp_path, [4, 5, 6], 2)
    path = tmp_path / "train" / "part-00001.ids.npy"
    np.save(path, np.load(path).astype(np.uint32))
    with pytest.raises(Damaged, match="differ in type"):
        Split(tmp_path, "train", [{"name": "part-00000"}, {"name": "part-00001"}], ["half"]).joined("ids")


def test_a_block_is_a_sequence_of_examples(tmp_path: Path) -> None:
    view = View(split_of(tmp_path, [7, 3, 11, 2], 2), np.arange(4))
    loader = Loader(view, make("packing", "documents"), make("direction", "forward"), make("objective", "causal", WORDS),
                    global_batch_size=3)  # fmt: skip
    block = loader.examples(range(4))
    assert isinstance(block, Block) and len(block) == 4
    assert equal(block[-1], loader.example(3)) and [e.index for e in block] == [0, 1, 2, 3]
    assert [e.index for e in block[1:3]] == [1, 2] and len(block[3:1]) == 0
    with pytest.raises(IndexError):
        block[4]
    with pytest.raises(ValueError, match="neighbours"):
        block[::2]
    assert loader.examples([]) == []
