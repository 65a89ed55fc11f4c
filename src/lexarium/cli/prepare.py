"""`lexarium prepare`: build the token stores of a study, and say what is in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk, early_stop
from lexarium.cli.options import Json, Overrides, Preset, RunsDir, Target, Trust
from lexarium.launch.display import Meter, duration, rate_text

if TYPE_CHECKING:
    from lexarium.studies.run_config import RunConfig
    from lexarium.studies.study import Point
    from lexarium.tokens.store import TokenStore


def prepare(
    target: Target,
    overrides: Overrides = None,
    preset: Preset = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Processes that tokenise; 0 = this one.")
    ] = 0,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Generate or read the corpora of a study and tokenise them; print what the stores hold.

    Safe to interrupt and to call again. Example: lexarium prepare hierarchical-generalization --preset demo
    """
    from lexarium.cli.target import load_target

    talk = Talk(as_json)
    with early_stop():
        found = load_target(target, runs_dir, preset, overrides or (), trust=trust_plugins)
        points = found.points(runs_dir)
        stores = [
            (store, points_of)
            for points_of in by_store(points)
            for store in [build_store(points_of[0].config, runs_dir, workers, talk)]
        ]
    talk.data({"stores": [_summary(store, members) for store, members in stores]})
    for store, members in stores:
        _print_store(talk, store, members)


def by_store(points: Sequence[Point]) -> list[list[Point]]:
    """Points in groups that share a corpus and a tokenizer."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        c = point.config
        groups.setdefault(c.corpus.model_dump_json() + c.tokenizer.model_dump_json(), []).append(point)
    return list(groups.values())


def build_store(config: RunConfig, runs_dir: Path, workers: int, talk: Talk) -> TokenStore:
    """The token store of a run, built with progress if it is not there."""
    from lexarium.cli.check import store_folder
    from lexarium.studies.run import stores_dir
    from lexarium.tokens.prepare import prepare as make_store
    from lexarium.tokens.store import TokenStore

    folder = store_folder(config, runs_dir)
    if (folder / "manifest.json").exists():
        return TokenStore(folder)
    start, done = time.monotonic(), dict[str, int]()
    talk.note(f"preparing {folder.name}")
    with Meter(f"{config.corpus.type}: generating", unit="documents", quiet=talk.quiet) as meter:

        def progress(split: str, documents: int, tokens: int) -> None:
            done[split] = documents
            meter.what = f"{config.corpus.type}: {split}"
            meter.move(sum(done.values()), f"{tokens:,} tokens of {split}")

        def wait(message: str) -> bool:
            meter.say(f"waiting: {message}")
            return True

        store = make_store(config.corpus, config.tokenizer, stores_dir(runs_dir), workers, progress, wait)
    seconds = time.monotonic() - start
    n = sum(entry["documents"] for entry in store.manifest["splits"].values())
    talk.note(f"prepared {n:,} documents in {duration(seconds)} ({rate_text(n / max(seconds, 1e-9))}/s)")
    return store


def _summary(store: TokenStore, members: Sequence[Point]) -> dict[str, Any]:
    m = store.manifest
    splits = {
        name: {"documents": entry["documents"], "tokens": entry["tokens"]}
        for name, entry in m["splits"].items()
    }
    return {
        "folder": str(store.folder),
        "vocab_size": m["vocab_size"],
        "channels": m["channels"],
        "splits": splits,
        "overlap": m["overlap"],
        "arms": _arms(store, members),
    }


def _arms(store: TokenStore, members: Sequence[Point]) -> dict[str, dict[str, int]]:
    """Arm -> documents and tokens of train that its view keeps."""
    from lexarium.cli.check import arm_name

    if "train" not in store.splits:
        return {}
    found: dict[str, dict[str, int]] = {}
    for point in members:
        if arm_name(point) not in found:
            view = store.view("train", point.config.view)
            found[arm_name(point)] = {"documents": len(view), "tokens": view.n_tokens}
    return found


def _print_store(talk: Talk, store: TokenStore, members: Sequence[Point]) -> None:
    summary = _summary(store, members)
    talk.say(f"{summary['folder']}: vocabulary of {summary['vocab_size']:,}")
    rows = [[name, s["documents"], s["tokens"]] for name, s in summary["splits"].items()]
    talk.table(["split", "documents", "tokens"], rows, "  ")
    shared = [[name, n] for name, n in summary["overlap"].items()]
    if shared and not any(n for _, n in shared):
        talk.say("  no document is in two splits")
    elif shared:
        talk.table(["splits", "documents in both"], shared, "  ")
    arms = [[name, a["documents"], a["tokens"]] for name, a in summary["arms"].items()]
    talk.table(["arm", "documents of train", "tokens"], arms, "  ")
