"""Promise 17: what a run leaves behind is data. Loading it executes nothing.

A pickle that would run code is put in the place of every file of a run and of a token store: it is
refused with an error that names the file. No module of the package can read a pickle. Code that a run
brought along is imported only when the caller says that he trusts it.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import TINY, record, tiny_config, tiny_run

import lexarium
from lexarium.foundation.files import CHECKSUM, sha256_file, sha256_json
from lexarium.foundation.types import UserError
from lexarium.studies.run import Run
from lexarium.studies.run_files import RunFiles
from lexarium.training import checkpoint

PACKAGE = Path(lexarium.__file__).parent
CHECKPOINT = "checkpoints/step-00000012/"
OF_A_RUN = [
    *(
        CHECKPOINT + name
        for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
    ),
    *("config.yaml", "status.json", "plan.json", "provenance.json", "tokenizer.json", "metrics.jsonl"),
]
OF_A_STORE = [
    "manifest.json",
    "train/part-00000.ids.npy",
    "train/part-00000.docs.npy",
    "val/part-00000.fields.parquet",
]


class Evil:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


def pickled(trace: Path, how: str) -> bytes:
    """A dangerous file: plain pickles, what torch.save writes, and an array of objects."""
    if how == "torch":
        buffer = io.BytesIO()
        torch.save({"weight": Evil(trace)}, buffer)
        return buffer.getvalue()
    if how == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.array([Evil(trace)], dtype=object), allow_pickle=True)
        return buffer.getvalue()
    return pickle.dumps(Evil(trace), protocol=0 if how == "text" else 4)


HOW = ["binary", "text", "torch", "npy"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("trained"))
    run.train()
    return run


def use_everything(path: Path) -> None:
    """Open, train on, load, score, evaluate."""
    run = Run.open(path)
    run.files.identity()
    run.scorer(12).next_scores(["my"])
    run.evaluate(run.evaluation("loss"), 12)
    if run.files.status()["state"] != "running":
        run.files.set_status(state="running")
    run.train()


@pytest.mark.parametrize("how", HOW)
def test_the_pickles_are_dangerous(how: str, tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    data = pickled(tmp_path / "trace", how)
    if how == "torch":
        torch.load(io.BytesIO(data), weights_only=False)
    elif how == "npy":
        np.load(io.BytesIO(data), allow_pickle=True)
    else:
        pickle.loads(data)
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("file", [*OF_A_RUN, *(f"store/{name}" for name in OF_A_STORE)])
def test_a_pickle_in_the_place_of_any_file_is_refused(file: str, trained: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for how in HOW:
        shutil.copytree(trained.runs_dir, tmp_path / how)
        run = tmp_path / how / trained.path.name
        store = next((tmp_path / how / "stores").glob("question-*"))
        target = store / file[6:] if file.startswith("store/") else run / file
        assert target.exists()
        target.write_bytes(pickled(trace, how))
        if file.startswith(CHECKPOINT) and not file.endswith("manifest.json"):
            forge(target)
            checkpoint.verify(target.parent)  # so that only the format can refuse it
        try:
            use_everything(run)
        except UserError as refusal:
            assert target.name in str(refusal) or str(target.parent) in str(refusal)
        else:
            # bytes without a line break are taken for an unfinished last line, and left out
            assert file == "metrics.jsonl" and b"\n" not in pickled(trace, how), f"{how}: not refused"
        assert not trace.exists(), f"{how}: code was executed"


def forge(file: Path) -> None:
    """Make the manifest vouch for a file, as whoever prepares a malicious run would."""
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"][file.name] = {"size": file.stat().st_size, "sha256": sha256_file(file)}
    manifest.pop(CHECKSUM)
    (file.parent / "manifest.json").write_text(json.dumps({**manifest, CHECKSUM: sha256_json(manifest)}))


def test_yaml_tags_execute_nothing(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / trained.path.name)
    trace = tmp_path / "trace"
    evil = f"schema: 1\nrun: !!python/object/apply:builtins.open ['{trace}', 'w']\n"
    (tmp_path / trained.path.name / "config.yaml").write_text(evil)
    with pytest.raises(UserError, match=r"config\.yaml"):
        Run.open(tmp_path / trained.path.name)
    assert not trace.exists()


# --- the source code --------------------------------------------------------------------------------

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "pickletools",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def sources() -> list[tuple[Path, ast.Module]]:
    return [(p, ast.parse(p.read_text(encoding="utf-8"))) for p in sorted(PACKAGE.rglob("*.py"))]


def offences(tree: ast.Module, may_run_plugins: bool = False) -> list[str]:
    """Imports of unsafe modules and calls that could execute what they read."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        safe = {
            "torch.load": options.get("weights_only") == "True",
            "np.load": options.get("allow_pickle") == "False",
            "numpy.load": options.get("allow_pickle") == "False",
            "yaml.load": False,
            "yaml.unsafe_load": False,
            "yaml.full_load": False,
        }
        if (
            (name in FORBIDDEN_CALLS and not may_run_plugins)
            or not safe.get(name, True)
            or name.endswith("read_pickle")
        ):
            found.append(f"line {node.lineno}: {name}")
    return found


def test_no_module_can_read_a_pickle() -> None:
    importer = PACKAGE / "foundation" / "registry.py"  # the one place that runs a plug-in
    found = {str(path.relative_to(PACKAGE)): offences(tree, path == importer) for path, tree in sources()}
    assert len(found) > 50
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load(p)", "torch.load(p, weights_only=False)"]
    + [
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader=L)",
        "eval(t)",
        "pd.read_pickle(p)",
    ],
)
def test_the_check_sees_what_it_should(code: str) -> None:
    assert offences(ast.parse(code))


# --- plug-ins ---------------------------------------------------------------------------------------

PLUGIN = '''
from pathlib import Path

from lexarium.foundation.config import ComponentConfig
from lexarium.models.recurrent import Recurrent

with Path({trace!r}).open("a") as file:
    file.write("imported from " + __file__ + "\\n")


class Mine(Recurrent):
    """A model outside the package."""

    name, version = "mine", {version}

    class Config(Recurrent.Config):
        type: str = "mine"
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A plug-in file and the file in which it leaves a trace when it is imported."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    file, trace = tmp_path / "mine.py", tmp_path / "trace"
    file.write_text(PLUGIN.format(trace=str(trace), version=1))
    return file, trace


def with_plugin(file: Path, tmp_path: Path) -> Run:
    model = {"type": f"{file}:Mine", "cell": "gru", "n_layers": 1, "d_model": 16}
    return tiny_run(tmp_path / "runs", tiny_config(model=model))


def test_code_of_a_run_is_imported_only_when_trusted(plugin: tuple[Path, Path], tmp_path: Path) -> None:
    file, trace = plugin
    run = with_plugin(file, tmp_path)
    run.train()
    before = record(run)
    trace.unlink()
    (copy,) = (run.path / "plugins").iterdir()
    assert copy.read_bytes() == file.read_bytes()
    for name in [n for n in sys.modules if n.startswith("lexarium_plugin_")]:
        del sys.modules[name]
    with pytest.raises(UserError, match=rf"{file.name}:Mine.*trust_plugins"):
        Run.open(run.path)
    files = RunFiles(run.path)  # what `show`, `study status` and `report` read
    assert (
        files.status()["state"] == "done" and list(files.evaluations()) and files.metrics() and files.config()
    )
    assert not trace.exists()
    file.unlink()  # the working tree is gone: the copy in the run directory is enough
    trusted = Run.open(run.path, trust_plugins=True)
    assert trace.read_text() == f"imported from {copy.resolve()}\n"
    trusted.scorer().next_scores(["my"])
    shutil.rmtree(checkpoint.directory(run.path, 12))
    run.files.set_status(state="running", step=10)
    assert trusted.train() == "done"
    assert record(run) == before


@pytest.mark.parametrize("lie", ["no provenance", "no plugins named", "another file named"])
def test_a_run_cannot_hide_that_it_brings_code(lie: str, plugin: tuple[Path, Path], tmp_path: Path) -> None:
    file, trace = plugin
    run = with_plugin(file, tmp_path)
    trace.unlink(missing_ok=True)
    for name in [n for n in sys.modules if n.startswith("lexarium_plugin_")]:
        del sys.modules[name]
    provenance = run.path / "provenance.json"
    if lie == "no provenance":
        provenance.unlink()
    else:
        plugins = {} if lie == "no plugins named" else {"x.py:X": "plugins/x.py"}
        provenance.write_text(json.dumps({**json.loads(provenance.read_text()), "plugins": plugins}))
    with pytest.raises(UserError, match="trust_plugins"):
        Run.open(run.path)
    assert not trace.exists()


def test_code_that_changed_since_the_run_began_is_refused(plugin: tuple[Path, Path], tmp_path: Path) -> None:
    file, trace = plugin
    first = with_plugin(file, tmp_path)
    file.write_text(PLUGIN.format(trace=str(trace), version=1) + "# changed\n")
    with pytest.raises(UserError, match=r"mine\.py has changed since the run began .*plugins/mine_\w+\.py"):
        with_plugin(file, tmp_path)
    file.write_text(PLUGIN.format(trace=str(trace), version=2) + "# changed\n")
    assert with_plugin(file, tmp_path).path != first.path


def test_two_plugins_of_one_name_are_both_kept(plugin: tuple[Path, Path], tmp_path: Path) -> None:
    file, _ = plugin
    other = tmp_path / "elsewhere" / "mine.py"
    other.parent.mkdir()
    other.write_text(
        "from lexarium.evaluations.loss import Loss\n\n\nclass Mine(Loss):\n    name = 'mine'\n\n"
        "    class Config(Loss.Config):\n        type: str = 'mine'\n"
    )
    model = {"type": f"{file}:Mine", "n_layers": 1, "d_model": 16}
    evaluation = {"type": f"{other}:Mine", "splits": ["val"]}
    run = tiny_run(
        tmp_path / "runs", tiny_config(model=model, evaluations=[*TINY["evaluations"], evaluation])
    )
    assert {p.read_bytes() for p in (run.path / "plugins").iterdir()} == {
        file.read_bytes(),
        other.read_bytes(),
    }
    run.train()
    file.unlink()
    other.unlink()
    assert Run.open(run.path, trust_plugins=True).scorer().next_scores(["my"]).shape[0] == 1


def test_an_evaluation_from_outside_may_be_added_later(tmp_path: Path) -> None:
    base = tiny_run(tmp_path / "runs")
    base.train()
    file = tmp_path / "late.py"
    file.write_text(
        "from lexarium.evaluations.loss import Loss\n\n\nclass Late(Loss):\n    name = 'late'\n\n"
        "    class Config(Loss.Config):\n        type: str = 'late'\n"
    )
    config = tiny_config(evaluations=[*TINY["evaluations"], {"type": f"{file}:Late"}])
    run = tiny_run(tmp_path / "runs", config)
    assert run.path == base.path
    assert run.train() == "done"
    assert run.files.evaluation_file("Late", 12).exists()
    file.unlink()
    assert Run.open(run.path, trust_plugins=True).evaluation("Late")
