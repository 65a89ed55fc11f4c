"""`evaluate` and `sample`: questions to a trained model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lexarium.cli.evaluate import SCORES, _scores
from lexarium.evaluations.decoding import draw
from lexarium.studies.run import Run
from lexarium.studies.run_files import RunFiles

# --- evaluate ---------------------------------------------------------------------------------------


def test_own_evaluation_joins_the_runs_results(lexarium, trained: Path) -> None:
    answer = lexarium("evaluate", trained, "--step", "6", "--json")
    assert answer.status == 0 and answer.json["stored"] and answer.json["step"] == 6
    stored = {s: m for n, s, m in RunFiles(trained).evaluations() if n == "loss"}
    assert answer.json["metrics"] == stored[6]
    before = (trained / "evals/loss/step-00000012.json").read_bytes()
    assert lexarium("evaluate", trained, "--evaluation", "loss").status == 0
    assert (trained / "evals/loss/step-00000012.json").read_bytes() == before


def test_other_options_are_only_printed(lexarium, trained: Path) -> None:
    files = sorted(trained.rglob("evals/*/*"))
    answer = lexarium("evaluate", trained, "--evaluation", "loss", "splits=[ood]", "limit=5", "--json")
    assert not answer.json["stored"] and set(answer.json["metrics"]) >= {"ood"}
    answer = lexarium("evaluate", trained, "--evaluation", "rule_choice")
    assert answer.status == 0 and "not stored" in answer.out
    assert sorted(trained.rglob("evals/*/*")) == files


def test_a_file_is_scored_like_the_split_it_holds(lexarium, trained: Path, tmp_path: Path) -> None:
    file, items = tmp_path / "ood.tsv", tmp_path / "items.parquet"
    assert lexarium("export", trained, "--to", "tsv", "--split", "ood", "-o", file).status == 0
    answer = lexarium(
        "evaluate", trained, "--evaluation", "rule_choice", "--data", file, "--items", items, "--json"
    )
    split = lexarium("evaluate", trained, "--evaluation", "rule_choice", "splits=[ood]", "--json")
    data = {k.removeprefix("data."): v for k, v in answer.json["metrics"].items()}
    assert data == {k.removeprefix("ood."): v for k, v in split.json["metrics"].items()}
    assert pq.read_table(items).num_rows == data["items"] == 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--evaluation", "los"], "did you mean 'loss'"),
        (["--evaluation", "loss", "splitz=[val]"], "did you mean 'splits'"),
        (["--evaluation", "loss", "splits=[vall]"], "it has"),
        (["--evaluation", "loss", "--data", __file__], "no option `data`"),
        (["--evaluation", "rule_choice", "--data", "nowhere.tsv"], "no such file"),
        (["--evaluation", "rule_choice", "--data", __file__], "test_cli_ask.py:1"),
        (["--data", __file__], "--evaluation NAME"),
        (["--step", "5"], "steps: 6, 12"),
        (["--items", "x.csv"], ".parquet"),
    ],
)
def test_mistakes(lexarium, trained: Path, arguments: list[str], told: str) -> None:
    answer = lexarium("evaluate", trained, *arguments)
    assert answer.status == 2 and told in answer.err and len(answer.err.splitlines()) == 1


# --- sample -----------------------------------------------------------------------------------------


def test_samples_are_a_function_of_the_seed(lexarium, trained: Path) -> None:
    ask = (
        "sample",
        trained,
        "--prompt",
        "my raven does change . quest",
        "-n",
        "3",
        "--max-new",
        "6",
        "--json",
    )
    first, again, other = (lexarium(*ask, "--seed", s).json["samples"] for s in ("1", "1", "2"))
    assert first == again != other
    assert len({s["text"] for s in first}) > 1
    assert all(s["text"].startswith("my raven does change . quest") for s in first)


def test_a_sample_does_not_depend_on_the_others(lexarium, trained: Path) -> None:
    scorer = Run.open(trained).scorer()
    prompts = ["my raven does", "her newt", "my raven does change . quest", ""]
    together = scorer.generate(prompts, 8, temperature=1.0, key=3)
    scorer._batch_tokens = 8  # one row at a time
    assert scorer.generate(prompts, 8, temperature=1.0, key=3) == together
    assert scorer.generate(prompts[:2], 8, temperature=1.0, key=3) == together[:2]


def test_cold_samples_are_greedy(trained: Path) -> None:
    scorer = Run.open(trained).scorer()
    greedy = scorer.generate(["my raven", "her newt does"], 8)
    assert scorer.generate(["my raven", "her newt does"], 8, temperature=1e-4, key=1) == greedy


def test_drawing_inverts_the_distribution() -> None:
    probabilities = np.array([0.5, 0.3, 0.2])
    uniform = (np.arange(1000) + 0.5) / 1000
    scores = np.log(np.tile(probabilities, (1000, 1))).astype(np.float32)
    found = np.bincount(draw(scores, 1.0, uniform), minlength=3) / 1000
    assert np.allclose(found, probabilities, atol=1e-3)
    hot = np.bincount(draw(scores, 2.0, uniform), minlength=3) / 1000
    root = np.sqrt(probabilities)
    assert np.allclose(hot, root / root.sum(), atol=1e-3)
    scores[:, 0] = -math.inf
    assert 0 not in draw(scores, 1.0, uniform)


def test_prompts_that_cannot_be_read(lexarium, trained: Path) -> None:
    answer = lexarium("sample", trained, "--prompt", "my ravn")
    assert answer.status == 2 and "did you mean 'raven'" in answer.err
    answer = lexarium("sample", trained, "--prompt", "my " * 1024)
    assert answer.status == 2 and "1024 positions" in answer.err


def test_scores_of_cuts_stand_in_columns() -> None:
    """One row per cue and strategy, or baseline; what has no F of boundaries is no row."""
    metrics = {f"val.{n}.{m}": i + k / 10 for i, n in enumerate(("boundary.peak", "puddle"))
               for k, m in enumerate(SCORES.values())}  # fmt: skip
    more = {"val.loss.threshold.theta_even": 1.0, "val.bits_per_symbol": 2.0, "val.loss.peak.token.f": 0.5}
    assert _scores({**metrics, **more}) == [
        ["val.boundary.peak", 0.0, 0.1, 0.2, 0.3, 0.4],
        ["val.puddle", 1.0, 1.1, 1.2, 1.3, 1.4],
    ]
