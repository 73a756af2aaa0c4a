"""Measures of accepted masks, and samples of them for estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from annotation_protocol import UNLABELLED, load_protocol, metrics
from annotation_protocol.estimates import Sample, Statistic
from annotation_protocol.intervals import Scale
from ddiseg import masks
from ddiseg.catalogue import Action, AnnotationOutcome, Arm
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.workspace.workspace import Workspace


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


def metric_sample(metric: Metric, rows: Sequence[MaskMeasures]) -> Sample:
    """Return the values of one metric, of the masks where it could be measured."""
    measured = [row for row in rows if metric in row.values]
    statistic = Statistic.MEDIAN if metric is Metric.MEDIAN_SECONDS else Statistic.MEAN
    return Sample(
        [row.values[metric] for row in measured],
        [row.group for row in measured],
        statistic,
        _SCALES.get(metric, Scale.FRACTION),
    )


_SCALES = {**dict.fromkeys(SECONDS, Scale.POSITIVE), Metric.UNCHANGED: Scale.SHARE}


def count_patients(rows: Sequence[MaskMeasures]) -> int:
    return len({row.group for row in rows})


def measure_mask(
    workspace: Workspace,
    outcome: AnnotationOutcome,
    models: dict[int, str],
    readings: Sequence[Mask],
    group: str,
) -> MaskMeasures:
    """Measure one accepted mask.

    Args:
        workspace: holds the masks' files.
        outcome: how the mask came about.
        models: names of the model versions by id.
        readings: masks of the image by different people, each drawn independently.
        group: key of the image's group.

    Raises:
        WorkspaceError, InputError: a mask's file is missing or damaged.
    """
    values: dict[Metric, float] = {}
    model = None
    arm: Arm | None = outcome.arm
    if outcome.prediction is not None:
        values |= _edits(workspace.mask(outcome.prediction), workspace.mask(outcome.accepted))
        assert outcome.prediction.model_version_id is not None
        model = models[outcome.prediction.model_version_id]
    elif arm is not Arm.BARE:
        arm = None
    if outcome.seconds is not None:
        values |= dict.fromkeys(SECONDS, outcome.seconds)
    image = outcome.image
    if not math.isnan(dice := _readers_dice(workspace, image, readings)):
        values[Metric.READERS_DICE] = dice
    events = workspace.catalogue.events.of_image(image.id)
    accepted = [event for event in events if event.kind == Action.ACCEPT][-1]
    return MaskMeasures(image.tone, group, arm, model, accepted.id, accepted.at, values)


def _edits(prediction: masks.Mask, accepted: masks.Mask) -> dict[Metric, float]:
    names = load_protocol().class_names
    height, width = accepted.shape
    stretched = masks.stretch(prediction, (height, width))
    if metrics.labels_one_class(accepted):
        return {}  # what was drawn too large or too small can't be told
    confusion = metrics.confusion(accepted, stretched, len(names))
    dice = metrics.dice_per_class(confusion)
    labelled = int(confusion.sum())
    if not labelled:
        return {}
    changed = labelled - int(np.trace(confusion))
    values = {
        Metric.MEAN_DICE: float(np.nanmean(dice)),
        Metric.UNCHANGED: float(changed == 0),
        Metric.CHANGED_PIXELS: changed / labelled,
    }
    lesion = float(dice[names.index("lesion")])
    return values if np.isnan(lesion) else {Metric.LESION_DICE: lesion, **values}


def _readers_dice(workspace: Workspace, image: Image, readings: Sequence[Mask]) -> float:
    """Return the lesion's mean Dice over all pairs of readings; NaN where no pair has a lesion."""
    lesion = load_protocol().class_named("lesion").index
    pixels = [workspace.mask_over(image, m) for m in readings if lesion in m.classes]
    lesions = [np.where(p == UNLABELLED, UNLABELLED, p == lesion).astype(np.uint8) for p in pixels]
    confusions = [
        metrics.confusion(one, other, 2)
        for one, other in combinations(lesions, 2)
        if not metrics.labels_one_class(one, other) and not metrics.labels_one_class(other, one)
    ]
    dice = [float(metrics.dice_per_class(confusion)[1]) for confusion in confusions]
    defined = [d for d in dice if not math.isnan(d)]
    return float(np.mean(defined)) if defined else math.nan
