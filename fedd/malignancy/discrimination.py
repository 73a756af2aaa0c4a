"""Discrimination of malignant from benign: ROC-AUC, F1 and accuracy, with intervals.

Arrays: N images; `truth` is (N,) bool, true for malignant; `probabilities` is (N,) float, of malignancy.
An image is predicted malignant from the threshold up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import (
    RESAMPLES,
    SEED,
    Estimate,
    Interval,
    bootstrap_weights,
    percentile_interval,
)
from annotation_protocol.metrics import ratio
from fedd.dataset import rows_by_tone

Truth: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class DiscriminationResult:
    """How well a set of images is split into malignant and benign.

    No estimate has a value if the set holds one class only, because always predicting it would be
    perfectly accurate; none has an interval with fewer than two patients of a class.
    """

    threshold: float
    roc_auc: Estimate
    f1: Estimate  #: of malignant, at the threshold
    accuracy: Estimate  #: at the threshold
    malignant: int  #: number of malignant images

    @property
    def n(self) -> int:
        return self.roc_auc.n

    def to_json(self) -> dict[str, Any]:
        """Return the fields as stored records have them."""
        estimates = [getattr(self, name).to_json(name) for name in ("roc_auc", "f1", "accuracy")]
        values = {key: value for each in estimates for key, value in each.items()}
        threshold = None if math.isnan(self.threshold) else self.threshold
        return {"threshold": threshold, "malignant": self.malignant, **values}


def discrimination(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> DiscriminationResult:
    """Return the discrimination in a set of images, with 95 % bootstrap intervals over patients.

    Resamples with one class only are left out. Raises ValueError if the arguments' lengths differ or a
    probability is not finite.
    """
    _check(truth, probabilities)
    if len(patients) != len(truth):
        raise ValueError(f"{len(patients)} patients for {len(truth)} images; give one an image")
    values = _metrics(truth, probabilities, threshold, np.ones((1, len(truth))))[:, 0]
    identifiers = np.asarray(patients, dtype=np.str_)
    names, cluster = np.unique(identifiers, return_inverse=True)
    intervals: list[Interval | None] = [None, None, None]
    patients_of_class = np.unique(identifiers[truth]).size, np.unique(identifiers[~truth]).size
    if min(patients_of_class) >= 2 and resamples:
        weights = bootstrap_weights(names.size, resamples, seed)[:, cluster]
        resampled = _metrics(truth, probabilities, threshold, weights)
        intervals = [percentile_interval(row) for row in resampled[:, ~np.isnan(resampled[0])]]
    roc_auc, f1, accuracy = (
        Estimate.of(float(value), interval, len(truth), int(names.size))
        for value, interval in zip(values, intervals, strict=True)
    )
    return DiscriminationResult(threshold, roc_auc, f1, accuracy, int(truth.sum()))


def discrimination_by_tone(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    tones: Sequence[str],
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, DiscriminationResult]:
    """Return `discrimination` of all images as "all", then of each tone, at the same threshold."""
    if len(tones) != len(truth):
        raise ValueError(f"{len(tones)} tones for {len(truth)} images; give one an image")
    return {
        name: discrimination(
            truth[part],
            probabilities[part],
            [patients[row] for row in part],
            threshold,
            resamples=resamples,
            seed=seed,
        )
        for name, part in rows_by_tone(tones).items()
    }


def roc_auc(truth: Truth, probabilities: Floats) -> float:
    """Return the chance that a malignant image scores higher than a benign one, ties counted half.

    NaN if a class is missing.
    """
    _check(truth, probabilities)
    return float(_weighted_auc(truth, probabilities, np.ones((1, len(truth))))[0])


def roc_curve(truth: Truth, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Return false and true positive rates and thresholds, from (0, 0) to (1, 1), highest threshold first.

    Rates are NaN if their class is missing.
    """
    _check(truth, probabilities)
    thresholds, positives, negatives = _counts_from_above(truth, probabilities)
    with np.errstate(invalid="ignore"):
        return (
            np.concatenate([[0.0], negatives]) / np.float64((~truth).sum()),
            np.concatenate([[0.0], positives]) / np.float64(truth.sum()),
            np.concatenate([[np.inf], thresholds]),
        )


def best_threshold(truth: Truth, probabilities: Floats) -> float:
    """Return the threshold with the best F1, halfway to the next lower probability; of equals the highest.

    Raises ValueError if there is no malignant image.
    """
    _check(truth, probabilities)
    if not truth.any():
        raise ValueError("no malignant image: every threshold has F1 0")
    values, positives, negatives = _counts_from_above(truth, probabilities)
    best = int(np.argmax(2 * positives / (positives + negatives + truth.sum())))
    lower = values[best + 1] if best + 1 < len(values) else values[best]
    between = (values[best] + lower) / 2
    # Two neighbouring floats have no number between them.
    return float(between if between > lower else values[best])


def f1(truth: Truth, predicted: Truth) -> float:
    """Return F1 of malignant for predictions (N,) bool; NaN if nothing is or is predicted malignant."""
    return float(_weighted_f1(truth, predicted, np.ones((1, len(truth))))[0])


def accuracy(truth: Truth, predicted: Truth) -> float:
    """Return the share of correct predictions; NaN without images."""
    return float((truth == predicted).mean()) if len(truth) else math.nan


def _metrics(truth: Truth, probabilities: Floats, threshold: float, weights: Floats) -> Floats:
    """Return ROC-AUC, F1 and accuracy for image weights (B, N) -> (3, B); NaN if a class is missing."""
    predicted = probabilities >= threshold
    auc = _weighted_auc(truth, probabilities, weights)
    metrics = np.stack(
        [
            auc,
            _weighted_f1(truth, predicted, weights),
            ratio(weights @ (truth == predicted), weights.sum(axis=1)),
        ]
    )
    metrics[:, np.isnan(auc)] = np.nan
    return metrics


def _weighted_auc(truth: Truth, probabilities: Floats, weights: Floats) -> Floats:
    """Return ROC-AUC for each row of weights (B, N): the Mann-Whitney statistic, ties counted half."""
    if not len(truth):
        return np.full(len(weights), np.nan)
    order = np.argsort(probabilities, kind="stable")
    ranked = probabilities[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
    positives = np.add.reduceat((weights * truth)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~truth)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def _weighted_f1(truth: Truth, predicted: Truth, weights: Floats) -> Floats:
    return ratio(2 * weights @ (truth & predicted), weights @ (truth.astype(float) + predicted))


def _counts_from_above(truth: Truth, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Return distinct probabilities, highest first, and the malignant and benign images from each one up."""
    values, group = np.unique(-probabilities, return_inverse=True)
    positives, negatives = (
        np.cumsum(np.bincount(group, weights=rows.astype(float), minlength=values.size))
        for rows in (truth, ~truth)
    )
    return -values, positives.astype(float), negatives.astype(float)


def _check(truth: Truth, probabilities: Floats) -> None:
    if truth.ndim != 1 or truth.shape != probabilities.shape:
        raise ValueError(
            f"truth is {truth.shape} and probabilities are {probabilities.shape}; both are (N,)"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("some probabilities are not finite numbers")
