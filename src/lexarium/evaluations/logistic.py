"""L2-regularised logistic regression of two classes, solved to the end.

With features x scaled to mean 0 and variance 1 (a constant feature to 0), y in {0, 1} and example weights s, minimise

    sum_i s_i (log(1 + exp(z_i)) - y_i z_i) + strength / 2 |w|^2        z_i = w . x_i + b

The intercept b is free. The problem is strictly convex, so it has one solution; Newton's method with halved steps
(Boyd and Vandenberghe 2004, 9.5) finds it in float64: it stops when the gradient's squared length in the inverse
Hessian, half of which is the distance to the minimum, is below 1e-14 of the objective.

Cost: of n examples and D features, n D^2 operations per step, five to fifteen steps; two tables of n x D floats.
Refused: labels of one class only, features that are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-14
STEPS = 200
SLOPE = 1e-4
"""Share of the promised decrease that a step must bring."""
ROUNDING = 1e-12
"""By how much of the objective a step near the minimum may seem to go up: sums in float64 are no better."""


@dataclass(frozen=True)
class Probe:
    """A fitted classifier: mean, scale and weights (D,) of the features, and the intercept."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """(n,) float64 of (n, D) features: above 0 where the positive class is the more probable one."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        found: np.ndarray = scaled @ self.weights + self.intercept
        return found


def fit(features: np.ndarray, labels: np.ndarray, strength: float, balanced: bool = False) -> Probe:
    """The probe of (n, D) features and (n,) bool labels. `balanced`: both classes have the same total weight.

    Raises ValueError for labels of one class only, and for features that are not finite numbers.
    """
    n, positive = len(labels), int(labels.sum())
    if not 0 < positive < n:
        raise ValueError(f"{positive} of {n} labels are positive; expected some of each kind")
    x = features.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("features that are not finite numbers cannot be fitted")
    mean, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12 * (1 + np.abs(mean))] = 1.0
    x = (x - mean) / scale
    y = labels.astype(np.float64)
    weights = np.where(labels, n / (2 * positive), n / (2 * (n - positive))) if balanced else np.ones(n)
    solution = solve(x, y, strength, weights)
    return Probe(mean, scale, solution[:-1], float(solution[-1]))


def solve(
    x: np.ndarray,
    y: np.ndarray,
    strength: float,
    s: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """(D + 1,) the minimum: weights, and the intercept last. x (n, D) as it is, y (n,) float64, 0 and 1 among them, s
    (n,) weights of the examples. From the solution of nearly the same examples, `start`, few steps are enough."""
    s = np.ones(len(y)) if s is None else s
    if start is None:
        share = float(s @ y / s.sum())
        start = np.append(np.zeros(x.shape[1]), np.log(share / (1 - share)))
    at = start
    value = _objective(x, y, s, strength, at)
    for _ in range(STEPS):
        gradient, hessian = _derivatives(x, y, s, strength, at)
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement <= TOLERANCE * (1 + abs(value)):
            return at - step
        size, new = 1.0, _objective(x, y, s, strength, at - step)
        while new > value - SLOPE * size * decrement + ROUNDING * (1 + abs(value)):
            size /= 2
            new = _objective(x, y, s, strength, at - size * step)
        at, value = at - size * step, new
    raise RuntimeError(f"logistic regression did not converge in {STEPS} steps")


def _objective(x: np.ndarray, y: np.ndarray, s: np.ndarray, strength: float, at: np.ndarray) -> float:
    z = x @ at[:-1] + at[-1]
    return float(s @ (np.logaddexp(0, z) - y * z) + strength / 2 * at[:-1] @ at[:-1])


def _derivatives(
    x: np.ndarray, y: np.ndarray, s: np.ndarray, strength: float, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D + 1,) gradient and (D + 1, D + 1) Hessian."""
    z = x @ at[:-1] + at[-1]
    p = np.exp(-np.logaddexp(0, -z))
    error, spread = s * (p - y), s * p * (1 - p)
    gradient = np.append(x.T @ error + strength * at[:-1], error.sum())
    d = x.shape[1]
    hessian = np.empty((d + 1, d + 1))
    root = x * np.sqrt(spread)[:, None]
    hessian[:d, :d] = root.T @ root + strength * np.eye(d)
    hessian[:d, d] = hessian[d, :d] = x.T @ spread
    hessian[d, d] = spread.sum()
    return gradient, hessian
