"""The gate: may a newly trained version replace the one in use?

Both paint the same held-out images, whose accepted masks neither has learned from. The candidate
passes only if it is not worse over all of them, and if no tone's lower bound falls by more than a
tolerance. A mask that people drew over the painting of the version in use leans towards that version
(left as it was, it gives it an IoU of 1), so those are left out where there are enough others.
Intervals are 95 % bootstrap intervals over patients; candidate, version in use and their
difference are resampled together (paired: Efron and Tibshirani 1993, chapter 8), so that a hard
patient counts for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.metrics import FEW, Interval
from ddiseg.errors import InputError

RESAMPLES, SEED = 2000, 0

#: By how much a tone's lower bound may fall, in IoU.
TOLERANCE = 0.02

MEAN, LESION = "mean_iou", "lesion_iou"
_SAID = {MEAN: "mean IoU", LESION: "lesion IoU"}


class CurrentPrediction(StrEnum):
    """What people made of a painting of the version in use when they drew an accepted mask."""

    NONE = "none"  #: they had none before them
    UNCHANGED = "unchanged"  #: they left it as it was
    CORRECTED = "corrected"


@dataclass(frozen=True)
class HoldoutImage:
    """One held-out image: whose it is, and the confusion matrices (C, C) of both versions' masks."""

    patient: str
    tone: str
    valid: Sequence[int]  #: classes that the annotator could use
    candidate: NDArray[np.int64]
    current: NDArray[np.int64] | None  #: None where there is no version to compare with
    painting: CurrentPrediction = CurrentPrediction.NONE


@dataclass(frozen=True)
class Figure:
    """A mean over images; value and interval are None where there are too few to say."""

    value: float | None
    interval: Interval | None
    n: int  #: images that count


@dataclass(frozen=True)
class GateComparison:
    """The figures of a group of held-out images, by MEAN and LESION."""

    n: int  #: images
    painted: int  #: of them, how many masks were drawn over a painting of the version in use
    patients: int
    candidate: dict[str, Figure]
    current: dict[str, Figure] | None
    difference: dict[str, Figure] | None  #: candidate minus current, image by image


@dataclass(frozen=True)
class GateDecision:
    """What the gate says, and why."""

    passed: bool
    judged: bool  #: False where there was nothing, or too little, to compare
    reasons: tuple[str, ...]  #: one line each, what decided first
    compared_with: str | None  #: name of the version in use
    tolerance: float
    patients: int  #: of all held-out images, compared or not
    held_out: dict[str, int]  #: images by tone
    drawn_over: dict[CurrentPrediction, int]  #: masks over a painting of the version in use
    overall: GateComparison
    by_tone: dict[str, GateComparison]  #: in the protocol's order

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON has it, with what its intervals are made of."""
        values = asdict(self)
        images = {
            "images": sum(self.held_out.values()),
            "patients": values.pop("patients"),
            "by_tone": self.held_out,
            "drawn_over_its_painting": values.pop("drawn_over"),
        }
        bootstrap = {"over": "patients", "paired": True, "resamples": RESAMPLES, "seed": SEED}
        return {
            **values,
            "reasons": list(self.reasons),
            "held_out": images,
            "bootstrap": bootstrap,
        }


def check_max_drop(tolerance: float) -> None:
    """Raise InputError where it is no IoU from 0 to 1."""
    if not 0 <= tolerance <= 1:
        raise InputError(f"--tolerance is {tolerance:g}: give an IoU from 0 to 1, such as 0.02")


def decide(
    images: Sequence[HoldoutImage],
    compared_with: str | None,
    tolerance: float = TOLERANCE,
    *,
    unusable: str | None = None,
) -> GateDecision:
    """The verdict on a candidate by held-out images.

    Args:
        compared_with: name of the version in use; None where there is none to compare with.
        tolerance: by how much a tone's lower bound may fall, in IoU.
        unusable: the version in use, and why it can't paint.

    Raises:
        InputError: the tolerance is none.
    """
    check_max_drop(tolerance)
    tones = [tone.name for tone in load_protocol().tones]
    groups = {tone: [each for each in images if each.tone == tone] for tone in tones}
    by_tone = {tone: _compare_fairly(members) for tone, members in groups.items() if members}
    overall = _compare_fairly(images)
    refused = _worse(overall, tolerance) + _fallen(by_tone, tolerance)
    unjudged = _unjudged(overall, compared_with, unusable)
    return GateDecision(
        passed=not refused,
        judged=unjudged is None,
        reasons=(
            *refused,
            *([unjudged] if unjudged else _kept(overall, refused)),
            *_leaning(images, overall, by_tone, compared_with),
            *_few(by_tone),
        ),
        compared_with=compared_with,
        tolerance=tolerance,
        patients=len({each.patient for each in images}),
        held_out={tone: len(members) for tone, members in groups.items() if members},
        drawn_over=_drawn_over(images),
        overall=overall,
        by_tone=by_tone,
    )


def refuse(verdict: GateDecision | None, why: str) -> GateDecision:
    """The verdict, None where there was no comparison, on a version that may not come into use."""
    if verdict is None:
        return replace(decide([], None), passed=False, reasons=(why,))
    return replace(verdict, passed=False, reasons=(why, *verdict.reasons))


def _compare_fairly(images: Sequence[HoldoutImage]) -> GateComparison:
    """By masks that do not lean towards the version in use; by all, where those are too few."""
    fair = _compare([each for each in images if each.painting is CurrentPrediction.NONE])
    if fair.n == len(images) or fair.candidate[MEAN].value is not None:
        return fair
    return _compare(images)


def _compare(images: Sequence[HoldoutImage]) -> GateComparison:
    patients = [each.patient for each in images]
    candidate, current = _values(images)
    difference = None
    if current is not None:
        difference = {m: candidate[m] - current[m] for m in candidate}
    return GateComparison(
        n=len(images),
        painted=sum(each.painting is not CurrentPrediction.NONE for each in images),
        patients=len(set(patients)),
        candidate=_figures(candidate, patients),
        current=None if current is None else _figures(current, patients),
        difference=None if difference is None else _figures(difference, patients),
    )


def _values(
    images: Sequence[HoldoutImage],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]] | None]:
    """IoU of each image, (N,), by measure: of the candidate and of the version in use.

    A class counts where the truth or either mask shows it, so that both have the same images; the
    one that paints nothing where nothing is has done so perfectly. NaN where a class does not count.
    """
    names = load_protocol().class_names
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for each in images:
        matrices = [each.candidate, each.candidate if each.current is None else each.current]
        iou = np.stack([metrics.iou_per_class(matrix) for matrix in matrices])
        counts = ~np.isnan(iou).all(axis=0)
        counts &= np.isin(np.arange(iou.shape[1]), each.valid)
        iou = np.where(counts, np.where(np.isnan(iou), 1.0, iou), np.nan)
        rows.append((iou[0], iou[1]))
    compared = bool(images) and all(each.current is not None for each in images)
    found = []
    for which in (0, 1):
        table = np.array([row[which] for row in rows]).reshape(len(images), len(names))
        shown = (~np.isnan(table)).sum(axis=1)
        mean = np.full(len(images), np.nan)
        np.divide(np.nansum(table, axis=1), shown, out=mean, where=shown > 0)
        found.append({MEAN: mean, LESION: table[:, names.index("lesion")]})
    return found[0], found[1] if compared else None


def _figures(
    values: Mapping[str, NDArray[np.float64]], patients: Sequence[str]
) -> dict[str, Figure]:
    figures = {}
    for measure, each in values.items():
        counts = ~np.isnan(each)
        whose = [patient for patient, kept in zip(patients, counts, strict=True) if kept]
        n = len(whose)
        if n < FEW or len(set(whose)) < 2:
            figures[measure] = Figure(None, None, n)
            continue
        interval = metrics.mean_interval(each[counts], whose, resamples=RESAMPLES, seed=SEED)
        figures[measure] = Figure(float(each[counts].mean()), interval, n)
    return figures


def _unjudged(
    overall: GateComparison, compared_with: str | None, unusable: str | None
) -> str | None:
    """Why nothing can be compared; None where it can."""
    if unusable is not None:
        return f"not judged: {unusable}"
    if not overall.n:
        return "not judged: no accepted mask is held out yet"
    if compared_with is None or overall.difference is None:
        return "not judged: there is no version in use to compare with"
    if overall.difference[MEAN].value is None:
        return f"not judged: too few held-out masks to say ({_counted(overall)})"
    return None


def _worse(overall: GateComparison, tolerance: float) -> list[str]:
    """In what the candidate is worse over all held-out images."""
    said = []
    for measure, figure in (overall.difference or {}).items():
        if figure.value is None or figure.interval is None:
            continue
        if figure.interval[1] < 0 or figure.value < -tolerance:
            said.append(f"{_SAID[measure]} is worse: {_difference(figure)}")
    return said


def _fallen(by_tone: Mapping[str, GateComparison], tolerance: float) -> list[str]:
    """The tones whose lower bound falls by more than the tolerance."""
    said = []
    for tone, group in by_tone.items():
        for measure, figure in group.candidate.items():
            before = None if group.current is None else group.current[measure]
            if figure.interval is None or before is None or before.interval is None:
                continue
            fall = before.interval[0] - figure.interval[0]
            if fall > tolerance:
                said.append(
                    f"{tone}: the lower bound of {_SAID[measure]} falls from "
                    f"{before.interval[0]:.3f} to {figure.interval[0]:.3f}, by more than "
                    f"{tolerance:g} (n = {figure.n} images, {group.patients} patients)"
                )
    return said


def _kept(overall: GateComparison, refused: Sequence[str]) -> list[str]:
    """What speaks for a candidate that passes."""
    if refused or overall.difference is None:
        return []
    return [f"{_SAID[m]}: {_difference(f)}" for m, f in overall.difference.items() if f.interval]


def _drawn_over(images: Sequence[HoldoutImage]) -> dict[CurrentPrediction, int]:
    counts = Counter(each.painting for each in images)
    return {
        kind: counts[kind] for kind in (CurrentPrediction.UNCHANGED, CurrentPrediction.CORRECTED)
    }


def _leaning(
    images: Sequence[HoldoutImage],
    overall: GateComparison,
    by_tone: Mapping[str, GateComparison],
    compared_with: str | None,
) -> list[str]:
    """How many masks lean towards the version in use, and where they had to count all the same."""
    counts = _drawn_over(images)
    if not any(counts.values()):
        return []
    said = [
        f"{sum(counts.values())} of {len(images)} held-out masks were drawn over the painting of "
        f"{compared_with}, which flatters it ({counts[CurrentPrediction.UNCHANGED]} unchanged, "
        f"{counts[CurrentPrediction.CORRECTED]} corrected): they count only where the others are too few"
    ]
    for name, group in {"overall": overall, **by_tone}.items():
        if group.painted:
            said.append(
                f"{name}: too few others, so {group.painted} of them count (n = {group.n} images)"
            )
    return said


def _few(by_tone: Mapping[str, GateComparison]) -> list[str]:
    """The tones of which too little is held out."""
    known = [tone.name for tone in load_protocol().tones if tone.name != "unknown"]
    said = []
    for tone in known:
        group = by_tone.get(tone)
        if group is None:
            said.append(f"{tone}: no mask is held out")
        elif group.candidate[MEAN].value is None:
            said.append(f"{tone}: too few held-out masks to say ({_counted(group)})")
    return said


def _difference(figure: Figure) -> str:
    assert figure.value is not None
    assert figure.interval is not None
    low, high = figure.interval
    return f"{figure.value:+.3f} [{low:+.3f}, {high:+.3f}] (n = {figure.n} images)"


def _counted(group: GateComparison) -> str:
    return f"n = {group.n} images, {group.patients} patients"
