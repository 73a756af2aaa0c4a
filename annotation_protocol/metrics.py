"""How well masks agree: IoU and Dice of each class, with intervals that respect patients.

Everything starts from confusion matrices, so that an image is compared once and then only counted.

Arrays: N images, C classes; a confusion matrix is (C, C) int64, rows the truth, columns the
prediction, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: The ends of a 95 % interval.
Interval: TypeAlias = tuple[float, float]

#: A group of fewer images says too little to be judged by.
FEW = 5


@dataclass(frozen=True)
class ClassScore:
    """How well one class was found in a set of images.

    "mean" is the mean over the images that count; "pooled" counts pixels over all of them together,
    so that large regions weigh more. An image counts when its truth could hold the class, and the
    truth or the prediction does. With no such image the values are NaN. An interval is None when
    fewer than two patients stand behind it.
    """

    iou_mean: float
    iou_mean_ci95: Interval | None
    iou_pooled: float
    iou_pooled_ci95: Interval | None
    dice_mean: float
    dice_mean_ci95: Interval | None
    n: int  #: images in which the class is in the truth or the prediction
    patients: int  #: patients whom these images show

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: NaN as None, intervals as lists."""
        return {
            "iou_mean": _json_number(self.iou_mean),
            "iou_mean_ci95": _json_interval(self.iou_mean_ci95),
            "iou_pooled": _json_number(self.iou_pooled),
            "iou_pooled_ci95": _json_interval(self.iou_pooled_ci95),
            "dice_mean": _json_number(self.dice_mean),
            "dice_mean_ci95": _json_interval(self.dice_mean_ci95),
            "n": self.n,
            "patients": self.patients,
        }


def confusion(truth: NDArray[Any], prediction: NDArray[Any], n: int) -> NDArray[np.int64]:
    """The (n, n) confusion matrix of two masks of one size with classes 0 to n - 1."""
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth is {truth.shape} and prediction is {prediction.shape}; "
            "stretch one to the other's size"
        )
    if not 1 <= n <= 256:
        raise ValueError(f"n is {n}; a mask holds 1 to 256 classes")
    for what, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype.kind not in "iub":
            raise ValueError(f"{what} has dtype {mask.dtype}; class ids are whole numbers")
        if mask.size and not (int(mask.min()) >= 0 and int(mask.max()) < n):
            raise ValueError(
                f"{what} holds {int(mask.min())} to {int(mask.max())} but class ids are "
                f"0 to {n - 1}; check it with check_mask"
            )
    # Two bytes a pixel are enough for n * n <= 65536 cells, and keep a large pair in the cache.
    cells = truth.astype(np.uint16) * np.uint16(n if n < 256 else 256)
    cells += prediction.astype(np.uint16)
    return np.bincount(cells.ravel(), minlength=n * n).reshape(n, n).astype(np.int64)


def iou_per_class(confusion_matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, (..., C, C) -> (..., C); NaN where in neither mask."""
    both, either, _ = _overlaps(confusion_matrix)
    return _ratio(both, either)


def dice_per_class(confusion_matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient of each class, (..., C, C) -> (..., C); NaN where in neither mask."""
    both, _, total = _overlaps(confusion_matrix)
    return _ratio(2 * both, total)


def score(
    confusions: NDArray[np.int64],
    patients: Sequence[str],
    valid: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, ClassScore]:
    """The score of each class over a set of images, with 95 % percentile bootstrap intervals.

    Images of one patient are not independent, so whole patients are drawn, with replacement, out
    of those with an image that counts for the class (cluster bootstrap: Davison and Hinkley 1997,
    section 3.8). A class gets the same interval whichever other classes are scored beside it.

    Args:
        confusions: (N, C, C), one confusion matrix an image.
        patients: N patient identifiers.
        valid: (N, C) bool, the classes that the truth of each image could hold at all.
        classes: C class names.
        resamples: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap; the same seed gives the same intervals.

    Raises:
        ValueError: the arguments' lengths do not agree.
    """
    _check_shapes(confusions, patients, valid, classes, resamples)
    both, either, _ = _overlaps(confusions)
    iou, dice = iou_per_class(confusions), dice_per_class(confusions)
    counted = np.asarray(valid, dtype=np.bool_) & (either > 0)
    identifiers = np.asarray(patients, dtype=np.str_)
    scores: dict[str, ClassScore] = {}
    for index, name in enumerate(classes):
        rows = counted[:, index]
        # (images that count, 5): each of the three figures is a ratio of sums of these.
        columns = (np.ones_like(iou), iou, dice, both, either)
        terms = np.stack([column[rows, index] for column in columns], axis=1, dtype=np.float64)
        scores[name] = _class_score(terms, identifiers[rows], resamples, seed)
    return scores


def score_by_group(
    confusions: NDArray[np.int64],
    patients: Sequence[str],
    valid: NDArray[np.bool_],
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, ClassScore]]:
    """`score` of each group of images by itself, such as each tone group; groups in sorted order.

    Args:
        groups: N group names; the other arguments are those of `score`.
    """
    _check_shapes(confusions, patients, valid, classes, resamples)
    if len(groups) != len(confusions):
        raise ValueError(f"{len(groups)} groups for {len(confusions)} images; give one an image")
    result: dict[str, dict[str, ClassScore]] = {}
    for group in sorted(set(groups)):
        rows = [row for row, its_group in enumerate(groups) if its_group == group]
        result[group] = score(
            confusions[rows],
            [patients[row] for row in rows],
            valid[rows],
            classes,
            resamples=resamples,
            seed=seed,
        )
    return result


def mean_interval(
    values: NDArray[np.float64], patients: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """The 95 % interval of the mean of N values, one an image, as `score` makes those of its means.

    None with fewer than two patients. The other arguments are those of `resampled_means`.
    """
    if len(set(patients)) < 2:
        return None
    return percentile_interval(resampled_means(values, patients, resamples=resamples, seed=seed))


def resampled_means(
    values: NDArray[np.float64], patients: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """The mean of `values` in each bootstrap sample of whole patients, (resamples,).

    Args:
        values: (N,), one an image.
        patients: N patient identifiers.
        resamples: bootstrap samples.
        seed: of the bootstrap; samples of two seeds are independent.
    """
    if len(values) != len(patients):
        raise ValueError(f"{len(patients)} patients for {len(values)} values; give one a value")
    names, cluster = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    sums, images = np.bincount(cluster, weights=values), np.bincount(cluster)
    weights = bootstrap_weights(names.size, resamples, seed)
    return _ratio(weights @ sums, weights @ images)


def percentile_interval(resampled: NDArray[np.float64]) -> Interval:
    """The middle 95 % of what a figure was in the bootstrap samples, (resamples,)."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_weights(clusters: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each cluster is drawn in each resample, (resamples, clusters)."""
    drawn = np.random.default_rng(seed).integers(clusters, size=(resamples, clusters))
    drawn += clusters * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * clusters)
    return counts.reshape(resamples, clusters).astype(np.float64)


def _class_score(
    terms: NDArray[np.float64], patients: NDArray[np.str_], resamples: int, seed: int
) -> ClassScore:
    """The score from (images, 5) of 1, IoU, Dice, intersection and union."""
    names, cluster = np.unique(patients, return_inverse=True)
    by_patient = np.zeros((names.size, terms.shape[1]))
    np.add.at(by_patient, cluster, terms)
    iou_mean, dice_mean, iou_pooled = _figures(terms.sum(axis=0))
    intervals: list[Interval | None] = [None, None, None]
    if names.size >= 2 and resamples:
        drawn = _figures(bootstrap_weights(names.size, resamples, seed) @ by_patient)
        ends = np.percentile(np.stack(drawn), [2.5, 97.5], axis=1)
        intervals = [(float(low), float(high)) for low, high in ends.T]
    return ClassScore(
        iou_mean=float(iou_mean),
        iou_mean_ci95=intervals[0],
        iou_pooled=float(iou_pooled),
        iou_pooled_ci95=intervals[2],
        dice_mean=float(dice_mean),
        dice_mean_ci95=intervals[1],
        n=len(terms),
        patients=int(names.size),
    )


def _figures(
    sums: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean IoU, mean Dice and pooled IoU from (..., 5) sums of terms."""
    images, iou, dice, both, either = np.moveaxis(sums, -1, 0)
    return _ratio(iou, images), _ratio(dice, images), _ratio(both, either)


def _overlaps(
    confusions: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class in both masks, in either, and in the two added up; (..., C) each."""
    if confusions.ndim < 2 or confusions.shape[-1] != confusions.shape[-2]:
        raise ValueError(
            f"confusion matrix has shape {confusions.shape}; its last two sides must be equal"
        )
    both = np.diagonal(confusions, axis1=-2, axis2=-1)
    total = confusions.sum(axis=-1) + confusions.sum(axis=-2)
    return both, total - both, total


def _ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    result = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=result, where=np.asarray(bottom) > 0)
    return result


def _check_shapes(
    confusions: NDArray[np.int64],
    patients: Sequence[str],
    valid: NDArray[np.bool_],
    classes: Sequence[str],
    resamples: int,
) -> None:
    images, count = len(confusions), len(classes)
    if confusions.shape != (images, count, count):
        raise ValueError(
            f"confusions has shape {confusions.shape}; with {count} classes it must be "
            f"(images, {count}, {count})"
        )
    if len(patients) != images:
        raise ValueError(f"{len(patients)} patients for {images} images; give one an image")
    if valid.shape != (images, count):
        raise ValueError(f"valid has shape {valid.shape}; it must be ({images}, {count})")
    if len(set(classes)) != count:
        raise ValueError(f"class names {list(classes)} repeat; give each class its own name")
    if resamples < 0:
        raise ValueError(f"resamples is {resamples}; give 0 or more")


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _json_interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
