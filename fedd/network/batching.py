"""How many images pass through a network at a time: found by trying, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedd.errors import DeviceError
from fedd.network.devices import within_memory
from fedd.network.unet import UNetConfig

#: On a GPU: the first try, and the size beyond which the networks here gain nothing.
GPU_FIRST, GPU_MOST = 16, 64

#: On a CPU: bytes that a batch's feature maps may take, of which about `MAPS_HELD` are held at once
#: (the encoder's skips and the layer at work). A CPU has no such error to try for.
CPU_BYTES, CPU_MOST, MAPS_HELD = 2**28, 16, 12


def first_batch(config: UNetConfig, device: torch.device) -> tuple[int, int]:
    """First and largest batch size for a network on a device; on a CPU they are the same.

    So a CPU always computes the same batches, and its results repeat to the last bit.
    """
    if device.type != "cpu":
        return GPU_FIRST, GPU_MOST
    largest_map = config.grid**2 * config.model_channels * 4
    fits = max(1, min(CPU_MOST, CPU_BYTES // (MAPS_HELD * largest_map)))
    return fits, fits


class BatchSize:
    """A batch size that doubles while batches fit, and remembers what did not."""

    def __init__(self, first: int, most: int) -> None:
        self.size, self.most = first, most

    def run(self, job: Callable[[Tensor], dict[int, Tensor]], images: Tensor) -> dict[int, Tensor]:
        """`job` on all `images` (N, ...), in batches; its results, one (N, ...) tensor a key.

        Raises DeviceError where a single image, or what comes of all, does not fit into memory.
        """
        parts: list[dict[int, Tensor]] = []
        done = 0
        while done < len(images) or not parts:
            part = images[done : done + self.size]
            try:
                parts.append(job(part))
            except torch.cuda.OutOfMemoryError as error:
                self._shrink(len(part), error)
                continue
            done += len(part)
            if len(part) == self.size:
                self.size = min(2 * self.size, self.most)
        if len(parts) == 1:
            return parts[0]
        with within_memory(f"joining the activations of {len(images)} images"):
            return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _shrink(self, tried: int, error: torch.cuda.OutOfMemoryError) -> None:
        if tried <= 1:
            raise DeviceError(
                "the GPU's memory does not hold the network and one image: give --precision bfloat16, "
                "--device cpu, or a smaller backbone"
            ) from error
        self.size = self.most = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
