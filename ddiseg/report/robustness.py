"""What the report says about light: how far the masks move when it changes a little, by tone."""

from __future__ import annotations

from dataclasses import dataclass

from annotation_protocol.estimates import FEW, ClassEstimates, Estimate, too_few
from ddiseg.catalogue import Catalogue
from ddiseg.report.figures import Dot, dot_panels


@dataclass(frozen=True)
class Row:
    """One tone under one change, as text."""

    tone: str
    iou: str
    dice: str
    n: int
    patients: int
    few: bool


@dataclass(frozen=True)
class Sensitivity:
    """The last robustness run, as the page shows it."""

    at: str
    model: str
    subset: str | None
    n_images: int
    patients: int
    left_out: tuple[str, ...]
    sentences: tuple[str, ...]
    by_change: tuple[tuple[str, tuple[Row, ...]], ...]
    figure: str | None  #: SVG


def last_sensitivity(catalogue: Catalogue) -> Sensitivity | None:
    """Return the newest robustness run; None where there was none yet."""
    last = catalogue.robustness.last()
    if last is None:
        return None
    at, found = last
    counts = (
        (found.learned_from, "that the model learned from"),
        (len(found.refused), "that can't be read"),
        (found.without_lesion, "painted without any lesion"),
    )
    by_change = {
        f"{change} (control)" if change == found.control else change: by_tone
        for change, by_tone in found.by_change.items()
    }
    return Sensitivity(
        at=at,
        model=found.model,
        subset=found.subset,
        n_images=found.n_images,
        patients=found.patients,
        left_out=tuple(f"{n} {which}" for n, which in counts if n),
        sentences=found.sentences,
        by_change=tuple((change, _rows(by_tone)) for change, by_tone in by_change.items()),
        figure=_figure(by_change),
    )


def _rows(by_tone: dict[str, ClassEstimates]) -> tuple[Row, ...]:
    return tuple(
        Row(
            tone="all tones" if tone == "all" else f"tone {tone}",
            iou=_with_interval(score.iou_mean),
            dice=_with_interval(score.dice_mean),
            n=score.n,
            patients=score.groups,
            few=too_few(score.n),
        )
        for tone, score in by_tone.items()
    )


def _with_interval(estimate: Estimate) -> str:
    """The figure to three places: what is close to 1 differs in the third; none without interval."""
    return estimate.text(".3f") if estimate.interval else "—"


def _figure(by_change: dict[str, dict[str, ClassEstimates]]) -> str | None:
    panels = {
        change: {tone: _dot(score) for tone, score in by_tone.items()}
        for change, by_tone in by_change.items()
    }
    if not any(dot.value is not None for dots in panels.values() for dot in dots.values()):
        return None
    title = (
        "Mean IoU of the lesion's masks before and after a change of light, with its 95 % interval, "
        "by change and tone; the table below has the numbers"
    )
    return dot_panels(panels, FEW, "sensitivity", title)


def _dot(score: ClassEstimates) -> Dot:
    interval = score.iou_mean.interval
    return Dot(None if interval is None else score.iou_mean.value, interval, score.n)
