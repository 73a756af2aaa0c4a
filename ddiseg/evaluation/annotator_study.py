"""Annotator study: the work of annotators with and without the model's prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from annotation_protocol import load_protocol
from annotation_protocol.estimates import METHOD
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import Arm
from ddiseg.errors import DdisegError
from ddiseg.evaluation.arms import Arms, MaskGroup, compare_arms, summarise_group
from ddiseg.evaluation.drift import PERIOD_MASKS, Drift, measure_drift
from ddiseg.evaluation.measures import MaskMeasures, count_patients, measure_mask
from ddiseg.outcomes import Progress, silent
from ddiseg.sampling.groups import Groups
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
    """Compare every accepted mask of a labelling server with its prediction; reads only.

    A mask is left out and named where its file, or that of its prediction or second reading, is
    missing or damaged.
    """
    catalogue = workspace.catalogue
    outcomes, readings = catalogue.tasks.annotation_outcomes(), catalogue.tasks.readings()
    models = {version.id: version.name for version in catalogue.models.all()}
    keys = Groups.read(catalogue).keys([outcome.image for outcome in outcomes])
    rows: list[MaskMeasures] = []
    left_out = []
    for done, (outcome, group) in enumerate(zip(outcomes, keys, strict=True), 1):
        of_image = readings.get(outcome.image.id, ())
        try:
            rows.append(measure_mask(workspace, outcome, models, of_image, group))
        except DdisegError as error:
            left_out.append(f"{outcome.image.name}: {error}")
        progress(done, len(outcomes))
    return summarise(rows, list(models.values()), left_out)


def summarise(
    rows: Sequence[MaskMeasures], models: Sequence[str] = (), left_out: Sequence[str] = ()
) -> WorkReport:
    """Return the report of accepted masks in any order; `models` are names, the oldest first."""
    rows = sorted(rows, key=lambda row: row.event_id)
    times = [row.accepted_at for row in rows]
    shown = [row for row in rows if row.arm is Arm.PREDICTED]
    numbers = {row.event_id: number for number, row in enumerate(shown, 1)}
    tones = [tone.name for tone in load_protocol().tones]
    return WorkReport(
        n=len(rows),
        patients=count_patients(rows),
        accepted=(min(times), max(times)) if times else None,
        set_back=sum(later < earlier for earlier, later in pairwise(times)),
        arms=compare_arms(rows),
        by_tone=dict(_by(rows, tones, lambda r: r.tone, compare_arms)),
        by_model=dict(_by(shown, models, lambda r: r.model, summarise_group)),
        drift=measure_drift(rows, numbers),
        drift_by_tone=dict(
            _by(rows, tones, lambda r: r.tone, lambda part: measure_drift(part, numbers))
        ),
        in_no_arm=sum(row.arm is None for row in rows),
        left_out=tuple(left_out),
    )


def _by(
    rows: Sequence[MaskMeasures],
    names: Sequence[str],
    name_of: Callable[[MaskMeasures], str | None],
    summarise_rows: Callable[[Sequence[MaskMeasures]], T],
) -> Iterator[tuple[str, T]]:
    """Yield the name and the summary of its rows, of each of `names` that has rows."""
    for name in names:
        if chosen := [row for row in rows if name_of(row) == name]:
            yield name, summarise_rows(chosen)
