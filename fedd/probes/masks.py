"""The members' disagreement, and a mask with its refinement.

Arrays: M members, K classes, g the width and height of the predicted grid, H x W the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedd.bilinear import most_probable


def disagreement(member_probabilities: Tensor) -> Tensor:
    """Return the mutual information of class and member in nats, mean over positions: a scalar.

    It is the entropy of the members' mean minus the mean of their entropies. NaN if a probability is.
    """
    grid = member_probabilities.shape[2:]
    # Member by member: what a CPU reads several times then fits into its cache.
    of_members = torch.stack([_negative_entropy(each) for each in member_probabilities]).mean()
    of_mean = _negative_entropy(member_probabilities.mean(0))
    return ((of_members - of_mean) / grid.numel()).clamp_min(0)


def refine_inside(
    mask: Tensor, window: tuple[slice, slice], probabilities: Tensor, known: Sequence[int]
) -> None:
    """Replace a mask (H, W) inside a window by the refiner's prediction (K, g, g).

    Pixels of classes that the refiner never saw, those not in `known`, stay.
    """
    inside = mask[window]
    refined = most_probable(probabilities, inside.shape)
    replaced = torch.zeros(len(probabilities), dtype=torch.bool, device=mask.device)
    replaced[list(known)] = True
    inside.copy_(torch.where(replaced[inside.int()], refined, inside))


def _negative_entropy(probabilities: Tensor) -> Tensor:
    """Return the sum of p log p over all of a tensor; 0 log 0 is 0."""
    logs = probabilities.clamp_min(1e-12).log_()
    return torch.dot(probabilities.flatten(), logs.flatten())
