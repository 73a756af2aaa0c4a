"""Predictions of training images by members that did not learn from them, before anything is decided.

With folds these are a fifth of the members for each image, with a validation split all members for the
images of that split. What decides and what is expected of a prediction is measured on them
(`fedd.probes.own_masks`), so that it needs no further masks.

Arrays: K classes, F numbers of a class, g the predicted grid, H x W a photograph of bounded size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from annotation_protocol import metrics
from annotation_protocol.ranking import seeded_rank
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.dataset import UNKNOWN
from fedd.features import prepare
from fedd.probes.decision import Decision, Refinement, SecondPass, kept_ids
from fedd.probes.folds import Fold, cross_fitted
from fedd.probes.pixels import Example
from fedd.probes.prediction import (
    SecondLook,
    agreements_of,
    decided_map,
    decided_mask,
    first_pass,
    refine,
)
from fedd.probes.quality import region_numbers
from fedd.probes.refinement import grabcut

if TYPE_CHECKING:
    from fedd.segment import Probes

#: Photographs kept of a training: more would cost time and memory, and hardly change a choice.
LIMIT = 60

#: Smallest share of labelled pixels with which a mask measures predictions.
LABELLED = 0.8

#: Longest side of a kept photograph in pixels.
SIDE = 640

#: Photographs that pass the backbone together.
_BATCH = 8


@dataclass(frozen=True)
class Kept:
    """A training example at a bounded size: photograph (H, W, 3) uint8 and mask (H, W) uint8."""

    digest: str  #: of the prepared pixels, as `ProbeTrainingRecord` names images
    patient: str
    photograph: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class KeptExamples:
    """A random part of a training's examples, the same in whatever order they come."""

    def __init__(self, seed: int, limit: int = LIMIT) -> None:
        self._seed, self._limit = seed, limit
        self._by_rank: dict[str, Kept] = {}

    def add(self, example: Example, digest: str, patient: str) -> None:
        """Keep an example, in the place of another where there are too many.

        One whose mask labels a single class and leaves the rest unlabelled is not kept: no IoU of it is
        defined. Nor is one with less than LABELLED of its pixels labelled: strokes stay clear of edges,
        and an IoU over them is too high.
        """
        rank = seeded_rank(self._seed, "kept", digest)
        if len(self._by_rank) == self._limit and rank > max(self._by_rank):
            return
        labelled = float(np.mean(example.mask != UNKNOWN))
        if labelled < LABELLED or metrics.labels_one_class(example.mask):
            return
        height, width = example.photograph.shape[:2]
        scale = min(1.0, SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        self._by_rank[rank] = Kept(
            *(digest, patient),
            _resized(example.photograph, size, Image.Resampling.BILINEAR),
            _resized(example.mask, size, Image.Resampling.NEAREST),
        )
        if len(self._by_rank) > self._limit:
            del self._by_rank[max(self._by_rank)]

    def __iter__(self) -> Iterator[Kept]:
        return iter(sorted(self._by_rank.values(), key=lambda kept: kept.digest))


def _resized(
    array: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling
) -> NDArray[np.uint8]:
    return np.array(Image.fromarray(array).resize(size, how))


@dataclass(frozen=True)
class Unseen:
    """An image with what members that did not learn from it predict, on the CPU."""

    kept: Kept
    probes: Probes  #: of these members
    probabilities: Tensor  #: of the first pass, (K, g, g)
    agreements: Tensor  #: of the first pass, (K,)
    second: SecondLook | None
    size: int  #: the backbone's image size

    def mask(self, decision: Decision) -> NDArray[np.uint8]:
        """Return the predicted mask (H, W) with this decision."""
        probes, second = self._deciding(decision)
        shape = self.kept.mask.shape[0], self.kept.mask.shape[1]
        mask: NDArray[np.uint8] = decided_mask(probes, self.probabilities, shape, second).numpy()
        if decision.refinement is Refinement.NONE or probes.refined_id is None:
            return mask
        map_ = decided_map(probes, self.probabilities, second, self.size).numpy()
        kept = kept_ids(probes.classes)
        return grabcut(mask, self.kept.photograph, map_, probes.refined_id, kept)

    def numbers(self, decision: Decision) -> NDArray[np.float64]:
        """Return what tells the quality of each predicted region, (K, F)."""
        probes, second = self._deciding(decision)
        map_ = decided_map(probes, self.probabilities, second, self.size)
        found = region_numbers(map_, agreements_of(probes, self.agreements, second))
        return found.double().numpy()

    def iou(self, mask: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the IoU of each class of a predicted mask, (K,); 1 where neither mask has the class."""
        confusion = metrics.confusion(self.kept.mask, mask, len(self.probes.classes))
        found: NDArray[np.float64] = np.nan_to_num(metrics.iou_per_class(confusion), nan=1.0)
        return found

    def _deciding(self, decision: Decision) -> tuple[Probes, SecondLook | None]:
        probes = copy.copy(self.probes)
        probes.decision = decision
        return probes, None if decision.second_pass is SecondPass.OFF else self.second


#: Members' probes with the images that they did not learn from.
Part: TypeAlias = tuple["Probes", list[Kept]]


def unseen_parts(probes: Probes, examples: KeptExamples) -> list[Part]:
    """Return the kept images that some members did not learn from, with these members.

    Empty for a training with neither folds nor a validation split.
    """
    kept = {each.digest: each for each in examples}
    folds = cross_fitted(probes)
    if probes.record.validation:
        folds = [Fold(probes, probes.record.validation)]
    return [
        (fold.probes, [kept[digest] for digest in dict.fromkeys(fold.images) if digest in kept])
        for fold in folds
    ]


@torch.inference_mode()
def predict_unseen(
    parts: Sequence[Part],
    backbone: Backbone,
    cache: FeatureCache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Unseen]:
    """Predict images by the members that did not learn from them."""
    total = sum(len(images) for _, images in parts)
    found: list[Unseen] = []
    for probes, images in parts:
        for start in range(0, len(images), _BATCH):
            found += _predicted(probes, backbone, images[start : start + _BATCH], cache)
            progress(len(found), total)
    return found


def _predicted(
    probes: Probes, backbone: Backbone, images: Sequence[Kept], cache: FeatureCache | None
) -> list[Unseen]:
    size = backbone.image_size
    prepared = torch.stack([prepare(each.photograph, size) for each in images])
    first = first_pass(probes, backbone, prepared, cache)
    photographs = [each.photograph for each in images]
    second = refine(probes, backbone, photographs, first.probabilities)
    return [
        Unseen(
            *(each, probes, first.probabilities[index].cpu(), first.agreements[index].cpu()),
            *(_on_cpu(second.get(index)), size),
        )
        for index, each in enumerate(images)
    ]


def _on_cpu(look: SecondLook | None) -> SecondLook | None:
    if look is None:
        return None
    return SecondLook(look.window, look.probabilities.cpu(), look.agreement.cpu())
