"""Promise 22: layers stay layered. A walk over the syntax trees of the package.

    foundation <- corpora, tokens, models <- objectives <- training | evaluations <- studies, reports
               <- cli, launch, contracts, importers (the edges: nothing below imports them)

Models never import data, objectives never import models, training never imports a concrete component, and
nobody seeds or draws from a global generator.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lexarium
from lexarium.foundation import registry

PACKAGE = Path(lexarium.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
BELOW: dict[str, set[str]] = {
    "foundation": set(),
    "corpora": {"foundation"},
    "tokens": {"foundation"},
    "models": {"foundation"},
    "objectives": {"foundation", "tokens"},
    "training": {"foundation"},
    "evaluations": {"foundation", "corpora", "tokens", "objectives"},
    "studies": {"foundation", "corpora", "tokens", "models", "objectives", "training", "evaluations"},
    "reports": {"foundation", "studies"},
}
"""Folder -> folders it may import beside itself. The others are edges and may import anything."""
EDGES = {"cli", "launch", "contracts", "importers"}
CONCRETE = {"models", "objectives", "corpora", "evaluations"}

MAX_CORE, MAX_FILE, MAX_FUNCTION = 6000, 450, 60
CORE = ("foundation", "tokens", "training", "studies", "evaluations/scorer.py")
SPEED = tuple(f"training/{name}.py" for name in ("captured", "cohort", "choice", "phases", "operators"))
SPEED += ("studies/cohorts.py", "studies/roofline.py", "studies/profile.py", "tokens/block.py")
"""What makes runs faster and changes no result: not needed to understand one. It has a limit of its own."""
MAX_SPEED = 1800
TEXT = (
    "foundation/features.py",
    "tokens/subword/",
    "tokens/symbols.py",
    "tokens/progress.py",
    "tokens/in_place.py",
    "tokens/overlap.py",
    "tokens/subsample.py",
    "tokens/export.py",
)
"""Kinds of tokenizers, tables about symbols, files of ids: components, and what is done to a store beside training on the
whole of it."""
STATISTICS = (
    "studies/results.py",
    "studies/intervals.py",
    "studies/compare.py",
    "studies/contrasts.py",
    "studies/segmentation.py",
    "studies/stability.py",
    "studies/symbol_maps.py",
    "studies/windows.py",
    "studies/gaps.py",
    "studies/growth.py",
    "studies/questions.py",
    "studies/readings.py",
)
"""From results to answers: not needed to understand a run."""
MAX_TEXT, MAX_STATISTICS = 1350, 1750


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def folder(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', '?')}"


def imports(path: Path, module: ast.AST | None = None) -> Iterator[tuple[str, ast.AST]]:
    """Every module a file imports, at its top or inside a function, for types or for real."""
    for node in ast.walk(module or tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(path, node)}: a relative import hides its layer"
            yield node.module or "", node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def own_imports(path: Path) -> Iterator[tuple[str, str, ast.AST]]:
    """(folder, module, node) of imports from the package itself."""
    for name, node in imports(path):
        parts = name.split(".")
        if parts[0] == "lexarium" and len(parts) > 1:
            yield parts[1], name, node


def test_every_folder_has_a_layer() -> None:
    folders = {folder(path) for path in FILES} - {""}
    assert folders <= set(BELOW) | EDGES, f"new folders need a layer: {folders - set(BELOW) - EDGES}"


def test_imports_go_downwards() -> None:
    wrong = [
        f"{where(path, node)} imports {name}"
        for path in FILES
        if (here := folder(path)) in BELOW
        for other, name, node in own_imports(path)
        if other != here and other not in BELOW[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_foundation_stands_on_nothing_of_ours() -> None:
    assert {other for path in FILES if folder(path) == "foundation" for other, _, _ in own_imports(path)} <= {
        "foundation"
    }


def test_training_names_no_concrete_component() -> None:
    """It gets model, objective and batches from outside; a `type` string in its text would be a back door."""
    names = {name for kind in ("corpus", "model", "objective", "evaluation") for name in registry.names(kind)}
    for path in FILES:
        if folder(path) == "training":
            assert not [n for o, n, _ in own_imports(path) if o in CONCRETE]
            texts = [
                n for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            ]
            assert not [where(path, n) for n in texts if n.value in names]


def test_the_package_itself_imports_nothing() -> None:
    assert not list(imports(PACKAGE / "__init__.py"))


# --- heavy libraries and dangerous ones -----------------------------------------------------------------


def at_import(path: Path) -> set[str]:
    """Top-level packages imported when a module is imported (not inside functions, not for types only)."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                found.update(a.name.split(".")[0] for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
                visit(node.body + node.orelse)
            elif isinstance(node, ast.Try | ast.With):
                visit(node.body)

    visit(tree(path).body)
    return found


def test_who_only_reads_files_imports_neither_torch_nor_scipy() -> None:
    light = [p for p in FILES if folder(p) in ("foundation", "corpora", "reports", "cli", "importers")]
    light += [PACKAGE / "studies" / f"{name}.py" for name in ("run_files", "results", "compare")]
    heavy = {"torch", "scipy", "pandas", "transformers", "altair", "vl_convert", "pyarrow"}
    assert not {
        str(p.relative_to(PACKAGE)): sorted(at_import(p) & heavy) for p in light if at_import(p) & heavy
    }


def test_nothing_unpickles_or_downloads() -> None:
    forbidden = {
        "pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
        "requests",
        "urllib",
        "http",
        "huggingface_hub",
    }
    wrong = [f"{where(p, n)}: {m}" for p in FILES for m, n in imports(p) if m.split(".")[0] in forbidden]
    calls = [
        where(p, n)
        for p in FILES
        for n in ast.walk(tree(p))
        if isinstance(n, ast.Call)
        and dotted(n.func)
        in ("torch.load", "torch.save", "eval", "np.fromfile", "yaml.load", "yaml.unsafe_load")
        and not any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in n.keywords)
    ]
    pickles = [
        where(p, n)
        for p in FILES
        for n in ast.walk(tree(p))
        if isinstance(n, ast.Call)
        and dotted(n.func) in ("np.load", "np.save")
        and not any(
            k.arg == "allow_pickle" and isinstance(k.value, ast.Constant) and k.value.value is False
            for k in n.keywords
        )
    ]
    assert not wrong + calls + pickles


# --- randomness -----------------------------------------------------------------------------------------


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, or "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


TORCH_DRAWS = {
    "rand",
    "randn",
    "randint",
    "randperm",
    "normal",
    "bernoulli",
    "multinomial",
    "rand_like",
    "randn_like",
}
TENSOR_DRAWS = {"uniform_", "normal_", "bernoulli_", "random_", "exponential_", "multinomial", "bernoulli"}
SEEDS = {
    "torch.manual_seed",
    "torch.seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.random.manual_seed",
    "torch.set_rng_state",
}


def test_nobody_touches_a_global_generator() -> None:
    wrong = []
    for path in FILES:
        wrong += [
            f"{where(path, n)}: imports random"
            for m, n in imports(path)
            if m == "random" or m.startswith("random.")
        ]
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            name, last = dotted(node.func), node.func.attr if isinstance(node.func, ast.Attribute) else ""
            keyed = any(k.arg == "generator" for k in node.keywords)
            if name in SEEDS:
                wrong.append(f"{where(path, node)}: {name}")
            elif folder(path) == "contracts":  # they draw on purpose, to see that nobody depends on it
                continue
            elif (name.startswith("torch.") and last in TORCH_DRAWS and not keyed) or (
                name.startswith(("np.random.", "numpy.random.")) and path.name != "rng.py"
            ):
                wrong.append(f"{where(path, node)}: {name}")
            elif last in TENSOR_DRAWS and not keyed and not name.startswith(("self.", "random.", "rng.")):
                wrong.append(f"{where(path, node)}: .{last} without a generator")
            elif name in ("F.dropout", "nn.Dropout", "torch.dropout", "nn.functional.dropout"):
                wrong.append(f"{where(path, node)}: {name} belongs to the layout, not to the token")
    assert not wrong, "\n".join(wrong)


def test_no_clock_enters_what_is_computed() -> None:
    """Data, models, objectives and updates know no time; logs, locks and deadlines do."""
    wrong = [
        f"{where(p, n)}: {m}"
        for p in FILES
        if folder(p) in ("corpora", "tokens", "models", "objectives", "evaluations") or p.name in ("rng.py", "config.py", "step.py", "program.py", "trainer.py", "optimizers.py", "schedules.py")
        for m, n in imports(p)
        if m.split(".")[0] in ("time", "datetime", "uuid")
    ]  # fmt: skip
    assert not wrong


# --- size -----------------------------------------------------------------------------------------------


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    documentation: set[int] = set()
    for node in ast.walk(tree(path)):
        for child in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                documentation.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    text = path.read_text(encoding="utf-8").splitlines()
    return sum(
        1
        for i, line in enumerate(text, start=1)
        if i not in documentation and line.strip() and not line.strip().startswith("#")
    )


def test_the_core_can_be_read_in_one_sitting() -> None:
    name = lambda path: str(path.relative_to(PACKAGE))
    core = [p for p in FILES if name(p).startswith(CORE)]
    core = [p for p in core if name(p) not in SPEED and not name(p).startswith((*TEXT, *STATISTICS))]
    assert 3000 < sum(map(code_lines, core)) <= MAX_CORE
    for group, limit in ((TEXT, MAX_TEXT), (STATISTICS, MAX_STATISTICS)):
        assert 300 < sum(code_lines(p) for p in FILES if name(p).startswith(group)) <= limit
    speed = [p for p in FILES if name(p) in SPEED]
    assert len(speed) == len(SPEED) and sum(map(code_lines, speed)) <= MAX_SPEED


def test_no_file_is_long() -> None:
    assert not {str(p.relative_to(PACKAGE)): lines(p) for p in FILES if lines(p) > MAX_FILE}


def test_no_function_is_long() -> None:
    long = {
        f"{where(p, n)} {n.name}": n.end_lineno - n.lineno + 1
        for p in FILES
        for n in ast.walk(tree(p))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        and n.end_lineno
        and n.end_lineno - n.lineno + 1 > MAX_FUNCTION
    }
    assert not long


def test_no_inheritance_is_deep() -> None:
    """At most one step among our own classes. Schemas (Config) and errors may refine each other: they hold no code."""
    parents = {
        n.name: [dotted(b) for b in n.bases]
        for p in FILES
        for n in tree(p).body
        if isinstance(n, ast.ClassDef)
    }
    plain = {
        name for name in parents if not name.endswith(("Config", "Error")) and not is_error(name, parents)
    }

    def depth(name: str) -> int:
        return max((1 + depth(b) for b in parents[name] if b in plain), default=0)

    assert not {name: depth(name) for name in plain if depth(name) > 1}


def is_error(name: str, parents: dict[str, list[str]]) -> bool:
    return any(
        b in ("Exception", "BaseException", "UserError") or (b in parents and is_error(b, parents))
        for b in parents.get(name, [])
    )


def test_every_file_tells_what_it_is() -> None:
    without = [str(p.relative_to(PACKAGE)) for p in FILES if tree(p).body and not ast.get_docstring(tree(p))]
    assert not without


@pytest.mark.parametrize(
    "text",
    [
        "import lexarium.models.layers",
        "from lexarium.corpora import pairs",
        "from lexarium.studies.run import Run",
    ],
)
def test_the_walk_sees_forbidden_imports(text: str) -> None:
    """The test of the test: also inside functions and under TYPE_CHECKING."""
    for source in (text, f"def f():\n    {text}", f"if TYPE_CHECKING:\n    {text}"):
        found = {
            name.split(".")[1]
            for name, _ in imports(PACKAGE / "x.py", ast.parse(source))
            if name.startswith("lexarium.")
        }
        assert found & {"models", "corpora", "studies"}
