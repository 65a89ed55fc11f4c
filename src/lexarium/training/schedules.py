"""Learning-rate schedules: pure functions of the step, with no state to save.

`scale(step, max_steps)` multiplies the optimiser's learning rate for update number `step` (counted from
0). Warm-up rises linearly and reaches 1 at update `warmup_steps - 1`, so no update is spent at rate 0 (with the
option `start` it rises from there and reaches 1 one update later); decays reach their floor just after the last update.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from lexarium.foundation.config import ComponentConfig


class WarmupConfig(ComponentConfig):
    """Options every schedule has."""

    warmup_steps: int = Field(0, ge=0)
    start: float | None = Field(None, ge=0, le=1)
    """Fraction of the peak at the first update of the warm-up, which then reaches 1 at update `warmup_steps`; empty =
    the first update stands at 1 / warmup_steps, and update `warmup_steps - 1` at 1."""


def _warmup(config: WarmupConfig, step: int) -> float:
    if step >= config.warmup_steps:
        return 1.0
    if config.start is None:
        return (step + 1) / config.warmup_steps
    return config.start + (1 - config.start) * step / config.warmup_steps


def _progress(step: int, warmup_steps: int, max_steps: int) -> float:
    """Share of the decay that lies behind update `step`: 0 at its first update, below 1 at the last."""
    return min(1.0, max(0, step - warmup_steps) / max(1, max_steps - warmup_steps))


class Constant:
    """Warm-up, then constant."""

    kind, name, version = "schedule", "constant", 1

    class Config(WarmupConfig):
        """Options of `constant`."""

        type: str = "constant"

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """1 after warm-up."""
        return _warmup(self.config, step)


class Linear:
    """Warm-up, then linear decay to `floor` at max_steps."""

    kind, name, version = "schedule", "linear", 1

    class Config(WarmupConfig):
        """Options of `linear`."""

        type: str = "linear"
        floor: float = Field(0.0, ge=0, le=1)

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """1 - (1 - floor) * progress."""
        c = self.config
        return _warmup(c, step) * (1 - (1 - c.floor) * _progress(step, c.warmup_steps, max_steps))


class Cosine:
    """Warm-up, then half a cosine down to `floor` at max_steps (Loshchilov and Hutter 2017, eq. 5)."""

    kind, name, version = "schedule", "cosine", 1

    class Config(WarmupConfig):
        """Options of `cosine`."""

        type: str = "cosine"
        floor: float = Field(0.0, ge=0, le=1)

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """floor + (1 - floor) * (1 + cos(pi * progress)) / 2."""
        c = self.config
        wave = (1 + math.cos(math.pi * _progress(step, c.warmup_steps, max_steps))) / 2
        return _warmup(c, step) * (c.floor + (1 - c.floor) * wave)


class InverseSqrt:
    """Warm-up, then 1/sqrt of the step (Vaswani et al. 2017, eq. 3, scaled to peak at 1)."""

    kind, name, version = "schedule", "inverse_sqrt", 1

    class Config(WarmupConfig):
        """Options of `inverse_sqrt`."""

        type: str = "inverse_sqrt"

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """The warm-up, then sqrt(w / (s + 1))."""
        w = max(1, self.config.warmup_steps)
        return _warmup(self.config, step) if step < self.config.warmup_steps else math.sqrt(w / (step + 1))


class WarmRestarts:
    """Cosine cycles (Loshchilov and Hutter 2017): each `factor` times as long, each peak `peak_decay` times as high."""

    kind, name, version = "schedule", "warm_restarts", 1

    class Config(WarmupConfig):
        """Options of `warm_restarts`."""

        type: str = "warm_restarts"
        period: int = Field(gt=0)
        """Updates of the first cycle, after warm-up."""
        factor: float = Field(1.0, ge=1)
        peak_decay: float = Field(1.0, gt=0, le=1)
        floor: float = Field(0.0, ge=0, le=1)

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """floor + (peak_decay**cycle - floor) * (1 + cos(pi * share of the cycle)) / 2."""
        c = self.config
        if step < c.warmup_steps:
            return _warmup(c, step)
        done, cycle, length = step - c.warmup_steps, 0, c.period
        while done >= length:
            done, cycle = done - length, cycle + 1
            length = round(c.period * c.factor**cycle)
        peak = max(c.floor, c.peak_decay**cycle)
        return c.floor + (peak - c.floor) * (1 + math.cos(math.pi * done / length)) / 2


class CosineRestarts:
    """Cosine cycles of equal length, each whole cycle `shrink` times as high as the one before, its floor too."""

    kind, name, version = "schedule", "cosine_restarts", 1

    class Config(WarmupConfig):
        """Options of `cosine_restarts`."""

        type: str = "cosine_restarts"
        period: int = Field(gt=0)
        """Updates of a cycle, after warm-up."""
        shrink: float = Field(1.0, gt=0, le=1)
        """Height of each cycle, peak and floor, relative to the one before."""
        start: float = Field(0.001, ge=0, le=1)
        """Fraction of the peak at the first update of the warm-up, which reaches 1 at update `warmup_steps`."""
        floor: float = Field(0.0, ge=0, le=1)
        """Fraction of the peak at which the first cycle ends."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """shrink**n * [floor + (1 - floor) * (1 + cos(pi * r / period)) / 2], r updates into cycle n (`CosineWarmup`
        of torchEnhanced with T_mult = 1, divided by the peak rate; step = updates done)."""
        c = self.config
        if step < c.warmup_steps:
            return _warmup(c, step)
        cycle, done = divmod(step - c.warmup_steps, c.period)
        wave = (1 + math.cos(math.pi * done / c.period)) / 2
        return float(c.shrink**cycle * (c.floor + (1 - c.floor) * wave))


class WarmupStableDecay:
    """Warm-up, constant, then decay over the last `decay_fraction` of the run (Hu et al. 2024)."""

    kind, name, version = "schedule", "warmup_stable_decay", 1

    class Config(WarmupConfig):
        """Options of `warmup_stable_decay`."""

        type: str = "warmup_stable_decay"
        decay_fraction: float = Field(0.1, gt=0, le=1)
        shape: Literal["linear", "sqrt"] = "linear"
        floor: float = Field(0.0, ge=0, le=1)

    def __init__(self, config: Config) -> None:
        self.config = config

    def scale(self, step: int, max_steps: int) -> float:
        """Linear: 1 - share; sqrt: 1 - sqrt(share), of the decay phase, down to the floor."""
        c = self.config
        length = max(1, round(c.decay_fraction * max_steps))
        share = min(1.0, max(0, step - (max_steps - length)) / length)
        decay = share if c.shape == "linear" else math.sqrt(share)
        return _warmup(c, step) * (1 - (1 - c.floor) * decay)
