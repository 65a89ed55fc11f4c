"""`lexarium show`: what is known of a run, a study or a component."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import Json, RunsDir, catalog
from lexarium.foundation import registry
from lexarium.foundation.types import UserError


def _names(incomplete: str) -> list[str]:
    components = [name for kind in registry.FOLDERS for name in registry.names(kind)]
    return [n for n in [*catalog(), *registry.FOLDERS, *components] if n.startswith(incomplete)]


def show(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="A run, a study, a component, or a kind.", autocompletion=_names),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="After a kind: the component, or file.py:Class.")
    ] = None,
    slices: Annotated[bool, typer.Option("--slices", help="All metrics of a run, slices too.")] = False,
    config: Annotated[
        bool,
        typer.Option("--config", help="A run's whole configuration as well; of a study, its file alone."),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show a run (state, results), a study (claim, arms, contrasts) or a component (its options).

    Examples: lexarium show RUN --config; lexarium show model transformer
    """
    talk = Talk(as_json)
    if name is not None:
        return _component(talk, _kind(what), name)
    from lexarium.cli.target import CONFIG

    if any((folder / CONFIG).exists() for folder in (Path(what), runs_dir / what)):
        return _run(talk, what, runs_dir, slices, config)
    if Path(what).suffix in (".yaml", ".yml") or what in catalog():
        return _study(talk, what, runs_dir, config)
    kinds = [kind for kind in registry.FOLDERS if what in registry.names(kind)]
    if len(kinds) == 1:
        return _component(talk, kinds[0], what)
    if kinds:
        choices = " or ".join(f"`lexarium show {kind} {what}`" for kind in kinds)
        raise UserError(f"{what}: a component of several kinds; write {choices}")
    if what in registry.FOLDERS:
        raise UserError(f"show {what}: which one? {', '.join(registry.names(what))}")
    return _anything_else(talk, what, runs_dir, slices, config)


def _kind(kind: str) -> str:
    if kind not in registry.FOLDERS:
        near = difflib.get_close_matches(kind, registry.FOLDERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"no kind of component is called {kind!r}{hint} (kinds: {', '.join(registry.FOLDERS)})"
        )
    return kind


def _anything_else(talk: Talk, what: str, runs_dir: Path, slices: bool, config: bool) -> None:
    """A study that was run from a file, a point's name, or nothing: then say what it may have been."""
    from lexarium.cli.target import find_run, read_indexes

    for index in read_indexes(runs_dir, what):
        return _print_study(talk, {**index, "runs": len(index["runs"])}, runs_dir)
    try:
        path = find_run(what, runs_dir)
    except UserError as error:
        known = [*catalog(), *(name for kind in registry.FOLDERS for name in registry.names(kind))]
        near = difflib.get_close_matches(what, known, n=1)
        if near:
            raise UserError(f"{what}: no run, study or component; did you mean {near[0]!r}?") from None
        raise UserError(f"{error}; and no study or component is called so (see `lexarium list`)") from None
    return _run(talk, str(path), runs_dir, slices, config)


# --- a run ------------------------------------------------------------------------------------------


def _run(talk: Talk, what: str, runs_dir: Path, slices: bool, with_config: bool) -> None:
    from lexarium.cli.target import find_run
    from lexarium.cli.train import print_metrics, summary
    from lexarium.foundation.config import write_yaml
    from lexarium.studies.run_files import RunFiles, best_step

    path = find_run(what, runs_dir)
    found = summary(path)
    config = RunFiles(path).config()
    steps = sorted(int(p.name[5:]) for p in (path / "checkpoints").glob("step-*") if p.name[5:].isdigit())
    evaluations = [
        {"evaluation": name, "step": step, "metrics": metrics}
        for name, step, metrics in RunFiles(path).evaluations()
    ]
    talk.data({"kind": "run", **found, "checkpoints": steps, "evaluations": evaluations, "config": config})
    if talk.as_json:
        return
    message = f": {found['message']}" if found["message"] else ""
    total = config.get("train", {}).get("max_steps") or found["max_steps"]
    of = f" of {total:,}" if total else ""
    talk.say(f"{path}")
    talk.say(f"{found['state']} at step {found['step']:,}{of}, attempt {found['attempts']}{message}")
    parts = [
        f"{kind} {config[kind]['type']}"
        for kind in registry.FOLDERS
        if isinstance(config.get(kind), dict) and "type" in config[kind]
    ]
    talk.say(", ".join([*parts, f"seed {config.get('seed')}"]))
    best = (config.get("checkpoint") or {}).get("best") or {}
    at = best_step(RunFiles(path), best["metric"], best.get("better", "lower")) if best else None
    told = [f"{s} (the best {best['metric']})" if s == at else str(s) for s in steps]
    talk.say(f"checkpoints: {', '.join(told) or 'none'}")
    print_metrics(talk, found, slices)
    if with_config:
        talk.say(write_yaml(config).rstrip())


# --- a study ----------------------------------------------------------------------------------------


def _study(talk: Talk, what: str, runs_dir: Path, whole: bool) -> None:
    from lexarium.studies.study_config import find_study, load_study

    config, _ = load_study(what)
    if whole and not talk.as_json:
        return print(find_study(what).read_text(encoding="utf-8"), end="")
    data = config.model_dump(mode="json", by_alias=True)
    return _print_study(talk, data, runs_dir)


def _print_study(talk: Talk, data: dict[str, Any], runs_dir: Path) -> None:
    from lexarium.cli.study import _study as progress
    from lexarium.cli.target import read_indexes

    status = [progress(index, runs_dir) for index in read_indexes(runs_dir, data["study"])]
    counts = status[0]["counts"] if status else {}
    talk.data({"kind": "study", **data, "state": counts})
    talk.say(data["study"])
    for key in ("claim", "description"):
        if data.get(key):
            talk.say(f"{key}: {' '.join(str(data[key]).split())}")
    for axis, levels in (data.get("axes") or {}).items():
        talk.say(f"axis {axis}: {', '.join(map(str, levels))}")
    seeds = list(data.get("seeds") or [])
    talk.say(f"seeds: {', '.join(map(str, seeds))}")
    if data.get("presets"):
        talk.say(f"presets: {', '.join(data['presets'])}")
    for c in data.get("compare") or []:
        where = "".join(f", {axis}={level}" for axis, level in (c.get("where") or {}).items())
        talk.say(f"compare: {c['metric']}: {c['axis']} {c['from']} -> {c['to']} ({c['as']}{where})")
    told = ", ".join(f"{n} {state}" for state, n in counts.items()) or "not run here yet"
    talk.say(f"runs below {runs_dir}: {told}")


# --- a component ------------------------------------------------------------------------------------


def _component(talk: Talk, kind: str, name: str) -> None:
    cls: Any = registry.find(kind, name)
    talk.data(registry.describe(kind, name))
    if talk.as_json:
        return
    talk.say(f"{kind} {name}, version {getattr(cls, 'version', 1)}")
    talk.say((cls.__doc__ or "").strip())
    fields = {n: info for n, info in cls.Config.model_fields.items() if n != "type"}
    if not fields:
        talk.say("no options")
        return
    talk.say()
    rows = [[n, _type(info), _default(info), _doc(info)] for n, info in fields.items()]
    talk.table(["option", "type", "default", "meaning"], rows)
    presets = getattr(sys.modules[cls.__module__], "PRESETS", None)
    if isinstance(presets, dict) and "preset" in fields:
        talk.say(f"\npresets: {', '.join(presets)}")
    if (file := registry.source_file(cls)) is not None:
        talk.say(f"\ndefined in {file}")


def _type(info: Any) -> str:
    """A field's type in short, with its limits: `int (> 0)`, `pre | post`."""
    import re

    plain = isinstance(info.annotation, type) and not hasattr(info.annotation, "__args__")
    text = info.annotation.__name__ if plain else str(info.annotation)
    text = re.sub(r"typing\.|<class '|'>|\b[a-z_]+(?:\.\w+)*\.(?=\w)", "", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m.group(1).replace("'", "").replace(", ", " | "), text)
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [f"{s} {getattr(m, n)}" for m in info.metadata for n, s in signs.items() if hasattr(m, n)]
    return text + (f" ({', '.join(limits)})" if limits else "")


def _default(info: Any) -> str:
    from lexarium.foundation.files import dumps_line

    if info.is_required():
        return "(required)"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "empty"
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    return value if isinstance(value, str) else dumps_line(value)


def _doc(info: Any) -> str:
    return " ".join((info.description or "").split())
