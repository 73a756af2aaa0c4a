"""Splits: which accepted masks train the model, and which are held back for the gate.

A group of images (one patient, one lesion, near-duplicates) is in one split as a whole. About every
fifth group is in the hold-out set. A hash of the patient decides, neither a seed nor the order of
arrival, so the hold-out set grows with the masks and no image ever changes its split. Where ids that
are corrected later join groups of both splits, `sampling.leaks` finds the images that leak.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from ddiseg.catalogue import Catalogue, Split
from ddiseg.sampling.groups import identities

#: Share of the groups that are in the hold-out set.
HOLDOUT_SHARE = 0.2


def assign_splits(catalogue: Catalogue) -> dict[int, Split]:
    """Return the split of every image with an accepted mask, after storing those not yet decided.

    An image that a model has learned from is in the training split, whichever of its masks that was
    and whatever its state is now; its group follows it.
    """
    while True:
        missing, known = catalogue.splits.missing()
        if not missing:
            return catalogue.splits.of_accepted()
        new = _decided(catalogue, missing)
        # Not stored where another process decided, or trained, in the meantime: then look again.
        catalogue.splits.decide(new, known)


def _decided(catalogue: Catalogue, missing: Collection[int]) -> dict[int, Split]:
    """Return the splits of images that have none, by those of their groups."""
    grouping = catalogue.grouping
    groups = grouping.members(grouping.groups_of(missing).values())
    learned = catalogue.provenance.images_learned(among=groups)
    known = dict.fromkeys(learned, Split.TRAINING) | catalogue.splits.of(groups)
    names = identities(grouping.rows_of(groups), groups, grouping.scopes())
    return _by_group(missing, known, names)


def _by_group(
    image_ids: Iterable[int], known: Mapping[int, Split], groups: Mapping[int, str]
) -> dict[int, Split]:
    """Return the split of each image.

    Args:
        image_ids: images to decide, of which some may be known.
        known: splits that are decided already, also of other images.
        groups: identity of the group of each image, see `identities`.
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
