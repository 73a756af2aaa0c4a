"""Which tone the model in use serves worst, by the newest figures that are stored of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from annotation_protocol.estimates import Estimate, Interval, too_few
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError

_HOW = "'ddiseg refresh --gate' and 'ddiseg loop run' measure it on masks that they hold out"


@dataclass(frozen=True)
class Worst:
    """The tone whose lesion IoU has the lowest lower bound, or of which too little is known."""

    tone: str
    value: float | None
    interval: Interval | None  #: None where there are too few images to say
    n: int
    source: str  #: where these figures stand

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return (
                f"{self.tone} has too few images to say how well it is served (n = {self.n}, "
                f"{self.source}): what nothing is known of counts as worst"
            )
        low, high = self.interval
        return (
            f"{self.tone} has the lowest lower bound of lesion IoU: {self.value:.3f} "
            f"[{low:.3f}, {high:.3f}], n = {self.n} ({self.source})"
        )


def worst_tone(catalogue: Catalogue, version: ModelVersion | None, tones: Collection[str]) -> Worst:
    """The worst of `tones` for a model version.

    A tone with too few images has no lower bound, which is the lowest there is: of several, the one
    with the fewest. Raises InputError where no tone has figures at all.
    """
    if version is None:
        raise InputError(
            "--towards worst: there is no model to judge the tones by; draw without it, and "
            "run 'ddiseg refresh' once masks are accepted"
        )
    estimates, source = _newest_estimates(catalogue, version)
    judged = []
    for tone in tones:
        found = estimates.get(tone, Estimate())
        interval = None if too_few(found.n) else found.interval
        judged.append(Worst(tone, found.value, interval, found.n, source))
    if all(each.interval is None for each in judged):
        raise InputError(
            f"--towards worst: no lesion IoU of {version.name} by tone is stored that has enough "
            f"images to judge by: {_HOW}"
        )
    unknown = [each for each in judged if each.interval is None]
    if unknown:
        return min(unknown, key=lambda each: each.n)
    return min(judged, key=lambda each: each.interval or (0.0, 0.0))


def _newest_estimates(
    catalogue: Catalogue, version: ModelVersion
) -> tuple[dict[str, Estimate], str]:
    """Return the estimates of lesion IoU by tone, and their source.

    An evaluation of a version is newer than its gate, which it passed when it was made.
    """
    if (last := catalogue.evaluations.last()) and last[1].models.keys() == {version.name}:
        at, evaluation = last
        by_tone = evaluation.by_tone.items()
        estimates = {tone: of["lesion"].iou_mean for tone, of in by_tone if "lesion" in of}
        return estimates, f"evaluation of {version.name}, {at[:10]}"
    groups = version.decision.by_tone if version.decision else {}
    estimates = {tone: group.candidate["lesion_iou"] for tone, group in groups.items()}
    return estimates, f"gate of {version.name}"
