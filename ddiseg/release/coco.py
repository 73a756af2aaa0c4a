"""COCO instance format (https://cocodataset.org/#format-data): `annotations.json` and `images/`.

A release of more than 10,000 images has several files, each a COCO file by itself, called
`coco-00001-of-00004.json`, and its photographs are in `images/part-00001/` and so on. Ids are unique in
the whole release. Lists are written as images come: memory does not grow with a release.

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
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ddiseg import masks
from ddiseg.locate import COCO_PART
from ddiseg.outcomes import Progress, counted
from ddiseg.release.items import ReleaseItem
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary

ANNOTATIONS = "annotations.json"

_encode = json.JSONEncoder(allow_nan=False).encode


def export(release: Release, target: Path, *, images: bool, progress: Progress) -> ExportSummary:
    """Write the release into `target`, an existing empty folder."""
    for folder in release.folders() if images else ():
        (target / "images" / folder).mkdir(parents=True)

    def work(item: ReleaseItem, mask: masks.Mask) -> list[dict[str, Any]]:
        annotations = _annotations(release, item, release.over(item, mask))
        if images:
            photograph = target / "images" / item.file_name(images=True)
            photograph.write_bytes(release.photograph_png(item))
        return annotations

    with ExitStack() as opened:
        parts = [_Part.begin(target, opened)]

        def take(item: ReleaseItem, annotations: list[dict[str, Any]]) -> None:
            if parts[-1].images == release.images_per_part:
                parts.append(parts[-1].next(opened))
            parts[-1].add(_image(item, images=images), annotations)

        summary = release.each(work, take, progress)
    head = _encode(_head(release, summary))
    for number, part in enumerate(parts, 1):
        name = COCO_PART.format(number, len(parts)) if len(parts) > 1 else ANNOTATIONS
        part.join(head, target / name)
    return summary


class _Part:
    """The images and the annotations of one file, each a list in a temporary file.

    The file itself begins with what is known when all is written: licences, and how many masks.
    """

    def __init__(self, folder: Path, number: int, first_id: int, opened: ExitStack) -> None:
        self._folder, self._number = folder, number
        self._lists = [folder / f".{name}-{number}" for name in ("images", "annotations")]
        self._files: list[TextIO] = [
            opened.enter_context(path.open("w", encoding="ascii")) for path in self._lists
        ]
        self._next_id = self._first_id = first_id
        self.images = 0

    @classmethod
    def begin(cls, folder: Path, opened: ExitStack) -> _Part:
        """Begin the first part of a release in `folder`; ids begin at 1: 0 is "no match" to pycocotools."""
        return cls(folder, 1, 1, opened)

    def next(self, opened: ExitStack) -> _Part:
        """End this part and begin the next one."""
        for file in self._files:
            file.close()
        return _Part(self._folder, self._number + 1, self._next_id, opened)

    def add(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Add an image and its annotations, which get their ids."""
        images, regions = self._files
        images.write(f"{', ' if self.images else ''}{_encode(image)}")
        self.images += 1
        if not annotations:
            return
        separator = ", " if self._next_id > self._first_id else ""
        for annotation in annotations:
            annotation["id"] = self._next_id
            self._next_id += 1
        regions.write(f"{separator}{_encode(annotations)[1:-1]}")

    def join(self, head: str, path: Path) -> None:
        """Write the file at `path`, which begins with `head`, and remove the lists."""
        before = (f'{head[:-1]}, "images": [', '], "annotations": [')
        with path.open("wb") as whole:
            for begin, part in zip(before, self._lists, strict=True):
                whole.write(begin.encode("ascii"))
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
                part.unlink()
            whole.write(b"]}")


def _head(release: Release, summary: ExportSummary) -> dict[str, Any]:
    """Return what a file begins with."""
    return {
        "info": _info(release, summary),
        "licenses": _licences(summary),
        "categories": [
            {"id": c.index, "name": c.name, "supercategory": "", "color": list(c.rgb)}
            for c in release.protocol.classes
            if c.name != release.protocol.hole_fill
        ],
    }


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


def _info(release: Release, summary: ExportSummary) -> dict[str, Any]:
    from ddiseg import __version__

    unreviewed = (
        f" and {counted(summary.predictions, 'prediction')} of a model that no person has reviewed (accepted: false)"
        if summary.predictions
        else ""
    )
    return {
        "description": (
            f"{counted(summary.accepted, 'mask')} accepted by a second person{unreviewed}; research material, no diagnosis. "
            f"Pixels without an annotation are {release.protocol.hole_fill}"
            + (
                ", or unlabelled where 'unlabelled' counts some."
                if summary.partly_labelled
                else "."
            )
        ),
        "version": summary.content[:12],
        # When the newest mask was made: the same release is the same file, whenever it is written.
        "date_created": summary.newest[: 10 if release.names.are_kept else 4],
        "year": int(summary.newest[:4]),
        "ddiseg_version": __version__,
        "protocol_version": release.protocol.version,
        "background": release.protocol.hole_fill,
    }


def _licences(summary: ExportSummary) -> list[dict[str, Any]]:
    return [
        {
            "id": dataset.id,
            "name": dataset.licence or "not recorded",
            "url": dataset.source if _is_url(dataset.source or "") else "",
            "source": dataset.source,
            "dataset": dataset.name,
            "synthetic": dataset.synthetic,
        }
        for _, dataset in sorted(summary.datasets.items())
    ]


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://")) and " " not in source
