"""Photographs of a workspace, as `fedd.pipeline` opens them: on threads, each compared with its hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED
from ddiseg import masks
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import StoreError
from ddiseg.images import Photograph
from ddiseg.outcomes import FileOutcome, Outcome, one_file
from ddiseg.workspace.workspace import Workspace
from fedd.pipeline import Source
from fedd.prefetch import default_workers, prefetch
from fedd.probes.training import Example


def sources(workspace: Workspace, images: Sequence[Image]) -> list[Source[Image]]:
    """Return the photographs of images, each to be opened when its turn comes."""
    return [Source(image, partial(open_photograph, workspace, image)) for image in images]


def open_photograph(workspace: Workspace, image: Image) -> Photograph:
    """Return the pixels of an image, (H, W, 3) uint8.

    Raises:
        UserError: it can't be opened, whatever the cause: only this one is refused.
    """
    with one_file():
        return workspace.photograph(image)


def examples(
    workspace: Workspace,
    pairs: Sequence[tuple[Image, Mask]],
    patients: Sequence[str],
    predictions: Mapping[int, Mask] | None = None,
) -> Iterator[Example]:
    """Yield photographs with their masks, the next ones read on threads meanwhile.

    Args:
        predictions: those that masks were drawn over, by mask id: where a person changed one, the
            example's pixels are `corrected`.

    Raises:
        UserError: one can't be read.
    """

    def read(image: Image, mask: Mask, patient: str) -> _ReadExample:
        photograph, pixels = open_photograph(workspace, image), workspace.mask(mask)
        corrected = None
        if (prediction := (predictions or {}).get(mask.id)) is not None:
            corrected = _corrected(pixels, workspace.mask(prediction))
        return _ReadExample(Example(photograph, pixels, patient, image.tone, corrected))

    jobs = [
        partial(read, image, mask, patient)
        for (image, mask), patient in zip(pairs, patients, strict=True)
    ]
    workers = default_workers()
    with closing(prefetch(jobs, workers, 2 * workers)) as found:
        for each in found:
            yield each.example


def predictions_under(workspace: Workspace, mask_ids: Sequence[int]) -> dict[int, Mask]:
    """Return the prediction that each mask was drawn over, by mask id; of no other masks."""
    under = workspace.catalogue.provenance.predictions_under(mask_ids)
    rows = workspace.catalogue.masks.get([each.mask_id for each in under.values()])
    return {mask_id: rows[each.mask_id] for mask_id, each in under.items()}


def _corrected(mask: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a mask (h, w) has another class than the prediction that it was drawn over."""
    height, width = mask.shape
    changed: NDArray[np.bool_] = mask != masks.stretch(prediction, (height, width))
    changed &= mask != UNLABELLED
    return changed


@dataclass(frozen=True)
class _ReadExample:
    """An example with what `fedd.prefetch` asks of a result."""

    example: Example

    @property
    def opened_pixels(self) -> int:
        height, width = self.example.photograph.shape[:2]
        return height * width

    @property
    def held_pixels(self) -> int:
        return self.opened_pixels


def reason(image: Image, error: Exception | None) -> str:
    """Return why a photograph can't be opened, without the image's name.

    Raises:
        StoreError: it is no fault of this photograph.
    """
    if isinstance(error, StoreError):
        raise error
    return str(error).removeprefix(f"{image.name}: ")


def in_order(
    images: Sequence[Image], stored: Mapping[int, Outcome], refused: Mapping[int, str]
) -> list[FileOutcome]:
    """Return the outcome of each image from those by image id; the others are unchanged.

    Of an image that is given twice, the second is unchanged.
    """
    left = dict(stored)
    return [
        FileOutcome(image.name, Outcome.REFUSED, refused[image.id])
        if image.id in refused
        else FileOutcome(image.name, left.pop(image.id, Outcome.UNCHANGED))
        for image in images
    ]
