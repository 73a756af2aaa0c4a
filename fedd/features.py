"""From photographs to square tensors, and from these to the activations of decoder blocks.

Arrays: a photograph is (H, W, 3) uint8 RGB; prepared it is (3, S, S) float32 in [-1, 1], stretched to
the backbone's square whatever its aspect ratio (as the published sDDI masks are).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone
from fedd.errors import WeightsError

#: Opens one photograph, (H, W, 3) uint8, such as `DatasetImage.photograph`.
Open = Callable[[], NDArray[np.uint8]]

#: Threads that decode and resize, and batches prepared ahead.
WORKERS, AHEAD = 8, 2


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


def prepare(photograph: NDArray[np.uint8], size: int) -> Tensor:
    """Resize a photograph (H, W, 3) uint8 to (3, size, size) float32 in [-1, 1]."""
    square = Image.fromarray(photograph).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def check_finite(activations: Tensor) -> Tensor:
    """Return the activations; raise WeightsError if one is not a finite number."""
    if not torch.isfinite(activations).all():
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
    std = activations.std((2, 3), keepdim=True, correction=0).clamp_min(1e-5)
    return mean, std


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


def image_batches(
    photographs: Iterable[Open], size: int, batch: int, workers: int = WORKERS, pin: bool = False
) -> Iterator[Tensor]:
    """Yield batches (N, 3, size, size), decoded and resized on threads while the caller computes.

    N is `batch` except for the last. With `pin`, in page-locked memory, from which a GPU copies by
    itself. An error in opening a photograph is raised in its turn.
    """
    images = _prepared(photographs, size, AHEAD * batch, workers)
    while part := list(islice(images, batch)):
        stacked = torch.stack(part)
        yield stacked.pin_memory() if pin else stacked


def _prepared(photographs: Iterable[Open], size: int, ahead: int, workers: int) -> Iterator[Tensor]:
    """Yield prepared photographs in order; at most `ahead` are held."""
    waiting: deque[Future[Tensor]] = deque()
    pool = ThreadPoolExecutor(workers, "photographs")
    try:
        for opened in photographs:
            waiting.append(pool.submit(lambda each: prepare(each(), size), opened))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
