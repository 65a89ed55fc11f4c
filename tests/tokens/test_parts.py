"""Corpora read in parts: the same store however it is cut, whoever builds it, and after any interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexarium.corpora import reading
from lexarium.corpora.text_files import TextFiles
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.files import read_json
from lexarium.foundation.rng import generator
from lexarium.foundation.types import UserError
from lexarium.launch.estimate import estimate
from lexarium.tokens import overlap, parts
from lexarium.tokens.parts import told_at
from lexarium.tokens.prepare import prepare, prepare_tokenizer, prepare_tokens
from lexarium.tokens.store import TokenStore


def data(path: Path | list[str], tokenizer: str = "byte", **options: Any) -> tuple[Any, Any]:
    given = {"type": "text_files", "path": str(path) if isinstance(path, Path) else path, **options}
    corpus = validate(TextFiles.Config, Source(given))
    return corpus, registry.find("tokenizer", tokenizer).Config()


def contents(store: TokenStore) -> dict[str, str]:
    """Everything but where the files lie."""
    found = {}
    for path in sorted(store.folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes().replace(str(store.folder.parent).encode(), b"")
            found[str(path.relative_to(store.folder))] = hashlib.sha256(text).hexdigest()
    return found


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some 40 windows of 2 KiB."""
    monkeypatch.setattr(reading, "WINDOW", 2048)
    random = generator(0, "book")
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i} {'w' * int(random.integers(1, 60))} é\n" for i in range(2000)))
    return path


def test_the_store_holds_the_file(book: Path, tmp_path: Path) -> None:
    store = prepare(*data(book, block_bytes=1024, split={"val": 0.1}), tmp_path / "stores")
    store.verify()
    pieces = []
    for split in store.splits:
        found = store.split(split)
        pieces += [
            (int(found.fields["place"][i]), bytes((found.tokens(i) - 1).astype(np.uint8)))
            for i in range(len(found))
        ]
    assert b"".join(text for _, text in sorted(pieces)) == book.read_bytes()
    assert store.manifest["overlap"] == {"train & val": 0}
    assert store.manifest["sources"]["files"][0]["size"] == book.stat().st_size


@pytest.mark.parametrize("tokens", [300, 10**9])
def test_cut_at_every_write_and_gone_on(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """A compressed file is one job of several parts; a job that was cut goes on behind its last record."""
    import gzip

    packed = tmp_path / "book.txt.gz"
    packed.write_bytes(gzip.compress(book.read_bytes()[:3000], mtime=0))
    config = data(packed, documents="line", split={"val": 0.2})
    monkeypatch.setattr(parts, "TOKENS", tokens)
    whole = contents(prepare(*config, tmp_path / "whole"))
    written = [name for name in whole if "train/part" in name and "ids" in name]
    assert len(written) == 1 if tokens > 300 else len(written) > 7
    encoded: list[str] = []
    write, n = parts.write_json, 0

    def cut(path: Path, content: Any) -> None:
        if len(encoded) == n:
            raise KeyboardInterrupt
        encoded.append(path.name)
        write(path, content)

    with contextlib.suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "write_json", cut)
        for _ in range(40):
            with contextlib.suppress(KeyboardInterrupt):
                store = prepare(*config, tmp_path / "cut")
                break
            n += 1
    assert contents(store) == whole
    assert len(encoded) == len(set(encoded)), "no part was written twice"


def test_workers_do_not_matter(tmp_path: Path) -> None:
    """In other processes windows have their usual size, so this corpus is of many files."""
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text("".join(f"file {i} line {j}\n" for j in range(500 + i)))
    config = data(tmp_path / "*.txt", block_bytes=1024, split={"val": 0.2})
    one = contents(prepare(*config, tmp_path / "one"))
    assert contents(prepare(*config, tmp_path / "two", workers=2)) == one


def test_stages_run_alone(book: Path, tmp_path: Path) -> None:
    corpus, _ = data(book, split={"val": 0.1}, block_bytes=1024)
    tokenizer = registry.find("tokenizer", "bpe").Config(vocab_size=300)
    whole = contents(prepare(corpus, tokenizer, tmp_path / "whole"))
    root = tmp_path / "stages"
    first = prepare_tokenizer(corpus, tokenizer, root)
    assert (first / "tokenizer.json").exists() and not list(first.rglob("*.ids.npy"))
    stamp = (first / "tokenizer.json").stat().st_mtime_ns
    second = prepare_tokens(corpus, tokenizer, root)
    assert second == first and list(second.rglob("*.ids.npy")) and not (second / "manifest.json").exists()
    store = prepare(corpus, tokenizer, root)
    assert contents(store) == whole and (store.folder / "tokenizer.json").stat().st_mtime_ns == stamp
    assert [p.name for p in root.iterdir()] == [store.folder.name]
    assert prepare_tokens(corpus, tokenizer, root) == store.folder


def test_a_split_that_stays_empty_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one line\n")
    with pytest.raises(
        UserError, match=r"split '(train|val)' of the corpus is empty; all 1 documents fell into other splits"
    ):
        prepare(*data(tmp_path / "a.txt"), tmp_path / "stores")
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_file_changed_meanwhile_leaves_nothing(book: Path, tmp_path: Path) -> None:
    def change(tally: Any) -> None:
        if tally.size and not book.read_text().endswith("more\n"):
            book.write_text(book.read_text() + "more\n")

    with pytest.raises(UserError, match=r"book.txt: changed while it was read"):
        prepare(*data(book, block_bytes=1024), tmp_path / "stores", progress=change)
    assert list((tmp_path / "stores").iterdir()) == []


def test_what_was_mended_is_counted_once(tmp_path: Path, book: Path) -> None:
    book.write_bytes(book.read_bytes() + b"\xff\xfe\n" + "a\u2028b\n".encode())
    store = prepare(*data(book, undecodable="replace", block_bytes=1024), tmp_path / "stores")
    assert store.manifest["mended"] == {"undecodable": 2, "separators": 1}


def test_the_estimate_comes_near_what_happens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"some line {i}\n" for i in range(30_000)))
    config = data(tmp_path / "a.txt")
    told = estimate(*config, tmp_path / "stores")
    assert not (tmp_path / "stores").exists() and not told["finished"]
    store = prepare(*config, tmp_path / "stores")
    tokens = sum(entry["tokens"] for entry in store.manifest["splits"].values())
    assert told["tokens"] == pytest.approx(tokens, rel=0.01) and told["parts"] == 1
    assert told["disk"] == pytest.approx(2 * tokens, rel=0.01)
    assert estimate(*config, tmp_path / "stores")["finished"]


# --- overlap ----------------------------------------------------------------------------------------


def test_shared_stretches_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the simple way: sets of tuples."""
    random, n = generator(3, "grams"), overlap.NGRAM
    train = ["".join(random.choice(list("abc"), 40)) for _ in range(60)]
    val = [
        train[3][:20] + "".join(random.choice(list("abc"), 30)),
        "".join(random.choice(list("ab"), 50)),
        train[7],
    ]
    for name, texts in (("t", train), ("v", val)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n")
    config = data(tmp_path / "t.txt", documents="line", val_path=str(tmp_path / "v.txt"))
    monkeypatch.setattr(overlap, "STRETCH", 100)
    details = prepare(*config, tmp_path / "stores").manifest
    grams = lambda texts: {tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)}
    known = grams(train)
    every = [tuple(t[i : i + n]) for t in val for i in range(len(t) - n + 1)]
    want = sum(gram in known for gram in every) / len(every)
    assert details["overlap_details"]["ngrams"] == {"val in train": pytest.approx(want)} and 0.2 < want < 0.9
    assert details["overlap"] == {"train & val": 1}


def test_sampled_overlap_is_near_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"document number {i} of this corpus" for i in range(4000)]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    (tmp_path / "v.txt").write_text("\n".join(lines[:2000] + [f"another {i}" for i in range(2000)]))
    config = data(tmp_path / "t.txt", documents="line", val_path=str(tmp_path / "v.txt"))
    monkeypatch.setattr(overlap, "DOCUMENTS", 500)
    found = prepare(*config, tmp_path / "stores").manifest
    assert found["overlap_details"]["one_document_in"] == 8
    assert found["overlap"]["train & val"] == pytest.approx(2000, rel=0.2)


def test_records_name_what_they_are_of(book: Path, tmp_path: Path) -> None:
    config = data(book, block_bytes=1024)
    folder = prepare_tokens(*config, tmp_path / "stores")
    records = sorted(folder.with_name("jobs").iterdir())
    assert len(records) == reading.count_windows(reading.find_files([str(book)], "auto", "x")[0])
    assert all(read_json(path)["last"] for path in records)
    json.loads(records[0].read_text())


# --- what changes while others work -----------------------------------------------------------------


def six_files(folder: Path) -> Path:
    folder.mkdir()
    for i in range(6):
        (folder / f"p{i}.txt").write_text("".join(f"file {i} line {j}\n" for j in range(400)))
    return folder


@pytest.mark.parametrize("change", ["added", "edited", "gone"])
def test_other_processes_refuse_files_that_are_not_those_of_the_beginning(
    tmp_path: Path, change: str
) -> None:
    """The workers begin after the parent has made its list; what they find must be the same."""
    texts = six_files(tmp_path / "texts")
    corpus, tokenizer = data(texts, block_bytes=1024, split={"val": 0.2})

    def meddle(tally: Any) -> None:
        if tally.stage == "tokenizer":
            if change == "added":
                (texts / "a_new.txt").write_text("a file that came later\n" * 50)
            elif change == "edited":
                (texts / "p5.txt").write_text("another text\n" * 50)
            else:
                (texts / "p2.txt").unlink()

    with pytest.raises(
        UserError, match=r"changed|is gone|not those it had when preparation began|is no file"
    ):
        prepare(corpus, tokenizer, tmp_path / "stores", workers=2, progress=meddle)
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_sample_is_taken_evenly(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{i:08d} some words of a line\n" for i in range(40_000)))
    corpus, _ = data(path, block_bytes=1024)
    chosen = registry.find("tokenizer", "bpe").Config(vocab_size=270, sample_bytes=100_000)
    folder = prepare_tokenizer(corpus, chosen, tmp_path / "stores")
    record = read_json(folder / "training.json")
    assert record["bytes"] == pytest.approx(100_000, rel=0.15)
    from lexarium.tokens.subword.training_text import TrainingText

    text = TrainingText(TextFiles(corpus), ("train",), 100_000)
    places = [int(piece[:8]) for piece in text]
    assert (
        min(places) < 4_000
        and max(places) > 36_000
        and max(b - a for a, b in zip(places, places[1:], strict=False)) < 4_000
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_sample_does_not_meet_what_is_held_out(tmp_path: Path, seed: int) -> None:
    """As large a share is sampled as is held out: by one rule for both, some seeds would leave nothing."""
    from lexarium.tokens.subword.training_text import TrainingText

    path = tmp_path / "a.txt"
    path.write_text("".join(f"{i:08d} some words of a line\n" for i in range(20_000)))
    corpus, _ = data(path, block_bytes=1024, split={"val": 0.05, "seed": seed})
    text = TrainingText(TextFiles(corpus), ("train",), path.stat().st_size // 20)
    assert sum(len(piece) for piece in text) == pytest.approx(path.stat().st_size / 20, rel=0.2)


def test_a_swapped_tokenizer_of_a_finished_store_is_told(tmp_path: Path) -> None:
    from lexarium.foundation.files import Damaged

    path = tmp_path / "a.txt"
    path.write_text("".join(f"some line {i}\n" for i in range(3000)))
    corpus, _ = data(path, block_bytes=1024)
    cls = registry.find("tokenizer", "bpe")
    one, other = (prepare(corpus, cls.Config(vocab_size=n), tmp_path / "stores") for n in (270, 280))
    (one.folder / "tokenizer.json").write_bytes((other.folder / "tokenizer.json").read_bytes())
    with pytest.raises(Damaged, match=r"tokenizer.json: is not the tokenizer that made this store's ids"):
        prepare(corpus, cls.Config(vocab_size=270), tmp_path / "stores")


def test_damaged_ids_of_a_finished_store_are_told(tmp_path: Path) -> None:
    from lexarium.foundation.files import Damaged

    (tmp_path / "a.txt").write_text("".join(f"some line {i}\n" for i in range(3000)))
    config = data(tmp_path / "a.txt", block_bytes=1024)
    store = prepare(*config, tmp_path / "stores")
    path = next(store.folder.glob("train/*.ids.npy"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"ids.npy: content differs from its checksum"):
        prepare(*config, tmp_path / "stores")


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_parts_are_looked_at_before_a_preparation_goes_on(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A part that is not what was written, or is gone, is made anew; the store is that of one go."""
    config = data(book, block_bytes=1024)
    whole = contents(prepare(*config, tmp_path / "whole"))
    folder = prepare_tokens(*config, tmp_path / "stores")
    path = sorted(folder.glob("train/*.ids.npy"))[1]
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    assert contents(prepare(*config, tmp_path / "stores")) == whole


@pytest.mark.parametrize(
    "text, split, told",
    [
        (
            "one long line " * 3000,
            {},
            "'val' .* all 1 documents .*: hold out more, .* a text of one line cannot be divided",
        ),
        ("a line\n", {"val": 0.99}, "'train' .* all 1 documents fell into other splits: hold out less"),
    ],
)
def test_an_empty_split_says_what_may_help(tmp_path: Path, text: str, split: Any, told: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=told):
        prepare(*data(tmp_path / "a.txt", **({"split": split} if split else {})), tmp_path / "stores")


def test_progress_is_told_inside_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TELL", 2000)
    path = tmp_path / "a.txt"
    path.write_text("".join(f"some line {i}\n" for i in range(3000)))
    sizes: list[int] = []
    prepare(
        *data(path, block_bytes=1024),
        tmp_path / "stores",
        progress=lambda t: sizes.append(t.size) if t.stage == "tokens" else None,
    )
    assert sizes[0] == 0 and sizes == sorted(sizes) and len(sizes) > 10 and sizes[-1] == path.stat().st_size


@given(st.lists(st.text("ab \t\u00e9", min_size=1, max_size=5), min_size=1, max_size=8))
def test_tokens_take_the_value_of_their_first_letter(pieces: list[str]) -> None:
    """Pieces of a text may begin with the blank before a word."""
    text, first = "".join(pieces), np.cumsum([0, *map(len, pieces[:-1])])
    for piece, place, start in zip(pieces, told_at(text, first).tolist(), first.tolist(), strict=True):
        seen = [i for i, c in enumerate(piece) if not c.isspace()]
        assert place == start + (seen[0] if seen else 0)
