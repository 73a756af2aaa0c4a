"""Provenance: the images that a model learned from, and the prediction that a mask was drawn over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Mask


class Provenance:
    """All masks of a catalogue, by their pixels and by the mask that each was drawn over."""

    def __init__(self, masks: Iterable[Mask]) -> None:
        self._masks = {mask.id: mask for mask in masks}
        self._images: dict[str, set[int]] = defaultdict(set)
        for mask in self._masks.values():
            if mask.annotator is not None:
                self._images[mask.content_hash].add(mask.image_id)

    @property
    def masks(self) -> Iterable[Mask]:
        """All masks, oldest first."""
        return self._masks.values()

    def images_learned(self, hashes: Iterable[str]) -> set[int]:
        """Return the ids of images of which a person ever drew a mask with one of these hashes.

        A hash is of the pixels, so of two images with the same mask both count.
        """
        return {image_id for digest in hashes for image_id in self._images.get(digest, ())}

    def prediction_under(self, mask: Mask, model_version_id: int) -> Mask | None:
        """Return the prediction by a version that a mask, or an ancestor of it, was drawn over."""
        ancestor: Mask | None = mask
        while ancestor is not None and ancestor.model_version_id != model_version_id:
            parent = ancestor.parent_id
            ancestor = None if parent is None else self._masks[parent]
        return ancestor


def unleaked_predictions(
    catalogue: Catalogue,
    relatives: Callable[[set[int]], set[int]],
    provenance: Provenance | None = None,
) -> dict[int, tuple[Mask | None, str, bool]]:
    """Return the newest prediction of each image by a model that did not learn from its group.

    Args:
        relatives: returns all images in the groups of some images, see `sampling.groups.Groups`.

    Returns:
        By image id: the prediction, or None; the name of its model; and whether a model learned from
        the image's group and no other predicted it.
    """
    versions = {v.id: v for v in catalogue.models.all()}
    provenance = provenance or Provenance(catalogue.masks.all())
    learned = {
        v.id: relatives(provenance.images_learned(v.training_masks)) for v in versions.values()
    }
    found: dict[int, tuple[Mask | None, str, bool]] = {
        image_id: (None, "", True) for images in learned.values() for image_id in images
    }
    for mask in provenance.masks:
        version_id = mask.model_version_id
        if version_id is not None and mask.image_id not in learned[version_id]:
            found[mask.image_id] = (mask, versions[version_id].name, False)
    return found
