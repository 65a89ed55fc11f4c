"""The loss of features: by hand over slots, and against the loss of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lexarium.foundation import registry
from lexarium.foundation.config import ConfigError, Source, validate
from lexarium.foundation.types import Batch, Output, UserError
from toy import example, toy_tokenizer

TOKENIZER = toy_tokenizer(["a b c d e"])
V, S, C, D = 8, 5, 3, 6


def objective(**options: Any) -> Any:
    cls = registry.find("objective", "causal")
    return cls(validate(cls.Config, Source({"type": "causal", **options})), TOKENIZER)


def output(n: int) -> tuple[Output, torch.Tensor, torch.Tensor]:
    """Random states of a model of S features of C values, the values (V, S) and the logits (n, S, C)."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, C, (V, S), generator=generator)
    weight = torch.randn(S * C, D, generator=generator, dtype=torch.float64)
    hidden = torch.randn(n, D, generator=generator, dtype=torch.float64, requires_grad=True)
    one_hot = F.one_hot(values, C).double()
    matrix = one_hot.reshape(V, -1) @ weight
    unembed = lambda h: (h @ weight.T).reshape(-1, S, C)
    return (
        Output(hidden, lambda h: h @ matrix.T, features=(one_hot, unembed)),
        values,
        unembed(hidden).detach(),
    )


def test_the_loss_is_a_mean_over_features_and_a_sum_over_tokens() -> None:
    causal = objective(loss="features")
    batch = causal.collate([example([1, 2]), example([3])])
    assert batch.weights == {"feature_ce": 5}
    found, values, logits = output(5)
    (name, term), *rest = causal.loss(found, batch).items()
    assert name == "feature_ce" and not rest
    expected = 0.0
    for i, label in enumerate(batch.targets["labels"].tolist()):
        for slot in range(S):
            expected += float(F.cross_entropy(logits[i, slot][None], values[label, slot][None])) / S
    assert float(term.sum.detach()) == pytest.approx(expected, rel=1e-12)
    term.sum.backward()
    assert bool(found.hidden.grad.any())


def test_what_is_left_out_of_the_loss_has_no_gradient() -> None:
    causal, labels = objective(loss="features"), torch.tensor([1, -100, 2])
    whole, *_ = output(3)
    causal.loss(whole, Batch({}, {"labels": labels}, {}))["feature_ce"].sum.backward()
    assert not whole.hidden.grad[1].any() and bool(whole.hidden.grad[0].any())


def test_both_losses_have_the_same_token_term() -> None:
    """ce = - sum of the label's slot logits + log of the norm over tokens; S * feature_ce has the slots' norms."""
    found, _, logits = output(4)
    labels = torch.tensor([1, 5, 5, 7])
    batch = Batch({}, {"labels": labels}, {})
    tokens = float(objective().loss(found, batch)["ce"].sum)
    features = float(objective(loss="features").loss(found, batch)["feature_ce"].sum)
    own = found.unembed(found.hidden)
    norms = own.logsumexp(-1).sum() - logits.logsumexp(-1).sum()
    assert tokens - S * features == pytest.approx(float(norms), rel=1e-12)


def test_what_does_not_go_together() -> None:
    with pytest.raises(ConfigError, match="label_smoothing belongs to loss: tokens"):
        objective(loss="features", label_smoothing=0.1)
    hidden = torch.zeros(2, V)
    with pytest.raises(UserError, match="needs a model that predicts features: set model.features"):
        objective(loss="features").loss(
            Output(hidden, lambda h: h), Batch({}, {"labels": torch.tensor([1, 2])}, {})
        )
