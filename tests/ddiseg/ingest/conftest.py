"""Small photographs and folders of them, made by code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Make: TypeAlias = Callable[..., NDArray[np.uint8]]
Folder: TypeAlias = Callable[..., Path]


@pytest.fixture(scope="session")
def pixels() -> Make:
    """(H, W, 3) uint8 that differ by seed, to the eye of a perceptual hash too."""

    def make(seed: int = 0, width: int = 24, height: int = 16) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height)))

    return make


@pytest.fixture
def folder(tmp_path: Path, pixels: Make) -> Folder:
    """Make a folder of PNGs, each with a seed of its own, by their paths."""

    def make(*paths: str, name: str = "photos", first_seed: int = 0) -> Path:
        root = tmp_path / name
        for seed, path in enumerate(paths, first_seed):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(seed)).save(root / path)
        return root

    return make


@pytest.fixture
def photos(folder: Folder) -> Path:
    """A folder of two photographs."""
    return folder("a.png", "b.png")
