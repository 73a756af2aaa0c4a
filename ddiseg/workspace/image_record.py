"""The record of one image: metadata, masks, reviews and events, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from annotation_protocol import UNLABELLED, UNLABELLED_NAME, UserError, load_protocol
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.workspace.workspace import Workspace

_IMAGE = (
    *("id", "name", "state", "width", "height", "tone", "tone_source", "fitzpatrick", "malignant"),
    *("malignant_source", "diagnosis", "patient", "lesion", "content_hash", "perceptual_hash"),
    "in_place",
)
_MASK = (
    *("id", "content_hash", "width", "height", "mapping", "protocol_version", "uncertainty"),
    *("expected_iou", "quality", "origin", "parent_id", "unlabelled", "independent", "created_at"),
)
_REVIEW = ("mask_id", "reviewer", "verdict", "comment", "created_at")
_SKIP = ("reason", "note", "annotator", "created_at")
_EVENT = ("at", "kind", "actor", "state_before", "state_after", "detail")


def describe(workspace: Workspace, image: Image) -> dict[str, Any]:
    """Return metadata, files, masks with class shares, malignancy estimates, reviews, skips, events."""
    catalogue = workspace.catalogue
    rows = catalogue.masks.of_image(image.id)
    accepted = catalogue.masks.accepted_of(image.id)
    estimates_of_image = catalogue.malignancy.of_image(image.id)
    names = catalogue.models.names()
    learned_from = {
        number: catalogue.models.learned_from(number, image.content_hash)
        for number in {estimate.model_version_id for estimate in estimates_of_image}
    }
    datasets = {dataset.id: dataset.name for dataset in catalogue.images.datasets()}
    masks = [
        {
            **_values(mask, _MASK),
            "author": mask.annotator or names[mask.model_version_id or 0],
            "accepted": accepted is not None and mask.id == accepted.id,
            "shares": _shares(workspace, mask),
        }
        for mask in rows
    ]
    estimates = [
        {
            "model": names[estimate.model_version_id],
            "probability": estimate.probability,
            "learned_from": learned_from[estimate.model_version_id],
            "note": DISCLAIMER,
            "created_at": estimate.created_at,
        }
        for estimate in estimates_of_image
    ]
    reviews = catalogue.masks.reviews([mask.id for mask in rows])
    return {
        **_values(image, _IMAGE),
        "dataset": datasets[image.dataset_id],
        "files": [source.path for source in catalogue.images.sources(image.id)],
        "masks": masks,
        "malignancy_estimates": estimates,
        "reviews": [_values(review, _REVIEW) for review in reviews],
        "skips": [_values(skip, _SKIP) for skip in catalogue.images.skips(image.id)],
        "events": [_values(event, _EVENT) for event in catalogue.events.of_image(image.id)],
    }


def _values(row: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _shares(workspace: Workspace, mask: Mask) -> dict[str, float] | None:
    """Return the share of a mask's pixels by class, without absent ones; None if its file is damaged."""
    try:
        values, counts = np.unique(workspace.mask(mask), return_counts=True)
        names = [
            UNLABELLED_NAME if value == UNLABELLED else load_protocol().class_at(int(value)).name
            for value in values
        ]
    except UserError:  # 'ddiseg verify' reports it
        return None
    return dict(zip(names, (counts / counts.sum()).round(4).tolist(), strict=True))
