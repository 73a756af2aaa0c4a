"""Which labelled images are kept out of training, to see when to stop and how sure to be."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

#: With fewer images every one of them is worth more in training.
FEWEST_IMAGES = 20

#: One patient's images say too little about the next patient's.
FEWEST_PATIENTS = 2


@dataclass(frozen=True)
class Candidate:
    """What decides whether an image may be held out."""

    digest: str
    patient: str
    tone: str
    classes: frozenset[int]


@dataclass(frozen=True)
class HoldOut:
    """Positions of the images held out, in order; empty with the reason in `note`.

    `torn` where earlier probes held out one image of a patient and learned from another: what they
    say of any image of that patient is not honest, so training can't go on from them.
    """

    images: tuple[int, ...]
    note: str = ""
    torn: bool = False


def hold_out(
    candidates: Sequence[Candidate],
    share: float,
    seed: int,
    held: Collection[str] = (),
    learned: Collection[str] = (),
) -> HoldOut:
    """About `share` of the images: whole patients, the tones as evenly as they come.

    Training keeps at least one patient of each tone and one of each class. The choice depends on the
    patients' names and the seed, not on the images' order.

    Args:
        held: digests of images held out before, which stay so.
        learned: digests of images that earlier probes learned from, which can't be held out.
    """
    target = round(share * len(candidates))
    if not target:
        return HoldOut((), "no part was held out: every step was run and nothing was calibrated")
    if len(candidates) < FEWEST_IMAGES:
        return HoldOut(
            (),
            f"{len(candidates)} images are too few to hold some out (from {FEWEST_IMAGES} on): "
            "every step was run and nothing was calibrated",
        )
    of_patient: dict[str, list[int]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        of_patient[candidate.patient].append(i)
    chosen = {
        p for p, images in of_patient.items() if any(candidates[i].digest in held for i in images)
    }
    barred = {
        p
        for p, images in of_patient.items()
        if any(candidates[i].digest in learned for i in images)
    }
    if torn := chosen & barred:
        return HoldOut(
            (),
            f"of {len(torn)} patients one image had been held out and another learned from",
            torn=True,
        )
    waiting = sorted(set(of_patient) - chosen - barred, key=lambda p: _rank(p, seed))
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
        return HoldOut(
            (),
            f"the images show {len(of_patient)} patients, of whom too few can be held out: "
            "every step was run and nothing was calibrated",
        )
    return HoldOut(tuple(sorted(i for p in chosen for i in of_patient[p])))


def _rank(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {patient}".encode()).digest()


def _shown(images: Iterable[Candidate]) -> set[str]:
    """The tones and the classes of a patient's images."""
    return {what for image in images for what in (image.tone, *map(str, image.classes))}
