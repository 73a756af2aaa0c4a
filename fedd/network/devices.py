"""Which devices this machine has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedd.errors import DeviceError

#: How much was asked for when memory ran out, in torch's words.
_ASKED = re.compile(r"Tried to allocate ([\d.]+ \w+)")


def existing_device(name: str) -> torch.device:
    """The device called `name` (`cpu`, `cuda`, `cuda:1`); raises DeviceError where there is none."""
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
    """The devices to use: `auto` is every GPU, or the CPU where there is none; else the one named."""
    if name != "auto":
        return [existing_device(name)]
    if not torch.cuda.is_available():
        return [torch.device("cpu")]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def prepare_gpu() -> None:
    """For the whole process: cuDNN picks its fastest convolution, and float32 is float32.

    By default cuDNN rounds a float32 convolution's inputs to TF32 (10 bits of mantissa).
    """
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def within_memory(work: str) -> Iterator[None]:
    """Raises DeviceError where a GPU's memory runs out while doing `work` ("training on 9 images")."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = _ASKED.search(str(error))
        more = f" ({asked[1]} more were asked for)" if asked else ""
        raise DeviceError(
            f"the GPU's memory ran out while {work}{more}: end other work on the GPU, or give "
            "--device cpu"
        ) from error
