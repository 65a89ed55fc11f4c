"""The arrow study's files: every group of configurations it used, its readme's example, and each refusal.

What needs components of the package that a build lacks (token files, window evaluation, presets) is skipped there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexarium.cli.main import main
from lexarium.foundation import registry
from lexarium.foundation.config import parse_yaml, validate
from lexarium.foundation.types import UserError
from lexarium.importers.arrows import KEYS, RECURRENT_KEYS, TRANSFORMER_KEYS, convert
from lexarium.importers.arrows_options import Meaning, Options, Script, Split, Steps
from lexarium.importers.commented_json import parse_json
from lexarium.importers.frame import Draft, finish
from lexarium.studies.run_config import RunConfig

NEEDED = [
    ("corpus", "token_files"),
    ("tokenizer", "ids"),
    ("tokenizer", "file"),
    ("packing", "window_shuffle"),
    ("direction", "both"),
    ("direction", "permutation"),
    ("evaluation", "window_loss"),
    ("evaluation", "snippets"),
    ("schedule", "cosine_restarts"),
]
LACKING = [f"{kind} {name}" for kind, name in NEEDED if name not in registry.names(kind)]


def _has_preset(model: str, preset: str) -> bool:
    try:
        registry.find("model", model).Config(preset=preset)
    except ValueError:
        return False
    return True


LACKING += [
    f"preset {preset}"
    for model, preset in (("transformer", "arrow_nano"), ("recurrent", "arrow_gru_small"))
    if not _has_preset(model, preset)
]
whole_package = pytest.mark.skipif(bool(LACKING), reason=f"this build lacks {', '.join(LACKING)}")

README = """
{
    "model_params": { # Model parameters
        "vocab_size": 50257, # Vocabulary size
        "n_layers": 12, # Number of Transformer Blocks
        "n_heads": 12, # Number of attention heads
        "embed_dim": 768, # Number of hidden/embedding dimensions
        "attn_length": 256, # Attention Length
        "mlp_ratio": 4.0, # MLP ratio
        "dropout": 0.1, # Dropout inside tranformer blocks
        "embd_dropout": null # Dropout for the token embeddings. Defaults to 0.
    },
    "training_params": { 
        "dataset_folder": "english/english.h5", # Location of .h5 dataset to train on
        "batch_size": 180, # Batch size
        "aggregate": 1, # Number of times to aggregate gradients before gradient step. (effective batch_size = aggregate*batch_size)
        "backwards": false, # Whether to train in the backwards direction
        "steps_to_train": null, # Number of gradient steps to train. Defaults to one epoch of the dataset.
        "save_every": 3000, # Number of steps between each save of the training state.
        "backup_every": 15000, # Number of steps between a backup of the training state.
        "step_log": 400, # Number of steps between each log of training loss in wandb
        "valid_steps": 1000, # Number of batches seen during one validation.
        "state_save_loc": "datavol/vassilis/runs" # folder in which to save the training state.
    },
    "optim_params": {
        "lr": 0.0001, # Base learning rate
        "warmup_steps": 4000, # Number of batches until learning rate warms up
        "oscil_steps": 300000, # Number of steps between warm restarts
        "lr_shrink": 0.85, # Shrinking factor of lr between warm restarts
        "lr_init": 1e-07, # Initial learning rate, for warmup
        "lr_min": 1e-06 # Minimum learning rate reached during cosine annealing.
    }
}
"""  # noqa: W291

GPT_SIZES = {
    "nano": (3, 3, 48),
    "micro": (4, 4, 128),
    "mini": (6, 6, 192),
    "small": (10, 10, 380),
    "gpt1": (12, 12, 768),
    "medium": (24, 16, 1024),
    "large": (36, 20, 1280),
    "xl": (48, 25, 1600),
}
RNN_SIZES = {"small": (1, 256, 0.1), "de_med": (1, 512, 0.1), "med": (3, 512, 0.05), "big": (5, 768, 0.05)}

# model, A, batch, aggregate, warm-up, cycle, shrink, step_log, backup, rate: the groups of the study's files
GROUPS: list[tuple[str, int, int, int, int, int, float, int, int, float]] = [
    ("medium", 256, 90, 2, 4000, 300_000, 0.85, 200, 5000, 1e-4),
    ("medium", 256, 90, 1, 4000, 300_000, 0.85, 200, 5000, 1e-4),
    ("medium", 256, 85, 2, 4000, 300_000, 0.85, 200, 5000, 1e-4),
    ("medium", 256, 90, 2, 4000, 300_000, 0.85, 200, 5000, 7e-5),
    ("xl", 256, 25, 7, 8000, 540_000, 0.85, 200, 5000, 1e-4),
    *((name, 256, 250, 1, 4000, 200_000, 0.85, 400, 15_000, 1e-4) for name in ("nano", "micro", "mini", "small")),
    *((name, 256, 200, 1, 4000, 300_000, 0.85, 400, 15_000, 1e-4) for name in ("nano", "micro", "mini", "small")),
    ("gpt1", 256, 180, 1, 4000, 300_000, 0.85, 400, 15_000, 1e-4),
    ("medium", 16, 500, 1, 5000, 300_000, 0.95, 200, 15_000, 1e-4),
    ("medium", 32, 500, 1, 5000, 330_000, 0.90, 200, 15_000, 1e-4),
    ("medium", 64, 250, 2, 4000, 280_000, 0.80, 200, 15_000, 1e-4),
    ("medium", 128, 200, 2, 4000, 260_000, 0.80, 200, 15_000, 1e-4),
    ("medium", 256, 220, 1, 4000, 240_000, 0.80, 200, 15_000, 1e-4),
    ("medium", 512, 78, 2, 4000, 300_000, 0.85, 200, 15_000, 1e-4),
    ("large", 128, 90, 1, 4000, 300_000, 0.85, 200, 5000, 1e-4),
    *(
        (f"{cell}_{size}", 256, batch, 1, 4000, cycle, 0.85, 200, 5000, 1e-4)
        for cell in ("gru", "lstm")
        for size, batch, cycle in (("small", 200, 300_000), ("de_med", 250, 300_000), ("med", 250, 300_000), ("big", 250, 200_000))
    ),
]  # fmt: skip


def is_rnn(model: str) -> bool:
    return model.startswith(("gru_", "lstm_"))


def file(
    model: str = "medium", a: int = 256, batch: int = 90, aggregate: int = 1, warmup: int = 4000,
    cycle: int = 300_000, shrink: float = 0.85, log: int = 200, backup: int = 5000, lr: float = 1e-4,
    backwards: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A file as the study had them (most lack save_every)."""
    if is_rnn(model):
        layers, width, embd_dropout = RNN_SIZES[model.split("_", 1)[1]]
        sizes = {
            "n_layers": layers,
            "embed_dim": width,
            "desired_attn_length": a,
            "dropout": 0.0,
            "embd_dropout": embd_dropout,
        }
    else:
        layers, heads, width = GPT_SIZES[model]
        sizes = {"n_layers": layers, "n_heads": heads, "embed_dim": width, "attn_length": a, "mlp_ratio": 4.0}
        sizes |= {"dropout": 0.1, "embd_dropout": None}  # type: ignore[dict-item]
    return {
        "model_params": {"vocab_size": 50257, **sizes},
        "training_params": {
            "dataset_folder": "data/x.h5", "batch_size": batch, "aggregate": aggregate, "backwards": backwards,
            "steps_to_train": None, "backup_every": backup, "step_log": log, "valid_steps": 1000, "state_save_loc": "runs",
        },
        "optim_params": {
            "lr": lr, "warmup_steps": warmup, "oscil_steps": cycle, "lr_shrink": shrink, "lr_init": 1e-7, "lr_min": 1e-6,
        },
    }  # fmt: skip


def options(model: str = "medium", **more: Any) -> Options:
    script = {"gru": Script.train_gru, "lstm": Script.train_lstm}.get(
        model.split("_")[0], Script.train_script
    )
    return Options(**{"script": script, **more})


def changed(**changes: Any) -> dict[str, Any]:
    """`file()` with keys replaced, for example training_params__batch_size=3; `...` removes a key."""
    data = file()
    for path, value in changes.items():
        section, key = path.split("__")
        if value is ...:
            del data[section][key]
        else:
            data[section][key] = value
    return data


def imported(data: dict[str, Any], **more: Any) -> Draft:
    return convert(data, more.pop("options", None) or Options(**more), "x.json")


def run_of(draft: Draft) -> dict[str, Any]:
    return draft.source().data


# --- the study's files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: f"{g[0]}-{g[1]}-{g[2]}x{g[3]}-{g[5]}")
@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "backward"])
def test_the_files_of_the_study(group: tuple[Any, ...], backwards: bool) -> None:
    model, a, batch, aggregate, warmup, cycle, shrink, log, backup, lr = group
    draft = imported(file(*group, backwards=backwards), options=options(model))
    found = run_of(draft)
    assert found["corpus"] == {"type": "token_files", "path": "data/x.h5"}
    assert found["tokenizer"] == {"type": "ids", "vocab_size": 50257}
    stride = {16: 7, 32: 15, 64: 31, 128: 63, 256: 127, 512: 255}[a]
    assert found["packing"] == {
        "type": "windows",
        "seq_len": a,
        "stride": stride,
        "separator": False,
        "order": "corpus",
    }
    assert found["direction"] == {"type": "backward" if backwards else "forward"}
    assert found["objective"] == {"type": "causal", "bos": True, "eos": False}
    if is_rnn(model):
        dropouts = {"dropout": 0.0, "embedding_dropout": RNN_SIZES[model.split("_", 1)[1]][2]}
        assert found["model"] == {"type": "recurrent", "preset": f"arrow_{model}", **dropouts}
    else:
        dropouts = {"dropout": 0.1, "embedding_dropout": 0.1}
        assert found["model"] == {
            "type": "transformer",
            "preset": f"arrow_{model}",
            "max_positions": a,
            **dropouts,
        }
    assert f"this is arrow_{model}" in draft.notes
    assert found["optimizer"] == {"type": "adamw", "lr": lr, "weight_decay": 0.01, "decay": "all"}
    start, floor = found["schedule"].pop("start"), found["schedule"].pop("floor")
    assert found["schedule"] == {
        "type": "cosine_restarts",
        "warmup_steps": warmup,
        "period": cycle,
        "shrink": shrink,
    }
    assert (start * lr, floor * lr) == (pytest.approx(1e-7), pytest.approx(1e-6))
    assert found["train"] == {
        "epochs": 1, "global_batch_size": batch * aggregate, "micro_batch_size": batch, "log_every": log, "clip_norm": 1.0,
    }  # fmt: skip
    assert found["checkpoint"] == {"rolling": 2000 // aggregate, "every": backup // aggregate}
    assert found["evaluations"] == [{"type": "window_loss", "every": 20_000 // aggregate, "limit": 250_000}]
    assert "validation is a part of the stream of its own" in "\n".join(draft.notes)


@whole_package
@pytest.mark.parametrize("group", GROUPS, ids=lambda g: f"{g[0]}-{g[1]}-{g[2]}x{g[3]}-{g[5]}")
def test_they_are_runs_of_ours_with_as_many_parameters_as_published(group: tuple[Any, ...]) -> None:
    """2VD + AD + L(12 D^2 + 13 D) + 2D for transformers, 2VD + L g (2 D^2 + 2 D) + 2D for recurrent models."""
    from lexarium.models.build import build_model
    from lexarium.models.layers import count_parameters

    model, a = group[:2]
    draft = imported(file(*group), options=options(model))
    finish(draft)
    config = validate(RunConfig, draft.source())
    v = 50257
    if is_rnn(model):
        (layers, d, _), g = RNN_SIZES[model.split("_", 1)[1]], 3 if model.startswith("gru") else 4
        expected = 2 * v * d + layers * g * (2 * d * d + 2 * d) + 2 * d
    else:
        layers, _, d = GPT_SIZES[model]
        expected = 2 * v * d + a * d + layers * (12 * d * d + 13 * d) + 2 * d
    assert count_parameters(build_model(config.model, v, None, "meta")) == expected


def test_the_example_of_the_readme() -> None:
    found = run_of(imported(parse_json(README, "readme")))
    assert found["model"]["preset"] == "arrow_gpt1" and found["train"]["global_batch_size"] == 180
    assert found["checkpoint"] == {"rolling": 2000, "every": 15_000}, "save_every was not read"
    assert found["schedule"]["start"] == 0.001 and found["schedule"]["floor"] == 0.01
    assert found["corpus"]["path"] == "english/english.h5"


@whole_package
def test_the_readme_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "readme.json", tmp_path / "run.yaml"
    source.write_text(README, encoding="utf-8")
    call = [
        "import",
        "arrows",
        "--script",
        "train_script",
        str(source),
        "-d",
        "cuda:0",
        "-p",
        "p",
        "-o",
        str(target),
    ]
    assert main(call) == 0
    told = capsys.readouterr().err
    assert "this is arrow_gpt1" in told
    assert f"train it with: lexarium train {target} --runs-dir datavol/vassilis/runs/p" in told
    text = target.read_text(encoding="utf-8")
    assert "  epochs: 1  # training_params.steps_to_train is empty: one epoch" in text.splitlines()
    assert parse_yaml(text, "x").data["plan"] == {"device": "cuda:0"}
    assert main(call) == 2 and "is there already" in capsys.readouterr().err
    assert main([*call, "--force"]) == 0
    assert main(["check", str(target), "--runs-dir", str(tmp_path / "runs")]) == 2, "the data are not there"


@whole_package
@pytest.mark.parametrize("split", list(Split))
@pytest.mark.parametrize("script", ["train_script", "train_lstm"])
def test_an_imported_run_trains(
    script: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids 1 to 49 in a file, windows of 8, six updates; then evaluated on the windows held out."""
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(1, 50, 4000).astype(np.int32))
    model = "lstm_small" if script == "train_lstm" else "nano"
    data = file(model, a=8, batch=4, aggregate=2, warmup=2, cycle=10, log=1, backup=4)
    data["model_params"] |= {"vocab_size": 50, "n_layers": 1, "embed_dim": 16}
    data["model_params"] |= {} if is_rnn(model) else {"n_heads": 2}
    data["training_params"] |= {
        "dataset_folder": str(tmp_path / "ids.npy"),
        "steps_to_train": 12,
        "valid_steps": 1,
    }
    (tmp_path / "tiny.json").write_text(json.dumps(data))
    target, runs = str(tmp_path / "tiny.yaml"), str(tmp_path / "runs")
    call = [
        "import",
        "arrows",
        "--script",
        script,
        str(tmp_path / "tiny.json"),
        "-d",
        "cpu",
        "-o",
        target,
        "--split",
        split,
    ]
    assert main(call) == 0
    assert main(["train", target, "--runs-dir", runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.partition("written\n")[2])
    assert found["step"] == 6
    metrics = found["evaluations"]["window_loss"]["metrics"]
    windows = {"contiguous": 200 // 8, "window_shuffle": 250}[split]
    assert metrics["val.windows"] == windows and 3 < metrics["val"] < 6


# --- what a file leaves open ----------------------------------------------------------------------------


def test_an_empty_embd_dropout() -> None:
    for meaning, rate in ((Meaning.code, 0.1), (Meaning.readme, 0.0)):
        draft = imported(file(), embd_dropout=meaning)
        assert run_of(draft)["model"]["embedding_dropout"] == rate
        assert any(
            f"embd_dropout is empty: {rate:g} by --embd-dropout {meaning}" in note for note in draft.notes
        )
    draft = imported(changed(model_params__embd_dropout=0.2), embd_dropout=Meaning.readme)
    assert run_of(draft)["model"]["embedding_dropout"] == 0.2
    assert not any("embd_dropout" in note for note in draft.notes)


def test_sizes_that_are_none_of_the_study() -> None:
    found = run_of(imported(changed(model_params__n_layers=5)))["model"]
    assert {k: found[k] for k in ("n_layers", "n_heads", "d_model", "d_ff")} == {
        "n_layers": 5, "n_heads": 16, "d_model": 1024, "d_ff": 4096,
    }  # fmt: skip
    wide = run_of(imported(changed(model_params__mlp_ratio=2.5)))["model"]
    assert wide["d_ff"] == 2560 and wide["preset"] == "arrow_gpt1" and wide["n_layers"] == 24
    data = file("gru_small")
    data["model_params"]["n_layers"] = 2
    found = run_of(imported(data, options=options("gru_small")))["model"]
    assert found == {
        "type": "recurrent", "preset": "arrow_gru_med", "n_layers": 2, "d_model": 256, "dropout": 0.0, "embedding_dropout": 0.1,
    }  # fmt: skip


def test_steps_of_the_file() -> None:
    """1000 minibatches, 2 to an update, are 500 updates; the schedule was counted in updates."""
    data = changed(
        training_params__aggregate=2, training_params__steps_to_train=1000, training_params__save_every=300
    )
    for unit, steps, rolling, every in (  # save_every is read by train_parallel alone
        (None, 500, 150, 10_000),
        (Steps.minibatches, 500, 150, 10_000),
        (Steps.updates, 1000, 300, 20_000),
    ):
        draft = imported(data, steps=unit, script=Script.train_parallel)
        found = run_of(draft)
        assert found["train"]["max_steps"] == steps and "epochs" not in found["train"]
        assert found["checkpoint"]["rolling"] == rolling and found["evaluations"][0]["every"] == every
        assert found["schedule"]["warmup_steps"] == 4000 and found["train"]["log_every"] == 200
        assert any("are minibatches" in note for note in draft.notes) == (unit is not Steps.updates)


def test_the_aggregation_bug() -> None:
    """Published curves have restarts every 27.0 million windows: 300,000 updates of 90, not of 180."""
    draft = imported(
        changed(training_params__aggregate=2, training_params__steps_to_train=1000), legacy_aggregate=True
    )
    train = run_of(draft)["train"]
    assert (train["global_batch_size"], train["micro_batch_size"], train["max_steps"]) == (90, 90, 1000)
    assert run_of(draft)["schedule"]["period"] * train["global_batch_size"] == 27_000_000
    xl = imported(file("xl", batch=25, aggregate=7), legacy_aggregate=True)
    assert run_of(xl)["train"]["global_batch_size"] == 150
    assert run_of(imported(file("xl", batch=25, aggregate=7)))["train"]["global_batch_size"] == 175


def test_the_published_split() -> None:
    draft = imported(changed(training_params__valid_steps=40), split=Split.window_shuffle)
    assert run_of(draft)["packing"] == {"type": "window_shuffle", "seq_len": 256, "held_out": 10_000}
    assert run_of(draft)["corpus"]["split"] == {"by": "end", "val": 0.0}
    assert any("nearly all held-out text is in training windows" in note for note in draft.notes)
    assert run_of(draft)["evaluations"][0] == {"type": "window_loss", "every": 800, "limit": 10_000}


def test_save_every_was_read_by_one_script_only() -> None:
    """2000 minibatches in all others, in the later code too."""
    data = changed(training_params__save_every=3000, training_params__aggregate=2)
    draft = imported(data)
    assert run_of(draft)["checkpoint"]["rolling"] == 1000
    assert any(note.startswith("training_params.save_every: 3000 was not read") for note in draft.notes)
    draft = imported(data, script=Script.train_parallel)
    assert run_of(draft)["checkpoint"]["rolling"] == 1500
    assert not any("was not read" in note for note in draft.notes)
    draft = imported(later(save_every=3000), script=Script.train_parallel)
    assert run_of(draft)["checkpoint"]["rolling"] == 2000
    assert any("was not read" in note for note in draft.notes)
    assert not any("was not read" in note for note in imported(file()).notes)


def old_run(folder: Path, state: str = "done", step: int = 30) -> Path:
    """What the importer looks at of a run."""
    path = folder / "token-files-transformer-forward-s1-0123456789"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("run: {}")
    (path / "status.json").write_text(json.dumps({"state": state, "step": step}))
    return path


@pytest.mark.parametrize(("more", "steps"), [(True, 80), (False, 50)])
def test_more_steps_than_an_old_run(more: bool, steps: int, tmp_path: Path) -> None:
    """With -s 50 steps more than the 30 it has, without it up to 50."""
    path = old_run(tmp_path)
    data = changed(training_params__steps_to_train=100, training_params__aggregate=2)
    draft = imported(data, more_steps=more, from_run=str(path))
    start = {"type": "run", "path": str(path), "step": 30, "state": "all"}
    assert run_of(draft)["start"] == start
    assert run_of(draft)["train"]["max_steps"] == steps and "epochs" not in run_of(draft)["train"]
    assert any(f"at step 30, 50 updates {'more' if more else 'in all'}" in note for note in draft.notes)
    assert not any("looks at max_steps" in note for note in draft.notes)
    again = imported(later(steps_to_train=50), more_steps=more, from_run=str(path))
    assert any("looks at max_steps" in note for note in again.notes)


@pytest.mark.parametrize(
    ("run", "steps", "more", "message"),
    [
        (None, 50, True, "not a run directory"),
        ({"state": "failed"}, 50, True, r"is not finished \(step 30\); it goes on by itself"),
        ({}, None, True, "steps_to_train is empty, one epoch; say how many steps more"),
        ({}, None, False, "say how many steps in all"),
        ({}, 30, False, "30 updates in all, but --from .* stands at 30 already"),
    ],
)
def test_runs_that_cannot_be_gone_on_from(
    run: dict[str, Any] | None, steps: int | None, more: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "none" if run is None else old_run(tmp_path, **run)
    with pytest.raises(UserError, match=message):
        imported(changed(training_params__steps_to_train=steps), more_steps=more, from_run=str(path))


def test_several_devices() -> None:
    many = ("cuda:0", "cuda:2")
    draft = imported(
        file(batch=25), script=Script.train_parallel, devices=many, project="p", target="run.yaml"
    )
    found = run_of(draft)
    assert found["train"]["global_batch_size"] == 25 and found["train"]["micro_batch_size"] == 13
    assert found["plan"] == {"device": "cuda"}
    command = (
        "CUDA_VISIBLE_DEVICES=0,2 torchrun --nproc-per-node 2 -m lexarium train run.yaml --runs-dir runs/p"
    )
    assert f"train it with: {command}" in draft.notes


def tokenizer_file(folder: Path, n: int) -> Path:
    folder.mkdir()
    vocabulary = {f"t{i}": i for i in range(1, n)}
    added = [{"id": 0, "content": "<|endoftext|>", "special": True}]
    content = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_a_tokenizer_of_the_right_size(tmp_path: Path) -> None:
    folder = tokenizer_file(tmp_path / "fr", 300)
    data = changed(model_params__vocab_size=300)
    for path in (folder, folder / "tokenizer.json"):
        draft = imported(data, tokenizer=str(path))
        assert run_of(draft)["tokenizer"] == {"type": "file", "path": str(path)}
        snippets = run_of(draft)["evaluations"][1]
        assert snippets == {
            "type": "snippets",
            "every": 20_000,
            "splits": ["val"],
            "prefix": 4,
            "max_new_tokens": 100,
        }
    with pytest.raises(UserError, match=r"vocab_size: is 50257, but .*tokenizer\.json has 300 ids"):
        imported(file(), tokenizer=str(folder))
    draft = imported(file(), tokenizer=str(tmp_path / "elsewhere"))
    assert any("could not be checked" in note for note in draft.notes)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a tokenizer\.json"):
        imported(data, tokenizer=str(folder))


def test_copies_of_the_data_for_backward_runs() -> None:
    data = changed(training_params__backwards=True, training_params__dataset_folder="french_b.h5")
    assert any("give both directions the same file" in note for note in imported(data).notes)


# --- the later code -------------------------------------------------------------------------------------


def later(**changes: Any) -> dict[str, Any]:
    data = file(a=16, batch=50, aggregate=2)
    data["optim_params"] = {"lr": 1e-4, "warmup_steps": 4000}
    data["training_params"] |= {
        "tokenizer_path": "fr_tokenizer",
        "val_batch_size": 400,
        "save_loc": "here",
        **changes,
    }
    return data


def test_a_file_of_the_later_code() -> None:
    draft = imported(later(steps_to_train=1000, cooldown_finish=0.2))
    found = run_of(draft)
    assert found["schedule"] == {
        "type": "warmup_stable_decay", "warmup_steps": 4000, "start": 1e-7, "decay_fraction": 0.2,
    }  # fmt: skip
    assert found["train"]["max_steps"] == 1000, "updates, not minibatches"
    assert found["tokenizer"] == {"type": "file", "path": "fr_tokenizer"}
    assert found["evaluations"] == [
        {"type": "window_loss", "every": 25_000, "limit": 400_000},
        {"type": "snippets", "every": 25_000, "splits": ["val"], "prefix": 2, "max_new_tokens": 14},
    ]
    assert "train it with: lexarium train FILE --runs-dir here" in draft.notes
    assert any(
        note.startswith("a file of the later code (tokenizer_path, val_batch_size") for note in draft.notes
    )
    assert run_of(imported(later()))["schedule"]["decay_fraction"] == 0.15
    assert run_of(imported(later(val_batch_size=None)))["evaluations"][0]["limit"] == 50_000
    assert any("and made 2 of it" in note for note in imported(later()).notes)


def test_permutations_and_mixed_directions() -> None:
    order = list(range(15, -1, -1))
    found = run_of(imported(later(permutation=order, backwards=True)))
    assert found["direction"] == {"type": "permutation", "order": order}
    whole = {"type": "snippets", "every": 25_000, "splits": ["val"], "prefix": 0, "max_new_tokens": 16}
    assert found["evaluations"][1] == whole
    mixed = imported(later(backwards=None))
    assert run_of(mixed)["direction"] == {"type": "both"}
    assert run_of(mixed)["packing"]["stride"] == 16
    assert any("mixed training" in note for note in mixed.notes)
    assert run_of(mixed)["evaluations"][1]["prefix"] == 2


def test_why_there_are_no_samples() -> None:
    note = "no samples of text after validations: no tokenizer was given (-t)"
    assert note in imported(file()).notes and len(run_of(imported(file()))["evaluations"]) == 1
    assert note not in imported(later()).notes


@whole_package
@pytest.mark.parametrize(
    "change", [{}, {"permutation": list(range(16))}, {"backwards": None}, {"fast_scrambling": False}]
)
def test_they_are_runs_of_ours(change: dict[str, Any]) -> None:
    finish(imported(later(**change)))


# --- refusals -------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a misspelt key": (changed(training_params__batchsize=3), {}, r"training_params\.batchsize: unknown key; did you mean 'training_params\.batch_size'"),
    "a key in another section": (changed(optim_params__aggregate=3), {}, r"unknown key; did you mean 'training_params\.aggregate'"),
    "a section": ({**file(), "wandb": {"a": 1}}, {}, r"wandb\.a: unknown key"),
    "no section": ({**file(), "optim_params": 3}, {}, "optim_params: expected a mapping"),
    "no data": (changed(training_params__dataset_folder=...), {}, r"training_params\.dataset_folder: missing"),
    "data of another kind": (changed(training_params__dataset_folder=3), {}, "dataset_folder: expected the path"),
    "a recurrent model": (changed(model_params__n_heads=...), {}, "so this is a recurrent model; --script train_gru or"),
    "heads of a recurrent model": (file(), {"script": Script.train_gru}, "so this is a GPT file: --script train_script"),
    "no length": (changed(model_params__attn_length=...), {}, r"model_params\.attn_length: missing"),
    "two lengths": ({**file("gru_small"), "model_params": {**file("gru_small")["model_params"], "attn_length": 8}}, {"script": Script.train_gru}, "two lengths; keep one"),
    "no length, recurrent": ({**file("gru_small"), "model_params": {k: v for k, v in file("gru_small")["model_params"].items() if k != "desired_attn_length"}}, {"script": Script.train_gru}, "attn_length: missing"),
    "half a layer": (changed(model_params__n_layers=1.5), {}, r"n_layers: expected a whole number from 1 on, found 1\.5"),
    "a batch of nothing": (changed(training_params__batch_size=0), {}, "batch_size: expected a whole number from 1 on"),
    "aggregate 0": (changed(training_params__aggregate=0), {}, "aggregate: expected a whole number from 1 on"),
    "the bug at 1": (file(), {"legacy_aggregate": True}, "the bug shows from 2 on"),
    "a direction": (changed(training_params__backwards="yes"), {}, "backwards: expected true, false or null"),
    "no direction": (changed(training_params__backwards=...), {}, r"backwards: missing; this key is required beside optim_params\.oscil_steps"),
    "a permutation": (changed(training_params__permutation=[0, 0]), {}, "permutation: expected every number from 0 to 255 once"),
    "a permutation of words": (changed(training_params__permutation="reverse"), {}, "permutation: expected every number"),
    "fast_scrambling": (changed(training_params__fast_scrambling=True), {}, "fast_scrambling: true is not imported: it leaves out"),
    "a half schedule": (changed(optim_params__lr_min=...), {}, r"optim_params\.lr_min: missing; optim_params\.oscil_steps needs it"),
    "two schedules": (changed(training_params__cooldown_finish=0.1), {}, "cooldown_finish: belongs to the later code"),
    "no rate": (changed(optim_params__lr=0), {}, "lr: expected a rate above 0"),
    "more steps from nowhere": (file(), {"more_steps": True}, "name it with --from RUN"),
    "a device": (file(), {"devices": ("gpu0",)}, "-d gpu0: expected cpu, cuda, cuda:N or mps"),
    "devices": (file(), {"devices": ("cuda:0", "cuda:1")}, "2 devices need --script train_parallel"),
    "mixed devices": (file(), {"devices": ("cpu", "cuda:1"), "script": Script.train_parallel}, "are numbered GPUs"),
    "a device twice": (file(), {"devices": ("cuda:1", "cuda:1"), "script": Script.train_parallel}, "is named twice"),
    "two tokenizers": (later(), {"tokenizer": "other"}, "-t other: the file names another"),
    "steps": (changed(training_params__steps_to_train=-1), {}, "steps_to_train: expected a whole number from 1 on"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    data, more, message = REFUSALS[case]
    with pytest.raises(UserError, match=message):
        imported(data, **more)


@whole_package
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim_params__lr_init": 1}, r"x\.json \(optim_params\.lr_init: 1 / lr\): schedule\.start"),
        ({"model_params__n_heads": 7}, "d_model 1024 is not a multiple of n_heads 7"),
        ({"model_params__dropout": 2}, r"\(model_params\.dropout: 2\): model\.dropout"),
        ({"training_params__step_log": None}, r"train\.log_every"),
    ],
)
def test_mistakes_that_our_schema_finds_name_the_key_of_the_file(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        finish(imported(changed(**changes)))


def test_every_key_of_both_generations_is_in_the_table() -> None:
    """The keys listed in the repository's readme and by its later code."""
    gpt = "vocab_size n_layers n_heads embed_dim attn_length mlp_ratio dropout embd_dropout"
    rnn = "vocab_size n_layers embed_dim desired_attn_length attn_length dropout embd_dropout"
    training = (
        "dataset_folder batch_size aggregate backwards steps_to_train save_every backup_every step_log valid_steps"
        " state_save_loc tokenizer_path permutation val_batch_size save_loc fast_scrambling cooldown_finish"
    )
    optim = "lr warmup_steps oscil_steps lr_shrink lr_init lr_min"
    common = {f"training_params.{k}" for k in training.split()} | {f"optim_params.{k}" for k in optim.split()}
    for table, model in ((TRANSFORMER_KEYS, gpt), (RECURRENT_KEYS, rnn)):
        assert {*table, *KEYS} == common | {f"model_params.{k}" for k in model.split()}


def test_recurrent_models_drop_nothing_behind_their_last_layer() -> None:
    """Spec 4.2: dropout on the embeddings and between layers, so a model of one layer has none but the former."""
    data = file("gru_small")
    data["model_params"] |= {"dropout": 0.2, "embd_dropout": 0.1}
    found = run_of(imported(data, options=options("gru_small")))["model"]
    assert (found["dropout"], found["embedding_dropout"], found["output_dropout"]) == (0.2, 0.1, 0.0)
