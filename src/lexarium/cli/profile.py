"""`lexarium profile`: where the step of a configuration goes on this machine. Trains nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lexarium.cli.console import Talk, early_stop
from lexarium.cli.options import Json, Overrides, Preset, RunsDir, Seed, Select, Target, Trust
from lexarium.launch.display import Meter

if TYPE_CHECKING:
    from lexarium.studies.profile import Operators, Profile, Roofline

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def profile(
    target: Target,
    overrides: Overrides = None,
    preset: Preset = None,
    select: Select = None,
    seed: Seed = None,
    runs_dir: RunsDir = Path("runs"),
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Steps that are measured.")] = 20,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="Write a few steps there as a Chrome trace (a new file)."
        ),
    ] = None,
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Tell where an optimiser step goes on this machine, what the machine could do, and the gap between.

    The target is as for `train`. No run is made or changed. Example: lexarium profile hierarchical-generalization
    """
    from lexarium.cli.prepare import build_store
    from lexarium.cli.target import load_target, parse_levels, parse_seed
    from lexarium.studies.profile import check_trace, profile_run
    from lexarium.studies.run import stores_dir

    talk = Talk(as_json)
    with early_stop():
        check_trace(trace)
        found = load_target(target, runs_dir, preset, overrides or (), parse_seed(seed), trust_plugins)
        point = found.points(runs_dir, parse_levels(select, "--select"))[0]
        if found.path is not None:
            runs_dir = found.path.parent
        build_store(point.config, runs_dir, 0, talk)
        talk.note(f"profiling {point.run}")
        with Meter("profiling") as meter:

            def progress(done: int, total: int) -> None:
                meter.pace.totals[""] = total
                meter.move(done)

            told = profile_run(point.config, stores_dir(runs_dir), steps, trace, meter.say, progress)
    talk.data({"run": point.run, **asdict(told), "trace": trace})
    _print(talk, told)
    if trace is not None:
        talk.say(f"\ntrace of a few steps (chrome://tracing, ui.perfetto.dev): {trace}")


def _print(talk: Talk, told: Profile) -> None:
    where = f"{told.device}, {told.precision}, {_count(told.threads, 'thread')}"
    talk.say(f"program {told.program} (plan.program {told.asked}{told.why and ': ' + told.why}); {where}")
    talk.say(
        f"a step takes {told.step_ms:.2f} ms (median of {told.steps}); {told.marked_ms:.2f} ms with the clock in it\n"
    )
    rows = [[name, _ms(ms), _percent(ms / told.marked_ms)] for name, ms in told.phases.items()]
    talk.table(["phase", "        ms", "% of step"], rows)
    if told.gaps_ms is not None:
        talk.say(
            f"the device did nothing in {told.gaps_ms:.2f} ms of a step ({told.gaps_ms / told.step_ms:.0%})"
        )
    _print_operators(talk, told.operators)
    _print_roofline(talk, told.roofline)
    for line in told.advice:
        talk.say(f"advice: {line}")


def _print_operators(talk: Talk, seen: Operators) -> None:
    talk.say(f"\noperators take {seen.ms:.2f} ms of a step under the profiler; the larger ones:\n")
    rows = [[kind, _ms(ms), _percent(seen.share(kind))] for kind, ms in seen.kinds.items()]
    talk.table(["kind", "        ms", "% of operators"], rows)
    talk.say()
    rows = [[o.name[:60], o.kind, _ms(o.ms), _percent(o.ms / seen.ms), f"{o.calls:6,.0f}"] for o in seen.top]
    talk.table(["operator", "kind", "        ms", "% of operators", " calls"], rows)


def _print_roofline(talk: Talk, roof: Roofline) -> None:
    talk.say(
        f"\nroofline (this machine by {'its data sheet' if roof.source == 'data sheet' else 'measurement'})\n"
    )
    rows = [
        ["arithmetic", f"{_si(roof.operations)}FLOP", f"{_si(roof.peak)}FLOP/s", _ms(roof.arithmetic_ms)],
        ["memory", f"{_si(roof.bytes)}B", f"{_si(roof.bandwidth)}B/s", _ms(roof.memory_ms)],
    ]
    talk.table(["", "a step takes", "the machine does", "  ms at least"], rows)
    talk.say(
        f"\nbound {roof.bound_ms:.2f} ms ({roof.binds}); the step takes {roof.gap:.2f} times that"
        f"\n{_si(roof.achieved)}FLOP/s, MFU {roof.mfu:.1%}; {roof.tokens_per_second:,.0f} tokens/s"
        f"\nrows hold {roof.rows:,.0f} tokens, {roof.real:,.0f} of them real: {roof.padding:.0%} padding"
    )


def _ms(value: float) -> str:
    return f"{value:10,.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _si(value: float) -> str:
    """Three figures and a prefix: `12.3 G`."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if value >= size), (1.0, ""))
    return f"{value / size:.3g} {prefix}"
