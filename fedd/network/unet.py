"""The guided-diffusion UNet: its configuration, and a fast forward pass up to a decoder block.

The layers and their names are guided_diffusion's, so OpenAI's checkpoints load key by key. Layers
replaced for speed change no result beyond rounding; `tests/peers/test_guided_diffusion.py` compares
each with guided_diffusion's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.errors import WeightsError
from fedd.network.resblock import FusedResBlock, MixedGroupNorm
from fedd.network.winograd import WinogradConv2d

with warnings.catch_warnings():
    # guided-diffusion decorates with the old torch.cuda.amp names; inference does not use them.
    warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.custom_(fwd|bwd)", FutureWarning)
    from guided_diffusion.nn import GroupNorm32
    from guided_diffusion.unet import QKVAttentionLegacy, ResBlock, UNetModel


@dataclass(frozen=True)
class UNetConfig:
    """Configuration of a guided-diffusion UNet. Names follow `guided_diffusion.script_util`.

    With `patch` > 1 the input is (3 * patch^2) channels at S / patch (pixel-unshuffle): fewer positions
    for the same photograph, for small networks on small machines.
    """

    image_size: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]  #: in positions of the grid, as 32,16,8
    num_head_channels: int = 64
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    learn_sigma: bool = True
    patch: int = 1

    def __post_init__(self) -> None:
        factor = self.patch * 2 ** (len(self.channel_mult) - 1)
        if self.image_size % factor:
            raise WeightsError(
                f"a UNet of {len(self.channel_mult)} levels and patch {self.patch} needs an image size "
                f"that {factor} divides, not {self.image_size}"
            )

    @property
    def grid(self) -> int:
        return self.image_size // self.patch

    @property
    def in_channels(self) -> int:
        return 3 * self.patch**2

    @property
    def decoder_blocks(self) -> int:
        return len(self.channel_mult) * (self.num_res_blocks + 1)

    @property
    def largest_map_bytes(self) -> int:
        """Bytes of one image's largest feature map in float32."""
        return self.grid**2 * self.model_channels * 4

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UNetConfig:
        known = {f.name for f in fields(cls)}
        if unknown := set(values) - known:
            raise WeightsError(
                f"unknown settings in the backbone's configuration: {sorted(unknown)}"
            )
        read: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**read)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def build(self, last_block: int | None = None) -> UNetModel:
        """Return the network; with `last_block`, without the layers after that block."""
        net = UNetModel(
            image_size=self.grid,
            in_channels=self.in_channels,
            model_channels=self.model_channels,
            out_channels=self.in_channels * (2 if self.learn_sigma else 1),
            num_res_blocks=self.num_res_blocks,
            attention_resolutions=tuple(self.grid // r for r in self.attention_resolutions),
            channel_mult=self.channel_mult,
            num_head_channels=self.num_head_channels,
            use_scale_shift_norm=self.use_scale_shift_norm,
            resblock_updown=self.resblock_updown,
        )
        if last_block is not None:
            net.output_blocks = net.output_blocks[: last_block + 1]
            net.out = nn.Identity()
        return net

    def trace(self, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the activations of one image as tensors without values, as `Architecture.trace`."""
        with torch.device("meta"):
            net = self.build(max(blocks))
            x = torch.zeros(1, self.in_channels, self.grid, self.grid)
            t = torch.zeros(1, dtype=torch.long)
        with torch.inference_mode():
            return decoder_activations(net, x, t, blocks)


#: OpenAI's unconditional ImageNet model, `256x256_diffusion_uncond.pt`: the paper's backbone.
IMAGENET_256 = UNetConfig(
    image_size=256,
    model_channels=256,
    channel_mult=(1, 1, 2, 2, 4, 4),
    num_res_blocks=2,
    attention_resolutions=(32, 16, 8),
)

#: The architecture of the backbone that ships with the package (see `fedd/weights/small.md`).
SMALL = UNetConfig(
    image_size=128,
    patch=2,
    model_channels=32,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=1,
    attention_resolutions=(16, 8),
    num_head_channels=32,
    learn_sigma=False,
)


#: Longest period of a timestep's embedding, as in guided_diffusion.
MAX_PERIOD = 10000


def decoder_activations(
    net: UNetModel, x: Tensor, timesteps: Tensor, blocks: Sequence[int]
) -> dict[int, Tensor]:
    """Run the forward pass of `UNetModel` up to the last of `blocks`; x is (N, C, h, w).

    `timesteps` is (N,), or (1,) for one timestep of all, whose embedding is then computed once.
    """
    emb = net.time_embed(timestep_embedding(timesteps, net.model_channels))
    skips, h = [], x.to(_torso_dtype(net))
    for module in net.input_blocks:
        h = module(h, emb)
        skips.append(h)
    h = net.middle_block(h, emb)
    found = {}
    for index, module in enumerate(net.output_blocks[: max(blocks) + 1]):
        h = module(torch.cat([h, skips.pop()], dim=1), emb)
        if index in blocks:
            found[index] = h
    return found


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Return sines and cosines of timesteps (N,), (N, width) float32, as guided_diffusion's.

    The frequencies are computed on the timesteps' device: guided_diffusion copies them from the CPU in
    every pass, and the copy waits until the GPU has finished the pass before.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * steps / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, width % 2))


def make_fast(net: UNetModel, precision: torch.dtype = torch.float32) -> None:
    """Replace the slow layers of a network in place; its state dict keeps its keys.

    Channels last throughout, fused attention, Winograd convolutions for float32 on a CPU, and with
    `precision` bfloat16 the convolutions' weights stored in bfloat16, which saves autocast the casting
    of half a billion weights in every pass. Group norms and the timestep's embedding are computed in
    float32, as in guided_diffusion.
    """
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, QKVAttentionLegacy):
                setattr(parent, name, FusedAttention(layer.n_heads))
            elif isinstance(layer, GroupNorm32):
                setattr(parent, name, MixedGroupNorm(layer))
            elif type(layer) is nn.Conv2d and WinogradConv2d.fits(layer):
                setattr(parent, name, WinogradConv2d(layer))
    for parent in list(net.modules()):  # once their layers are replaced
        for name, layer in list(parent.named_children()):
            if isinstance(layer, ResBlock):
                setattr(parent, name, FusedResBlock(layer))
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.to(precision)
    net.to(memory_format=torch.channels_last)


class FusedAttention(nn.Module):
    """`QKVAttentionLegacy` through scaled_dot_product_attention: no (T, T) matrix is ever held."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, qkv: Tensor) -> Tensor:
        """(N, heads * 3 * C, T) -> (N, heads * C, T)."""
        batch, width, length = qkv.shape
        channels = width // (3 * self.heads)
        # The kernels need the channels of a position contiguous.
        heads = qkv.view(batch, self.heads, 3 * channels, length).transpose(2, 3).contiguous()
        q, k, v = heads.chunk(3, dim=3)
        found = F.scaled_dot_product_attention(q, k, v)
        return found.transpose(2, 3).reshape(batch, self.heads * channels, length)


def _torso_dtype(net: UNetModel) -> torch.dtype:
    dtype: torch.dtype = net.input_blocks[0][0].weight.dtype
    return dtype
