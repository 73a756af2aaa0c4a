"""A backbone that runs once for all blocks of an image, however often and for whichever is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedd.backbone import Backbone
from fedd.cache import image_digest, to_half


class RecordedBackbone:
    """Passes on what `backbone` gives, and keeps it in `folder` for all of `blocks` at once.

    Activations are rounded to float16, as a `FeatureCache` keeps them, and may differ from a pass of
    one's own by rounding, as those of a cache may. The blocks of OpenAI's network that the paper
    compares take 52 MB an image. For one process.
    """

    def __init__(self, backbone: Backbone, blocks: Sequence[int], folder: Path) -> None:
        self._backbone, self._folder = backbone, folder
        self._recorded = tuple(blocks)
        self._known: set[str] = set()

    @property
    def name(self) -> str:
        return self._backbone.name

    @property
    def hash(self) -> str:
        return self._backbone.hash

    @property
    def image_size(self) -> int:
        return self._backbone.image_size

    @property
    def blocks(self) -> tuple[int, ...]:
        return self._recorded

    @property
    def device(self) -> torch.device:
        return self._backbone.device

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """As of any backbone; only images that are new at this timestep pass through the network.

        Raises ValueError for a block that is not recorded.
        """
        if unknown := set(blocks) - set(self._recorded):
            raise ValueError(f"blocks {self._recorded} are recorded, not {sorted(unknown)}")
        names = [f"{image_digest(image)}-{timestep}-{noise}" for image in images]
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            found = self._backbone.activations(images[new], timestep, self._recorded, noise)
            for block, activations in found.items():
                for i, activation in zip(new, to_half(activations).cpu(), strict=True):
                    np.save(self._path(names[i], block), activation.numpy())
            self._known.update(names[i] for i in new)
        return {
            block: torch.stack([torch.from_numpy(np.load(self._path(n, block))) for n in names])
            .to(self.device)
            .float()
            for block in blocks
        }

    @contextmanager
    def passing(self) -> Iterator[None]:
        """What is recorded inside is dropped at the end: images that are looked at once."""
        before = set(self._known)
        try:
            yield
        finally:
            for name in self._known - before:
                for block in self._recorded:
                    self._path(name, block).unlink(missing_ok=True)
            self._known = before

    def _path(self, name: str, block: int) -> Path:
        return self._folder / f"{name}-{block}.npy"
