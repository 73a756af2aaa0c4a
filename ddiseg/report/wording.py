"""How a figure is printed: its unit, its decimals, its interval and its n."""

from __future__ import annotations

from typing import NamedTuple

from annotation_protocol.estimates import Estimate, EstimateDifference
from ddiseg.evaluation.measures import Metric


def heading(measure: Metric) -> str:
    """What stands over the numbers of a measure: its name and unit."""
    printed = _PRINTED[measure]
    return f"{printed.name}, {printed.unit}" if printed.unit else printed.name


def cell(measure: Metric, figure: Estimate | EstimateDifference) -> str:
    """Value and interval, a difference with its sign; a dash where nothing was measured."""
    if not _measured(figure):
        return "—"
    if figure.value is None:
        return "too few"
    return _number(measure, figure, "")


def quoted(measure: Metric, figure: Estimate | EstimateDifference) -> str:
    """The same with its unit; only of a figure that has a value."""
    printed = _PRINTED[measure]
    unit = printed.unit if isinstance(figure, Estimate) else printed.difference_unit
    return _number(measure, figure, f" {unit}" if unit else "")


def scaled(measure: Metric, value: float) -> float:
    """A value in the unit that it is printed in."""
    return _PRINTED[measure].scale * value


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


def _number(measure: Metric, figure: Estimate | EstimateDifference, unit: str) -> str:
    printed = _PRINTED[measure]
    sign = "" if isinstance(figure, Estimate) else "+"
    return figure.text(f"{sign}.{printed.decimals}f", scale=printed.scale, unit=unit)


def _measured(figure: Estimate | EstimateDifference) -> bool:
    return all(figure.n) if isinstance(figure, EstimateDifference) else figure.n > 0
