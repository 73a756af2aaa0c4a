"""Probes that read each block at its own resolution against the published way: up-sample, then read.

ddpm-segmentation (Baranchuk et al., ICLR 2022, section 4) up-samples every block to the image's size
and hands each pixel's column of channels to the classifiers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.backbone import DiffusionUNet
from fedd.features import extract, image_statistics, prepare
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, spot

SIZE = TINY.image_size


def _published_member(probes: Probes, member: int) -> nn.Sequential:
    """The classifier of one member as a plain network over (P, C) pixels."""
    layers: list[nn.Module] = []
    for number in (1, 2, 3):
        weight, bias = (probes.tensors[f"{kind}{number}"][member] for kind in "wb")
        layer = nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.mT, bias
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _columns(blocks: list[Tensor], normalise: bool) -> Tensor:
    """Every channel up-sampled, (P, C)."""
    layers = []
    for block in blocks:
        layers.append(block)
        if normalise:
            mean, std = image_statistics(block)
            layers.append((block - mean) / std)
    up = [F.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False) for x in layers]
    return torch.cat(up, 1)[0].flatten(1).T


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_probabilities__equal_up_sampling_first(normalise: bool, temperature: float) -> None:
    tiny = DiffusionUNet.random(TINY, seed=1)
    settings = replace(QUICK, features=replace(QUICK.features, normalise=normalise), steps=40)
    probes = train_probes([Example(*spot(s)) for s in range(4)], tiny, settings, CLASSES)
    blocks = extract(tiny, prepare(spot(50)[0], SIZE)[None], settings.features)
    pixels = _columns(blocks, normalise)
    if temperature != 1.0:
        from fedd.probes.calibration import Calibration

        probes.calibration = Calibration(temperature, 0.0, 0.0, 1, 1)
    fast = probes.probabilities(blocks, SIZE)
    absent = [i for i, name in enumerate(CLASSES) if name in probes.absent]
    with torch.no_grad():
        for member in range(settings.members):
            logits = _published_member(probes, member)(pixels)
            logits[:, absent] = -torch.inf
            slow = (logits / temperature).softmax(1).T.unflatten(1, (SIZE, SIZE))
            torch.testing.assert_close(fast[member], slow, rtol=1e-3, atol=1e-4)
    assert np.ptp(fast[:, 1].numpy()) > 0.5, "the probes tell the classes apart"
