"""Everything that is known of people's work with and without the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from annotation_protocol import load_protocol
from annotation_protocol.metrics import FEW
from ddiseg.catalogue import Arm
from ddiseg.errors import DdisegError
from ddiseg.evaluation.arms import Arms, Group, arms, group
from ddiseg.evaluation.drift import PERIOD_MASKS, Drift, drift
from ddiseg.evaluation.measures import MaskMeasures, measure_mask
from ddiseg.evaluation.samples import RESAMPLES, SEED, count_patients
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace.workspace import Workspace

T = TypeVar("T")


@dataclass(frozen=True)
class WorkReport:
    """Everything that is known of people's work with and without the model."""

    n: int  #: accepted masks, one an image
    patients: int
    accepted: tuple[str, str] | None  #: earliest and latest time of acceptance, UTC
    set_back: int  #: masks whose time is before that of the one accepted before them
    arms: Arms
    by_tone: dict[str, Arms]  #: in the protocol's order
    by_model: dict[str, Group]  #: the painted arm by model version, the oldest first
    drift: Drift
    drift_by_tone: dict[str, Drift]  #: in the protocol's order
    repainted: int  #: masks in no arm: given out again, with a person's mask painted
    left_out: tuple[str, ...]  #: accepted masks that can't be compared, and why

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
            "bootstrap": {"over": "patients", "resamples": RESAMPLES, "seed": SEED},
            "too_few": f"fewer than {FEW} images, or one patient; "
            f"over time: fewer than {2 * PERIOD_MASKS} images",
            "arms": self.arms.as_dict(),
            "by_tone": {tone: of.as_dict() for tone, of in self.by_tone.items()},
            "by_model": {name: of.as_dict() for name, of in self.by_model.items()},
            "drift": self.drift.as_dict(),
            "drift_by_tone": {tone: of.as_dict() for tone, of in self.drift_by_tone.items()},
            "repainted": self.repainted,
            "left_out": list(self.left_out),
        }


def work_report(workspace: Workspace, progress: Progress = silent) -> WorkReport:
    """Compare every accepted mask of a labelling server with its prediction; reads only.

    A mask whose file is missing or damaged, or whose prediction's or second reading's is, is left
    out and named.
    """
    catalogue = workspace.catalogue
    works, readings = catalogue.tasks.work(), catalogue.tasks.readings()
    models = {version.id: version.name for version in catalogue.models.all()}
    rows: list[MaskMeasures] = []
    left_out = []
    for done, work in enumerate(works, 1):
        try:
            rows.append(measure_mask(workspace, work, models, readings.get(work.image.id, ())))
        except DdisegError as error:
            left_out.append(f"{work.image.name}: {error}")
        progress(done, len(works))
    return summary(rows, list(models.values()), left_out)


def summary(
    rows: Sequence[MaskMeasures], models: Sequence[str] = (), left_out: Sequence[str] = ()
) -> WorkReport:
    """What accepted masks come to, whatever their order; `models` are names, the oldest first."""
    rows = sorted(rows, key=lambda row: row.place)
    times = [row.accepted_at for row in rows]
    painted = [row for row in rows if row.arm is Arm.PREDICTED]
    places = {row.place: number for number, row in enumerate(painted, 1)}
    tones = [tone.name for tone in load_protocol().tones]
    return WorkReport(
        n=len(rows),
        patients=count_patients(rows),
        accepted=(min(times), max(times)) if times else None,
        set_back=sum(later < earlier for earlier, later in pairwise(times)),
        arms=arms(rows),
        by_tone=dict(_by(rows, tones, lambda r: r.tone, arms)),
        by_model=dict(_by(painted, models, lambda r: r.model, group)),
        drift=drift(rows, places),
        drift_by_tone=dict(_by(rows, tones, lambda r: r.tone, lambda of: drift(of, places))),
        repainted=sum(row.arm is None for row in rows),
        left_out=tuple(left_out),
    )


def _by(
    rows: Sequence[MaskMeasures],
    names: Sequence[str],
    name_of: Callable[[MaskMeasures], str | None],
    what: Callable[[Sequence[MaskMeasures]], T],
) -> Iterator[tuple[str, T]]:
    """(name, `what` of its rows) of each of `names` that has rows."""
    for name in names:
        if chosen := [row for row in rows if name_of(row) == name]:
            yield name, what(chosen)
