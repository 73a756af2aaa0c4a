"""What a job will cost on this machine: floating-point operations, time and disk, before it starts.

Operations (FLOP) are counted, a multiplication and an addition as two. The time is that of the same number
of operations at the speed of one timed batch of the backbone: an estimate, mostly good to a factor of two.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from fedd.backbone import Placed
from fedd.network.architecture import Architecture
from fedd.network.devices import first_batch
from fedd.network.throughput import flop_per_image

#: Seconds of a first batch above which it counts itself, without another one after the warm-up.
_LONG = 5.0


@dataclass(frozen=True)
class Step:
    """A part of a job: what passes through a network, and the operations."""

    what: str
    how: str
    flop: float
    at_most: bool = False  #: training with early stopping mostly ends sooner


@dataclass(frozen=True)
class Cost:
    """The steps of a job, and the bytes of activations that it keeps or needs for a while."""

    steps: Sequence[Step]
    kept_bytes: int = 0
    scratch_bytes: int = 0

    @property
    def flop(self) -> float:
        return sum(step.flop for step in self.steps)

    def lines(self, backbone: Placed, folder: Path) -> list[str]:
        """Return the cost as lines of text; runs one batch to learn the device's speed."""
        if not self.steps:
            return ["Nothing is left to compute."]
        widths = [max(len(step.what) for step in self.steps), max(len(s.how) for s in self.steps)]
        lines = ["To be computed:"]
        for step in self.steps:
            limit = "at most " if step.at_most else ""
            columns = f"{step.what:<{widths[0]}}  {step.how:<{widths[1]}}"
            lines.append(f"  {columns}  {limit}{operations(step.flop)}")
        speed = measured_speed(backbone)
        exact = sum(step.flop for step in self.steps if not step.at_most)
        most = sum(step.flop for step in self.steps if step.at_most)
        times = [f"about {duration(exact / speed.flop_per_second)}"] if exact else []
        if most:
            at_most = f"at most {duration(most / speed.flop_per_second)}"
            times.append(f"the trainings {at_most} more" if exact else at_most)
        lines.append(f"Time: {', '.join(times)}, {speed}.")
        return [*lines, *self._disk(folder)]

    def _disk(self, folder: Path) -> list[str]:
        if not self.kept_bytes + self.scratch_bytes:
            return []
        there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        free = shutil.disk_usage(there).free
        parts = []
        if self.kept_bytes:
            parts.append(f"{size(self.kept_bytes)} of activations are kept")
        if self.scratch_bytes:
            more = " more" if parts else ""
            parts.append(f"{size(self.scratch_bytes)}{more} while the grid is computed")
        short = ": it will not hold them" if free < self.kept_bytes + self.scratch_bytes else ""
        return [f"Disk: {', '.join(parts)}; {size(free)} are free{short}."]


@dataclass(frozen=True)
class Speed:
    """The speed of a timed batch of a backbone."""

    flop_per_second: float
    images: int
    seconds: float
    device: str

    def __str__(self) -> str:
        return (
            f"at the {operations(self.flop_per_second)}/s of one timed batch "
            f"({self.images} images in {self.seconds:.2g} s on {self.device})"
        )


def measured_speed(backbone: Placed) -> Speed:
    """Time one batch of noise through all blocks of a backbone, after a warm-up if that was short."""
    devices = backbone.devices
    count = first_batch(backbone.config, devices[0])[0] * len(devices)
    size = backbone.image_size
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    last = backbone.last_blocks

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            backbone.activations(images, 0, last)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds = run()
    if seconds < _LONG or devices[0].type == "cuda":
        seconds = run()
    flop = count * flop_of(backbone.config, *last)
    return Speed(flop / seconds, count, seconds, ", ".join(map(str, devices)))


@cache
def flop_of(config: Architecture, *blocks: int) -> int:
    """Return the operations of one image up to the last of some blocks."""
    return flop_per_image(config, blocks)


@cache
def activation_bytes(config: Architecture, block: int) -> int:
    """Return the bytes of one image's activations of a block in float16."""
    return 2 * config.trace((block,))[block].numel()


def counted(count: int, what: str) -> str:
    """Return a number with its noun, such as `1 cell` or `2 cells`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def operations(flop: float) -> str:
    """Return a number of operations with its unit, such as `5.6 PFLOP`."""
    for unit, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")):
        if flop >= unit:
            return f"{flop / unit:.3g} {name}"
    return f"{flop / 1e9:.3g} GFLOP"


def size(count: float) -> str:
    """Return a number of bytes with its unit."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Return a length of time in its largest fitting unit, such as `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"
