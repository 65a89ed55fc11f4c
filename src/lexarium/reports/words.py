"""Numbers and sentences for people.

A result is told in one sentence that claims no more than its statistics allow, and one `verdict`:

* `none`        no estimate yet;
* `refused`     the arms must not be compared; the sentence names what differs;
* `estimate`    an estimate, but no interval and no p; or windows were compared and there is no interval over seeds;
* `undecided`   the interval includes no difference, or the corrected p is above 1 - confidence, or windows of the
                same text were compared and the interval over seeds includes no difference;
* `supported` / `contradicted`   decided, in or against the direction the contrast expects; where it expects none,
  the whole interval lies within, or outside of, the difference that counts as none;
* `difference`  decided, and the contrast states no expectation.

Below six seeds per arm a verdict rests on the t interval alone, and the sentence says so. A comparison of windows needs
two intervals: one covers other text, one other training. The noise floor is information, no threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lexarium.studies.compare import ReportConfig
from lexarium.studies.contrasts import MEASURE

MINUS = "\u2212"
DASH = "\u2013"
NBSP = "\u00a0"

VERDICTS = {
    "none": "No result yet",
    "refused": "Not comparable",
    "estimate": "Estimate only",
    "undecided": "Not decided",
    "supported": "As the claim predicts",
    "contradicted": "Against the claim",
    "difference": "Clear difference",
}


def number(value: float | None, signed: bool = False) -> str:
    """A number with about three digits that matter; a dash for None."""
    if value is None:
        return DASH
    size = abs(value)
    if size == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if size >= 1000:
        text = f"{size:,.0f}"
    elif size >= 100:
        text = f"{size:.1f}"
    elif size >= 10:
        text = f"{size:.2f}"
    elif size >= 0.0005:
        text = f"{size:.3f}"
    else:
        text = f"{size:.1e}"
    return (MINUS if value < 0 else "+" if signed else "") + text


def percent(value: float | None, signed: bool = False) -> str:
    """A share as percent."""
    if value is None:
        return DASH
    size = abs(value) * 100
    text = (
        f"{size:.0f}"
        if size >= 100 or size == round(size)
        else f"{size:.1f}"
        if size >= 0.1
        else f"{size:.2g}"
    )
    return (MINUS if value < 0 else "+" if signed and value else "") + text + "%"


def change(value: float | None, signed: bool = False) -> str:
    """A relative difference as percent; small ones, which is what gaps are, with one more digit."""
    if value is None or not 0.001 <= abs(value) < 0.03 or abs(value) * 100 == round(abs(value) * 100):
        return percent(value, signed)
    return (MINUS if value < 0 else "+" if signed else "") + f"{abs(value) * 100:.2f}%"


def p_value(p: float | None) -> str:
    """`0.013`, `<0.0001`."""
    if p is None:
        return DASH
    return "<0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def interval(bounds: Sequence[float] | None, write: Any = number) -> str:
    """`[0.050, 0.370]`, which does not break over lines."""
    return DASH if bounds is None else f"[{write(bounds[0])},{NBSP}{write(bounds[1])}]"


def duration(seconds: float | None) -> str:
    """`1 h 05 min`, `3 min 20 s`, `12.0 s`."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def many(count: int, singular: str, plural: str = "") -> str:
    """`1 seed`, `5 seeds`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def blocks(windows: Mapping[str, Any]) -> str:
    """`35 documents`, `40 stretches of text (5 windows each)`: what windows are drawn together with."""
    of = windows["blocks_of"]
    if of == "documents":
        return many(windows["blocks"], "document")
    text = many(windows["blocks"], "stretch of text", "stretches of text")
    return text if of == "stretches of text" else f"{text} ({of.removeprefix('stretches of ')} each)"


class Words:
    """Names of metrics, axes and levels as the study's report settings want them."""

    def __init__(self, report: ReportConfig, axes: Mapping[str, Sequence[str]]) -> None:
        self._labels = report.labels
        self._levels: dict[str, dict[str, str]] = {}
        for axis, levels in axes.items():
            named = {level: report.levels.get(axis, {}).get(level, level) for level in levels}
            used = list(named.values())  # two levels with one name would be drawn as one
            self._levels[axis] = {k: v if used.count(v) == 1 else f"{v} ({k})" for k, v in named.items()}

    def metric(self, name: str) -> str:
        """A metric, or an axis, in words."""
        return self._labels.get(name, name)

    def heading(self, name: str) -> str:
        """A metric at the start of a title: a label begins with a capital, a plain name stays as it is."""
        label = self.metric(name)
        return label[:1].upper() + label[1:] if name in self._labels else label

    def level(self, axis: str, level: str) -> str:
        """A level of an axis in words; of two metrics that are compared, the metric."""
        if axis == MEASURE:
            name, at, step = level.partition("@")
            when = (
                " at the end of training"
                if step.strip() == "final"
                else f" at step {int(step):,}"
                if at
                else ""
            )
            return self.metric(name.strip()) + when
        return self._levels.get(axis, {}).get(level, level)

    def levels(self, levels: Mapping[str, str], named: bool = True) -> str:
        """A combination of levels: `family: GRU, layers: 4`."""
        parts = [
            f"{self.metric(a)}: {self.level(a, v)}" if named else self.level(a, v) for a, v in levels.items()
        ]
        return ", ".join(parts)

    def value(self, result: Mapping[str, Any], value: float | None, signed: bool = False) -> str:
        """An estimate of a contrast, in the form it is stated in."""
        if result["as"] in ("relative", "symmetric"):
            text = change(value, signed)
            return text.replace("%", f"{NBSP}pp") if result.get("grows") else text  # percent less percent
        return number(value) if result["as"] == "ratio" else number(value, signed)

    def points(self, result: Mapping[str, Any], value: float) -> str:
        """The size of a difference of effects: those in percent differ by percentage points (pp)."""
        return self.value(result, abs(value)).replace(f"{NBSP}pp", " percentage points")

    def bounds(self, result: Mapping[str, Any], bounds: Sequence[float] | None) -> str:
        """An interval of a contrast."""
        return interval(bounds, lambda v: self.value(result, v))

    def when(self, result: Mapping[str, Any]) -> str:
        """When a metric was read; the one that chose the step in words."""
        chooser = result["at"].get("best_of") if isinstance(result["at"], Mapping) else None
        told: str = result["at_label"]
        return told.replace(chooser, self.metric(chooser)) if chooser else told

    def comparison(self, result: Mapping[str, Any]) -> str:
        """`questions only → with relative clauses`."""
        axis, grows = result["axis"], result.get("grows")  # rows of a curve have none
        text = f"{self.level(axis, result['from'])} \u2192 {self.level(axis, result['to'])}"
        if not grows:
            return text
        other, to = (self.level(grows["axis"], grows[side]) for side in ("from", "to"))
        return f"{text}, {self.metric(grows['axis'])} {other} \u2192 {to}"

    def sentence(self, result: Mapping[str, Any]) -> str:
        """The answer of one contrast, in one sentence."""
        scope = [f"{self.metric(a)} {self.level(a, v)}" for a, v in result["where"].items()]
        scope += [] if result["at"] == "final" else [self.when(result)]
        metric = self.metric(result["metric"]) + (f" ({'; '.join(scope)})" if scope else "")
        if result["refused"]:
            text = f"{metric}: not compared. {result['refused'][:1].upper()}{result['refused'][1:]}"
        elif result["estimate"] is None:
            text = (
                f"{metric}: no answer yet. {' '.join(result['notes'][:1]) or 'No value in one of the arms.'}"
            )
        else:
            text = f"{metric}: {self._finding(result)}{self._support(result)}."
        if verdict(result) == "undecided":
            return f"No clear {'change' if result['grows'] else 'difference'} in {text}"
        return text[:1].upper() + text[1:] if result["metric"] in self._labels else text

    def _finding(self, result: Mapping[str, Any]) -> str:
        axis, estimate, arms = result["axis"], result["estimate"], result["arms"]
        if result["grows"]:
            return self._growth(result)
        means = {side: number(arms[side]["mean"]) for side in ("from", "to")}
        to = f"{self.level(axis, result['to'])} ({means['to']})"
        other = f"{self.level(axis, result['from'])} ({means['from']})"
        if axis == MEASURE:
            return self._beside(result, means["to"], other)
        if result["as"] == "ratio":
            return f"{number(estimate)} times as high with {to} as with {other}"
        if abs(estimate) < 1e-12:
            return f"the same with {to} as with {other}"
        more = "higher" if estimate > 0 else "lower"
        if result["as"] == "symmetric":
            more = f"of their mean {more}"
        return f"{self.value(result, abs(estimate))} {more} with {to} than with {other}"

    def _beside(self, result: Mapping[str, Any], own: str, other: str) -> str:
        """How a metric stands to another one of the same runs."""
        estimate = result["estimate"]
        if result["as"] == "ratio":
            return f"{own}, {number(estimate)} times {other}"
        if abs(estimate) < 1e-12:
            return f"{own}, the same as {other}"
        return (
            f"{own}, {self.value(result, abs(estimate))} {'higher' if estimate > 0 else 'lower'} than {other}"
        )

    def _growth(self, result: Mapping[str, Any]) -> str:
        """How an effect changes along another axis."""
        axis, grows, estimate = result["axis"], result["grows"], result["estimate"]
        gap = f"the gap {self.level(axis, result['from'])} \u2192 {self.level(axis, result['to'])} is"
        level = {**result, "grows": None}  # an effect itself is in percent
        to, other = (
            f"{self.metric(grows['axis'])} {self.level(grows['axis'], grows[side])}"
            f" ({self.value(level, result['arms'][side]['mean'], signed=True)})"
            for side in ("to", "from")
        )
        if abs(estimate) < 1e-12:
            return f"{gap} the same with {to} as with {other}"
        more = "larger" if estimate > 0 else "smaller"
        return f"{gap} {self.points(result, estimate)} {more} with {to} than with {other}"

    def _support(self, result: Mapping[str, Any]) -> str:
        n = result["n"]
        seeds = (
            many(n["pairs"], "pair", "pairs") + " of seeds"
            if n["pairs"]
            else f"{n['from']} + {n['to']} seeds"
        )
        if result["grows"] or result["axis"] == MEASURE:
            seeds = many(n["pairs"] or 0, "seed") + ", both numbers from each"
        text = ""
        if result["interval"]:
            text += f", {result['confidence']:.0%} interval {self.bounds(result, result['interval'])}"
        if found := result["windows"]:
            text += " over the text" if result["interval"] else ""
            text += f", from {many(found['windows'], 'window')} of {blocks(found)} ({seeds}, averaged)"
            text += "" if result["interval"] else "; no interval over the text can be given"
            over = self.bounds(result, result["seed_interval"])
            text += f"; interval over seeds {over}" if result["seed_interval"] else "; no interval over seeds"
            return text + self._noise(result)
        text += f", from {seeds}"
        if result["p"] is not None:
            corrected = result["p_adjusted"] != result["p"]
            p = p_value(result["p_adjusted"])
            p = p.replace("<", f"<{NBSP}") if p[0] == "<" else f"={NBSP}{p}"
            text += f"; permutation p{NBSP}{p}{' (corrected)' if corrected else ''}"
        elif result["interval"]:
            text += "; too few seeds for a permutation test"
        else:
            text += "; no interval can be given"
        return text + self._noise(result)

    def _noise(self, result: Mapping[str, Any]) -> str:
        """How much seeds of one arm differ: what a relative difference has to beat."""
        if result["as"] not in ("relative", "symmetric") or result["noise_floor"] is None:
            return ""
        return f"; two seeds of one arm differ by {change(result['noise_floor'])} on average"

    def expectation(self, result: Mapping[str, Any]) -> str:
        """What the claim predicts for this contrast, or nothing."""
        if not result["expect"]:
            return ""
        what, ends = result["grows"] or result, {"higher": "larger", "lower": "smaller"}
        to, other = (self.level(what["axis"], what[side]) for side in ("to", "from"))
        if result["grows"]:
            name = self.metric(what["axis"])
            if result["expect"] == "none":
                limit = self.points(result, result["within"])
                return f"Predicted by the claim: with {name} {to} and {other} gaps that differ by {limit} at most."
            return (
                f"Predicted by the claim: a {ends[result['expect']]} gap with {name} {to} than with {other}."
            )
        if result["expect"] == "none":
            limit = self.value(result, result["within"])
            return f"Predicted by the claim: no difference larger than {limit} between {to} and {other}."
        if what["axis"] == MEASURE:
            return f"Predicted by the claim: {result['expect']} than {other}."
        return f"Predicted by the claim: {result['expect']} with {to} than with {other}."


def verdict(result: Mapping[str, Any]) -> str:
    """One of the keys of `VERDICTS`."""
    if result["refused"]:
        return "refused"
    if result["estimate"] is None:
        return "none"
    if result["interval"] is None and result["p"] is None:
        return "estimate"
    null = 1.0 if result["as"] == "ratio" else 0.0
    intervals = [result["interval"]] + [result["seed_interval"]] * bool(result["windows"])
    if result["windows"] and None in intervals:
        return "estimate"
    if result["expect"] == "none":
        return _none(intervals, null, result["within"])
    sides = {
        None if b is None else (b[0] > null) - (b[1] < null) for b in intervals
    }  # 1 above, -1 below, 0 neither
    decided = len(sides) == 1 and 0 not in sides
    if result["p_adjusted"] is not None:
        decided = decided and result["p_adjusted"] <= 1 - result["confidence"] + 1e-12
    if not decided:
        return "undecided"
    if not result["expect"]:
        return "difference"
    return "supported" if (result["estimate"] > null) == (result["expect"] == "higher") else "contradicted"


def _none(intervals: Sequence[Sequence[float] | None], null: float, within: float) -> str:
    """Whether there is no difference larger than `within`: where every interval lies, as a whole."""
    if None in intervals:
        return "estimate"
    found = [bounds for bounds in intervals if bounds is not None]
    if all(null - within <= low and high <= null + within for low, high in found):
        return "supported"
    outside = all(low > null + within for low, _ in found) or all(high < null - within for _, high in found)
    return "contradicted" if outside else "undecided"
