"""`lexarium sample`: text from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexarium.cli.console import Talk
from lexarium.cli.options import Json, RunsDir, Step, Trust
from lexarium.cli.options import Run as RunName
from lexarium.foundation.types import UserError

if TYPE_CHECKING:
    from lexarium.studies.run import Run


def sample(
    run: RunName,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="What the text begins with.")
    ] = "",
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many samples.")] = 1,
    temperature: Annotated[
        float,
        typer.Option("--temperature", "-t", metavar="T", min=0, help="0 = the likeliest word each time."),
    ] = 1.0,
    max_new: Annotated[int, typer.Option("--max-new", metavar="N", min=1, help="Tokens at most.")] = 64,
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
    from lexarium.foundation import rng
    from lexarium.studies.assembly import resolve_step
    from lexarium.studies.run import Run

    talk = Talk(as_json)
    found = Run.open(find_run(run, runs_dir), trust_plugins)
    at = resolve_step(found, step)
    scorer = found.scorer(at)
    room = _room(found, scorer, prompt)
    if room < 1:
        raise UserError(f"--prompt: the prompt fills the {scorer.model.max_length} positions of the model")
    key = rng.key(seed, "sample")
    texts = scorer.generate([prompt] * number, min(max_new, room), temperature, key)
    whole = [_whole(found, scorer, prompt, text) for text in texts]
    samples = [{"text": w, "continuation": t} for w, t in zip(whole, texts, strict=True)]
    talk.data({"run": found.path.name, "step": at, "prompt": prompt, "seed": seed, "samples": samples})
    for text in whole:
        talk.say(text)


def _room(run: Run, scorer: Any, prompt: str) -> int:
    """Tokens that may follow before the model runs out of positions."""
    given = len(scorer.tokenizer.encode(prompt)[0])
    if "source" in scorer.model.consumes:
        if not given:
            raise UserError(f"--prompt: objective {run.config.objective.type!r} needs a text to read")
        given = 0
    elif not given and not getattr(run.config.objective, "bos", True):
        raise UserError("--prompt: this model was trained without bos, so it needs a word to begin with")
    limit = getattr(scorer.model, "max_length", None)
    return 1 << 30 if limit is None else limit - given - 1


def _whole(run: Run, scorer: Any, prompt: str, text: str) -> str:
    """Prompt and continuation in the order of the corpus; what was read is left out where it is a source."""
    if "source" in scorer.model.consumes:
        return text
    parts = [text, prompt] if run.config.direction.type == "backward" else [prompt, text]
    return scorer.tokenizer.joiner.join(part for part in parts if part)
