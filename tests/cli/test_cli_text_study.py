"""A study of a text the user names: what another text, or a mistyped one, does to the report."""

from __future__ import annotations

from pathlib import Path

from conftest import Call

STUDY = """
study: texts
base:
  corpus: {type: text_files, documents: line}
  tokenizer: {type: word}
  model: {type: transformer, n_layers: 1, d_model: 8, n_heads: 2, d_ff: 8}
  train: {max_steps: 2, global_batch_size: 4, log_every: 1}
  checkpoint: {every: 0}
  evaluations: [{type: loss, splits: [val]}]
axes: {direction.type: [forward, backward]}
seeds: [1]
compare: [{metric: loss.val, axis: direction.type, from: forward, to: backward}]
"""


def test_a_mistake_in_the_text_leaves_an_earlier_report(lexarium: Call, tmp_path: Path) -> None:
    study, runs = tmp_path / "texts.yaml", ("--runs-dir", tmp_path / "runs")
    study.write_text(STUDY)
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("".join(f"line {i} of {name}\n" for i in range(60)))
    (tmp_path / "bad.txt").write_bytes(b"a line\n" * 50 + b"\xff\n")
    run = lambda name: lexarium("study", "run", study, *runs, f"corpus.path={tmp_path / name}", "--jobs", "1")
    status = lambda: lexarium("study", "status", "texts", *runs, "--json").json["runs"]
    assert run("one.txt").status == 0
    before = status()
    page = (tmp_path / "runs/studies/texts/report/index.html").read_bytes()
    for name, told in (("bad.txt", "is not UTF-8"), ("missing.txt", "no file, no folder")):
        found = run(name)
        assert found.status == 2 and told in found.err
        assert status() == before and {r["state"] for r in before} == {"done"}
        assert (tmp_path / "runs/studies/texts/report/index.html").read_bytes() == page
    other = run("two.txt")
    assert other.status == 0 and "was run with other data or options before" in other.err
    assert {r["dir"] for r in status()}.isdisjoint({r["dir"] for r in before})
