"""Networks small enough to run in a blink, and pictures whose classes are plain to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from fedd.backbone import DiffusionUNet, UNetConfig
from fedd.cli.main import cli
from fedd.features import FeatureSpec
from fedd.segment import Probes, ProbeSettings
from fedd.weights.files import save_backbone

#: As many decoder blocks as the shipped network, a hundredth of its work.
TINY = UNetConfig(
    image_size=32,
    patch=2,
    model_channels=32,
    channel_mult=(1, 1, 1, 1),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_head_channels=16,
    learn_sigma=False,
)

CLASSES = ("background", "lesion", "marker", "ruler", "skin")

QUICK = ProbeSettings(
    FeatureSpec(blocks=(3, 5), timestep=10, normalise=True),
    members=2,
    views=1,
    pixels_per_image=256,
    steps=60,
    batch_size=128,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors: more threads cost more than they give."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> DiffusionUNet:
    return DiffusionUNet.random(TINY, seed=1)


@pytest.fixture(scope="session")
def tiny_file(tiny: DiffusionUNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_backbone(path, "tiny", TINY, tiny.net.state_dict(), {})
    return path


def fedd(*words: object) -> Result:
    """`fedd`, as it is typed."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def like(probes: Probes, settings: ProbeSettings | None = None, **given: Any) -> Probes:
    """The members of other probes, without their calibration, record and refiner."""
    names = ("classes", "trained", "backbone_name", "backbone_hash", "tensors")
    return Probes(
        settings or probes.settings, **{**{n: getattr(probes, n) for n in names}, **given}
    )


def spot(
    seed: int, size: tuple[int, int] = (40, 40)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A dark disc (lesion) on light skin, and its mask."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    row, column = height * rng.uniform(0.35, 0.65), width * rng.uniform(0.35, 0.65)
    inside = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < rng.uniform(0.15, 0.25) ** 2
    image = np.where(inside[..., None], (90, 50, 40), (220, 180, 160)) + rng.normal(
        0, 5, (*size, 3)
    )
    return image.clip(0, 255).astype(np.uint8), np.where(inside, 1, 4).astype(np.uint8)


def mole(seed: int, malignant: bool, size: tuple[int, int] = (40, 40)) -> NDArray[np.uint8]:
    """A spot on skin: plain and dark where benign, speckled where malignant."""
    image, mask = spot(seed, size)
    if not malignant:
        return image
    speckles = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
    return np.where((mask == 1)[..., None], speckles, image)
