"""The report's section on the annotator study: findings, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from annotation_protocol.estimates import Estimate
from ddiseg.evaluation.annotator_study import WorkReport, work_report
from ddiseg.evaluation.arms import MaskGroup
from ddiseg.evaluation.drift import Drift
from ddiseg.evaluation.measures import Metric
from ddiseg.outcomes import counted
from ddiseg.report.figures import Panel, Span, series_panels, span_panels
from ddiseg.report.findings import LEGEND, FindingsPart, overview, parts
from ddiseg.report.tables import ReportTable, scaled, study_tables
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class StudyFigure:
    """A figure with its caption."""

    svg: str
    caption: str
    arms: bool  #: shape and colour tell the arms apart
    control: bool  #: the control arm is one of them


@dataclass(frozen=True)
class PeopleAndModel:
    """The section of the report."""

    overview: tuple[str, ...]
    parts: tuple[tuple[FindingsPart, StudyFigure | None], ...]
    tables: tuple[ReportTable, ...]
    legend: str = LEGEND


def people_and_model(workspace: Workspace) -> PeopleAndModel | None:
    """Return the section; None without an accepted mask from a labelling server."""
    report = work_report(workspace)
    if report.empty:
        return None
    figures = (_arms_figure, _drift_figure)
    found = parts(report)
    return PeopleAndModel(
        tuple(overview(report)),
        tuple((part, figure(report, part)) for part, figure in zip(found, figures, strict=False)),
        tuple(study_tables(report)),
    )


#: Metrics in the figure of the arms, and in the figure over time.
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


def _arms_figure(report: WorkReport, part: FindingsPart) -> StudyFigure | None:
    """Return the metrics by tone and arm; None where no image was measured."""
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
        f"whether the prediction was shown. {_first_finding(part)}"
    )
    svg = series_panels(panels, "people-arms", title)
    return StudyFigure(
        svg,
        "Line: 95 % interval; hollow and grey, without a line: too few patients. n: images.",
        arms=True,
        control=control,
    )


def _drift_figure(report: WorkReport, part: FindingsPart) -> StudyFigure | None:
    """Return the share accepted unchanged and the pixels changed over time, by tone."""
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
    masks = counted(sizes[0], "mask") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} masks"
    title = (
        "The share of predictions accepted unchanged, and the pixels changed, over the order of "
        f"acceptance, by tone. {_first_finding(part)}"
    )
    svg = span_panels(columns, tops, "no. of acceptance", "people-drift", title)
    caption = f"Dot: {masks}, accepted consecutively. Line: 95 % interval; hollow and grey: too few patients."
    return StudyFigure(svg, caption, arms=False, control=False)


def _first_finding(part: FindingsPart) -> str:
    """Return the first finding, for all tones."""
    finding = part.findings[0]
    return f"{finding.heading}: {finding.lines[0].text}"


def _spans(drift: Drift, measure: Metric) -> Sequence[Span]:
    return [Span(p.first, p.last, _dot(p.masks, measure)) for p in drift.periods]


def _dot(group: MaskGroup, measure: Metric) -> Estimate:
    return scaled(measure, group.estimates[measure])


def _any(dots: list[Estimate]) -> bool:
    return any(dot.value is not None for dot in dots)


def _ends(measure: Metric, dots: list[Estimate]) -> tuple[float, float]:
    """Return the ends of an axis that holds all intervals: Dice up to 1, others from 0."""
    shown = [dot for dot in dots if dot.value is not None]
    intervals = [dot.interval or (dot.value or 0.0, dot.value or 0.0) for dot in shown]
    if measure in (Metric.LESION_DICE, Metric.READERS_DICE):
        # Corrected masks are alike: on an axis from 0, all dots would lie close to 1.
        return min(0.9, math.floor(10 * min(low for low, _ in intervals)) / 10), 1
    if measure is Metric.UNCHANGED:
        return 0, 100  # percent
    return 0, max(1.0, 1.05 * max(high for _, high in intervals))
