"""`python -m lexarium`, also under torchrun."""

from __future__ import annotations

import sys

from lexarium.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
