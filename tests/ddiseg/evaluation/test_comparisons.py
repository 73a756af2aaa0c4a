"""The study's measures from stored comparisons, against all masks read one by one."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from annotation_protocol import UNLABELLED, metrics
from ddiseg.catalogue import Arm, Catalogue, Purpose
from ddiseg.catalogue.tables import Acceptance, Annotation, Event, Mask, Project, Task
from ddiseg.evaluation.annotator_study import summarise, work_report
from ddiseg.evaluation.measures import MaskMeasures, Metric
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from tests.scale import SCALE

LESION, CLASSES = 1, 5


@pytest.mark.slow
def test_work_report__as_one_by_one(scale_workspace: Workspace) -> None:
    rows = _one_by_one(scale_workspace)
    names = [version.name for version in scale_workspace.catalogue.models.all()]
    expected = summarise(rows, names).as_dict()
    for _ in range(2):  # compared, then read from the catalogue
        found = work_report(scale_workspace).as_dict()
        assert _flat(found) == pytest.approx(_flat(expected), nan_ok=True)
    assert found["n"] == SCALE // 10
    assert min(found["arms"][arm]["n"] for arm in ("painted", "control", "bare")) > 0
    assert found["arms"]["painted"]["readers_lesion_dice"]["n"] > 0


def _one_by_one(workspace: Workspace) -> list[MaskMeasures]:
    """Measure each accepted mask from its rows and files."""
    catalogue = workspace.catalogue
    names = {version.id: version.name for version in catalogue.models.all()}
    images = {image.id: image for image in catalogue.images.select()}
    groups, readings = Groups.read(catalogue), _readings(catalogue)
    rows = []
    with catalogue._database.read() as session:
        masks = {mask.id: mask for mask in session.scalars(select(Mask))}
        query = (
            select(Acceptance, Task, Annotation)
            .join(Task, Task.image_id == Acceptance.image_id)
            .join(Project, Project.id == Task.project_id)
            .join(Annotation, Annotation.task_id == Task.id)
            .where(Project.purpose == Purpose.ANNOTATION.value)
            .order_by(Annotation.id)
        )
        last: dict[int, tuple[Acceptance, Task, Annotation]] = {}
        for acceptance, task, annotation in session.execute(query):
            accepted = masks[acceptance.mask_id]
            if annotation.mask_id is not None and annotation.mask_id in (
                accepted.id,
                accepted.parent_id,
            ):
                last[acceptance.image_id] = acceptance, task, annotation
        events = {e.image_id: e for e in session.scalars(select(Event)) if e.kind == "accept"}
    for image_id, (acceptance, task, annotation) in last.items():
        image, accepted = images[image_id], masks[acceptance.mask_id]
        values: dict[Metric, float] = {}
        arm: Arm | None = Arm(task.arm)
        shown = masks.get(task.mask_id or 0)
        model = None
        if shown is not None and shown.annotator is None:
            truth, predicted = workspace.mask(accepted), workspace.mask(shown)
            confusion = metrics.confusion(truth, predicted, CLASSES)
            dice = metrics.dice_per_class(confusion)
            changed = np.count_nonzero(truth != predicted) / truth.size
            values |= {
                Metric.LESION_DICE: float(dice[LESION]),
                Metric.MEAN_DICE: float(np.nanmean(dice)),
                Metric.UNCHANGED: float(changed == 0),
                Metric.CHANGED_PIXELS: changed,
            }
            model = names[shown.model_version_id or 0]
        elif arm is not Arm.BARE:
            arm = None
        assert annotation.lead_time is not None
        values |= dict.fromkeys((Metric.MEDIAN_SECONDS, Metric.MEAN_SECONDS), annotation.lead_time)
        pixels = [workspace.mask_over(image, mask) for mask in readings.get(image_id, ())]
        pairs = [_lesion_dice(a, b) for a, b in combinations(pixels, 2)]
        if pairs:
            values[Metric.READERS_DICE] = float(np.mean(pairs))
        event = events[image_id]
        rows.append(
            MaskMeasures(
                image.tone, str(groups.number(image_id)), arm, model, event.id, event.at, values
            )
        )
    return rows


def _readings(catalogue: Catalogue) -> dict[int, list[Mask]]:
    """Return the masks by two people of an image; here nobody changes another one's annotation."""
    with catalogue._database.read() as session:
        query = (
            select(Task.image_id, Mask)
            .join(Annotation, Annotation.task_id == Task.id)
            .join(Mask, Mask.id == Annotation.mask_id)
            .order_by(Annotation.id)
        )
        found: dict[int, list[Mask]] = {}
        for image_id, mask in session.execute(query):
            found.setdefault(image_id, []).append(mask)
    return {image_id: masks for image_id, masks in found.items() if len(masks) > 1}


def _lesion_dice(one: Any, other: Any) -> float:
    a, b = one == LESION, other == LESION
    assert not (one == UNLABELLED).any()
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the numbers and texts of nested JSON, by their path."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {path: math.nan if value is None else value}
    return {k: v for key, each in parts for k, v in _flat(each, f"{path}/{key}").items()}
