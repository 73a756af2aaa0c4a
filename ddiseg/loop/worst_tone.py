"""Which tone the model in use serves worst, by the newest figures that are stored of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from annotation_protocol.scoring import Interval
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.models import ModelVersion
from ddiseg.errors import InputError

_HOW = (
    "run 'ddiseg prelabel' on images with accepted masks that it has not learned from and "
    "'ddiseg evaluate', then draw again"
)


@dataclass(frozen=True)
class Worst:
    """The tone whose lesion IoU has the lowest lower bound."""

    tone: str
    value: float
    interval: Interval
    n: int
    source: str  #: where these figures stand

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.tone} has the lowest lower bound of lesion IoU: {self.value:.3f} "
            f"[{low:.3f}, {high:.3f}], n = {self.n} ({self.source})"
        )


def worst_tone(catalogue: Catalogue, version: ModelVersion | None, tones: Collection[str]) -> Worst:
    """The worst of `tones` for a model version, out of those with enough images to have an interval.

    Raises InputError where no stored figures say so.
    """
    if version is None:
        raise InputError(
            "--towards worst: there is no model to judge the tones by; draw without it, and "
            "run 'ddiseg refresh' once masks are accepted"
        )
    figures, source = _newest_figures(catalogue, version)
    judged = [
        Worst(tone, figure["value"], (low, high), figure["n"], source)
        for tone, figure in figures.items()
        if tone in tones and figure["interval"] is not None
        for low, high in [figure["interval"]]
    ]
    if not judged:
        raise InputError(
            f"--towards worst: no lesion IoU of {version.name} by tone is stored that has enough "
            f"images to judge by: {_HOW}"
        )
    return min(judged, key=lambda worst: worst.interval[0])


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
