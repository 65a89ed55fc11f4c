"""Rules of `arrows` about the model and its vocabulary: sizes, dropout, length, tokenizer.

Sizes of the study become presets; others are written out over the preset that has the architecture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError
from lexarium.importers.arrows_options import M, Meaning, T
from lexarium.importers.frame import Draft, number, whole

GPT: dict[tuple[int, ...], str] = {
    (3, 3, 48): "nano",
    (4, 4, 128): "micro",
    (6, 6, 192): "mini",
    (10, 10, 380): "small",
    (12, 12, 768): "gpt1",
    (24, 16, 1024): "medium",
    (36, 20, 1280): "large",
    (48, 25, 1600): "xl",
}
"""(layers, heads, width) of the study's transformers, all with a feed-forward layer of 4 times the width."""
RECURRENT: dict[tuple[int, ...], str] = {
    (1, 256): "small",
    (1, 512): "de_med",
    (3, 512): "med",
    (5, 768): "big",
}
"""(layers, width) of its recurrent models."""


def architecture(draft: Draft, key: str, value: Any) -> None:
    """Sizes, by a preset where they are those of the study."""
    cell = draft.options.recurrent
    names = ("n_layers", "embed_dim") if cell else ("n_layers", "n_heads", "embed_dim")
    sizes = tuple(whole(draft, f"{M}.{name}", 1) for name in names)
    told = draft.told(*(f"{M}.{name}" for name in names))
    draft.set("model.type", "recurrent" if cell else "transformer", f"--script {draft.options.script}")
    before = f"arrow_{cell}_" if cell else "arrow_"
    ratio = 4.0 if cell else number(draft, f"{M}.mlp_ratio")
    found = RECURRENT.get(sizes) if cell else GPT.get(sizes) if ratio == 4 else None
    if found:
        draft.set("model.preset", before + found, told)
        draft.note(f"this is {before}{found}")
        return
    draft.set("model.preset", before + ("med" if cell else "gpt1"), "the architecture; the sizes follow")
    draft.note(f"no size of the study ({told}): sizes are written out")
    for name, size in zip(names, sizes, strict=True):
        draft.set(f"model.{'d_model' if name == 'embed_dim' else name}", size, draft.told(f"{M}.{name}"))
    if not cell:
        told = draft.told(f"{M}.mlp_ratio", f"{M}.embed_dim")
        draft.set("model.d_ff", int(ratio * sizes[-1]), told)


def dropout(draft: Draft, key: str, value: Any) -> None:
    """That of the embeddings, which may be left empty."""
    draft.set("model.dropout", number(draft, f"{M}.dropout"), draft.told(f"{M}.dropout"))
    if draft.options.recurrent and number(draft, f"{M}.dropout"):
        draft.set(
            "model.output_dropout",
            0.0,
            "the study's recurrent models drop embeddings and between layers only",
        )
    if value is not None:
        draft.set("model.embedding_dropout", number(draft, key), draft.told(key))
        return
    meaning = draft.options.embd_dropout
    rate = 0.0 if meaning is Meaning.readme else number(draft, f"{M}.dropout")
    draft.set("model.embedding_dropout", rate, f"{key} is empty, --embd-dropout {meaning}")
    draft.note(
        f"{key} is empty: {rate:g} by --embd-dropout {meaning} (the code took the value of dropout, its readme says 0)"
    )


def length(draft: Draft, key: str, value: Any) -> None:
    """Tokens of a window; recurrent files call it desired_attn_length."""
    names = [
        f"{M}.{n}" for n in ("attn_length", "desired_attn_length") if draft.given.get(f"{M}.{n}") is not None
    ]
    if not names:
        raise UserError(f"{M}.attn_length: missing; this key is required")
    found = {name: whole(draft, name, 3) for name in names}
    if len(set(found.values())) > 1:
        raise UserError(f"{draft.told(*names)}: two lengths; keep one")
    told, a = draft.told(names[0]), found[names[0]]
    draft.set("packing.seq_len", a, told)
    if not draft.options.recurrent:
        draft.set("model.max_positions", a, told)


def vocabulary(draft: Draft, key: str, value: Any) -> None:
    """The tokenizer, which must have as many ids as the model."""
    size, told = whole(draft, key, 2), draft.told(key)
    given = draft.given.get(f"{T}.tokenizer_path")
    if given is not None and not isinstance(given, str):
        raise UserError(f"{draft.told(f'{T}.tokenizer_path')}: expected the path of a tokenizer")
    paths = {p for p in (draft.options.tokenizer, given) if p}
    if len(paths) > 1:
        raise UserError(
            f"-t {draft.options.tokenizer}: the file names another, {draft.told(f'{T}.tokenizer_path')}"
        )
    if not paths:
        draft.set("tokenizer.type", "ids", "no tokenizer was given; the data are ids")
        draft.set("tokenizer.vocab_size", size, told)
        return
    path = paths.pop()
    draft.set(
        "tokenizer.type", "file", "-t" if draft.options.tokenizer else draft.told(f"{T}.tokenizer_path")
    )
    draft.set("tokenizer.path", path, "the tokenizer's file, or the folder that holds it")
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        draft.note(f"{file} is not there: whether it has the {size} ids of {key} could not be checked")
        return
    if (found := ids_of(file)) != size:
        raise UserError(f"{key}: is {size}, but {file} has {found} ids; give the tokenizer of the data")


def ids_of(file: Path) -> int:
    """Number of ids of a tokenizer.json, special tokens included."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        vocab = data["model"]["vocab"]
        ids = set(vocab.values()) if isinstance(vocab, dict) else set(range(len(vocab)))
        return len(ids | {token["id"] for token in data.get("added_tokens", [])})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: not a tokenizer.json") from None
