"""COCO instance format (https://cocodataset.org/#format-data): `annotations.json` and `images/`.

One annotation a class an image, as compressed RLE, which loses nothing of a mask: `iscrowd` is
0, `area` counts pixels, `bbox` is the smallest box around all of the class.

A category's id is the class's index in the protocol (lesion 1, marker 2, ruler 3, skin 4): nothing
is renumbered. The background, index 0, has no category: tools built on pycocotools and torchvision
keep 0 for unlabelled pixels, which background is. So a mask is restored from zeros and the category
id of each annotation, pixel for pixel; regions never overlap.

Unlabelled pixels have no region either; `unlabelled` in the attributes of such an image counts them.
The format `png` says where they are.

Metadata without a COCO field is under `attributes`, of the image and of the annotation. A class
that is not among an image's `labelled_classes` was not labelled; its absence means nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddiseg import masks
from ddiseg.outcomes import Progress, counted
from ddiseg.release.release import ExportSummary, Release, ReleaseItem

ANNOTATIONS = "annotations.json"


def export(release: Release, target: Path, *, images: bool, progress: Progress) -> ExportSummary:
    """Write the release into `target`, an existing empty folder."""
    if images:
        (target / "images").mkdir()

    def write(item: ReleaseItem, mask: masks.Mask) -> tuple[ReleaseItem, list[dict[str, Any]]]:
        annotations = _annotations(release, item, release.over(item, mask))
        if images:
            photograph = target / "images" / item.file_name(images=True)
            photograph.write_bytes(release.photograph_png(item))
        return item, annotations

    written, summary = release.each(write, progress)
    annotations = [annotation for _, of_image in written for annotation in of_image]
    for number, annotation in enumerate(annotations, 1):  # 0 is "no match" to pycocotools
        annotation["id"] = number
    document = {
        "info": _info(release, [item for item, _ in written], images=images),
        "licenses": _licences(release),
        "categories": [
            {"id": c.index, "name": c.name, "supercategory": "", "color": list(c.rgb)}
            for c in release.protocol.classes
            if c.name != release.protocol.hole_fill
        ],
        "images": [_image(item, images=images) for item, _ in written],
        "annotations": annotations,
    }
    (target / ANNOTATIONS).write_text(json.dumps(document, allow_nan=False), "ascii")
    return summary


def _annotations(release: Release, item: ReleaseItem, mask: masks.Mask) -> list[dict[str, Any]]:
    """Return one annotation for each class in `mask`, (H, W); their ids are set later."""
    from scipy.ndimage import find_objects

    background = release.protocol.class_named(release.protocol.hole_fill).index
    areas = np.bincount(mask.ravel(), minlength=len(release.protocol.classes))
    present = [index for index in masks.classes_in(mask) if index != background]
    # One pass over the mask for the boxes of all classes; box number k is that of class k + 1.
    boxes = {index: box for index, box in enumerate(find_objects(mask), 1) if box is not None}
    return [
        {
            "id": 0,
            "image_id": item.image.id,
            "category_id": index,
            "segmentation": region,
            "area": int(areas[index]),
            "bbox": _bbox(*boxes[index]),
            "iscrowd": 0,
            "attributes": item.mask_facts(),
        }
        for index, region in masks.encode_classes(mask, present).items()
    ]


def _bbox(rows: slice, columns: slice) -> list[int]:
    """Return COCO's x, y, width, height."""
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def _image(item: ReleaseItem, *, images: bool) -> dict[str, Any]:
    facts = item.facts()
    return {
        "id": item.image.id,
        "file_name": item.file_name(images=images),
        "width": facts.pop("width"),
        "height": facts.pop("height"),
        "license": item.dataset.id,
        "attributes": facts,
    }


def _info(release: Release, items: list[ReleaseItem], *, images: bool) -> dict[str, Any]:
    from ddiseg import __version__

    accepted = sum(i.accepted for i in items)
    predictions = len(items) - accepted
    unreviewed = (
        f" and {counted(predictions, 'prediction')} of a model that no person has reviewed (accepted: false)"
        if predictions
        else ""
    )
    partial = any(i.unlabelled for i in items)
    exported = {i.image.id for i in items}
    left_out = [i.image.id for i in release.items if i.image.id not in exported]
    newest = max((i.mask.created_at for i in items), default="0000-00-00")
    return {
        "description": (
            f"{counted(accepted, 'mask')} accepted by a second person{unreviewed}; research material, no diagnosis. "
            f"Pixels without an annotation are {release.protocol.hole_fill}"
            + (", or unlabelled where 'unlabelled' counts some." if partial else ".")
        ),
        "version": release.content("coco", images=images, left_out=left_out)[:12],
        # When the newest mask was made: the same release is the same file, whenever it is written.
        "date_created": newest[: 10 if release.names.are_kept else 4],
        "year": int(newest[:4]),
        "ddiseg_version": __version__,
        "protocol_version": release.protocol.version,
        "background": release.protocol.hole_fill,
    }


def _licences(release: Release) -> list[dict[str, Any]]:
    datasets = sorted({i.dataset.id: i.dataset for i in release.items}.values(), key=lambda d: d.id)
    return [
        {
            "id": dataset.id,
            "name": dataset.licence or "not recorded",
            "url": dataset.source if _is_url(dataset.source or "") else "",
            "source": dataset.source,
            "dataset": dataset.name,
            "synthetic": dataset.synthetic,
        }
        for dataset in datasets
    ]


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://")) and " " not in source
