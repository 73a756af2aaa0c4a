"""Losses and validation scores of the baselines.

Arrays: logits of masks (N, C, S, S) and masks (N, S, S) uint8 class ids, 255 for pixels that are left out;
logits of malignancy (N, 1) or (N, 2) and truth (N,) int64, 1 for malignant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.baselines.packages import needing_baselines
from fedd.dataset import UNKNOWN

#: Loss or score of a network's outputs and their targets, over the batch.
Loss = Callable[[Tensor, Tensor], Tensor]

#: segmentation_models' constants: the term in dice and IoU, focal loss' alpha and gamma, Keras' epsilon.
SMOOTH, ALPHA, GAMMA, EPSILON = 1e-5, 0.25, 2.0, 1e-7


@dataclass(frozen=True)
class Objective:
    """What training minimises, and what chooses the epoch on the validation split."""

    loss: Loss
    score: Loss | None = None  #: higher is better; None is the loss, lower


def dice_and_focal() -> Loss:
    """Return the sum of segmentation_models_pytorch's dice and focal loss."""
    with needing_baselines():
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss, FocalLoss
    dice = DiceLoss(MULTICLASS_MODE, ignore_index=UNKNOWN)
    focal = FocalLoss(MULTICLASS_MODE, ignore_index=UNKNOWN)

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        return torch.as_tensor(dice(logits, masks) + focal(logits, masks))

    return loss


def keras_dice_and_focal(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the paper's loss: Keras segmentation_models' DiceLoss() + CategoricalFocalLoss().

    Dice is over the batch and the mean over all classes, with equal weights: one that no mask of the batch
    shows counts as lost. Focal loss is of the true class alone, a mean over pixels and classes.
    """
    probabilities, truth = _known(logits, masks)
    both = (probabilities * truth).sum((0, 2, 3))
    each = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    dice = 1 - ((2 * both + SMOOTH) / (each + SMOOTH)).mean()
    p = probabilities.clamp(EPSILON, 1 - EPSILON)
    focal = -truth * ALPHA * (1 - p) ** GAMMA * p.log()
    return dice + focal.sum() / (truth.sum() * truth.shape[1]).clamp_min(1)


def soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Return Keras segmentation_models' IOUScore(): of probabilities, not of masks; mean over classes."""
    probabilities, truth = _known(logits, masks)
    both = (probabilities * truth).sum((0, 2, 3))
    union = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3)) - both
    return ((both + SMOOTH) / (union + SMOOTH)).mean()


def binary_cross_entropy(logits: Tensor, malignant: Tensor) -> Tensor:
    """Return the mean binary cross entropy of logits (N, 1)."""
    return F.binary_cross_entropy_with_logits(logits[:, 0], malignant.float())


def accuracy(logits: Tensor, malignant: Tensor) -> Tensor:
    """Return the accuracy of logits (N, 1) at probability 0.5."""
    return ((logits[:, 0] > 0) == malignant.bool()).float().mean()


def _known(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth, (N, C, S, S) each, 0 in pixels without a class."""
    known = (masks != UNKNOWN)[:, None]
    ids = torch.where(known, masks[:, None], 0).long()
    truth = torch.zeros_like(logits).scatter_(1, ids, 1.0)
    return logits.softmax(1) * known, truth * known
