"""Rows of images and masks, made from numbers."""

from __future__ import annotations

import hashlib
from typing import Any

from ddiseg.catalogue import Details, NewImage, NewMask

HEIGHT, WIDTH = 6, 8


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def new_image(number: int, *, perceptual_hash: str | None = None, **details: Any) -> NewImage:
    """Return a row for 000007.png, say, that resembles no other number's."""
    return NewImage(
        path=f"{number:06d}.png",
        file_hash=digest(f"file {number}"),
        size=100,
        modified_ns=1_700_000_000_000_000_000 + number,
        content_hash=digest(f"image {number}"),
        perceptual_hash=perceptual_hash or digest(f"look {number}")[:16],
        width=WIDTH,
        height=HEIGHT,
        details=Details(**details),
    )


def new_mask(image_id: int, annotator: str | None, pixels: str = "a", **columns: Any) -> NewMask:
    """Return a row of a person's mask; with annotator=None of a model's."""
    return NewMask(
        image_id=image_id,
        content_hash=digest(f"mask {pixels}"),
        width=WIDTH,
        height=HEIGHT,
        mapping="same",
        classes=[0, 1, 2, 3, 4],
        protocol_version="1.0",
        annotator=annotator,
        **columns,
    )
