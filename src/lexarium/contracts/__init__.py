"""What every component promises, as tests anyone can run on a component of their own.

    contract("model", "transformer", {("n_layers",): 1}) -> [Check(name, passed, detail), ...]

`lexarium test-component KIND NAME` prints these; the package's own tests run them on every component that
ships. A check that raises has failed, with the error as its detail. Options that make a component large
are reduced (`tools.SMALL`) unless they are given, so a contract takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lexarium.contracts import data, models, training
from lexarium.contracts.members import missing
from lexarium.contracts.tools import Broken, Check, Test, small_config
from lexarium.foundation import registry

__all__ = ["KINDS", "Check", "contract", "failures"]

KINDS: dict[str, Callable[[Any, Any], Iterable[Test]]] = {
    "corpus": data.corpora,
    "tokenizer": data.tokenizers,
    "packing": data.packings,
    "direction": data.directions,
    "objective": models.objectives,
    "model": models.models,
    "optimizer": training.optimizers,
    "schedule": training.schedules,
    "start": training.starts,
    "evaluation": training.evaluations,
}
"""Kind -> its contract."""


def contract(kind: str, name: str, options: Mapping[tuple[str | int, ...], Any] | None = None) -> list[Check]:
    """Test a component; `options` maps places in its config to values.

    Raises UserError when the component cannot be found, or its config cannot be made.
    """
    cls: Any = registry.find(kind, name)
    config = small_config(cls, name, options or {})
    checks = [_run(title, test) for title, test in _declared(cls, kind)]
    try:
        tests = list(KINDS[kind](cls, config))
    except Exception as error:
        return [*checks, Check("can be built", False, _first_line(error))]
    return checks + [_run(title, test) for title, test in tests]


def _run(title: str, test: Callable[[], str | None]) -> Check:
    try:
        return Check(title, True, test() or "")
    except Broken as broken:
        return Check(title, False, str(broken))
    except Exception as error:
        return Check(title, False, _first_line(error))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _declared(cls: Any, kind: str) -> Iterator[Test]:
    def declared() -> str:
        if not isinstance(getattr(cls, "version", None), int):
            raise Broken("`version` must be a whole number; it is part of a run's identity")
        if not (cls.__doc__ or "").strip():
            raise Broken("no docstring; its first line is what `lexarium list` prints")
        if "type" not in cls.Config.model_fields:
            raise Broken("Config must derive from ComponentConfig, which holds `type`")
        return f"{kind} {cls.name}, version {cls.version}"

    def members() -> None:
        if lacking := missing(kind, cls):
            raise Broken(f"has no {', '.join(lacking)} (see docs/design/data-flow.md)")

    yield "declares kind, name, version and a documented Config", declared
    yield f"has the members of a {kind}", members


def failures(checks: Sequence[Check]) -> list[str]:
    """What is not kept, in words; empty when all is well."""
    return [f"{c.name}: {c.detail}" for c in checks if not c.passed]
