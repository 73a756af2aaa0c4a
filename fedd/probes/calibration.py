"""Calibration of the probes' probabilities: temperature and expected calibration error.

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

#: Range of the temperature search.
COLDEST, HOTTEST = 0.05, 20.0

#: Golden-section steps: they narrow the logarithm of the temperature to 1e-5.
_STEPS = 30
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """The temperature that the members' logits are divided by, and its fit."""

    temperature: float
    ece: float  #: expected calibration error of the mean softmax, 0 to 1, at this temperature
    ece_before: float  #: at temperature 1
    images: int
    pixels: int


def calibrate(logits: Tensor, labels: Tensor, images: int) -> Calibration:
    """Fit the temperature that maximises the likelihood of `labels` under the members' mean softmax.

    `images` is the number of images that the pixels come from.
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
    """Return the mean of the members' softmaxes, (P, K)."""
    return (logits / temperature).softmax(-1).mean(0)


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean gap between confidence and accuracy over bins, weighted by their pixels.

    `probabilities` are (P, K); the confidence is that of the most probable class.
    """
    confidence, predicted = probabilities.max(-1)
    right = (predicted == labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64)
    gap.index_add_(0, bins.cpu(), (right - confidence.double()).cpu())
    return float(gap.abs().sum() / len(labels))
