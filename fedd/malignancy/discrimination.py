"""How well probabilities tell malignant from benign: ROC-AUC, F1 and accuracy, with intervals.

Arrays: N images; `truth` is (N,) bool, true where malignant; `probabilities` is (N,) float, higher
where malignant is likelier. An image is called malignant from the threshold up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Interval, bootstrap_weights, percentile_interval

Truth: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Discrimination:
    """How well malignant and benign images were told apart in a set of images.

    All figures are NaN where the set holds one class only: nothing can be told apart, and accuracy
    would praise whoever always says that class. An interval is None unless at least two patients of
    each class stand behind it.
    """

    threshold: float
    roc_auc: float
    roc_auc_ci95: Interval | None
    f1: float  #: of malignant, at the threshold
    f1_ci95: Interval | None
    accuracy: float  #: at the threshold
    accuracy_ci95: Interval | None
    n: int  #: images
    malignant: int  #: of which malignant
    patients: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: NaN as None, intervals as lists."""
        return {key: _json(value) for key, value in asdict(self).items()}


def discrimination(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    threshold: float,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Discrimination:
    """All figures of a set of images, with 95 % percentile bootstrap intervals over patients.

    Resamples that drew one class only say nothing and are left out. Raises ValueError where the
    arguments' lengths do not agree or a probability is not finite.
    """
    _check(truth, probabilities)
    if len(patients) != len(truth):
        raise ValueError(f"{len(patients)} patients for {len(truth)} images; give one an image")
    values = _figures(truth, probabilities, threshold, np.ones((1, len(truth))))[:, 0]
    identifiers = np.asarray(patients, dtype=np.str_)
    names, cluster = np.unique(identifiers, return_inverse=True)
    intervals: list[Interval | None] = [None, None, None]
    behind_each = (np.unique(identifiers[truth]).size, np.unique(identifiers[~truth]).size)
    if min(behind_each) >= 2 and resamples:
        weights = bootstrap_weights(names.size, resamples, seed)[:, cluster]
        drawn = _figures(truth, probabilities, threshold, weights)
        drawn = drawn[:, ~np.isnan(drawn[0])]
        intervals = [percentile_interval(row) for row in drawn]
    return Discrimination(
        threshold=threshold,
        roc_auc=float(values[0]),
        roc_auc_ci95=intervals[0],
        f1=float(values[1]),
        f1_ci95=intervals[1],
        accuracy=float(values[2]),
        accuracy_ci95=intervals[2],
        n=len(truth),
        malignant=int(truth.sum()),
        patients=int(names.size),
    )


def discrimination_by_tone(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    tones: Sequence[str],
    threshold: float,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Discrimination]:
    """`discrimination` of all images as "all", then of those of each tone, at the one threshold."""
    if len(tones) != len(truth):
        raise ValueError(f"{len(tones)} tones for {len(truth)} images; give one an image")
    rows = {"all": list(range(len(truth)))}
    for tone in sorted(set(tones)):
        rows[tone] = [row for row, its_tone in enumerate(tones) if its_tone == tone]
    return {
        name: discrimination(
            truth[part],
            probabilities[part],
            [patients[row] for row in part],
            threshold,
            resamples=resamples,
            seed=seed,
        )
        for name, part in rows.items()
    }


def roc_auc(truth: Truth, probabilities: Floats) -> float:
    """The chance that a malignant image gets more than a benign one, a tie counting half.

    NaN where one class is missing.
    """
    _check(truth, probabilities)
    return float(_weighted_auc(truth, probabilities, np.ones((1, len(truth))))[0])


def roc_curve(truth: Truth, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """False and true positive rate at each threshold, from (0, 0) to (1, 1), highest threshold first.

    Rates are NaN where their class is missing.
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
    """The threshold with the best F1, halfway to the next lower probability; of equals the highest.

    Raises ValueError where there is no malignant image.
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


def f1(truth: Truth, called: Truth) -> float:
    """F1 of malignant for a call of each image, (N,) bool; NaN where nothing is or is called so."""
    return float(_weighted_f1(truth, called, np.ones((1, len(truth))))[0])


def accuracy(truth: Truth, called: Truth) -> float:
    """Share of images whose call is right; NaN without images."""
    return float((truth == called).mean()) if len(truth) else math.nan


def _figures(truth: Truth, probabilities: Floats, threshold: float, weights: Floats) -> Floats:
    """ROC-AUC, F1 and accuracy with images weighted, (B, N) -> (3, B); NaN where a class is missing."""
    called = probabilities >= threshold
    auc = _weighted_auc(truth, probabilities, weights)
    figures = np.stack(
        [auc, _weighted_f1(truth, called, weights), _ratio(weights @ (truth == called), weights)]
    )
    figures[:, np.isnan(auc)] = np.nan
    return figures


def _weighted_auc(truth: Truth, probabilities: Floats, weights: Floats) -> Floats:
    """ROC-AUC of each row of weights (B, N): the Mann-Whitney statistic, ties counted half."""
    if not len(truth):
        return np.full(len(weights), np.nan)
    order = np.argsort(probabilities, kind="stable")
    ranked = probabilities[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
    positives = np.add.reduceat((weights * truth)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~truth)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return _divided(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def _weighted_f1(truth: Truth, called: Truth, weights: Floats) -> Floats:
    return _divided(2 * weights @ (truth & called), weights @ (truth.astype(float) + called))


def _ratio(part: Floats, weights: Floats) -> Floats:
    return _divided(part, weights.sum(axis=1))


def _divided(top: Floats, bottom: Floats) -> Floats:
    result = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result


def _counts_from_above(truth: Truth, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Distinct probabilities, highest first, and malignant and benign images from each one up."""
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


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value
