"""Colour numbers of a photograph: what malignancy can be told from without any network.

Nine numbers of each of three square rings about the centre: mean, standard deviation and 10th percentile of
red, green and blue. A lesion is mostly in the middle and the skin around it, so rings hold both.

Arrays: images (N, 3, S, S) float32 in [-1, 1] (`fedd.features.prepare`).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Numbers of a photograph.
COLOURS = 27

#: Outer edge of each ring but the last, as a share of the way from the centre to the photograph's edge.
_EDGES = (1 / 3, 2 / 3)

#: Share of a ring's pixels that are darker than its dark colour.
_DARK = 0.1


def colour_numbers(images: Tensor) -> Tensor:
    """Return the colour numbers of images (N, 3, S, S), (N, 27) float32, colours from 0 to 1."""
    colours = (images.float() + 1) / 2
    found = []
    for ring in _rings(images.shape[-1]):
        pixels = colours[:, :, ring]
        mean = pixels.mean(2)
        rank = 1 + int(_DARK * (pixels.shape[2] - 1))
        dark = pixels.kthvalue(rank, dim=2).values
        found += [mean, pixels.std(2, unbiased=False), dark]
    return torch.cat(found, 1)


def _rings(size: int) -> list[Tensor]:
    """Return which pixels each ring holds, (S, S) bool, the innermost first."""
    along = (torch.arange(size) / max(size - 1, 1) - 0.5).abs() * 2
    reach = torch.maximum(along[:, None], along[None, :])
    inner, outer = (reach < edge for edge in _EDGES)
    return [inner, outer & ~inner, ~outer]
