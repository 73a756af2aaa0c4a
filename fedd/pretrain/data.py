"""Data of a pretraining: photographs without masks, pairs with pen or ruler, and phantoms with masks.

Arrays: in memory, images are (N, 3, S, S) uint8 and masks (N, S, S) uint8 class ids.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
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
from fedd.errors import DatasetError, TrainingDataError
from fedd.files import write_file
from fedd.pretrain.settings import PretrainSettings

logger = logging.getLogger(__name__)

#: Width and height in pixels of photographs and phantoms before augmentation.
PHOTO_SIZE, PHANTOM_SIZE = 224, 144

#: Width of a phantom's view, in widths of the phantom.
PHANTOM_ZOOM = (0.55, 1.15)


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, S, S) in [-1, 1]: photographs, then pairs without and with pen or ruler, then phantoms.

    `masks` (L, S, S) int64 are those of the last L images, the pairs' images with pen or ruler and the
    phantoms; 255 is a pixel of unknown class.
    """

    images: Tensor
    masks: Tensor
    pairs: int = 0

    def to(self, device: torch.device) -> Batch:
        return Batch(self.images.to(device), self.masks.to(device), self.pairs)


@dataclass(frozen=True)
class PretrainingData:
    """Photographs, phantoms and the phantoms' masks."""

    photographs: Tensor
    phantoms: Tensor
    masks: Tensor

    def batch(self, settings: PretrainSettings, size: int, rng: torch.Generator) -> Batch:
        """Return random views of `size` x `size` pixels."""
        pairs, zoom = settings.pairs, settings.zoom
        count = settings.photographs + pairs
        images, masks = _views(self.photographs, None, count, size, zoom, rng)
        parts, labels = [images], [masks[:0]]
        if pairs:
            drawn = [_overlaid(view, rng) for view in images[-pairs:]]
            parts.append(torch.stack([image for image, _ in drawn]))
            labels.append(torch.stack([mask for _, mask in drawn]))
        if settings.rendered:
            rendered, masks = _views(
                self.phantoms, self.masks, settings.rendered, size, PHANTOM_ZOOM, rng
            )
            parts.append(rendered)
            labels.append(masks)
        return Batch(torch.cat(parts), torch.cat(labels), pairs)


def gather(
    photographs: Mapping[Path, Tensor], settings: PretrainSettings, cache: Path
) -> PretrainingData:
    """Return the photographs with rendered phantoms; `cache` is an npz file that keeps the phantoms.

    Raises TrainingDataError if phantoms are to be drawn on skin and no photograph shows bare skin.
    """
    if not cache.exists():
        logger.info("rendering %d phantoms", settings.phantoms)
        _render(settings, list(photographs), cache)
    with np.load(cache, allow_pickle=False) as arrays:
        return PretrainingData(
            torch.stack(list(photographs.values())),
            torch.from_numpy(arrays["images"]),
            torch.from_numpy(arrays["masks"]),
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


def _render(settings: PretrainSettings, photographs: list[Path], cache: Path) -> None:
    count, seed = settings.phantoms, settings.seed
    images = np.zeros((count, 3, PHANTOM_SIZE, PHANTOM_SIZE), np.uint8)
    masks = np.zeros((count, PHANTOM_SIZE, PHANTOM_SIZE), np.uint8)
    on_skin = round(count * settings.composite_share)
    seeds = [seed * 1_000_000 + i for i in range(count)]
    shown = [photographs[i % len(photographs)] if i < on_skin else None for i in range(count)]
    refused = 0
    with ProcessPoolExecutor() as pool:
        for i, made in enumerate(pool.map(_render_phantom, seeds, shown, chunksize=64)):
            refused += made.refused
            images[i], masks[i] = made.image, made.mask
    if refused:
        logger.info("%d of %d phantoms: no bare skin, drawn on rendered skin", refused, on_skin)
    if on_skin and refused == on_skin:
        raise TrainingDataError(
            f"none of {len(photographs)} photographs shows bare skin to draw phantoms on: give others, or "
            "composite_share=0"
        )

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, images=images, masks=masks)

    write_file(cache, write)


@dataclass(frozen=True)
class _Rendered:
    """An image (3, S, S) and its mask (S, S); `refused` if its photograph shows no bare skin."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    refused: bool


def _render_phantom(seed: int, photograph: Path | None) -> _Rendered:
    from annotation_protocol.phantoms.on_skin import composite
    from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render

    rng = np.random.default_rng(seed)
    phantom = None
    if photograph is not None:
        phantom = composite(DatasetImage(photograph).photograph(), rng, PHANTOM_SIZE)
    refused = photograph is not None and phantom is None
    if phantom is None:
        scene = draw_scene(rng, TONES[seed % len(TONES)], wild=float(rng.uniform(0.2, 1.0)))
        phantom = render(scene, rng, PHANTOM_SIZE)
    image = np.ascontiguousarray(phantom.image.transpose(2, 0, 1))
    return _Rendered(image, phantom.mask, refused)


def _overlaid(view: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a view (3, S, S) with pen or ruler drawn on it, and where, (S, S) int64."""
    from annotation_protocol.phantoms.on_skin import overlaid

    pixels = ((view + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    seed = int(torch.randint(0, 2**62, (), generator=rng))
    found = overlaid(pixels, np.random.default_rng(seed))
    drawn = torch.from_numpy(found.image != pixels).any(-1)
    image = torch.from_numpy(found.image).permute(2, 0, 1).float() / 127.5 - 1
    return torch.where(drawn, image, view), torch.from_numpy(found.mask).long()


def _views(
    images: Tensor,
    masks: Tensor | None,
    count: int,
    size: int,
    zoom: tuple[float, float],
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return views of randomly sampled images, (count, 3, size, size) in [-1, 1], and their masks."""
    pick = torch.randint(0, len(images), (count,), generator=rng)
    chosen = images[pick].float() / 127.5 - 1
    unmarked = torch.zeros(chosen[:, 0].shape, dtype=torch.uint8)
    labels = unmarked if masks is None else masks[pick]
    views, labels = transformed(chosen, labels, size, rng, shift=0.25, zoom=zoom)
    return relit(views, rng), labels.long()
