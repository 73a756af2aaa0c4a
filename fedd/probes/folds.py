"""Folds of an ensemble: every image is unseen by as many members as any other.

The members are divided as in a cross-validation, and stay together in prediction (Isensee et al.,
"nnU-Net", Nature Methods 2021, predict with the five models of a cross-validation). The ensemble learns
from all images, and the members that have not seen an image tell how good it is on new ones, at no cost
(docs/decisions/0035).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from annotation_protocol.ranking import seeded_rank

if TYPE_CHECKING:
    from fedd.segment import Probes

#: With fewer patients for a fold, a member would lack too much of what the others learn from.
PATIENTS_PER_FOLD = 2


@dataclass(frozen=True)
class Fold:
    """The members that learned from none of these images, which are named by their digests."""

    probes: Probes
    images: tuple[str, ...]


def cross_fitted(probes: Probes) -> list[Fold]:
    """Return the folds of a training; empty if its members all learned from all images.

    The members of a fold's probes are those that saw none of its images, so that their predictions of
    these are as honest as on new images, and a little worse than those of the whole ensemble. There is
    no refinement pass if the refiner has no folds.
    """
    record = probes.record
    found = []
    for fold in sorted(set(record.folds)):
        part = unseen_by(probes, fold)
        if probes.refiner is not None and probes.refiner.record.folds:
            part.refiner = unseen_by(probes.refiner, fold)
        pairs = zip(record.learned, record.folds, strict=True)
        found.append(Fold(part, tuple(digest for digest, of in pairs if of == fold)))
    return found


def unseen_by(probes: Probes, fold: int) -> Probes:
    """Return the members that learned from no image of a fold, without a refiner."""
    settings = probes.settings
    rows = torch.arange(fold, settings.members, settings.folds)
    blocks = tuple(settings.blocks_of(int(member)) for member in rows)
    return type(probes)(
        replace(
            settings,
            members=len(rows),
            folds=0,
            member_blocks=blocks if settings.member_blocks else (),
        ),
        *(probes.classes, probes.trained, probes.backbone_name, probes.backbone_hash),
        {name: tensor[rows] for name, tensor in probes.tensors.items()},
        probes.calibration,
        replace(probes.record, folds=()),
        decision=probes.decision,
        quality=probes.quality,
    )


def assign_folds(
    patients: Sequence[str], count: int, seed: int, earlier: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the fold of each image, given its patient: whole patients, about as many images in each.

    Empty if there are too few patients. The choice depends on the patients' names and the seed, not on
    the order of the images.

    Args:
        earlier: folds of patients in an earlier training, which they keep.
    """
    if not count or len(set(patients)) < PATIENTS_PER_FOLD * count:
        return ()
    images: dict[str, int] = defaultdict(int)
    for patient in patients:
        images[patient] += 1
    of_patient = {patient: fold for patient, fold in earlier.items() if patient in images}
    sizes = [0] * count
    for patient, fold in of_patient.items():
        sizes[fold] += images[patient]
    for patient in sorted(set(images) - set(of_patient), key=lambda p: seeded_rank(seed, p)):
        fold = sizes.index(min(sizes))
        of_patient[patient] = fold
        sizes[fold] += images[patient]
    return tuple(of_patient[patient] for patient in patients)


def rows_of_members(fold_of_row: Tensor, members: int, count: int) -> list[Tensor]:
    """Return the rows that each member learns from: those outside of its fold."""
    of_fold = [(fold_of_row != fold).nonzero()[:, 0] for fold in range(count)]
    return [of_fold[member % count] for member in range(members)]
