"""Cues of features, against loops over slots of a model's own distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexarium.evaluations.feature_cues import NAMES, feature_predictions
from lexarium.evaluations.scorer import Scorer
from lexarium.foundation import registry
from lexarium.foundation.config import Source, validate
from lexarium.foundation.features import describe, vocabulary_features
from lexarium.foundation.types import UserError
from lexarium.models.build import build_model
from phonemes import ROWS, table_file
from toy import InMemory


def asked(folder: Path, bos: bool = True, **options: Any) -> tuple[Scorer, np.ndarray]:
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
    scorer = Scorer(model, objective, make("direction", "forward"), tokenizer, batch_tokens=30)
    return scorer, vocabulary_features(config.features, tokenizer, objective.roles)


@pytest.mark.parametrize("bos", [True, False])
def test_cues_by_the_definition(bos: bool, tmp_path: Path) -> None:
    scorer, values = asked(tmp_path, bos)
    rows = [np.array([4, 9, 6, 12]), np.array([7, 5]), np.array([3, 8, 20, 21, 10])]
    targets = [np.append(row if bos else row[1:], -1) for row in rows]
    for row, wanted, found in zip(rows, targets, feature_predictions(scorer, rows, targets), strict=True):
        ids = torch.tensor([[3, *row] if bos else row.tolist()])
        with torch.no_grad():
            hidden = scorer.model(tokens=ids).hidden
            logits = (hidden @ scorer.model.embedding.weight.T).reshape(len(hidden), 39, 3)
        assert found.shape == (len(row) + bos, len(NAMES))
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
    with pytest.raises(UserError, match="cues of features need a model that predicts features"):
        feature_predictions(scorer, [np.array([4])], [np.array([5, -1])])
