"""The choice of what decides, on predictions of a training's own masks that were not learned from.

A candidate replaces the default only where its gain over patients is clear: the 95 % interval of the
paired difference is above 0. Few masks and small gains thus choose nothing (docs/decisions/0036).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate, Sample, sample_size
from annotation_protocol.intervals import MIN_GROUPS, Scale
from fedd.probes.decision import DEFAULT, Decision, Refinement, SecondPass
from fedd.probes.unseen import Unseen

#: Thresholds that are tried.
THRESHOLDS = (0.4, 0.5, 0.6)

#: A smaller gain, in IoU, is no reason to leave the default.
SMALLEST_GAIN = 0.005

#: With fewer patients the default decides.
FEWEST = MIN_GROUPS


@dataclass(frozen=True)
class Candidate:
    """A decision, its mean IoU of the refined class, and its gain over another one, image by image."""

    decision: Decision
    iou: Estimate
    over: Decision
    gain: Estimate

    @property
    def is_better(self) -> bool:
        """Whether the gain is clear, and large enough to count."""
        low, value = self.gain.low, self.gain.value
        return low is not None and value is not None and low > 0 and value >= SMALLEST_GAIN

    def to_dict(self) -> dict[str, Any]:
        """Return the candidate as a stored record has it."""
        return {
            "decision": self.decision.text(),
            "iou": self.iou.to_json(),
            "over": self.over.text(),
            "gain": self.gain.to_json(),
        }


@dataclass(frozen=True)
class Choice:
    """What decides, why, and what was tried; no candidates where there were too few patients."""

    decision: Decision
    why: str
    candidates: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as a stored record has it."""
        return {
            "decision": self.decision.text(),
            "is_default": self.decision == DEFAULT,
            "why": self.why,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def default_choice(patients: int) -> Choice:
    """Return the choice where unseen masks of so many patients are too few for another."""
    of = f"unseen masks of {patients} patients" if patients else "no unseen masks"
    return Choice(DEFAULT, f"the default: {of}, and a choice needs {FEWEST} patients")


def choose(
    unseen: Sequence[Unseen],
    refined_id: int,
    progress: Callable[[int], None] = lambda tried: None,
) -> Choice:
    """Choose what decides on images of at least FEWEST patients that were not learned from.

    Second pass and threshold are tried without GrabCut, which takes most of the time. What is better
    there must be better than the default with its GrabCut, too. Last, GrabCut itself is tried.

    Args:
        refined_id: id of the class whose mean IoU counts.
        progress: called with the number of decisions tried.
    """
    tried = _Tried(unseen, refined_id, progress)
    plain = replace(DEFAULT, refinement=Refinement.NONE)
    candidates = [
        tried.compare(Decision(second_pass, threshold=threshold), plain)
        for second_pass in SecondPass
        for threshold in THRESHOLDS
    ]
    decision = DEFAULT
    if (best := _best(candidates)) is not None:
        wanted = replace(best.decision, refinement=DEFAULT.refinement)
        if wanted != best.decision:
            candidates.append(tried.compare(wanted, DEFAULT))
        decision = wanted if candidates[-1].is_better or wanted == best.decision else DEFAULT
    candidates.append(tried.compare(_other_refinement(decision), decision))
    if candidates[-1].is_better:
        decision = candidates[-1].decision
    return Choice(decision, _reason(decision, tried), tuple(candidates))


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate of a clear gain that changes the least; None if no gain is clear.

    Only those within one standard error of the largest gain count, or within the smallest gain that
    counts (Breiman et al., "Classification and
    Regression Trees", 1984, section 3.4.3); of those that change as little, the one that gains most.
    """
    better = [(c.gain.value or 0.0, c) for c in candidates if c.is_better]
    if not better:
        return None
    most, best = max(better, key=lambda pair: pair[0])
    error = max(SMALLEST_GAIN, (most - (best.gain.low or 0.0)) / 2)
    return min(
        (pair for pair in better if pair[0] >= most - error),
        key=lambda pair: (_changes(pair[1].decision), -pair[0]),
    )[1]


def _changes(decision: Decision) -> int:
    """Return in how many ways a decision without GrabCut differs from the default."""
    return (decision.second_pass is not DEFAULT.second_pass) + (
        decision.threshold != DEFAULT.threshold
    )


def _other_refinement(decision: Decision) -> Decision:
    other = {Refinement.NONE: Refinement.GRABCUT, Refinement.GRABCUT: Refinement.NONE}
    return replace(decision, refinement=other[decision.refinement])


def _reason(decision: Decision, tried: _Tried) -> str:
    if decision == DEFAULT:
        size = sample_size(tried.n, tried.patients)
        return f"the default: nothing else is clearly better on its own masks, {size}"
    gain = tried.compare(decision, DEFAULT).gain
    return f"chosen on its own masks: lesion IoU {gain.sized('+.3f')} over the default"


class _Tried:
    """The IoU of the refined class with each decision that was tried, (N,)."""

    def __init__(
        self, unseen: Sequence[Unseen], refined_id: int, progress: Callable[[int], None]
    ) -> None:
        self._unseen, self._class, self._progress = unseen, refined_id, progress
        self._patients = [each.kept.patient for each in unseen]
        self._iou: dict[Decision, NDArray[np.float64]] = {}
        self.n, self.patients = len(unseen), len(set(self._patients))

    def compare(self, decision: Decision, over: Decision) -> Candidate:
        """Return a decision with its figures."""
        iou, gain = self._of(decision), self._of(decision) - self._of(over)
        return Candidate(
            decision,
            Sample(iou, self._patients).estimate(),
            over,
            Sample(gain, self._patients, scale=Scale.SIGNED).estimate(),
        )

    def _of(self, decision: Decision) -> NDArray[np.float64]:
        if decision not in self._iou:
            found = [each.iou(each.mask(decision))[self._class] for each in self._unseen]
            self._iou[decision] = np.array(found)
            self._progress(len(self._iou))
        return self._iou[decision]
