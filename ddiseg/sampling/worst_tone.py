"""Which tone the model in use serves worst, by the newest figures that are stored of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from annotation_protocol.metrics import FEW, Interval
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
    figures, source = _newest_figures(catalogue, version)
    judged = []
    for tone in tones:
        figure = figures.get(tone, {"value": None, "interval": None, "n": 0})
        too_few = figure["interval"] is None or figure["n"] < FEW
        interval = None if too_few else tuple(figure["interval"])
        judged.append(Worst(tone, figure["value"], interval, figure["n"], source))
    if all(each.interval is None for each in judged):
        raise InputError(
            f"--towards worst: no lesion IoU of {version.name} by tone is stored that has enough "
            f"images to judge by: {_HOW}"
        )
    unknown = [each for each in judged if each.interval is None]
    if unknown:
        return min(unknown, key=lambda each: each.n)
    return min(judged, key=lambda each: each.interval or (0.0, 0.0))


def _newest_figures(
    catalogue: Catalogue, version: ModelVersion
) -> tuple[dict[str, dict[str, Any]], str]:
    """Value, interval and n of lesion IoU by tone, and their source.

    An evaluation of a version is newer than its gate, which it passed when it was made.
    """
    evaluation = catalogue.history.last("evaluation")
    if evaluation is not None and set(evaluation.detail["models"]) == {version.name}:
        scores = {
            tone: classes["lesion"]
            for tone, classes in evaluation.detail["by_tone"].items()
            if "lesion" in classes
        }
        figures = {
            tone: {"value": s["iou_mean"], "interval": s["iou_mean_ci95"], "n": s["n"]}
            for tone, s in scores.items()
        }
        return figures, f"evaluation of {version.name}, {evaluation.at[:10]}"
    by_tone = (version.gate or {}).get("by_tone", {})
    figures = {tone: group["candidate"]["lesion_iou"] for tone, group in by_tone.items()}
    return figures, f"gate of {version.name}"
