"""Data of a pretraining: photographs without masks, and rendered phantoms with masks.

Arrays: in memory, images are (N, 3, S, S) uint8 and masks (N, S, S) uint8 class ids.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fedd.augment import relit, transformed
from fedd.dataset import DatasetImage
from fedd.errors import DatasetError
from fedd.files import write_file

logger = logging.getLogger(__name__)

#: Width and height in pixels of photographs and phantoms before augmentation.
PHOTO_SIZE, PHANTOM_SIZE = 224, 144


@dataclass(frozen=True)
class PretrainingData:
    """Photographs, phantoms and the phantoms' masks."""

    photographs: Tensor
    phantoms: Tensor
    masks: Tensor

    def batch(
        self, photographs: int, phantoms: int, size: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Return random views, photographs first, (N, 3, size, size) in [-1, 1], and masks.

        The masks (phantoms, size, size) are those of the phantoms; None without phantoms.
        """
        real, _ = _views(self.photographs, None, photographs, size, rng)
        if not phantoms:
            return real, None
        rendered, masks = _views(self.phantoms, self.masks, phantoms, size, rng)
        return torch.cat([real, rendered]), masks


def gather(photographs: Tensor, phantoms: int, seed: int, cache: Path) -> PretrainingData:
    """Return the photographs with rendered phantoms; `cache` is an npz file that keeps the phantoms."""
    if not cache.exists():
        logger.info("rendering %d phantoms", phantoms)
        _render(phantoms, seed, cache)
    with np.load(cache, allow_pickle=False) as arrays:
        return PretrainingData(
            photographs, torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["masks"])
        )


def squares(
    photographs: Iterable[Path], size: int, refused: list[str]
) -> Iterator[tuple[Path, Tensor]]:
    """Yield photographs resized to squares, (3, size, size) uint8, upright.

    Adds a line to `refused` for each that can't be opened.
    """
    for path in photographs:
        try:
            opened = Image.fromarray(DatasetImage(path).photograph())
        except DatasetError as error:
            refused.append(str(error))
            continue
        square = opened.resize((size, size), Image.Resampling.BICUBIC)
        yield path, torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _render(count: int, seed: int, cache: Path) -> None:
    images = np.zeros((count, 3, PHANTOM_SIZE, PHANTOM_SIZE), np.uint8)
    masks = np.zeros((count, PHANTOM_SIZE, PHANTOM_SIZE), np.uint8)
    with ProcessPoolExecutor() as pool:
        seeds = [seed * 1_000_000 + i for i in range(count)]
        for i, pair in enumerate(pool.map(_render_phantom, seeds, chunksize=64)):
            images[i], masks[i] = pair

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, images=images, masks=masks)

    write_file(cache, write)


def _render_phantom(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render

    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, TONES[seed % len(TONES)], wild=float(rng.uniform(0.2, 1.0)))
    phantom = render(scene, rng, PHANTOM_SIZE)
    return np.ascontiguousarray(phantom.image.transpose(2, 0, 1)), phantom.mask


def _views(
    images: Tensor, masks: Tensor | None, count: int, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return views of randomly sampled images, (count, 3, size, size) in [-1, 1], and their masks."""
    pick = torch.randint(0, len(images), (count,), generator=rng)
    chosen = images[pick].float() / 127.5 - 1
    unmarked = torch.zeros(chosen[:, 0].shape, dtype=torch.uint8)
    labels = unmarked if masks is None else masks[pick]
    views, labels = transformed(chosen, labels, size, rng, shift=0.25, zoom=(0.55, 1.15))
    return relit(views, rng), labels.long()
