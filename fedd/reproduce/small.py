"""A small reproduction on phantoms, in minutes: it shows that everything runs, and no result.

Phantoms (`annotation_protocol.phantoms`) replace DDI, the shipped backbone replaces OpenAI's, and the
networks are trained on small images for an epoch or two. Nothing can be compared with the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotation_protocol.csv_files import csv_text
from annotation_protocol.phantoms.phantoms import DIAGNOSES, TONES, draw_scene, render
from fedd.baselines import CNNSettings, Recipe, Start, UNetSettings
from fedd.dataset import DDI_TABLE
from fedd.features import FeatureSpec
from fedd.files import write_file
from fedd.malignancy.classifier import SMALL_BLOCK, SMALL_TIMESTEP, ClassifierSettings
from fedd.reproduce.plan import Plan, Starts
from fedd.segment import SMALL

#: Phantoms of each tone: in the fractions, the validation split and the test, and without a mask.
LEARNED, VALIDATED, TESTED, UNMASKED = {5: 2, 10: 4, 15: 6, 20: 8}, 2, 6, 12

#: Phantoms of each tone in the validation and the balanced test of classification: enough of each class for
#: intervals.
DIAGNOSED = 8

#: Width and height of a phantom in pixels.
SIZE = 128

_SEED = 7

#: DDI's code of each tone group.
_CODES = dict(zip(TONES, (12, 34, 56), strict=True))


def small_plan(seeds: Sequence[int] = (0,), recipe: Recipe = Recipe.PAPER) -> Plan:
    """Return all cells of the paper, with settings that compute each in seconds.

    `recipe` is the baselines', with fewer epochs and smaller images.
    """
    features = FeatureSpec(SMALL.features.blocks, SMALL.features.timestep, normalise=True)
    probes = replace(
        SMALL, features=features, views=1, steps=150, mirrored=False, refined_class=None
    )
    return Plan(
        probes=probes,
        classifiers={f: ClassifierSettings(SMALL_BLOCK, SMALL_TIMESTEP) for f in LEARNED},
        unet=UNetSettings.of(recipe, image_size=64, epochs=2),
        cnn=CNNSettings.of(recipe, image_size=32, epochs=20 if recipe is Recipe.PAPER else 1),
        deepderm=CNNSettings.of(recipe, model="deepderm", image_size=75, epochs=1),
        starts=Starts(Start.SCRATCH),
        ablation=replace(probes, members=1, views=0, steps=40),
        timesteps=(0, 50),
        seeds=tuple(seeds),
        fractions=tuple(LEARNED),
        small=True,
    )


def write_phantoms(photographs: Path, masks: Path) -> dict[str, Any]:
    """Write phantoms in DDI's layout and their masks; returns their split, as `fedd.paper.splits()`.

    Existing files are kept. Tones and labels alternate; the label is not visible in the image, so no
    classifier can be good here.
    """
    photographs.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    masked = len(TONES) * (max(LEARNED.values()) + VALIDATED + TESTED)
    count = masked + len(TONES) * UNMASKED
    rows = [_write_phantom(photographs, masks, n, masked=n < masked) for n in range(count)]
    header = ("", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease")
    table = csv_text([header, *((i, i + 1, *row) for i, row in enumerate(rows))])
    write_file(photographs / DDI_TABLE, table)
    return _split([Path(row[0]).stem for row in rows])


def _split(stems: Sequence[str]) -> dict[str, Any]:
    turns = len(TONES)
    learned, validated = turns * max(LEARNED.values()), turns * VALIDATED
    test = list(stems[learned + validated :][: turns * TESTED])
    subsets = {f"fedd-2023-{f}": list(stems[: turns * n]) for f, n in LEARNED.items()}
    subsets["fedd-2023-val"] = list(stems[learned : learned + validated])
    subsets["fedd-2023-test"] = test
    return {
        "subsets": subsets,
        "test_tones": {tone: test[i::turns] for i, tone in enumerate(TONES)},
        "photographs": list(stems),
        "classification": {
            "validation_per_tone": DIAGNOSED,
            "test_per_tone": DIAGNOSED,
            "test_masks": [],
        },
    }


def _write_phantom(
    photographs: Path, masks: Path, number: int, *, masked: bool
) -> tuple[str, int, str, str]:
    """Write a phantom; returns its row in the table: file, tone, malignant, diagnosis."""
    tone = TONES[number % len(TONES)]
    malignant = number // len(TONES) % 2 == 1
    name = f"{number + 1:06d}.png"
    rng = np.random.default_rng((_SEED, number))
    scene = draw_scene(rng, tone)
    if not ((photographs / name).is_file() and (not masked or (masks / name).is_file())):
        phantom = render(scene, rng, SIZE)
        if masked:
            Image.fromarray(phantom.mask).save(masks / name)
        Image.fromarray(phantom.image).save(photographs / name)
    diagnosis = DIAGNOSES[scene.kind][int(malignant)][0]
    return name, _CODES[tone], str(malignant).upper(), diagnosis
