"""How well the expected IoU of predictions that were not learned from holds: bins and rank correlation.

Arrays: N predictions, K classes, F numbers of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate, too_few
from annotation_protocol.intervals import Scale, interval, jackknife_parts
from fedd.probes.quality import NUMBERS, ClassQuality, fit_quality

#: Upper ends of the bins of expected IoU.
BINS = (0.5, 0.6, 0.7, 0.8, 1.0)

#: Parts of the patients, each of which is left out once: what is expected of it comes from the others.
PARTS = 5

#: Fewest predictions of a class whose reliability is told.
FEWEST = 10


@dataclass(frozen=True)
class Bin:
    """Predictions whose expected IoU is between two values."""

    low: float
    high: float
    n: int
    expected: float  #: mean
    reached: float  #: mean


@dataclass(frozen=True)
class Reliability:
    """The expected IoU of one class beside the IoU that was reached, of predictions not learned from."""

    bins: tuple[Bin, ...]
    spearman: Estimate  #: rank correlation of expected and reached

    def to_dict(self) -> dict[str, Any]:
        """Return the reliability as a stored record has it."""
        return {
            "bins": [asdict(each) for each in self.bins],
            "spearman": self.spearman.to_json(),
        }


def reliability(
    numbers: NDArray[np.float64],
    iou: NDArray[np.float64],
    patients: Sequence[str],
    prior: ClassQuality,
) -> Reliability | None:
    """Return the reliability of a class's expected IoU; None where it was predicted too rarely.

    The expected IoU of each prediction is fitted to those of other patients.

    Args:
        numbers: of each prediction, (N, F); those without a region don't count.
        iou: that was reached, (N,).
        patients: of each prediction.
        prior: stands in where too few others have a region.
    """
    shown = numbers[:, NUMBERS.index("confidence")] > 0
    if shown.sum() < FEWEST:
        return None
    of_patient = {name: at % PARTS for at, name in enumerate(sorted(set(patients)))}
    part = np.array([of_patient[name] for name in patients])
    expected = np.zeros(len(iou))
    for index in range(PARTS):
        fitted = fit_quality(numbers[part != index], iou[part != index])
        use = fitted if fitted.n else prior
        for row in np.flatnonzero(part == index):
            expected[row] = use.expected(numbers[row])
    named = np.asarray(patients)[shown]
    return Reliability(
        _bins(expected[shown], iou[shown]), _correlation(expected[shown], iou[shown], named)
    )


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the rank correlation of two samples (N,), -1 to 1; NaN where one of them is constant."""
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value, equal ones with the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return found


def _bins(expected: NDArray[np.float64], reached: NDArray[np.float64]) -> tuple[Bin, ...]:
    found, low = [], 0.0
    for high in BINS:
        rows = (expected >= low) & ((expected < high) | (high == BINS[-1]))
        if n := int(rows.sum()):
            found.append(
                Bin(low, high, n, float(expected[rows].mean()), float(reached[rows].mean()))
            )
        low = high
    return tuple(found)


def _correlation(
    expected: NDArray[np.float64], reached: NDArray[np.float64], patients: NDArray[np.str_]
) -> Estimate:
    value, names = spearman(expected, reached), np.unique(patients)
    if too_few(len(names)) or np.isnan(value):
        return Estimate.of(value, None, len(reached), len(names))
    without = np.array(
        [spearman(expected[patients != name], reached[patients != name]) for name in names]
    )
    parts = jackknife_parts(without)
    low, high = interval(value, float(parts @ parts), len(names), Scale.SIGNED)
    ends = max(low, -1.0), min(high, 1.0)
    return Estimate.of(value, ends, len(reached), len(names))
