"""The expected IoU of a prediction: one number to sort by, and a word for people.

It orders work and nothing else: a prediction becomes a mask only when a person submits it, however good it
is expected to be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from annotation_protocol import load_protocol
from ddiseg.masks.mask import Mask

#: Classes whose outlines people correct. Skin and background are what is left, and large: their IoU is high
#: whatever happens to a lesion. A lesion counts also where none is predicted, since each photograph was taken
#: for one.
_LESION, _OTHERS = "lesion", ("marker", "ruler")

#: Lowest expected IoU of each level. Two people's outlines of a lesion agree at a Dice of about 0.9, which is
#: an IoU of 0.82; at 0.65 a third of what either outline holds is not in the other.
LIKELY_GOOD, CHECK = 0.8, 0.65


class Triage(StrEnum):
    """What to expect of a prediction before a person looks at it."""

    LIKELY_GOOD = "probably good, check it all the same"
    CHECK = "check the outline"
    CORRECT = "probably needs correction"

    @classmethod
    def of(cls, quality: float) -> Triage:
        """Return the level of an expected IoU."""
        if quality >= LIKELY_GOOD:
            return cls.LIKELY_GOOD
        return cls.CHECK if quality >= CHECK else cls.CORRECT


class Rating(NamedTuple):
    """What the catalogue stores of a prediction's expected IoU; None where the probes tell none."""

    expected_iou: dict[str, float] | None  #: by class name
    quality: float | None  #: the lowest of a lesion, and of a marker or ruler that is predicted


def rate(expected_iou: Mapping[int, float], mask: Mask) -> Rating:
    """Return the rating of a predicted mask (H, W) from the expected IoU by class id."""
    protocol = load_protocol()
    known = {
        protocol.class_at(index).name: round(min(max(float(value), 0.0), 1.0), 4)
        for index, value in expected_iou.items()
        if math.isfinite(value)
    }
    counting = [known[_LESION]] if _LESION in known else []
    for name in _OTHERS:
        if name in known and (mask == protocol.class_named(name).index).any():
            counting.append(known[name])
    return Rating(known or None, min(counting, default=None))


def by_level(quality: Iterable[float]) -> dict[Triage, int]:
    """Return the number of predictions at each level, the worst last, of their expected IoU; NaN has none."""
    counts = Counter(Triage.of(value) for value in quality if not math.isnan(value))
    return {level: counts[level] for level in Triage}


def in_words(quality: float) -> str:
    """Return an expected IoU with what it means for the person who opens the image."""
    return f"expected IoU {quality:.2f}: {Triage.of(quality)}"
