"""One COCO file (JSON) with the masks of many images, or a folder that has one.

The format `coco`, for images that are catalogued already. An image's annotations become one mask:
where regions of two classes overlap the smaller lies on top, see `ddiseg.masks.stacking`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annotation_protocol import UNLABELLED
from ddiseg.errors import FileError, InputError
from ddiseg.ingest.coco import CocoFile, CocoImage, has_coco, read_coco
from ddiseg.ingest.coco_parts import entry_id
from ddiseg.ingest.coco_regions import has_area, has_box, read_region
from ddiseg.ingest.folder import without_ending
from ddiseg.ingest.labelled_masks import LabelledMasks, Labels, stack_labelled
from ddiseg.ingest.mask_files import MaskFile
from ddiseg.ingest.placement import refuse_too_large
from ddiseg.json_values import whole_number
from ddiseg.masks import Mask
from ddiseg.masks.stacking import StackedRegion
from ddiseg.outcomes import FileOutcome, Note, Outcome, one_file

MASK_ENDINGS = (".json",)


def fits(path: Path) -> bool:
    """Return whether a path is a COCO file or a folder with one."""
    return has_coco(path)


def read_masks(path: Path, labels: Labels) -> LabelledMasks:
    """Read the masks of a COCO file, or of the only one in a folder.

    Raises:
        InputError: no such file, or categories whose class is unknown.
    """
    coco = read_coco(path)
    found = masks_of(coco, labels)
    return LabelledMasks(found.files, [*coco.refused, *found.refused], [*coco.notes, *found.notes])


def masks_of(coco: CocoFile, labels: Labels) -> LabelledMasks:
    """Return the masks of a file; predictions that no person reviewed are left out.

    Raises:
        InputError: categories in use whose class is unknown.
    """
    labelled = [image for image in coco.images if image.has_mask and not image.is_prediction]
    used = {_category(annotation) for image in labelled for annotation in image.annotations}
    labels.check(coco.categories[number] for number in used if number in coco.categories)
    possible = labels.known(coco.categories.values()) | {labels.rest_id}
    notes = []
    predictions = sum(image.has_mask for image in coco.images) - len(labelled)
    if predictions:
        notes.append(f"predictions left out, which no person reviewed: {predictions}")
    if empty := sum(not image.has_mask for image in coco.images):
        notes.append(f"images without annotations: {empty} (no mask)")
    notes += _unusual(a for image in labelled for a in image.annotations)
    files, refused = [], []
    for image in labelled:
        try:
            with one_file():
                files.append(_mask_file(image, coco, labels, possible))
        except InputError as error:
            refused.append(FileOutcome(image.file_name, Outcome.REFUSED, str(error)))
    return LabelledMasks(files, refused, notes)


def _mask_file(image: CocoImage, coco: CocoFile, labels: Labels, possible: set[int]) -> MaskFile:
    name = image.facts.get("name") or image.file_name  # a release may have changed it
    annotator = image.facts.get("annotator")
    notes: list[Note] = []
    return MaskFile(
        name=image.file_name,
        photograph=without_ending(str(name).replace("\\", "/")),
        load=partial(_compose, image, coco.categories, labels, notes),
        classes=_labelled_classes(image, labels) or tuple(sorted(possible)),
        size=image.size,
        annotator=annotator if isinstance(annotator, str) and annotator.strip() else None,
        notes=notes,
        unlabelled=True,
        own="mask_hash" in image.facts,
        original_name=image.original_name,
    )


def _unusual(annotations: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what is unusual about the annotations of a file and leaves their regions as they are."""
    found: Counter[str] = Counter()
    for annotation in annotations:
        if annotation.get("segmentation"):
            found["annotations without a bbox to compare with"] += not has_box(annotation)
            found["annotations without an area to compare with"] += not has_area(annotation)
            found["annotations marked iscrowd, read like any other"] += (
                whole_number(annotation.get("iscrowd")) == 1 or annotation.get("iscrowd") is True
            )
    return [f"{what}: {count}" for what, count in found.items() if count]


def _z_orders(annotations: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the z-order of each annotation where all have one, else 0 of all: size decides."""
    found = []
    for annotation in annotations:
        attributes = annotation.get("attributes")
        others = attributes if isinstance(attributes, dict) else {}
        order = whole_number(annotation.get("z_order", others.get("z_order")))
        if order is None:
            return [0] * len(annotations)
        found.append(order)
    return found


def _category(annotation: Mapping[str, Any]) -> Any:
    return entry_id(annotation.get("category_id"))


def _labelled_classes(image: CocoImage, labels: Labels) -> tuple[int, ...] | None:
    """Return the classes that a release records as labelled, unless labels were given a meaning."""
    listed = image.facts.get("labelled_classes")
    known = range(len(labels.protocol.classes))
    if labels.given or labels.rest is not None or not isinstance(listed, list):
        return None
    return tuple(sorted(listed)) if all(index in known for index in listed) else None


def _compose(
    image: CocoImage, categories: Mapping[Any, str], labels: Labels, notes: list[Note]
) -> Mask:
    if image.size is None:
        raise InputError("the file does not say how large it is (width, height): export it again")
    if image.facts.get("unlabelled") and labels.rest_id != UNLABELLED:
        raise InputError(
            f"{image.facts['unlabelled']} of its pixels are unlabelled, and COCO does not say which: "
            "import the PNGs of that release, or take all without a region for unlabelled with "
            "--classes rest=ignore"
        )
    refuse_too_large(image.size)
    remarks: dict[str, list[str]] = {}
    regions = _regions(image, image.size, categories, labels, remarks)
    mask, decided = stack_labelled(regions, image.size, labels)
    told = [Note(f"{', '.join(names)}: {kind}", kind) for kind, names in remarks.items()]
    if mask is None and image.annotations:
        why = "; ".join(remarks)
        raise FileError(
            f"no annotation of it has a region that can be used ({'; '.join(n.text for n in told)}): "
            "export polygons or masks",
            f"no annotation has a region that can be used ({why}): export polygons or masks",
        )
    notes += [*told, *decided]
    return np.full(image.size, labels.rest_id, np.uint8) if mask is None else mask


def _regions(
    image: CocoImage,
    size: tuple[int, int],
    categories: Mapping[Any, str],
    labels: Labels,
    remarks: dict[str, list[str]],
) -> Iterator[StackedRegion]:
    """Yield the regions of an image; `remarks` receives the names of annotations by remark."""
    orders = _z_orders(image.annotations)
    for annotation, order in zip(image.annotations, orders, strict=True):
        name = f"annotation {annotation.get('id')}"
        try:
            category = _category(annotation)
            if category not in categories:
                raise InputError(f"its category {category} is not listed: export it again")
            read = read_region(annotation, size)
        except FileError as error:
            raise FileError(f"{name} ({categories[category]}): {error}", error.kind) from error
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        for remark in read.remarks:
            remarks.setdefault(remark, []).append(f"{name} ({categories[category]})")
        if read.region is not None:
            yield StackedRegion(labels.class_id(categories[category]), read.region, name, order)
