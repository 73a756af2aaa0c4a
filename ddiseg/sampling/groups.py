"""Which images must stay together when some are learned from and others are kept apart."""

from __future__ import annotations

from collections.abc import Sequence

from ddiseg.catalogue.tables import Image
from ddiseg.sampling.subsets import relatives


def group_keys(images: Sequence[Image]) -> dict[int, str]:
    """By image id, what stands for all images of its patient and their near-duplicates.

    The smallest content hash among them: no row number decides what is held out.
    """
    _, numbers = relatives(images)
    smallest: dict[int, str] = {}
    for image in images:
        family = numbers[image.id]
        smallest[family] = min(image.content_hash, smallest.get(family, image.content_hash))
    return {image.id: smallest[numbers[image.id]] for image in images}
