"""`lexarium prepare`: build the token stores of a study, and say what is in them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk, early_stop
from lexarium.cli.options import Json, Overrides, Preset, RunsDir, Trust
from lexarium.foundation.types import UserError
from lexarium.launch.display import Meter, duration, rate_text

if TYPE_CHECKING:
    from lexarium.studies.run_config import DataConfig, RunConfig
    from lexarium.studies.study import Point
    from lexarium.tokens.progress import Tally
    from lexarium.tokens.store import TokenStore


MENDED = {
    "undecodable": "bytes that are not UTF-8",
    "nul": "NUL characters",
    "surrogates": "halves of surrogate pairs",
    "empty": "records without text, left out",
    "separators": "line or paragraph separators (U+2028, U+2029), now line ends",
}
BYTES_PER_ID = 100
"""Text that a learned vocabulary wants: novels of 2.8 MB held 34,000 pieces, of 5.7 MB more than 50,000."""
STAGES = ("tokenizer", "tokens", "store")
"""Each needs those before it, and does what is missing of them."""


def prepare(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[STAGE] TARGET",
            help="A study, a run's file or directory; or text: files, folders, patterns. STAGE is tokenizer,"
            " tokens or store (all of it, the default).",
        ),
    ],
    overrides: Overrides = None,
    preset: Preset = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Processes that tokenise; 0 = this one.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will take, measured on a sample; write nothing.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Read or generate corpora and tokenise them; print what the stores hold.

    Safe to interrupt and to call again: it goes on behind the last part that was written.

    Examples: lexarium prepare hierarchical-generalization --preset demo;
    lexarium prepare tokenizer book.txt tokenizer.vocab_size=8000;
    lexarium prepare tokens "wiki/*.jsonl.gz" corpus.text=body --workers 8
    """
    stage, given = "store", list(overrides or ())
    if target in STAGES:
        if not given or "=" in given[0]:
            raise UserError(f"prepare {target}: of what? for example: lexarium prepare {target} book.txt")
        stage, target = target, given.pop(0)
    talk = Talk(as_json)
    with early_stop():
        groups = groups_of(target, given, preset, runs_dir, trust_plugins)
        if dry_run:
            return _estimates(talk, groups, runs_dir, workers)
        if stage != "store":
            return _stage(talk, stage, groups, runs_dir, workers)
        stores = []
        for data, points in groups:
            with named(points):
                stores.append((build_store(data, runs_dir, workers, talk), points))
    talk.data({"stores": [_summary(store, members) for store, members in stores]})
    for store, members in stores:
        _print_store(talk, store, members)
    return None


Group = tuple["RunConfig | DataConfig", list["Point"]]
"""A corpus and a tokenizer, and the points of a study that share them."""


def groups_of(
    target: str, overrides: Sequence[str], preset: str | None, runs_dir: Path, trust: bool
) -> list[Group]:
    """What is to be prepared: the data of a study or a run, or text named on the command line."""
    from lexarium.cli.target import load_target
    from lexarium.corpora.reading import COMPRESSIONS, FORMATS
    from lexarium.corpora.token_files import KINDS
    from lexarium.foundation.config import Source, overlay, parse_overrides, validate
    from lexarium.studies.run_config import DataConfig

    path = Path(target).expanduser()
    pattern = any(c in target for c in "*?[")
    text = path.suffix not in (".yaml", ".yml") and (
        pattern or (path.exists() and not (path / "config.yaml").exists())
    )
    if (path / "manifest.json").exists():
        raise UserError(f"{path}: is a token store already; `lexarium export` writes its ids")
    hub = "corpus.type=hf_dataset" in overrides and path.suffix not in (".yaml", ".yml")
    text = text or hub  # a name on the hub is no path
    if (
        not text
        and (path.suffix in (*FORMATS, *COMPRESSIONS, *KINDS) or len(path.parts) > 1)
        and not path.exists()
    ):
        raise UserError(f"{path}: there is no such file or folder")
    if text:
        ids = path.suffix in KINDS and not hub
        files = [target, *(argument for argument in overrides if "=" not in argument)]
        changes = parse_overrides(argument for argument in overrides if "=" in argument)
        data = {
            "corpus": {
                "type": "token_files" if ids else "text_files",
                "path": files if files[1:] else target,
            },
            "tokenizer": {"type": "ids" if ids else "bpe"},
        }
        if changes.get(("corpus", "type")) == "utterances":  # symbols are not to be cut into pieces
            letters = changes.get(("corpus", "form")) == "letters"
            data["tokenizer"] = {"type": "symbol", "unit": "character" if letters else "symbol"}
        told = vocabulary_of(path) if ids else 0
        if told:
            data["tokenizer"]["vocab_size"] = told  # type: ignore[index]
        source = overlay(Source(data, {(): "text named on the command line"}), changes, "command line")
        return [(validate(DataConfig, source), [])]
    points = load_target(target, runs_dir, preset, overrides, trust=trust).points(runs_dir)
    return [(members[0].config, members) for members in by_store(points)]


def vocabulary_of(path: Path) -> int:
    """The vocabulary that an HDF5 file says its ids have (attribute `vocab_size`); 0 where it says nothing."""
    if path.suffix not in (".h5", ".hdf5") or not path.is_file():
        return 0
    from lexarium.corpora.token_files import TokenFiles
    from lexarium.foundation.extras import need

    h5py: Any = need("h5py", "data", f"to read {path}")
    try:
        with h5py.File(path, "r") as file:
            found = file.get(TokenFiles.Config().dataset)
            return 0 if found is None else int(found.attrs.get("vocab_size", 0))
    except (OSError, ValueError, TypeError):
        return 0  # whoever reads it says what is wrong


def _stage(talk: Talk, stage: str, groups: Sequence[Group], runs_dir: Path, workers: int) -> None:
    """The tokenizer alone, or tokenizer and parts."""
    from lexarium.studies.run import stores_dir
    from lexarium.tokens import prepare as stages

    folders: list[str] = []
    for data, points in groups:
        where = (data.corpus, data.tokenizer, stores_dir(runs_dir))
        with named(points), Watch(data.corpus.type, talk) as watch:
            if stage == "tokenizer":
                folder = stages.prepare_tokenizer(*where, watch.move, watch.wait)
            else:
                folder = stages.prepare_tokens(*where, workers, watch.move, watch.wait)
        folders.append(str(folder))
    talk.data({"stage": stage, "folders": folders})
    for name in folders:
        talk.say(f"{name}: {'the tokenizer' if stage == 'tokenizer' else 'the tokenizer and every part'}")


def _estimates(talk: Talk, groups: Sequence[Group], runs_dir: Path, workers: int) -> None:
    from lexarium.corpora.reading import free_space
    from lexarium.launch.estimate import estimate
    from lexarium.studies.run import stores_dir

    found = []
    for data, points in groups:
        with named(points):
            e = estimate(data.corpus, data.tokenizer, stores_dir(runs_dir))
        e["seconds"] /= max(1, min(workers, e["parts"]))
        e["free"] = free_space(stores_dir(runs_dir))
        found.append(e)
        talk.say(f"{e['store']}: " + ("is there already" if e["finished"] else "would be made"))
        about = (
            "about" if e["trained"] else "at most about"
        )  # a smaller vocabulary cuts text into more pieces
        talk.say(
            f"  text {e['size'] / 1e6:,.1f} MB in {e['parts']:,} parts, {about} {rounded(e['tokens'])} tokens"
        )
        talk.say(f"  disk {about} {e['disk'] / 1e6:,.1f} MB of {e['free'] / 1e6:,.1f} MB free")
        told = (
            ""
            if e["trained"]
            else "; the tokenizer is not trained yet, a small one stood in, and its training is not counted"
        )
        who = f"{workers} processes" if workers > 1 else "one process"
        talk.say(
            f"  tokenising about {duration(e['seconds'])} with {who} (measured on {e['sample'] / 1e6:.1f} MB{told})"
        )
        wanted = getattr(data.tokenizer, "vocab_size", 0)
        if not e["trained"] and wanted * BYTES_PER_ID > e["size"]:
            talk.say(
                f"  WARNING: so little text may not hold {wanted:,} different pieces (about"
                f" {wanted * BYTES_PER_ID / 1e6:,.1f} MB do); choose a smaller tokenizer.vocab_size"
            )
        if e["disk"] > e["free"]:
            talk.say("  WARNING: the disk is too small")
    talk.data({"estimates": found})


def rounded(n: int) -> str:
    """An estimate with three digits: `61,400,000`."""
    return f"{float(f'{n:.3g}'):,.0f}"


class Watch:
    """Progress of one preparation."""

    def __init__(self, what: str, talk: Talk) -> None:
        self._what, self._meter = what, Meter(f"{what}: reading", unit="documents", quiet=talk.quiet)
        self._stage = ""
        self.before = 0
        """Bytes that an earlier call did: they say nothing about the speed of this one."""

    def __enter__(self) -> Watch:
        self._meter.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._meter.__exit__(*error)

    def move(self, tally: Tally) -> None:
        """So much is done."""
        meter = self._meter
        if tally.stage != self._stage:
            self._stage = tally.stage
            if tally.total:
                meter.restart("MB", round(tally.total / 1e6, 1))
        if tally.stage == "tokens" and (tally.size or not tally.total):
            meter.what = f"{self._what}: tokenising"
            if tally.before != self.before:
                self.before = tally.before
                meter.start_from(round(tally.before / 1e6, 1), round(tally.total / 1e6, 1))
            done = round(tally.size / 1e6, 1) if tally.total else sum(tally.documents.values())
            meter.move(done, f"{tally.tokens:,} tokens" if tally.tokens else "")
        elif tally.stage == "tokenizer":
            meter.what = f"{self._what}: training the tokenizer"
            meter.move(round(tally.size / 1e6, 1) if tally.total else sum(tally.documents.values()))
        elif tally.stage == "store":
            meter.say(f"{self._what}: comparing the splits")

    def wait(self, message: str) -> bool:
        """Another process builds the same store."""
        self._meter.say(f"waiting: {message}")
        return True


def by_store(points: Sequence[Point]) -> list[list[Point]]:
    """Points in groups that share a corpus and a tokenizer."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        c = point.config
        groups.setdefault(c.corpus.model_dump_json() + c.tokenizer.model_dump_json(), []).append(point)
    return list(groups.values())


@contextmanager
def named(points: Sequence[Point]) -> Iterator[None]:
    """Say of a mistake in data which runs of a study have them: by the levels that they share, or else their seed."""
    try:
        yield
    except UserError as error:
        first = points[0] if points else None
        shared = (
            [f"{k}={v}" for k, v in first.levels.items() if all(p.levels.get(k) == v for p in points)]
            if first
            else []
        )
        if first and not shared and first.levels and all(p.seed == first.seed for p in points):
            shared = [f"seed={first.seed}"]
        if shared:
            error.args = (f"{', '.join(shared)}: {error}",)
        raise


def build_store(data: RunConfig | DataConfig, runs_dir: Path, workers: int, talk: Talk) -> TokenStore:
    """The token store of a corpus and a tokenizer, built with progress if it is not there."""
    from lexarium.studies.run import stores_dir
    from lexarium.tokens import prepare as stages

    corpus, tokenizer, root = data.corpus, data.tokenizer, stores_dir(runs_dir)
    _, _, folder = stages.open_store_folder(corpus, tokenizer, root)
    if (folder / "manifest.json").exists():
        return stages.prepare(corpus, tokenizer, root)  # looks at what is there
    start = time.monotonic()
    talk.note(f"preparing {folder.name}")
    with Watch(corpus.type, talk) as watch:
        store = stages.prepare(corpus, tokenizer, root, workers, watch.move, watch.wait)
    seconds = max(time.monotonic() - start, 1e-9)
    n = sum(entry["documents"] for entry in store.manifest["splits"].values())
    size = sum(file["size"] for file in store.manifest.get("sources", {}).get("files", ())) - watch.before
    speed = f"{size / 1e6 / seconds:,.2f} MB" if size > 0 else rate_text(n / seconds)
    rest = f" (the last {size / 1e6:,.1f} MB of them now)" if watch.before else ""
    talk.note(f"prepared {n:,} documents{rest} in {duration(seconds)} ({speed}/s)")
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
        "ngrams": m.get("overlap_details", {}).get("ngrams", {}),
        "mended": m.get("mended", {}),
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
        talk.table(["splits", "distinct documents in both"], shared, "  ")
    for pair, share in summary["ngrams"].items():
        talk.say(f"  {share:.2%} of the stretches of 13 tokens of {pair}")
    others = [name for name in summary["splits"] if name != "train"]
    if short := [name for name in others if f"{name} in train" not in summary["ngrams"]]:
        talk.say(f"  stretches of 13 tokens of {', '.join(short)}: none, no document is that long")
    for what, n in summary["mended"].items():
        talk.say(f"  mended or left out: {n:,} {MENDED.get(what, what)}")
    arms = [[name, a["documents"], a["tokens"]] for name, a in summary["arms"].items()]
    if arms:
        talk.table(["arm", "documents of train", "tokens"], arms, "  ")
