"""Change over time of how annotators treat predictions.

A rising share of predictions accepted unchanged has two explanations: the model predicts better, or
annotators check less closely. Where predictions are withheld at random, nobody can have checked less
closely: a change there is the model's, and a change beyond it is the annotators'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import (
    EstimateDifference,
    Sample,
    difference,
    difference_of_changes,
)
from ddiseg.catalogue import Arm
from ddiseg.evaluation.arms import MaskGroup, as_dicts, summarise_group
from ddiseg.evaluation.measures import MeasuredMasks, Metric, metric_sample

# Periods hold equally many masks in the order of the event log. Calendar weeks would hold three
# masks in one and a hundred in the next, as people work irregularly, and a clock that was set back
# would sort masks into the wrong week; the log's own numbers only ever rise.

#: The highest number of periods, and the fewest masks of one; fewer than two periods are no drift.
PERIODS, PERIOD_MASKS = 8, 10

#: Metrics that are followed over time: of masks with the prediction shown, and with it withheld.
SHOWN = (
    Metric.UNCHANGED,
    Metric.CHANGED_PIXELS,
    Metric.LESION_DICE,
    Metric.READERS_DICE,
    Metric.MEDIAN_SECONDS,
)
WITHHELD = (Metric.LESION_DICE, Metric.CHANGED_PIXELS)


@dataclass(frozen=True)
class Period:
    """Consecutively accepted masks whose prediction was shown."""

    first: int  #: number of its first mask among all whose prediction was shown, from 1
    last: int
    days: tuple[str, str]  #: the earliest and the latest day by the clock, UTC
    masks: MaskGroup

    def as_dict(self) -> dict[str, Any]:
        numbers = {"first": self.first, "last": self.last}
        return {**numbers, "from": self.days[0], "to": self.days[1], **self.masks.as_dict()}


@dataclass(frozen=True)
class Halves:
    """The masks before a moment and those after it."""

    earlier: MaskGroup
    later: MaskGroup
    difference: dict[Metric, EstimateDifference]  #: later minus earlier

    def as_dict(self) -> dict[str, Any]:
        return {
            "earlier": self.earlier.as_dict(),
            "later": self.later.as_dict(),
            "later_minus_earlier": as_dicts(self.difference),
        }


@dataclass(frozen=True)
class Drift:
    """Masks in the order of their acceptance; only the counts where there are too few."""

    n: int  #: masks whose prediction was shown
    patients: int
    periods: tuple[Period, ...] = ()
    shown: Halves | None = None  #: equally many masks each, with the difference of SHOWN
    withheld: Halves | None = None  #: the control arm, split at the same moment, of WITHHELD
    beyond: EstimateDifference | None = None  #: rise of LESION_DICE, shown minus withheld

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "patients": self.patients,
            "periods": [period.as_dict() for period in self.periods],
            "painted": self.shown and self.shown.as_dict(),
            "control": self.withheld and self.withheld.as_dict(),
            "rise_of_lesion_dice_painted_minus_control": self.beyond and self.beyond.to_json(),
        }


def measure_drift(masks: MeasuredMasks, shown_events: NDArray[np.int64]) -> Drift:
    """Return how the masks changed over time.

    Args:
        masks: of all arms.
        shown_events: the event ids, ascending, of all masks whose prediction was shown, also of others:
            they number the masks.
    """
    shown, control = masks.of_arm(Arm.PREDICTED), masks.of_arm(Arm.CONTROL)
    count = min(PERIODS, len(shown) // PERIOD_MASKS)
    if count < 2:
        return Drift(len(shown), shown.patients)
    ends = np.linspace(0, len(shown), count + 1).astype(int)
    middle = int(shown.event_id[len(shown) // 2])
    return Drift(
        n=len(shown),
        patients=shown.patients,
        periods=tuple(_period(shown.take(slice(a, b)), shown_events) for a, b in pairwise(ends)),
        shown=_halves(shown, middle, SHOWN),
        withheld=_halves(control, middle, WITHHELD),
        beyond=difference_of_changes(
            _samples(Metric.LESION_DICE, _split(shown, middle)),
            _samples(Metric.LESION_DICE, _split(control, middle)),
        ),
    )


def _period(masks: MeasuredMasks, shown_events: NDArray[np.int64]) -> Period:
    first, last = (np.searchsorted(shown_events, masks.event_id[[0, -1]]) + 1).tolist()
    times = masks.accepted_at.tolist()
    return Period(first, last, (min(times)[:10], max(times)[:10]), summarise_group(masks))


def _halves(masks: MeasuredMasks, middle: int, metrics: Sequence[Metric]) -> Halves:
    earlier, later = halves = _split(masks, middle)
    samples = {metric: _samples(metric, halves) for metric in metrics}
    return Halves(
        summarise_group(earlier),
        summarise_group(later),
        {metric: difference(after, before) for metric, (before, after) in samples.items()},
    )


def _samples(metric: Metric, halves: tuple[MeasuredMasks, MeasuredMasks]) -> tuple[Sample, Sample]:
    earlier, later = halves
    return metric_sample(metric, earlier), metric_sample(metric, later)


def _split(masks: MeasuredMasks, middle: int) -> tuple[MeasuredMasks, MeasuredMasks]:
    before = masks.event_id < middle
    return masks.take(before), masks.take(~before)
