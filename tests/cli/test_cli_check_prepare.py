"""`check` and `prepare`: arms, sizes, where values come from, what the stores hold."""

from __future__ import annotations

from pathlib import Path

import yaml

from lexarium.foundation.config import parse_yaml, resolved, validate
from lexarium.studies.run_config import RunConfig
from phonemes import ROWS, table_file


def test_check_counts_arms_and_runs_without_writing(lexarium, study_file: Path, tmp_path: Path) -> None:
    answer = lexarium("check", study_file, "--seeds", "3", "--runs-dir", tmp_path / "runs", "--json")
    assert answer.status == 0 and not (tmp_path / "runs").exists()
    assert answer.json["runs"] == 6
    assert [(a["arm"], a["runs"], a["vocab_size"]) for a in answer.json["arms"]] == [
        ("rate=low", 3, None),
        ("rate=high", 3, None),
    ]
    # embeddings aside: q k v out (4 * 16 * 16), feed-forward (16*32 + 32 + 32*16 + 16), three norms
    assert answer.json["arms"][0]["non_embedding"] == 4 * 256 + 2 * 512 + 48 + 3 * 32


def test_check_knows_the_vocabulary_once_prepared(lexarium, study_file: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = lexarium("prepare", study_file, "--runs-dir", runs, "--json")
    assert first.status == 0
    (store,) = first.json["stores"]
    assert {name: s["documents"] for name, s in store["splits"].items()} == {
        "train": 200,
        "val": 20,
        "ood": 20,
    }
    assert set(store["overlap"].values()) == {0}
    assert store["arms"]["rate=low"]["documents"] == 200
    assert "prepared 240 documents" in first.err
    again = lexarium("prepare", study_file, "--runs-dir", runs, "--workers", "2")
    assert again.status == 0 and again.err == "" and "no document is in two splits" in again.out
    arms = lexarium("check", study_file, "--runs-dir", runs, "--json").json["arms"]
    vocab = store["vocab_size"] + 2  # eos and bos
    assert arms[0]["vocab_size"] == vocab
    assert arms[0]["parameters"] == arms[0]["non_embedding"] + 16 * vocab


def test_several_files_are_one_corpus(lexarium, tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / f"{i}.txt").write_text("".join(f"line {j} of {i}\n" for j in range(200)))
    two = [tmp_path / "1.txt", tmp_path / "2.txt"]
    options = ["--runs-dir", tmp_path / "runs", "--json", "tokenizer.type=word", "corpus.documents=line"]
    answer = lexarium("prepare", *two, *options)
    (store,) = answer.json["stores"]
    assert {name: s["documents"] for name, s in store["splits"].items()} == {"train": 380, "val": 20}
    assert answer.err.count("comparing the splits") == 1
    again = lexarium("prepare", *two, *options[:2], *options[3:]).out
    assert "stretches of 13 tokens of val: none, no document is that long" in again
    answer = lexarium("prepare", tmp_path / "1.txt", tmp_path / "3.txt", *options)
    assert answer.status == 2 and "3.txt' is no file, no folder" in answer.err


def test_a_table_row_of_tabs_is_counted_as_empty(lexarium, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tnote\n" + "one two\tx\n" * 40 + "\t\n \n\n")
    options = ["--runs-dir", tmp_path / "runs", "--json", "tokenizer.type=word"]
    (store,) = lexarium("prepare", tmp_path / "a.tsv", *options).json["stores"]
    assert sum(s["documents"] for s in store["splits"].values()) == 40 and store["mended"] == {"empty": 1}


def test_resolved_tells_where_values_come_from(lexarium, study_file: Path, tmp_path: Path) -> None:
    answer = lexarium(
        "check", study_file, "--preset", "short", "train.log_every=2", "--select", "rate=high", "--resolved"
    )
    lines = {line.split(":")[0].strip(): line for line in answer.out.splitlines()}
    assert lines["max_steps"].endswith("4  # preset short")
    assert lines["log_every"].endswith("2  # command line")
    assert lines["lr"].endswith("0.01  # axis rate=high")
    assert lines["d_model"].endswith(f"16  # {study_file}:6")
    assert lines["clip_norm"].endswith("# default")
    assert lines["seed"].endswith("# seeds") or "# default" in lines["seed"]
    config = validate(RunConfig, parse_yaml(answer.out, "printed"))
    assert resolved(config) == resolved(
        validate(RunConfig, parse_yaml(yaml.safe_dump(resolved(config)), "again"))
    )
    assert config.optimizer.lr == 0.01 and config.train.max_steps == 4  # type: ignore[attr-defined]


def test_resolved_names_the_preset_of_a_model(lexarium, run_file: Path) -> None:
    answer = lexarium("check", run_file, "model.preset=gpt2", "model.d_model=48", "--resolved")
    assert "norm: pre  # default" in answer.out  # the preset agrees with the default
    assert "attention_bias: true  # model.preset gpt2" in answer.out


def test_incompatible_factors_are_named(lexarium, study_file: Path) -> None:
    answer = lexarium("check", study_file, "objective={type: seq2seq}")
    assert answer.status == 2
    assert "objective 'seq2seq'" in answer.err and "model 'transformer'" in answer.err
    assert "encoder_decoder" in answer.err


def test_options_of_a_default_component_need_no_type(lexarium, run_file: Path) -> None:
    answer = lexarium("check", run_file, "optimizer.lr=0.25", "--resolved")
    assert answer.status == 0 and "lr: 0.25  # command line" in answer.out


def test_a_name_on_the_hub_is_no_path(tmp_path: Path) -> None:
    from lexarium.cli.prepare import groups_of

    given = ["corpus.type=hf_dataset", "corpus.streaming=true", f"corpus.revision={'a1' * 20}"]
    ((config, points),) = groups_of("user/name", given, None, tmp_path, False)
    found = config.corpus.model_dump()
    assert (found["type"], found["path"], points) == ("hf_dataset", "user/name", [])


def test_check_reads_the_table_of_features_once_prepared(lexarium, tmp_path: Path) -> None:
    """A table that lacks a symbol of the vocabulary is refused before a run has a directory."""
    (tmp_path / "u.txt").write_text("p a WORD_BOUNDARY m a WORD_BOUNDARY\n" * 30)
    table_file(tmp_path)
    table_file(tmp_path, {s: row for s, row in ROWS.items() if s != "m"}, name="less.csv")
    model = {"type": "transformer", "preset": "gpt2_feature", "n_layers": 1, "n_heads": 2, "d_model": 8}
    run = {
        "corpus": {"type": "utterances", "path": str(tmp_path / "u.txt"), "split": {"val": 0.1}},
        "tokenizer": {"type": "symbol"}, "packing": {"type": "windows", "seq_len": 16},
        "objective": {"type": "causal", "loss": "features"},
        "model": {**model, "features": {"path": str(tmp_path / "phoible.csv")}}, "train": {"max_steps": 2},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    runs = ("--runs-dir", tmp_path / "runs")
    other = f"model.features.path={tmp_path / 'less.csv'}"
    assert lexarium("check", tmp_path / "run.yaml", other, *runs).status == 0
    assert lexarium("prepare", tmp_path / "run.yaml", *runs).status == 0
    assert lexarium("check", tmp_path / "run.yaml", *runs).status == 0
    answer = lexarium("check", tmp_path / "run.yaml", other, *runs)
    assert answer.status != 0 and "less.csv" in answer.err and "'m'" in answer.err


def test_utterances_named_on_the_command_line_are_symbols(lexarium, tmp_path: Path) -> None:
    """Pieces of words, the default for text, would take the symbols away."""
    (tmp_path / "a.txt").write_text("a b WORD_BOUNDARY\n" * 30)
    (tmp_path / "b.txt").write_text("ab ba\n" * 30)
    options = ("corpus.type=utterances", "--runs-dir", tmp_path / "runs", "--json")
    for path, more in (("a.txt", ()), ("b.txt", ("corpus.form=letters",))):
        (store,) = lexarium("prepare", tmp_path / path, *more, *options).json["stores"]
        assert (store["vocab_size"], "symbol" in Path(store["folder"]).name) == (6, True)
    answer = lexarium("prepare", tmp_path / "b.txt", "corpus.form=letters", "tokenizer.unit=symbol", *options)
    assert answer.status == 2 and "tokenizer.unit: character" in answer.err
