"""How the members' predictions become one: by the mean of their softmaxes, or by their majority."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor


class Ensemble(StrEnum):
    """How the members decide the class of a position."""

    #: The class with the highest mean of the members' softmaxes.
    MEAN = "mean"

    #: The class that most members give the highest softmax, as `predict_labels` in
    #: ddpm-segmentation's `src/pixel_classifier.py` does (`torch.mode`), on which FEDD builds.
    VOTE = "vote"


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
