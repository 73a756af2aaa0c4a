"""The pixels that probes learn from: activations and classes at sampled places of labelled images.

Everything random about an image comes from its own pixels and the seed, so that one more image
changes neither the views of the others nor, with a cache, what there is to compute.

Arrays: S the backbone's image size, P pixels, C channels; masks hold class ids, and 255 where
nobody knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fedd.augment import augmented_views
from fedd.backbone import Backbone
from fedd.cache import FeatureCache, extract_as_cached, image_digest
from fedd.dataset import UNKNOWN
from fedd.errors import TrainingDataError
from fedd.features import FeatureSpec, at_points, prepare


@dataclass(frozen=True)
class Example:
    """A photograph (H, W, 3) uint8 and its mask (h, w) uint8, of whom, and of which tone.

    A mask of another size is brought to the backbone's. Images without a patient are of one each.
    """

    photograph: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    patient: str = ""
    tone: str = "unknown"


@dataclass(frozen=True)
class Square:
    """An example at the backbone's size: image (3, S, S) float32 in [-1, 1], mask (S, S) uint8."""

    image: Tensor
    mask: Tensor
    patient: str
    tone: str
    digest: str  #: of the image's pixels

    @property
    def classes(self) -> frozenset[int]:
        return frozenset(torch.unique(self.mask).tolist()) - {UNKNOWN}


@dataclass(frozen=True)
class Pixels:
    """Activations (P, C) float16, classes (P,) int64, and from which image each is, (P,) int64."""

    activations: Tensor
    labels: Tensor
    image: Tensor

    def of(self, classes: Sequence[int]) -> Pixels:
        """Those of these classes."""
        keep = torch.isin(self.labels, torch.tensor(classes))
        return Pixels(self.activations[keep], self.labels[keep], self.image[keep])

    def to(self, device: torch.device) -> Pixels:
        return Pixels(self.activations.to(device), self.labels.to(device), self.image.to(device))


@dataclass(frozen=True)
class Sampling:
    """Which pixels of an image are read."""

    views: int  #: augmented views, besides the image itself
    count: int  #: over all views
    balance: float  #: 0 samples pixels as they come, 1 every class alike
    seed: int


def check_mask(example: Example, number: int, classes: Sequence[str]) -> None:
    """Raises TrainingDataError for a mask that holds anything but class ids and 255."""
    strange = np.setdiff1d(example.mask, [*range(len(classes)), UNKNOWN])
    if strange.size:
        raise TrainingDataError(
            f"mask {number} holds {strange[:5].tolist()}: expected class ids 0 to "
            f"{len(classes) - 1}, and {UNKNOWN} where nobody knows"
        )


def square(example: Example, size: int) -> Square:
    """An example at the backbone's size."""
    image = prepare(example.photograph, size)
    small = Image.fromarray(example.mask).resize((size, size), Image.Resampling.NEAREST)
    digest = image_digest(image)
    mask = torch.from_numpy(np.array(small))
    return Square(image, mask, example.patient or digest, example.tone, digest)


def sample(
    squares: Sequence[Square],
    backbone: Backbone,
    spec: FeatureSpec,
    sampling: Sampling,
    cache: FeatureCache | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Pixels:
    """Read the sampled pixels of all images; one that nobody judged any pixel of gives none.

    `progress` is called with the number of images that are read.

    Raises TrainingDataError where there is none at all, WeightsError where the backbone is damaged.
    """
    activations, labels, images = [], [], []
    for number, item in enumerate(squares):
        for found, classes in _of_image(item, backbone, spec, sampling, cache):
            activations.append(found)
            labels.append(classes)
            images.append(torch.full_like(classes, number))
        progress(number + 1)
    if not labels:
        raise TrainingDataError("there are no masks to learn from")
    return Pixels(torch.cat(activations), torch.cat(labels), torch.cat(images))


def _of_image(
    item: Square,
    backbone: Backbone,
    spec: FeatureSpec,
    sampling: Sampling,
    cache: FeatureCache | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(P, C) float16 and (P,) int64 of each view of an image that shows a known pixel."""
    images, masks = _views(item, sampling)
    known = [i for i, mask in enumerate(masks) if (mask != UNKNOWN).any()]
    if not known:
        return
    rng = _generator(item, sampling, "pixels")
    count = sampling.count // len(masks)
    points = torch.stack(
        [_balanced_points(mask, count, sampling.balance, rng) for mask in masks[known]]
    )
    with torch.inference_mode():
        blocks = extract_as_cached(backbone, images[known], spec, cache)
        read = at_points(
            blocks, points.to(blocks[0].device), backbone.image_size, spec.normalise
        ).cpu()
    # Tensors of inference mode can't take part in training; a copy made outside of it can.
    for mask, place, found in zip(masks[known], points, read.half(), strict=True):
        yield found.clone(), mask[place[:, 0], place[:, 1]].long()


def _views(item: Square, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The image itself and its augmented views, (V, 3, S, S) of 8-bit values, and (V, S, S)."""
    rng = _generator(item, sampling, "views")
    images, masks = augmented_views(item.image, item.mask, sampling.views, rng)
    eight_bit = ((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return torch.cat([item.image[None], eight_bit]), torch.cat([item.mask[None], masks])


def _generator(item: Square, sampling: Sampling, purpose: str) -> torch.Generator:
    name = f"{sampling.seed} {purpose} {item.digest}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def _balanced_points(mask: Tensor, count: int, balance: float, rng: torch.Generator) -> Tensor:
    """`count` known pixels (row, column) of a mask, classes weighted by share ** (1 - balance)."""
    flat = mask.flatten().long()
    share = torch.bincount(flat, minlength=UNKNOWN + 1).double() / len(flat)
    weights = share.clamp_min(1e-12) ** -balance
    weights[UNKNOWN] = 0
    chosen = torch.multinomial(weights[flat], count, replacement=True, generator=rng)
    width = mask.shape[1]
    return torch.stack([chosen // width, chosen % width], 1)
