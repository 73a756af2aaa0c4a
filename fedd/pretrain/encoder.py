"""The teacher of a pretraining: ImageNet's EfficientNet-Lite0 (`fedd.encoders`).

Features at a stride of s pixels are (N, C, S / s, S / s) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.encoders import load_efficientnet_lite0, strided_features
from fedd.errors import TrainingDataError
from fedd.network.devices import existing_device
from fedd.pretrain.autocast import training_precision
from fedd.pretrain.data import squares

#: Maps images (N, 3, S, S) in [-1, 1] to target features (N, C, h, w), by stride.
Teacher = Callable[[Tensor], dict[int, Tensor]]

TEACHER_SIZE = 192

#: Photographs that the statistics of the features are taken from.
_SAMPLE = 128


def efficientnet_lite0_teacher(photographs: Sequence[Path], device: str = "cpu") -> Teacher:
    """Return ImageNet's EfficientNet-Lite0 (Apache-2.0) as teacher: its strides 16, 8 and 4.

    Each channel is standardised over the first of the `photographs` that can be opened; stride 8 also
    gets the features of stride 16. Raises MissingPackageError or WeightsError if the encoder
    is not installed, TrainingDataError if no photograph can be opened.
    """
    net: Any = load_efficientnet_lite0().requires_grad_(False)
    on = existing_device(device)
    net = net.to(
        on, memory_format=torch.channels_last
    )  # which torch's stubs do not know of modules

    @torch.no_grad()
    def raw(images: Tensor) -> dict[int, Tensor]:
        x = F.interpolate(images, (TEACHER_SIZE,) * 2, mode="bilinear", align_corners=False)
        with training_precision(on):
            found = strided_features(net, x.contiguous(memory_format=torch.channels_last), 16)
        f16, f8, f4 = (found[stride].float() for stride in (16, 8, 4))
        up = F.interpolate(f16, f8.shape[-2:], mode="bilinear", align_corners=False)
        return {16: f16, 8: torch.cat([f8, up], 1), 4: f4}

    refused: list[str] = []
    sample = [square for _, square in islice(squares(photographs, TEACHER_SIZE, refused), _SAMPLE)]
    if not sample:
        raise TrainingDataError(
            f"no photograph for the teacher: {len(photographs)} found"
            f"{', first ' + refused[0] if refused else '; name a folder that holds them'}"
        )
    seen = [raw(part.float().to(on) / 127.5 - 1) for part in torch.split(torch.stack(sample), 16)]
    mean, std = {}, {}
    for stride in seen[0]:
        values = torch.cat([s[stride] for s in seen])
        mean[stride] = values.mean((0, 2, 3), keepdim=True)
        std[stride] = values.std((0, 2, 3), keepdim=True) + 1e-4
    return lambda images: {s: (v - mean[s]) / std[s] for s, v in raw(images).items()}
