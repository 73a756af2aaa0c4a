"""The gate: decide whether a newly trained model version may replace the current one.

Both predict the same hold-out images, whose accepted masks neither was trained on. The candidate
passes if it is not worse over all of them, and if no tone's lower bound drops by more than a maximum.
A mask that was drawn over a prediction of the current model is biased towards that model (left
unchanged, it gives it an IoU of 1), so such masks are left out where there are enough others.
Intervals are over patients; the difference between candidate and current model is taken image by
image (paired), so that a hard patient counts for both. With too few patients for an interval the gate
compares the values themselves, from FEWEST patients on; with fewer it does not decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import METHOD, Estimate, Sample, sample_size, too_few
from annotation_protocol.intervals import Scale
from ddiseg.catalogue.records import (
    CurrentPrediction,
    GateComparison,
    GateDecision,
    HoldoutCounts,
)
from ddiseg.errors import InputError
from ddiseg.outcomes import counted

#: By how much a tone's lower bound may drop, in IoU.
MAX_DROP = 0.02

#: Fewest patients whose values are compared where there are too few for an interval.
FEWEST = 5

MEAN, LESION = "mean_iou", "lesion_iou"
_NAMES = {MEAN: "mean IoU", LESION: "lesion IoU"}


@dataclass(frozen=True)
class HoldoutImage:
    """A hold-out image with the confusion matrices (C, C) of both models' predictions."""

    group: str  #: key of its group
    tone: str
    valid: Sequence[int]  #: classes that the annotator could use
    candidate: NDArray[np.int64]
    current: NDArray[np.int64] | None  #: None where there is no current model to compare with
    drawn_over: CurrentPrediction = CurrentPrediction.NONE
    content_hash: str = ""  #: of the photograph; empty where it has none


def check_max_drop(max_drop: float) -> None:
    """Raise InputError where it is not an IoU from 0 to 1."""
    if not 0 <= max_drop <= 1:
        raise InputError(f"--tolerance is {max_drop:g}: give an IoU from 0 to 1, such as 0.02")


def decide(
    images: Sequence[HoldoutImage],
    compared_with: str | None,
    max_drop: float = MAX_DROP,
    *,
    leaked: int = 0,
    notes: Sequence[str] = (),
    unusable: str | None = None,
) -> GateDecision:
    """Return the decision on a candidate by hold-out images.

    Args:
        images: hold-out images that do not leak; may be empty.
        compared_with: name of the current model version; None where there is none.
        max_drop: by how much a tone's lower bound may drop, in IoU.
        leaked: hold-out images left out, as a version learned from others of their groups.
        notes: on the masks that were compared, or left out.
        unusable: name of the current model version and why it can't predict.

    Raises:
        InputError: `max_drop` is not an IoU from 0 to 1.
    """
    check_max_drop(max_drop)
    tones = [tone.name for tone in load_protocol().tones]
    groups = {tone: [each for each in images if each.tone == tone] for tone in tones}
    by_tone = {tone: _compare_unbiased(members) for tone, members in groups.items() if members}
    overall = _compare_unbiased(images)
    refusals = _worse_overall(overall, max_drop) + _dropped(by_tone, max_drop)
    left_out = bool(leaked or notes)
    not_evaluated = _why_not_evaluated(overall, compared_with, left_out, unusable)
    return GateDecision(
        passed=not refusals,
        evaluated=not_evaluated is None,
        reasons=(
            *refusals,
            *([not_evaluated] if not_evaluated else _why_passed(overall, refusals)),
            *_leaked(leaked),
            *notes,
            *_biased(images, overall, by_tone, compared_with),
            *_few(by_tone),
        ),
        compared_with=compared_with,
        max_drop=max_drop,
        holdout=HoldoutCounts(
            images=len(images),
            patients=len({each.group for each in images}),
            by_tone={tone: len(members) for tone, members in groups.items() if members},
            members=tuple(each.content_hash for each in images if each.content_hash),
            leaked=leaked,
            over_predictions=_count_over_predictions(images),
        ),
        overall=overall,
        by_tone=by_tone,
        intervals={**METHOD, "paired": True},
    )


def refuse(decision: GateDecision | None, reason: str) -> GateDecision:
    """Return a refusal for `reason`, with what `decision` measured; None where nothing was compared."""
    if decision is None:
        return replace(decide([], None), passed=False, reasons=(reason,))
    return replace(decision, passed=False, reasons=(reason, *decision.reasons))


def _compare_unbiased(images: Sequence[HoldoutImage]) -> GateComparison:
    """Compare by masks not drawn over a prediction of the current model; by all where they are too few."""
    unbiased = _compare([each for each in images if each.drawn_over is CurrentPrediction.NONE])
    if unbiased.n == len(images) or not too_few(unbiased.patients):
        return unbiased
    return _compare(images)


def _compare(images: Sequence[HoldoutImage]) -> GateComparison:
    groups = [each.group for each in images]
    candidate, current = _values(images)
    difference = None
    if current is not None:
        difference = {m: candidate[m] - current[m] for m in candidate}
    return GateComparison(
        n=len(images),
        over_predictions=sum(each.drawn_over is not CurrentPrediction.NONE for each in images),
        patients=len(set(groups)),
        candidate=_estimates(candidate, groups),
        current=None if current is None else _estimates(current, groups),
        difference=None if difference is None else _estimates(difference, groups, Scale.SIGNED),
    )


def _values(
    images: Sequence[HoldoutImage],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]] | None]:
    """Return the IoU of each image, (N,), by measure: of the candidate and of the current model.

    A class counts where the truth or either prediction has it, so that both models have the same
    images; a prediction without a class that the truth lacks gets an IoU of 1. NaN where a class
    does not count.
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


def _estimates(
    values: Mapping[str, NDArray[np.float64]],
    groups: Sequence[str],
    scale: Scale = Scale.FRACTION,
) -> dict[str, Estimate]:
    estimates = {}
    for measure, each in values.items():
        counts = ~np.isnan(each)
        kept = [group for group, count in zip(groups, counts, strict=True) if count]
        estimates[measure] = Sample(each[counts], kept, scale=scale).estimate()
    return estimates


def _why_not_evaluated(
    overall: GateComparison, compared_with: str | None, left_out: bool, unusable: str | None
) -> str | None:
    """Return why nothing can be compared; None where it can."""
    if unusable is not None:
        return f"not evaluated: {unusable}"
    if not overall.n and left_out:
        return "not evaluated: no hold-out mask is left to compare"
    if not overall.n:
        return "not evaluated: the hold-out set has no accepted mask yet"
    if compared_with is None or overall.difference is None:
        return "not evaluated: there is no current model to compare with"
    if not _comparable(overall.difference[MEAN]):
        return f"not evaluated: too few hold-out masks ({_size(overall)})"
    return None


def _worse_overall(overall: GateComparison, max_drop: float) -> list[str]:
    """Return a line for each measure in which the candidate is worse over all hold-out images."""
    lines = []
    for measure, estimate in (overall.difference or {}).items():
        if not _comparable(estimate):
            continue
        assert estimate.value is not None
        if (estimate.high or 0) < 0 or estimate.value < -max_drop:
            lines.append(f"{_NAMES[measure]} is worse: {estimate.sized('+.3f')}")
    return lines


def _dropped(by_tone: Mapping[str, GateComparison], max_drop: float) -> list[str]:
    """Return a line for each tone and measure that drops by more than `max_drop`.

    What may not drop is the lower bound, or the value where there are too few patients for a bound.
    """
    lines = []
    for tone, group in by_tone.items():
        for measure, after in group.candidate.items():
            before = None if group.current is None else group.current[measure]
            if before is None or not _comparable(after):
                continue
            what, ends = "the lower bound of ", (before.low, after.low)
            size = sample_size(after.n, after.groups)
            if None in ends:
                what, ends = "", (before.value, after.value)
                size = f"{size}, too few for an interval"
            was, now = ends
            assert was is not None
            assert now is not None
            if was - now > max_drop:
                lines.append(
                    f"{tone}: {what}{_NAMES[measure]} drops from {was:.3f} to {now:.3f}, by more than "
                    f"{max_drop:g} ({size})"
                )
    return lines


def _why_passed(overall: GateComparison, refusals: Sequence[str]) -> list[str]:
    """Return the differences of a candidate that passes."""
    if refusals or overall.difference is None:
        return []
    return [
        f"{_NAMES[m]}: {e.sized('+.3f')}" for m, e in overall.difference.items() if _comparable(e)
    ]


def _leaked(leaked: int) -> list[str]:
    """Return how many hold-out masks can't be compared, as their groups leak."""
    if not leaked:
        return []
    return [
        f"{counted(leaked, 'hold-out mask')} left out: a compared version learned from other images of "
        "the same patient, lesion or near-duplicates"
    ]


def _count_over_predictions(images: Sequence[HoldoutImage]) -> dict[str, int]:
    counts = Counter(each.drawn_over for each in images)
    kinds = CurrentPrediction.UNCHANGED, CurrentPrediction.CORRECTED
    return {kind.value: counts[kind] for kind in kinds}


def _biased(
    images: Sequence[HoldoutImage],
    overall: GateComparison,
    by_tone: Mapping[str, GateComparison],
    compared_with: str | None,
) -> list[str]:
    """Return how many masks are biased towards the current model, and which groups count them."""
    counts = _count_over_predictions(images)
    if not any(counts.values()):
        return []
    lines = [
        f"{sum(counts.values())} of {len(images)} hold-out masks were drawn over a prediction of "
        f"{compared_with}, which favours it ({counts[CurrentPrediction.UNCHANGED]} unchanged, "
        f"{counts[CurrentPrediction.CORRECTED]} corrected): they count only where there are too few others"
    ]
    for name, group in {"overall": overall, **by_tone}.items():
        if group.over_predictions:
            lines.append(
                f"{name}: too few others, so {group.over_predictions} of them count "
                f"({_size(group)})"
            )
    return lines


def _few(by_tone: Mapping[str, GateComparison]) -> list[str]:
    """Return a line for each tone with too few hold-out masks to compare, or for an interval."""
    lines = []
    for tone in (tone.name for tone in load_protocol().tones if tone.name != "unknown"):
        group = by_tone.get(tone)
        if group is None:
            lines.append(f"{tone}: no hold-out mask")
        elif not _comparable(group.candidate[MEAN]):
            lines.append(f"{tone}: not evaluated: too few hold-out masks ({_size(group)})")
        elif too_few(group.patients):
            lines.append(
                f"{tone}: too few patients for an interval ({_size(group)}): values are compared"
            )
    return lines


def _comparable(estimate: Estimate) -> bool:
    return estimate.value is not None and (estimate.groups or 0) >= FEWEST


def _size(group: GateComparison) -> str:
    return sample_size(group.n, group.patients)


__all__ = [
    "LESION",
    "MAX_DROP",
    "MEAN",
    "CurrentPrediction",
    "GateComparison",
    "GateDecision",
    "HoldoutImage",
    "check_max_drop",
    "decide",
    "refuse",
]
