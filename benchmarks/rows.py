"""The rows of the accuracy benchmarks: what learns from masks and predicts, and how it is read.

A row is trained once for a seed and a set of masks; its readings are masks that the same probes give
when what decides them differs, so that a row can be shown at its best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.activation_bank import ActivationBank
from benchmarks.photographs import CLASSES, LESION
from fedd.backbone import SMALL as SMALL_NET
from fedd.backbone import Backbone, DiffusionUNet
from fedd.baselines import Start, UNetSettings, train_unet
from fedd.features import FeatureSpec, prepare
from fedd.probes.decision import Decision, Refinement, SecondPass, kept_ids
from fedd.probes.prediction import (
    FirstPass,
    SecondLook,
    agreements_of,
    decided_map,
    decided_mask,
    first_pass,
    refine,
)
from fedd.probes.quality import region_numbers
from fedd.probes.refinement import grabcut
from fedd.probes.training import Example, train_probes
from fedd.segment import Ensemble, Probes, ProbeSettings, default_settings
from fedd.weights.files import load_backbone

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """A predicted mask (H, W) uint8, and the IoU that is expected of its lesion where that is known."""

    mask: Mask
    expected: float | None = None


#: What a reading, by its name, makes of one photograph (H, W, 3) uint8.
Predict = Callable[[NDArray[np.uint8]], dict[str, Reading]]

#: Readings of probes: what decides. "as chosen" is what the training itself chose.
REPLACE, MEAN, OFF, CHOSEN = "second pass", "both passes", "first pass", "as chosen"
GRABCUT = "both passes, GrabCut"
DECISIONS = {
    REPLACE: Decision(SecondPass.REPLACE),
    MEAN: Decision(SecondPass.MEAN),
    OFF: Decision(SecondPass.OFF),
    GRABCUT: Decision(SecondPass.MEAN, Refinement.GRABCUT),
}

#: The only reading of a network that is trained end to end.
PLAIN = ""

#: Optimiser steps of a UNet for any number of masks, and its image size.
UNET_STEPS, UNET_SIZE = 200, 128

#: On train90, from 30 masks, unet-lite0 at 1e-3 was as good as at the paper's 1e-4, or slightly better.
UNET_RATE = 1e-3

#: The settings of the shipped backbone up to version 0.2, in full: later defaults change nothing here.
BEFORE = ProbeSettings(
    FeatureSpec(blocks=(1, 3, 5), timestep=50, normalise=True),
    members=5,
    views=3,
    pixels_per_image=2048,
    class_balance=0.5,
    class_weight=0.0,
    tone_weight=0.5,
    validation_share=0.2,
    patience=100,
    steps=500,
    batch_size=256,
    learning_rate=2e-3,
    weight_decay=0.1,
    grid=64,
    mirrored=True,
    refined_class="lesion",
    ensemble=Ensemble.MEAN,
)


class Row(Protocol):
    """What learns from examples, with a seed."""

    @property
    def readings(self) -> tuple[str, ...]: ...

    @property
    def made_of(self) -> str:
        """Everything but code and masks that the result depends on."""
        ...

    def learn(
        self,
        examples: Sequence[Example],
        photographs: Sequence[Example],
        bank: ActivationBank,
        seed: int,
    ) -> Predict:
        """Return what predicts; activations of both are kept in the bank."""
        ...


@dataclass(frozen=True)
class ProbeRow:
    """Probes on a frozen network."""

    backbone: Callable[[], Backbone]
    settings: Callable[[Any], ProbeSettings]
    readings: tuple[str, ...] = (REPLACE, MEAN, OFF)

    @property
    def made_of(self) -> str:
        return f"{self.backbone().hash} {self.settings(self.backbone()).to_dict()}"

    def learn(
        self,
        examples: Sequence[Example],
        photographs: Sequence[Example],
        bank: ActivationBank,
        seed: int,
    ) -> Predict:
        probes, net = self.train(examples, photographs, bank, seed)
        return lambda photograph: read(probes, net, photograph, bank, self.readings)

    def train(
        self,
        examples: Sequence[Example],
        photographs: Sequence[Example],
        bank: ActivationBank,
        seed: int,
    ) -> tuple[Probes, Backbone]:
        """Return the probes and their backbone; activations of both are kept in the bank."""
        net = self.backbone()
        bank.keep([*examples, *photographs], net.image_size)
        settings = replace(self.settings(net), seed=seed)
        return train_probes(examples, net, settings, CLASSES, cache=bank, sampler=bank.sampler), net


@torch.inference_mode()
def read(
    probes: Probes,
    net: Backbone,
    photograph: NDArray[np.uint8],
    bank: ActivationBank,
    readings: Sequence[str],
) -> dict[str, Reading]:
    """Return a photograph's mask by each reading, as `Probes.predict` does; networks run once for all."""
    decisions = {name: probes.decision if name == CHOSEN else DECISIONS[name] for name in readings}
    shape = (photograph.shape[0], photograph.shape[1])
    found = first_pass(probes, net, prepare(photograph, net.image_size)[None], bank)
    first = found.probabilities[0]
    looking = [d for d in decisions.values() if d.second_pass is not SecondPass.OFF]
    second = None
    if looking:
        looks = refine(_by(probes, looking[0]), net, [photograph], found.probabilities, bank)
        second = looks.get(0)
    readings_of = {}
    for name, decision in decisions.items():
        reader = _by(probes, decision)
        look = None if decision.second_pass is SecondPass.OFF else second
        mask = decided_mask(reader, first, shape, look).numpy()
        if decision.refinement is Refinement.GRABCUT and probes.refined_id is not None:
            map_ = decided_map(reader, first, look, net.image_size).numpy()
            kept = kept_ids(probes.classes)
            mask = grabcut(mask, photograph, map_, probes.refined_id, kept)
        readings_of[name] = Reading(mask, _expected(reader, found, look, net.image_size))
    return readings_of


def _expected(
    probes: Probes, found: FirstPass, second: SecondLook | None, size: int
) -> float | None:
    """Return the expected IoU of the lesion of the first photograph, as `Probes.predict` does."""
    if probes.quality is None:
        return None
    map_ = decided_map(probes, found.probabilities[0], second, size)
    numbers = region_numbers(map_, agreements_of(probes, found.agreements[0], second))
    return probes.quality.expected(numbers.double().numpy()).get(LESION)


def _by(probes: Probes, decision: Decision) -> Probes:
    """Return the same probes with another decision."""
    found = copy.copy(probes)
    found.decision = decision
    return found


@dataclass(frozen=True)
class UNetRow:
    """A UNet that is trained end to end, with the paper's loss and the probes' augmentation."""

    encoder: str
    start: Start
    readings = (PLAIN,)

    @property
    def made_of(self) -> str:
        return f"{self.encoder} {self.start} {UNET_STEPS} {UNET_SIZE} {UNET_RATE}"

    def learn(
        self,
        examples: Sequence[Example],
        photographs: Sequence[Example],
        bank: ActivationBank,
        seed: int,
    ) -> Predict:
        settings = UNetSettings(
            encoder=self.encoder,
            start=self.start,
            image_size=UNET_SIZE,
            learning_rate=UNET_RATE,
            epochs=round(UNET_STEPS / -(-len(examples) // UNetSettings.batch_size)),
            seed=seed,
        )
        net = train_unet(examples, (), CLASSES, settings)
        return lambda photograph: {PLAIN: Reading(net.predict([photograph])[0])}


class ColourFeatures:
    """Mean colour at five scales and the pixel's position, as a `Backbone`."""

    name, hash, image_size, blocks = "colour", "colour", 128, (0, 1, 2, 3, 4)
    device = torch.device("cpu")

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        size = images.shape[-1]
        axis = torch.linspace(-1, 1, size)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        position = torch.stack([rows, columns, rows**2 + columns**2]).expand(
            len(images), -1, -1, -1
        )
        scales = {0: torch.cat([images, position], 1)}
        scales |= {b: F.avg_pool2d(images, 2**b) for b in blocks if b}
        return {b: scales[b] for b in blocks}


def _on(*blocks: int, **changes: Any) -> Callable[[Any], ProbeSettings]:
    """Return the settings up to version 0.2, whatever the backbone, with other blocks."""
    features = replace(BEFORE.features, blocks=blocks) if blocks else BEFORE.features
    return lambda net: replace(BEFORE, features=features, **changes)


#: Row by name. "small" is the shipped backbone with the settings up to version 0.2. Lite0's best reading
#: is the first pass: the refinement pass lowers it (0.597 against 0.609 from 30 masks on pad300's test part).
ROWS: dict[str, Row] = {
    "colour": ProbeRow(ColourFeatures, _on(0, 1, 2, 3, 4)),
    "untrained": ProbeRow(cache(lambda: DiffusionUNet.random(SMALL_NET)), _on()),
    "lite0": ProbeRow(
        cache(lambda: load_backbone("lite0")), _on(1, 2, 3, refined_class=None), (OFF,)
    ),
    "unet-lite0": UNetRow("efficientnet-lite0", Start.IMAGENET),
    "unet-scratch": UNetRow("mobilenet_v2", Start.SCRATCH),
    "small": ProbeRow(cache(lambda: load_backbone("small")), _on()),
    "default": ProbeRow(cache(load_backbone), default_settings, (CHOSEN, REPLACE, MEAN, OFF)),
}
