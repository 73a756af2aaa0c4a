"""Training 5 probes against ddpm-segmentation's loop, on the same activations, for the same IoU.

The peer is written from `train_interpreter.py` of yandex-research/ddpm-segmentation (Baranchuk et
al., ICLR 2022), itself from DatasetGAN: all pixels of all images up-sampled and in memory, one
member after the other, a DataLoader with shuffled batches of 64 pixels, Adam 1e-3; from the fifth
epoch on it stops after 50 consecutive batches without a new best loss. Its mask is the majority of
the members' masks.

Both read blocks 1, 3 and 5 of the shipped backbone at t = 50, without views. Then ours as in the loop:
training on 120 masks with the shipped settings, and the whole of `ddiseg refresh` in a workspace with
one mask added to 30, continuing from the previous version. The photographs are phantoms (rendered), so
the IoU shows only that both give the same.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from annotation_protocol import metrics
from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from benchmarks.refresh_and_gate import accept
from benchmarks.timing import seconds
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.rendered import render_ddi
from ddiseg.model.train import train_version
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.cache import FeatureCache
from fedd.features import prepare
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL, ProbeSettings
from fedd.weights.files import load_unet

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
IMAGES, TEST_IMAGES, SEED = 24, 24, 0

#: Masks in the workspace before one is added.
BEFORE = 30

#: The loop's own numbers.
BATCH, RATE, FREE_EPOCHS, LAST_EPOCH, PATIENCE = 64, 1e-3, 4, 100, 50

#: Without what the peer does not have: views, mirrored image, refinement pass, standardised activations.
PLAIN = replace(
    SMALL,
    features=replace(SMALL.features, normalise=False),
    views=0,
    mirrored=False,
    refined_class=None,
    grid=None,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), phantoms(IMAGES, SEED), PLAIN)
        _fill(Path(folder), phantoms(TEST_IMAGES, SEED + 1), PLAIN)
        ours, peer = _alone(_ours, folder), _alone(_peer, folder)
        ratio, less = peer["seconds"] / ours["seconds"], peer["gigabytes"] / ours["gigabytes"]
        print(
            f"{IMAGES} phantoms of {_size()} x {_size()}, seed {SEED}, {torch.get_num_threads()} threads; mean IoU of the {len(CLASSES)} classes, pooled over {TEST_IMAGES} others"
        )
        print(f"{'':<20}{'seconds':>9}{'peak GB':>9}{'mean IoU':>10}")
        for name, found in (("ours", ours), ("train_interpreter", peer)):
            print(
                f"{name:<20}{found['seconds']:>9.1f}{found['gigabytes']:>9.2f}{found['iou']:>10.3f}"
            )
        print(
            f"{ratio:.0f} x faster (goal 50), {less:.1f} x less memory, IoU {ours['iou'] - peer['iou']:+.3f} (goal: within 0.01, or better)\n"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = _alone(_in_the_loop, folder)
        print(
            f"120 masks, activations cached: {found['many']:.0f} s (goal 300), peak {found['gigabytes']:.2f} GB (goal 4); {found['fill']:.0f} s with the backbone's passes"
        )
    one_more_mask()


def one_more_mask() -> None:
    """Measure a workspace's whole refresh, as `ddiseg refresh` runs it, after one more mask."""
    with tempfile.TemporaryDirectory() as folder:
        _render(Path(folder))
        found = _alone(_refresh, folder)
        print(
            f"{BEFORE} + 1 masks, the whole refresh, going on from the version before: {found['seconds']:.1f} s (goal 10), {found['training']:.1f} s of it training; all from scratch, activations cached: {found['scratch']:.1f} s"
        )


@lru_cache
def shipped() -> DiffusionUNet:
    return load_unet("small")


def phantoms(count: int, seed: int) -> list[Example]:
    """Render photographs with masks, tones in turn, each of its own patient."""
    found = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        tone = TONES[number % len(TONES)]
        phantom = render(draw_scene(rng, tone), rng)
        found.append(Example(phantom.image, phantom.mask, f"{seed}-{number}", tone))
    return found


def train_interpreter(pixels: Tensor, labels: Tensor, members: int) -> list[nn.Sequential]:
    """Run the peer's loop on pixels (P, C) float32 with labels (P,)."""
    loader = DataLoader(TensorDataset(pixels, labels), batch_size=BATCH, shuffle=True)
    return [_train_member(loader, pixels.shape[1]) for _ in range(members)]


def _train_member(loader: DataLoader[Any], channels: int) -> nn.Sequential:
    member = _pixel_classifier(channels)
    optimiser = torch.optim.Adam(member.parameters(), lr=RATE)
    best, since_best = float("inf"), 0
    for epoch in range(LAST_EPOCH):
        for pixels, labels in loader:
            optimiser.zero_grad()
            logits = member(pixels)
            loss = F.cross_entropy(logits, labels)
            (logits.argmax(1) == labels).float().mean()  # it counts the right ones at every step
            loss.backward()
            optimiser.step()
            if epoch < FREE_EPOCHS:
                continue
            if loss.item() < best:
                best, since_best = loss.item(), 0
            else:
                since_best += 1
            if since_best > PATIENCE:
                return member.eval()
    return member.eval()


def _pixel_classifier(channels: int) -> nn.Sequential:
    member = nn.Sequential(
        nn.Linear(channels, 128),
        nn.ReLU(),
        nn.BatchNorm1d(128),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.BatchNorm1d(32),
        nn.Linear(32, len(CLASSES)),
    )
    for layer in member:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)
    return member


def _ours(folder: str) -> dict[str, float]:
    net, cache = shipped(), FeatureCache(Path(folder))
    examples, test = phantoms(IMAGES, SEED), phantoms(TEST_IMAGES, SEED + 1)
    started = time.perf_counter()
    probes = train_probes(examples, net, PLAIN, CLASSES, cache=cache)
    seconds, peak = time.perf_counter() - started, _peak()
    masks = [p.mask for p in probes.predict(net, [e.photograph for e in test], cache)]
    return {"seconds": seconds, "gigabytes": peak, "iou": _mean_iou(test, masks)}


def _peer(folder: str) -> dict[str, float]:
    torch.manual_seed(SEED)
    examples, test = phantoms(IMAGES, SEED), phantoms(TEST_IMAGES, SEED + 1)
    started = time.perf_counter()
    pixels = torch.cat([_upsampled(folder, e) for e in examples])
    labels = torch.cat([torch.from_numpy(_small(e.mask)).flatten().long() for e in examples])
    members = train_interpreter(pixels, labels, PLAIN.members)
    seconds, peak = time.perf_counter() - started, _peak()
    masks = []
    with torch.inference_mode():
        for example in test:
            labels_of_members = torch.stack(
                [m(_upsampled(folder, example)).argmax(1) for m in members]
            )
            mask = labels_of_members.mode(0).values.to(torch.uint8).numpy()
            masks.append(_to_size(mask.reshape(_size(), _size()), example.mask.shape))
    return {"seconds": seconds, "gigabytes": peak, "iou": _mean_iou(test, masks)}


def _in_the_loop(folder: str) -> dict[str, float]:
    """Training with the shipped settings, as `ddiseg refresh` does it."""
    net, cache = shipped(), FeatureCache(Path(folder))
    examples = phantoms(120, SEED)

    fill, many = (
        seconds(lambda: train_probes(examples, net, SMALL, CLASSES, cache=cache)) for _ in range(2)
    )
    return {"fill": fill, "many": many, "gigabytes": _peak()}


def _render(folder: Path) -> None:
    """Render outside the measured process, because rendering starts processes itself."""
    render_ddi(folder / "ddi", folder / "masks", BEFORE + 1, SEED)


def _refresh(name: str) -> dict[str, float]:
    folder = Path(name)
    workspace = Workspace.create(folder / "work")
    import_photographs(workspace, folder / "ddi")
    *before, last = sorted((folder / "masks").iterdir())
    accept(workspace, before, folder / "before")
    earlier = train_version(workspace, "benchmark").version
    accept(workspace, [last], folder / "last")
    took = seconds(lambda: train_version(workspace, "benchmark"))
    metrics = workspace.catalogue.models.current().metrics
    assert metrics["went_on_from"] == earlier.name
    scratch = seconds(lambda: train_version(workspace, "benchmark", from_scratch=True))
    return {"seconds": took, "training": metrics["seconds"], "scratch": scratch}


def _fill(folder: Path, examples: list[Example], settings: ProbeSettings) -> None:
    net, cache = shipped(), FeatureCache(folder)
    for example in examples:
        image = prepare(example.photograph, net.image_size)[None]
        cache.extract(net, image, settings.features)


def _upsampled(folder: str, example: Example) -> Tensor:
    """Return every channel at every pixel, (S * S, C) float32."""
    net = shipped()
    image = prepare(example.photograph, net.image_size)[None]
    blocks = FeatureCache(Path(folder)).extract(net, image, PLAIN.features)
    up = [F.interpolate(b, image.shape[2:], mode="bilinear", align_corners=False) for b in blocks]
    return torch.cat(up, 1)[0].flatten(1).T.contiguous()


def _small(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _to_size(mask, (_size(), _size()))


def _to_size(mask: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    found = F.interpolate(torch.from_numpy(mask)[None, None].float(), tuple(shape), mode="nearest")
    return found[0, 0].to(torch.uint8).numpy()


def _size() -> int:
    return shipped().image_size


def _mean_iou(test: list[Example], masks: list[NDArray[np.uint8]]) -> float:
    total = sum(
        metrics.confusion(e.mask, m, len(CLASSES)) for e, m in zip(test, masks, strict=True)
    )
    return float(np.nanmean(metrics.iou_per_class(np.asarray(total))))


def _alone(job: Callable[[str], dict[str, float]], folder: str) -> dict[str, float]:
    """Run a job in its own process, so that the peak memory is that of the job."""
    with multiprocessing.get_context("spawn").Pool(1, _threads) as pool:
        return pool.apply(job, (folder,))


def _threads() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
