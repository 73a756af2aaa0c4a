"""One COCO file (JSON) with the masks of many images, or a folder that has one.

The format `coco`, for images that are catalogued already. An image's annotations become one mask:
the regions of a class are united, and where two classes overlap the protocol's precedence decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from annotation_protocol import UNLABELLED
from ddiseg.errors import InputError
from ddiseg.ingest.coco import CocoFile, CocoImage, has_coco, read_coco
from ddiseg.ingest.folder import without_ending
from ddiseg.ingest.labelled_masks import LabelledMasks, Labels, compose_labelled
from ddiseg.ingest.mask_files import MaskFile
from ddiseg.masks import Layer, Mask, Origin, rle
from ddiseg.masks.composition import Region
from ddiseg.masks.polygons import fill_polygons
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
    return LabelledMasks(found.files, [*coco.refused, *found.refused], found.notes)


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
    )


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
    layers = _layers(image, image.size, categories, labels)
    mask, decided = compose_labelled(layers, image.size, None, labels)
    notes += decided
    return mask


def _layers(
    image: CocoImage, size: tuple[int, int], categories: Mapping[Any, str], labels: Labels
) -> Iterator[Layer]:
    for annotation in image.annotations:
        try:
            category = _category(annotation)
            if category not in categories:
                raise InputError(f"its category {category} is not listed: export it again")
            region = _region(annotation.get("segmentation"), size)
        except InputError as error:
            raise InputError(f"annotation {annotation.get('id')}: {error}") from error
        yield Layer(labels.class_id(categories[category]), region, Origin.MANUAL)


def _category(annotation: Mapping[str, Any]) -> Any:
    category = annotation.get("category_id")
    return category if isinstance(category, int | str) else None


def _region(segmentation: Any, size: tuple[int, int]) -> Region:
    """(height, width) bool of polygons, or of run lengths, compressed or not."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            raise InputError(
                f"its RLE has the size {segmentation.get('size')}, its image {list(size)} "
                "(height, width): export it again"
            )
        return rle.decode(segmentation)
    if isinstance(segmentation, list) and segmentation:
        return fill_polygons(segmentation, size)
    raise InputError("has a box and no segmentation: export polygons or masks")
