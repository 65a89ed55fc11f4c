"""Contracts of corpora, tokenizers, directions and packings."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lexarium.contracts.tools import Sentences, Test, need
from lexarium.foundation import rng
from lexarium.foundation.types import Example
from lexarium.tokens.block import Block, keeps_up
from lexarium.tokens.direction import views_of
from lexarium.tokens.tokenizers import save_tokenizer

DOCUMENTS = 2000
"""Documents looked at in each split of a corpus."""


def corpora(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a corpus."""
    corpus = cls(config)
    if hasattr(corpus, "token_parts"):
        yield from _token_corpora(corpus, cls(config))
        return
    take = lambda source, split: list(itertools.islice(source.documents(split), DOCUMENTS))

    def there() -> str:
        need(corpus.splits, "no split")
        sizes = {split: len(take(corpus, split)) for split in corpus.splits}
        need(all(sizes.values()), f"empty: {', '.join(s for s, n in sizes.items() if not n)}")
        return ", ".join(f"{s} {n}" for s, n in sizes.items())

    def disjoint() -> str | None:
        if getattr(corpus, "repeats", False):
            return "not asked: its documents repeat"
        texts = {split: {d.text for d in take(corpus, split)} for split in corpus.splits}
        for a, b in itertools.combinations(texts, 2):
            shared = texts[a] & texts[b]
            example = next(iter(shared), "")[:60]
            need(not shared, f"{a} and {b} share {len(shared)} documents, e.g. {example!r}")
        return None

    def deterministic() -> None:
        other = cls(config)
        for split in reversed(corpus.splits):
            need(take(other, split) == take(corpus, split), f"{split}: two objects give other documents")
            need(take(corpus, split) == take(corpus, split), f"{split}: reading twice gives other documents")
        need(other.fingerprint() == corpus.fingerprint(), "two objects have different fingerprints")

    def in_parts() -> str | None:
        if not hasattr(corpus, "parts"):
            return "not read in parts"
        for split in corpus.splits:
            found = [d for part in corpus.parts() for name, d in corpus.read(part, {}) if name == split]
            need(found[:DOCUMENTS] == take(corpus, split), f"{split}: the parts hold other documents")
        return f"{len(corpus.parts())} parts"

    def aligned() -> str:
        first: tuple[set[str], set[str]] | None = None
        for document in itertools.chain(*(take(corpus, split) for split in corpus.splits)):
            need(document.text, "a document without text")
            for name, values in document.channels.items():
                n = len(values)
                need(
                    n == len(document.text), f"channel {name}: {n} values for {len(document.text)} characters"
                )
            names = (set(document.fields), set(document.channels))
            first = first or names
            need(names == first, f"documents differ in fields or channels: {names} and {first}")
        assert first is not None
        fields, channels = (", ".join(sorted(names)) or "none" for names in first)
        return f"fields {fields}; channels {channels}"

    yield "every split has documents", there
    yield "splits are disjoint", disjoint
    yield "deterministic", deterministic
    yield "channels are aligned with characters, fields are the same everywhere", aligned
    yield "its parts hold the same documents", in_parts


def _token_corpora(corpus: Any, other: Any) -> Iterator[Test]:
    """Contract of a corpus of ids that were made before."""

    def there() -> str:
        found = {split: sum(len(p.ids) for p in corpus.token_parts(split)) for split in corpus.splits}
        need(all(found.values()), f"no ids: {', '.join(s for s, n in found.items() if not n)}")
        return ", ".join(f"{split} {n}" for split, n in found.items())

    def documents() -> None:
        for split in corpus.splits:
            for part in corpus.token_parts(split):
                ends = part.documents
                need(ends[0] == 0 and ends[-1] == len(part.ids), "documents do not cover the ids")
                need((np.diff(ends) > 0).all(), "an empty document")

    def deterministic() -> None:
        for split in corpus.splits:
            pairs = zip(corpus.token_parts(split), other.token_parts(split), strict=True)
            need(all(np.array_equal(a.ids, b.ids) for a, b in pairs), f"{split}: two objects give other ids")
        need(other.fingerprint() == corpus.fingerprint(), "two objects have different fingerprints")

    yield "every split has ids", there
    yield "documents cover the ids", documents
    yield "deterministic", deterministic


def tokenizers(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a tokenizer."""
    corpus = Sentences(numbers=not getattr(cls, "reads_text", True))
    texts = [d.text for d in corpus.documents("train")]

    def trained() -> Any:
        tokenizer = cls(config)
        tokenizer.train(corpus)
        return tokenizer

    def round_trip() -> str:
        tokenizer = trained()
        for text in texts:
            back = tokenizer.decode(tokenizer.encode(text)[0])
            need(back == text, f"{text!r} comes back as {back!r}")
        return f"{len(texts)} texts, vocabulary of {tokenizer.vocab_size}"

    def ids() -> None:
        tokenizer = trained()
        for text in texts:
            found, first = tokenizer.encode(text)
            need(len(found) == len(first), "ids and first characters differ in number")
            need(found.min() >= 0 and found.max() < tokenizer.vocab_size, "an id outside the vocabulary")
            need((np.diff(first) >= 0).all() and first.max() < len(text), "first characters are out of order")
            need("pad" in tokenizer.roles, "no role `pad`")

    def quick() -> str | None:
        tokenizer = trained()
        if not hasattr(tokenizer, "encode_ids"):
            return "no encode_ids: encode is used"
        for text in texts:
            same = np.array_equal(tokenizer.encode_ids(text), tokenizer.encode(text)[0])
            need(same, f"{text!r}: encode_ids gives other ids than encode")
        return None

    def lengths() -> str | None:
        tokenizer = trained()
        known = tokenizer.byte_lengths() if hasattr(tokenizer, "byte_lengths") else None
        if known is None:
            return "no byte_lengths: bits per byte are not known"
        need(len(known) == tokenizer.vocab_size, f"{len(known)} byte lengths for {tokenizer.vocab_size} ids")
        joiner = len(tokenizer.joiner.encode())
        for text in texts:
            found = int(known[tokenizer.encode(text)[0]].sum())
            need(found - len(text.encode()) in (0, joiner), f"{text!r}: the tokens hold {found} bytes")
        return None

    yield "round trip: decode(encode(text)) is the text", round_trip
    yield "ids and first characters are in range", ids
    yield "the quick way gives the same ids", quick
    yield "byte lengths add up to the text", lengths
    yield from _tokenizer_files(cls, config, trained, texts)


def _tokenizer_files(cls: Any, config: Any, trained: Callable[[], Any], texts: list[str]) -> Iterator[Test]:
    def same_again() -> None:
        a, b = trained(), trained()
        need(a.dump() == b.dump(), "training twice on the same corpus gives two tokenizers")

    def saving() -> None:
        a, b = trained(), cls(config)
        with tempfile.TemporaryDirectory() as folder:
            save_tokenizer(a, Path(folder))
            b.load(Path(folder))
        for text in texts:
            need(np.array_equal(a.encode(text)[0], b.encode(text)[0]), f"{text!r}: other ids after loading")
        need(a.fingerprint() == b.fingerprint(), "another fingerprint after loading")

    yield "training is deterministic", same_again
    yield "save and load", saving


def directions(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a direction, asked of each of its views."""
    for name, direction in views_of(cls(config)).items():
        for title, test in _direction(direction):
            yield f"{title} ({name})" if name else title, test


def _direction(direction: Any) -> Iterator[Test]:
    def example(n: int) -> Example:
        ids = np.arange(10, 10 + n)
        segment = (np.arange(n) >= n // 2).astype(np.int64)
        return Example(ids, np.arange(n), segment, {"copy": ids.copy()}, (0,), 0)

    def undone() -> None:
        for n in (1, 2, 3, 8, 17):
            back = direction.undo(direction.apply(example(n)).ids)
            need(np.array_equal(back, example(n).ids), f"undo(apply(x)) is not x for {n} tokens")

    def aligned() -> None:
        for n in (1, 2, 9):
            moved = direction.apply(example(n))
            need(np.array_equal(moved.channels["copy"], moved.ids), "channels do not follow the ids")
            need(
                len(moved.position) == len(moved.segment) == len(moved.ids),
                "position or segment has another length",
            )
            need(sorted(moved.ids) == sorted(example(n).ids), "tokens are lost or added")

    def pure() -> None:
        source = example(9)
        a, b = direction.apply(source).ids, direction.apply(source).ids
        need(np.array_equal(a, b), "applying twice gives two orders")
        need(np.array_equal(source.ids, example(9).ids), "the example given was changed")

    def many() -> str | None:
        if not keeps_up(direction, "apply_block", "apply"):
            return "no apply_block: examples are made one by one"
        for sizes in ((9,), (4, 4, 4), (3, 1, 8)):
            together = direction.apply_block(Block.of([example(n) for n in sizes]))
            for one, found in zip(map(direction.apply, map(example, sizes)), together, strict=True):
                need(one.start == found.start, "apply_block: another start")
                for name in ("ids", "position", "segment"):
                    need(
                        np.array_equal(getattr(one, name), getattr(found, name)), f"apply_block: other {name}"
                    )
                need(
                    np.array_equal(one.channels["copy"], found.channels["copy"]),
                    "apply_block: other channels",
                )
        return None

    yield "undo(apply(x)) is x", undone
    yield "everything aligned moves alike", aligned
    yield "pure", pure
    yield "many at once are as one by one", many


def packings(cls: Any, config: Any) -> Iterator[Test]:
    """Contract of a packing."""
    packing = cls(config)
    overlaps = getattr(packing, "overlaps", False)
    lengths = rng.generator(1, "lengths").integers(1, min(13, packing.longest + 1), size=60)

    def pieces(seed: int, epoch: int) -> list[list[tuple[int, int, int]]]:
        plan = packing.plan(lengths, seed, epoch)
        return [[tuple(p) for p in plan.pieces(i)] for i in range(len(plan))]

    def once() -> str:
        seen: set[tuple[int, int]] = set()
        for document, start, stop in itertools.chain(*pieces(1, 0)):
            for place in range(start, stop) if document >= 0 else ():
                need(
                    overlaps or (document, place) not in seen,
                    f"token {place} of document {document} comes twice",
                )
                need(place < lengths[document], f"document {document} has no token {place}")
                seen.add((document, place))
        if overlaps:
            return f"windows overlap: {len(seen)} tokens at least once"
        left = int(lengths.sum()) - len(seen)
        need(left < packing.longest, f"{left} tokens never come, more than one example")
        return f"{len(seen)} tokens once, {left} left over"

    def limited() -> None:
        longest = max(sum(stop - start for _, start, stop in example) for example in pieces(1, 0))
        need(longest <= packing.longest, f"an example of {longest} tokens, `longest` says {packing.longest}")

    def pure() -> None:
        first = pieces(1, 3)
        pieces(2, 0)
        need(pieces(1, 3) == first, "the same (seed, epoch) gives two plans")
        plan = packing.plan(lengths, 1, 3)
        backwards = [[tuple(p) for p in plan.pieces(i)] for i in reversed(range(len(plan)))]
        need(backwards[::-1] == first, "an example depends on which were asked for before")

    def many() -> str | None:
        plan = packing.plan(lengths, 1, 2)
        if not keeps_up(plan, "pieces_of", "pieces"):
            return "no pieces_of: examples are made one by one"
        i = rng.generator(2, "places").integers(0, len(plan), 30)
        found, flat = plan.pieces_of(i), []
        for d, a, b, separated in zip(*(x.tolist() for x in found[:4]), strict=True):
            flat += [(d, a, b)] * (b > a) + [(-1, 0, 1)] * separated
        need(flat == [tuple(p) for j in i.tolist() for p in plan.pieces(j)], "pieces_of: other pieces")
        sizes = [sum(stop - start for _, start, stop in plan.pieces(j)) for j in i.tolist()]
        need(found.lengths.tolist() == sizes, "pieces_of: other lengths")
        need(int(found.counts.sum()) == len(found.document), "pieces_of: counts do not add up")
        return None

    yield "every token of every document once per epoch", once
    yield "no example is longer than `longest`", limited
    yield "a pure function of (seed, epoch, i)", pure
    yield "many at once are as one by one", many
