"""One backbone on several GPUs of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.network.devices import existing_devices, within_memory


def place(
    backbone: DiffusionUNet, device: str = "auto", precision: str = "float32"
) -> DiffusionUNet | Replicas:
    """A backbone where it is to be computed: `auto` is all GPUs, or the CPU where there is none.

    Raises DeviceError where there is no such device.
    """
    copies = [backbone.to(str(target), precision) for target in existing_devices(device)]
    return copies[0] if len(copies) == 1 else Replicas(copies)


class Replicas:
    """Copies of a backbone, one a device, that share the images; it is a `Backbone` itself."""

    def __init__(self, copies: Sequence[DiffusionUNet]) -> None:
        self._copies = copies
        self.devices = [each.device for each in copies]
        first = copies[0]
        self.name, self.hash, self.precision = first.name, first.hash, first.precision
        self.image_size, self.blocks, self.config = first.image_size, first.blocks, first.config

    @property
    def device(self) -> torch.device:
        """Where activations come out."""
        return self.devices[0]

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """As `DiffusionUNet.activations`; the result is on `device`, the first one."""
        # contiguous parts of nearly equal size, one a copy; never more copies than images
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
