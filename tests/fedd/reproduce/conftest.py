"""A plan that is done in a blink: an untrained tiny backbone on phantoms."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedd.backbone import DiffusionUNet
from fedd.baselines import CNNSettings, Start, UNetSettings
from fedd.dataset import read_dataset
from fedd.malignancy.classifier import ClassifierSettings
from fedd.reproduce import PaperSplit, Plan, Starts, Workbench, split, write_phantoms
from fedd.reproduce.plan import FEDD
from tests.fedd.conftest import QUICK

#: Blocks of the classifier at each fraction, as the paper has other ones at each.
BLOCKS = {5: 2, 20: 4}

TINY_PLAN = Plan(
    probes=replace(QUICK, steps=20),
    classifiers={f: ClassifierSettings(b, 10, epochs=5) for f, b in BLOCKS.items()},
    unet=UNetSettings(image_size=32, epochs=1),
    cnn=CNNSettings(image_size=32, epochs=1),
    deepderm=CNNSettings(model="deepderm", image_size=75, epochs=1),
    starts=Starts(Start.SCRATCH),
    ablation=replace(QUICK, steps=20),
    fractions=(5, 20),
    segmenters=(FEDD,),
    classified=(FEDD,),
    small=True,
)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photographs` and `masks`, to be left as they are."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "photographs", folder / "masks")
    return folder


@pytest.fixture(scope="session")
def parts(phantoms: Path) -> PaperSplit:
    return parts_of(phantoms)


@pytest.fixture
def workbench(parts: PaperSplit, tiny: DiffusionUNet) -> Callable[[Path], Workbench]:
    """A workbench of the tiny plan in a folder."""
    return lambda folder: Workbench(TINY_PLAN, parts, tiny, folder)


@pytest.fixture
def own_phantoms(phantoms: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    folder = tmp_path / "own"
    shutil.copytree(phantoms, folder)
    return folder


def parts_of(folder: Path) -> PaperSplit:
    """The parts of phantoms that are written into `folder`."""
    splits = write_phantoms(folder / "photographs", folder / "masks")
    items = read_dataset(folder / "photographs", masks=folder / "masks")
    return split(items, splits)
