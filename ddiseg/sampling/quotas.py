"""Quotas: how many images of a batch each tone gets, and which tone gets more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from annotation_protocol.estimates import Estimate, sample_size
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError

#: Part of each other tone's slots that moves to the worst tone.
MOVED = 1 / 3


def share_out(
    size: int, room: Mapping[str, int], seed: int = 0, so_far: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return `size` slots by tone: equally many for each tone, none beyond its `room`.

    What a tone has no room for goes to the others. Where slots can't be shared equally, one each goes
    to the tones that had the fewest `so_far`; among equals, the seed decides which comes first.
    """
    had = so_far or {}
    shares, left = {}, size
    waiting = sorted(room, key=lambda tone: room[tone])
    while waiting and room[waiting[0]] * len(waiting) <= left:
        tone = waiting.pop(0)
        shares[tone] = room[tone]
        left -= room[tone]
    if waiting:
        # Each of these has room for one more than its even share.
        even, odd = divmod(left, len(waiting))
        turn = {tone: (place - seed) % len(room) for place, tone in enumerate(room)}
        waiting.sort(key=lambda tone: (had.get(tone, 0), turn[tone]))
        shares |= {tone: even + (place < odd) for place, tone in enumerate(waiting)}
    return {tone: shares[tone] for tone in room}


def focus_on(worst: str, shares: Mapping[str, int], room: Mapping[str, int]) -> dict[str, int]:
    """Return the shares after moving a third of each other tone's slots to `worst`, within its room."""
    moved = dict(shares)
    for tone, slots in shares.items():
        if tone != worst:
            given = min(int(slots * MOVED), room[worst] - moved[worst])
            moved[tone] -= given
            moved[worst] += given
    return moved


@dataclass(frozen=True)
class WorstTone:
    """The tone whose lesion IoU has the lowest lower bound, or has too few patients for one."""

    tone: str
    estimate: Estimate  #: of lesion IoU
    source: str  #: the evaluation or gate that the estimate comes from

    def __str__(self) -> str:
        size = sample_size(self.estimate.n, self.estimate.groups)
        if self.estimate.interval is None:
            return (
                f"{self.tone} has too few patients for an interval of its lesion IoU ({size}, "
                f"{self.source}), so it counts as the worst tone"
            )
        return (
            f"{self.tone} has the lowest lower bound of lesion IoU: {self.estimate.text('.3f')}, "
            f"{size} ({self.source})"
        )

    def to_json(self) -> dict[str, Any]:
        return {"tone": self.tone, **self.estimate.to_json(), "source": self.source}

    @property
    def rank(self) -> tuple[bool, float]:
        """The worst first: tones without an interval by their images, then by the lower bound."""
        low = self.estimate.low
        return (False, self.estimate.n) if low is None else (True, low)


def worst_tone(
    catalogue: Catalogue, version: ModelVersion | None, tones: Collection[str]
) -> WorstTone:
    """Return the worst of `tones` for a model version.

    A tone with too few patients has no lower bound and counts as worst; among several, the one with
    the fewest images.

    Raises:
        InputError: there is no model, or no tone has an estimate with an interval.
    """
    if version is None:
        raise InputError(
            "--focus worst-tone: there is no model to estimate lesion IoU with; leave the option out, and "
            "run 'ddiseg refresh' once masks are accepted"
        )
    estimates, source = _newest_estimates(catalogue, version)
    found = [WorstTone(tone, estimates.get(tone, Estimate()), source) for tone in tones]
    if all(each.estimate.interval is None for each in found):
        raise InputError(
            f"--focus worst-tone: no tone has the {MIN_GROUPS} patients that an interval of the lesion IoU "
            f"of {version.name} needs: 'ddiseg refresh --gate' and 'ddiseg loop run' measure it on "
            "hold-out masks"
        )
    return min(found, key=lambda each: each.rank)


def _newest_estimates(
    catalogue: Catalogue, version: ModelVersion
) -> tuple[dict[str, Estimate], str]:
    """Return the estimates of lesion IoU by tone, and their source.

    An evaluation of a version is always newer than its gate, which ran right after training.
    """
    if (last := catalogue.evaluations.last()) and last[1].models.keys() == {version.name}:
        at, evaluation = last
        by_tone = evaluation.by_tone.items()
        estimates = {tone: of["lesion"].iou_mean for tone, of in by_tone if "lesion" in of}
        return estimates, f"evaluation of {version.name}, {at[:10]}"
    groups = version.decision.by_tone if version.decision else {}
    estimates = {tone: group.candidate["lesion_iou"] for tone, group in groups.items()}
    return estimates, f"gate of {version.name}"
