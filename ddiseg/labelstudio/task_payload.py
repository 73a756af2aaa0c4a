"""What a task holds on the server: data that people see, and regions that they find painted."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from annotation_protocol import Protocol
from annotation_protocol.label_studio_config import IMAGE, MASK, REVIEW_COMMENT
from ddiseg import masks
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.masks import brush_rle

#: The key in a task's data by which it is found again, whatever was interrupted.
KEY = "ddiseg"

#: All that is painted goes under one version: Label Studio shows the predictions of one version
#: of a project only, and tasks painted by older models must stay painted. Data has the real one.
PAINTED = "ddiseg"

#: Digits of a mask's hash in the ids of its regions: what was painted is known from what came back.
_DIGITS = 16


def image_key(image: Image) -> str:
    """The key of an image's task, the same in every run."""
    return image.content_hash[:16]


def review_key(image: Image, mask: Mask, reviews: int) -> str:
    """The key of the next review of one mask of one person, after `reviews` earlier ones."""
    text = f"{image.content_hash} {mask.content_hash} {mask.annotator} {reviews}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def task_data(image: Image, key: str, picture: str, **more: Any) -> dict[str, Any]:
    """Data of a task: the picture's address, ids, and what `more` says."""
    data = {IMAGE: picture, KEY: key, "image_id": image.id, "name": image.name, REVIEW_COMMENT: ""}
    return {**data, **more}


def prediction(
    mask: masks.Mask, digest: str, protocol: Protocol, uncertainty: float | None
) -> dict[str, Any]:
    """A mask as Label Studio paints it: one brush region for each class that a pixel has.

    Args:
        mask: (H, W) uint8 class ids, at the size of the picture.
        digest: content hash of the mask as it is stored.
        uncertainty: mean mutual information of the model's members in nats; None for a person's.
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
    painted: dict[str, Any] = {"model_version": PAINTED, "result": regions}
    if uncertainty is not None:
        painted["score"] = _score(uncertainty, len(protocol.classes))
    return painted


def preannotated_mask(region_ids: list[str]) -> str | None:
    """The first digits of the hash of the mask that regions were painted from; None if none was."""
    for region_id in region_ids:
        digest, dash, _ = region_id.partition("-")
        if dash and len(digest) == _DIGITS and all(c in "0123456789abcdef" for c in digest):
            return digest
    return None


def _score(uncertainty: float, classes: int) -> float:
    """1 where the model's members agree everywhere, 0 where they never do."""
    return round(max(0.0, 1 - uncertainty / math.log(classes)), 4)
