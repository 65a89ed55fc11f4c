"""The token store gives back what the corpus said; views select exactly what a naive filter selects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.files import Damaged
from lexarium.foundation.rng import generator
from lexarium.foundation.types import Document, UserError
from lexarium.tokens import prepare as preparation
from lexarium.tokens.store import TokenStore, ViewConfig
from toy import matches, toy_store, toy_tokenizer

WORDS = [f"w{i}" for i in range(30)]


def documents(n: int, seed: int = 0) -> list[Document]:
    """Documents with a text field, a number, a share and a truth value, and a channel."""
    random = generator(seed, "documents")
    found = []
    for i in range(n):
        words = random.choice(WORDS, int(random.integers(1, 9)))
        text = " ".join(words)
        fields = {
            "kind": str(random.choice(["decl", "quest", "PAST"])),
            "n": int(random.integers(0, 5)),
            "share": round(float(random.random()), 2),
            "agree": bool(random.integers(0, 2)),
            "number": i,
        }
        found.append(Document(text, fields, {"place": list(range(len(text)))}))
    return found


DOCUMENTS = {"train": documents(100), "val": documents(23, 1)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Ten documents per part, so that there are many parts and a short last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "PART", 10)
        return toy_store(tmp_path_factory.mktemp("store"), DOCUMENTS)


def view(data: dict[str, Any]) -> ViewConfig:
    return validate(ViewConfig, Source(data))


# --- what is stored ---------------------------------------------------------------------------------


def test_every_document_comes_back(store: TokenStore) -> None:
    tokenizer = toy_tokenizer([d.text for members in DOCUMENTS.values() for d in members])
    assert store.splits == ["train", "val"]
    for name, members in DOCUMENTS.items():
        split = store.split(name)
        assert len(split.parts) == -(-len(members) // 10)
        assert len(split) == len(members)
        assert split.lengths.tolist() == [len(d.text.split()) for d in members]
        assert split.n_tokens == sum(len(d.text.split()) for d in members)
        for i, document in enumerate(members):
            ids, first = tokenizer.encode(document.text)
            assert split.tokens(i).tolist() == ids.tolist()
            assert split.channel("place", i).tolist() == first.tolist(), (
                "a token has the value at its first character"
            )
            whole = store.view(name)
            assert whole.fields(i) == document.fields
            assert {type(v) for v in whole.fields(i).values()} == {str, int, float, bool}


def test_a_stretch_of_a_document(store: TokenStore) -> None:
    split = store.split("train")
    for i in range(len(split)):
        ids = split.tokens(i).tolist()
        for start in range(len(ids) + 1):
            for stop in range(start, len(ids) + 3):
                assert split.tokens(i, start, stop).tolist() == ids[start:stop]
        assert split.channel("place", i, 1).tolist() == split.channel("place", i).tolist()[1:]


def test_a_store_reads_whatever_the_order_of_questions(store: TokenStore) -> None:
    split = store.split("val")
    backwards = [split.tokens(i).tolist() for i in reversed(range(len(split)))]
    assert backwards[::-1] == [split.tokens(i).tolist() for i in range(len(split))]


@pytest.mark.parametrize(("words", "dtype"), [(65_535, "uint16"), (65_536, "uint32")])
def test_ids_are_as_small_as_the_vocabulary_allows(tmp_path: Path, words: int, dtype: str) -> None:
    """65,536 ids (padding included) fit 16 bits, one more does not."""
    store = toy_store(tmp_path, {"train": [" ".join(f"{i:05x}" for i in range(words))]})
    assert np.load(store.folder / "train" / "part-00000.ids.npy").dtype == dtype
    assert store.manifest["vocab_size"] == words + 1
    assert store.split("train").tokens(0).tolist() == list(range(1, words + 1))


def test_a_store_without_fields_or_channels(tmp_path: Path) -> None:
    store = toy_store(tmp_path, {"train": ["a b"]})
    assert store.split("train").fields == {}
    with pytest.raises(UserError, match=r"no field 'kind' \(fields: none\)"):
        store.view("train", view({"keep": {"kind": "x"}}))
    with pytest.raises(UserError, match=r"no channel 'half' \(channels: none\)"):
        store.split("train").channel("half", 0)


# --- views ------------------------------------------------------------------------------------------

kinds = st.sampled_from(["decl", "quest", "PAST"])
numbers = st.integers(-1, 6)
present = st.sampled_from(sorted({d.fields["n"] for d in DOCUMENTS["train"]}))
shares = st.floats(-0.5, 1.5, allow_nan=False) | st.integers(0, 1)


def ranges(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries({}, optional={"min": values, "max": values}).filter(bool)


wanted = {
    "kind": kinds | st.lists(kinds, min_size=1, max_size=3) | ranges(kinds),
    "n": present | st.lists(present, min_size=1, max_size=3) | ranges(numbers | shares),
    "share": ranges(shares) | st.sampled_from([d.fields["share"] for d in DOCUMENTS["train"][:9]]),
    "agree": st.booleans() | st.lists(st.booleans(), min_size=1, max_size=2),
}
conditions = st.fixed_dictionaries({}, optional=wanted).filter(bool)
views = st.fixed_dictionaries(
    {},
    optional={
        "keep": st.lists(conditions, max_size=2) | conditions,
        "drop": st.lists(conditions, max_size=2),
        "quotas": st.lists(
            st.fixed_dictionaries({"where": conditions, "count": st.integers(0, 20)}), max_size=2
        ),
        "fraction": st.integers(1, 100).map(lambda percent: percent / 100),
    },
)


def naive(members: list[Document], config: ViewConfig) -> list[int]:
    """The documents a view keeps, one by one."""
    kept = [
        i for i, d in enumerate(members) if not config.keep or any(matches(d.fields, c) for c in config.keep)
    ]
    kept = [i for i in kept if not any(matches(members[i].fields, c) for c in config.drop)]
    for quota in config.quotas:
        count, left = 0, []
        for i in kept:
            if matches(members[i].fields, quota.where):
                count += 1
                if count > quota.count:
                    continue
            left.append(i)
        kept = left
    percent = round(config.fraction * 100)
    return kept[: len(kept) * percent // 100]


@given(views)
@example({"fraction": 0.29})
def test_a_view_keeps_what_a_naive_filter_keeps(store: TokenStore, data: dict) -> None:
    config = view(data)
    expected = naive(DOCUMENTS["train"], config)
    if not expected:
        with pytest.raises(UserError, match="the view keeps none of the 100 documents of split 'train'"):
            store.view("train", config)
        return
    found = store.view("train", config)
    assert found.documents.tolist() == expected
    assert len(found) == len(expected)
    assert found.lengths.tolist() == [len(DOCUMENTS["train"][i].text.split()) for i in expected]
    assert found.n_tokens == found.lengths.sum()
    assert found.fields(0)["number"] == expected[0]
    assert found.tokens(0).tolist() == store.split("train").tokens(expected[0]).tolist()
    assert len(store.view("val", config)) == 23, "a view concerns the splits it names"


def test_a_view_of_named_splits(store: TokenStore) -> None:
    config = view({"keep": {"kind": "decl"}, "splits": ["val"]})
    assert len(store.view("train", config)) == 100
    assert {store.view("val", config).fields(i)["kind"] for i in range(len(store.view("val", config)))} == {
        "decl"
    }


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            {"knid": "decl"},
            r"no field 'knid'; did you mean 'kind'\? \(fields: kind, n, share, agree, number\)",
        ),
        ({"kind": "qest"}, r"no document has kind = 'qest'; values are PAST, decl, quest"),
        ({"kind": ["decl", "qest"]}, r"no document has kind = 'qest'"),
        ({"kind": 3}, r"field 'kind' holds PAST, decl, quest, found 3"),
        ({"kind": True}, r"field 'kind' holds .*found True"),
        ({"kind": {"min": 3}}, r"field 'kind' holds .*found 3"),
        ({"n": 9}, r"no document has n = 9; values are 0, 1, 2, 3, 4"),
        ({"n": "2"}, r"field 'n' holds 0, 1, 2, 3, 4, found '2'"),
        ({"n": True}, r"field 'n' holds .*found True"),
        ({"n": {"max": "2"}}, r"field 'n' holds .*found '2'"),
        ({"n": [1, "2"]}, r"field 'n' holds .*found '2'"),
        ({"agree": 1}, r"field 'agree' holds False, True, found 1"),
        ({"agree": "yes"}, r"field 'agree' holds False, True, found 'yes'"),
        ({"agree": [True, 0]}, r"field 'agree' holds False, True, found 0"),
    ],
)
@pytest.mark.parametrize("place", ["keep", "drop", "quotas"])
def test_conditions_that_cannot_be_meant(
    store: TokenStore, condition: dict, message: str, place: str
) -> None:
    data = {"quotas": [{"where": condition, "count": 1}]} if place == "quotas" else {place: [condition]}
    with pytest.raises(UserError, match=message):
        store.view("train", view(data))


def test_a_level_that_only_another_split_has_selects_nothing_here(tmp_path: Path) -> None:
    kind = lambda k: Document("a", {"kind": k})
    store = toy_store(tmp_path, {"train": [kind("x"), kind("y")], "val": [kind("y")]})
    config = view({"drop": {"kind": "x"}, "splits": ["train", "val"]})
    assert (len(store.view("train", config)), len(store.view("val", config))) == (1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"keep": {}}, "keep: a condition must name at least one field"),
        ({"keep": [{"n": 1}, {}]}, "keep: a condition must name at least one field"),
        ({"keep": {"n": []}}, r"n: expected a value, a list of values, or \{min: a, max: b\}"),
        ({"keep": {"n": {}}}, "n: expected a value"),
        ({"keep": {"n": {"min": 1, "mx": 2}}}, "n: expected a value"),
        ({"keep": {"n": {"min": None}}}, "n: expected a value"),
        ({"keep": {"n": None}}, "n: expected a value"),
        ({"keep": {"n": [[1, 2]]}}, "n: expected a value"),
        ({"quotas": [{"where": {"n": []}, "count": 1}]}, "n: expected a value"),
        ({"quotas": [{"where": {"n": 1}, "count": -1}]}, "quotas.0.count"),
        ({"quotas": [{"where": {"n": 1}}]}, "quotas.0.count: missing"),
        ({"fraction": 0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"kep": {"n": 1}}, "kep: unknown key; did you mean 'keep'"),
    ],
)
def test_views_that_cannot_be_written(data: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        view(data)


def test_an_unknown_split_lists_the_splits(store: TokenStore) -> None:
    with pytest.raises(UserError, match="the corpus has no split 'test'; it has train, val"):
        store.split("test")


# --- damage -----------------------------------------------------------------------------------------


def copied(store: TokenStore, folder: Path) -> Path:
    return Path(shutil.copytree(store.folder, folder / "copy"))


def files_of(store: TokenStore) -> list[str]:
    return sorted(
        str(p.relative_to(store.folder)) for p in (store.folder / "val").glob("part-*") if p.suffix != ".json"
    )


def test_every_file_is_under_a_checksum(store: TokenStore, tmp_path: Path) -> None:
    assert len(files_of(store)) == 3 * 4
    for name in files_of(store):
        folder = copied(store, tmp_path)
        TokenStore(folder).verify()
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(bytes(content))
        with pytest.raises(
            Damaged,
            match=rf"{name}: content differs from its checksum; delete the store and prepare it again",
        ):
            TokenStore(folder).verify()
        (folder / name).unlink()
        with pytest.raises(Damaged, match=rf"{name}: missing"):
            TokenStore(folder).verify()
        shutil.rmtree(folder)


@pytest.mark.parametrize("size", [0, 5, 100, 130])
@pytest.mark.parametrize("name", ["ids.npy", "docs.npy", "place.npy", "fields.parquet"])
def test_short_files_are_damage_not_a_crash(store: TokenStore, tmp_path: Path, name: str, size: int) -> None:
    folder = copied(store, tmp_path)
    path = folder / "val" / f"part-00001.{name}"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Damaged, match="delete the store and prepare it again"):
        _ = TokenStore(folder).split("val").fields


def test_a_store_without_a_manifest_is_not_finished(store: TokenStore, tmp_path: Path) -> None:
    folder = copied(store, tmp_path)
    (folder / "manifest.json").unlink()
    with pytest.raises(Damaged, match="not a finished token store"):
        TokenStore(folder)
    (folder / "manifest.json").write_text('{"splits"')
    with pytest.raises(Damaged, match="not valid JSON"):
        TokenStore(folder)


def test_the_manifest_tells_what_the_store_is(store: TokenStore) -> None:
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["corpus"]["files"] and "JsonLines@" in manifest["corpus"]["type"]
    assert manifest["tokenizer"] == {"type": "word", "version": 1}
    assert manifest["channels"] == ["place"]
    assert manifest["splits"]["train"]["documents"] == 100
    assert manifest["splits"]["train"]["levels"]["kind"] == ["PAST", "decl", "quest"]
