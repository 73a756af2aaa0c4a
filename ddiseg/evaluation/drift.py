"""Whether people still look: what became of the masks that they were shown, over time.

A share accepted unchanged that rises has two readings: the model paints better what it is given,
or people look less closely. Where predictions are withheld by lot, nobody can have looked less
closely at them: what changes there is the model, and what changes beyond it are the people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ddiseg.catalogue import Arm
from ddiseg.evaluation.arms import Group, as_dicts, group
from ddiseg.evaluation.measures import MaskMeasures, Metric
from ddiseg.evaluation.samples import (
    Difference,
    MetricSample,
    count_patients,
    difference,
    difference_of_changes,
)

# Periods hold equally many masks in the order of the event log. Calendar weeks would hold three
# masks in one and a hundred in the next, as people work irregularly, and a clock that was set back
# would sort masks into the wrong week; the log's own numbers only ever rise.

#: Most periods, and the fewest masks that one holds; fewer than two such periods are no drift.
PERIODS, PERIOD_MASKS = 8, 10

#: What is followed over time of the masks that people were shown, and of those withheld from them.
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
    """Masks that were accepted one after the other, where people were shown the model's mask."""

    first: int  #: place of its first mask among all that people were shown, from 1
    last: int
    days: tuple[str, str]  #: the earliest and the latest that the clock had, UTC
    masks: Group

    def as_dict(self) -> dict[str, Any]:
        places = {"first": self.first, "last": self.last}
        return {**places, "from": self.days[0], "to": self.days[1], **self.masks.as_dict()}


@dataclass(frozen=True)
class Halves:
    """The masks before a moment and those after it."""

    earlier: Group
    later: Group
    difference: dict[Metric, Difference]  #: later minus earlier

    def as_dict(self) -> dict[str, Any]:
        return {
            "earlier": self.earlier.as_dict(),
            "later": self.later.as_dict(),
            "later_minus_earlier": as_dicts(self.difference),
        }


@dataclass(frozen=True)
class Drift:
    """Masks in the order of their acceptance; nothing but the counts where there are too few."""

    n: int  #: masks that people were shown
    patients: int
    periods: tuple[Period, ...] = ()
    shown: Halves | None = None  #: as many masks each; their difference has SHOWN
    withheld: Halves | None = None  #: the control arm, parted at the same moment; WITHHELD
    beyond: Difference | None = None  #: the rise of LESION_DICE where shown minus where withheld

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "patients": self.patients,
            "periods": [period.as_dict() for period in self.periods],
            "painted": self.shown and self.shown.as_dict(),
            "control": self.withheld and self.withheld.as_dict(),
            "rise_of_lesion_dice_painted_minus_control": self.beyond and asdict(self.beyond),
        }


def drift(rows: Sequence[MaskMeasures], places: Mapping[int, int]) -> Drift:
    """How the masks of `rows` changed over time.

    Args:
        rows: of all arms, in the order of their acceptance.
        places: by the place in the event log the place among all masks that people were shown.
    """
    shown = [row for row in rows if row.arm is Arm.PREDICTED]
    count = min(PERIODS, len(shown) // PERIOD_MASKS)
    if count < 2:
        return Drift(len(shown), count_patients(shown))
    ends = np.linspace(0, len(shown), count + 1).astype(int)
    middle = shown[len(shown) // 2].place
    control = [row for row in rows if row.arm is Arm.CONTROL]
    return Drift(
        n=len(shown),
        patients=count_patients(shown),
        periods=tuple(_period(shown[a:b], places) for a, b in pairwise(ends)),
        shown=_halves(shown, middle, SHOWN),
        withheld=_halves(control, middle, WITHHELD),
        beyond=difference_of_changes(
            _samples(Metric.LESION_DICE, shown, middle),
            _samples(Metric.LESION_DICE, control, middle),
        ),
    )


def _period(rows: Sequence[MaskMeasures], places: Mapping[int, int]) -> Period:
    days = [row.accepted_at[:10] for row in rows]
    ends = places[rows[0].place], places[rows[-1].place]
    return Period(*ends, (min(days), max(days)), group(rows))


def _halves(rows: Sequence[MaskMeasures], middle: int, measures: Sequence[Metric]) -> Halves:
    samples = {measure: _samples(measure, rows, middle) for measure in measures}
    earlier, later = _parted(rows, middle)
    return Halves(
        group(earlier),
        group(later),
        {measure: difference(after, before) for measure, (before, after) in samples.items()},
    )


def _samples(
    measure: Metric, rows: Sequence[MaskMeasures], middle: int
) -> tuple[MetricSample, MetricSample]:
    earlier, later = _parted(rows, middle)
    return MetricSample(measure, earlier), MetricSample(measure, later)


def _parted(
    rows: Sequence[MaskMeasures], middle: int
) -> tuple[list[MaskMeasures], list[MaskMeasures]]:
    return [r for r in rows if r.place < middle], [r for r in rows if r.place >= middle]
