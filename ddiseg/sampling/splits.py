"""Splits: which accepted masks train the model, and which are held back for the gate.

A group of images (one patient, one lesion, near-duplicates) is in one split as a whole. About every
fifth group is in the hold-out set. A hash of the patient decides, neither a seed nor the order of
arrival, so the hold-out set grows with the masks and no image ever changes its split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ddiseg.catalogue import Catalogue, Split
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.splits import Known
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.sampling.groups import group_keys

#: Share of the groups that are in the hold-out set.
HOLDOUT_SHARE = 0.2


def assign_splits(catalogue: Catalogue) -> dict[int, Split]:
    """Return the split of every image with an accepted mask, after storing those not yet decided.

    An image that a model has learned from is in the training split, whichever of its masks that was
    and whatever its state is now; its group follows it.
    """
    while True:
        accepted = catalogue.masks.accepted()
        splits = catalogue.splits.all()
        missing = accepted.keys() - splits.keys()
        if not missing:
            return {image_id: splits[image_id] for image_id in accepted}
        versions = catalogue.models.all()
        known = dict.fromkeys(_learned(catalogue, versions), Split.TRAINING) | splits
        images = catalogue.images.select(ids=[*{*accepted, *known}])
        new = {i: split for i, split in _by_group(images, known).items() if i in missing}
        # Not stored where another process decided, or trained, in the meantime: then look again.
        catalogue.splits.decide(new, Known(len(splits), len(versions)))


def _learned(catalogue: Catalogue, versions: Sequence[ModelVersion]) -> set[int]:
    """Return the ids of the images that one of these segmentation versions was trained on."""
    provenance = Provenance(catalogue.masks.all())
    return provenance.images_learned(digest for v in versions for digest in v.training_masks)


def _by_group(images: Sequence[Image], known: dict[int, Split]) -> dict[int, Split]:
    """Return the split of each image, given those that are already `known`."""
    keys = group_keys(images)
    groups: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        groups[keys[image.id]].append(image)
    splits = {}
    for members in groups.values():
        decided = {known[i.id] for i in members if i.id in known} - {Split.EXCLUDED}
        if len(decided) > 1:
            split = Split.EXCLUDED
        else:
            split = decided.pop() if decided else _hashed(members)
        splits.update({image.id: known.get(image.id, split) for image in members})
    return splits


def _hashed(members: Sequence[Image]) -> Split:
    first = min(members, key=lambda image: image.content_hash)
    key = first.patient if first.patient is not None else first.content_hash
    digest = hashlib.sha256(f"side of {key}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") / 2**64
    return Split.HOLDOUT if number < HOLDOUT_SHARE else Split.TRAINING
