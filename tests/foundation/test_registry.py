"""Components are found by reading files; only the wanted one is imported; mistakes are told with the nearest name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lexarium.foundation import registry
from lexarium.foundation.types import UserError

PLUGIN = """
from lexarium.foundation.config import ComponentConfig

class Mine:
    kind, name, version = "direction", "mine", 3
    class Config(ComponentConfig):
        type: str = "mine"
    def __init__(self, config):
        self.config = config

class NoConfig:
    kind = "direction"

number = 7
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_every_kind_has_components_and_each_is_what_it_says() -> None:
    for kind in registry.FOLDERS:
        found = registry.names(kind)
        assert found == sorted(set(found)) and found, kind
        for name in found:
            cls = registry.find(kind, name)
            assert (cls.kind, cls.name) == (kind, name)
            assert isinstance(cls.version, int) and cls.version >= 1
            assert cls.Config.model_fields["type"].default == name, (
                f"{kind} {name}: Config.type has another default"
            )
            assert (cls.__doc__ or "").strip() and (cls.Config.__doc__ or "").strip(), (
                f"{kind} {name}: no docstring"
            )


def test_the_components_of_the_design_are_there() -> None:
    assert {"question_formation", "tense_inflection"} <= set(registry.names("corpus"))
    assert {"transformer", "recurrent", "encoder_decoder"} <= set(registry.names("model"))
    assert {"forward", "backward"} <= set(registry.names("direction"))


def test_listing_imports_no_component_and_no_torch() -> None:
    code = """
import sys
from lexarium.foundation import registry
for kind in registry.FOLDERS:
    assert registry.names(kind)
folders = tuple(f"lexarium.{folder}." for folder in registry.FOLDERS.values())
loaded = [m for m in sys.modules if m.startswith(folders) or m in ("torch", "scipy", "pandas", "tokenizers")]
assert not loaded, loaded
registry.find("direction", "backward")
loaded = sorted(m for m in sys.modules if m.startswith(folders))
assert loaded == ["lexarium.tokens.direction"], loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"unknown model 'transfromer'; did you mean 'transformer'\?"):
        registry.find("model", "transfromer")


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(UserError, match=r"unknown direction 'zzz' \(known: backward, both, forward"):
        registry.find("direction", "zzz")


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(UserError, match=r"unknown kind of component 'modle'; kinds are corpus, tokenizer"):
        registry.find("modle", "transformer")


def test_a_file_outside_the_package(plugin: Path) -> None:
    cls = registry.find("direction", f"{plugin}:Mine")
    assert cls.version == 3
    assert registry.find("direction", f"{plugin}:Mine") is cls, "the same source is imported once"
    assert registry.source_file(cls) == plugin
    assert registry.is_plugin(f"{plugin}:Mine") and not registry.is_plugin("mine")


def test_a_changed_file_is_another_class(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, same second: cached bytecode must not stand for the new text."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = registry.find("direction", f"{plugin}:Mine")
    plugin.write_text(PLUGIN.replace("3", "4"))
    assert registry.find("direction", f"{plugin}:Mine").version == 4
    assert before.version == 3


def test_a_module_outside_the_package(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin.parent)
    plugin.rename(plugin.with_name("a_module_of_mine.py"))
    assert registry.find("direction", "a_module_of_mine:Mine").version == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Mine", "cannot import 'nowhere.py'"),
        ("no_such_module_at_all:Mine", "cannot import 'no_such_module_at_all'"),
        (":Mine", "cannot import ''"),
        ("{plugin}:Other", "has no class 'Other'"),
        ("{plugin}:NoConfig", "must declare kind = 'direction' and a nested Config"),
        ("{plugin}:number", "is not a direction"),
        ("{plugin}:", "has no class ''"),
    ],
)
def test_a_plugin_that_is_not_one(plugin: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.find("direction", name.format(plugin=plugin))


def test_a_plugin_of_another_kind(plugin: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not a model: the class must declare kind = 'model'.*found kind = 'direction'"
    ):
        registry.find("model", f"{plugin}:Mine")


@pytest.mark.parametrize(
    "text", ["def broken(:\n", "raise RuntimeError('no')\n", "import no_such_module\n", "\0"]
)
def test_a_plugin_that_cannot_be_imported_leaves_nothing_behind(plugin: Path, text: str) -> None:
    plugin.write_text(text)
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"cannot import .*mine\.py"):
        registry.find("direction", f"{plugin}:Mine")
    assert not [m for m in set(sys.modules) - before if m.startswith("lexarium_plugin")]


def test_importing_a_plugin_registers_no_name_of_the_package(plugin: Path) -> None:
    registry.find("direction", f"{plugin}:Mine")
    assert "mine" not in registry.names("direction")


@pytest.mark.parametrize("kind", sorted(registry.FOLDERS))
def test_plural_is_english(kind: str) -> None:
    assert registry.plural(kind).endswith(("s", "a"))


def test_describe_tells_the_options_with_their_docstrings() -> None:
    found = registry.describe("packing", "windows")
    assert found["summary"] == "Fixed windows over the joined documents."
    assert found["config"]["properties"]["seq_len"]["description"] == "Tokens per window."
