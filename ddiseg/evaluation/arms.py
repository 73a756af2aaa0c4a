"""What people found when they opened an image - a mask or none - and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ddiseg.catalogue import Arm
from ddiseg.evaluation.measures import COMPARED, MaskMeasures, Metric
from ddiseg.evaluation.samples import (
    Difference,
    Estimate,
    MetricSample,
    count_patients,
    difference,
    too_few,
)


@dataclass(frozen=True)
class Group:
    """The accepted masks that have something in common."""

    n: int  #: images
    patients: int
    not_timed: int  #: images for which the server counted no seconds
    figures: dict[Metric, Estimate]

    @property
    def too_few(self) -> bool:
        return too_few(self.n, self.patients)

    def as_dict(self) -> dict[str, Any]:
        counts = {"n": self.n, "patients": self.patients, "not_timed": self.not_timed}
        return {**counts, **as_dicts(self.figures)}


@dataclass(frozen=True)
class Arms:
    """What people found when they opened an image, side by side."""

    painted: Group  #: the model's mask
    control: Group  #: nothing, though there is a prediction, drawn by lot
    bare: Group  #: nothing, as there was no prediction
    difference: dict[Metric, Difference]  #: of COMPARED, painted minus control

    def as_dict(self) -> dict[str, Any]:
        return {
            "painted": self.painted.as_dict(),
            "control": self.control.as_dict(),
            "bare": self.bare.as_dict(),
            "painted_minus_control": as_dicts(self.difference),
        }


def group(rows: Sequence[MaskMeasures]) -> Group:
    return Group(
        n=len(rows),
        patients=count_patients(rows),
        not_timed=sum(Metric.MEDIAN_SECONDS not in row.values for row in rows),
        figures={measure: MetricSample(measure, rows).figure() for measure in Metric},
    )


def arms(rows: Sequence[MaskMeasures]) -> Arms:
    of = {arm: [row for row in rows if row.arm is arm] for arm in Arm}
    groups = {arm: group(of[arm]) for arm in (Arm.PREDICTED, Arm.CONTROL, Arm.BARE)}
    differences = {
        m: difference(MetricSample(m, of[Arm.PREDICTED]), MetricSample(m, of[Arm.CONTROL]))
        for m in COMPARED
    }
    return Arms(groups[Arm.PREDICTED], groups[Arm.CONTROL], groups[Arm.BARE], differences)


def as_dicts(figures: Mapping[Metric, Estimate | Difference]) -> dict[str, Any]:
    return {measure.value: asdict(figure) for measure, figure in figures.items()}
