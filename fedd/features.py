"""From photographs to square tensors, and from these to the activations of decoder blocks.

Arrays: a photograph is (H, W, 3) uint8 RGB; prepared it is (3, S, S) float32 in [-1, 1], stretched to
the backbone's square whatever its aspect ratio (as the published sDDI masks are).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone
from fedd.errors import WeightsError


@dataclass(frozen=True)
class FeatureSpec:
    """Which activations the probes read.

    With `normalise`, the probes also read each channel standardised over its own image: a lesion is
    then what differs from the surrounding skin, whatever the tone. Off in the paper. `noise` is the
    number of each image's noise sample (`fedd.backbone.content_noise`).
    """

    blocks: tuple[int, ...]
    timestep: int
    normalise: bool = False
    noise: int = 0


@dataclass(frozen=True)
class Prepared:
    """Photographs that are computed together.

    `images` (N, 3, S, S) are on the CPU, `shapes` each photograph's (H, W), `keys` the callers' names.
    `photographs` are empty where only the images are needed.
    """

    images: Tensor
    shapes: tuple[tuple[int, int], ...]
    photographs: tuple[NDArray[np.uint8], ...] = ()
    keys: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def of(self, rows: Sequence[int]) -> Prepared:
        """Return some of the photographs."""
        return Prepared(
            self.images[list(rows)],
            tuple(self.shapes[row] for row in rows),
            tuple(self.photographs[row] for row in rows) if self.photographs else (),
            tuple(self.keys[row] for row in rows) if self.keys else (),
        )


def prepare(photograph: NDArray[np.uint8], size: int) -> Tensor:
    """Resize a photograph (H, W, 3) uint8 to (3, size, size) float32 in [-1, 1]."""
    square = Image.fromarray(photograph).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def check_finite(activations: Tensor) -> Tensor:
    """Return the activations; raise WeightsError if one is not a finite number.

    A sum is finite only if all its terms are, and takes a fraction of the time of looking at each.
    """
    if not torch.isfinite(activations.sum()) and not torch.isfinite(activations).all():
        raise WeightsError(
            "the backbone gave activations that are not numbers: its weights are damaged"
        )
    return activations


def extract(backbone: Backbone, images: Tensor, spec: FeatureSpec) -> list[Tensor]:
    """Return activations (N, C, h, w) of each block of `spec`, in its order, for images (N, 3, S, S)."""
    found = backbone.activations(images, spec.timestep, spec.blocks, spec.noise)
    return [found[block] for block in spec.blocks]


def image_statistics(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over each image, both (N, C, 1, 1)."""
    mean = activations.mean((2, 3), keepdim=True)
    # A tenth of the time of Tensor.std on a CPU.
    length = torch.linalg.vector_norm(activations - mean, dim=(2, 3), keepdim=True)
    std = length / activations.shape[2:].numel() ** 0.5
    return mean, std.clamp_min(1e-5)


def at_points(activations: Sequence[Tensor], points: Tensor, size: int, normalise: bool) -> Tensor:
    """Sample activations at `points` (N, P, 2) = (row, column) of the size x size grid.

    Returns (N, P, C), C the channels of all blocks, twice that with `normalise`: the same as
    up-sampling every block bilinearly to size x size and picking the points.
    """
    grid = ((points.flip(-1).float() + 0.5) * (2 / size) - 1)[:, :, None]
    parts = []
    for block in activations:
        layers = [block]
        if normalise:
            mean, std = image_statistics(block)
            layers.append((block - mean) / std)
        parts += [
            F.grid_sample(
                layer, grid, mode="bilinear", padding_mode="border", align_corners=False
            ).squeeze(-1)
            for layer in layers
        ]
    return torch.cat(parts, 1).transpose(1, 2)
