"""Label smoothing and cross-entropy against the formula, and in pieces against the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lexarium.foundation.types import Output
from lexarium.objectives import framing

N, D, V = 37, 6, 11


def logits_and_labels(dtype: torch.dtype = torch.float64) -> tuple[Output, torch.Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(D, V, dtype=dtype)
    nn.init.normal_(layer.weight, generator=generator)
    hidden = torch.randn(N, D, generator=generator, dtype=dtype)
    labels = torch.randint(0, V, (N,), generator=generator)
    return Output(hidden, layer), labels, layer


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_formula(smoothing: float) -> None:
    """Szegedy et al. (2016), section 7: targets (1 - e) * one-hot + e / V, on all V symbols."""
    output, labels, layer = logits_and_labels()
    logits = (output.hidden @ layer.weight.T + layer.bias).detach().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((N, V), smoothing / V)
    target[np.arange(N), labels.numpy()] += 1 - smoothing
    expected = -(target * log_p).sum()
    found = framing.cross_entropy_sum(output, labels, smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_left_out_labels_count_nothing() -> None:
    output, labels, _ = logits_and_labels()
    some = labels.clone()
    some[::3] = -100
    kept = [i for i in range(N) if i % 3]
    found = framing.cross_entropy_sum(output, some, 0.1)
    part = framing.cross_entropy_sum(Output(output.hidden[kept], output.unembed), labels[kept], 0.1)
    torch.testing.assert_close(found, part)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_in_pieces(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large vocabularies are unembedded piece by piece and recomputed in the backward pass: same loss and gradient."""
    generator = torch.Generator().manual_seed(0)
    n = (1 << 12) + 13  # more tokens than are always taken whole
    layer = nn.Linear(D, V, dtype=torch.float64)
    labels = torch.randint(0, V, (n,), generator=generator)
    values = torch.randn(n, D, generator=generator, dtype=torch.float64)
    found = {}
    for largest in (1 << 25, 1000 * V):
        monkeypatch.setattr(framing, "LARGEST_LOGITS", largest)
        hidden = values.clone().requires_grad_()
        layer.zero_grad()
        loss = framing.cross_entropy_sum(Output(hidden, layer), labels, smoothing)
        loss.backward()
        found[largest] = loss.detach(), hidden.grad, layer.weight.grad.clone()
    whole, pieces = found.values()
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_half_precision_logits_are_summed_in_single() -> None:
    output, labels, _ = logits_and_labels(torch.float32)
    half = Output(output.hidden.bfloat16(), lambda h: output.unembed(h.float()).bfloat16())
    found = framing.cross_entropy_sum(half, labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(framing.cross_entropy_sum(output, labels).item(), rel=0.02)
