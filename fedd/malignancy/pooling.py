"""Pooling of a block's activations to at most 512 features for the malignancy classifier.

FEDD (section 2.2) max-pools "in 2-D and then 1-D to 512". `pooling_of` fixes what the paper leaves open:
the 2-D pooling goes to the coarsest even grid that still holds 512 numbers, these are flattened channel by
channel, each row by row, and the 1-D pooling reduces them to 512. For OpenAI's 256 x 256 network, whose
blocks have 256, 512 or 1024 channels, this is

    block    channels x h x w     2-D kernel    flattened    1-D kernel    features
    0, 1       1024 x 8 x 8            8           1024           2           512
    2          1024 x 16 x 16         16           1024           2           512
    3, 4       1024 x 16 x 16         16           1024           2           512
    5          1024 x 32 x 32         32           1024           2           512
    6, 7        512 x 32 x 32         32            512           1           512
    8           512 x 64 x 64         64            512           1           512
    9, 10       512 x 64 x 64         64            512           1           512
    11          512 x 128 x 128      128            512           1           512
    12, 13      256 x 128 x 128       64           1024           2           512
    14          256 x 256 x 256      128           1024           2           512
    15 to 17    256 x 256 x 256      128           1024           2           512

so a feature is the maximum of two neighbouring channels, of one channel, or of half a channel. The choice
of the 2-D kernel makes no difference there: with sizes that are powers of two, any finer grid gives the
same 512 numbers, because a maximum of maxima is a maximum.

Arrays: the activations of a block are (N, C, h, w) float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, log2

from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import UNetConfig

#: Features of an image, as in the paper.
FEATURES = 512

#: Channels, height and width of a block's activations.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pooling:
    """How activations of one shape become features."""

    shape: Shape
    kernel: int  #: width and height of the 2-D kernel, and its stride
    flattened: int  #: numbers after the 2-D pooling
    features: int  #: numbers after the 1-D pooling: 512, or all where a block holds fewer

    @property
    def kernel_1d(self) -> float:
        """Length of the 1-D kernel; not an integer if the windows of the 1-D pooling overlap."""
        return self.flattened / self.features


def decoder_shapes(config: UNetConfig) -> tuple[Shape, ...]:
    """Return the shape of each decoder block's activations, deepest first, without building the network."""
    shapes = []
    deepest = len(config.channel_mult) - 1
    size = config.grid // 2**deepest
    for level in range(deepest, -1, -1):
        channels = config.channel_mult[level] * config.model_channels
        for block in range(config.num_res_blocks + 1):
            if level and block == config.num_res_blocks:
                size *= 2  # the last block of a level also brings it to the next one's grid
            shapes.append((channels, size, size))
    return tuple(shapes)


def pooling_of(shape: Shape) -> Pooling:
    """Return the pooling for activations of `shape`; fewer than 512 numbers are not pooled."""
    channels, height, width = shape
    size = gcd(height, width)
    kernels = [k for k in range(size, 0, -1) if size % k == 0]
    for kernel in kernels:
        flattened = channels * (height // kernel) * (width // kernel)
        if flattened >= FEATURES:
            return Pooling(shape, kernel, flattened, FEATURES)
    everything = channels * height * width
    return Pooling(shape, 1, everything, everything)


def pooled(activations: Tensor) -> Tensor:
    """Pool a block's activations, (N, C, h, w) -> (N, 512), or fewer by `pooling_of`."""
    channels, height, width = activations.shape[1:]
    pooling = pooling_of((channels, height, width))
    flat = F.max_pool2d(activations, pooling.kernel).flatten(1)
    return F.adaptive_max_pool1d(flat, pooling.features)


def pooled_by_halves(activations: Tensor) -> Tensor:
    """Pool (N, C, h, w) as `pooled`, but in 1-D by whole powers of two: (N, F), F at least 512.

    The rule of the authors' notebook DDI_Baseline_CNN_Classifiers (`get_poolings`). The two differ where
    512 x 2^k numbers are left after the 2-D pooling for no k: 1280 channels give 640 features here.
    """
    channels, height, width = activations.shape[1:]
    pooling = pooling_of((channels, height, width))
    flat = F.max_pool2d(activations, pooling.kernel).flatten(1)
    kernel: int = 2 ** int(log2(pooling.kernel_1d))
    return F.max_pool1d(flat, kernel)
