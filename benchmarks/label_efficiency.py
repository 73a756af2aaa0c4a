"""Lesion IoU on real photographs from 10, 30 and 90 masks: the shipped backbone against five others.

The photographs are pad300 (PAD-UFES-20, CC BY 4.0); PAD300 names the folder. Every row learns from
the same masks. Four use the same probes, normalisation and augmentation:

- colour: multi-scale colour and position, no network;
- untrained: the shipped network's architecture with random weights;
- lite0: EfficientNet-Lite0 trained on ImageNet;
- shipped: the backbone in the package;

and two are UNets trained end to end, with the paper's loss, and with the probes' augmentation:

- unet-lite0: its encoder is EfficientNet-Lite0 trained on ImageNet;
- unet-scratch: a MobileNetV2 encoder and decoder, both from random weights.

Nothing is chosen on the test images: settings were fixed on the train90 part (`--part train90`).
One row at a time: `python -m benchmarks.label_efficiency --rows shipped --masks 10 30`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from annotation_protocol import metrics
from annotation_protocol.estimates import (
    ClassEstimates,
    estimate_classes,
    estimate_classes_by_stratum,
)
from benchmarks import tables
from fedd.backbone import SMALL as SMALL_NET
from fedd.backbone import Backbone, DiffusionUNet
from fedd.baselines import Start, UNetSettings, train_unet
from fedd.baselines.packages import define_missing_operators
from fedd.pretrain.encoder import EfficientNetLite0
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL, ProbeSettings
from fedd.weights.files import load_backbone

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
LESION, SKIN = 1, 4
DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "pad300"

#: The parts of pad300 by number of masks.
PARTS = {10: ("train10",), 30: ("train10", "train30"), 90: ("train10", "train30", "train90")}

#: Optimiser steps of a UNet for any number of masks, and the image size of the shipped backbone.
UNET_STEPS, UNET_SIZE = 200, 128

#: On train90, from 30 masks, unet-lite0 at 1e-3 was as good as at the paper's 1e-4, or slightly better.
UNET_RATE = 1e-3

Photographs = Sequence[NDArray[np.uint8]]
Masks = list[NDArray[np.uint8]]

#: A training: from examples to a function that predicts masks.
Learner = Callable[[Sequence[Example]], Callable[[Photographs], Masks]]


class ColourFeatures:
    """Mean colour at five scales and the pixel's position, as a `Backbone`."""

    name, hash, image_size, blocks = "colour", "colour", 128, (0, 1, 2, 3, 4)
    device = torch.device("cpu")

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        size = images.shape[-1]
        axis = torch.linspace(-1, 1, size)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        position = torch.stack([rows, columns, rows**2 + columns**2]).expand(
            len(images), -1, -1, -1
        )
        scales = {0: torch.cat([images, position], 1)}
        scales |= {b: F.avg_pool2d(images, 2**b) for b in blocks if b}
        return {b: scales[b] for b in blocks}


def _probes_on(backbone: Callable[[], Backbone], settings: ProbeSettings) -> Learner:
    def learn(examples: Sequence[Example]) -> Callable[[Photographs], Masks]:
        net = backbone()
        probes = train_probes(examples, net, settings, CLASSES)
        return lambda photographs: [probes.predict(net, [p])[0].mask for p in photographs]

    return learn


def _unet(encoder: str, start: Start) -> Learner:
    def learn(examples: Sequence[Example]) -> Callable[[Photographs], Masks]:
        batch = UNetSettings.batch_size
        settings = UNetSettings(
            encoder=encoder,
            start=start,
            image_size=UNET_SIZE,
            learning_rate=UNET_RATE,
            epochs=round(UNET_STEPS / -(-len(examples) // batch)),
        )
        return train_unet(examples, (), CLASSES, settings).predict

    return learn


def _blocks(*blocks: int) -> ProbeSettings:
    return replace(SMALL, features=replace(SMALL.features, blocks=blocks))


ROWS: dict[str, Learner] = {
    "colour": _probes_on(ColourFeatures, _blocks(0, 1, 2, 3, 4)),
    "untrained": _probes_on(lambda: DiffusionUNet.random(SMALL_NET), SMALL),
    "lite0": _probes_on(EfficientNetLite0, _blocks(1, 2, 3)),
    "unet-lite0": _unet("efficientnet-lite0", Start.IMAGENET),
    "unet-scratch": _unet("mobilenet_v2", Start.SCRATCH),
    "shipped": _probes_on(load_backbone, SMALL),
}


@dataclass(frozen=True)
class RowScores:
    """The lesion scores of one row at one number of masks, in one tone."""

    masks: int
    row: str
    tone: str
    score: ClassEstimates
    seconds: float  #: of training and prediction

    def cells(self) -> tuple[str, ...]:
        s = self.score
        return (
            str(self.masks),
            self.row,
            self.tone,
            s.iou_mean.text(".3f"),
            s.iou_pooled.text(".3f"),
            s.dice_mean.text(".3f"),
            str(s.n),
            str(s.groups),
            f"{self.seconds:.0f}",
        )


HEADER = ("masks", "row", "tone", "lesion IoU, mean [95%]", "lesion IoU, pooled [95%]")
HEADER += ("lesion Dice, mean [95%]", "n", "patients", "seconds")
WIDTHS = (6, 13, 8, 24, 25, 24, 4, 9, 7)


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    folder = Path(os.environ.get("PAD300", DEFAULT))
    if not (folder / "split.csv").is_file():
        print(f"skipped: no pad300 at {folder}; set PAD300 to its folder")
        return
    define_missing_operators()
    tested = load(folder, (chosen.part,))
    print(f"tested on pad300's {chosen.part} part, {len(tested)} photographs, seed {SMALL.seed}")
    print(tables.line(HEADER, WIDTHS))
    found: list[RowScores] = []
    for count in chosen.masks:
        training = load(folder, PARTS[count])
        for row in chosen.rows:
            scores = measure(row, count, training, tested)
            found += scores
            print("\n".join(tables.line(f.cells(), WIDTHS) for f in scores))
            sys.stdout.flush()
            if chosen.out:
                tables.write(chosen.out, HEADER, [f.cells() for f in found])


def load(folder: Path, parts: Sequence[str]) -> list[Example]:
    with (folder / "split.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] in parts]
    examples = []
    for row in rows:
        with Image.open(folder / "images" / row["img_id"]) as picture:
            photograph = np.array(picture.convert("RGB"))
        with Image.open(folder / "masks" / row["img_id"]) as picture:
            lesion = np.array(picture.convert("L")) > 127
        mask = np.where(lesion, LESION, SKIN).astype(np.uint8)
        examples.append(Example(photograph, mask, row["patient_id"], row["tone"]))
    return examples


def measure(
    row: str, count: int, training: Sequence[Example], tested: Sequence[Example]
) -> list[RowScores]:
    """Return the scores of a row trained on `training`, of all tones together, then of each."""
    started = time.perf_counter()
    predicted = ROWS[row](training)([e.photograph for e in tested])
    seconds = time.perf_counter() - started
    matrices = np.stack(
        [metrics.confusion(e.mask, p, len(CLASSES)) for e, p in zip(tested, predicted, strict=True)]
    )
    patients, tones = [e.patient for e in tested], [e.tone for e in tested]
    valid = np.tile([c in (LESION, SKIN) for c in range(len(CLASSES))], (len(tested), 1))
    scored = {"all": estimate_classes(matrices, patients, valid, CLASSES)}
    scored |= estimate_classes_by_stratum(matrices, patients, valid, tones, CLASSES)
    return [
        RowScores(count, row, tone, scores["lesion"], seconds) for tone, scores in scored.items()
    ]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.label_efficiency")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--masks", nargs="+", type=int, choices=PARTS)
    parser.add_argument(
        "--part", choices=("test", "train90"), default="test", help="train90 is for choosing"
    )
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    chosen = parser.parse_args(arguments)
    if chosen.masks is None:
        chosen.masks = [n for n, parts in PARTS.items() if chosen.part not in parts]
    if learned := [n for n in chosen.masks if chosen.part in PARTS[n]]:
        parser.error(f"{chosen.part} can't test what learned from it: leave out --masks {learned}")
    return chosen


if __name__ == "__main__":
    main(sys.argv[1:])
