"""95 % intervals from the spread between groups (patients).

Images of one patient are not independent, so the standard error compares the value without each whole
group in turn (jackknife: Efron and Tibshirani 1993, chapter 11), and its quantile is Student's with one
degree of freedom less than there are groups. A value from 0 to 1 gets the interval of a share in as many
trials as would spread like the groups (effective sample size), which never leaves 0 to 1: Clopper and
Pearson's for means of IoU (Korn and Graubard 1998, Survey Methodology 24, 193-201), Wilson's for counts
(Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3, 484-503).
`python -m benchmarks interval_coverage` measures how often these intervals hold the true value.
Arrays: N images, G groups.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

#: The ends of a 95 % interval.
Interval: TypeAlias = tuple[float, float]

#: Fewest groups for an interval: below, shares and ROC-AUC are held too often and rare failures unseen.
MIN_GROUPS = 10


class Scale(StrEnum):
    """What the values of a sample are."""

    FRACTION = "fraction"  #: measured from 0 to 1, such as IoU
    SHARE = (
        "share"  #: counted, 0 or 1 for an image or a pair of images, such as accuracy and ROC-AUC
    )
    POSITIVE = "positive"  #: from 0, such as seconds or pixels
    SIGNED = "signed"  #: differences of images, or kappa


def jackknife_parts(without: Floats) -> Floats:
    """Return the part of each group, (G,), in a value's error: their squares add up to its variance.

    Args:
        without: (G,), the value without each of the groups.
    """
    groups = len(without)
    return np.asarray(math.sqrt((groups - 1) / groups) * (without.mean() - without))


def interval(
    value: float, variance: float, groups: int, scale: Scale, *, trials: int | None = None
) -> Interval:
    """Return the interval of a value.

    Args:
        value: the estimate.
        variance: of the value, not of the images.
        groups: number of groups, at least two.
        scale: range of the value.
        trials: independent trials behind a share, or a fraction of 0 or 1, without any spread; `groups`
            by default.
    """
    quantile = t_quantile(groups - 1)
    if scale in (Scale.FRACTION, Scale.SHARE):
        ends = _korn_graubard if scale is Scale.FRACTION else _wilson
        low, high = ends(value, _effective_size(value, variance, trials or groups, scale), quantile)
        return min(low, value), max(high, value)
    half = quantile * math.sqrt(variance)
    if scale is Scale.POSITIVE:  # on the logarithm, because lead times and distances are skewed
        factor = math.exp(half / value) if value > 0 else 1.0
        return value / factor, value * factor
    return value - half, value + half


def median_interval(values: Floats, cluster: NDArray[np.intp]) -> tuple[Interval, Floats]:
    """Return the interval of a median, and the part of each group in its error (G,).

    The quantiles at the ends of the interval of the share of images below the median (Woodruff 1952,
    Journal of the American Statistical Association 47, 635-646). The jackknife fails for medians.

    Args:
        values: (N,).
        cluster: (N,), the group of each, 0 to G - 1.
    """
    middle = np.median(values)
    below = (values < middle) + (values == middle) / 2
    counts = np.bincount(cluster)
    sums = np.bincount(cluster, weights=below)
    parts = jackknife_parts((sums.sum() - sums) / (counts.sum() - counts))
    low, high = interval(0.5, float(parts @ parts), len(counts), Scale.SHARE)
    start, end = (float(q) for q in np.quantile(values, (low, high)))
    return (start, end), np.asarray(-parts * (end - start) / (high - low))


def contrast_interval(
    values: Floats, intervals: NDArray[np.float64], signs: Floats, correlation: Floats
) -> Interval:
    """Return the interval of the sum of values with their signs, recovered from their own intervals.

    Zou and Donner 2008, Statistics in Medicine 27, 1693-1702, with correlated values: the same patients
    may be in several.

    Args:
        values, signs: (K,).
        intervals: (K, 2).
        correlation: (K, K), of the errors.
    """
    value = float(signs @ values)
    down, up = values - intervals[:, 0], intervals[:, 1] - values
    ends = []
    for lower, upper in ((down, up), (up, down)):
        reach = signs * np.where(signs > 0, lower, upper)
        ends.append(math.sqrt(max(0.0, float(reach @ correlation @ reach))))
    return value - ends[0], value + ends[1]


@cache
def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # not at the start of every command

    return float(stdtrit(freedom, 0.975))


def _effective_size(value: float, variance: float, trials: int, scale: Scale) -> float:
    """Return the number of trials whose share would vary as the value does."""
    largest = value * (1 - value)
    certain = largest < _NOTHING if scale is Scale.FRACTION else variance < _NOTHING
    return trials if certain else largest / max(variance, _NOTHING)


def _korn_graubard(value: float, trials: float, quantile: float) -> Interval:
    """Return Clopper and Pearson's interval (1934), of fewer trials for Student's wider quantile."""
    from scipy.special import betaincinv

    trials *= (_NORMAL / quantile) ** 2
    successes = value * trials
    low = betaincinv(successes, trials - successes + 1, 0.025) if successes > _NOTHING else 0.0
    failures = trials - successes
    high = betaincinv(successes + 1, failures, 0.975) if failures > _NOTHING else 1.0
    return float(low), float(high)


def _wilson(share: float, trials: float, quantile: float) -> Interval:
    """Return Wilson's interval (1927, Journal of the American Statistical Association 22, 209-212)."""
    square = quantile**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = quantile * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


_NORMAL = 1.959964  #: 97.5 % quantile
_NOTHING = 1e-12
