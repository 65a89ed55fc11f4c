"""Cues against a naive loop (one prediction, one model call), and the evaluation against hand-made cases."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lexarium.corpora.utterances import Utterances
from lexarium.evaluations.evaluation import EvaluationData
from lexarium.evaluations.predictability import token_statistics
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.segmentation.cues import BASE, CUES, cues_alone, cues_in_stream
from lexarium.evaluations.segmentation.decisions import best_threshold, peaks
from lexarium.evaluations.segmentation.gold import stream_of
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.segmentation import Segmentation
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import UserError
from lexarium.models.build import build_model
from lexarium.tokens.prepare import open_tokenizer, prepare
from lexarium.tokens.store import TokenStore, ViewConfig
from lexarium.tokens.subsample import Subsample
from lexarium.tokens.symbols import SymbolTokenizer

WORDS = ["ba", "dog", "ti", "a", "gola"]


def make(folder: Path, lines: list[str], tokenizer: Any = None, **options: Any) -> EvaluationData:
    (folder / "u.txt").write_text("\n".join(lines) + "\n")
    given = {"type": "utterances", "path": str(folder / "u.txt"), "form": "letters", "split": {"val": 0}}
    corpus = validate(Utterances.Config, Source({**given, **options}))
    chosen = tokenizer or SymbolTokenizer.Config(unit="character")
    store = prepare(corpus, chosen, folder / "stores")
    return EvaluationData(store, open_tokenizer(chosen, store.folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, random.integers(1, 5))) for _ in range(12)]
    return make(tmp_path_factory.mktemp("u"), lines)


def component(kind: str, name: str, *given: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *given)


def asked(
    data: EvaluationData, direction: str = "forward", model: str = "transformer", bos: bool = False
) -> Scorer:
    objective = component("objective", "causal", data.tokenizer, bos=bos, eos=False)
    options = {"max_positions": 260} if model == "transformer" else {"cell": "gru"}
    if model == "transformer":
        options |= {"n_heads": 2, "initialisation": "xavier"}
    config = registry.find("model", model).Config(n_layers=1, d_model=8, **options)
    built = build_model(config, objective.roles.vocab_size, seed=3).double()
    with torch.no_grad():
        for p in built.parameters():
            p.mul_(2)
    return Scorer(built.eval(), objective, component("direction", direction), data.tokenizer, batch_tokens=50)


def predicted(scorer: Scorer, context: list[int], target: int, mark: int) -> list[float]:
    """Boundary probability, entropy, loss and rank of one prediction, from one call of the model."""
    bos = [scorer.roles["bos"]] if scorer.objective.config.bos else []
    with torch.no_grad():
        output = scorer.model(tokens=torch.tensor([bos + context]))
        p = output.unembed(output.hidden)[-1].softmax(-1).numpy()
    rank = sum(value > p[target] for value in p)
    return [p[mark], -sum(x * math.log(x) for x in p), -math.log(p[target]), math.log2(1 + rank)]


def rises(values: list[list[float]], first: set[int]) -> np.ndarray:
    """(N, 8): the four and their increases from one prediction to the next."""
    found = np.array(values)
    steps = np.array([[0.0] * 4 if i in first else found[i] - found[i - 1] for i in range(len(found))])
    return np.concatenate([found, steps], axis=1)


CASES = pytest.mark.parametrize(
    "direction, model, bos",
    [("forward", "transformer", False), ("backward", "transformer", False), ("forward", "transformer", True),
     ("backward", "recurrent", True), ("forward", "recurrent", False)],
)  # fmt: skip


@CASES
@pytest.mark.parametrize("window, stride", [(12, 5), (7, 1), (200, 3)])
def test_cues_in_a_stream(
    data: EvaluationData, direction: str, model: str, bos: bool, window: int, stride: int
) -> None:
    """Every prediction after the first window sees window - stride to window - 1 tokens, across utterances."""
    scorer, stream = asked(data, direction, model, bos), stream_of(data.view("train"), "word_start")
    mark = scorer.roles["eos"]
    ids = [mark, *(mark if s < 0 else s for s in stream.symbols.tolist())]
    read = ids[::-1] if direction == "backward" else ids
    values = []
    for k in range(1, len(read)):
        start = 0 if k < window else -(-(k - window + 1) // stride) * stride
        values.append(predicted(scorer, read[start:k], read[k], mark))
    wanted = rises(values, {0})
    if (
        direction == "backward"
    ):  # predictions of x_M-2 ... x_0 and of the boundary before; the last symbol is read first
        wanted = wanted[::-1]
    found = cues_in_stream(scorer, stream, window, stride)
    assert tuple(found) == CUES and all(len(v) == len(stream) for v in found.values())
    np.testing.assert_allclose(np.stack([found[c] for c in CUES], 1), wanted, atol=1e-9)


@CASES
def test_cues_of_utterances_alone(data: EvaluationData, direction: str, model: str, bos: bool) -> None:
    scorer, stream = asked(data, direction, model, bos), stream_of(data.view("train"), "word_start")
    mark, found = scorer.roles["eos"], cues_alone(scorer, stream)
    table = np.stack([found[c] for c in CUES], 1)
    for i in range(stream.n_utterances):
        places = np.flatnonzero(stream.utterance == i)
        ids = stream.symbols[places[:-1]].tolist()
        own = ids[::-1] if direction == "backward" else ids
        front = [] if bos else [mark]
        values = [predicted(scorer, front + own[:k], [*own, mark][k], mark) for k in range(len(own) + 1)]
        wanted = rises(values, {0})
        np.testing.assert_allclose(
            table[places], wanted[::-1] if direction == "backward" else wanted, atol=1e-9
        )


class Known:
    """Answers like a scorer whose model knows where words begin: the utterance boundary is likely there."""

    def __init__(self, data: EvaluationData, direction: str) -> None:
        self.real = asked(data, direction)
        self.direction, self.roles, self.objective = direction, self.real.roles, self.real.objective
        view = data.view("train")
        self.starts = stream_of(view, "word_start")

    def views(self) -> dict[str, Any]:
        return {"": self}

    def predictions(self, rows: list, targets: list, mark: int) -> list[np.ndarray]:
        """All of them, in one row: the evaluation is asked with a window longer than the stream."""
        (row,), n = rows, len(self.starts)
        gold = np.append(self.starts.starts, False)  # cut before stream position t
        high = gold[:n] if self.direction == "forward" else gold[:n][::-1]
        cue = np.where(high, 0.9, 0.1)
        found = np.zeros((len(row), 4))
        found[:n, 3], found[:n, 0] = cue, 1 - cue
        return [found]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_model_that_knows_finds_every_word_and_one_position_off_none(
    data: EvaluationData, direction: str
) -> None:
    """Alignment: the cue at t is the cut before x_t, read forwards or backwards."""
    known = Known(data, direction)
    evaluation = Segmentation(
        validate(Segmentation.Config, Source({"type": "segmentation", "splits": ["train"], "contexts": ["stream"],
                                              "window": 4000, "tune": "oracle"})), data
    )  # fmt: skip
    found = evaluation.run(known, 0)
    assert found.metrics["train.boundary.threshold.boundary.f"] == 1
    assert found.metrics["train.boundary.threshold.type.f"] == 1
    assert found.metrics["train.loss.threshold.boundary.f"] < 0.8
    values = np.array(found.items["boundary"])
    stream = known.starts
    for shift in (-1, 1):
        moved = np.roll(values, shift)
        assert score(stream, moved > 0.5)["boundary.f"] < 0.5
    assert found.items["word_start"] == stream.starts.tolist()


def run(data: EvaluationData, scorer: Any, **options: Any) -> dict[str, Any]:
    config = validate(Segmentation.Config, Source({"type": "segmentation", "splits": ["train"], **options}))
    return Segmentation(config, data).run(scorer, 0).metrics


def test_thresholds_are_chosen_on_the_other_half(data: EvaluationData) -> None:
    """Against the same, written out; an oracle is at least as good."""
    scorer, stream = asked(data), stream_of(data.view("train"), "word_start")
    crossed = run(data, scorer, contexts=["stream"], window=20, stride=5)
    oracle = run(data, scorer, contexts=["stream"], window=20, stride=5, tune="oracle")
    cues = cues_in_stream(scorer, stream, 20, 5)
    even = stream.utterance % 2 == 0
    for cue in CUES:
        values, cuts = cues[cue], np.zeros(len(stream), dtype=bool)
        for own in (even, ~even):
            theta = best_threshold(values[~own], stream.part(~own))
            cuts[own] = values[own] > theta
        name = f"train.{cue}"
        assert crossed[f"{name}.threshold.boundary.f"] == score(stream, cuts)["boundary.f"]
        assert crossed[f"{name}.peak.token.f"] == score(stream, peaks(values))["token.f"]
        assert oracle[f"{name}.threshold.boundary.f"] >= crossed[f"{name}.threshold.boundary.f"] - 1e-12
    votes = sum((peaks(cues[c]) & (np.arange(len(stream)) % (len(stream) - 1) > 0)).astype(int) for c in CUES)
    assert crossed["train.vote_peak.threshold.boundary.f"] == score(stream, votes > 4)["boundary.f"]
    assert crossed["train.bits_per_symbol"] == pytest.approx(cues["loss"].mean() / math.log(2))
    assert crossed["train.utterances"] == 12 and len(BASE) == 4


def test_what_cannot_be_scored_is_refused(tmp_path: Path, data: EvaluationData) -> None:
    for i, (options, tokenizer, told) in enumerate(
        (
            ({"boundaries": "token"}, None, "word boundaries stand in the text"),
            (
                {"boundaries": "token"},
                registry.find("tokenizer", "character").Config(),
                "word boundaries stand in the text",
            ),
            ({}, registry.find("tokenizer", "bpe").Config(vocab_size=259), "some reach over a word boundary"),
        )
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        other = make(folder, ["ab ab ab", "ab ab"], tokenizer, **options)
        with pytest.raises(UserError, match=told):
            run(other, None)
    with pytest.raises(UserError, match="direction 'permutation': what a cue says"):
        run(data, asked_permuted(data))
    for wrong, told in (
        ({"stride": 64}, "leaves gaps between windows of 64"),
        ({"search": "bounded"}, "say tune: oracle"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(data, None, **wrong)


def asked_permuted(data: EvaluationData) -> Any:
    found = asked(data)
    found.direction = "permutation"
    return found


def test_a_stream_without_channel_is_refused(tmp_path: Path) -> None:
    from toy import tokenizer_config, toy_store

    store: TokenStore = toy_store(tmp_path, {"train": ["a b", "c"]})
    with pytest.raises(UserError, match="the corpus has no channel 'word_start'"):
        run(EvaluationData(store, open_tokenizer(tokenizer_config(), store.folder)), None)


def test_streams_of_one_utterance() -> None:
    stream = Stream.of_words([[[1, 2], [3]]])
    assert stream.n_utterances == 1 and best_threshold(np.array([0.0, 1, 2, 0]), stream) == 1.0


def test_a_corpus_of_one_symbol_words_is_refused(tmp_path: Path) -> None:
    """`wʌt kæt` without spaces inside words would score perfectly: every symbol begins a word."""
    (tmp_path / "v.txt").write_text("wʌt WORD_BOUNDARY kæt WORD_BOUNDARY\nðə WORD_BOUNDARY\n" * 10)
    corpus = validate(
        Utterances.Config,
        Source({"type": "utterances", "path": str(tmp_path / "v.txt"), "split": {"val": 0}}),
    )
    store = prepare(corpus, SymbolTokenizer.Config(), tmp_path / "glued")
    data = EvaluationData(store, open_tokenizer(SymbolTokenizer.Config(), store.folder))
    with pytest.raises(UserError, match="every symbol is a word of its own"):
        Segmentation(Segmentation.Config(splits=("train",)), data)


def test_symbols_outside_the_vocabulary_are_counted(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("ba xo\nxa ba\n")
    tokenizer = SymbolTokenizer.Config(unit="character", min_count=1)
    data = make(tmp_path, ["ba ba oba", "oba ba"], tokenizer, val_path=str(tmp_path / "v.txt"), split={})
    config = Segmentation.Config(splits=("train", "val"), window=8, stride=4, contexts=("stream",))
    found = Segmentation(config, data).run(asked(data), 0).metrics
    assert (found["train.unknown"], found["val.unknown"]) == (0, 2)
    assert (found["train.unseen"], found["val.unseen"]) == (
        0,
        0,
    )  # what the vocabulary lacks is told as unknown


def test_utterances_that_a_model_cannot_read_alone_are_refused_when_it_is_built(data: EvaluationData) -> None:
    longest = int(data.view("train").lengths.max()) + 1
    asked_of = lambda limit: EvaluationData(data.store, data.tokenizer, max_length=limit)
    told = rf"has {longest} tokens with its boundary, and model\.max_positions is {longest - 1}.*contexts: \[stream\]"
    with pytest.raises(UserError, match=told):
        Segmentation(Segmentation.Config(splits=("train",)), asked_of(longest - 1))
    Segmentation(Segmentation.Config(splits=("train",)), asked_of(longest))
    Segmentation(Segmentation.Config(splits=("train",), contexts=("stream",)), asked_of(8))


@pytest.mark.parametrize("tune", ["crossed", "oracle"])
def test_thresholds_are_told(data: EvaluationData, tune: str) -> None:
    """Those of every second utterance are chosen on the others; where everything is cut there is none."""
    config = Segmentation.Config(splits=("train",), contexts=("stream",), window=4000, tune=tune)  # type: ignore[arg-type]
    known, told = Known(data, "forward"), 0
    stream, real = known.starts, known.predictions

    def noisy(*given: Any) -> list[np.ndarray]:
        return [
            rows + np.random.default_rng(1).normal(0, 0.4, rows.shape).clip(-0.09) for rows in real(*given)
        ]

    known.predictions = noisy  # type: ignore[method-assign]
    result = Segmentation(config, data).run(known, 0)
    even = stream.utterance % 2 == 0
    for cue in CUES:
        values = np.array(result.items[cue])
        others = (
            {"even": ~even, "odd": even}
            if tune == "crossed"
            else dict.fromkeys(("even", "odd"), even | ~even)
        )
        wanted = {w: best_threshold(values[places], stream.part(places)) for w, places in others.items()}
        for which, theta in wanted.items():
            assert result.metrics.get(f"train.{cue}.threshold.theta_{which}", -math.inf) == theta
            told += theta > -math.inf
        cuts = values > np.where(even, *wanted.values())
        assert score(stream, cuts)["boundary.f"] == result.metrics[f"train.{cue}.threshold.boundary.f"]
    assert told >= 4


def test_symbols_that_training_never_has_are_counted_and_told(tmp_path: Path) -> None:
    """With min_count 0 the vocabulary holds them; those of the documents a run trains on are what it has seen."""
    (tmp_path / "v.txt").write_text("ba xo\nxa ba\nbu\n")
    data = make(tmp_path, ["ba ba oba", "oba ba", "ubu"], val_path=str(tmp_path / "v.txt"), split={})
    config = Segmentation.Config(splits=("train", "val"), window=8, stride=4, contexts=("stream",))
    result = Segmentation(config, data).run(asked(data), 0)
    found = result.metrics
    assert (found["train.unseen"], found["val.unseen"], found["val.unknown"]) == (0, 2, 0)
    assert Segmentation(config, data).log_line(result).endswith("; val: symbols never seen in training: 2")
    first = ViewConfig(subsample=Subsample(count=2, seed=next(s for s in range(9) if not _taken(data, s, 2))))
    part = EvaluationData(data.store, data.tokenizer, first)
    found = Segmentation(config, part).run(asked(data), 0).metrics
    assert found["val.unseen"] == 3, "u is in the document that the sample leaves out"


def _taken(data: EvaluationData, seed: int, document: int) -> bool:
    view = data.store.view("train", ViewConfig(subsample=Subsample(count=2, seed=seed)))
    return document in view.documents.tolist()


def test_predictions_that_are_no_numbers_have_no_scores(data: EvaluationData) -> None:
    """Rank 0 and entropy 0 of a broken model would be those of a perfect one."""
    scorer = asked(data)
    with torch.no_grad():
        next(iter(scorer.model.parameters())).fill_(math.nan)
    result = Segmentation(Segmentation.Config(splits=("train",), window=12, stride=5), data).run(scorer, 0)
    counts = ("utterances", "unknown", "unseen")
    scores = {k: v for k, v in result.metrics.items() if not k.endswith(counts) and "theta" not in k}
    assert "train.rank.peak.boundary.f" in scores and "train.alone.vote_peak.peak.type.f" in scores
    assert not [k for k, v in scores.items() if math.isfinite(v)]
    assert all(math.isnan(v) for k, v in scores.items() if not k.endswith(("perplexity", "bits_per_symbol")))


def test_a_great_loss_has_a_perplexity(data: EvaluationData) -> None:
    known = Known(data, "forward")
    known.predictions = lambda *given: [rows + 9.0 for rows in Known(data, "forward").predictions(*given)]  # type: ignore[method-assign]
    config = Segmentation.Config(splits=("train",), contexts=("stream",), window=4000)
    found = Segmentation(config, data).run(known, 0)
    assert found.metrics["train.perplexity"] == pytest.approx(math.exp(np.mean(found.items["loss"])))
    assert found.metrics["train.perplexity"] > math.exp(9)


@pytest.mark.parametrize(("bos", "eos", "separator"), [(False, False, False), (True, False, False), (False, True, False), (False, False, True)])  # fmt: skip
def test_utterance_boundaries_that_training_never_predicts_are_told(
    data: EvaluationData, bos: bool, eos: bool, separator: bool
) -> None:
    """Their probability, the best cue, then means nothing."""
    packing = component("packing", "windows", seq_len=16, separator=separator)
    own = EvaluationData(data.store, data.tokenizer, packing=packing)
    scorer = asked(data, bos=bos)
    scorer.objective = component("objective", "causal", data.tokenizer, bos=bos, eos=eos)
    config = Segmentation.Config(splits=("train",), contexts=("stream",), window=12, stride=5)
    result = Segmentation(config, own).run(scorer, 0)
    never = 0 if eos or separator else result.metrics["train.utterances"]
    assert result.metrics["train.unseen"] == never
    assert ("never seen in training" in Segmentation(config, own).log_line(result)) == bool(never)


@pytest.mark.parametrize("aim", ["boundary", "type"])
def test_thresholds_are_chosen_for_what_is_asked(data: EvaluationData, aim: str) -> None:
    config = Segmentation.Config(
        splits=("train",), contexts=("stream",), window=12, stride=5, tune="oracle", aim=aim
    )  # type: ignore[arg-type]
    result = Segmentation(config, data).run(asked(data), 0)
    stream = stream_of(data.view("train"), "word_start")
    best = {a: best_threshold(np.array(result.items["loss"]), stream, a) for a in ("boundary", "type")}
    assert best["boundary"] != best["type"]
    cuts = np.array(result.items["loss"]) > best[aim]
    for measure in ("boundary.f", "type.f"):
        assert result.metrics[f"train.loss.threshold.{measure}"] == score(stream, cuts)[measure]


def test_every_document_of_train_is_looked_at_for_symbols(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lexarium.evaluations.segmentation.gold.LOOK", 2)
    (tmp_path / "v.txt").write_text("xo ba\n")
    data = make(tmp_path, [*["ba ba"] * 5, "xo xa"], val_path=str(tmp_path / "v.txt"), split={})
    config = Segmentation.Config(splits=("val",), window=8, stride=4, contexts=("stream",))
    assert Segmentation(config, data).run(asked(data), 0).metrics["val.unseen"] == 0


def test_of_a_distribution_that_is_none_nothing_is_known() -> None:
    rows = torch.tensor([[0.0, 1.0, 2.0], [math.nan, 1.0, 2.0], [0.0, math.inf, 0.0]])
    output: Any = SimpleNamespace(hidden=rows, unembed=lambda hidden: hidden)
    found = token_statistics(output, torch.tensor([2, 2, -1]), 0)
    assert np.isfinite(found[0]).all() and found[0, 1] == 0
    assert found[1, 0] == math.inf and np.isnan(found[1, 1:]).all()
    assert np.isnan(found[2]).all()
