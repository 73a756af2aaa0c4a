"""Training pixels of the probes: activations and classes at sampled positions of labelled images.

All randomness of an image is seeded by its own pixels and the seed, so that adding an image changes
neither the views of the others nor, with a cache, what has to be computed.

Arrays: S the backbone's image size, P pixels, C channels; masks hold class ids, and 255 where the
class is unknown.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fedd.augment import augmented_views
from fedd.backbone import Backbone
from fedd.batches import Source, run
from fedd.cache import FeatureCache, extract_as_cached, image_digest
from fedd.dataset import UNKNOWN, DatasetImage
from fedd.errors import TrainingDataError
from fedd.features import FeatureSpec, Prepared, at_points, prepare


@dataclass(frozen=True)
class Example:
    """A photograph (H, W, 3) uint8 and its mask (h, w) uint8, with patient and tone.

    The mask may have another size. An image without a patient counts as a patient of its own.
    `corrected` (h, w) is True where a person changed a prediction; None for a mask drawn over none.
    """

    photograph: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    patient: str = ""
    tone: str = "unknown"
    corrected: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PreparedExample:
    """An example at the backbone's size: image (3, S, S) float32 in [-1, 1], mask (S, S) uint8.

    `corrected` (S, S) is True where a person changed a prediction; None for a mask drawn over none.
    """

    image: Tensor
    mask: Tensor
    patient: str
    tone: str
    digest: str  #: of the image's pixels
    corrected: Tensor | None = None

    @property
    def classes(self) -> frozenset[int]:
        return frozenset(torch.unique(self.mask).tolist()) - {UNKNOWN}


@dataclass(frozen=True)
class Pixels:
    """Activations (P, C) float16, classes (P,) int64, each pixel's image (P,) int64, and what was corrected.

    `corrected` (P,) is True where a person changed a prediction. `channels` are those of each block, C
    in all.
    """

    activations: Tensor
    labels: Tensor
    image: Tensor
    corrected: Tensor
    channels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Tensor) -> Pixels:
        """Return some of the pixels: `rows` are indices (Q,), or (P,) bool."""
        return replace(
            self,
            activations=self.activations[rows],
            labels=self.labels[rows],
            image=self.image[rows],
            corrected=self.corrected[rows],
        )

    def of(self, classes: Sequence[int]) -> Pixels:
        """Return the pixels of these classes."""
        return self.at(torch.isin(self.labels, torch.tensor(classes)))

    def to(self, device: torch.device) -> Pixels:
        return replace(
            self,
            activations=self.activations.to(device),
            labels=self.labels.to(device),
            image=self.image.to(device),
            corrected=self.corrected.to(device),
        )


@dataclass(frozen=True)
class Sampling:
    """Which pixels of an image are sampled."""

    views: int  #: augmented views, besides the image itself
    count: int  #: over all views
    balance: float  #: 0 samples pixels by frequency, 1 every class equally
    seed: int


def labelled_examples(images: Iterable[DatasetImage], class_count: int) -> Iterator[Example]:
    """Yield a data set's images with masks as examples, one photograph in memory at a time."""
    for image in images:
        mask = image.class_ids(class_count)
        yield Example(image.photograph(), mask, image.patient, image.tone)


def check_mask(example: Example, number: int, classes: Sequence[str]) -> None:
    """Raise TrainingDataError for a mask with anything but class ids and 255, or corrections of another size."""
    strange = np.setdiff1d(example.mask, [*range(len(classes)), UNKNOWN])
    if strange.size:
        raise TrainingDataError(
            f"mask {number} holds {strange[:5].tolist()}: expected class ids 0 to "
            f"{len(classes) - 1}, and {UNKNOWN} where the class is unknown"
        )
    if example.corrected is not None and example.corrected.shape != example.mask.shape:
        raise TrainingDataError(
            f"mask {number} is {example.mask.shape} and its corrected pixels are "
            f"{example.corrected.shape} (height, width): give both the same size"
        )


def prepare_example(example: Example, size: int) -> PreparedExample:
    """Return an example at the backbone's size."""
    image = prepare(example.photograph, size)
    digest = image_digest(image)
    corrected = None
    if example.corrected is not None:
        corrected = _nearest(example.corrected.astype(np.uint8), size).bool()
    return PreparedExample(
        *(image, _nearest(example.mask, size), example.patient or digest),
        *(example.tone, digest, corrected),
    )


def _nearest(array: NDArray[np.uint8], size: int) -> Tensor:
    """Return an array (h, w) at the backbone's size, (S, S), each value taken from the nearest pixel."""
    small = Image.fromarray(array).resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(small))


def sample(
    examples: Sequence[PreparedExample],
    backbone: Backbone,
    spec: FeatureSpec,
    sampling: Sampling,
    cache: FeatureCache | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Pixels:
    """Sample pixels of all images; an image of unknown pixels only gives none.

    `progress` is called with the number of images done. Raises TrainingDataError if there is no pixel
    at all, WeightsError if the backbone is damaged.
    """
    views = (
        Source(view, view.pixels)
        for image, made in enumerate(_Views(example, sampling) for example in examples)
        for view in (_View(image, number, made) for number in range(made.count))
    )

    channels: tuple[int, ...] = ()

    @torch.inference_mode()
    def compute(part: Prepared) -> Generator[None, None, list[Tensor]]:
        nonlocal channels
        blocks = extract_as_cached(backbone, part.images, spec, cache)
        channels = tuple(block.shape[1] * (2 if spec.normalise else 1) for block in blocks)
        points = torch.stack([view.points for view in part.keys]).to(blocks[0].device)
        found = at_points(blocks, points, backbone.image_size, spec.normalise).half()
        yield
        return list(found.cpu())

    activations, labels, images, corrected = [], [], [], []
    with closing(run(backbone, views, compute, expected=(_NothingKnownError,))) as done:
        for view, found, _ in done:
            if found is not None:
                # Tensors of inference mode can't take part in training; a copy made outside of it can.
                activations.append(found.clone())
                labels.append(view.labels)
                images.append(torch.full_like(view.labels, view.image))
                corrected.append(view.corrected)
            if view.is_last:
                progress(view.image + 1)
    if not labels:
        raise TrainingDataError("there are no masks to learn from")
    return Pixels(
        *(torch.cat(activations), torch.cat(labels), torch.cat(images)),
        *(torch.cat(corrected), channels),
    )


class _NothingKnownError(Exception):
    """A view without a pixel of a known class."""


@dataclass(frozen=True)
class _Made:
    """The views of an image, (V, S, S, 3) uint8, their masks (V, S, S), and sampled positions (P, 2).

    `corrected` (V, S, S) is True where a person changed a prediction. A view without a known pixel has
    no positions.
    """

    pixels: NDArray[np.uint8]
    masks: Tensor
    corrected: Tensor
    points: dict[int, Tensor]


class _Views:
    """The views of an image, made together on the thread that first needs one of them."""

    def __init__(self, example: PreparedExample, sampling: Sampling) -> None:
        self._example, self._sampling, self.count = example, sampling, 1 + sampling.views
        self._lock = threading.Lock()
        self._made: _Made | None = None

    def made(self) -> _Made:
        with self._lock:
            if self._made is None:
                self._made = _make(self._example, self._sampling)
            return self._made


@dataclass(frozen=True)
class _View:
    """An image, number 0, or one of its augmented views."""

    image: int
    number: int
    views: _Views

    @property
    def is_last(self) -> bool:
        return self.number == self.views.count - 1

    def pixels(self) -> NDArray[np.uint8]:
        """Return the view, (S, S, 3); raises _NothingKnownError."""
        made = self.views.made()
        if self.number not in made.points:
            raise _NothingKnownError
        pixels: NDArray[np.uint8] = made.pixels[self.number]
        return pixels

    @property
    def points(self) -> Tensor:
        """The sampled positions, (P, 2)."""
        return self.views.made().points[self.number]

    @property
    def labels(self) -> Tensor:
        """The classes of the sampled positions, (P,) int64."""
        rows, columns = self.points.T
        return self.views.made().masks[self.number, rows, columns].long()

    @property
    def corrected(self) -> Tensor:
        """Where a person changed a prediction at the sampled positions, (P,) bool."""
        rows, columns = self.points.T
        return self.views.made().corrected[self.number, rows, columns]


def _make(example: PreparedExample, sampling: Sampling) -> _Made:
    images, masks, corrected = _views(example, sampling)
    rng = _generator(example, sampling, "pixels")
    count = sampling.count // len(masks)
    points = {
        number: _balanced_points(mask, count, sampling.balance, rng)
        for number, mask in enumerate(masks)
        if (mask != UNKNOWN).any()
    }
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return _Made(pixels.contiguous().numpy(), masks, corrected, points)


#: Added to the class of a corrected pixel, so that masks and corrections are transformed as one.
_CORRECTED = 256


def _views(example: PreparedExample, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return the image and its augmented views, (V, 3, S, S) of 8-bit values, masks and corrected (V, S, S)."""
    rng = _generator(example, sampling, "views")
    coded = example.mask.to(torch.int16)
    if example.corrected is not None:
        coded = coded + _CORRECTED * example.corrected
    images, masks = augmented_views(example.image, coded, sampling.views, rng)
    eight_bit = ((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    masks = torch.cat([coded[None], masks])
    corrected = masks >= _CORRECTED
    return torch.cat([example.image[None], eight_bit]), (masks % _CORRECTED).byte(), corrected


def _generator(example: PreparedExample, sampling: Sampling, purpose: str) -> torch.Generator:
    name = f"{sampling.seed} {purpose} {example.digest}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def _balanced_points(mask: Tensor, count: int, balance: float, rng: torch.Generator) -> Tensor:
    """Sample `count` known pixels (row, column) of a mask, classes weighted by share ** (1 - balance)."""
    flat = mask.flatten().long()
    share = torch.bincount(flat, minlength=UNKNOWN + 1).double() / len(flat)
    weights = share.clamp_min(1e-12) ** -balance
    weights[UNKNOWN] = 0
    chosen = torch.multinomial(weights[flat], count, replacement=True, generator=rng)
    width = mask.shape[1]
    return torch.stack([chosen // width, chosen % width], 1)
