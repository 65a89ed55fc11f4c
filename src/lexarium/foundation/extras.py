"""Optional dependencies: imported where they are used, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from lexarium.foundation.types import UserError


def need(module: str, extra: str, purpose: str) -> Any:
    """The module, or a UserError that says which extra brings it; `purpose` ends the sentence `... is needed`."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"{module} is needed {purpose}, and is not installed: pip install 'lexarium[{extra}]'"
        ) from None
