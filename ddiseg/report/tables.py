"""Report tables: counts of images, estimates by class or tone, and the annotator study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from annotation_protocol.estimates import Estimate, EstimateDifference
from ddiseg.evaluation.annotator_study import WorkReport
from ddiseg.evaluation.arms import Arms, MaskGroup
from ddiseg.evaluation.drift import SHOWN, Drift, Halves
from ddiseg.evaluation.measures import COMPARED, EDITS, SECONDS, Metric

#: Newest model versions that a table shows, so that a page stays short.
MODELS = 50


@dataclass(frozen=True)
class ReportRow:
    """One line of a table, as text."""

    label: str
    cells: tuple[str, ...]
    few: bool = False  #: too few patients for intervals


@dataclass(frozen=True)
class ReportTable:
    """A table as text, its rows in groups."""

    title: str
    columns: tuple[str, ...]  #: of the cells
    groups: tuple[tuple[str, tuple[ReportRow, ...]], ...]  #: the name of the first may be empty
    notes: tuple[str, ...] = ()  #: what its rows and columns mean
    first: str = ""  #: heading of the labels
    total: ReportRow | None = None


def count_table(
    title: str,
    first: str,
    counts: Mapping[tuple[str, str], int],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    disjoint: bool = True,
) -> ReportTable:
    """Return counts of images by (row, column), without the rows and columns that have none.

    Args:
        disjoint: no image is in two rows, so that the rows add up.
    """
    used = [c for c in columns if any(counts.get((row, c)) for row in rows)]
    by_row = {row: [counts.get((row, c), 0) for c in used] for row in rows}
    by_row = {row: numbers for row, numbers in by_row.items() if any(numbers)}
    sums = [sum(numbers) for numbers in zip(*by_row.values(), strict=True)]
    body = tuple(_count_row(row, numbers) for row, numbers in by_row.items())
    return ReportTable(
        title=f"{title}, n = {sum(sums)}" if disjoint else title,
        columns=(*(column.replace("_", " ") for column in used), "all"),
        groups=(("", body),) if body else (),
        first=first,
        total=_count_row("all", sums) if disjoint and body else None,
    )


def _count_row(label: str, numbers: Sequence[int]) -> ReportRow:
    return ReportRow(label, tuple(str(n) for n in (*numbers, sum(numbers))))


def study_tables(report: WorkReport) -> list[ReportTable]:
    """Return the estimates of an annotator study: edits, seconds, arms, and all over time."""
    tones = {tone: arms.shown for tone, arms in report.by_tone.items()}
    newest = dict(list(report.by_model.items())[-MODELS:])
    shown = {"": {"all": report.arms.shown}, "tone": tones, "model version": newest}
    arms = {"all tones": report.arms, **{f"tone {t}": a for t, a in report.by_tone.items()}}
    drifts = {
        "all tones": report.drift,
        **{f"tone {t}": d for t, d in report.drift_by_tone.items()},
    }
    tables = [
        ReportTable(
            "Accepted mask against the prediction, where the annotator was shown it",
            ("images", "patients", *map(heading, EDITS)),
            _groups({name: _rows(of, EDITS) for name, of in shown.items()}),
            (
                "Dice is 1 where two masks have the same pixels and 0 where they share none; mean Dice "
                "is over the classes of either mask. Unchanged: accepted without a changed pixel.",
            ),
        ),
        ReportTable(
            "Seconds that the annotator spent on an image, where the prediction was shown",
            ("images", "patients", *map(heading, SECONDS), "not timed"),
            _groups({name: _timed_rows(of) for name, of in shown.items()}),
            (
                "As counted by the labelling server. A page that is left open counts too, so the median "
                "is more reliable than the mean.",
            ),
        ),
        ReportTable(
            "With and without the prediction",
            ("images", "patients", *map(heading, COMPARED)),
            _groups({name: _arm_rows(of) for name, of in arms.items()}),
            (
                "shown: the annotator saw the prediction on opening the image.",
                "control: the prediction was withheld, for images chosen at random. Its Dice is how far "
                "annotator and model differ anyway.",
                "bare: there was no prediction yet. These images were not chosen at random, so they do "
                "not measure the effect of a prediction.",
                "difference: shown minus control, over the images of these two rows: the effect of the "
                "prediction. Seconds below 0 are saved; a Dice above 0 is how much closer to the model "
                "annotators stay when they see its prediction.",
                "readers' lesion Dice: between annotators who read the same image independently.",
            ),
        ),
        ReportTable(
            "Accepted mask against the prediction, over time",
            ("accepted", "images", "patients", *map(heading, SHOWN)),
            _groups({name: _drift_rows(of) for name, of in drifts.items()}),
            (
                "Rows hold equally many masks whose prediction was shown, numbered in the order of their "
                "acceptance.",
                "control: masks drawn with the prediction withheld, before and after the same moment.",
            ),
        ),
    ]
    return [table for table in tables if table.groups]


def heading(metric: Metric) -> str:
    """Return the heading of a metric's column: its name and unit."""
    form = _FORMATS[metric]
    return f"{form.name}, {form.unit}" if form.unit else form.name


def quoted(metric: Metric, estimate: Estimate | EstimateDifference) -> str:
    """Return value and interval with the unit, a difference with its sign."""
    form = _FORMATS[metric]
    unit = form.unit if isinstance(estimate, Estimate) else form.difference_unit
    return _number(metric, estimate, f" {unit}" if unit else "")


def scaled(metric: Metric, estimate: Estimate) -> Estimate:
    """Return the estimate in the unit in which it is printed."""
    scale, interval = _FORMATS[metric].scale, estimate.interval
    if estimate.value is None:
        return estimate
    ends = None if interval is None else [scale * end for end in interval]
    return Estimate.of(scale * estimate.value, ends, estimate.n, estimate.groups)


class _Format(NamedTuple):
    name: str
    unit: str
    difference_unit: str
    scale: int  #: factor from a value to the unit
    decimals: int


_FORMATS = {
    Metric.LESION_DICE: _Format("lesion Dice", "", "", 1, 2),
    Metric.MEAN_DICE: _Format("mean Dice", "", "", 1, 2),
    Metric.UNCHANGED: _Format("unchanged", "%", "points", 100, 0),
    Metric.CHANGED_PIXELS: _Format("pixels changed", "%", "points", 100, 1),
    Metric.MEDIAN_SECONDS: _Format("median", "s", "s", 1, 0),
    Metric.MEAN_SECONDS: _Format("mean", "s", "s", 1, 0),
    Metric.READERS_DICE: _Format("readers' lesion Dice", "", "", 1, 2),
}


def _number(metric: Metric, estimate: Estimate | EstimateDifference, unit: str) -> str:
    form = _FORMATS[metric]
    sign = "" if isinstance(estimate, Estimate) else "+"
    return estimate.text(f"{sign}.{form.decimals}f", scale=form.scale, unit=unit)


def _groups(
    groups: Mapping[str, Sequence[ReportRow]],
) -> tuple[tuple[str, tuple[ReportRow, ...]], ...]:
    return tuple((name, tuple(rows)) for name, rows in groups.items() if rows)


def _rows(groups: Mapping[str, MaskGroup], metrics: Sequence[Metric]) -> list[ReportRow]:
    return [
        ReportRow(label, _cells(group, metrics), group.too_few)
        for label, group in groups.items()
        if group.n
    ]


def _timed_rows(groups: Mapping[str, MaskGroup]) -> list[ReportRow]:
    return [
        ReportRow(row.label, (*row.cells, str(groups[row.label].not_timed)), row.few)
        for row in _rows(groups, SECONDS)
    ]


def _arm_rows(arms: Arms) -> list[ReportRow]:
    rows = _rows({"shown": arms.shown, "control": arms.control, "bare": arms.bare}, COMPARED)
    if arms.shown.n and arms.control.n:
        of = arms.shown, arms.control
        rows.append(_difference_row("difference", of, arms.difference, COMPARED))
    return rows


def _drift_rows(drift: Drift) -> list[ReportRow]:
    rows = []
    for period in drift.periods:
        days = period.days[0] if len(set(period.days)) == 1 else " to ".join(period.days)
        cells = (days, *_cells(period.masks, SHOWN))
        rows.append(ReportRow(f"no. {period.first} to {period.last}", cells, period.masks.too_few))
    if drift.shown is not None:
        rows += _half_rows("", drift.shown)
    if drift.withheld is not None and drift.withheld.earlier.n + drift.withheld.later.n:
        rows += _half_rows("control, ", drift.withheld)
    return rows


def _half_rows(arm: str, halves: Halves) -> list[ReportRow]:
    of = halves.earlier, halves.later
    rows = [
        *_rows({f"{arm}earlier half": of[0], f"{arm}later half": of[1]}, SHOWN),
        _difference_row(f"{arm}later minus earlier", of, halves.difference, SHOWN),
    ]
    return [ReportRow(row.label, ("", *row.cells), row.few) for row in rows]


def _difference_row(
    label: str,
    of: tuple[MaskGroup, MaskGroup],
    differences: Mapping[Metric, EstimateDifference],
    metrics: Sequence[Metric],
) -> ReportRow:
    cells = (
        f"{of[0].n} and {of[1].n}",
        f"{of[0].patients} and {of[1].patients}",
        *(_cell(m, differences[m]) if m in differences else "—" for m in metrics),
    )
    return ReportRow(label, cells, of[0].too_few or of[1].too_few)


def _cells(group: MaskGroup, metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return the sizes and estimates of a group; an estimate of fewer images with its own sizes."""
    cells = [str(group.n), str(group.patients)]
    for metric in metrics:
        estimate = group.estimates[metric]
        own = "" if estimate.n in (0, group.n) else f" n={estimate.n}/{estimate.groups}"
        cells.append(f"{_cell(metric, estimate)}{own}")
    return tuple(cells)


def _cell(metric: Metric, estimate: Estimate | EstimateDifference) -> str:
    """Return value and interval; a dash where nothing was measured."""
    n = estimate.n
    if not (all(n) if isinstance(n, tuple) else n):
        return "—"
    return _number(metric, estimate, "")
