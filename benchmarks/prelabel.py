"""Prelabel against the way it was before the pipeline: one photograph after the other.

Three networks: one that hands over its members' probabilities at once, so that the rest is measured
(photographs opened and resized, masks chosen, encoded, hashed, stored); one that hands over activations
at once; and the shipped one. Both ways predict the same photographs into copies of one workspace, in
turns. The peer, in `prelabel_before.py`, is this repository's own earlier code. Peak memory is that of a
process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional as F

from benchmarks.predictions import five_classes
from benchmarks.prelabel_before import predict_before
from benchmarks.timing import seconds
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.model.predict import Predictor
from ddiseg.model.train import train_version
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone
from fedd.segment import SMALL, Probes

WIDTH, HEIGHT, QUALITY, SCENES = 600, 450, 92, 40
IMAGES, ROUNDS = 120, 3
#: Photographs of the child processes whose memory is measured.
FEW, MANY = 200, 5_000
#: Accepted masks that the model has learned from.
TRAINED = 12


@dataclass(frozen=True)
class Row:
    """A network, made from that of the workspace, and how many of the photographs it predicts."""

    name: str
    images: int
    of: Callable[[Predictor], Predictor]


ROWS = (
    Row("stand-in network, probabilities on 64 x 64", IMAGES, lambda p: ready(p, 64)),
    Row("stand-in network, probabilities on 256 x 256", IMAGES, lambda p: ready(p, 256)),
    Row("stand-in backbone, probes of small", 40, lambda p: replace(p, net=ReadyBackbone(p.net))),  # type: ignore[arg-type]
    Row("small", 16, lambda p: p),
)


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_workspace(folder / "work", IMAGES)
        for row in ROWS:
            _compare(row, folder)
        for count in (FEW, MANY):
            prepare_workspace(folder / str(count), count)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                base, peak, took = pool.apply(_memory, (folder / str(count),))
            print(
                f"{count:>5,} photographs, stand-in network on 64 x 64: peak {peak:.0f} MB "
                f"({base:.0f} MB before the first), {count / took:.1f} images/s"
            )


def prepare_workspace(root: Path, count: int) -> None:
    """Make a workspace of phantoms, each of other pixels, with a model."""
    photographs, accepted = (root.with_name(f"{root.name} {kind}") for kind in ("jpeg", "masks"))
    for made in (photographs, accepted):
        made.mkdir()
    scenes = [five_classes(seed, WIDTH) for seed in range(min(count, SCENES))]
    for number in range(count):
        scene, rng = scenes[number % len(scenes)], np.random.default_rng(number)
        pixels = np.asarray(scene.image)[:HEIGHT].astype(np.int16)
        pixels += rng.integers(-6, 7, pixels.shape, np.int16)  # grain, as of a camera
        picture = Picture.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(photographs / f"{number:05}.jpg", quality=QUALITY)
        if number < TRAINED:
            mask = np.asarray(scene.mask)[:HEIGHT]
            Picture.fromarray(mask).save(accepted / f"{number:05}.png")
    workspace = Workspace.create(root)
    import_photographs(workspace, photographs)
    import_masks(workspace, accepted, format_name="png", annotator="a", reviewer="b")
    quick = replace(SMALL, steps=60, views=1)
    train_version(workspace, "benchmark", backbone="small", settings=quick)
    workspace.catalogue.close()


def _compare(row: Row, folder: Path) -> None:
    """Print a row: both ways in turns, each time in a fresh copy of the workspace."""
    ways = {"now": Predictor.predict, "before": predict_before}
    took: dict[str, list[float]] = {way: [] for way in ways}
    masks: dict[str, list[NDArray[np.uint8]]] = {}
    for _ in range(ROUNDS + 1):
        for way, predict in ways.items():
            seconds_, masks[way] = _run(row, predict, folder)
            took[way].append(seconds_)
    now, before = (statistics.median(rounds[1:]) for rounds in took.values())
    pairs = list(zip(*masks.values(), strict=True))
    different = sum(int((one != other).sum()) for one, other in pairs)
    pixels = sum(one.size for one, _ in pairs)
    print(
        f"{row.name:<46}{row.images / now:6.1f} images/s, before {row.images / before:5.1f}: "
        f"{before / now:4.1f} x; {different:,} of {pixels:,} pixels differ "
        f"(n = {row.images}, median of {ROUNDS})"
    )


def _run(
    row: Row, predict: Callable[..., object], folder: Path
) -> tuple[float, list[NDArray[np.uint8]]]:
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "work", copy, copy_function=_linked)
    workspace = Workspace.open(copy)
    predictor = row.of(Predictor.load(workspace))
    images = workspace.catalogue.images.select()[: row.images]
    took = seconds(lambda: predict(predictor, images))
    stored = workspace.catalogue.masks.newest_predictions([image.id for image in images])
    masks = [workspace.mask(stored[image.id]) for image in images]
    workspace.catalogue.close()
    return took, masks


def _linked(source: str, target: str) -> None:
    """Copy a file; a photograph, which nothing writes to, by its name only."""
    (os.link if "/images/" in source else shutil.copy2)(source, target)


def _memory(root: Path) -> tuple[float, float, float]:
    """Return megabytes before and at the peak of a prediction of all images, and its seconds."""
    workspace = Workspace.open(root)
    predictor = ready(Predictor.load(workspace), 64)
    images = workspace.catalogue.images.select()
    base = _peak()
    took = seconds(lambda: predictor.predict(images))
    return base, _peak(), took


def _peak() -> float:
    """Return the peak of this process in megabytes; getrusage's starts at that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e3


def ready(predictor: Predictor, grid: int) -> Predictor:
    """Return a predictor whose network hands over probabilities at once."""
    net, probes = ReadyBackbone(predictor.net, imagined=True), ReadyProbes(predictor.probes, grid)
    return replace(predictor, probes=probes, net=net)  # type: ignore[arg-type]


class ReadyBackbone:
    """Hands over the same activations for each image; `imagined`: a few numbers made of the image."""

    side_by_side = 16

    def __init__(self, net: Backbone, *, imagined: bool = False) -> None:
        self.name, self.hash = net.name, net.hash
        self.image_size, self.blocks, self.device = net.image_size, net.blocks, net.device
        rng = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, net.image_size, net.image_size, generator=rng) * 2 - 1
        blocks = SMALL.features.blocks
        self._ready = net.activations(image, SMALL.features.timestep, blocks)
        self._imagined = imagined

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        if self._imagined:
            grey = images.mean(1, keepdim=True)
            return {b: F.adaptive_avg_pool2d(grey, 4).expand(-1, 8, -1, -1) for b in blocks}
        return {b: self._ready[b].expand(len(images), -1, -1, -1) for b in blocks}


class ReadyProbes(Probes):
    """Hands over probabilities of regions, other ones each time, so that no mask is stored twice."""

    def __init__(self, probes: Probes, grid: int) -> None:
        settings = replace(probes.settings, grid=grid, mirrored=False, refined_class=None)
        names = ("classes", "trained", "backbone_name", "backbone_hash", "tensors")
        super().__init__(settings, **{name: getattr(probes, name) for name in names})
        rng = torch.Generator().manual_seed(0)
        coarse = torch.randn(settings.members, len(self.classes), 4, 160, generator=rng)
        coarse += 3 * torch.randn(1, len(self.classes), 4, 160, generator=rng)
        wide = F.interpolate(coarse, (grid, 40 * grid), mode="bicubic", align_corners=False)
        self._wide = wide.softmax(1)

    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        number = int(activations[0].double().sum() * 1e5)  # the same for a photograph each time
        start = number % (39 * size)
        return self._wide[..., start : start + size].contiguous()


if __name__ == "__main__":
    main()
