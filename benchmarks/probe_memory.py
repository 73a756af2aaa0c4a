"""Memory and time of training 5 probes on 30 images of 256 x 256 with 1024 channels.

ddpm-segmentation up-samples every channel to the image's size and keeps it in float32: for these
1024 channels 30 x 256 x 256 x 1024 x 4 bytes = 8.05 GB, and its training script copies the array
once. Ours samples pixels at each block's own resolution: goal under 4 GB. The activations are
random numbers of the real shapes, so that this measures the training and not the backbone.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedd.backbone import content_noise
from fedd.probes.training import Example, train_probes
from fedd.segment import PAPER

IMAGES, SIZE, CHANNELS = 30, 256, 1024
CLASSES = ("background", "lesion", "marker", "ruler", "skin")


class _RightShapes:
    """A stand-in backbone: activations of the ImageNet UNet's blocks 6 and 8, as random numbers."""

    name, hash, image_size, blocks = "random numbers", "0" * 64, SIZE, (6, 8)
    device = torch.device("cpu")

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        sizes = {6: 32, 8: 64}
        return {
            b: torch.stack(
                [content_noise(image, (CHANNELS // 2, sizes[b], sizes[b])) for image in images]
            )
            for b in blocks
        }


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # in its own process, so that the peak is that of this job
        peak, seconds, base = pool.apply(_train)
    peer = 2 * IMAGES * SIZE * SIZE * CHANNELS * 4 / 1e9
    print(
        f"peak memory {peak:.2f} GB ({base:.2f} GB of it the interpreter with torch), materialised and copied {peer:.1f} GB: {peer / peak:.1f} x less"
    )
    print(
        f"{seconds:.0f} s for {PAPER.members} probes on {IMAGES} images, {PAPER.pixels_per_image} pixels each, {PAPER.steps} steps (the paper: 40 minutes a probe on an A100)"
    )


def _train() -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    examples = [
        Example(
            rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
            rng.integers(0, 5, (SIZE, SIZE), np.uint8),
        )
        for _ in range(IMAGES)
    ]
    started = time.perf_counter()
    # Without a validation split every step is run; random numbers would stop it at once.
    train_probes(examples, _RightShapes(), replace(PAPER, validation_share=0.0), CLASSES)
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        time.perf_counter() - started,
        base,
    )
