"""Prediction of a batch of photographs by probes: first pass, refinement pass, masks.

Everything stays on the backbone's device until the masks are copied back at once. Work on a GPU is
started here and waited for as late as possible (`fedd.pipeline`).

Arrays: N photographs, D channels of all blocks, g the width and height of the predicted grid.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.backbone import Backbone
from fedd.bilinear import most_probable
from fedd.cache import FeatureCache
from fedd.features import Prepared, check_finite, extract, prepare
from fedd.probes.decision import Ensemble, combine
from fedd.probes.masks import disagreement, refine_inside
from fedd.probes.refiner import REACH, Window, window_around

if TYPE_CHECKING:
    from fedd.segment import Probes


@dataclass(frozen=True)
class Prediction:
    """A predicted mask (H, W) uint8, its uncertainty, and the photograph's embedding (D,).

    `uncertainty` is the mutual information between class and member, in nats, mean over pixels.
    `embedding` is the mean over positions of each channel of the settings' blocks, in their order, of
    the original photograph. It is in the activations' own units: only embeddings of one backbone,
    timestep and set of blocks can be compared.
    """

    mask: NDArray[np.uint8]
    uncertainty: float
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class FirstPass:
    """What probes predict of N photographs before the refinement pass, on the backbone's device.

    `probabilities` are what the ensemble thinks of each class, (N, classes, g, g), averaged with that of
    the mirrored image where the settings say so; `uncertainties` (N,) and `embeddings` (N, D) as in `Prediction`.
    `activations` are (N, C, h, w), one for each block of the settings, of the photographs themselves.
    """

    probabilities: Tensor
    uncertainties: Tensor
    embeddings: Tensor
    activations: list[Tensor]

    def check(self) -> None:
        """Raise WeightsError if an activation or a probability is not a finite number.

        The sums made of them show it: nothing is read a second time.
        """
        check_finite(self.embeddings)
        check_finite(self.uncertainties)


#: By index of a photograph: a window of it, and the refiner's probabilities in it, (classes, g, g).
Refined = dict[int, tuple[Window, Tensor]]


@torch.inference_mode()
def predict_batch(
    probes: Probes, backbone: Backbone, batch: Prepared, cache: FeatureCache | None = None
) -> Generator[None, None, list[Prediction]]:
    """Predict a batch; yields where a GPU has been given work, so that the caller can give it more.

    Raises WeightsError for a damaged backbone, torch.OutOfMemoryError where a GPU has too little memory.
    """
    found = replace(first_pass(probes, backbone, batch.images, cache), activations=[])
    shown = _Arriving(_shown(probes, found.probabilities, backbone.image_size))
    yield
    windows = _windows(shown.wait())
    refined = _refined(probes, backbone, batch.photographs, windows, cache)
    masks = [
        _mask(probes, each, shape, refined.get(index))
        for index, (each, shape) in enumerate(zip(found.probabilities, batch.shapes, strict=True))
    ]
    flat = _Arriving(torch.cat([mask.flatten() for mask in masks]))
    numbers = _Arriving(torch.cat([found.uncertainties[:, None], found.embeddings], 1))
    del found, refined, masks  # their memory is needed for the next batches
    yield
    return _predictions(flat.wait(), check_finite(numbers.wait()), batch.shapes)


@torch.inference_mode()
def first_pass(
    probes: Probes,
    backbone: Backbone,
    images: Tensor,
    cache: FeatureCache | None = None,
    ensemble: Ensemble | None = None,
) -> FirstPass:
    """Predict prepared images (N, 3, S, S) without the refinement pass.

    The members decide as `ensemble` says, by default as the settings do.

    An image and its mirror image pass together, so that on a CPU a photograph that is computed alone
    is computed the same way as any other. The members are combined image by image: the probabilities of
    64 images on 256 x 256 take 0.4 GB.
    """
    settings = probes.settings
    views = [images, images.flip(-1)] if settings.mirrored else [images]
    passed = torch.stack(views, 1).flatten(0, 1)
    if cache is not None:
        activations = cache.extract(backbone, passed, settings.features)
    else:
        activations = extract(backbone, passed, settings.features)
    grid = settings.grid or backbone.image_size
    probabilities, uncertainties = [], []
    for start in range(0, len(passed), len(views)):
        members = probes.probabilities([a[start : start + 1] for a in activations], grid)
        if settings.mirrored:
            mirrored = probes.probabilities([a[start + 1 : start + 2] for a in activations], grid)
            members = (members + mirrored.flip(-1)) / 2
        probabilities.append(combine(members, ensemble or settings.ensemble))
        uncertainties.append(disagreement(members))
    own = [a[:: len(views)] for a in activations]
    return FirstPass(torch.stack(probabilities), torch.stack(uncertainties), embedded(own), own)


@torch.inference_mode()
def refine(
    probes: Probes,
    backbone: Backbone,
    photographs: Sequence[NDArray[np.uint8]],
    probabilities: Tensor,
    cache: FeatureCache | None = None,
    ensemble: Ensemble | None = None,
) -> Refined:
    """Run the refinement pass on photographs with these probabilities (N, classes, g, g).

    A photograph that shows the refined class gets a window around the largest predicted part of it.
    """
    windows = _windows(_shown(probes, probabilities, backbone.image_size).cpu())
    return _refined(probes, backbone, photographs, windows, cache, ensemble)


def embedded(activations: Sequence[Tensor]) -> Tensor:
    """Return the mean of each channel over positions, (N, D), of activations (N, C, h, w)."""
    return torch.cat([a.mean((2, 3)) for a in activations], 1).float()


def _mask(
    probes: Probes,
    probabilities: Tensor,
    shape: tuple[int, int],
    refined: tuple[Window, Tensor] | None,
) -> Tensor:
    """Return the mask (H, W) uint8 of probabilities (classes, g, g), refined in its window."""
    mask = most_probable(probabilities, shape)
    if refined is not None and probes.refiner is not None:
        window, inside = refined
        refine_inside(mask, window.slices(*shape), inside, probes.refiner.trained)
    return mask


def _shown(probes: Probes, probabilities: Tensor, size: int) -> Tensor:
    """Return where the refined class is predicted, (N, size, size) bool; empty without a refiner."""
    if probes.refiner is None or probes.settings.refined_class is None:
        return torch.zeros(0, size, size, dtype=torch.bool, device=probabilities.device)
    class_id = probes.classes.index(probes.settings.refined_class)
    return torch.stack([most_probable(each, (size, size)) == class_id for each in probabilities])


def _windows(shown: Tensor) -> dict[int, Window]:
    """Return a window for each photograph that shows the refined class, by its index."""
    found = (window_around(inside, REACH) for inside in shown.numpy())
    return {index: window for index, window in enumerate(found) if window is not None}


def _refined(
    probes: Probes,
    backbone: Backbone,
    photographs: Sequence[NDArray[np.uint8]],
    windows: dict[int, Window],
    cache: FeatureCache | None,
    ensemble: Ensemble | None = None,
) -> Refined:
    """Return the refiner's probabilities in windows of photographs."""
    if not windows or probes.refiner is None:
        return {}
    size = backbone.image_size
    crops = [prepare(window.of(photographs[index]), size) for index, window in windows.items()]
    found = first_pass(
        probes.refiner, backbone, torch.stack(crops), cache, ensemble or probes.settings.ensemble
    )
    return {
        index: (window, each)
        for (index, window), each in zip(windows.items(), found.probabilities, strict=True)
    }


def _predictions(
    masks: Tensor, numbers: Tensor, shapes: Sequence[tuple[int, int]]
) -> list[Prediction]:
    """Return predictions of masks, one after the other, and of (N, 1 + D) uncertainties and embeddings."""
    sizes = [height * width for height, width in shapes]
    return [
        Prediction(mask.view(shape).numpy().copy(), float(of_one[0]), of_one[1:].numpy().copy())
        for mask, shape, of_one in zip(torch.split(masks, sizes), shapes, numbers, strict=True)
    ]


class _Arriving:
    """A tensor on its way from the device to the CPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """Return the tensor on the CPU when it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host
