"""Throughput of a backbone: images a second, and the share of the machine that is used."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from fedd.backbone import PRECISIONS, Placed
from fedd.batches import image_batches
from fedd.features import FeatureSpec, extract
from fedd.network.architecture import Architecture

#: Width and height of the decoded photographs, about as in DDI.
PHOTOGRAPH = (600, 450)

#: Width and height of the matrices that measure a device's peak: large enough to be bound by arithmetic.
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}

#: Images of a job so long that compiling pays: the speed that is reached once it is done.
STEADY = 1_000_000

#: Rounds of products, of which the fastest counts. A GPU is given several at a time, so that it does not
#: wait for the next.
PEAK_ROUNDS, PEAK_PRODUCTS = 10, {"cpu": 1, "cuda": 10}


@dataclass(frozen=True)
class Throughput:
    """Measured in one run on one machine; FLOP are those of direct convolutions.

    `flop_share` may exceed 1: on a CPU Winograd's convolutions need fewer operations than counted.
    """

    backbone: str
    devices: tuple[str, ...]
    precision: str
    blocks: tuple[int, ...]
    images: int
    seconds: float
    images_per_second: float
    gflop_per_image: float
    gflop_per_second: float
    peak_gflop_per_second: float  #: of a large matrix product in the same precision, all devices
    flop_share: float
    peak_memory_bytes: int  #: of the GPUs together, or of the whole process on a CPU


def measure(backbone: Placed, spec: FeatureSpec, images: int, batch: int) -> Throughput:
    """Measure decoding, resizing and extraction of `images` rendered photographs, after a warm-up.

    The warm-up also compiles, and finds the batch size that fits. Photographs are decoded and resized
    ahead and the features are dropped: it is the backbone's speed, not that of prediction.
    """
    devices = backbone.devices
    on_gpu = devices[0].type == "cuda"
    photographs = [_encoded(seed) for seed in range(min(images, 16))]

    def run(count: int) -> None:
        openers = (_opener(photographs[i % len(photographs)]) for i in range(count))
        for part in image_batches(openers, backbone, batch):
            extract(backbone, part, spec)
        _wait(devices)

    backbone.expect(STEADY)
    run(3 * batch if on_gpu else min(images, batch))
    for device in devices if on_gpu else ():
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(lambda: run(images))
    memory = _peak_memory(devices)
    flop = flop_per_image(backbone.config, spec.blocks)
    peak = sum(matrix_peak(device, backbone.precision) for device in devices)
    reached = flop * images / seconds
    return Throughput(
        backbone=backbone.name,
        devices=tuple(str(device) for device in devices),
        precision=backbone.precision,
        blocks=spec.blocks,
        images=images,
        seconds=seconds,
        images_per_second=images / seconds,
        gflop_per_image=flop / 1e9,
        gflop_per_second=reached / 1e9,
        peak_gflop_per_second=peak / 1e9,
        flop_share=reached / peak,
        peak_memory_bytes=memory,
    )


def flop_per_image(config: Architecture, blocks: Sequence[int]) -> int:
    """Return floating-point operations (a multiplication and an addition are two) up to the last block."""
    with FlopCounterMode(display=False) as counter:
        config.trace(blocks)
    return int(counter.get_total_flops())


def matrix_peak(device: torch.device, precision: str) -> float:
    """Return FLOP a second of a large matrix product on a device: the attainable peak."""
    size, count = PEAK_SIZE[device.type], PEAK_PRODUCTS[device.type]
    a = torch.randn(size, size, device=device).to(PRECISIONS[precision])

    def products() -> None:
        for _ in range(count):
            a @ a
        _wait([device])

    products()
    return 2 * size**3 * count / min(_seconds(products) for _ in range(PEAK_ROUNDS))


def _encoded(seed: int) -> bytes:
    """Return a JPEG file of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def _opener(encoded: bytes) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.array(Image.open(io.BytesIO(encoded)))


def _seconds(job: Callable[[], None]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _wait(devices: Sequence[torch.device]) -> None:
    """Wait until the GPUs are done."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _peak_memory(devices: Sequence[torch.device]) -> int:
    if devices[0].type == "cuda":
        return sum(torch.cuda.max_memory_allocated(device) for device in devices)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
