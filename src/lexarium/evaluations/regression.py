"""Logistic regression of two classes, exactly: Newton's method in float64.

Minimised is |w|^2 / 2 + C * sum over examples of log(1 + exp(-y (w . x + b))), y = 1 or -1: the L2-regularised problem
with an unregularised intercept that scikit-learn's LogisticRegression solves, C = 1 being its default. It is strictly
convex, so the answer does not depend on where the search begins, only its cost does. A step costs N d^2 products; from
the solution of nearly the same examples three to five are enough.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_STEPS = 200
TOLERANCE = 1e-6
"""Largest entry of the last step, relative to the weights. Convergence is quadratic: the error is about its square."""
DAMPING = 1e-9
"""Curvature of the intercept at least, where all probabilities are 0 or 1; the solution does not depend on it."""


def logistic_regression(x: Tensor, y: Tensor, c: float = 1.0, start: Tensor | None = None) -> Tensor:
    """(d + 1,) float64: weights and, last, the intercept. x (N, d) float64; y (N,) bool, both classes among them.

    Raises ArithmeticError when the search does not end, which numbers that are not finite do.
    """
    rows = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    target = y.to(x.dtype)
    penalty = x.new_ones(rows.shape[1])
    penalty[-1] = 0.0
    weights = x.new_zeros(rows.shape[1]) if start is None else start.clone()

    def loss(w: Tensor, scores: Tensor) -> float:
        # log(1 + exp(s)) - y s is the negative log-probability of a Bernoulli variable with logit s
        return float((penalty * w * w).sum() / 2 + c * (F.softplus(scores) - target * scores).sum())

    scores = rows @ weights
    value = loss(weights, scores)
    if not math.isfinite(value):
        raise ArithmeticError("logistic regression of numbers that are not finite")
    for _ in range(MAX_STEPS):
        probability = scores.sigmoid()
        gradient = penalty * weights + c * (rows.t() @ (probability - target))
        curvature = c * probability * (1 - probability)
        hessian = (rows * curvature[:, None]).t() @ rows + penalty.clamp_min(DAMPING).diag()
        step = torch.linalg.solve(hessian, gradient)
        decrease, size = float(gradient @ step), 1.0
        while True:
            moved = weights - size * step
            scores = rows @ moved
            new = loss(moved, scores)
            if new <= value - 1e-4 * size * decrease or abs(new - value) <= 1e-12 * abs(value):
                break
            size /= 2
            if size < 1e-15:
                raise ArithmeticError(f"logistic regression of {len(x)} examples finds no way down")
        weights, value = moved, new
        if size == 1.0 and float(step.abs().max()) <= TOLERANCE * (1.0 + float(weights.abs().max())):
            return weights
    raise ArithmeticError(f"logistic regression of {len(x)} examples did not end in {MAX_STEPS} steps")
