"""The command lines of `arrows` beside the file, and the sections of its files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

M, T, OPTIM = "model_params", "training_params", "optim_params"


class Script(StrEnum):
    """The program that was called."""

    train_script = "train_script"
    train_parallel = "train_parallel"
    train_gru = "train_gru"
    train_lstm = "train_lstm"


class Meaning(StrEnum):
    """Of an empty embd_dropout."""

    code = "code"
    readme = "readme"


class Steps(StrEnum):
    """What the file counts."""

    minibatches = "minibatches"
    updates = "updates"


class Split(StrEnum):
    """Which windows are held out."""

    contiguous = "contiguous"
    window_shuffle = "window_shuffle"


@dataclass(frozen=True)
class Options:
    """The command line beside the file."""

    script: Script = Script.train_script
    devices: tuple[str, ...] = ()
    tokenizer: str | None = None
    project: str | None = None
    more_steps: bool = False
    from_run: str | None = None
    embd_dropout: Meaning = Meaning.code
    legacy_aggregate: bool = False
    steps: Steps | None = None
    split: Split = Split.contiguous
    target: str = "FILE"

    @property
    def recurrent(self) -> str | None:
        """The cell of a recurrent model."""
        return {Script.train_gru: "gru", Script.train_lstm: "lstm"}.get(self.script)
