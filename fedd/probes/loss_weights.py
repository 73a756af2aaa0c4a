"""Weights of training pixels in the loss: by class, by tone, and where a person corrected a prediction.

Each is 1 on average over the pixels, so that none of them changes the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedd.probes.pixels import Pixels, PreparedExample
from fedd.probes.settings import ProbeSettings

#: Images of unknown tone have weight 1, whatever the weights of the tones.
UNKNOWN_TONE = "unknown"


def loss_weights(
    pixels: Pixels, training: Sequence[PreparedExample], settings: ProbeSettings
) -> Callable[[Pixels, Sequence[PreparedExample]], Tensor]:
    """Return what gives the weights (P,) of pixels of some examples.

    The weights of classes and tones come from the training's `pixels`, those of corrected pixels from
    the pixels that they are for.
    """
    by_class = class_weights(pixels, settings)
    by_tone = tone_weights(pixels, training, settings)

    def weigh(some: Pixels, examples: Sequence[PreparedExample]) -> Tensor:
        tones = torch.tensor([by_tone.get(example.tone, 1.0) for example in examples])
        return by_class[some.labels] * tones[some.image] * corrected_weights(some, settings)

    return weigh


def class_weights(pixels: Pixels, settings: ProbeSettings) -> Tensor:
    """Return the weight of each class id, (256,)."""
    counts = torch.bincount(pixels.labels, minlength=256).double()
    share = counts / counts.sum()
    weights = share.clamp_min(1e-12) ** -settings.class_weight
    return (weights / (weights * share).sum()).float()


def tone_weights(
    pixels: Pixels, training: Sequence[PreparedExample], settings: ProbeSettings
) -> dict[str, float]:
    """Return the weight of each known tone."""
    counts: dict[str, int] = {}
    for number in torch.unique(pixels.image).tolist():
        tone = training[number].tone
        if tone != UNKNOWN_TONE:
            counts[tone] = counts.get(tone, 0) + int((pixels.image == number).sum())
    total = sum(counts.values())
    weights = {tone: (n / total) ** -settings.tone_weight for tone, n in counts.items()}
    mean = sum(weights[tone] * n / total for tone, n in counts.items())
    return {tone: weight / mean for tone, weight in weights.items()}


def corrected_weights(pixels: Pixels, settings: ProbeSettings) -> Tensor:
    """Return the weight of each pixel, (P,): more where a person changed a prediction."""
    weights = torch.where(pixels.corrected, settings.corrected_weight, 1.0)
    return weights / weights.mean()
