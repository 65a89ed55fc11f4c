"""Plain data with the origin of every value: YAML and `a.b=c` in, YAML out.

Scalars have the meaning of YAML 1.2 (`1e-4` is a number; only true and false are booleans; `1:30` and
`2024-01-01` are text); duplicate keys, merge keys and tags are refused. Every key remembers its line, so
that an error found much later can name it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lexarium.foundation.types import UserError

Place = tuple[str | int, ...]
"""Path of a value inside nested configuration."""


class ConfigError(UserError):
    """Configuration that cannot be used; the message lists every problem with its place."""


@dataclass
class Source:
    """Plain data with the origin of every value, for error messages."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)

    def origin(self, place: Place) -> str:
        """Where the value at `place`, or the nearest enclosing one, comes from."""
        for n in range(len(place), -1, -1):
            if place[:n] in self.origins:
                return self.origins[place[:n]]
        return ""

    def sub(self, *place: str | int) -> Source:
        """The part of this source below `place`, with its origins."""
        node: Any = self.data
        for step in place:
            node = node[step]
        n = len(place)
        return Source(node, {p[n:]: o for p, o in self.origins.items() if p[:n] == place})


# --- YAML -------------------------------------------------------------------------------------------


_NUMBER = r"[0-9]+(?:_[0-9]+)*"
_SCALARS: dict[str, tuple[str, str]] = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (rf"[-+]?{_NUMBER}|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        rf"[-+]?(?:{_NUMBER}\.(?:{_NUMBER})?|\.{_NUMBER})(?:[eE][-+]?[0-9]+)?|[-+]?{_NUMBER}[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Scalars that are not text in the core schema of YAML 1.2, and their first characters. Beyond it, digits
may be grouped: 100_000."""
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Finds the tags of YAML 1.2: `1e-4` is a number; `no`, `1:30` and `2024-01-01` are text."""

    yaml_implicit_resolvers: Any = {}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or of YAML 1.2 would take for something else."""

    yaml_implicit_resolvers: Any = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _firsts = ["" if c == "\0" else c for c in _first]
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _firsts)


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    """Line breaks of YAML 1.1 that are characters in 1.2 are written as escapes."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _text)


def _int(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text) if base is None else int(text[2:], base)


_READ: dict[str, Any] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


def read_yaml(path: Path | str) -> Source:
    """A mapping from a YAML file, with `file:line` for every key.

    Raises ConfigError for unreadable files, invalid YAML, duplicate keys and anything but a mapping.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Source:
    """As `read_yaml`, from text; `name` stands for the file in messages."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        source = Source()
        if node is None:
            raise ConfigError(f"{name}: empty; expected a mapping such as `study: my-study`")
        data = _construct(node, name, (), source.origins)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: a character {text[error.position]!r}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: expected a mapping at the top, found {type(data).__name__}")
    source.data = data
    return source


def _construct(
    node: yaml.Node, name: str, place: Place, origins: dict[Place, str], inside: tuple[yaml.Node, ...] = ()
) -> Any:
    line = f"{name}:{node.start_mark.line + 1}"
    origins[place] = line
    kind = node.tag.removeprefix(_TAG)
    if node in inside:
        raise ConfigError(f"{line}: {dotted(place)} contains itself")
    if isinstance(node, yaml.MappingNode) and kind == "map":
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = f"{name}:{key_node.start_mark.line + 1}"
            key = _construct(key_node, name, place, {})
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ConfigError(f"{line}: a key must be text, found {key!r}")
            if key == "<<" and key_node.style is None:
                raise ConfigError(f"{line}: merging with << is not part of YAML 1.2; write the keys out")
            if key in result:
                raise ConfigError(f"{line}: key {key!r} appears twice")
            result[key] = _construct(value_node, name, (*place, key), origins, (*inside, node))
            origins[(*place, key)] = line
        return result
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_construct(n, name, (*place, i), origins, (*inside, node)) for i, n in enumerate(node.value)]
    try:
        return _READ[kind](node.value)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"{line}: not valid YAML: cannot read a value of type {node.tag!r}") from None


def write_yaml(data: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml`, and any reader of YAML 1.1, reads back equal."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def annotated_yaml(data: Mapping[str, Any], where: Callable[[Place], str]) -> str:
    """YAML text of nested data; `where(place)` stands as a comment behind every value that it says something of."""
    return "".join(f"{line}\n" for line in _lines(data, where))


def _lines(data: Any, where: Callable[[Place], str], place: Place = (), indent: str = "") -> list[str]:
    """YAML lines of nested data; leaves carry the origin."""
    found = []
    items = data.items() if isinstance(data, dict) else [("-", value) for value in data]
    for i, (key, value) in enumerate(items):
        here = (*place, key if isinstance(data, dict) else i)
        head = f"{indent}{_flow(key)}:" if isinstance(data, dict) else f"{indent}-"
        nested = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(v, dict) for v in value)
        )
        if not value or not nested:
            origin = where(here)
            found.append(f"{head} {_flow(value)}" + (f"  # {origin}" if origin else ""))
        elif isinstance(data, dict):
            found += [head, *_lines(value, where, here, indent + "  ")]
        else:  # an item of a list: its first line follows the dash
            first, *rest = _lines(value, where, here, indent + "  ")
            found += [f"{head} {first.strip()}", *rest]
    return found


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    return text.removesuffix("\n...").strip()


# --- overrides --------------------------------------------------------------------------------------


def parse_overrides(arguments: Iterable[str]) -> dict[Place, Any]:
    """`["train.max_steps=100", "axes.x=[1,2]"]` -> {("train", "max_steps"): 100, ...}.

    Values are read as YAML. A number in the path indexes a list. The same path twice is an error.
    """
    found: dict[Place, Any] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        if not equals or not path or any(not step for step in path.split(".")):
            raise ConfigError(f"override {argument!r} is not of the form a.b=value")
        place = parse_path(path)
        if place in found:
            raise ConfigError(f"override {path!r} is given twice")
        try:
            node = yaml.compose(text, Loader=_Loader)
            found[place] = None if node is None else _construct(node, "command line", (), {})
        except yaml.YAMLError:
            raise ConfigError(f"override {argument!r}: the value is not valid YAML; quote it") from None
    return found


def parse_path(path: str) -> Place:
    """`a.0.b` -> ("a", 0, "b")."""
    return tuple(int(step) if re.fullmatch("[0-9]+", step) else step for step in path.split("."))


def overlay(source: Source, changes: Mapping[Place, Any], origin: str) -> Source:
    """A copy of `source` with values replaced; a value that carries `type` replaces a whole component."""
    data, origins = _copy(source.data), dict(source.origins)
    for place, value in sorted(changes.items(), key=lambda item: len(item[0])):
        node: Any = data
        for depth, step in enumerate(place[:-1]):
            if isinstance(node, dict):
                if node.get(step) is None:
                    node[step] = {}
            elif not (isinstance(node, list) and isinstance(step, int) and step < len(node)):
                raise ConfigError(
                    f"{origin}: {dotted(place)}: there is no {dotted(place[: depth + 1])} to change"
                )
            node = node[step]
        last: Any = place[-1]
        if isinstance(node, dict) or (isinstance(node, list) and isinstance(last, int) and last < len(node)):
            node[last] = _copy(value)
        else:
            raise ConfigError(f"{origin}: {dotted(place)}: {dotted(place[:-1])} is not a mapping")
        for known in [p for p in origins if p[: len(place)] == place]:
            del origins[known]
        origins[place] = origin
    return Source(data, origins)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value


def dotted(place: Place) -> str:
    """("a", 0, "b") -> `a.0.b`."""
    return ".".join(str(step) for step in place)
