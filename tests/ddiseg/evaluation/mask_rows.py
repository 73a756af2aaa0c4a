"""Measures of accepted masks, made without a workspace."""

from __future__ import annotations

from ddiseg.catalogue import Arm
from ddiseg.evaluation.measures import MaskMeasures, Metric

FIRST_DAY = "2026-01-05"


def mask(
    event_id: int,
    *,
    unchanged: bool = False,
    dice: float | None = 0.8,
    changed: float = 0.05,
    seconds: float | None = 30.0,
    readers: float | None = None,
    arm: Arm | None = Arm.PREDICTED,
    tone: str = "I-II",
    patient: str | None = None,
    day: str = FIRST_DAY,
) -> MaskMeasures:
    """Return the measures of a mask accepted with an event id."""
    values = {
        Metric.LESION_DICE: dice,
        Metric.MEAN_DICE: dice,
        Metric.UNCHANGED: float(unchanged),
        Metric.CHANGED_PIXELS: changed,
        Metric.MEDIAN_SECONDS: seconds,
        Metric.MEAN_SECONDS: seconds,
        Metric.READERS_DICE: readers,
    }
    known = {measure: value for measure, value in values.items() if value is not None}
    at = f"{day}T10:00:00.000000+00:00"
    return MaskMeasures(tone, patient or f"patient {event_id}", arm, "fedd-1", event_id, at, known)
