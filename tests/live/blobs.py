"""A workspace of small random pictures, each with a prediction: made in a second, not looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from ddiseg.catalogue import NewMask, NewModelVersion
from ddiseg.catalogue.tables import Image
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.live.commands import Command

SIDE = 64  #: of the pictures, pixels
LESION, MARKER, SKIN = 1, 2, 4


def blob_workspace(root: Path, n: int, seed: int) -> Path:
    """A workspace at `root` of `n` pictures, with a square of lesion on skin predicted on each."""
    rng = np.random.default_rng(seed)
    pictures = root.with_name(f"{root.name}-pictures")
    pictures.mkdir(parents=True)
    for number in range(n):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(pictures / f"{number:03}.png")
    for words in (("init",), ("import", pictures)):
        assert Command(root, *words).done().answer
    workspace = Workspace.open(root)

    def mask_of(_image: Image) -> NDArray[np.uint8]:
        mask = np.full((SIDE, SIDE), SKIN, np.uint8)
        down, across = rng.integers(0, SIDE // 2, 2)
        mask[down : down + 20, across : across + 20] = LESION
        return mask

    add_predictions(workspace, mask_of)
    workspace.catalogue.close()
    return root


def add_predictions(workspace: Workspace, mask_of: Callable[[Image], NDArray[np.uint8]]) -> None:
    """Predictions of all images by a model that nobody can load."""
    file = b"no probes: the predictions are made up, not learned"
    digest = hashlib.sha256(file).hexdigest()
    workspace.store.put(Kind.MODEL, digest, file)
    new = NewModelVersion(digest, "none", "b" * 64, {}, [], {"absent_classes": []}, "1.0")
    model = workspace.catalogue.models.add(new, "tester")
    workspace.catalogue.masks.add_predictions(
        [
            NewMask(
                image_id=image.id,
                content_hash=workspace.store_mask(mask_of(image)),
                width=image.width,
                height=image.height,
                mapping="same",
                classes=[0, 1, 2, 3, 4],
                protocol_version="1.0",
                model_version_id=model.id,
                uncertainty=0.01,
            )
            for image in workspace.catalogue.images.select()
        ]
    )
