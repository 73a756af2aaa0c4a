"""Content of a task on the server: its data, and its prediction as brush regions."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from annotation_protocol import Protocol
from annotation_protocol.label_studio_config import IMAGE, MASK, REVIEW_COMMENT
from ddiseg import masks
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.masks import brush_rle

#: Key in the task data by which a task is found again after an interruption.
KEY = "ddiseg"

#: Key in the task data of what to expect of the prediction, in words.
EXPECTED = "expected"

#: Version of all our predictions. Label Studio shows only one version in a project, and predictions
#: of older models must stay visible. The task data names the actual model.
MODEL_VERSION = "ddiseg"

#: Digits of a mask's hash in the ids of its regions, which identify it when regions come back.
_DIGITS = 16


def image_key(image: Image) -> str:
    """Return the key of an image's task, the same in every run."""
    return image.content_hash[:16]


def review_key(image: Image, mask: Mask, reviews: int) -> str:
    """Return the key of the next review of a person's mask, after `reviews` earlier ones."""
    text = f"{image.content_hash} {mask.content_hash} {mask.annotator} {reviews}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def task_data(image: Image, key: str, picture: str, **more: Any) -> dict[str, Any]:
    """Return the data of a task: the picture's address, ids, and `more`."""
    data = {IMAGE: picture, KEY: key, "image_id": image.id, "name": image.name, REVIEW_COMMENT: ""}
    return {**data, **more}


def prediction(
    mask: masks.Mask, digest: str, protocol: Protocol, score: float | None
) -> dict[str, Any]:
    """Return a mask as a Label Studio prediction: one brush region for each class in it.

    Args:
        mask: (H, W) uint8 class ids, at the size of the picture.
        digest: content hash of the stored mask.
        score: 0 to 1, by which the Data Manager sorts (`score_of`); None for a person's.
    """
    height, width = mask.shape
    regions = [
        {
            "id": f"{digest[:_DIGITS]}-{protocol.class_at(class_id).name}",
            "type": "brushlabels",
            "from_name": MASK,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": rle,
                "brushlabels": [protocol.class_at(class_id).name],
            },
        }
        for class_id, rle in brush_rle.encode_classes(mask, masks.classes_in(mask)).items()
    ]
    content: dict[str, Any] = {"model_version": MODEL_VERSION, "result": regions}
    if score is not None:
        content["score"] = score
    return content


def score_of(mask: Mask, protocol: Protocol) -> float | None:
    """Return the score of a stored mask: the expected IoU; None for a person's.

    Of a prediction without one, 1 where the model's members agree everywhere, 0 where they never do.
    """
    if mask.quality is not None:
        return round(mask.quality, 4)
    if mask.uncertainty is None:
        return None
    return round(max(0.0, 1 - mask.uncertainty / math.log(len(protocol.classes))), 4)


def expectation(mask: Mask) -> dict[str, str]:
    """Return the task data that say what to expect of a prediction; none for a person's mask."""
    if mask.model_version_id is None:
        return {}
    return {EXPECTED: "" if mask.quality is None else masks.in_words(mask.quality)}


def preannotated_mask(region_ids: list[str]) -> str | None:
    """Return the first digits of the hash of the mask that regions come from; None if from none."""
    for region_id in region_ids:
        digest, dash, _ = region_id.partition("-")
        if dash and len(digest) == _DIGITS and all(c in "0123456789abcdef" for c in digest):
            return digest
    return None
