"""Data sets of the `datasets` library: saved folders, local files whole and streamed. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lexarium.corpora.hf_dataset import HuggingFaceDataset
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.types import UserError
from lexarium.tokens.prepare import prepare

datasets: Any = pytest.importorskip("datasets")
huggingface_hub: Any = pytest.importorskip("huggingface_hub")
ROWS = [{"text": f"row {i} of the set", "author": f"a{i % 5}"} for i in range(200)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def config(**options: Any) -> Any:
    return validate(HuggingFaceDataset.Config, Source({"type": "hf_dataset", **options}))


def texts(corpus: HuggingFaceDataset, split: str) -> list[str]:
    return [document.text for document in corpus.documents(split)]


def test_a_saved_folder(tmp_path: Path) -> None:
    made = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "validation": datasets.Dataset.from_list(ROWS[:9])}
    )
    made.save_to_disk(str(tmp_path / "saved"))
    corpus = HuggingFaceDataset(
        config(
            path=str(tmp_path / "saved"), splits={"train": "train", "val": "validation"}, fields=["author"]
        )
    )
    assert corpus.splits == ("train", "val")
    assert texts(corpus, "train") == [row["text"] for row in ROWS] and len(texts(corpus, "val")) == 9
    assert [d.fields["author"] for d in corpus.documents("val")] == [row["author"] for row in ROWS[:9]]
    assert HuggingFaceDataset(config(path=str(tmp_path / "saved"))).fingerprint() == corpus.fingerprint()


@pytest.mark.parametrize("streaming", [False, True])
def test_local_parquet(tmp_path: Path, streaming: bool) -> None:
    for k in range(2):
        datasets.Dataset.from_list(ROWS[k * 100 : k * 100 + 100]).to_parquet(
            str(tmp_path / f"shard-{k}.parquet")
        )
    chosen = config(
        path="parquet", data_files=[str(tmp_path / "*.parquet")], streaming=streaming, split={"val": 0.1}
    )
    corpus = HuggingFaceDataset(chosen)
    found = texts(corpus, "train") + texts(corpus, "val")
    assert sorted(found) == sorted(row["text"] for row in ROWS)
    assert 15 <= len(texts(corpus, "val")) <= 25
    assert len(corpus.parts()) == (2 if streaming else 1)
    store = prepare(chosen, registry.find("tokenizer", "byte").Config(), tmp_path / "stores")
    assert sum(entry["documents"] for entry in store.manifest["splits"].values()) == 200
    assert store.manifest["sources"]["shards"] == {"train": 2 if streaming else 1}


def test_mistakes_are_told(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    saved = str(tmp_path / "saved")
    with pytest.raises(UserError, match=r"the data set has no column 'body' \(columns: text, author\)"):
        texts(HuggingFaceDataset(config(path=saved, text="body")), "train")
    with pytest.raises(UserError, match=r"cannot read the data set 'no/such-set'"):
        texts(HuggingFaceDataset(config(path="no/such-set")), "train")
    with pytest.raises(UserError, match=r"a streamed data set needs the commit \(40 hexadecimal digits\)"):
        HuggingFaceDataset(config(path="some/set", streaming=True, revision="main")).fingerprint()
    with pytest.raises(UserError, match=r"corpus.path: say which data set"):
        texts(HuggingFaceDataset(config()), "train")
