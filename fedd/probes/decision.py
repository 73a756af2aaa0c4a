"""What decides the class of a pixel: the members together, the second pass, a threshold, a refinement.

The members decide together by the mean of their softmaxes or by their majority (`Ensemble`). The rest
of it, a `Decision`, is chosen for a training on its own masks (`fedd.probes.choice`,
docs/decisions/0036).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from fedd.bilinear import most_probable
from fedd.errors import WeightsError

#: Classes of things that lie on the skin: no threshold and no refinement gives their pixels to another.
KEPT_CLASSES = ("marker", "ruler")


class Ensemble(StrEnum):
    """How the members decide the class of a position."""

    #: The class with the highest mean of the members' softmaxes.
    MEAN = "mean"

    #: The class that most members give the highest softmax, as `predict_labels` in
    #: ddpm-segmentation's `src/pixel_classifier.py` does (`torch.mode`), on which FEDD builds.
    VOTE = "vote"


class SecondPass(StrEnum):
    """What the refinement pass does inside its window."""

    REPLACE = "replace"  #: its prediction replaces that of the first pass
    MEAN = "mean"  #: the probabilities of both passes are averaged
    OFF = "off"  #: there is none


class Refinement(StrEnum):
    """What follows the colour edges of the photograph after both passes."""

    NONE = "none"
    GRABCUT = "grabcut"  #: OpenCV's GrabCut, `fedd.probes.refinement`


@dataclass(frozen=True)
class Decision:
    """What decides between the probabilities and the mask. Without arguments: as in old model files."""

    second_pass: SecondPass = SecondPass.REPLACE
    refinement: Refinement = Refinement.NONE
    #: Of the refined class against all others, 0 to 1; below 0.5 its regions become wider.
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise WeightsError(f"the decision's threshold is {self.threshold}, not between 0 and 1")

    @property
    def odds(self) -> float:
        """What the threshold multiplies the odds of the refined class by; 1 at 0.5."""
        return (1 - self.threshold) / self.threshold

    def text(self) -> str:
        """Return the decision as a line of a report has it."""
        passes = {
            SecondPass.REPLACE: "second pass replaces the first",
            SecondPass.MEAN: "mean of both passes",
            SecondPass.OFF: "first pass alone",
        }
        cut = ", GrabCut" if self.refinement is Refinement.GRABCUT else ""
        return f"{passes[self.second_pass]}, threshold {self.threshold:.2f}{cut}"

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as model files hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """Return the decision that `to_dict` wrote; raises WeightsError for one of a newer program."""
        try:
            return cls(
                SecondPass(values["second_pass"]),
                Refinement(values["refinement"]),
                float(values["threshold"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsError(
                f"the probes' decision {dict(values)} is unknown here: a newer version of this "
                "program wrote it"
            ) from error


#: The decision of a training with too few masks to choose one: better than each alone, and than the
#: second pass in the place of the first, on semi-automatic masks and on hand-drawn ones
#: (docs/decisions/0036).
DEFAULT = Decision(SecondPass.MEAN, Refinement.GRABCUT)


def combine(member_probabilities: Tensor, ensemble: Ensemble) -> Tensor:
    """Return what the ensemble thinks of each class, (..., K, g, g).

    The mean of the softmaxes, or the share of the members that vote for each class. The highest value
    decides; where several are highest, the first class (the lowest id), as `torch.mode` on a CPU does.

    Args:
        member_probabilities: the members' softmaxes, (..., members, K, g, g).
        ensemble: how the members decide.
    """
    if ensemble is Ensemble.MEAN:
        return member_probabilities.mean(-4)
    votes = member_probabilities.max(-3).indices
    classes = range(member_probabilities.shape[-3])
    return torch.stack([(votes == c).float().mean(-3) for c in classes], -3)


def tilted(probabilities: Tensor, class_id: int | None, odds: float) -> Tensor:
    """Return probabilities (K, h, w) with the odds of a class multiplied, summing to 1 again."""
    if class_id is None or math.isclose(odds, 1):
        return probabilities
    found = probabilities.clone()
    found[class_id] *= odds
    return found / found.sum(0)


def decide(
    probabilities: Tensor,
    shape: Sequence[int],
    class_id: int | None,
    odds: float,
    kept: Sequence[int],
) -> Tensor:
    """Return the class of each pixel, (H, W) uint8, of probabilities (K, h, w) resized to `shape`.

    Args:
        class_id: the class whose odds are multiplied by `odds`.
        kept: classes whose pixels stay, whatever the odds.
    """
    mask = most_probable(probabilities, shape)
    if class_id is None or math.isclose(odds, 1):
        return mask
    scaled = probabilities.clone()
    scaled[class_id] *= odds
    moved = most_probable(scaled, shape)
    stays = torch.zeros(len(probabilities), dtype=torch.bool, device=mask.device)
    stays[list(kept)] = True
    return torch.where(stays[mask.int()], mask, moved)


def kept_ids(classes: Sequence[str]) -> list[int]:
    """Return the ids of the classes whose pixels no threshold and no refinement takes."""
    return [index for index, name in enumerate(classes) if name in KEPT_CLASSES]
