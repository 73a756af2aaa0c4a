"""Learning curves of labelling strategies: area under them, and masks saved against random.

Arrays: S seeds, P numbers of masks (`points`), T test photographs; a curve is (S, P, T) values. R resamples
draw seeds and patients, the same for all strategies, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from annotation_protocol.estimates import Estimate, too_few
from benchmarks.bootstrap import RESAMPLES, bootstrap_weights, percentile_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """A statistic of the sample, and of each of R resamples, (R,)."""

    value: float
    resamples: Floats

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.resamples - other.resamples)


class Bootstrap:
    """Means over seeds and test photographs with 95 % intervals: seeds and patients are resampled."""

    def __init__(self, patients: Sequence[str], seeds: int) -> None:
        names, of_patient = np.unique(np.asarray(patients), return_inverse=True)
        self.patients = names.size
        self._member = np.eye(names.size)[of_patient]  # (T, patients)
        self._seeds = bootstrap_weights(seeds, RESAMPLES, 0)
        self._patients = bootstrap_weights(names.size, RESAMPLES, 1)

    def means(self, curve: Floats) -> Floats:
        """Return the mean curve of the sample, then of each resample, (1 + R, P)."""
        sums = curve @ self._member  # (S, P, patients)
        weighted = np.einsum("rs,spg,rg->rp", self._seeds, sums, self._patients, optimize=True)
        images = len(curve) * (self._patients @ self._member.sum(axis=0))
        return np.vstack([curve.mean(axis=(0, 2)), weighted / images[:, None]])

    def text(self, of: Resampled, images: int, form: str = ".3f") -> str:
        """Return a value and its interval, or that there are too few patients for one."""
        interval = None if too_few(self.patients) else percentile_interval(of.resamples)
        return Estimate.of(of.value, interval, images, self.patients).text(form)


def at_point(means: Floats, point: int) -> Resampled:
    """Return the mean at one number of masks, from `Bootstrap.means`."""
    return Resampled(float(means[0, point]), means[1:, point])


def area(means: Floats, points: Sequence[int]) -> Resampled:
    """Return the area under mean curves as their mean height between the first and the last point."""
    heights = np.trapezoid(means, points, axis=1) / (points[-1] - points[0])
    return Resampled(float(heights[0]), heights[1:])


def share_saved(means: Floats, random: Floats, points: Sequence[int]) -> Resampled:
    """Return the share of masks saved to reach what random reaches with all, see `masks_needed`."""
    saved = [
        1 - masks_needed(ours, theirs, points) / points[-1]
        for ours, theirs in zip(means, random, strict=True)
    ]
    return Resampled(saved[0], np.array(saved[1:]))


def masks_needed(ours: Floats, random: Floats, points: Sequence[int]) -> float:
    """Return with how many masks one curve (P,) reaches the last level of another.

    Both are drawn to the nearest rising curves first, so that a lucky point does not count; between points
    they are straight. A curve that never gets so far needs all masks.
    """
    rising, goal = _rising(ours), float(_rising(random)[-1])
    if rising[0] >= goal:
        return float(points[0])
    if rising[-1] < goal:
        return float(points[-1])
    after = int(np.argmax(rising >= goal))
    share = (goal - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float(points[after - 1] + share * (points[after] - points[after - 1]))


def _rising(curve: Floats) -> Floats:
    return np.asarray(isotonic_regression(curve).x)
