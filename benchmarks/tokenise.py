"""Goal S12: MB of text per CPU-second from text files to a finished token store, with a tokenizer that is trained already.

Ours is `prepare`, everything: reading, cutting into documents, tokenising, writing, comparing splits, manifest. Peers:

* the arrow study's pipeline, re-created from its description: each file read whole, line separators replaced, cut every
  1,048,576 characters, each piece through transformers' fast tokenizer into a tensor, pieces joined and saved as `.pt`,
  then all `.pt` files copied into one HDF5 file;
* `encode_batch` of `tokenizers` over the same documents, ids only, nothing written.

The ids of every document are compared with those of `tokenizers`. One thread each. `--text` names the files; without, 20 MB
of made-up words are tokenised.

    python benchmarks/tokenise.py [--rounds 5] [--text "FILES"]
"""

from __future__ import annotations

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
import goals
from lexarium.corpora.text_files import TextFiles
from lexarium.foundation import registry, rng
from lexarium.foundation.config import Source, validate
from lexarium.tokens.prepare import building_folder, open_store_folder, prepare, prepare_tokenizer
from lexarium.tokens.tokenizers import copy_tokenizer
from lexarium.training.host import settle

VOCABULARY, CUT = 50257, 1_048_576


def made_up(folder: Path, size: int = 20_000_000) -> Path:
    """Text of made-up words with the frequencies of Zipf's law."""
    draw = rng.generator(1, "words")
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = ["".join(draw.choice(letters, n)) for n in draw.integers(2, 11, 60_000)]
    shares = 1 / np.arange(1, len(words) + 1)
    chosen, path, written = (
        draw.choice(len(words), size // 5, p=shares / shares.sum()),
        folder / "text.txt",
        0,
    )
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, len(chosen), 12):
            written += file.write(" ".join(words[i] for i in chosen[start : start + 12]) + ".\n")
            if written > size:
                break
    return path


def study(files: list[Path], folder: Path, tokenizer: Any) -> None:
    """Stages 2 and 3 of the study: `.pt` files, then one HDF5 file."""
    import h5py

    for path in files:
        text = (
            path.read_text(encoding="utf-8", errors="ignore").replace("\u2028", "\n").replace("\u2029", "\n")
        )
        pieces = [text[i : i + CUT] for i in range(0, len(text), CUT)]
        ids = [tokenizer(piece, return_tensors="pt")["input_ids"].to(torch.int32) for piece in pieces]
        torch.save(torch.cat(ids, dim=1), folder / f"{path.stem}_tokenized.pt")
    with h5py.File(folder / "tokens.h5", "w") as file:
        data = file.create_dataset("tokens", (0,), maxshape=(None,), dtype=np.int32)
        for path in sorted(folder.glob("*.pt")):
            ids = torch.load(path, weights_only=True).squeeze().numpy()
            data.resize(len(data) + len(ids), axis=0)
            data[-len(ids) :] = ids


def main() -> None:
    """Measure and write the results."""
    parser = common.arguments(__doc__)
    parser.add_argument("--text", help="files, a folder or a pattern")
    options = parser.parse_args()
    settle(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.text or str(made_up(folder))
        corpus = validate(TextFiles.Config, Source({"type": "text_files", "path": path}))
        tokenizer = registry.find("tokenizer", "bpe").Config(vocab_size=VOCABULARY)
        trained = folder / "tokenizer"
        trained.mkdir()
        copy_tokenizer(prepare_tokenizer(corpus, tokenizer, folder / "training"), trained)
        from transformers import PreTrainedTokenizerFast

        theirs = PreTrainedTokenizerFast(tokenizer_file=str(trained / "tokenizer.json"))
        theirs.model_max_length = 1 << 60
        files = [file.path for _, file in TextFiles(corpus).files]
        size = sum(file.stat().st_size for file in files) / 1e6
        documents = [d.text for split in TextFiles(corpus).splits for d in TextFiles(corpus).documents(split)]
        rounds, store = [], None
        for number in range(options.rounds + 1):
            for place in ("ours", "study"):
                shutil.rmtree(folder / place, ignore_errors=True)
            _, _, final = open_store_folder(corpus, tokenizer, folder / "ours")
            own = building_folder(final) / "store"
            own.mkdir(parents=True)
            copy_tokenizer(trained, own)
            (folder / "study").mkdir()
            found = {}
            result: dict[str, Any] = {}
            found["ours"], found["our_wall"] = common.timed(
                lambda result=result: result.update(store=prepare(corpus, tokenizer, folder / "ours"))
            )
            found["study"], _ = common.timed(lambda: study(files, folder / "study", theirs))
            found["hf"], _ = common.timed(
                lambda result=result: result.update(
                    ids=theirs.backend_tokenizer.encode_batch(documents, add_special_tokens=False)
                )
            )
            store = result["store"]
            if number == 0:
                views = [store.split(split) for split in store.splits]
                ours = [view.tokens(i).tolist() for view in views for i in range(len(view))]
                same = ours == [encoding.ids for encoding in result["ids"]]
            else:
                rounds.append({k: size / seconds for k, seconds in found.items()})
    for peer in ("study", "hf"):
        ours, other = common.median(rounds, "ours"), common.median(rounds, peer)
        common.write(
            f"tokenise-{peer}", **goals.entry(f"tokenise-{peer}"), ours=ours, theirs=other, ratio=ours / other,
            rounds=rounds, folder=options.output, text_mb=size,
            parity={"passed": same, "what": f"the ids of all {len(documents):,} documents are those of tokenizers"},
        )  # fmt: skip
    if not same:
        sys.exit("the ids differ")


if __name__ == "__main__":
    main()
