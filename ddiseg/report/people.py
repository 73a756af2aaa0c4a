"""What the report says about people: what the model's painting did to them, and whether it drifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ddiseg.evaluation.annotator_study import WorkReport, work_report
from ddiseg.evaluation.arms import MaskGroup
from ddiseg.evaluation.drift import Drift
from ddiseg.evaluation.measures import Metric
from ddiseg.report.figures import Dot, Panel, Span, series_panels, span_panels
from ddiseg.report.findings import LEGEND, Part, overview, parts
from ddiseg.report.tables import Table, tables
from ddiseg.report.wording import scaled
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Figure:
    """A drawing and what stands under it."""

    drawing: str  #: SVG
    caption: str
    arms: bool  #: it tells arms apart, by shape and colour
    control: bool  #: one of them is the control arm


@dataclass(frozen=True)
class PeopleAndModel:
    """The section of the report."""

    overview: tuple[str, ...]
    parts: tuple[tuple[Part, Figure | None], ...]
    tables: tuple[Table, ...]
    legend: str = LEGEND


def people_and_model(workspace: Workspace) -> PeopleAndModel | None:
    """From the accepted masks that were drawn on a labelling server; None without any."""
    report = work_report(workspace)
    if report.empty:
        return None
    drawn = (_arms_figure, _drift_figure)
    return PeopleAndModel(
        tuple(overview(report)),
        tuple((part, draw(report, part)) for part, draw in zip(parts(report), drawn, strict=False)),
        tuple(tables(report)),
    )


#: What is drawn of the arms, and of the order of acceptance.
_ARMS = (
    Metric.MEDIAN_SECONDS,
    Metric.CHANGED_PIXELS,
    Metric.LESION_DICE,
    Metric.READERS_DICE,
)
_OVER_TIME = (Metric.UNCHANGED, Metric.CHANGED_PIXELS)

_NAMES = {
    Metric.MEDIAN_SECONDS: "median seconds",
    Metric.CHANGED_PIXELS: "pixels changed, %",
    Metric.LESION_DICE: "lesion Dice",
    Metric.READERS_DICE: "two readers' Dice",
    Metric.UNCHANGED: "unchanged, %",
}


def _arms_figure(report: WorkReport, part: Part) -> Figure | None:
    """Every measure by tone and arm; None where there are too few of everything."""
    control = report.arms.control.n > 0
    by_scope = {"all tones": report.arms, **{f"tone {t}": of for t, of in report.by_tone.items()}}
    panels = []
    for measure in _ARMS:
        dots = {}
        for scope, arms in by_scope.items():
            groups = (arms.shown, arms.control) if control else (arms.shown,)
            dots[scope] = tuple(_dot(group, measure) for group in groups)
        every = [dot for of in dots.values() for dot in of]
        if _any(every):
            panels.append(Panel(_NAMES[measure], _ends(measure, every), dots))
    if not panels:
        return None
    title = (
        f"{', '.join(panel.name for panel in panels)}, each with its 95 % interval, by tone and by "
        f"whether the model's mask was shown. {_said(part)}"
    )
    drawing = series_panels(panels, "people-arms", title)
    return Figure(drawing, "Line: 95 % interval. n: images.", arms=True, control=control)


def _drift_figure(report: WorkReport, part: Part) -> Figure | None:
    """The share accepted unchanged over time by tone, the pixels changed under it."""
    drifts = {"all tones": report.drift}
    drifts |= {f"tone {tone}": of for tone, of in report.drift_by_tone.items()}
    periods = [period for of in drifts.values() for period in of.periods]
    tops = {}
    for measure in _OVER_TIME:
        every = [_dot(period.masks, measure) for period in periods]
        if not _any(every):
            return None
        tops[_NAMES[measure]] = _ends(measure, every)[1]
    columns = {
        scope: (of.n, {_NAMES[measure]: _spans(of, measure) for measure in _OVER_TIME})
        for scope, of in drifts.items()
    }
    sizes = sorted({period.masks.n for period in periods})
    masks = f"{sizes[0]} masks" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} masks"
    title = (
        "The share of the model's masks that were accepted unchanged, and the pixels changed, over the "
        f"order of acceptance, by tone. {_said(part)}"
    )
    drawing = span_panels(columns, tops, "no. of acceptance", "people-drift", title)
    caption = f"Dot: {masks}, accepted one after the other. Line: 95 % interval."
    return Figure(drawing, caption, arms=False, control=False)


def _said(part: Part) -> str:
    """What was found first, for all tones."""
    finding = part.findings[0]
    return f"{finding.heading}: {finding.lines[0].text}"


def _spans(drift: Drift, measure: Metric) -> Sequence[Span]:
    return [Span(p.first, p.last, _dot(p.masks, measure)) for p in drift.periods]


def _dot(group: MaskGroup, measure: Metric) -> Dot:
    """A figure in the unit that it is printed in."""
    figure = group.estimates[measure]
    if figure.value is None or figure.interval is None:
        return Dot(None, None, figure.n)
    low, high = (scaled(measure, end) for end in figure.interval)
    return Dot(scaled(measure, figure.value), (low, high), figure.n)


def _any(dots: list[Dot]) -> bool:
    return any(dot.value is not None for dot in dots)


def _ends(measure: Metric, dots: list[Dot]) -> tuple[float, float]:
    """Of an axis that has every interval: Dice up to 1 and what else there is from 0."""
    intervals = [dot.interval for dot in dots if dot.interval is not None]
    if measure in (Metric.LESION_DICE, Metric.READERS_DICE):
        # Masks that people mend are alike: from 0 on, all would lie on top of each other at 1.
        return min(0.9, math.floor(10 * min(low for low, _ in intervals)) / 10), 1
    if measure is Metric.UNCHANGED:
        return 0, scaled(measure, 1)
    return 0, max(1.0, 1.05 * max(high for _, high in intervals))
