"""The schema of a study's questions: entries of `compare`, and what the report shows.

Both are parts of a study file; `compare.py` answers them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from lexarium.foundation.config import Config
from lexarium.studies.results import level_text
from lexarium.studies.stability import StabilityConfig


def _level_keys(value: Any) -> Any:
    return {level_text(k): v for k, v in value.items()} if isinstance(value, Mapping) else value


Level = Annotated[str, BeforeValidator(level_text)]


class MeanOver(Config):
    """The mean of all evaluations between two steps, both included."""

    mean_over: tuple[int, int]

    @model_validator(mode="after")
    def _ordered(self) -> MeanOver:
        if self.mean_over[0] > self.mean_over[1]:
            raise ValueError(f"mean_over: the first step {self.mean_over[0]} is after {self.mean_over[1]}")
        return self


class BestOf(Config):
    """The step at which another metric, which looks at `val`, was best: what early stopping would have kept."""

    best_of: str
    """`<evaluation>.<metric>`, for example `loss.val`."""
    better: Literal["lower", "higher"] = "lower"

    @model_validator(mode="after")
    def _held_out(self) -> BestOf:
        if "val" not in self.best_of.split("."):
            raise ValueError(
                f"best_of: {self.best_of!r} does not look at `val`; another split must not choose"
            )
        return self


def _at(value: Any) -> Any:
    named = isinstance(value, str) and value in ("final", "best")
    step = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if isinstance(value, Mapping) and "best_of" in value:
        return BestOf.model_validate(value)
    if named or step or isinstance(value, MeanOver | BestOf | Mapping):
        return value
    raise ValueError(
        "expected final, best, a step, {mean_over: [first step, last step]} or {best_of: METRIC}"
    )


At = Annotated[Literal["final", "best"] | int | MeanOver | BestOf, BeforeValidator(_at)]


class _Aliased(Config):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class Grows(_Aliased):
    """Two levels of another axis between which the effect of a contrast is to change."""

    axis: str
    """The axis along which the effect may grow."""
    from_: Level = Field(alias="from")
    """The level compared with."""
    to: Level
    """The level of interest: the estimate is the effect there less the effect at `from`."""

    @model_validator(mode="after")
    def _distinct(self) -> Grows:
        if self.from_ == self.to:
            raise ValueError(f"`from` and `to` of `grows` are the same level {self.to!r}")
        return self


MEASURE = "measure"
"""What stands for the axis of a contrast `against` another metric."""


class Contrast(_Aliased):
    """Two levels of one axis compared in one metric, or two metrics of the same runs (`against`): one entry of a
    study's `compare` list."""

    metric: str
    """`<evaluation>.<metric>`, for example `rule_choice.ood.main_auxiliary`."""
    against: str | None = None
    """Instead of `axis`, `from` and `to`: another metric of the same run, paired by seed: a baseline, a control, or, as
    `METRIC @ STEP`, the same metric before training (`@ 0`). `METRIC @ final`: at the end, whatever `at` says."""
    axis: str
    """The axis whose levels are compared."""
    from_: Level = Field(alias="from")
    """The level compared with."""
    to: Level
    """The level of interest: the estimate is `to` minus (or divided by) `from`."""
    as_: Literal["difference", "relative", "ratio", "symmetric"] = Field("difference", alias="as")
    """`difference` of means, `ratio` of means, `relative`: the ratio less one, or `symmetric`: the difference
    divided by the mean of both."""
    unit: Literal["seed", "block"] = "seed"
    """What varies at random and is counted: runs of different seeds, or documents of an evaluation of windows."""
    grows: Grows | None = None
    """A contrast of contrasts: the effect at one level of another axis less that at another, seed by seed. `expect` and
    `within` are then about that change."""
    at: At = "final"
    """Which evaluation counts: `final`, `best`, a step, `{mean_over: [a, b]}`, or `{best_of: METRIC, better: lower}`:
    the step at which another metric was best."""
    where: dict[str, Level] = {}
    """Levels of other axes; an axis left out gives one contrast per level."""
    paired: bool | None = None
    """Whether values of equal seed belong together. Not stated: compared as independent."""
    pairing: str = ""
    """Why pairing is, or is not, justified."""
    confidence: float = Field(0.95, gt=0, lt=1)
    better: Literal["higher", "lower", "none"] = "none"
    """Which direction of the metric is good; `best` needs it."""
    expect: Literal["higher", "lower", "none"] | None = None
    """What the claim predicts for `to` compared with `from`; `none`: no difference larger than `within`."""
    within: float | None = Field(None, gt=0)
    """With `expect: none`: the largest difference that counts as none, in the form the contrast is stated in. The claim
    holds when the whole interval lies within it: not finding a difference is not enough."""
    claim: str = ""
    """The statement this contrast tests, in words."""
    redrawn: bool = False
    """Whether the training data are redrawn for every seed."""

    @model_validator(mode="before")
    @classmethod
    def _of_one_run(cls, value: Any) -> Any:
        """Two metrics of a run stand where two levels of an axis would."""
        if not isinstance(value, Mapping) or value.get("against") is None:
            return value
        metric = value.get("metric")
        own: dict[str, Any] = {"axis": MEASURE, "from": value["against"], "to": metric, "paired": True}
        own["pairing"] = value.get("pairing") or "both numbers are of the same run"
        for name, found in own.items():
            if value.get(name, found) != found and value.get(name) is not None:
                raise ValueError(f"`against` compares two metrics of a run: leave `{name}` out")
        return {**value, **own}

    @property
    def other(self) -> tuple[str, At]:
        """The metric compared with and when it counts: `METRIC`, at this contrast's own `at`, or `METRIC @ STEP`."""
        name, _, when = self.from_.partition("@")
        step = when.strip()
        if step == "final":
            return name.strip(), "final"
        return name.strip(), (int(step) if step.isdigit() else self.at)

    @model_validator(mode="after")
    def _consistent(self) -> Contrast:
        if self.against is not None:
            self._of_measures()
        if self.from_ == self.to:
            raise ValueError(f"`from` and `to` are the same level {self.to!r}")
        if self.at == "best" and self.better == "none":
            raise ValueError("`at: best` needs `better: higher` or `better: lower`")
        if self.paired and not self.pairing:
            raise ValueError("`paired: true` needs `pairing`: the reason why equal seeds belong together")
        if self.unit == "block" and not isinstance(self.at, int) and self.at != "final":
            raise ValueError("`unit: block` reads the windows of one step: `at` is `final` or a step")
        if (self.expect == "none") != (self.within is not None):
            raise ValueError(
                "`expect: none`, and only that, needs `within`: the largest difference that counts as none"
            )
        if self.axis in self.where:
            raise ValueError(f"`where` fixes {self.axis!r}, the axis that is compared")
        if self.grows is not None:
            self._of_contrasts(self.grows)
        return self

    def _of_measures(self) -> None:
        """Refuse what has no meaning beside `against`."""
        if self.unit == "block" or self.grows is not None:
            raise ValueError("`against` compares the metrics of runs: no `unit: block`, no `grows`")
        _, at, step = self.from_.partition("@")
        if at and not (step.strip().isdigit() or step.strip() == "final"):
            raise ValueError(
                f"`against`: expected METRIC, METRIC @ STEP or METRIC @ final, found {self.against!r}"
            )

    def _of_contrasts(self, grows: Grows) -> None:
        """Refuse what has no meaning beside `grows`."""
        if grows.axis == self.axis or grows.axis in self.where:
            raise ValueError(f"`grows` needs another axis than those compared or fixed, found {grows.axis!r}")
        if self.unit == "block" or self.as_ == "ratio":
            raise ValueError(
                "`grows` compares effects seed by seed: `unit: seed`, as relative, symmetric or difference"
            )
        if self.paired is False:
            raise ValueError("`grows` pairs by seed: leave `paired` out, or say true with the reason")


class Reference(Config):
    """A line drawn across figures of a metric: chance, a published number."""

    metric: str
    value: float
    label: str


class ReportConfig(Config):
    """What the report of a study shows, and how things are called there."""

    title: str = ""
    curves: list[str] = []
    """Metrics drawn over training steps; none: those of the contrasts."""
    distribution: list[str] = []
    """Metrics whose final values are shown as distributions; none: those of the contrasts."""
    stability: str | None = None
    """Metric whose curves are examined for stability."""
    stability_settings: StabilityConfig = StabilityConfig()
    reference: list[Reference] = []
    labels: dict[str, str] = {}
    """Metric -> words for people."""
    levels: dict[str, Annotated[dict[str, str], BeforeValidator(_level_keys)]] = {}
    """Axis -> level -> words for people."""
    correction: Literal["holm", "bh"] = "holm"
    """Correction of p for the number of contrasts: Holm or Benjamini-Hochberg."""
