"""Promise 28: bad input is refused early, in one message that names file, line or field and what to do, and
nothing partial is left behind.

Every case is a function that does what a user would; it must raise UserError whose message matches.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import ENCODER_DECODER, tiny_config, tiny_run
from lexarium.foundation import files, registry
from lexarium.foundation.config import Source, parse_overrides, parse_yaml, read_yaml, validate
from lexarium.foundation.files import DiskError
from lexarium.foundation.lock import Held
from lexarium.foundation.types import Document, NonFinite, UserError
from lexarium.studies.run import Run
from lexarium.studies.run_config import RunConfig
from lexarium.studies.study import Study
from lexarium.tokens.prepare import prepare
from phonemes import JOINED
from toy import TYPE, corpus_config, tokenizer_config, write_corpus

PAIR = "our newt does wait . decl\tour newt does wait ."
TRAIN = {"max_steps": 2, "global_batch_size": 2, "micro_batch_size": None, "log_every": 1}


def pair_file(folder: Path, content: bytes) -> dict[str, Any]:
    (folder / "train.txt").write_bytes(content)
    (folder / "val.txt").write_text(PAIR + "\n")
    return {
        "type": "question_formation",
        "files": {"train": str(folder / "train.txt"), "val": str(folder / "val.txt")},
    }


def prepare_pairs(folder: Path, content: bytes) -> None:
    config = validate(
        RunConfig, Source({"corpus": pair_file(folder, content), "model": {"type": "transformer"}})
    )
    prepare(config.corpus, config.tokenizer, folder / "stores")


def train_texts(folder: Path, texts: Any, val: Any = ("a b",), **more: Any) -> None:
    write_corpus(folder / "corpus", {"train": texts, "val": list(val)})
    corpus = {"type": TYPE, "folder": str(folder / "corpus")}
    tiny_run(folder / "runs", **{"corpus": corpus, "train": TRAIN, **more}).train()


def config(folder: Path, text: str) -> None:
    (folder / "run.yaml").write_text(
        "corpus: {type: question_formation}\nmodel: {type: transformer}\n" + text
    )
    validate(RunConfig, read_yaml(folder / "run.yaml"))


def study(folder: Path, text: str) -> None:
    (folder / "s.yaml").write_text(text)
    Study.load(str(folder / "s.yaml")).expand(folder)


Case = tuple[Callable[[Path], Any], str]
FILES: dict[str, Case] = {
    "empty file": (lambda f: prepare_pairs(f, b""), r"train\.txt: empty; expected one pair per line"),
    "empty line": (lambda f: prepare_pairs(f, f"{PAIR}\n\n{PAIR}\n".encode()), r"train\.txt:2: empty line; expected a pair"),
    "invalid UTF-8": (lambda f: prepare_pairs(f, PAIR.encode() + b"\n\xff\xfe\n"), r"train\.txt:2: not UTF-8; save the file as UTF-8"),
    "NUL bytes": (lambda f: prepare_pairs(f, PAIR.encode() + b"\nour newt\0does wait . decl\tx\n"), r"train\.txt:2: "),
    "NUL bytes only": (lambda f: prepare_pairs(f, b"\0" * 100), r"train\.txt:1: no marker; expected one of decl and quest"),
    "no marker": (lambda f: prepare_pairs(f, b"our newt does wait .\n"), r"train\.txt:1: no marker; expected one of decl and quest"),
    "two markers": (lambda f: prepare_pairs(f, b"our newt does wait . decl quest x\n"), r"train\.txt:1: 2 markers"),
    "unknown word": (lambda f: prepare_pairs(f, PAIR.replace("newt", "dragon").encode()), r"train\.txt:1: .*dragon"),
    "wrong answer": (lambda f: prepare_pairs(f, PAIR.replace("does wait .", "waits .").encode()), r"train\.txt:1: "),
    "other tab": (lambda f: prepare_pairs(f, PAIR.replace("\t", " ").replace("does", "does\t").encode()), r"train\.txt:1: "),
    "missing file": (lambda f: tiny_run(f, corpus={"type": "question_formation", "files": {"train": "none.txt"}}), r"none\.txt: no such file"),
    "a folder for a file": (lambda f: tiny_run(f, corpus={"type": "question_formation", "files": {"train": str(f)}}), "no such file"),
}  # fmt: skip
DOCUMENTS: dict[str, Case] = {
    "empty corpus": (lambda f: train_texts(f, []), "split 'train' of the corpus is empty"),
    "empty document": (lambda f: train_texts(f, ["a", ""]), "document 1 of split 'train': has no token"),
    "NUL character": (lambda f: train_texts(f, ["a\0b"]), r"document 0 of split 'train': holds a NUL character .*is the file text\?"),
    "not Unicode": (lambda f: train_texts(f, ["a \udcff"]), "document 0 of split 'train': not valid Unicode .*save the text as UTF-8"),
    "the word for padding": (lambda f: train_texts(f, ["<pad>"]), "document 0 of split 'train': holds the word '<pad>'"),
    "one-token corpus, windows": (lambda f: train_texts(f, ["a"], packing={"type": "windows", "seq_len": 8}), r"packing: 2 tokens do not fill one window of seq_len 8; use a shorter seq_len"),
    "one-token corpus, no frame": (lambda f: train_texts(f, ["a"], objective={"type": "causal", "bos": False, "eos": False}, evaluations=[]), "nothing to predict without objective.bos and objective.eos"),
    "missing channel": (lambda f: train_texts(f, ["a b"], objective={"type": "seq2seq"}, model=ENCODER_DECODER), r"documents have no channel 'half' \(channels: none\)"),
    "channel that splits nothing": (lambda f: train_texts(f, [Document("a b", {}, {"half": [0, 0, 0]})], [Document("a b", {}, {"half": [0, 1, 1]})], objective={"type": "seq2seq"}, model=ENCODER_DECODER), "lacks a source or a target part"),
    "channels of unequal length": (lambda f: train_texts(f, [Document("a b", {}, {"half": [0]})]), "document 0 of split 'train': channel 'half' has 1 values for 3 characters"),
    "missing split": (lambda f: train_texts(f, ["a b"], evaluations=[{"type": "loss", "splits": ["test"]}]), "the corpus has no split 'test'; it has train, val"),
    "missing field": (lambda f: train_texts(f, ["a b"], evaluations=[{"type": "loss", "splits": ["val"], "by_field": ["kind"]}]), "has no channel or field 'kind'"),
    "missing field of a view": (lambda f: train_texts(f, [Document("a b", {"n": 1})], [Document("a", {"n": 1})], view={"keep": [{"m": 1}]}), r"documents have no field 'm'.*\(fields: n\)"),
    "a view of nothing": (lambda f: train_texts(f, [Document("a b", {"n": 1})], [Document("a", {"n": 1})], view={"keep": [{"n": {"min": 2}}]}), "the view keeps none of the 1 documents of split 'train'; loosen keep or drop"),
    "document longer than packing": (lambda f: train_texts(f, ["a", "a " * 9], packing={"type": "documents", "max_length": 8}), r"packing\.max_length is 8 but document 1 has 9 tokens; raise it or use packing type windows"),
    "document longer than the model": (lambda f: train_texts(f, ["a b"] * 9, ["a " * 30], packing={"type": "windows", "seq_len": 4}, model={"type": "transformer", "n_layers": 1, "n_heads": 2, "d_model": 8, "max_positions": 16}), r"a row of 31 tokens \(frame included\) is longer than model\.max_positions 16; raise it"),
    "rows longer than the model": (lambda f: train_texts(f, ["a b"], packing={"type": "documents", "max_length": 16}, model={"type": "transformer", "max_positions": 16}), r"rows of up to 17 tokens \(frame included\) but model\.max_positions is 16"),
    "dropped weights of long rows": (lambda f: train_texts(f, ["a " * 600], model={"type": "transformer", "n_layers": 1, "n_heads": 1, "d_model": 4, "dropout": 0.1}, packing={"type": "windows", "seq_len": 600}), r"up to 512 tokens per row; found 601: set model\.attention_dropout to 0"),
    "parameters that match nothing": (lambda f: train_texts(f, ["a b"], train={**TRAIN, "parameters": ["nothing"]}), r"train\.parameters: \['nothing'\] match no parameter; names look like"),
    "start from nowhere": (lambda f: train_texts(f, ["a b"], start={"type": "run", "path": "runs/a-b-forward-s1-0123456789"}), "is not a run directory with checkpoints"),
    "start from no run": (lambda f: train_texts(f, ["a b"], start={"type": "run", "path": "elsewhere"}), r"'elsewhere' is not the name of a run directory"),
    "weights that are not there": (lambda f: train_texts(f, ["a b"], start={"type": "huggingface", "path": str(f)}), r"model\.safetensors does not exist; expected a local folder with GPT-2 weights"),
    "a device that is not here": (lambda f: train_texts(f, ["a b"], plan={"device": "cuda:77"}), r"plan\.device: 'cuda:77' is not available here"),
    "a precision the device lacks": (lambda f: train_texts(f, ["a b"], train={**TRAIN, "precision": "fp16"}), "train.precision fp16 needs a CUDA device"),
}  # fmt: skip
UTTERANCES: dict[str, Case] = {
    "missing marker": (lambda f: utterances(f, "a b WORD_BOUNDARY c"), r"a\.txt: byte 16 \(line 2\): no marker 'WORD_BOUNDARY' after the last word; mend the file, or say corpus\.repair: \[missing\]"),
    "doubled marker": (lambda f: utterances(f, "a WORD_BOUNDARY WORD_BOUNDARY"), r"\(line 2\): a marker 'WORD_BOUNDARY' with no word before it; .*repair: \[doubled\]"),
    "marker at the beginning": (lambda f: utterances(f, "WORD_BOUNDARY a WORD_BOUNDARY"), r"\(line 2\): a marker 'WORD_BOUNDARY' with no word before it"),
    "misspelt marker": (lambda f: utterances(f, "a WORD_BOUNDaRY b WORD_BOUNDARY"), r"\(line 2\): 'WORD_BOUNDaRY' for the marker 'WORD_BOUNDARY'; .*repair: \[misspelt\]"),
    "another marker": (lambda f: utterances(f, "a ;eword b ;eword"), r"\(line 2\): .*is ';eword' the marker\? then say corpus\.marker"),
    "empty utterance": (lambda f: utterances(f, "\ny WORD_BOUNDARY"), r"\(line 2\): an empty utterance; .*repair: \[empty\]"),
    "symbols that are not separated": (lambda f: utterances(f, "wʌtdʒ s WORD_BOUNDARY"), r"\(line 2\): the symbol 'wʌtdʒ' has 5 letters: a word whose symbols are not separated\?"),
    "letters with spaces for symbols": (lambda f: utterances(f, "yu want tu", form="symbols"), r"\(line 2\): no marker .*then say corpus\.form: letters"),
    "symbols for letters": (lambda f: utterances(f, "y u WORD_BOUNDARY", form="letters"), r"\(line 1\): 'WORD_BOUNDARY' among the words"),
    "the name of a mark": (lambda f: utterances(f, "a UTT_BOUNDARY WORD_BOUNDARY"), r"\(line 2\): the symbol 'UTT_BOUNDARY' is a mark of the vocabulary"),
    "a symbol outside the vocabulary": (lambda f: pairs_about(f, "a q"), r"pairs\.jsonl:2: .*'q'"),
    "an age that is none": (lambda f: table(f, "a WORD_BOUNDARY,two years,False"), r"a\.csv: byte \d+ \(line 3\): target_child_age is 'two years'; expected a number of months"),
    "a speaker that is none": (lambda f: table(f, "a WORD_BOUNDARY,12,mother"), r"a\.csv: byte \d+ \(line 3\): is_child is 'mother'; expected true or false"),
    "a missing column": (lambda f: table(f, "a WORD_BOUNDARY,12,False", column="gloss"), r"a\.csv: .*'gloss'.*phonemized_utterance"),
    "segmentation without words": (lambda f: tiny_run(f, evaluations=[{"type": "segmentation"}]).train(), r"needs the channel 'word_start'|has no channel 'word_start'"),
}  # fmt: skip
YAML: dict[str, Case] = {
    "tab": (lambda f: config(f, "train:\n\tmax_steps: 5\n"), r"run\.yaml:4: not valid YAML"),
    "key twice": (lambda f: config(f, "seed: 1\nseed: 2\n"), r"run\.yaml:4: key 'seed' appears twice"),
    "not UTF-8": (lambda f: ((f / "x.yaml").write_bytes(b"a: \xff"), read_yaml(f / "x.yaml")), r"x\.yaml: not UTF-8 at byte 3"),
    "NUL": (lambda f: config(f, "seed: '\0'\n"), r"run\.yaml:3: not valid YAML: a character '\\x00'"),
    "empty": (lambda f: ((f / "x.yaml").write_text(""), read_yaml(f / "x.yaml")), r"x\.yaml: empty; expected a mapping"),
    "list": (lambda f: ((f / "x.yaml").write_text("- a"), read_yaml(f / "x.yaml")), r"x\.yaml: expected a mapping at the top, found list"),
    "number as text": (lambda f: config(f, "train: {max_steps: many}\n"), r"run\.yaml:3: train\.max_steps: input should be a valid integer.*found 'many'"),
    "truth for a number": (lambda f: config(f, "train: {max_steps: true}\n"), r"run\.yaml:3: train\.max_steps: expected a number, found True"),
    "part of a step": (lambda f: config(f, "train: {max_steps: 2.5}\n"), r"run\.yaml:3: train\.max_steps: input should be a valid integer.*found 2\.5"),
    "too small": (lambda f: config(f, "optimizer: {type: adamw, lr: 0}\n"), r"run\.yaml:3: optimizer\.lr: input should be greater than 0, found 0"),
    "misspelt": (lambda f: config(f, "optimzer: {type: adamw}\n"), r"run\.yaml:3: optimzer: unknown key; did you mean 'optimizer'\?"),
    "no type": (lambda f: config(f, "evaluations: [{every: 5}]\n"), r"run\.yaml:3: evaluations\.0: an? evaluation needs `type: NAME` \(known: .*loss"),
    "unknown type": (lambda f: config(f, "optimizer: {type: adam}\n"), r"run\.yaml:3: optimizer\.type: unknown optimizer 'adam'; did you mean 'adamw'\?"),
    "secret": (lambda f: Run.create(tiny_config(corpus={"type": secret_corpus(f), "api_key": "x"}), f / "runs"), r"corpus\.api_key: looks like a secret; configurations are saved with results, so keep it out"),
    "override": (lambda f: parse_overrides(["max_steps:5"]), r"override 'max_steps:5' is not of the form a\.b=value"),
    "study without name": (lambda f: study(f, "base: {}\n"), r"s\.yaml: not a study file: the key `study` is missing"),
    "study without base": (lambda f: study(f, "study: x\n"), r"base: missing; this key is required"),
    "study of one point that cannot be": (lambda f: study(f, "study: x\nbase: {corpus: {type: question_formation}, model: {type: encoder_decoder}}\n"), r"point seed=1: model 'encoder_decoder' needs the input 'source'"),
}  # fmt: skip
PLACES: dict[str, Case] = {
    "a run in no directory": (lambda f: Run.open(f / "none"), r"none: not a run directory \(no config\.yaml\)"),
    "a damaged configuration": (lambda f: damaged(f, "config.yaml", "run: {"), r"config\.yaml: not valid YAML"),
    "a damaged provenance": (lambda f: damaged(f, "provenance.json", "{"), r"provenance\.json: not valid JSON .*cut or edited"),
    "a damaged status": (lambda f: damaged(f, "status.json", ""), r"status\.json: not valid JSON"),
    "a run without checkpoints": (lambda f: tiny_run(f).scorer(), "has no complete checkpoint; train it first"),
    "a step that was not saved": (lambda f: trained(f).scorer(7), r"has no checkpoint at step 7 \(steps: 1, 2\)"),
    "an evaluation it does not have": (lambda f: tiny_run(f).evaluation("rules"), r"has no evaluation 'rules' \(it has: loss\)"),
    "a failed run": (lambda f: failed(f).train(), "failed before .*mend the cause and add --retry"),
}  # fmt: skip


def utterances(folder: Path, second: str, **options: Any) -> None:
    """Prepare two lines of utterances, the first without fault."""
    (folder / "a.txt").write_text(f"x WORD_BOUNDARY\n{second}\n", encoding="utf-8")
    prepare_utterances(folder, path=str(folder / "a.txt"), **options)


def table(folder: Path, second: str, **options: Any) -> None:
    """Prepare a table in the form of CHILDES with two rows, the first without fault."""
    head = "phonemized_utterance,target_child_age,is_child\nx WORD_BOUNDARY,30.5,False\n"
    (folder / "a.csv").write_text(f"{head}{second}\n", encoding="utf-8")
    wanted = {"column": "phonemized_utterance", "max_age": 120, "children": "drop"}
    prepare_utterances(folder, path=str(folder / "a.csv"), **{**wanted, **options})


def prepare_utterances(folder: Path, **options: Any) -> None:
    corpus = validate(
        registry.find("corpus", "utterances").Config,
        Source({"type": "utterances", "split": {"val": 0}, **options}),
    )
    prepare(corpus, registry.find("tokenizer", "symbol").Config(), folder / "stores")


def pairs_about(folder: Path, bad: str) -> None:
    """Ask for minimal pairs, the second of which holds `bad`."""
    (folder / "a.txt").write_text("a b WORD_BOUNDARY\nb a WORD_BOUNDARY\n" * 20)
    pairs = [{"sentence_good": "a b", "sentence_bad": "b a"}, {"sentence_good": "a b", "sentence_bad": bad}]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    asked = {"type": "minimal_pairs", "path": [str(folder / "pairs.jsonl")]}
    corpus = {"type": "utterances", "path": str(folder / "a.txt")}
    config = {**JOINED, "corpus": corpus, "tokenizer": {"type": "symbol"}, "view": {}, "train": TRAIN}
    tiny_run(folder / "runs", tiny_config(**config, evaluations=[asked])).train()


def secret_corpus(folder: Path) -> str:
    path = folder / "secret.py"
    path.write_text(
        "from toy import JsonLines\n"
        "class Secret(JsonLines):\n"
        "    class Config(JsonLines.Config):\n"
        "        folder: str = ''\n"
        "        api_key: str = ''\n"
    )
    return f"{path}:Secret"


def trained(folder: Path) -> Run:
    run = tiny_run(folder / "runs", train=TRAIN, checkpoint={"every": 1})
    run.train()
    return run


def damaged(folder: Path, name: str, text: str) -> None:
    run = trained(folder)
    (run.path / "status.json").unlink()
    (run.path / name).write_text(text)
    Run.open(run.path).train()


def failed(folder: Path) -> Run:
    run = tiny_run(folder / "runs", optimizer={"type": "sgd", "lr": 1e30}, train={**TRAIN, "max_steps": 5})
    with pytest.raises(NonFinite):
        run.train()
    return run


CASES = {**FILES, **DOCUMENTS, **UTTERANCES, **YAML, **PLACES}


@pytest.mark.parametrize("name", CASES)
def test_one_clear_message_and_nothing_left(tmp_path: Path, name: str) -> None:
    act, message = CASES[name]
    with pytest.raises(UserError, match=message) as caught:
        act(tmp_path)
    told = str(caught.value)
    assert len(told.splitlines()) == 1 and len(told) < 600, told
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".old", ".building"))]
    assert not list(tmp_path.glob("runs/*/checkpoints/*")) or name in PLACES, (
        "found out before the first step was saved"
    )
    stores = [p for p in tmp_path.glob("**/stores/*") if p.is_dir()]
    assert all((p / "manifest.json").exists() for p in stores), "no part of a store"


def test_a_one_token_corpus_can_be_learned(tmp_path: Path) -> None:
    train_texts(tmp_path, ["a"], ["a"])


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    """The traps of YAML 1.1: exponents without a point, `no`, `on`, times and octal numbers."""
    text = "optimizer: {type: adamw, lr: 1e-4}\ntrain: {max_steps: 010, log_every: 1_000}\nobjective: {type: causal, bos: no, eos: on}\n"
    found = validate(
        RunConfig, parse_yaml("corpus: {type: question_formation}\nmodel: {type: transformer}\n" + text, "x")
    )
    assert found.optimizer.lr == 1e-4 and found.train.max_steps == 10 and found.train.log_every == 1000
    assert (found.objective.bos, found.objective.eos) == (False, True)


# --- large vocabularies ---------------------------------------------------------------------------------


def test_a_vocabulary_beyond_sixteen_bits_is_stored_in_wider_ids(tmp_path: Path) -> None:
    config = corpus_config(
        write_corpus(tmp_path / "c", {"train": [" ".join(f"{i:x}" for i in range(70_000))]})
    )
    store = prepare(config, tokenizer_config(), tmp_path)
    ids = store.split("train").tokens(0)
    assert len(set(ids.tolist())) == 70_000 and ids.max() == 70_000


# --- directories in use or read-only ----------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from lexarium.foundation.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Let another process own a directory."""
    started: list[subprocess.Popen] = []

    def start(path: Path) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tree(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and "owner" not in p.name}


def test_a_run_directory_held_by_another_process(tmp_path: Path, hold: Callable) -> None:
    run = tiny_run(tmp_path, train=TRAIN, checkpoint={"every": 1})
    process, before = hold(run.path), tree(run.path)
    with pytest.raises(Held, match=rf"in use by process {process.pid} on .*wait for it to finish or stop it"):
        run.train()
    assert tree(run.path) == before
    process.kill()
    process.wait()
    assert run.train() == "done", "a dead owner is no obstacle"


def test_an_evaluation_of_a_run_that_another_process_trains(tmp_path: Path, hold: Callable) -> None:
    run = trained(tmp_path)
    hold(run.path)
    with pytest.raises(Held, match="in use by process"):
        run.evaluate(run.evaluation("loss"), 1)
    assert run.evaluate(run.evaluation("loss"), 1, save=False)[0] == 1, "reading is always possible"


def test_a_store_being_written_by_another_process(tmp_path: Path, hold: Callable) -> None:
    config = corpus_config(write_corpus(tmp_path / "c", {"train": ["a b"]}))
    name = prepare(config, tokenizer_config(), tmp_path / "elsewhere").folder.name
    hold(tmp_path / "stores" / f"{name}.building")
    started = time.monotonic()
    with pytest.raises(Held, match=rf"{name}\.building: in use by process .*then run the same command again"):
        prepare(config, tokenizer_config(), tmp_path / "stores")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["prepare", "create", "train"])
def test_a_read_only_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    """Making a directory or opening a file for writing fails, as on a read-only file system (tests may run as root)."""
    config = tiny_config(train=TRAIN)
    run = tiny_run(tmp_path / "runs", config) if where == "train" else None
    if run:
        prepare(config.corpus, config.tokenizer, tmp_path / "runs" / "stores")
    before, real_mkdir, real_open, real_write = tree(tmp_path), Path.mkdir, os.open, Path.write_text

    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        return real_mkdir(self, *arguments, **options) if self.exists() else refuse()

    def opening(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(tmp_path)):
            refuse()
        return real_open(path, flags, *rest, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(files.os, "open", opening)
    monkeypatch.setattr(Path, "write_text", lambda self, *a, **k: refuse() or real_write(self, *a, **k))
    acts = {
        "prepare": lambda: prepare(config.corpus, config.tokenizer, tmp_path / "stores"),
        "create": lambda: tiny_run(tmp_path / "runs", config),
        "train": lambda: run and run.train(),
    }
    with pytest.raises(
        DiskError, match=r"cannot be written \(.*\); choose another directory or change its rights"
    ):
        acts[where]()
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_really_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(DiskError, match="cannot be written"):
        tiny_run(tmp_path / "runs")


@pytest.mark.parametrize("kind", sorted(registry.FOLDERS))
def test_a_component_that_is_none(kind: str) -> None:
    with pytest.raises(UserError, match=f"unknown {kind} 'nothing-like-it'"):
        registry.find(kind, "nothing-like-it")
