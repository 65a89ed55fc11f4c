"""Finding components by name, without importing the ones nobody asked for.

A component is a class with three class attributes and a nested config:

    class QuestionFormation:
        kind, name, version = "corpus", "question_formation", 1
        class Config(ComponentConfig): ...
        def __init__(self, config: Config, ...): ...

Dropped into a folder of `FOLDERS` it is found by name: the folder's files are read as text (`ast`), and
only the file that holds the wanted name is imported. Outside the package a `type` of the form
`my_lab.mixer:Mixer` or `path/to/file.py:Mixer` names the class itself. `version` is part of a run's
identity: raise it when the component's results change.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from lexarium.foundation.types import UserError

FOLDERS: dict[str, str] = {
    "corpus": "corpora",
    "tokenizer": "tokens",
    "packing": "tokens",
    "direction": "tokens",
    "objective": "objectives",
    "model": "models",
    "optimizer": "training",
    "schedule": "training",
    "start": "training",
    "evaluation": "evaluations",
}
"""Kind of component -> folder of the package that is searched for it."""

PLURALS = {"corpus": "corpora", "packing": "packings", "start": "starts"}

_PACKAGE = Path(__file__).resolve().parent.parent


def plural(kind: str) -> str:
    """`corpus` -> `corpora`, `model` -> `models`: the key used by `lexarium list`."""
    return PLURALS.get(kind, kind + "s")


def _declared(node: ast.ClassDef) -> dict[str, Any]:
    """Constant class attributes of a class statement, tuple assignments included."""
    found: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            pairs: list[tuple[ast.expr, ast.expr]] = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            for name, constant in pairs:
                if isinstance(name, ast.Name) and isinstance(constant, ast.Constant):
                    found[name.id] = constant.value
    return found


_KIND = re.compile(r"^[ \t]+kind\b", flags=re.MULTILINE)
_AFTER_HEAD = re.compile(r"^(?:[ \t]*(?:def|async|class)\b|[ \t]*@|\S)", flags=re.MULTILINE)


def _class_statements(text: str) -> list[ast.ClassDef]:
    """Top-level class statements that may declare a `kind`.

    Only the head of each is parsed, up to the first method or nested class after the `kind`: several
    times faster than whole files, and `lexarium list` waits for it.
    """
    found: list[ast.stmt] = []
    for piece in re.split(r"^(?=class )", text, flags=re.MULTILINE)[1:]:
        kind = _KIND.search(piece)
        if kind is None:
            continue
        end = _AFTER_HEAD.search(piece, kind.end())
        try:
            found += ast.parse(piece[: end.start()] if end else piece).body
        except SyntaxError:  # an unusual layout: read the whole file
            found = list(ast.parse(text).body)
            break
    return [node for node in found if isinstance(node, ast.ClassDef)]


@cache
def _scan(folder: str) -> dict[tuple[str, str], tuple[str, str, str]]:
    """(kind, name) -> (module, class, first line of its docstring) of a folder's components, by reading files."""
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    for path in sorted((_PACKAGE / folder).rglob("*.py")):
        relative = path.relative_to(_PACKAGE).with_suffix("")
        module = "lexarium." + ".".join(relative.parts)
        for node in _class_statements(path.read_text(encoding="utf-8")):
            declared = _declared(node)
            if "kind" in declared and "name" in declared:
                where = (declared["kind"], declared["name"])
                if where in found:
                    raise RuntimeError(f"two components are named {where}: {found[where]} and {module}")
                summary = (ast.get_docstring(node) or "").strip().splitlines()
                found[where] = (module, node.name, summary[0] if summary else "")
    return found


def names(kind: str) -> list[str]:
    """Names of the components of a kind that ship with the package, without importing them."""
    return sorted(name for k, name in _scan(_folder(kind)) if k == kind)


def summaries(kind: str) -> dict[str, str]:
    """Name -> first line of the docstring, for every component of a kind, without importing them."""
    found = {name: entry[2] for (k, name), entry in _scan(_folder(kind)).items() if k == kind}
    return dict(sorted(found.items()))


def _folder(kind: str) -> str:
    if kind not in FOLDERS:
        raise UserError(f"unknown kind of component {kind!r}; kinds are {', '.join(FOLDERS)}")
    return FOLDERS[kind]


def find(kind: str, name: str) -> Any:
    """The component class for a `type` string.

    Raises UserError with the nearest names when nothing is called so, or when the class found is of
    another kind or lacks a `Config`.
    """
    if ":" in name:
        cls = _outside(name)
    else:
        location = _scan(_folder(kind)).get((kind, name))
        if location is None:
            known = names(kind)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"unknown {kind} {name!r}{hint} (known: {', '.join(known)}; your own: package.module:Class or"
                " file.py:Class)"
            )
        cls = getattr(importlib.import_module(location[0]), location[1])
    if getattr(cls, "kind", None) != kind or not hasattr(cls, "Config"):
        raise UserError(
            f"{name!r} is not a {kind}: the class must declare kind = {kind!r} and a nested Config"
            f" (found kind = {getattr(cls, 'kind', None)!r})"
        )
    return cls


def _outside(name: str) -> type:
    """A class outside the package: `package.module:Class` or `file.py:Class`."""
    where, _, attribute = name.rpartition(":")
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # whatever foreign code raises while it is imported
        raise UserError(
            f"cannot import {where!r} for type {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise UserError(f"{where!r} has no class {attribute!r} (type {name!r})")
    return getattr(module, attribute)


def _load_file(path: Path) -> Any:
    """The module of a file, by its content: no cached bytecode, which may be that of an older text."""
    source = path.resolve(strict=True)
    text = source.read_bytes()
    name = "lexarium_plugin_" + hashlib.sha256(str(source).encode() + text).hexdigest()[:12]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, source)
        if spec is None:
            raise ImportError(f"not a Python file: {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(compile(text, str(source), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def source_file(cls: Any) -> Path | None:
    """The file that defines a component class, when there is one."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def content_name(kind: str, name: str) -> str:
    """What a component is called where only its content counts: a shipped one by its name, code from
    outside by its class and a hash of its source, wherever that lies."""
    source = source_file(find(kind, name)) if is_plugin(name) else None
    if source is None:
        return name
    return f"{name.rpartition(':')[2]}@{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"


def is_plugin(name: str) -> bool:
    """True for a `type` that names code outside the package."""
    return ":" in name


def describe(kind: str, name: str) -> dict[str, Any]:
    """Name, version, first line of the docstring and config schema of a component."""
    cls: Any = find(kind, name)
    summary = (cls.__doc__ or "").strip().splitlines()
    return {
        "kind": kind,
        "name": name,
        "version": getattr(cls, "version", 1),
        "summary": summary[0] if summary else "",
        "config": cls.Config.model_json_schema(),
    }
