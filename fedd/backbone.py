"""The backbone: a frozen network that turns images into activations, on one device or several.

Arrays: images are (N, 3, S, S) float32 in [-1, 1], S = `image_size`; the activations of a block are
(N, C, h, w) float32. Decoder blocks are numbered from 0, deepest first, as in ddpm-segmentation
(Baranchuk et al., ICLR 2022), from which FEDD takes its features.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.errors import DeviceError, WeightsError
from fedd.network.architecture import Architecture
from fedd.network.compiled import CompiledForward, Forward
from fedd.network.devices import (
    BatchSize,
    existing_device,
    existing_devices,
    first_batch,
    prepare_gpu,
    within_memory,
)
from fedd.network.noise import batch_noise, content_noise
from fedd.network.turns import Turns
from fedd.network.unet import IMAGENET_256, SMALL, UNetConfig, decoder_activations, make_fast
from fedd.weights.names import UNTRAINED

__all__ = [
    "DIFFUSION_STEPS",
    "IMAGENET_256",
    "PRECISIONS",
    "SMALL",
    "Backbone",
    "DiffusionUNet",
    "LocalBackbone",
    "Placed",
    "Replicas",
    "UNetConfig",
    "content_noise",
    "decoder_activations",
    "parameter_count",
    "place",
]

#: Length of the noise schedule of guided-diffusion; a timestep is 0 to 999.
DIFFUSION_STEPS = 1000

#: Number type of convolutions and attention; norms are always float32.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Backbone(Protocol):
    """A network that turns images into activations: a UNet, an ImageNet encoder, or several together."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        ...

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the network's input."""
        ...

    @property
    def blocks(self) -> tuple[int, ...]: ...

    @property
    def device(self) -> torch.device:
        """Device of the activations."""
        ...

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations of `blocks` for `images` (N, 3, S, S), on `device`.

        Batch and order change them by rounding at most. `noise` is the number of an image's noise
        sample.
        """
        ...


class LocalBackbone(Backbone, Protocol):
    """A backbone in this process, on one device: `load_backbone` returns one, `place` moves it.

    `fedd.backbone.DiffusionUNet`, `fedd.encoders.ImageNetEncoder` and
    `fedd.composite.CompositeBackbone` are those that there are.
    """

    verified: bool  #: False where a file claims a checkpoint's hash and can't be checked

    @property
    def config(self) -> Architecture: ...

    @property
    def precision(self) -> str:
        """Number type of the convolutions, one of `PRECISIONS`."""
        ...

    @property
    def devices(self) -> list[torch.device]: ...

    @property
    def side_by_side(self) -> int:
        """Images that may pass at once, on threads of a CPU: as many as fit into memory."""
        ...

    @property
    def last_blocks(self) -> tuple[int, ...]:
        """Blocks behind which nothing is left to compute: one, or one of each part."""
        ...

    def to(self, device: str, precision: str = "float32") -> Self:
        """Return the backbone on another device or in another precision; this one is unchanged."""
        ...

    def expect(self, images: int) -> None:
        """Tell that a job of so many images begins."""
        ...


class DiffusionUNet:
    """A frozen guided-diffusion UNet, run up to the last requested decoder block.

    A network stored only up to some block (`fedd weights fetch`) has the blocks up to it. `to` returns
    the network on another device or in another precision. Several threads may share it: on a GPU each
    batch runs alone, in the order in which they asked; on a CPU they share the cores.
    """

    def __init__(
        self,
        name: str,
        config: UNetConfig,
        net: Any,
        weights_hash: str,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.name, self.config, self.hash = name, config, weights_hash
        self.verified = True
        self.image_size = config.image_size
        self.blocks = tuple(range(len(net.output_blocks)))
        self.device, self.precision = torch.device(device), precision
        self.net = net.eval().requires_grad_(False)
        make_fast(self.net, PRECISIONS[precision])
        self.net.to(self.device)
        self.batch = BatchSize(*first_batch(config, self.device))
        self._alpha_bar = _alpha_bar()
        self._turns: AbstractContextManager[None] = nullcontext()
        self._forward: Forward = decoder_activations
        if self.device.type == "cuda":
            prepare_gpu()
            self._turns, self._forward = Turns(), compiled_on_gpu(self)

    @property
    def devices(self) -> list[torch.device]:
        return [self.device]

    @property
    def last_blocks(self) -> tuple[int, ...]:
        return self.blocks[-1:]

    @property
    def side_by_side(self) -> int:
        """Images that may pass at once, on threads of a CPU: as many as fit into memory."""
        return first_batch(self.config, self.device)[0] if self.device.type == "cpu" else 1

    @classmethod
    def random(cls, config: UNetConfig, seed: int = 0) -> DiffusionUNet:
        """Return an untrained network: the baseline of a comparison, and cheap for tests."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = config.build()
        return cls(
            UNTRAINED,
            config,
            net,
            hashlib.sha256(f"untrained {seed} {config}".encode()).hexdigest(),
        )

    def to(self, device: str, precision: str = "float32") -> DiffusionUNet:
        """Return the network on a device (`cpu`, `cuda`, `cuda:1`), in a precision.

        This one is unchanged. Raises DeviceError if the device does not exist, or if float32 is wanted
        of weights already rounded to bfloat16.
        """
        target = target_of(self, device, precision)
        if (target, precision) == (self.device, self.precision):
            return self
        net = copy.deepcopy(self.net)
        moved = DiffusionUNet(self.name, self.config, net, self.hash, target, precision)
        moved.verified = self.verified
        return moved

    @torch.inference_mode()
    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations of decoder `blocks` for `images` noised to `timestep`, on this device.

        An image's noise is seeded by its own content and `noise`, so the result depends neither on the
        other images nor on their order, except for rounding. Any number of images is run in batches
        that fit into memory.

        Raises:
            ValueError: a block or a timestep that does not exist; images of another size.
            WeightsError: a block that this network was stored without.
            DeviceError: a single image does not fit into the device's memory.
        """
        self._check_blocks(blocks)
        if not 0 <= timestep < DIFFUSION_STEPS:
            raise ValueError(f"a timestep is 0 to {DIFFUSION_STEPS - 1}, not {timestep}")
        check_images(self, images)
        if isinstance(self._forward, CompiledForward):
            self._forward.at_least(len(images))

        def run(part: Tensor) -> dict[int, Tensor]:
            with self._turns:
                return self._activations(part, timestep, blocks, noise)

        return self.batch.run(run, images)

    def expect(self, images: int) -> None:
        """Tell that a job of so many images begins; a GPU then compiles the network if that pays back."""
        if isinstance(self._forward, CompiledForward):
            self._forward.expect(images)

    def _check_blocks(self, blocks: Sequence[int]) -> None:
        unknown = sorted(set(blocks) - set(self.blocks))
        cut = [b for b in unknown if 0 <= b < self.config.decoder_blocks]
        if cut:
            raise WeightsError(
                f"the weights of {self.name} are stored only up to decoder block {self.blocks[-1]}, not to "
                f"{cut[-1]}: fetch more with 'fedd weights fetch {self.name} --blocks {cut[-1]}'"
            )
        if unknown:
            raise ValueError(
                f"{self.name} has decoder blocks 0 to {self.blocks[-1]}, not {unknown}"
            )

    def _activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int
    ) -> dict[int, Tensor]:
        shape = (self.config.in_channels, self.config.grid, self.config.grid)
        samples = batch_noise(images, shape, noise, pin=self.device.type == "cuda")
        x = F.pixel_unshuffle(on_device(self.device, images), self.config.patch)
        keep = self._alpha_bar[timestep]
        x = keep.sqrt() * x + (1 - keep).sqrt() * on_device(self.device, samples)
        x = x.contiguous(memory_format=torch.channels_last)
        t = torch.full((1,), timestep, dtype=torch.long, device=self.device)
        found = self._forward(self.net, x, t, tuple(blocks))
        return {block: a.float().contiguous() for block, a in found.items()}


def target_of(backbone: LocalBackbone, device: str, precision: str) -> torch.device:
    """Return the device to move a backbone to.

    Raises DeviceError if there is no such device or precision, or if float32 is wanted of weights
    already rounded.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"no precision {precision}: there are {', '.join(PRECISIONS)}")
    target = existing_device(device)
    if backbone.precision != "float32" and precision == "float32":
        raise DeviceError(
            f"the weights of {backbone.name} were rounded to {backbone.precision}: load them again"
        )
    return target


def check_images(backbone: LocalBackbone, images: Tensor) -> None:
    """Raise ValueError where images are not (N, 3, S, S) of a backbone's size."""
    size = backbone.image_size
    if images.shape[1:] != (3, size, size):
        raise ValueError(
            f"{backbone.name} takes images (N, 3, {size}, {size}), not {tuple(images.shape)}: "
            "resize them with fedd.features.prepare"
        )


def place(backbone: LocalBackbone, device: str = "auto", precision: str = "float32") -> Placed:
    """Return a backbone on a device; `auto` is all GPUs, or the CPU if there is none.

    Raises DeviceError if there is no such device.
    """
    copies = [backbone.to(str(target), precision) for target in existing_devices(device)]
    return copies[0] if len(copies) == 1 else Replicas(copies)


class Replicas:
    """Copies of a backbone on several GPUs that share the images; a `Backbone` itself."""

    def __init__(self, copies: Sequence[LocalBackbone]) -> None:
        self._copies = copies
        self.devices = [each.device for each in copies]
        first = copies[0]
        self.name, self.hash, self.precision = first.name, first.hash, first.precision
        self.verified = first.verified
        self.image_size, self.blocks, self.config = first.image_size, first.blocks, first.config
        self.last_blocks = first.last_blocks

    @property
    def device(self) -> torch.device:
        """Device of the activations."""
        return self.devices[0]

    def expect(self, images: int) -> None:
        """Tell that a job of so many images begins, as `DiffusionUNet.expect` does."""
        for each in self._copies:
            each.expect(-(-images // len(self._copies)))

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations as `DiffusionUNet.activations` does, on the first device."""
        # Contiguous parts of nearly equal size, one for each copy; never more parts than images.
        parts = images.tensor_split(min(len(images), len(self._copies)) or 1)
        with ThreadPoolExecutor(len(parts)) as pool:
            found = list(
                pool.map(
                    lambda copy, part: copy.activations(part, timestep, blocks, noise),
                    self._copies,
                    parts,
                )
            )
        with within_memory(f"joining the activations of {len(images)} images"):
            return {b: torch.cat([each[b].to(self.device) for each in found]) for b in found[0]}


#: A backbone on one device or on several.
Placed: TypeAlias = LocalBackbone | Replicas


def precision_of(backbone: Backbone) -> str:
    """Return the precision of a backbone's activations; one that does not say has float32."""
    return str(getattr(backbone, "precision", "float32"))


def is_verified(backbone: Backbone) -> bool:
    """Return whether a backbone's weights are known to be those of its hash, as `DiffusionUNet.verified`."""
    return bool(getattr(backbone, "verified", True))


def weights_key(backbone: Backbone) -> str:
    """Return what identifies a backbone's weights in a cache: those that can't be checked share nothing."""
    return backbone.hash if is_verified(backbone) else f"unverified {backbone.hash}"


def other_precision(model: str, trained_in: str, predicts_in: str) -> str:
    """Return a note where a model predicts in another precision than it was trained in; else empty."""
    if trained_in == predicts_in:
        return ""
    return f"{model} was trained on activations in {trained_in} and predicts here in {predicts_in}"


def expect(backbone: Backbone, images: int) -> None:
    """Tell a backbone that a job of so many images begins; one that nothing depends on ignores it."""
    if (told := getattr(backbone, "expect", None)) is not None:
        told(images)


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def compiled_on_gpu(backbone: DiffusionUNet) -> CompiledForward:
    """Return the forward pass of a backbone on a GPU."""
    device, config = backbone.device, backbone.config
    key = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {backbone.precision}"
    network = hashlib.sha256(str(config).encode()).hexdigest()[:12]
    return CompiledForward(
        backbone.name,
        f"network {network}, {key}",
        decoder_activations,
        wait=lambda: torch.cuda.synchronize(device),
    )


def on_device(device: torch.device, tensor: Tensor) -> Tensor:
    """Return a tensor on a device; the copy to a GPU is asynchronous."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _alpha_bar() -> Tensor:
    """Return the share of the signal's variance left at each timestep of the linear schedule."""
    from guided_diffusion.gaussian_diffusion import get_named_beta_schedule

    betas = torch.from_numpy(get_named_beta_schedule("linear", DIFFUSION_STEPS))
    return torch.cumprod(1 - betas, 0).float()
