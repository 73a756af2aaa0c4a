"""Which accepted masks are learned from, and which are held out for the gate.

A family (images of a patient, and near-duplicates) stands on one side as a whole. About every fifth
is held out: a hash of the patient decides, no seed and no order of arrival, so the held-out part
grows with the masks and no image ever changes sides.
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

#: Share of the families that are held out.
HELD_OUT = 0.2


def assign_splits(catalogue: Catalogue) -> dict[int, Split]:
    """The side of every image with an accepted mask; those that have none yet get theirs.

    An image that a model has learned from is on the training side, whichever of its masks that was
    and however the image stands now; its family follows it.
    """
    while True:
        accepted = catalogue.masks.accepted()
        sides = catalogue.splits.all()
        missing = accepted.keys() - sides.keys()
        if not missing:
            return {image_id: sides[image_id] for image_id in accepted}
        versions = catalogue.models.all()
        known = dict.fromkeys(_learned(catalogue, versions), Split.TRAINING) | sides
        images = catalogue.images.select(ids=[*{*accepted, *known}])
        new = {i: side for i, side in _by_group(images, known).items() if i in missing}
        # Not stored where another process has decided, or learned, in the meantime: seen anew then.
        catalogue.splits.decide(new, Known(len(sides), len(versions)))


def _learned(catalogue: Catalogue, versions: Sequence[ModelVersion]) -> set[int]:
    """Ids of the images that one of these versions learned to paint from."""
    lineage = Provenance(catalogue.masks.all())
    return lineage.images_learned(digest for v in versions for digest in v.training_masks)


def _by_group(images: Sequence[Image], known: dict[int, Split]) -> dict[int, Split]:
    """The side of each image, where `known` are some that stand."""
    keys = group_keys(images)
    groups: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        groups[keys[image.id]].append(image)
    sides = {}
    for members in groups.values():
        there = {known[i.id] for i in members if i.id in known} - {Split.EXCLUDED}
        group_split = (
            there.pop() if len(there) == 1 else Split.EXCLUDED if there else _drawn(members)
        )
        sides.update({image.id: known.get(image.id, group_split) for image in members})
    return sides


def _drawn(members: Sequence[Image]) -> Split:
    first = min(members, key=lambda image: image.content_hash)
    key = first.patient if first.patient is not None else first.content_hash
    digest = hashlib.sha256(f"side of {key}".encode()).digest()
    lot = int.from_bytes(digest[:8], "big") / 2**64
    return Split.HOLDOUT if lot < HELD_OUT else Split.TRAINING
