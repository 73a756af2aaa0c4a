"""What the report says about light: how far the masks move when it changes a little, by tone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotation_protocol.metrics import FEW
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
    """The last measurement, as the event log has it."""

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
    """The newest event of kind 'sensitivity'; None where nothing was measured yet."""
    event = catalogue.history.last("sensitivity")
    if event is None:
        return None
    detail = event.detail
    called = {
        change: f"{change} (control)" if change == detail["control"] else change
        for change in detail["by_change"]
    }
    counts = (
        (detail["learned_from"], "that the model learned from"),
        (len(detail["refused"]), "that can't be read"),
        (detail["without_lesion"], "painted without any lesion"),
    )
    by_change = {called[change]: by_tone for change, by_tone in detail["by_change"].items()}
    return Sensitivity(
        at=event.at,
        model=detail["model"],
        subset=detail["subset"],
        n_images=detail["n_images"],
        patients=detail["patients"],
        left_out=tuple(f"{n} {which}" for n, which in counts if n),
        sentences=tuple(detail["sentences"]),
        by_change=tuple((change, _rows(by_tone)) for change, by_tone in by_change.items()),
        figure=_figure(by_change),
    )


def _rows(by_tone: dict[str, dict[str, Any]]) -> tuple[Row, ...]:
    return tuple(
        Row(
            tone="all tones" if tone == "all" else f"tone {tone}",
            iou=_with_interval(score, "iou_mean"),
            dice=_with_interval(score, "dice_mean"),
            n=score["n"],
            patients=score["patients"],
            few=score["n"] < FEW,
        )
        for tone, score in by_tone.items()
    )


def _with_interval(score: dict[str, Any], figure: str) -> str:
    """The figure to three places: what is close to 1 differs in the third; none without interval."""
    interval = score[f"{figure}_ci95"]
    return f"{score[figure]:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "—"


def _figure(by_change: dict[str, dict[str, dict[str, Any]]]) -> str | None:
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


def _dot(score: dict[str, Any]) -> Dot:
    interval = score["iou_mean_ci95"]
    if interval is None:
        return Dot(None, None, score["n"])
    return Dot(score["iou_mean"], (interval[0], interval[1]), score["n"])
