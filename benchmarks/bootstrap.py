"""Bootstrap: the interval that other papers use, and resamples of training seeds.

The estimates of `annotation_protocol` do not use it: see decision 0021 and `interval_coverage`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.intervals import Interval

#: Number of resamples.
RESAMPLES = 2000


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the middle of a statistic's resampled values, (R,), without those that are NaN."""
    tail = 50 * (1 - level)
    low, high = np.percentile(values[~np.isnan(values)], [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_weights(
    groups: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return how often each group is in each resample, (R, groups)."""
    chosen = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    chosen += groups * np.arange(resamples)[:, None]
    counts = np.bincount(chosen.ravel(), minlength=resamples * groups)
    return counts.reshape(resamples, groups).astype(np.float64)
