"""Join pictures of one photograph from left to right into one PNG, with a caption above each.

Arrays: pictures (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from annotation_protocol.files import atomic_write
from ddiseg.errors import InputError

#: Longest edge of a panel, in pixels: enough for a screen.
LARGEST = 1024

_LINE = 20  #: height of a line of text, in pixels
_GAP = 8


def fitted(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `photograph` at the size of a panel: shrunk where it is larger than LARGEST."""
    picture = Pillow.fromarray(photograph)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def join_panels(
    panels: Sequence[tuple[str, NDArray[np.uint8]]], title: Sequence[str] = ()
) -> bytes:
    """Return a PNG of the panels from left to right.

    Args:
        panels: caption and picture of each, the pictures of one size.
        title: lines above all of them.
    """
    height, width, _ = panels[0][1].shape
    above = _LINE * len(title) + _GAP * bool(title)
    size = len(panels) * (width + _GAP) - _GAP, above + _LINE + _GAP + height
    canvas = Pillow.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(16)
    for number, line in enumerate(title):
        draw.text((4, 4 + number * _LINE), line, fill="black", font=font)
    for number, (caption, picture) in enumerate(panels):
        left = number * (width + _GAP)
        draw.text((left + 4, above + 4), caption, fill="black", font=font)
        canvas.paste(Pillow.fromarray(picture), (left, above + _LINE + _GAP))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def write_new(path: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        InputError: the file exists, or it can't be written.
    """
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file")
    try:
        atomic_write(path, data)
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror}): name a file in a folder that exists"
        ) from error
