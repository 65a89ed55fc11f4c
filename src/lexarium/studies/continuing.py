"""Going on where another run stood (`start: {type: run, state: all}`): more steps of the same science.

The other's checkpoint gives weights, optimiser state, step and counters; the batch and the learning rate of a step are
functions of the step. So the result is that of one run of the whole length, to the bit, if the schedule does not look
at max_steps (constant, cosine_restarts) and neither does the objective (`intermediate_losses` does). The line of
metrics.jsonl after the other's last step is of fewer steps where that step was not one of `train.log_every`.

Cost: two small files are compared. Refused: any difference in the identity but in what says how long a run is
(train.max_steps, train.epochs, stop_when), in schedule and in start, told field by field; a length that the other has
reached already. `plan` and the micro-batch may differ: they change rounding only, as they do when a run is resumed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lexarium.foundation import registry
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run, differences
from lexarium.studies.run_files import RunFiles

FREE = ("schedule", "start", "stop_when", "evaluations")
"""Parts of an identity that a run may have of its own."""
LENGTH = ("max_steps", "epochs")
"""Keys of `train` that it may have of its own."""


def whole_state(run: Run) -> Path | None:
    """The checkpoint from which a new run goes on, of which everything is taken over; None for other runs.

    Raises UserError, field by field, where the other run is of another science.
    """
    start: Any = registry.find("start", run.config.start.type)(run.config.start)
    found: Path | None = start.whole_state() if hasattr(start, "whole_state") else None
    if found is not None:
        other = found.parent.parent
        if odd := differences(shared(RunFiles(other).identity()), shared(run.files.identity())):
            raise UserError(
                f"start.state: all goes on with the same run, but this one differs from {other}: {'; '.join(odd)};"
                " make them equal, or set start.state: weights"
            )
    return found


def shared(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that both runs must have in common."""
    found = {key: value for key, value in identity.items() if key not in FREE}
    train = {key: value for key, value in found.pop("train", {}).items() if key not in LENGTH}
    return {**found, "train": train}


def refuse_no_steps(path: Path, step: int, max_steps: int) -> None:
    """Raise UserError when nothing is left to train."""
    if step >= max_steps:
        raise UserError(
            f"train.max_steps: is {max_steps}, but start.path {path.parent.parent} stands at step {step} and"
            " start.state: all counts on from there; raise train.max_steps"
        )
