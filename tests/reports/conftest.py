"""Making the JavaScript bundle takes seconds: tests find a stand-in of it, as a second report would find it.

The one test of the real bundle asks for it in a directory of its own.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

STAND_IN = "window.vegaEmbed = function () { return Promise.resolve(); };"


@pytest.fixture(autouse=True)
def bundle(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / f".vega-{metadata.version('vl-convert-python')}.js").write_text(STAND_IN, encoding="utf-8")
