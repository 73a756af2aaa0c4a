"""A backbone that notes what passes through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from fedd.backbone import DiffusionUNet


class Counting:
    """Passes on what `backbone` gives; notes each image with its timestep, and the blocks asked for."""

    def __init__(self, backbone: DiffusionUNet) -> None:
        self.name, self.hash = backbone.name, backbone.hash
        self.image_size, self.blocks = backbone.image_size, backbone.blocks
        self.device = backbone.device
        self._backbone = backbone
        self.passed: Counter[tuple[int, str]] = Counter()
        self.asked: list[tuple[int, ...]] = []

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        self.passed.update((timestep, str(image.numpy().tobytes())) for image in images)
        self.asked.append(tuple(blocks))
        return self._backbone.activations(images, timestep, blocks, noise)
