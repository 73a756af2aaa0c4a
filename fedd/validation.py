"""Validation splits for early stopping: by patient, balanced over tones and classes or labels.

Arrays: N images in any order; a split by label is (N,) bool.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.ranking import seeded_rank
from fedd.dataset import DatasetImage
from fedd.errors import TrainingDataError

#: With fewer images no validation split is made: training needs them all.
FEWEST_IMAGES = 20

#: One patient's images do not represent the next patient's.
FEWEST_PATIENTS = 2

#: What a training without a validation split lacks.
_WITHOUT = "every step was run and nothing was calibrated"

#: Names of the labels in messages.
_LABELS = {True: "malignant", False: "benign"}


@dataclass(frozen=True)
class Candidate:
    """An image that may become part of the validation split."""

    digest: str
    patient: str
    tone: str
    classes: frozenset[int]


@dataclass(frozen=True)
class ValidationSplit:
    """Positions of the validation images, in order; if empty, `note` says why.

    `leaked` if earlier probes validated on one image of a patient and learned from another: their
    validation loss is then too low, and training can't continue from them.
    """

    images: tuple[int, ...]
    note: str = ""
    leaked: bool = False


def validation_split(
    candidates: Sequence[Candidate],
    share: float,
    seed: int,
    held: Collection[str] = (),
    learned: Collection[str] = (),
) -> ValidationSplit:
    """Choose about `share` of the images: whole patients, balanced over tones.

    Training keeps at least one patient of each tone and of each class. The choice depends on the
    patients' names and the seed, not on the order of the images.

    Args:
        held: digests of earlier validation images, which stay in the split.
        learned: digests of images that earlier probes learned from, which can't be chosen.
    """
    target = round(share * len(candidates))
    if not target:
        return ValidationSplit((), f"no validation split: {_WITHOUT}")
    if len(candidates) < FEWEST_IMAGES:
        return ValidationSplit(
            (),
            f"{len(candidates)} images are too few for a validation split (it needs "
            f"{FEWEST_IMAGES}): {_WITHOUT}",
        )
    of_patient: dict[str, list[int]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        of_patient[candidate.patient].append(i)
    chosen = {candidate.patient for candidate in candidates if candidate.digest in held}
    barred = {candidate.patient for candidate in candidates if candidate.digest in learned}
    if leaked := chosen & barred:
        return ValidationSplit(
            (),
            "the earlier probes validated on one image and learned from another of the same patient "
            f"({len(leaked)} of {len(of_patient)} patients)",
            leaked=True,
        )
    waiting = sorted(set(of_patient) - chosen - barred, key=lambda p: seeded_rank(seed, p))
    shows = {p: _shown(candidates[i] for i in images) for p, images in of_patient.items()}
    # In how many patients' images training still sees a tone or a class.
    seen = Counter(what for p in set(of_patient) - chosen for what in shows[p])
    while sum(len(of_patient[p]) for p in chosen) < target:
        waiting = [p for p in waiting if all(seen[what] > 1 for what in shows[p])]
        if not waiting:
            break
        counts = Counter(candidates[i].tone for p in chosen for i in of_patient[p])
        # min takes the first of equals: the tone that has fewest, then the patient's rank.
        patient = min(waiting, key=lambda p: counts[candidates[of_patient[p][0]].tone])
        waiting.remove(patient)
        chosen.add(patient)
        seen.subtract(shows[patient])
    if len(chosen) < FEWEST_PATIENTS:
        return ValidationSplit(
            (),
            "too few patients for a validation split, which would take all images of a tone or a class "
            f"from training (patients: {len(of_patient)}): {_WITHOUT}",
        )
    return ValidationSplit(tuple(sorted(i for p in chosen for i in of_patient[p])))


def stratified_validation(
    malignant: Sequence[bool],
    tones: Sequence[str],
    patients: Sequence[str],
    share: float = 0.2,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Choose about `share` of the malignant and of the benign images of each tone, whole patients.

    The choice depends on the patients' names and the seed, not on the order of the rows. Both splits
    have malignant and benign images; raises TrainingDataError if that is impossible.
    """
    if not 0 < share < 1:
        raise TrainingDataError(f"the validation split is {share} of the images; give 0.05 to 0.5")
    strata = list(zip(map(bool, malignant), tones, strict=True))
    images: dict[str, Counter[tuple[bool, str]]] = defaultdict(Counter)
    for patient, stratum in zip(patients, strata, strict=True):
        images[patient][stratum] += 1
    labels = {patient: {label for label, _ in its} for patient, its in images.items()}
    _check_labels(len(strata), labels)
    order = sorted(images, key=lambda patient: seeded_rank(seed, patient))
    room = _room(strata, share, seed)
    chosen: set[str] = set()
    for patient in order:
        fitting = images[patient] & room
        if 2 * fitting.total() > images[patient].total() and _can_be_spared(
            patient, chosen, labels
        ):
            chosen.add(patient)
            room -= fitting
    for label in _LABELS:
        # There may have been no room, or every patient with the label has too many images for it.
        if not any(label in labels[patient] for patient in chosen):
            spare = [p for p in order if label in labels[p] and _can_be_spared(p, chosen, labels)]
            chosen.add(min(spare, key=lambda patient: images[patient].total()))
    return np.array([patient in chosen for patient in patients])


def malignancy_split(images: Sequence[DatasetImage], share: float, seed: int) -> NDArray[np.bool_]:
    """Return `stratified_validation` of a data set's images of known malignancy."""
    malignant = [bool(image.malignant) for image in images]
    tones, patients = [image.tone for image in images], [image.patient for image in images]
    return stratified_validation(malignant, tones, patients, share, seed)


def _check_labels(images: int, labels: Mapping[str, set[bool]]) -> None:
    """Raise TrainingDataError if no split can have both labels twice."""
    for label, called in _LABELS.items():
        having = sum(label in its for its in labels.values())
        if having < 2:
            raise TrainingDataError(
                f"{images} photographs of known malignancy, with {called} ones of "
                f"{having} {'patient' if having == 1 else 'patients'}: to learn and to validate takes "
                "malignant and benign photographs of two patients each, at the least"
            )


def _can_be_spared(patient: str, chosen: set[str], labels: Mapping[str, set[bool]]) -> bool:
    """Return whether training keeps both labels without `chosen` and `patient`."""
    left = (its for p, its in labels.items() if p != patient and p not in chosen)
    return set().union(*left) == set(_LABELS)


def _room(strata: Sequence[tuple[bool, str]], share: float, seed: int) -> Counter[tuple[bool, str]]:
    """Return the images of each label and tone that the split should get, by largest remainders."""
    room: Counter[tuple[bool, str]] = Counter()
    for label in _LABELS:
        sizes = Counter(stratum for stratum in strata if stratum[0] is label)
        wanted = round(share * sizes.total())
        room.update({stratum: int(share * n) for stratum, n in sizes.items()})
        left = wanted - sum(room[stratum] for stratum in sizes)
        by_remainder = sorted(
            sizes, key=lambda s: (-(share * sizes[s] % 1), seeded_rank(seed, s[1]))
        )
        room.update(by_remainder[:left])
    return room


def _shown(images: Iterable[Candidate]) -> set[str]:
    """Return the tones and classes of a patient's images."""
    return {what for image in images for what in (image.tone, *map(str, image.classes))}
