"""Cues of features, against loops over slots of a model's own distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexarium.evaluations.loss import other_terms
from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.segmentation.cues import BASE, FEATURES, cues_alone, cues_in_stream
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.features import describe, vocabulary_features
from lexarium.foundation.types import Example
from lexarium.models.build import build_model
from phonemes import ROWS, table_file
from toy import InMemory

NAMES = ("loss", "entropy", "deviation", "boundary")
STREAM = Stream.of_words([[[4, 9], [6]], [[7]], [[8, 20, 21, 10], [5, 4]]])


def asked(
    folder: Path, bos: bool = True, direction: str = "forward", **options: Any
) -> tuple[Scorer, np.ndarray]:
    """A scorer of a random model, and the values (V, 39) of its tokens."""
    make = lambda kind, name, *given, **more: registry.find(kind, name)(
        registry.find(kind, name).Config(**more), *given
    )
    tokenizer = make("tokenizer", "symbol")
    tokenizer.train(InMemory([" ".join(ROWS)]))
    objective = make("objective", "causal", tokenizer, bos=bos)
    cls = registry.find("model", "transformer").Config
    small = {"type": "transformer", "n_layers": 1, "n_heads": 2, "d_model": 16, "max_positions": 40}
    config = validate(cls, Source({**small, "features": {"path": str(table_file(folder))}, **options}))
    model = build_model(config, objective.vocab_size, 1).double()
    with torch.no_grad():
        model.embedding.weight.mul_(40)
    describe(model, tokenizer, objective.roles)
    scorer = Scorer(model, objective, make("direction", direction), tokenizer, batch_tokens=30)
    return scorer, vocabulary_features(config.features, tokenizer, objective.roles)


@pytest.mark.parametrize("bos", [True, False])
def test_cues_by_the_definition(bos: bool, tmp_path: Path) -> None:
    scorer, values = asked(tmp_path, bos)
    rows = [np.array([4, 9, 6, 12]), np.array([7, 5]), np.array([3, 8, 20, 21, 10])]
    targets = [np.append(row if bos else row[1:], -1) for row in rows]
    for row, wanted, found in zip(rows, targets, scorer.predictions(rows, targets, 3), strict=True):
        ids = torch.tensor([[3, *row] if bos else row.tolist()])
        with torch.no_grad():
            hidden = scorer.model(tokens=ids).hidden
            logits = (hidden @ scorer.model.embedding.weight.T).reshape(len(hidden), 39, 3)
        assert found.shape == (len(row) + bos, 4 + len(NAMES))
        found = found[:, 4:]
        for place, target in enumerate(wanted.tolist()):
            p = logits[place].softmax(-1).numpy()
            losses = [-np.log(p[s, values[target, s]]) for s in range(39)]
            entropy = np.mean([-sum(x * np.log(x) for x in p[s] if x > 0) for s in range(39)])
            got = dict(zip(NAMES, found[place].tolist(), strict=True))
            assert got["entropy"] == pytest.approx(entropy) and got["boundary"] == pytest.approx(p[38, 1])
            if target < 0:
                assert np.isnan(got["loss"]) and np.isnan(got["deviation"])
            else:
                assert got["loss"] == pytest.approx(np.mean(losses))
                assert got["deviation"] == pytest.approx(np.std(losses))
        assert found[:, 3].std() > 0.1 * found[:, 3].mean(), "constants would prove nothing"


def test_other_models_have_none(tmp_path: Path) -> None:
    scorer, _ = asked(tmp_path, tied=False)
    assert scorer.predictions([np.array([4])], [np.array([5, -1])], 3)[0].shape == (2, 4)
    assert set(cues_alone(scorer, STREAM)) == {*BASE, *(f"increase_in_{name}" for name in BASE)}


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_the_held_out_loss_is_that_of_the_objective(bos: bool, eos: bool, tmp_path: Path) -> None:
    """Its mean over what is predicted, in batches of documents of any length; nothing for a loss of tokens."""
    scorer, _ = asked(tmp_path, bos)
    scorer.objective = type(scorer.objective)(
        scorer.objective.config.model_copy(update={"loss": "features", "eos": eos}), scorer.tokenizer
    )
    rows = [np.array(ids) for ids in ([4, 9, 6, 12], [7, 5], [8, 20, 21, 10], [11, 12, 4])]
    examples = [
        Example(r, np.arange(len(r)), np.zeros(len(r), np.int64), {}, (i,), i) for i, r in enumerate(rows)
    ]
    targets = [np.append(r if bos else r[1:], 3 if eos else -1) for r in rows]
    losses = np.concatenate([p[:, 4] for p in scorer.predictions(rows, targets, 3)])
    found = other_terms(scorer, examples, "val")
    assert list(found) == ["val.feature_ce"]
    assert found["val.feature_ce"] == pytest.approx(np.nanmean(losses), rel=1e-9)
    scorer.objective = type(scorer.objective)(
        scorer.objective.config.model_copy(update={"loss": "tokens"}), scorer.tokenizer
    )
    assert other_terms(scorer, examples, "val") == {}


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("bos", [True, False])
def test_they_are_cues_of_word_boundaries(bos: bool, direction: str, tmp_path: Path) -> None:
    """Each utterance alone: what is predicted of x_t belongs to the cut before it, read backwards to the one behind."""
    scorer, values = asked(tmp_path, bos, direction)
    found = cues_alone(scorer, STREAM)
    assert list(found) == [*BASE, *FEATURES, *(f"increase_in_{name}" for name in (*BASE, *FEATURES))]
    for i in range(STREAM.n_utterances):
        places = np.flatnonzero(STREAM.utterance == i)
        own = STREAM.symbols[places[:-1]].tolist()
        own = own[::-1] if direction == "backward" else own
        ids = torch.tensor([[3, *own]])
        with torch.no_grad():
            hidden = scorer.model(tokens=ids).hidden
            p = (hidden @ scorer.model.embedding.weight.T).reshape(len(hidden), 39, 3).softmax(-1).numpy()
        wanted = [
            np.mean([-np.log(p[k, s, values[target, s]]) for s in range(39)])
            for k, target in enumerate([*own, 3])
        ]
        cuts = places[::-1] if direction == "backward" else places
        np.testing.assert_allclose(found["feature_loss"][cuts], wanted)
        np.testing.assert_allclose(found["feature_boundary"][cuts], p[:, 38, 1])
        steps = [0.0, *np.diff(wanted)]
        np.testing.assert_allclose(found["increase_in_feature_loss"][cuts], steps, atol=1e-12)


def test_they_are_cues_in_a_stream(tmp_path: Path) -> None:
    """In one window the whole stream is one row."""
    scorer, _ = asked(tmp_path, bos=False)
    ids = np.where(STREAM.ends, 3, STREAM.symbols)
    row = np.array([3, *ids])
    whole = scorer.predictions([row], [np.append(ids, -1)], 3)[0][:-1]
    found = cues_in_stream(scorer, STREAM, window=30, stride=5)
    for name, column in zip(FEATURES, whole.T[4:], strict=True):
        np.testing.assert_allclose(found[name], column)
    shorter = cues_in_stream(scorer, STREAM, window=6, stride=2)
    np.testing.assert_allclose(shorter["feature_loss"][:5], found["feature_loss"][:5])
    assert (np.abs(shorter["feature_loss"] - found["feature_loss"])[6:] > 1e-9).any()
