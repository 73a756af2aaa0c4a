"""Expected IoU of a predicted region, from numbers that a prediction has anyway.

How much the region changes with the threshold, how far the members agree on it, its size and how sure
the probes are inside tell better than mutual information which prediction is poor (docs/decisions/0036).
A logistic regression makes an expected IoU of them. It is fitted to predictions of masks that were not
learned from, and drawn to a prior where there are few of them.

Arrays: N predictions, K classes, F numbers of a class, h x w a map of a whole photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.errors import WeightsError

#: What is known of a predicted region, in this order: see `region_numbers`.
NUMBERS = ("stability", "agreement", "log_area", "confidence")

#: Probabilities between whose regions `stability` is the IoU.
LOW, HIGH = 0.35, 0.65

#: Mean and standard deviation by which each number is standardised, and the prior's weights: intercept
#: first. Fitted to predictions of pad300's train90 part that were not learned from.
CENTRE, SPREAD = (0.6, 0.8, -1.2, 0.8), (0.2, 0.15, 0.5, 0.08)
PRIOR = (0.9, 0.6, 0.4, 0.1, 0.3)

#: How strongly the prior holds, in predictions: of the intercept, and of the slopes.
HOLD = (2.0, 20.0)

#: With fewer predictions of a class, the prior alone speaks.
FEWEST = 5

_STEPS = 50  #: of Newton's method
_EDGE = 1e-3  #: expected IoU is between this and 1 minus this


@dataclass(frozen=True)
class ClassQuality:
    """How to tell the expected IoU of one class."""

    weights: tuple[float, ...] = PRIOR  #: intercept, then one for each of NUMBERS
    #: Expected where the class is not predicted: 1 counts a class that is truly not there.
    not_predicted: float = 0.0
    n: int = 0  #: predictions that the weights were fitted to, besides the prior

    def expected(self, numbers: NDArray[np.float64]) -> float:
        """Return the expected IoU of a region's numbers (F,)."""
        if numbers[NUMBERS.index("confidence")] <= 0:
            return self.not_predicted
        return float(_sigmoid(_standardised(numbers[None]) @ np.array(self.weights))[0])


@dataclass(frozen=True)
class Quality:
    """How to tell the expected IoU of each class that the probes know, by class id."""

    classes: Mapping[int, ClassQuality] = field(default_factory=dict)

    def expected(self, numbers: NDArray[np.float64]) -> dict[int, float]:
        """Return the expected IoU by class id of a prediction's numbers, (K, F)."""
        return {index: each.expected(numbers[index]) for index, each in self.classes.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what model files hold."""
        return {str(index): asdict(each) for index, each in self.classes.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Quality:
        """Return what `to_dict` wrote; raises WeightsError for what a newer program wrote."""
        try:
            found = {
                int(index): ClassQuality(
                    tuple(map(float, each["weights"])), float(each["not_predicted"]), int(each["n"])
                )
                for index, each in values.items()
            }
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsError(
                "the probes' expected IoU is unknown here: a newer version of this program wrote it"
            ) from error
        if any(len(each.weights) != len(NUMBERS) + 1 for each in found.values()):
            raise WeightsError(
                f"the probes' expected IoU needs {len(NUMBERS) + 1} weights of each class: train them anew"
            )
        return cls(found)


def prior_quality(
    classes: Sequence[str], trained: Sequence[int], absent_share: Mapping[int, float]
) -> Quality:
    """Return the prior for each trained class but background.

    `absent_share` says of how many training masks, by class id, a class is not part.
    """
    return Quality(
        {
            index: ClassQuality(not_predicted=absent_share.get(index, 0.0))
            for index in trained
            if classes[index] != "background"
        }
    )


def absent_shares(shown: Sequence[frozenset[int]], trained: Sequence[int]) -> dict[int, float]:
    """Return the share of masks without a class, by class id, given the classes that each mask shows.

    As if there had been one more mask, half of which shows the class.
    """
    return {c: (sum(c not in each for each in shown) + 0.5) / (len(shown) + 1) for c in trained}


def region_numbers(probabilities: Tensor, agreement: Tensor) -> Tensor:
    """Return the NUMBERS of each class, (K, F); all 0 but the agreement where it is not predicted.

    Args:
        probabilities: of the whole photograph, (K, h, w), as they decide.
        agreement: of the members about each class, (K,), see `fedd.probes.masks.agreement`.
    """
    decided = probabilities.max(0).indices
    low, high = ((probabilities > level).sum((1, 2)) for level in (LOW, HIGH))
    regions = decided == torch.arange(len(probabilities), device=decided.device)[:, None, None]
    area = regions.sum((1, 2))
    confidence = (probabilities * regions).sum((1, 2)) / area.clamp_min(1)
    log_area = (area.clamp_min(1) / decided.numel()).log10()
    stability = high / low.clamp_min(1)
    return torch.stack([stability, agreement, log_area, confidence], 1)


def fit_quality(numbers: NDArray[np.float64], iou: NDArray[np.float64]) -> ClassQuality:
    """Fit the expected IoU of one class to predictions of masks that were not learned from.

    Fractional logistic regression, by maximum likelihood with the prior's weights as the centre of a
    quadratic penalty.

    Args:
        numbers: of each prediction, (N, F); predictions without a region count for `not_predicted`.
        iou: that was reached, (N,); of a class that is rightly not predicted, 1.
    """
    predicted = numbers[:, NUMBERS.index("confidence")] > 0
    absent = iou[~predicted]
    # As if there had been one more mask that shows the class and one that does not, half each.
    not_predicted = (absent.sum() + 0.5 * (iou[predicted].size == 0)) / max(1, absent.size + 1)
    n = int(predicted.sum())
    if n < FEWEST:
        return ClassQuality(not_predicted=float(not_predicted), n=0)
    weights = _fit(_standardised(numbers[predicted]), iou[predicted])
    return ClassQuality(tuple(map(float, weights)), float(not_predicted), n)


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    prior = np.array(PRIOR)
    hold = np.array([HOLD[0], *[HOLD[1]] * len(NUMBERS)])
    weights = prior.copy()
    for _ in range(_STEPS):
        p = _sigmoid(x @ weights)
        gradient = x.T @ (p - y) + hold * (weights - prior)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(hold)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _standardised(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers (N, F) standardised, after a column of ones."""
    z = (numbers - np.array(CENTRE)) / np.array(SPREAD)
    return np.concatenate([np.ones((len(z), 1)), z.clip(-4, 4)], 1)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (1 / (1 + np.exp(-x))).clip(_EDGE, 1 - _EDGE)
    return found
