"""One measure over a set of accepted masks: its value, its interval, and how two sets differ.

Whole patients are drawn, with replacement, as in `annotation_protocol.metrics`. Sets that are
compared are drawn together: a patient who is in both is drawn for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.metrics import FEW, Interval, bootstrap_weights, percentile_interval
from ddiseg.evaluation.measures import MaskMeasures, Metric

#: Bootstrap samples, and their seed.
RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Estimate:
    """One number of a group; value and interval are None where there are too few to say.

    Shares are 0 to 1.
    """

    value: float | None
    interval: Interval | None
    n: int  #: images behind it
    patients: int  #: whom these show


@dataclass(frozen=True)
class Difference:
    """A number of one group minus that of another; None as in `Estimate`."""

    value: float | None
    interval: Interval | None
    n: tuple[int, int]  #: images: of the one, of the other
    patients: tuple[int, int]

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is all above or all below 0, else 0: it can't be told."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


class MetricSample:
    """The values of one measure with the patient of each."""

    def __init__(self, measure: Metric, rows: Sequence[MaskMeasures]) -> None:
        measured = [row for row in rows if measure in row.values]
        self.measure = measure
        self.values = np.array([row.values[measure] for row in measured])
        self.of = np.array([row.patient for row in measured], np.str_)
        self.patients = count_patients(measured)

    @property
    def too_few(self) -> bool:
        return too_few(len(self.values), self.patients)

    def value(self) -> float:
        middle = np.median if self.measure is Metric.MEDIAN_SECONDS else np.mean
        return float(middle(self.values))

    def interval(self) -> Interval:
        """Of the value; only where there are not too few."""
        if self.all_or_none:
            return _all_or_none(self.value(), self.patients)
        return percentile_interval(_resampled([self])[0])

    def figure(self) -> Estimate:
        n = len(self.values)
        if self.too_few:
            return Estimate(None, None, n, self.patients)
        return Estimate(self.value(), self.interval(), n, self.patients)

    @property
    def all_or_none(self) -> bool:
        """Whether it is a share of 0 or 1, which looks certain to a bootstrap."""
        return self.measure is Metric.UNCHANGED and self.value() in (0, 1)


def difference(one: MetricSample, other: MetricSample) -> Difference:
    """The value of `one` minus that of `other`."""
    n, patients = (len(one.values), len(other.values)), (one.patients, other.patients)
    if one.too_few or other.too_few:
        return Difference(None, None, n, patients)
    if one.all_or_none or other.all_or_none:
        interval = _recovered(one, other)
    else:
        ones, others = _resampled([one, other])
        interval = _middle(ones - others)
    return Difference(one.value() - other.value(), interval, n, patients)


def difference_of_changes(
    one: tuple[MetricSample, MetricSample], other: tuple[MetricSample, MetricSample]
) -> Difference:
    """How much more `one` changed than `other`; each is (earlier, later) of the same measure.

    It counts the images and patients of both halves of each together.
    """
    every = (*one, *other)
    n = sum(len(sample.values) for sample in one), sum(len(sample.values) for sample in other)
    patients = _distinct_patients(one), _distinct_patients(other)
    if any(sample.too_few for sample in every):
        return Difference(None, None, n, patients)
    value = (one[1].value() - one[0].value()) - (other[1].value() - other[0].value())
    earlier, later, other_earlier, other_later = _resampled(every)
    interval = _middle((later - earlier) - (other_later - other_earlier))
    return Difference(value, interval, n, patients)


def too_few(n: int, patients: int) -> bool:
    return n < FEW or patients < 2


def count_patients(rows: Sequence[MaskMeasures]) -> int:
    return len({row.patient for row in rows})


def _distinct_patients(samples: Sequence[MetricSample]) -> int:
    return len(np.unique(np.concatenate([sample.of for sample in samples])))


def _resampled(samples: Sequence[MetricSample]) -> list[NDArray[np.float64]]:
    """The value of each sample in each draw out of the patients of all of them, (RESAMPLES,) each.

    NaN where a draw holds no patient of a sample.
    """
    names = np.unique(np.concatenate([sample.of for sample in samples]))
    weights = bootstrap_weights(names.size, RESAMPLES, SEED)
    resampled = []
    for sample in samples:
        cluster = np.searchsorted(names, sample.of)
        median = sample.measure is Metric.MEDIAN_SECONDS
        resampled.append((_medians if median else _means)(sample.values, cluster, weights))
    return resampled


def _means(
    values: NDArray[np.float64], cluster: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    clusters = weights.shape[1]
    sums = weights @ np.bincount(cluster, weights=values, minlength=clusters)
    images = weights @ np.bincount(cluster, minlength=clusters)
    means = np.full(len(weights), np.nan)
    np.divide(sums, images, out=means, where=images > 0)
    return means


def _medians(
    values: NDArray[np.float64], cluster: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    order = np.argsort(values)
    ordered, cluster = values[order], cluster[order]
    medians = np.full(len(weights), np.nan)
    for index, weight in enumerate(weights):  # one sample at a time keeps the memory small
        drawn = np.repeat(ordered, weight[cluster].astype(np.intp))
        if drawn.size:
            medians[index] = (drawn[(drawn.size - 1) // 2] + drawn[drawn.size // 2]) / 2
    return medians


def _middle(resampled: NDArray[np.float64]) -> Interval:
    return percentile_interval(resampled[~np.isnan(resampled)])


def _all_or_none(share: float, patients: int) -> Interval:
    """The exact 95 % interval of a share that is 0 or 1, where a bootstrap has no spread.

    Clopper and Pearson 1934, with the patients as the independent trials.
    """
    reach = 1 - 0.025 ** (1 / patients)
    return (0.0, reach) if share == 0 else (1 - reach, 1.0)


def _recovered(one: MetricSample, other: MetricSample) -> Interval:
    """The interval of `one` minus `other`, put together out of those of the two.

    For shares of 0 or 1, where a bootstrap of the difference has no spread on that side. Zou and
    Donner 2008, Statistics in Medicine 27, 1693-1702 (Newcombe 1998 with any intervals).
    """
    (low, high), (other_low, other_high) = one.interval(), other.interval()
    difference = one.value() - other.value()
    down = math.hypot(one.value() - low, other_high - other.value())
    up = math.hypot(high - one.value(), other.value() - other_low)
    return difference - down, difference + up
