"""How a figure is printed: its unit, its decimals, its interval and its n."""

from __future__ import annotations

from typing import NamedTuple

from ddiseg.evaluation.measures import Metric
from ddiseg.evaluation.samples import Difference, Estimate


def heading(measure: Metric) -> str:
    """What stands over the numbers of a measure: its name and unit."""
    printed = _PRINTED[measure]
    return f"{printed.name}, {printed.unit}" if printed.unit else printed.name


def cell(measure: Metric, figure: Estimate | Difference) -> str:
    """Value and interval, a difference with its sign; a dash where nothing was measured."""
    if not _measured(figure):
        return "—"
    if figure.value is None:
        return "too few"
    return _number(measure, figure, "")


def quoted(measure: Metric, figure: Estimate | Difference) -> str:
    """The same with its unit; only of a figure that has a value."""
    printed = _PRINTED[measure]
    unit = printed.unit if isinstance(figure, Estimate) else printed.difference_unit
    return _number(measure, figure, f" {unit}" if unit else "")


def scaled(measure: Metric, value: float) -> float:
    """A value in the unit that it is printed in."""
    return _PRINTED[measure].scale * value


def counted(n: int | tuple[int, int], patients: int | tuple[int, int]) -> str:
    """What a figure stands on, such as (n = 3 images, 2 patients)."""
    one = ("image" if n == 1 else "images"), ("patient" if patients == 1 else "patients")
    return f"(n = {counts(n)} {one[0]}, {counts(patients)} {one[1]})"


def counts(n: int | tuple[int, int]) -> str:
    return f"{n[0]} and {n[1]}" if isinstance(n, tuple) else str(n)


class _Printed(NamedTuple):
    name: str
    unit: str
    difference_unit: str
    scale: int  #: what a value is multiplied by to be in the unit
    decimals: int


_PRINTED = {
    Metric.LESION_DICE: _Printed("lesion Dice", "", "", 1, 2),
    Metric.MEAN_DICE: _Printed("mean Dice", "", "", 1, 2),
    Metric.UNCHANGED: _Printed("unchanged", "%", "points", 100, 0),
    Metric.CHANGED_PIXELS: _Printed("pixels changed", "%", "points", 100, 1),
    Metric.MEDIAN_SECONDS: _Printed("median", "s", "s", 1, 0),
    Metric.MEAN_SECONDS: _Printed("mean", "s", "s", 1, 0),
    Metric.READERS_DICE: _Printed("readers' lesion Dice", "", "", 1, 2),
}


def _number(measure: Metric, figure: Estimate | Difference, unit: str) -> str:
    assert figure.value is not None
    assert figure.interval is not None
    printed = _PRINTED[measure]
    sign = "+" if isinstance(figure, Difference) else ""
    value, low, high = (
        f"{printed.scale * number:{sign}z.{printed.decimals}f}"
        for number in (figure.value, *figure.interval)
    )
    return f"{value}{unit} [{low}, {high}]"


def _measured(figure: Estimate | Difference) -> bool:
    return all(figure.n) if isinstance(figure, Difference) else figure.n > 0
