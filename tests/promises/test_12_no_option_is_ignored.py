"""Promise 12: every option is read by someone, counts in the run's name unless it is declared not to, and a
misspelt one is refused with a suggestion.

All configuration classes of the package are found by walking the subclasses of `Config`, so a new one is
covered the day it is written.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import lexarium
from builders import pair_file, tiny_run
from lexarium.contracts.tools import data_with
from lexarium.corpora.pairs import PairConfig
from lexarium.corpora.splits import SplitConfig
from lexarium.corpora.synthetic.sentences import SyntheticCorpus
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.foundation import registry
from lexarium.foundation.config import ComponentConfig, Config, ConfigError, Source, identity, validate
from lexarium.foundation.types import Output, UserError
from lexarium.models.build import build_model
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig
from phonemes import words_file
from toy import example, toy_tokenizer

PACKAGE = Path(lexarium.__file__).parent
PIECES = {
    "corpus": {"type": "question_formation"},
    "model": {"type": "transformer"},
    "Contrast": {"metric": "loss.val", "axis": "a", "from": "x", "to": "y"},
}
REQUIRED: dict[str, dict[str, Any]] = {
    "SGD.Config": {"momentum": 0.9},
    "WindowPacking.Config": {"seq_len": 32},
    "WindowShuffle.Config": {"seq_len": 32, "held_out": 5},
    "WindowLoss.Config": {"seq_len": 16, "limit": 3},
    "WarmRestarts.Config": {"period": 10},
    "ArtificialWords.Config": {"control": "uniform"},
    "Utterances.Config": {"column": "utterance", "form": "words", "phonemise": "en-us", "control": "uniform"},
    "Segmentation.Config": {"tune": "oracle"},
    "SymbolMap.Config": {"of": "states"},
    "MinimalPairs.Config": {"path": ("pairs.jsonl",)},
    "FeatureTable": {"path": "phoible.csv", "content": "0", "stress": "keep"},
    "FeatureProbe.Config": {"features": {"path": "phoible.csv", "content": "0"}},
    "CosineRestarts.Config": {"period": 10},
    "FromRun.Config": {"path": "runs/a-b-forward-s1-0123456789"},
    "FromHuggingFace.Config": {"path": "gpt2"},
    "StopConfig": {"metric": "loss.val", "patience": 3, "above": 5.0, "below": 0.1},
    "RunConfig": {k: PIECES[k] for k in ("corpus", "model")},
    "Quota": {"where": {"kind": "quest"}, "count": 5},
    "Subsample": {"count": 5},
    "StudyConfig": {"study": "s", "base": {}},
    "MatchConfig": {"axis": "a", "to": "b", "adjust": {"c": "model.d_model"}},
    "StageStart": {"steps": [5]},
    "Grows": {"axis": "context", "from": "16", "to": "128"},
    "Contrast": PIECES["Contrast"],
    "Reference": {"metric": "loss.val", "value": 0.5, "label": "chance"},
    "MeanOver": {"mean_over": [1, 5]},
    "BestOf": {"best_of": "loss.val"},
    "BestConfig": {"metric": "loss.val"},
    "DataConfig": {"corpus": PIECES["corpus"], "tokenizer": {"type": "byte"}},
    "GivenTokenizer.Config": {"path": "tokenizer.json"},
}
"""Values of the keys a class cannot do without."""
EXAMPLES: dict[str, list[Any]] = {
    "Types": [{"bare": 0.5, "pp": 0.25, "rc": 0.25}],
    "Extractions": [{"sbj": 0.5, "obj": 0.5}],
    "Files": [{"train": "a.txt"}],
    "Quota": [REQUIRED["Quota"]],
    "Subsample": [REQUIRED["Subsample"]],
    "StopConfig": [REQUIRED["StopConfig"]],
    "BestConfig": [REQUIRED["BestConfig"]],
    "Grows": [REQUIRED["Grows"]],
    "Contrast": [PIECES["Contrast"]],
    "MatchConfig": [REQUIRED["MatchConfig"]],
    "Reference": [REQUIRED["Reference"]],
    "SplitConfig": [{"by": "end", "val": 0.2}],
    "FeatureTable": [{"path": "phoible.csv", "content": "0"}, {"path": "phoible.csv", "content": "1"}],
}
WORDS = [
    "D100",
    "gpt2",
    "arrow_gru_small",
    "other",
    "loss.val.half.1",
    "runs/a-b-forward-s2-0123456780",
    "final",
    "ftp_relative",
    "corpus.seed",
]
OUTSIDE = {
    "FromRun.Config": {"path"},
    "FromHuggingFace.Config": {"path"},
    "Transformer.Config": {"preset"},
    "EncoderDecoder.Config": {"preset"},
    "Recurrent.Config": {"preset"},
    "PairConfig": {"files"},
    "QuestionFormation.Config": {"files"},
    "TenseInflection.Config": {"files"},
    "TrainConfig": {"micro_batch_size", "log_every"},
    "CheckpointConfig": {"every", "at", "log_spaced", "rolling", "minutes", "keep", "best"},
    "ByteLevelBPE.Config": {"engine"},
    "GivenTokenizer.Config": {"path"},
    "SentencePiece.Config": {"path"},
    "TextFiles.Config": {"path", "val_path", "test_path"},
    "Utterances.Config": {"path", "val_path", "test_path"},
    "TokenFiles.Config": {"path", "val_path", "test_path"},
    "HuggingFaceDataset.Config": {"data_files", "streaming"},
    "FeatureTable": {"path"},
    "PlanConfig": {"device", "program", "cohort", "recompute", "threads", "workers"},
    "RunConfig": {"checkpoint", "plan", "evaluations"},
    **dict.fromkeys(
        (
            "EvaluationConfig",
            "SplitsConfig",
            "BoundaryProbe.Config",
            "Loss.Config",
            "MinimalPairs.Config",
            "FeatureProbe.Config",
            "RuleChoice.Config",
            "Segmentation.Config",
            "SegmentationBaselines.Config",
            "Snippets.Config",
            "SymbolMap.Config",
            "WindowLoss.Config",
        ),
        {"name", "every", "at", "items"},
    ),
}
"""What does not change the science. (The content of files, of a start's weights and of a preset is inside.)"""


def every_class() -> list[type[Config]]:
    """All configuration classes of the package, by name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__") and parts[0] not in ("cli", "contracts"):
            importlib.import_module(".".join(("lexarium", *parts)))
    found, open_ = {}, [Config]
    while open_:
        for cls in open_.pop().__subclasses__():
            open_.append(cls)
            if cls.__module__.startswith("lexarium."):
                found[cls.__qualname__] = cls
    assert len(found) > 35
    return [found[name] for name in sorted(found)]


CLASSES = every_class()
RUN_CLASSES = [
    c for c in CLASSES if not c.__module__.startswith(("lexarium.studies.contrasts", "lexarium.studies.stab"))
]


def key(name: str, cls: type[Config]) -> str:
    return cls.model_fields[name].alias or name


def base(cls: type[Config]) -> dict[str, Any]:
    return dict(REQUIRED.get(cls.__qualname__, {}))


def read(cls: type[Config], data: dict[str, Any]) -> Config:
    if issubclass(cls, ComponentConfig) and "type" not in data:
        data = (
            {"type": cls.model_fields["type"].get_default() or "none", **data}
            if not cls.model_fields["type"].is_required()
            else {"type": "none", **data}
        )
    return validate(cls, Source(data))


# --- misspelt keys ------------------------------------------------------------------------------------


def misspelt(name: str) -> str:
    """The last two letters exchanged, or one more."""
    swapped = name[:-2] + name[-1] + name[-2:-1]
    return swapped if swapped != name and len(name) > 3 else name + name[-1]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__qualname__)
def test_a_misspelt_key_is_refused_with_a_suggestion(cls: type[Config]) -> None:
    known = [key(name, cls) for name in cls.model_fields]
    for name in known:
        wrong = misspelt(name)
        if wrong in known:
            continue
        with pytest.raises(ConfigError, match=rf"^{wrong}: unknown key; did you mean '\w+'\?$"):
            read(cls, {**base(cls), wrong: 1})


def test_a_misspelt_key_in_the_depth_of_a_run_is_refused() -> None:
    for path in (
        "train.max_stps",
        "corpus.sizes.trian",
        "view.quotas.0.cuont",
        "model.n_heds",
        "evaluations.0.limti",
        "plan.thraeds",
    ):
        data: dict[str, Any] = {
            **REQUIRED["RunConfig"],
            "corpus": {"type": "question_formation", "sizes": {}},
            "view": {"quotas": [dict(REQUIRED["Quota"])]},
            "evaluations": [{"type": "loss"}],
            "train": {},
            "plan": {},
        }
        data = json.loads(json.dumps(data))
        *steps, last = path.split(".")
        node: Any = data
        for step in steps:
            node = node[int(step) if step.isdigit() else step]
        node[last] = 1
        with pytest.raises(ConfigError, match=rf"{path}: unknown key; did you mean"):
            validate(RunConfig, Source(data))


# --- identity -----------------------------------------------------------------------------------------


def candidates(annotation: Any, value: Any) -> Iterator[Any]:
    """Other values a field of this type might take, the first that validates is used."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from arguments
    elif annotation is bool:
        yield not value
    elif annotation is int:
        yield from (n for n in ((value or 0) + 1, (value or 2) * 2, (value or 2) // 2, 1, 3, 7))
    elif annotation is float:
        yield from ((value or 1.0) / 2, 0.25, 0.5, (value or 1.0) * 2)
    elif annotation is str:
        yield from WORDS
    elif isinstance(annotation, type) and issubclass(annotation, Config):
        yield from EXAMPLES.get(annotation.__qualname__, [])
        for name, info in annotation.model_fields.items():
            for inner in candidates(
                info.annotation, info.get_default(call_default_factory=True, validated_data={})
            ):
                yield {**base(annotation), name: inner}
    elif get_origin(annotation) is tuple or get_origin(annotation) is list:
        first = arguments[0]
        if len(arguments) == 2 and arguments[1] is not Ellipsis:  # a pair of numbers
            yield from ([x, x + 1] if isinstance(x, int) else [x, x] for x in candidates(first, None))
        elif get_origin(first) is dict or first is dict:
            yield [{"kind": "quest"}]
        else:
            yield from ([x] for x in candidates(first, None))
            yield [0]
    elif get_origin(annotation) is dict:
        yield from ({"a": x} for x in ("b", ["b"], {"c": 1}, {"c": "d"}, {"start": {"steps": [1]}}))
    else:
        for inner in arguments:
            if inner is not type(None):
                yield from candidates(inner, value)


def changed(cls: type[Config], name: str) -> tuple[Config, Config]:
    """A valid config and one that differs in this field alone."""
    before = read(cls, base(cls))
    value = getattr(before, name)
    for other in candidates(cls.model_fields[name].annotation, value):
        try:
            after = read(cls, {**base(cls), key(name, cls): other})
        except (UserError, TypeError):
            continue
        if getattr(after, name) != value:
            return before, after
    raise AssertionError(f"no other value found for {cls.__qualname__}.{name}")


def fields(cls: type[Config]) -> list[str]:
    """Fields that can take another value while all others keep theirs."""
    alone = {"type", "targets"}  # `targets` is about files: see the test below
    alone |= {"field"} if cls.__qualname__ == "SplitConfig" else set()  # needs `by: field`: likewise
    alone |= {"residual"} if cls.__qualname__ == "EncoderDecoder.Config" else set()  # only sequential
    alone |= {"form"} if cls.__qualname__ == "Utterances.Config" else set()  # words need a voice: likewise
    alone |= {"ones", "row_weight", "draws"}  # each belongs to one kind of matrix: see the test below
    single = [
        n
        for n, i in cls.model_fields.items()
        if get_origin(i.annotation) is Literal and len(get_args(i.annotation)) == 1
    ]
    return [n for n in cls.model_fields if n not in (*alone, *single) and not component_field(cls, n)]


def component_field(cls: type[Config], name: str) -> bool:
    from lexarium.foundation.config import component_kind

    return component_kind(cls.model_fields[name]) is not None


@pytest.mark.parametrize("cls", RUN_CLASSES, ids=lambda c: c.__qualname__)
def test_a_changed_option_changes_the_identity_unless_it_is_declared_outside(cls: type[Config]) -> None:
    outside = OUTSIDE.get(cls.__qualname__, set())
    assert outside <= set(cls.model_fields)
    for name in fields(cls):
        before, after = changed(cls, name)
        equal = identity(before) == identity(after)
        if name == "preset":
            assert not equal, "its values are inside"
        else:
            assert equal == (name in outside), (
                f"{cls.__qualname__}.{name}: {identity(before)} and {identity(after)}"
            )


def test_the_field_that_splits_a_corpus_is_part_of_the_identity() -> None:
    one, other = (SplitConfig(by="field", field=name) for name in ("author", "title"))
    assert identity(one) != identity(other)


def corpora(base: type, of_config: bool = False) -> list[str]:
    """Names of the corpora that are made of `base`, or whose configuration is."""
    classes = {name: registry.find("corpus", name) for name in registry.names("corpus")}
    return [name for name, cls in classes.items() if issubclass(cls.Config if of_config else cls, base)]


def test_what_a_matrix_is_made_of_is_part_of_the_identity() -> None:
    cls = registry.find("corpus", "linear_language").Config
    drawn = [{"ones": 30}, {"ones": 31}, {"row_weight": 3}, {"row_weight": 5}, {"row_weight": 3, "draws": 2}]
    configs = [read(cls, {"matrix": "random" if "ones" in o else "row_weight", **o}) for o in drawn]
    assert len({json.dumps(identity(c), sort_keys=True) for c in configs}) == len(drawn)


@pytest.mark.parametrize("name", corpora(PairConfig, of_config=True))
def test_what_a_file_may_hold_is_part_of_the_identity(name: str) -> None:
    cls = registry.find("corpus", name).Config
    configs = [
        read(cls, {"files": {"val": "a.txt"}, "targets": t}) for t in ("hierarchical", "linear", "any")
    ]
    assert len({json.dumps(identity(c), sort_keys=True) for c in configs}) == 3


@pytest.mark.parametrize(
    "kind", ["tokenizer", "packing", "direction", "objective", "optimizer", "schedule", "start"]
)
def test_another_component_changes_the_identity(kind: str) -> None:
    found = []
    for name in registry.names(kind):
        part = {"type": name, **base(registry.find(kind, name).Config)}
        found.append(
            json.dumps(
                identity(validate(RunConfig, Source({**REQUIRED["RunConfig"], kind: part}))), sort_keys=True
            )
        )
    assert len(set(found)) == len(found)


def test_leaves_of_a_whole_run_are_each_in_the_name_or_declared_outside() -> None:
    """Once through the whole tree: a nested field reaches the run's identity, not only its own class's."""
    start: dict[str, Any] = json.loads(json.dumps(REQUIRED["RunConfig"]))
    name = lambda data: json.dumps(identity(validate(RunConfig, Source(data))), sort_keys=True)
    for part in ("corpus", "model", "train", "seeds", "view", "plan", "checkpoint"):
        cls: Any = RunConfig.model_fields[part].annotation
        if part in ("corpus", "model"):
            cls = registry.find(part, start[part]["type"]).Config
        for field in fields(cls):
            _, after = changed(cls, field)
            other = after.model_dump(mode="json", by_alias=True)[field]
            told = name({**start, part: {**start.get(part, {}), field: other}}) != name(start)
            outside = part in ("plan", "checkpoint") or (
                field in OUTSIDE.get(cls.__qualname__, set()) and field != "preset"
            )
            if field != "preset":
                assert told != outside, f"{part}.{field}"


# --- every field is read --------------------------------------------------------------------------------


@cache
def names_read() -> set[str]:
    """Attribute names read anywhere in the package, and names looked up with getattr or as keys of a config."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                found.add(str(node.slice.value))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
                "getattr",
                "get",
                "sub",
            ):
                found |= {
                    a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                }
    return found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__qualname__)
def test_every_field_is_named_by_some_reader(cls: type[Config]) -> None:
    dynamic = {"Sizes", "Files", "SeedsConfig", "Composition"}  # read by getattr with a variable: see the spy
    unread = [n for n in cls.model_fields if n not in names_read() and cls.__qualname__ not in dynamic]
    # read by getattr(self, f"{place}_dropout")
    unread = [n for n in unread if not n.endswith("_dropout")]
    assert not unread


class Spy:
    """Records (class, field) of every read by the package itself: not by validation, not to name a run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[tuple[str, str]] = set()
        real = Config.__getattribute__

        def look(config: Config, name: str) -> Any:
            if not name.startswith(("_", "model_")) and name in type(config).model_fields and self._counts():
                self.seen.add((type(config).__qualname__, name))
            return real(config, name)

        patch.setattr(Config, "__getattribute__", look)

    @staticmethod
    def _counts() -> bool:
        frame, depth = sys._getframe(2), 0
        while frame is not None and depth < 12:
            module = frame.f_globals.get("__name__", "")
            if module == "lexarium.foundation.config" or module.startswith("pydantic"):
                return False
            frame, depth = frame.f_back, depth + 1
        return True

    def unread(self, cls: type[Config], but: Collection[str] = ()) -> list[str]:
        return [
            n for n in cls.model_fields if n not in ("type", *but) and (cls.__qualname__, n) not in self.seen
        ]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *arguments)


EVALUATION = ("name", "every", "at", "items")
"""Read by whoever runs an evaluation: see the run below."""
SIZES = {"train": 60, "val": 10, "test": 5, "ood": 5}


def test_corpora_of_files_and_their_tokenizers_read_their_options(spy: Spy, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i} of quite an ordinary text\n" for i in range(999)))
    (tmp_path / "b.jsonl").write_text("".join(f'{{"text": "row {i}", "k": "{i}"}}\n' for i in range(9)))
    text = registry.find("corpus", "text_files")
    whole = {"path": str(tmp_path / "a.txt"), "block_bytes": 1024}
    corpus = text(validate(text.Config, Source({"type": "text_files", **whole})))
    by_field = {
        "path": str(tmp_path / "b.jsonl"),
        "fields": ["k"],
        "split": {"by": "field", "field": "k", "val": 0.5},
    }
    for found in (corpus, text(validate(text.Config, Source({"type": "text_files", **by_field})))):
        assert found.fingerprint() and [list(found.documents(split)) for split in found.splits]
    assert not spy.unread(text.Config) and not spy.unread(SplitConfig)
    tokens = registry.find("corpus", "token_files")
    np.arange(500, dtype=np.uint16).tofile(tmp_path / "a.bin")
    found = tokens(validate(tokens.Config, Source({"type": "token_files", "path": str(tmp_path / "a.bin")})))
    assert [list(found.token_parts(split)) for split in found.splits]
    assert not spy.unread(tokens.Config)
    for name, options in (("bpe", {"vocab_size": 280}), ("sentencepiece", {"vocab_size": 290}), ("ids", {})):
        cls = registry.find("tokenizer", name)
        tokenizer = cls(cls.Config(**options))
        tokenizer.train(corpus)
        assert (
            tokenizer.dump()
            and tokenizer.roles
            and (name == "ids" or len(tokenizer.encode_ids("an ordinary")))
        )
        assert not spy.unread(
            cls.Config, but=("lossy",)
        )  # asked when a text does not come back: its own test
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": f"row {i}"} for i in range(99)]).save_to_disk(str(tmp_path / "set"))
    rows = registry.find("corpus", "hf_dataset")
    for options in (
        {"path": str(tmp_path / "set")},
        {"path": "text", "data_files": [str(tmp_path / "a.txt")]},
    ):
        found = rows(validate(rows.Config, Source({"type": "hf_dataset", **options})))
        assert (
            found.fingerprint()
            and found.record()
            and [list(found.documents(split)) for split in found.splits]
        )
    assert not spy.unread(rows.Config)


@pytest.mark.parametrize("name", corpora(SyntheticCorpus))
def test_a_synthetic_corpus_reads_its_options(spy: Spy, name: str) -> None:
    cls = registry.find("corpus", name)
    variants: list[dict[str, Any]] = [{}]
    if name == "linear_language":
        variants += [{"matrix": "random", "ones": 30}, {"matrix": "row_weight", "row_weight": 3, "draws": 2}]
    sizes = {"sizes": {"train": 30, "val": 5, "test": 5}} if "sizes" in cls.Config.model_fields else {}
    for variant in variants:
        corpus = cls(validate(cls.Config, Source({"type": name, **sizes, **variant})))
        assert all(next(corpus.documents(split)).text for split in corpus.splits)
        corpus.floors("forward")
    assert not spy.unread(cls.Config)


@pytest.mark.parametrize("name", corpora(PairConfig, of_config=True))
def test_a_corpus_reads_its_options(spy: Spy, name: str, tmp_path: Path) -> None:
    cls = registry.find("corpus", name)
    variants: list[dict[str, Any]] = [{}, {"rule": "linear"}, {"disambiguating": 5}, {"templates": 9}]
    if name == "tense_inflection":
        variants += [
            {"variant": "D103"},
            {
                "past_ratio": 0.3,
                "present_type_ratio": {"bare": 0.5, "pp": 0.2, "rc": 0.3},
                "rc_type_ratio": {"sbj": 0.4, "obj": 0.6},
            },
        ]
    for variant in variants:
        corpus = cls(validate(cls.Config, Source({"type": name, "sizes": SIZES, **variant})))
        texts = {split: [d.text for d in corpus.documents(split)] for split in corpus.splits}
    (tmp_path / "a.txt").write_text("".join(t + "\n" for t in texts["ood"]))
    corpus = cls(
        validate(
            cls.Config, Source({"type": name, "files": {"ood": str(tmp_path / "a.txt")}, "targets": "any"})
        )
    )
    assert len(list(corpus.documents("ood"))) == 5 and corpus.fingerprint()
    assert not spy.unread(cls.Config)
    own = [
        c
        for c in CLASSES
        if c.__qualname__
        in (("Sizes", "Files", "Types", "Extractions") if name == "tense_inflection" else ("Sizes", "Files"))
    ]
    assert not {c.__qualname__: spy.unread(c) for c in own if spy.unread(c)}


@pytest.mark.parametrize("name", registry.names("packing"))
def test_a_packing_reads_its_options(spy: Spy, name: str) -> None:
    cls = registry.find("packing", name)
    cls(read(cls.Config, base(cls.Config))).plan(np.arange(1, 40), 1, 0).pieces(0)
    assert not spy.unread(cls.Config)


@pytest.mark.parametrize("name", registry.names("objective"))
def test_an_objective_reads_its_options(spy: Spy, name: str) -> None:
    objective = make("objective", name, toy_tokenizer(["a b c"]))
    batch = objective.collate([example([1, 2, 3], half=[0, 0, 1])])
    hidden = torch.zeros(batch.n_tokens, objective.vocab_size)
    objective.loss(Output(hidden, lambda h: h), batch)
    assert not spy.unread(registry.find("objective", name).Config)


@pytest.mark.parametrize("name", registry.names("model"))
def test_a_model_reads_its_options(spy: Spy, name: str) -> None:
    cls = registry.find("model", name)
    small = {"n_layers": 1, "d_model": 8, **({"n_heads": 2} if "n_heads" in cls.Config.model_fields else {})}
    others = ({"norm_type": "rms"}, {"positions": "rotary"}, {"positions": "learned_per_layer"})
    for more in ({}, *(o for o in others if set(o) <= set(cls.Config.model_fields))):
        model = build_model(cls.Config(**small, **more), 7, seed=1)
        rows = torch.ones(1, 3, dtype=torch.int64)
        given = {"tokens": rows, "source": rows, "source_mask": rows.bool()}
        model(**{k: v for k, v in given.items() if k in model.consumes})
    assert not spy.unread(cls.Config, but=("preset",)), "a preset is spent when the config is read"


@pytest.mark.parametrize("name", registry.names("optimizer"))
def test_an_optimizer_reads_its_options(spy: Spy, name: str) -> None:
    parameters = [("w", torch.nn.Parameter(torch.zeros(2, 2)))]
    make("optimizer", name).build(parameters, torch.device("cpu"))
    assert not spy.unread(registry.find("optimizer", name).Config)


@pytest.mark.parametrize("name", registry.names("schedule"))
def test_a_schedule_reads_its_options(spy: Spy, name: str) -> None:
    cls = registry.find("schedule", name)
    schedule = cls(read(cls.Config, {**base(cls.Config), "warmup_steps": 5}))
    assert all(0 <= schedule.scale(step, 50) <= 1 for step in range(50))
    assert not spy.unread(cls.Config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Spy]:
    """A run in which everything that may be read outside components is, watched from its making to its end."""
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(patch)
        folder = tmp_path_factory.mktemp("runs")
        parent = tiny_run(folder, train={"max_steps": None, "epochs": 0.14}, evaluations=[])  # 2 steps
        parent.train()
        run = tiny_run(
            folder,
            start={"type": "run", "path": str(parent.path), "step": 2},
            train={"max_steps": 4, "global_batch_size": 4, "micro_batch_size": 2, "log_every": 1},
            view={
                "keep": [{"kind": "quest"}, {"kind": "decl"}],
                "drop": [{"n_aux": 3}],
                "quotas": [{"where": {"kind": "quest"}, "count": 30}],
                "subsample": {"count": 20},
            },
            stop_when={"metric": "loss.val", "above": 1e9, "below": 0.0, "patience": 3},
            checkpoint={"every": 2, "at": [1], "log_spaced": 2, "rolling": 3, "minutes": 100, "keep": 1},
            evaluations=[
                {"type": "loss", "splits": ["val"], "every": 2, "at": [1]},
                {"type": "rule_choice", "name": "rules"},
            ],
        )
        assert run.train() == "done"
    return run, spy


def test_a_run_reads_its_options(trained: tuple[Run, Spy]) -> None:
    _, spy = trained
    unread = {
        cls.__qualname__: spy.unread(cls, but={"cohort"})  # read by the planner of a study: promise 26
        for cls in CLASSES
        if cls.__qualname__
        in (
            "RunConfig",
            "TrainConfig",
            "CheckpointConfig",
            "PlanConfig",
            "SeedsConfig",
            "StopConfig",
            "ViewConfig",
            "Quota",
            "Subsample",
            "FromRun.Config",
        )
    }
    assert not {name: fields for name, fields in unread.items() if fields}
    assert not [n for n in EVALUATION if ("Loss.Config", n) not in spy.seen]


def run_on(data: tuple[Any, Any], folder: Path) -> Run:
    """A run of one step on other data."""
    corpus, tokenizer = (config.model_dump(mode="json") for config in data)
    run = tiny_run(
        folder / "runs",
        corpus=corpus,
        tokenizer=tokenizer,
        train={"max_steps": 1},
        evaluations=[],
        objective={},
    )
    assert run.train() == "done"
    return run


@pytest.mark.parametrize("name", registry.names("evaluation"))
def test_an_evaluation_reads_its_options(
    trained: tuple[Run, Spy], spy: Spy, name: str, tmp_path: Path
) -> None:
    run, cls = trained[0], registry.find("evaluation", name)
    if hasattr(cls, "channels"):
        run = run_on(data_with(cls.channels, tmp_path), tmp_path)
    parts = run.parts()
    data = EvaluationData(parts.store, parts.tokenizer, run.config.view)
    options = {**base(cls.Config), **({"splits": ("val",)} if "splits" in cls.Config.model_fields else {})}
    if name == "minimal_pairs":
        options["path"] = (str(pair_file(tmp_path)),)
    if "features" in options:  # a table of the run's own words
        table = {"path": str(words_file(tmp_path, parts.tokenizer.symbols))}
        options |= {"features": table, "min_phonemes": 2}
    result = cls(cls.Config(**options), data).run(run.scorer(), 0)
    assert result.metrics
    assert not spy.unread(cls.Config, but=EVALUATION)
