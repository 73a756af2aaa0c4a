"""Photographs of a workspace, as `fedd.pipeline` opens them: on threads, each compared with its hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ddiseg.catalogue.tables import Image
from ddiseg.images import Photograph
from ddiseg.outcomes import FileOutcome, Outcome, one_file
from ddiseg.workspace.workspace import Workspace
from fedd.pipeline import Source


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


def reason(image: Image, error: Exception | None) -> str:
    """Return why a photograph can't be opened, without the image's name."""
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
