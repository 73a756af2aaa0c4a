"""Splits: which accepted masks train the model, and which are held back for the gate.

A group of images (one patient, one lesion, near-duplicates) is in one split as a whole. About every
fifth group is in the hold-out set. A hash of the patient decides, neither a seed nor the order of
arrival, so the hold-out set grows with the masks and no image ever changes its split. Where ids that
are corrected later join groups of both splits, `sampling.leaks` finds the images that leak.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ddiseg.catalogue import Catalogue, Split
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.splits import Known
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.sampling.groups import Groups

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
        groups = Groups.read(catalogue).identities()
        new = {i: split for i, split in _by_group(missing, known, groups).items() if i in missing}
        # Not stored where another process decided, or trained, in the meantime: then look again.
        catalogue.splits.decide(new, Known(len(splits), len(versions)))


def _learned(catalogue: Catalogue, versions: Sequence[ModelVersion]) -> set[int]:
    """Return the ids of the images that one of these segmentation versions was trained on."""
    provenance = Provenance(catalogue.masks.all())
    return provenance.images_learned(digest for v in versions for digest in v.training_masks)


def _by_group(
    image_ids: Iterable[int], known: Mapping[int, Split], groups: Mapping[int, str]
) -> dict[int, Split]:
    """Return the split of each image.

    Args:
        image_ids: images to decide, of which some may be known.
        known: splits that are decided already, also of other images.
        groups: identity of the group of every image, see `Groups.identities`.
    """
    decided: dict[str, set[Split]] = defaultdict(set)
    for image_id, split in known.items():
        if split is not Split.EXCLUDED:
            decided[groups[image_id]].add(split)
    return {
        image_id: known.get(image_id) or _of_group(groups[image_id], decided[groups[image_id]])
        for image_id in image_ids
    }


def _of_group(identity: str, decided: set[Split]) -> Split:
    if len(decided) > 1:
        return Split.EXCLUDED
    return next(iter(decided)) if decided else _hashed(identity)


def _hashed(identity: str) -> Split:
    digest = hashlib.sha256(f"side of {identity}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") / 2**64
    return Split.HOLDOUT if number < HOLDOUT_SHARE else Split.TRAINING
