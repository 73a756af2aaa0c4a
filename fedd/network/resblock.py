"""Group norms and residual blocks that move less memory, with guided_diffusion's layers and names.

On a GPU in bfloat16 a residual block outside of its convolutions is bound by memory: what one pass over
a map can do is not done in three. A compiler fuses guided_diffusion's own steps, and a CPU keeps them,
so that its results stay.

Arrays: x is (N, C, ...) bfloat16 where it says so, in any memory layout; a block's input is (N, C, H, W).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

with warnings.catch_warnings():
    # guided-diffusion decorates with the old torch.cuda.amp names; inference does not use them.
    warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.custom_(fwd|bwd)", FutureWarning)
    from guided_diffusion.unet import ResBlock, TimestepBlock


class MixedGroupNorm(nn.GroupNorm):
    """`GroupNorm32` without float32 copies of its bfloat16 input; sums are float32.

    A CPU's group norm takes bfloat16 with float32 weights: the same to the bit. A GPU's does not, and
    takes no channels-last input either; `affine_norm` does.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        if _fuses(x):
            return affine_norm(self, x)
        return super().forward(x.float()).to(x.dtype)


class FusedResBlock(TimestepBlock):  # type: ignore[misc]
    """`ResBlock` of a frozen network."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.updown, self.use_scale_shift_norm = block.updown, block.use_scale_shift_norm
        self.in_layers, self.emb_layers = block.in_layers, block.emb_layers
        self.out_layers, self.skip_connection = block.out_layers, block.skip_connection
        self.h_upd, self.x_upd = block.h_upd, block.x_upd

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (N, C, H, W) and the timestep's embedding (N, E), or (1, E) for all."""
        return self.fused(x, emb) if _fuses(x) else self.plain(x, emb)

    def plain(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return guided_diffusion's result by its steps."""
        h = self.in_layers[:-1](x)
        h, x = (self.h_upd(h), self.x_upd(x)) if self.updown else (h, x)
        h = self.in_layers[-1](h)
        scale, shift = self._scale_and_shift(emb)
        shift = shift.to(h.dtype)[..., None, None]
        if scale is None:
            h = self.out_layers(h + shift)
        else:
            h = self.out_layers[0](h) * (1 + scale.to(h.dtype)[..., None, None]) + shift
            h = self.out_layers[1:](h)
        return self.skip_connection(x) + h  # type: ignore[no-any-return]

    def fused(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the same of bfloat16 maps, rounded less often.

        The bias of the first convolution, the second norm and the embedding's scale and shift are one
        pass.
        """
        h = F.silu(self.in_layers[0](x), inplace=True)
        h, x = (self.h_upd(h), self.x_upd(x)) if self.updown else (h, x)
        conv, norm = self.in_layers[-1], self.out_layers[0]
        h = F.conv2d(h, conv.weight, None, conv.stride, conv.padding)
        scale, shift = self._scale_and_shift(emb)
        if scale is None:
            h = affine_norm(norm, h, conv.bias + shift)
        else:
            h = affine_norm(norm, h, conv.bias[None], 1 + scale, shift)
        h = self.out_layers[2:](F.silu(h, inplace=True))
        return h.add_(self.skip_connection(x))  # type: ignore[no-any-return]

    def _scale_and_shift(self, emb: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return what the embedding scales (less 1) and shifts channels by, (N, C) or (1, C) float32."""
        found = self.emb_layers(emb)
        if not self.use_scale_shift_norm:
            return None, found
        scale, shift = found.chunk(2, dim=1)
        return scale, shift


def affine_norm(
    norm: nn.GroupNorm,
    x: Tensor,
    added: Tensor | None = None,
    scale: Tensor | float = 1.0,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """Return `norm(x + added) * scale + shift` of x (N, C, ...) bfloat16, in its memory layout.

    The input is read three times and the output written once: the sums, the sums of squares, then each
    channel's factor and offset. All is computed in float32 and rounded once, at the end; the variance is
    the mean of squares less the square of the mean.

    Args:
        added, scale, shift: by channel, (N, C) or (1, C) float32.
    """
    count, groups = len(x), norm.num_groups
    positions = x.flatten(2)
    mean = positions.sum(2, dtype=torch.float32) / positions.shape[2]  # of each channel
    square = torch.linalg.vector_norm(positions, 2, 2, dtype=torch.float32).square()
    square = square / positions.shape[2]
    if added is not None:
        square = square + added * (2 * mean + added)
        mean = mean + added
    of_group = mean.view(count, groups, -1).mean(2, keepdim=True)
    variance = square.view(count, groups, -1).mean(2, keepdim=True) - of_group.square()
    factor = norm.weight.view(groups, -1) / variance.clamp_min(0).add(norm.eps).sqrt()
    offset = norm.bias.view(groups, -1) - of_group * factor
    factor, offset = factor.view(count, -1), offset.view(count, -1)
    if added is not None:
        offset = offset + added * factor
    factor, offset = factor * scale, offset * scale + shift
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.addcmul(offset.view(shape), x, factor.view(shape), out=torch.empty_like(x))


def _fuses(x: Tensor) -> bool:
    """Return whether to fuse by hand: on a GPU, in bfloat16, without a compiler."""
    return (
        x.device.type == "cuda" and x.dtype == torch.bfloat16 and not torch.compiler.is_compiling()
    )
