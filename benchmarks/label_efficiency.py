"""Lesion IoU on real photographs from 10, 30 and 90 masks: shipped backbone against two floors.

The photographs are pad300 (PAD-UFES-20, CC BY 4.0); --pad300 or PAD300 names the folder. All rows
share the probes, their normalisation, their augmentation and the training images:

- colour: multi-scale colour and position, no network;
- untrained: the shipped network's architecture with random weights;
- shipped: the backbone in the package.

Nothing is chosen on the test images: settings were fixed on the train90 part.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from annotation_protocol import scoring
from fedd.backbone import SMALL as SMALL_NET
from fedd.backbone import Backbone, DiffusionUNet
from fedd.segment import SMALL, ProbeSettings, train_probes
from fedd.weights import load_backbone

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
LESION, SKIN = 1, 4
PARTS = {10: {"train10"}, 30: {"train10", "train30"}, 90: {"train10", "train30", "train90"}}
DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "pad300"


class ColourFeatures:
    """Mean colour at five scales and the pixel's place, behind the protocol of a backbone."""

    name, hash, image_size, blocks = "colour", "colour", 128, (0, 1, 2, 3, 4)

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int]
    ) -> dict[int, Tensor]:
        size = images.shape[-1]
        axis = torch.linspace(-1, 1, size)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        place = torch.stack([rows, columns, rows**2 + columns**2]).expand(len(images), -1, -1, -1)
        scales = {0: torch.cat([images, place], 1)}
        scales |= {b: F.avg_pool2d(images, 2**b) for b in blocks if b}
        return {b: scales[b] for b in blocks}


@dataclass(frozen=True)
class Example:
    photograph: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    patient: str
    tone: str


def main() -> None:
    folder = Path(os.environ.get("PAD300", DEFAULT))
    if not (folder / "split.csv").is_file():
        print(f"skipped: no pad300 at {folder}; set PAD300 to its folder")
        return
    test = load(folder, {"test"})
    rows: list[tuple[Backbone, ProbeSettings]] = [
        (
            ColourFeatures(),
            replace(SMALL, features=replace(SMALL.features, blocks=(0, 1, 2, 3, 4))),
        ),
        (DiffusionUNet.random(SMALL_NET), SMALL),
        (load_backbone(), SMALL),
    ]
    print(
        f"{'masks':<7}{'features':<11}{'tone':<9}{'lesion IoU, mean [95%]':<26}{'pooled [95%]':<26}{'Dice':<7}n"
    )
    for count, parts in PARTS.items():
        training = [(e.photograph, e.mask) for e in load(folder, parts)]
        for backbone, settings in rows:
            probes = train_probes(training, backbone, settings, CLASSES)
            predictions = [probes.predict(backbone, [e.photograph])[0].mask for e in test]
            show(count, backbone.name, test, predictions)
            sys.stdout.flush()


def load(folder: Path, parts: set[str]) -> list[Example]:
    examples = []
    with (folder / "split.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] in parts]
    for row in rows:
        with Image.open(folder / "images" / row["img_id"]) as picture:
            photograph = np.array(picture.convert("RGB"))
        with Image.open(folder / "masks" / row["img_id"]) as picture:
            lesion = np.array(picture.convert("L")) > 127
        mask = np.where(lesion, LESION, SKIN).astype(np.uint8)
        examples.append(Example(photograph, mask, row["patient_id"], row["tone"]))
    return examples


def show(count: int, name: str, test: list[Example], predictions: list[NDArray[np.uint8]]) -> None:
    matrices = np.stack(
        [scoring.confusion(e.mask, p, len(CLASSES)) for e, p in zip(test, predictions, strict=True)]
    )
    patients, tones = [e.patient for e in test], [e.tone for e in test]
    valid = np.tile([c in (LESION, SKIN) for c in range(len(CLASSES))], (len(test), 1))
    scored = {"all": scoring.score(matrices, patients, valid, CLASSES)}
    scored |= scoring.score_by_group(matrices, patients, valid, tones, CLASSES)
    for tone, scores in scored.items():
        s = scores["lesion"]
        print(
            f"{count:<7}{name:<11}{tone:<9}{_figure(s.iou_mean, s.iou_mean_ci95):<26}{_figure(s.iou_pooled, s.iou_pooled_ci95):<26}{s.dice_mean:<7.3f}{s.n}"
        )


def _figure(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "too few"
