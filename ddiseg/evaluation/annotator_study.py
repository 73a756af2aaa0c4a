"""Annotator study: the work of annotators with and without the model's prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from annotation_protocol.estimates import METHOD
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import Arm
from ddiseg.evaluation.arms import Arms, MaskGroup, compare_arms, summarise_group
from ddiseg.evaluation.comparisons import compare_missing, measured_masks
from ddiseg.evaluation.drift import PERIOD_MASKS, Drift, measure_drift
from ddiseg.evaluation.measures import MaskMeasures, MeasuredMasks
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace.workspace import Workspace

T = TypeVar("T")


@dataclass(frozen=True)
class WorkReport:
    """Estimates from all accepted masks that were drawn on a labelling server."""

    n: int  #: accepted masks, one an image
    patients: int
    accepted: tuple[str, str] | None  #: earliest and latest time of acceptance, UTC
    set_back: int  #: masks with a time before that of the mask accepted before them
    arms: Arms
    by_tone: dict[str, Arms]  #: in the protocol's order
    by_model: dict[
        str, MaskGroup
    ]  #: masks with the prediction shown by model version, oldest first
    drift: Drift
    drift_by_tone: dict[str, Drift]  #: in the protocol's order
    in_no_arm: int  #: masks of images sent out again, with a person's mask shown
    left_out: tuple[str, ...]  #: accepted masks that can't be compared, with the reason

    @property
    def empty(self) -> bool:
        """Whether no accepted mask was drawn on a labelling server."""
        return not self.n and not self.left_out

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "patients": self.patients,
            "accepted_from": self.accepted and self.accepted[0],
            "accepted_to": self.accepted and self.accepted[1],
            "clock_set_back": self.set_back,
            "intervals": METHOD,
            "too_few": f"no interval from fewer than {MIN_GROUPS} patients; "
            f"over time: fewer than {2 * PERIOD_MASKS} images",
            "arms": self.arms.as_dict(),
            "by_tone": {tone: of.as_dict() for tone, of in self.by_tone.items()},
            "by_model": {name: of.as_dict() for name, of in self.by_model.items()},
            "drift": self.drift.as_dict(),
            "drift_by_tone": {tone: of.as_dict() for tone, of in self.drift_by_tone.items()},
            "repainted": self.in_no_arm,
            "left_out": list(self.left_out),
        }


def work_report(workspace: Workspace, progress: Progress = silent) -> WorkReport:
    """Compare every accepted mask of a labelling server with its prediction.

    Each pair of masks is compared once, and the comparison stored. A mask is left out and named where its
    file, or that of its prediction or second reading, is missing or damaged when it is first compared.
    """
    catalogue = workspace.catalogue
    work = catalogue.accepted_work.accepted()
    compared = compare_missing(workspace, work, progress)
    models = catalogue.models.names()
    measured = measured_masks(
        [each for each in work if each.image_id not in compared.left_out],
        compared,
        models,
        catalogue.accepted_work.last_acceptances(),
    )
    return summarise(measured, list(models.values()), list(compared.left_out.values()))


def summarise(
    masks: MeasuredMasks | Sequence[MaskMeasures],
    models: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> WorkReport:
    """Return the report of accepted masks in any order; `models` are names, the oldest first."""
    if not isinstance(masks, MeasuredMasks):
        masks = MeasuredMasks.of(masks)
    times = masks.accepted_at.tolist()
    shown = masks.of_arm(Arm.PREDICTED)
    tones = [tone.name for tone in load_protocol().tones]
    return WorkReport(
        n=len(masks),
        patients=masks.patients,
        accepted=(min(times), max(times)) if times else None,
        set_back=sum(later < earlier for earlier, later in pairwise(times)),
        arms=compare_arms(masks),
        by_tone=dict(_by(masks, tones, masks.tone, compare_arms)),
        by_model=dict(_by(shown, models, shown.model, summarise_group)),
        drift=measure_drift(masks, shown.event_id),
        drift_by_tone=dict(
            _by(masks, tones, masks.tone, lambda part: measure_drift(part, shown.event_id))
        ),
        in_no_arm=int((masks.arm == "").sum()),
        left_out=tuple(left_out),
    )


def _by(
    masks: MeasuredMasks,
    names: Sequence[str],
    column: NDArray[np.str_],
    summarise_masks: Callable[[MeasuredMasks], T],
) -> Iterator[tuple[str, T]]:
    """Yield the name and the summary of its masks, of each of `names` that has masks."""
    for name in names:
        if (chosen := column == name).any():
            yield name, summarise_masks(masks.take(chosen))
