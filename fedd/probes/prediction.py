"""Prediction of a batch of photographs by probes: first pass, refinement pass, masks.

`Probes.decision` says what the refinement pass counts, and what else decides.

Everything stays on the backbone's device until the masks are copied back at once. Work on a GPU is
started here and waited for as late as possible (`fedd.pipeline`).

Arrays: N photographs, D channels of all blocks, g the width and height of the predicted grid.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedd.backbone import Backbone
from fedd.bilinear import most_probable
from fedd.cache import FeatureCache
from fedd.features import Prepared, check_finite, extract, prepare
from fedd.probes.decision import (
    Ensemble,
    Refinement,
    SecondPass,
    combine,
    decide,
    kept_ids,
    tilted,
)
from fedd.probes.masks import agreement, both_passes, disagreement, refine_inside, whole_map
from fedd.probes.quality import region_numbers
from fedd.probes.refinement import grabcut
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
    `expected_iou` is that of each class but background that the probes know, by class id; empty where
    the probes come from an older program.
    """

    mask: NDArray[np.uint8]
    uncertainty: float
    embedding: NDArray[np.float32]
    expected_iou: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FirstPass:
    """What probes predict of N photographs before the refinement pass, on the backbone's device.

    `probabilities` are what the ensemble thinks of each class, (N, classes, g, g), averaged with that of
    the mirrored image where the settings say so; `uncertainties` (N,) and `embeddings` (N, D) as in `Prediction`.
    `agreements` (N, classes) are the members' mean pairwise IoU of each class.
    `activations` are (N, C, h, w), one for each block of the settings, of the photographs themselves.
    """

    probabilities: Tensor
    uncertainties: Tensor
    agreements: Tensor
    embeddings: Tensor
    activations: list[Tensor]

    def check(self) -> None:
        """Raise WeightsError if an activation or a probability is not a finite number.

        The sums made of them show it: nothing is read a second time.
        """
        check_finite(self.embeddings)
        check_finite(self.uncertainties)


@dataclass(frozen=True)
class SecondLook:
    """What the refiner predicts in a window of a photograph: (classes, g, g), and its members' agreement."""

    window: Window
    probabilities: Tensor
    agreement: Tensor


#: Second looks by index of a photograph.
Refined = dict[int, SecondLook]


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
        decided_mask(probes, each, shape, refined.get(index))
        for index, (each, shape) in enumerate(zip(found.probabilities, batch.shapes, strict=True))
    ]
    flat = _Arriving(torch.cat([mask.flatten() for mask in masks]))
    maps = _maps(probes, found, refined, backbone.image_size)
    regions = _Arriving(_region_numbers(probes, found, refined, maps))
    edges = _Arriving(
        torch.stack(maps) if probes.decision.refinement is Refinement.GRABCUT else torch.zeros(0)
    )
    numbers = _Arriving(torch.cat([found.uncertainties[:, None], found.embeddings], 1))
    del found, refined, masks, maps  # their memory is needed for the next batches
    yield
    predicted = _predictions(flat.wait(), check_finite(numbers.wait()), batch.shapes)
    predicted = _refined_edges(probes, predicted, batch.photographs, edges.wait())
    return _with_quality(probes, predicted, regions.wait())


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
    probabilities, uncertainties, agreements = [], [], []
    for start in range(0, len(passed), len(views)):
        members = probes.probabilities([a[start : start + 1] for a in activations], grid)
        if settings.mirrored:
            mirrored = probes.probabilities([a[start + 1 : start + 2] for a in activations], grid)
            members = (members + mirrored.flip(-1)) / 2
        probabilities.append(combine(members, ensemble or settings.ensemble))
        uncertainties.append(disagreement(members))
        agreements.append(agreement(members))
    own = [a[:: len(views)] for a in activations]
    return FirstPass(
        *(torch.stack(probabilities), torch.stack(uncertainties), torch.stack(agreements)),
        *(embedded(own), own),
    )


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


def decided_map(
    probes: Probes, probabilities: Tensor, second: SecondLook | None, size: int
) -> Tensor:
    """Return the probabilities that decide, (classes, size, size), of one photograph.

    Those of both passes as `Probes.decision` combines them, and with its threshold.

    Args:
        probabilities: of the first pass, (classes, g, g).
        second: of the refinement pass; None where there was none.
    """
    inside = None
    if second is not None and probes.refiner is not None:
        window = second.window.slices(size, size)
        inside = window, _inside(probes, probabilities, window, (size, size), second)
    whole = whole_map(probabilities, inside, size)
    return tilted(whole, probes.refined_id, probes.decision.odds)


def _inside(
    probes: Probes,
    probabilities: Tensor,
    window: tuple[slice, slice],
    shape: tuple[int, int],
    second: SecondLook,
) -> Tensor:
    """Return the probabilities of both passes in a window, (classes, g, g), before the threshold."""
    assert probes.refiner is not None
    return both_passes(
        *(probabilities, window, shape, second.probabilities),
        *(probes.refiner.trained, probes.decision.second_pass),
    )


def decided_mask(
    probes: Probes, probabilities: Tensor, shape: tuple[int, int], second: SecondLook | None
) -> Tensor:
    """Return the mask (H, W) uint8 of probabilities (classes, g, g), with the second pass in its window."""
    decision, kept = probes.decision, kept_ids(probes.classes)
    rule = probes.refined_id, decision.odds, kept
    mask = decide(probabilities, shape, *rule)
    if second is None or probes.refiner is None:
        return mask
    window = second.window.slices(*shape)
    if decision.second_pass is SecondPass.MEAN:
        inside = _inside(probes, probabilities, window, shape, second)
        mask[window] = decide(inside, mask[window].shape, *rule)
    else:
        refined = decide(second.probabilities, mask[window].shape, *rule)
        refine_inside(mask, window, refined, probes.refiner.trained, len(probes.classes))
    return mask


def _maps(probes: Probes, found: FirstPass, refined: Refined, size: int) -> list[Tensor]:
    """Return the probabilities that decide of each photograph; empty where nothing needs them."""
    if probes.quality is None and probes.decision.refinement is Refinement.NONE:
        return []
    return [
        decided_map(probes, each, refined.get(index), size)
        for index, each in enumerate(found.probabilities)
    ]


def _region_numbers(
    probes: Probes, found: FirstPass, refined: Refined, maps: Sequence[Tensor]
) -> Tensor:
    """Return what `Probes.quality` asks of each photograph, (N, classes, F); empty without it."""
    if probes.quality is None:
        return torch.zeros(0)
    return torch.stack(
        [
            region_numbers(each, agreements_of(probes, found.agreements[index], refined.get(index)))
            for index, each in enumerate(maps)
        ]
    )


def agreements_of(probes: Probes, first: Tensor, second: SecondLook | None) -> Tensor:
    """Return the members' agreement on each class, (classes,): on the refined one that of both passes."""
    if second is None or probes.refined_id is None:
        return first
    found = first.clone()
    found[probes.refined_id] = (first + second.agreement)[probes.refined_id] / 2
    return found


def _shown(probes: Probes, probabilities: Tensor, size: int) -> Tensor:
    """Return where the refined class is predicted, (N, size, size) bool; empty without a second pass."""
    off = probes.decision.second_pass is SecondPass.OFF
    if off or probes.refiner is None or probes.refined_id is None:
        return torch.zeros(0, size, size, dtype=torch.bool, device=probabilities.device)
    return torch.stack(
        [most_probable(each, (size, size)) == probes.refined_id for each in probabilities]
    )


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
    looks = zip(windows.items(), found.probabilities, found.agreements, strict=True)
    return {
        index: SecondLook(window, probabilities, agrees)
        for (index, window), probabilities, agrees in looks
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


def _refined_edges(
    probes: Probes,
    predicted: list[Prediction],
    photographs: Sequence[NDArray[np.uint8]],
    maps: Tensor,
) -> list[Prediction]:
    """Return predictions whose regions of the refined class follow the photographs' colour edges."""
    if probes.decision.refinement is Refinement.NONE or probes.refined_id is None:
        return predicted
    kept = kept_ids(probes.classes)
    return [
        replace(each, mask=grabcut(each.mask, photograph, map_.numpy(), probes.refined_id, kept))
        for each, photograph, map_ in zip(predicted, photographs, maps, strict=True)
    ]


def _with_quality(probes: Probes, predicted: list[Prediction], regions: Tensor) -> list[Prediction]:
    """Return predictions with the expected IoU of each class, from numbers (N, classes, F)."""
    if probes.quality is None:
        return predicted
    return [
        replace(each, expected_iou=probes.quality.expected(numbers))
        for each, numbers in zip(predicted, regions.double().numpy(), strict=True)
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
