"""What a run is called, and which factors do not fit together."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, parse_yaml, resolved, validate, write_yaml
from lexarium.foundation.files import dumps
from lexarium.foundation.types import Incompatible
from lexarium.studies.run_config import (
    Identity,
    RunConfig,
    check,
    check_splits,
    component_configs,
    evaluation_name,
    longest_row,
)
from lexarium.tokens.store import ViewConfig
from toy import TYPE, example, toy_tokenizer, write_corpus

PLAIN = {"corpus": {"type": "question_formation"}, "model": {"type": "transformer"}}
FULL = """
corpus: {type: tense_inflection, sizes: {train: 2000, val: 100, test: 0, ood: 100}, seed: 3}
tokenizer: {type: word}
view: {keep: [{kind: PRESENT}, {kind: PAST, subject_rc: [sbj, obj]}], quotas: [{where: {kind: PAST}, count: 50}], fraction: 0.5}
packing: {type: windows, seq_len: 64, order: once}
direction: {type: backward}
objective: {type: causal, label_smoothing: 0.1}
model: {type: recurrent, cell: gru, d_model: 96}
optimizer: {type: adamw, lr: 1e-4, betas: [0.9, 0.95], weight_decay: 0.1}
schedule: {type: cosine, warmup_steps: 100, floor: 0.1}
train: {max_steps: 5000, global_batch_size: 64, clip_norm: 1.0, parameters: ['layers\\..*', embedding]}
evaluations: [{type: loss, every: 100}]
stop_when: {metric: loss.val, patience: 3}
seed: 7
seeds: {order: 1}
"""


def config(**more: Any) -> RunConfig:
    return validate(RunConfig, Source({**PLAIN, **more}))


def full() -> RunConfig:
    return validate(RunConfig, parse_yaml(FULL, "full.yaml"))


def name(c: RunConfig) -> str:
    return Identity(c).name


# --- names ------------------------------------------------------------------------------------------


def test_golden_names() -> None:
    """A name that changes by accident would turn every finished run into a new one.

    They change on purpose when a component's `version` is raised or a default changes its meaning.
    """
    assert name(config()) == "question-formation-transformer-forward-s1-feca9490f5"
    assert name(full()) == "tense-inflection-recurrent-backward-s7-fa5a2a681c"


def test_the_identity_is_what_was_written_and_versions() -> None:
    found = Identity(config()).data
    assert found == {
        "schema": 1,
        "corpus": {"type": "question_formation", "version": 1, "files": ""},
        "tokenizer": {"type": "word", "version": 1},
        "packing": {"type": "documents", "version": 1},
        "direction": {"type": "forward", "version": 1},
        "objective": {"type": "causal", "version": 1},
        "model": {"type": "transformer", "version": 1},
        "optimizer": {"type": "adamw", "version": 1},
        "schedule": {"type": "constant", "version": 1},
        "start": {"type": "scratch", "version": 1, "weights": ""},
    }


def test_an_identity_survives_being_written() -> None:
    for c in (config(), full()):
        assert json.loads(dumps(Identity(c).data)) == json.loads(json.dumps(Identity(c).data))


def shuffled(value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {k: shuffled(value[k], order) for k in keys}
    return [shuffled(v, order) for v in value] if isinstance(value, list) else value


WRITTEN = parse_yaml(FULL, "full.yaml").data


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_is_irrelevant(order: Any) -> None:
    found = Identity(validate(RunConfig, Source(shuffled(WRITTEN, order))))
    assert (
        found.name.endswith(found.hash) and found.name == "tense-inflection-recurrent-backward-s7-fa5a2a681c"
    )


def test_a_config_written_out_in_full_has_the_same_name() -> None:
    for c in (config(), full()):
        again = validate(RunConfig, parse_yaml(write_yaml(resolved(c)), "again.yaml"))
        assert again == c and name(again) == name(c)


@pytest.mark.parametrize(
    "more",
    [
        {"evaluations": [{"type": "loss", "every": 10}]},
        {"checkpoint": {"every": 5, "keep": 3}},
        {"plan": {"device": "cpu", "threads": 2, "workers": 1}},
        {"train": {"micro_batch_size": 2, "log_every": 7}},
        {"seed": 1},
        {"schedule": {"type": "constant"}},
        {"optimizer": {"type": "adamw", "lr": 0.001}},
        {"view": {}},
        {"model": {"type": "transformer", "n_layers": 6, "dropout": 0.0}},
    ],
    ids=lambda m: str(m)[:40],
)
def test_what_does_not_change_the_science_does_not_change_the_name(more: dict) -> None:
    assert name(config(**more)) == name(config())


def test_names_of_different_sciences_differ() -> None:
    variants: list[dict] = [
        {},
        {"seed": 2},
        {"seeds": {"init": 1}},
        {"seeds": {"order": 1}},
        {"direction": {"type": "backward"}},
        {"objective": {"type": "causal", "bos": False}},
        {"packing": {"type": "documents", "max_length": 100}},
        {"optimizer": {"type": "adamw", "lr": 0.002}},
        {"optimizer": {"type": "sgd"}},
        {"schedule": {"type": "linear"}},
        {"train": {"max_steps": 999}},
        {"train": {"precision": "bf16"}},
        {"train": {"parameters": ["embedding"]}},
        {"view": {"fraction": 0.5}},
        {"view": {"keep": [{"kind": "quest"}]}},
        {"view": {"drop": [{"kind": "quest"}]}},
        {"view": {"keep": [{"kind": "quest"}], "splits": ["val"]}},
        {"corpus": {"type": "question_formation", "seed": 1}},
        {"model": {"type": "transformer", "n_layers": 5}},
        {"model": {"type": "transformer", "preset": "gpt2"}},
    ]
    names = [name(config(**v)) for v in variants]
    assert len(set(names)) == len(names)


def test_an_evaluation_that_may_stop_a_run_is_part_of_it() -> None:
    stop = {"stop_when": {"metric": "loss.val", "patience": 2}}
    base = {
        **stop,
        "evaluations": [{"type": "loss", "every": 10}, {"type": "loss", "name": "other", "every": 10}],
    }
    other = lambda **change: {
        **base,
        "evaluations": [{**base["evaluations"][0], **change}, base["evaluations"][1]],
    }
    names = [
        name(config(**x))
        for x in (
            base,
            {**base, "stop_when": {"metric": "loss.val", "patience": 3}},
            other(every=20),
            other(limit=5),
        )
    ]
    assert len({*names, name(config())}) == 5
    unconcerned = {
        **base,
        "evaluations": [base["evaluations"][0], {"type": "loss", "name": "other", "every": 99, "limit": 3}],
    }
    assert name(config(**unconcerned)) == names[0]


def test_the_content_of_files_is_part_of_the_name(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a", {"train": ["x y"], "val": ["x"]})
    write_corpus(tmp_path / "b", {"train": ["x y"], "val": ["x"]})
    write_corpus(tmp_path / "c", {"train": ["x z"], "val": ["x"]})
    a, b, c = (name(config(corpus={"type": TYPE, "folder": str(tmp_path / f)})) for f in "abc")
    assert a == b != c


def test_corpora_are_read_once_for_many_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lexarium.foundation import registry

    write_corpus(tmp_path / "a", {"train": ["x y"]})
    cls, count = registry.find("corpus", TYPE), []
    real = cls.fingerprint
    monkeypatch.setattr(cls, "fingerprint", lambda self: (count.append(1), real(self))[1])
    files: dict[str, str] = {}
    for seed in range(3):
        _ = Identity(config(corpus={"type": TYPE, "folder": str(tmp_path / "a")}, seed=seed), files).hash
    assert len(count) == 1


def test_a_parent_is_known_by_its_own_hash(tmp_path: Path) -> None:
    start = lambda path, step: {"start": {"type": "run", "path": str(path), "step": step}}
    parent = tmp_path / "runs" / "a-b-forward-s1-0123456789"
    moved = tmp_path / "elsewhere" / parent.name
    other = tmp_path / "runs" / "a-b-forward-s2-0123456780"
    names = [name(config(**start(p, s))) for p, s in [(parent, 5), (moved, 5), (parent, 6), (other, 5)]]
    assert names[0] == names[1] and len(set(names)) == 3


def test_factor_seeds() -> None:
    seeds = {(s, f): config(seed=s).factor_seed(f) for s in (1, 2) for f in ("init", "order", "dropout")}
    assert len(set(seeds.values())) == 6
    pinned = [config(seed=s, seeds={"order": 9}).factor_seed("order") for s in (1, 2, 3)]
    assert len(set(pinned)) == 1 and pinned[0] not in seeds.values()
    assert config(seed=1, seeds={"order": 9}).factor_seed("init") == seeds[1, "init"]


def test_components_of_a_run() -> None:
    found = component_configs(full())
    assert [kind for kind, _ in found] == [
        "corpus", "tokenizer", "packing", "direction", "objective", "model", "optimizer", "schedule", "start", "evaluation",
    ]  # fmt: skip


def test_names_of_evaluations() -> None:
    evaluations = [{"type": "loss"}, {"type": "loss", "name": "long"}]
    assert [evaluation_name(e) for e in config(evaluations=evaluations).evaluations] == ["loss", "long"]


# --- factors that do not fit ------------------------------------------------------------------------

WINDOWS = {"type": "windows", "seq_len": 100}
SEQ2SEQ = {"type": "seq2seq"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"objective": SEQ2SEQ}, r"objective 'seq2seq' gives a source to read, which model 'transformer' ignores; models for this objective: encoder_decoder"),
        ({"objective": SEQ2SEQ, "model": {"type": "recurrent"}}, r"model 'recurrent' ignores; models for this objective: encoder_decoder"),
        ({"model": {"type": "encoder_decoder"}}, r"model 'encoder_decoder' needs the input 'source', which objective 'causal' does not produce; models for this objective: recurrent, transformer"),
        ({"packing": WINDOWS, "model": {"type": "transformer", "max_positions": 100}}, r"packing 'windows' makes rows of up to 101 tokens \(frame included\) but model\.max_positions is 100; raise it or shorten the packing"),
        ({"packing": {"type": "documents", "max_length": 64}, "model": {"type": "transformer", "positions": "learned", "max_positions": 64}}, r"rows of up to 65 tokens"),
        ({"packing": WINDOWS, "model": {"type": "transformer", "positions": "rotary", "max_positions": 4}}, r"rows of up to 101 tokens"),
        ({"packing": {"type": "windows", "seq_len": 32}, "evaluations": [{"type": "segmentation", "window": 64}], "model": {"type": "transformer", "max_positions": 64}}, r"evaluation 'segmentation' makes rows of up to 65 tokens .*model\.max_positions is 64; raise it or shorten its windows"),
        ({"model": {"type": "recurrent"}, "packing": WINDOWS, "objective": {"type": "causal", "document_mask": True}}, r"document_mask keeps documents apart by the input 'segment', which model 'recurrent' does not take"),
        ({"objective": SEQ2SEQ, "model": {"type": "encoder_decoder"}, "evaluations": [{"type": "rule_choice", "definition": "greedy"}], "direction": {"type": "backward"}}, r"needs direction forward"),
        ({"evaluations": [{"type": "loss"}, {"type": "loss"}]}, r"two evaluations are named 'loss'; give one of them a `name`"),
        ({"stop_when": {"metric": "loss.val", "patience": 1}}, r"stop_when\.metric: no evaluation is named 'loss' \(evaluations: none\)"),
        ({"stop_when": {"metric": "los.val", "patience": 1}, "evaluations": [{"type": "loss", "every": 5}]}, r"no evaluation is named 'los' \(evaluations: loss\)"),
        ({"stop_when": {"metric": "loss.ood", "patience": 1}, "evaluations": [{"type": "loss", "every": 5}]}, r"'loss\.ood' does not look at `val`; choosing by any other split would spoil it as a test"),
        ({"stop_when": {"metric": "loss.val", "patience": 1}, "evaluations": [{"type": "loss"}]}, r"evaluation 'loss' runs after the last step only; set its `every` or `at`"),
        ({"direction": {"type": "backward"}, "evaluations": [{"type": "rule_choice"}]}, r"evaluation 'rule_choice' needs direction forward, found 'backward'"),
    ],
    ids=lambda x: str(x)[:50],
)  # fmt: skip
def test_impossible_combinations_name_the_pair_and_the_way_out(more: dict, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        check(config(**more))


def test_a_split_that_the_corpus_lacks_is_named() -> None:
    message = r"evaluation 'loss': the corpus has no split 'oood'; did you mean 'ood'\?; it has train, val, test, ood"
    with pytest.raises(Incompatible, match=message):
        check_splits(config(evaluations=[{"type": "loss", "splits": ["val", "oood"]}]))
    check_splits(config(evaluations=[{"type": "loss", "splits": ["val", "ood"]}]))


def test_possible_combinations_pass() -> None:
    models = [{"type": t} for t in ("transformer", "recurrent")]
    for model, direction in itertools.product(models, ("forward", "backward")):
        check(config(model=model, direction={"type": direction}, evaluations=[{"type": "loss"}]))
        check(config(model=model, packing=WINDOWS, direction={"type": direction}))
    check(config(model={"type": "encoder_decoder"}, objective=SEQ2SEQ, evaluations=[{"type": "loss"}]))
    check(config(model={"type": "transformer", "max_positions": 101}, packing=WINDOWS))
    cuts = [{"type": "segmentation", "window": 63}]
    short = {"type": "windows", "seq_len": 32}
    alone = [{"type": "segmentation", "contexts": ["alone"]}]  # its window of 64 is not read
    check(config(model={"type": "transformer", "max_positions": 48}, packing=short, evaluations=alone))
    check(config(model={"type": "transformer", "max_positions": 64}, packing=short, evaluations=cuts))
    for bos, eos, longest in ((True, True, 101), (True, False, 100), (False, True, 100), (False, False, 99)):
        framed = config(
            model={"type": "transformer", "max_positions": longest},
            packing=WINDOWS,
            objective={"type": "causal", "bos": bos, "eos": eos},
        )
        check(framed)
        row = example(np.arange(100) % 3 + 1)
        objective = registry.find("objective", "causal")(framed.objective, toy_tokenizer(["a b c"]))
        assert longest_row(framed) == longest == objective.collate([row]).inputs["tokens"].shape[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"stop_when": {"metric": "loss.val"}}, "stop_when: say when: above, below or patience"),
        ({"train": {"max_steps": 0}}, "train.max_steps"),
        (
            {"train": {"micro_batch_size": 64, "global_batch_size": 8}},
            "micro_batch_size 64 is larger than global_batch_size 8",
        ),
        ({"optimizer": {"type": "sgd", "nesterov": True}}, "nesterov needs a momentum above 0"),
        (
            {"model": {"type": "transformer", "norm_type": "rms", "norm_bias": False}},
            "norm_bias: rms norms have no bias to leave out",
        ),
        ({"train": {"max_steps": True}}, "train.max_steps: expected a number"),
        ({"train": {"precision": "fp8"}}, "train.precision"),
        ({"plan": {"program": "capturd"}}, "plan.program"),
        ({"plan": {"cohort": 1}}, "plan.cohort"),
        ({"plan": {"cohort": "many"}}, "plan.cohort"),
        ({"plan": {"threads": 0}}, "plan.threads"),
        ({"evaluations": {"type": "loss"}}, "evaluations: expected a list of evaluations"),
        (
            {"model": {"type": "transformer", "n_head": 4}},
            "model.n_head: unknown key; did you mean 'n_heads'",
        ),
        ({"modle": {}}, "modle: unknown key; did you mean 'model'"),
        ({"model": None}, "model"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_values_that_cannot_be(more: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**more)


def test_a_missing_factor_is_named() -> None:
    with pytest.raises(ConfigError, match="model: missing; this key is required"):
        validate(RunConfig, Source({"corpus": {"type": "question_formation"}}))


def test_configs_share_no_state() -> None:
    assert config().view is not None and config().view == ViewConfig()
    assert re.fullmatch(r"[0-9a-f]{10}", Identity(config()).hash)
