"""Discrimination of malignant from benign: ROC-AUC, F1 and accuracy, with intervals.

Arrays: N images, G groups (patients); `truth` is (N,) bool, true for malignant; `probabilities` is (N,) float, of malignancy.
An image is predicted malignant from the threshold up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate, fraction_estimate, too_few
from annotation_protocol.intervals import Scale
from annotation_protocol.metrics import ratio
from fedd.dataset import ALL, UNKNOWN_TONE, rows_by_tone

#: Name of all images of known tone together.
KNOWN_TONE = "known tone"

#: The threshold of accuracy in the FEDD paper: an image is malignant above 0.5 (`skin_acc` of the
#: authors' notebook DDI_Baseline_CNN_Classifiers).
ABOVE_HALF = math.nextafter(0.5, 1)

Truth: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class DiscriminationResult:
    """How well a set of images is split into malignant and benign.

    No estimate has a value if the set holds one class only, because always predicting it would be
    perfectly accurate; none has an interval where a class has too few patients for one.
    """

    threshold: float
    roc_auc: Estimate
    f1: Estimate  #: of malignant, at the threshold
    accuracy: Estimate  #: at `accuracy_threshold`
    malignant: int  #: number of malignant images
    accuracy_threshold: float

    @property
    def n(self) -> int:
        return self.roc_auc.n

    def to_json(self) -> dict[str, Any]:
        """Return the fields as stored records have them."""
        estimates = [getattr(self, name).to_json(name) for name in ("roc_auc", "f1", "accuracy")]
        values = {key: value for each in estimates for key, value in each.items()}
        threshold = None if math.isnan(self.threshold) else self.threshold
        stored = {"threshold": threshold, "malignant": self.malignant, **values}
        if self.accuracy_threshold not in (self.threshold, threshold):
            stored["accuracy_threshold"] = self.accuracy_threshold
        return stored


def discrimination(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    threshold: float,
    accuracy_threshold: float | None = None,
) -> DiscriminationResult:
    """Return the discrimination in a set of images; accuracy at another threshold if one is given.

    Raises ValueError if the arguments' lengths differ or a probability is not finite.
    """
    _check(truth, probabilities)
    if len(patients) != len(truth):
        raise ValueError(f"{len(patients)} patients for {len(truth)} images; give one an image")
    correct_at = threshold if accuracy_threshold is None else accuracy_threshold
    malignant, n = int(truth.sum()), len(truth)
    names, cluster = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    of_malignant, of_benign = (np.unique(cluster[rows]).size for rows in (truth, ~truth))
    few = f"{of_malignant} malignant, {of_benign} benign"
    if malignant in (0, n):
        undefined = replace(Estimate.of(None, None, n, int(names.size)), lacking=few if n else "")
        return DiscriminationResult(
            threshold, undefined, undefined, undefined, malignant, correct_at
        )
    predicted, called = probabilities >= threshold, probabilities >= correct_at
    f1_terms = 2 * (truth & predicted), truth.astype(int) + predicted
    values = roc_auc(truth, probabilities), f1(truth, predicted), accuracy(truth, called)
    without = (
        _auc_without(truth, probabilities, cluster),
        _ratio_without(*f1_terms, cluster),
        _ratio_without(truth == called, np.ones(n), cluster),
    )
    trials = min(of_malignant, of_benign), of_malignant, int(names.size)
    estimates = [
        fraction_estimate(value, each, n, Scale.SHARE, trials=count)
        for value, each, count in zip(values, without, trials, strict=True)
    ]
    if too_few((of_malignant, of_benign)):
        estimates = [replace(each, low=None, high=None, lacking=few) for each in estimates]
    auc, at_threshold, correct = estimates
    return DiscriminationResult(threshold, auc, at_threshold, correct, malignant, correct_at)


def discrimination_by_tone(
    truth: Truth,
    probabilities: Floats,
    patients: Sequence[str],
    tones: Sequence[str],
    threshold: float,
    accuracy_threshold: float | None = None,
) -> dict[str, DiscriminationResult]:
    """Return `discrimination` of all images as "all", then of each tone, at the same thresholds.

    Where the tone of some is unknown, those of known tone stand together as "known tone" after "all":
    whose tone nobody noted is mostly benign, and telling these apart lifts the figure of all.
    """
    if len(tones) != len(truth):
        raise ValueError(f"{len(tones)} tones for {len(truth)} images; give one an image")
    return {
        name: discrimination(
            truth[part],
            probabilities[part],
            [patients[row] for row in part],
            threshold,
            accuracy_threshold,
        )
        for name, part in _parts(tones).items()
    }


def roc_auc(truth: Truth, probabilities: Floats) -> float:
    """Return the chance that a malignant image scores higher than a benign one, ties counted half.

    NaN if a class is missing.
    """
    _check(truth, probabilities)
    if not truth.any() or truth.all():
        return math.nan
    wins = _wins(probabilities[truth], np.sort(probabilities[~truth]))
    return float(wins.sum() / (truth.sum() * (~truth).sum()))


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


def youden_threshold(truth: Truth, probabilities: Floats) -> float:
    """Return the threshold of Youden's J, the largest true minus false positive rate.

    Halfway to the next lower probability; of equals the highest. Raises ValueError if a class is missing.
    """
    values, best = _youden(truth, probabilities)
    lower = values[best + 1] if best + 1 < len(values) else values[best]
    between = (values[best] + lower) / 2
    # Two neighbouring floats have no number between them.
    return float(between if between > lower else values[best])


def paper_threshold(truth: Truth, probabilities: Floats) -> float:
    """Return the threshold of F1 in the FEDD paper, chosen on the images that it is then measured on.

    The rule of the authors' notebooks DDI_Baseline_CNN_Classifiers and DDI_DeepDerm_Classification: of the
    points of scikit-learn's ROC curve the first with the largest true minus false positive rate, 0 if none
    is above 0. An image is malignant above it, not from it up, so this is the next float: the image at
    the point itself, mostly a malignant one, counts as benign. F1 is optimistic all the same.

    Raises ValueError if a class is missing.
    """
    values, best = _youden(truth, probabilities)
    found = truth & (probabilities >= values[best]), ~truth & (probabilities >= values[best])
    rates = found[0].sum() / truth.sum(), found[1].sum() / (~truth).sum()
    return math.nextafter(float(values[best]) if rates[0] > rates[1] else 0.0, math.inf)


def f1(truth: Truth, predicted: Truth) -> float:
    """Return F1 of malignant for predictions (N,) bool; NaN if nothing is or is predicted malignant."""
    found = int(truth.sum()) + int(predicted.sum())
    return 2 * int((truth & predicted).sum()) / found if found else math.nan


def accuracy(truth: Truth, predicted: Truth) -> float:
    """Return the share of correct predictions; NaN without images."""
    return float((truth == predicted).mean()) if len(truth) else math.nan


def _parts(tones: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of "all", of "known tone" where that is another part, and of each tone."""
    by_tone = rows_by_tone(tones)
    known = [row for row, tone in enumerate(tones) if tone != UNKNOWN_TONE]
    if not 0 < len(known) < len(tones):
        return by_tone
    return {ALL: by_tone.pop(ALL), KNOWN_TONE: known, **by_tone}


def _youden(truth: Truth, probabilities: Floats) -> tuple[Floats, int]:
    """Return distinct probabilities, highest first, and the row with the largest Youden's J.

    The first of equals among the corners of the ROC curve, as scikit-learn computes them.
    """
    _check(truth, probabilities)
    if not truth.any() or truth.all():
        raise ValueError(
            f"{int(truth.sum())} of {len(truth)} images are malignant: a threshold needs both classes"
        )
    values, positives, negatives = _counts_from_above(truth, probabilities)
    youden = positives / positives[-1] - negatives / negatives[-1]
    corners = np.ones(len(values), np.bool_)
    corners[1:-1] = (np.diff(positives, 2) != 0) | (np.diff(negatives, 2) != 0)
    return values, int(np.argmax(np.where(corners, youden, -np.inf)))


def _wins(scores: NDArray[Any], others: NDArray[Any]) -> Floats:
    """Return how many of the sorted `others` each score is above, those equal to it counted half."""
    return (np.searchsorted(others, scores) + np.searchsorted(others, scores, "right")) / 2


def _auc_without(truth: Truth, probabilities: Floats, cluster: NDArray[np.intp]) -> Floats:
    """Return ROC-AUC without the images of each group, (G,); NaN where that leaves one class."""
    groups = int(cluster.max()) + 1
    ranks = np.unique(probabilities, return_inverse=True)[1]
    positives, negatives = ranks[truth], ranks[~truth]
    of_positives, of_negatives = cluster[truth], cluster[~truth]
    won = _wins(positives, np.sort(negatives))
    lost = len(positives) - _wins(negatives, np.sort(positives))
    # A rank that begins anew with each group compares images of one group only.
    first = cluster * (int(ranks.max()) + 1)
    within = np.sort((first + ranks)[~truth])
    won_within = _wins((first + ranks)[truth], within) - np.searchsorted(within, first[truth])
    wins = (
        won.sum()
        - np.bincount(of_positives, won, groups)
        - np.bincount(of_negatives, lost, groups)
        + np.bincount(of_positives, won_within, groups)
    )
    left = [len(of) - np.bincount(of, minlength=groups) for of in (of_positives, of_negatives)]
    return ratio(wins, left[0] * left[1])


def _ratio_without(top: NDArray[Any], bottom: NDArray[Any], cluster: NDArray[np.intp]) -> Floats:
    """Return the ratio of the sums of (N,) and (N,) without the images of each group, (G,)."""
    sums = [np.bincount(cluster, weights=each) for each in (top, bottom)]
    return ratio(*(each.sum() - each for each in sums))


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
