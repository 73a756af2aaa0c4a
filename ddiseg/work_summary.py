"""A `WorkReport` in words and tables: the same on the command line and on the report page.

No number stands here without its n and its interval; one that has none is "too few".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ddiseg.work import (
    AGREEMENT,
    COMPARED,
    SECONDS,
    Arms,
    Difference,
    Figure,
    Group,
    Measure,
    WorkReport,
)

#: How the numbers are to be read.
LEGEND = (
    "Square brackets hold 95 % intervals, from a bootstrap over patients. Where fewer masks than the "
    "row has could be measured, n=9/8 says that 9 images of 8 patients were."
)


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


def sentences(report: WorkReport) -> list[str]:
    """What the report comes to, each number with its n and interval, and what was left out."""
    found = []
    if report.accepted is not None:
        first, last = (at[:10] for at in report.accepted)
        found.append(
            f"Drawn on a labelling server and accepted, from {first} to {last}: n = {report.n}, "
            f"{report.patients} patients."
        )
    if report.arms.painted.n:
        found.append(_became(report.arms.painted))
    if report.arms.painted.n and report.arms.control.n:
        found += _compared(report.arms)
    elif report.arms.painted.n:
        found.append(
            "No accepted mask was drawn without the prediction that there was, so nothing says yet what "
            "the painting does to people: 'ddiseg label push --control PERCENT' makes such a control arm."
        )
    if report.repainted:
        found.append(
            f"In no table, n = {report.repainted}: images that were given out again with a person's mask "
            "painted in place of the model's."
        )
    found += [f"Left out: {line}" for line in report.left_out]
    return found


def tables(report: WorkReport) -> list[Table]:
    """What became of the painting, the seconds it took, and the arms side by side."""
    tones = {tone: arms.painted for tone, arms in report.by_tone.items()}
    painted = {"": {"all": report.arms.painted}, "tone": tones, "model version": report.by_model}
    arms = {"all tones": report.arms, **{f"tone {t}": a for t, a in report.by_tone.items()}}
    found = [
        Table(
            "The model's mask against the accepted one, where people were shown it",
            ("images", "patients", *map(_heading, AGREEMENT)),
            _groups({name: _rows(of, AGREEMENT) for name, of in painted.items()}),
            (
                "Dice is 1 where two masks have the same pixels and 0 where they share none; mean Dice "
                "is over the classes that either mask has. Unchanged: accepted as painted, to the pixel.",
            ),
        ),
        Table(
            "Seconds that the annotator spent on an image, where people were shown the model's mask",
            ("images", "patients", *map(_heading, SECONDS), "not timed"),
            _groups({name: _timed_rows(of) for name, of in painted.items()}),
            (
                "As the labelling server counted them. A page left open counts too, so the median says "
                "more than the mean.",
            ),
        ),
        Table(
            "With and without the model's mask",
            ("images", "patients", *map(_heading, COMPARED)),
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
            ),
        ),
    ]
    return [table for table in found if table.groups]


def _heading(measure: Measure) -> str:
    """What stands over the numbers of a measure: its name and unit."""
    printed = _PRINTED[measure]
    return f"{printed.name}, {printed.unit}" if printed.unit else printed.name


class _Printed(NamedTuple):
    name: str
    unit: str
    scale: int  #: what a value is multiplied by to be in the unit
    decimals: int


_PRINTED = {
    Measure.LESION_DICE: _Printed("lesion Dice", "", 1, 2),
    Measure.MEAN_DICE: _Printed("mean Dice", "", 1, 2),
    Measure.UNCHANGED: _Printed("unchanged", "%", 100, 0),
    Measure.CHANGED_PIXELS: _Printed("pixels changed", "%", 100, 1),
    Measure.MEDIAN_SECONDS: _Printed("median", "s", 1, 0),
    Measure.MEAN_SECONDS: _Printed("mean", "s", 1, 0),
}


def _became(painted: Group) -> str:
    unchanged, pixels, lesion = (
        _with_n(measure, painted.figures[measure])
        for measure in (Measure.UNCHANGED, Measure.CHANGED_PIXELS, Measure.LESION_DICE)
    )
    return (
        f"Where people were shown the model's mask: accepted without a changed pixel, {unchanged}; "
        f"pixels changed on average, {pixels}; Dice of the lesion between prediction and accepted "
        f"mask, {lesion}."
    )


def _compared(arms: Arms) -> list[str]:
    seconds, dice = Measure.MEDIAN_SECONDS, Measure.LESION_DICE
    return [
        "Median time of the annotator on an image: with the model's mask shown, "
        f"{_with_n(seconds, arms.painted.figures[seconds])}; with it withheld, "
        f"{_with_n(seconds, arms.control.figures[seconds])}; difference, "
        f"{_with_n(seconds, arms.difference[seconds])}.",
        "Dice of the lesion between prediction and accepted mask, shown minus withheld: "
        f"{_with_n(dice, arms.difference[dice])}.",
    ]


def _with_n(measure: Measure, figure: Figure | Difference) -> str:
    if not _measured(figure):
        return "not measured"
    n, patients = _counts(figure.n), _counts(figure.patients)
    return f"{_text(measure, figure, unit=True)} (n = {n}, {patients} patients)"


def _groups(groups: Mapping[str, Sequence[Row]]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    return tuple((name, tuple(rows)) for name, rows in groups.items() if rows)


def _rows(groups: Mapping[str, Group], measures: Sequence[Measure]) -> list[Row]:
    return [
        Row(
            label,
            (
                str(group.n),
                str(group.patients),
                *(_cell(group, measure) for measure in measures),
            ),
            group.too_few,
        )
        for label, group in groups.items()
        if group.n
    ]


def _timed_rows(groups: Mapping[str, Group]) -> list[Row]:
    return [
        Row(row.label, (*row.cells, str(groups[row.label].not_timed)), row.few)
        for row in _rows(groups, SECONDS)
    ]


def _arm_rows(arms: Arms) -> list[Row]:
    rows = _rows({"painted": arms.painted, "control": arms.control, "bare": arms.bare}, COMPARED)
    if arms.painted.n and arms.control.n:
        cells = (
            _counts((arms.painted.n, arms.control.n)),
            _counts((arms.painted.patients, arms.control.patients)),
            *(_text(measure, arms.difference[measure]) for measure in COMPARED),
        )
        few = arms.painted.too_few or arms.control.too_few
        rows.append(Row("difference", cells, few))
    return rows


def _cell(group: Group, measure: Measure) -> str:
    """A figure with its own n, where that is not the group's."""
    figure = group.figures[measure]
    text = _text(measure, figure)
    if figure.n in (0, group.n):
        return text
    return f"{text} n={figure.n}/{figure.patients}"


def _text(measure: Measure, figure: Figure | Difference, *, unit: bool = False) -> str:
    """Value and interval, a difference with its sign; a dash where nothing was measured."""
    if not _measured(figure):
        return "—"
    if figure.value is None or figure.interval is None:
        return "too few"
    printed = _PRINTED[measure]
    sign = "+" if isinstance(figure, Difference) else ""
    value, low, high = (
        f"{printed.scale * number:{sign}z.{printed.decimals}f}"
        for number in (figure.value, *figure.interval)
    )
    return f"{value}{' ' + printed.unit if unit and printed.unit else ''} [{low}, {high}]"


def _measured(figure: Figure | Difference) -> bool:
    return all(figure.n) if isinstance(figure, Difference) else figure.n > 0


def _counts(n: int | tuple[int, int]) -> str:
    return f"{n[0]} and {n[1]}" if isinstance(n, tuple) else str(n)
