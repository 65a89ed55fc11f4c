"""Typed configuration: YAML and `a.b=c` in, frozen objects out, errors a person can act on.

`read_yaml` reads YAML with the 1.2 meaning of scalars (`1e-4` is a number; only true and false are
booleans), refuses duplicate keys, and remembers the line of every key. `overlay` applies dotted
overrides. `validate` turns plain data into a pydantic model; a field annotated `component("model")` is
resolved by the registry through its `type`. Every error names the place (file:line, command line or
axis) and, for a misspelt key, the nearest known one.

Two views of a config leave this file: `resolved` writes out every default; `identity` keeps what
changes the science: fields marked `outside_identity` are dropped, values equal to their default are
omitted (so adding a field does not rename old runs), and every component adds its integer version.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError
from pydantic.fields import FieldInfo

from lexarium.foundation import registry
from lexarium.foundation.types import UserError

Place = tuple[str | int, ...]
"""Path of a value inside nested configuration."""

OUTSIDE: Any = {"identity": False}


class ConfigError(UserError):
    """Configuration that cannot be used; the message lists every problem with its place."""


class Config(BaseModel):
    """Base of every configuration object: frozen, no unknown keys, docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class ComponentConfig(Config):
    """Base of the nested `Config` of a component. `type` is the registry's name of the class."""

    type: str
    """Name of the component, `package.module:Class` or `file.py:Class`."""


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class _Component:
    kind: str


def component(kind: str) -> Any:
    """Annotation of a config field that holds a component of this kind."""
    return Annotated[SerializeAsAny[ComponentConfig], _Component(kind)]


def outside_identity(default: Any = ..., **options: Any) -> Any:
    """A field that does not change the science: paths, plan, logging, retention."""
    return Field(default, json_schema_extra=OUTSIDE, **options)


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
        return [
            _construct(n, name, (*place, i), origins, (*inside, node)) for i, n in enumerate(node.value)
        ]
    try:
        return _READ[kind](node.value)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"{line}: not valid YAML: cannot read a value of type {node.tag!r}") from None


def write_yaml(data: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml`, and any reader of YAML 1.1, reads back equal."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


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


# --- validation -------------------------------------------------------------------------------------


def validate(cls: type[C], source: Source) -> C:
    """An instance of `cls` from plain data, components resolved; all problems in one ConfigError."""
    problems: list[str] = []
    result = _validate(cls, source.data, (), source, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    assert isinstance(result, cls)
    return result


def _validate(cls: type[Config], data: Any, place: Place, source: Source, problems: list[str]) -> Any:
    if not isinstance(data, Mapping):
        problems.append(_problem(source, place, f"expected a mapping, found {data!r}"))
        return None
    values, failed = dict(data), set()
    for name, info in cls.model_fields.items():
        kind = component_kind(info)
        if kind and values.get(name) is not None:
            before = len(problems)
            values[name] = _components(kind, values[name], (*place, name), source, problems)
            if len(problems) > before:
                failed.add(name)
    try:
        result = cls.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if not failed & set(map(str, detail["loc"][:1])):
                problems.append(_problem(source, (*place, *detail["loc"]), _explain(cls, detail)))
        return None
    except UserError as error:
        problems.append(_problem(source, place, str(error)))
        return None
    return result


def component_kind(info: FieldInfo) -> str | None:
    """The kind of component a config field holds (alone, optional, or in a list), or None."""
    for mark in info.metadata:
        if isinstance(mark, _Component):
            return mark.kind
    stack = [info.annotation]
    while stack:
        annotation = stack.pop()
        if get_origin(annotation) is Annotated:
            marks = [m for m in get_args(annotation)[1:] if isinstance(m, _Component)]
            if marks:
                return marks[0].kind
        stack.extend(get_args(annotation))
    return None


def _components(kind: str, value: Any, place: Place, source: Source, problems: list[str]) -> Any:
    if isinstance(value, list):
        return [_components(kind, v, (*place, i), source, problems) for i, v in enumerate(value)]
    if isinstance(value, ComponentConfig):
        return value
    if not isinstance(value, Mapping) or "type" not in value:
        known = ", ".join(registry.names(kind))
        problems.append(_problem(source, place, f"a {kind} needs `type: NAME` (known: {known})"))
        return None
    try:
        cls: Any = registry.find(kind, str(value["type"]))
    except UserError as error:
        problems.append(_problem(source, (*place, "type"), str(error)))
        return None
    return _validate(cls.Config, value, place, source, problems)


def _problem(source: Source, place: Place, message: str) -> str:
    origin = source.origin(place)
    return f"{origin + ': ' if origin else ''}{dotted(place) or 'top level'}: {message}"


def _explain(cls: type[Config], detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        key, known = str(detail["loc"][-1]), _fields_at(cls, detail["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key; {hint}"
    if detail["type"] == "missing":
        return "missing; this key is required"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, found {detail['input']!r}"


def _fields_at(cls: type[Config], loc: Iterable[Any]) -> list[str]:
    for step in loc:
        info = cls.model_fields.get(step) if isinstance(step, str) else None
        inner = _config_class(info.annotation) if info else None
        if inner is not None:
            cls = inner
    return list(cls.model_fields)


def _config_class(annotation: Any) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    for inner in get_args(annotation):
        found = _config_class(inner)
        if found is not None:
            return found
    return None


# --- the two views ----------------------------------------------------------------------------------


def resolved(config: Config) -> dict[str, Any]:
    """Plain data with every default written out; `validate` reads it back equal."""
    return config.model_dump(mode="json")


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that changes the science, as canonical plain data.

    Fields marked `outside_identity` and values equal to the field's default are left out; a component
    adds `version`. Components are expanded, so that a default component and the same one written out
    are equal.
    """
    result: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("identity") is False:
            continue
        value = getattr(config, name)
        kind = component_kind(info)
        if not kind and value == info.get_default(call_default_factory=True, validated_data={}):
            continue
        result[name] = _identity_value(value, kind)
    return {k: v for k, v in result.items() if v not in ({}, None)}


def _identity_value(value: Any, kind: str | None) -> Any:
    if isinstance(value, ComponentConfig) and kind:
        cls: Any = registry.find(kind, value.type)
        return {"type": value.type, "version": getattr(cls, "version", 1), **identity(value)}
    if isinstance(value, Config):
        return identity(value)
    if isinstance(value, list | tuple):
        return [_identity_value(v, kind) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _identity_value(v, kind) for k, v in value.items()}
    return value
