"""What the model's painting is worth to people: how much of it they kept, and the time they took.

Counted are accepted masks that were drawn on a labelling server. Prediction and accepted mask are
compared at the accepted mask's size, to which the prediction is stretched: so people saw it.
Intervals are 95 % bootstrap intervals over patients; a figure that has none is not given at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, scoring
from annotation_protocol.scoring import (
    FEW,
    Interval,
    bootstrap_weights,
    percentile_interval,
    resampled_means,
)
from ddiseg import masks
from ddiseg.catalogue import Arm, Work
from ddiseg.errors import DdisegError
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace import Workspace

T = TypeVar("T")

#: Bootstrap samples, and the seed of a group by itself and of the control arm in a difference.
RESAMPLES, SEED, CONTROL_SEED = 2000, 0, 1


class Measure(StrEnum):
    """What is measured of accepted masks; the first four compare them with the prediction."""

    LESION_DICE = "lesion_dice"  #: mean over the images where either mask has a lesion
    MEAN_DICE = "mean_dice"  #: mean over images of the mean over the classes of either mask
    UNCHANGED = "unchanged"  #: share of the masks that equal the prediction, pixel for pixel
    CHANGED_PIXELS = "changed_pixels"  #: mean share of a mask's pixels that differ
    MEDIAN_SECONDS = "median_seconds"  #: lead times are skewed: a tab left open counts too
    MEAN_SECONDS = "mean_seconds"


AGREEMENT = (
    Measure.LESION_DICE,
    Measure.MEAN_DICE,
    Measure.UNCHANGED,
    Measure.CHANGED_PIXELS,
)
SECONDS = (Measure.MEDIAN_SECONDS, Measure.MEAN_SECONDS)

#: What two arms are compared by. Nobody draws a withheld prediction to the pixel, so not UNCHANGED.
COMPARED = (*SECONDS, Measure.LESION_DICE, Measure.MEAN_DICE)


@dataclass(frozen=True)
class Figure:
    """One number of a group; value and interval are None where there are too few to say.

    Shares are 0 to 1.
    """

    value: float | None
    interval: Interval | None
    n: int  #: images behind it
    patients: int  #: whom these show


@dataclass(frozen=True)
class Difference:
    """A number of the painted arm minus that of the control arm; None as in `Figure`."""

    value: float | None
    interval: Interval | None
    n: tuple[int, int]  #: images: painted, control
    patients: tuple[int, int]


@dataclass(frozen=True)
class Group:
    """The accepted masks that have something in common."""

    n: int  #: images
    patients: int
    not_timed: int  #: images for which the server counted no seconds
    figures: dict[Measure, Figure]

    @property
    def too_few(self) -> bool:
        return _too_few(self.n, self.patients)

    def as_dict(self) -> dict[str, Any]:
        counts = {"n": self.n, "patients": self.patients, "not_timed": self.not_timed}
        return {**counts, **_as_dicts(self.figures)}


@dataclass(frozen=True)
class Arms:
    """What people found when they opened an image, side by side."""

    painted: Group  #: the model's mask
    control: Group  #: nothing, though there is a prediction, drawn by lot
    bare: Group  #: nothing, as there was no prediction
    difference: dict[Measure, Difference]  #: of COMPARED, painted minus control

    def as_dict(self) -> dict[str, Any]:
        return {
            "painted": self.painted.as_dict(),
            "control": self.control.as_dict(),
            "bare": self.bare.as_dict(),
            "painted_minus_control": _as_dicts(self.difference),
        }


@dataclass(frozen=True)
class WorkReport:
    """Everything that is known of people's work with and without the model."""

    n: int  #: accepted masks, one an image
    patients: int
    accepted: tuple[str, str] | None  #: first and last time of acceptance, UTC
    arms: Arms
    by_tone: dict[str, Arms]  #: in the protocol's order
    by_model: dict[str, Group]  #: the painted arm by model version, the oldest first
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
            "bootstrap": {"over": "patients", "resamples": RESAMPLES, "seed": SEED},
            "too_few": f"fewer than {FEW} images, or one patient",
            "arms": self.arms.as_dict(),
            "by_tone": {tone: arms.as_dict() for tone, arms in self.by_tone.items()},
            "by_model": {name: group.as_dict() for name, group in self.by_model.items()},
            "repainted": self.repainted,
            "left_out": list(self.left_out),
        }


def work_report(workspace: Workspace, progress: Progress = silent) -> WorkReport:
    """Compare every accepted mask of a labelling server with its prediction; reads only.

    A mask whose file is missing or damaged, or whose prediction's is, is left out and named.
    """
    works = workspace.catalogue.labelling.work()
    models = {version.id: version.name for version in workspace.catalogue.models.all()}
    rows, left_out = [], []
    for done, work in enumerate(works, 1):
        try:
            rows.append(_row(workspace, work, models))
        except DdisegError as error:
            left_out.append(f"{work.image.name}: {error}")
        progress(done, len(works))
    times = sorted(row.accepted_at for row in rows)
    painted = [row for row in rows if row.arm is Arm.PAINTED]
    return WorkReport(
        n=len(rows),
        patients=_patients(rows),
        accepted=(times[0], times[-1]) if times else None,
        arms=_arms(rows),
        by_tone=dict(_by(rows, [t.name for t in load_protocol().tones], lambda r: r.tone, _arms)),
        by_model=dict(_by(painted, list(models.values()), lambda r: r.model, _group)),
        repainted=sum(row.arm is None for row in rows),
        left_out=tuple(left_out),
    )


@dataclass(frozen=True)
class _Row:
    """One accepted mask."""

    tone: str
    patient: str
    arm: Arm | None  #: None where a person's mask was painted
    model: str | None  #: that made the prediction
    accepted_at: str
    values: dict[Measure, float]  #: as far as they could be measured


def _row(workspace: Workspace, work: Work, models: dict[int, str]) -> _Row:
    values: dict[Measure, float] = {}
    model = None
    arm: Arm | None = work.arm
    if work.prediction is not None:
        values |= _agreement(workspace.mask(work.prediction), workspace.mask(work.accepted))
        assert work.prediction.model_version_id is not None
        model = models[work.prediction.model_version_id]
    elif arm is not Arm.BARE:
        arm = None
    if work.seconds is not None:
        values |= dict.fromkeys(SECONDS, work.seconds)
    image = work.image
    patient = image.patient or f"image {image.id}"
    return _Row(image.tone, patient, arm, model, work.accepted_at, values)


def _agreement(prediction: masks.Mask, accepted: masks.Mask) -> dict[Measure, float]:
    names = load_protocol().class_names
    height, width = accepted.shape
    stretched = masks.stretch(prediction, (height, width))
    confusion = scoring.confusion(accepted, stretched, len(names))
    dice = scoring.dice_per_class(confusion)
    changed = accepted.size - int(np.trace(confusion))
    values = {
        Measure.MEAN_DICE: float(np.nanmean(dice)),
        Measure.UNCHANGED: float(changed == 0),
        Measure.CHANGED_PIXELS: changed / accepted.size,
    }
    lesion = float(dice[names.index("lesion")])
    return values if np.isnan(lesion) else {Measure.LESION_DICE: lesion, **values}


def _by(
    rows: Sequence[_Row],
    names: Sequence[str],
    name_of: Callable[[_Row], str | None],
    summary: Callable[[Sequence[_Row]], T],
) -> Iterator[tuple[str, T]]:
    """(name, summary of its rows) of each of `names` that has rows."""
    for name in names:
        if chosen := [row for row in rows if name_of(row) == name]:
            yield name, summary(chosen)


def _arms(rows: Sequence[_Row]) -> Arms:
    of = {arm: [row for row in rows if row.arm is arm] for arm in Arm}
    groups = {arm: _group(of[arm]) for arm in (Arm.PAINTED, Arm.CONTROL, Arm.BARE)}
    difference = {m: _difference(m, of[Arm.PAINTED], of[Arm.CONTROL]) for m in COMPARED}
    return Arms(groups[Arm.PAINTED], groups[Arm.CONTROL], groups[Arm.BARE], difference)


def _group(rows: Sequence[_Row]) -> Group:
    return Group(
        n=len(rows),
        patients=_patients(rows),
        not_timed=sum(Measure.MEDIAN_SECONDS not in row.values for row in rows),
        figures={measure: _Sample(measure, rows).figure() for measure in Measure},
    )


def _difference(measure: Measure, painted: Sequence[_Row], control: Sequence[_Row]) -> Difference:
    ours, theirs = _Sample(measure, painted), _Sample(measure, control)
    n = len(ours.values), len(theirs.values)
    patients = ours.patients, theirs.patients
    if ours.too_few or theirs.too_few:
        return Difference(None, None, n, patients)
    # Another seed: with as many patients in both arms, the same one would draw them in step.
    resampled = ours.resampled(SEED) - theirs.resampled(CONTROL_SEED)
    value = ours.value() - theirs.value()
    return Difference(value, percentile_interval(resampled), n, patients)


class _Sample:
    """The values of one measure with the patient of each."""

    def __init__(self, measure: Measure, rows: Sequence[_Row]) -> None:
        measured = [row for row in rows if measure in row.values]
        self.measure = measure
        self.values = np.array([row.values[measure] for row in measured])
        self.patients = _patients(measured)
        self._patient = [row.patient for row in measured]

    @property
    def too_few(self) -> bool:
        return _too_few(len(self.values), self.patients)

    def value(self) -> float:
        middle = np.median if self.measure is Measure.MEDIAN_SECONDS else np.mean
        return float(middle(self.values))

    def resampled(self, seed: int) -> NDArray[np.float64]:
        """The value in each bootstrap sample of whole patients, (RESAMPLES,)."""
        if self.measure is Measure.MEDIAN_SECONDS:
            return _resampled_medians(self.values, self._patient, seed)
        return resampled_means(self.values, self._patient, resamples=RESAMPLES, seed=seed)

    def figure(self) -> Figure:
        n = len(self.values)
        if self.too_few:
            return Figure(None, None, n, self.patients)
        value = self.value()
        if self.measure is Measure.UNCHANGED and value in (0, 1):
            interval = _all_or_none(value, self.patients)
        else:
            interval = percentile_interval(self.resampled(SEED))
        return Figure(value, interval, n, self.patients)


def _resampled_medians(
    values: NDArray[np.float64], patients: Sequence[str], seed: int
) -> NDArray[np.float64]:
    order = np.argsort(values)
    ordered = values[order]
    names, cluster = np.unique(np.asarray(patients, np.str_)[order], return_inverse=True)
    weights = bootstrap_weights(names.size, RESAMPLES, seed).astype(np.intp)
    medians = np.empty(RESAMPLES)
    for index, weight in enumerate(weights):  # one sample at a time keeps the memory small
        drawn = np.repeat(ordered, weight[cluster])
        medians[index] = (drawn[(drawn.size - 1) // 2] + drawn[drawn.size // 2]) / 2
    return medians


def _all_or_none(share: float, patients: int) -> Interval:
    """The exact 95 % interval of a share that is 0 or 1, where a bootstrap has no spread.

    Clopper and Pearson 1934, with the patients as the independent trials.
    """
    reach = 1 - 0.025 ** (1 / patients)
    return (0.0, reach) if share == 0 else (1 - reach, 1.0)


def _too_few(n: int, patients: int) -> bool:
    return n < FEW or patients < 2


def _patients(rows: Sequence[_Row]) -> int:
    return len({row.patient for row in rows})


def _as_dicts(figures: Mapping[Measure, Figure | Difference]) -> dict[str, Any]:
    return {measure.value: asdict(figure) for measure, figure in figures.items()}
