"""Typed configuration: YAML and `a.b=c` in, frozen objects out, errors a person can act on.

`source.py` reads YAML and overrides and remembers where every value comes from. `validate` turns that
into a pydantic model; a field annotated `component("model")` is resolved by the registry through its
`type`. Every error names the place (file:line, command line or axis) and, for a misspelt key, the nearest
known one.

Two views of a config leave this file: `resolved` writes out every default; `identity` keeps what
changes the science: fields marked `outside_identity` are dropped, values equal to their default are
omitted (so adding a field does not rename old runs), and every component adds its integer version.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from lexarium.foundation import registry
from lexarium.foundation.source import ConfigError as ConfigError
from lexarium.foundation.source import Place as Place
from lexarium.foundation.source import Source as Source
from lexarium.foundation.source import dotted as dotted
from lexarium.foundation.source import overlay as overlay
from lexarium.foundation.source import parse_overrides as parse_overrides
from lexarium.foundation.source import parse_path as parse_path
from lexarium.foundation.source import parse_yaml as parse_yaml
from lexarium.foundation.source import read_yaml as read_yaml
from lexarium.foundation.source import write_yaml as write_yaml
from lexarium.foundation.types import UserError

OUTSIDE: Any = {"identity": False}


class Config(BaseModel):
    """Base of every configuration object: frozen, no unknown keys, docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name:
            annotation = cls.model_fields[info.field_name].annotation
            wanted = {annotation, *get_args(annotation)}
            if wanted & {int, float} and bool not in wanted:
                raise ValueError("expected a number")
        return value


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
            values[name] = _with_default_type(info, values[name])
            if get_origin(info.annotation) is tuple and not isinstance(values[name], list | tuple):
                problems.append(
                    _problem(source, (*place, name), f"expected a list of {registry.plural(kind)}")
                )
            else:
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


def _with_default_type(info: FieldInfo, value: Any) -> Any:
    """Options without `type` belong to the field's default component: `optimizer.lr=1e-3` is enough."""
    if not isinstance(value, Mapping) or "type" in value or info.is_required():
        return value
    default = info.get_default(call_default_factory=True, validated_data={})
    return {"type": default.type, **value} if isinstance(default, ComponentConfig) else value


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
        known, article = ", ".join(registry.names(kind)), "an" if kind[0] in "aeio" else "a"
        problems.append(_problem(source, place, f"{article} {kind} needs `type: NAME` (known: {known})"))
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
    whole = isinstance(detail["input"], dict)  # of a component all options would be told
    found = "" if whole else f", found {detail['input']!r}"
    return f"{message[0].lower()}{message[1:]}{found}"


def _fields_at(cls: type[Config], loc: Iterable[Any]) -> list[str]:
    for step in loc:
        info = cls.model_fields.get(step) if isinstance(step, str) else None
        inner = _config_class(info.annotation) if info else None
        if inner is not None:
            cls = inner
    return [info.alias or name for name, info in cls.model_fields.items()]


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
        value, kind = getattr(config, name), component_kind(info)
        default = info.get_default(call_default_factory=True, validated_data={})
        if value == default and not (kind and value):
            continue
        found = _identity_value(value, kind)
        if isinstance(default, Config) and not kind and found == _identity_value(default, None):
            continue  # differs outside the identity only
        result[name] = found
    return result


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
