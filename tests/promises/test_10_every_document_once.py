"""Promise 10: every document once per epoch, none skipped or repeated: across interruptions, micro-batches and
ranks, and when documents are joined anew every epoch, with the remainder policy stated in tokens/packing.py.

What is counted is what training consumed: the rows that reached an update which was not lost later.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import tiny_config, tiny_run

from lexarium.corpora.question_formation import QuestionFormation
from lexarium.foundation.types import Batch, Example
from lexarium.studies.run import Attempt, Run
from lexarium.tokens.loader import Loader, assemble
from lexarium.tokens.packing import SEPARATOR, Piece, WindowPacking
from lexarium.training.parallel import World
from lexarium.training.program import EagerProgram
from lexarium.training.trainer import Trainer
from phonemes import JOINED, distinct_utterances

DOCUMENTS, BATCH, EPOCHS = 40, 7, 3
DATA = {"type": "question_formation", "sizes": {"train": DOCUMENTS, "val": 20, "test": 0, "ood": 20}}


class Killed(BaseException):
    """Stands for the death of the process."""


def texts(run: Run) -> list[str]:
    """The training documents, straight from the corpus."""
    config = run.config.corpus
    assert isinstance(config, QuestionFormation.Config)
    return [d.text for d in QuestionFormation(config).documents("train")]


def train_with_kills(run: Run, kills: list[int], monkeypatch: pytest.MonkeyPatch) -> list[list[Batch]]:
    """Train, dying before these steps in turn; the micro-batches of every step, as last consumed."""
    consumed: dict[int, list[Batch]] = {}
    advance, update = Trainer.advance, EagerProgram.update
    waiting = list(kills)
    at = [0]

    def remember_step(self: Trainer) -> Any:
        at[0] = self.step
        return advance(self)

    def remember_batches(self: EagerProgram, batches: list[Batch], lr_scale: float) -> Any:
        if waiting and at[0] == waiting[0]:
            waiting.pop(0)
            raise Killed
        consumed[at[0]] = batches
        return update(self, batches, lr_scale)

    monkeypatch.setattr(Trainer, "advance", remember_step)
    monkeypatch.setattr(EagerProgram, "update", remember_batches)
    monkeypatch.setattr(Attempt, "fail", lambda *args: None)
    for _ in kills:
        with pytest.raises(Killed):
            Run.open(run.path).train()
    assert Run.open(run.path).train() == "done"
    assert not waiting and sorted(consumed) == list(range(run.config.train.max_steps))
    return [consumed[step] for step in sorted(consumed)]


def rows(batches: list[list[Batch]]) -> list[list[int]]:
    """Input rows without bos, in order."""
    found = []
    for batch in itertools.chain.from_iterable(batches):
        real = np.ones(batch.inputs["tokens"].shape, dtype=bool).reshape(-1)
        if "real" in batch.inputs:
            real[:] = False
            real[batch.inputs["real"].numpy()] = True
        for row, kept in zip(
            batch.inputs["tokens"].numpy(), real.reshape(batch.inputs["tokens"].shape), strict=True
        ):
            found.append(row[kept][1:].tolist())
    return found


def steps_for(examples: int) -> int:
    return -(-examples // BATCH)


@pytest.mark.parametrize(("micro_batch", "workers"), [(None, 0), (2, 3)])
def test_documents_over_three_epochs_and_two_kills(
    micro_batch: int | None, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(
        tmp_path,
        corpus=DATA,
        train={
            "max_steps": steps_for(EPOCHS * DOCUMENTS),
            "global_batch_size": BATCH,
            "micro_batch_size": micro_batch,
        },
        plan={"workers": workers},
    )
    batches = train_with_kills(run, [4, 13], monkeypatch)
    tokenizer = run.parts().tokenizer
    read = [tokenizer.decode(row) for row in rows(batches)]
    epochs = [read[i * DOCUMENTS : (i + 1) * DOCUMENTS] for i in range(EPOCHS)]
    expected = texts(run)
    assert len(set(expected)) == DOCUMENTS
    for epoch in epochs:
        assert sorted(epoch) == sorted(expected)
    assert epochs[0] != epochs[1] != epochs[2], "the order is new every epoch"
    predicted = sum(len(b.targets["labels"]) for b in itertools.chain.from_iterable(batches))
    assert predicted == sum(len(text.split()) + 1 for text in read)
    assert [i for step in batches for b in step for i in b.examples] == list(range(len(read)))
    assert run.files.metrics()[-1]["tokens"] == predicted


def test_both_reads_every_document_once_in_each_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over two epochs and two kills: a row begins with the token of its direction; batches hold both."""
    run = tiny_run(
        tmp_path,
        corpus=DATA,
        direction={"type": "both"},
        train={"max_steps": steps_for(4 * DOCUMENTS), "global_batch_size": BATCH, "micro_batch_size": 3},
        plan={"workers": 2},
    )
    batches = train_with_kills(run, [4, 13], monkeypatch)
    parts = run.parts()
    roles, base = parts.objective.roles, parts.tokenizer.vocab_size
    assert (roles["forward"], roles["backward"], roles.vocab_size) == (base + 2, base + 3, base + 4)
    started = [[int(i) for batch in step for i in batch.inputs["tokens"][:, 0]] for step in batches]
    assert all({roles["forward"], roles["backward"]} == set(step) for step in started)
    read = [
        parts.tokenizer.decode(ids if start == roles["forward"] else ids[::-1])
        for ids, start in zip(rows(batches), itertools.chain.from_iterable(started), strict=True)
    ]
    begun = list(itertools.chain.from_iterable(started))
    for epoch in range(2):
        cut = slice(epoch * 2 * DOCUMENTS, (epoch + 1) * 2 * DOCUMENTS)
        for way in ("forward", "backward"):
            mine = [text for text, start in zip(read[cut], begun[cut], strict=True) if start == roles[way]]
            assert sorted(mine) == sorted(texts(run)), f"epoch {epoch}, {way}"
    first, second = read[:DOCUMENTS], read[DOCUMENTS : 2 * DOCUMENTS]
    assert first == second, "copy c of the example at place p is read in direction (c + p) mod 2"


def test_a_permutation_reads_the_windows_of_forward(tmp_path: Path) -> None:
    packing = {"type": "windows", "seq_len": 30, "stride": 12}
    runs = {
        name: tiny_run(tmp_path, corpus=DATA, packing=packing, direction={"type": name}, evaluations=[])
        for name in ("forward", "permutation")
    }
    loaders = {name: run.parts().loader(World(), keyed=False) for name, run in runs.items()}
    undo = loaders["permutation"].direction.undo
    for number in range(2 * loaders["forward"].examples_per_epoch):
        ids = loaders["forward"].example(number).ids.tolist()
        moved = loaders["permutation"].example(number).ids
        assert undo(moved).tolist() == ids
        assert moved.tolist() != ids and moved.tolist() != ids[::-1]


@pytest.mark.parametrize("order", ["corpus", "once", "each_epoch"])
def test_windows_over_three_epochs_and_two_kills(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seq_len = 30
    packing = {"type": "windows", "seq_len": seq_len, "order": order}
    lengths = [len(text.split()) for text in texts(tiny_run(tmp_path / "x", corpus=DATA))]
    total = sum(lengths) + DOCUMENTS
    per_epoch = total // seq_len
    run = tiny_run(
        tmp_path,
        corpus=DATA,
        packing=packing,
        train={"max_steps": steps_for(EPOCHS * per_epoch), "global_batch_size": BATCH},
    )
    read = rows(train_with_kills(run, [3, 9], monkeypatch))
    parts = run.parts()
    eos = parts.objective.roles["eos"]
    corpus = Counter(int(i) for text in texts(run) for i in parts.tokenizer.encode(text)[0])
    corpus[eos] = DOCUMENTS
    assert corpus.total() == total
    left_out = []
    for i in range(EPOCHS):
        epoch = read[i * per_epoch : (i + 1) * per_epoch]
        assert [len(row) for row in epoch] == [seq_len] * per_epoch
        seen = Counter(itertools.chain.from_iterable(epoch))
        assert seen <= corpus, "a token was read more often than it occurs"
        rest = corpus - seen
        assert rest.total() == total % seq_len > 0, (
            "the remainder is what does not fill a window, and nothing else"
        )
        left_out.append(rest)
    assert (left_out[0] == left_out[1] == left_out[2]) is (order != "each_epoch")


def test_utterances_joined_anew_over_three_epochs_and_two_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamic joining of a sample. No symbol of the corpus occurs twice, so rows tell which utterances were read, and
    whether each is whole, with its boundary behind it."""
    utterances, seq_len = distinct_utterances(tmp_path), 12
    corpus = {"type": "utterances", "path": str(tmp_path / "utterances.txt"), "split": {"val": 0}}
    config = {
        **JOINED,
        "corpus": corpus,
        "tokenizer": {"type": "symbol"},
        "packing": {**JOINED["packing"], "seq_len": seq_len},
        "view": {"subsample": {"count": 31, "seed": 2}},
        "train": {"max_steps": 24, "global_batch_size": BATCH, "micro_batch_size": None},
        "evaluations": [],
    }
    run = tiny_run(tmp_path, tiny_config(**config))
    parts = run.parts()
    sample = [utterances[i] for i in parts.loader(World(), keyed=False).view.documents]
    symbols = parts.tokenizer.symbols
    assert len(sample) == 31 < len(utterances)
    total = sum(map(len, sample)) + len(sample)
    per_epoch = total // seq_len
    read = []
    for batch in itertools.chain.from_iterable(train_with_kills(run, [2, 9], monkeypatch)):
        tokens = batch.inputs["tokens"]
        last = batch.targets["labels"].reshape(len(tokens), -1)[:, -1:]  # equally long rows, without padding
        read += [[symbols[i] for i in row] for row in np.concatenate([tokens, last], axis=1).tolist()]
    assert len(read) >= EPOCHS * per_epoch
    end = "UTT_BOUNDARY"
    follows = {pair for u in sample for pair in itertools.pairwise([*u, end])}
    first = {u[0] for u in sample}
    neighbours = []
    for epoch in (read[i * per_epoch : (i + 1) * per_epoch] for i in range(EPOCHS)):
        counts = Counter(itertools.chain.from_iterable(epoch))
        ends = counts.pop(end)
        assert set(counts.values()) == {1} and set(counts) <= set(itertools.chain.from_iterable(sample))
        assert sum(counts.values()) + ends == per_epoch * seq_len and ends <= len(sample)
        joined = {pair for row in epoch for pair in itertools.pairwise(row)}
        assert all(pair in follows or (pair[0] == end and pair[1] in first) for pair in joined)
        rows_of = itertools.chain.from_iterable(zip(row, row[1:], row[2:], strict=False) for row in epoch)
        neighbours.append({(a, c) for a, b, c in rows_of if b == end})
    assert neighbours[0] != neighbours[1] != neighbours[2], "utterances have new neighbours every epoch"


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    seq_len=st.integers(1, 25),
    separator=st.booleans(),
    order=st.sampled_from(["corpus", "once", "each_epoch"]),
    stride=st.one_of(st.none(), st.integers(1, 30)),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_windows_cover_the_stream(lengths, seq_len, separator, order, stride, epoch, seed) -> None:
    """Property: every token and every separator lies in exactly one window, but for the last total mod seq_len; with
    a stride, in as many windows as begin in the seq_len places up to it."""
    total = sum(lengths) + separator * len(lengths)
    if total < seq_len:
        return
    options = WindowPacking.Config(seq_len=seq_len, separator=separator, order=order, stride=stride)
    plan = WindowPacking(options).plan(np.array(lengths), seed, epoch)
    seen: Counter[tuple[int, int]] = Counter()
    separators = 0
    for i in range(len(plan)):
        size = 0
        for piece in plan.pieces(i):
            size += piece.stop - piece.start
            if piece.document == SEPARATOR:
                separators += 1
            else:
                seen.update((piece.document, place) for place in range(piece.start, piece.stop))
        assert size == seq_len
    step = stride or seq_len
    starts = range(0, total - seq_len + 1, step)
    assert len(plan) == len(starts) == (total - seq_len) // step + 1
    if stride is not None:
        covered = Counter(place for start in starts for place in range(start, start + seq_len))
        assert sum(seen.values()) + separators == sum(covered.values())
        if not separator:
            assert sorted(seen.values()) == sorted(covered.values())
        return
    assert len(plan) == total // seq_len
    assert not seen or max(seen.values()) == 1
    assert all(place < lengths[document] for document, place in seen)
    assert len(seen) + separators == total - total % seq_len
    assert separators <= len(lengths) * separator


@pytest.mark.parametrize("packing", [{"type": "documents"}, {"type": "windows", "seq_len": 30}])
def test_ranks_share_without_gaps_and_may_change_in_number(packing: dict[str, Any], tmp_path: Path) -> None:
    """Two ranks, then three, then one, as after resuming elsewhere: together they read what one rank reads."""
    run = tiny_run(tmp_path, tiny_config(corpus=DATA, packing=packing, train={"global_batch_size": BATCH}))
    parts = run.parts()
    alone = parts.loader(World(), keyed=False)
    n, steps = alone.examples_per_epoch, steps_for(EPOCHS * alone.examples_per_epoch)
    sizes = [2] * 5 + [3] * 5 + [1] * (steps - 10)
    loaders: dict[tuple[int, int], Loader] = {}
    numbers: list[int] = []
    pieces: list[list[Piece]] = []
    for step, size in enumerate(sizes):
        for rank in range(size):
            if (rank, size) not in loaders:
                loaders[rank, size] = parts.loader(World(rank, size), keyed=False)
            share = loaders[rank, size].own(step)
            numbers.extend(share.tolist())
            pieces.extend(loaders[rank, size]._plan(int(i) // n).pieces(int(i) % n) for i in share)
    assert numbers == list(range(steps * BATCH))
    for epoch in range(EPOCHS):
        cells = Counter(
            (p.document, place)
            for group in pieces[epoch * n : (epoch + 1) * n]
            for p in group
            if p.document != SEPARATOR
            for place in range(p.start, p.stop)
        )
        assert set(cells.values()) == {1}
        missing = int(alone.view.n_tokens) - len(cells)
        assert missing == 0 if packing["type"] == "documents" else 0 < missing < 30


def test_a_separator_belongs_to_the_document_before_it(tmp_path: Path) -> None:
    """By hand: a window that begins with the separator of a document outside it, then one document, then another."""
    parts = tiny_run(tmp_path, corpus=DATA).parts()
    view, eos = parts.store.view("train"), parts.objective.roles["eos"]
    first, second = int(view.lengths[0]), int(view.lengths[1])
    end = Piece(SEPARATOR, 0, 1)
    found: Example = assemble(view, [end, Piece(0, 0, first), end, Piece(1, 0, 2)], parts.objective)
    assert found.segment.tolist() == [0] + [1] * (first + 1) + [2, 2]
    assert found.position.tolist() == [0, *range(first + 1), 0, 1]
    assert found.ids.tolist() == [eos, *view.tokens(0).tolist(), eos, *view.tokens(1)[:2].tolist()]
    assert found.documents == (0, 1)
    middle = assemble(view, [Piece(0, 3, first), end, Piece(1, 0, second)], parts.objective)
    assert middle.segment.tolist() == [0] * (first - 3 + 1) + [1] * second
    assert middle.position.tolist() == [*range(3, first + 1), *range(second)]
