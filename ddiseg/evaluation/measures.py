"""One accepted mask, and all that is measured of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from annotation_protocol import load_protocol, metrics
from ddiseg import masks
from ddiseg.catalogue import Action, AnnotationOutcome, Arm
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.workspace.workspace import Workspace


class Metric(StrEnum):
    """What is measured of accepted masks; the first four compare them with the prediction."""

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

#: What two arms are compared by. Nobody draws a withheld prediction to the pixel, so not UNCHANGED.
COMPARED = (
    *SECONDS,
    Metric.LESION_DICE,
    Metric.MEAN_DICE,
    Metric.CHANGED_PIXELS,
    Metric.READERS_DICE,
)


@dataclass(frozen=True)
class MaskMeasures:
    """One accepted mask."""

    tone: str
    patient: str
    arm: Arm | None  #: None where a person's mask was painted
    model: str | None  #: that made the prediction
    place: int  #: of its acceptance in the event log, which no clock disturbs
    accepted_at: str  #: time in UTC, as the clock had it
    values: dict[Metric, float]  #: as far as they could be measured


def measure_mask(
    workspace: Workspace, work: AnnotationOutcome, models: dict[int, str], readings: Sequence[Mask]
) -> MaskMeasures:
    """Measure one accepted mask.

    Args:
        workspace: holds the masks' files.
        work: how the mask came about.
        models: names of the model versions by id.
        readings: what different people drew of the image by themselves.

    Raises:
        WorkspaceError, InputError: a mask's file is missing or damaged.
    """
    values: dict[Metric, float] = {}
    model = None
    arm: Arm | None = work.arm
    if work.prediction is not None:
        values |= _edits(workspace.mask(work.prediction), workspace.mask(work.accepted))
        assert work.prediction.model_version_id is not None
        model = models[work.prediction.model_version_id]
    elif arm is not Arm.BARE:
        arm = None
    if work.seconds is not None:
        values |= dict.fromkeys(SECONDS, work.seconds)
    image = work.image
    if not math.isnan(dice := _readers_dice(workspace, image, readings)):
        values[Metric.READERS_DICE] = dice
    events = workspace.catalogue.events.of_image(image.id)
    accepted = [event for event in events if event.kind == Action.ACCEPT][-1]
    patient = image.patient or f"image {image.id}"
    return MaskMeasures(image.tone, patient, arm, model, accepted.id, accepted.at, values)


def _edits(prediction: masks.Mask, accepted: masks.Mask) -> dict[Metric, float]:
    names = load_protocol().class_names
    height, width = accepted.shape
    stretched = masks.stretch(prediction, (height, width))
    confusion = metrics.confusion(accepted, stretched, len(names))
    dice = metrics.dice_per_class(confusion)
    changed = accepted.size - int(np.trace(confusion))
    values = {
        Metric.MEAN_DICE: float(np.nanmean(dice)),
        Metric.UNCHANGED: float(changed == 0),
        Metric.CHANGED_PIXELS: changed / accepted.size,
    }
    lesion = float(dice[names.index("lesion")])
    return values if np.isnan(lesion) else {Metric.LESION_DICE: lesion, **values}


def _readers_dice(workspace: Workspace, image: Image, readings: Sequence[Mask]) -> float:
    """The lesion's mean Dice over every two readings that have one; NaN without such two."""
    lesion = load_protocol().class_named("lesion").index
    drawn = [workspace.mask_over(image, m) == lesion for m in readings if lesion in m.classes]
    confusions = [metrics.confusion(one, other, 2) for one, other in combinations(drawn, 2)]
    dice = [float(metrics.dice_per_class(confusion)[1]) for confusion in confusions]
    defined = [d for d in dice if not math.isnan(d)]
    return float(np.mean(defined)) if defined else math.nan
