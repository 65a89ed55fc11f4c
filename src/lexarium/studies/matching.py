"""Equal sizes across arms: solve for one whole number per level, counting on the meta device.

The size grows with the number, so bisection finds the best one; values the model refuses (a width that is
not a multiple of the heads) are stepped over. The answer must be within the tolerance or it is an error
that tells the nearest size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexarium.foundation.config import ConfigError, Place, overlay, parse_path, validate
from lexarium.foundation.types import UserError
from lexarium.studies.run_config import RunConfig

if TYPE_CHECKING:
    from lexarium.studies.study import Study

LARGEST = 1 << 16


def size(config: RunConfig, quantity: str, runs_dir: Path) -> float:
    """A run's parameters, non-embedding or trainable parameters, or FLOPs of one forward pass over 128 tokens."""
    import torch

    from lexarium.models.build import build_model
    from lexarium.models.layers import count_parameters
    from lexarium.studies.assembly import make_objective
    from lexarium.studies.run import stores_dir
    from lexarium.tokens.prepare import open_tokenizer, prepare
    from lexarium.training.trainer import freeze

    store = prepare(config.corpus, config.tokenizer, stores_dir(runs_dir))
    tokenizer = open_tokenizer(config.tokenizer, store.folder)
    model: Any = build_model(config.model, make_objective(config, tokenizer).vocab_size, None, "meta")
    freeze(model, config.train.parameters)
    if quantity != "flops":
        return count_parameters(model, quantity == "non_embedding", quantity == "trainable")
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros(1, 128, dtype=torch.int64, device="meta")
    inputs = {"tokens": tokens}
    if "source" in model.needs:
        inputs |= {"source": tokens, "source_mask": tokens.bool()}
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs)
        output.unembed(output.hidden)
    return counter.get_total_flops()


def solve(study: Study, runs_dir: Path) -> dict[str, dict[str, dict[Place, Any]]]:
    """axis -> level -> {path: number}, for the study's `match`."""
    match = study.config.match
    assert match is not None
    if match.axis not in study.axes:
        raise ConfigError(f"match.axis: no axis {match.axis!r} (axes: {', '.join(study.axes)})")
    for level in [match.to, *match.adjust]:
        if level not in study.axes[match.axis]:
            raise ConfigError(f"match: axis {match.axis!r} has no level {level!r}")
    others = {axis: next(iter(levels)) for axis, levels in study.axes.items() if axis != match.axis}
    seed = study.config.seeds[0]
    target = _size_of(study, {**others, match.axis: match.to}, seed, {}, match.quantity, runs_dir)
    assert target is not None, "the target level must be valid"
    found: dict[str, dict[Place, Any]] = {}
    for level, path in match.adjust.items():
        place = parse_path(path)
        measure = lambda n, level=level, place=place: _size_of(
            study,
            {**others, match.axis: level},
            seed,
            {match.axis: {level: {place: n}}},
            match.quantity,
            runs_dir,
        )
        number, nearest = _bisect(measure, target)
        if number is None:  # no number at all will do: let the configuration say why
            tried = study._point_source(
                {**others, match.axis: level}, seed, {match.axis: {level: {place: 64}}}
            )
            validate(RunConfig, tried)
        if number is None or abs(nearest - target) > match.tolerance * target:
            raise ConfigError(
                f"match: no {path} makes {match.axis}={level} equal to {match.to} ({target:,.0f} {match.quantity})"
                f" within {match.tolerance:.1%}; the nearest is {nearest:,.0f} at {number}"
            )
        found[level] = {place: number}
    return {match.axis: found}


def _size_of(
    study: Study,
    levels: Mapping[str, str],
    seed: int,
    solved: Mapping[str, Any],
    quantity: str,
    runs_dir: Path,
) -> float | None:
    source = overlay(study._point_source(levels, seed, solved), {("seed",): seed}, "seeds")
    try:
        return size(validate(RunConfig, source), quantity, runs_dir)
    except UserError:
        if not solved:
            raise
        return None  # a value the model refuses


def _bisect(measure: Any, target: float) -> tuple[int | None, float]:
    """The whole number whose size is nearest to the target, and that size."""
    known: dict[int, float] = {}

    def at(n: int) -> tuple[int, float] | None:
        """The smallest valid number from n on, and its size."""
        for m in range(n, min(n + 256, LARGEST)):
            if m not in known:
                value = measure(m)
                if value is None:
                    continue
                known[m] = value
            return m, known[m]
        return None

    low, high = 1, 2
    while (here := at(high)) is not None and here[1] < target and high < LARGEST:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        here = at(middle)
        if here is None or here[1] >= target or here[0] >= high:
            high = middle
        else:
            low = max(middle, here[0])
    at(low), at(high)
    if not known:
        return None, float("nan")
    best = min(known, key=lambda n: abs(known[n] - target))
    return best, known[best]
