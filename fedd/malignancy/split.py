"""A validation part of a data set: apart by patient, with its share of each label and tone.

Arrays: N images, in any order; the part is (N,) bool.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedd.errors import TrainingDataError

#: What a label is called where one is missing.
_CALLED = {True: "malignant", False: "benign"}


def validation_part(
    malignant: Sequence[bool],
    tones: Sequence[str],
    patients: Sequence[str],
    share: float = 0.2,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """About `share` of the malignant and of the benign images of each tone, no patient on both sides.

    The patients' order comes from a hash of the seed and their names, so the rows' order decides
    nothing. Both parts have malignant and benign images; raises TrainingDataError where they can't.
    """
    if not 0 < share < 1:
        raise TrainingDataError(f"the validation part is {share} of the images; give 0.05 to 0.5")
    strata = list(zip(map(bool, malignant), tones, strict=True))
    images: dict[str, Counter[tuple[bool, str]]] = defaultdict(Counter)
    for patient, stratum in zip(patients, strata, strict=True):
        images[patient][stratum] += 1
    labels = {patient: {label for label, _ in its} for patient, its in images.items()}
    _check_labels(len(strata), labels)
    order = sorted(images, key=lambda patient: _rank(seed, patient))
    room = _room(strata, share, seed)
    chosen: set[str] = set()
    for patient in order:
        fitting = images[patient] & room
        if 2 * fitting.total() > images[patient].total() and _can_be_spared(
            patient, chosen, labels
        ):
            chosen.add(patient)
            room -= fitting
    for label in _CALLED:
        # There may have been no room, or everyone who has it has more images than there was room for.
        if not any(label in labels[patient] for patient in chosen):
            spare = [p for p in order if label in labels[p] and _can_be_spared(p, chosen, labels)]
            chosen.add(min(spare, key=lambda patient: images[patient].total()))
    return np.array([patient in chosen for patient in patients])


def _check_labels(images: int, labels: Mapping[str, set[bool]]) -> None:
    """Refuse what no split can put on both sides."""
    for label, called in _CALLED.items():
        having = sum(label in its for its in labels.values())
        if having < 2:
            raise TrainingDataError(
                f"{images} photographs of known malignancy, with {called} ones of "
                f"{having} {'patient' if having == 1 else 'patients'}: to learn and to validate takes "
                "malignant and benign photographs of two patients each, at the least"
            )


def _can_be_spared(patient: str, chosen: set[str], labels: Mapping[str, set[bool]]) -> bool:
    """Whether both labels are left to learn from without `chosen` and `patient`."""
    left = (its for p, its in labels.items() if p != patient and p not in chosen)
    return set().union(*left) == set(_CALLED)


def _room(strata: Sequence[tuple[bool, str]], share: float, seed: int) -> Counter[tuple[bool, str]]:
    """Images of each label and tone that the part should get: largest remainders within a label."""
    room: Counter[tuple[bool, str]] = Counter()
    for label in _CALLED:
        sizes = Counter(stratum for stratum in strata if stratum[0] is label)
        wanted = round(share * sizes.total())
        room.update({stratum: int(share * n) for stratum, n in sizes.items()})
        left = wanted - sum(room[stratum] for stratum in sizes)
        by_remainder = sorted(sizes, key=lambda s: (-(share * sizes[s] % 1), _rank(seed, s[1])))
        room.update(by_remainder[:left])
    return room


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
