"""Means of IoU over classes and tones, with the jackknife over patients of the whole statistic.

Arrays: N photographs, C classes, G patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate, fraction_estimate, too_few
from annotation_protocol.intervals import Floats, Scale
from annotation_protocol.metrics import iou_per_class, ratio
from fedd.dataset import TONES


@dataclass(frozen=True)
class Jackknifed:
    """A value of n images, and the value without each of the groups (patients), in sorted order."""

    value: float  #: NaN where it is not defined
    without: Floats  #: (G,)
    n: int
    lacking: str = ""  #: what is too few for an interval, where it is not the groups

    def estimate(self, scale: Scale = Scale.FRACTION) -> Estimate:
        found = fraction_estimate(self.value, self.without, self.n, scale)
        return replace(found, low=None, high=None, lacking=self.lacking) if self.lacking else found

    def minus(self, other: Jackknifed) -> Jackknifed:
        """Return the difference from another value of the same images, paired by group."""
        return Jackknifed(
            self.value - other.value,
            self.without - other.without,
            self.n,
            self.lacking or other.lacking,
        )


def mean(values: Sequence[Jackknifed]) -> Jackknifed:
    """Return the mean of values of the same images, such as those of seeds."""
    return Jackknifed(
        float(np.mean([each.value for each in values])),
        np.mean([each.without for each in values], axis=0),
        values[0].n,
        next((each.lacking for each in values if each.lacking), ""),
    )


def pooled(
    confusions: NDArray[np.int64], patients: Sequence[str], index: int | None = None
) -> Jackknifed:
    """Return the IoU of a class pooled over (N, C, C), by default the mean over the classes.

    A class in no true or predicted mask does not count.
    """
    cluster, groups = _clusters(patients)
    return Jackknifed(*_pooled(confusions, cluster, groups, index), len(confusions))


def mean_of_tones(
    confusions: NDArray[np.int64],
    patients: Sequence[str],
    tones: Sequence[str],
    index: int | None = None,
) -> Jackknifed:
    """Return the mean over the three tones of the IoU pooled within each.

    As in the authors' notebook DDI_Baseline_U_Nets_Segmentation. NaN if a tone has no photograph, and
    without an interval if one has too few patients. Photographs of unknown tone do not count.
    """
    known = np.isin(tones, TONES)
    confusions, of_tone = confusions[known], np.asarray(tones)[known]
    cluster, groups = _clusters(np.asarray(patients)[known])
    found: list[tuple[float, Floats]] = []
    lacking: list[str] = []
    for tone in TONES:
        rows = of_tone == tone
        found.append(_pooled(confusions[rows], cluster[rows], groups, index))
        if too_few(count := len(np.unique(cluster[rows]))):
            lacking.append(f"{count}{'' if lacking else ' patients'} of {tone}")
    value = float(np.mean([each for each, _ in found]))
    without = np.mean([each for _, each in found], axis=0)
    return Jackknifed(value, without, len(confusions), ", ".join(lacking))


def share(correct: NDArray[np.bool_], patients: Sequence[str]) -> Jackknifed:
    """Return the share of (N,) that is true."""
    cluster, groups = _clusters(patients)
    right = np.bincount(cluster, weights=correct, minlength=groups)
    count = np.bincount(cluster, minlength=groups)
    without = ratio(right.sum() - right, count.sum() - count)
    return Jackknifed(float(correct.mean()), without, len(correct))


def mean_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis, ignoring NaN; NaN if all are NaN."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(-1)
    result = np.full(total.shape, np.nan)
    np.divide(total, known.sum(-1), out=result, where=known.any(-1))
    return result


def _clusters(patients: Sequence[str] | NDArray[np.str_]) -> tuple[NDArray[np.intp], int]:
    """Return the group of each photograph (N,), and the number of groups."""
    names, cluster = np.unique(np.asarray(patients, np.str_), return_inverse=True)
    return cluster, names.size


def _pooled(
    confusions: NDArray[np.int64], cluster: NDArray[np.intp], groups: int, index: int | None
) -> tuple[float, Floats]:
    """Return the IoU of (N, C, C), and without each of the groups (G,)."""
    by_patient = np.zeros((groups, *confusions.shape[1:]), np.int64)
    np.add.at(by_patient, cluster, confusions)
    total = by_patient.sum(0)
    return float(_iou(total, index)), _iou(total - by_patient, index)


def _iou(confusions: NDArray[np.int64], index: int | None) -> NDArray[np.float64]:
    iou = iou_per_class(confusions)
    return mean_nan(iou) if index is None else iou[..., index]
