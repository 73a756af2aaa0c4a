"""What a backbone learns from: photographs without masks, and rendered phantoms with theirs.

Arrays: pictures wait as (N, 3, S, S) uint8, masks as (N, S, S) uint8 class ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from fedd.files import replacing

#: Side in pixels at which photographs and phantoms wait in memory, before augmentation.
PHOTO_SIZE, PHANTOM_SIZE = 224, 144


@dataclass(frozen=True)
class Pictures:
    """Photographs, phantoms and the phantoms' masks."""

    photographs: Tensor
    phantoms: Tensor
    masks: Tensor

    def batch(
        self, photographs: int, phantoms: int, size: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """So many random views, photographs first, (N, 3, size, size) in [-1, 1], and masks.

        The masks (phantoms, size, size) are those of the phantoms, None where none are asked for.
        """
        real, _ = _views(self.photographs, None, photographs, size, rng)
        if not phantoms:
            return real, None
        drawn, masks = _views(self.phantoms, self.masks, phantoms, size, rng)
        return torch.cat([real, drawn]), masks


def gather(
    photographs: Tensor, phantoms: int, seed: int, cache: Path, log: Callable[[str], None]
) -> Pictures:
    """The photographs with rendered phantoms, or with those in `cache`, an npz file."""
    if not cache.exists():
        log(f"rendering {phantoms} phantoms")
        _render(phantoms, seed, cache)
    with np.load(cache, allow_pickle=False) as arrays:
        return Pictures(
            photographs, torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["masks"])
        )


def squares(
    photographs: Iterable[Path], size: int, refused: list[str]
) -> Iterator[tuple[Path, Tensor]]:
    """Photographs stretched to squares, (3, size, size) uint8, the right way up.

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
        for i, drawn in enumerate(pool.map(_draw_phantom, seeds, chunksize=64)):
            images[i], masks[i] = drawn
    with replacing(cache) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, masks=masks)


def _draw_phantom(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render

    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, TONES[seed % len(TONES)], wild=float(rng.uniform(0.2, 1.0)))
    phantom = render(scene, rng, PHANTOM_SIZE)
    return np.ascontiguousarray(phantom.image.transpose(2, 0, 1)), phantom.mask


def _views(
    images: Tensor, masks: Tensor | None, count: int, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` random views of images drawn at random, (count, 3, size, size) in [-1, 1], and masks."""
    pick = torch.randint(0, len(images), (count,), generator=rng)
    chosen = images[pick].float() / 127.5 - 1
    unmarked = torch.zeros(chosen[:, 0].shape, dtype=torch.uint8)
    labels = unmarked if masks is None else masks[pick]
    views, labels = transformed(chosen, labels, size, rng, shift=0.25, zoom=(0.55, 1.15))
    return relit(views, rng), labels.long()
