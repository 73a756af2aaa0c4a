"""3 x 3 convolutions on a CPU with a quarter of the multiplications.

Winograd's F(4 x 4, 3 x 3) as in Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks"
(CVPR 2016, arXiv 1509.09308, section 4.3): each 4 x 4 tile of the output comes from a 6 x 6 tile of
the input by 36 multiplications a channel pair instead of 144. oneDNN, which torch convolves with on
x86, has no such path. In float32 the result differs from the direct sum by about 6e-6 of its
largest value; in bfloat16 it would by too much, and is not used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Width and height of an output tile, and of the input tile that it needs.
OUT, IN = 4, 6

#: Below this many channels or positions the tiling costs more than it saves (measured: 1.7 to 2.4 times
#: as fast at 256 channels and more, equal at 64).
FEWEST_CHANNELS, FEWEST_POSITIONS = 128, 32 * 32

#: Positions of the tiles transformed at a time, so that their 36 matrices stay in the cache.
STRIP_POSITIONS = 4096

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)
#: The two-dimensional transforms as one matrix each: (36, 36) and (16, 36).
_INPUT_2D = torch.kron(_INPUT, _INPUT).float()
_OUTPUT_2D = torch.kron(_OUTPUT, _OUTPUT).float()


class WinogradConv2d(nn.Conv2d):
    """A frozen 3 x 3 convolution (padding 1) that uses Winograd's algorithm where that is faster.

    Shares weight and bias with the convolution that it replaces. The transformed weights, four times the
    size, are computed at first use and kept.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._transformed: Tensor | None = None

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Return whether this can replace a convolution, and may be faster."""
        return (
            conv.kernel_size == (3, 3)
            and conv.stride == (1, 1)
            and conv.padding == (1, 1)
            and conv.dilation == (1, 1)
            and conv.groups == 1
            and conv.bias is not None
            and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WinogradConv2d:
        """Drop the transformed weights when the weights are moved or cast."""
        self._transformed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, H, W)."""
        height, width = x.shape[2:]
        if (
            x.device.type != "cpu"
            or x.dtype != torch.float32
            or height % OUT
            or width % OUT
            or height * width < FEWEST_POSITIONS
        ):
            return super().forward(x)
        if self._transformed is None:
            self._transformed = _transformed_weights(self.weight)
        assert self.bias is not None
        return _convolve(x, self._transformed, self.bias)


def _transformed_weights(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) -> (36, C, K)."""
    out_channels, in_channels = weight.shape[:2]
    kernel = _KERNEL.float()
    transformed = torch.einsum("ai,kcij,bj->abck", kernel, weight, kernel)
    return transformed.reshape(IN * IN, in_channels, out_channels).contiguous()


def _convolve(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """x (N, C, H, W) float32, weights (36, C, K), bias (K,) -> (N, K, H, W), channels last."""
    _, channels, height, width = x.shape
    out_channels = weights.shape[2]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    out = x.new_empty(len(x), height, width, out_channels)
    rows, columns = height // OUT, width // OUT
    strip = max(1, STRIP_POSITIONS // (width * OUT))
    for image, target in zip(padded, out, strict=True):
        for first in range(0, rows, strip):
            count = min(strip, rows - first)
            tiles = _tiles(image[OUT * first :], count, columns)
            transformed = (_INPUT_2D @ tiles.reshape(IN * IN, -1)).view(IN * IN, -1, channels)
            products = torch.bmm(transformed, weights)
            result = (_OUTPUT_2D @ products.view(IN * IN, -1)).view(
                OUT, OUT, count, columns, out_channels
            )
            lines = target[OUT * first : OUT * (first + count)]
            lines.view(count, OUT, columns, OUT, out_channels).copy_(result.permute(2, 0, 3, 1, 4))
    out += bias
    return out.permute(0, 3, 1, 2)


def _tiles(image: Tensor, rows: int, columns: int) -> Tensor:
    """Return overlapping tiles of the first lines of (H, W, C), as a view (6, 6, rows, columns, C)."""
    line, pixel, channel = image.stride()
    return image.as_strided(
        (IN, IN, rows, columns, image.shape[2]), (line, pixel, OUT * line, OUT * pixel, channel)
    )
