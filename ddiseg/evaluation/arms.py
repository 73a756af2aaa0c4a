"""Comparison of the annotator study's arms: prediction shown, withheld, or not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation_protocol.estimates import Estimate, EstimateDifference, difference, too_few
from ddiseg.catalogue import Arm
from ddiseg.evaluation.measures import (
    COMPARED,
    MeasuredMasks,
    Metric,
    metric_sample,
)


@dataclass(frozen=True)
class MaskGroup:
    """Accepted masks with something in common, such as an arm or a tone."""

    n: int  #: images
    patients: int
    not_timed: int  #: images without seconds from the labelling server
    estimates: dict[Metric, Estimate]

    @property
    def too_few(self) -> bool:
        return too_few(self.patients)

    def as_dict(self) -> dict[str, Any]:
        counts = {"n": self.n, "patients": self.patients, "not_timed": self.not_timed}
        return {**counts, **as_dicts(self.estimates)}


@dataclass(frozen=True)
class Arms:
    """The accepted masks by what the annotator saw on opening the image."""

    shown: MaskGroup  #: the prediction
    control: MaskGroup  #: nothing: the prediction was withheld at random
    bare: MaskGroup  #: nothing: there was no prediction
    difference: dict[Metric, EstimateDifference]  #: of COMPARED, shown minus control

    def as_dict(self) -> dict[str, Any]:
        return {
            "painted": self.shown.as_dict(),
            "control": self.control.as_dict(),
            "bare": self.bare.as_dict(),
            "painted_minus_control": as_dicts(self.difference),
        }


def summarise_group(masks: MeasuredMasks) -> MaskGroup:
    """Return the estimates of a group of masks."""
    return MaskGroup(
        n=len(masks),
        patients=masks.patients,
        not_timed=int(np.isnan(masks.values[Metric.MEDIAN_SECONDS]).sum()),
        estimates={metric: metric_sample(metric, masks).estimate() for metric in Metric},
    )


def compare_arms(masks: MeasuredMasks) -> Arms:
    """Return the estimates of each arm and the differences between the first two."""
    of = {arm: masks.of_arm(arm) for arm in Arm}
    shown, control, bare = (
        summarise_group(of[arm]) for arm in (Arm.PREDICTED, Arm.CONTROL, Arm.BARE)
    )
    differences = {
        m: difference(metric_sample(m, of[Arm.PREDICTED]), metric_sample(m, of[Arm.CONTROL]))
        for m in COMPARED
    }
    return Arms(shown, control, bare, differences)


def as_dicts(estimates: Mapping[Metric, Estimate | EstimateDifference]) -> dict[str, Any]:
    return {metric.value: estimate.to_json() for metric, estimate in estimates.items()}
