"""Phantoms with all five classes, and predictions as of a weak model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from annotation_protocol.phantoms.phantoms import TONES, Phantom, draw_scene, render
from ddiseg.catalogue import NewMask, NewModelVersion
from ddiseg.catalogue.tables import Image
from ddiseg.masks import Mask
from ddiseg.workspace.workspace import Workspace


def five_classes(seed: int, size: int) -> Phantom:
    rng = np.random.default_rng(seed)
    scene = replace(draw_scene(rng, TONES[seed % len(TONES)]), marker=True, ruler=True, cloth=True)
    return render(scene, rng, size)


def ragged(mask: Mask, by: int) -> Mask:
    """Each pixel taken from a random place up to `by` pixels away."""
    rng = np.random.default_rng(0)
    rows, columns = (
        np.clip(axis + rng.integers(-by, by + 1, mask.shape), 0, length - 1)
        for axis, length in zip(np.ogrid[: mask.shape[0], : mask.shape[1]], mask.shape, strict=True)
    )
    return mask[rows, columns]


def predict(workspace: Workspace, images: Sequence[Image], digests: Sequence[str]) -> None:
    """Stored masks, by their hashes, as a model's predictions of `images`."""
    nothing = hashlib.sha256(b"").hexdigest()
    version = NewModelVersion(nothing, "none", nothing, {}, [], {"absent_classes": []}, "1.0")
    model = workspace.catalogue.models.add(version, "benchmark")
    workspace.catalogue.masks.add_predictions(
        [
            NewMask(
                image_id=image.id,
                content_hash=digest,
                width=image.width,
                height=image.height,
                mapping="same",
                classes=[0, 1, 2, 3, 4],
                protocol_version="1.0",
                model_version_id=model.id,
                uncertainty=0.01,
            )
            for image, digest in zip(images, digests, strict=True)
        ]
    )
