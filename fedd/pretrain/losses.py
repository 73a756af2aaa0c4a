"""The losses of a pretraining, besides denoising.

Each is weighted by the share of the signal that the noise leaves (`clear`, (N,)).
Arrays: activations by decoder block (N, C, h, w) float32, masks (N, S, S) int64 class ids, 255 unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms.phantoms import LESION

#: Weights of the phantoms' classes: lesions and pen strokes cover little of an image.
CLASS_WEIGHTS = (1.0, 2.0, 2.0, 1.0, 1.0)

#: Side in pixels of the patches that are hidden.
PATCH = 16


def alignment(
    predicted: Mapping[int, Tensor], targets: Mapping[int, Tensor], clear: Tensor
) -> Tensor:
    """Return the mean cosine distance of projected activations and the teacher's, both by stride."""
    total = clear.new_zeros(())
    for stride, ours in predicted.items():
        theirs = F.interpolate(
            targets[stride], ours.shape[-2:], mode="bilinear", align_corners=False
        )
        distance = 1 - F.cosine_similarity(ours, theirs, dim=1).mean((1, 2))
        total = total + (distance * clear).sum() / clear.sum()
    return total / len(predicted)


def segmentation(logits: Mapping[int, Tensor], masks: Tensor, clear: Tensor) -> Tensor:
    """Return the cross-entropy of heads' logits, by block, with masks; unknown pixels don't count."""
    weights = torch.tensor(CLASS_WEIGHTS, device=masks.device)
    total = clear.new_zeros(())
    for found in logits.values():
        small = _resized(masks, found).long()
        each = F.cross_entropy(found, small, weights, ignore_index=UNLABELLED, reduction="none")
        known = (small != UNLABELLED).sum((1, 2)).clamp_min(1)
        total = total + (each.sum((1, 2)) / known * clear).sum() / clear.sum()
    return total / len(logits)


def invariance(
    without: Mapping[int, Tensor], over: Mapping[int, Tensor], drawn: Tensor, clear: Tensor
) -> Tensor:
    """Return how far pen and rulers move the lesion's probability where they are not.

    The divergence (nats) of the lesion's probability without them from that with them; only the images
    with them learn from it.

    Args:
        without: logits by block of the images without pen and ruler.
        over: logits of the same images with them, under the same noise.
        drawn: (N, S, S) bool, where they are.
    """
    total = clear.new_zeros(())
    for block, found in over.items():
        reach = F.adaptive_max_pool2d(drawn[:, None].float(), found.shape[-2:])
        free = 1 - F.max_pool2d(reach, 3, stride=1, padding=1)[:, 0]
        truth = without[block].detach().softmax(1)[:, LESION].clamp(1e-4, 1 - 1e-4)
        guess = found.softmax(1)[:, LESION].clamp(1e-4, 1 - 1e-4)
        lesion, other = (
            truth * (truth / guess).log(),
            (1 - truth) * ((1 - truth) / (1 - guess)).log(),
        )
        each = ((lesion + other) * free).sum((1, 2)) / free.sum((1, 2)).clamp_min(1)
        total = total + (each * clear).sum() / clear.sum()
    return total / len(over)


def hidden_patches(images: Tensor, share: float, grid: int, rng: torch.Generator) -> Tensor:
    """Return which positions of the network's grid are hidden, (N, 1, grid, grid) bool.

    A `share` of the patches of every second image (N, 3, S, S); none of the others.
    """
    count, cells = len(images), max(1, images.shape[-1] // PATCH)
    hidden = torch.rand((count, 1, cells, cells), generator=rng) < share
    hidden[1::2] = False
    return F.interpolate(hidden.float(), (grid, grid), mode="nearest") > 0


def heads(blocks: Mapping[int, int], outputs: Mapping[int, int]) -> nn.ModuleDict:
    """Return a linear layer for each key, from a block's channels to a number of outputs."""
    return nn.ModuleDict(
        {str(key): nn.Conv2d(channels, outputs[key], 1) for key, channels in blocks.items()}
    )


def _resized(masks: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(masks[:, None].float(), like.shape[-2:], mode="nearest")[:, 0]
