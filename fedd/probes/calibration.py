"""How far the probes' probabilities can be believed: temperature and expected calibration error.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

Arrays: M members, P pixels, K classes; logits are (M, P, K) float32, labels (P,) int64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Equal bins of confidence, as in the paper.
BINS = 15

#: Between these a temperature is looked for.
COLDEST, HOTTEST = 0.05, 20.0

#: Golden-section steps: they narrow the logarithm of the temperature to 1e-5.
_STEPS = 30
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """A temperature that the members' logits are divided by, and what it was fitted on."""

    temperature: float
    ece: float  #: expected calibration error of the mean softmax, 0 to 1, at this temperature
    ece_before: float  #: at temperature 1
    images: int
    pixels: int


def calibrate(logits: Tensor, labels: Tensor, images: int) -> Calibration:
    """Fit the temperature that makes the mean of the members' softmaxes most likely at `labels`.

    `images` is how many images the pixels come from.
    """

    def loss(log_temperature: float) -> float:
        mean = mean_softmax(logits, math.exp(log_temperature))
        return float(F.nll_loss(mean.clamp_min(1e-12).log(), labels))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    temperature = math.exp((low + high) / 2)
    return Calibration(
        temperature=temperature,
        ece=expected_calibration_error(mean_softmax(logits, temperature), labels),
        ece_before=expected_calibration_error(mean_softmax(logits, 1.0), labels),
        images=images,
        pixels=len(labels),
    )


def mean_softmax(logits: Tensor, temperature: float) -> Tensor:
    """What the members say together, (P, K)."""
    return (logits / temperature).softmax(-1).mean(0)


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Mean distance of confidence from accuracy over bins of confidence, weighted by their pixels.

    `probabilities` are (P, K), the confidence is that of the likeliest class.
    """
    confidence, predicted = probabilities.max(-1)
    right = (predicted == labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64)
    gap.index_add_(0, bins.cpu(), (right - confidence.double()).cpu())
    return float(gap.abs().sum() / len(labels))
