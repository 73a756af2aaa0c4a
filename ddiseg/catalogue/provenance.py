"""What came of what: which images were learned from, and over whose painting a mask was drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Mask


class Provenance:
    """All masks of a catalogue by what they show and by what each was drawn over."""

    def __init__(self, masks: Iterable[Mask]) -> None:
        self._masks = {mask.id: mask for mask in masks}
        self._images: dict[str, set[int]] = defaultdict(set)
        for mask in self._masks.values():
            if mask.annotator is not None:
                self._images[mask.content_hash].add(mask.image_id)

    @property
    def masks(self) -> Iterable[Mask]:
        """All masks, the oldest first."""
        return self._masks.values()

    def images_learned(self, hashes: Iterable[str]) -> set[int]:
        """Ids of the images of which a person ever drew one of these masks, whatever came later.

        Masks are known by their pixels, so that of two images with the same mask both count.
        """
        return {image_id for digest in hashes for image_id in self._images.get(digest, ())}

    def painting_under(self, mask: Mask, model_version_id: int) -> Mask | None:
        """The prediction of a version that a mask was drawn over, itself or what came before it."""
        before: Mask | None = mask
        while before is not None:
            if before.model_version_id == model_version_id:
                return before
            before = None if before.parent_id is None else self._masks[before.parent_id]
        return None


def unleaked_predictions(
    catalogue: Catalogue, lineage: Provenance | None = None
) -> dict[int, tuple[Mask | None, str, bool]]:
    """Return the newest prediction of each image by a model that never saw a mask of it.

    By image id: that prediction, None if there is none; its model's name; whether there is none
    though a model learned from the image.
    """
    versions = {v.id: v for v in catalogue.models.all()}
    lineage = lineage or Provenance(catalogue.masks.all())
    learned = {v.id: lineage.images_learned(v.training_masks) for v in versions.values()}
    found: dict[int, tuple[Mask | None, str, bool]] = {
        image_id: (None, "", True) for images in learned.values() for image_id in images
    }
    for mask in lineage.masks:
        version_id = mask.model_version_id
        if version_id is not None and mask.image_id not in learned[version_id]:
            found[mask.image_id] = (mask, versions[version_id].name, False)
    return found
