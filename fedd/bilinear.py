"""Bilinear resizing, as of F.interpolate(..., mode="bilinear", align_corners=False), where that is slow.

For hundreds of channels F.interpolate takes 10 times as long on a CPU as two matrix products, and to find
the most probable class most pixels need no interpolation at all (docs/decisions/0027).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Share of the pixels near a border between classes up to which only these are interpolated.
SPARSE_SHARE = 0.25

#: Numbers of an interpolated map that are in memory at once: 64 MB.
STRIP = 2**24


class Neighbours:
    """The positions between which the pixels of an axis are interpolated.

    `first` and `second` are (n,) int64, in 0 to m - 1; `weight` (n,) float32 is that of the second.
    """

    def __init__(self, first: Tensor, second: Tensor, weight: Tensor) -> None:
        self.first, self.second, self.weight = first, second, weight

    @classmethod
    def of_axis(cls, n: int, m: int, device: torch.device) -> Neighbours:
        """Return those of n pixels between m positions."""
        at = ((torch.arange(n, device=device) + 0.5) * (m / n) - 0.5).clamp_min(0)
        first = at.long()
        return cls(first, (first + 1).clamp_max(m - 1), at - first)

    def __getitem__(self, pixels: Tensor | slice) -> Neighbours:
        return Neighbours(self.first[pixels], self.second[pixels], self.weight[pixels])


@lru_cache(64)
def matrix(n: int, m: int, device: torch.device) -> Tensor:
    """Return the matrix (n, m) that resizes m positions to n pixels."""
    axis = Neighbours.of_axis(n, m, device)
    found = torch.zeros(n, m, device=device)
    pixels = torch.arange(n, device=device)
    found[pixels, axis.first] += 1 - axis.weight
    found[pixels, axis.second] += axis.weight
    return found


def most_probable(probabilities: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the most probable class, (H, W) uint8, of probabilities (K, h, w) resized to `shape`.

    Where the four neighbours of a pixel have the same most probable class, so has the pixel: on a CPU
    only the others are interpolated.
    """
    height, width = shape
    device = probabilities.device
    rows = Neighbours.of_axis(height, probabilities.shape[1], device)
    columns = Neighbours.of_axis(width, probabilities.shape[2], device)
    if device.type == "cpu":
        low = probabilities.max(0).indices.to(torch.uint8)
        mask = _spread(low, rows, columns)
        # NumPy finds them six times as fast.
        borders = _spread(_near_a_border(low), rows, columns).numpy()
        near = torch.from_numpy(np.flatnonzero(borders))
        if len(near) <= SPARSE_SHARE * mask.numel():
            mask.view(-1)[near] = _at(probabilities, rows[near // width], columns[near % width])
            return mask
    if len(probabilities) * height * width <= STRIP:
        full = F.interpolate(
            probabilities[None], (height, width), mode="bilinear", align_corners=False
        )
        return full[0].max(0).indices.byte()
    mask = torch.empty(height, width, dtype=torch.uint8, device=device)
    strip = max(1, STRIP // (len(probabilities) * width))
    for top in range(0, height, strip):
        mask[top : top + strip] = _all(probabilities, rows[top : top + strip], columns)
    return mask


def _spread(low: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
    """Return for each pixel the value of its first neighbour on both axes."""
    return low.index_select(1, columns.first).index_select(0, rows.first)


def _near_a_border(low: Tensor) -> Tensor:
    """Return where a position (h, w) differs from the next one below, to the right, or both."""
    near = torch.zeros_like(low, dtype=torch.bool)
    near[:-1] |= low[:-1] != low[1:]
    near[:, :-1] |= low[:, :-1] != low[:, 1:]
    near[:-1, :-1] |= low[:-1, :-1] != low[1:, 1:]
    return near


def _at(probabilities: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
    """Return the most probable class at P pixels, (P,), given their row and column."""
    flat, width = probabilities.flatten(1), probabilities.shape[2]

    def between(row: Tensor) -> Tensor:
        first, second = row * width + columns.first, row * width + columns.second
        return torch.lerp(flat.index_select(1, first), flat.index_select(1, second), columns.weight)

    return torch.lerp(between(rows.first), between(rows.second), rows.weight).max(0).indices.byte()


def _all(probabilities: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
    """Return the most probable class at all pixels of these rows and columns."""
    upper, lower = (probabilities.index_select(1, row) for row in (rows.first, rows.second))
    lines = torch.lerp(upper, lower, rows.weight[:, None])
    left, right = (lines.index_select(2, column) for column in (columns.first, columns.second))
    return torch.lerp(left, right, columns.weight).max(0).indices.byte()
