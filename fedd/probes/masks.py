"""The members' disagreement and agreement, and the first pass with the second one in its window.

Arrays: M members, K classes, g the width and height of the predicted grid, H x W the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.probes.decision import SecondPass


def disagreement(member_probabilities: Tensor) -> Tensor:
    """Return the mutual information of class and member in nats, mean over positions: a scalar.

    It is the entropy of the members' mean minus the mean of their entropies. NaN if a probability is.
    """
    grid = member_probabilities.shape[2:]
    # Member by member: what a CPU reads several times then fits into its cache.
    of_members = torch.stack([_negative_entropy(each) for each in member_probabilities]).mean()
    of_mean = _negative_entropy(member_probabilities.mean(0))
    return ((of_members - of_mean) / grid.numel()).clamp_min(0)


def agreement(member_probabilities: Tensor) -> Tensor:
    """Return the mean IoU of each two members' regions of each class, (K,); 0 where none predicts it.

    Members (M, K, g, g); of one member alone, 1 where it predicts the class.
    """
    members, classes = member_probabilities.shape[:2]
    decided = member_probabilities.max(1).indices.flatten(1)
    regions = torch.stack([decided == c for c in range(classes)]).float()  # (K, M, g * g)
    both = regions @ regions.mT
    sizes = regions.sum(2)
    either = sizes[:, :, None] + sizes[:, None] - both
    if members == 1:
        return (sizes[:, 0] > 0).float()
    first, second = torch.triu_indices(members, members, 1, device=decided.device)
    iou = both[:, first, second] / either[:, first, second].clamp_min(1)
    return iou.mean(1)


def refine_inside(
    mask: Tensor, window: tuple[slice, slice], refined: Tensor, known: Sequence[int], classes: int
) -> None:
    """Replace a mask (H, W) inside a window by the refiner's mask of it.

    Pixels of classes that the refiner never saw, those not in `known`, stay.
    """
    inside = mask[window]
    replaced = torch.zeros(classes, dtype=torch.bool, device=mask.device)
    replaced[list(known)] = True
    inside.copy_(torch.where(replaced[inside.int()], refined, inside))


def both_passes(
    first: Tensor,
    window: tuple[slice, slice],
    shape: Sequence[int],
    second: Tensor,
    known: Sequence[int],
    second_pass: SecondPass,
) -> Tensor:
    """Return the probabilities of both passes inside a window, (K, g, g), on the second one's grid.

    Classes that the refiner never saw keep the probability of the first pass, and the others share the
    rest.

    Args:
        first: probabilities of the whole photograph, (K, g, g).
        window: the window's rows and columns in an array of `shape`.
        second: probabilities inside the window.
        known: classes that the refiner saw.
    """
    before = _cropped(first, window, shape, second.shape[1:])
    seen = list(known)
    after = before.clone()
    after[seen] = before[seen].sum(0) * second[seen]
    return (before + after) / 2 if second_pass is SecondPass.MEAN else after


def whole_map(
    first: Tensor, inside: tuple[tuple[slice, slice], Tensor] | None, size: int
) -> Tensor:
    """Return probabilities (K, size, size) of a photograph, with others (K, g, g) inside a window.

    The window's slices are those in an array of this size.
    """
    whole = resized(first, (size, size))
    if inside is not None:
        window, probabilities = inside
        part = whole[:, *window]
        part.copy_(resized(probabilities, part.shape[1:]))
    return whole


def resized(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Return maps (K, h, w) resized bilinearly to `shape`, as a new tensor."""
    if tuple(maps.shape[1:]) == tuple(shape):
        return maps.clone()
    return F.interpolate(maps[None], tuple(shape), mode="bilinear", align_corners=False)[0]


def _cropped(
    maps: Tensor, window: tuple[slice, slice], shape: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Return the part of maps (K, h, w) inside a window of an array of `shape`, on a grid of `size`."""
    axes = []
    for part, length, n in zip(window, shape, size, strict=True):
        at = torch.arange(n, device=maps.device, dtype=torch.float32) + 0.5
        axes.append(2 * (part.start + at / n * (part.stop - part.start)) / length - 1)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([columns, rows], -1)[None]
    return F.grid_sample(
        maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def _negative_entropy(probabilities: Tensor) -> Tensor:
    """Return the sum of p log p over all of a tensor; 0 log 0 is 0."""
    logs = probabilities.clamp_min(1e-12).log_()
    return torch.dot(probabilities.flatten(), logs.flatten())
