"""The frozen network whose activations the probes read.

Arrays: images are (N, 3, S, S) float32 in [-1, 1], S = `image_size`; the activations of a block are
(N, C, h, w) float32. Decoder blocks are numbered from 0, deepest first, as in ddpm-segmentation
(Baranchuk et al., ICLR 2022), whose features FEDD takes over.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.errors import WeightsError

with warnings.catch_warnings():
    # guided-diffusion decorates with the old torch.cuda.amp names; inference does not use them.
    warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.custom_(fwd|bwd)", FutureWarning)
    from guided_diffusion.nn import timestep_embedding
    from guided_diffusion.unet import UNetModel

#: Length of the noise schedule of guided-diffusion; a timestep is 0 to 999.
DIFFUSION_STEPS = 1000


class Backbone(Protocol):
    """Anything that turns photographs into activations: a diffusion UNet, an ImageNet encoder."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels of the square image that the network sees."""
        ...

    @property
    def blocks(self) -> tuple[int, ...]: ...

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int]
    ) -> dict[int, Tensor]:
        """Activations of `blocks` for `images` (N, 3, S, S), never depending on batch or order."""
        ...


@dataclass(frozen=True)
class UNetConfig:
    """A guided-diffusion UNet. Names follow `guided_diffusion.script_util`.

    `patch` > 1 hands the network the photograph as (3 * patch^2) channels at S / patch
    (pixel-unshuffle): fewer positions for the same photograph, for small networks on small machines.
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

    def build(self) -> UNetModel:
        return UNetModel(
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


class DiffusionUNet:
    """A frozen guided-diffusion UNet, run no further than the last decoder block asked for."""

    def __init__(self, name: str, config: UNetConfig, net: UNetModel, weights_hash: str) -> None:
        self.name, self.config, self.hash = name, config, weights_hash
        self.image_size = config.image_size
        self.blocks = tuple(range(config.decoder_blocks))
        self.net = net.eval().requires_grad_(False)
        self._alpha_bar = _alpha_bar()

    @classmethod
    def random(cls, config: UNetConfig, seed: int = 0) -> DiffusionUNet:
        """An untrained network: the floor of a comparison, and cheap for tests."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = config.build()
        return cls(
            "untrained",
            config,
            net,
            hashlib.sha256(f"untrained {seed} {config}".encode()).hexdigest(),
        )

    @torch.inference_mode()
    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int]
    ) -> dict[int, Tensor]:
        """Activations of decoder `blocks` for `images` noised to `timestep`.

        The noise of an image comes from its own content, so the result depends neither on the
        other images of the batch nor on their order. Raises ValueError for a block or a timestep
        that does not exist.
        """
        if unknown := set(blocks) - set(self.blocks):
            raise ValueError(
                f"{self.name} has decoder blocks 0 to {self.blocks[-1]}, not {sorted(unknown)}"
            )
        if not 0 <= timestep < DIFFUSION_STEPS:
            raise ValueError(f"a timestep is 0 to {DIFFUSION_STEPS - 1}, not {timestep}")
        x = F.pixel_unshuffle(images, self.config.patch)
        keep = self._alpha_bar[timestep]
        x = keep.sqrt() * x + (1 - keep).sqrt() * torch.stack(
            [content_noise(i, x.shape[1:]) for i in images]
        )
        t = torch.full((len(x),), timestep, dtype=torch.long, device=x.device)
        return decoder_activations(self.net, x, t, blocks)


def decoder_activations(
    net: UNetModel, x: Tensor, timesteps: Tensor, blocks: Sequence[int]
) -> dict[int, Tensor]:
    """The forward pass of `UNetModel`, ended after the last of `blocks`; x is (N, C, h, w)."""
    emb = net.time_embed(timestep_embedding(timesteps, net.model_channels))
    skips, h = [], x
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


def content_noise(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal noise of `shape`, seeded by the pixels of `image` (3, S, S) in [-1, 1]."""
    pixels = ((image + 1) * 127.5).round().to(torch.uint8).cpu().contiguous()
    seed = int.from_bytes(hashlib.sha256(pixels.numpy().tobytes()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator).to(image.device)


def _alpha_bar() -> Tensor:
    """Share of the signal's variance left at each timestep of the linear schedule."""
    from guided_diffusion.gaussian_diffusion import get_named_beta_schedule

    betas = torch.from_numpy(get_named_beta_schedule("linear", DIFFUSION_STEPS))
    return torch.cumprod(1 - betas, 0).float()


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
