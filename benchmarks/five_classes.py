"""IoU of each class and tone at 5, 10, 15 and 20 % of the data: FEDD against the paper's five UNets.

The set-up of the paper's figure 4 with its own splits, but on phantoms: the masks are the published
ones (sDDI: real shapes, sizes and places), and the photographs over them are rendered, for DDI's are
not public. SDDI names the folder of masks. Before reading a number:

- the results are on phantoms, not on patients;
- the shipped backbone was trained on phantoms (of other shapes), which is an advantage here;
- the UNets start from random weights, not ImageNet's as in the paper, and learn for few steps on
  small images, both printed; no early stopping, so the paper's 15 validation masks go unused;
- tones of test images are the published ones; training images get the tones in turn, because the
  published masks have none and the tones are equally frequent.

`--quick` shows in a minute that everything runs; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import metrics
from annotation_protocol.estimates import Sample, estimate_classes
from annotation_protocol.phantoms.over_masks import render_over
from annotation_protocol.phantoms.phantoms import TONES
from benchmarks import tables
from fedd import paper
from fedd.baselines import Start, UNetSettings, train_unet
from fedd.baselines.packages import define_missing_operators
from fedd.baselines.unets import PAPER_ENCODERS
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL
from fedd.weights.files import load_backbone

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
PERCENTS = (5, 10, 15, 20)
FEDD = "fedd"
ROWS = (FEDD, *PAPER_ENCODERS)
SEED = 0
DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "sddi" / "ddi_labels"

HEADER = ("percent", "row", "tone", "n", "all classes, mean IoU [95%]")
HEADER += (*(f"{name}, mean IoU [95%] n" for name in CLASSES), "seconds")
WIDTHS = (7, 15, 6, 4, 27, *(31 for _ in CLASSES), 7)


@dataclass(frozen=True)
class Effort:
    """Size of the training of each row."""

    size: int  #: width and height in pixels of a UNet's image
    steps: int  #: of a UNet
    rate: float  #: learning rate of a UNet
    probe_steps: int
    probe_members: int
    percents: tuple[int, ...]
    test_per_tone: int | None  #: None: all


FULL = Effort(96, 120, 1e-3, SMALL.steps, SMALL.members, PERCENTS, None)
QUICK = Effort(32, 4, 1e-3, 40, 2, PERCENTS[:1], 4)


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    folder = Path(os.environ.get("SDDI", DEFAULT))
    if not folder.is_dir():
        print(f"skipped: no published masks at {folder}; set SDDI to the folder ddi_labels")
        return
    define_missing_operators()
    effort = QUICK if chosen.quick else replace(FULL, steps=chosen.steps)
    masks = published_masks(folder)
    tested = test_split(masks, effort.test_per_tone)
    print(
        "real geometry (published sDDI masks), rendered appearance; "
        f"{len(tested)} test images, seed {SEED}"
    )
    print(
        f"UNets from scratch: {effort.size} x {effort.size} pixels (the paper: 256 x 256, ImageNet "
        f"weights), {effort.steps} steps of {UNetSettings.batch_size} images at {effort.rate:g}"
    )
    print(tables.line(HEADER, WIDTHS))
    found: list[tuple[str, ...]] = []
    for percent in chosen.percents or effort.percents:
        training = training_split(masks, percent)
        for row in chosen.rows:
            lines = measure(row, percent, training, tested, effort)
            found += lines
            print("\n".join(tables.line(cells, WIDTHS) for cells in lines))
            sys.stdout.flush()
            if chosen.out:
                tables.write(chosen.out, HEADER, found)


def published_masks(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the published masks by the photograph's stem, (256, 256) uint8; some files are duplicates."""
    return {
        path.stem: np.load(path, allow_pickle=False).astype(np.uint8)
        for path in sorted(folder.rglob("*.npy"))
    }


def training_split(masks: dict[str, NDArray[np.uint8]], percent: int) -> list[Example]:
    """Return the paper's training masks of a percentage with rendered photographs, a third in each tone."""
    stems: list[str] = []
    for smaller in (
        p for p in PERCENTS if p <= percent
    ):  # the subsets are nested, and so are the tones
        stems += sorted(set(paper.splits()["subsets"][f"fedd-2023-{smaller}"]) - set(stems))
    return [_phantom(masks, stem, TONES[i % len(TONES)]) for i, stem in enumerate(stems)]


def test_split(masks: dict[str, NDArray[np.uint8]], per_tone: int | None) -> list[Example]:
    tones = paper.splits()["test_tones"]
    return [_phantom(masks, stem, tone) for tone in TONES for stem in tones[tone][:per_tone]]


def measure(
    row: str, percent: int, training: Sequence[Example], tested: Sequence[Example], effort: Effort
) -> list[tuple[str, ...]]:
    """Return the cells of all tones together, then of each."""
    started = time.perf_counter()
    predicted = _predicted(row, training, tested, effort)
    seconds = f"{time.perf_counter() - started:.0f}"
    matrices = np.stack(
        [metrics.confusion(e.mask, p, len(CLASSES)) for e, p in zip(tested, predicted, strict=True)]
    )
    tones = np.array([e.tone for e in tested])
    parts = {"all": tones != ""} | {tone: tones == tone for tone in TONES}
    names = np.array([e.patient for e in tested])
    return [
        (str(percent), row, tone, *_estimates(matrices[part], names[part].tolist()), seconds)
        for tone, part in parts.items()
    ]


def _predicted(
    row: str, training: Sequence[Example], tested: Sequence[Example], effort: Effort
) -> list[NDArray[np.uint8]]:
    photographs = [e.photograph for e in tested]
    if row == FEDD:
        backbone = load_backbone("small")
        settings = replace(SMALL, steps=effort.probe_steps, members=effort.probe_members)
        probes = train_probes(training, backbone, settings, CLASSES)
        return [probes.predict(backbone, [p])[0].mask for p in photographs]
    settings = UNetSettings(
        encoder=row,
        start=Start.SCRATCH,
        image_size=effort.size,
        learning_rate=effort.rate,
        epochs=max(1, round(effort.steps * UNetSettings.batch_size / len(training))),
        seed=SEED,
    )
    return train_unet(training, (), CLASSES, settings).predict(photographs)


def _estimates(matrices: NDArray[np.int64], names: list[str]) -> tuple[str, ...]:
    """Return n, the mean over each image's classes, and each class with its number of images."""
    valid = np.ones((len(names), len(CLASSES)), np.bool_)
    scores = estimate_classes(matrices, names, valid, CLASSES)
    overall = np.nanmean(metrics.iou_per_class(matrices), axis=1)
    every = Sample(overall, names).estimate().text(".3f")
    each = (f"{s.iou_mean.text('.3f')} {s.n}" for s in scores.values())
    return str(len(names)), every, *each


def _phantom(masks: dict[str, NDArray[np.uint8]], stem: str, tone: str) -> Example:
    rng = np.random.default_rng((SEED, int(stem)))
    return Example(render_over(masks[stem], tone, rng), masks[stem], stem, tone)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.five_classes")
    parser.add_argument("--quick", action="store_true", help="in a minute, numbers without meaning")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--percents", nargs="+", type=int, choices=PERCENTS)
    parser.add_argument("--steps", type=int, default=FULL.steps, help="of a UNet")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
