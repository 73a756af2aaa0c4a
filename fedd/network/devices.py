"""Devices of this machine, and how many images fit into their memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedd.errors import DeviceError, DeviceMemoryError
from fedd.network.architecture import Architecture

#: The amount of memory in torch's message.
_REQUESTED = re.compile(r"Tried to allocate ([\d.]+ \w+)")


def existing_device(name: str) -> torch.device:
    """Return the device called `name` (`cpu`, `cuda`, `cuda:1`); raises DeviceError if there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device is called {name}: give cpu, cuda, or cuda:0") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"fedd computes on cpu and cuda, not on {name}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise DeviceError(
            f"there is no device {name}: torch {torch.__version__} finds no CUDA GPU; give --device cpu, "
            "or install a torch built for your GPU and its driver"
        )
    index = device.index or 0
    if index >= count:
        raise DeviceError(f"there is no device {name}: this machine has cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def existing_devices(name: str = "auto") -> list[torch.device]:
    """Return the devices to use: with `auto` every GPU, or the CPU if there is none."""
    if name != "auto":
        return [existing_device(name)]
    if not torch.cuda.is_available():
        return [torch.device("cpu")]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def prepare_gpu() -> None:
    """Let cuDNN choose its fastest convolution, and keep float32, in the whole process.

    By default cuDNN rounds a float32 convolution's inputs to TF32 (10 bits of mantissa).
    """
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def within_memory(work: str) -> Iterator[None]:
    """Raise DeviceMemoryError if a GPU's memory runs out during `work` ("training on 9 images")."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        requested = _REQUESTED.search(str(error))
        more = f" ({requested[1]} more were needed)" if requested else ""
        raise DeviceMemoryError(
            f"the GPU's memory ran out while {work}{more}: end other work on the GPU, or give "
            "--device cpu"
        ) from error


#: On a GPU: the first batch size, and the size beyond which these networks gain nothing.
GPU_FIRST, GPU_MOST = 16, 64

#: On a CPU: bytes of a batch's feature maps, of which about `MAPS_HELD` are held at once (the encoder's
#: skips and the current layer). A CPU has no out-of-memory error to react to.
CPU_BYTES, CPU_MOST, MAPS_HELD = 2**28, 16, 12


def first_batch(config: Architecture, device: torch.device) -> tuple[int, int]:
    """Return the first and the largest batch size for a network on a device.

    On a CPU they are equal, so that its results repeat to the last bit.
    """
    if device.type != "cpu":
        return GPU_FIRST, GPU_MOST
    fits = max(1, min(CPU_MOST, CPU_BYTES // (MAPS_HELD * config.largest_map_bytes)))
    return fits, fits


class BatchSize:
    """A batch size that doubles while batches fit, and is halved for good when one does not."""

    def __init__(self, first: int, most: int) -> None:
        self.size, self.most = first, most

    def run(self, job: Callable[[Tensor], dict[int, Tensor]], images: Tensor) -> dict[int, Tensor]:
        """Run `job` on all `images` (N, ...) in batches; returns one (N, ...) tensor for each key.

        Raises DeviceError if a single image, or the result of all, does not fit into memory.
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
            raise DeviceMemoryError(
                "the GPU's memory does not hold the network and one image: give --precision bfloat16, "
                "--device cpu, or a smaller backbone"
            ) from error
        self.size = self.most = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
