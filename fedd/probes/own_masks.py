"""What a training learns about itself from its own masks: what decides, and what to expect of it.

Everything is measured on predictions of members that did not learn from the image (`fedd.probes.unseen`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import metrics
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.probes.choice import FEWEST, Choice, choose, default_choice
from fedd.probes.decision import DEFAULT
from fedd.probes.quality import ClassQuality, Quality, fit_quality
from fedd.probes.reliability import Reliability, reliability
from fedd.probes.unseen import KeptExamples, Unseen, predict_unseen, unseen_parts

if TYPE_CHECKING:
    from fedd.segment import Probes


@dataclass(frozen=True)
class OwnMask:
    """An accepted mask of the training beside the prediction of members that did not learn from it."""

    digest: str  #: of the image, as `ProbeTrainingRecord` names it
    accepted: int  #: pixels of the refined class in the mask
    predicted: int  #: and in the prediction of the same size, unlabelled pixels left out
    #: Pixels by accepted and predicted class, (K, K), at the size at which it was measured.
    confusion: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class OwnMasks:
    """What was measured on a training's own masks."""

    choice: Choice
    reliability: Mapping[str, Reliability] = field(default_factory=dict)  #: by class name
    masks: tuple[OwnMask, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what a stored record has: all but the single masks."""
        return {
            **self.choice.to_dict(),
            "reliability": {name: each.to_dict() for name, each in self.reliability.items()},
        }


def measure(
    probes: Probes,
    backbone: Backbone,
    examples: KeptExamples,
    cache: FeatureCache | None,
    stages: Callable[[str], Callable[[int, int], None]],
) -> OwnMasks | None:
    """Choose the probes' decision, and fit their expected IoU, on what some members did not learn from.

    With too few patients for that, the default decides and the prior tells the expected IoU. None
    without a refined class: there is nothing to decide then.
    """
    if probes.refined_id is None:
        return None
    parts = unseen_parts(probes, examples)
    found = len({kept.patient for _, images in parts for kept in images})
    if found < FEWEST:
        probes.decision = DEFAULT
        return OwnMasks(default_choice(found))
    unseen = predict_unseen(parts, backbone, cache, stages("Own masks through the backbone"))
    choice = choose(unseen, probes.refined_id)
    probes.decision = choice.decision
    predicted = [each.mask(choice.decision) for each in unseen]
    pairs = list(zip(unseen, predicted, strict=True))
    numbers = np.stack([each.numbers(choice.decision) for each in unseen])
    iou = np.stack([each.iou(mask) for each, mask in pairs])
    patients = [each.kept.patient for each in unseen]
    prior = probes.quality or Quality()
    fitted: dict[int, ClassQuality] = {}
    told: dict[str, Reliability] = {}
    for index, of_class in prior.classes.items():
        own = fit_quality(numbers[:, index], iou[:, index])
        fitted[index] = own if own.n else of_class
        held = reliability(numbers[:, index], iou[:, index], patients, of_class)
        if held is not None:
            told[probes.classes[index]] = held
    probes.quality = Quality(fitted)
    masks = tuple(_own_mask(each, mask, probes.refined_id) for each, mask in pairs)
    return OwnMasks(choice, told, masks)


def _own_mask(unseen: Unseen, predicted: NDArray[np.uint8], class_id: int) -> OwnMask:
    confusion = metrics.confusion(unseen.kept.mask, predicted, len(unseen.probes.classes))
    accepted, found = confusion[class_id].sum(), confusion[:, class_id].sum()
    return OwnMask(unseen.kept.digest, int(accepted), int(found), confusion)
