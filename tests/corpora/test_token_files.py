"""Token files: read in place where they can be, copied where not, the same ids either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lexarium.corpora.token_files import TokenFiles
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.files import Damaged
from lexarium.foundation.rng import generator
from lexarium.foundation.types import UserError
from lexarium.tokens.prepare import prepare
from lexarium.tokens.store import TokenStore

IDS = generator(0, "ids").integers(1, 1000, 200_000)
IDS[::500] = 0


def write(folder: Path, form: str, ids: np.ndarray = IDS) -> Path:
    path = folder / f"tokens.{form.split('-')[0]}"
    if form == "bin":
        ids.astype(np.uint16).tofile(path)
    elif form == "npy":
        np.save(path, ids.astype(np.int32))
    elif form == "pt":
        torch.save(torch.tensor(ids, dtype=torch.int32)[None], path)
    else:  # as the study writes it: grown file by file, no chunk size given
        with h5py.File(path, "w") as file:
            options = {"compression": "gzip"} if form == "h5-packed" else {}
            data = file.create_dataset("tokens", (0,), maxshape=(None,), dtype=np.int32, **options)
            for piece in np.array_split(ids, 3):
                data.resize(len(data) + len(piece), axis=0)
                data[-len(piece) :] = piece
    return path


def config(path: Path | str, tokenizer: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    corpus = validate(
        registry.find("corpus", "token_files").Config,
        Source({"type": "token_files", "path": str(path), **options}),
    )
    chosen = tokenizer or {"type": "ids", "vocab_size": 1000}
    return corpus, registry.find("tokenizer", chosen["type"]).Config(**chosen)


def joined(store: TokenStore, split: str) -> np.ndarray:
    found = store.split(split)
    return np.concatenate([found.tokens(i) for i in range(len(found))])


@pytest.mark.parametrize("form", ["bin", "npy", "h5", "h5-packed", "pt"])
def test_the_ids_of_every_kind_of_file(tmp_path: Path, form: str) -> None:
    store = prepare(*config(write(tmp_path, form)), tmp_path / "stores")
    store.verify()
    assert store.splits == ["train", "val"]
    assert np.array_equal(np.concatenate([joined(store, "train"), joined(store, "val")]), IDS)
    assert len(joined(store, "val")) == 10_000
    copied = list(store.folder.rglob("*.ids.npy"))
    assert bool(copied) == (form in ("h5-packed", "pt"))
    if form == "h5":
        assert len(store.split("train").parts) > 1, "runs of chunks"


def test_windows_over_an_h5_file_are_those_of_the_array(tmp_path: Path) -> None:
    """Through the loader, across the runs of chunks."""
    from lexarium.objectives.causal import Causal
    from lexarium.tokens.direction import Forward
    from lexarium.tokens.loader import Loader
    from lexarium.tokens.packing import WindowPacking

    corpus, chosen = config(write(tmp_path, "h5"), split={"by": "end", "val": 0.0})
    store = prepare(corpus, chosen, tmp_path / "stores")
    tokenizer = registry.find("tokenizer", "ids")(chosen)
    objective = Causal(Causal.Config(eos=False), tokenizer)
    packing = WindowPacking(WindowPacking.Config(seq_len=100, separator=False, order="corpus"))
    loader = Loader(store.view("train"), packing, Forward(Forward.Config()), objective, global_batch_size=7)
    seen = np.concatenate([loader.examples(loader.numbers(step)).ids.reshape(-1, 100) for step in range(285)])
    rows = {row.tobytes(): i for i, row in enumerate(IDS.reshape(-1, 100))}
    places = [rows[row.tobytes()] for row in seen.astype(np.int64)]
    assert len(set(places)) == len(places) == 1995 and max(places) < 2000


def test_documents_end_at_the_separator(tmp_path: Path) -> None:
    store = prepare(*config(write(tmp_path, "bin"), separator=0), tmp_path / "stores")
    found = store.split("train")
    assert found.tokens(0).tolist() == [0] and (found.lengths[1:-1] == 500).all()
    assert all(found.tokens(i)[-1] == 0 for i in range(1, len(found) - 1))


def test_whole_files_are_named_for_a_split(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    path, other = write(tmp_path, "bin"), write(tmp_path / "v", "bin", IDS[:1000])
    store = prepare(*config(path, val_path=str(other)), tmp_path / "stores")
    assert np.array_equal(joined(store, "val"), IDS[:1000]) and np.array_equal(joined(store, "train"), IDS)


def test_chunks_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i, piece in enumerate(np.array_split(IDS, 12)):
        torch.save(torch.tensor(piece, dtype=torch.int32)[None], tmp_path / f"part_{i}_tokenized.pt")
    store = prepare(*config(tmp_path / "*.pt", split={"by": "end", "val": 0.0}), tmp_path / "stores")
    assert np.array_equal(joined(store, "train"), IDS)


def test_a_changed_file_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path, "bin")
    store = prepare(*config(path), tmp_path / "stores")
    path.touch()
    assert len(TokenStore(store.folder).split("train")) > 0, "only its time is another"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"tokens.bin: its content changed since the token store was made"):
        TokenStore(store.folder).split("train")
    path.unlink()
    with pytest.raises(Damaged, match=r"tokens.bin: is gone"):
        TokenStore(store.folder).split("train")


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/lexarium-was-here"),))


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.bin", b"abc", {}, r"a.bin: 3 bytes are no whole number of uint16 ids; say corpus.dtype"),
        ("a.bin", b"", {}, r"a.bin is empty"),
        ("a.bin", np.array([5, 1000], np.uint16).tobytes() * 50, {}, r"id 1000 at byte 2 is outside the tokenizer's vocabulary of 1,000"),
        ("a.npy", b"no", {}, r"a.npy: not an array file"),
        ("a.h5", b"no", {}, r"a.h5: not an HDF5 file"),
        ("a.pt", b"no", {}, r"a.pt: not a tensor that can be loaded as weights only"),
        ("a.txt", b"text", {}, r"a.txt is no token file .*for text choose corpus text_files"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_bad_files_are_refused(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare(*config(tmp_path / name, **options), tmp_path / "stores")
    assert not (tmp_path / "stores").exists() or list((tmp_path / "stores").iterdir()) == []


def test_code_in_a_chunk_is_not_executed(tmp_path: Path) -> None:
    import pickle

    torch.save(Evil(), tmp_path / "a.pt", pickle_protocol=pickle.HIGHEST_PROTOCOL)
    with pytest.raises(UserError, match="not a tensor that can be loaded as weights only"):
        prepare(*config(tmp_path / "a.pt"), tmp_path / "stores")
    assert not Path("/tmp/lexarium-was-here").exists()


def test_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.int32))
    np.save(tmp_path / "b.npy", np.zeros(9, np.float32))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(UserError, match="expected integers of shape"):
            prepare(*config(tmp_path / name), tmp_path / "stores")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = np.zeros(5, np.int32)
    with pytest.raises(UserError, match=r"has no dataset 'tokens' \(it has: other\)"):
        prepare(*config(tmp_path / "a.h5"), tmp_path / "stores")


def test_a_text_tokenizer_is_not_trained_on_ids(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="corpus token_files holds ids, no text: choose tokenizer ids, or file"
    ):
        prepare(*config(write(tmp_path, "bin"), {"type": "bpe", "vocab_size": 300}), tmp_path / "stores")


# --- written and read again -------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [None, 0])
@pytest.mark.parametrize("form", ["h5", "bin", "npy"])
def test_what_is_exported_is_read_again(
    tmp_path: Path, form: str, separator: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lexarium.tokens import export

    monkeypatch.setattr(export, "AT_ONCE", 3000)
    store = prepare(*config(write(tmp_path, "bin"), document_tokens=7001), tmp_path / "stores")
    path = tmp_path / f"out.{form}"
    n = export.write_tokens(store, store.view("train"), path, form, separator)
    (back,) = [prepare(*config(path, split={"by": "end", "val": 0.0}), tmp_path / "again")]
    ids = joined(back, "train")
    found = store.split("train")
    want = [np.append(found.tokens(i), [] if separator is None else [separator]) for i in range(len(found))]
    assert len(ids) == n and np.array_equal(ids, np.concatenate(want))
    assert not list(tmp_path.glob(".out*"))
    if form == "bin":
        assert np.array_equal(np.fromfile(path, np.uint16), ids), "as nanoGPT reads it"
    if form == "h5":
        with h5py.File(path) as file:
            assert file["tokens"].dtype == np.int32 and file["tokens"].maxshape == (None,)
            assert file["tokens"].attrs["vocab_size"] == 1000
    with pytest.raises(UserError, match="the separator 1000 is outside the vocabulary of 1,000"):
        export.write_tokens(store, store.view("train"), path, form, 1000)


def test_another_byte_order_and_filters_are_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", IDS.astype(">i4"))
    with h5py.File(tmp_path / "scaled.h5", "w") as file:
        file.create_dataset("tokens", data=IDS.astype(np.int32), chunks=(1024,), scaleoffset=0)
        file.create_dataset("summed", data=IDS.astype(np.int32), chunks=(1024,), fletcher32=True)
    for path, options in (("big.npy", {}), ("scaled.h5", {}), ("scaled.h5", {"dataset": "summed"})):
        store = prepare(
            *config(tmp_path / path, split={"by": "end", "val": 0.0}, **options), tmp_path / "stores"
        )
        assert np.array_equal(joined(store, "train"), IDS)
        assert not any("in_place" in part for part in store.manifest["splits"]["train"]["parts"])


@pytest.mark.parametrize("form", ["bin", "h5"])
def test_a_document_with_a_separator_lies_in_one_split(tmp_path: Path, form: str) -> None:
    store = prepare(
        *config(write(tmp_path, form), separator=0, split={"by": "end", "val": 0.0507, "test": 0.0303}),
        tmp_path / "stores",
    )
    ids = [joined(store, split) for split in ("train", "val", "test")]
    assert np.array_equal(np.concatenate(ids), IDS) and all(found[-1] == 0 for found in ids[:2])
    assert abs(len(ids[1]) - 0.0507 * len(IDS)) <= 500


def test_floating_point_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(5, dtype=torch.bfloat16), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"expected one tensor of integers, found torch.bfloat16"):
        prepare(*config(tmp_path / "a.pt"), tmp_path / "stores")


def test_ids_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    """A file that `lexarium export` wrote says whose ids it holds; the right tokenizer reads it, also from a file."""
    from lexarium.tokens.export import write_tokens

    stores = {}
    for name, text in (("en", "the cat sat on the mat\n"), ("fr", "le chat est sur la table\n")):
        (tmp_path / f"{name}.txt").write_text(text * 60)
        corpus = registry.find("corpus", "text_files").Config(
            path=(str(tmp_path / f"{name}.txt"),), documents="line"
        )
        stores[name] = prepare(
            corpus, registry.find("tokenizer", "bpe").Config(vocab_size=265), tmp_path / "s"
        )
    path = tmp_path / "en.h5"
    write_tokens(stores["en"], stores["en"].view("train"), path, "h5")
    given = registry.find("tokenizer", "file").Config
    ids = validate(TokenFiles.Config, Source({"path": str(path), "split": {"by": "end", "val": 0.1}}))
    assert (
        prepare(ids, given(path=str(stores["en"].folder)), tmp_path / "s").manifest["symbols"]
        == (stores["en"].manifest["symbols"])
    )
    with pytest.raises(UserError, match=r"en\.h5: says that its ids are of another vocabulary"):
        prepare(ids, given(path=str(stores["fr"].folder)), tmp_path / "s")
    numbers = registry.find("tokenizer", "ids").Config(vocab_size=265)
    assert prepare(ids, numbers, tmp_path / "s").manifest["symbols"] == ""


def test_the_vocabulary_of_an_exported_file_is_used(tmp_path: Path) -> None:
    from lexarium.cli.prepare import groups_of
    from lexarium.tokens.export import write_tokens

    store = prepare(*config(write(tmp_path, "bin")), tmp_path / "stores")
    path = tmp_path / "out.h5"
    write_tokens(store, store.view("train"), path, "h5")
    ((found, _),) = groups_of(str(path), [], None, tmp_path, False)
    assert found.tokenizer.vocab_size == 1000
    ((found, _),) = groups_of(str(path), ["tokenizer.vocab_size=1234"], None, tmp_path, False)
    assert found.tokenizer.vocab_size == 1234


def test_a_store_with_another_tokenizer_is_not_opened(tmp_path: Path) -> None:
    store = prepare(*config(write(tmp_path, "bin")), tmp_path / "stores")
    store.verify()
    (store.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(Damaged, match="is not the tokenizer that made this store's ids"):
        TokenStore(store.folder).verify(remembered=True)
