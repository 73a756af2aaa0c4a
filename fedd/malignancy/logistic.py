"""Logistic regression with an L2 penalty, fitted to the end by Newton's method: no seed, no epochs.

Arrays: features (N, F) float64, truth (N,) bool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Newton steps; a fit takes about ten.
_STEPS = 100

#: A column with a smaller standard deviation is constant.
_CONSTANT = 1e-8


@dataclass(frozen=True)
class Logistic:
    """A fitted model: the logit of an image is `features @ weights + bias`."""

    weights: Floats  #: (F,)
    bias: float

    def probabilities(self, features: Floats) -> Floats:
        """Return the probability of each row of features (N, F), (N,)."""
        logits = np.clip(features @ self.weights + self.bias, -500, 500)
        return 1 / (1 + np.exp(-logits))


def fit(
    features: Floats, truth: NDArray[np.bool_], gains: Floats, strength: float, raw: int = 0
) -> Logistic:
    """Return the model with the lowest mean log loss plus `strength` / 2 times its squared weights.

    Args:
        gains: what each column is multiplied by once it is standardised, (F,): the penalty weighs less
            on a column with a larger gain.
        raw: number of last columns that are not standardised, because the caller scaled them.
    """
    mean, deviation = features.mean(0), features.std(0)
    if raw:
        mean[-raw:], deviation[-raw:] = 0, 1
    constant = deviation < _CONSTANT
    scale = np.where(constant, 0, gains / np.where(constant, 1, deviation))
    scaled = (features - mean) * scale
    if scaled.shape[1] > len(truth):
        # All images lie in a space of N dimensions, and so do the best weights.
        left, singular, right = np.linalg.svd(scaled, full_matrices=False)
        weights, bias = _newton(left * singular, truth, strength)
        weights = weights @ right
    else:
        weights, bias = _newton(scaled, truth, strength)
    weights = weights * scale
    return Logistic(weights, float(bias - mean @ weights))


def _newton(features: Floats, truth: NDArray[np.bool_], strength: float) -> tuple[Floats, float]:
    """Return weights (F,) and bias; the bias is not penalised."""
    n = len(truth)
    columns = np.column_stack([features, np.ones(n)])
    penalty = np.full(columns.shape[1], strength)
    penalty[-1] = 0
    target = truth.astype(np.float64)
    found = np.zeros(columns.shape[1])
    found[-1] = np.log(target.mean() / (1 - target.mean()))

    def loss(at: Floats) -> float:
        logits = columns @ at
        return float((np.logaddexp(0, logits) - target * logits).mean() + penalty @ at**2 / 2)

    lowest = loss(found)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(columns @ found, -500, 500)))
        gradient = columns.T @ (p - target) / n + penalty * found
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns / n
        curvature[np.diag_indices_from(curvature)] += penalty + 1e-12
        step = np.linalg.solve(curvature, gradient)
        while (new := loss(found - step)) > lowest and np.abs(step).max() > 1e-12:
            step = step / 2
        found, gain, lowest = found - step, lowest - new, new
        if np.abs(step).max() < 1e-9 or gain < 1e-15:
            break
    return found[:-1], float(found[-1])
