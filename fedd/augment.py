"""Augmentation: random views with the same geometry for image and mask, and new light for the image.

Arrays: images (N, 3, S, S) float32 in [-1, 1], masks (N, S, S) integer class ids.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augmented_views(
    image: Tensor, mask: Tensor, count: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return `count` views of an image (3, S, S) and its mask (S, S): (count, 3, S, S), (count, S, S)."""
    images, masks = image.expand(count, -1, -1, -1), mask.expand(count, -1, -1)
    if not count:
        return images, masks
    views, labels = transformed(images, masks, image.shape[-1], rng, shift=0.15, zoom=(0.75, 1.15))
    return relit(views, rng), labels


def transformed(
    images: Tensor,
    masks: Tensor,
    size: int,
    rng: torch.Generator,
    *,
    shift: float,
    zoom: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Rotate, flip, zoom and shift (up to `shift` of half the width) at random; edges are mirrored."""
    count = len(images)
    angle = uniform(rng, -math.pi, math.pi, count)
    scale = uniform(rng, *zoom, count)
    flip = torch.where(uniform(rng, 0, 1, count) < 0.5, -1.0, 1.0)
    offset = uniform(rng, -shift, shift, count, 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [
        torch.stack([cos * flip, -sin, offset[:, 0]], 1),
        torch.stack([sin * flip, cos, offset[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)

    def sampled(arrays: Tensor, mode: str) -> Tensor:
        return F.grid_sample(
            arrays, grid, mode=mode, padding_mode="reflection", align_corners=False
        )

    labels = sampled(masks[:, None].float(), "nearest")[:, 0].round().to(masks.dtype)
    return sampled(images, "bilinear"), labels


def relit(images: Tensor, rng: torch.Generator) -> Tensor:
    """Change exposure, colour cast and contrast at random."""
    count = len(images)
    light = (images + 1) / 2 * uniform(rng, 0.75, 1.25, count, 1, 1, 1)
    light = (light * uniform(rng, 0.9, 1.1, count, 3, 1, 1)).clamp(1e-4, 1)
    return light ** torch.exp(uniform(rng, -0.25, 0.25, count, 1, 1, 1)) * 2 - 1


def uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low
