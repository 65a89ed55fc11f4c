"""`list`, `show`, `diff`, `export` and `doctor`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch

from lexarium.corpora import espeak
from lexarium.corpora.pairs import write_released
from lexarium.foundation import registry
from lexarium.foundation.config import read_yaml, validate
from lexarium.models.build import build_model
from lexarium.studies.assembly import make
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig
from lexarium.training import checkpoint

# --- list and show ----------------------------------------------------------------------------------


def test_list_names_everything(lexarium) -> None:
    found = lexarium("list", "--json").json
    for kind in registry.FOLDERS:
        assert found[registry.plural(kind)] == registry.names(kind)
    assert "hierarchical-generalization" in found["studies"]
    assert lexarium("list", "model", "--json").json == {"models": registry.names("model")}
    text = lexarium("list", "objectives").out
    assert "causal" in text and "Language modelling in reading order." in text


def test_summaries_are_the_docstrings_first_lines() -> None:
    for kind in registry.FOLDERS:
        for name, summary in registry.summaries(kind).items():
            assert summary == (registry.find(kind, name).__doc__ or "").strip().splitlines()[0]


def test_show_a_component(lexarium) -> None:
    text = lexarium("show", "model", "transformer").out
    assert "n_layers" in text and "int (> 0)" in text and "presets: hierarchical_generalization, gpt2" in text
    schema = lexarium("show", "packing", "windows", "--json").json
    assert schema["config"]["required"] == ["seq_len"]


def test_show_a_run(lexarium, trained: Path) -> None:
    found = lexarium("show", trained, "--json").json
    assert (found["kind"], found["state"], found["checkpoints"]) == ("run", "done", [6, 12])
    assert found["config"]["model"]["d_model"] == 16
    text = lexarium("show", trained.name, "--runs-dir", trained.parent, "--slices", "--config").out
    assert "loss.val.half.0" in text and "d_model: 16" in text and "checkpoints: 6, 12" in text


def test_show_a_study(lexarium, study_file: Path, tmp_path: Path) -> None:
    answer = lexarium("show", study_file, "--runs-dir", tmp_path / "runs")
    assert "axis rate: low, high" in answer.out and "not run here yet" in answer.out
    found = lexarium("show", "hierarchical-generalization", "--json").json
    assert found["study"] == "hierarchical-generalization" and found["compare"]


def test_diff_lists_the_fields_that_differ(lexarium, trained: Path) -> None:
    (other,) = trained.parent.glob("*-s2-*")
    found = lexarium("diff", trained, other, "--json").json
    assert found["differences"] == [{"key": "seed", "values": [1, 2]}]
    assert "no difference" in lexarium("diff", trained, trained).out


def test_diff_all_looks_at_provenance_and_plan(lexarium, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy"
    shutil.copytree(trained, other)
    for name, key in (("provenance", "python"), ("plan", "device_name")):
        text = (other / f"{name}.json").read_text()
        (other / f"{name}.json").write_text(re.sub(rf'"{key}": "[^"]*"', f'"{key}": "another"', text))
    assert lexarium("diff", trained, other, "--json").json["differences"] == []
    more = {d["key"] for d in lexarium("diff", trained, other, "--all", "--json").json["differences"]}
    assert more == {"provenance.python", "plan.device_name"}


# --- export -----------------------------------------------------------------------------------------


def test_export_tsv_is_the_split(lexarium, run_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "val.tsv"
    answer = lexarium("export", run_file, "--to", "tsv", "--split", "val", "-o", file)
    assert answer.status == 0 and "20 pairs of val" in answer.out
    config = validate(RunConfig, read_yaml(run_file))
    write_released(make("corpus", config.corpus).documents("val"), tmp_path / "expected.tsv")
    assert file.read_bytes() == (tmp_path / "expected.tsv").read_bytes()


def test_export_tsv_shows_what_the_view_keeps(lexarium, run_file: Path, tmp_path: Path) -> None:
    arguments = ("export", run_file, "view.keep={kind: quest}", "--to", "tsv", "--split", "train")
    rest = ("-o", tmp_path / "train.tsv", "--runs-dir", tmp_path / "runs")
    assert lexarium(*arguments, *rest).status == 0
    kept = (tmp_path / "train.tsv").read_text().splitlines()
    assert kept and all(line.split("\t")[0].endswith("quest") for line in kept)
    assert lexarium(*arguments, "--whole", *rest).status == 0
    everything = (tmp_path / "train.tsv").read_text().splitlines()
    assert len(everything) == 200 and [x for x in everything if x in set(kept)] == kept


def test_export_weights_gives_the_same_model(lexarium, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    answer = lexarium("export", trained, "--to", "weights", "--step", "6", "-o", folder)
    assert answer.status == 0
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "config.yaml",
        "README.md",
        "manifest.json",
    }
    run = Run.open(trained)
    config = validate(RunConfig, read_yaml(folder / "config.yaml").sub("run"))  # as the model card says
    model = build_model(config.model, run.parts().objective.vocab_size, seed=0)
    checkpoint.load_model(folder, model)
    for (name, a), b in zip(run.model(6).named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b), name
    card = (folder / "README.md").read_text()
    assert f"vocab_size={run.parts().objective.vocab_size}" in card and "step 6" in card
    again = lexarium("export", trained, "--to", "weights", "-o", folder)
    assert again.status == 2 and "is there already" in again.err


# --- doctor -----------------------------------------------------------------------------------------


def test_doctor_finds_what_is_there(lexarium, tmp_path: Path) -> None:
    answer = lexarium("doctor", "--runs-dir", tmp_path / "runs", "--json")
    found = {c["what"]: c for c in answer.json["checks"]}
    assert {"packages", "torchvision", "device", "precision", "disk", "runs directory", "speed"} <= set(found)
    assert torch.__version__ in found["packages"]["found"]
    assert "GFLOP/s" in found["speed"]["found"]
    assert any("extra hf" in what for what in found)
    told, there = found["espeak-ng"], espeak.found()
    assert told["ok"] is None and (
        espeak.version(there) in told["found"] if there else "apt-get" in told["found"]
    )
    assert not (tmp_path / "runs").exists()


def test_doctor_finds_what_is_wrong(lexarium, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = lexarium("doctor", "--runs-dir", tmp_path / "file", "--json")
    assert answer.status == 1
    (bad,) = [c for c in json.loads(answer.out)["checks"] if c["ok"] is False]
    assert "is a file" in bad["found"]
