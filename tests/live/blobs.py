"""A workspace of small random pictures, each with a prediction: made in a second, not looked at."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from ddiseg.catalogue import NewMask, NewModelVersion
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
    probes = b"nobody loads them"
    digest = hashlib.sha256(probes).hexdigest()
    workspace.store.put(Kind.MODEL, digest, probes)
    model = workspace.catalogue.models.add(
        NewModelVersion(digest, "none", "b" * 64, {}, [], {}, "1.0"), "tester"
    )
    predictions = []
    for image in workspace.catalogue.images.select():
        mask = np.full((SIDE, SIDE), SKIN, np.uint8)
        down, across = rng.integers(0, SIDE // 2, 2)
        mask[down : down + 20, across : across + 20] = LESION
        predictions.append(
            NewMask(
                image_id=image.id,
                content_hash=workspace.store_mask(mask),
                width=SIDE,
                height=SIDE,
                mapping="same",
                classes=[0, 1, 2, 3, 4],
                protocol_version="1.0",
                model_version_id=model.id,
                uncertainty=0.01,
            )
        )
    workspace.catalogue.masks.add_predictions(predictions)
    workspace.catalogue.close()
    return root
