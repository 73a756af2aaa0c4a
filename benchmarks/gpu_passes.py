"""Passes of a network on a device: their seconds and memory, and their difference from the library's."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from guided_diffusion.unet import UNetModel
from torch import Tensor

from fedd.backbone import DiffusionUNet, batch_noise, content_noise
from fedd.features import FeatureSpec
from fedd.network.unet import decoder_activations

#: `decoder_activations`, or what the compiler makes of it.
Forward: TypeAlias = Callable[..., dict[int, Tensor]]

#: Rounds of passes, of which the median counts.
ROUNDS = 3


@dataclass(frozen=True)
class Rate:
    """Images a second of a network's passes in batches of one size."""

    images_per_second: float
    batch: int
    first_pass: float  #: seconds: cuDNN tries its algorithms, or the compiler runs
    memory: int  #: peak on the GPU, bytes


class Stopwatch:
    """Seconds and memory of work on a device, which goes on after a call has returned."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self._seconds_a_row = device, seconds
        self.on_gpu = device.type == "cuda"
        self.most_memory = 0  #: the highest of all peaks, bytes

    def seconds(self, job: Callable[[], object]) -> float:
        """Return the seconds of a job, with all that it left on the GPU to do."""
        self._wait()
        start = time.perf_counter()
        job()
        self._wait()
        return time.perf_counter() - start

    def seconds_a_pass(self, job: Callable[[], object]) -> float:
        """Return the median seconds of a job over rounds of several, one after the other.

        Within a round nothing waits for the GPU, as in real work.
        """
        once = self.seconds(job)
        count = max(1, round(self._seconds_a_row / ROUNDS / once))
        rounds = (self.seconds(lambda: [job() for _ in range(count)]) for _ in range(ROUNDS))
        return statistics.median(rounds) / count

    def reset_memory(self) -> None:
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> int:
        """Return the GPU's peak since it was reset, bytes; 0 without a GPU."""
        found = torch.cuda.max_memory_allocated(self.device) if self.on_gpu else 0
        self.most_memory = max(self.most_memory, found)
        return found

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def prefix_rate(
    net: DiffusionUNet, forward: Forward, spec: FeatureSpec, batch: int, watch: Stopwatch
) -> Rate:
    """Measure the network alone, up to the last block, on a batch that is on the device."""
    x, t = _inputs(net, spec, batch)

    def one_pass() -> None:
        with torch.inference_mode():
            forward(net.net, x, t, spec.blocks)

    watch.reset_memory()
    first = watch.seconds(one_pass)
    seconds = watch.seconds_a_pass(one_pass)
    return Rate(batch / seconds, batch, first, watch.memory())


def differences(
    library: UNetModel, nets: Sequence[DiffusionUNet], forward: Forward, spec: FeatureSpec
) -> list[float]:
    """Return by how much activations differ from those of guided_diffusion's own forward in float32.

    Relative to the largest activation of the block; the worst block counts.
    """
    x, t = _inputs(nets[0], spec, 2)
    kept: dict[int, Tensor] = {}
    hooks = [
        library.output_blocks[b].register_forward_hook(
            lambda _module, _inputs, out, b=b: kept.__setitem__(b, out)
        )
        for b in spec.blocks
    ]
    with torch.inference_mode(), untuned():
        library(x, t.expand(len(x)))
        found = [forward(net.net, x, t, spec.blocks) for net in nets]
    for hook in hooks:
        hook.remove()
    return [
        max(float((each[b] - kept[b]).abs().max() / kept[b].abs().max()) for b in spec.blocks)
        for each in found
    ]


def noise_seconds(images: Tensor, seconds: float) -> tuple[float, float]:
    """Return the seconds of the noise of one image, and of all of them on threads."""
    shape, watch = images.shape[1:], Stopwatch(torch.device("cpu"), seconds)
    one = watch.seconds_a_pass(lambda: content_noise(images[0], shape))
    return one, watch.seconds_a_pass(lambda: batch_noise(images, shape, 0))


@contextmanager
def untuned() -> Iterator[None]:
    """Let cuDNN choose algorithms without trying them, which takes seconds for each new batch size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def compiled_for_any_batch(compiler: Callable[[Forward], Forward]) -> Forward:
    """Return the pass as `fedd.network.compiled` compiles it: once for all batch sizes."""
    compiled = compiler(decoder_activations)

    def forward(net: UNetModel, x: Tensor, t: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        torch._dynamo.mark_dynamic(x, 0)
        return compiled(net, x, t, blocks)

    return forward


@contextmanager
def compiler_cache(folder: Path) -> Iterator[None]:
    """Let the compiler keep its files in a folder of this run, so that it finds none of another."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


class TimedBackbone:
    """A backbone that adds up the images and the seconds of its passes."""

    def __init__(self, net: DiffusionUNet) -> None:
        self._net = net
        self.name, self.hash, self.image_size = net.name, net.hash, net.image_size
        self.blocks, self.device, self.precision = net.blocks, net.device, net.precision
        self.seconds, self.images = 0.0, 0

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        start = time.perf_counter()
        found = self._net.activations(images, timestep, blocks, noise)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start
        self.images += len(images)
        return found


def _inputs(net: DiffusionUNet, spec: FeatureSpec, batch: int) -> tuple[Tensor, Tensor]:
    """Return noised images and a timestep on the network's device."""
    config, generator = net.config, torch.Generator(net.device).manual_seed(0)
    shape = (batch, config.in_channels, config.grid, config.grid)
    x = torch.randn(shape, generator=generator, device=net.device)
    t = torch.full((1,), spec.timestep, dtype=torch.long, device=net.device)
    return x.contiguous(memory_format=torch.channels_last), t
