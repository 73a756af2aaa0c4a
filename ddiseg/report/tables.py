"""The figures of a `WorkReport` as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation_protocol.estimates import EstimateDifference
from ddiseg.evaluation.annotator_study import WorkReport
from ddiseg.evaluation.arms import Arms, MaskGroup
from ddiseg.evaluation.drift import SHOWN, Drift, Halves
from ddiseg.evaluation.measures import COMPARED, EDITS, SECONDS, Metric
from ddiseg.report.wording import cell, counts, heading


@dataclass(frozen=True)
class Row:
    """One line of a table, as text."""

    label: str
    cells: tuple[str, ...]
    few: bool  #: too few images to say anything


@dataclass(frozen=True)
class Table:
    """A table as text, its rows in groups."""

    title: str
    columns: tuple[str, ...]  #: of the cells
    groups: tuple[tuple[str, tuple[Row, ...]], ...]  #: the name of the first may be empty
    notes: tuple[str, ...]  #: what its rows and columns mean


def tables(report: WorkReport) -> list[Table]:
    """What became of the painting, the seconds it took, the arms side by side, and all over time."""
    tones = {tone: arms.shown for tone, arms in report.by_tone.items()}
    painted = {"": {"all": report.arms.shown}, "tone": tones, "model version": report.by_model}
    arms = {"all tones": report.arms, **{f"tone {t}": a for t, a in report.by_tone.items()}}
    drifts = {
        "all tones": report.drift,
        **{f"tone {t}": d for t, d in report.drift_by_tone.items()},
    }
    found = [
        Table(
            "The model's mask against the accepted one, where people were shown it",
            ("images", "patients", *map(heading, EDITS)),
            _groups({name: _rows(of, EDITS) for name, of in painted.items()}),
            (
                "Dice is 1 where two masks have the same pixels and 0 where they share none; mean Dice "
                "is over the classes that either mask has. Unchanged: accepted as painted, to the pixel.",
            ),
        ),
        Table(
            "Seconds that the annotator spent on an image, where people were shown the model's mask",
            ("images", "patients", *map(heading, SECONDS), "not timed"),
            _groups({name: _timed_rows(of) for name, of in painted.items()}),
            (
                "As the labelling server counted them. A page left open counts too, so the median says "
                "more than the mean.",
            ),
        ),
        Table(
            "With and without the model's mask",
            ("images", "patients", *map(heading, COMPARED)),
            _groups({name: _arm_rows(of) for name, of in arms.items()}),
            (
                "painted: the model's mask stood there when the person opened the image.",
                "control: there was a prediction, but it was withheld, for images drawn by lot. Its Dice "
                "says how far people and model would differ anyway.",
                "bare: there was no prediction yet. No lot decided which images these are, so they do "
                "not measure what the painting does.",
                "difference: painted minus control, over the images that their two rows count, which is "
                "what the painting does. Seconds below 0 are saved; Dice above 0 is how much closer to "
                "the model people stay when they see its mask.",
                "readers' lesion Dice: between the people who read the same image, each without sight "
                "of the other's mask.",
            ),
        ),
        Table(
            "The model's mask against the accepted one, over time",
            ("accepted", "images", "patients", *map(heading, SHOWN)),
            _groups({name: _drift_rows(of) for name, of in drifts.items()}),
            (
                "Each row holds equally many masks that people were shown, numbered by the order of their "
                "acceptance among all of them.",
                "control: masks that were drawn with the prediction withheld, before and after the same "
                "moment.",
            ),
        ),
    ]
    return [table for table in found if table.groups]


def _groups(groups: Mapping[str, Sequence[Row]]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    return tuple((name, tuple(rows)) for name, rows in groups.items() if rows)


def _rows(groups: Mapping[str, MaskGroup], measures: Sequence[Metric]) -> list[Row]:
    return [
        Row(label, _cells(group, measures), group.too_few)
        for label, group in groups.items()
        if group.n
    ]


def _timed_rows(groups: Mapping[str, MaskGroup]) -> list[Row]:
    return [
        Row(row.label, (*row.cells, str(groups[row.label].not_timed)), row.few)
        for row in _rows(groups, SECONDS)
    ]


def _arm_rows(arms: Arms) -> list[Row]:
    rows = _rows({"painted": arms.shown, "control": arms.control, "bare": arms.bare}, COMPARED)
    if arms.shown.n and arms.control.n:
        of = arms.shown, arms.control
        rows.append(_difference_row("difference", of, arms.difference, COMPARED))
    return rows


def _drift_rows(drift: Drift) -> list[Row]:
    rows = []
    for period in drift.periods:
        days = period.days[0] if len(set(period.days)) == 1 else " to ".join(period.days)
        cells = (days, *_cells(period.masks, SHOWN))
        rows.append(Row(f"no. {period.first} to {period.last}", cells, period.masks.too_few))
    if drift.shown is not None:
        rows += _half_rows("", drift.shown)
    if drift.withheld is not None and drift.withheld.earlier.n + drift.withheld.later.n:
        rows += _half_rows("control, ", drift.withheld)
    return rows


def _half_rows(arm: str, halves: Halves) -> list[Row]:
    groups = {f"{arm}earlier half": halves.earlier, f"{arm}later half": halves.later}
    of = halves.earlier, halves.later
    rows = [
        *_rows(groups, SHOWN),
        _difference_row(f"{arm}later minus earlier", of, halves.difference, SHOWN),
    ]
    return [Row(row.label, ("", *row.cells), row.few) for row in rows]


def _difference_row(
    label: str,
    of: tuple[MaskGroup, MaskGroup],
    differences: Mapping[Metric, EstimateDifference],
    measures: Sequence[Metric],
) -> Row:
    cells = (
        counts((of[0].n, of[1].n)),
        counts((of[0].patients, of[1].patients)),
        *(cell(m, differences[m]) if m in differences else "—" for m in measures),
    )
    return Row(label, cells, of[0].too_few or of[1].too_few)


def _cells(group: MaskGroup, measures: Sequence[Metric]) -> tuple[str, ...]:
    """The group's n, and its figures; with their own n where that is not the group's."""
    cells = [str(group.n), str(group.patients)]
    for measure in measures:
        figure = group.estimates[measure]
        own = "" if figure.n in (0, group.n) else f" n={figure.n}/{figure.groups}"
        cells.append(f"{cell(measure, figure)}{own}")
    return tuple(cells)
