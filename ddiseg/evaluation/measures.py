"""Measures of accepted masks, and samples of them for estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, load_protocol, metrics
from annotation_protocol.estimates import Sample, Statistic
from annotation_protocol.intervals import Scale
from ddiseg import masks
from ddiseg.catalogue import Arm


class Metric(StrEnum):
    """A measure of accepted masks; the first four compare them with the prediction."""

    LESION_DICE = "lesion_dice"  #: mean over the images where either mask has a lesion
    MEAN_DICE = "mean_dice"  #: mean over images of the mean over the classes of either mask
    UNCHANGED = "unchanged"  #: share of the masks that equal the prediction, pixel for pixel
    CHANGED_PIXELS = "changed_pixels"  #: mean share of a mask's pixels that differ
    MEDIAN_SECONDS = "median_seconds"  #: lead times are skewed: a tab left open counts too
    MEAN_SECONDS = "mean_seconds"
    READERS_DICE = "readers_lesion_dice"  #: mean lesion Dice of two readers of an image


EDITS = (
    Metric.LESION_DICE,
    Metric.MEAN_DICE,
    Metric.UNCHANGED,
    Metric.CHANGED_PIXELS,
)
SECONDS = (Metric.MEDIAN_SECONDS, Metric.MEAN_SECONDS)

#: Metrics of two arms that are compared. UNCHANGED is none: nobody draws a withheld prediction to the pixel.
COMPARED = (
    *SECONDS,
    Metric.LESION_DICE,
    Metric.MEAN_DICE,
    Metric.CHANGED_PIXELS,
    Metric.READERS_DICE,
)


@dataclass(frozen=True)
class MaskMeasures:
    """The measures of one accepted mask."""

    tone: str
    group: str  #: key of its image's group
    arm: Arm | None  #: None where the annotator was shown a person's mask
    model: str | None  #: model version that made the prediction
    event_id: int  #: of the acceptance: the order in the event log, which no clock disturbs
    accepted_at: str  #: UTC, by the clock of the machine
    values: dict[Metric, float]  #: as far as they could be measured


@dataclass(frozen=True, eq=False)
class MeasuredMasks:
    """The measures of N accepted masks, as columns: there may be many.

    Arrays: (N,), in the order of acceptance.
    """

    tone: NDArray[np.str_]
    group: NDArray[np.intp]  #: number of its image's group, 0 to the number of groups - 1
    arm: NDArray[np.str_]  #: an `Arm`; "" where the annotator was shown a person's mask
    model: NDArray[np.str_]  #: model version that made the prediction; "" for none
    event_id: NDArray[np.int64]
    accepted_at: NDArray[np.str_]
    values: dict[Metric, NDArray[np.float64]]  #: NaN where one could not be measured

    @classmethod
    def of(cls, rows: Sequence[MaskMeasures]) -> MeasuredMasks:
        """Return rows as columns, in the order of their acceptance."""
        rows = sorted(rows, key=lambda row: row.event_id)
        keys = np.array([row.group for row in rows], np.str_)
        return cls(
            tone=np.array([row.tone for row in rows], np.str_),
            group=np.unique(keys, return_inverse=True)[1],
            arm=np.array([row.arm or "" for row in rows], np.str_),
            model=np.array([row.model or "" for row in rows], np.str_),
            event_id=np.array([row.event_id for row in rows], np.int64),
            accepted_at=np.array([row.accepted_at for row in rows], np.str_),
            values={
                metric: np.array([row.values.get(metric, math.nan) for row in rows], np.float64)
                for metric in Metric
            },
        )

    def __len__(self) -> int:
        return len(self.event_id)

    def take(self, which: NDArray[np.bool_] | slice) -> MeasuredMasks:
        """Return some of the masks."""
        return MeasuredMasks(
            tone=self.tone[which],
            group=self.group[which],
            arm=self.arm[which],
            model=self.model[which],
            event_id=self.event_id[which],
            accepted_at=self.accepted_at[which],
            values={metric: of[which] for metric, of in self.values.items()},
        )

    def of_arm(self, arm: Arm) -> MeasuredMasks:
        return self.take(self.arm == arm.value)

    @property
    def patients(self) -> int:
        """The number of groups."""
        return int(np.count_nonzero(np.bincount(self.group)))


def metric_sample(metric: Metric, masks: MeasuredMasks) -> Sample:
    """Return the values of one metric, of the masks where it could be measured."""
    measured = ~np.isnan(masks.values[metric])
    statistic = Statistic.MEDIAN if metric is Metric.MEDIAN_SECONDS else Statistic.MEAN
    return Sample(
        masks.values[metric][measured],
        masks.group[measured],
        statistic,
        _SCALES.get(metric, Scale.FRACTION),
    )


_SCALES = {**dict.fromkeys(SECONDS, Scale.POSITIVE), Metric.UNCHANGED: Scale.SHARE}


class EditMeasures(NamedTuple):
    """How far a prediction and the accepted mask agree; all None where they can't be compared."""

    lesion_dice: float | None  #: None where neither has a lesion
    mean_dice: float | None
    changed: float | None  #: share of the labelled pixels

    @property
    def values(self) -> dict[Metric, float]:
        if self.mean_dice is None or self.changed is None:
            return {}
        values = {
            Metric.MEAN_DICE: self.mean_dice,
            Metric.UNCHANGED: float(self.changed == 0),
            Metric.CHANGED_PIXELS: self.changed,
        }
        return (
            values if self.lesion_dice is None else {Metric.LESION_DICE: self.lesion_dice, **values}
        )


NOT_COMPARABLE = EditMeasures(None, None, None)


def compare_edit(prediction: masks.Mask, accepted: masks.Mask) -> EditMeasures:
    """Compare a prediction, stretched to the size of the accepted mask, with that mask."""
    names = load_protocol().class_names
    height, width = accepted.shape
    stretched = masks.stretch(prediction, (height, width))
    if metrics.labels_one_class(accepted):
        return NOT_COMPARABLE  # what was drawn too large or too small can't be told
    confusion = metrics.confusion(accepted, stretched, len(names))
    dice = metrics.dice_per_class(confusion)
    labelled = int(confusion.sum())
    if not labelled:
        return NOT_COMPARABLE
    changed = labelled - int(np.trace(confusion))
    lesion = float(dice[names.index("lesion")])
    return EditMeasures(
        None if math.isnan(lesion) else lesion, float(np.nanmean(dice)), changed / labelled
    )


def compare_readings(one: masks.Mask, other: masks.Mask) -> float | None:
    """Return the lesion's Dice of two readings of an image, of one size; None where it is not defined."""
    lesion = load_protocol().class_named("lesion").index
    a, b = (
        np.where(p == UNLABELLED, UNLABELLED, p == lesion).astype(np.uint8) for p in (one, other)
    )
    if metrics.labels_one_class(a, b) or metrics.labels_one_class(b, a):
        return None
    dice = float(metrics.dice_per_class(metrics.confusion(a, b, 2))[1])
    return None if math.isnan(dice) else dice
