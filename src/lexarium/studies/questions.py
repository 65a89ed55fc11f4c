"""Whether the questions of a study can be answered by the evaluations of its runs, before any of them is trained.

Refused, with the key: metrics of evaluations and splits that no run has; metrics that choose a step and may not (see
`check_chooser`); metrics that are read at a step at which their evaluation runs in no run; and metrics that are read at
a step that another one chooses, of evaluations that do not run at every such step. What an evaluation makes of its
split is known when it has run: a misspelt end of a name is reported then. Cost: linear in the number of runs; nothing
is read but configurations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lexarium.foundation.config import ConfigError
from lexarium.studies.contrasts import At, BestOf, Contrast, MeanOver, ReportConfig
from lexarium.studies.run_config import RunConfig, check_chooser, evaluation_name, splits_of

LOOK = 1000
"""Evaluations of the choosing metric that are looked at."""


def check_questions(compare: Sequence[Contrast], report: ReportConfig, runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError for a metric that no evaluation gives, and for one that is read where it is not measured."""
    measured = {evaluation_name(e): e for config in runs for e in config.evaluations}
    for place, metric in _named(compare, report):
        _check_metric(place, metric, measured)
    kinds: dict[tuple[Any, ...], RunConfig] = {}
    for config in runs:  # runs of equal evaluations are one case
        kinds.setdefault((*map(repr, config.evaluations), config.train.max_steps), config)
    for i, contrast in enumerate(compare):
        for part, metric, at in _read(contrast):
            if isinstance(at, int | MeanOver):
                within = at.mean_over if isinstance(at, MeanOver) else (at, at)
                _check_step(f"compare.{i}.{part}", metric, within, list(kinds.values()))
        if isinstance(contrast.at, BestOf):
            check_chooser(f"compare.{i}.at.best_of", contrast.at.best_of, contrast.at.better, measured)
            for config in kinds.values():
                _check_steps(f"compare.{i}", contrast, contrast.at, config)


def _named(compare: Sequence[Contrast], report: ReportConfig) -> Iterator[tuple[str, str]]:
    """(key, metric) of everything that is compared or drawn."""
    for i, contrast in enumerate(compare):
        yield f"compare.{i}.metric", contrast.metric
        if contrast.against is not None:
            yield f"compare.{i}.against", contrast.other[0]
    for key in ("curves", "distribution"):
        yield from ((f"report.{key}", metric) for metric in getattr(report, key))
    if report.stability:
        yield "report.stability", report.stability


def _check_metric(place: str, metric: str, measured: Mapping[str, Any]) -> None:
    evaluation, _, rest = metric.partition(".")
    if evaluation not in measured:
        raise ConfigError(
            f"{place}: {metric!r} is no metric of this study: no evaluation is named {evaluation!r} (evaluations:"
            f" {', '.join(measured) or 'none'})"
        )
    splits = splits_of(measured[evaluation])
    if splits and rest.partition(".")[0] not in splits:
        raise ConfigError(
            f"{place}: {metric!r} is no metric of this study: evaluation {evaluation!r} looks at {', '.join(splits)},"
            f" so its metrics are named {evaluation}.{splits[0]} and so on"
        )


def _read(contrast: Contrast) -> list[tuple[str, str, At]]:
    """(key, metric, when it is read) of both sides, or of the one metric."""
    found: list[tuple[str, str, At]] = [("metric", contrast.metric, contrast.at)]
    return found + ([("against", *contrast.other)] if contrast.against is not None else [])


def _check_step(key: str, metric: str, within: tuple[int, int], runs: Sequence[RunConfig]) -> None:
    """A metric that is read at a step, or between two, is measured there, in some run at least."""
    own = [
        (e, config.train.max_steps)
        for config in runs
        for e in config.evaluations
        if evaluation_name(e) == metric.partition(".")[0]
    ]
    due = lambda e, last: any(e.due(step, last) for step in range(within[0], min(within[1], last) + 1))
    if not any(last is None or due(e, last) for e, last in own):
        e, last = own[0]
        told = (
            f"every {e.every:,} steps up to {last:,}"
            if e.every
            else f"at {', '.join(map(str, (*e.at, last)))}"
        )
        where = (
            f"at step {within[0]:,}"
            if within[0] == within[1]
            else f"from step {within[0]:,} to {within[1]:,}"
        )
        raise ConfigError(
            f"{key}: {metric!r} is read {where}, and evaluation {evaluation_name(e)!r} does not run there (it runs"
            f" {told}); name other steps, or set its `every` or `at`"
        )


def _check_steps(key: str, contrast: Contrast, chosen: BestOf, config: RunConfig) -> None:
    """What is read at the step that a metric chooses is measured at every step it may choose."""
    named = {evaluation_name(e): e for e in config.evaluations}
    of = lambda metric: named.get(metric.partition(".")[0])
    chooser, last = of(chosen.best_of), config.train.max_steps
    if chooser is None:
        return
    end = last or LOOK * max(1, chooser.every)
    steps = {*chooser.at, *range(0, end + 1, chooser.every or end + 1), *([last] if last else [])}
    for part, metric in ((part, metric) for part, metric, at in _read(contrast) if isinstance(at, BestOf)):
        evaluation = of(metric)
        if evaluation is None or all(
            evaluation.due(step, last) for step in steps if not last or step <= last
        ):
            continue
        final = f"; what does not change in training is read as `{metric} @ final`" * (part == "against")
        raise ConfigError(
            f"{key}.{part}: {metric!r} is read at the step that {chosen.best_of!r} chooses, and evaluation"
            f" {evaluation_name(evaluation)!r} does not run wherever {evaluation_name(chooser)!r} does; give both the"
            f" same `every` and `at`{final}"
        )
