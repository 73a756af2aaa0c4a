"""Comparisons of accepted masks with their predictions, and of independent readings.

Both masks of a pair are files that never change, so a pair is compared once: after its mask was accepted, when
the annotator study is next asked for.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.catalogue import Arm
from ddiseg.catalogue.accepted_work import AcceptedWork, LastAcceptance
from ddiseg.catalogue.comparisons import Comparison
from ddiseg.catalogue.tables import ComparisonKind, Image, Mask
from ddiseg.errors import DdisegError, WorkspaceError
from ddiseg.evaluation.measures import (
    SECONDS,
    EditMeasures,
    MeasuredMasks,
    Metric,
    compare_edit,
    compare_readings,
)
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace.workspace import Workspace

_logger = logging.getLogger(__name__)

#: Images that are compared before their comparisons are stored.
_STORED_TOGETHER = 200


@dataclass
class ComparedMasks:
    """What was compared, by image id."""

    edits: dict[int, EditMeasures] = field(default_factory=dict)  #: of those compared just now
    readers_dice: dict[int, float] = field(default_factory=dict)  #: mean over the pairs of readings
    left_out: dict[int, str] = field(default_factory=dict)  #: why an image can't be compared


def compare_missing(
    workspace: Workspace, work: Sequence[AcceptedWork], progress: Progress = silent
) -> ComparedMasks:
    """Compare the masks that were not compared yet, and store the comparisons.

    A catalogue that can't be written costs only the time to compare them again.
    """
    catalogue, compared = workspace.catalogue, ComparedMasks()
    lesion = load_protocol().class_named("lesion").index
    readings = catalogue.tasks.reading_ids()
    classes = catalogue.masks.classes(itertools.chain.from_iterable(readings.values()))
    readings = {i: [m for m in ids if lesion in classes[m]] for i, ids in readings.items()}
    stored = catalogue.accepted_work.reading_comparisons(readings)
    unread = {i for i, ids in readings.items() if any(p not in stored for p in _pairs(ids))}
    missing = [
        each
        for each in work
        if (each.compared is None and each.prediction_id is not None) or each.image_id in unread
    ]
    done = 0
    for start in range(0, len(missing), _STORED_TOGETHER):
        part = missing[start : start + _STORED_TOGETHER]
        made: list[Comparison] = []
        images = {i.id: i for i in catalogue.images.select(ids=[each.image_id for each in part])}
        ids = [i for each in part for i in (each.mask_id, each.prediction_id) if i is not None]
        read = [i for each in part for i in readings.get(each.image_id, ())]
        masks = catalogue.masks.get([*ids, *read])
        for each in part:
            image, of_image = images[each.image_id], readings.get(each.image_id, ())
            try:
                new = [*_compare(workspace, image, each, masks, of_image, stored)]
            except DdisegError as error:
                compared.left_out[image.id] = f"{image.name}: {error}"
            else:
                made += new
                _keep(compared, image.id, new, stored)
            progress(done := done + 1, len(missing))
        try:
            catalogue.comparisons.add(made)
        except WorkspaceError as error:
            _logger.info(f"comparisons of masks were not stored: {error}")
    for image_id, of_image in readings.items():
        dice = [stored.get(pair) for pair in _pairs(of_image)]
        if defined := [d for d in dice if d is not None]:
            compared.readers_dice[image_id] = float(np.mean(defined))
    return compared


def _compare(
    workspace: Workspace,
    image: Image,
    work: AcceptedWork,
    masks: Mapping[int, Mask],
    readings: Sequence[int],
    stored: Mapping[tuple[int, int], float | None],
) -> Iterator[Comparison]:
    """Yield the comparisons of an image that were not made yet.

    Raises:
        WorkspaceError, InputError: a mask's file is missing or damaged.
    """
    if work.prediction_id is not None and work.compared is None:
        prediction, accepted = masks[work.prediction_id], masks[work.mask_id]
        measures = compare_edit(workspace.mask(prediction), workspace.mask(accepted))
        yield Comparison(work.mask_id, work.prediction_id, ComparisonKind.PREDICTION, *measures)
    if all(pair in stored for pair in _pairs(readings)):
        return
    pixels = {mask_id: workspace.mask_over(image, masks[mask_id]) for mask_id in readings}
    for pair in _pairs(readings):
        if pair not in stored:
            dice = compare_readings(pixels[pair[0]], pixels[pair[1]])
            yield Comparison(*pair, ComparisonKind.READING, dice)


def _keep(
    compared: ComparedMasks,
    image_id: int,
    new: Sequence[Comparison],
    stored: dict[tuple[int, int], float | None],
) -> None:
    for each in new:
        if each.kind is ComparisonKind.PREDICTION:
            measures = EditMeasures(each.lesion_dice, each.mean_dice, each.changed)
            compared.edits[image_id] = measures
        else:
            stored[each.mask_id, each.other_id] = each.lesion_dice


def _pairs(readings: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ids of each two readings, the older first."""
    return list(combinations(sorted(readings), 2))


def measured_masks(
    work: Sequence[AcceptedWork],
    compared: ComparedMasks,
    models: Mapping[int, str],
    acceptances: Mapping[int, LastAcceptance],
) -> MeasuredMasks:
    """Return the measures of accepted masks, in the order of their acceptance.

    Args:
        models: names of the model versions by id.
        acceptances: by image id.
    """
    ordered = sorted((*acceptances[each.image_id], place) for place, each in enumerate(work))
    work = [work[place] for _, _, place in ordered]
    edits = [
        compared.edits.get(each.image_id)
        or EditMeasures(each.lesion_dice, each.mean_dice, each.changed)
        for each in work
    ]
    changed = _column([each.changed for each in edits])
    seconds = _column([each.seconds for each in work])
    numbers = np.array([each.group for each in work], np.int64)
    return MeasuredMasks(
        tone=np.array([each.tone for each in work], np.str_),
        group=np.unique(numbers, return_inverse=True)[1],
        arm=np.array([_arm(each) for each in work], np.str_),
        model=np.array([models.get(each.model_version_id or 0, "") for each in work], np.str_),
        event_id=np.array([event_id for event_id, _, _ in ordered], np.int64),
        accepted_at=np.array([at for _, at, _ in ordered], np.str_),
        values={
            Metric.LESION_DICE: _column([each.lesion_dice for each in edits]),
            Metric.MEAN_DICE: _column([each.mean_dice for each in edits]),
            Metric.UNCHANGED: np.where(np.isnan(changed), math.nan, changed == 0),
            Metric.CHANGED_PIXELS: changed,
            **dict.fromkeys(SECONDS, seconds),
            Metric.READERS_DICE: _column(
                [compared.readers_dice.get(each.image_id) for each in work]
            ),
        },
    )


def _arm(work: AcceptedWork) -> str:
    """Return the arm of a mask; "" where the annotator was shown a person's mask."""
    return work.arm if work.prediction_id is not None or work.arm == Arm.BARE else ""


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Return values (N,), NaN for None."""
    return np.array(values, np.float64)
