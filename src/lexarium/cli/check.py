"""`lexarium check`: read, expand and count, without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import CATALOG, Json, Overrides, Preset, RunsDir, Seed, Seeds, Select, Target, Trust

if TYPE_CHECKING:
    from lexarium.cli.target import Target as Meant
    from lexarium.foundation.config import Config, Place, Source
    from lexarium.studies.run_config import RunConfig
    from lexarium.studies.study import Point


def check(
    target: Target,
    overrides: Overrides = None,
    preset: Preset = None,
    seeds: Seeds = None,
    select: Select = None,
    seed: Seed = None,
    resolved: Annotated[
        bool,
        typer.Option(
            "--resolved", help="Print one point's whole configuration and where each value is from."
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Validate a study or a run's configuration; print its arms, sizes and number of runs.

    Example: lexarium check hierarchical-generalization --preset demo model.n_layers=2
    """
    from lexarium.cli.target import load_target, parse_levels, parse_seed, parse_seeds

    chosen = parse_seeds(seeds) or parse_seed(seed)
    found = load_target(target, runs_dir, preset, overrides or (), chosen, trust_plugins)
    points = found.points(runs_dir, parse_levels(select, "--select"))
    if resolved:
        print(annotated(points[0], found, runs_dir), end="")
        return
    _print_arms(Talk(as_json), found, points, runs_dir)


def _print_arms(talk: Talk, found: Meant, points: Sequence[Point], runs_dir: Path) -> None:
    arms: dict[str, list[Point]] = {}
    for point in points:
        arms.setdefault(arm_name(point), []).append(point)
    known: dict[str, int | None] = {}
    rows = []
    for name, members in arms.items():
        rows.append({"arm": name, **size(members[0].config, runs_dir, known), "runs": len(members)})
    distinct = len({p.run for p in points})
    study = found.study
    talk.data({"study": study.name if study else None, "arms": rows, "runs": distinct})
    if study:
        talk.say(f"study {study.name}" + (f", preset {study.preset}" if study.preset else ""))
        if study.config.claim:
            talk.say(f"claim: {' '.join(study.config.claim.split())}")
    talk.table(
        ["arm", "documents", "vocabulary", "parameters", "non-embedding", "steps", "runs"],
        [
            [
                r["arm"],
                r["documents"],
                r["vocab_size"],
                r["parameters"],
                r["non_embedding"],
                r["max_steps"],
                r["runs"],
            ]
            for r in rows
        ],
    )
    if any(r["vocab_size"] is None for r in rows):
        talk.say(
            "(documents, vocabulary, parameters and the steps of train.epochs are known once the data are prepared:"
            " `lexarium prepare`)"
        )
    shared = f" ({len(points) - distinct} points share a run)" if distinct < len(points) else ""
    talk.say(f"{distinct} run{'s' * (distinct != 1)}{shared}: fine")


def arm_name(point: Point) -> str:
    """Levels of a point, without its seed."""
    levels = " ".join(f"{axis}={level}" for axis, level in point.levels.items()) or "the run"
    return levels if point.stage == "base" else f"{point.stage}: {levels}"


# --- sizes ------------------------------------------------------------------------------------------


def size(config: RunConfig, runs_dir: Path, known: dict[str, int | None]) -> dict[str, Any]:
    """Vocabulary (None before the data are prepared) and parameters of a run, counted without memory."""
    from lexarium.models.build import build_model
    from lexarium.models.layers import count_parameters
    from lexarium.training.trainer import freeze

    parts = (config.corpus, config.tokenizer, config.objective, config.model)
    written = "\n".join(c.model_dump_json() for c in parts)
    if written not in known:
        known[written] = vocabulary(config, runs_dir)
    vocab_size = known[written]
    chosen = f"documents {config.corpus.model_dump_json()} {config.view.model_dump_json()}"
    if chosen not in known:
        known[chosen] = documents(config, runs_dir)
    model = build_model(config.model, vocab_size or 8, None, "meta")
    freeze(model, config.train.parameters)
    return {
        "documents": known[chosen],
        "vocab_size": vocab_size,
        "parameters": None if vocab_size is None else count_parameters(model),
        "non_embedding": count_parameters(model, non_embedding=True),
        "max_steps": config.train.max_steps or steps(config, runs_dir),
    }


def steps(config: RunConfig, runs_dir: Path) -> int | None:
    """Updates that `train.epochs` comes to, if the run's token store is there."""
    from lexarium.foundation.files import MANIFEST
    from lexarium.studies.assembly import make
    from lexarium.tokens.loader import Loader
    from lexarium.tokens.prepare import open_tokenizer
    from lexarium.tokens.store import TokenStore

    folder = store_folder(config, runs_dir)
    if not (folder / MANIFEST).exists():
        return None
    loader = Loader(
        TokenStore(folder).view("train", config.view),
        make("packing", config.packing),
        make("direction", config.direction),
        make("objective", config.objective, open_tokenizer(config.tokenizer, folder)),
        global_batch_size=config.train.global_batch_size,
        order_seed=config.factor_seed("order"),
    )
    return config.train.steps(loader.examples_per_epoch)


def vocabulary(config: RunConfig, runs_dir: Path) -> int | None:
    """Size of a run's vocabulary, special tokens included, if its token store is there."""
    from lexarium.foundation.features import vocabulary_features
    from lexarium.foundation.files import MANIFEST
    from lexarium.studies.assembly import make_objective
    from lexarium.tokens.prepare import open_tokenizer

    folder = store_folder(config, runs_dir)
    if not (folder / MANIFEST).exists():
        return None
    tokenizer = open_tokenizer(config.tokenizer, folder)
    objective = make_objective(config, tokenizer)
    if table := getattr(config.model, "features", None):
        vocabulary_features(table, tokenizer, objective.roles)  # refuses a table that lacks a symbol
    return objective.vocab_size


def documents(config: RunConfig, runs_dir: Path) -> int | None:
    """Training documents that a run's view selects, if its token store is there.

    Raises UserError for a condition on a field or value that no document has.
    """
    from lexarium.foundation.files import MANIFEST
    from lexarium.tokens.store import TokenStore

    folder = store_folder(config, runs_dir)
    return len(TokenStore(folder).view("train", config.view)) if (folder / MANIFEST).exists() else None


def store_folder(config: RunConfig, runs_dir: Path) -> Path:
    """Where the token store of a run lies, or will lie."""
    from lexarium.studies.assembly import make
    from lexarium.studies.run import stores_dir
    from lexarium.tokens.prepare import corpus_identity, store_name

    source = corpus_identity(config.corpus, make("corpus", config.corpus).fingerprint())
    return stores_dir(runs_dir) / store_name(config.corpus, config.tokenizer, source)


# --- where values come from -------------------------------------------------------------------------


def annotated(point: Point, found: Meant, runs_dir: Path) -> str:
    """A point's resolved configuration as YAML with the origin of every value as a comment."""
    from lexarium.foundation.config import resolved
    from lexarium.foundation.source import annotated_yaml

    source = _source(point, found, runs_dir)
    where = lambda place: _origin(point.config, source, place)
    return f"# {point.name}: {point.run}\n" + annotated_yaml(resolved(point.config), where)


def _source(point: Point, found: Meant, runs_dir: Path) -> Source | None:
    """The plain data a point was validated from; None for a run on disk and for child stages."""
    if found.study is None:
        return found.source
    if point.stage != "base":
        return None
    from lexarium.studies.matching import solve

    solved = solve(found.study, runs_dir) if found.study.config.match else {}
    return found.study._point_source(point.levels, point.seed, solved)


def _origin(config: Config, source: Source | None, place: Place) -> str:
    """`study.yaml:12`, `preset demo`, `command line`, `axis data=all`, or `default`."""
    if source is None:
        return ""
    node: Any = source.data
    for depth, step in enumerate(place):
        here = step in node if isinstance(node, dict) else isinstance(node, list) and int(step) < len(node)
        if not here:
            given = isinstance(node, dict) and node.get("preset") is not None
            if given and not _is_default(config, place):
                return f"{'.'.join(map(str, place[:depth]))}.preset {node['preset']}"
            return "default"
        node = node[step]
    return source.origin(place).removeprefix(f"{CATALOG}/")


def _is_default(config: Any, place: Place) -> bool:
    """Whether the value at a place is its field's default."""
    for step in place[:-1]:
        config = config[step] if isinstance(step, int) else getattr(config, step)
    name, fields = place[-1], getattr(type(config), "model_fields", {})
    if name not in fields:
        return True
    default = fields[name].get_default(call_default_factory=True, validated_data={})
    return getattr(config, str(name)) == default
