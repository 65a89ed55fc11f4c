"""`lexarium sample`: text from a trained model, in the direction it was trained in.

A forward model goes on after the prompt, a backward model writes what stands before it; ids are put in the order of
the corpus before they become text, and prompt and continuation are decoded as one. On a terminal the text grows as it
is written, and characters that a terminal would obey are written out (`\\x1b`); elsewhere, and with --json, it is
printed once it is whole, as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from lexarium.cli.console import Talk, harmless
from lexarium.cli.options import Json, RunsDir, Step, Trust
from lexarium.cli.options import Run as RunName
from lexarium.foundation.types import UserError

if TYPE_CHECKING:
    from lexarium.studies.run import Run


MAX_NEW = 64
"""Tokens of a sample where nothing else is said."""


Prompt = Annotated[
    str,
    typer.Option(
        "--prompt",
        "-p",
        metavar="TEXT",
        help="What the text begins with. For a backward model the prompt is the text's ENDING.",
    ),
]


def sample(
    run: RunName,
    prompt: Prompt = "",
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many samples.")] = 1,
    temperature: Annotated[
        float,
        typer.Option("--temperature", "-t", metavar="T", min=0, help="0 = the likeliest word each time."),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", min=1, help="Draw from the K likeliest tokens only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", help="Draw from the likeliest that hold the share P."),
    ] = None,
    max_new: Annotated[
        int | None, typer.Option("--max-new", metavar="N", min=1, help=f"Tokens at most; empty = {MAX_NEW}.")
    ] = None,
    slide: Annotated[
        bool, typer.Option("--slide", help="Where positions are full, go on from the last half of them.")
    ] = False,
    direction: Annotated[
        str | None,
        typer.Option("--direction", metavar="D", help="forward or backward, for a model that reads in both."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of the draws.")] = 1,
    step: Step = None,
    runs_dir: RunsDir = Path("runs"),
    trust_plugins: Trust = False,
    as_json: Json = False,
) -> None:
    """Let a trained model go on from a prompt. The same seed gives the same samples.

    Example: lexarium sample RUN --prompt "my raven does change . quest" -n 3
    """
    from lexarium.cli.target import find_run
    from lexarium.evaluations.decoding import Sampling
    from lexarium.foundation import rng
    from lexarium.studies.assembly import resolve_step
    from lexarium.studies.run import Run

    talk, sampling = Talk(as_json), Sampling(temperature, top_k, top_p, rng.key(seed, "sample"))
    found = Run.open(find_run(run, runs_dir), trust_plugins)
    at = resolve_step(found, step)
    scorer = _asked(found.scorer(at), direction)
    room, windows = _room(found, scorer, prompt, slide), _whole_windows(found, scorer, prompt, slide, max_new)
    most, terminal = min(windows or max_new or MAX_NEW, room), talk.stream.isatty()
    watched = terminal and not (as_json or windows)
    ask = partial(scorer.generate_ids, [prompt] * number, most, sampling, slide)
    ids = _watched(scorer, prompt, number, talk.stream, ask) if watched else ask()
    samples = [{"text": scorer.text(new, prompt), "continuation": scorer.text(new)} for new in ids]
    talk.data({"run": found.path.name, "step": at, "prompt": prompt, "seed": seed, "samples": samples})
    for each in samples if not watched else ():
        talk.say(harmless(each["text"]) if terminal else each["text"])


def _asked(scorer: Any, direction: str | None) -> Any:
    """The scorer in the direction that is to be asked."""
    views = scorer.views()
    if len(views) == 1:
        if direction not in (None, scorer.direction):
            raise UserError(f"--direction {direction}: this model reads {scorer.direction} only")
        return scorer
    if direction not in views:
        found = f", found {direction!r}" if direction else ""
        raise UserError(
            f"--direction: this model reads in several directions: say {' or '.join(views)}{found}"
        )
    return views[direction]


def _watched(scorer: Any, prompt: str, number: int, stream: TextIO, ask: Any) -> list[list[int]]:
    """What `ask` gives, while the texts grow on a terminal."""
    from lexarium.cli.growing import growing
    from lexarium.evaluations.decoding import settled

    def so_far(ids: Sequence[int]) -> str:
        return harmless(settled(scorer.text(ids, prompt), scorer.direction))

    with growing(stream, [so_far([])] * number, scorer.direction == "forward") as show:
        found: list[list[int]] = ask(on_token=lambda place, ids: show(place, so_far(ids)))
        for place, ids in enumerate(found):
            show(place, harmless(scorer.text(ids, prompt)))
    return found


def _room(run: Run, scorer: Any, prompt: str, slide: bool) -> int:
    """Tokens that may follow before the model runs out of positions."""
    given = len(scorer.tokenizer.encode(prompt)[0])
    if "source" in scorer.model.consumes:
        if not given:
            raise UserError(f"--prompt: objective {run.config.objective.type!r} needs a text to read")
        given = 0
    elif not given and not getattr(run.config.objective, "bos", True):
        if scorer.opening is None:
            raise UserError("--prompt: this model was trained without bos, so it needs a word to begin with")
        given = 1
    limit = getattr(scorer.model, "max_length", None)
    if limit is None or slide:
        return 1 << 30
    room = limit - given + int(not getattr(run.config.objective, "bos", True))  # the last token is not read
    if room < 1:
        raise UserError(
            f"--prompt: the prompt fills the {limit} positions of the model; shorten it, or go on from its last part"
            " with --slide"
        )
    return int(room)


def _whole_windows(run: Run, scorer: Any, prompt: str, slide: bool, max_new: int | None) -> int:
    """Tokens of the window that a model of re-ordered windows writes; 0 for other models."""
    if not getattr(scorer._direction, "one_length", False):
        return 0
    length = int(run.config.packing.seq_len)
    if given := [n for n, v in (("--prompt", prompt), ("--slide", slide), ("--max-new", max_new)) if v]:
        raise UserError(
            f"{given[0]}: direction {scorer.direction!r} writes whole windows of {length}"
            " tokens in an order of its own; leave it out"
        )
    return length
