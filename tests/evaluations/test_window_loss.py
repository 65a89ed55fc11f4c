"""Losses of windows against a naive loop: one window at a time, one model call, plain slices of the joined tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.builders import tiny_config, tiny_run

from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.window_loss import WindowLoss
from lexarium.foundation import registry
from lexarium.foundation.types import Incompatible, UserError
from lexarium.models.build import build_model
from lexarium.studies.run import Run
from lexarium.studies.run_config import check
from lexarium.tokens.prepare import open_tokenizer
from lexarium.tokens.store import TokenStore
from toy import TYPE, tokenizer_config, toy_store, write_corpus

WORDS = [f"w{i}" for i in range(9)]


def texts(n: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 15))) for _ in range(n)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return toy_store(tmp_path_factory.mktemp("s"), {"train": texts(30, 1), "val": texts(20, 2)})


def component(kind: str, name: str, *given: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *given)


class Asked:
    """A small model with spread logits, asked in a direction, and the naive losses of a window."""

    def __init__(
        self, store: TokenStore, direction: Any, bos: bool = True, eos: bool = False, batch: int = 64
    ) -> None:
        self.tokenizer = open_tokenizer(tokenizer_config(), store.folder)
        self.objective = component("objective", "causal", self.tokenizer, bos=bos, eos=eos)
        self.objective.roles = self.objective.roles.extended(direction.extra_tokens)
        config = registry.find("model", "transformer").Config(
            n_layers=1, n_heads=2, d_model=8, max_positions=24, initialisation="xavier"
        )
        self.model = build_model(config, self.objective.roles.vocab_size, seed=3).double()
        with torch.no_grad():
            self.model.embedding.mul_(4)
        self.scorer = Scorer(self.model.eval(), self.objective, direction, self.tokenizer, batch_tokens=batch)

    def losses(self, row: list[int], start: str = "bos") -> list[float]:
        """Of ids in reading order."""
        roles, config = self.objective.roles, self.objective.config
        framed = ([roles[start]] if config.bos else []) + row + [roles["eos"]] * config.eos
        with torch.no_grad():
            output = self.model(tokens=torch.tensor([framed[:-1]]))
            scores = output.unembed(output.hidden).log_softmax(-1)
        return [-float(scores[i, token]) for i, token in enumerate(framed[1:])]


def stream(store: TokenStore, split: str, eos: int | None) -> tuple[list[int], list[int]]:
    """Tokens of all documents, and the document each belongs to."""
    view = store.view(split)
    ids: list[int] = []
    owner: list[int] = []
    for d in range(len(view)):
        own = [*view.tokens(d).tolist(), *([] if eos is None else [eos])]
        ids, owner = ids + own, owner + [d] * len(own)
    return ids, owner


def evaluation(store: TokenStore, asked: Asked, packing: Any = None, **options: Any) -> WindowLoss:
    config = WindowLoss.Config(**options)
    return WindowLoss(config, EvaluationData(store, asked.tokenizer, packing=packing))


@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize(("bos", "eos"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("name", ["forward", "backward", "permutation"])
def test_every_metric_and_item_by_a_naive_loop(
    store: TokenStore, name: str, bos: bool, eos: bool, separator: bool
) -> None:
    direction = component("direction", name)
    asked = Asked(store, direction, bos, eos)
    packing = component("packing", "windows", seq_len=10, separator=separator, stride=4)
    result = evaluation(store, asked, packing).run(asked.scorer, 0)
    ids, owner = stream(store, "val", asked.objective.roles["eos"] if separator else None)
    windows = [ids[s : s + 10] for s in range(0, len(ids) - 9, 10)]
    order = {"forward": range(10), "backward": range(9, -1, -1)}.get(name)
    order = direction.order(10).tolist() if order is None else order
    expected = np.array([asked.losses([w[i] for i in order]) for w in windows])
    n, count = expected.shape
    assert count == 10 - 1 + bos + eos and n == len(ids) // 10
    m = result.metrics
    assert m["val"] == pytest.approx(expected.mean(), rel=1e-5)
    assert m["val.perplexity"] == pytest.approx(math.exp(expected.mean()), rel=1e-5)
    assert (m["val.windows"], m["val.tokens"]) == (n, n * count)
    marks = [k for k in (1, 2, 4, 8) if k < count] + [count]
    assert [k for k in m if k.startswith("val.position.")] == [f"val.position.{k}" for k in marks]
    for k in marks:
        assert m[f"val.position.{k}"] == pytest.approx(expected[:, k - 1].mean(), rel=1e-5)
        assert m[f"val.first.{k}"] == pytest.approx(expected[:, :k].mean(), rel=1e-5)
    sizes = [0, *(len(s.encode()) + 1 for s in asked.tokenizer.symbols[1:])]  # a space before each word
    if name == "permutation" and not bos:  # which token is not predicted, its order knows
        assert "val.bits_per_byte" not in m
        return
    unread = set() if bos else {order[0]}
    n_bytes = sum(sizes[t] for w in windows for i, t in enumerate(w) if t < len(sizes) and i not in unread)
    assert m["val.bits_per_byte"] == pytest.approx(expected.sum() / math.log(2) / n_bytes, rel=1e-5)
    assert result.items["document"] == [owner[10 * i] for i in range(n)]
    assert result.items["window"] == list(range(n)) and set(result.items["n"]) == {count}
    assert result.items["sum"] == pytest.approx(expected.sum(1).tolist(), rel=1e-5)
    assert np.allclose(np.array(result.items["losses"]), expected, atol=1e-4), "in reading order"


def test_all_directions_score_the_same_windows(store: TokenStore) -> None:
    packing = component("packing", "windows", seq_len=7)
    found = {}
    for name in ("forward", "backward", "permutation"):
        asked = Asked(store, component("direction", name))
        found[name] = evaluation(store, asked, packing).run(asked.scorer, 0).metrics
    assert len({m["val.windows_hash"] for m in found.values()}) == 1
    assert len({m["val"] for m in found.values()}) == 3
    asked = Asked(store, component("direction", "forward"))
    other = [
        evaluation(store, asked, packing, limit=5),
        evaluation(store, asked, packing, seq_len=8),
        evaluation(store, asked, component("packing", "windows", seq_len=7, separator=False)),
        evaluation(store, asked, packing, splits=("train",)),
    ]
    hashes = [found["forward"]["val.windows_hash"]]
    for one in other:
        metrics = one.run(asked.scorer, 0).metrics
        hashes += [v for k, v in metrics.items() if k.endswith("windows_hash")]
    assert len(set(hashes)) == 5 and all(0 < h < 2**53 and float(h) == h for h in hashes)


def test_limit_takes_the_first_windows_or_spreads_them(store: TokenStore) -> None:
    asked = Asked(store, component("direction", "forward"))
    packing = component("packing", "windows", seq_len=5)
    run = lambda **o: evaluation(store, asked, packing, **o).run(asked.scorer, 0)
    whole = run()
    n = whole.metrics["val.windows"]
    assert n > 12
    assert run(limit=6).items["sum"] == pytest.approx(whole.items["sum"][:6])
    spread = [whole.items["sum"][j * n // 6] for j in range(6)]
    assert run(limit=6, spread=True).items["sum"] == pytest.approx(spread)
    assert run(limit=10 * n, spread=True).metrics == whole.metrics


def test_chunks_and_batches_do_not_matter(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = component("packing", "windows", seq_len=6)
    results = []
    for chunk, batch in ((1 << 18, 4096), (6, 4096), (20, 7)):
        monkeypatch.setattr("lexarium.evaluations.window_loss.CHUNK_TOKENS", chunk)
        asked = Asked(store, component("direction", "backward"), batch=batch)
        results.append(evaluation(store, asked, packing).run(asked.scorer, 0))
    for other in results[1:]:
        assert other.metrics == pytest.approx(results[0].metrics)
        assert other.items["sum"] == pytest.approx(results[0].items["sum"])
        assert other.metrics["val.windows_hash"] == results[0].metrics["val.windows_hash"]


def test_bits_per_byte(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 bytes a word, none for the separator, whatever its id."""
    asked = Asked(store, component("direction", "forward"))
    sizes = np.full(asked.tokenizer.vocab_size, 2)
    monkeypatch.setattr(type(asked.tokenizer), "byte_lengths", lambda self: sizes, raising=False)
    packing = component("packing", "windows", seq_len=10)
    m = evaluation(store, asked, packing).run(asked.scorer, 0).metrics
    ids, _ = stream(store, "val", eos := asked.objective.roles["eos"])
    kept = ids[: len(ids) // 10 * 10]
    n_bytes = 2 * sum(i != eos for i in kept)
    assert m["val.bits_per_byte"] == pytest.approx(m["val"] * m["val.tokens"] / math.log(2) / n_bytes)


def test_held_out_windows_of_the_published_scheme(store: TokenStore) -> None:
    asked = Asked(store, component("direction", "forward"))
    packing = component("packing", "window_shuffle", seq_len=9, held_out=7)
    result = evaluation(store, asked, packing).run(asked.scorer, 0)
    ids, owner = stream(store, "train", None)
    indices = np.arange((len(ids) - 9) // 4)
    np.random.default_rng(42).shuffle(indices)
    expected = [sum(asked.losses(ids[4 * i : 4 * i + 9])) for i in indices[-7:].tolist()]
    assert result.items["sum"] == pytest.approx(expected, rel=1e-5)
    assert result.items["document"] == [owner[4 * i] for i in indices[-7:].tolist()]
    with pytest.raises(UserError, match="held-out windows of the packing have 9 tokens, found seq_len 8"):
        evaluation(store, asked, packing, seq_len=8)


def test_a_model_of_both_directions_is_asked_in_each(store: TokenStore) -> None:
    asked = Asked(store, component("direction", "both"))
    packing = component("packing", "windows", seq_len=6)
    result = evaluation(store, asked, packing).run(asked.scorer, 0)
    ids, _ = stream(store, "val", asked.objective.roles["eos"])
    windows = [ids[s : s + 6] for s in range(0, len(ids) - 5, 6)]
    for name, turn in (("forward", 1), ("backward", -1)):
        expected = np.array([asked.losses(w[::turn], name) for w in windows])
        assert result.metrics[f"val.{name}"] == pytest.approx(expected.mean(), rel=1e-5)
        mine = [s for s, v in zip(result.items["sum"], result.items["view"], strict=True) if v == name]
        assert mine == pytest.approx(expected.sum(1).tolist(), rel=1e-5)
    assert "val" not in result.metrics
    assert result.metrics["val.forward.windows_hash"] == result.metrics["val.backward.windows_hash"]
    with pytest.raises(UserError, match="use the view"):
        asked.scorer.token_scores([]) or asked.scorer.next_scores(["w1"])


def test_refusals(store: TokenStore) -> None:
    asked = Asked(store, component("direction", "forward"))
    with pytest.raises(UserError, match="packing has no seq_len; set the evaluation's seq_len"):
        evaluation(store, asked, component("packing", "documents"))
    with pytest.raises(
        UserError, match=r"split 'val': packing: \d+ tokens do not fill one window of seq_len 5000"
    ):
        evaluation(store, asked, seq_len=5000)
    with pytest.raises(UserError, match=r"a row of 30 tokens .* longer than model.max_positions 24"):
        evaluation(store, asked, seq_len=30).run(asked.scorer, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"packing": {"type": "documents", "max_length": 99}},
            "packing 'documents' has no seq_len to cut by",
        ),
        (
            {
                "objective": {"type": "seq2seq"},
                "model": {"type": "encoder_decoder", "n_layers": 1, "d_model": 16, "n_heads": 2},
            },
            "scores every token of a window, and objective 'seq2seq' predicts only some",
        ),
        (
            {"evaluations": [{"type": "window_loss", "seq_len": 600}]},
            r"evaluation 'window_loss' makes rows of up to 601 tokens .* model.max_positions is 512",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_before_training(change: dict[str, Any], message: str) -> None:
    fit = {"packing": {"type": "windows", "seq_len": 12}, "evaluations": [{"type": "window_loss"}]}
    gpt2 = {
        "type": "transformer",
        "preset": "gpt2",
        "n_layers": 1,
        "d_model": 16,
        "n_heads": 2,
        "max_positions": 512,
    }
    check(tiny_config(**fit, model=gpt2))
    with pytest.raises(Incompatible, match=message):
        check(tiny_config(**{**fit, "model": gpt2, **change}))


@pytest.mark.parametrize(
    ("bos", "eos", "longest"), [(True, True, 11), (True, False, 12), (False, True, 12), (False, False, 13)]
)
def test_a_row_is_the_window_and_its_frame_less_one(bos: bool, eos: bool, longest: int) -> None:
    """With bos and without eos a window of max_positions tokens fits exactly."""
    model = {
        "type": "transformer",
        "preset": "gpt2",
        "n_layers": 1,
        "d_model": 16,
        "n_heads": 2,
        "max_positions": 12,
    }
    fit = {"model": model, "objective": {"type": "causal", "bos": bos, "eos": eos}, "evaluations": []}
    check(tiny_config(**fit, packing={"type": "windows", "seq_len": longest}))
    with pytest.raises(Incompatible, match=r"makes rows of up to 13 tokens \(frame included\)"):
        check(tiny_config(**fit, packing={"type": "windows", "seq_len": longest + 1}))


def test_held_out_windows_need_no_split_of_their_own(tmp_path: Path) -> None:
    """A corpus without `val`: the packing holds windows out, and only an evaluation of windows may ask for them."""
    folder = write_corpus(tmp_path / "corpus", {"train": texts(30, 1)})
    change = {
        "corpus": {"type": TYPE, "folder": str(folder)},
        "packing": {"type": "window_shuffle", "seq_len": 12, "held_out": 6},
    }
    run = tiny_run(tmp_path, **change, evaluations=[{"type": "window_loss"}])
    assert run.train() == "done"
    ((_, _, metrics),) = run.files.evaluations()
    assert metrics["val.windows"] == 6
    with pytest.raises(Incompatible, match="the corpus has no split 'val'"):
        tiny_run(tmp_path, **change, evaluations=[{"type": "loss"}])


def test_in_the_loop_and_afterwards(tmp_path: Path) -> None:
    """A run of both: the last evaluation in the loop, and the same asked of its checkpoint, are equal."""
    run = tiny_run(
        tmp_path,
        packing={"type": "windows", "seq_len": 12},
        direction={"type": "both"},
        evaluations=[
            {"type": "window_loss", "every": 6, "limit": 9, "spread": True},
            {"type": "loss", "splits": ["val"]},
        ],
        stop_when={"metric": "window_loss.val.forward", "above": 1e9},
    )
    assert run.train() == "done"
    again = Run.open(run.path)
    for name in ("window_loss", "loss"):
        step, result = again.evaluate(again.evaluation(name), save=False)
        recorded = {n: m for n, s, m in again.files.evaluations() if s == step}
        assert recorded[name] == result.metrics
        assert {"val.forward", "val.backward"} <= set(result.metrics) and "val" not in result.metrics
    table = pq.read_table(run.path / "evals" / "window_loss" / f"step-{step:08d}.parquet")
    assert table.column_names == ["split", "view", "window", "document", "sum", "n", "losses"]
    assert str(table.schema.field("losses").type) in ("list<item: float>", "list<element: float>")
    assert table.num_rows == 18
